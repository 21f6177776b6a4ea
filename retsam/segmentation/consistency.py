"""Arteries and veins that keep their class along a vessel."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.morphology import skeletonize

_JUNCTION = np.ones((3, 3), np.float32)


def smooth_classes(artery: np.ndarray, vein: np.ndarray, vessel: np.ndarray, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Pull each pixel's artery-vein odds towards the mean of its vessel segment.

    The centreline of the vessel mask is cut at its branchings and crossings; what lies nearest to a piece shares its mean odds.
    Where both classes are likely, as at a crossing, the probabilities are left alone.

    Parameters
    ----------
    artery, vein : ndarray of float, [side, side]
        Probabilities.
    vessel : ndarray of bool, [side, side]
    share : float
        Weight of the segment's mean against the pixel's own odds, 0-1.

    Returns
    -------
    artery, vein : ndarray of float32, [side, side]
    """
    artery, vein = artery.astype(np.float32), vein.astype(np.float32)
    if not vessel.any():
        return artery, vein
    line = skeletonize(vessel)
    neighbours = cv2.filter2D(line.astype(np.float32), cv2.CV_32F, _JUNCTION, borderType=cv2.BORDER_CONSTANT)
    pieces = (line & (neighbours < 3.5)).astype(np.uint8)
    count, labels = cv2.connectedComponents(pieces, connectivity=8)
    if count < 2:
        return artery, vein
    odds = _logit(artery) - _logit(vein)
    on_line = pieces > 0
    # Each piece's mean over its centreline, weighted by how vessel-like the pixel is.
    weight = np.maximum(artery, vein)
    total = np.bincount(labels[on_line], (odds * weight)[on_line], count)
    mass = np.bincount(labels[on_line], weight[on_line], count)
    mean = np.divide(total, mass, out=np.zeros(count), where=mass > 0)
    # Label of the nearest piece for every vessel pixel.
    _, nearest = cv2.distanceTransformWithLabels(1 - pieces, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    order = np.zeros(int(nearest.max()) + 1, np.int32)
    order[nearest[on_line]] = labels[on_line]
    piece_odds = mean[order[nearest]].astype(np.float32)
    single = vessel & ~((artery > 0.5) & (vein > 0.5))
    blended = (1 - share) * odds + share * piece_odds
    # The pair keeps its sum: only who gets which part changes.
    both = np.maximum(artery, vein)
    rest = np.minimum(artery, vein)
    is_artery = blended >= 0
    artery = np.where(single, np.where(is_artery, both, rest), artery)
    vein = np.where(single, np.where(is_artery, rest, both), vein)
    return artery, vein


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))
