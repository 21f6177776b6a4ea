"""Choosing a head's threshold on validation images.

The threshold of the best Dice coefficient gives the masks that agree best with the reference. Vessels have a second threshold, for twigs,
and a pair of thresholds that leaves neither their length nor their area biased (:mod:`retsam.evaluation.twigs`). Lesions have a second one
for whether there is one (:func:`peak_threshold`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from retsam.evaluation.histogram import BINS, Histogram
from retsam.segmentation.postprocess import drop_faint, drop_specks

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


PEAKS = (0.6, 0.7, 0.8, 0.85, 0.9)
"""Candidates for what a lesion must reach somewhere. No higher: on photographs that it learned from a network is surer than on others."""
PEAK_COST = 0.002
"""What the Dice coefficient may lose by it."""
SPECKS = 1.0
"""Lesions that a healthy photograph may show."""


def peak_threshold(
    drawn: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    healthy: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    threshold: float,
    smallest: int,
) -> float | None:
    """What a lesion must reach somewhere to count (:func:`retsam.segmentation.postprocess.drop_faint`), so that healthy eyes show few.

    Parameters
    ----------
    drawn : sequence of (probability, truth, known)
        Images with lesions.
    healthy : dict of str to sequence of (probability, fov)
        Images without, by data set; each data set counts once.
    threshold : float
        Of the lesion's extent.
    smallest : int
        Components of fewer pixels are specks anyway.

    Returns
    -------
    float or None
        The lowest candidate at which healthy images show one lesion each on average, or the highest whose pooled Dice coefficient
        over the drawn images is within the cost; None where they show no more without, or every candidate costs more.
    """

    def shown(peak: float) -> float:
        counts = [[_count(found(p, fov, peak)) for p, fov in images] for images in healthy.values()]
        return float(np.mean([np.mean(group) for group in counts]))

    def found(probability: np.ndarray, fov: np.ndarray, peak: float) -> np.ndarray:
        return drop_faint(drop_specks((probability >= threshold) & fov, smallest), probability, peak)

    def overlap(peak: float) -> float:
        masks = [(found(p, known, peak), truth & known) for p, truth, known in drawn]
        return 2 * sum((m & t).sum() for m, t in masks) / max(sum(m.sum() + t.sum() for m, t in masks), 1)

    chosen, without = None, overlap(0.0)
    if not healthy or shown(0.0) <= SPECKS:
        return None
    for peak in (value for value in PEAKS if value > threshold):
        if overlap(peak) < without - PEAK_COST:
            break
        chosen = peak
        if shown(peak) <= SPECKS:
            break
    return chosen


def _count(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1
