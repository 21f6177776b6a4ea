"""Where the disc and the fovea lie, each with an eye on the other, and the outline of the disc and of its cup."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

HEAT_STRIDE = 4
"""Px of the whole-frame view a cell of the fovea's heatmap."""
# The fovea's confidence is the heatmap's mass within half a disc diameter of the peak: 9 cells of a 512 px frame. A step up to a peak: 4.
_FOVEA_CELLS, _CLIMB = 9, 4

# The fovea lies 2.45 disc diameters to the side of the disc's centre and 7 degrees below it. Spreads (of the logarithm, and degrees) are
# 1.3 times those of 104 training photographs of IDRiD: the coarse diameter takes atrophy in at times, and heads are tilted.
_FOVEA_DD, _FOVEA_SPREAD = 2.45, 0.16
_FOVEA_BELOW, _FOVEA_TILT = 7.0, 6.0
# An eye may be built otherwise, or photographed upside down: nowhere is impossible.
_ANYWHERE = 0.05
# Candidates of less than this share of the likeliest one's weight are specks.
_RIVAL = 0.1
# What is narrower than this share of the diameter hangs on the disc, or in the cup, and is neither: atrophy, a vessel's reflex.
_NARROW = 0.35
# An outline that shares less than this with its ellipse (Dice) is none that an annotator would draw, and stays as it is.
_ELLIPTIC = 0.9
# Levels of probability at which a disc is looked for whose outline at its threshold is no ellipse, and the least share of the area there:
# what the network takes in besides the disc, atrophy or glare, it is less sure of.
_LEVELS, _LEAST_LEFT = (0.7, 0.8, 0.9, 0.95), 0.5
_FEWEST = 50
_EDGE = 2


def fovea_prior(circle: tuple[float, float, float], side: int, cells: int) -> np.ndarray:
    """How likely the fovea lies in each cell of a grid, given the disc.

    Parameters
    ----------
    circle : (x, y, diameter)
        Of the disc, px of the view.
    side : int
        Of the view, px.
    cells : int
        Of the grid that covers it, a side.

    Returns
    -------
    ndarray of float, [cells, cells]
        1 where it lies in most eyes, on either side of the disc; never 0.
    """
    x, y, diameter = circle
    at = (np.arange(cells) + 0.5) * side / cells - 0.5
    dx, dy = np.abs(at[None] - x), at[:, None] - y
    distance = np.log(np.maximum(np.hypot(dx, dy) / diameter, 1e-3) / _FOVEA_DD) / _FOVEA_SPREAD
    angle = (np.degrees(np.arctan2(dy, dx)) - _FOVEA_BELOW) / _FOVEA_TILT
    return _ANYWHERE + (1 - _ANYWHERE) * np.exp(-(distance**2 + angle**2) / 2)


def fovea_map(heat: torch.Tensor) -> np.ndarray:
    """Probability of the fovea, summing to 1, from heatmap logits ``[h, w]``."""
    return F.softmax(heat.flatten().float(), 0).view(heat.shape).cpu().numpy()


def locate_fovea(
    heat: torch.Tensor, least: float = 0.2, disc: tuple[float, float, float] | None = None, side: int = 1024
) -> tuple[tuple[float, float] | None, float]:
    """Fovea from heatmap logits ``[h, w]`` of the whole-frame view.

    Parameters
    ----------
    heat : Tensor, [h, w]
    least : float
    disc : (x, y, diameter), optional
        Px of the whole-frame view. Of several peaks it helps to choose.
    side : int
        Of the canonical frame, px.

    Returns
    -------
    point : tuple of float or None
        ``(x, y)`` in the canonical frame, px; None where the confidence is under ``least``.
    confidence : float
        Probability mass within half a disc diameter of the peak.
    """
    p = fovea_map(heat)
    smooth = cv2.GaussianBlur(p, (0, 0), 2.0)
    ys, xs = np.mgrid[: p.shape[0], : p.shape[1]]
    start = smooth if disc is None else smooth * fovea_prior(disc, HEAT_STRIDE * p.shape[0], p.shape[0])
    y, x = _highest(start)
    while (peak := _highest(np.where((xs - x) ** 2 + (ys - y) ** 2 <= _CLIMB**2, smooth, -1))) != (y, x):
        y, x = peak  # the prior names the hill, not a place on its slope
    near = p * ((xs - x) ** 2 + (ys - y) ** 2 <= _FOVEA_CELLS**2)
    confidence = float(near.sum())
    if confidence < least:
        return None, confidence
    cx, cy = (near * xs).sum() / near.sum(), (near * ys).sum() / near.sum()
    factor = side / p.shape[0]
    return (float((cx + 0.5) * factor - 0.5), float((cy + 0.5) * factor - 0.5)), confidence


def _highest(values: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


def disc_circle(probability: np.ndarray, threshold: float = 0.4, fovea: np.ndarray | None = None) -> tuple[float, float, float] | None:
    """``(x, y, diameter)`` of the most probable disc in a map; None where nothing reaches the threshold over a plausible area.

    The component with the largest summed probability wins, so that a small bright lesion does not; against large ones (exudates, scars)
    helps the fovea, which lies where it does in front of one candidate and not of the other.

    Parameters
    ----------
    probability : ndarray of float, [side, side]
    threshold : float
    fovea : ndarray of float, [cells, cells], optional
        Probability of the fovea over the same field, summing to 1.
    """
    side = probability.shape[0]
    mask = (probability > threshold).astype(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    weight = np.bincount(labels.ravel(), probability.ravel().astype(np.float64), count)
    weight[0] = 0
    # A disc is 3 to 25 % of the field's diameter in any camera from 30 to 60 degrees, or up to 50 % with the atrophy around it.
    plausible = (stats[:, cv2.CC_STAT_AREA] >= (0.03 * side) ** 2) & (weight > _RIVAL * weight.max())
    plausible[0] = False
    if not plausible.any():
        return None
    circles = {
        int(i): (float(centroids[i, 0]), float(centroids[i, 1]), float(np.sqrt(4 * stats[i, cv2.CC_STAT_AREA] / np.pi)))
        for i in np.flatnonzero(plausible)
    }
    if fovea is not None and len(circles) > 1:
        for i, circle in circles.items():
            weight[i] *= float((fovea * fovea_prior(circle, side, fovea.shape[0])).sum())
    return circles[max(circles, key=lambda i: weight[i])]


def as_drawn(mask: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """A disc or cup as annotators draw it: one ellipse, without what hangs on it.

    The mask is opened, its hull taken, and of that the ellipse with the same second moments, which is also how biomarkers measure it.
    At the edge of the field of view, where an ellipse of what is visible would be too short, the hull stays. A mask that is no ellipse
    comes back untouched, so that whoever measures it can see that something is wrong with it.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
        One component.
    fov : ndarray of bool, [H, W]

    Returns
    -------
    ndarray of bool
    """
    area = np.count_nonzero(mask)
    if area < _FEWEST:
        return mask
    diameter = np.sqrt(4 * area / np.pi)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = int(0.25 * diameter) + _EDGE + 1
    box = tuple(slice(max(int(v[0]) - margin, 0), int(v[-1]) + margin + 1) for v in (rows, columns))
    cut, inside = np.ascontiguousarray(mask[box]).view(np.uint8), np.ascontiguousarray(fov[box]).view(np.uint8)
    padded = np.pad(cut, 1)
    core = cv2.distanceTransform(padded, cv2.DIST_L2, 5) > _NARROW * diameter / 2
    if not core.any():
        return mask
    opened = (cv2.distanceTransform(1 - core.view(np.uint8), cv2.DIST_L2, 5) <= _NARROW * diameter / 2)[1:-1, 1:-1]
    contours, _ = cv2.findContours(opened.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    shape = cv2.fillPoly(np.zeros_like(cut), [cv2.convexHull(max(contours, key=cv2.contourArea))], 1)
    within = cv2.erode(inside, np.ones((2 * _EDGE + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not (shape > within).any():
        shape = _ellipse(shape)
    shape = shape & inside
    common = 2 * np.count_nonzero(shape & cut) / (np.count_nonzero(shape) + area)
    if common < _ELLIPTIC:
        return mask
    out = np.zeros_like(mask)
    out[box] = shape > 0
    return out


def disc_as_drawn(mask_at: Callable[[float], np.ndarray], threshold: float, fov: np.ndarray) -> np.ndarray:
    """The disc at its threshold, or at the lowest level above at which it is an ellipse (:func:`as_drawn`).

    Parameters
    ----------
    mask_at : callable
        Level of probability -> ``bool [H, W]``, one component.
    threshold : float
    fov : ndarray of bool, [H, W]

    Returns
    -------
    ndarray of bool
        As it is at the threshold where no level makes it an ellipse of at least half the area there.
    """
    mask = mask_at(threshold)
    drawn = as_drawn(mask, fov)
    area = np.count_nonzero(mask)
    if drawn is not mask or area < _FEWEST:
        return drawn
    for level in (level for level in _LEVELS if level > threshold):
        core = mask_at(level)
        drawn = as_drawn(core, fov)
        if drawn is not core and np.count_nonzero(drawn) >= _LEAST_LEFT * area:
            return drawn
    return mask


def _ellipse(mask: np.ndarray) -> np.ndarray:
    """The filled ellipse with the second moments of a mask, uint8."""
    m = cv2.moments(mask, binaryImage=True)
    area = m["m00"]
    a, b, c = m["mu20"] / area, m["mu11"] / area, m["mu02"] / area
    dx = np.arange(mask.shape[1])[None] - m["m10"] / area
    dy = np.arange(mask.shape[0])[:, None] - m["m01"] / area
    return ((c * dx * dx - 2 * b * dx * dy + a * dy * dy) <= 4 * (a * c - b * b)).astype(np.uint8)
