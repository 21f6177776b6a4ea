"""Drawing vessels of known centreline and width into masks.

A pixel belongs to a vessel when its centre lies within half a width of the centreline. Shapes are turned before they are drawn,
never after, so that two angles differ in nothing but the pixel grid. Coordinates are (x, y), pixel-centre.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def _stroke(mask, points, radii):
    height, width = mask.shape
    for i in range(points.shape[0] - 1):
        ax, ay = points[i, 0], points[i, 1]
        bx, by = points[i + 1, 0], points[i + 1, 1]
        r0, r1 = radii[i], radii[i + 1]
        reach = max(r0, r1) + 1.0
        left = max(int(math.floor(min(ax, bx) - reach)), 0)
        right = min(int(math.ceil(max(ax, bx) + reach)), width - 1)
        top = max(int(math.floor(min(ay, by) - reach)), 0)
        bottom = min(int(math.ceil(max(ay, by) + reach)), height - 1)
        dx, dy = bx - ax, by - ay
        squared = dx * dx + dy * dy
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                t = 0.0
                if squared > 0.0:
                    t = min(1.0, max(0.0, ((x - ax) * dx + (y - ay) * dy) / squared))
                r = r0 + t * (r1 - r0)
                ex = x - (ax + t * dx)
                ey = y - (ay + t * dy)
                if ex * ex + ey * ey <= r * r:
                    mask[y, x] = True


def draw_vessel(mask: np.ndarray, points: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Draw a vessel with round ends into a mask.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
        Changed in place.
    points : ndarray [n, 2]
        (x, y) along the centreline.
    width : float or ndarray [n]
        Width, constant or at each point (px).

    Returns
    -------
    ndarray of bool
        The same mask.
    """
    points = np.ascontiguousarray(points, dtype=float)
    radii = np.ascontiguousarray(np.broadcast_to(np.asarray(width, dtype=float) / 2.0, len(points)))
    _stroke(mask, points, radii)
    return mask


def turn(points: np.ndarray, degrees: float, about: tuple[float, float]) -> np.ndarray:
    """Points turned by an angle (from +x towards +y) about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    relative = np.asarray(points, dtype=float) - about
    return relative @ np.array([[cos, sin], [-sin, cos]]) + about


def circle(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """A filled circle, bool [H, W]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius * radius


def line(start: tuple[float, float], degrees: float, length: float, samples: int = 2) -> np.ndarray:
    """A straight line of given heading and length, [samples, 2]."""
    angle = math.radians(degrees)
    t = np.linspace(0.0, length, samples)
    return np.column_stack([start[0] + t * math.cos(angle), start[1] + t * math.sin(angle)])


def arc(centre: tuple[float, float], radius: float, first: float, sweep: float, samples: int = 2000) -> np.ndarray:
    """A circular arc from the angle `first` over `sweep` (degrees), [samples, 2]."""
    angles = np.radians(np.linspace(first, first + sweep, samples))
    return np.column_stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)])


def sinusoid(
    start: tuple[float, float], degrees: float, amplitude: float, wavelength: float, cycles: float, samples: int = 4000
) -> np.ndarray:
    """A sine wave about a heading, [samples, 2]."""
    along = np.linspace(0.0, wavelength * cycles, samples)
    across = amplitude * np.sin(2.0 * np.pi / wavelength * along)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.column_stack([start[0] + along * cos - across * sin, start[1] + along * sin + across * cos])


def spiral(centre: tuple[float, float], inner: float, outer: float, turns: float, samples: int = 6000) -> np.ndarray:
    """An Archimedean spiral, [samples, 2]."""
    angles = np.linspace(0.0, 2.0 * np.pi * turns, samples)
    radii = np.linspace(inner, outer, samples)
    return np.column_stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)])


def koch(start: tuple[float, float], degrees: float, length: float, generations: int) -> np.ndarray:
    """A Koch curve (similarity dimension log 4 / log 3), [4**generations + 1, 2]."""
    points = line(start, degrees, length)
    turn60 = np.array([[math.cos(math.pi / 3), math.sin(math.pi / 3)], [-math.sin(math.pi / 3), math.cos(math.pi / 3)]])
    for _ in range(generations):
        third = np.diff(points, axis=0) / 3.0
        starts = points[:-1]
        pieces = np.stack([starts, starts + third, starts + third + third @ turn60, starts + 2 * third], axis=1)
        points = np.vstack([pieces.reshape(-1, 2), points[-1:]])
    return points


def sierpinski_carpet(generations: int) -> np.ndarray:
    """Sierpinski's carpet (dimension log 8 / log 3), bool [3**generations, 3**generations]."""
    carpet = np.ones((1, 1), bool)
    for _ in range(generations):
        empty = np.zeros_like(carpet)
        carpet = np.block([[carpet, carpet, carpet], [carpet, empty, carpet], [carpet, carpet, carpet]])
    return carpet


def curve_truth(points: np.ndarray) -> dict[str, float]:
    """Arc length, chord and Hart's tau1 of a finely sampled curve."""
    length = float(np.hypot(*np.diff(points, axis=0).T).sum())
    chord = float(np.hypot(*(points[-1] - points[0])))
    return {"length": length, "chord": chord, "tau1": length / chord if chord else math.inf}
