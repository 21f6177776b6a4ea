"""The methods text: every setting of the plan that changes an answer leaves a phrase, and nothing is said that was not done."""

from __future__ import annotations

import numpy as np
import pytest
from association_cohort import simulated_tables

from retsam.association import AssociationConfig
from retsam.association.grid import make_exposures
from retsam.association.methods import methods_text
from retsam.association.problems import Problems
from retsam.association.robustness import sensitivity
from retsam.association.sample import build_sample

NAMES = ["b0", "b1", "lesion_count"]
ALL = [
    "dr",
    {"name": "grade", "type": "ordered"},
    {"name": "iop", "type": "continuous"},
    {"name": "death", "column": "years", "type": "time", "event": "died"},
]
BASE = {"outcomes": ALL, "covariate_sets": {"age": ["age"], "age_sex": ["age", "sex"]}, "subgroups": {"sex": None}}


@pytest.fixture(scope="module")
def tables():
    cohort, quality, biomarkers = simulated_tables(60, 5)
    biomarkers["b1"] = np.nan
    return cohort, quality, biomarkers


def text(tables, **changes):
    config = AssociationConfig(**{**BASE, **changes})
    sample = build_sample(config, *tables, NAMES)
    exposures = make_exposures(NAMES, sample.values, {}, {"lesion_count": "count"}, config)
    return methods_text(config, sample, exposures, 0)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        (
            {"outcomes": ["dr", {"name": "high", "column": "grade", "positive": [2, 3], "negative": [0]}]},
            "high (column grade; cases 2",
        ),
        ({"outcomes": [{"name": "grade", "type": "ordered", "levels": [0, 1, 2, 3]}]}, "levels from lowest to highest 0, 1, 2, 3"),
        ({"exposures": {"families": [], "columns": ["b0"]}}, "chosen by the plan: b0"),
        ({"exposures": {"families": ["vessels"]}}, "the family vessels"),
        ({"exposures": {"exclude": ["*_count"]}}, "without *_count"),
        ({"exposures": {"standardise": False}}, "estimates are per unit"),
        ({"exposures": {"transform": "rank_inverse_normal"}}, "were replaced by rank-based inverse normal scores"),
        ({"exposures": {"transforms": {"b0": "log1p"}}}, "as the plan names them"),
        ({"exposures": {"transform_by_kind": False}}, "none was transformed"),
        ({"exposures": {"winsorise": 0.02}}, "beyond the 2 and 98 percent quantiles were pulled in to them before that"),
        ({"exposures": {"presence": True}}, "__present"),
        ({"unit": {"level": "subject_worse"}}, "the subject's eye with the higher outcome"),
        ({"unit": {"cluster": "site"}}, "rows of the same site"),
        ({"unit": {"visits": "last"}}, "that of the last visit"),
        ({"unit": {"visits": "all"}}, "All photographs of an eye were taken"),
        ({"models": {"correlation": "exchangeable"}}, "gave way to working independence"),
        ({"models": {"small_sample": "none"}}, "the normal distribution"),
        ({"models": {"small_sample": "df"}}, "standard errors multiplied by the square root of K/(K-p)"),
        ({"models": {"small_sample": "mancl_derouen"}}, "Mancl-DeRouen"),
        ({"models": {"degrees_of_freedom": "clusters"}}, "K-p degrees of freedom"),
        ({"models": {"level": 0.9}}, "90 % confidence intervals"),
        ({"models": {"mixed": True}}, "mixed models with a random intercept a cluster (dr and iop;"),
        ({"models": {"firth": False}}, "Separated logistic models, found by linear programming, gave no estimate"),
        ({"multiple": {"method": "holm"}}, "Holm"),
        ({"multiple": {"family": "overall"}}, "over all outcomes"),
        ({"multiple": {"alpha": 0.01}}, "at 0.01"),
        ({"subgroups": {"age": [60]}}, "within the levels of age (cut at 60)"),
        ({"exclude": {"site": ["A", "B"]}}, "Left out were rows with site = A or B"),
        ({"grades": ["gradable"]}, "Photographs graded gradable were analysed"),
        ({"robustness": {"leave_one_out": ["site"]}}, "without each level of site in turn"),
        ({"robustness": {"winsorise": 0.05}}, "with biomarkers whose values beyond the 5 and 95"),
        ({"robustness": {"imputations": 3}}, "imputed 3 times"),
        ({"robustness": {"replication": "site"}}, "50 % by site"),
        ({"robustness": {"top": 0}}, "every biomarker"),
        ({"robustness": {"knots": 5}}, "5 knots"),
        ({"robustness": {"covariate_set": "age"}}, "in the covariate set age,"),
        ({"robustness": {"reliability": {"b*": 0.8}}}, "as given for b* (0.8)"),
        ({"robustness": {"eyes_as_replicates": True}}, "else from the agreement of both eyes"),
        ({"robustness": {"eyes_as_replicates": True}, "unit": {"level": "subject_mean"}}, "does not exist with one row a subject"),
        ({"robustness": {"camera_columns": ["site"]}}, "source (site)"),
        ({"robustness": {"camera_warning": 0.7}}, "interval passed 0.7"),
    ],
)
def test_a_setting_leaves_a_phrase(tables, changes, phrase):
    assert phrase in text(tables, **changes).replace("\n", " ")
    assert phrase not in text(tables).replace("\n", " ")


SWITCHES = (
    "gradable_only",
    "other_correlation",
    "one_eye",
    "rank",
    "shape",
    "interactions",
    "discrimination",
    "measurement_error",
    "camera",
)


@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_switched_off_is_not_said_to_be_done(tables, name):
    assert len(text(tables, robustness={name: False})) < len(text(tables))


def test_each_type_of_outcome_names_its_small_sample_correction(tables):
    ordered = text(tables, outcomes=[ALL[1]])
    assert "the power -1/2 of one less its leverage" in ordered and "Fay MP" in ordered and "Estimating equations" not in ordered
    assert "the power -1 of one less" in text(tables, outcomes=[ALL[1]], models={"small_sample": "mancl_derouen"})
    time = text(tables, outcomes=[ALL[3]])
    assert "Errors of Cox models were those of the robust variance, multiplied by the square root of K/(K-p)" in time
    assert "under working" not in time and "camera" not in time


def test_biomarkers_without_a_value_were_not_tested(tables):
    assert "Of the plan's 3 biomarkers, 2 had a value in an analysed row and were tested" in text(tables)


def test_no_row_of_the_sensitivity_table_is_the_primary_fit_again(tables):
    """A proportional-odds or Cox model has no working correlation, and one row a subject has nothing to correlate."""
    on = {"other_correlation": True, "one_eye": True, "rank": False, "winsorise": 0, "gradable_only": False}

    def analyses(**changes):
        config = AssociationConfig(**{**BASE, "robustness": on, **changes})
        sample = build_sample(config, *tables, ["b0"])
        problems = Problems(sample, config)
        exposures = make_exposures(["b0"], sample.values, {}, {}, config)
        found = sensitivity(problems, {o: exposures for o in problems.coded}, config, 0)
        return found.groupby("outcome")["analysis"].agg(set).to_dict()

    both = {"primary", "exchangeable", "one_eye"}
    assert analyses() == {"dr": both, "iop": both, "grade": {"primary", "one_eye"}, "death": {"primary", "one_eye"}}
    assert set().union(*analyses(unit={"level": "subject_worse"}).values()) == {"primary"}
    assert set().union(*analyses(unit={"level": "subject_right"}).values()) == {"primary"}
    assert "exchangeable" not in text(tables, unit={"level": "subject_right"})
