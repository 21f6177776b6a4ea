"""The smoothing spline of centrelines, and small compiled helpers.

The spline is discrete and of order three (a Whittaker smoother: squared misfit plus ``penalty`` x squared third differences, on samples
one pixel apart; Whittaker 1923, Eilers 2003). Its null space holds every parabola, so unlike a cubic spline it neither straightens bends
nor forces the curvature to zero at the ends.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def whittaker(values, weights, penalties, out):
    """Smooth columns of `values` [n, k] with weights [n] and third-difference `penalties` [n]; the result goes to `out` [n, k].

    Solves (W + D'PD) z = W y by a banded LDL' factorisation, D the matrix of third differences: O(n). The penalty of the difference of
    samples i to i + 3 is that of sample i + 1.
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
            penalty = penalties[first + 1]
            s0 += penalty * c0 * c0
            s1 += penalty * c0 * c1
            s2 += penalty * c0 * c2
            s3 += penalty * c0 * c3
        d0[i] = weights[i] + s0
        d1[i] = s1
        d2[i] = s2
        d3[i] = s3
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
def median_of(values, count):
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
