"""Small counts that follow from others by subtraction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_study import SETTINGS, make_study

from retsam.report import ReportConfig, build_report
from retsam.report.disclosure import blank_people, hide_cells, hide_fits, hide_matrix, hide_remainders, near_others, near_whole
from retsam.report.flow import reasons_text, without_small
from retsam.report.sections.associations import blank
from retsam.report.sections.biomarkers import _heights, hidden_reasons, hidden_sizes

QUIET = ReportConfig(figures=False, gallery=False)


def test_hidden_cells_of_a_small_sum_take_another_with_them():
    # two hidden cells with the sum 2 are one eye each
    assert hide_cells([1, 1, 9, 50], 5).tolist() == [True, True, True, False]
    assert hide_cells([4, 4, 9, 50], 5).tolist() == [True, True, False, False]
    hidden = hide_matrix(np.array([[1, 1, 40], [30, 30, 40], [30, 30, 40]]), 5)
    assert hidden[0].all()


def test_a_level_without_cases_protects_no_level_with_a_few():
    table = pd.DataFrame({"o": "dr", "n": [200, 40, 50], "n_cases": [40, 0, 3]})
    assert hide_fits(table, 5, ["o"]).tolist() == [True, False, True]
    # an outcome without cases, and a missing key
    table = pd.DataFrame({"o": [None, None, None], "n": [200, 40, 3], "n_cases": [np.nan] * 3})
    assert hide_fits(table, 5, ["o"]).tolist() == [False, True, True]


def test_a_site_left_out_does_not_tell_its_size():
    table = pd.DataFrame(
        {
            "o": ["dr"] * 6 + ["amd"] * 3,
            "analysis": ["primary", "without:site=A", "without:site=B", "without:site=C", "without:sex=F", "winsorised"]
            + ["primary", "without:site=A", "without:site=C"],
            "n": [400, 160, 243, 397, 200, 400, 400, 300, 100],
            "n_cases": [80, 30, 51, 79, 40, 80, 80, 70, 10],
        }
    )
    # site C is small, and site B goes with it, since the sites add up to the whole
    assert hide_remainders(table, 5, ["o"]).tolist() == [False, False, True, True, False, False, False, False, False]


def test_a_sample_does_not_tell_who_lacks_a_value():
    table = pd.DataFrame({"o": "dr", "n": [400, 398, 390, 392], "n_cases": [80, 80, 78, 70]})
    assert near_whole(table, 5, ["o"]).tolist() == [False, True, True, False]
    whole = pd.DataFrame({"n": [403.0] * 4, "n_cases": [np.nan] * 4})
    assert near_whole(table, 5, ["o"], whole).tolist() == [True, False, True, True]


def test_a_hidden_row_has_no_number_of_the_fit():
    row = {"n": 9.0, "n_cases": 3, "n_clusters": 7, "estimate": 0.4, "p": 0.01, "p_bonferroni": 0.1, "p_holm": 0.1, "q_bh": 0.05}
    row.update(q_by=0.2, p_meff=0.1, q_overall=0.1, sd=1.3, t_df=6.0, correlation=0.3, r2_covariates=0.1, n_tests=12, log_unit=2.0)
    table = pd.DataFrame([row, row]).assign(hidden=[True, False], converged=True, note=None)
    blank(table)
    kept = {"n_tests", "log_unit"}
    assert table.loc[0, [c for c in row if c not in kept]].isna().all() and table.loc[0, list(kept)].notna().all()
    assert table.loc[1, list(row)].notna().all() and table["note"].tolist()[0] == "small_cell"


def test_a_bin_is_not_one_less_the_others():
    heights = _heights(np.array([50, 3, 20, 12, 0]), 5.0, 5)
    assert [h is None for h in heights] == [False, True, False, True, False]


def test_sizes_of_groups_do_not_tell_who_lacks_a_value():
    table = pd.DataFrame(
        {"outcome": "dr", "biomarker": list("aabbcc"), "group": ["cases", "controls"] * 3, "n": [80, 320, 78, 320, 60, 300]}
    )
    assert hidden_sizes(table, 5).tolist() == [False, False, True, True, False, False]


def test_reasons_of_missing_values_do_not_tell_each_other():
    table = pd.DataFrame({"biomarker": ["a", "a", "a", "b"], "reason": ["x", "y", "z", "x"], "n": [2, 30, 12, 40]})
    assert hidden_reasons(table, 5).tolist() == [True, False, True, False]


def test_the_flow_does_not_tell_how_few_lack_a_covariate():
    flow = pd.DataFrame(
        {
            "outcome": ["all", "dr", "dr", "dr", "dr"],
            "covariate_set": [None, None, "age", "age_smoking", "many"],
            "step": range(5),
            "stage": ["one_per_eye", "labelled", *["covariates_complete"] * 3],
            "n_images": [410, 400, 397, 388, 300],
            "n_subjects": [205, 200, 198, 197, 150],
            "n_excluded": [0, 10, 3, 12, 100],
            "reasons": ["", "outcome_missing: 10", "age: 3", "smoking: 9; age: 3", "smoking: 94; age: 6"],
        }
    )
    shown = without_small(flow, 5)
    assert shown.loc[2, ["n_images", "n_subjects", "n_excluded"]].tolist() == ["not shown", "not shown", "<5"]
    assert shown["reasons"].tolist()[2:] == ["age: <5", "smoking: not shown; age: <5", "smoking: 94; age: 6"]
    assert shown.loc[3, ["n_images", "n_subjects", "n_excluded"]].tolist() == [388, "not shown", 12]
    assert shown.loc[4, "n_images"] == 300 and shown.loc[1, "n_images"] == 400
    assert reasons_text(shown.loc[3]) == "smoking: not shown; age: <5", "a reason does not vanish with its number"


def test_two_covariate_sets_do_not_tell_how_few_lack_what_one_of_them_has_more():
    flow = pd.DataFrame(
        {
            "outcome": "dr",
            "covariate_set": [None, "crude", "age", "age_site"],
            "step": range(4),
            "stage": ["labelled", *["covariates_complete"] * 3],
            "n_images": [692, 692, 649, 647],
            "n_subjects": [392, 392, 370, 368],
            "n_excluded": [10, 0, 43, 45],
            "reasons": ["no_label: 10", "", "age missing: 43", "age missing: 43; site missing: 2"],
        }
    )
    assert without_small(flow, 5)["n_images"].tolist() == [692, 692, 649, "not shown"]
    primary = without_small(flow, 5, "age_site")
    assert primary["n_images"].tolist() == [692, 692, "not shown", 647]
    assert primary["n_subjects"].tolist() == [392, 392, "not shown", 368] and primary["n_excluded"].tolist() == [10, 0, "not shown", 45]
    fits = pd.DataFrame({"b": list("aaabb"), "n": [649, 647, 600, 630, 647], "n_cases": [236, 236, 230, 230, 236]})
    nobody = pd.Series(False, index=fits.index)
    assert near_others(fits, 5, ["b"], nobody, pd.Series([0, 1, 2, 0, 1])).tolist() == [False, True, False, False, False]
    assert near_others(fits, 5, ["b"], nobody, pd.Series([1, 0, 2, 0, 1])).tolist() == [True, False, False, False, False]
    # women of one set lack two of those of the other: the men of that set would tell them from everybody
    levels = pd.DataFrame({"set": list("aaabbb"), "sub": ["all", "f", "m"] * 2, "n": [200, 90, 110, 190, 88, 102], "n_cases": np.nan})
    levels["variable"] = levels["sub"].replace({"f": "sex", "m": "sex"})
    rank = levels["set"].map({"a": 0, "b": 1})
    found = near_others(levels, 5, ["sub"], pd.Series(False, index=levels.index), rank, ["set", "variable"])
    assert found.tolist() == [False, False, False, False, True, True]


def test_subjects_beside_many_eyes_do_not_tell_how_few_of_them_lack_a_value():
    fits = pd.DataFrame({"outcome": "iop", "biomarker": list("aaab"), "n": [713, 707, 690, 600], "n_clusters": [393, 390, 380, 379]})
    whole, order = pd.Series(393.0, index=fits.index), pd.Series([0, 1, 2, 0])
    assert blank_people(fits, 5, ["outcome"], whole, order).tolist() == [False, True, False, False]
    assert fits["n_clusters"].isna().tolist() == [False, True, False, False] and fits["n"].notna().all()
    fits["n_clusters"] = [393, 383, 380, 379]
    assert blank_people(fits, 5, ["outcome"], whole, order).tolist() == [False, False, True, False]
    assert not blank_people(fits.drop(columns="n_clusters"), 5, ["outcome"], whole, order).any()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Tables of a report on a study in which three eyes lack an age, two a biomarker, and one site has three eyes."""
    results = make_study(tmp_path_factory.mktemp("results") / "made_up", n_subjects=30, n_biomarkers=9)
    table = pd.read_parquet(results / "associations.parquet")
    first = table[(table["subgroup"] == "all") & (table["outcome"] == "dr")].iloc[0]
    name = first["biomarker"]
    everyone = (table["subgroup"] == "all") & (table["outcome"] == "dr")
    table.loc[everyone, ["n", "n_cases"]] = [400, 80]
    table.loc[everyone & (table["biomarker"] == name), "n"] = 398
    table.to_parquet(results / "associations.parquet")
    folder = results / "tables"
    sensitivity = pd.read_csv(folder / "sensitivity.csv").iloc[:1]
    rows = [("primary", 400, 80), ("without:site=A", 160, 30), ("without:site=B", 243, 51), ("without:site=C", 397, 79)]
    other = table.loc[everyone & (table["biomarker"] != name), "biomarker"].iloc[0]
    made = pd.concat([sensitivity.assign(analysis=a, n=n, n_cases=c, outcome="dr", biomarker=other) for a, n, c in rows])
    made.to_csv(folder / "sensitivity.csv", index=False)
    described = pd.read_csv(folder / "description.csv")
    described.loc[described["biomarker"] == name, ["n", "n_missing"]] = [398, 2]
    described.to_csv(folder / "description.csv", index=False)
    discrimination = pd.read_csv(folder / "discrimination.csv")
    discrimination["note"] = np.where(discrimination["predictors"].str.contains("biomarker"), "chosen_on_same_data", None)
    discrimination.to_csv(folder / "discrimination.csv", index=False)
    build_report(results, results / "report.html", QUIET, SETTINGS)
    read = {f.stem: pd.read_csv(f) for f in (folder / "report").glob("*.csv")}
    return {**read, "name": name, "page": (results / "report.html").read_text()}


def test_the_report_hides_what_follows_by_subtraction(tables):
    shown = tables["associations"]
    mine = shown[(shown["outcome"] == "dr") & (shown["biomarker"] == tables["name"])]
    assert mine["n"].isna().all() and mine["n_cases"].isna().all() and mine["n_clusters"].isna().all()
    assert mine["estimate"].notna().any() and mine["note"].str.contains("counts_hidden").all()
    described = tables["description"].set_index("biomarker").loc[tables["name"]]
    assert pd.isna(described["n"]) and pd.isna(described["n_missing"])
    sensitivity = tables["sensitivity"].set_index("analysis")
    assert sensitivity.loc[["without:site=B", "without:site=C"], ["n", "n_cases", "n_clusters"]].isna().all().all()
    assert sensitivity.loc["without:site=A", "n"] == 160 and sensitivity["estimate"].notna().all()


def test_the_page_says_how_biomarkers_were_chosen_and_what_replicated_means(tables):
    page = tables["page"]
    assert "the folds do not undo that choice" in page and "chosen by p in these same eyes" in page
    assert "p under the level divided by the number of discoveries (Bonferroni)" in page
    assert "counts not shown: they would tell of a few eyes left out" in page
    assert ";counts" not in page
