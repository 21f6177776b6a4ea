"""Does the fellow eye's biomarker tell of this eye's outcome? Then a working correlation pulls the estimate away from what is asked.

An estimating equation with a working correlation weighs each eye's residual by the other eye's covariates. It estimates the association of
an eye's outcome with that eye's biomarker only where the fellow's biomarker adds nothing: ``E[y_1 | x_1, x_2] = E[y_1 | x_1]`` (Pepe &
Anderson 1994, Commun Stat Simul 23:939). A disease of the subject that shows in both eyes breaks this: each eye's biomarker is a second
reading of the same disease. Working independence needs no such condition. The two estimates are compared as by Hausman (1978,
Econometrica 46:1251): their difference, one Newton step of the independence equations from the exchangeable estimate, over its error from
the clusters.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.association.dense import cholesky, inverse
from retsam.association.gee import FAMILIES, Fit, _mean_variance


@njit(cache=True, nogil=True, error_model="numpy")
def _pair(e, z, y, starts, beta, alpha, family, h0, h1):
    """Information under independence (``h0``) and exchangeability (``h1``), lower triangles, and no more."""
    k, q = e.shape[1], z.shape[1]
    p = k + q
    row, total = np.empty(p), np.empty(p)
    a = 1.0 / (1.0 - alpha)
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        m = last - first
        w = 1.0 if m == 1 else a
        b = 0.0 if m == 1 else a * alpha / (1.0 + (m - 1) * alpha)
        total[:] = 0.0
        for i in range(first, last):
            eta = 0.0
            for j in range(k):
                row[j] = e[i, j]
                eta += row[j] * beta[j]
            for j in range(q):
                row[k + j] = z[i, j]
                eta += z[i, j] * beta[k + j]
            _, v = _mean_variance(eta, family)
            s = math.sqrt(v)
            for j in range(p):
                row[j] *= s
                total[j] += row[j]
            for j in range(p):
                for jj in range(j + 1):
                    t = row[j] * row[jj]
                    h0[j, jj] += t
                    h1[j, jj] += w * t
        if b != 0.0:
            for j in range(p):
                for jj in range(j + 1):
                    h1[j, jj] -= b * total[j] * total[jj]


@njit(cache=True, nogil=True, error_model="numpy")
def _difference(e, z, y, starts, beta, alpha, family, b0, b1):
    """Sum over clusters, and sum of squares, of what each adds to the difference of the first coefficient."""
    k, q = e.shape[1], z.shape[1]
    p = k + q
    row = np.empty(p)
    a = 1.0 / (1.0 - alpha)
    summed, squared = 0.0, 0.0
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        m = last - first
        w = 1.0 if m == 1 else a
        b = 0.0 if m == 1 else a * alpha / (1.0 + (m - 1) * alpha)
        plain, weighed, total, residual = 0.0, 0.0, 0.0, 0.0
        for i in range(first, last):
            eta = 0.0
            for j in range(k):
                row[j] = e[i, j]
                eta += row[j] * beta[j]
            for j in range(q):
                row[k + j] = z[i, j]
                eta += z[i, j] * beta[k + j]
            mu, v = _mean_variance(eta, family)
            s = math.sqrt(v)
            r = (y[i] - mu) / s
            t0, t1 = 0.0, 0.0
            for j in range(p):
                t0 += b0[j] * row[j]
                t1 += b1[j] * row[j]
            plain += t0 * s * r
            weighed += w * t1 * s * r
            total += t1 * s
            residual += r
        d = plain - (weighed - b * total * residual)
        summed += d
        squared += d * d
    return summed, squared


def disagreement(exposure: np.ndarray, covariates: np.ndarray, y: np.ndarray, starts: np.ndarray, family: str, fit: Fit) -> float:
    """Difference of the independence estimate from the exchangeable one, in standard errors of the difference.

    Parameters
    ----------
    exposure : ndarray [n, 1]
    covariates : ndarray [n, q]
    y : ndarray [n]
    starts : ndarray [K + 1]
    family : {'logit', 'linear', 'poisson'}
    fit : Fit
        Exchangeable fit of these, with code ``OK``.

    Returns
    -------
    float
        A standard normal score where the fellow eye adds nothing; 0 where there is no correlation, or an information matrix is singular.
    """
    if fit.alpha == 0.0:
        return 0.0
    size = float(np.sqrt(np.mean(exposure**2)))
    beta = np.concatenate([fit.beta[:1] * size, fit.beta[1:]])
    e = np.ascontiguousarray(exposure / size, dtype=float)
    z = np.ascontiguousarray(covariates, dtype=float)
    y = np.ascontiguousarray(y, dtype=float)
    starts = np.ascontiguousarray(starts, dtype=np.int64)
    p = len(beta)
    rows = []
    informations = np.zeros((p, p)), np.zeros((p, p))
    _pair(e, z, y, starts, beta, fit.alpha, FAMILIES[family], *informations)
    for h in informations:
        low, d, ok = cholesky(h, 1e-11)
        if not ok:
            return 0.0
        rows.append(np.ascontiguousarray(inverse(low, d)[0]))
    summed, squared = _difference(e, z, y, starts, beta, fit.alpha, FAMILIES[family], *rows)
    return summed / math.sqrt(squared) if squared > 0 else 0.0
