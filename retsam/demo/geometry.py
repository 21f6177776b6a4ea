"""Where the eye lies in the picture: millimetres of the eye's frame to pixels and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retsam.demo.parameters import MM_PER_DEGREE, EyeParameters

__all__ = ["Projection"]


@dataclass(frozen=True)
class Projection:
    """Similarity (with mirror for right eyes) between the eye's frame and the picture.

    The eye's frame has its origin at the centre of the disc, x temporal, y inferior, in millimetres. In a photograph of a left
    eye temporal is to the right; of a right eye, to the left.
    """

    width: int
    height: int
    radius: float  # of the field of view, px
    px_per_mm: float
    view: tuple[float, float]  # point of the eye at the centre of the field of view, mm
    cosine: float
    sine: float
    mirror: float  # -1 for a right eye

    @classmethod
    def of(cls, parameters: EyeParameters) -> Projection:
        camera = parameters.camera
        width, height = parameters.size, int(round(parameters.size * camera.aspect))
        radius = camera.fov_radius * width
        px_per_mm = radius / (0.5 * camera.field_degrees * MM_PER_DEGREE)
        fovea = fovea_position(parameters)
        view = (
            parameters.centre * fovea[0] + parameters.centre_offset_mm[0],
            parameters.centre * fovea[1] + parameters.centre_offset_mm[1],
        )
        angle = math.radians(parameters.rotation)
        return cls(width, height, radius, px_per_mm, view, math.cos(angle), math.sin(angle), -1.0 if parameters.eye == "R" else 1.0)

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the field of view, pixels."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Millimetres [..., 2] to pixels [..., 2]."""
        offset = (np.asarray(points, float) - self.view) * self.px_per_mm
        x = self.cosine * offset[..., 0] - self.sine * offset[..., 1]
        y = self.sine * offset[..., 0] + self.cosine * offset[..., 1]
        return np.stack([self.mirror * x + self.centre[0], y + self.centre[1]], -1)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Millimetres (x, y) of every pixel, float32 [H, W] each."""
        x = self.mirror * (np.arange(self.width, dtype=np.float32) - np.float32(self.centre[0])) / np.float32(self.px_per_mm)
        y = (np.arange(self.height, dtype=np.float32) - np.float32(self.centre[1])) / np.float32(self.px_per_mm)
        c, s = np.float32(self.cosine), np.float32(self.sine)
        x, y = x[None, :], y[:, None]
        return c * x + s * y + np.float32(self.view[0]), -s * x + c * y + np.float32(self.view[1])

    def from_centre(self) -> np.ndarray:
        """Distance of every pixel from the centre of the field of view, pixels, float32 [H, W]."""
        x = np.arange(self.width, dtype=np.float32) - np.float32(self.centre[0])
        y = np.arange(self.height, dtype=np.float32) - np.float32(self.centre[1])
        return np.hypot(x[None, :], y[:, None])

    def inside(self, x: float, y: float, reach: float) -> bool:
        """Whether a circle of the eye (mm) lies wholly in the photograph and the field of view."""
        px, py = self.to_pixels(np.array([x, y]))
        margin = reach * self.px_per_mm + 1
        return bool(
            math.hypot(px - self.centre[0], py - self.centre[1]) + margin < self.radius
            and margin < px < self.width - 1 - margin
            and margin < py < self.height - 1 - margin
        )


def fovea_position(parameters: EyeParameters) -> np.ndarray:
    """Fovea in the eye's frame, millimetres [2]."""
    angle = math.radians(parameters.fovea_angle)
    return parameters.fovea_distance_mm * np.array([math.cos(angle), math.sin(angle)])


def cup_centre(parameters: EyeParameters) -> tuple[float, float]:
    """Centre of the cup in the disc's axes, millimetres."""
    room = (
        0.5 * parameters.disc_width_mm * (1 - parameters.cdr_horizontal),
        0.5 * parameters.disc_height_mm * (1 - parameters.cdr_vertical),
    )
    return parameters.cup_shift[0] * room[0], parameters.cup_shift[1] * room[1]
