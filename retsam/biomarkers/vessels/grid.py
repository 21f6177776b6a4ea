"""The grid that vessels are measured on: as many pixels to a field of view in every photograph, and edges as soft in every one.

A mask in pixels has steps of its pixels' size, and everything that follows its outline (skeleton, spurs, mid-points, widths) follows
them too: an eye photographed with half the pixels would have another graph. So each mask is smoothed to one resolution, fixed in parts
of the field, and sampled `PER_UNIT` times a unit (see `build_graph`). Smoothing keeps areas, so widths, which are integrals across
the vessel, keep their values however thin the vessel; its course is where `harden` finds it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

#: Grid px to a unit.
PER_UNIT = 2.0
#: SD of the smoothing, in units.
BLUR = 0.8
#: A point lies in a vessel where the smoothed mask is at least `LEAST`, and at least half of its highest value within `ABOUT` grid px: half
#: its height is where a vessel ends, be it too thin to reach one or not.
LEAST = 0.05
ABOUT = 3


def soften(plane: np.ndarray, unit: float) -> np.ndarray:
    """A mask on the grid, as a field between 0 and 1.

    Parameters
    ----------
    plane : ndarray of bool, [H, W]
    unit : float
        Mask px to a unit.

    Returns
    -------
    ndarray of float32, [h, w]
        Grid point (x, y) lies at ``(x + 0.5) * unit / PER_UNIT - 0.5`` of the mask.
    """
    pixel = unit / PER_UNIT
    height, width = plane.shape
    shape = (max(1, math.ceil(height / pixel)), max(1, math.ceil(width / pixel)))
    factor = max(1, int(pixel))
    values = plane.astype(np.float32)
    if factor > 1:
        below, beside = -height % factor, -width % factor
        values = cv2.copyMakeBorder(values, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=0.0)
        values = cv2.resize(values, (values.shape[1] // factor, values.shape[0] // factor), interpolation=cv2.INTER_AREA)
    # Averaging of blocks and linear interpolation have smoothed already, by variances of (factor^2 - 1) / 12 and factor^2 / 6 px^2.
    variance = (BLUR * unit) ** 2 - factor**2 / 12.0 - factor**2 / 6.0
    sd = max(math.sqrt(max(variance, 0.0)) / factor, 0.3)
    values = cv2.GaussianBlur(values, (0, 0), sd, borderType=cv2.BORDER_CONSTANT)
    step, first = pixel / factor, 0.5 * pixel / factor - 0.5
    matrix = np.array([[step, 0.0, first], [0.0, step, first]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, matrix, shape[::-1], flags=how, borderMode=cv2.BORDER_CONSTANT)


def harden(field: np.ndarray) -> np.ndarray:
    """The course of the vessels of a field of `soften`: bool [h, w]."""
    side = 2 * ABOUT + 1
    highest = cv2.dilate(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return field >= np.maximum(0.5 * highest, LEAST)


def sampled(plane: np.ndarray, unit: float, shape: tuple[int, int]) -> np.ndarray:
    """A mask of large regions at the points of the grid of `soften`, by the nearest pixel: bool [h, w]."""
    pixel = unit / PER_UNIT
    rows, columns = (
        np.clip(np.rint((np.arange(count) + 0.5) * pixel - 0.5).astype(np.intp), 0, side - 1)
        for count, side in zip(shape, plane.shape, strict=True)
    )
    return plane[rows[:, None], columns[None, :]]
