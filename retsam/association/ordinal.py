"""Proportional-odds (ordered logit) models with cluster-robust errors.

``P(Y <= j) = logistic(theta_j - x'beta)`` (McCullagh 1980, JRSS B 42:109), maximum likelihood by Newton's method with the
analytic Hessian, the variance by the sandwich of scores summed over clusters (working independence). For few clusters the scores are
enlarged as by Fay & Graubard (2001, Biometrics 57:1198): element ``j`` of a cluster's score by ``(1 - min(0.75, (I_c B)_jj))^-1/2`` with
``I_c`` the cluster's information and ``B`` the inverse of the whole, the counterpart of Kauermann & Carroll's correction for a model whose
residuals are no single number.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit, pan_wall

#: Power of (1 - leverage) by which a cluster's score is multiplied.
POWER = {"kauermann_carroll": -0.5, "mancl_derouen": -1.0}

#: Bound of the leverage that Fay & Graubard set, so that no cluster's score is more than doubled (by the power -1/2).
LARGEST_LEVERAGE = 0.75


def _pieces(theta, eta, y):
    """Category probability, and first and second derivatives of its log in the upper and lower bound."""
    bounds = np.concatenate([[-np.inf], theta, [np.inf]])
    upper, lower = bounds[y + 1] - eta, bounds[y] - eta
    # P = F(upper) - F(lower), from whichever tail keeps the digits
    flip = lower > 0
    a, b = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    fa, fb = expit(a), expit(b)
    prob = np.maximum(fa - fb, 1e-300)
    fu, fl = expit(upper), expit(lower)
    du, dl = fu * expit(-upper), fl * expit(-lower)
    gu, gl = du / prob, -dl / prob
    huu = du * (1 - 2 * fu) / prob - gu * gu
    hll = -dl * (1 - 2 * fl) / prob - gl * gl
    return prob, gu, gl, huu, hll, -gu * gl


def fit_ordinal(
    exposures: np.ndarray,
    covariates: np.ndarray,
    y: np.ndarray,
    starts: np.ndarray,
    start: np.ndarray | None = None,
    small_sample: str = "kauermann_carroll",
    tolerance: float = 1e-9,
    max_iter: int = 100,
) -> Fit:
    """Fit one proportional-odds model.

    Parameters
    ----------
    exposures : ndarray [n, k]
        Columns of interest.
    covariates : ndarray [n, q]
        Covariates **without** intercept (the thresholds take its place), of unit size.
    y : ndarray of int [n]
        Levels 0..J-1, each of them present.
    starts : ndarray of int64 [K + 1]
        Row at which each cluster begins, and ``n``.
    start : ndarray [q], optional
        Coefficients of the covariates to start from.
    small_sample : {'none', 'df', 'kauermann_carroll', 'mancl_derouen'}
        ``df`` multiplies the sandwich by ``K / (K - p)``; the last two are Fay & Graubard's correction, ``mancl_derouen`` with the power
        -1 in place of -1/2.

    Returns
    -------
    Fit
        ``beta`` holds exposures, covariates, then the J-1 thresholds; a positive coefficient means higher levels.
    """
    exposures = np.asarray(exposures, dtype=float)
    if exposures.ndim == 1:
        exposures = exposures[:, None]
    x = np.column_stack([exposures, covariates]) if covariates.shape[1] else exposures
    size = np.sqrt(np.mean(x * x, axis=0))
    n, p = x.shape
    n_clusters = len(starts) - 1
    y = np.asarray(y, dtype=np.int64)
    levels = int(y.max()) + 1 if n else 0
    total = p + max(levels - 1, 0)
    bad = np.full((total, total), np.nan)
    counts = np.bincount(y, minlength=levels)
    if levels < 2 or np.any(counts == 0) or np.any(size == 0) or not np.all(np.isfinite(size)) or n_clusters <= total:
        return Fit(np.full(total, np.nan), bad, bad, 0.0, 1.0, n, n_clusters, 0, SINGULAR)
    x = x / size
    cumulative = np.cumsum(counts)[:-1] / n
    theta = np.log(cumulative / (1 - cumulative))
    beta = np.zeros(p)
    if start is not None:
        beta[exposures.shape[1] :] = start * size[exposures.shape[1] :]

    def derivatives(theta, beta):
        prob, gu, gl, huu, hll, hul = _pieces(theta, x @ beta, y)
        return np.log(prob).sum(), gu, gl, huu, hll, hul

    ll, gu, gl, huu, hll, hul = derivatives(theta, beta)
    code, n_iter = NOT_CONVERGED, 0
    for iteration in range(1, max_iter + 1):
        n_iter = iteration
        hessian = np.zeros((total, total))
        both = huu + 2 * hul + hll
        hessian[:p, :p] = x.T @ (x * both[:, None])
        score = np.empty(total)
        score[:p] = -(x.T @ (gu + gl))
        for j in range(levels - 1):
            up, down = y == j, y == j + 1  # rows whose upper, or lower, bound is theta_j
            score[p + j] = gu[up].sum() + gl[down].sum()
            hessian[p + j, p + j] = huu[up].sum() + hll[down].sum()
            cross = -(x[up].T @ (huu + hul)[up]) - x[down].T @ (hll + hul)[down]
            hessian[:p, p + j] = hessian[p + j, :p] = cross
            if j + 1 < levels - 1:
                hessian[p + j, p + j + 1] = hessian[p + j + 1, p + j] = hul[down].sum()
        d = 1.0 / np.sqrt(np.maximum(np.diag(-hessian), 1e-300))
        scaled = -hessian * np.outer(d, d)
        try:
            factor = np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            code = SINGULAR
            break
        if np.min(np.diag(factor)) < 1e-6:
            code = SINGULAR
            break
        step = d * np.linalg.solve(factor.T, np.linalg.solve(factor, d * score))
        # halve until the thresholds stay in order and the likelihood does not fall
        for _ in range(30):
            new_theta, new_beta = theta + step[p:], beta + step[:p]
            if np.all(np.diff(new_theta) > 0):
                trial = derivatives(new_theta, new_beta)
                if trial[0] >= ll - 1e-10 * (1 + abs(ll)):
                    break
            step = step / 2
        else:
            break
        theta, beta = new_theta, new_beta
        ll, gu, gl, huu, hll, hul = trial
        if np.abs(x @ beta).max() > 200 or not np.isfinite(ll):
            code = DIVERGED
            break
        if np.abs(step).max() < tolerance * (1 + np.abs(theta).max()):
            code = OK
            break
    back = np.concatenate([1.0 / size, np.ones(levels - 1)])
    estimate = np.concatenate([beta, theta]) * back
    if code != OK:
        return Fit(estimate, bad, bad, 0.0, 1.0, n, n_clusters, n_iter, code)
    naive = np.linalg.inv(scaled) * np.outer(d, d)
    # derivatives of a row's upper and lower bound by the coefficients and thresholds
    upper, lower = np.zeros((n, total)), np.zeros((n, total))
    upper[:, :p] = lower[:, :p] = -x
    for j in range(levels - 1):
        upper[y == j, p + j] = 1.0
        lower[y == j + 1, p + j] = 1.0
    sums = np.add.reduceat(upper * gu[:, None] + lower * gl[:, None], starts[:-1], axis=0)
    if small_sample in POWER:
        above, below = upper @ naive, lower @ naive
        leverage = -(huu[:, None] * upper * above + hll[:, None] * lower * below + hul[:, None] * (upper * below + lower * above))
        leverage = np.clip(np.add.reduceat(leverage, starts[:-1], axis=0), 0.0, LARGEST_LEVERAGE)
        sums = sums * (1.0 - leverage) ** POWER[small_sample]
    parts = sums @ naive
    cov = parts.T @ parts
    if small_sample == "df":
        cov = cov * n_clusters / (n_clusters - total)
    parts = parts[:, : exposures.shape[1]]
    steady = pan_wall(np.sum(parts**2, axis=0), np.sum(parts**4, axis=0), n_clusters)
    return Fit(estimate, cov * np.outer(back, back), naive * np.outer(back, back), 0.0, 1.0, n, n_clusters, n_iter, OK, steady=steady)
