"""Choosing the threshold of faint vessels on validation images.

With the area of vessels right, thin ones are missing and thick ones too wide. :func:`twig_threshold` brings the length back, as lines that
cost next to no overlap; :func:`unbiased_thresholds` chooses both thresholds together so that neither length nor area is biased, for a
little overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from skimage.morphology import skeletonize

from retsam.evaluation.metrics import centreline_dice
from retsam.segmentation.postprocess import vessel_mask

TWIG_THRESHOLDS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)
"""Candidates, as shares of probability; a network that knows nothing says about 0.03."""
SURE_THRESHOLDS = (0.45, 0.55, 0.65, 0.75, 0.85)
"""Candidates for sure vessels, where they are chosen together with twigs."""
UNBIASED_COST = 0.01
"""What the Dice coefficient may lose for length and area without bias."""
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
    drawn = {name: [_Drawing.of(*image) for image in images] for name, images in groups.items()}

    def scores(twigs: float | None) -> tuple[np.ndarray, float]:
        found = [_agreement(images, threshold, twigs) for images in drawn.values()]
        return np.array([each[:2] for each in found]), float(np.mean([abs(each[2]) for each in found]))

    least, (without, best) = None, scores(None)
    for twigs in (value for value in TWIG_THRESHOLDS if value < threshold):
        overlap, bias = scores(twigs)
        if (overlap < without - cost).any():
            break  # a lower one adds only less certain pixels
        if bias < best:
            least, best = twigs, bias
    return least


def unbiased_thresholds(
    groups: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]], cost: float = UNBIASED_COST
) -> tuple[float, float | None]:
    """Thresholds of sure vessels and of twigs at which neither length nor area of vessels is biased.

    One threshold moves both: where all of the length is found, trunks are too wide. Two can be set against each other.

    Parameters
    ----------
    groups : dict of str to sequence of (probability, truth, known)
        Images by data set; each data set counts once. ``known``: pixels that count.
    cost : float
        What the mean Dice coefficient over data sets may lose against the best pair.

    Returns
    -------
    threshold : float
        Of sure vessels.
    twigs : float or None
        Of the pairs within the cost, the one with the least sum of the biases of length and of area, mean over data sets (absolute
        logarithms of predicted over reference centreline and pixels); None where sure vessels alone are the least biased.

    Raises
    ------
    ValueError
        If no image has a reference pixel.
    """
    every = {name: [drawing for image in images if (drawing := _Drawing.of(*image)).truth.any()] for name, images in groups.items()}
    drawn = [images for images in every.values() if images]
    if not drawn:
        raise ValueError("no validation image has a reference pixel of this target: there is no threshold to choose")
    pairs = [(sure, twigs) for sure in SURE_THRESHOLDS for twigs in (None, *TWIG_THRESHOLDS)]
    overlap = np.array([np.mean([_overlap(images, _masks(images, *pair)) for images in drawn]) for pair in pairs])
    best, least = None, np.inf
    for index in np.flatnonzero(overlap >= overlap.max() - cost):
        bias = np.mean([_bias(images, _masks(images, *pairs[index])) for images in drawn])
        if bias < least:
            best, least = pairs[index], bias
    return best


@dataclass
class _Drawing:
    """An image with the centreline of what is drawn, thinned once for all candidates."""

    probability: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, probability: np.ndarray, truth: np.ndarray, known: np.ndarray) -> _Drawing:
        return cls(probability, truth & known, known, skeletonize(truth & known))


def _agreement(images: Sequence[_Drawing], threshold: float, twigs: float | None) -> tuple[float, float, float]:
    """Mean Dice coefficient and clDice over images, and the logarithm of predicted over reference length of all."""
    masks = _masks(images, threshold, twigs)
    lines = [skeletonize(mask) for mask in masks]
    centreline = [
        centreline_dice(line.sum(), (line & image.truth).sum(), image.centre.sum(), (image.centre & mask).sum())
        for image, mask, line in zip(images, masks, lines, strict=True)
    ]
    return _overlap(images, masks), float(np.nanmean(centreline)), _ratios(images, masks, lines)[0]


def _masks(images: Sequence[_Drawing], threshold: float, twigs: float | None) -> list[np.ndarray]:
    return [vessel_mask(image.probability, image.known, threshold, twigs) for image in images]


def _overlap(images: Sequence[_Drawing], masks: Sequence[np.ndarray]) -> float:
    """Mean Dice coefficient."""
    pairs = [(mask, image.truth) for mask, image in zip(masks, images, strict=True)]
    return float(np.mean([2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1) for mask, truth in pairs]))


def _bias(images: Sequence[_Drawing], masks: Sequence[np.ndarray]) -> float:
    """Sum of the absolute biases of length and area."""
    return sum(abs(ratio) for ratio in _ratios(images, masks, [skeletonize(mask) for mask in masks]))


def _ratios(images: Sequence[_Drawing], masks: Sequence[np.ndarray], lines: Sequence[np.ndarray]) -> tuple[float, float]:
    """Logarithms of predicted over reference length and area of all images together."""
    length = sum(line.sum() for line in lines) / max(sum(image.centre.sum() for image in images), 1)
    area = sum(mask.sum() for mask in masks) / max(sum(image.truth.sum() for image in images), 1)
    return float(np.log(max(length, 1e-6))), float(np.log(max(area, 1e-6)))
