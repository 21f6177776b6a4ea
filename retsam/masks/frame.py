"""The canonical frame: the square around the field of view, resampled to a fixed side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from retsam.quality.field_of_view import FieldOfView


@dataclass(frozen=True)
class Frame:
    """Isotropic map between a square frame and the native photograph.

    Coordinates are pixel centres: the centre of the top-left pixel is ``(0, 0)``, so
    ``native = scale * frame + (tx, ty)``.

    Parameters
    ----------
    side : int
        Side of the frame, px.
    scale : float
        Native px per frame px.
    tx, ty : float
        Native position of the centre of the frame's first pixel, px.
    native_width, native_height : int
        Size of the photograph, px.
    """

    side: int
    scale: float
    tx: float
    ty: float
    native_width: int
    native_height: int

    @classmethod
    def from_field_of_view(cls, fov: FieldOfView, side: int = 1024) -> Frame:
        """Frame whose square circumscribes the circle of a field of view.

        The square is rounded outwards to whole native pixels, so that it can be cut without interpolation.
        """
        span = max(2, int(np.ceil(2 * fov.radius)))
        left, top = round(fov.x + 0.5 - span / 2), round(fov.y + 0.5 - span / 2)
        return cls.from_square(left, top, span, side, fov.width, fov.height)

    @classmethod
    def from_square(cls, left: int, top: int, span: int, side: int, width: int, height: int) -> Frame:
        """Frame over the native square ``[left, left + span) x [top, top + span)``, which may reach outside the photograph."""
        scale = span / side
        return cls(side, scale, left + 0.5 * scale - 0.5, top + 0.5 * scale - 0.5, int(width), int(height))

    @classmethod
    def identity(cls, width: int, height: int) -> Frame:
        """Frame of masks measured at their own resolution. ``side`` is the longer side."""
        return cls(max(width, height), 1.0, 0.0, 0.0, int(width), int(height))

    @property
    def square(self) -> tuple[int, int, int]:
        """``(left, top, span)`` of the frame in whole native pixels."""
        half = 0.5 * self.scale - 0.5
        return round(self.tx - half), round(self.ty - half), round(self.scale * self.side)

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """Row-major 2x3 matrix from frame to native coordinates."""
        return (self.scale, 0.0, self.tx, 0.0, self.scale, self.ty)

    @classmethod
    def from_affine(cls, affine, side: int, native_height: int, native_width: int) -> Frame:
        """Inverse of :attr:`affine`.

        Raises
        ------
        ValueError
            If the matrix shears, rotates or scales the axes differently.
        """
        a, b, tx, c, d, ty = (float(v) for v in affine)
        if b or c or not np.isclose(a, d):
            raise ValueError(f"affine {tuple(affine)} is not an isotropic scaling: expected [s, 0, tx, 0, s, ty]")
        return cls(int(side), a, tx, ty, int(native_width), int(native_height))

    def to_native(self, xy) -> np.ndarray:
        """Frame coordinates ``[..., 2]`` to native coordinates."""
        return np.asarray(xy, float) * self.scale + (self.tx, self.ty)

    def to_frame(self, xy) -> np.ndarray:
        """Native coordinates ``[..., 2]`` to frame coordinates."""
        return (np.asarray(xy, float) - (self.tx, self.ty)) / self.scale

    def _overlap(self) -> tuple[slice, slice, slice, slice]:
        """Native rows and columns, then the rows and columns of the square that they fill."""
        left, top, span = self.square
        x0, x1 = max(left, 0), min(left + span, self.native_width)
        y0, y1 = max(top, 0), min(top + span, self.native_height)
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"frame {self} lies outside its photograph")
        return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)

    def warp(self, image: np.ndarray, nearest: bool = False) -> np.ndarray:
        """Resample a native image into the frame.

        Parameters
        ----------
        image : ndarray, [native_height, native_width(, C)]
            Photograph or mask; bool masks are resampled as ``uint8``.
        nearest : bool
            Keep values as they are (index masks). Otherwise area-averaged when shrinking and cubic when enlarging.

        Returns
        -------
        ndarray, [side, side(, C)]
            Same dtype; zero outside the photograph.
        """
        if image.shape[:2] != (self.native_height, self.native_width):
            found, expected = f"{image.shape[1]}x{image.shape[0]}", f"{self.native_width}x{self.native_height}"
            raise ValueError(f"image is {found} px, the frame was made for {expected}")
        rows, cols, to_rows, to_cols = self._overlap()
        span = self.square[2]
        source = image.astype(np.uint8) if image.dtype == bool else image
        square = np.zeros((span, span, *image.shape[2:]), source.dtype)
        square[to_rows, to_cols] = source[rows, cols]
        if nearest:
            mode = cv2.INTER_NEAREST_EXACT
        else:
            mode = cv2.INTER_AREA if self.scale > 1 else cv2.INTER_CUBIC
        out = cv2.resize(square, (self.side, self.side), interpolation=mode)
        return out.astype(image.dtype, copy=False)

    def unwarp(self, plane: np.ndarray, order: int = 0) -> np.ndarray:
        """Resample a frame's plane to the native photograph.

        Parameters
        ----------
        plane : ndarray, [side, side]
            Bool mask, or floating-point map.
        order : int
            0 keeps a mask a mask (pixels whose larger part is inside); 1 interpolates a map.

        Returns
        -------
        ndarray, [native_height, native_width]
            Bool for bool planes, else float32; zero outside the frame.
        """
        span = self.square[2]
        mode = cv2.INTER_AREA if span < self.side else cv2.INTER_LINEAR
        square = cv2.resize(np.asarray(plane, np.float32), (span, span), interpolation=mode)
        if plane.dtype == bool or order == 0:
            square = square >= 0.5
        rows, cols, from_rows, from_cols = self._overlap()
        out = np.zeros((self.native_height, self.native_width), square.dtype)
        out[rows, cols] = square[from_rows, from_cols]
        return out
