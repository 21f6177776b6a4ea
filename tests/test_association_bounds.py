"""No wild numbers: near separation, biomarkers whose SD is no unit, correlations that mislead; and the scale of a biomarker by its kind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from association_cohort import simulated_tables
from scipy.stats import norm

from retsam.association import AssociationConfig, associate
from retsam.association.analysis import Known, analyse
from retsam.association.config import Exposures, Models
from retsam.association.fellow import disagreement
from retsam.association.firth import fit_firth, separated
from retsam.association.fit import OK
from retsam.association.gee import fit_gee
from retsam.association.grid import COLLINEAR
from retsam.association.impute import chained_equations
from retsam.association.models import UNBOUNDED, Answer, effect_size, fit_model
from retsam.association.scale import choose_transform, log_unit, transformed
from retsam.biomarkers.registry import registry


def eyes(subjects=120, seed=0):
    """Rows, starts of clusters, a generator, an intercept."""
    return 2 * subjects, np.arange(0, 2 * subjects + 1, 2), np.random.default_rng(seed), np.ones((2 * subjects, 1))


# ---- near separation ---------------------------------------------------------------------------------------------------


def test_one_row_against_separation_gives_the_penalised_estimate_or_a_reason():
    n, starts, rng, z = eyes()
    y = (np.arange(n) % 4 == 0).astype(float)
    x = np.where(y == 1, rng.uniform(1, 2, n), rng.uniform(-2, 0.9, n))
    x[0], x[1] = 0.85, 1.05  # a case and a control on the wrong side
    assert not separated(np.column_stack([x, z]), y)
    plain = fit_gee(x, z, y, starts, "logit", "independence")
    assert plain.code != OK or effect_size(x[:, None], plain.beta) > UNBOUNDED
    answer = fit_model("binary", x, z, y, starts, Models())
    assert answer.notes[0] == "nearly_separated"
    if answer.fit is None:
        assert answer.notes[-1] == "estimate_unbounded"
    else:
        assert answer.model == "firth_logit" and effect_size(x[:, None], answer.fit.beta) <= UNBOUNDED
    assert fit_model("binary", x, z, y, starts, Models(firth=False)).fit is None


def carriers(n, y):
    """A marker that only cases carry."""
    x = np.zeros(n)
    x[np.flatnonzero(y == 1)[:9]] = 1.0
    return x


def test_the_interval_of_a_penalised_model_is_that_of_its_profile():
    n, starts, rng, z = eyes()
    y = np.repeat((rng.random(n // 2) < 0.2).astype(float), 2)  # both eyes alike: half the information that the rows seem to hold
    x = carriers(n, y)
    alone = fit_model("binary", x, z, y, np.arange(n + 1), Models(small_sample="none"))
    values, notes = alone.interval(0.95)
    assert alone.model == "firth_logit" and notes == ()
    profile, q = alone.fit.profile, 1.959963984540054
    assert (values["ci_low"], values["ci_high"]) == pytest.approx((profile.bound(0, -q), profile.bound(0, q)), rel=1e-6)
    # skewed: the far end lies further off than the near one, and no effect is further from the truth than the standard error has it
    assert values["ci_high"] - values["estimate"] > 1.2 * (values["estimate"] - values["ci_low"])
    assert values["p"] < 2 * norm.sf(values["estimate"] / values["se"])


def test_a_profile_is_wider_where_the_eyes_of_a_subject_are_alike():
    n, starts, rng, z = eyes()
    x, y = np.repeat(rng.normal(size=n // 2), 2), np.repeat((rng.random(n // 2) < 0.2).astype(float), 2)
    fit = fit_firth(x, z, y, starts)
    wider = np.sqrt(fit.cov[0, 0] / fit.naive[0, 0])
    assert 1.3 < wider < 1.5  # two eyes that say the same are one: the square root of two
    values, _ = Answer("firth_logit", fit).interval(0.95)
    q = 1.959963984540054
    assert values["ci_low"] == pytest.approx(fit.profile.bound(0, -q * wider), rel=1e-6)
    assert values["ci_high"] == pytest.approx(fit.profile.bound(0, q * wider), rel=1e-6)
    assert values["p"] == pytest.approx(2 * norm.sf(abs(fit.profile.root(0)) / wider), rel=1e-6)


def test_a_profile_without_an_end_is_told(monkeypatch):
    n, starts, rng, z = eyes()
    y = (rng.random(n) < 0.2).astype(float)
    answer = fit_model("binary", carriers(n, y), z, y, starts, Models())
    monkeypatch.setattr(type(answer.fit.profile), "bound", lambda self, j, target: np.nan)
    values, notes = answer.interval(0.95)
    assert notes == ("wald_interval",)
    assert values["ci_high"] - values["estimate"] == pytest.approx(values["estimate"] - values["ci_low"])


@pytest.mark.parametrize("kind", ["count", "time", "ordered"])
def test_ratios_of_other_outcomes_have_the_same_bound(kind):
    n, starts, rng, z = eyes(150, seed=1)
    x = rng.normal(size=n)
    event = None
    if kind == "count":
        y = rng.poisson(np.exp(np.minimum(9 * x - 6, 14.0))).astype(float)
        x = np.minimum(x, 20 / 9)
    elif kind == "time":
        y, event = np.exp(-9 * x) * rng.exponential(size=n) + 1e-9, np.ones(n)
    else:
        y = np.searchsorted([-8.0, 0.0, 8.0], 12 * x + rng.logistic(size=n)).astype(float)
    answer = fit_model(kind, x, z, y, starts, Models(), event)
    assert answer.fit is None and answer.notes[-1] in ("estimate_unbounded", "not_converged", "ill_conditioned")
    weak = fit_model(kind, rng.normal(size=n), z, y, starts, Models(), event)
    assert weak.fit is not None


def test_a_slope_has_no_bound():
    n, starts, rng, z = eyes()
    x = rng.normal(size=n)
    answer = fit_model("continuous", x, z, 300 * x + rng.normal(size=n), starts, Models())
    assert answer.fit.beta[0] == pytest.approx(300, abs=1)


def test_firth_does_not_cycle_where_one_row_fills_a_cell():
    """Newton's step with the information in place of the curvature overshoots by the whole step there."""
    n, starts, rng, z = eyes(60)
    alone = np.zeros(n)
    alone[3] = 1.0
    x = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - x))).astype(float)
    y[3] = 0.0
    fit = fit_firth(np.column_stack([x, alone]), z, y, np.arange(n + 1), robust=False)
    assert fit.code == OK and fit.n_iter < 60
    # saturated in that row: half a case and half a control are added, so that its fitted odds are 1/3
    assert 1 / (1 + np.exp(-(fit.beta @ np.r_[x[3], 1.0, 1.0]))) == pytest.approx(0.25, abs=0.01)


def test_covariates_that_separate_are_said_to(tmp_path):
    cohort, quality, biomarkers = simulated_tables(200, 4, seed=2)
    cohort = cohort.assign(site=cohort["site"].where(cohort["dr"].fillna(0) == 1, "A"))
    plan = AssociationConfig(outcomes=["dr"], covariate_sets={"site": ["site"]})
    row = associate(plan, cohort, quality, biomarkers).set_index("biomarker").loc["b0"]
    assert row["model"] == "firth_logit" and row["note"].startswith("separated_by_covariates") and abs(row["estimate"]) < 3


def test_a_near_twin_of_a_covariate_is_no_exposure():
    cohort, quality, biomarkers = simulated_tables(200, 4, seed=2)
    rng = np.random.default_rng(0)
    twin = cohort["age"].fillna(60) + 0.1 * rng.normal(size=len(cohort))  # an SD of 10: 99.99 % of it is age
    table = associate(
        AssociationConfig(outcomes=["dr"], covariate_sets={"age": ["age"]}),
        cohort,
        quality,
        biomarkers.assign(twin=twin, twin__reason=None),
    ).set_index("biomarker")
    assert table.loc["twin", "r2_covariates"] > COLLINEAR and table.loc["twin", "note"] == "collinear_with_covariates"


def test_one_value_that_holds_the_variance_is_named():
    cohort, quality, biomarkers = simulated_tables(200, 4, seed=2)
    outlier = biomarkers["b1"].mask(np.arange(len(biomarkers)) == 30, 1e4)
    table = associate(
        AssociationConfig(outcomes=["dr"]), cohort, quality, biomarkers.assign(outlier=outlier, outlier__reason=None)
    ).set_index("biomarker")
    assert "one_value_dominates" in table.loc["outlier", "note"] and pd.isna(table.loc["b1", "note"])


# ---- the fellow eye ----------------------------------------------------------------------------------------------------


def both_eyes_ill(alike, seed=3, subjects=600, effect=1.0):
    """A disease of the subject (``alike`` of the second eyes are as the first), and a biomarker that reads it in each eye."""
    n, starts, rng, z = eyes(subjects, seed)
    first = (rng.random(subjects) < 0.3).astype(float)
    second = np.where(rng.random(subjects) < alike, first, rng.random(subjects) < 0.3)
    y = np.column_stack([first, second]).ravel()
    shared = np.repeat(rng.normal(size=subjects), 2)
    return effect * y + np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.normal(size=n), z, y, starts


def test_a_disease_of_both_eyes_is_estimated_as_it_is():
    """The log odds ratio is 1 by construction; the exchangeable estimate is another quantity (Pepe & Anderson 1994), and gives way."""
    x, z, y, starts = both_eyes_ill(0.8)
    answer = fit_model("binary", x, z, y, starts, Models())
    assert answer.notes == () and abs(answer.fit.beta[0] - 1) < 2 * np.sqrt(answer.fit.cov[0, 0])
    exchangeable = fit_model("binary", x, z, y, starts, Models(correlation="exchangeable"))
    assert exchangeable.notes == ("correlation_matters",) and exchangeable.fit.beta[0] == answer.fit.beta[0]
    assert fit_gee(x, z, y, starts, "logit", "exchangeable").beta[0] < 0.85


@pytest.mark.parametrize("seed", range(8))
def test_eyes_that_are_always_alike_do_not_hide_the_effect(seed):
    """The working correlation is at its bound or just below it, where only the eyes' difference would count."""
    x, z, y, starts = both_eyes_ill(1.0, seed=seed, subjects=200, effect=0.8)
    answer = fit_model("binary", x, z, y, starts, Models(correlation="exchangeable"))
    assert answer.notes == ("correlation_bounded", "independence")
    assert answer.fit.beta[0] == fit_model("binary", x, z, y, starts, Models()).fit.beta[0]


def test_disagreement_is_one_step_to_the_independence_estimate():
    """Exactly so in a linear model, with the uncorrected cluster-robust error; for several exposures the largest counts."""
    x, z, y, starts = both_eyes_ill(0.7)
    rng = np.random.default_rng(0)
    y = y + 0.5 * rng.normal(size=len(y))
    columns = np.column_stack([rng.normal(size=len(y)), x])
    fits = [fit_gee(columns, z, y, starts, "linear", c, "none") for c in ("exchangeable", "independence")]
    expected = (fits[1].beta - fits[0].beta)[:2] / np.sqrt(np.diag(fits[1].cov))[:2]
    # the clusters' parts are taken at the exchangeable estimate, so that the error differs a little
    found = disagreement(columns, z, y, starts, "linear", fits[0])
    assert found.score == pytest.approx(expected[np.argmax(np.abs(expected))], rel=0.05)
    ratio = np.sqrt(np.diag(fits[1].cov) / np.diag(fits[0].cov))[:2]
    np.testing.assert_allclose(found.wider, np.maximum(ratio, 1.0), rtol=0.05)
    assert found.wider.max() > 1.05


def test_an_exchangeable_interval_is_no_narrower_than_that_of_independence():
    """Whether the exchangeable estimate stays was decided by the same data; the narrower error does not pay for that."""
    stayed = 0
    for seed in range(6):
        n, starts, rng, z = eyes(300, seed)
        x = rng.normal(size=n) + 0.5 * np.repeat(rng.normal(size=300), 2)
        y = 0.3 * x + 2 * np.repeat(rng.normal(size=300), 2) + rng.normal(size=n)
        mine = fit_model("continuous", x, z, y, starts, Models(correlation="exchangeable"))
        alone = fit_model("continuous", x, z, y, starts, Models())
        plain = fit_gee(x, z, y, starts, "linear", "exchangeable")
        if mine.notes == ():
            stayed += 1
            assert mine.fit.beta[0] == pytest.approx(plain.beta[0], rel=1e-6) != alone.fit.beta[0]
            assert np.sqrt(mine.fit.cov[0, 0]) == pytest.approx(np.sqrt(alone.fit.cov[0, 0]), rel=0.03)
            assert mine.fit.cov[0, 0] > 1.5 * plain.cov[0, 0]
    assert stayed


def test_the_reader_is_mostly_told_nothing_where_the_fellow_eye_adds_nothing():
    """A frailty that is not of the biomarker: both estimates are valid."""
    told = 0
    for seed in range(30):
        n, starts, rng, z = eyes(400, seed)
        x = rng.normal(size=n) + np.repeat(rng.normal(size=400), 2)
        eta = -1 + 0.4 * x + 1.5 * np.repeat(rng.normal(size=400), 2)
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        told += "correlation_matters" in fit_model("binary", x, z, y, starts, Models(correlation="exchangeable")).notes
    assert told <= 12


def test_disagreement_does_not_depend_on_the_unit():
    x, z, y, starts = both_eyes_ill(0.8)
    scores = [disagreement(v[:, None], z, y, starts, "logit", fit_gee(v, z, y, starts, tolerance=1e-12)).score for v in (x, 1e6 * x)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


# ---- scale by kind -----------------------------------------------------------------------------------------------------


def kind_of(name, **settings):
    entry = registry()[name]
    return choose_transform(name, entry.family, entry.unit, Exposures(**settings))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hemorrhage_count", "log1p"),
        ("hemorrhage_area_dd2", "log_relative"),
        ("hemorrhage_area_px2", "log_relative"),
        ("hemorrhage_coverage", "log_relative"),
        ("hemorrhage_coverage_etdrs_inner_superior", "log_relative"),
        ("patchy_atrophy_area_mm2", "log_relative"),
        ("tortuosity_curvature_vein", "log_relative"),
        ("hemorrhage_circularity", "none"),
        ("cdr_vertical", "none"),
        ("disc_area_mm2", "none"),
        ("crae_um", "none"),
        ("hemorrhage_fovea_distance_dd", "none"),
    ],
)
def test_the_scale_follows_the_dictionary(name, expected):
    assert kind_of(name) == expected
    assert kind_of(name, transform_by_kind=False) == "none"
    assert kind_of(name, transforms={"*": "rank_inverse_normal"}) == "rank_inverse_normal"
    assert kind_of(name, transform="rank_inverse_normal") == "rank_inverse_normal"


def test_log_relative_is_the_same_in_any_unit():
    rng = np.random.default_rng(0)
    x = np.where(rng.random(200) < 0.4, 0.0, np.exp(rng.normal(size=200)))
    scales = [transformed(v, "log_relative", 0.0, log_unit(v, "log_relative"))[0] for v in (x, 1e6 * x)]
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-12)
    assert log_unit(np.r_[x, np.nan], "log_relative") == pytest.approx(np.median(x[x > 0]))
    assert log_unit(np.zeros(5), "log_relative") == 1.0 and np.isnan(log_unit(x, "none"))
    assert transformed(np.array([-2.0, 1.0]), "log_relative", 0.0, 1.5) == (None, "log_of_negative")


def test_a_lesion_area_over_orders_of_magnitude_is_found():
    """The raw area's SD is set by a few eyes; its logarithm tells of all. The scale stands in table, plan and methods."""
    cohort, quality, biomarkers = simulated_tables(300, 4, seed=4)
    rng = np.random.default_rng(1)
    dr = cohort["dr"].fillna(0).to_numpy()
    area = np.where(rng.random(len(dr)) < 0.3 + 0.5 * dr, np.exp(rng.normal(-6 + 1.0 * dr, 2.0)), 0.0)
    dictionary = {"area": Known("lesions", "DD2", ("hemorrhage",))}
    tables = cohort, quality, biomarkers.assign(area=area, area__reason=None)
    plan = {"outcomes": ["dr"], "exposures": {"columns": ["area"], "families": []}}
    by_kind = analyse(AssociationConfig(**plan), *tables, dictionary=dictionary, further=False)
    raw = analyse(
        AssociationConfig(**{**plan, "exposures": {**plan["exposures"], "transform_by_kind": False}}),
        *tables,
        dictionary=dictionary,
        further=False,
    )
    row = by_kind.associations.iloc[0]
    assert row["transform"] == "log_relative+standardise" and row["log_unit"] == pytest.approx(
        by_kind.plan["transforms"]["area"]["log_unit"]
    )
    assert row["neg_log10_p"] > raw.associations["neg_log10_p"].iloc[0] + 3
    assert raw.associations["transform"].iloc[0] == "standardise" and np.isnan(raw.associations["log_unit"].iloc[0])
    assert "median of the values above zero" in by_kind.methods and json.dumps(by_kind.plan["transforms"])


# ---- words -------------------------------------------------------------------------------------------------------------


def test_every_code_is_explained():
    root = Path(__file__).parents[1]
    text = (root / "docs" / "association-tables.md").read_text(encoding="utf-8")
    source = "\n".join(p.read_text(encoding="utf-8") for p in (root / "retsam" / "association").glob("*.py"))
    for code in ("separated_by_covariates", "nearly_separated", "estimate_unbounded", "one_value_dominates", "correlation_matters"):
        assert f'"{code}"' in source and re.search(rf"\| .*`{code}`", text)


def test_the_schema_takes_the_short_forms():
    import jsonschema

    schema = json.loads((Path(__file__).parents[1] / "workflow" / "schemas" / "config.schema.json").read_text())
    part = {"$defs": schema["$defs"], "$ref": "#/$defs/AssociationConfig"}
    for plan in ({"outcomes": ["dr"], "subgroups": ["sex"]}, {"outcomes": [{"name": "dr"}, "amd"], "subgroups": {"age": [60]}}):
        jsonschema.validate(plan, part)
        AssociationConfig(**plan)
    for bad in ({"outcomes": [3]}, {"outcomes": [{"nam": "dr"}]}, {"subgroups": "sex"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, part)


# ---- imputation of clustered rows ----------------------------------------------------------------------------------------


def test_imputation_keeps_what_two_eyes_share():
    n, starts, rng, _ = eyes(400, seed=8)
    subject = np.repeat(np.arange(400), 2)
    age = rng.normal(60, 9, 400)[subject]
    x = 0.9 * rng.normal(size=400)[subject] + np.sqrt(0.19) * rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - 0.5 * x))).astype(float)
    gone = rng.random(n) < 0.3
    words = np.where(np.arange(400) % 3 == 0, "a", "b")[subject].astype(object)
    data = pd.DataFrame({"age": age, "word": words, "x": x, "__y": y})
    data.loc[gone, "x"] = np.nan
    lost = np.isin(subject, np.arange(30, 60))  # both eyes lack age and word
    data.loc[lost | (np.arange(n) == 3), "age"] = np.nan
    data.loc[lost, "word"] = None
    complete = chained_equations(data, 3, np.random.default_rng(0), cycles=4, cluster=subject)
    alone = chained_equations(data, 3, np.random.default_rng(0), cycles=4)
    first, second = np.arange(0, n, 2), np.arange(1, n, 2)
    one_gone = gone[first] != gone[second]

    def shared(tables):
        return np.mean([np.corrcoef(t["x"].to_numpy()[first][one_gone], t["x"].to_numpy()[second][one_gone])[0, 1] for t in tables])

    assert shared(complete) > 0.65 and shared(alone) < 0.3  # 0.81 in truth
    for table in complete:
        assert not table.isna().any().any()
        assert (table.groupby(subject)[["age", "word"]].nunique() == 1).all().all()
        assert table["age"].iloc[3] == age[3]  # known from the fellow eye
        assert set(table["x"][gone]) <= set(x[~gone])
    assert complete[0]["age"][lost].nunique() > 5
