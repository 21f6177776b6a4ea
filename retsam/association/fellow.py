"""Does the fellow eye's biomarker tell of this eye's outcome? Then a working correlation pulls the estimate away from what is asked.

An estimating equation with a working correlation weighs each eye's residual by the other eye's covariates. It estimates the association of
an eye's outcome with that eye's biomarker only where the fellow's biomarker adds nothing: ``E[y_1 | x_1, x_2] = E[y_1 | x_1]`` (Pepe &
Anderson 1994, Commun Stat Simul 23:939). A disease of the subject that shows in both eyes breaks this: each eye's biomarker is a second
reading of the same disease. Working independence needs no such condition. How far the two estimates lie
apart is one Newton step of the independence equations from the exchangeable estimate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from retsam.association.dense import cholesky, inverse
from retsam.association.fit import Fit
from retsam.association.gee import FAMILIES, _mean_variance, _predictor


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
            eta = _predictor(e, z, i, beta, row)
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
def _difference(e, z, y, starts, beta, alpha, family, b0, b1, summed, squared, weighed_squared):
    """Adds over clusters: each one's part in the difference of the coefficients (``summed``), and the square of its part in the
    independence estimate (``squared``) and in the exchangeable one (``weighed_squared``)."""
    k, q = e.shape[1], z.shape[1]
    p = k + q
    row = np.empty(p)
    s0, s1 = np.empty(p), np.empty(p)
    total = np.empty(p)
    a = 1.0 / (1.0 - alpha)
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        m = last - first
        w = 1.0 if m == 1 else a
        b = 0.0 if m == 1 else a * alpha / (1.0 + (m - 1) * alpha)
        s0[:] = 0.0
        total[:] = 0.0
        residual = 0.0
        for i in range(first, last):
            eta = _predictor(e, z, i, beta, row)
            mu, v = _mean_variance(eta, family)
            s = math.sqrt(v)
            r = (y[i] - mu) / s
            residual += r
            for j in range(p):
                t = row[j] * s
                s0[j] += t * r
                total[j] += t
        for j in range(p):
            s1[j] = w * s0[j] - b * total[j] * residual
        for g in range(k):
            plain, weighed = 0.0, 0.0
            for j in range(p):
                plain += b0[g, j] * s0[j]
                weighed += b1[g, j] * s1[j]
            summed[g] += plain - weighed
            squared[g] += plain * plain
            weighed_squared[g] += weighed * weighed


class Disagreement(NamedTuple):
    """The independence estimates beside the exchangeable ones.

    Attributes
    ----------
    score : float
        Difference in standard errors of the former, of the exposure with the largest, with its sign; 0 where there is no correlation, or an
        information matrix is singular.
    wider : ndarray [k]
        Standard error of the independence estimate over that of the exchangeable one; 1 where it is smaller.
    """

    score: float
    wider: np.ndarray


def disagreement(exposures: np.ndarray, covariates: np.ndarray, y: np.ndarray, starts: np.ndarray, family: str, fit: Fit) -> Disagreement:
    """How the independence estimates lie beside the exchangeable ones.

    Parameters
    ----------
    exposures : ndarray [n, k]
    covariates : ndarray [n, q]
    y : ndarray [n]
    starts : ndarray [K + 1]
    family : {'logit', 'linear', 'poisson'}
    fit : Fit
        Exchangeable fit of these, with code ``OK``.

    Returns
    -------
    Disagreement
    """
    k = exposures.shape[1]
    none = Disagreement(0.0, np.ones(k))
    if fit.alpha == 0.0:
        return none
    size = np.sqrt(np.mean(exposures**2, axis=0))
    beta = np.concatenate([fit.beta[:k] * size, fit.beta[k:]])
    e = np.ascontiguousarray(exposures / size, dtype=float)
    z = np.ascontiguousarray(covariates, dtype=float)
    y = np.ascontiguousarray(y, dtype=float)
    starts = np.ascontiguousarray(starts, dtype=np.int64)
    p = len(beta)
    breads = []
    informations = np.zeros((p, p)), np.zeros((p, p))
    _pair(e, z, y, starts, beta, fit.alpha, FAMILIES[family], *informations)
    for h in informations:
        low, d, ok = cholesky(h, 1e-11)
        if not ok:
            return none
        breads.append(np.ascontiguousarray(inverse(low, d)[:k]))
    summed, squared, weighed = np.zeros(k), np.zeros(k), np.zeros(k)
    _difference(e, z, y, starts, beta, fit.alpha, FAMILIES[family], *breads, summed, squared, weighed)
    if not (np.all(squared > 0) and np.all(weighed > 0)):
        return none
    scores = summed / np.sqrt(squared)
    return Disagreement(float(scores[np.argmax(np.abs(scores))]), np.maximum(np.sqrt(squared / weighed), 1.0))
