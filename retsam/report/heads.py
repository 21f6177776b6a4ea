"""Which structures the model segments, how each head was trained, and how well it was measured to do it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from retsam.report.study import Problem, Study
from retsam.segmentation.targets import CATEGORY, TARGETS, TASK_OF

#: Metric of the evaluation -> how it is printed.
METRICS = {
    "dsc": "Dice",
    "jac": "Jaccard",
    "dsc_stored": "Dice of the stored mask",
    "cldice": "clDice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "aupr": "AUPR",
    "artery_vein_accuracy": "artery/vein accuracy on drawn vessels",
    "artery_vein_accuracy_found": "artery/vein accuracy on vessels found",
    "accuracy": "accuracy",
    "distance_dd": "distance (DD)",
    "within_0.25_dd": "share within 0.25 DD",
    "within_0.5_dd": "share within 0.5 DD",
    "vcdr_error": "vertical CDR error",
    "vcdr_bias": "bias",
    "image_auc": "AUC for photographs with any",
    "auc": "AUC",
}

#: The few metrics that the page prints; all of them stand in tables/report/head_scores.csv. The places only where nothing was drawn.
SHOWN = ("dsc", "artery_vein_accuracy_found", "vcdr_error", "vcdr_bias", "image_auc", "auc")
PLACES = ("distance_dd", "within_0.25_dd")


@dataclass(frozen=True)
class Score:
    """One metric of one head on one data set, with its confidence interval where the card has one."""

    dataset: str
    metric: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None

    def text(self) -> str:
        """``Dice 0.80 (0.79 to 0.81)``."""
        interval = "" if self.ci_low is None or self.ci_high is None else f" ({self.ci_low:.2f} to {self.ci_high:.2f})"
        return f"{METRICS.get(self.metric, self.metric.replace('_', ' '))} {self.value:.2f}{interval}".replace("-", "\u2212")


@dataclass(frozen=True)
class Head:
    """One target of the taxonomy."""

    target: str
    category: str
    task: str
    status: str
    scores: tuple[Score, ...] = field(default=())
    trained_on: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """One line a data set: ``drive (n = 20): Dice 0.80 (0.79 to 0.81)``, of few metrics (a lesion's AUPR among them)."""
        shown: dict[str, list[Score]] = {}
        for score in self.scores:
            drawn = any(s.dataset == score.dataset and s.metric == "dsc" for s in self.scores)
            if score.metric in SHOWN or (score.metric in PLACES and not drawn) or (score.metric == "aupr" and self.category == "lesion"):
                shown.setdefault(score.dataset, []).append(score)
        return [
            f"{name}" + (f" (n = {found[0].n})" if found[0].n else "") + ": " + ", ".join(s.text() for s in found)
            for name, found in shown.items()
        ]


def store_attributes(study: Study) -> dict[str, Any]:
    """Attributes that all mask stores of the study share; a fault where they disagree."""
    shared: dict[str, Any] = {}
    for path in study.stores:
        try:
            attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        except (OSError, ValueError) as error:
            study.problems.append(Problem("fault", f"masks/{path.name} cannot be read ({error})."))
            continue
        mine = {k: attributes.get(k) for k in ("model", "weights_sha256", "target_status", "retsam_version", "frame_side", "thresholds")}
        if not shared:
            shared = mine
        elif mine["weights_sha256"] != shared["weights_sha256"]:
            study.problems.append(
                Problem(
                    "fault",
                    f"masks/{path.name} was made with other weights than the stores before it, so its biomarkers are not comparable.",
                )
            )
    return shared


def model_card(study: Study, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The card of the weights that the study names; empty where it does not exist, or where the masks were made with other weights."""
    from retsam.provenance import file_sha256, weights_file

    weights = weights_file(SimpleNamespace(weights=(study.settings.get("segmentation") or {}).get("weights")))
    path = weights.with_suffix(".json")
    if not path.is_file():
        return {}
    used = attributes.get("weights_sha256")
    if used and weights.is_file() and file_sha256(weights) != used:
        text = (
            f"The masks were made with other weights ({str(used)[:12]}) than those of {weights.name} here, so no scores of heads are shown."
        )
        study.problems.append(Problem("warning", text))
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        study.problems.append(Problem("warning", f"The model card {path.name} cannot be read ({error})."))
        return {}


def heads(attributes: Mapping[str, Any], card: Mapping[str, Any]) -> list[Head]:
    """Every target with its status in the stores (else in the card) and its scores in the card."""
    status = attributes.get("target_status") or {t: (card.get("heads") or {}).get(t, {}).get("status", "not_available") for t in TARGETS}
    own = card.get("heads") or {}
    return [
        Head(
            target=t,
            category=CATEGORY[t],
            task=TASK_OF[t],
            status=status.get(t, "not_available"),
            scores=tuple(_scores(card, t)),
            trained_on=tuple(str(d) for d in (own.get(t) or {}).get("trained_on") or ()),
        )
        for t in TARGETS
    ]


def _scores(card: Mapping[str, Any], target: str) -> list[Score]:
    """Scores of the head's own entry and of the card's evaluation, which share one form: data set -> metric -> value with interval."""
    own = (card.get("heads") or {}).get(target, {})
    sources: list[tuple[str, Any]] = list(own["scores"].items()) if isinstance(own.get("scores"), Mapping) else []
    for key in ("scores", "evaluation"):
        if isinstance(card.get(key), Mapping):
            sources += [
                (name, by_target[target]) for name, by_target in card[key].items() if isinstance(by_target, Mapping) and target in by_target
            ]
    found = [_score(name, m, v) for name, metrics in sources if isinstance(metrics, Mapping) for m, v in metrics.items()]
    return list(dict.fromkeys(s for s in found if s is not None))


def _score(dataset: str, metric: str, value: Any) -> Score | None:
    """A score, or None where the card's entry is not one."""
    entry = value if isinstance(value, Mapping) else {"value": value}
    if isinstance(entry.get("value"), bool) or not isinstance(entry.get("value"), (int, float)):
        return None
    low, high = (entry[k] if isinstance(entry.get(k), (int, float)) else None for k in ("ci_low", "ci_high"))
    return Score(dataset, metric, float(entry["value"]), low, high, entry.get("n"))


def weak_targets(study: Study) -> set[str]:
    """Targets of the study whose heads were trained without drawn masks."""
    attributes = store_attributes(study)
    return {h.target for h in heads(attributes, model_card(study, attributes)) if h.status == "weak"}
