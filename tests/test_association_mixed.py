"""The logistic mixed model where intercepts vary widely, against plain integration."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from retsam.association.fit import OK
from retsam.association.mixed import _grid_step, _marginal, fit_mixed_logit

AT = np.linspace(-8.5, 8.5, 4001)
LOG_WEIGHT = -0.5 * AT**2 - 0.5 * math.log(2 * math.pi) + math.log(AT[1] - AT[0])


def brute(parameters, x, y, rows=2, at=AT, log_weight=LOG_WEIGHT):
    """Minus the log likelihood of clusters of ``rows``, summed over a fine grid."""
    eta = (x @ parameters[:-1]).reshape(-1, rows)[:, :, None] + math.exp(parameters[-1]) * at
    terms = (y.reshape(-1, rows)[:, :, None] * eta - np.logaddexp(0, eta)).sum(1)
    return -float(logsumexp(terms + log_weight, axis=1).sum())


@pytest.mark.parametrize("intercept, sd", [(-3.0, 2.0), (-6.0, 4.0), (-8.0, 6.0), (-10.0, 8.0), (4.0, 12.0)])
@pytest.mark.parametrize("pair", [(1, 1), (1, 0), (0, 0)])
def test_the_likelihood_of_a_pair_is_the_integral(intercept, sd, pair):
    x, y, starts = np.ones((2, 1)), np.array(pair, dtype=float), np.array([0, 2])
    at, weight = np.polynomial.hermite_e.hermegauss(15)
    gradient, beta = np.empty(2), np.array([intercept])
    exact = brute(np.array([intercept, math.log(sd)]), x, y)
    value = _marginal(x, y, starts, beta, math.log(sd), at, weight / math.sqrt(2 * math.pi), _grid_step(sd, starts), gradient)
    assert value == pytest.approx(exact, abs=1e-8)
    # the nodes of the first search are centred on the mode: near the integral, where they once were nowhere near it
    rough = _marginal(x, y, starts, beta, math.log(sd), at, weight / math.sqrt(2 * math.pi), 0.0, gradient)
    assert rough == pytest.approx(exact, abs=0.15)


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_the_likelihood_of_larger_clusters_is_the_integral(rows):
    rng = np.random.default_rng(rows)
    x = np.column_stack([rng.normal(size=rows), np.ones(rows)])
    y = (rng.random(rows) < 0.4).astype(float)
    at, weight = np.polynomial.hermite_e.hermegauss(15)
    starts, parameters, gradient = np.array([0, rows]), np.array([1.0, -5.0, math.log(7.0)]), np.empty(3)
    args = (at, weight / math.sqrt(2 * math.pi), _grid_step(7.0, starts))
    value = _marginal(x, y, starts, parameters[:2], parameters[2], *args, gradient)
    assert value == pytest.approx(brute(parameters, x, y, rows), abs=1e-8)
    for j in range(3):
        up, down = parameters.copy(), parameters.copy()
        up[j] += 1e-5
        down[j] -= 1e-5
        assert gradient[j] == pytest.approx((brute(up, x, y, rows) - brute(down, x, y, rows)) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("sd", [4.0, 6.0, 8.0])
def test_estimates_are_those_of_the_exact_likelihood(sd):
    rng = np.random.default_rng(1)
    clusters = 300
    x = np.column_stack([rng.normal(size=2 * clusters), np.ones(2 * clusters)])
    eta = -1.0 * sd + x[:, 0] + sd * np.repeat(rng.normal(size=clusters), 2)
    y = (rng.random(2 * clusters) < expit(eta)).astype(float)
    fit = fit_mixed_logit(x, y, np.arange(0, 2 * clusters + 1, 2))
    assert fit.code == OK
    # every tenth point of the grid will do for the search
    coarse = np.linspace(-8, 8, 401)
    log_weight = -0.5 * coarse**2 - 0.5 * math.log(2 * math.pi) + math.log(coarse[1] - coarse[0])
    exact = minimize(brute, np.r_[fit.beta, math.log(fit.scale)] + 0.05, args=(x, y, 2, coarse, log_weight), method="BFGS")
    assert fit.beta == pytest.approx(exact.x[:2], abs=2e-3)
    assert fit.scale == pytest.approx(math.exp(exact.x[2]), rel=1e-3)
