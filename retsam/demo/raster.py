"""Anti-aliased drawing of vessels and shapes from their exact geometry (distance to the outline, no supersampling)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["draw_vessel", "ellipse_coverage", "polyline_crossings", "star_area", "star_coverage"]


@njit(cache=True)
def _draw(points, width, coverage, offset, bore, size):  # pragma: no cover - compiled
    """Update coverage and signed offset along one polyline of constant width (pixels)."""
    rows, columns = coverage.shape
    half = 0.5 * width
    reach = half + 1.5
    for i in range(points.shape[0] - 1):
        x0, y0, x1, y1 = points[i, 0], points[i, 1], points[i + 1, 0], points[i + 1, 1]
        left = max(0, int(math.floor(min(x0, x1) - reach)))
        right = min(columns - 1, int(math.ceil(max(x0, x1) + reach)))
        top = max(0, int(math.floor(min(y0, y1) - reach)))
        bottom = min(rows - 1, int(math.ceil(max(y0, y1) + reach)))
        dx, dy = x1 - x0, y1 - y0
        norm = dx * dx + dy * dy
        if norm == 0.0:
            continue
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                t = ((x - x0) * dx + (y - y0) * dy) / norm
                # The free end is cut square, as a vessel is; joints inside the polyline are round.
                if (i == 0 and t < 0.0) or (i == points.shape[0] - 2 and t > 1.0):
                    over = -t if t < 0.0 else t - 1.0
                    if over * math.sqrt(norm) > 0.5:
                        continue
                t = min(1.0, max(0.0, t))
                ex, ey = x - x0 - t * dx, y - y0 - t * dy
                distance = math.sqrt(ex * ex + ey * ey)
                inside = half - distance + 0.5
                if inside <= 0.0:
                    continue
                inside = min(1.0, inside)
                # A vessel thinner than a pixel never covers one wholly.
                inside = min(inside, width)
                if inside > coverage[y, x]:
                    coverage[y, x] = inside
                position = distance / half
                if position < offset[y, x]:
                    offset[y, x] = position
                    bore[y, x] = size


def draw_vessel(points: np.ndarray, width: float, coverage: np.ndarray, offset: np.ndarray, bore: np.ndarray, size: float) -> None:
    """Draw one vessel segment in place.

    Parameters
    ----------
    points : ndarray [n, 2]
        Centreline, pixels (x, y).
    width : float
        Pixels.
    coverage : ndarray float32 [H, W]
        Share of each pixel that vessels cover; the larger of old and new is kept.
    offset : ndarray float32 [H, W]
        Distance to the nearest centreline over half the width, 0 on the centreline; start from a large value.
    bore : ndarray float32 [H, W]
        Receives `size` where this vessel's centreline is the nearest.
    size : float
        Width in the unit that the caller wants kept in `bore`.
    """
    _draw(np.ascontiguousarray(points, np.float64), float(width), coverage, offset, bore, float(size))


@njit(cache=True)
def _cross(first, second):  # pragma: no cover - compiled
    found = []
    for i in range(first.shape[0]):
        ax, ay, bx, by = first[i, 0, 0], first[i, 0, 1], first[i, 1, 0], first[i, 1, 1]
        left, right, top, bottom = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        for j in range(second.shape[0]):
            cx, cy, dx, dy = second[j, 0, 0], second[j, 0, 1], second[j, 1, 0], second[j, 1, 1]
            if max(cx, dx) < left or min(cx, dx) > right or max(cy, dy) < top or min(cy, dy) > bottom:
                continue
            cross = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
            if abs(cross) < 1e-12:
                continue
            t = ((cx - ax) * (dy - cy) - (cy - ay) * (dx - cx)) / cross
            u = ((cx - ax) * (by - ay) - (cy - ay) * (bx - ax)) / cross
            if 0.0 <= t < 1.0 and 0.0 <= u < 1.0:
                found.append((ax + t * (bx - ax), ay + t * (by - ay)))
    return found


def polyline_crossings(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Points where edges of one set cross edges of another.

    Parameters
    ----------
    first, second : ndarray [n, 2, 2], [m, 2, 2]
        Start and end (x, y) of every edge.

    Returns
    -------
    ndarray [k, 2]
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2))
    return np.array(_cross(np.ascontiguousarray(first, float), np.ascontiguousarray(second, float))).reshape(-1, 2)


def ellipse_coverage(grid: tuple[np.ndarray, np.ndarray], axes: tuple[float, float], soft: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of an axis-parallel ellipse, and its normalised radius.

    Parameters
    ----------
    grid : tuple of ndarray
        Coordinates relative to the centre, along each axis, pixels.
    axes : tuple of float
        Semi-axes, pixels.
    soft : float
        Half the width of the edge's ramp, pixels.

    Returns
    -------
    coverage, radius : ndarray
        Radius is 1 on the outline.
    """
    u, v = grid
    radius = np.hypot(u / axes[0], v / axes[1])
    # Signed distance to first order: (radius - 1) over the length of its gradient.
    slope = np.hypot(u / axes[0] ** 2, v / axes[1] ** 2) / np.maximum(radius, 1e-6)
    return np.clip(0.5 + (1 - radius) / np.maximum(slope, 1e-6) / (2 * soft), 0, 1), radius


def star_area(radius: float, waves: np.ndarray) -> float:
    """Exact area inside ``r(angle) = radius * (1 + sum a_k cos(k angle + phase_k))``, with distinct wave numbers.

    Stretching along x by a factor and along y by its inverse, as `star_coverage` does, leaves it as it is.

    Parameters
    ----------
    radius : float
    waves : ndarray [n, 3]
        Wave number (at least 1), amplitude, phase.
    """
    return math.pi * radius**2 * (1 + 0.5 * float(np.sum(waves[:, 1] ** 2)))


def star_coverage(
    shape: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    waves: np.ndarray,
    stretch: float = 1.0,
    angle: float = 0.0,
    soft: float = 0.5,
) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Coverage of a star-shaped blob inside its bounding box.

    Returns
    -------
    rows, columns : slice
    coverage : ndarray
    relative : ndarray
        Distance from the centre over the outline's radius in that direction.
    """
    reach = radius * (1 + float(np.sum(np.abs(waves[:, 1])))) * max(stretch, 1 / stretch) + soft + 1
    top, bottom = max(0, int(centre[1] - reach)), min(shape[0], int(centre[1] + reach) + 2)
    left, right = max(0, int(centre[0] - reach)), min(shape[1], int(centre[0] + reach) + 2)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
    x, y = x - centre[0], y - centre[1]
    c, s = math.cos(angle), math.sin(angle)
    u, v = (c * x + s * y) / stretch, (-s * x + c * y) * stretch
    theta, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = radius * (1 + (waves[:, 1] * np.cos(theta[..., None] * waves[:, 0] + waves[:, 2])).sum(-1))
    scale = np.hypot(x, y) / np.maximum(distance, 1e-9)
    coverage = np.clip(0.5 + (outline - distance) * scale / (2 * soft), 0, 1)
    return slice(top, bottom), slice(left, right), coverage, distance / np.maximum(outline, 1e-9)
