"""Separated logistic models: an exact test of separation, and Firth's penalised likelihood.

A sample is separated where some combination of the columns never contradicts the outcome; then no finite maximum-likelihood estimate
exists (Albert & Anderson 1984, Biometrika 71:1) and a program's "estimate" is where its loop stopped. Firth (1993, Biometrika
80:27) adds the Jeffreys prior, ``log L + 1/2 log |I|``, whose maximum is always finite (Heinze & Schemper 2002, Stat Med 21:2409).

The penalised likelihood of such a sample is far from a parabola: it falls steeply on the side of no effect and slowly on the other, so
that an interval of the estimate and so many standard errors is wrong on both. The interval is that of the profile instead (Heinze &
Schemper): the values of a coefficient whose penalised likelihood, the others at their best, lies within ``q^2 / 2`` of the maximum. Eyes of
a subject are no independent rows; the likelihood ratio is divided by how far the cluster-robust variance passes that of independent
rows (Kent 1982, Biometrika 69:19; Chandler & Bate 2007, Biometrika 94:167).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import linprog

from retsam.association.dense import cholesky, inverse, solve
from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit
from retsam.association.gee import _meat


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
def _newton(h, low, d, u, fixed):
    """Newton's step from the information ``h`` (its factor ``low``, ``d``) and score ``u``; coefficient ``fixed`` (-1: none) stays."""
    if fixed < 0:
        return solve(low, d, u), True
    p = len(u)
    free = np.array([j for j in range(p) if j != fixed])
    part, score = np.empty((p - 1, p - 1)), np.empty(p - 1)
    for i in range(p - 1):
        score[i] = u[free[i]]
        for j in range(i + 1):
            part[i, j] = h[free[i], free[j]]
    low, d, ok = cholesky(part, 1e-13)
    step = np.zeros(p)
    if ok:
        some = solve(low, d, score)
        for i in range(p - 1):
            step[free[i]] = some[i]
    return step, ok


@njit(cache=True, nogil=True, error_model="numpy")
def _firth(x, y, beta, fixed, tolerance, max_iter):
    """Maximum of the penalised likelihood, coefficient ``fixed`` (-1: none) held where it is.

    Returns coefficients, inverse information, penalised log likelihood, penalised score, iterations and code.
    """
    p = x.shape[1]
    h = np.empty((p, p))
    u, ahead = np.empty(p), np.empty(p)
    ll = _information(x, y, beta, h)
    low, d, ok = cholesky(h, 1e-11 if fixed < 0 else 1e-13)
    if not ok:
        return beta, h, ll, u, 0, SINGULAR
    value = ll + 0.5 * _log_determinant(low, d)
    bread = inverse(low, d)
    _penalised_score(x, y, beta, bread, u)
    for it in range(max_iter):
        step, ok = _newton(h, low, d, u, fixed)
        biggest = np.abs(step).max()
        if not ok or not np.isfinite(biggest):
            return beta, bread, value, u, it + 1, DIVERGED
        if biggest > 5.0:
            step *= 5.0 / biggest
        # halve until the penalised likelihood does not fall
        new = value
        for _ in range(25):
            ll = _information(x, y, beta + step, h)
            low, d, ok = cholesky(h, 1e-13)
            if ok:
                new = ll + 0.5 * _log_determinant(low, d)
                if new >= value - 1e-12 * (1.0 + abs(value)):
                    break
            step *= 0.5
        if not ok:
            return beta, bread, value, u, it + 1, SINGULAR
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
                return beta, bread, value, u, it + 1, SINGULAR
            new = ll + 0.5 * _log_determinant(low, d)
            bread = inverse(low, d)
            _penalised_score(x, y, beta + step, bread, ahead)
        beta = beta + step
        u[:] = ahead
        value = new
        if np.abs(step).max() < tolerance:
            return beta, bread, value, u, it + 1, OK
    return beta, bread, value, u, max_iter, NOT_CONVERGED


@dataclass(frozen=True)
class Profile:
    """Penalised likelihood of a fitted sample, to be walked along one coefficient.

    Attributes
    ----------
    x, y : ndarray
        Columns of unit size, and the outcome.
    beta : ndarray [p]
        Where it is largest.
    value : float
        Log likelihood there.
    se : ndarray [p]
        Standard errors of independent rows.
    size : ndarray [p]
        Root mean square of the columns as they were given: coefficients there are those here over ``size``.
    """

    x: np.ndarray
    y: np.ndarray
    beta: np.ndarray
    value: float
    se: np.ndarray
    size: np.ndarray

    def _root(self, j: int, at: float, other: np.ndarray) -> tuple[float, float, np.ndarray] | None:
        """Signed root of the likelihood ratio at the value ``at`` of a coefficient, its derivative, and where the others are best."""
        start = other.copy()
        start[j] = at
        beta, _, value, score, _, code = _firth(self.x, self.y, start, j, 1e-9, 200)
        if code != OK:
            return None
        drop = self.value - value
        if drop <= 1e-14 * (1 + abs(self.value)):
            return 0.0, 1 / float(self.se[j]), beta
        root = math.copysign(math.sqrt(2 * drop), at - self.beta[j])
        return root, -float(score[j]) / root, beta

    def root(self, j: int) -> float:
        """Signed root of the likelihood ratio of no effect, standard normal if there is none; of the estimate's sign; NaN: not found."""
        found = self._root(j, 0.0, self.beta)
        return -found[0] if found is not None else math.nan

    def bound(self, j: int, target: float) -> float:
        """Value of a coefficient where the signed root of the likelihood ratio is ``target``; NaN where it is not found.

        Parameters
        ----------
        j : int
        target : float
            Negative for the lower end of an interval.
        """
        inner, outer = float(self.beta[j]), math.inf  # the target lies between them
        at, other = inner + target * float(self.se[j]), self.beta
        for _ in range(60):
            found = self._root(j, at, other)
            if found is None:
                return math.nan
            root, slope, other = found
            if abs(root - target) < 1e-8 * abs(target):
                return at / float(self.size[j])
            if abs(root) < abs(target):
                inner = at
            else:
                outer = at
            step = (target - root) / slope if slope > 0 else math.nan
            further = at + min(max(step, -4 * self.se[j]), 4 * self.se[j]) if math.isfinite(step) else math.nan
            low, high = min(inner, outer), max(inner, outer)
            if not math.isfinite(outer):
                at = further if (further - inner) * target > 0 else at + target * float(self.se[j])
            else:
                at = further if low < further < high else (low + high) / 2
        return math.nan


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
        ``naive`` is the inverse Fisher information at the estimate (as in R's brglm2 and logistf), ``profile`` the penalised likelihood.
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
    beta, naive, value, _, n_iter, code = _firth(x, y, np.zeros(p), -1, tolerance, max_iter)
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
    profile = Profile(x, y, beta, float(value), np.sqrt(np.diag(naive)), size) if code == OK else None
    return Fit(
        beta / size, cov * back, naive * back, 0.0, 1.0, n, n_clusters, int(n_iter), int(code), high_leverage=bool(capped), profile=profile
    )
