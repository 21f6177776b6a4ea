"""Generalised estimating equations for clusters of eyes: closed-form working correlation, compiled, one pass a step.

Model (Liang & Zeger 1986, Biometrika 73:13): the mean of row ``i`` of cluster ``c`` is ``mu = g^-1(x'beta)`` and the working
covariance of a cluster is ``phi A^1/2 R(alpha) A^1/2``. The exchangeable ``R = (1 - alpha) I + alpha 11'`` of a cluster of ``m`` rows
has the inverse ``a I - b 11'`` with ``a = 1 / (1 - alpha)`` and ``b = a alpha / (1 + (m - 1) alpha)``, so that neither a matrix per
cluster nor a loop in Python is needed: with ``t_i`` the rows of ``A^1/2 X`` and ``r_i`` the Pearson residuals,

    H = sum_c  a sum_i t_i t_i' - b S_c S_c',      U = sum_c  a sum_i t_i r_i - b S_c s_c,

with ``S_c = sum_i t_i`` and ``s_c = sum_i r_i``. ``alpha`` is the moment estimate, ``p`` degrees of freedom taken off, as in statsmodels
(``ddof=False``: none taken off, as in R's geepack). The variance is the sandwich, corrected for few clusters by Mancl & DeRouen
(2001, Biometrics 57:126) or Kauermann & Carroll (2001, JASA 96:1387): residuals of a cluster are multiplied by
``(I - H_cc)^-1`` or ``(I - H_cc)^-1/2``, computed in the whitened coordinates ``R^-1/2 A^-1/2 (y - mu)`` where ``H_cc`` is symmetric.

A sandwich is a sum of squares, one a cluster, and no steadier than the number of clusters that carry it: of 300 subjects with 20 cases the
cases do. Pan & Wall (2002, Stat Med 21:1429) take the degrees of freedom of t from the scatter of these squares
(see :func:`retsam.association.fit.pan_wall`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.association.dense import cholesky, inverse, solve
from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit, pan_wall

FAMILIES = {"linear": 0, "logit": 1, "poisson": 2}
SMALL_SAMPLE = {"none": 0, "df": 0, "kauermann_carroll": 1, "mancl_derouen": 2}

_ETA_LIMIT = 30.0  # log odds beyond which a fitted probability is 0 or 1 for every purpose
_LEVERAGE_LIMIT = 1.0 - 1e-6


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _mean_variance(eta, family):
    if family == 0:
        return eta, 1.0
    if eta > 30.0:
        eta = 30.0
    elif eta < -30.0:
        eta = -30.0
    if family == 1:
        mu = 1.0 / (1.0 + math.exp(-eta))
        return mu, mu * (1.0 - mu)
    mu = math.exp(eta)
    return mu, mu


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _predictor(e, z, i, beta, row):
    """Linear predictor of row ``i``, whose covariates are left in ``row``: exposures first, then the covariates they share."""
    k = e.shape[1]
    eta = 0.0
    for j in range(k):
        row[j] = e[i, j]
        eta += row[j] * beta[j]
    for j in range(z.shape[1]):
        row[k + j] = z[i, j]
        eta += z[i, j] * beta[k + j]
    return eta


@njit(cache=True, nogil=True, error_model="numpy")
def _sweep(e, z, y, starts, beta, alpha, family, h, u):
    """One pass: fills ``h`` (lower triangle) and ``u``; returns sums of squared residuals and of their cross products, and max |eta|."""
    k, q = e.shape[1], z.shape[1]
    p = k + q
    row = np.empty(p)
    total = np.empty(p)
    h[:, :] = 0.0
    u[:] = 0.0
    ssr, cross, eta_max = 0.0, 0.0, 0.0
    a = 1.0 / (1.0 - alpha)
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        m = last - first
        single = m == 1
        w = 1.0 if single else a
        sum_r, sum_r2 = 0.0, 0.0
        if not single:
            total[:] = 0.0
        for i in range(first, last):
            eta = _predictor(e, z, i, beta, row)
            if abs(eta) > eta_max:
                eta_max = abs(eta)
            mu, v = _mean_variance(eta, family)
            s = math.sqrt(v)
            r = (y[i] - mu) / s
            sum_r += r
            sum_r2 += r * r
            for j in range(p):
                row[j] *= s
            wr = w * r
            for j in range(p):
                t = row[j]
                u[j] += t * wr
                t *= w
                for jj in range(j + 1):
                    h[j, jj] += t * row[jj]
            if not single:
                for j in range(p):
                    total[j] += row[j]
        ssr += sum_r2
        if not single:
            cross += 0.5 * (sum_r * sum_r - sum_r2)
            b = a * alpha / (1.0 + (m - 1) * alpha)
            for j in range(p):
                t = b * total[j]
                u[j] -= t * sum_r
                for jj in range(j + 1):
                    h[j, jj] -= t * total[jj]
    return ssr, cross, eta_max


@njit(cache=True, nogil=True, error_model="numpy")
def _corrected(w, rho, m, bread, power, out):
    """Add ``W' f(I - W B W') rho`` to ``out`` for one whitened cluster ``W [m, p]``; returns whether the leverage was capped.

    ``f`` is the power -1 (``power`` 2) or -1/2 (``power`` 1); eigenvectors come from the smaller of ``W B W'`` (m rows) and
    its p x p twin, so that a cluster of thousands of rows costs no m x m matrix.
    """
    p = w.shape[1]
    capped = False
    if m == 1:
        lev = 0.0
        for j in range(p):
            s = 0.0
            for jj in range(p):
                s += bread[j, jj] * w[0, jj]
            lev += s * w[0, j]
        if lev > _LEVERAGE_LIMIT:
            lev, capped = _LEVERAGE_LIMIT, True
        f = 1.0 / (1.0 - lev)
        r = rho[0] * (f if power == 2 else math.sqrt(f))
        for j in range(p):
            out[j] += w[0, j] * r
        return capped
    if m == 2:
        s00, s01, s11 = 0.0, 0.0, 0.0
        for j in range(p):
            b0, b1 = 0.0, 0.0
            for jj in range(p):
                b0 += bread[j, jj] * w[0, jj]
                b1 += bread[j, jj] * w[1, jj]
            s00 += b0 * w[0, j]
            s01 += b0 * w[1, j]
            s11 += b1 * w[1, j]
        # eigenvalues of the symmetric 2 x 2, each mapped by f
        mid, half = 0.5 * (s00 + s11), 0.5 * (s00 - s11)
        rad = math.sqrt(half * half + s01 * s01)
        l1, l2 = mid + rad, mid - rad
        if l1 > _LEVERAGE_LIMIT:
            l1, capped = _LEVERAGE_LIMIT, True
        if l2 > _LEVERAGE_LIMIT:
            l2 = _LEVERAGE_LIMIT
        f1, f2 = 1.0 / (1.0 - l1), 1.0 / (1.0 - l2)
        if power == 1:
            f1, f2 = math.sqrt(f1), math.sqrt(f2)
        if rad > 0.0:
            cos2, sin2 = half / rad, s01 / rad
        else:
            cos2, sin2 = 1.0, 0.0
        fm, fd = 0.5 * (f1 + f2), 0.5 * (f1 - f2)
        r0 = (fm + fd * cos2) * rho[0] + fd * sin2 * rho[1]
        r1 = fd * sin2 * rho[0] + (fm - fd * cos2) * rho[1]
        for j in range(p):
            out[j] += w[0, j] * r0 + w[1, j] * r1
        return capped
    root = np.linalg.cholesky(bread)
    wl = np.ascontiguousarray(w[:m]) @ root
    r = rho[:m].copy()
    lam, vec = np.linalg.eigh(wl.T @ wl)
    for g in range(p):
        if lam[g] <= 1e-14:
            continue
        lev = lam[g]
        if lev > _LEVERAGE_LIMIT:
            lev, capped = _LEVERAGE_LIMIT, True
        f = 1.0 / (1.0 - lev)
        if power == 1:
            f = math.sqrt(f)
        direction = (wl @ np.ascontiguousarray(vec[:, g])) / math.sqrt(lam[g])
        share = 0.0
        for i in range(m):
            share += direction[i] * rho[i]
        for i in range(m):
            r[i] += (f - 1.0) * share * direction[i]
    for i in range(m):
        for j in range(p):
            out[j] += w[i, j] * r[i]
    return capped


@njit(cache=True, nogil=True, error_model="numpy")
def _meat(e, z, y, starts, beta, alpha, family, bread, power, largest):
    """Sum over clusters of the outer product of (corrected) scores; sums of squares and fourth powers of their parts in the exposures."""
    k, q = e.shape[1], z.shape[1]
    p = k + q
    w = np.empty((largest, p))
    rho = np.empty(largest)
    score = np.empty(p)
    mean_w = np.empty(p)
    meat = np.zeros((p, p))
    second, fourth = np.zeros(k), np.zeros(k)
    capped = False
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        m = last - first
        mean_w[:] = 0.0
        mean_r = 0.0
        for i in range(first, last):
            o = i - first
            eta = 0.0
            for j in range(k):
                w[o, j] = e[i, j]
                eta += e[i, j] * beta[j]
            for j in range(q):
                w[o, k + j] = z[i, j]
                eta += z[i, j] * beta[k + j]
            mu, v = _mean_variance(eta, family)
            s = math.sqrt(v)
            rho[o] = (y[i] - mu) / s
            mean_r += rho[o]
            for j in range(p):
                w[o, j] *= s
                mean_w[j] += w[o, j]
        if m > 1:
            # R^-1/2 = (I - J/m) / sqrt(1 - alpha) + J/m / sqrt(1 + (m - 1) alpha)
            within = 1.0 / math.sqrt(1.0 - alpha)
            shift = 1.0 / math.sqrt(1.0 + (m - 1) * alpha) - within
            mean_r /= m
            for j in range(p):
                mean_w[j] /= m
            for o in range(m):
                rho[o] = within * rho[o] + shift * mean_r
                for j in range(p):
                    w[o, j] = within * w[o, j] + shift * mean_w[j]
        score[:] = 0.0
        if power == 0:
            for o in range(m):
                for j in range(p):
                    score[j] += w[o, j] * rho[o]
        elif _corrected(w, rho, m, bread, power, score):
            capped = True
        for j in range(p):
            for jj in range(j + 1):
                meat[j, jj] += score[j] * score[jj]
        for g in range(k):
            part = 0.0
            for j in range(p):
                part += bread[g, j] * score[j]
            part *= part
            second[g] += part
            fourth[g] += part * part
    for j in range(p):
        for jj in range(j):
            meat[jj, j] = meat[j, jj]
    return meat, capped, second, fourth


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(e, z, y, starts, family, exchangeable, power, beta, alpha, ddof, tolerance, max_iter):
    n = len(y)
    k, q = e.shape[1], z.shape[1]
    p = k + q
    h = np.empty((p, p))
    u = np.empty(p)
    pairs, largest = 0.0, 1
    for c in range(len(starts) - 1):
        m = starts[c + 1] - starts[c]
        pairs += 0.5 * m * (m - 1)
        largest = max(largest, m)
    taken = p if ddof else 0
    # too few pairs to estimate a correlation from: independence
    estimable = exchangeable and pairs > taken + 1
    low_bound = -1.0 / (largest - 1) + 1e-3 if largest > 1 else 0.0
    if not estimable:
        alpha = 0.0
    code, scale, bounded, n_iter = NOT_CONVERGED, 1.0, False, 0
    low, d = np.zeros((p, p)), np.ones(p)
    for it in range(max_iter):
        n_iter = it + 1
        ssr, cross, eta_max = _sweep(e, z, y, starts, beta, alpha, family, h, u)
        low, d, ok = cholesky(h, 1e-11)
        if not ok:
            code = DIVERGED if family != 0 and eta_max > 15.0 else SINGULAR
            break
        step = solve(low, d, u)
        biggest = 0.0
        for j in range(p):
            biggest = max(biggest, abs(step[j]))
        if not np.isfinite(biggest):
            code = DIVERGED
            break
        # columns have unit size: a longer step than this leaves the region where the quadratic model holds
        shrink = min(1.0, 3.0 / biggest) if family != 0 and biggest > 0.0 else 1.0
        for j in range(p):
            beta[j] += shrink * step[j]
        scale = ssr / (n - taken)
        new_alpha = alpha
        if estimable:
            new_alpha = cross / (pairs - taken) / scale if scale > 0.0 else 0.0
            bounded = False
            if new_alpha > 0.999:
                new_alpha, bounded = 0.999, True
            elif new_alpha < low_bound:
                new_alpha, bounded = low_bound, True
        moved = abs(new_alpha - alpha)
        alpha = new_alpha
        size = 0.0
        for j in range(p):
            size = max(size, abs(beta[j]))
        if biggest * shrink <= tolerance * (1.0 + (size if family == 0 else 0.0)) and moved <= 10.0 * tolerance:
            code = OK
            break
        if family != 0 and eta_max > _ETA_LIMIT and it >= 25:
            code = DIVERGED
            break
    ssr, cross, eta_max = _sweep(e, z, y, starts, beta, alpha, family, h, u)
    scale = ssr / (n - taken)
    low, d, ok = cholesky(h, 1e-11)
    cov = np.full((p, p), np.nan)
    bread = np.full((p, p), np.nan)
    capped = False
    second, fourth = np.zeros(k), np.zeros(k)
    if ok:
        bread = inverse(low, d)
        meat, capped, second, fourth = _meat(e, z, y, starts, beta, alpha, family, bread, power, largest)
        cov = bread @ meat @ bread
    elif code == OK:
        code = SINGULAR
    return beta, cov, bread, alpha, scale, n_iter, code, bounded, capped, estimable, second, fourth


def fit_gee(
    exposures: np.ndarray,
    covariates: np.ndarray,
    y: np.ndarray,
    starts: np.ndarray,
    family: str = "logit",
    correlation: str = "exchangeable",
    small_sample: str = "kauermann_carroll",
    start: np.ndarray | None = None,
    start_alpha: float = 0.0,
    ddof: bool = True,
    tolerance: float = 1e-8,
    max_iter: int = 60,
) -> Fit:
    """Fit one model.

    Parameters
    ----------
    exposures : ndarray [n, k]
        Columns of interest, in any units: they are scaled for the fit and the answer is scaled back. Rows of a cluster lie together.
    covariates : ndarray [n, q]
        Intercept and covariates, of unit size (see :func:`retsam.association.design.covariate_matrix`).
    y : ndarray [n]
        0/1 for ``logit``, counts for ``poisson``, any number for ``linear``.
    starts : ndarray of int64 [K + 1]
        Row at which each cluster begins, and ``n``.
    family : {'logit', 'linear', 'poisson'}
    correlation : {'exchangeable', 'independence'}
    small_sample : {'none', 'df', 'kauermann_carroll', 'mancl_derouen'}
    start : ndarray [q], optional
        Coefficients of the covariates to start from (those of the model without exposures).
    start_alpha : float
        Working correlation to start from.
    ddof : bool
        Take the number of coefficients off the degrees of freedom of dispersion and correlation (statsmodels does, geepack does not).
    tolerance : float
        Largest step at which the fit has converged, in units of standardised coefficients.
    max_iter : int

    Returns
    -------
    Fit
        ``code`` says whether there is an estimate; nothing is raised for data that have none.
    """
    exposures = np.ascontiguousarray(exposures, dtype=float)
    if exposures.ndim == 1:
        exposures = exposures[:, None]
    n, k = exposures.shape
    q = covariates.shape[1]
    p = k + q
    n_clusters = len(starts) - 1
    empty = np.full((p, p), np.nan)
    if n <= p or n_clusters <= p:
        return Fit(np.full(p, np.nan), empty, empty, 0.0, np.nan, n, n_clusters, 0, SINGULAR)
    size = np.sqrt(np.einsum("ij,ij->j", exposures, exposures) / n) if k else np.ones(0)
    if not np.all(np.isfinite(size)) or np.any(size == 0):
        return Fit(np.full(p, np.nan), empty, empty, 0.0, np.nan, n, n_clusters, 0, SINGULAR)
    beta = np.zeros(p)
    if start is not None:
        beta[k:] = start
    beta, cov, naive, alpha, scale, n_iter, code, bounded, capped, estimable, second, fourth = _fit(
        exposures / size,
        np.ascontiguousarray(covariates, dtype=float),
        np.ascontiguousarray(y, dtype=float),
        np.ascontiguousarray(starts, dtype=np.int64),
        FAMILIES[family],
        correlation == "exchangeable",
        SMALL_SAMPLE[small_sample],
        beta,
        float(start_alpha),
        ddof,
        tolerance,
        max_iter,
    )
    back = np.concatenate([1.0 / size, np.ones(q)])
    if small_sample == "df":
        cov = cov * (n_clusters / (n_clusters - p))
    dispersion = scale if family == "linear" else 1.0
    return Fit(
        beta * back,
        cov * np.outer(back, back),
        naive * np.outer(back, back) * dispersion,
        alpha if estimable else 0.0,
        scale,
        n,
        n_clusters,
        n_iter,
        int(code),
        bool(bounded) and bool(estimable),
        bool(capped),
        pan_wall(second, fourth, n_clusters) if code == OK else None,
    )
