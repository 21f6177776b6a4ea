"""Properties of the connected components of a mask, for thousands of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

#: Steps (dy, dx) of the lines that Crofton's perimeter counts crossings with, each weighted by the spacing of its lines and half the angle
#: between its neighbours. In four directions a square along the axes would be 5 % short, in eight it is 1.4 %; a circle is exact in both.
_LINES = tuple(
    (step, angle / math.hypot(*step) / 2)
    for angle, steps in (
        (math.atan(1 / 2), ((0, 1), (1, 0))),
        (math.pi / 8, ((1, 2), (2, 1), (1, -2), (2, -1))),
        (math.pi / 4 - math.atan(1 / 2), ((1, 1), (1, -1))),
    )
    for step in steps
)


def pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of a mask's pixels; ten times faster than ``np.nonzero`` of two dimensions."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


@dataclass
class Blobs:
    """8-connected components of a mask; every array has one entry a component, in grid px.

    Parameters
    ----------
    area : ndarray of int
        Pixels.
    x, y : ndarray of float
        Centroids.
    circularity : ndarray of float
        4 pi area / perimeter^2 with Crofton's perimeter in eight directions, at most 1.
    aspect_ratio : ndarray of float
        Major over minor axis of the ellipse with the same second moments, at least 1.
    """

    area: np.ndarray
    x: np.ndarray
    y: np.ndarray
    _rows: np.ndarray
    _columns: np.ndarray
    _label: np.ndarray
    _mask: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Blobs:
        """Components of a mask, bool [H, W]."""
        mask = np.ascontiguousarray(mask, dtype=bool)
        # Statistics over the components' own pixels: OpenCV's run over the whole picture costs four times the labelling.
        places = np.flatnonzero(mask)
        rows, columns = np.divmod(places, mask.shape[1])
        count, label = 0, places
        if len(places):
            found, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
            count, label = found - 1, labels.ravel()[places] - 1
        area = np.bincount(label, minlength=count)
        return cls(
            area=area,
            x=np.bincount(label, columns, count) / area,
            y=np.bincount(label, rows, count) / area,
            _rows=rows,
            _columns=columns,
            _label=label,
            _mask=mask,
        )

    @property
    def count(self) -> int:
        return len(self.area)

    @property
    def total_area(self) -> int:
        return len(self._rows)

    @property
    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of all pixels of all components."""
        return self._rows, self._columns

    @property
    def equivalent_diameter(self) -> np.ndarray:
        """Diameter of the circle of the same area."""
        return np.sqrt(4 * self.area / math.pi)

    @cached_property
    def perimeter(self) -> np.ndarray:
        """Crofton's perimeter: crossings of the outline with lines in eight directions, weighted (see :data:`_LINES`)."""
        padded = np.pad(self._mask, 2)
        crossings = np.zeros(len(self._rows), np.float32)
        for (dy, dx), weight in _LINES:
            for sign in (1, -1):
                outside = ~padded[self._rows + 2 + sign * dy, self._columns + 2 + sign * dx]
                crossings += np.float32(weight) * outside
        return np.bincount(self._label, crossings, self.count)

    @cached_property
    def circularity(self) -> np.ndarray:
        return np.minimum(1.0, 4 * math.pi * self.area / self.perimeter**2)

    @cached_property
    def aspect_ratio(self) -> np.ndarray:
        # A pixel is a square, not a point: 1/12 on both axes keeps single pixels at a ratio of 1 and lines finite.
        dx, dy = self._columns - self.x[self._label], self._rows - self.y[self._label]
        xx = np.bincount(self._label, dx * dx, self.count) / self.area + 1 / 12
        yy = np.bincount(self._label, dy * dy, self.count) / self.area + 1 / 12
        xy = np.bincount(self._label, dx * dy, self.count) / self.area
        mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        return np.sqrt((mean + spread) / (mean - spread))

    def nearest(self, x: float, y: float) -> float:
        """Distance from a point to the nearest pixel of any component, 0 on a component; NaN without components."""
        if not self.count:
            return math.nan
        squared = (self._columns - x) ** 2 + (self._rows - y) ** 2
        # Half a pixel from the centre of a pixel to its edge.
        return max(0.0, math.sqrt(float(squared.min())) - 0.5)
