"""The outline of a mask as radii about a point, freed of pixel steps."""

from __future__ import annotations

import math

import cv2
import numpy as np

from retsam.biomarkers.disc import Ellipse, ellipse_of

#: Rays about the point, and radial samples a grid pixel.
RAYS = 720
SAMPLES_PER_PX = 4
#: How far pixel steps can take a ray from the mean of its neighbours: half a pixel to one side, half a pixel to the other.
STEP_PX = 1.0


def radial_outline(mask: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Radius of a mask's outermost edge on :data:`RAYS` rays from a point of the grid; 0 where a ray does not meet it.

    The edge of pixels runs in steps, and is flat by up to a pixel where it runs along rows or columns. On each ray it is found at half
    coverage; its distance from the ellipse with the mask's moments is then averaged over neighbouring rays, as wide as such a flat
    is. An ellipse stays where it is (a blur of the mask would cut its ends off). A ray that the mean would move further than pixel
    steps can stays where it was found: there it is the shape that turns (a notch), and a mean would fill it.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
        Not empty.
    centre : tuple of float
        (x, y), grid px.

    Returns
    -------
    ndarray, [RAYS]
        Ray ``i`` points to ``2 pi i / RAYS`` from +x towards +y.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    x, y = centre[0] - left + 2, centre[1] - top + 2
    window = np.pad(mask[top : bottom + 1, left : right + 1], 2).astype(np.float32)
    reach = math.hypot(max(x, window.shape[1] - x), max(y, window.shape[0] - y))
    samples = math.ceil(reach * SAMPLES_PER_PX) + 1
    flags = cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    polar = cv2.warpPolar(window, (samples, RAYS), (x, y), samples / SAMPLES_PER_PX, flags)
    inside = polar >= 0.5
    last = samples - 1 - np.argmax(inside[:, ::-1], axis=1)
    after = np.minimum(last + 1, samples - 1)
    rays = np.arange(RAYS)
    step = polar[rays, last] - polar[rays, after]
    fraction = np.where(step > 0, (polar[rays, last] - 0.5) / np.where(step > 0, step, 1), 0.0)
    met = inside.any(axis=1)
    radius = np.where(met, (last + fraction) / SAMPLES_PER_PX, 0.0)
    ellipse = ellipse_of(window > 0)
    smooth = _ellipse_radius(ellipse, x, y)
    if not met.all() or smooth is None:  # the point lies outside: averaging would blur where the mask begins
        return radius
    flat = 2 * math.degrees(math.sqrt(2 / max(float(radius.mean()), 2.0)))
    mean = smooth + running_mean(radius - smooth, flat)
    return np.where(np.abs(mean - radius) <= STEP_PX, mean, radius)


def _ellipse_radius(ellipse: Ellipse, x: float, y: float) -> np.ndarray | None:
    """Distance from a point inside an ellipse to its outline on every ray; None for a point outside."""
    angle = np.arange(RAYS) * 2 * math.pi / RAYS - ellipse.angle
    cos, sin = math.cos(ellipse.angle), math.sin(ellipse.angle)
    u = ((x - ellipse.x) * cos + (y - ellipse.y) * sin) / max(ellipse.semi_major, 1e-9)
    v = ((y - ellipse.y) * cos - (x - ellipse.x) * sin) / max(ellipse.semi_minor, 1e-9)
    du, dv = np.cos(angle) / max(ellipse.semi_major, 1e-9), np.sin(angle) / max(ellipse.semi_minor, 1e-9)
    a, b, c = du * du + dv * dv, u * du + v * dv, u * u + v * v - 1
    return None if c >= 0 else (np.sqrt(b * b - a * c) - b) / a


def running_mean(values: np.ndarray, window_deg: float) -> np.ndarray:
    """Mean of a value around the circle over a window of degrees about each ray."""
    window = max(1, round(window_deg * RAYS / 360)) | 1
    wrapped = np.concatenate([values[-(window // 2) :], values, values[: window // 2]]) if window > 1 else values
    return np.convolve(wrapped, np.full(window, 1 / window), mode="valid")


def extents(mask: np.ndarray, directions: list[tuple[float, float]]) -> list[float]:
    """Full extent of a non-empty mask along unit vectors, px, to a fraction of a pixel."""
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    centre = (moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])
    radius, angle = radial_outline(mask, centre), np.arange(RAYS) * 2 * math.pi / RAYS
    outline = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return [float(np.ptp(outline @ np.asarray(direction))) for direction in directions]
