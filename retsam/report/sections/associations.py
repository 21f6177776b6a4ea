"""The primary estimates: forest, volcano, Manhattan and QQ plots, and the table of all tests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from retsam.report.disclosure import blank_counts, blank_people, hide_fits, show_count
from retsam.report.html import count, estimate_text, join, p_text, pack, paragraph, q_text, tag
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.common import (
    alpha,
    cases_note,
    counts_told,
    family_order,
    higher,
    is_ratio,
    level,
    logs,
    meta,
    method_name,
    per,
    reader,
    select,
    set_label,
    set_order,
    whole_samples,
)
from retsam.report.study import Study

#: Notes of the models whose codes say little.
NOTES = {
    "correlation_bounded": "eyes taken as independent",
    "correlation_matters": "eyes taken as independent, since the fellow eye tells of this one",
    "independence": "eyes taken as independent",
    "counts_hidden": "counts not shown: they would tell of a few eyes left out",
    "chosen_on_same_data": "chosen by p in these same eyes: looks better than it is",
    "small_cell": "not shown: small cells",
    "covariate_is_outcome": "the covariates hold the outcome itself",
    "head_not_available": "no head for it in these weights",
    "no_columns": "no such columns",
}

#: What stands beside a biomarker's name, and what it means.
MARKS = {
    "\u2020": "a segmentation head learned from labels of analysed subjects: circular until repeated on others",
    "\u2021": "a segmentation head is weak (no drawn masks)",
}

#: Numbers of a table of fits that do not tell of the fit: all others of a hidden row are emptied.
NOT_OF_A_FIT = ("quintile", "n_tests", "log_unit")


def primary_rows(study: Study, minimum: int) -> pd.DataFrame | None:
    """Rows with everybody in, small cells emptied (column ``hidden`` says where), biomarker family beside them."""
    table = study.primary
    if table is None or table.empty:
        return None
    table = table.copy()
    table["hidden"] = hide_fits(table, minimum, ["outcome", "biomarker", "covariate_set"], total_known=False)
    told = counts_told(study, table, minimum)
    blank(table)
    blank_counts(table, told & ~table["hidden"])
    blank_people(
        table, minimum, ["outcome"], whole_samples(study, table["outcome"])["n_clusters"], set_order(study, table["covariate_set"])
    )
    if "biomarker_family" not in table:
        table["biomarker_family"] = pd.NA
    table["biomarker_family"] = table["biomarker_family"].astype("string").fillna(table["biomarker"].map(study.family_of).astype("string"))
    return table


def blank(table: pd.DataFrame) -> None:
    """Empty every number that tells of the fit in rows marked ``hidden`` (in place), and say so in ``note`` where there was an estimate."""
    rows = table["hidden"]
    shown = table["estimate"].notna() if "estimate" in table else rows
    for column in table.columns:
        numeric = pd.api.types.is_numeric_dtype(table[column]) and not pd.api.types.is_bool_dtype(table[column])
        if numeric and column not in NOT_OF_A_FIT:
            table[column] = table[column].astype("Float64").mask(rows)
    note = table["note"].astype("string") if "note" in table else pd.Series(pd.NA, index=table.index, dtype="string")
    table["note"] = note.mask(rows & (shown | note.isna() | (note == "")), "small_cell")


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the codes of ``note`` as words."""
    if "note" not in table:
        return table
    return table.assign(note=table["note"].map(note_text, na_action=None))


def note_text(note: object) -> object:
    """The codes of a note as words, names after a colon as they are; what is no text stays."""
    if not isinstance(note, str) or not note:
        return note
    codes = [n.strip().partition(":") for n in note.split(";")]
    return "; ".join(dict.fromkeys(NOTES.get(code, reader(code)) + (f": {of}" if of else "") for code, _, of in codes))


def bonferroni(study: Study, table: pd.DataFrame) -> pd.Series:
    """Bonferroni-corrected p: the column of the main table, or p times the number of tests of the same outcome and set."""
    if "p_bonferroni" in table:
        return table["p_bonferroni"].astype(float)
    tests = table.groupby(["outcome", "covariate_set"])["p"].transform("count").astype(float)
    return (table["p"].astype(float) * tests).clip(upper=1.0)


def associations(study: Study, page: Page, minimum: int, weak: Collection[str] = ()) -> Section:
    """The section of the primary estimates; ``weak`` are the targets whose heads were trained without drawn masks."""
    table = primary_rows(study, minimum)
    if table is None:
        return Section(
            "associations", "Associations", not_shown("Associations", "the table of associations does not exist or has no rows.")
        )
    table = marked(study, table, weak)
    page.block("associations", _block(study, table))
    method, a = method_name(study), alpha(study)
    families = [f for f in table["family"].dropna().unique()]
    top = _top(study, page, table, minimum)
    marks = _marks_note(table)
    lead = paragraph(
        f"One row a test: outcome, biomarker and covariate set, with all {study.rows} in. Estimates are {per(study)} of the biomarker with "
        f"{level(study)} % confidence intervals. "
        f"q is p corrected by {method}",
        f" within the family \u201c{families[0]}\u201d"
        if len(families) == 1
        else f" within {len(families)} families of tests, named in the table"
        if families
        else "",
        ". Dashed lines in the plots are the Bonferroni threshold and the largest p with q at or under ",
        str(a),
        f".{cases_note(study)} Associations are not effects: "
        "confounding, selection and measurement by a model all remain, and are looked at further down.",
        marks,
    )
    bar = tag("div", "", id="association-bar", class_="bar", role="group", aria_label="What the association plots show")
    figures = join(
        [
            page.figure(
                "forest",
                "forest",
                "Estimates.",
                "Biomarkers with the smallest p first. Choose several covariate sets to see what adjustment changes. Arrows mark "
                "intervals that go beyond the axis.",
                block="associations",
                static="forest",
            ),
            page.figure(
                "volcano",
                "volcano",
                "Size and strength.",
                "Each point is a biomarker. Click one to mark it in all plots; drag to zoom, double-click to reset. Estimates that "
                "lie far outside the others stand at the edge.",
                block="associations",
                static="volcano",
            ),
            page.figure(
                "manhattan",
                "manhattan",
                "By family of biomarkers.",
                "Families side by side; triangles point in the direction of the association. Numbers under a narrow plot stand for "
                "the families in their order in the filter.",
                block="associations",
                static="manhattan",
            ),
            page.figure(
                "qq",
                "qq",
                "Observed against expected p.",
                "Under no association at all, independent tests would lie in the band "
                f"({level(study) if level(study) == '95' else '95'} % pointwise). Biomarkers are correlated, so that a departure is "
                "no proof of many associations.",
                block="associations",
                static="qq",
            ),
        ]
    )
    data = page.data_table(
        "associations_all",
        "associations",
        "All tests of the chosen outcome and covariate set.",
        "Filter, sort, download. A row without an estimate says why in its note. Click a row to mark it in the plots.",
        "associations",
    )
    page.files["associations"] = table.drop(columns=["plan", "on_scale"], errors="ignore")
    return Section("associations", "Associations", join([lead, top, bar, figures, data]))


def marked(study: Study, table: pd.DataFrame, weak: Collection[str]) -> pd.DataFrame:
    """The table with ``mark`` (what a reader must see beside the name) and ``remark`` (why, the scale and the model's note).

    \u2020: a head behind the biomarker learned from labels of analysed subjects (column ``circular`` of the association room).
    \u2021: a head behind it is weak. A biomarker's heads are the masks that its dictionary entry needs.
    """
    needs = {b: study.heads_of(b) & set(weak) for b in table["biomarker"].unique()}
    circular = table["circular"].map(lambda v: str(v).lower() == "true") if "circular" in table else pd.Series(False, index=table.index)
    is_weak = table["biomarker"].map(lambda b: bool(needs[b]))
    transform = table["transform"].astype("string").fillna("") if "transform" in table else pd.Series("", index=table.index)
    scale = np.select(
        [transform.str.contains(word) for word in ("log1p", "log_relative", "rank")],
        ["log(1 + x)", "log(1 + x/m)", "rank scale"],
        default="",
    )
    note = table["note"].astype("string") if "note" in table else pd.Series(pd.NA, index=table.index, dtype="string")
    remarks = []
    for i in range(len(table)):
        parts = [scale[i]] if scale[i] else []
        if circular.iloc[i]:
            parts.append("head learned from analysed subjects")
        if is_weak.iloc[i]:
            parts.append(f"weak head: {', '.join(map(reader, sorted(needs[table['biomarker'].iloc[i]])))}")
        if pd.notna(note.iloc[i]) and note.iloc[i]:
            parts.append(note_text(str(note.iloc[i])))
        remarks.append("; ".join(parts))
    mark = np.where(circular, "\u2020", "") + np.where(is_weak, "\u2021", "").astype(object)
    return table.assign(circular=circular, mark=mark, remark=remarks, on_scale=scale)


def _marks_note(table: pd.DataFrame) -> str:
    """What the marks in this study mean, and how many tests carry them."""
    said = ""
    for scale, what in (("log(1 + x)", ""), ("log(1 + x/m)", ", m the median of the values above zero")):
        names = table.loc[table["on_scale"] == scale, "biomarker"].nunique()
        if names:
            said += f" {names} biomarkers were analysed as {scale}{what}, and are per SD of that; the remarks of each test say which."
    for sign, text in MARKS.items():
        names = table.loc[table["mark"].str.contains(sign), "biomarker"].nunique()
        if names:
            said += f" {sign} marks the {names} biomarkers of which {text}."
    return said


def _block(study: Study, table: pd.DataFrame) -> dict[str, Any]:
    out = select(
        table,
        {
            "outcome": "outcome",
            "biomarker": "biomarker",
            "set": "covariate_set",
            "family": "biomarker_family",
            "model": "model",
            "n": "n",
            "cases": "n_cases",
            "clusters": "n_clusters",
            "est": "estimate",
            "lo": "ci_low",
            "hi": "ci_high",
            "nlp": "neg_log10_p",
            "note": "remark",
            "mark": "mark",
            "tests": "n_tests",
        },
    )
    out["nlq"] = logs(table["q"].astype("Float64"))
    families = family_order(study, out["family"].dropna().unique())
    dictionary = {}
    for name in out["biomarker"].dropna().unique():
        entry = study.dictionary.get(name)
        if entry:
            dictionary[name] = {"definition": entry.definition, "unit": entry.unit, "direction": higher(entry.direction)}
    with_rows = [o for o in meta(study)["outcomes"] if (out["outcome"] == o["name"]).any()]
    block = pack(out)
    block["meta"] = {
        **meta(study),
        "clusters": study.clusters,
        "outcomes": with_rows,
        "sets": [{"name": s, "label": set_label(study, s)} for s in study.covariate_sets],
        "families": families,
        "dictionary": dictionary,
        "method": method_name(study),
    }
    return block


def summary_counts(study: Study, minimum: int) -> list[dict[str, Any]]:
    """Per outcome: tests, estimates, and how many stay under the corrected level, in the primary covariate set."""
    table = primary_rows(study, minimum)
    out = []
    for outcome in study.outcomes:
        mine = pd.DataFrame() if table is None else table[(table["outcome"] == outcome) & (table["covariate_set"] == study.primary_set)]
        if mine.empty:
            out.append({"outcome": outcome, "tests": 0})
            continue
        estimated = mine[mine["estimate"].notna()]
        notes = mine.loc[mine["estimate"].isna(), "note"].astype("string").fillna("unknown").str.replace(r";counts_hidden$", "", regex=True)
        reasons = notes.value_counts()
        corrected = bonferroni(study, mine)
        best = estimated.loc[estimated["neg_log10_p"].astype(float).idxmax()] if estimated["neg_log10_p"].notna().any() else None
        out.append(
            {
                "outcome": outcome,
                "tests": len(mine),
                "estimated": len(estimated),
                "reasons": reasons.to_dict(),
                "bonferroni": int((corrected <= alpha(study)).sum()),
                "q": int((mine["q"].astype(float) <= alpha(study)).sum()),
                "n": estimated["n"].max() if len(estimated) else np.nan,
                "cases": estimated["n_cases"].max() if len(estimated) else np.nan,
                "best": best,
            }
        )
    return out


def _named(biomarker: str, mark: str, remark: str) -> Markup:
    """A name with its mark, and the remarks in small print below it."""
    name = f"{biomarker} {mark}".strip()
    return tag("span", name) + (tag("small", remark, class_="remark") if remark else "")


def _top(study: Study, page: Page, table: pd.DataFrame, minimum: int) -> Markup:
    rows, kept = [], []
    for outcome in study.outcomes:
        mine = table[(table["outcome"] == outcome) & (table["covariate_set"] == study.primary_set) & table["estimate"].notna()]
        best = mine.sort_values("neg_log10_p", ascending=False).head(10)
        kept.append(best)
        for r in best.itertuples():
            text = estimate_text(
                float(r.estimate),
                float(r.ci_low) if pd.notna(r.ci_low) else np.nan,
                float(r.ci_high) if pd.notna(r.ci_high) else np.nan,
                is_ratio(study, outcome),
            )
            rows.append(
                (
                    outcome,
                    _named(r.biomarker, r.mark, r.remark),
                    text,
                    p_text(r.neg_log10_p),
                    q_text(r.q),
                    count(r.n),
                    show_count(r.n_cases, minimum),
                    count(r.n_clusters),
                )
            )
    if not rows:
        return not_shown("Smallest p values", "no model of the primary covariate set gave an estimate.")
    ratios = {is_ratio(study, o) for o in study.outcomes}
    measure = "Ratio" if ratios == {True} else "Slope" if ratios == {False} else "Ratio or slope"
    note = (
        f"Adjusted for {set_label(study, study.primary_set)}. Ratios are odds ratios, or rate and hazard ratios for counts and times. "
        "Chosen by p, so that these estimates are on average too far from none (winner's curse)."
    )
    counted = "Rows" if study.rows == "subjects" else study.rows.capitalize()
    header = (
        "Outcome",
        "Biomarker",
        f"{measure} {per(study)} ({level(study)} % CI)",
        "p",
        "q",
        counted,
        "Cases",
        study.clusters.capitalize(),
    )
    return page.table(
        "top",
        "Ten smallest p values of each outcome.",
        note,
        header,
        rows,
        numeric=(2, 3, 4, 5, 6, 7),
        frame=pd.concat(kept).drop(columns=["plan", "on_scale"], errors="ignore"),
    )
