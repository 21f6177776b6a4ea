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
    "sensitivity": "sensitivity",
    "precision": "precision",
    "aupr": "AUPR",
    "av_accuracy": "artery/vein accuracy",
    "accuracy": "accuracy",
    "distance_dd": "distance (DD)",
    "vcdr_error": "vertical CDR error",
    "auc": "AUC",
}


@dataclass(frozen=True)
class Head:
    """One target of the taxonomy."""

    target: str
    category: str
    task: str
    status: str
    scores: tuple[str, ...] = field(default=())
    trained_on: tuple[str, ...] = field(default=())


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


def _scores(card: Mapping[str, Any], target: str) -> list[str]:
    """``Dice 0.81 (0.80 to 0.82) on drive, n = 20`` from the head's own scores or from the card's evaluation, which share one form."""
    found = []
    own = (card.get("heads") or {}).get(target, {})
    sources: list[tuple[str, Any]] = []
    if isinstance(own.get("scores"), Mapping):
        sources += list(own["scores"].items())
    for key in ("scores", "evaluation"):
        if isinstance(card.get(key), Mapping):
            sources += [
                (name, by_target[target]) for name, by_target in card[key].items() if isinstance(by_target, Mapping) and target in by_target
            ]
    for name, metrics in sources:
        if not isinstance(metrics, Mapping):
            if isinstance(metrics, (int, float)):
                found.append(f"{METRICS.get(name, name)} {metrics:.2f}")
            continue
        for metric, value in metrics.items():
            text = _score(metric, value)
            if text:
                found.append(f"{text} on {name}" + (f", n = {value['n']}" if isinstance(value, Mapping) and value.get("n") else ""))
    return list(dict.fromkeys(found))


def _score(metric: str, value: Any) -> str | None:
    name = METRICS.get(metric, metric.replace("_", " "))
    if isinstance(value, Mapping):
        if not isinstance(value.get("value"), (int, float)):
            return None
        interval = (
            f" ({value['ci_low']:.2f} to {value['ci_high']:.2f})"
            if isinstance(value.get("ci_low"), (int, float)) and isinstance(value.get("ci_high"), (int, float))
            else ""
        )
        return f"{name} {value['value']:.2f}{interval}"
    return f"{name} {value:.2f}" if isinstance(value, (int, float)) and not isinstance(value, bool) and metric in METRICS else None
