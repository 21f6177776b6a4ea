"""From a one-pixel skeleton to nodes and pixel paths.

Everything here works on whole arrays at once in compiled loops, so that a photograph of 3504 x 2336 is traced in
milliseconds; the graph's meaning (spurs, crossings, merged junctions) is decided in `topology`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# The eight neighbours, the four straight ones first: a diagonal neighbour only counts when no straight neighbour
# already leads there, which keeps staircase corners from looking like junctions.
_DY = np.array([-1, 0, 1, 0, -1, -1, 1, 1], dtype=np.int64)
_DX = np.array([0, 1, 0, -1, -1, 1, 1, -1], dtype=np.int64)


@njit(cache=True)
def _linked(skeleton, y, x, k):
    """Whether neighbour `k` of pixel (y, x) is joined to it in the reduced 8-adjacency."""
    dy = _DY[k]
    dx = _DX[k]
    if skeleton[y + dy, x + dx] == 0:
        return False
    if k < 4:
        return True
    return skeleton[y + dy, x] == 0 and skeleton[y, x + dx] == 0


@njit(cache=True)
def path_length(path):
    """Length of a pixel path [n, 2] with its staircase smoothed away: chords over up to five pixels."""
    n = path.shape[0]
    total = 0.0
    i = 0
    while i < n - 1:
        j = min(i + 5, n - 1)
        total += math.hypot(path[j, 0] - path[i, 0], path[j, 1] - path[i, 1])
        i = j
    return total


@njit(cache=True)
def trace_skeleton(skeleton):
    """Trace a skeleton into nodes and paths.

    Parameters
    ----------
    skeleton : uint8 [H, W]
        Non-zero on the skeleton; its outermost rows and columns must be zero.

    Returns
    -------
    node_y, node_x : float64 [N]
        Centre of each node: a cluster of touching junction pixels, or the single pixel of a free end.
    path_y, path_x : int32 [P]
        Pixels of all paths, one after the other, both node pixels included.
    offsets : int64 [S + 1]
        Path `i` is `path_y[offsets[i]:offsets[i + 1]]`.
    ends : int32 [S, 2]
        Node at the start and at the end of each path; (-1, -1) marks a closed loop without a node.
    """
    height, width = skeleton.shape
    total = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if skeleton[y, x] != 0:
                total += 1
    pixel_y = np.empty(total, np.int32)
    pixel_x = np.empty(total, np.int32)
    degree = np.zeros((height, width), np.uint8)
    count = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if skeleton[y, x] != 0:
                pixel_y[count] = y
                pixel_x[count] = x
                count += 1
                d = 0
                for k in range(8):
                    if _linked(skeleton, y, x, k):
                        d += 1
                degree[y, x] = d

    # Touching junction pixels form one node: one junction is counted once.
    label = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            label[y, x] = -1
    node_sum_y = np.zeros(total, np.float64)
    node_sum_x = np.zeros(total, np.float64)
    node_size = np.zeros(total, np.int64)
    stack = np.empty(total, np.int64)
    nodes = 0
    for i in range(total):
        y, x = pixel_y[i], pixel_x[i]
        if degree[y, x] == 2 or label[y, x] >= 0:
            continue
        label[y, x] = nodes
        stack[0] = y * width + x
        top = 1
        while top > 0:
            top -= 1
            cy = stack[top] // width
            cx = stack[top] % width
            node_sum_y[nodes] += cy
            node_sum_x[nodes] += cx
            node_size[nodes] += 1
            if degree[cy, cx] < 3:
                continue
            for k in range(8):
                ny = cy + _DY[k]
                nx = cx + _DX[k]
                if degree[ny, nx] >= 3 and label[ny, nx] < 0:
                    label[ny, nx] = nodes
                    stack[top] = ny * width + nx
                    top += 1
        nodes += 1

    # A path enters at most twice each pixel (a loop starting and ending at one node): 4 x total bounds all paths.
    path_y = np.empty(4 * total + 16, np.int32)
    path_x = np.empty(4 * total + 16, np.int32)
    offsets = np.empty(2 * total + 2, np.int64)
    ends = np.empty((2 * total + 1, 2), np.int32)
    offsets[0] = 0
    paths = 0
    cursor = 0
    seen = np.zeros((height, width), np.uint8)
    for i in range(total):
        y, x = pixel_y[i], pixel_x[i]
        start = label[y, x]
        if start < 0:
            continue
        for k in range(8):
            if not _linked(skeleton, y, x, k):
                continue
            ny = y + _DY[k]
            nx = x + _DX[k]
            other = label[ny, nx]
            if other >= 0:
                if other > start:
                    path_y[cursor] = y
                    path_x[cursor] = x
                    path_y[cursor + 1] = ny
                    path_x[cursor + 1] = nx
                    cursor += 2
                    ends[paths, 0] = start
                    ends[paths, 1] = other
                    paths += 1
                    offsets[paths] = cursor
                continue
            if seen[ny, nx] != 0:
                continue
            first = cursor
            path_y[cursor] = y
            path_x[cursor] = x
            cursor += 1
            py, px = y, x
            cy, cx = ny, nx
            finish = -1
            while True:
                seen[cy, cx] = 1
                path_y[cursor] = cy
                path_x[cursor] = cx
                cursor += 1
                moved = False
                # Leave by the link that does not lead back to where we came from.
                for m in range(8):
                    if not _linked(skeleton, cy, cx, m):
                        continue
                    ty = cy + _DY[m]
                    tx = cx + _DX[m]
                    if ty == py and tx == px:
                        continue
                    if label[ty, tx] >= 0:
                        finish = label[ty, tx]
                        path_y[cursor] = ty
                        path_x[cursor] = tx
                        cursor += 1
                        moved = True
                        break
                    if seen[ty, tx] == 0:
                        py, px = cy, cx
                        cy, cx = ty, tx
                        moved = True
                        break
                if not moved or finish >= 0:
                    break
            if finish < 0 or (finish == start and cursor - first <= 4):
                cursor = first
                continue
            ends[paths, 0] = start
            ends[paths, 1] = finish
            paths += 1
            offsets[paths] = cursor

    # What is left of degree two belongs to closed loops.
    for i in range(total):
        y, x = pixel_y[i], pixel_x[i]
        if degree[y, x] != 2 or seen[y, x] != 0:
            continue
        first = cursor
        py, px = -1, -1
        cy, cx = np.int64(y), np.int64(x)
        while True:
            seen[cy, cx] = 1
            path_y[cursor] = cy
            path_x[cursor] = cx
            cursor += 1
            moved = False
            for m in range(8):
                if not _linked(skeleton, cy, cx, m):
                    continue
                ty = cy + _DY[m]
                tx = cx + _DX[m]
                if seen[ty, tx] == 0 and degree[ty, tx] == 2:
                    py, px = cy, cx
                    cy, cx = ty, tx
                    moved = True
                    break
            if not moved:
                break
        if cursor - first < 6:
            cursor = first
            continue
        path_y[cursor] = path_y[first]
        path_x[cursor] = path_x[first]
        cursor += 1
        ends[paths, 0] = -1
        ends[paths, 1] = -1
        paths += 1
        offsets[paths] = cursor

    for n in range(nodes):
        node_sum_y[n] /= node_size[n]
        node_sum_x[n] /= node_size[n]
    return (
        node_sum_y[:nodes].copy(),
        node_sum_x[:nodes].copy(),
        path_y[:cursor].copy(),
        path_x[:cursor].copy(),
        offsets[: paths + 1].copy(),
        ends[:paths].copy(),
    )
