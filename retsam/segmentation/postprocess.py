"""From probabilities to masks that hang together."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.morphology import skeletonize

from retsam.segmentation.landmarks import as_drawn, disc_as_drawn

# Components smaller than this many pixels of the 1,024 px frame are specks (0.1 disc diameters long for a vessel).
_SMALLEST = {"vessel": 30, "artery": 20, "vein": 20, "hemorrhage": 6, "hard_exudate": 4, "cotton_wool_spot": 20, "microaneurysm": 3}


TWIGS = "vessel_twigs"
"""Key of the threshold of twigs, among those of the heads."""
# A twig is drawn where its probability is this share of that on its centreline, and counts from so many px (1,024 px frame) of length on.
_TWIG_HEIGHT, _TWIG_LENGTH = 0.85, 10


def vessel_mask(probability: np.ndarray, fov: np.ndarray, threshold: float, twigs: float | None = None) -> np.ndarray:
    """Vessels, and the faint twigs that hang on them.

    A network is less sure of a thin vessel than of a thick one, so that one threshold makes trees too short or trunks too wide. So pixels
    over a lower threshold count as well where they are connected with a sure vessel, as a line only: the centreline of what is connected,
    and beside it what reaches 0.85 of the centreline's probability. Length comes back without width.

    Parameters
    ----------
    probability : ndarray of float, [side, side]
    fov : ndarray of bool, [side, side]
    threshold : float
        Of sure vessels.
    twigs : float, optional
        Of twigs; None for sure vessels alone.

    Returns
    -------
    ndarray of bool
    """
    sure = drop_specks((probability >= threshold) & fov, _SMALLEST["vessel"])
    if twigs is None or twigs >= threshold or not sure.any():
        return sure
    faint = (probability >= twigs) & fov
    count, labels = cv2.connectedComponents(faint.view(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels[sure]] = True
    touched[0] = False
    faint = touched[labels]
    line = skeletonize(faint)
    twig = drop_specks(line & ~(cv2.dilate(sure.view(np.uint8), np.ones((3, 3), np.uint8)) > 0), _TWIG_LENGTH)
    twig |= line & ~sure & (cv2.dilate(twig.view(np.uint8), np.ones((5, 5), np.uint8)) > 0)  # up to the vessel it hangs on
    height = cv2.dilate(np.where(twig, probability, 0).astype(np.float32), np.ones((3, 3), np.uint8))
    return sure | twig | (faint & (height > 0) & (probability >= _TWIG_HEIGHT * height))


def to_planes(probabilities: dict[str, np.ndarray], fov: np.ndarray, thresholds: dict[str, float]) -> dict[str, np.ndarray]:
    """Masks from probabilities.

    A vessel pixel that is surely neither artery nor vein goes to the likelier one, so that trees are whole; a crossing may be both.
    The disc is one component with the outline that annotators give it, and so is the cup, which lies inside it.

    Parameters
    ----------
    probabilities : dict of str to ndarray, [side, side]
    fov : ndarray of bool, [side, side]
    thresholds : dict of str to float
        Of each target, and of :data:`TWIGS` where there is one.

    Returns
    -------
    dict of str to ndarray of bool
    """
    planes = {name: (p >= thresholds.get(name, 0.5)) & fov for name, p in probabilities.items()}
    if "vessel" in planes:
        planes["vessel"] = vessel_mask(probabilities["vessel"], fov, thresholds.get("vessel", 0.5), thresholds.get(TWIGS))
    if {"artery", "vein", "vessel"} <= planes.keys():
        artery, vein = planes["artery"], planes["vein"]
        open_pixels = planes["vessel"] & ~artery & ~vein
        likelier = probabilities["artery"] >= probabilities["vein"]
        planes["artery"] = artery | (open_pixels & likelier)
        planes["vein"] = vein | (open_pixels & ~likelier)
    for name, smallest in _SMALLEST.items():
        if name in planes:
            planes[name] = drop_specks(planes[name], smallest)
    if "disc" in planes:
        disc = probabilities["disc"]
        planes["disc"] = disc_as_drawn(lambda level: one_component((disc >= level) & fov, disc), thresholds.get("disc", 0.5), fov)
        if "cup" in planes:
            planes["cup"] = as_drawn(one_component(planes["cup"] & planes["disc"], probabilities["cup"]), fov) & planes["disc"]
    return planes


def drop_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Without 8-connected components of fewer than ``smallest`` pixels."""
    if not mask.any():
        return mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return keep[labels]


def one_component(mask: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The component with the largest summed probability, its holes filled; empty stays empty."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return mask
    weight = np.bincount(labels.ravel(), probability.ravel().astype(np.float64), count)
    weight[0] = 0
    best = (labels == int(weight.argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(best, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(best), contours, -1, 1, cv2.FILLED) > 0


def expected_dice(probability: np.ndarray, mask: np.ndarray) -> float:
    """Dice that a mask can expect if the probabilities are right: ``2 sum(p m) / (sum p + sum m)``.

    Probabilities under 0.05 are left out of the sum: over a million background pixels they would drown a lesion's.
    """
    total = float(probability[probability > 0.05].sum(dtype=np.float64)) + float(mask.sum())
    return 2 * float(probability[mask].sum(dtype=np.float64)) / total if total > 0 else 1.0
