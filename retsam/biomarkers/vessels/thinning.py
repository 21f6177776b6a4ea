"""Homotopic thinning: a skeleton one pixel thin with exactly the components, holes and ends of its mask.

Pixels are peeled in the order of their distance to the edge, from north, south, west and east in turn, and a pixel goes only
if its removal changes no topology at that moment (it is *simple*; Bertrand & Malandain 1994) and if it is not the last pixel
of a branch. Parallel schemes that skip this test (Zhang & Suen 1984) lose diagonal vessels of even thickness altogether.
"""

from __future__ import annotations

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
        table[code] = number == 1 and sum(ring) >= 2
    return table


_DELETABLE = _deletable()


@njit(cache=True)
def thin(mask, distance):
    """Skeleton of a mask.

    Parameters
    ----------
    mask : uint8 [H, W]
        0 or 1; its outermost rows and columns must be 0.
    distance : float32 [H, W]
        Distance to the nearest background pixel.

    Returns
    -------
    uint8 [H, W]
    """
    height, width = mask.shape
    skeleton = mask.copy()
    # Counting sort of the pixels by distance, in half-pixel levels.
    highest = 0
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                highest = max(highest, int(2.0 * distance[y, x]))
    start = np.zeros(highest + 2, np.int64)
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                start[int(2.0 * distance[y, x]) + 1] += 1
    for level in range(1, highest + 2):
        start[level] += start[level - 1]
    cursor = start.copy()
    pixels = np.empty(start[highest + 1], np.int64)
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                level = int(2.0 * distance[y, x])
                pixels[cursor[level]] = y * width + x
                cursor[level] += 1

    marked = np.empty(len(pixels), np.int64)
    kept = np.empty(len(pixels), np.int64)
    survivors = 0
    for level in range(highest + 2):
        if level <= highest:
            first = start[level]
            alive = start[level + 1] - first
            work = pixels[first : first + alive]
        else:
            # What no level could take away alone may have become free since.
            work = kept[:survivors].copy()
            alive = survivors
        changed = True
        while changed and alive > 0:
            changed = False
            for side in (0, 4, 6, 2):
                dy = _DY[side]
                dx = _DX[side]
                count = 0
                for i in range(alive):
                    y = work[i] // width
                    x = work[i] - y * width
                    if skeleton[y + dy, x + dx] == 0:
                        code = 0
                        for k in range(8):
                            if skeleton[y + _DY[k], x + _DX[k]]:
                                code |= 1 << k
                        if _DELETABLE[code]:
                            marked[count] = work[i]
                            count += 1
                gone = False
                for i in range(count):
                    y = marked[i] // width
                    x = marked[i] - y * width
                    code = 0
                    for k in range(8):
                        if skeleton[y + _DY[k], x + _DX[k]]:
                            code |= 1 << k
                    if _DELETABLE[code]:
                        skeleton[y, x] = 0
                        gone = True
                if gone:
                    changed = True
                    left = 0
                    for i in range(alive):
                        y = work[i] // width
                        x = work[i] - y * width
                        if skeleton[y, x]:
                            work[left] = work[i]
                            left += 1
                    alive = left
        if level <= highest:
            for i in range(alive):
                kept[survivors] = work[i]
                survivors += 1
    return skeleton
