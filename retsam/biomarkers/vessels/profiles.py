"""Profiles across vessels: widths and mid-points to a fraction of a pixel.

The width at a sample is the integral of the bilinear mask along the normal. Bilinear interpolation conserves area, so the mean over a
stretch of vessel is the area that its pixels cover over its length: unbiased for any width and angle.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.biomarkers.vessels.grid import BLUR, PER_UNIT
from retsam.biomarkers.vessels.smoothing import penalty_of, polyline_length, resample, whittaker
from retsam.biomarkers.vessels.tracing import path_length

#: Step along the normal, px.
_STEP = 0.25
#: Half an edge's ramp, px: 6 SD of the smoothing of `grid`.
_RAMP = 6.0 * BLUR * PER_UNIT


@njit(cache=True)
def _bilinear(mask, y, x):
    height, width = mask.shape
    if y < 0.0 or x < 0.0 or y >= height - 1 or x >= width - 1:
        return 0.0
    iy = int(y)
    ix = int(x)
    fy = y - iy
    fx = x - ix
    return (
        mask[iy, ix] * (1.0 - fy) * (1.0 - fx)
        + mask[iy, ix + 1] * (1.0 - fy) * fx
        + mask[iy + 1, ix] * fy * (1.0 - fx)
        + mask[iy + 1, ix + 1] * fy * fx
    )


@njit(cache=True)
def half_width(mask, y, x, ny, nx, reach):
    """Integral of the field from (y, x) along (ny, nx) through the vessel that holds (y, x), to its edge.

    The run ends `_RAMP` beyond the place where the field falls below half of what it is at (y, x), or earlier where it rises again
    (the next vessel), so that all of the edge's ramp is counted and nothing of a neighbour.
    """
    total = 0.0
    outside = 0.0
    last = 1.0
    edge = 0.5 * _bilinear(mask, y, x)
    t = 0.5 * _STEP
    while t < reach:
        value = _bilinear(mask, y + t * ny, x + t * nx)
        if outside > 0.0 or value < edge:
            if outside > 0.0 and (value > last + 1e-6 or value == 0.0 or outside > _RAMP):
                break
            outside += _STEP
        total += value * _STEP
        last = value
        t += _STEP
    return total


@njit(cache=True)
def tip(mask, y, x, dy, dx, w):
    """How far the centreline goes on from (y, x) along (dy, dx): half a width short of the vessel's tip.

    Mean over rays across the inner 70 % of the width, so that the tip is known better than to a pixel; a round tip of radius r is
    0.9109 r deep there on average.
    """
    total = 0.0
    for k in range(-4, 5):
        shift = 0.35 * w * k / 4.0
        # A ray near the vessel's edge meets less than the whole of the field, all along.
        there = max(_bilinear(mask, y + shift * dx, x - shift * dy), 0.1)
        total += half_width(mask, y + shift * dx, x - shift * dy, dy, dx, 6.0 * w + 16.0) / there
    return total / 9.0 - 0.9109 * 0.5 * w


@njit(cache=True)
def sample_profiles(mask, paths, offsets, width0, unit, out_offsets, points, normals, widths):
    """Smooth each pixel path, sample it once a pixel, and measure the vessel across it.

    Parameters
    ----------
    mask : uint8 [h, w]
    paths : float64 [P, 2]
        (y, x) of all paths, one after the other; path i is ``paths[offsets[i]:offsets[i + 1]]``.
    width0 : float64 [S]
        First guess of each segment's width (px).
    unit : float
        See `graph.build_graph`.
    out_offsets : int64 [S + 1]
        Where each segment's samples go (from `count_samples`).
    points : float64 [M, 2], out
        Middle between the two edges.
    normals : float64 [M, 2], out
    widths : float64 [M], out
        0 where the sample lies outside the mask.
    """
    for s in range(len(offsets) - 1):
        raw = paths[offsets[s] : offsets[s + 1]]
        n = raw.shape[0]
        smooth = np.empty((n, 2))
        whittaker(raw, np.ones(n), np.full(n, penalty_of(max(6.0 * unit, 1.25 * width0[s]))), smooth)
        first = out_offsets[s]
        count = out_offsets[s + 1] - first
        line = points[first : first + count]
        resample(smooth, count, polyline_length(smooth), line)
        reach = 2.0 * width0[s] + 4.0 + _RAMP
        for i in range(count):
            low = max(i - 1, 0)
            high = min(i + 1, count - 1)
            ty = line[high, 0] - line[low, 0]
            tx = line[high, 1] - line[low, 1]
            norm = math.hypot(ty, tx)
            if norm > 0.0:
                normals[first + i, 0] = -tx / norm
                normals[first + i, 1] = ty / norm
            else:
                normals[first + i, 0] = 0.0
                normals[first + i, 1] = 1.0
        for i in range(count):
            ny = normals[first + i, 0]
            nx = normals[first + i, 1]
            y = line[i, 0]
            x = line[i, 1]
            # The smoothed skeleton may run just beside a vessel of one or two pixels: start at the mask's highest value nearby.
            here = _bilinear(mask, y, x)
            if here < 0.9:
                best = 0.0
                for k in (-4, -3, -2, -1, 1, 2, 3, 4):
                    value = _bilinear(mask, y + 0.5 * k * ny, x + 0.5 * k * nx)
                    if value > here + 0.02:
                        here = value
                        best = 0.5 * k
                y += best * ny
                x += best * nx
            if here < 0.04:
                widths[first + i] = 0.0
                continue
            plus = half_width(mask, y, x, ny, nx, reach)
            minus = half_width(mask, y, x, -ny, -nx, reach)
            widths[first + i] = plus + minus
            line[i, 0] = y + 0.5 * (plus - minus) * ny
            line[i, 1] = x + 0.5 * (plus - minus) * nx


@njit(cache=True)
def count_samples(paths, offsets):
    """Number of samples, one a pixel, of each path: int64 [S]."""
    counts = np.empty(len(offsets) - 1, np.int64)
    for s in range(len(counts)):
        total = path_length(paths[offsets[s] : offsets[s + 1]])
        counts[s] = max(4, int(round(total)) + 1)
    return counts
