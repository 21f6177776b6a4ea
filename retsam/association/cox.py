"""Cox regression of clustered rows: Efron's likelihood, robust variance from score residuals summed over clusters.

Ties are handled after Efron (1977, JASA 72:557) in the likelihood **and** in the score residuals (Therneau & Grambsch 2000, Modeling
Survival Data, 4.6 and 7.2), as R's survival does. The Python libraries use the residuals of untied data there, which moves robust
errors by a part in a thousand on days-resolved follow-up; that is why this model is written out.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from retsam.association.dense import cholesky, inverse, solve
from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit, pan_wall


@njit(cache=True, nogil=True, error_model="numpy")
def _derivatives(x, eta, stop, event, entry, by_stop, by_entry, u, h, hazards, means, back, back_means, times):
    """Log likelihood, score and information; per event time the hazard, the hazard-weighted mean, and their tie corrections.

    ``by_stop`` and ``by_entry`` order the rows by decreasing time of end and of entry. Event times come out in decreasing order.
    """
    n, p = x.shape
    u[:] = 0.0
    h[:, :] = 0.0
    s0 = 0.0
    s1, d1, mean = np.zeros(p), np.zeros(p), np.zeros(p)
    s2, d2 = np.zeros((p, p)), np.zeros((p, p))
    ll = 0.0
    place, left, found = 0, 0, 0
    while place < n:
        t = stop[by_stop[place]]
        deaths, d0 = 0, 0.0
        d1[:] = 0.0
        d2[:, :] = 0.0
        while place < n and stop[by_stop[place]] == t:
            i = by_stop[place]
            w = math.exp(eta[i])
            s0 += w
            for a in range(p):
                s1[a] += w * x[i, a]
                for b in range(a + 1):
                    s2[a, b] += w * x[i, a] * x[i, b]
            if event[i] == 1.0:
                deaths += 1
                d0 += w
                ll += eta[i]
                for a in range(p):
                    d1[a] += w * x[i, a]
                    u[a] += x[i, a]
                    for b in range(a + 1):
                        d2[a, b] += w * x[i, a] * x[i, b]
            place += 1
        if deaths == 0:
            continue
        while left < n and entry[by_entry[left]] >= t:
            i = by_entry[left]
            if stop[i] >= t:
                w = math.exp(eta[i])
                s0 -= w
                for a in range(p):
                    s1[a] -= w * x[i, a]
                    for b in range(a + 1):
                        s2[a, b] -= w * x[i, a] * x[i, b]
            left += 1
        times[found] = t
        hazards[found] = 0.0
        back[found] = 0.0
        means[found, :] = 0.0
        back_means[found, :] = 0.0
        for k in range(deaths):
            down = k / deaths
            denominator = s0 - down * d0
            if not denominator > 0.0:
                return -np.inf, found
            ll -= math.log(denominator)
            hazards[found] += 1.0 / denominator
            back[found] += down / denominator
            for a in range(p):
                mean[a] = (s1[a] - down * d1[a]) / denominator
                u[a] -= mean[a]
                means[found, a] += mean[a] / denominator
                back_means[found, a] += down * mean[a] / denominator
                for b in range(a + 1):
                    h[a, b] += (s2[a, b] - down * d2[a, b]) / denominator - mean[a] * mean[b]
        # the mean that a death is measured against is the average over the steps of the tie: kept in the last columns of `means`
        for a in range(p):
            m = 0.0
            for k in range(deaths):
                down = k / deaths
                m += (s1[a] - down * d1[a]) / (s0 - down * d0)
            means[found, p + a] = m / deaths
        found += 1
    return ll, found


@njit(cache=True, nogil=True, error_model="numpy")
def _residuals(x, eta, stop, event, entry, hazards, means, back, back_means, times, found):
    """Score residuals; event times are given in decreasing order."""
    n, p = x.shape
    total = np.zeros(found + 1)
    total_means = np.zeros((found + 1, p))
    rising = times[:found][::-1].copy()
    for g in range(found):
        o = found - 1 - g
        total[g + 1] = total[g] + hazards[o]
        for a in range(p):
            total_means[g + 1, a] = total_means[g, a] + means[o, a]
    out = np.zeros((n, p))
    for i in range(n):
        last = np.searchsorted(rising, stop[i], side="right")
        first = np.searchsorted(rising, entry[i], side="right")
        w = math.exp(eta[i])
        for a in range(p):
            out[i, a] = -w * (x[i, a] * (total[last] - total[first]) - (total_means[last, a] - total_means[first, a]))
        if event[i] == 1.0:
            o = found - last  # position of the own time in decreasing order
            for a in range(p):
                out[i, a] += x[i, a] - means[o, p + a] + w * (back[o] * x[i, a] - back_means[o, a])
    return out


def fit_cox(
    x: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    starts: np.ndarray,
    entry: np.ndarray | None = None,
    tolerance: float = 1e-9,
    max_iter: int = 60,
) -> Fit:
    """Cox model with a cluster-robust variance.

    Parameters
    ----------
    x : ndarray [n, p]
        Exposures first, covariates after, without intercept.
    time : ndarray [n]
        End of follow-up, positive.
    event : ndarray [n]
        1 where the event happened then.
    starts : ndarray of int64 [K + 1]
        Row at which each cluster begins, and n.
    entry : ndarray [n], optional
        Start of follow-up (left truncation); 0 where left out.

    Returns
    -------
    Fit
        ``beta`` are log hazard ratios, ``naive`` the inverse information, ``cov`` the sandwich.
    """
    x = np.asarray(x, dtype=float)
    n, p = x.shape
    n_clusters = len(starts) - 1
    bad = np.full((p, p), np.nan)
    centre, size = x.mean(axis=0), x.std(axis=0)
    if n <= p or np.sum(event) <= p or n_clusters <= p or np.any(size == 0) or not np.all(np.isfinite(size)):
        return Fit(np.full(p, np.nan), bad, bad, 0.0, 1.0, n, n_clusters, 0, SINGULAR)
    z = np.ascontiguousarray((x - centre) / size)
    stop = np.ascontiguousarray(time, dtype=float)
    happened = np.ascontiguousarray(event, dtype=float)
    begin = np.full(n, -np.inf) if entry is None else np.ascontiguousarray(entry, dtype=float)
    by_stop, by_entry = np.argsort(-stop, kind="stable"), np.argsort(-begin, kind="stable")
    points = int(len(np.unique(stop[happened == 1])))
    hazards, back, times = np.empty(points), np.empty(points), np.empty(points)
    means, back_means = np.empty((points, 2 * p)), np.empty((points, p))
    u, h = np.empty(p), np.empty((p, p))
    beta = np.zeros(p)

    def evaluate(b):
        return _derivatives(z, z @ b, stop, happened, begin, by_stop, by_entry, u, h, hazards, means, back, back_means, times)

    ll, found = evaluate(beta)
    code, n_iter = NOT_CONVERGED, 0
    for iteration in range(1, max_iter + 1):
        n_iter = iteration
        low, d, ok = cholesky(h, 1e-11)
        if not ok:
            code = SINGULAR if np.abs(beta).max() < 5 else DIVERGED
            break
        step = solve(low, d, u)
        if not np.all(np.isfinite(step)):
            code = DIVERGED
            break
        biggest = np.abs(step).max()
        step = step * min(1.0, 3.0 / biggest) if biggest > 0 else step
        for _ in range(30):
            new_ll, new_found = evaluate(beta + step)
            if new_ll >= ll - 1e-10 * (1 + abs(ll)):
                break
            step = step / 2
        beta, ll, found = beta + step, new_ll, new_found
        if np.abs(beta).max() > 15:  # e^15 per SD: a monotone likelihood on its way to infinity
            code = DIVERGED
            break
        if np.abs(step).max() < tolerance:
            code = OK
            break
    if code != OK:
        return Fit(beta / size, bad, bad, 0.0, 1.0, n, n_clusters, n_iter, code)
    low, d, ok = cholesky(h, 1e-11)
    if not ok:
        return Fit(beta / size, bad, bad, 0.0, 1.0, n, n_clusters, n_iter, SINGULAR)
    naive = inverse(low, d)
    scores = _residuals(z, z @ beta, stop, happened, begin, hazards, means, back, back_means, times, found)
    sums = np.add.reduceat(scores, starts[:-1], axis=0)
    parts = sums @ naive
    scale = np.outer(1 / size, 1 / size)
    steady = pan_wall(np.sum(parts**2, axis=0), np.sum(parts**4, axis=0), n_clusters)
    return Fit(beta / size, parts.T @ parts * scale, naive * scale, 0.0, 1.0, n, n_clusters, n_iter, OK, steady=steady)
