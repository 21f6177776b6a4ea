"""Order of the rows, reliability of means, folds, chosen biomarkers, units of pooled estimates, and dropped levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retsam.association.analysis import analyse
from retsam.association.config import AssociationConfig
from retsam.association.discrimination import CHOSEN, clustered_auc, cross_validated, fold_auc, folds_by_cluster
from retsam.association.grid import make_exposures
from retsam.association.meta import meta_analysis
from retsam.association.problems import Problems
from retsam.association.robustness import interactions
from retsam.association.sample import build_sample

OFF = {
    "shape": False,
    "interactions": False,
    "replication": None,
    "discrimination": False,
    "measurement_error": False,
    "camera": False,
    "rank": False,
    "winsorise": 0,
    "one_eye": False,
    "other_correlation": False,
    "gradable_only": False,
}


def made(seed, subjects=120, biomarkers=2, beta=0.0, prevalence=0.3):
    """Two eyes a subject, age and sex, a binary and a continuous outcome."""
    rng = np.random.default_rng(seed)
    n = 2 * subjects
    x = np.sqrt(0.5) * (np.repeat(rng.normal(size=(subjects, biomarkers)), 2, 0) + rng.normal(size=(n, biomarkers)))
    lin = np.log(prevalence / (1 - prevalence)) + beta * x[:, 0] + np.repeat(rng.normal(size=subjects), 2)
    cohort = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "subject": np.repeat([f"p{s}" for s in range(subjects)], 2),
            "eye": ["R", "L"] * subjects,
            "status": "ok",
            "dr": (rng.random(n) < 1 / (1 + np.exp(-lin))).astype(int),
            "iop": x[:, 0] + rng.normal(size=n),
            "age": np.repeat(rng.normal(60, 10, subjects), 2),
            "site": np.repeat(rng.choice(list("AB"), subjects), 2),
        }
    )
    quality = pd.DataFrame({"image_id": cohort["image_id"], "status": "ok", "grade": "gradable", "sharpness": rng.normal(size=n)})
    measured = pd.DataFrame({"image_id": cohort["image_id"], "status": "ok"})
    for b in range(biomarkers):
        measured[f"b{b}"], measured[f"b{b}__reason"] = x[:, b], None
    return cohort, quality, measured


def test_the_order_of_the_rows_does_not_matter():
    cohort, quality, measured = made(1, 60, beta=0.5)
    rng = np.random.default_rng(2)
    cohort.loc[rng.random(len(cohort)) < 0.1, "age"] = np.nan
    measured.loc[rng.random(len(measured)) < 0.1, "b1"] = np.nan
    # a second photograph of some eyes, of the same grade: one of the two is chosen
    more = [t.iloc[:20].assign(image_id=[f"z{k}" for k in range(20)]) for t in (cohort, quality, measured)]
    more[2]["b0"] += 1
    tables = [pd.concat([t, m], ignore_index=True) for t, m in zip((cohort, quality, measured), more, strict=True)]
    robustness = {"imputations": 2, "folds": 2, "replication": "subject", "reliability": {"b0": 0.8}, "leave_one_out": ["site"]}
    config = AssociationConfig(outcomes=["dr"], covariate_sets={"age": ["age"]}, subgroups={"site": None}, robustness=robustness)
    first = analyse(config, *tables, seed=5, dictionary={})
    shuffled = [t.iloc[rng.permutation(len(t))].reset_index(drop=True) for t in tables]
    second = analyse(config, *shuffled, seed=5, dictionary={})
    pd.testing.assert_frame_equal(first.associations, second.associations)
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, second.tables[name], obj=name)
    assert len(first.tables["replication"]) and first.tables["sensitivity"]["analysis"].eq("imputed").any()
    assert first.tables["sensitivity"].query("analysis == 'one_eye'")["estimate"].notna().all()


def test_the_reliability_of_a_mean_of_two_eyes_is_that_of_the_mean():
    rng = np.random.default_rng(1)
    subjects = 600
    truth = np.repeat(rng.normal(size=subjects), 4)  # the same in both eyes
    reading = truth + rng.normal(size=4 * subjects)  # the reliability of one photograph is 0.5, of the mean of two eyes 2/3
    cohort = pd.DataFrame(
        {
            "image_id": [f"i{k:05d}" for k in range(4 * subjects)],
            "subject": np.repeat([f"p{s}" for s in range(subjects)], 4),
            "eye": ["R", "R", "L", "L"] * subjects,
            "status": "ok",
            "va": truth + np.repeat(rng.normal(size=subjects), 4),
        }
    )
    # an eye without a second photograph: its subject's mean is not known twice
    drop = cohort["subject"].eq("p0") & cohort["eye"].eq("L") & cohort["image_id"].duplicated(keep=False)
    cohort = cohort[~drop].iloc[:-1]
    quality = pd.DataFrame({"image_id": cohort["image_id"], "status": "ok", "grade": "gradable"})
    measured = pd.DataFrame({"image_id": cohort["image_id"], "status": "ok", "b0": reading[cohort.index], "b0__reason": None})
    found = {}
    for level in ("eye", "subject_mean"):
        config = AssociationConfig(
            outcomes=[{"name": "va", "type": "continuous"}],
            covariate_sets={"crude": []},
            exposures={"standardise": False},
            unit={"level": level},
            robustness={**OFF, "measurement_error": True},
        )
        found[level] = analyse(config, cohort, quality, measured, dictionary={}).tables["measurement_error"].iloc[0]
    assert found["eye"]["reliability"] == pytest.approx(1 / 2, abs=0.07)
    assert found["subject_mean"]["reliability"] == pytest.approx(2 / 3, abs=0.07)
    for row in found.values():
        assert row["reliability_source"] == "repeat_photographs"
    # the slope on the truth is 1
    assert found["subject_mean"]["estimate_rc"] == pytest.approx(1, abs=0.15)
    assert found["subject_mean"]["estimate_simex"] == pytest.approx(1, abs=0.15)


def test_corrected_estimates_have_the_scale_of_the_plan():
    cohort, quality, measured = made(3, beta=0.5)
    measured["b0"] *= 10
    tables = {}
    for standardise in (True, False):
        config = AssociationConfig(
            outcomes=["dr"],
            covariate_sets={"crude": []},
            exposures={"standardise": standardise},
            robustness={**OFF, "measurement_error": True, "reliability": {"b*": 0.8}},
        )
        done = analyse(config, cohort, quality, measured, seed=1, dictionary={})
        main = done.associations.set_index("biomarker").loc["b0"]
        tables[standardise] = done.tables["measurement_error"].set_index("biomarker").loc["b0"]
        assert tables[standardise]["estimate"] == pytest.approx(main["estimate"], rel=1e-6)
    for column in ("estimate", "se", "ci_low", "ci_high", "estimate_rc", "ci_high_rc", "estimate_simex", "se_simex"):
        assert tables[False][column] == pytest.approx(tables[True][column] / main["sd"], rel=1e-6)


def test_a_model_without_predictors_tells_nothing():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), 2)
    y = (rng.random(120) < 0.25).astype(float)
    fold = folds_by_cluster(cluster, y, 5, rng)
    eta, score = cross_validated(np.empty((120, 0)), y, fold, np.zeros(0, dtype=bool))
    assert clustered_auc(eta, y, cluster)[0][0] < 0.5, "what compares folds with each other says"
    assert fold_auc(eta, y, cluster, fold)[0][0] == 0.5 and not score.any()
    config = AssociationConfig(outcomes=["dr"], covariate_sets={"crude": []}, robustness={**OFF, "discrimination": True, "top": 1})
    done = analyse(config, *made(4), dictionary={})
    table = done.tables["discrimination"].set_index("predictors")
    assert table.loc["covariates", "auc"] == 0.5 and np.isnan(table.loc["covariates", "calibration_slope"])
    roc = done.tables["roc"].query("predictors == 'covariates'")
    np.testing.assert_allclose(roc["fpr"], roc["tpr"], atol=1e-12)
    # the biomarker is the better of two on these very eyes
    for name in ("biomarker", "covariates+biomarker"):
        assert table.loc[name, "note"] == CHOSEN
    assert np.isnan(table.loc["covariates+biomarker", "delta_p"]) and np.isfinite(table.loc["covariates+biomarker", "delta_auc"])
    assert np.isfinite(table.loc["covariates+set", "delta_p"]) and pd.isna(table.loc["covariates+set", "note"])
    assert "too high" in done.methods
    every = config.model_copy(update={"robustness": config.robustness.model_copy(update={"top": 0})})
    done = analyse(every, *made(4), dictionary={})
    table = done.tables["discrimination"]
    assert table["note"].isna().all() and table.loc[table["predictors"] == "covariates+biomarker", "delta_p"].notna().all()
    assert "too high" not in done.methods


def test_held_out_auc_of_noise_is_a_half():
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(50), 2)
        y, x = (rng.random(100) < 0.2).astype(float), rng.normal(size=(100, 3))
        fold = folds_by_cluster(cluster, y, 5, rng)
        _, score = cross_validated(x, y, fold, np.zeros(3, dtype=bool))
        found.append(fold_auc(score, y, cluster, fold)[0][0])
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / np.sqrt(len(found)))


def test_pooled_estimates_say_where_their_units_differ():
    studies = {}
    for name, factor in (("A", 1.0), ("B", 3.0)):
        cohort, quality, measured = made(1)
        measured["b0"] *= factor
        measured["b1"] = np.exp(measured["b1"]) * factor
        config = AssociationConfig(
            outcomes=[{"name": "iop", "type": "continuous"}],
            covariate_sets={"crude": []},
            exposures={"transforms": {"b1": "log_relative"}},
        )
        studies[name] = analyse(config, cohort, quality, measured, further=False, dictionary={}).associations
    table = meta_analysis(studies).set_index("biomarker")
    assert table.loc["b0", "note"] == "different_sd" and np.isfinite(table.loc["b0", "estimate_fixed"])
    assert table.loc["b1", "note"] == "different_log_unit"
    assert meta_analysis({"A": studies["A"], "C": studies["A"]})["note"].isna().all()
    # per unit, an SD is no unit
    raw = {name: t.assign(scale="per_unit") for name, t in studies.items()}
    assert pd.isna(meta_analysis(raw).set_index("biomarker").loc["b0", "note"])


def test_an_interaction_names_the_levels_that_it_compares():
    cohort, quality, measured = made(2)
    cohort.loc[:3, "site"] = "C"
    config = AssociationConfig(outcomes=["dr"], covariate_sets={"crude": []}, subgroups={"site": None})
    sample = build_sample(config, cohort, quality, measured, ["b0"])
    row = interactions(Problems(sample, config), make_exposures(["b0"], sample.values, {}, {}, config), config).iloc[0]
    assert row["levels"] == "A;B" and row["note"] == "level_dropped:site=C" and row["n"] == len(cohort) - 4 and row["df"] == 1


def test_times_are_not_imputed_for():
    cohort, quality, measured = made(2)
    rng = np.random.default_rng(0)
    cohort["years"], cohort["died"] = rng.exponential(size=len(cohort)) + 0.01, rng.integers(0, 2, len(cohort))
    measured.loc[rng.random(len(measured)) < 0.2, "b0"] = np.nan
    config = AssociationConfig(
        outcomes=["dr", {"name": "death", "column": "years", "type": "time", "event": "died"}],
        covariate_sets={"age": ["age"]},
        robustness={**OFF, "imputations": 2},
    )
    done = analyse(config, cohort, quality, measured, dictionary={})
    rows = done.tables["sensitivity"].query("analysis == 'imputed' and biomarker == 'b0'").set_index("outcome")
    assert rows.loc["death", "note"] == "imputation_not_for_times" and np.isnan(rows.loc["death", "estimate"])
    assert np.isfinite(rows.loc["dr", "estimate"]) and "not imputed for" in done.methods


def test_two_folds_leave_nothing_to_choose_a_penalty_on():
    rng = np.random.default_rng(0)
    y, x = (rng.random(80) < 0.5).astype(float), rng.normal(size=(80, 2))
    fold = np.arange(80) % 2
    found, _ = cross_validated(x, y, fold, np.ones(2, dtype=bool), (1.0, 10.0, 100.0))
    np.testing.assert_array_equal(found, cross_validated(x, y, fold, np.ones(2, dtype=bool), (10.0,))[0])
