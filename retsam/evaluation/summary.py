"""Means over images, pooled scores and bootstrap intervals over groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from retsam.evaluation.histogram import average_precision
from retsam.evaluation.metrics import roc_auc
from retsam.evaluation.scoring import ImageScore

Counts = dict[str, np.ndarray]


def _ratio(a, b) -> np.ndarray:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _pooled_cldice(c: Counts) -> np.ndarray:
    precision = _ratio(c["skeleton_predicted_in"], c["skeleton_predicted"])
    sensitivity = _ratio(c["skeleton_reference_in"], c["skeleton_reference"])
    return _ratio(2 * precision * sensitivity, precision + sensitivity)


POOLED: dict[str, Callable[[Counts], np.ndarray]] = {
    "dsc": lambda c: _ratio(2 * c["tp"], 2 * c["tp"] + c["fp"] + c["fn"]),
    "dsc_stored": lambda c: _ratio(2 * c["stored_tp"], 2 * c["stored_tp"] + c["stored_fp"] + c["stored_fn"]),
    "jac": lambda c: _ratio(c["tp"], c["tp"] + c["fp"] + c["fn"]),
    "sensitivity": lambda c: _ratio(c["tp"], c["tp"] + c["fn"]),
    "precision": lambda c: _ratio(c["tp"], c["tp"] + c["fp"]),
    "cldice": _pooled_cldice,
    "accuracy": lambda c: _ratio(c["av_right"], c["av_n"]),
    "accuracy_found": lambda c: _ratio(c["av_found_right"], c["av_found_n"]),
    "artery_accuracy": lambda c: _ratio(c["av_artery_right"], c["av_artery_n"]),
    "vein_accuracy": lambda c: _ratio(c["av_vein_right"], c["av_vein_n"]),
}
"""Metric -> its value of pixel counts summed over images."""


class Bootstrap:
    """Resampling of groups (subjects, photographs shown twice), the same for every metric of a data set.

    Parameters
    ----------
    groups : sequence of str
        Group of each image.
    n : int
        Resamples.
    seed : int
    """

    def __init__(self, groups, n: int = 1000, seed: int = 0):
        self.codes, names = pd.factorize(pd.Series(groups, dtype=object))
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
        self.weights = drawn[:, self.codes].astype(np.float32)  # [n, images]

    def count(self, images) -> int:
        """Groups among some images (a mask or positions)."""
        return len(np.unique(self.codes[images]))

    def interval(self, values: np.ndarray, images) -> tuple[float, float]:
        """Percentile interval, 95 %, of values resampled from some images.

        NaN where they are all of one group, which tells nothing of its like, and where fewer than half of the resamples have a value.
        """
        values = np.asarray(values, float)
        finite = values[np.isfinite(values)]
        if self.count(images) < 2 or len(finite) < len(values) / 2:
            return np.nan, np.nan
        low, high = np.percentile(finite, (2.5, 97.5))
        return float(low), float(high)


def _clean(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 6)


def _entry(value: float, interval, images, pooled, bootstrap: Bootstrap) -> dict[str, float | int | None]:
    """One metric's entry; ``images`` (positions) and ``pooled`` (value, interval, positions) are what it rests on."""
    numbers = dict(value=value, pooled=pooled[0], ci_low=interval[0], ci_high=interval[1])
    numbers |= dict(pooled_ci_low=pooled[1][0], pooled_ci_high=pooled[1][1])
    counts = {"n": len(images), "n_pooled": len(pooled[2]), "n_groups": bootstrap.count(images)}
    return {name: _clean(v) for name, v in numbers.items()} | counts


def summarise(scores: list[ImageScore], groups: list[str], resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, dict]]:
    """Scores of one data set.

    Parameters
    ----------
    scores : list of ImageScore
    groups : list of str
        Group of each; groups are resampled, never images of one group apart.
    resamples : int
    seed : int

    Returns
    -------
    dict
        ``{target: {metric: {value, pooled, ci_low, ci_high, pooled_ci_low, pooled_ci_high, n, n_pooled, n_groups}}}``. ``value`` is the
        mean over the ``n`` images of ``n_groups`` groups on which the metric is defined, with its 95 % interval; ``pooled`` is the metric
        of all pixels of ``n_pooled`` images together (of quantities that an image has one of, such as a distance, it is the mean). One
        group has no interval. Of ``image_auc`` both are the area under the ROC curve over images: by the mean of the highest
        probabilities, ``image_auc_area`` by the predicted area.
    """
    bootstrap = Bootstrap(groups, resamples, seed)
    targets = list(dict.fromkeys(t for s in scores for t in (*s.values, *s.presence)))
    out: dict[str, dict[str, dict]] = {}
    for target in targets:
        out[target] = _target(scores, target, bootstrap)
    return {target: metrics for target, metrics in out.items() if metrics}


def _target(scores: list[ImageScore], target: str, bootstrap: Bootstrap) -> dict[str, dict]:
    names = list(dict.fromkeys(name for s in scores for name in s.values.get(target, {})))
    table = np.array([[s.values.get(target, {}).get(name, np.nan) for name in names] for s in scores]).reshape(len(scores), len(names))
    out = {}
    for k, name in enumerate(names):
        column = table[:, k]
        known = np.isfinite(column)
        filled = np.where(known, column, 0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a resample may hold no image with a value
            means = (bootstrap.weights @ filled) / (bootstrap.weights @ known)
        images = np.flatnonzero(known)
        interval = bootstrap.interval(means, images)
        value = float(column[known].mean()) if known.any() else np.nan
        pooled = _pooled(scores, target, name, bootstrap) or (value, interval, images)
        out[name] = _entry(value, interval, images, pooled, bootstrap)
    out |= _image_level(scores, target, bootstrap)
    return out


def _pooled(scores: list[ImageScore], target: str, name: str, bootstrap: Bootstrap):
    """Value of all pixels together, its interval and the images' positions; None where the metric is not one of pixels."""
    if name == "aupr":
        rows = [i for i, s in enumerate(scores) if target in s.histograms]
        positive = np.stack([scores[i].histograms[target].positive for i in rows]).astype(np.float32)
        negative = np.stack([scores[i].histograms[target].negative for i in rows]).astype(np.float32)
        drawn = bootstrap.weights[:, rows]
        value = average_precision(positive.sum(0, dtype=float), negative.sum(0, dtype=float))
        return float(value), bootstrap.interval(average_precision(drawn @ positive, drawn @ negative), rows), rows
    rows = [i for i, s in enumerate(scores) if target in s.counts]
    if name not in POOLED or not rows:
        return None
    keys = list(next(s.counts[target] for s in scores if target in s.counts))
    counts = np.array([[s.counts.get(target, {}).get(key, 0) for key in keys] for s in scores], float)
    drawn = bootstrap.weights.astype(float) @ counts
    value = POOLED[name](dict(zip(keys, counts.sum(0), strict=True)))
    return float(value), bootstrap.interval(POOLED[name](dict(zip(keys, drawn.T, strict=True))), rows), rows


def _image_level(scores: list[ImageScore], target: str, bootstrap: Bootstrap) -> dict[str, dict]:
    rows = [i for i, s in enumerate(scores) if target in s.presence]
    labels = np.array([scores[i].presence[target][2] for i in rows], bool)
    if not labels.any() or labels.all():
        return {}
    out = {}
    for k, name in enumerate(("image_auc", "image_auc_area")):
        values = np.array([scores[i].presence[target][k] for i in rows])
        drawn = [roc_auc(values, labels, weights) for weights in bootstrap.weights[:, rows].astype(float)]
        value, interval = roc_auc(values, labels), bootstrap.interval(np.array(drawn), rows)
        out[name] = _entry(value, interval, rows, (value, interval, rows), bootstrap)
    return out
