"""Choosing a head's threshold on validation images.

Two choices answer two questions. The threshold of the best Dice coefficient gives the masks that agree best with the reference. The
threshold of unbiased area gives masks that neither over- nor under-measure on the whole, which is what a biomarker of area wants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retsam.evaluation.histogram import BINS, Histogram

THRESHOLDS = np.arange(BINS) / BINS
"""Candidate thresholds: a pixel is in the mask where its probability is at least this."""


def best_dice(histograms: Sequence[Histogram], pooled: bool = False) -> tuple[float, float]:
    """Threshold of the highest Dice coefficient.

    Parameters
    ----------
    histograms : sequence of Histogram
        One an image. Images without a reference pixel count only when pooled: their Dice coefficient is undefined.
    pooled : bool
        Over all pixels, instead of the mean over images. For small lesions the mean follows images with three pixels.

    Returns
    -------
    threshold, dice : float
        Where the curve is flat (within 0.0005 of its top), the middle of the flat part: the choice that a shift of calibration
        harms least.

    Raises
    ------
    ValueError
        If no image has a reference pixel.
    """
    positive = [h for h in histograms if h.positive.sum() > 0]
    if not positive:
        raise ValueError("no validation image has a reference pixel of this target: there is no threshold to choose")
    curve = sum(histograms, Histogram.empty()).dice() if pooled else np.mean([h.dice() for h in positive], axis=0)
    top = int(np.nanargmax(curve))
    low = high = top
    while low > 1 and curve[low - 1] >= curve[top] - 5e-4:
        low -= 1
    while high < BINS - 1 and curve[high + 1] >= curve[top] - 5e-4:
        high += 1
    middle = (low + high) // 2
    return float(THRESHOLDS[middle]), float(curve[middle])


def unbiased_area(histograms: Sequence[Histogram]) -> tuple[float, float]:
    """Threshold at which the predicted pixels, over all images, are as many as the reference's.

    Returns
    -------
    threshold : float
    ratio : float
        Predicted over reference area at that threshold (1 but for the width of a bin).

    Raises
    ------
    ValueError
        If no image has a reference pixel.
    """
    total = sum(histograms, Histogram.empty())
    reference = int(total.positive.sum())
    if not reference:
        raise ValueError("no validation image has a reference pixel of this target: there is no threshold to choose")
    true, false = total.at_least()
    ratio = (true + false) / reference
    best = 1 + int(np.argmin(np.abs(np.log(np.maximum(ratio[1:], 1e-12)))))  # threshold 0 would take every pixel
    return float(THRESHOLDS[best]), float(ratio[best])


def sweep(histograms: Sequence[Histogram], thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Pooled Dice, precision, sensitivity and area ratio at given thresholds, for a table or a plot."""
    total = sum(histograms, Histogram.empty())
    true, false = total.at_least()
    reference = int(total.positive.sum())
    rows = []
    for threshold in thresholds:
        k = min(max(int(np.ceil(threshold * BINS)), 0), BINS - 1)
        tp, fp = float(true[k]), float(false[k])
        rows.append(
            {
                "threshold": float(threshold),
                "dsc": 2 * tp / (tp + fp + reference) if tp + fp + reference else np.nan,
                "precision": tp / (tp + fp) if tp + fp else np.nan,
                "sensitivity": tp / reference if reference else np.nan,
                "area_ratio": (tp + fp) / reference if reference else np.nan,
            }
        )
    return rows
