"""The association room on cohorts as they come: thin data, repeated photographs, levels of analysis, and plans that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from association_cohort import plan, run, simulated_tables
from pydantic import ValidationError

from retsam.association import associate
from retsam.association.analysis import analyse
from retsam.association.config import AssociationConfig
from retsam.association.sample import PlanError


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(300, 5, seed=1)


# ---- robust to what real cohorts do ----------------------------------------------------------------------------------


def test_constant_missing_and_collinear_biomarkers_give_reasons(tables):
    cohort, quality, biomarkers = tables
    n = len(biomarkers)
    rng = np.random.default_rng(0)
    mostly = biomarkers["b0"].where(rng.random(n) < 0.1)
    rare = np.where(np.isin(np.arange(n), (40, 60)), 1.0, 0.0)
    b0 = biomarkers["b0"]
    extra = {"constant": 7.0, "absent": np.nan, "mostly": mostly, "rare": rare, "twin": cohort["age"] * 3 + 1}
    extra |= {"huge": b0 * 1e6, "tiny": b0 * 1e-6, "shifted": b0 + 1e6}
    changes = {**extra, **{f"{k}__reason": None for k in extra}}
    table = run(tables, changes).set_index(["biomarker", "covariate_set"])
    assert table.loc[("constant", "crude"), "note"] == "constant_biomarker"
    assert table.loc[("absent", "crude"), "note"] == "biomarker_missing"
    assert table.loc[("rare", "crude"), "note"] == "rare_biomarker"
    assert table.loc[("twin", "age_sex"), "note"] == "collinear_with_covariates"
    assert table.loc[("twin", "crude"), "converged"]
    assert table.loc[("mostly", "age_sex"), "converged"] or table.loc[("mostly", "age_sex"), "note"]
    for name in ("huge", "tiny", "shifted"):
        for column in ("estimate", "se", "p"):
            assert table.loc[(name, "age_sex"), column] == pytest.approx(table.loc[("b0", "age_sex"), column], rel=1e-6)


def test_unstandardised_estimates_follow_the_unit(tables):
    table = run(tables, {"huge": tables[2]["b0"] * 1e6, "huge__reason": None}, exposures={"standardise": False}).set_index(
        ["biomarker", "covariate_set"]
    )
    assert table.loc[("huge", "crude"), "estimate"] * 1e6 == pytest.approx(table.loc[("b0", "crude"), "estimate"], rel=1e-8)
    assert table.loc[("b0", "crude"), "scale"] == "per_unit"


def test_separation_gives_firth_with_a_finite_interval(tables):
    dr = tables[0]["dr"].fillna(0)
    rng = np.random.default_rng(0)
    carried = np.where((dr == 1) & (rng.random(len(dr)) < 0.2), 1.0, 0.0)
    table = run(tables, {"only_cases": carried, "only_cases__reason": None}).set_index(["biomarker", "covariate_set"])
    row = table.loc[("only_cases", "age_sex")]
    assert row["model"] == "firth_logit" and "separated" in row["note"]
    assert 0 < row["estimate"] < 5 and np.isfinite(row["se"]) and row["p"] < 0.05
    assert row["ci_low"] < row["estimate"] < row["ci_high"] and row["ci_high"] - row["estimate"] > row["estimate"] - row["ci_low"]
    sites = tables[0]["site"].where(dr == 1, "A")  # nobody at B and C is a control
    covariate = run(tables, cohort_changes={"site": sites}, covariate_sets={"site": ["site"]}).set_index("biomarker")
    assert covariate.loc["b0", "model"] == "firth_logit" and abs(covariate.loc["b0", "estimate"]) < 3
    refused = run(tables, {"only_cases": carried, "only_cases__reason": None}, models={"firth": False}).set_index(
        ["biomarker", "covariate_set"]
    )
    assert np.isnan(refused.loc[("only_cases", "crude"), "estimate"]) and refused.loc[("only_cases", "crude"), "note"] == "separated"


def test_three_cases_and_no_cases_are_refused(tables):
    few = pd.Series(0, index=tables[0].index)
    few.iloc[20:23] = 1
    assert set(run(tables, cohort_changes={"dr": few})["note"]) == {"too_few_cases"}
    assert set(run(tables, cohort_changes={"dr": 0})["note"]) == {"too_few_cases"}
    assert set(run(tables, cohort_changes={"dr": 1})["note"]) == {"too_few_controls"}
    assert set(run(tables, cohort_changes={"dr": np.nan})["note"]) == {"too_few_rows"}


def test_collinear_covariates_are_dropped_and_named(tables):
    age = tables[0]["age"]
    plain_table = run(tables).set_index(["biomarker", "covariate_set"])
    table = run(
        tables,
        cohort_changes={"months": age * 12, "same": "x"},
        covariate_sets={"full": ["age", "sex", "months"], "age_sex": ["age", "sex"]},
    ).set_index(["biomarker", "covariate_set"])
    assert table.loc[("b0", "full"), "note"] == "covariate_dropped:months"
    assert table.loc[("b0", "full"), "estimate"] == pytest.approx(plain_table.loc[("b0", "age_sex"), "estimate"], rel=1e-6)


def test_one_eye_subjects_need_no_correlation():
    table = associate(plan(models={"correlation": "exchangeable"}), *simulated_tables(300, 4, seed=3, both_eyes=0.0)).set_index(
        ["biomarker", "covariate_set"]
    )
    assert table.loc[("b0", "age_sex"), "converged"] and table.loc[("b0", "age_sex"), "note"] == "no_pairs"
    assert table.loc[("b0", "age_sex"), "n"] == table.loc[("b0", "age_sex"), "n_clusters"]


@pytest.mark.parametrize("level", ["subject_mean", "subject_worse", "subject_right"])
def test_subject_level_analyses_have_one_row_a_subject(tables, level):
    table = run(tables, unit={"level": level}).set_index(["biomarker", "covariate_set"])
    row = table.loc[("b0", "crude")]
    assert row["n"] == row["n_clusters"] and row["converged"] and row["estimate"] > 0.3


def test_repeat_photographs_of_an_eye_count_once(tables):
    cohort, quality, biomarkers = (
        pd.concat([t, t.iloc[20:60].assign(image_id=[f"again{i}" for i in range(40)])], ignore_index=True) for t in tables
    )
    once, twice = (analyse(plan(), *t, dictionary={}, further=False) for t in (tables, (cohort, quality, biomarkers)))
    flow = twice.tables["flow"].set_index("stage")
    assert "another_photograph_of_the_eye" in flow.loc["one_per_eye", "reasons"]
    pd.testing.assert_frame_equal(once.associations.drop(columns="plan"), twice.associations.drop(columns="plan"))


# ---- plans that do not fit -------------------------------------------------------------------------------------------


def test_every_fault_of_a_plan_is_reported_at_once(tables):
    config = plan(outcomes=["dr", "nothing"], covariate_sets={"full": ["age", "weight"]}, subgroups={"country": None})
    with pytest.raises(PlanError) as error:
        associate(config, *tables)
    for word in ("nothing", "weight", "country"):
        assert word in str(error.value)
    with pytest.raises(PlanError, match="b99"):
        associate(plan(exposures={"columns": ["b99"], "families": []}), *tables)
    with pytest.raises(PlanError, match="expected 0/1 or yes/no, found Female, Male"):
        associate(plan(outcomes=["sex"]), *tables)
    cohort, quality, biomarkers = tables
    with pytest.raises(PlanError, match="repeats"):
        associate(plan(), cohort, quality, pd.concat([biomarkers, biomarkers.iloc[:2]]))


def test_plans_that_contradict_themselves():
    for bad in (
        {"outcomes": [{"name": "a", "type": "time"}]},
        {"outcomes": ["a", "a"]},
        {"outcomes": [{"name": "a", "negative": [0]}]},
        {"covariate_sets": {}},
        {"robustness": {"covariate_set": "missing"}},
        {"robustness": {"reliability": {"b": 0}}},
        {"surprise": 1},
    ):
        with pytest.raises(ValidationError):
            AssociationConfig(**bad)


def test_labels_by_value(tables):
    cohort = tables[0].assign(diagnosis=np.where(tables[0]["dr"] == 1, "D", np.where(np.arange(len(tables[0])) % 3 == 0, "O", "N")))
    outcome = {"name": "dr", "column": "diagnosis", "positive": ["D"], "negative": ["N"]}
    result = analyse(plan(outcomes=[outcome]), cohort, *tables[1:], dictionary={}, further=False)
    flow = result.tables["flow"]
    assert "neither_case_nor_control" in flow[flow["stage"] == "labelled"]["reasons"].iloc[0]
