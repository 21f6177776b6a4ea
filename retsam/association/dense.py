"""Cholesky factor, solution and inverse of the small dense systems of the compiled solvers."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def cholesky(a, tolerance):
    """Lower Cholesky factor of ``a`` scaled to a unit diagonal, and the scaling; False where a pivot is below ``tolerance``."""
    p = a.shape[0]
    low = np.zeros((p, p))
    d = np.empty(p)
    for i in range(p):
        if not a[i, i] > 0.0:
            return low, d, False
        d[i] = 1.0 / math.sqrt(a[i, i])
    for i in range(p):
        for j in range(i + 1):
            s = a[i, j] * d[i] * d[j]
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                if not s > tolerance:
                    return low, d, False
                low[i, i] = math.sqrt(s)
            else:
                low[i, j] = s / low[j, j]
    return low, d, True


@njit(cache=True, nogil=True, error_model="numpy")
def solve(low, d, b):
    """Solution of ``a x = b`` from the scaled factor of :func:`cholesky`."""
    p = len(b)
    x = np.empty(p)
    for i in range(p):
        s = b[i] * d[i]
        for k in range(i):
            s -= low[i, k] * x[k]
        x[i] = s / low[i, i]
    for i in range(p - 1, -1, -1):
        s = x[i]
        for k in range(i + 1, p):
            s -= low[k, i] * x[k]
        x[i] = s / low[i, i]
    for i in range(p):
        x[i] *= d[i]
    return x


@njit(cache=True, nogil=True, error_model="numpy")
def inverse(low, d):
    p = len(d)
    inv = np.empty((p, p))
    e = np.zeros(p)
    for j in range(p):
        e[:] = 0.0
        e[j] = 1.0
        inv[:, j] = solve(low, d, e)
    return inv
