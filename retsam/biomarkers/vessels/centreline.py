"""Sub-pixel centrelines and widths: smoothing splines along the vessel and profiles across it.

The centreline of a segment is a discrete smoothing spline of order three (a Whittaker smoother: squared misfit plus
``penalty`` x squared third differences, on samples one pixel apart; Whittaker 1923, Eilers 2003). Its null space holds every
parabola, so unlike a cubic spline it neither straightens bends nor forces the curvature to zero at the ends; the penalty is
the largest that keeps the misfit at what pixels alone explain, so that straight vessels come out straight at every angle.

The width at a sample is the integral of the bilinear mask along the normal. Bilinear interpolation conserves area, so the
mean over a stretch of vessel is the area that its pixels cover over its length: unbiased for any width and angle.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.biomarkers.vessels.tracing import path_length

#: Step along the normal, px.
_STEP = 0.25


@njit(cache=True)
def whittaker(values, weights, penalty, out):
    """Smooth columns of `values` [n, k] with weights [n] and third-difference `penalty`; the result goes to `out` [n, k].

    Solves (W + penalty D'D) z = W y by a banded LDL' factorisation, D the matrix of third differences: O(n).
    """
    n, columns = values.shape
    if n < 4:
        for i in range(n):
            for c in range(columns):
                out[i, c] = values[i, c]
        return
    d0 = np.empty(n)
    d1 = np.zeros(n)
    d2 = np.zeros(n)
    d3 = np.zeros(n)
    for i in range(n):
        # Row i of D'D gathers the third differences (coefficients -1, 3, -3, 1) that touch sample i.
        s0 = 0.0
        s1 = 0.0
        s2 = 0.0
        s3 = 0.0
        for j in range(4):
            first = i - j
            if first < 0 or first + 3 >= n:
                continue
            if j == 0:
                c0, c1, c2, c3 = -1.0, 3.0, -3.0, 1.0
            elif j == 1:
                c0, c1, c2, c3 = 3.0, -3.0, 1.0, 0.0
            elif j == 2:
                c0, c1, c2, c3 = -3.0, 1.0, 0.0, 0.0
            else:
                c0, c1, c2, c3 = 1.0, 0.0, 0.0, 0.0
            s0 += c0 * c0
            s1 += c0 * c1
            s2 += c0 * c2
            s3 += c0 * c3
        d0[i] = weights[i] + penalty * s0
        d1[i] = penalty * s1
        d2[i] = penalty * s2
        d3[i] = penalty * s3
    for i in range(n):
        for c in range(columns):
            out[i, c] = weights[i] * values[i, c]
    # LDL' in place: d0 becomes D, d1..d3 the sub-diagonals of L.
    for i in range(n):
        pivot = d0[i]
        l1 = d1[i] / pivot
        l2 = d2[i] / pivot
        l3 = d3[i] / pivot
        if i + 1 < n:
            d0[i + 1] -= l1 * d1[i]
            d1[i + 1] -= l1 * d2[i]
            d2[i + 1] -= l1 * d3[i]
            for c in range(columns):
                out[i + 1, c] -= l1 * out[i, c]
        if i + 2 < n:
            d0[i + 2] -= l2 * d2[i]
            d1[i + 2] -= l2 * d3[i]
            for c in range(columns):
                out[i + 2, c] -= l2 * out[i, c]
        if i + 3 < n:
            d0[i + 3] -= l3 * d3[i]
            for c in range(columns):
                out[i + 3, c] -= l3 * out[i, c]
        d1[i] = l1
        d2[i] = l2
        d3[i] = l3
    for i in range(n - 1, -1, -1):
        for c in range(columns):
            value = out[i, c] / d0[i]
            if i + 1 < n:
                value -= d1[i] * out[i + 1, c]
            if i + 2 < n:
                value -= d2[i] * out[i + 2, c]
            if i + 3 < n:
                value -= d3[i] * out[i + 3, c]
            out[i, c] = value


@njit(cache=True)
def penalty_of(wavelength):
    """Penalty at which an undulation of this wavelength (in samples) keeps half its amplitude."""
    return (2.0 * math.sin(math.pi / max(wavelength, 2.0))) ** -6


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
def _half_width(mask, y, x, ny, nx, reach):
    """Integral of the mask from (y, x) along (ny, nx) through the vessel that holds (y, x), to its edge.

    The run ends one pixel beyond the place where the mask falls below one half, or earlier where it rises again (the next
    vessel), so that all of the edge's ramp is counted and nothing of a neighbour.
    """
    total = 0.0
    outside = 0.0
    last = 1.0
    t = 0.5 * _STEP
    while t < reach:
        value = _bilinear(mask, y + t * ny, x + t * nx)
        if outside > 0.0 or value < 0.5:
            if outside > 0.0 and (value > last + 1e-9 or outside > 1.0):
                break
            outside += _STEP
        total += value * _STEP
        last = value
        t += _STEP
    return total


@njit(cache=True)
def _tip(mask, y, x, dy, dx, w):
    """How far the centreline goes on from (y, x) along (dy, dx): half a width short of the vessel's tip.

    Mean over rays across the inner 70 % of the width, so that the tip is known better than to a pixel; a round tip of radius r is
    0.9109 r deep there on average.
    """
    total = 0.0
    for k in range(-4, 5):
        shift = 0.35 * w * k / 4.0
        total += _half_width(mask, y + shift * dx, x - shift * dy, dy, dx, 6.0 * w + 16.0)
    return total / 9.0 - 0.9109 * 0.5 * w


@njit(cache=True)
def resample(points, count, closed_length, out):
    """Points [n, 2] of a polyline resampled to `count` equidistant ones, into out [count, 2]."""
    n = points.shape[0]
    step = closed_length / (count - 1)
    j = 0
    walked = 0.0
    edge = math.hypot(points[1, 0] - points[0, 0], points[1, 1] - points[0, 1])
    for i in range(count):
        target = step * i
        while walked + edge < target and j < n - 2:
            walked += edge
            j += 1
            edge = math.hypot(points[j + 1, 0] - points[j, 0], points[j + 1, 1] - points[j, 1])
        f = (target - walked) / edge if edge > 0.0 else 0.0
        if f > 1.0:
            f = 1.0
        out[i, 0] = points[j, 0] + f * (points[j + 1, 0] - points[j, 0])
        out[i, 1] = points[j, 1] + f * (points[j + 1, 1] - points[j, 1])


@njit(cache=True)
def polyline_length(points):
    total = 0.0
    for i in range(points.shape[0] - 1):
        total += math.hypot(points[i + 1, 0] - points[i, 0], points[i + 1, 1] - points[i, 1])
    return total


@njit(cache=True)
def sample_profiles(mask, paths, offsets, width0, out_offsets, points, normals, widths):
    """Smooth each pixel path, sample it once a pixel, and measure the vessel across it.

    Parameters
    ----------
    mask : uint8 [h, w]
    paths : float64 [P, 2]
        (y, x) of all paths, one after the other; path i is ``paths[offsets[i]:offsets[i + 1]]``.
    width0 : float64 [S]
        First guess of each segment's width (px).
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
        whittaker(raw, np.ones(n), penalty_of(max(8.0, 1.5 * width0[s])), smooth)
        first = out_offsets[s]
        count = out_offsets[s + 1] - first
        line = points[first : first + count]
        resample(smooth, count, polyline_length(smooth), line)
        reach = 2.0 * width0[s] + 4.0
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
            if here < 0.75:
                best = 0.0
                for k in (-2, -1, 1, 2):
                    value = _bilinear(mask, y + 0.5 * k * ny, x + 0.5 * k * nx)
                    if value > here + 0.05:
                        here = value
                        best = 0.5 * k
                y += best * ny
                x += best * nx
            if here < 0.3:
                widths[first + i] = 0.0
                continue
            plus = _half_width(mask, y, x, ny, nx, reach)
            minus = _half_width(mask, y, x, -ny, -nx, reach)
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


@njit(cache=True)
def _median(values, count):
    """Median of the first `count` values (the upper one of an even number), which it reorders; 0 of none."""
    if count == 0:
        return 0.0
    target = count // 2
    low = 0
    high = count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                swap = values[i]
                values[i] = values[j]
                values[j] = swap
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]


@njit(cache=True)
def mark_valid(points, widths, offsets, ends, node_position, node_radius, valid, width):
    """Mark the samples at which a segment is alone: away from junctions and of a width that fits the segment.

    Parameters
    ----------
    ends : int32 [S, 2]
        Node index at start and end, -1 for closed loops.
    node_position : float64 [N, 2]
    node_radius : float64 [N]
        0 for free ends.
    valid : uint8 [M], out
    width : float64 [S], out
        Median width of the valid samples; of all samples inside the mask where none is valid.
    """
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        good = 0
        for i in range(first, last):
            ok = widths[i] > 0.0
            for e in range(2):
                node = ends[s, e]
                if ok and node >= 0 and node_radius[node] > 0.0:
                    away = math.hypot(points[i, 0] - node_position[node, 0], points[i, 1] - node_position[node, 1])
                    if away < 1.1 * node_radius[node] + 1.0:
                        ok = False
            valid[i] = 1 if ok else 0
            good += valid[i]
        sample = np.empty(last - first)
        k = 0
        for i in range(first, last):
            if valid[i] or (good == 0 and widths[i] > 0.0):
                sample[k] = widths[i]
                k += 1
        middle = _median(sample, k)
        width[s] = middle
        for i in range(first, last):
            if valid[i] and (widths[i] > 1.5 * middle + 0.5 or widths[i] < 0.5 * middle - 0.5):
                valid[i] = 0


@njit(cache=True)
def end_lines(points, offsets, valid, width, lines):
    """Straight line through the valid samples nearest each end: lines [S, 2, 5] = (y, x, dy, dx outwards, 1 if found)."""
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        stretch = max(8, int(round(2.0 * width[s])))
        for e in range(2):
            lines[s, e, 4] = 0.0
            n = 0
            sy = sx = syy = sxx = sxy = 0.0
            step = 1 if e == 0 else -1
            i = first if e == 0 else last - 1
            y0 = x0 = y1 = x1 = 0.0
            while first <= i < last and n < stretch:
                if valid[i]:
                    y = points[i, 0]
                    x = points[i, 1]
                    if n == 0:
                        y0, x0 = y, x
                    y1, x1 = y, x
                    n += 1
                    sy += y
                    sx += x
                    syy += y * y
                    sxx += x * x
                    sxy += x * y
                i += step
            if n < 3:
                continue
            cy = sy / n
            cx = sx / n
            a = sxx / n - cx * cx
            b = sxy / n - cx * cy
            c = syy / n - cy * cy
            angle = 0.5 * math.atan2(2.0 * b, a - c)
            dx = math.cos(angle)
            dy = math.sin(angle)
            if (y0 - y1) * dy + (x0 - x1) * dx < 0.0:
                dy, dx = -dy, -dx
            lines[s, e, 0] = cy
            lines[s, e, 1] = cx
            lines[s, e, 2] = dy
            lines[s, e, 3] = dx
            lines[s, e, 4] = 1.0


@njit(cache=True)
def meet_lines(lines, ends, node_position, node_radius, met):
    """Where the centrelines of a junction's branches meet: the point nearest to all their lines, into met [N, 2].

    A skeleton's junction lies off that point, towards the crotch of the fork. The skeleton's position takes part with a small
    weight (it decides along a line when all branches are parallel) and stays where the lines meet farther off than the junction
    is wide.
    """
    n = len(node_radius)
    m = np.zeros((n, 5))
    for i in range(n):
        m[i, 0] = m[i, 2] = 0.02
        m[i, 3] = 0.02 * node_position[i, 0]
        m[i, 4] = 0.02 * node_position[i, 1]
    for s in range(len(ends)):
        for e in range(2):
            node = ends[s, e]
            if node < 0 or lines[s, e, 4] == 0.0:
                continue
            dy = lines[s, e, 2]
            dx = lines[s, e, 3]
            a = 1.0 - dy * dy
            b = -dy * dx
            c = 1.0 - dx * dx
            y = lines[s, e, 0]
            x = lines[s, e, 1]
            m[node, 0] += a
            m[node, 1] += b
            m[node, 2] += c
            m[node, 3] += a * y + b * x
            m[node, 4] += b * y + c * x
    for i in range(n):
        met[i, 0] = node_position[i, 0]
        met[i, 1] = node_position[i, 1]
        if node_radius[i] <= 0.0:
            continue
        determinant = m[i, 0] * m[i, 2] - m[i, 1] * m[i, 1]
        y = (m[i, 2] * m[i, 3] - m[i, 1] * m[i, 4]) / determinant
        x = (m[i, 0] * m[i, 4] - m[i, 1] * m[i, 3]) / determinant
        if math.hypot(y - node_position[i, 0], x - node_position[i, 1]) <= 1.5 * node_radius[i] + 1.0:
            met[i, 0] = y
            met[i, 1] = x


@njit(cache=True)
def fit_centrelines(
    mask,
    points,
    normals,
    widths,
    valid,
    offsets,
    ends,
    node_position,
    node_radius,
    lines,
    width,
    tolerance,
    cutoff,
    out,
    out_width,
    out_kappa,
    out_valid,
    out_offsets,
):
    """Fit each segment's smoothing spline from node to node.

    Parameters
    ----------
    node_radius : float64 [N]
        0 for free ends: there the vessel's centreline ends half a width before its tip (the centre of the last inscribed circle).
    tolerance : tuple of float
        Misfit (px, rms) that pixels explain, constant part and part of the width.
    cutoff : tuple of float
        Shortest wavelength (px, constant, and times the width) that may pass the spline.
    out : float64 [K, 2], out
        Centreline samples about one pixel apart; K = M + room for the ends.
    out_width, out_kappa, out_valid : out [K]
        Width, signed curvature (1/px) and whether the sample was measured (1) or interpolated (0).
    out_offsets : int64 [S + 1], out
    """
    cursor = 0
    out_offsets[0] = 0
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        w = width[s]
        # First and last sample to keep, and the point at which each end is anchored.
        begin = first
        while begin < last and not valid[begin]:
            begin += 1
        end = last - 1
        while end > begin and not valid[end]:
            end -= 1
        if begin >= last or ends[s, 0] < 0:
            # Nothing measured (the whole segment lies inside junctions: straight from node to node), or a closed loop.
            begin, end = first, last - 1
        anchors = np.empty((2, 2))
        anchored = np.zeros(2)
        for e in range(2):
            node = ends[s, e]
            if node < 0:
                continue
            anchored[e] = 1.0
            if node_radius[node] > 0.0:
                anchors[e, 0] = node_position[node, 0]
                anchors[e, 1] = node_position[node, 1]
                continue
            if lines[s, e, 4] == 0.0:
                k = begin if e == 0 else end
                anchors[e, 0] = points[k, 0]
                anchors[e, 1] = points[k, 1]
                continue
            # From the middle of the last stretch straight out to the tip, then back by half a width.
            cy = lines[s, e, 0]
            cx = lines[s, e, 1]
            dy = lines[s, e, 2]
            dx = lines[s, e, 3]
            reach = _tip(mask, cy, cx, dy, dx, w)
            anchors[e, 0] = cy + reach * dy
            anchors[e, 1] = cx + reach * dx
            # Samples beyond the anchor lie in the rounded tip.
            if e == 0:
                while begin < end and (points[begin, 0] - anchors[e, 0]) * dy + (points[begin, 1] - anchors[e, 1]) * dx > -0.5:
                    begin += 1
            else:
                while end > begin and (points[end, 0] - anchors[e, 0]) * dy + (points[end, 1] - anchors[e, 1]) * dx > -0.5:
                    end -= 1
        lead = 0
        if anchored[0]:
            lead = max(1, int(round(math.hypot(points[begin, 0] - anchors[0, 0], points[begin, 1] - anchors[0, 1]))))
        tail = 0
        if anchored[1]:
            tail = max(1, int(round(math.hypot(points[end, 0] - anchors[1, 0], points[end, 1] - anchors[1, 1]))))
        count = lead + (end - begin + 1) + tail
        values = np.empty((count, 2))
        weights = np.empty(count)
        # What was not measured does not pull on the spline.
        for i in range(lead):
            f = i / lead
            for c in range(2):
                values[i, c] = anchors[0, c] + f * (points[begin, c] - anchors[0, c])
            weights[i] = 1e-4
        for i in range(begin, end + 1):
            k = lead + i - begin
            values[k, 0] = points[i, 0]
            values[k, 1] = points[i, 1]
            weights[k] = 1.0 if valid[i] else 1e-6
        for i in range(tail):
            f = (i + 1) / tail
            for c in range(2):
                values[lead + end - begin + 1 + i, c] = points[end, c] + f * (anchors[1, c] - points[end, c])
            weights[lead + end - begin + 1 + i] = 1e-4
        if cursor + count > out.shape[0]:
            raise ValueError("room for centreline samples exhausted")
        fitted = out[cursor : cursor + count]
        shortest = max(cutoff[0], cutoff[1] * w)
        allowed = tolerance[0] + tolerance[1] * w
        # Beyond 400 samples the penalty would drown the weights in rounding.
        wavelength = max(shortest, min(4.0 * count, 400.0))
        while True:
            whittaker(values, weights, penalty_of(wavelength), fitted)
            if wavelength <= shortest or count < 6:
                break
            # Pixel noise averages out along the vessel, misfit of the spline does not: so judge residuals averaged over a window
            # of a quarter wavelength, over all (rms) and at the worst place (one bend must not be outvoted by a long vessel).
            window = max(4, min(int(wavelength / 4.0), (end - begin + 1) // 3))
            mean_y = 0.0
            mean_x = 0.0
            inside_window = 0
            total = 0.0
            worst = 0.0
            number = 0
            for i in range(lead, lead + end - begin + 1):
                if weights[i] == 1.0:
                    mean_y += values[i, 0] - fitted[i, 0]
                    mean_x += values[i, 1] - fitted[i, 1]
                    inside_window += 1
                if i - window >= lead and weights[i - window] == 1.0:
                    mean_y -= values[i - window, 0] - fitted[i - window, 0]
                    mean_x -= values[i - window, 1] - fitted[i - window, 1]
                    inside_window -= 1
                if i - lead + 1 >= window and inside_window > 0:
                    squared = (mean_y * mean_y + mean_x * mean_x) / (inside_window * inside_window)
                    total += squared
                    worst = max(worst, squared)
                    number += 1
            if number > 0 and math.sqrt(total / number) <= allowed and math.sqrt(worst) <= 3.0 * allowed:
                break
            wavelength = max(shortest, wavelength / 1.25)
        # Into a junction the centreline goes on straight to where the branches' lines meet; a free end is the spline's own.
        if anchored[0] and node_radius[ends[s, 0]] > 0.0:
            for i in range(lead):
                f = i / lead
                for c in range(2):
                    fitted[i, c] = anchors[0, c] + f * (fitted[lead, c] - anchors[0, c])
        if anchored[1] and node_radius[ends[s, 1]] > 0.0:
            last_fitted = lead + end - begin
            for i in range(tail):
                f = (i + 1) / tail
                for c in range(2):
                    fitted[last_fitted + 1 + i, c] = fitted[last_fitted, c] + f * (anchors[1, c] - fitted[last_fitted, c])
        for i in range(count):
            low = max(i - 1, 0)
            high = min(i + 1, count - 1)
            # Differences of the measured part stay inside it.
            middle = min(max(i, 1), count - 2)
            if lead <= i <= lead + end - begin and end - begin >= 2:
                middle = min(max(i, lead + 1), lead + end - begin - 1)
                low, high = middle - 1, middle + 1
            vy = (fitted[high, 0] - fitted[low, 0]) / (high - low)
            vx = (fitted[high, 1] - fitted[low, 1]) / (high - low)
            ay = fitted[middle + 1, 0] - 2.0 * fitted[middle, 0] + fitted[middle - 1, 0]
            ax = fitted[middle + 1, 1] - 2.0 * fitted[middle, 1] + fitted[middle - 1, 1]
            speed = math.hypot(vy, vx)
            out_kappa[cursor + i] = (vx * ay - vy * ax) / speed**3 if speed > 1e-9 else 0.0
            k = begin + i - lead
            measured = lead <= i <= lead + end - begin and valid[k] == 1
            out_valid[cursor + i] = 1 if measured else 0
            if measured:
                # The profile lay along the first normal; the spline's may differ by a few degrees.
                cosine = abs(-vx * normals[k, 0] + vy * normals[k, 1]) / speed if speed > 1e-9 else 1.0
                out_width[cursor + i] = widths[k] * cosine
            else:
                out_width[cursor + i] = w
        cursor += count
        out_offsets[s + 1] = cursor
    return cursor
