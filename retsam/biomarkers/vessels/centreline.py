"""Centrelines of segments from node to node.

The samples that `profiles` measured, where a segment is alone, are fitted with the smoothing spline of `smoothing`; the penalty is,
place by place, the largest that keeps the misfit at what pixels alone explain, so that straight vessels come out straight at every
angle. Into a junction the centreline goes on to where the centrelines of its branches meet; a free end lies half a width short of the
vessel's tip.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.biomarkers.vessels.profiles import tip
from retsam.biomarkers.vessels.smoothing import median_of, penalty_of, whittaker

#: Longest wavelength that is tried, px: beyond it the penalty would drown the weights in rounding.
LONGEST = 400.0
#: How many times the spline is fitted at most.
ATTEMPTS = 14
#: Parts of its residuals, smoothed, that are added back, one after the other. After the first alone, squared curvature of an arc of 12
#: widths was 2.5 % too high; all of the second would bring back pixels as well, and curvature would follow the camera.
TWICING = (1.0, 0.6)
#: By how much the wavelength may grow from one sample to the next.
SPREAD = 1.0
#: A sample of which less than this (units) is in the mask lies in a gap.
THINNEST = 0.1
#: Beyond half a width from a gap samples nearer than this (units) lie in its soft edge.
CUT_EDGE = 1.5
#: Samples nearer to a free end than this (px) lie in its rounding.
ROUNDED = 2.0


@njit(cache=True)
def mark_valid(points, widths, offsets, ends, node_position, node_radius, unit, valid, width):
    """Mark the samples at which a segment is alone: away from junctions and of a width that fits the segment.

    Parameters
    ----------
    ends : int32 [S, 2]
        Node index at start and end, -1 for closed loops.
    node_position : float64 [N, 2]
    node_radius : float64 [N]
        0 for free ends.
    unit : float
        See `graph.build_graph`.
    valid : uint8 [M], out
    width : float64 [S], out
        Median width of the valid samples; of all samples inside the mask where none is valid.
    """
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        good = 0
        for i in range(first, last):
            ok = widths[i] > THINNEST * unit
            for e in range(2):
                node = ends[s, e]
                if ok and node >= 0 and node_radius[node] > 0.0:
                    away = math.hypot(points[i, 0] - node_position[node, 0], points[i, 1] - node_position[node, 1])
                    if away < 1.1 * node_radius[node] + unit:
                        ok = False
            valid[i] = 1 if ok else 0
            good += valid[i]
        sample = np.empty(last - first)
        k = 0
        for i in range(first, last):
            if valid[i] or (good == 0 and widths[i] > 0.0):
                sample[k] = widths[i]
                k += 1
        middle = median_of(sample, k)
        width[s] = middle
        for i in range(first, last):
            if valid[i] and (widths[i] > 1.5 * middle + 0.5 * unit or widths[i] < 0.5 * middle - 0.1 * unit):
                valid[i] = 0
        # At the edge of a gap, where another vessel passes over, the vessel is cut across: it is whole half a width on, by a soft edge.
        beside = int(0.5 * middle + CUT_EDGE * unit)
        for i in range(first, last):
            if widths[i] <= THINNEST * unit:
                valid[max(first, i - beside) : min(last, i + beside + 1)] = 0


@njit(cache=True)
def end_lines(points, offsets, valid, width, unit, lines):
    """Straight line through the valid samples nearest each end: lines [S, 2, 5] = (y, x, dy, dx outwards, 1 if found)."""
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        stretch = int(round(max(8.0 * unit, 2.0 * width[s])))
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
def _shorten(values, fitted, weights, lead, number, shortest, allowed, mend, wavelength, shorter):
    """Shorten the wavelengths [n] of a spline where it misses what it was fitted to; whether any was.

    Pixel noise averages out along the vessel, misfit of the spline does not: so residuals are averaged over a window of a quarter
    wavelength about each sample. The misfit that is allowed grows as the square of `mend` over shorter wavelengths. About a sample that
    is missed the wavelength is short, and from there on it grows by no more than the way.
    """
    sums = np.zeros((number + 1, 3))
    for k in range(number):
        i = lead + k
        use = 1.0 if weights[i] == 1.0 else 0.0
        sums[k + 1, 0] = sums[k, 0] + use * (values[i, 0] - fitted[i, 0])
        sums[k + 1, 1] = sums[k, 1] + use * (values[i, 1] - fitted[i, 1])
        sums[k + 1, 2] = sums[k, 2] + use
    changed = False
    n = len(wavelength)
    for i in range(n):
        shorter[i] = wavelength[i]
    for k in range(number):
        i = lead + k
        before = wavelength[i]
        if before <= shortest:
            continue
        half = max(2, min(int(before / 8.0), number // 6))
        low = max(0, k - half)
        high = min(number, k + half + 1)
        inside = sums[high, 2] - sums[low, 2]
        if inside < half:
            continue
        misfit = math.hypot(sums[high, 0] - sums[low, 0], sums[high, 1] - sums[low, 1]) / inside
        ratio = misfit / (allowed * max(1.0, mend / before) ** 2)
        if ratio > 1.0:
            # A misfit of smooth bends falls as a power of the wavelength of 1 (corners) to 6.
            shorter[i] = max(shortest, before * max(ratio ** (-1.0 / 3.0), 0.6))
            changed = changed or shorter[i] < 0.98 * before
    for i in range(1, n):
        shorter[i] = min(shorter[i], shorter[i - 1] + SPREAD)
    for i in range(n - 2, -1, -1):
        shorter[i] = min(shorter[i], shorter[i + 1] + SPREAD)
    for i in range(n):
        wavelength[i] = shorter[i]
    return changed


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
        Shortest wavelength (px, constant, and times the width) that may pass the spline, and the one (px) below which a spline must
        mend a misfit that grows as its square: a corner makes one that large, pixels do not.
    out : float64 [K, 2], out
        Centreline samples about one pixel apart; K = M + room for the ends.
    out_width, out_kappa, out_valid : out [K]
        Width, signed curvature (1/px) and whether the sample was measured (1) or interpolated (0).
    out_offsets : int64 [S + 1], out

    Returns
    -------
    int
        Number of samples; -1 where `out` has no room for them.
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
            reach = tip(mask, cy, cx, dy, dx, w)
            anchors[e, 0] = cy + reach * dy
            anchors[e, 1] = cx + reach * dx
            # Samples beyond the anchor lie in the rounded tip.
            if e == 0:
                while begin < end and (points[begin, 0] - anchors[e, 0]) * dy + (points[begin, 1] - anchors[e, 1]) * dx > -ROUNDED:
                    begin += 1
            else:
                while end > begin and (points[end, 0] - anchors[e, 0]) * dy + (points[end, 1] - anchors[e, 1]) * dx > -ROUNDED:
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
            return -1
        fitted = out[cursor : cursor + count]
        shortest = max(cutoff[0], cutoff[1] * w)
        allowed = tolerance[0] + tolerance[1] * w
        # As smooth as the samples allow, place by place: one bend must not roughen a long vessel, nor a long vessel outvote a bend.
        wavelength = np.full(count, max(shortest, min(4.0 * count, LONGEST)))
        penalties, scratch = np.empty(count), np.empty(count)
        for attempt in range(ATTEMPTS):
            for i in range(count):
                penalties[i] = penalty_of(wavelength[i])
            whittaker(values, weights, penalties, fitted)
            if count < 6 or attempt == ATTEMPTS - 1:
                break
            if not _shorten(values, fitted, weights, lead, end - begin + 1, shortest, allowed, cutoff[2], wavelength, scratch):
                break
        # Twicing (Tukey 1977): what the spline flattened of long bends, or bent of their ends, is in its residuals; smoothed, it goes back.
        again = np.empty((count, 2))
        for part in TWICING:
            residual = values - fitted
            whittaker(residual, weights, penalties, again)
            fitted += part * again
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
