"""Grades from metrics: gradable, usable or reject, with reasons, a probability, and duplicates named."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retsam.cohort.photograph import GUESSED_DEPTH
from retsam.quality.config import QualityConfig
from retsam.quality.duplicates import near_content, same_content
from retsam.quality.metrics import METRICS
from retsam.quality.model import load_model, not_fundus_probability

#: What a reason says in words, and the metrics that speak for it.
REASONS: dict[str, tuple[str, ...]] = {
    "blurred": (
        "sharpness",
        "sharpness_fine",
        "sharpness_medium",
        "sharpness_coarse",
        "sharpness_weak",
        "sharpness_best",
        "edge_strength",
        "noise",
    ),
    "vessels_not_visible": ("vessel", "vessel_coverage", "vessel_weak", "vessel_linearity", "vessel_tree", "line_balance"),
    "uneven_light": ("illumination", "shadow", "glare"),
    "too_dark": ("brightness", "brightness_red", "darkness"),
    "overexposed": ("saturation", "saturation_red"),
    "low_contrast": ("contrast", "contrast_weak", "disc", "sharpness_low"),
    "unusual_colour": ("red_share", "blue_share", "colour_spread", "not_red", "line_redness"),
}

# Lit area outside the field of view, over that inside, from which a picture holds another field.
_ANOTHER_FIELD = 0.5
# Share of the field with green at full scale from which too little is seen; 3 of 598 photographs graded by others have it.
_OVEREXPOSED = 0.25
# A reason is named when its metrics add this much to the log odds of a worse grade.
_REASON_LOG_ODDS = 0.5
_MOST_REASONS = 3

#: Columns that grading adds to those of the metrics.
GRADE_COLUMNS = ("grade", "probability", "reasons", "p_gradable", "p_reject", "p_not_fundus", "duplicate_of", "near_duplicate_of")


def grade_table(metrics: pd.DataFrame, config: QualityConfig, cohort: pd.DataFrame | None = None) -> pd.DataFrame:
    """Grade the photographs of a cohort.

    Parameters
    ----------
    metrics : DataFrame
        Metrics of all shards (columns of `retsam.quality.table.COLUMNS`).
    config : QualityConfig
        Thresholds.
    cohort : DataFrame, optional
        Cohort table; its order decides which of several copies is the first, its subjects whether copies contradict.

    Returns
    -------
    DataFrame
        One row a photograph in the cohort's order: image_id, status, reason, detail, grade, probability (of being gradable or
        usable), reasons (``;``-joined), the field of view, the metrics, hashes, duplicate_of, ... A photograph with ``status`` ``failed``
        (unreadable, not a fundus, duplicate) has grade ``reject``.

    Raises
    ------
    ValueError
        If photographs of the cohort have no metrics, an image has them twice, or columns are missing (metrics of an older version).
    """
    lacking = [c for c in (*(f for head in load_model().values() for f in head.features), "fov_outside") if c not in metrics]
    if lacking:
        names = ", ".join(dict.fromkeys(lacking))
        raise ValueError(f"the metrics lack columns of this version ({names}); run `retsam quality metrics` again")
    table = _in_order(metrics, cohort)
    measured = (table["status"] == "ok").to_numpy()
    for head, column in (("reject", "p_reject"), ("gradable", "p_gradable")):
        table[column] = np.where(measured, load_model()[head].probability(table), np.nan)
    table["p_not_fundus"] = np.where(measured, not_fundus_probability(table), np.nan)
    # What is certain cannot be likelier than what it implies.
    table["p_gradable"] = np.minimum(table["p_gradable"], 1 - table["p_reject"])
    table["probability"] = (1 - table["p_reject"]) * (1 - table["p_not_fundus"])

    grade = np.where(
        table["p_reject"] >= config.reject_above, "reject", np.where(table["p_gradable"] >= config.gradable_above, "gradable", "usable")
    )
    reasons = _reasons(table, grade)
    _apply_limits(table, config, grade, reasons)
    _apply_failures(table, config, measured, grade, reasons)
    table["grade"], table["reasons"] = pd.array(grade, "string"), pd.array([";".join(r) or None for r in reasons], "string")
    _apply_duplicates(table, config, cohort)
    first = ["image_id", "status", "reason", "detail", "grade", "probability", "reasons"]
    return table[[*first, *[c for c in table.columns if c not in first]]]


def _in_order(metrics: pd.DataFrame, cohort: pd.DataFrame | None) -> pd.DataFrame:
    twice = metrics.loc[metrics["image_id"].duplicated(), "image_id"].tolist()
    if twice:
        raise ValueError(
            f"{len(twice)} images are in the metrics more than once: {', '.join(map(str, twice[:5]))}; give each shard's metrics once"
        )
    if cohort is None:
        return metrics.reset_index(drop=True).copy()
    lacking = cohort.loc[~cohort["image_id"].isin(metrics["image_id"]), "image_id"].tolist()
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(cohort)} photographs of the cohort have no metrics, for example {', '.join(map(str, lacking[:5]))}; "
            "give the metrics of all shards"
        )
    return metrics.set_index("image_id").loc[cohort["image_id"]].reset_index().astype({"image_id": "string"})


def _reasons(table: pd.DataFrame, grade: np.ndarray) -> list[list[str]]:
    """Groups of metrics that pull a photograph away from the average gradable one, strongest first; none for gradable ones."""
    model = load_model()
    reject, gradable = model["reject"].contributions(table), -model["gradable"].contributions(table)
    # A rejected photograph is explained by what rejected it, a usable one by what kept it from being gradable.
    pulls = {
        name: np.where(
            grade == "reject",
            reject[[m for m in metrics if m in reject]].sum(axis=1).to_numpy(float),
            gradable[[m for m in metrics if m in gradable]].sum(axis=1).to_numpy(float),
        )
        for name, metrics in REASONS.items()
    }
    names, values = np.array(list(pulls)), np.stack(list(pulls.values()), 1)
    reasons: list[list[str]] = []
    for row, g in zip(values, grade, strict=True):
        order = [k for k in np.argsort(-np.nan_to_num(row, nan=-np.inf)) if row[k] >= _REASON_LOG_ODDS]
        reasons.append([] if g == "gradable" else [str(names[k]) for k in order[:_MOST_REASONS]])
    return reasons


def _apply_limits(table: pd.DataFrame, config: QualityConfig, grade: np.ndarray, reasons: list[list[str]]) -> None:
    """Resolution, exposure and a field of view that is cut off, not found or not the only one: facts beside the model's opinion."""
    diameter, coverage = table["fov_diameter_px"].to_numpy(float), table["fov_coverage"].to_numpy(float)
    rim, another = _has_rim(table), table["fov_outside"].to_numpy(float) > _ANOTHER_FIELD
    white = table["saturation"].to_numpy(float) > _OVEREXPOSED
    for i in range(len(table)):
        if diameter[i] < config.reject_diameter_px:
            grade[i] = "reject"
            reasons[i].append("too_small")
        elif diameter[i] < config.min_diameter_px:
            reasons[i].append("low_resolution")
        odd = {"no_rim": not rim[i], "cut_off": rim[i] and coverage[i] < config.min_coverage, "several_fields": another[i]}
        odd["overexposed"] = white[i]
        if any(odd.values()) and grade[i] == "gradable":
            grade[i] = "usable"
        reasons[i] += [reason for reason, holds in odd.items() if holds and reason not in reasons[i]]


def _has_rim(table: pd.DataFrame) -> np.ndarray:
    return (table["fov_kind"] != "none").fillna(False).to_numpy(bool)


def _apply_failures(table: pd.DataFrame, config: QualityConfig, measured: np.ndarray, grade: np.ndarray, reasons: list[list[str]]) -> None:
    strange = measured & (table["p_not_fundus"] >= config.not_fundus_above).to_numpy(bool)
    # What is white for its exposure is unlike a retina in all else; a round rim around it tells it from a page.
    white = strange & _has_rim(table) & (table["saturation"] > _OVEREXPOSED).to_numpy(bool)
    grade[white], strange = "reject", strange & ~white
    for i in np.flatnonzero(white):
        reasons[i][:] = ["overexposed"]
    for i in np.flatnonzero(strange):
        reasons[i][:] = ["not_a_fundus"]
    for i in np.flatnonzero(~measured):
        reasons[i][:] = [str(table["reason"].iloc[i])]
    grade[~measured | strange] = "reject"
    table.loc[strange, "status"], table.loc[strange, "reason"] = "failed", "not_a_fundus"
    table.loc[strange, "detail"] = [
        f"probability {p:.2f} of not being a colour photograph of the retina" for p in table.loc[strange, "p_not_fundus"]
    ]


def _apply_duplicates(table: pd.DataFrame, config: QualityConfig, cohort: pd.DataFrame | None) -> None:
    """Name copies; unless they are kept, all but one fail, with the subjects named where copies contradict."""
    ids = table["image_id"].to_numpy(object)
    exact = same_content(table["content_hash"].where(table["status"] == "ok")).to_numpy()
    near = np.where(exact >= 0, -1, _near_copies(table, config))
    table["duplicate_of"] = pd.array([ids[k] if k >= 0 else None for k in exact], "string")
    table["near_duplicate_of"] = pd.array([ids[k] if k >= 0 else None for k in near], "string")
    if config.duplicates == "keep":
        return
    first = np.where(exact >= 0, exact, near if config.duplicates == "near" else -1)
    table.loc[first >= 0, "duplicate_of"] = [ids[k] for k in first[first >= 0]]
    compared = _told_apart(cohort)
    for i in np.flatnonzero(first >= 0):
        what = "the same pixels as" if exact[i] >= 0 else "a resized or recompressed copy of"
        detail = f"{what} {ids[first[i]]}"
        if compared:
            here, there = cohort.iloc[i], cohort.iloc[first[i]]
            differ = [c for c in compared if pd.notna(here[c]) and pd.notna(there[c]) and here[c] != there[c]]
            if differ:
                detail += "; they contradict each other: " + ", ".join(f"{c} {here[c]} here, {there[c]} there" for c in differ)
        table.loc[table.index[i], ["status", "reason", "detail", "grade", "reasons"]] = [
            "failed",
            "duplicate",
            detail,
            "reject",
            "duplicate",
        ]


def _near_copies(table: pd.DataFrame, config: QualityConfig) -> np.ndarray:
    """Position of the photograph that each is a resized or recompressed copy of, or -1; where copies are dropped, that of the best one."""
    order = np.arange(len(table))
    if config.duplicates == "near":
        rank = table["grade"].map({"gradable": 0, "usable": 1, "reject": 2}).to_numpy(int)
        order = np.lexsort((order, -table["fov_diameter_px"].fillna(0).to_numpy(float), rank))
    hashes = table["perceptual_hash"].where(table["status"] == "ok")
    found = near_content(table.assign(perceptual_hash=hashes).iloc[order], config.near_distance).to_numpy()
    near = np.full(len(table), -1)
    near[order] = np.where(found >= 0, order[found], -1)
    return near


def _told_apart(cohort: pd.DataFrame | None) -> list[str]:
    """Columns in which copies may contradict each other; without a column of subjects each photograph counts as one of its own."""
    if cohort is None:
        return []
    return ["eye"] if (cohort["subject"] == cohort["image_id"]).all() else ["subject", "eye"]


def summary(table: pd.DataFrame) -> list[str]:
    """What was found, a line each: counts by grade, by reason of failure, of duplicates that contradict each other."""
    n = len(table)
    counts = table["grade"].value_counts()
    lines = [f"{n:,} photographs: " + ", ".join(f"{int(counts.get(g, 0)):,} {g}" for g in ("gradable", "usable", "reject"))]
    for reason, count in table.loc[table["status"] == "failed", "reason"].value_counts().items():
        lines.append(f"  failed, {reason}: {count:,}")
    poor = table[(table["status"] == "ok") & (table["grade"] != "gradable")]
    for reason, count in poor["reasons"].dropna().str.split(";").explode().value_counts().items():
        lines.append(f"  {reason}: {count:,}")
    if depths := mixed_depths(table):
        lines.append(f"  {depths}")
    contradict = table["detail"].str.contains("contradict", na=False)
    if contradict.any():
        examples = "; ".join(f"{i}: {d}" for i, d in table.loc[contradict, ["image_id", "detail"]].head(3).itertuples(index=False))
        lines.append(f"  {int(contradict.sum()):,} duplicates under another subject or eye, for example {examples}")
    return lines


def mixed_depths(table: pd.DataFrame) -> str | None:
    """A warning where depths were guessed and differ: within one camera's photographs the brightest pixel then decides exposure."""
    guessed = table["notes"].str.contains(GUESSED_DEPTH, regex=False).fillna(False).astype(bool)
    depths = table.loc[guessed | (table["bits"] > 8).fillna(False).astype(bool), "bits"].value_counts().sort_index()
    if not guessed.any() or len(depths) < 2:
        return None
    counts = ", ".join(f"{bits} bits: {count:,}" for bits, count in depths.items())
    return (
        f"{GUESSED_DEPTH}: {int(guessed.sum()):,} of {int(depths.sum()):,} photographs with deep samples, of different depths ({counts}); "
        "of one camera, some are then read too bright or too dark: state the depth in the files (sBIT, MaxSampleValue) or convert to 8 bits"
    )


assert set().union(*REASONS.values()) <= set(METRICS), "a reason speaks of a metric that does not exist"
