"""Homotopic thinning: a skeleton one pixel thin with exactly the components, holes and ends of its mask.

Pixels are peeled in the order of their distance to the edge, and a pixel goes only if its removal changes no topology at that
moment (it is *simple*; Bertrand & Malandain 1994) and if it is not the last pixel of a branch. Parallel schemes that skip this
test (Zhang & Suen 1984) lose diagonal vessels of even thickness altogether.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

# Neighbour k of a pixel is bit k: N, NE, E, SE, S, SW, W, NW.
_DY = np.array([-1, -1, 0, 1, 1, 1, 0, -1], dtype=np.int64)
_DX = np.array([0, 1, 1, 1, 0, -1, -1, -1], dtype=np.int64)


def _deletable() -> np.ndarray:
    """uint8 [256]: 1 where a pixel with this neighbourhood is simple and not the end of a branch.

    Simple: its neighbours in the mask form one 8-component, and the background that touches it by an edge one 4-component.
    """
    table = np.zeros(256, np.uint8)
    for code in range(256):
        ring = [(code >> k) & 1 for k in range(8)]
        # Crossing number of 8-connected foreground (Hilditch): corners count only where the straight neighbours are empty.
        number = sum(1 for k in (0, 2, 4, 6) if not ring[k] and (ring[(k + 1) % 8] or ring[(k + 2) % 8]))
        # Of two neighbours, one straight and one at the corner beside it: the tip of a branch two pixels thick. It stays, or branches
        # would be eaten from their ends; two straight ones at a right angle make a staircase's corner, which may go.
        tip = sum(ring) < 2 or (sum(ring) == 2 and not any(ring[k] and ring[(k + 2) % 8] for k in (0, 2, 4, 6)))
        table[code] = number == 1 and not tip
    return table


_DELETABLE = _deletable()


@njit(cache=True)
def _peel(mask, order):
    """Delete pixels (flat indices, in order) while they are deletable, until none is; the mask is changed in place."""
    width = mask.shape[1]
    work = order.copy()
    alive = len(work)
    changed = True
    while changed:
        changed = False
        left = 0
        for i in range(alive):
            y = work[i] // width
            x = work[i] - y * width
            code = 0
            for k in range(8):
                if mask[y + _DY[k], x + _DX[k]]:
                    code |= 1 << k
            if _DELETABLE[code]:
                mask[y, x] = 0
                changed = True
            else:
                work[left] = work[i]
                left += 1
        alive = left


def thin(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Skeleton of a mask.

    Pixels go in the order of their distance to the edge, and of equal ones those first about which there is less vessel: an order
    that turns with the picture, so that a turned or mirrored mask has (but for ties of perfect symmetry) the same skeleton.

    Parameters
    ----------
    mask : ndarray of uint8, [H, W]
        0 or 1; its outermost rows and columns must be 0.
    distance : ndarray of float32, [H, W]
        Distance to the nearest background pixel.

    Returns
    -------
    ndarray of uint8, [H, W]
    """
    skeleton = mask.copy()
    pixels = np.flatnonzero(skeleton)
    about = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2.0, borderType=cv2.BORDER_CONSTANT)
    # Rounded, so that the sums' order of rounding in a turned picture decides nothing.
    key = np.rint(distance.ravel()[pixels] * 64.0) + np.rint(about.ravel()[pixels] * 4096.0) / 4097.0
    _peel(skeleton, pixels[np.argsort(key, kind="stable")])
    return skeleton
