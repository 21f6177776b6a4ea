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
from retsam.association.outcomes import code_outcome, outcome_faults
from retsam.association.problems import Problems
from retsam.association.sample import PlanError, build_sample
from retsam.report.flow import faults, parse_reasons


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
    assert set(run(tables, cohort_changes={"dr": np.nan})["note"]) == {"outcome_missing"}


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


# ---- one row a subject -----------------------------------------------------------------------------------------------


def two_eyes(**columns):
    """Tables of subjects with both eyes: cohort columns given row by row, right eye first; ``b0`` is noise."""
    n = len(next(iter(columns.values())))
    ids = [f"i{k:04d}" for k in range(n)]
    cohort = pd.DataFrame({"image_id": ids, "subject": [f"s{k // 2}" for k in range(n)], "eye": ["R", "L"] * (n // 2), **columns})
    cohort["status"] = "ok"
    quality = pd.DataFrame({"image_id": ids, "status": "ok", "grade": "gradable"})
    noise = np.random.default_rng(0).normal(size=n)
    return cohort, quality, pd.DataFrame({"image_id": ids, "status": "ok", "b0": noise, "b0__reason": None})


@pytest.mark.parametrize("level", ["subject_mean", "subject_worse"])
def test_a_subjects_event_is_the_first_of_either_eye(level):
    rng = np.random.default_rng(3)
    years, happened = rng.uniform(1, 8, 400).round(3), rng.integers(0, 2, 400)
    outcome = {"name": "loss", "type": "time", "column": "years", "event": "lost"}
    config = plan(outcomes=[outcome], covariate_sets={"crude": []}, unit={"level": level})
    problem = Problems(build_sample(config, *two_eyes(years=years, lost=happened), ["b0"]), config).problem("loss", "crude")
    time, event = problem.coded.y[problem.rows], problem.coded.event[problem.rows]
    pairs, events = years.reshape(-1, 2), happened.reshape(-1, 2) == 1
    expected = np.where(events.any(1), np.where(events, pairs, np.inf).min(1), pairs.max(1))
    by_name = np.argsort([f"s{k}" for k in range(200)])  # subjects lie in the order of their names
    assert len(time) == 200 and (event == events.any(1)[by_name]).all() and time == pytest.approx(expected[by_name])


def test_two_outcomes_of_one_column_each_have_their_worse_eye():
    """With eyes averaged, diabetic retinopathy of one eye does not hide macular degeneration of the other."""
    diagnosis = np.array(["dr", "amd", "none", "dr", "amd", "amd", "none", "none"] * 30, dtype=object)
    outcomes = [{"name": name, "column": "diagnosis", "positive": [name], "negative": ["none"]} for name in ("dr", "amd")]
    for order in (outcomes, outcomes[::-1]):
        config = plan(outcomes=order, covariate_sets={"crude": []}, unit={"level": "subject_mean"})
        problems = Problems(build_sample(config, *two_eyes(diagnosis=diagnosis), ["b0"]), config)
        assert {name: int(np.nansum(coded.y)) for name, coded in problems.coded.items()} == {"dr": 60, "amd": 60}
        assert {name: int(coded.labelled.sum()) for name, coded in problems.coded.items()} == {"dr": 90, "amd": 120}
        flow = pd.DataFrame([*problems.sample.flow, *problems.flow()])
        assert flow.set_index("stage").loc["one_per_subject", ["n_images", "n_excluded"]].tolist() == [120, 120]
        assert faults(flow) == []
        half = problems.sample.take(np.arange(len(problems.sample.frame)) < 60)
        assert np.array_equal(half.coded["dr"].y, problems.coded["dr"].y[:60], equal_nan=True)


def test_a_grade_called_none_is_a_grade():
    config = plan(outcomes=[{"name": "dr", "column": "grade", "positive": ["Mild", "Severe"], "negative": ["None"]}])
    cohort, _, _ = two_eyes(grade=np.array(["None", "Mild", "Severe", None, "None", "None"], dtype=object))
    coded = code_outcome(cohort, config.outcomes[0])
    assert coded.y.tolist()[:3] == [0, 1, 1] and np.isnan(coded.y[3]) and coded.why[3] == "no_label"
    assert outcome_faults(cohort, plan(outcomes=[{"name": "dr", "column": "grade"}]).outcomes[0]), "neither yes nor no"


@pytest.mark.parametrize(
    ("visits", "first", "last"),
    [
        (["2", "10", ""], 0, 1),
        (["10", "2", "3"], 1, 0),
        (["2021-03-01", "2020-12-31", ""], 1, 0),
        (["2021-03-01T10:00", "2021-03-01T09:00", "2021-02"], 2, 0),
        (["V2", "V10", ""], 0, 1),
    ],
)
def test_the_first_visit_is_the_first_in_time(visits, first, last):
    """One more eye without a visit does not turn numbers into text, and what is not known comes after what is."""
    cohort, quality, biomarkers = two_eyes(visit=np.array([*visits, ""], dtype=object))
    cohort["subject"], cohort["eye"] = ["s"] * 3 + ["other"], "R"
    for which, expected in (("first", first), ("last", last)):
        config = plan(covariate_sets={"crude": []}, unit={"visits": which})
        sample = build_sample(config, cohort.assign(dr=[0, 1, 1, 0]), quality, biomarkers, ["b0"])
        assert sorted(sample.frame["image_id"]) == sorted([f"i{expected:04d}", "i0003"])


def test_visits_that_cannot_be_ordered_are_a_fault_where_an_eye_has_two():
    cohort, quality, biomarkers = two_eyes(visit=np.array(["01/02/2021", "15/01/2020"], dtype=object), dr=[0, 1])
    assert len(build_sample(plan(covariate_sets={"crude": []}), cohort, quality, biomarkers, ["b0"]).frame) == 2, "one visit an eye"
    cohort["eye"] = "R"
    with pytest.raises(PlanError, match="column 'visit': expected numbers .* found 01/02/2021, 15/01/2020"):
        build_sample(plan(covariate_sets={"crude": []}), cohort, quality, biomarkers, ["b0"])
    everyone = plan(covariate_sets={"crude": []}, unit={"visits": "all"})
    assert len(build_sample(everyone, cohort, quality, biomarkers, ["b0"]).frame) == 2


def test_eyes_of_a_subject_are_together_whatever_else_clusters(tables):
    """A column that is empty for one eye, or another for each, would count the eyes of a subject as independent."""
    cohort, quality, biomarkers = tables
    number = cohort["subject"].str[1:].astype(int)
    pair = ("F" + (number // 2).astype(str)).astype(object)

    def clusters(column):
        sample = build_sample(plan(unit={"cluster": "family"}), cohort.assign(family=column), quality, biomarkers, ["b0"])
        assert sample.frame.groupby("subject")["cluster"].nunique().max() == 1
        assert (np.diff(sample.cluster) >= 0).all()
        return sample.frame.groupby("cluster")["subject"].agg(set).tolist()

    families = clusters(pair)
    assert max(map(len, families)) == 2
    assert max(map(len, clusters(pair + cohort["eye"]))) == 2, "each eye names another family of the same two"
    # known for the right eyes only: a left eye without a right one stays with its subject
    right = set(cohort.loc[cohort["eye"] == "R", "subject"])
    for family in clusters(pair.where(cohort["eye"] == "R", None)):
        assert len(family) == 1 or family <= right
    assert all(len(family) == 1 for family in clusters(np.nan))


def test_what_no_row_has_is_named(tables):
    cohort, quality, biomarkers = tables
    few = {"covariate_sets": {"crude": [], "age_sex": ["age", "sex"]}, "subgroups": {"sex": None}}
    gone = associate(plan(**few), cohort.assign(age=np.nan), quality, biomarkers)
    assert set(gone.loc[gone["covariate_set"] == "age_sex", "note"]) == {"covariates_missing"}
    assert set(associate(plan(**few), cohort.assign(dr=np.nan), quality, biomarkers)["note"]) == {"outcome_missing"}
    assert set(associate(plan(**few), cohort, quality.assign(grade="reject"), biomarkers)["note"]) == {"too_few_rows"}


def test_an_outcome_is_not_adjusted_for_itself(tables):
    outcomes = ["dr", {"name": "iop", "type": "continuous"}, {"name": "high", "column": "iop", "positive": [30]}]
    outcomes.append({"name": "death", "type": "time", "column": "years", "event": "died"})
    cohort = tables[0].assign(iop=lambda t: t["iop"].round().clip(15, 30))
    sets = {"crude": [], "own": ["age", "log(iop)", "died"]}
    robustness = {"top": 0, "imputations": 2, "shape": False, "measurement_error": False}
    whole = analyse(plan(outcomes=outcomes, covariate_sets=sets, robustness=robustness), cohort, *tables[1:], dictionary={})
    table = whole.associations.set_index("covariate_set")
    own = table.loc["own"].set_index("outcome")
    for name in ("iop", "high", "death"):
        assert set(own.loc[name, "note"]) == {"covariate_is_outcome"} and own.loc[name, "estimate"].isna().all()
    assert own.loc["dr", "estimate"].notna().all() and (table.loc["crude"].set_index("outcome").loc["iop", "estimate"].notna()).all()
    parts = [t for name, t in whole.tables.items() if name in ("sensitivity", "discrimination", "replication", "interactions")]
    estimates = pd.concat([t.filter(regex="outcome|estimate|auc|^delta_p$").set_index("outcome") for t in parts])
    assert set(estimates.dropna(how="all").index) == {"dr"}


def test_a_time_of_entry_that_is_not_known_is_not_said_to_be_late():
    frame = pd.DataFrame({"years": [5.0, 5.0, 5.0, np.nan], "died": [1, 0, 1, 1], "start": [1.0, np.nan, 6.0, np.nan]})
    outcome = plan(outcomes=[{"name": "death", "type": "time", "column": "years", "event": "died", "entry": "start"}]).outcomes[0]
    coded = code_outcome(frame, outcome)
    assert coded.why.tolist() == ["", "no_entry_time", "entry_not_before_end", "no_label"] and np.isfinite(coded.y).tolist() == [
        True,
        *[False] * 3,
    ]


def test_rows_that_lack_two_covariates_are_counted_as_such(tables):
    cohort, quality, biomarkers = tables
    both = cohort.assign(sex=cohort["sex"].astype(object).where(np.arange(len(cohort)) % 20 > 0, None))
    both["age"] = both["age"].where(np.arange(len(cohort)) % 10 > 0)
    flow = analyse(plan(), both, quality, biomarkers, dictionary={}, further=False).tables["flow"]
    row = flow[flow["covariate_set"] == "age_sex"].iloc[0]
    reasons = parse_reasons(row["reasons"])
    assert set(reasons) == {"age missing", "age and sex missing"} and sum(reasons.values()) == row["n_excluded"]


def test_repeat_photographs_tell_the_reliability(tables):
    cohort, quality, biomarkers = tables
    again = [f"again{i}" for i in range(200)]
    rng = np.random.default_rng(0)
    second = biomarkers.iloc[20:220].assign(image_id=again, b0=lambda t: t["b0"] + rng.normal(0, 0.5, len(t)))
    more = [pd.concat([t, t.iloc[20:220].assign(image_id=again)], ignore_index=True) for t in (cohort, quality)]
    found = analyse(plan(), *more, pd.concat([biomarkers, second], ignore_index=True), dictionary={}).tables["measurement_error"]
    row = found.set_index("biomarker").loc["b0"]
    assert row["reliability_source"] == "repeat_photographs"
    assert row["reliability"] == pytest.approx(1 / (1 + 0.5 * 0.5**2), abs=0.03), "one of two readings has noise of half an SD"
