"""Mixed models with a random intercept per cluster: an option beside the marginal models.

The linear model is fitted by restricted maximum likelihood. With one random intercept the covariance of a cluster of ``m`` rows is
``s2 (I + r 11')``, whose inverse is ``(I - r / (1 + m r) 11') / s2``: cross products of the data and of the cluster sums, by cluster
size, are enough to evaluate the criterion at any ``r`` (Laird & Ware 1982, Biometrics 38:963).

The logistic model is fitted by maximum likelihood with adaptive Gauss-Hermite quadrature (Pinheiro & Bates 1995, J Comput Graph Stat
4:12), and where the intercepts vary widely by a fine grid. Its odds ratios are conditional on the subject and lie further from 1 than
the marginal ones of GEE.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.optimize import minimize, minimize_scalar

from retsam.association.fit import NOT_CONVERGED, OK, SINGULAR, Fit

NODES = 15

#: Standard deviation of the intercept above which the quadrature of 15 nodes is followed by a fine grid: the posterior of an eye pair is
#: then no bell any more, but a bell with a side cut off.
WIDE = 2.0

#: Rows of a cluster up to which the grid is used (the posterior of more is close to a normal one), and how far it reaches about the mode:
#: the posterior falls at least as fast as a standard normal density.
SMALL_CLUSTER = 20
REACH = 8.0

#: Largest log standard deviation that is tried.
LOG_SD_MAX = 2.5


def _refused(n: int, p: int, n_clusters: int, code: int) -> Fit:
    bad = np.full((p, p), np.nan)
    return Fit(np.full(p, np.nan), bad, bad, 0.0, math.nan, n, n_clusters, 0, code)


def fit_mixed_linear(x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> Fit:
    """Linear mixed model with a random intercept, by REML.

    Parameters
    ----------
    x : ndarray [n, p]
        Design: exposures first, intercept and covariates after.
    y : ndarray [n]
    starts : ndarray of int64 [K + 1]
        Row at which each cluster begins, and n.

    Returns
    -------
    Fit
        ``alpha`` is the intraclass correlation, ``scale`` the residual variance; ``cov`` is model-based, as in lme4.
    """
    n, p = x.shape
    n_clusters = len(starts) - 1
    data = np.column_stack([x, y])
    gram = data.T @ data
    sums = np.add.reduceat(data, starts[:-1], axis=0)
    sizes = np.diff(starts)
    by_size = [(int(m), sums[sizes == m].T @ sums[sizes == m], int(np.sum(sizes == m))) for m in np.unique(sizes)]

    def solve(ratio: float):
        g = gram - sum((ratio / (1 + m * ratio)) * s for m, s, _ in by_size)
        a, b, c = g[:p, :p], g[:p, p], g[p, p]
        beta = np.linalg.solve(a, b)
        return a, beta, float(c - b @ beta)

    def criterion(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        a, _, rss = solve(ratio)
        sign, log_det = np.linalg.slogdet(a)
        if sign <= 0 or rss <= 0:
            return math.inf
        return sum(k * math.log1p(m * ratio) for m, _, k in by_size) + log_det + (n - p) * math.log(rss)

    try:
        inner = minimize_scalar(criterion, bounds=(-14.0, 9.0), method="bounded", options={"xatol": 1e-10, "maxiter": 500})
    except np.linalg.LinAlgError:
        return _refused(n, p, n_clusters, SINGULAR)
    if not math.isfinite(inner.fun):
        return _refused(n, p, n_clusters, SINGULAR)
    ratio = math.exp(inner.x)
    a, beta, rss = solve(ratio)
    scale = rss / (n - p)
    cov = scale * np.linalg.inv(a)
    return Fit(beta, cov, cov, ratio / (1 + ratio), scale, n, n_clusters, int(inner.nfev), OK)


@njit(cache=True, nogil=True, error_model="numpy")
def _mode(eta, y, first, m, sd):
    """Mode of the standardised random intercept's posterior of one cluster, and minus the second derivative there.

    The slope of the log posterior falls throughout, by 1 a unit at least, so that its root lies within ``sd * m`` of zero. Plain Newton
    steps jump to and fro over it for ever where ``sd`` is large: a step that leaves the bracket, or does not halve, is a bisection.
    """
    low, high = -sd * m, sd * m
    u = 0.0
    last = high - low
    h = 1.0
    for _ in range(200):
        g = -u
        h = 1.0
        for i in range(m):
            mu = 1.0 / (1.0 + math.exp(-(eta[i] + sd * u)))
            g += sd * (y[first + i] - mu)
            h += sd * sd * mu * (1.0 - mu)
        if g > 0:
            low = u
        else:
            high = u
        step = g / h
        if not (low < u + step < high) or abs(step) > 0.5 * last:
            step = 0.5 * (low + high) - u
        last = abs(step)
        u += step
        if last < 1e-11:
            break
    return u, h


@njit(cache=True, nogil=True, error_model="numpy")
def _marginal(x, y, starts, beta, log_sd, nodes, weights, grid_step, gradient):
    """Minus the marginal log likelihood, and its gradient by the posterior mean of the score (Fisher's identity).

    Clusters of up to ``SMALL_CLUSTER`` rows are summed over a grid of width ``grid_step`` about the mode where that is above 0.
    """
    p = x.shape[1]
    sd = math.exp(log_sd)
    largest = 0
    for c in range(len(starts) - 1):
        largest = max(largest, starts[c + 1] - starts[c])
    eta = np.empty(largest)
    slope = np.empty(largest)
    half = int(math.ceil(REACH / grid_step)) if grid_step > 0 else 0
    terms = np.empty(max(len(nodes), 2 * half + 1))
    gradient[:] = 0.0
    value = 0.0
    for c in range(len(starts) - 1):
        first = starts[c]
        m = starts[c + 1] - first
        for i in range(m):
            s = 0.0
            for j in range(p):
                s += x[first + i, j] * beta[j]
            eta[i] = s
        u, h = _mode(eta, y, first, m, sd)
        on_grid = grid_step > 0 and m <= SMALL_CLUSTER
        spread = 1.0 / math.sqrt(h)
        count = 2 * half + 1 if on_grid else len(nodes)
        total = 0.0
        top = -1e300
        slope[:m] = 0.0
        d_sd = 0.0
        # two passes over the nodes: the largest term first, so that nothing under- or overflows
        for q in range(count):
            if on_grid:
                v = u + grid_step * (q - half)
                ll = -0.5 * v * v
            else:
                v = u + spread * nodes[q]
                ll = -0.5 * v * v + 0.5 * nodes[q] * nodes[q]
            for i in range(m):
                e = eta[i] + sd * v
                ll += y[first + i] * e - max(e, 0.0) - math.log1p(math.exp(-abs(e)))
            terms[q] = ll
            top = max(top, ll)
        for q in range(count):
            if terms[q] < top - 45.0:
                continue
            v = u + (grid_step * (q - half) if on_grid else spread * nodes[q])
            w = math.exp(terms[q] - top) * (1.0 if on_grid else weights[q])
            total += w
            for i in range(m):
                r = y[first + i] - 1.0 / (1.0 + math.exp(-(eta[i] + sd * v)))
                slope[i] += w * r
                d_sd += w * r * sd * v
        value -= top + math.log(total * (grid_step / math.sqrt(2 * math.pi) if on_grid else spread))
        for i in range(m):
            s = slope[i] / total
            for j in range(p):
                gradient[j] -= s * x[first + i, j]
        gradient[p] -= d_sd / total
    return value


def _grid_step(sd: float, starts: np.ndarray) -> float:
    """Width of a grid over the standardised intercept whose sum is the integral to about 1e-10.

    The error of the trapezoidal rule falls as ``exp(-2 pi d / step)``, with ``d = pi / sd`` the distance of the logistic function's
    poles from the real line; a peak of width ``s`` needs ``step < 0.7 s`` (Trefethen & Weideman 2014, SIAM Rev 56:385).
    """
    sizes = np.diff(starts)
    m = int(max(sizes[sizes <= SMALL_CLUSTER], default=1))
    return min(2 * math.pi**2 / (26 * sd), 0.7 / math.sqrt(1 + sd * sd * m / 4), 0.25)


def fit_mixed_logit(x: np.ndarray, y: np.ndarray, starts: np.ndarray, nodes: int = NODES) -> Fit:
    """Logistic mixed model with a random intercept, by adaptive quadrature.

    Parameters
    ----------
    x : ndarray [n, p]
        Design of unit-size columns: exposures first, intercept and covariates after.
    y : ndarray [n]
        0 or 1.
    starts : ndarray of int64 [K + 1]
    nodes : int
        Of the quadrature.

    Returns
    -------
    Fit
        ``alpha`` is the intraclass correlation on the latent scale, ``sd^2 / (sd^2 + pi^2/3)``.
    """
    n, p = x.shape
    n_clusters = len(starts) - 1
    # probabilists' nodes: the weight is the standard normal density that the standardised intercept has
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / math.sqrt(2 * math.pi)
    x = np.ascontiguousarray(x, dtype=float)
    y = np.ascontiguousarray(y, dtype=float)
    starts = np.ascontiguousarray(starts, dtype=np.int64)

    step = 0.0

    def objective(parameters):
        gradient = np.empty(p + 1)
        value = _marginal(x, y, starts, parameters[:p], parameters[p], at, weight, step, gradient)
        return value / n, gradient / n

    options = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8}

    def fit(start, most):
        bounds = [(-60, 60)] * p + [(-7, most)]
        return minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    best = fit(np.r_[np.zeros(p), -0.5], LOG_SD_MAX)
    if best.x[p] > math.log(WIDE):
        # the grid is as fine as its widest intercepts need; it grows finer where the fit ends at them
        most = best.x[p]
        while most < LOG_SD_MAX and best.x[p] > most - 0.05:
            most = min(LOG_SD_MAX, most + 0.5)
            step = _grid_step(math.exp(most), starts)
            best = fit(best.x, most)
        if step == 0.0:
            step = _grid_step(math.exp(LOG_SD_MAX), starts)
            best = fit(best.x, LOG_SD_MAX)
    estimate = best.x

    def hessian(parameters):
        out = np.empty((p + 1, p + 1))
        for j in range(p + 1):
            delta = 1e-4 * max(1.0, abs(parameters[j]))
            up, down = parameters.copy(), parameters.copy()
            up[j] += delta
            down[j] -= delta
            out[j] = (objective(up)[1] - objective(down)[1]) / (2 * delta)
        return (out + out.T) / 2

    curvature = hessian(estimate)
    free = p + 1 if -6.9 < estimate[p] < 2.4 else p
    # L-BFGS stops on a plateau: two Newton steps bring the gradient to rounding error
    for _ in range(3):
        gradient = objective(estimate)[1][:free]
        try:
            move = np.linalg.solve(curvature[:free, :free], gradient)
        except np.linalg.LinAlgError:
            return _refused(n, p, n_clusters, SINGULAR)
        if not np.all(np.isfinite(move)) or np.abs(move).max() > 1.0:
            return _refused(n, p, n_clusters, NOT_CONVERGED)
        estimate[:free] -= move
        if np.abs(move).max() < 1e-10:
            break
    curvature = hessian(estimate)[:free, :free]
    values = np.linalg.eigvalsh(curvature)
    if values[0] <= 1e-10 * values[-1]:
        return _refused(n, p, n_clusters, SINGULAR)
    cov = (np.linalg.inv(curvature) / n)[:p, :p]
    sd = math.exp(estimate[p])
    return Fit(estimate[:p], cov, cov, sd * sd / (sd * sd + math.pi**2 / 3), sd, n, n_clusters, int(best.nit), OK)
