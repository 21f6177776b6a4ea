"""The optic disc as an ellipse: the ruler and the origin of most biomarkers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from retsam.biomarkers.registry import Null

#: Fewer pixels than this have no ellipse worth fitting.
MIN_PIXELS = 30
#: Discs of living eyes have an ovality index above 0.5 even when tilted (Tay 2005); below this the mask is something else.
MIN_OVALITY = 0.4
#: Share of the fitted ellipse that the mask must fill.
MIN_FILL = 0.75
#: A disc that touches the edge is whole where the mask fills this share of the completed ellipse: at most 2 % of its height is lost.
WHOLE_FILL = 0.995
#: Least share of the outline that must be free of the field's edge for the ellipse to be completed from it.
MIN_FREE_OUTLINE = 0.6


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in grid pixels.

    Parameters
    ----------
    x, y : float
        Centre (pixel-centre coordinates).
    semi_major, semi_minor : float
        Semi-axes.
    angle : float
        Direction of the major axis, radians from +x towards +y (y points down), in [0, pi).
    """

    x: float
    y: float
    semi_major: float
    semi_minor: float
    angle: float

    @property
    def r(self) -> float:
        """Mean semi-axis."""
        return (self.semi_major + self.semi_minor) / 2

    @property
    def area(self) -> float:
        return math.pi * self.semi_major * self.semi_minor

    def extent(self, ux: float, uy: float) -> float:
        """Full width of the ellipse along the unit vector (ux, uy)."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return 2 * math.hypot(self.semi_major * (ux * cos + uy * sin), self.semi_minor * (uy * cos - ux * sin))


@dataclass(frozen=True)
class Disc(Ellipse):
    """The fitted optic disc.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
        Largest component of the disc's mask, holes filled.
    cut_off : bool
        The outline runs along the edge of the field of view, so that the ellipse was completed from the rest of it.
    """

    mask: np.ndarray
    cut_off: bool = False


def largest_component(mask: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Largest 8-connected component of a mask with its holes filled.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]

    Returns
    -------
    component : ndarray of bool, [H, W]
    box : tuple of slice
        Its bounding box (rows, columns); empty slices for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros_like(mask), (slice(0, 0), slice(0, 0))
    y, x = int(rows[0]), int(columns[0])
    window = np.ascontiguousarray(mask[y : rows[-1] + 1, x : columns[-1] + 1])
    _, labels, stats, _ = cv2.connectedComponentsWithStats(window.view(np.uint8), connectivity=8)
    biggest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, width, height = (int(v) for v in stats[biggest, :4])
    box = (slice(y + top, y + top + height), slice(x + left, x + left + width))
    # Holes are background that does not reach the box's margin: label the background of the padded box.
    inside = np.pad((labels[top : top + height, left : left + width] == biggest).view(np.uint8), 1)
    _, background = cv2.connectedComponents(1 - inside, connectivity=4)
    component = np.zeros_like(mask)
    component[box] = (background != background[0, 0])[1:-1, 1:-1]
    return component, box


def ellipse_of(mask: np.ndarray, origin: tuple[int, int] = (0, 0)) -> Ellipse:
    """Ellipse with the second moments of a non-empty mask (exact for an ellipse, in any rotation, without pixel steps).

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
    origin : tuple of int
        (x, y) of the mask's top-left pixel in the grid.
    """
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    area = moments["m00"]
    a, b, c = moments["mu20"] / area, moments["mu11"] / area, moments["mu02"] / area
    mean, spread = (a + c) / 2, math.hypot((a - c) / 2, b)
    return Ellipse(
        x=moments["m10"] / area + origin[0],
        y=moments["m01"] / area + origin[1],
        semi_major=2 * math.sqrt(mean + spread),
        semi_minor=2 * math.sqrt(max(mean - spread, 0.0)),
        angle=(math.atan2(2 * b, a - c) / 2) % math.pi,
    )


def _complete(outline: np.ndarray, free: np.ndarray) -> Ellipse | None:
    """Ellipse fitted to the free part of an outline [N, 2] (Fitzgibbon's direct method)."""
    points = outline[free].astype(np.float32)
    if len(points) < 12:
        return None
    (x, y), (d1, d2), degrees = cv2.fitEllipseDirect(points)
    if not all(map(math.isfinite, (x, y, d1, d2))) or min(d1, d2) <= 0:
        return None
    # Outline pixels lie half a pixel inside the true edge.
    semi1, semi2, angle = d1 / 2 + 0.5, d2 / 2 + 0.5, math.radians(degrees)
    if semi1 < semi2:
        semi1, semi2, angle = semi2, semi1, angle + math.pi / 2
    return Ellipse(x, y, semi1, semi2, angle % math.pi)


def fit_disc(mask: np.ndarray, fov: np.ndarray) -> Disc | Null:
    """Ellipse of the optic disc.

    The ellipse has the second moments of the largest component. Where the component runs along the edge of the field of view its
    moments would be short, so the ellipse is fitted to the free part of the outline instead.

    Parameters
    ----------
    mask, fov : ndarray of bool, [H, W]

    Returns
    -------
    Disc or Null
        Null with `no_disc`, `disc_too_small`, `disc_cut_off` or `disc_implausible`.
    """
    component, box = largest_component(mask & fov)
    cut = np.ascontiguousarray(component[box])
    area = int(np.count_nonzero(cut))
    if area == 0:
        return Null("no_disc")
    if area < MIN_PIXELS or min(cut.shape) < 4:
        return Null("disc_too_small")
    contours, _ = cv2.findContours(cut.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)[:, 0, :] + (box[1].start, box[0].start)
    # A pixel is on the edge when the 5 x 5 pixels about it leave the field (or the grid).
    x0, x1 = max(box[1].start - 3, 0), min(box[1].stop + 3, fov.shape[1])
    y0, y1 = max(box[0].start - 3, 0), min(box[0].stop + 3, fov.shape[0])
    inner = cv2.erode(fov[y0:y1, x0:x1].astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    free = inner[outline[:, 1] - y0, outline[:, 0] - x0] > 0
    height, width = fov.shape
    free &= (outline[:, 0] > 1) & (outline[:, 1] > 1) & (outline[:, 0] < width - 2) & (outline[:, 1] < height - 2)
    cut_off = float(free.mean()) < 0.97
    if cut_off:
        ellipse = _complete(outline, free) if float(free.mean()) >= MIN_FREE_OUTLINE else None
        if ellipse is None:
            return Null("disc_cut_off")
        cut_off = area < WHOLE_FILL * ellipse.area
    if not cut_off:
        ellipse = ellipse_of(cut, (box[1].start, box[0].start))
    if ellipse.semi_minor < MIN_OVALITY * ellipse.semi_major or area < (0.5 if cut_off else MIN_FILL) * ellipse.area:
        return Null("disc_implausible")
    return Disc(**vars(ellipse), mask=component, cut_off=cut_off)
