"""Thresholds of a run's heads and what confidence to have in their masks, from photographs of its training part."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.evaluation.histogram import Histogram
from retsam.evaluation.thresholds import best_dice, best_mean_dice, peak_threshold
from retsam.evaluation.twigs import twig_threshold, unbiased_thresholds
from retsam.quality.field_of_view import detect_field_of_view
from retsam.segmentation import postprocess
from retsam.segmentation.consistency import smooth_classes
from retsam.segmentation.predict import Prediction, Segmenter, prepare
from retsam.segmentation.targets import PEAK, PEAKED, TASKS
from retsam.training import labels as lab
from retsam.training.config import TrainConfig
from retsam.training.frames import read_manifest, warp_bits

log = logging.getLogger(__name__)

CHOSEN = ("calibration", "pens", "twigs", "pen_twigs", "unbiased", "peak")
"""What :func:`calibrate` puts into the part of a head in the card, beside its threshold."""
# Range of the gain from expected to observed Dice.
_GAIN = (0.5, 2.0)

HEADS = {
    "artery": ("vessels", lab.VESSEL_BITS["artery"], lab.VESSEL_BITS["known_av"]),
    "vein": ("vessels", lab.VESSEL_BITS["vein"], lab.VESSEL_BITS["known_av"]),
    "vessel": ("vessels", lab.VESSEL_BITS["vessel"], lab.VESSEL_BITS["known_vessel"]),
    "disc": ("optic_nerve", lab.NERVE_BITS["disc"], lab.NERVE_BITS["known_disc"]),
    "cup": ("optic_nerve", lab.NERVE_BITS["cup"], lab.NERVE_BITS["known_cup"]),
    **{name: ("lesions_dr", bit, lab.LESION_BITS["known"]) for name, bit in lab.LESION_BITS.items() if name != "known"},
}
"""Head -> its task, its bit of a label, and the bit that says where it is known."""


def calibrate(config: TrainConfig, segmenter: Segmenter, per_dataset: int = 12, seed: int = 0) -> dict[str, dict]:
    """Threshold and confidence calibration of each head, from photographs of the training data sets.

    Thresholds are the best for the Dice of a data set's photographs at their own size, then the middle over data sets; of vessels the
    one with the best mean Dice over data sets. All on photographs of the run's training part (augmented training leaves no optimistic
    margin worth a second held-out part; the held-out parts stay unseen for the scores). Of lesions over all pixels, with those of as many
    healthy photographs of each of the task's ``negatives``: photographs with lesions alone would let every eye of a cohort show specks.
    For twigs, the one that brings most of the length back within what a data set may lose by them
    (:data:`retsam.evaluation.twigs.TWIG_COST`). Beside these, and in a pen instead of them, the thresholds of vessels and of twigs with
    the least bias of length and area together (:func:`retsam.evaluation.twigs.unbiased_thresholds`).

    Returns
    -------
    dict
        Head -> ``threshold``, ``calibration`` (gain, offset) from expected to observed Dice where enough photographs allow it, of vessels
        ``twigs``, ``unbiased`` (``threshold``, ``twigs``), ``pens`` and ``pen_twigs`` (pen -> threshold) where there are pens, and of
        lesions ``peak`` (:func:`retsam.evaluation.thresholds.peak_threshold`). A head that none of the photographs shows is not among
        them; a warning names it. Heads that the segmenter's card leaves out are not either.

    Raises
    ------
    ValueError
        If a task has no photograph that can choose thresholds.
    """
    manifest = read_manifest(config)
    train = manifest[~manifest["held_out"]]
    histograms: dict[str, dict[str, list[Histogram]]] = {name: {} for name in HEADS}
    photographs: list[_Photograph] = []
    vessels: dict[bool, dict[str, list]] = {False: {}, True: {}}
    healthy: dict[str, list[_Photograph]] = {}
    pixels: list[int] = []
    for task, groups in _choosing_rows(config, train).items():
        settings = config.tasks[task]
        for dataset, rows in groups.items():
            rows = rows.sample(min(per_dataset, len(rows)), random_state=seed)
            for row in tqdm(rows.to_dict("records"), desc=f"calibrate {task} {dataset}", mininterval=10):
                prediction, label, native = _predict_with_label(config, segmenter, row, task)
                for name, histogram in _native_histograms(task, prediction, native):
                    histograms[name].setdefault(dataset, []).append(histogram)
                if settings.negatives:
                    pixels.append(int(np.count_nonzero(native & lab.FOV_BIT)))
                photographs.append(_Photograph.of(task, prediction, label))
                if "vessel" in photographs[-1].drawn:
                    vessels[False].setdefault(dataset, []).append(photographs[-1].pair("vessel"))
                if dataset in segmenter.pens.get(task, ()):
                    segmenter.use_pen(dataset)
                    prediction, label, _ = _predict_with_label(config, segmenter, row, task)
                    segmenter.use_pen(None)
                    inked = _Photograph.of(task, prediction, label)
                    if "vessel" in inked.drawn:
                        vessels[True].setdefault(dataset, []).append(inked.pair("vessel"))
        for dataset, fov, probabilities in _healthy(config, segmenter, task, train, per_dataset, seed) if pixels else ():
            healthy.setdefault(dataset, []).append(_Photograph.without(probabilities, fov))
            # Each with as many pixels as a drawn one has on average: a small file counts as much.
            factor = np.mean(pixels) / max(np.count_nonzero(fov), 1)
            for name, probability in probabilities.items():
                shown = Histogram.of(np.clip(probability[fov], 0, 1), np.zeros(fov.sum(), bool))
                shown = Histogram(shown.positive, np.rint(shown.negative * factor).astype(np.int64))
                for group in histograms[name].values():
                    group.append(shown)
    entries = {name: _head_entry(name, histograms[name]) for name in HEADS if _is_drawn(histograms[name])}
    if unseen := [name for name, groups in histograms.items() if groups and name not in entries]:
        log.warning(
            "no training photograph that chooses thresholds shows %s: these heads get none, and a new card leaves them out; calibrate with "
            "more photographs of each data set (--per-dataset), or with a data set that shows them",
            ", ".join(unseen),
        )
    if vessels[False] and "vessel" in entries:
        entry = entries["vessel"]
        few = {dataset: _unpacked(group[:_TWIG_PHOTOGRAPHS]) for dataset, group in vessels[False].items()}
        entry["twigs"] = twig_threshold(few, entry["threshold"])
        entry["unbiased"] = dict(zip(("threshold", "twigs"), unbiased_thresholds(few), strict=True))
        # Whoever draws as a data set's annotators did wants its widths, areas and lengths. Against thresholds of the best Dice this took
        # the mean bias of density, length, fractal dimension, CRAE and CRVE on the test parts of DRIVE, HRF and GAVE from 0.78, 0.60 and
        # 0.75 SD to 0.52, 0.25 and 0.30, for about 0.01 of Dice and 0.02 to 0.04 of clDice.
        pens = {pen: unbiased_thresholds({pen: _unpacked(group)}) for pen, group in vessels[True].items()}
        if pens:
            entry["pens"] = {pen: sure for pen, (sure, _) in pens.items()}
        entry["pen_twigs"] = {pen: twigs for pen, (_, twigs) in pens.items()}
    thresholds = {name: entry["threshold"] for name, entry in entries.items()}
    for name in (name for name in PEAKED if name in entries and healthy):
        pairs = _unpacked([photograph.pair(name) for photograph in photographs if name in photograph.drawn])
        specks = {dataset: [photograph.shown(name) for photograph in group] for dataset, group in healthy.items()}
        entries[name]["peak"] = peak_threshold(pairs, specks, thresholds[name], postprocess.SMALLEST[name])
        if entries[name]["peak"] is not None:
            thresholds[name + PEAK] = entries[name]["peak"]
    if "vessel" in entries and entries["vessel"].get("twigs") is not None:
        thresholds[postprocess.TWIGS] = entries["vessel"]["twigs"]
    for name, calibration in _calibrations(photographs, thresholds).items():
        if name in entries:
            entries[name]["calibration"] = calibration
    return entries


# Masks that choose the thresholds of a task's heads. `av` alone says what class a vessel's pixels have, not where vessels are.
_CHOOSING = {"vessels": ["vessel"], "optic_nerve": ["disc", "disc_cup"], "lesions_dr": ["lesions"]}


def _choosing_rows(config: TrainConfig, train: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """Task -> data set -> training photographs that can choose thresholds.

    Raises
    ------
    ValueError
        If a task has none.
    """
    found: dict[str, dict[str, pd.DataFrame]] = {}
    faults = []
    for task in (task for task in config.tasks if task in lab.LABELS):
        # Close-ups are not photographs as a study has them.
        datasets = [dataset for dataset in config.tasks[task].datasets if dataset != "refuge_roi"]
        drawn = train[train["dataset"].isin(datasets) & train[_CHOOSING[task]].notna().any(axis=1)]
        found[task] = {dataset: drawn[drawn["dataset"] == dataset] for dataset in datasets if drawn["dataset"].eq(dataset).any()}
        if not found[task]:
            columns = " or ".join(f"`{column}`" for column in _CHOOSING[task])
            why = " (`av` masks alone say what class a vessel has, not where vessels are)" if task == "vessels" else ""
            faults.append(f"task {task}: expected {columns} masks of training photographs of {datasets}, found none{why}")
    if faults:
        raise ValueError("no threshold can be chosen, and heads without one cannot be used:\n  " + "\n  ".join(faults))
    return found


@dataclass
class _Photograph:
    """What is left of a prediction and its label once thresholds are known, small enough to keep a hundred of."""

    probabilities: dict[str, np.ndarray]
    fov: np.ndarray
    drawn: dict[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, task: str, prediction: Prediction, label: np.ndarray) -> _Photograph:
        planes = {name: prediction.probabilities[name].astype(np.float16) for name in TASKS[task] if name in prediction.probabilities}
        heads = ((name, truth, known) for name, truth, known in _drawn_heads(task, label) if name in planes)
        drawn = {name: (np.packbits(truth & known), np.packbits(known)) for name, truth, known in heads}
        return cls(planes, np.packbits(prediction.fov), drawn)

    @classmethod
    def without(cls, probabilities: dict[str, np.ndarray], fov: np.ndarray) -> _Photograph:
        """A photograph on which there is nothing to draw."""
        return cls({name: plane.astype(np.float16) for name, plane in probabilities.items()}, np.packbits(fov), {})

    def shown(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Probability, and the field of view."""
        return self.probabilities[name].astype(np.float32), _unpack(self.fov, self.probabilities[name].shape)

    def pair(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth and where it is known, as bits, and probability."""
        return (*self.drawn[name], self.probabilities[name])


def _calibrations(photographs: list[_Photograph], thresholds: dict[str, float]) -> dict[str, list[float]]:
    """Gain and offset from expected to observed Dice of each head's masks, as a store would hold them, where enough photographs allow it.

    Where only a part of a photograph was drawn, both sides count there.
    """
    expected: dict[str, list[float]] = {}
    observed: dict[str, list[float]] = {}
    for photograph in photographs:
        shape = next(iter(photograph.probabilities.values())).shape
        fov = _unpack(photograph.fov, shape)
        probabilities = {name: plane.astype(np.float32) for name, plane in photograph.probabilities.items()}
        if {"artery", "vein", "vessel"} <= probabilities.keys():
            vessel = postprocess.vessel_mask(probabilities["vessel"], fov, thresholds.get("vessel", 0.5), thresholds.get(postprocess.TWIGS))
            probabilities["artery"], probabilities["vein"] = smooth_classes(probabilities["artery"], probabilities["vein"], vessel)
        planes = postprocess.to_planes(probabilities, fov, thresholds)
        for name, bits in photograph.drawn.items():
            truth, known = (_unpack(x, shape) for x in bits)
            if truth.any():
                mask = planes[name] & known
                expected.setdefault(name, []).append(postprocess.expected_dice(np.where(known, probabilities[name], 0), mask))
                observed.setdefault(name, []).append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    out = {}
    for name, values in expected.items():
        if len(values) >= 20 and np.std(values) > 1e-3:
            gain = np.polyfit(values, observed[name], 1)[0]
            if gain > 0:
                # Expected values of good photographs lie close together; a steep line through them would call any other hopeless.
                gain = float(np.clip(gain, *_GAIN))
                out[name] = [round(gain, 4), round(float(np.mean(observed[name]) - gain * np.mean(values)), 4)]
    return out


_VESSELS = ("artery", "vein", "vessel")
# Photographs of a data set that choose the threshold of twigs: each is thinned once a candidate.
_TWIG_PHOTOGRAPHS = 6


def _unpacked(pairs: list) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Probability, truth and where it is known."""
    return [
        (probability.astype(np.float32), _unpack(truth, probability.shape), _unpack(known, probability.shape))
        for truth, known, probability in pairs
    ]


def _unpack(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits).astype(bool).reshape(shape)


def _drawn_heads(task: str, label: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Heads of a task that a label answers: name, what is drawn, where it is known."""
    for name, (owner, bit, known_bit) in HEADS.items():
        known = (label & lab.FOV_BIT > 0) & (label & known_bit > 0)
        if owner == task and known.any():
            yield name, label & bit > 0, known


def _predict_with_label(config: TrainConfig, segmenter: Segmenter, row: dict, task: str):
    rgb = _photograph(config, row)
    fov = detect_field_of_view(rgb)
    prepared = prepare(rgb, fov)
    label = lab.LABELS[task](row, config.root, rgb.shape[:2])
    native = np.where(fov.mask(), label | lab.FOV_BIT, 0).astype(np.uint8)
    return segmenter.predict_prepared([prepared])[0], warp_bits(native, prepared.frame), native


def _healthy(
    config: TrainConfig, segmenter: Segmenter, task: str, train: pd.DataFrame, per_dataset: int, seed: int
) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Data set, field of view and what the task's heads show of healthy photographs."""
    heads = [name for name, (owner, *_) in HEADS.items() if owner == task]
    for dataset in config.tasks[task].negatives:
        rows = train[train["dataset"] == dataset]
        rows = rows[rows.apply(lab.is_healthy, axis=1)]
        rows = rows.sample(min(per_dataset, len(rows)), random_state=seed)
        for row in tqdm(rows.to_dict("records"), desc=f"calibrate {task} healthy {dataset}", mininterval=10):
            prediction = segmenter.predict([_photograph(config, row)])[0]
            yield dataset, prediction.fov, {name: prediction.probabilities[name] for name in heads if name in prediction.probabilities}


def _photograph(config: TrainConfig, row: dict) -> np.ndarray:
    """RGB of a row of the manifest.

    Raises
    ------
    ValueError
        Naming the file, if it cannot be read.
    """
    bgr = cv2.imread(str(config.root / row["image"]), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{config.root / row['image']}: row of the manifest names a photograph that could not be read")
    return np.ascontiguousarray(bgr[..., ::-1])


def _native_histograms(task: str, prediction: Prediction, label: np.ndarray) -> Iterator[tuple[str, Histogram]]:
    """Heads of a task at the size of the photograph, where masks are scored: a vessel that is two pixels wide there has other
    probabilities than in a frame that enlarges it."""
    for name, truth, known in _drawn_heads(task, label):
        if name not in prediction.probabilities:  # left out of the card
            continue
        probability = prediction.frame.unwarp(np.asarray(prediction.probabilities[name], np.float32), 1)
        yield name, Histogram.of(np.clip(probability[known], 0, 1), truth[known])


def _is_drawn(histograms: dict[str, list[Histogram]]) -> bool:
    """Whether any photograph shows what the head finds: nothing else can choose a threshold."""
    return any(h.positive.sum() > 0 for group in histograms.values() for h in group)


def _head_entry(name: str, histograms: dict[str, list[Histogram]]) -> dict:
    pooled = HEADS[name][0] == "lesions_dr"
    thresholds = [best_dice(group, pooled)[0] for group in histograms.values() if any(h.positive.sum() > 0 for h in group)]
    chosen = [best_mean_dice(histograms)[0]] if name in _VESSELS else thresholds
    return {"threshold": _threshold(name, chosen), "thresholds_by_dataset": [round(t, 3) for t in thresholds]}


def _threshold(name: str, best: list[float]) -> float:
    """Mean of the best thresholds, within a range: a handful of photographs cannot tell 0.1 from 0.3 where the curve is flat, and the
    disc's is flat all along."""
    if name == "cup":
        # The best of single pixels would make ellipses (landmarks.as_drawn) too tall. At 0.5 the vertical cup-to-disc ratio is off by 0.001
        # on DRISHTI's 43 training photographs and by 0.009 on 40 of REFUGE's; at 0.4 by 0.013 and 0.026.
        return 0.5
    if name in _VESSELS:  # tens of thousands of pixels a photograph, and a loss on centrelines that lifts what is sure to 0.9
        low, high = 0.1, 0.95
    else:
        low, high = (0.4, 0.6) if HEADS[name][0] == "optic_nerve" else (0.3, 0.7)
    return round(float(np.clip(np.mean(best), low, high)), 3)
