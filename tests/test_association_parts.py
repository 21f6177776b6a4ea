"""The parts around the models against R (psych, Hmisc, pROC), statsmodels and their definitions: agreement, splines, AUC, joint tests.

The references are computed once by ``tests/references/association_parts.R``; no R is needed here.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import chi2

from retsam.association.describe import icc_oneway
from retsam.association.design import independent_columns
from retsam.association.discrimination import auc_interval, clustered_auc, folds_by_cluster
from retsam.association.fit import cluster_starts
from retsam.association.gee import fit_gee
from retsam.association.measurement_error import calibrated
from retsam.association.models import wald
from retsam.association.multiplicity import effective_tests, spearman_matrix
from retsam.association.shape import KNOTS, restricted_cubic_spline

FOLDER = Path(__file__).parent / "references"


@pytest.fixture(scope="module")
def eyes():
    return pd.read_csv(FOLDER / "eyes.csv")


@pytest.fixture(scope="module")
def theirs():
    table = pd.read_csv(FOLDER / "association_parts_r.csv", skipinitialspace=True)
    return table.assign(term=table["term"].astype(str)).set_index(["part", "term"])["value"]


def test_agreement_of_the_eyes_equals_psych(eyes, theirs):
    both = eyes.groupby("subject")["iop"].agg(list)
    both = both[both.map(len) >= 2]
    found = icc_oneway(np.array([v[0] for v in both]), np.array([v[1] for v in both]))
    assert found == pytest.approx([theirs["icc", t] for t in ("estimate", "low", "high")], rel=1e-6)


def test_restricted_cubic_spline_equals_hmisc(eyes, theirs):
    x = eyes["x"].to_numpy()
    basis = restricted_cubic_spline(x, np.quantile(x, KNOTS[4]))
    for row in (1, 50, 120, 200, 267):
        assert basis[row - 1] == pytest.approx([theirs[f"spline row {row}", str(j)] for j in (1, 2, 3)], rel=1e-6, abs=1e-12)


def test_auc_of_one_eye_a_subject_equals_delong(eyes, theirs):
    first = eyes.drop_duplicates("subject")
    auc, cov = clustered_auc(first[["x", "age"]].to_numpy(), first["y"].to_numpy(), first["subject"].to_numpy())
    assert auc == pytest.approx([theirs["delong", "auc x"], theirs["delong", "auc age"]], rel=1e-9)
    # what Obuchowski adds to DeLong is of clusters that have both a case and a control: there are none here
    assert [cov[0, 0], cov[1, 1], cov[0, 1]] == pytest.approx([theirs["delong", t] for t in ("var x", "var age", "cov")], rel=1e-6)


def test_an_eye_counted_twice_tells_nothing_new(eyes):
    """Every row doubled within its cluster: same area, same variance; as rows of their own they would halve it."""
    first = eyes.drop_duplicates("subject")
    x, y, subject = (first[c].to_numpy() for c in ("x", "y", "subject"))
    auc, cov = clustered_auc(x, y, subject)
    twice, same = clustered_auc(np.repeat(x, 2), np.repeat(y, 2), np.repeat(subject, 2))
    _, half = clustered_auc(np.repeat(x, 2), np.repeat(y, 2), np.arange(2 * len(x)))
    assert twice == pytest.approx(auc) and same[0, 0] == pytest.approx(cov[0, 0], rel=1e-9)
    assert half[0, 0] == pytest.approx(cov[0, 0] / 2, rel=0.02)
    low, high = auc_interval(auc[0], cov[0, 0], 0.95)
    assert low < auc[0] < high < 1 and all(math.isnan(v) for v in auc_interval(1.0, 0.1, 0.95))


def test_folds_keep_subjects_whole_and_deal_out_the_cases():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 2)
    y = np.repeat((np.arange(100) < 15).astype(float), 2)
    fold = folds_by_cluster(cluster, y, 5, rng)
    assert all(len(set(fold[cluster == c])) == 1 for c in range(100))
    assert [int(y[fold == f].sum()) for f in range(5)] == [6] * 5 and np.ptp(np.bincount(fold)) <= 2


def test_ranks_and_effective_tests_equal_r(eyes, theirs):
    rho, n = spearman_matrix([eyes[c].to_numpy(float) for c in ("x", "age", "iop", "count")])
    for i in range(3):
        for j in range(i + 1, 4):
            assert rho[i, j] == pytest.approx(theirs["spearman", f"{i + 1} {j + 1}"], rel=1e-9)
    assert (n == len(eyes)).all()
    assert effective_tests(rho) == pytest.approx(theirs["li-ji", "m_eff"], abs=1e-6)
    assert effective_tests(np.ones((4, 4))) == 1 and effective_tests(np.eye(4)) == 4
    blocks = np.kron(np.eye(3), np.full((2, 2), 0.5)) + 0.5 * np.eye(6)  # eigenvalues 1.5 and 0.5, three of each: 1.5 + 0.5 of a test
    assert effective_tests(blocks) == pytest.approx(6)


def test_joint_tests_equal_statsmodels(eyes):
    """Two products with sex and age, as an interaction test has them."""
    x, sex, age = (eyes[c].to_numpy(float) for c in ("x", "sex", "age"))
    exposures = np.column_stack([x, x * sex, x * age])
    z = np.column_stack([np.ones(len(eyes)), age, sex])
    y, subject = eyes["y"].to_numpy(float), eyes["subject"].to_numpy()
    mine = fit_gee(exposures, z, y, cluster_starts(subject), "logit", "independence", "none", tolerance=1e-12)
    fit = sm.GEE(y, np.column_stack([exposures, z]), subject, family=sm.families.Binomial(), cov_struct=sm.cov_struct.Independence())
    joint = fit.fit(ctol=1e-12, maxiter=200).wald_test(np.eye(6)[1:3], scalar=True)
    statistic, rank, p = wald(mine.beta[1:3], mine.cov[1:3, 1:3], math.inf)
    assert rank == 2 and statistic == pytest.approx(float(joint.statistic), rel=1e-6) and p == pytest.approx(float(joint.pvalue), rel=1e-6)
    # few clusters widen it, and a coefficient that says nothing new costs a degree of freedom instead of a wild statistic
    assert wald(mine.beta[1:3], mine.cov[1:3, 1:3], 20.0)[2] > p
    twin = np.array([[1.0, 1.0], [1.0, 1.0]])
    statistic, rank, p = wald(np.array([2.0, 2.0]), twin, math.inf)
    assert rank == 1 and statistic == pytest.approx(4) and p == pytest.approx(chi2.sf(4, 1))


def test_calibrated_values_are_the_conditional_mean_of_the_truth():
    """``E[X | readings of all eyes of the subject, covariates]`` by matrices, one subject at a time."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 4, 120)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    cluster = np.repeat(np.arange(120), sizes)
    age = rng.normal(size=120)[cluster]
    truth = 0.4 * age + 0.7 * rng.normal(size=120)[cluster] + 0.6 * rng.normal(size=len(cluster))
    x = truth + 0.6 * rng.normal(size=len(cluster))
    x = (x - x.mean()) / x.std()
    z = np.column_stack([np.ones(len(x)), age])
    found = calibrated(x, z, starts, 0.75)
    fitted = z @ np.linalg.lstsq(z, x, rcond=None)[0]
    e, error = x - fitted, 0.25
    v = np.mean(e**2)
    pairs = [(i, j) for c in range(120) for i in range(starts[c], starts[c + 1]) for j in range(starts[c], starts[c + 1]) if i != j]
    shared = np.mean([e[i] * e[j] for i, j in pairs])
    for c in range(120):
        rows = slice(starts[c], starts[c + 1])
        m = sizes[c]
        observed = (v - shared) * np.eye(m) + shared
        expected = fitted[rows] + (observed - error * np.eye(m)) @ np.linalg.solve(observed, e[rows])
        assert found[rows] == pytest.approx(expected, rel=1e-9)
    assert calibrated(x, z, starts, 0.05) is None  # more error than the covariates leave


def test_columns_that_others_determine_go_and_five_hundred_take_no_time():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(900, 500)) * 10.0 ** rng.integers(-4, 4, 500)
    x[:, 7] = x[:, 3] - 2 * x[:, 5]
    x[:, 11] = 0.0
    x[:, 20] = x[:, 3] + 1e-3 * np.abs(x[:, 3]).max() * rng.normal(size=900)
    x[:, 30] = x[:, 20] + 1e3 * x[:, 3]
    start = time.process_time()
    assert set(range(500)) - set(independent_columns(x)) == {7, 11, 30}
    assert time.process_time() - start < 3
    assert independent_columns(x[:4, :9]).tolist() == [0, 1, 2, 3]  # no more than rows
    assert independent_columns(np.empty((0, 3))).tolist() == []
