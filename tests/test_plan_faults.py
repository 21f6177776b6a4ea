"""The analysis plan is held against the samplesheet, the dictionary and the files that it names before any photograph is opened."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from workflow_study import change, write_study

from retsam.association.config import AssociationConfig, Outcome
from retsam.association.design import covariate_matrix, required_columns, select_biomarkers
from retsam.association.faults import PlanError, cell_faults, check_plan
from retsam.association.outcomes import outcome_faults
from retsam.cohort.cli import ingest
from retsam.config import ConfigError, parse_config
from retsam.plan import later_columns
from retsam.workflow import plan_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> dict:
    return yaml.safe_load(write_study(tmp_path_factory.mktemp("plan"), images=40).read_text())


def told(study: dict, section: str = "association", **settings) -> str:
    with pytest.raises(ValueError) as error:
        plan_study({**study, section: {**study.get(section, {}), **settings}})
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "key", "what"),
    [
        ({"exclude": {"nope": [1]}}, "association.exclude", "'nope'"),
        ({"exclude": {"sex": []}}, "association", "exclude lists no value of sex"),
        ({"exposures": {"families": ["vessel"]}}, "association.exposures.families", "nearest: vessels"),
        ({"exposures": {"columns": ["vessel_densit"]}}, "association.exposures.columns", "'vessel_densit'"),
        ({"exposures": {"exclude": ["nope*"]}}, "association.exposures.exclude", "'nope*' matches no biomarker"),
        ({"exposures": {"transforms": {"nope": "log1p"}}}, "association.exposures.transforms", "'nope' matches no biomarker"),
        ({"robustness": {"reliability": {"nope": 0.5}}}, "association.robustness.reliability", "'nope' matches no biomarker"),
        ({"robustness": {"leave_one_out": ["nope"]}}, "association.robustness.leave_one_out", "'nope'"),
        ({"robustness": {"leave_one_out": ["age"]}}, "association.robustness.leave_one_out", "40 different numbers"),
        ({"robustness": {"camera_columns": ["sx"]}}, "association.robustness.camera_columns", "nearest: sex"),
        ({"robustness": {"replication": "nope"}}, "association.robustness.replication", "'nope'"),
        ({"circularity": {"table": "nope.csv"}}, "association.circularity.table", "no such file"),
        ({"circularity": {"model_card": "nope.json"}}, "association.circularity.model_card", "no such file"),
        ({"covariate_sets": {"a": ["log(ag)"]}}, "association.covariate_sets.a", "nearest: age"),
        ({"covariate_sets": {"a": ["bs(ag, df=4)"]}}, "association.covariate_sets.a", "nearest: age"),
        ({"covariate_sets": {"a": ["lgo(age)"]}}, "association.covariate_sets.a", "nearest: log"),
        ({"covariate_sets": {"a": ["log(sex)"]}}, "association.covariate_sets.a", "cannot be worked out of sex"),
        ({"covariate_sets": {"a": ["quality_sharpnes"]}}, "association.covariate_sets.a", "nearest: quality_sharpness"),
        ({"covariate_sets": {"a": [""]}}, "association.covariate_sets.a", "neither a column nor a formula"),
        ({"outcomes": [{"name": "dr", "positive": [True]}]}, "association.outcomes", "lists True, and the column holds 0 and 1"),
        ({"outcomes": [{"name": "dr", "positive": [1], "negative": ["no"]}]}, "association.outcomes", "`negative` lists no"),
        ({"exclude": {"dr": [True]}}, "association.exclude", "column 'dr' holds 0 and 1, and none of True"),
        ({"covariate_sets": {"a": ["log(age - 50)"]}}, "association.covariate_sets.a", "is infinite or no number in"),
        ({"covariate_sets": {"a": ["age**2"]}}, "association.covariate_sets.a", "is 'age' alone as a formula"),
        ({"covariate_sets": {"a": ["1/age"]}}, "association.covariate_sets.a", "write I(1/age)"),
        ({"covariate_sets": {"a": ["age - 1"]}}, "association.covariate_sets.a", "takes the intercept away"),
        ({"outcomes": ["age"]}, "association.outcomes", "or give the outcome another `type`"),
        ({"outcomes": [{"name": "dr", "positive": []}]}, "association.outcomes", "nobody would be a case"),
        ({"outcomes": [{"name": "dr", "type": "ordered", "levels": [0, 0]}]}, "association.outcomes", "each once"),
        ({"subgroups": {"sex": [1]}}, "association.subgroups.sex", "write `sex: null`"),
        ({"subgroups": {"age": [math.nan]}}, "association.subgroups.age", "finite"),
        ({"subgroups": {"age": []}}, "subgroups.age", "cut points from low to high"),
        ({"subgroups": {"age": [60, 60]}}, "subgroups.age", "cut points from low to high"),
        ({"subgroups": ["age"]}, "association.subgroups.age", "give cut points"),
        ({"subgroups": {"quality_fov_kind": [1]}}, "association.subgroups.quality_fov_kind", "found words"),
        ({"grades": []}, "association.grades", "at least 1 item"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_any_work(study, settings, key, what):
    text = told(study, **settings)
    assert key in text and what in text, text


def test_grades_that_no_row_of_a_part_of_a_cohort_has_are_no_fault():
    part = pd.DataFrame({"grade": [0, 1, 1, 0]})
    assert outcome_faults(part, Outcome(name="dr", column="grade", positive=[2, 3, 4])) == []


@pytest.mark.parametrize(
    ("levels", "settings", "told"),
    [
        (101, {"covariate_sets": {"a": ["age", "clinic"]}}, ["covariate_sets.a: column 'clinic' has 101 levels", "unit.cluster: clinic"]),
        (101, {"covariate_sets": {"a": ["C(clinic)"]}}, ["column 'clinic' has 101 levels"]),
        (101, {"covariate_sets": {"a": ["C(code)"]}}, ["column 'code' has 101 levels"]),
        (60, {"covariate_sets": {"a": ["clinic:sex"]}}, ["columns 'clinic', 'sex' have together 120 levels"]),
        (51, {"subgroups": {"clinic": None}}, ["subgroups.clinic: 51 different values", "at most 50", "groups of levels"]),
        (51, {"robustness": {"leave_one_out": ["clinic"]}}, ["leave_one_out, column 'clinic': 51 different values", "groups of levels"]),
        (101, {"robustness": {"camera_columns": ["clinic"]}}, ["robustness.camera_columns: column 'clinic' has 101 levels", "at most 100"]),
        (101, {"robustness": {"camera_columns": ["code"]}}, []),
        (100, {"robustness": {"camera_columns": ["clinic"]}}, []),
        (100, {"covariate_sets": {"a": ["clinic", "C(code)", "code:clinic", "C(code > 3)", "age:sex"]}}, []),
        (50, {"subgroups": {"clinic": None}, "robustness": {"leave_one_out": ["clinic"]}}, []),
    ],
)
def test_words_with_too_many_levels_are_refused_with_what_to_do(levels, settings, told):
    rows = np.arange(4 * levels)
    table = {"dr": rows % 2, "age": rows + 0.5, "sex": np.where(rows % 3 > 0, "F", "M"), "code": rows % levels, "subject": rows}
    frame = pd.DataFrame(table).assign(clinic=[f"clinic {i % levels}" for i in rows])
    faults = cell_faults(AssociationConfig(outcomes=["dr"], **settings), frame)
    assert len(faults) == bool(told) and all(part in faults[0] for part in told), faults


def test_what_a_plan_may_ask_of_tables_to_come(study):
    plan = {
        "outcomes": ["dr"],
        "covariate_sets": {
            "a": ["age", "bs(age, df=4)", "quality_sharpness", "log(quality_fov_radius)", "C(sex)", "eye", "I(age**2)", "(age)", "age*sex"]
        },
        "subgroups": {"sex": None, "age": [60], "quality_grade": None, "quality_sharpness": [0.5]},
        "exclude": {"image_id": ["x"], "quality_reasons": ["blurred"]},
        "exposures": {"exclude": ["*_count"], "transforms": {"cr*e": "log1p"}},
        "robustness": {"camera_columns": ["sex"], "replication": None},
    }
    assert plan_study({**study, "association": plan}).shards


def test_faults_of_configuration_samplesheet_and_plan_are_told_together(study, tmp_path):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(Path(study["cohort"]["samplesheet"]).read_text().replace(",50,", ",500,"))
    cohort = {**study["cohort"], "samplesheet": str(sheet), "root": str(Path(study["cohort"]["samplesheet"]).parent)}
    plan = {"outcomes": ["dr"], "exclude": {"nope": [1]}, "subgroups": {"sx": None}}
    with pytest.raises(ConfigError) as error:
        parse_config({**study, "cohort": cohort, "association": plan, "quality": {"reject_above": 2}})
    assert len(error.value.faults) == 3, "a slip of one section does not hide what others ask of each other"
    text = told({**study, "cohort": cohort}, "quality", reject_above=2)
    assert "reject_above" in text and "'500'" in text
    text = told({**study, "cohort": cohort, "segmentation": {"weights": ""}}, exposures={"families": ["vessel"]})
    assert "'500'" in text and "nearest: vessels" in text and "segmentation.weights" in text


def test_the_command_tells_it_too_and_the_workflows_stage_has_no_plan(tmp_path):
    config = write_study(tmp_path / "a", images=4)
    change(config, association__exposures={"families": ["vessel"]})
    done = CliRunner().invoke(ingest, ["--config", str(config), "--out", str(tmp_path / "c.parquet")])
    assert done.exit_code == 1 and "nearest: vessels" in done.output and not (tmp_path / "c.parquet").exists()


def test_columns_that_later_tables_will_have_are_those_that_they_get():
    from retsam.quality.config import QualityConfig
    from retsam.quality.grading import grade_table
    from retsam.quality.table import as_table

    graded = grade_table(as_table([{"image_id": "a", "status": "failed", "reason": "empty"}]), QualityConfig())
    known = later_columns().filter(regex="^quality_")
    assert {f"quality_{c}" for c in graded.columns} - {"quality_image_id"} == set(known.columns)
    kinds = graded.add_prefix("quality_").dtypes
    assert [c for c in known if (kinds[c] == "string") != (known[c].dtype == "string")] == []


def test_a_formula_reads_what_its_stateful_functions_read():
    frame = pd.DataFrame({"age": [40.0, 50, 60, 70, 80, 90, np.nan], "sex": list("mfmfmfm"), "a b": range(7)})
    assert required_columns(["bs(age, df=4)", "C(sex, contr.treatment('f'))", "poly(`a b`, 2)", "np.log(age)"], list(frame)) == [
        "age",
        "sex",
        "a b",
    ]
    coded = covariate_matrix(frame, ["bs(age, df=4)", "sex"])
    assert coded.matrix.shape == (7, 6) and list(coded.missing) == [""] * 6 + ["age"]


def test_plans_are_checked_against_the_tables_where_there_are_tables():
    frame = pd.DataFrame({"subject": ["a"], "sex": ["m"], "dr": [1]})
    with pytest.raises(PlanError, match="write `sex: null`") as error:
        check_plan(AssociationConfig(outcomes=["dr"], subgroups={"sex": [1]}, exclude={"nope": [1]}), frame)
    assert len(error.value.faults) == 2


def test_columns_are_chosen_alone_or_beside_families():
    families = {"a": "x", "b": "x", "c": "y"}

    def chosen(**exposures) -> list[str]:
        return select_biomarkers(list(families), families, AssociationConfig(exposures=exposures).exposures)[0]

    assert chosen() == ["a", "b", "c"]
    assert chosen(columns=["a"]) == chosen(columns=["a"], families=[]) == ["a"]
    assert chosen(columns=["a"], families=["y"]) == ["a", "c"]


@pytest.mark.parametrize("spacing", [0, -1, math.nan, math.inf, True, 1e9])
def test_one_pixel_size_for_all_must_be_possible(spacing):
    with pytest.raises(ConfigError, match="0.2 to 300 um"):
        parse_config({"cohort": {"samplesheet": "s.csv", "columns": {"um_per_px": spacing}}})


@pytest.mark.parametrize(
    "variable",
    [
        {"positive_pattern": ""},
        {"positive_pattern": "glaucoma|"},
        {"positive": [1], "negative_pattern": ""},
        {"positive": []},
        {"positive": [1], "negative": []},
        {"positive": [1], "separator": ""},
        {"separator": ";"},
        {"levels": []},
        {"levels": [0, 0, 1]},
    ],
)
def test_labels_that_tell_nobody_apart_are_refused(variable):
    with pytest.raises(ConfigError, match="cohort.labels.dr"):
        parse_config({"cohort": {"samplesheet": "s.csv", "labels": {"dr": variable}}})
