"""Shapes and textures from which lesions are painted; sizes in pixels of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass
class Canvas:
    """A healthy photograph to paint on.

    Parameters
    ----------
    rgb : ndarray of float32, [side, side, 3]
        0-1.
    fov : ndarray of bool, [side, side]
    disc : tuple of float
        ``(x, y, diameter)``.
    fovea : tuple of float
        ``(x, y)``.
    rng : Generator
    """

    rgb: np.ndarray
    fov: np.ndarray
    disc: tuple[float, float, float]
    fovea: tuple[float, float]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.side = self.rgb.shape[0]
        self.dd = self.disc[2]
        # Where a picture is cut off or its field badly found, black stays black.
        self.fov = self.fov & (cv2.blur(self.rgb.max(2), (5, 5)) > 0.04)
        small = cv2.resize(self.rgb, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(self.fov.astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        sigma = max(self.dd / 16, 1.0)
        weight = np.maximum(cv2.GaussianBlur(inside, (0, 0), sigma), 1e-3)[..., None]
        ground = cv2.GaussianBlur(small * inside[..., None], (0, 0), sigma) / weight
        self.ground = cv2.resize(ground, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        self.xs, self.ys = np.meshgrid(np.arange(self.side, dtype=np.float32), np.arange(self.side, dtype=np.float32))

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return float(self.rng.uniform(low, high))

    def light(self) -> float:
        """Brightness of white tissue in this photograph: its brightest red, mostly at the disc, or a little less."""
        return self.uniform(0.75, 1.0) * float(np.quantile(self.rgb[::4, ::4, 0][self.fov[::4, ::4]], 0.995))

    def off_disc(self) -> np.ndarray:
        """Soft mask, one off the disc."""
        distance = np.hypot(self.xs - self.disc[0], self.ys - self.disc[1])
        return np.clip((distance - self.dd / 2) / 2 + 0.5, 0, 1)

    def blend(self, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The photograph under paint of a colour (``[3]`` or ``[side, side, 3]``) and opacity ``[side, side]``."""
        alpha = (alpha * self.fov)[..., None].astype(np.float32)
        return np.clip(self.rgb * (1 - alpha) + np.asarray(colour, np.float32) * alpha, 0, 1)


def noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth random field ``[side, side]`` of about unit variance with ``cells`` bumps a side."""
    grid = rng.normal(size=(cells + 3, cells + 3)).astype(np.float32)
    field = cv2.resize(grid, (side + 3 * side // cells,) * 2, interpolation=cv2.INTER_CUBIC)
    start = side // cells
    return 1.3 * field[start : start + side, start : start + side]


def network(rng: np.random.Generator, side: int, cells: int, width: float) -> np.ndarray:
    """Branching bands, one on their midlines: the zero lines of a smooth field, like the large vessels of the choroid."""
    field = noise(rng, side, cells) + 0.5 * noise(rng, side, cells * 2)
    return np.exp(-((field / width) ** 2))


def blob(canvas: Canvas, x: float, y: float, radius: float, soft: float, rough: float) -> np.ndarray:
    """Soft patch ``[side, side]`` of 0-1 with an irregular edge; ``soft`` is the edge's width over the radius."""
    stretch, angle = canvas.uniform(0.7, 1.4), canvas.uniform(0, np.pi)
    dx, dy = canvas.xs - x, canvas.ys - y
    u, v = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
    distance = np.hypot(u * np.sqrt(stretch), v / np.sqrt(stretch)) / radius
    distance = distance + rough * noise(canvas.rng, canvas.side, int(np.clip(2 * canvas.side / radius, 4, 60)))
    return 1 / (1 + np.exp(np.clip((distance - 1) / (0.25 * soft), -30, 30)))


def dots(side: int, xy: np.ndarray, radius: np.ndarray, alpha: np.ndarray, blur: float) -> np.ndarray:
    """Discs ``[side, side]`` of the given opacity, placed to a sixteenth of a pixel; where they overlap, the later one shows."""
    plane = np.zeros((side, side), np.float32)
    for (x, y), r, a in zip(xy, radius, alpha, strict=True):
        if 0 <= x < side and 0 <= y < side:
            centre = (int(16 * x), int(16 * y))
            cv2.circle(plane, centre, max(int(16 * r), 8), float(a), cv2.FILLED, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(plane, (0, 0), blur) if blur else plane
