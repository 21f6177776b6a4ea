"""From probabilities to masks that hang together."""

from __future__ import annotations

import cv2
import numpy as np

from retsam.segmentation.landmarks import as_drawn, disc_as_drawn
from retsam.segmentation.targets import PEAK

# Components smaller than this many pixels of the 1,024 px frame are specks (0.1 disc diameters long for a vessel).
SMALLEST = {"vessel": 30, "artery": 20, "vein": 20, "hemorrhage": 6, "hard_exudate": 4, "cotton_wool_spot": 20, "microaneurysm": 3}

TWIGS = "vessel_twigs"
"""Key of the threshold of twigs, among those of the heads."""
# A twig is drawn where its probability is this share of that on its ridge, and counts from so many px (1,024 px frame) of length on.
_TWIG_HEIGHT, _TWIG_LENGTH = 0.85, 10
# A ridge is the highest across, and so much higher than what lies three px (two along a diagonal) to either side.
_RIDGE_CONTRAST = 1.25
_ACROSS = ((0, 1, 3), (1, 0, 3), (1, 1, 2), (1, -1, 2))
_CROSSING = 0.5
"""Probability of artery and of vein from which a vessel pixel is both; :func:`retsam.segmentation.consistency.smooth_classes` leaves
those pixels alone."""


def ridges(probability: np.ndarray) -> np.ndarray:
    """Pixels on the crest of a probability map: the middle of a thin vessel, however faint.

    Parameters
    ----------
    probability : ndarray of float32, [side, side]

    Returns
    -------
    ndarray of bool
        Higher than both neighbours across, in one of four directions, and 1.25 times as high as what lies three px (two along a diagonal)
        beyond them on either side. The inside of a wide vessel is flat, and none.
    """
    smooth = cv2.GaussianBlur(probability, (3, 3), 0)
    height, width = smooth.shape
    margin = max(reach for _, _, reach in _ACROSS)
    around = cv2.copyMakeBorder(smooth, margin, margin, margin, margin, cv2.BORDER_REPLICATE)

    def beside(dy: int, dx: int) -> np.ndarray:
        """The higher of the two pixels at (dy, dx) and at (-dy, -dx) of each."""
        one, other = (around[margin + k * dy : margin + k * dy + height, margin + k * dx : margin + k * dx + width] for k in (1, -1))
        return np.maximum(one, other)

    found = np.zeros(smooth.shape, bool)
    for dy, dx, reach in _ACROSS:
        found |= (smooth >= beside(dy, dx)) & (smooth >= _RIDGE_CONTRAST * beside(reach * dy, reach * dx))
    return found


def vessel_mask(probability: np.ndarray, fov: np.ndarray, threshold: float, twigs: float | None = None) -> np.ndarray:
    """Vessels, and the faint twigs that hang on them.

    A network is less sure of a thin vessel than of a thick one, so that one threshold makes trees too short or trunks too wide. So the
    ridges (:func:`ridges`) over a lower threshold count as well where they lead to a sure vessel, as a line only: the ridge, and beside
    it what reaches 0.85 of its probability. Length comes back without width.

    Parameters
    ----------
    probability : ndarray of float32, [side, side]
    fov : ndarray of bool, [side, side]
    threshold : float
        Of sure vessels.
    twigs : float, optional
        Of twigs; None for sure vessels alone.

    Returns
    -------
    ndarray of bool
    """
    sure = drop_specks((probability >= threshold) & fov, SMALLEST["vessel"])
    if twigs is None or twigs >= threshold or not sure.any():
        return sure
    faint = (probability >= twigs) & fov
    line = ridges(probability) & faint
    # Breaks of up to two pixels do not end a line.
    count, labels = cv2.connectedComponents(_grown(line | sure, 3).view(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels[sure]] = True
    line &= touched[labels]
    twig = drop_specks(line & ~_grown(sure, 3), _TWIG_LENGTH)
    twig |= line & ~sure & _grown(twig, 5)  # up to the vessel it hangs on
    height = cv2.dilate(np.where(twig, probability, 0).astype(np.float32), np.ones((3, 3), np.uint8))
    return sure | twig | (faint & (height > 0) & (probability >= _TWIG_HEIGHT * height))


def _grown(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8)) > 0


def classes(vessel: np.ndarray, artery: np.ndarray, vein: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arteries and veins of a vessel mask: each pixel has the likelier class, and both where both are likely, as at a crossing.

    The width of an artery is that of the vessel. Two heads with thresholds of their own drew arteries and veins of one vessel at two
    widths, too wide wherever the classes were sure and their threshold low.

    Parameters
    ----------
    vessel : ndarray of bool, [H, W]
    artery, vein : ndarray of float, [H, W]
        Probabilities.

    Returns
    -------
    artery, vein : ndarray of bool
        Together the vessel mask.
    """
    both = vessel & (artery >= _CROSSING) & (vein >= _CROSSING)
    likelier = artery >= vein
    return (vessel & likelier) | both, (vessel & ~likelier) | both


def to_planes(probabilities: dict[str, np.ndarray], fov: np.ndarray, thresholds: dict[str, float]) -> dict[str, np.ndarray]:
    """Masks from probabilities.

    Where there are vessels, arteries and veins are parts of them (:func:`classes`), and their own thresholds have no say.
    The disc is one component with the outline that annotators give it, and so is the cup, which lies inside it.

    Parameters
    ----------
    probabilities : dict of str to ndarray, [side, side]
    fov : ndarray of bool, [side, side]
    thresholds : dict of str to float
        Of each target, of :data:`TWIGS` where there is one, and, under the name of a lesion and :data:`PEAK`, what it must reach
        somewhere.

    Returns
    -------
    dict of str to ndarray of bool
    """
    planes = {name: (p >= thresholds.get(name, 0.5)) & fov for name, p in probabilities.items()}
    if "vessel" in planes:
        planes["vessel"] = vessel_mask(probabilities["vessel"], fov, thresholds.get("vessel", 0.5), thresholds.get(TWIGS))
    if {"artery", "vein", "vessel"} <= planes.keys():
        planes["artery"], planes["vein"] = classes(planes["vessel"], probabilities["artery"], probabilities["vein"])
    for name, smallest in SMALLEST.items():
        if name in planes:
            planes[name] = drop_specks(planes[name], smallest)
        if name in planes and name + PEAK in thresholds:
            planes[name] = drop_faint(planes[name], probabilities[name], thresholds[name + PEAK])
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


def drop_faint(mask: np.ndarray, probability: np.ndarray, peak: float) -> np.ndarray:
    """Without 8-connected components whose probability is under ``peak`` everywhere.

    The threshold of the best overlap says how far a lesion reaches; whether there is one is another question. A healthy eye's specks are
    mostly small and faint.
    """
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[labels[mask & (probability >= peak)]] = True
    return keep[labels] & mask


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
