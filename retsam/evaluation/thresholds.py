"""Choosing a head's threshold on validation images.

Two choices answer two questions. The threshold of the best Dice coefficient gives the masks that agree best with the reference. The
threshold of unbiased area gives masks that neither over- nor under-measure on the whole, which is what a biomarker of area wants. The
curve of Dice is flat at its top, so that one can mostly have both: :func:`least_biased`. Of vessels, area is not all: with the area right,
thin ones are missing and thick ones too wide. :func:`twig_threshold` brings the length back, as lines that cost next to no overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from skimage.morphology import skeletonize

from retsam.evaluation.histogram import BINS, Histogram
from retsam.evaluation.metrics import centreline_dice
from retsam.segmentation.postprocess import vessel_mask

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
    return _top(curve)


def best_mean_dice(groups: Mapping[str, Sequence[Histogram]]) -> tuple[float, float]:
    """One threshold for several data sets: that of the highest mean Dice coefficient, each data set counting once.

    Not the middle of each one's best threshold: where a data set's curve is flat, its best says next to nothing, and where it is
    steep, missing it costs much.

    Parameters
    ----------
    groups : dict of str to sequence of Histogram

    Returns
    -------
    threshold, dice : float

    Raises
    ------
    ValueError
        If no image has a reference pixel.
    """
    drawn = [positive for group in groups.values() if (positive := [h for h in group if h.positive.sum() > 0])]
    if not drawn:
        raise ValueError("no validation image has a reference pixel of this target: there is no threshold to choose")
    return _top(np.mean([np.mean([h.dice() for h in group], axis=0) for group in drawn], axis=0))


def _top(curve: np.ndarray) -> tuple[float, float]:
    """Middle of the flat top of a curve over :data:`THRESHOLDS`, and the curve there."""
    top = int(np.nanargmax(curve))
    low = high = top
    while low > 1 and curve[low - 1] >= curve[top] - 5e-4:
        low -= 1
    while high < BINS - 1 and curve[high + 1] >= curve[top] - 5e-4:
        high += 1
    middle = (low + high) // 2
    return float(THRESHOLDS[middle]), float(curve[middle])


def least_biased(histograms: Sequence[Histogram], tolerance: float = 0.001) -> tuple[float, float]:
    """Threshold of the least biased area among those whose mean Dice coefficient is within a tolerance of the best.

    Returns
    -------
    threshold : float
    ratio : float
        Predicted over reference area there.

    Raises
    ------
    ValueError
        If no image has a reference pixel.
    """
    best_dice(histograms)  # refuses what has no answer
    curve = np.mean([h.dice() for h in histograms if h.positive.sum() > 0], axis=0)
    total = sum(histograms, Histogram.empty())
    true, false = total.at_least()
    ratio = (true + false) / total.positive.sum()
    allowed = np.flatnonzero(curve >= np.nanmax(curve) - tolerance)
    allowed = allowed[allowed > 0] if (allowed > 0).any() else allowed
    best = int(allowed[np.argmin(np.abs(np.log(np.maximum(ratio[allowed], 1e-12))))])
    return float(THRESHOLDS[best]), float(ratio[best])


TWIG_THRESHOLDS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05)
"""Candidates, as shares of probability; a network that knows nothing says about 0.03."""
TWIG_COST = (0.002, 0.005)
"""What the Dice coefficient and clDice of any data set may lose by twigs."""


def twig_threshold(
    groups: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]],
    threshold: float,
    cost: tuple[float, float] = TWIG_COST,
) -> float | None:
    """Threshold of faint vessels (:func:`retsam.segmentation.postprocess.vessel_mask`) that brings the length of vessels back.

    Parameters
    ----------
    groups : dict of str to sequence of (probability, truth, known)
        Images by data set; each data set counts once. ``known``: pixels that count.
    threshold : float
        Of sure vessels.
    cost : tuple of float
        What the Dice coefficient and clDice of any data set may lose.

    Returns
    -------
    float or None
        Of the candidates within the cost, the one with the least mean bias of length over data sets (absolute logarithm of predicted
        over reference centreline); None where sure vessels alone are no worse.
    """
    drawn = {name: [(p, t & k, k, skeletonize(t & k)) for p, t, k in images] for name, images in groups.items()}

    def scores(twigs: float | None) -> tuple[np.ndarray, float]:
        overlap, bias = [], []
        for images in drawn.values():
            each, lengths = [], np.zeros(2)
            for probability, truth, known, centre in images:
                mask = vessel_mask(probability, known, threshold, twigs)
                line = skeletonize(mask)
                centreline = centreline_dice(line.sum(), (line & truth).sum(), centre.sum(), (centre & mask).sum())
                each.append((2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1), centreline))
                lengths += line.sum(), centre.sum()
            overlap.append(np.nanmean(each, 0))
            bias.append(abs(np.log(max(lengths[0], 1) / max(lengths[1], 1))))
        return np.array(overlap), float(np.mean(bias))

    least, (without, best) = None, scores(None)
    for twigs in (value for value in TWIG_THRESHOLDS if value < threshold):
        overlap, bias = scores(twigs)
        if (overlap < without - cost).any():
            break  # a lower one adds only less certain pixels
        if bias < best:
            least, best = twigs, bias
    return least


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
