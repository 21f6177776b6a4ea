"""What the report says is what was done: the plan behind the estimates, its unit and grades, and parts that are really there."""

from __future__ import annotations

import json
import re
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from report_study import SETTINGS, make_study

from retsam.association import AssociationConfig
from retsam.report import ReportConfig, build_report
from retsam.report.build import _file_names
from retsam.report.flow import stage_text
from retsam.report.html import pack
from retsam.report.sections.associations import note_text
from retsam.report.sections.participants import grades_by_group
from retsam.report.sections.prediction import _warning
from retsam.report.sections.robustness import _fewer, analysis_label, subgroup_rows
from retsam.report.study import Study
from retsam.report.style import ratio_tick

QUIET = ReportConfig(figures=False, gallery=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("results") / "made_up", n_subjects=30, n_biomarkers=8, pictures=False)


@pytest.fixture
def copy(study, tmp_path):
    shutil.copytree(study, tmp_path / "results")
    return tmp_path / "results"


def with_plan(**changes):
    return {**SETTINGS, "association": {**SETTINGS["association"], **changes}}


def used(folder, association):
    """Leave the plan that the estimates were made with in a results folder."""
    whole = AssociationConfig.model_validate(association).model_dump(mode="json")
    (folder / "tables" / "plan.json").write_text(json.dumps({"association": whole, "seed": 0, "sha256": "ab" * 32}))


def page(folder, settings, config=QUIET):
    done = build_report(folder, folder / "report.html", config, settings)
    return done, (folder / "report.html").read_text(encoding="utf-8")


def section(text, key):
    return re.search(rf'<section id="{key}".*?</section>', text, re.DOTALL).group(0)


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_behind_the_estimates_is_believed_not_a_configuration_changed_since(copy):
    used(copy, SETTINGS["association"])
    changed = with_plan(
        multiple={"method": "holm", "alpha": 0.01},
        models={"level": 0.8, "correlation": "exchangeable"},
        covariate_sets={"crude": [], "age_sex": ["age"]},
    )
    done, text = page(copy, changed)
    fault = next(p for p in done.problems if "is not the plan" in p.text)
    assert fault.level == "fault" and "models.level: 0.8 in the configuration, 0.95 used" in fault.text
    assert "multiple.method" in fault.text and "covariate_sets" in fault.text and "firth" not in fault.text
    shown = section(text, "associations") + section(text, "summary")
    assert "95 % confidence intervals" in shown and "80 %" not in shown
    assert "Benjamini-Hochberg" in shown and "Holm" not in shown and "age_sex (age, sex)" in shown
    assert "Analysis plan that the associations were estimated with" in section(text, "provenance")


def test_a_plan_that_only_leaves_defaults_out_is_no_other_plan(copy):
    used(copy, SETTINGS["association"])
    assert Study(copy, with_plan(workers=7)).changed_plan() == []
    assert Study(copy, {**SETTINGS, "seed": 3}).changed_plan() == ["seed: 3 in the configuration, 0 used"]
    outcomes = [{**o, "positive": [1]} if o["name"] == "dr" else o for o in SETTINGS["association"]["outcomes"]]
    assert Study(copy, with_plan(outcomes=outcomes)).changed_plan() == ["outcome dr: positive: [1] in the configuration, null used"]


# ---- the camera ------------------------------------------------------------------------------------------------------


def test_a_warning_gives_the_number_of_the_check_that_it_names(study):
    checks = pd.DataFrame({"predictors": ["image_size", "source", "quality", "camera"], "auc": [0.46, 0.43, 0.83, 0.89]})
    said = _warning(Study(study, SETTINGS), "dr", checks[2:], checks)
    assert "Image quality alone predicts dr (AUC 0.83;" in said and "0.89" not in said and "Compare the estimates" not in said
    adjusted = with_plan(covariate_sets={"quality": ["age", "quality_sharpness"]})
    assert "Compare the estimates that are adjusted for quality" in _warning(Study(study, adjusted), "dr", checks[2:], checks)
    checks.loc[0, "auc"] = 0.9
    said = _warning(Study(study, SETTINGS), "dr", checks[[True, False, False, True]], checks)
    assert "image size 0.90, all columns together 0.89" in said


# ---- robustness ------------------------------------------------------------------------------------------------------


def test_a_row_says_where_its_correlation_gave_way():
    assert analysis_label("exchangeable", "gee_logit", "correlation_matters") == "exchangeable correlation (gave way to independence)"
    assert analysis_label("primary", "gee_logit", "correlation_bounded;independence").endswith("(gave way to independence)")
    assert analysis_label("exchangeable", "firth_logit", "separated") == "exchangeable correlation (penalised: has none)"
    assert analysis_label("exchangeable", "gee_logit", None) == "exchangeable correlation"
    assert analysis_label("primary", pd.NA, pd.NA) == "primary model"


def test_a_level_without_an_estimate_stays_in_the_figure(copy):
    path = copy / "associations.parquet"
    table = pd.read_parquet(path)
    level = (table["subgroup"] == "sex=F") & (table["outcome"] == "sbp")
    table.loc[level, ["estimate", "se", "ci_low", "ci_high", "p", "neg_log10_p"]] = np.nan
    table.loc[level, "note"] = "too_few_rows"
    table.to_parquet(path)
    study = Study(copy, SETTINGS)
    rows, _ = _fewer(study, subgroup_rows(study, 1))
    mine = rows[rows["outcome"] == "sbp"].groupby("biomarker")["subgroup"].agg(set)
    assert len(mine) and all(s == {"all", "sex=F", "sex=M"} for s in mine)


def test_notes_are_words_and_names_in_them_stay():
    assert note_text("fewer_quintiles;level_dropped:site=a_b") == "fewer quintiles; level dropped: site=a_b"
    assert note_text(None) is None


# ---- unit and grades -------------------------------------------------------------------------------------------------


FURTHER, OTHER = "further photographs of the same eye", "of another grade"
STEPS = [
    ({}, "one_per_eye", "", "One photograph an eye", FURTHER),
    ({"unit": {"level": "subject_right"}}, "one_per_eye", "other_eye: 60", "One photograph of the right eye", "not of that eye"),
    ({"unit": {"level": "subject_worse"}}, "labelled", "", "Outcome known, the worse eye", "outcome not known, or the subject's other eye"),
    ({"unit": {"visits": "all"}}, "one_per_eye", "", "All photographs of an eye", FURTHER),
    ({"grades": ["gradable"]}, "gradable", "", "Gradable", OTHER),
    ({"grades": ["reject", "usable", "gradable"]}, "gradable", "", "Gradable or usable or reject", OTHER),
]


@pytest.mark.parametrize(("plan", "stage", "reasons", "stays", "excluded"), STEPS)
def test_a_step_of_the_flow_is_named_by_the_plan(study, plan, stage, reasons, stays, excluded):
    row = pd.Series({"stage": stage, "reasons": reasons})
    assert stage_text(Study(study, with_plan(**plan)), row) == (stays, excluded)


def test_subjects_are_not_called_eyes(copy):
    _, text = page(copy, with_plan(unit={"level": "subject_mean"}))
    assert "Counted are subjects, each once." in section(text, "table1") and "counts once per eye" not in text
    assert "with all subjects in" in section(text, "associations")
    _, text = page(copy, SETTINGS)
    assert "Counted are eyes: a subject counts once per eye." in section(text, "table1")


def test_clusters_of_another_column_are_not_called_subjects(copy):
    _, text = page(copy, with_plan(unit={"cluster": "family"}))
    assert (
        "<th>Clusters</th>" in (heads := re.sub(r"<th[^>]*>", "<th>", section(text, "associations"))) and "<th>Subjects</th>" not in heads
    )
    assert "Folds are grouped by family" in text and '"clusters":"clusters"' in text.replace(" ", "")
    assert "one row a family, at random" in text and "one eye a subject" not in text
    _, text = page(copy, SETTINGS)
    assert "<th>Subjects</th>" in re.sub(r"<th[^>]*>", "<th>", section(text, "associations"))
    assert "one eye a subject, at random" in text


def test_rejects_that_are_analysed_are_not_said_to_be_excluded(copy):
    every = with_plan(grades=["gradable", "usable", "reject"])
    assert "graded reject and not measured" in section(page(copy, every)[1], "methods")
    table = pd.read_parquet(copy / "biomarkers.parquet")
    table["reason"] = table["reason"].where(table["reason"] != "quality_reject")
    table.to_parquet(copy / "biomarkers.parquet")
    methods = section(page(copy, every)[1], "methods")
    assert "graded reject and analysed like the others" in methods and "of sufficient quality" not in methods
    methods = section(page(copy, SETTINGS)[1], "methods")
    assert "graded reject and excluded" in methods and "of sufficient quality and measured" in methods


def test_of_a_bare_cohort_nothing_is_said_to_be_measured_estimated_or_run(copy, tmp_path):
    (tmp_path / "bare").mkdir()
    shutil.copy(copy / "cohort.parquet", tmp_path / "bare")
    _, text = page(tmp_path / "bare", SETTINGS)
    summary, methods, strobe = (section(text, k) for k in ("summary", "methods", "strobe"))
    assert "measured" not in summary and "biomarkers" not in summary and "eligible" not in summary
    assert "0 biomarkers" not in methods and "were estimated" not in methods and "Snakemake" not in methods
    state = {m[0]: m[1] for m in re.findall(r"<tr><td>(\w+)</td><td>.*?</td><td>.*?</td><td>(.*?)</td>", strobe)}
    assert {state[i] for i in ("12a", "12b", "12c", "12e", "17")} <= {"to be written", "in part"}
    assert "Not in this report: statistical methods." in strobe


def test_an_item_of_the_checklist_is_reported_by_what_is_there(copy):
    table = pd.read_parquet(copy / "associations.parquet")
    table[table["subgroup"] == "all"].to_parquet(copy / "associations.parquet")
    strobe = section(page(copy, SETTINGS)[1], "strobe")
    state = {m[0]: m[1] for m in re.findall(r"<tr><td>(\w+)</td><td>.*?</td><td>.*?</td><td>(.*?)</td>", strobe)}
    assert state["12b"] == "to be written" and state["17"] == "in part" and state["12e"] == "reported"
    assert "Not in this report: subgroups." in strobe


# ---- names and numbers -----------------------------------------------------------------------------------------------


def test_tables_of_outcomes_in_any_script_have_files_of_their_own():
    names = _file_names(["table1_\u7cd6\u5c3f\u75c5", "table1_\u7dd1\u5185\u969c", "a b", "a/b", "A_B", "x" * 300])
    assert names[0] == "table1_\u7cd6\u5c3f\u75c5.csv" and names[2:5] == ["a_b.csv", "a_b_2.csv", "A_B_3.csv"]
    assert len(set(map(str.casefold, names))) == len(names) and max(map(len, names)) < 80


def test_characters_without_a_font_are_told_once(copy):
    outcome = "dr \U000f1234"  # for private use: in no font
    table = pd.read_parquet(copy / "associations.parquet")
    table["outcome"] = table["outcome"].replace("dr", outcome)
    table.to_parquet(copy / "associations.parquet")
    settings = with_plan(outcomes=[{"name": outcome, "type": "binary"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done, _ = page(copy, settings, ReportConfig(gallery=False))
    told = [p.text for p in done.problems if "no font of this machine" in p.text]
    assert len(told) == 1 and "\U000f1234" in told[0]
    assert len(done.problems) == len(set(done.problems))


def test_a_log_travels_with_the_digits_that_its_ratio_is_printed_with():
    logs = np.random.default_rng(0).uniform(-8, 8, 400)
    sent = pack(pd.DataFrame({"est": logs}))["columns"]["est"]
    assert [f"{np.exp(v):.4g}" for v in sent] == [f"{np.exp(v):.4g}" for v in logs]


def test_ticks_of_ratios_are_not_in_the_language_of_programs():
    values = (0.5, 1, 2.5, 100, 1000, 1e6, 1e-5)
    assert [ratio_tick(np.log(v)) for v in values] == ["0.5", "1", "2.5", "100", "1\u202f000", "10\u2076", "10\u207b\u2075"]


def test_a_group_without_photographs_has_no_bar_and_no_grade_is_named_that_hides_nothing():
    counts = {"controls": (75, 0, 3), "cases": (40, 0, 4), "unlabelled": (0, 0, 0)}
    rows = [("dr", g, d, n) for g in counts for d, n in zip(("gradable", "usable", "reject"), counts[g], strict=True)]
    found = grades_by_group(pd.DataFrame(rows, columns=["outcome", "group", "grade", "n"]), 5)
    assert set(found.rows["label"]) == {"controls", "cases"}
    assert found.joined == ["gradable and reject, not split (small cells)"]
