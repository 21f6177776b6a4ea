"""The association room against R (geepack, sandwich, brglm2, ordinal, survival, lme4, mice, metafor).

The references are computed once by ``tests/references/association.R``, ``association_odir.R`` and ``firth_profile.R``; no R is needed here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from retsam.association.config import Models
from retsam.association.firth import fit_firth
from retsam.association.fit import OK, cluster_starts
from retsam.association.gee import fit_gee
from retsam.association.impute import pool
from retsam.association.meta import combine, two_sided
from retsam.association.mixed import fit_mixed_linear, fit_mixed_logit
from retsam.association.models import fit_model
from retsam.association.multiplicity import adjust
from retsam.association.ordinal import fit_ordinal

FOLDER = Path(__file__).parent / "references"
RELATIVE = 1e-6
TERMS = ["x", "age", "sex"]


@pytest.fixture(scope="module")
def eyes():
    return pd.read_csv(FOLDER / "eyes.csv")


@pytest.fixture(scope="module")
def reference():
    table = pd.read_csv(FOLDER / "association_r.csv", skipinitialspace=True)
    table["term"] = table["term"].astype(str)
    return table.set_index(["model", "term"])


def expected(reference, model, terms, column="estimate"):
    return np.array([float(reference.loc[(model, str(t)), column]) for t in terms])


@pytest.fixture(scope="module")
def design(eyes):
    """Exposure, covariates with intercept, clusters."""
    z = np.column_stack([np.ones(len(eyes)), eyes["age"], eyes["sex"]]).astype(float)
    return eyes["x"].to_numpy(float), z, cluster_starts(eyes["subject"].to_numpy())


def check(fit, reference, model, order=(0, 2, 3), rtol=RELATIVE):
    assert fit.code == OK
    np.testing.assert_allclose(fit.beta[list(order)], expected(reference, model, TERMS), rtol=rtol)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.cov))[list(order)], expected(reference, model, TERMS, "se"), rtol=rtol)


@pytest.mark.parametrize("correlation", ["exchangeable", "independence"])
@pytest.mark.parametrize(
    ("family", "theirs", "column"), [("logit", "binomial", "y"), ("linear", "gaussian", "iop"), ("poisson", "poisson", "count")]
)
def test_gee_equals_geepack(eyes, reference, design, correlation, family, theirs, column):
    x, z, starts = design
    fit = fit_gee(x, z, eyes[column].to_numpy(float), starts, family, correlation, "none", ddof=False, tolerance=1e-12, max_iter=200)
    check(fit, reference, f"geepack {theirs} {correlation}")
    if correlation == "exchangeable":
        assert fit.alpha == pytest.approx(float(reference.loc[(f"geepack {theirs} exchangeable", "alpha"), "estimate"]), rel=1e-6)


def test_clustered_logit_equals_sandwich(eyes, reference, design):
    x, z, starts = design
    check(
        fit_gee(x, z, eyes["y"].to_numpy(float), starts, "logit", "independence", "none", tolerance=1e-11), reference, "sandwich binomial"
    )


def test_firth_equals_brglm2(eyes, reference):
    z = np.column_stack([np.ones(len(eyes)), eyes["age"]])
    fit = fit_firth(eyes["marker"].to_numpy(float), z, eyes["rare"].to_numpy(float), np.arange(len(eyes) + 1), robust=False)
    terms = ["marker", "(Intercept)", "age"]
    np.testing.assert_allclose(fit.beta, expected(reference, "brglm2", terms), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.naive)), expected(reference, "brglm2", terms, "se"), rtol=RELATIVE)


@pytest.mark.parametrize("model", ["rare ~ marker + age", "rare ~ x + age", "y ~ marker + sex"])
def test_profile_of_the_penalised_likelihood_equals_r(eyes, model):
    """Ends of 95 % intervals and the ratio of no effect, of every coefficient: separated by the marker, rare, and ordinary."""
    outcome, terms = model.split(" ~ ")
    columns = terms.split(" + ")
    z = np.column_stack([np.ones(len(eyes)), eyes[columns[1]]]).astype(float)
    fit = fit_firth(eyes[columns[0]].to_numpy(float), z, eyes[outcome].to_numpy(float), np.arange(len(eyes) + 1), robust=False)
    theirs = pd.read_csv(FOLDER / "firth_profile_r.csv", skipinitialspace=True).set_index(["model", "term", "what"])["value"]
    q = np.sqrt(chi2.ppf(0.95, 1))
    for j, term in enumerate([columns[0], "(Intercept)", columns[1]]):
        mine = {
            "profile estimate": fit.beta[j],
            "profile lower": fit.profile.bound(j, -q),
            "profile upper": fit.profile.bound(j, q),
            "profile ratio of no effect": fit.profile.root(j) ** 2,
        }
        for what, value in mine.items():
            assert value == pytest.approx(float(theirs[model, term, what]), rel=RELATIVE, abs=1e-7), (term, what)
        assert np.sign(fit.profile.root(j)) == np.sign(fit.beta[j])


def test_ordered_logit_equals_ordinal_and_sandwich(eyes, reference, design):
    x, z, starts = design
    fit = fit_ordinal(x, z[:, 1:], eyes["grade"].to_numpy(), starts, small_sample="none", tolerance=1e-12)
    terms = [*TERMS, "0|1", "1|2", "2|3"]
    np.testing.assert_allclose(fit.beta, expected(reference, "ordinal", terms), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.naive)), expected(reference, "ordinal", terms, "se"), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.cov))[:3], expected(reference, "ordinal clustered", TERMS, "se"), rtol=RELATIVE)


def test_cox_equals_survival(eyes, reference, design):
    x, z, starts = design
    answer = fit_model("time", x, z, eyes["time"].to_numpy(float), starts, Models(small_sample="none"), eyes["event"].to_numpy(float))
    assert answer.model == "cox"
    np.testing.assert_allclose(answer.fit.beta, expected(reference, "survival", TERMS), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(answer.fit.cov)), expected(reference, "survival", TERMS, "se"), rtol=RELATIVE)


def test_mixed_logit_equals_lme4(eyes, reference, design):
    """Same likelihood, but lme4 stops its optimiser at about 1e-4 and differences its Hessian: no closer agreement can be asked."""
    x, z, starts = design
    fit = fit_mixed_logit(np.column_stack([x, z]), eyes["y"].to_numpy(float), starts)
    check(fit, reference, "lme4 glmer", rtol=2e-3)
    assert fit.scale == pytest.approx(float(reference.loc[("lme4 glmer", "sd"), "estimate"]), rel=1e-3)


def test_mixed_linear_equals_lme4(eyes, reference, design):
    x, z, starts = design
    fit = fit_mixed_linear(np.column_stack([x, z]), eyes["iop"].to_numpy(float), starts)
    check(fit, reference, "lme4 lmer", rtol=1e-5)
    assert fit.scale == pytest.approx(float(reference.loc[("lme4 lmer", "residual"), "estimate"]), rel=1e-5)


def test_rubins_rules_equal_mice(reference):
    q, u = np.array([0.42, 0.51, 0.38, 0.47, 0.44]), np.array([0.012, 0.014, 0.011, 0.013, 0.012])
    pooled = pool(q, np.sqrt(u), df_complete=196)
    assert pooled.estimate == pytest.approx(float(reference.loc[("mice", "pooled"), "estimate"]), rel=1e-9)
    assert pooled.se == pytest.approx(float(reference.loc[("mice", "pooled"), "se"]), rel=1e-9)
    assert pooled.df == pytest.approx(float(reference.loc[("mice", "df"), "estimate"]), rel=1e-9)
    assert pooled.missing_information == pytest.approx(float(reference.loc[("mice", "fmi"), "estimate"]), rel=1e-9)


def test_meta_analysis_equals_metafor(reference):
    c = combine(np.array([0.30, 0.55, 0.12, 0.41]), np.sqrt([0.02, 0.03, 0.015, 0.04]))
    for ours, key in ((c.fixed, ("metafor FE", "estimate")), (c.random, ("metafor DL", "estimate")), (c.tau2, ("metafor DL", "tau2"))):
        assert ours == pytest.approx(float(reference.loc[key, "estimate"]), rel=1e-9)
    assert c.se_fixed == pytest.approx(float(reference.loc[("metafor FE", "estimate"), "se"]), rel=1e-9)
    assert c.se_random == pytest.approx(float(reference.loc[("metafor DL", "estimate"), "se"]), rel=1e-9)
    for ours, term in ((c.i2, "i2"), (c.q, "q"), (c.p_heterogeneity, "p")):
        assert ours == pytest.approx(float(reference.loc[("metafor DL", term), "estimate"]), rel=1e-9)
    assert two_sided(1.959963984540054) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [("bonferroni", "bonferroni"), ("holm", "holm"), ("bh", "BH"), ("by", "BY")])
def test_corrections_equal_p_adjust(reference, ours, theirs):
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.9])
    order = np.random.default_rng(0).permutation(len(p))
    mixed = np.insert(p[order], 4, np.nan)  # a test that could not be made is not counted
    answer = np.delete(adjust(mixed, ours), 4)
    np.testing.assert_allclose(answer, expected(reference, f"p.adjust {theirs}", range(1, 11))[order], rtol=1e-9)


def test_cox_with_late_entry_equals_lifelines(eyes, design):
    """Untied times, where lifelines' residuals are those of Efron too."""
    from lifelines import CoxPHFitter

    x, z, starts = design
    rng = np.random.default_rng(5)
    time = eyes["time"].to_numpy(float) + rng.uniform(0, 0.009, len(eyes))
    entry = rng.uniform(0, 0.8, len(eyes)) * time * (rng.random(len(eyes)) < 0.5)
    answer = fit_model("time", x, z, time, starts, Models(), eyes["event"].to_numpy(float), entry)
    data = pd.DataFrame(
        {"x": x, "age": z[:, 1], "sex": z[:, 2], "time": time, "event": eyes["event"], "entry": entry, "subject": eyes["subject"]}
    )
    theirs = CoxPHFitter().fit(
        data, "time", "event", entry_col="entry", cluster_col="subject", robust=True, fit_options={"precision": 1e-15, "r_precision": 1e-17}
    )
    np.testing.assert_allclose(answer.fit.beta, theirs.params_[TERMS], rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(answer.fit.naive)), np.sqrt(np.diag(theirs.variance_matrix_)), rtol=1e-5)


# ---- the ODIR-derived table --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odir():
    """The table from the data folder; its sums are compared with those of the table that R read."""
    from references.odir_table import odir_table

    data = Path(os.environ.get("RETSAM_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (data / "manifest.csv").is_file():
        pytest.skip(f"no manifest.csv in {data}: set RETSAM_DATA")
    table = odir_table(data)
    reference = pd.read_csv(FOLDER / "association_odir_r.csv", skipinitialspace=True).set_index(["model", "term"])
    for column in table:
        row = reference.loc[("table", column)]
        if row["se"] != table[column].notna().sum() or not np.isclose(row["estimate"], table[column].sum(), rtol=1e-12):
            pytest.skip(f"the ODIR part of {data} is not the one that R read (column {column})")
    return table, reference


def odir_fit_parts(odir, outcome, terms):
    table, reference = odir
    used = table.dropna(subset=[outcome, *terms])
    z = np.column_stack([np.ones(len(used)), used[terms[1:]]]).astype(float)
    return used[terms[0]].to_numpy(float), z, used[outcome].to_numpy(float), cluster_starts(used["subject"].to_numpy()), reference


@pytest.mark.parametrize("correlation", ["exchangeable", "independence"])
@pytest.mark.parametrize(
    ("family", "theirs", "outcome"),
    [("logit", "binomial", "diabetic"), ("linear", "gaussian", "grade"), ("poisson", "poisson", "findings")],
)
def test_gee_on_odir_equals_geepack(odir, correlation, family, theirs, outcome):
    x, z, y, starts, reference = odir_fit_parts(odir, outcome, ["age", "sex", "right"])
    fit = fit_gee(x, z, y, starts, family, correlation, "none", ddof=False, tolerance=1e-12, max_iter=200)
    assert fit.code == OK
    model = f"geepack {theirs} {correlation}"
    terms = ["age", "(Intercept)", "sex", "right"]
    np.testing.assert_allclose(fit.beta, expected(reference, model, terms), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.cov)), expected(reference, model, terms, "se"), rtol=RELATIVE)
    if correlation == "exchangeable":
        assert fit.alpha == pytest.approx(float(reference.loc[(model, "alpha"), "estimate"]), rel=RELATIVE)


def test_ordered_logit_on_odir_equals_ordinal_and_sandwich(odir):
    x, z, y, starts, reference = odir_fit_parts(odir, "grade", ["age", "sex", "right"])
    fit = fit_ordinal(x, z[:, 1:], y.astype(int), starts, small_sample="none", tolerance=1e-12)
    terms = ["age", "sex", "right"]
    np.testing.assert_allclose(fit.beta[:3], expected(reference, "ordinal clustered", terms), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.cov))[:3], expected(reference, "ordinal clustered", terms, "se"), rtol=RELATIVE)


@pytest.mark.parametrize("outcome", ["glaucoma", "myopia"])
def test_firth_on_odir_equals_brglm2(odir, outcome):
    x, z, y, starts, reference = odir_fit_parts(odir, outcome, ["age", "sex", "right"])
    fit = fit_firth(x, z, y, starts, robust=False)
    terms = ["age", "(Intercept)", "sex", "right"]
    np.testing.assert_allclose(fit.beta, expected(reference, f"brglm2 {outcome}", terms), rtol=RELATIVE)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.naive)), expected(reference, f"brglm2 {outcome}", terms, "se"), rtol=RELATIVE)
