"""The batched solver against statsmodels, and what it does where there is no estimate."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.miscmodels.ordinal_model import OrderedModel

from retsam.association.config import Models
from retsam.association.firth import fit_firth, separated
from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, cluster_starts, pan_wall
from retsam.association.gee import fit_gee
from retsam.association.models import fit_model
from retsam.association.ordinal import fit_ordinal

RELATIVE = 1e-6


def clustered(sizes, seed=0, n_covariates=2):
    """Exposure, covariates, a linear predictor with a cluster effect, clusters."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    n = len(cluster)
    frailty = rng.normal(size=len(sizes))[cluster]
    x = rng.normal(size=n) + 0.5 * rng.normal(size=len(sizes))[cluster]
    z = np.column_stack([np.ones(n), rng.normal(size=(n, n_covariates))])
    return x, z, -0.8 + 0.4 * x + 0.3 * z[:, 1] + frailty, cluster, rng


def outcome(family, eta, rng):
    if family == "logit":
        return (rng.random(len(eta)) < 1 / (1 + np.exp(-eta))).astype(float)
    if family == "poisson":
        return rng.poisson(np.exp(0.5 * eta)).astype(float)
    return eta + rng.normal(size=len(eta))


SM_FAMILY = {"logit": sm.families.Binomial, "poisson": sm.families.Poisson, "linear": sm.families.Gaussian}


@pytest.mark.parametrize("family", ["logit", "poisson", "linear"])
@pytest.mark.parametrize("correlation", ["exchangeable", "independence"])
@pytest.mark.parametrize("largest", [2, 5])
@pytest.mark.parametrize(("small_sample", "reference"), [("none", "robust"), ("mancl_derouen", "bias_reduced")])
def test_equals_statsmodels(family, correlation, largest, small_sample, reference):
    sizes = np.random.default_rng(1).integers(1, largest + 1, 150)
    x, z, eta, cluster, rng = clustered(sizes, seed=largest)
    y = outcome(family, eta, rng)
    structure = sm.cov_struct.Exchangeable() if correlation == "exchangeable" else sm.cov_struct.Independence()
    model = sm.GEE(y, np.column_stack([x, z]), cluster, family=SM_FAMILY[family](), cov_struct=structure)
    theirs = model.fit(maxiter=200, ctol=1e-11, cov_type=reference)
    ours = fit_gee(x, z, y, cluster_starts(cluster), family, correlation, small_sample, tolerance=1e-10)
    assert ours.code == OK
    np.testing.assert_allclose(ours.beta, theirs.params, rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.cov)), theirs.bse, rtol=RELATIVE)
    np.testing.assert_allclose(np.diag(ours.naive), np.diag(theirs.cov_naive), rtol=RELATIVE)
    if correlation == "exchangeable":
        assert ours.alpha == pytest.approx(float(structure.dep_params), rel=1e-6)


def test_kauermann_carroll_by_its_definition():
    """The compiled correction equals (I - H)^-1/2 computed with dense matrices, for clusters of 1 to 4 rows."""
    from scipy.linalg import sqrtm

    sizes = np.random.default_rng(3).integers(1, 5, 60)
    x, z, eta, cluster, rng = clustered(sizes, seed=4)
    y = outcome("logit", eta, rng)
    starts = cluster_starts(cluster)
    fit = fit_gee(x, z, y, starts, "logit", "exchangeable", "kauermann_carroll", tolerance=1e-11)
    design = np.column_stack([x, z])
    mu = 1 / (1 + np.exp(-design @ fit.beta))
    meat = 0.0
    for first, last in zip(starts[:-1], starts[1:], strict=True):
        v = mu[first:last] * (1 - mu[first:last])
        m = last - first
        working = np.sqrt(np.outer(v, v)) * ((1 - fit.alpha) * np.eye(m) + fit.alpha)
        d = v[:, None] * design[first:last]
        inverse = np.linalg.inv(working)
        hat = d @ fit.naive @ d.T @ inverse
        residual = np.linalg.inv(sqrtm(np.eye(m) - hat).real) @ (y - mu)[first:last]
        score = d.T @ inverse @ residual
        meat = meat + np.outer(score, score)
    np.testing.assert_allclose(fit.cov, fit.naive @ meat @ fit.naive, rtol=1e-8)


def test_start_and_scale_do_not_change_the_answer():
    x, z, eta, cluster, rng = clustered(np.full(200, 2))
    y = outcome("logit", eta, rng)
    starts = cluster_starts(cluster)
    plain = fit_gee(x, z, y, starts, tolerance=1e-11)
    warm = fit_gee(x, z, y, starts, start=np.array([-0.5, 0.1, 0.1]), start_alpha=0.3, tolerance=1e-11)
    np.testing.assert_allclose(warm.beta, plain.beta, rtol=1e-8)
    for factor in (1e6, 1e-6):
        scaled = fit_gee(x * factor, z, y, starts, tolerance=1e-11)
        assert scaled.beta[0] * factor == pytest.approx(plain.beta[0], rel=1e-9)
        assert np.sqrt(scaled.cov[0, 0]) * factor == pytest.approx(np.sqrt(plain.cov[0, 0]), rel=1e-9)


def test_one_eye_a_subject_is_ordinary_logistic_regression():
    x, z, eta, cluster, rng = clustered(np.ones(300, dtype=int))
    y = outcome("logit", eta, rng)
    ours = fit_gee(x, z, y, cluster_starts(cluster), small_sample="none", tolerance=1e-11)
    theirs = sm.Logit(y, np.column_stack([x, z])).fit(disp=0, cov_type="HC0", tol=1e-12)
    np.testing.assert_allclose(ours.beta, theirs.params, rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.cov)), theirs.bse, rtol=RELATIVE)
    assert ours.alpha == 0.0


@pytest.mark.parametrize("n_levels", [2, 4])
def test_ordinal_equals_statsmodels(n_levels):
    x, z, eta, cluster, rng = clustered(np.random.default_rng(2).integers(1, 3, 250))
    latent = eta + rng.logistic(size=len(eta))
    y = np.searchsorted(np.quantile(latent, np.linspace(0, 1, n_levels + 1)[1:-1]), latent)
    starts = cluster_starts(cluster)
    ours = fit_ordinal(x, z[:, 1:], y, starts, small_sample="none")
    assert ours.code == OK
    theirs = OrderedModel(y, np.column_stack([x, z[:, 1:]]), distr="logit").fit(method="newton", disp=0, tol=1e-12, maxiter=200)
    np.testing.assert_allclose(ours.beta[:3], theirs.params[:3], rtol=RELATIVE)
    np.testing.assert_allclose(ours.beta[3:], theirs.model.transform_threshold_params(theirs.params[3:])[1:-1], rtol=RELATIVE)
    if n_levels == 2:
        logit = sm.Logit(y, np.column_stack([x, z])).fit(
            disp=0, tol=1e-12, cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
        )
        np.testing.assert_allclose(np.sqrt(np.diag(ours.cov))[:3], logit.bse[[0, 2, 3]], rtol=RELATIVE)


def test_separation_is_found_exactly():
    y = np.array([0, 0, 0, 1, 1, 1, 0.0, 1.0])
    ones = np.ones(8)
    complete = np.array([1, 2, 3, 5, 6, 7, 3.5, 4.5])
    quasi = np.array([1, 2, 4, 4, 6, 7, 3.0, 5.0])
    overlap = np.array([1, 2, 6, 3, 6, 7, 3.0, 5.0])
    assert separated(np.column_stack([complete, ones]), y)
    assert separated(np.column_stack([quasi, ones]), y)
    assert not separated(np.column_stack([overlap, ones]), y)


def test_firth_of_a_table_with_an_empty_cell():
    """For a saturated 2 x 2 table Firth's estimate adds 1/2 to each cell (Heinze & Schemper 2002)."""
    x = np.r_[np.zeros(20), np.ones(8)]
    y = np.r_[np.ones(6), np.zeros(14), np.ones(8)]
    fit = fit_firth(x, np.ones((28, 1)), y, np.arange(29), robust=False)
    assert fit.code == OK
    assert fit.beta[0] == pytest.approx(np.log((8.5 / 0.5) / (6.5 / 14.5)), rel=1e-8)
    assert fit.beta[1] == pytest.approx(np.log(6.5 / 14.5), rel=1e-8)


def test_separated_models_get_firth_or_a_reason():
    rng = np.random.default_rng(0)
    y = (np.arange(200) % 4 == 0).astype(float)
    carried = y * (rng.random(200) < 0.3)  # only cases carry it
    starts = np.arange(0, 201, 2)
    z = np.ones((200, 1))
    answer = fit_model("binary", carried, z, y, starts, Models())
    assert answer.model == "firth_logit" and "separated" in answer.notes
    assert 0 < answer.fit.beta[0] < 8 and 0 < np.sqrt(answer.fit.cov[0, 0]) < 8
    refused = fit_model("binary", carried, z, y, starts, Models(firth=False))
    assert refused.fit is None and refused.notes == ("separated",)


def test_a_biomarker_that_is_the_outcome_gets_no_odds_ratio():
    x = np.random.default_rng(0).normal(size=200)
    answer = fit_model("binary", x, np.ones((200, 1)), (x > 0.3).astype(float), np.arange(0, 201, 2), Models())
    assert answer.fit is None and answer.notes == ("separated", "estimate_unbounded")


def test_no_estimate_is_a_code_never_an_exception():
    z = np.ones((40, 1))
    starts = np.arange(41)
    y = np.r_[np.zeros(20), np.ones(20)]
    assert fit_gee(np.ones(40), z, y, starts).code == SINGULAR
    assert fit_gee(np.zeros(40), z, y, starts).code == SINGULAR
    assert fit_gee(np.full(40, np.nan), z, y, starts).code == SINGULAR
    assert fit_gee(np.arange(40.0), z, y, starts).code in (DIVERGED, NOT_CONVERGED, SINGULAR)
    assert fit_gee(np.arange(2.0), z[:2], y[:2], np.arange(3)).code == SINGULAR


def test_cluster_starts():
    np.testing.assert_array_equal(cluster_starts(np.array([3, 3, 4, 7, 7, 7])), [0, 2, 3, 6])
    np.testing.assert_array_equal(cluster_starts(np.array([])), [0])


def test_a_correlation_at_its_bound_does_not_hide_the_effect():
    """A rare outcome of both eyes alike: near a correlation of 1 only the eyes' difference would count."""
    rng = np.random.default_rng(4)
    subject = np.repeat(np.arange(300), 2)
    trait = rng.normal(size=300)
    x = trait[subject] + 0.3 * rng.normal(size=600)
    y = (trait + 0.6 * rng.normal(size=300) > 1.6)[subject].astype(float)
    starts = np.arange(0, 601, 2)
    answer = fit_model("binary", x, np.ones((600, 1)), y, starts, Models(correlation="exchangeable"))
    assert {"correlation_bounded", "independence"} <= set(answer.notes)
    independent = fit_gee(x[:, None], np.ones((600, 1)), y, starts, "logit", "independence", Models().small_sample)
    assert answer.fit.beta[0] == pytest.approx(independent.beta[0], rel=1e-9) and answer.fit.beta[0] > 1


def test_ordinal_small_sample_correction_by_its_definition():
    """Fay & Graubard (2001): cluster scores over sqrt(1 - diag(I_c B)), the informations from numerical derivatives."""
    sizes = np.random.default_rng(5).integers(1, 4, 40)
    x, z, eta, cluster, rng = clustered(sizes, seed=6, n_covariates=1)
    y = np.searchsorted([-0.5, 0.8], eta + rng.logistic(size=len(eta)))
    starts = cluster_starts(cluster)
    fit = fit_ordinal(x, z[:, 1:], y, starts, tolerance=1e-12)
    design = np.column_stack([x, z[:, 1]])

    def loglik(theta, rows):
        bounds = np.r_[-np.inf, theta[2:], np.inf]
        f = 1 / (1 + np.exp(-(bounds[:, None] - design[rows] @ theta[:2])))
        return np.sum(np.log(f[y[rows] + 1, np.arange(rows.sum())] - f[y[rows], np.arange(rows.sum())]))

    def derivatives(rows, h=1e-4):
        unit = h * np.eye(4)
        value = lambda d: loglik(fit.beta + d, rows)  # noqa: E731
        score = np.array([(value(u) - value(-u)) / (2 * h) for u in unit])
        hessian = np.array([[(value(u + v) - value(u - v) - value(v - u) + value(-u - v)) / (4 * h * h) for u in unit] for v in unit])
        return score, -hessian

    meat = 0.0
    for c in np.unique(cluster):
        score, information = derivatives(cluster == c)
        leverage = np.clip(np.diag(information @ fit.naive), 0, 0.75)
        score = score / np.sqrt(1 - leverage)
        meat = meat + np.outer(score, score)
    np.testing.assert_allclose(np.diag(fit.cov), np.diag(fit.naive @ meat @ fit.naive), rtol=1e-4)
    assert np.all(np.diag(fit.cov) > np.diag(fit_ordinal(x, z[:, 1:], y, starts, small_sample="none").cov))


# ---- degrees of freedom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", ["independence", "exchangeable"])
def test_degrees_of_freedom_are_those_of_the_clusters_parts(correlation):
    """The parts add up to the sandwich, and the degrees of freedom are 2 V^2 / var(V) of their squares."""
    rng = np.random.default_rng(8)
    starts = np.arange(0, 161, 2)
    x, z = rng.normal(size=(160, 2)), np.column_stack([np.ones(160), rng.normal(size=160)])
    y = x[:, 0] + np.repeat(rng.normal(size=80), 2) + rng.normal(size=160)
    fit = fit_gee(x, z, y, starts, "linear", correlation, "none", tolerance=1e-12)
    full = np.column_stack([x, z])
    r = np.eye(2) * (1 - fit.alpha) + fit.alpha
    weighted = np.concatenate([np.linalg.solve(r, full[s : s + 2]) for s in starts[:-1]])
    parts = np.linalg.solve(weighted.T @ full, np.add.reduceat(weighted * (y - full @ fit.beta)[:, None], starts[:-1], axis=0).T)
    squares = parts[:2] ** 2
    np.testing.assert_allclose(squares.sum(axis=1), np.diag(fit.cov)[:2], rtol=1e-9)
    np.testing.assert_allclose(fit.steady, 2 * squares.sum(axis=1) ** 2 / (80 * squares.var(axis=1, ddof=1)), rtol=1e-9)


def test_few_cases_among_many_subjects_have_few_degrees_of_freedom():
    rng = np.random.default_rng(2)
    n = 1000
    y = (np.arange(n) < 20).astype(float)
    x, z, starts = rng.normal(size=n), np.ones((n, 1)), np.arange(n + 1)
    answer = fit_model("binary", x, z, y, starts, Models())
    assert answer.joint_df == n - 2 and 5 < answer.df < 60
    assert fit_model("binary", x, z, y, starts, Models(degrees_of_freedom="clusters")).df == n - 2
    assert np.isinf(fit_model("binary", x, z, y, starts, Models(small_sample="none")).df)


def test_steady_parts_do_not_pass_the_clusters():
    assert np.isinf(pan_wall(np.array([4.0]), np.array([4.0]), 4)[0])
    assert pan_wall(np.array([1.0]), np.array([1.0]), 4)[0] == pytest.approx(2.0)
