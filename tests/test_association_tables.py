"""The association room from tables to tables: flow, exclusions, notes instead of wild numbers, files that run nowhere."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from association_cohort import plan, run, simulated_tables
from click.testing import CliRunner

from retsam.association import associate
from retsam.association.analysis import Known, analyse
from retsam.association.circularity import learned_photographs
from retsam.association.cli import meta
from retsam.association.describe import table1
from retsam.association.dictionary import COLUMNS, TABLES
from retsam.association.problems import Problems
from retsam.association.sample import PlanError, build_sample
from retsam.association.tables import guard, write_analysis

CONTRACT = (
    "outcome biomarker covariate_set subgroup model n n_cases n_clusters estimate se ci_low ci_high p neg_log10_p q family converged note"
).split()
DICTIONARY = {"b0": Known("vessels", "px", ("artery|vessel", "fov")), "lesion_count": Known("lesions", "count", ("hemorrhage",))}


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(300, 5, seed=1)


@pytest.fixture(scope="module")
def analysis(tables):
    config = plan(
        outcomes=["dr", {"name": "grade", "type": "ordered"}, {"name": "iop", "type": "continuous"}, {"name": "visits_n", "type": "count"},
                  {"name": "death", "type": "time", "column": "years", "event": "died"}],
        subgroups={"sex": None, "age": [60]},
        robustness={"top": 2, "leave_one_out": ["site"], "imputations": 2, "reliability": {"b*": 0.8}, "camera_columns": ["site"]},
        models={"mixed": True},
    )  # fmt: skip
    return analyse(config, *tables, seed=3, dictionary=DICTIONARY)


# ---- the tidy table --------------------------------------------------------------------------------------------------


def test_one_row_a_test_with_the_columns_of_the_contract(analysis):
    table = analysis.associations
    assert list(table.columns[: len(CONTRACT)]) == CONTRACT
    assert not table.duplicated(["outcome", "biomarker", "covariate_set", "subgroup"]).any()
    assert len(table) == 5 * 6 * 2 * 5  # outcomes x biomarkers x sets x (all + 2 sexes + 2 ages)
    silent = table["estimate"].isna() & table["note"].isna()
    assert not silent.any()
    done = table[table["converged"]]
    assert np.isfinite(done[["estimate", "se", "ci_low", "ci_high", "p", "q", "neg_log10_p"]].to_numpy(float)).all()
    assert (done["ci_low"] < done["estimate"]).all() and (done["estimate"] < done["ci_high"]).all()
    assert (done["q"] >= done["p"] - 1e-15).all()
    np.testing.assert_allclose(done["neg_log10_p"].astype(float), -np.log10(done["p"].astype(float)), rtol=1e-6, atol=1e-12)
    assert table["plan"].nunique() == 1 and len(table["plan"].iloc[0]) == 12


def test_known_effects_come_out(analysis):
    table = analysis.associations.set_index(["outcome", "biomarker", "covariate_set", "subgroup"])
    b0 = table.loc[("dr", "b0", "age_sex", "all")]
    # a log odds ratio of 0.8 given the subject shrinks to about 0.8 / sqrt(1 + 0.346 * 0.7^2) at the margin (Zeger, Liang & Albert 1988)
    assert b0["ci_low"] < 0.8 / np.sqrt(1 + 0.346 * 0.49) < b0["ci_high"]
    assert b0["q"] < 0.001 and b0["model"] == "gee_logit"
    assert table.loc[("dr", "lesion_count", "age_sex", "all"), "transform"] == "log1p+standardise"
    assert table.loc[("iop", "b2", "crude", "all"), "estimate"] == pytest.approx(2.0, abs=0.3)
    assert table.loc[("visits_n", "b3", "crude", "all"), "estimate"] == pytest.approx(0.3, abs=0.12)
    assert table.loc[("death", "b0", "crude", "all"), "estimate"] == pytest.approx(0.5, abs=0.15)
    assert table.loc[("grade", "b1", "crude", "all"), "q"] < 0.05
    assert np.isnan(table.loc[("iop", "b2", "crude", "all"), "ratio"])


def test_families_are_corrected_within_and_named(analysis):
    table = analysis.associations
    part = table[(table["outcome"] == "dr") & (table["covariate_set"] == "crude") & (table["subgroup"] == "all")]
    assert part["family"].nunique() == 1 and "6 tests" in part["family"].iloc[0] and "Benjamini-Hochberg" in part["family"].iloc[0]
    p = np.sort(part["p"].astype(float))
    assert np.sort(part["q"].astype(float))[0] == pytest.approx(np.min(p * 6 / np.arange(1, 7)))
    np.testing.assert_allclose(part["p_bonferroni"], np.minimum(1, part["p"] * 6))


def test_flow_adds_up_and_ends_in_the_models(analysis):
    flow = analysis.tables["flow"]
    shared = flow[flow["outcome"] == "all"].sort_values("step")
    before = shared["n_images"].shift()
    assert (before - shared["n_excluded"] == shared["n_images"])[1:].all()
    for row in flow.itertuples():
        counts = [int(part.rsplit(": ", 1)[1]) for part in row.reasons.split("; ")] if row.reasons else []
        assert sum(counts) == row.n_excluded
    main = analysis.associations
    for outcome in main["outcome"].unique():
        labelled = flow[(flow["outcome"] == outcome) & (flow["stage"] == "labelled")].iloc[0]
        assert shared["n_images"].iloc[-1] - labelled["n_excluded"] == labelled["n_images"]
        for covariate_set in ("crude", "age_sex"):
            last = flow[(flow["outcome"] == outcome) & (flow["covariate_set"] == covariate_set)].iloc[0]
            assert labelled["n_images"] - last["n_excluded"] == last["n_images"]
            rows = main[(main["outcome"] == outcome) & (main["covariate_set"] == covariate_set) & (main["subgroup"] == "all")]
            assert rows.set_index("biomarker").loc["b0", "n"] == last["n_images"]


def test_rejects_duplicates_and_failures_are_out_and_counted(analysis, tables):
    _, quality, _ = tables
    flow = analysis.tables["flow"].set_index("stage")
    assert flow.loc["readable", "reasons"] == "unreadable: 3"
    assert flow.loc["unique", "reasons"] == "duplicate: 1"
    rejected = ((quality["grade"] == "reject") & (quality["status"] == "ok")).sum()
    assert flow.loc["gradable", "reasons"] == f"reject: {rejected}"


def test_every_table_has_the_documented_columns(analysis):
    for name, table in analysis.tables.items():
        assert tuple(table.columns) == TABLES[name].columns, name
        assert len(table) or analysis.notes[name], name
    undocumented = {c for t in TABLES.values() for c in t.columns if c not in COLUMNS}
    # what is left explains itself or is explained by the column that it varies: quantiles, parts of a split, suffixes of a correction
    allowed = {c for c in undocumented if c[:1] == "p" and c[1:].isdigit()}
    plain = {
        "min",
        "max",
        "mean",
        "median",
        "q1",
        "q3",
        "skewness",
        "kurtosis",
        "n_distinct",
        "share_zero",
        "low",
        "high",
        "quintile",
        "knots",
    }
    assert not {c for c in undocumented - allowed - plain if "_" not in c and c not in _SELF_EVIDENT}


_SELF_EVIDENT = {
    "table", "column", "meaning", "rows", "title", "reason", "count", "density", "position", "cluster", "scope", "levels", "df", "chi2",
    "split", "bin", "predicted", "observed", "fpr", "tpr", "folds", "columns", "studies",
}  # fmt: skip


# ---- further analyses ------------------------------------------------------------------------------------------------


def test_each_different_label_is_read_once(monkeypatch):
    from retsam.association import outcomes

    read = []
    monkeypatch.setattr(outcomes, "text_of", lambda value: read.append(value) or str(value).removesuffix(".0"))
    frame = pd.DataFrame({"dr": [0.0, 1.0, np.nan, 1.0] * 500})
    coded = outcomes.code_outcome(frame, plan().outcomes[0])
    assert np.array_equal(coded.y, frame["dr"], equal_nan=True) and sorted(read) == ["0.0", "1.0"]


def test_a_stage_has_one_bar_that_moves_with_every_repeat(tables, monkeypatch):
    from retsam.association.cli import Bars

    made = []

    class Bar:
        def __init__(self, **settings):
            made.append(self)
            self.n, self.settings, self.closed = 0, settings, False

        def update(self, count):
            self.n += count

        def close(self):
            self.closed = True

    monkeypatch.setattr("tqdm.tqdm", Bar)
    bars, told = Bars(), []

    def progress(*call):
        told.append(call)
        bars(*call)

    names = ("shape", "interactions", "discrimination", "measurement_error", "camera")
    robustness = {"top": 1, "leave_one_out": ["site"], "replication": None, **dict.fromkeys(names, False)}
    analyse(plan(robustness=robustness), *tables, dictionary=DICTIONARY, progress=progress)
    bars.close()
    assert [(b.settings["desc"], b.settings["unit"]) for b in made] == [("associations", "model"), ("further analyses", "step")]
    assert all(b.n == b.settings["total"] and b.closed for b in made)
    steps = [done for stage, done, _ in told if stage == "further analyses"]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 6 + 1 + 3  # six analyses, primary, without each site


def test_description_tables(analysis, tables):
    t1 = analysis.tables["table1"]
    age = t1[(t1["outcome"] == "dr") & (t1["variable"] == "age")].set_index("group")
    assert age.loc["cases", "value"] > age.loc["controls", "value"]
    assert 0 < age.loc["all", "smd"] < 1
    missing = analysis.tables["missingness"].set_index(["biomarker", "reason"])
    assert set(missing.index.get_level_values("biomarker")) == {"b4"}
    described = analysis.tables["description"].set_index("biomarker")
    assert missing["n"].sum() == described.loc["b4", "n_missing"]
    icc = analysis.tables["agreement"].set_index("biomarker").loc["b0"]
    assert icc["ci_low"] < 0.6 < icc["ci_high"]  # the eyes share 60 % of the variance
    density = analysis.tables["density"]
    total = density.groupby(["outcome", "group", "biomarker"])["count"].sum()
    distribution = analysis.tables["distribution"].set_index(["outcome", "group", "biomarker"])["n"]
    pd.testing.assert_series_equal(total.sort_index(), distribution.sort_index(), check_names=False)


def test_table_1_equals_tableone(tables):
    """Means, counts and standardised differences, which tableone rounds to three digits."""
    from tableone import TableOne

    config = plan(covariate_sets={"all": ["age", "sex", "site"]})
    sample = build_sample(config, *tables, ["b0"])
    problems = Problems(sample, config)
    mine = table1(problems, config).set_index(["variable", "level", "group"])
    eyes = sample.frame[problems.eligible["dr"]].assign(dr=lambda f: f["dr"].map({0.0: "controls", 1.0: "cases"}))
    theirs = TableOne(
        eyes[["age", "sex", "site", "dr"]], continuous=["age"], categorical=["sex", "site"], groupby="dr", pval=False, smd=True, decimals=4
    ).tableone
    theirs.columns = [c[-1] for c in theirs.columns]
    for variable, level, label in (("age", "", "age, mean (SD)"), ("sex", "Female", "sex, n (%)"), ("site", "A", "site, n (%)")):
        row = theirs.loc[(label, level)]
        smd = abs(float(next(row[c] for c in theirs.columns if c.startswith("SMD"))))
        assert mine.loc[(variable, level, "all"), "smd"] == pytest.approx(smd, abs=6e-4), variable
        for group in ("cases", "controls"):
            value = float(row[group].split(" ")[0])
            assert mine.loc[(variable, level, group), "value"] == pytest.approx(value, abs=6e-5), (variable, group)


def test_sensitivity_holds_and_names_what_changed(analysis):
    table = analysis.tables["sensitivity"]
    b0 = table[(table["outcome"] == "dr") & (table["biomarker"] == "b0")].set_index("analysis")
    wanted = {
        "primary",
        "gradable_only",
        "without:site=A",
        "exchangeable",
        "one_eye",
        "winsorised",
        "rank_inverse_normal",
        "imputed",
        "mixed_model",
    }
    assert wanted <= set(b0.index)
    assert (b0["estimate"] > 0.4).all()
    assert b0.loc["one_eye", "n"] == b0.loc["one_eye", "n_clusters"]
    assert b0.loc["gradable_only", "n"] < b0.loc["primary", "n"]
    # conditional on the subject, odds ratios lie further from 1
    assert b0.loc["mixed_model", "estimate"] > b0.loc["primary", "estimate"]


def test_replication_splits_subjects_whole(analysis):
    table = analysis.tables["replication"]
    row = table[(table["outcome"] == "dr") & (table["biomarker"] == "b0")].iloc[0]
    main = analysis.associations
    whole = main[
        (main["outcome"] == "dr") & (main["biomarker"] == "b0") & (main["covariate_set"] == "age_sex") & (main["subgroup"] == "all")
    ].iloc[0]
    assert row["n_discovery"] + row["n_replication"] == whole["n"]
    assert row["replicated"] and row["same_direction"]
    assert row["estimate_fixed"] == pytest.approx(whole["estimate"], abs=0.1)


def test_correction_moves_away_from_zero_and_keeps_the_plain_estimate(analysis):
    table = analysis.tables["measurement_error"].set_index(["outcome", "biomarker"])
    row = table.loc[("dr", "b0")]
    assert row["reliability_source"] == "given" and row["attenuation"] == pytest.approx(0.8, abs=0.02)
    assert row["estimate_rc"] > row["estimate"] and row["estimate_simex"] > row["estimate"]
    assert table.loc[("dr", "lesion_count"), "note"] == "reliability_unknown"


def test_discrimination_is_cross_validated(analysis):
    table = analysis.tables["discrimination"]
    covariates = table[table["predictors"] == "covariates"].iloc[0]
    together = table[table["predictors"] == "covariates+set"].iloc[0]
    assert together["auc"] > covariates["auc"] and together["delta_low"] > 0
    assert 0.5 < together["calibration_slope"] < 1.5 and abs(together["calibration_intercept"]) < 0.2
    roc = analysis.tables["roc"]
    for _, curve in roc.groupby(["outcome", "predictors"]):
        assert curve["fpr"].is_monotonic_increasing and curve["tpr"].is_monotonic_increasing and curve["tpr"].iloc[-1] == 1


def test_interaction_finds_a_difference_and_not_more():
    tables = simulated_tables(500, 4, seed=5)
    cohort, quality, biomarkers = tables
    rng = np.random.default_rng(0)
    male = (cohort["sex"] == "Male").to_numpy()
    b1, b2 = (biomarkers[b].fillna(0).to_numpy() for b in ("b1", "b2"))
    cohort = cohort.assign(made=(rng.random(len(cohort)) < 1 / (1 + np.exp(0.5 - 1.2 * b1 * male - 0.5 * b2))).astype(int))
    config = plan(outcomes=["made"], subgroups={"sex": None}, robustness={"top": 1, "measurement_error": False, "discrimination": False})
    table = analyse(config, cohort, quality, biomarkers, dictionary={}).tables["interactions"].set_index("biomarker")
    assert table.loc["b1", "q"] < 1e-4
    assert table.loc["b2", "p"] > 0.01
    assert table.loc["b1", "df"] == 1 and table.loc["b1", "levels"] == "Female;Male"


def test_camera_warns_where_the_label_follows_the_image_size(tables):
    cohort, quality, biomarkers = tables
    rng = np.random.default_rng(2)
    follows = np.where(rng.random(len(quality)) < 0.9, cohort["dr"].fillna(0), 1 - cohort["dr"].fillna(0))
    tangled = quality.assign(width=np.where(follows == 1, 1024, 512))
    quick = {"top": 1, "measurement_error": False, "discrimination": False, "replication": None, "shape": False}
    table = analyse(plan(robustness=quick), cohort, tangled, biomarkers, dictionary={}).tables["camera"].set_index("predictors")
    assert table.loc["image_size", "warning"] and table.loc["image_size", "note"] == "label_predicted_by_camera"
    assert not table.loc["quality", "warning"]
    assert table.loc["source", "note"] == "no_columns"
    # sixty clinics, in half of which three of four eyes are cases: every clinic has its say
    clinic = np.arange(len(cohort)) % 60
    case = rng.random(len(cohort)) < np.where(clinic % 2, 0.75, 0.25)
    named = cohort.assign(subject=[f"s{i}" for i in range(len(cohort))], dr=case.astype(int), clinic=[f"clinic {c}" for c in clinic])
    config = plan(covariate_sets={"crude": []}, robustness={**quick, "camera_columns": ["clinic"]})
    table = analyse(config, named, quality, biomarkers, dictionary={}).tables["camera"].set_index("predictors")
    assert table.loc["source", "auc"] == pytest.approx(0.73, abs=0.05)


def test_circular_biomarkers_are_marked_and_repeated_without_those_subjects(tables, tmp_path):
    cohort, quality, biomarkers = tables
    taught = cohort["image_id"].iloc[20:120]
    pd.DataFrame({"head": "hemorrhage", "image_id": taught}).to_csv(tmp_path / "labels.csv", index=False)
    settings = {"table": str(tmp_path / "labels.csv"), "use": "mark"}
    quick = {"top": 3, "measurement_error": False, "discrimination": False, "replication": None, "shape": False}
    marked = analyse(plan(circularity=settings, robustness=quick), cohort, quality, biomarkers, dictionary=DICTIONARY)
    table = marked.associations.set_index(["biomarker", "covariate_set"])
    assert table.loc[("lesion_count", "crude"), "circular"] and "used_by_head" in table.loc[("lesion_count", "crude"), "note"]
    assert not table.loc[("b0", "crude"), "circular"]
    circles = marked.tables["circularity"].set_index("biomarker")
    assert circles.loc["lesion_count", "n_overlap"] > 0 and circles.loc["b1", "note"] == "heads_unknown"
    again = marked.tables["sensitivity"]
    again = again[again["analysis"] == "untrained_subjects"].set_index("biomarker")
    assert again.loc["lesion_count", "n"] < table.loc[("lesion_count", "age_sex"), "n"]
    out = analyse(plan(circularity={**settings, "use": "exclude"}), cohort, quality, biomarkers, dictionary=DICTIONARY, further=False)
    assert "label_used_in_training" in out.tables["flow"].set_index("stage").loc["eligible", "reasons"]
    assert not out.associations["circular"].any()


def test_subjects_that_taught_a_head_are_left_out_of_its_biomarkers_only(tables, tmp_path):
    cohort, quality, biomarkers = tables
    quality = quality.assign(content_hash=[f"{i:032x}" for i in range(len(quality))])
    own = quality["image_id"].isin(cohort["image_id"].iloc[20:120])
    pd.DataFrame({"content_hash": quality.loc[own, "content_hash"], "heads": "hemorrhage;drusen"}).to_csv(
        tmp_path / "w.learned.csv", index=False
    )
    learned = learned_photographs(tmp_path / "w.safetensors")
    alone = analyse(plan(), cohort, quality, biomarkers, dictionary=DICTIONARY, further=False)
    apart = analyse(plan(), cohort, quality, biomarkers, dictionary=DICTIONARY, further=False, learned=learned)
    before, after = (x.associations.set_index(["biomarker", "covariate_set"]) for x in (alone, apart))
    assert after.loc[("lesion_count", "crude"), "n"] < before.loc[("lesion_count", "crude"), "n"]
    assert not apart.associations["circular"].any()
    pd.testing.assert_series_equal(after.loc[("b1", "crude"), ["n", "estimate", "p"]], before.loc[("b1", "crude"), ["n", "estimate", "p"]])
    circles = apart.tables["circularity"].set_index("biomarker")
    assert "learned_from_subjects_left_out" in after.loc[("lesion_count", "crude"), "note"]
    assert circles.loc["lesion_count", "note"] == "learned_from_subjects_left_out" and circles.loc["lesion_count", "n_overlap"] > 0
    assert learned_photographs(tmp_path / "other.safetensors") is None
    (tmp_path / "lost.json").write_text('{"weak": {"learned_from": "lost.learned.csv"}}')
    with pytest.raises(PlanError, match="found no file"):
        learned_photographs(tmp_path / "lost.safetensors")


def test_threads_and_order_of_rows_do_not_change_the_answer(tables):
    one = run(tables, workers=1)
    two = run(tables, workers=3)
    pd.testing.assert_frame_equal(one, two)
    cohort, quality, biomarkers = tables
    shuffled = associate(plan(), cohort, quality.sample(frac=1, random_state=0), biomarkers.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(one, shuffled)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_are_complete_safe_and_agree(tables, tmp_path):
    cohort, quality, biomarkers = tables
    cohort = cohort.assign(site=cohort["site"].replace({"A": "=HYPERLINK(1)", "B": "<b>&"}))
    config = plan(subgroups={"site": None}, robustness={"top": 1, "measurement_error": False, "discrimination": False, "replication": None})
    result = analyse(config, cohort, quality, biomarkers, dictionary={})
    out = tmp_path / "study" / "associations.parquet"
    out.parent.mkdir()
    written = write_analysis(result, out)
    assert all(path.is_file() for path in written) and not list(out.parent.rglob("*.part"))
    parquet, csv = pd.read_parquet(out), pd.read_csv(out.with_suffix(".csv"))
    assert len(parquet) == len(csv) and list(parquet.columns) == list(csv.columns)
    record = json.loads(out.with_suffix(".json").read_text())
    assert len(record["rows"]) == len(parquet) and record["plan_sha256"][:12] == parquet["plan"].iloc[0]
    assert set(record["dictionary"]) == set(parquet.columns) and all(record["dictionary"].values())
    for path in out.parent.rglob("*.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in cells:
            numeric = pd.to_numeric(cells[column], errors="coerce").notna()
            assert not cells.loc[~numeric, column].str.match(r"[=+\-@\t\r]").any(), (path.name, column)
    index = pd.read_csv(out.parent / "tables" / "index.csv").set_index("table")
    assert set(index.index) | {"associations", "index", "dictionary", "meta"} == set(TABLES)
    assert index.loc[index["rows"] == 0, "note"].notna().all()
    assert "Kauermann" in (out.parent / "tables" / "methods.md").read_text()


def test_guard():
    assert [guard(v) for v in ("=1+1", "+a", "-a", "@a", "\ta", "a=1", "", -1.5, None)] == [
        "'=1+1",
        "'+a",
        "'-a",
        "'@a",
        "'\ta",
        "a=1",
        "",
        -1.5,
        None,
    ]


def test_meta_pools_two_studies(tmp_path):
    for name, seed in (("a", 11), ("b", 12)):
        associate(plan(), *simulated_tables(250, 4, seed=seed)).to_parquet(tmp_path / f"{name}.parquet")
    arguments = [f"--study={n}={tmp_path / n}.parquet" for n in ("a", "b")]
    result = CliRunner().invoke(meta, [*arguments, "--out", str(tmp_path / "meta.parquet")])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "meta.parquet").set_index(["biomarker", "covariate_set"])
    row = table.loc[("b0", "age_sex")]
    assert row["n_studies"] == 2 and min(row["estimate_a"], row["estimate_b"]) <= row["estimate_fixed"] <= max(
        row["estimate_a"], row["estimate_b"]
    )
    assert row["se_fixed"] < min(row["se_a"], row["se_b"]) and row["se_random"] >= row["se_fixed"] - 1e-12
    bad = CliRunner().invoke(meta, ["--study", "a=nowhere.parquet", "--study", "oops", "--out", str(tmp_path / "m.parquet")])
    assert bad.exit_code == 2 and "no such file" in bad.output and "NAME=FILE" in bad.output


# ---- reading the biomarker table ---------------------------------------------------------------------------------------


def test_only_what_the_plan_tests_is_read_and_the_answer_is_the_same(tables, tmp_path, monkeypatch):
    """Few columns at a time, reasons as categories: the analysis of the whole table in memory comes out bit by bit."""
    from retsam.association import read

    monkeypatch.setattr(read, "COLUMNS", 2)
    cohort, quality, biomarkers = tables
    biomarkers.to_parquet(tmp_path / "biomarkers.parquet", index=False)
    config = plan(exposures={"columns": ["b1", "b2", "b3"], "families": []})
    table = read.read_biomarkers(tmp_path / "biomarkers.parquet", config)
    assert [c for c in table if not c.endswith("__reason")] == [c for c in read.KEYS if c in biomarkers] + ["b1", "b2", "b3"]
    assert all(isinstance(table[f"b{i}__reason"].dtype, pd.CategoricalDtype) for i in (1, 2, 3))
    ours, theirs = (analyse(config, cohort, quality, t, dictionary={}, further=False) for t in (table, biomarkers))
    pd.testing.assert_frame_equal(ours.associations, theirs.associations)
    with pytest.raises(PlanError, match="no biomarker 'nowhere'"):
        read.read_biomarkers(tmp_path / "biomarkers.parquet", plan(exposures={"columns": ["nowhere"]}))


@pytest.mark.parametrize("what", ["grade", "status"])
def test_a_study_in_which_no_photograph_can_be_analysed_ends_with_its_reasons(tables, tmp_path, what):
    cohort, quality, biomarkers = tables
    none = quality.assign(**({"grade": "reject"} if what == "grade" else {"status": "failed", "reason": "unreadable"}))
    config = plan(
        outcomes=["dr", {"name": "grade", "type": "ordered"}, {"name": "death", "type": "time", "column": "years", "event": "died"}],
        subgroups={"sex": None},
        robustness={"top": 1, "leave_one_out": ["site"], "imputations": 2, "camera_columns": ["site"]},
    )
    result = analyse(config, cohort, none, biomarkers, dictionary=DICTIONARY)
    assert result.associations["estimate"].isna().all() and result.associations["note"].notna().all()
    assert (result.associations["n"] == 0).all()
    assert all(path.is_file() for path in write_analysis(result, tmp_path / "associations.parquet"))
