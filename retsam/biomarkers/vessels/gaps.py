"""Short gaps in a vessel mask, closed before it is thinned.

The thinnest vessels of a mask are a pixel wide, and where pixels fall decides whether such a vessel has breaks. Each free end of a skeleton
looks ahead: where the mask goes on within `REACH`, straight ahead or a little aside, the gap is filled in.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Longest gap (grid px, see `grid`).
REACH = 8.0
#: Directions in which an end looks, degrees off its own; nearer to it counts for more.
ASIDE = (0.0, -15.0, 15.0, -30.0, 30.0)
#: An end's direction is that of this many px of skeleton.
STRETCH = 10

_DY = np.array([-1, 0, 1, 0, -1, -1, 1, 1], dtype=np.int64)
_DX = np.array([0, 1, 0, -1, -1, 1, 1, -1], dtype=np.int64)


@njit(cache=True)
def gap_lines(skeleton, mask, distance, reach, aside):
    """Lines that close gaps: float64 [n, 5] of (y, x) at both ends and half the width of the vessel that looks across.

    Parameters
    ----------
    skeleton, mask : uint8 [H, W]
        0 or 1; 0 in the outermost rows and columns.
    distance : float32 [H, W]
        Distance to the edge of the mask.
    reach : float
        Longest gap, px.
    aside : float64 [k]
        Directions, radians.
    """
    height, width = skeleton.shape
    out = np.empty((int(skeleton.sum()), 5))
    count = 0
    back = np.empty((STRETCH + 1, 2), np.int64)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if not skeleton[y, x]:
                continue
            number = 0
            for k in range(8):
                number += skeleton[y + _DY[k], x + _DX[k]]
            if number != 1:
                continue
            # Back along the skeleton, to where it forks or `STRETCH` px.
            back[0, 0] = y
            back[0, 1] = x
            n = 1
            while n <= STRETCH:
                cy = back[n - 1, 0]
                cx = back[n - 1, 1]
                following = 0
                ny = nx = 0
                for k in range(8):
                    ty = cy + _DY[k]
                    tx = cx + _DX[k]
                    if not skeleton[ty, tx]:
                        continue
                    known = False
                    for j in range(max(0, n - 2), n):
                        if max(abs(back[j, 0] - ty), abs(back[j, 1] - tx)) <= (0 if j == n - 1 else 1):
                            known = True
                    if not known:
                        if following == 0:
                            ny, nx = ty, tx
                        following += 1
                if following == 0:
                    break
                back[n, 0] = ny
                back[n, 1] = nx
                n += 1
            if n <= STRETCH // 2:
                continue
            # The tip of a skeleton may turn into a corner of its vessel: the direction is that of what lies behind it.
            first = min(2, n - 2)
            dy = float(back[first, 0] - back[n - 1, 0])
            dx = float(back[first, 1] - back[n - 1, 1])
            norm = math.hypot(dy, dx)
            if norm == 0.0:
                continue
            dy /= norm
            dx /= norm
            best = math.inf
            hit_y = hit_x = 0.0
            for a in range(len(aside)):
                c = math.cos(aside[a])
                s = math.sin(aside[a])
                vy = c * dy + s * dx
                vx = c * dx - s * dy
                left = -1.0
                t = 0.0
                limit = 2.0 * distance[y, x] + 2.0 + reach
                while t < limit:
                    iy = int(round(y + t * vy))
                    ix = int(round(x + t * vx))
                    if iy < 1 or ix < 1 or iy >= height - 1 or ix >= width - 1:
                        break
                    if mask[iy, ix]:
                        if left >= 0.0:
                            gap = (t - left) * (1.0 + abs(aside[a]))
                            if gap <= reach and gap < best:
                                best = gap
                                # Into the vessel beyond, so that the line meets its course.
                                hit_y = y + (t + 2.0) * vy
                                hit_x = x + (t + 2.0) * vx
                            break
                    elif left < 0.0:
                        left = t
                    t += 0.5
            if best < math.inf:
                out[count, 0] = y
                out[count, 1] = x
                out[count, 2] = hit_y
                out[count, 3] = hit_x
                out[count, 4] = distance[y, x]
                count += 1
    return out[:count]
