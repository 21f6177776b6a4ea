"""Separated logistic models: an exact test of separation, and Firth's penalised likelihood.

A sample is separated where some combination of the columns never contradicts the outcome; then no finite maximum-likelihood estimate
exists (Albert & Anderson 1984, Biometrika 71:1) and a program's "estimate" is where its loop stopped. Firth (1993, Biometrika
80:27) adds the Jeffreys prior, ``log L + 1/2 log |I|``, whose maximum is always finite (Heinze & Schemper 2002, Stat Med 21:2409).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.optimize import linprog

from retsam.association.dense import cholesky, inverse, solve
from retsam.association.gee import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit, _meat


def separated(columns: np.ndarray, y: np.ndarray) -> bool:
    """Whether a logistic model of ``y`` on ``columns`` has no finite maximum-likelihood estimate.

    Parameters
    ----------
    columns : ndarray [n, p]
        Design with intercept.
    y : ndarray [n]
        0 or 1.

    Returns
    -------
    bool
        True under complete or quasi-complete separation.

    Notes
    -----
    Konis (2007, thesis, Oxford): the linear program ``max sum_i s_i x_i'b`` subject to ``s_i x_i'b >= 0`` and ``|b| <= 1`` with
    ``s = 2y - 1`` has the value 0 exactly where the sample overlaps.
    """
    signed = np.where(np.asarray(y) > 0.5, 1.0, -1.0)[:, None] * columns
    signed = signed / np.maximum(np.abs(signed).max(axis=0), 1e-300)
    # rows that repeat (a binary biomarker, few covariate patterns) bind once
    distinct = np.unique(signed, axis=0)
    answer = linprog(-distinct.sum(axis=0), A_ub=-distinct, b_ub=np.zeros(len(distinct)), bounds=(-1.0, 1.0), method="highs")
    return bool(answer.status == 0 and -answer.fun > 1e-6)


def one_sided(column: np.ndarray, y: np.ndarray) -> bool:
    """Whether one column alone separates the sample: no control lies above every case's value, or none below.

    An indicator that only cases carry is the common form. An exchangeable GEE can have a finite root there, pulled by the fellow eyes'
    residuals, so that a converged fit is no proof of overlap.

    Parameters
    ----------
    column, y : ndarray [n]

    Returns
    -------
    bool
    """
    cases, controls = column[y > 0.5], column[y <= 0.5]
    if len(cases) == 0 or len(controls) == 0:
        return True
    return bool(controls.max() <= cases.min() or cases.max() <= controls.min()) and bool(np.ptp(column) > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _information(x, y, beta, h):
    """Fisher information (into ``h``) and log likelihood."""
    n, p = x.shape
    h[:, :] = 0.0
    ll = 0.0
    for i in range(n):
        eta = 0.0
        for j in range(p):
            eta += x[i, j] * beta[j]
        ll -= math.log1p(math.exp(-abs(eta))) + (max(eta, 0.0) - y[i] * eta)
        mu = 1.0 / (1.0 + math.exp(-eta)) if eta > -700.0 else 0.0
        v = mu * (1.0 - mu)
        for j in range(p):
            t = v * x[i, j]
            for jj in range(j + 1):
                h[j, jj] += t * x[i, jj]
    return ll


@njit(cache=True, nogil=True, error_model="numpy")
def _penalised_score(x, y, beta, bread, u):
    n, p = x.shape
    u[:] = 0.0
    for i in range(n):
        eta = 0.0
        for j in range(p):
            eta += x[i, j] * beta[j]
        mu = 1.0 / (1.0 + math.exp(-eta)) if eta > -700.0 else 0.0
        hat = 0.0
        for j in range(p):
            s = 0.0
            for jj in range(p):
                s += bread[j, jj] * x[i, jj]
            hat += s * x[i, j]
        hat *= mu * (1.0 - mu)
        r = y[i] - mu + hat * (0.5 - mu)
        for j in range(p):
            u[j] += x[i, j] * r


@njit(cache=True, nogil=True, error_model="numpy")
def _log_determinant(low, d):
    s = 0.0
    for j in range(len(d)):
        s += math.log(low[j, j]) - math.log(d[j])
    return 2.0 * s


@njit(cache=True, nogil=True, error_model="numpy")
def _firth(x, y, tolerance, max_iter):
    p = x.shape[1]
    beta = np.zeros(p)
    h = np.empty((p, p))
    u, ahead = np.empty(p), np.empty(p)
    ll = _information(x, y, beta, h)
    low, d, ok = cholesky(h, 1e-11)
    if not ok:
        return beta, h, 0, SINGULAR
    value = ll + 0.5 * _log_determinant(low, d)
    bread = inverse(low, d)
    _penalised_score(x, y, beta, bread, u)
    for it in range(max_iter):
        step = solve(low, d, u)
        biggest = np.abs(step).max()
        if not np.isfinite(biggest):
            return beta, bread, it + 1, DIVERGED
        if biggest > 5.0:
            step *= 5.0 / biggest
        # halve until the penalised likelihood does not fall
        for _ in range(25):
            ll = _information(x, y, beta + step, h)
            low, d, ok = cholesky(h, 1e-13)
            if ok:
                new = ll + 0.5 * _log_determinant(low, d)
                if new >= value - 1e-12 * (1.0 + abs(value)):
                    break
            step *= 0.5
        if not ok:
            return beta, bread, it + 1, SINGULAR
        bread = inverse(low, d)
        _penalised_score(x, y, beta + step, bread, ahead)
        # The information leaves out the penalty's curvature, which doubles the true one where a row alone fills a cell: the step lands as
        # far beyond the maximum as it began before it, for ever. The slope along the step has turned then; its zero lies between.
        before, after = np.dot(u, step), np.dot(ahead, step)
        if after < -0.1 * before:
            step *= before / (before - after)
            ll = _information(x, y, beta + step, h)
            low, d, ok = cholesky(h, 1e-13)
            if not ok:
                return beta, bread, it + 1, SINGULAR
            new = ll + 0.5 * _log_determinant(low, d)
            bread = inverse(low, d)
            _penalised_score(x, y, beta + step, bread, ahead)
        beta = beta + step
        u[:] = ahead
        value = new
        if np.abs(step).max() < tolerance:
            return beta, bread, it + 1, OK
    return beta, bread, max_iter, NOT_CONVERGED


def fit_firth(
    exposures: np.ndarray,
    covariates: np.ndarray,
    y: np.ndarray,
    starts: np.ndarray,
    robust: bool = True,
    tolerance: float = 1e-9,
    max_iter: int = 200,
) -> Fit:
    """Firth-penalised logistic regression of clustered rows.

    Parameters
    ----------
    exposures : ndarray [n, k]
    covariates : ndarray [n, q]
        With intercept; columns of unit size.
    y : ndarray [n]
        0 or 1.
    starts : ndarray of int64 [K + 1]
        Row at which each cluster begins, and ``n``.
    robust : bool
        Enlarge each standard error to the cluster-robust one (Mancl-DeRouen) where that is larger. Under separation the sandwich alone
        can be near zero, since the residuals are, so the model-based error is the floor.
    tolerance, max_iter
        As for :func:`retsam.association.gee.fit_gee`.

    Returns
    -------
    Fit
        ``naive`` is the inverse Fisher information at the estimate (as in R's brglm2 and logistf).
    """
    exposures = np.asarray(exposures, dtype=float)
    if exposures.ndim == 1:
        exposures = exposures[:, None]
    k = exposures.shape[1]
    x = np.ascontiguousarray(np.column_stack([exposures, covariates]), dtype=float)
    size = np.sqrt(np.mean(x * x, axis=0))
    n, p = x.shape
    n_clusters = len(starts) - 1
    if not np.all(np.isfinite(size)) or np.any(size == 0) or n <= p:
        bad = np.full((p, p), np.nan)
        return Fit(np.full(p, np.nan), bad, bad, 0.0, 1.0, n, n_clusters, 0, SINGULAR)
    x = x / size
    y = np.ascontiguousarray(y, dtype=float)
    beta, naive, n_iter, code = _firth(x, y, tolerance, max_iter)
    cov = naive
    capped = False
    if code == OK and robust:
        largest = int(np.diff(starts).max())
        if np.all(np.isfinite(naive)) and n_clusters > p:
            meat, capped, _, _ = _meat(
                np.ascontiguousarray(x[:, :k]),
                np.ascontiguousarray(x[:, k:]),
                y,
                np.asarray(starts, dtype=np.int64),
                beta,
                0.0,
                1,
                naive,
                2,
                largest,
            )
            sandwich = naive @ meat @ naive
            ratio = np.sqrt(np.maximum(np.diag(sandwich) / np.diag(naive), 1.0))
            cov = naive * np.outer(ratio, ratio)
    back = np.outer(1.0 / size, 1.0 / size)
    return Fit(beta / size, cov * back, naive * back, 0.0, 1.0, n, n_clusters, int(n_iter), int(code), False, bool(capped))
