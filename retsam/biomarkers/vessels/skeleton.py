"""From a vessel mask to its skeleton: crop, holes and specks, distance to the edge, thinning. Each is done once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retsam.biomarkers.vessels.gaps import ASIDE, REACH, gap_lines
from retsam.biomarkers.vessels.thinning import thin

#: A hole is noise of the segmentation, not a loop between vessels, below this many squared mean widths.
HOLE_AREA_WIDTHS = 1.0
#: A component is a speck, not a vessel, below this many squared mean widths.
SPECK_AREA_WIDTHS = 2.0
#: Pixels of background kept about the vessels, so that normals and thinning never meet the array's edge.
MARGIN = 8


@dataclass(frozen=True)
class Skeleton:
    """A vessel mask reduced to its skeleton, in a crop of the image.

    Parameters
    ----------
    mask : ndarray of uint8, [h, w]
        0 or 1; holes filled, specks removed.
    field : ndarray of float32, [h, w]
        The mask before its threshold, between 0 and 1; 0 and 1 where specks were removed and holes filled.
    distance : ndarray of float32, [h, w]
        Distance of each vessel pixel's centre to the nearest background pixel's centre (px; within 2 %).
    pixels : ndarray of uint8, [h, w]
        1 on the skeleton.
    origin : tuple of int
        (x, y) of the crop's first pixel in the image.
    mean_width : float
        Vessel area over skeleton length (px): a first estimate, for thresholds that must scale with the vessels.
    """

    mask: np.ndarray
    field: np.ndarray
    distance: np.ndarray
    pixels: np.ndarray
    origin: tuple[int, int]
    mean_width: float


def _clean(mask: np.ndarray, largest_hole: float, smallest_component: float) -> None:
    """Fill small holes and remove small components, in place.

    Areas come from the outlines (Pick's theorem gives the pixels inside a contour), so nothing is labelled pixel by pixel.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return
    # One contour a call: of a list, OpenCV copies all of them each time.
    for index, contour in enumerate(contours):
        inner = cv2.contourArea(contour)
        if hierarchy[0, index, 3] >= 0:
            # The outline of a hole runs through the vessel's pixels about it.
            if inner - len(contour) / 2.0 + 1.0 <= largest_hole:
                cv2.drawContours(mask, [contour], 0, 1, cv2.FILLED)
        elif inner + len(contour) / 2.0 + 1.0 < smallest_component:
            cv2.drawContours(mask, [contour], 0, 0, cv2.FILLED)


def replication(plane: np.ndarray) -> tuple[int, int, int]:
    """Factor by which a mask was enlarged pixel by pixel (nearest neighbour), and where its blocks start.

    An enlarged mask knows no more than the original, but its steps are larger: it is measured at its original size.

    Parameters
    ----------
    plane : ndarray of bool, [H, W]

    Returns
    -------
    factor, row, column : int
        (1, 0, 0) for a mask that was not enlarged by a whole number.
    """
    rows = np.flatnonzero((plane[1:] != plane[:-1]).any(axis=1)) + 1
    columns = np.flatnonzero((plane[:, 1:] != plane[:, :-1]).any(axis=0)) + 1
    # A few straight edges may be so far apart by chance.
    if len(rows) < 16 or len(columns) < 16:
        return 1, 0, 0
    for factor in (4, 3, 2):
        if (rows % factor == rows[0] % factor).all() and (columns % factor == columns[0] % factor).all():
            return factor, int(rows[0] % factor), int(columns[0] % factor)
    return 1, 0, 0


def _crop_field(field: np.ndarray, top: int, left: int, shape: tuple[int, int]) -> np.ndarray:
    """A field in the frame of a crop that begins `MARGIN` above and left of (top, left); 0 outside the picture."""
    out = np.zeros(shape, np.float32)
    y0, x0 = top - MARGIN, left - MARGIN
    y, x = max(y0, 0), max(x0, 0)
    inner = field[y : y0 + shape[0], x : x0 + shape[1]]
    out[y - y0 : y - y0 + inner.shape[0], x - x0 : x - x0 + inner.shape[1]] = inner
    return out


def _close_gaps(mask: np.ndarray, distance: np.ndarray, pixels: np.ndarray) -> bool:
    """Fill short gaps ahead of the skeleton's free ends into the mask; whether there were any."""
    lines = gap_lines(pixels, mask, distance, REACH, np.radians(np.array(ASIDE)))
    for y0, x0, y1, x1, radius in lines:
        ends = ((round(x0), round(y0)), (round(x1), round(y1)))
        cv2.line(mask, *ends, 1, thickness=max(1, round(2.0 * float(radius) - 1.0)))
    # A line as thick as a blob may reach the array's edge, beyond which nothing that follows may look.
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    return len(lines) > 0


def make_skeleton(plane: np.ndarray, field: np.ndarray | None = None) -> Skeleton | None:
    """Skeleton of a vessel mask.

    Parameters
    ----------
    plane : ndarray of bool, [H, W]
    field : ndarray of float32, [H, W], optional
        What the mask is the threshold of; the mask itself if None.

    Returns
    -------
    Skeleton or None
        None if no vessel is left.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(plane.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    mask = np.zeros((bottom - top + 2 * MARGIN, right - left + 2 * MARGIN), np.uint8)
    mask[MARGIN:-MARGIN, MARGIN:-MARGIN] = plane[top:bottom, left:right]

    # Mean width from area and perimeter (a long strip of width w has 2 A / P = w): no skeleton needed yet.
    area = int(np.count_nonzero(mask))
    edges = int(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))
    # A pixel outline is 4/pi longer than the smooth edge that it follows, on average over directions.
    width = max(1.0, 2.0 * area / (edges * np.pi / 4.0))
    before = mask.copy()
    _clean(mask, HOLE_AREA_WIDTHS * width * width, SPECK_AREA_WIDTHS * width * width)
    if not mask.any():
        return None
    soft = mask.astype(np.float32)
    if field is not None:
        soft = _crop_field(field, top, left, mask.shape)
        soft[before > mask] = 0.0
        soft[before < mask] = 1.0
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    pixels = thin(mask, distance)
    if field is not None and _close_gaps(mask, distance, pixels):
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
        pixels = thin(mask, distance)
    origin = (int(left) - MARGIN, int(top) - MARGIN)
    return Skeleton(mask, soft, distance, pixels, origin, float(width))
