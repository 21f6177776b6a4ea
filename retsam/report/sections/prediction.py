"""How well biomarkers, and the camera alone, tell cases from controls; and what heads have seen of the analysed subjects."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from retsam.report.disclosure import blank_counts, hide_fits, show_count
from retsam.report.html import count, join, number, p_text, paragraph, percent, tag
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.associations import in_words
from retsam.report.sections.common import counts_told, level, meta, packed, reader
from retsam.report.study import Problem, Study

#: Models of the discrimination tables as they are called on the page.
MODELS = {"covariates": "covariates", "covariates+set": "covariates + all biomarkers"}

#: Checks of the camera whose name says too little.
CHECKS = {"camera": "all of these columns together"}


def discrimination(study: Study, page: Page, minimum: int) -> Section:
    """Cross-validated AUC, ROC and calibration."""
    title = "Discrimination and calibration"
    table = study.table("discrimination", "outcome", "predictors", "auc", "n", "n_cases")
    if table is None:
        return Section("discrimination", title, not_shown("Discrimination", study.why_absent("discrimination")))
    table = table.copy()
    table["hidden"] = hide_fits(table.assign(n=table["n"], n_cases=table["n_cases"]), minimum, ["outcome"], total_known=False)
    told = counts_told(study, table, minimum)
    blank_counts(table, told)
    # bins of the calibration add up to the sample of the covariates
    without_counts = set(table.loc[told & table["predictors"].str.startswith("covariates"), "outcome"])
    table = table[~table["hidden"]]
    kinds = list(dict.fromkeys(table["predictors"].dropna()))
    several_sets = "covariate_set" in table and table["covariate_set"].nunique() > 1
    table["label"] = [_predictors(r, several_sets) for _, r in table.iterrows()]
    table["k"] = table["predictors"].map({k: i for i, k in enumerate(kinds)})
    table["extra"] = [_delta(r) for _, r in table.iterrows()]
    table["detail"] = [_detail(r) for _, r in table.iterrows()]
    names = {
        "outcome": "outcome",
        "label": "label",
        "k": "k",
        "n": "n",
        "cases": "n_cases",
        "est": "auc",
        "lo": "ci_low",
        "hi": "ci_high",
        "extra": "extra",
        "detail": "detail",
        "note": "note",
    }
    chosen = table["note"].astype("string").str.contains("chosen_on_same_data").fillna(False).any() if "note" in table else False
    selected = (
        " The single biomarkers are those with the smallest p for this outcome in these very eyes: the folds do not undo that choice, so "
        "that their AUC and gain are too high, and the gain has no p."
        if chosen
        else ""
    )
    figure = page.figure(
        "discrimination",
        "auc",
        "Cross-validated AUC.",
        f"Folds are grouped by {study.cluster}, and cases are compared with controls of the same fold; each biomarker alone, then with the "
        f"covariates. Gain is the difference from the covariates alone. The line at 0.5 is chance.{selected}",
        {"rows": packed(in_words(table), names), "meta": meta(study, extra="gain (CI)")},
        static="discrimination",
    )
    page.files["discrimination"] = table.drop(columns=["plan", "label", "k", "extra", "detail", "hidden"], errors="ignore")
    parts = [figure]
    roc = study.table("roc", "outcome", "predictors", "fpr", "tpr")
    if roc is not None:
        roc = roc.assign(predictors=roc["predictors"].replace(MODELS))
        roc = roc.groupby(["outcome", "predictors"], group_keys=False, sort=False)[["outcome", "predictors", "fpr", "tpr"]].apply(thin)
        parts.append(
            page.figure(
                "roc",
                "roc",
                "ROC curves.",
                "From the predictions for held-out folds, each less the average of its fold's model, so that folds can be compared.",
                {"rows": packed(roc, {"outcome": "outcome", "predictors": "predictors", "fpr": "fpr", "tpr": "tpr"}), "meta": meta(study)},
                static="roc",
            )
        )
    calibration = study.table("calibration", "outcome", "predictors", "predicted", "observed")
    if calibration is not None:
        calibration = calibration.assign(predictors=calibration["predictors"].replace(MODELS))
        calibration = calibration[~((calibration["n"] > 0) & (calibration["n"] < minimum))] if "n" in calibration else calibration
        if "n" in calibration:
            calibration["n"] = calibration["n"].astype("Float64").mask(calibration["outcome"].isin(without_counts))
        block = {
            "rows": packed(
                calibration,
                {
                    "outcome": "outcome",
                    "predictors": "predictors",
                    "n": "n",
                    "predicted": "predicted",
                    "observed": "observed",
                    "lo": "ci_low",
                    "hi": "ci_high",
                },
            ),
            "meta": meta(study),
        }
        parts.append(
            page.figure(
                "calibration",
                "calibration",
                "Calibration.",
                "Predicted risk against the observed share, by bins of predicted risk; on the diagonal they agree.",
                block,
                static="calibration",
            )
        )
    return Section("discrimination", title, join(parts))


def thin(curve: pd.DataFrame, points: int = 120) -> pd.DataFrame:
    """Few enough points of a curve for the screen (a step of under 1 % is not visible), and too few to tell single eyes."""
    curve = curve.sort_values(["fpr", "tpr"])
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))]


def _predictors(row: pd.Series, several_sets: bool) -> str:
    text = MODELS.get(row["predictors"], str(row["predictors"]))
    if isinstance(row.get("biomarker"), str):
        text = {"biomarker": row["biomarker"], "covariates+biomarker": "\u2026 with the covariates"}.get(row["predictors"], text)
    return f"{text} [{row['covariate_set']}]" if several_sets and isinstance(row.get("covariate_set"), str) else text


def _delta(row: pd.Series) -> str:
    if pd.isna(row.get("delta_auc", np.nan)):
        return ""
    signed = [
        f"{row[c]:+.3f}".replace("-", "\u2212") if pd.notna(row.get(c, np.nan)) else "\u2013"
        for c in ("delta_auc", "delta_low", "delta_high")
    ]
    return f"{signed[0]} ({signed[1]} to {signed[2]})"


def _detail(row: pd.Series) -> str:
    lines = [f"n = {count(row['n'])}, cases {count(row['n_cases'])}"]
    if pd.notna(row.get("delta_p", np.nan)):
        lines.append(f"p for the gain {p_text(-np.log10(max(row['delta_p'], 1e-300)))}")
    for column, name in (
        ("brier", "Brier score"),
        ("calibration_slope", "calibration slope"),
        ("calibration_intercept", "calibration intercept"),
    ):
        if pd.notna(row.get(column, np.nan)):
            lines.append(f"{name} {number(row[column])}")
    return "\n".join(lines)


def camera(study: Study, page: Page, minimum: int) -> Section:
    """Does the camera alone predict an outcome; did heads learn from analysed subjects."""
    return Section(
        "camera", "Confounding by the camera, and circularity", join([_camera(study, page, minimum), _circularity(study, page, minimum)])
    )


def _camera(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("camera", "outcome", "predictors", "auc")
    if table is None:
        return not_shown("Camera check", study.why_absent("camera"))
    table = table.copy()
    table["hidden"] = hide_fits(table, minimum, ["outcome"], total_known=False) if {"n", "n_cases"} <= set(table) else False
    table = table[~table["hidden"]]
    table["warning"] = table["warning"].map(lambda v: str(v).lower() == "true") if "warning" in table else False
    table["label"] = table["predictors"].map(lambda p: CHECKS.get(p, reader(p))) + np.where(table["warning"], " (warning)", "")
    table["detail"] = ["columns: " + str(c) for c in table["columns"]] if "columns" in table else ""
    # A check whose columns the study lacks has nothing to draw.
    lacking = table["note"].astype("string").eq("no_columns").fillna(False) if "note" in table else table["warning"] & False
    unchecked = (
        f" Not checked, because the study has no such columns: {', '.join(map(reader, table.loc[lacking, 'predictors'].unique()))}."
        if lacking.any()
        else ""
    )
    table = table[~lacking]
    warned = table[table["warning"]]
    for outcome, part in warned.groupby("outcome"):
        study.problems.append(Problem("warning", _warning(study, str(outcome), part, table[table["outcome"] == outcome])))
    text = paragraph(
        "If image size or source alone predict a label, an association may be one of cameras and not of eyes. Quality (sharpness, "
        "contrast, light) comes from the camera, but also from the eye: a cataract or an atrophic fundus changes it. ",
        tag("b", f"{len(warned)} of {len(table)} checks warn." if len(warned) else f"None of the {len(table)} checks warns."),
    )
    names = {
        "outcome": "outcome",
        "label": "label",
        "n": "n",
        "cases": "n_cases",
        "est": "auc",
        "lo": "ci_low",
        "hi": "ci_high",
        "detail": "detail",
        "note": "note",
        "warning": "warning",
    }
    page.files["camera"] = table.drop(columns=["plan", "label", "detail", "hidden"], errors="ignore")
    return text + page.figure(
        "camera",
        "auc",
        "How well the camera alone predicts each outcome.",
        f"Cross-validated AUC with {level(study)} % confidence interval. At 0.5 the camera says nothing of the outcome; triangles mark "
        f"warnings.{unchecked}",
        {"rows": packed(in_words(table), names), "meta": meta(study)},
        static="camera",
    )


def _warning(study: Study, outcome: str, warned: pd.DataFrame, checks: pd.DataFrame) -> str:
    """What the checks of an outcome say: cameras, or a quality that may follow the disease itself."""
    names = set(warned["predictors"])
    auc = {r.predictors: f"{r.auc:.2f}" for r in checks[checks["auc"].notna()].itertuples()}
    if names == {"quality"} or names == {"quality", "camera"}:
        # that all columns together tell cases apart says no more than the quality among them does
        calm = "".join(f"; {reader(n)} {auc[n]}" for n in ("image_size", "source") if n in auc)
        adjusted = any("quality_" in str(t) for terms in (study.plan.get("covariate_sets") or {}).values() for t in terms)
        return (
            f"Image quality alone predicts {outcome} (AUC {auc['quality']}{calm}): these eyes photograph differently, because of their "
            "cameras or of the disease itself."
            + (" Compare the estimates that are adjusted for quality." if adjusted else " No covariate set adjusts for quality.")
        )
    told = ", ".join(f"{'all columns together' if n == 'camera' else reader(n)} {auc[n]}" for n in warned["predictors"])
    return f"The camera alone predicts {outcome} (AUC: {told}): its associations may be those of cameras, not of eyes."


def _circularity(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("circularity", "biomarker", "heads", "circular")
    if table is None:
        return not_shown("Circularity", study.why_absent("circularity"))
    flags = table["circular"].map(lambda v: str(v).lower() == "true")
    apart = table["note"].eq("learned_from_subjects_left_out") if "note" in table else flags & False
    if apart.any() and not flags.any():
        taught = show_count(table.loc[apart, "n_overlap"].max(), minimum)
        return paragraph(
            tag("b", "Circularity. "),
            f"Heads of the model learned from labels of {taught} of the analysed subjects. They are left out of every estimate of "
            f"the {int(apart.sum())} biomarkers that need such a head (column note of circularity.csv); all other estimates keep them.",
        )
    if not flags.any():
        return paragraph(
            tag("b", "Circularity. "), f"No biomarker's head learned from labels of analysed subjects ({len(table)} biomarkers checked)."
        )
    rows = [
        (
            r.biomarker,
            r.heads,
            count(getattr(r, "n_training_subjects", np.nan)),
            show_count(getattr(r, "n_overlap", np.nan), minimum),
            percent(getattr(r, "share", np.nan)),
            getattr(r, "note", "") if pd.notna(getattr(r, "note", pd.NA)) else "",
        )
        for r in table[flags].itertuples()
    ]
    return page.table(
        "circularity",
        "Biomarkers whose head learned from analysed subjects.",
        "Their estimates are marked; the sensitivity analyses repeat them on other subjects where enough are left.",
        ("Biomarker", "Heads", "Subjects trained on", "Of these analysed", "Share of analysed", "Note"),
        rows,
        numeric=(2, 3, 4),
    )
