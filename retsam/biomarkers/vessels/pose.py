"""One pose for each mask: the same graph for a mask that was turned by a quarter, or mirrored.

Thinning and tracing have to break ties (which of two middle pixels goes first, where a path starts), and a rule in terms of rows and
columns breaks them differently in a turned picture. So a mask is measured in that one of its eight poses in which its centre of mass
lies in a fixed eighth of the picture, and what was found is turned back. Sums are of whole numbers, so the choice is exact; a mask
whose centre of mass lies on an axis of the picture is symmetric as far as this rule sees, and keeps the pose it has on that axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pose:
    """A quarter turn, mirroring, or both: first the axes are exchanged, then flipped.

    Parameters
    ----------
    transposed, flipped_rows, flipped_columns : bool
    shape : tuple of int
        Height and width of the posed mask.
    """

    transposed: bool
    flipped_rows: bool
    flipped_columns: bool
    shape: tuple[int, int]

    @property
    def handedness(self) -> int:
        """-1 if left and right curves are exchanged, else 1."""
        return -1 if self.transposed ^ self.flipped_rows ^ self.flipped_columns else 1

    def apply(self, plane: np.ndarray) -> np.ndarray:
        """A mask in this pose, a contiguous copy."""
        posed = plane.T if self.transposed else plane
        return np.ascontiguousarray(posed[:: -1 if self.flipped_rows else 1, :: -1 if self.flipped_columns else 1])

    def move(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 2] (x, y) of the mask as it was in the posed mask."""
        x, y = points[:, :: -1 if self.transposed else 1].T
        x = self.shape[1] - 1 - x if self.flipped_columns else x
        y = self.shape[0] - 1 - y if self.flipped_rows else y
        return np.column_stack([x, y])

    def undo(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 2] (x, y) of the posed mask in the mask as it was."""
        x, y = points[:, 0], points[:, 1]
        x = self.shape[1] - 1 - x if self.flipped_columns else x
        y = self.shape[0] - 1 - y if self.flipped_rows else y
        return np.column_stack([y, x] if self.transposed else [x, y])


def canonical_pose(plane: np.ndarray) -> Pose:
    """The pose in which a mask is measured.

    Parameters
    ----------
    plane : ndarray of bool, [H, W]

    Returns
    -------
    Pose
        With the centre of mass right of the picture's centre, below it, and farther right than below.
    """
    height, width = plane.shape
    rows = np.count_nonzero(plane, axis=1).astype(np.int64)
    columns = np.count_nonzero(plane, axis=0).astype(np.int64)
    down = int(rows @ (2 * np.arange(height) - (height - 1)))
    right = int(columns @ (2 * np.arange(width) - (width - 1)))
    transposed = abs(down) > abs(right)
    if transposed:
        down, right, height, width = right, down, width, height
    return Pose(transposed, down < 0, right < 0, (height, width))
