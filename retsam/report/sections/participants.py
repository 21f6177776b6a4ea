"""Who is in the study: flow diagram, characteristics by outcome, quality and exclusions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from retsam.report.disclosure import hide_cells, hide_matrix, show_count, small
from retsam.report.flow import flow_table, outcome_steps, reasons_text, shared_steps, stage_text, without_small
from retsam.report.html import count, join, number, pack, paragraph, percent, tag
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.common import reader, set_label
from retsam.report.study import Study

#: Grades of the quality table in the order in which they are drawn.
GRADES = ("gradable", "usable", "reject", "duplicate", "failed")

#: What a row of Table 1 counts.
ROWS = {
    "eyes": "Counted are eyes: a subject counts once per eye.",
    "photographs": "Counted are photographs: a subject counts once per photograph.",
    "subjects": "Counted are subjects, each once.",
}

_SMALL = "small cells, not shown"


def participants(study: Study, page: Page, minimum: int) -> Section:
    """Flow diagram and the steps of each outcome."""
    flow = flow_table(study)
    if flow is None:
        return Section("flow", "Participants and flow", not_shown("Flow diagram", "the cohort table cannot be read."))
    shown = without_small(flow, minimum, study.primary_set)
    parts = [_diagram(study, shared_steps(flow)), _by_outcome(study, page, shown)]
    page.files["flow"] = shown.drop(columns=["plan"], errors="ignore")
    lead = paragraph(
        "Unit of the counts is the photograph",
        ", and the subject once its eyes are averaged" if study.rows == "subjects" else "",
        "; subjects are in brackets. Each step is the step before less what was excluded, with the "
        "reasons beside it. "
        "Counts of this diagram and of the eyes with each outcome are exact, so that they can be checked; other counts of people below ",
        str(minimum),
        " are not shown in this report, nor what would tell them by subtraction.",
    )
    return Section("flow", "Participants and flow", join([lead, *parts]))


def _said(value: object) -> str:
    """A count, or the text that stands for one that is not shown."""
    return value if isinstance(value, str) else count(value)


def _excluded(study: Study, row: pd.Series) -> str:
    if not isinstance(row["n_excluded"], str) and (pd.isna(row["n_excluded"]) or not row["n_excluded"]):
        return "none excluded"
    listed = reasons_text(row)
    what = stage_text(study, row)[1]
    said = f"{what}, how many not shown" if row["n_excluded"] == "not shown" else f"{_said(row['n_excluded'])} {what}"
    return said + (f" ({listed})" if listed else "")


def _diagram(study: Study, steps: pd.DataFrame) -> Markup:
    boxes = []
    for i, (_, row) in enumerate(steps.iterrows()):
        name = stage_text(study, row)[0]
        subjects = "" if pd.isna(row["n_subjects"]) else f" ({count(row['n_subjects'])} subjects)"
        box = tag(
            "div",
            join([tag("span", name, class_="flow-name"), tag("span", join([tag("b", count(row["n_images"])), subjects]), class_="flow-n")]),
            class_="flow-box",
        )
        out = "" if i == 0 else tag("div", _excluded(study, row), class_="flow-out" + ("" if row["n_excluded"] else " none"))
        boxes.append(tag("li", join([out, box])))
    return tag("ol", join(boxes), class_="flow", aria_label="Flow of photographs through the study")


def _by_outcome(study: Study, page: Page, flow: pd.DataFrame) -> Markup:
    rows = []
    for outcome in study.outcomes:
        for _, row in outcome_steps(flow, outcome).iterrows():
            name = stage_text(study, row)[0]
            if isinstance(row["covariate_set"], str):
                name += f": {row['covariate_set']}"
            rows.append((outcome, name, _said(row["n_images"]), _said(row["n_subjects"]), _excluded(study, row)))
    if not rows:
        return not_shown("Flow of each outcome", study.why_absent("flow"))
    counted = study.rows if study.rows == "subjects" else "photographs"
    return page.table(
        "flow_outcomes",
        f"{counted.capitalize()} behind each outcome.",
        "The flow goes on from the last step above, for each outcome and covariate set. Covariate sets: "
        + "; ".join(set_label(study, s) for s in study.covariate_sets)
        + ".",
        ("Outcome", "Step", "Rows" if counted == "subjects" else "Photographs", "Subjects", "Excluded"),
        rows,
        numeric=(2, 3),
    )


def characteristics(study: Study, page: Page, minimum: int) -> Section:
    """Table 1 of each outcome."""
    table = study.table("table1", "outcome", "variable", "group", "n")
    if table is None:
        return Section("table1", "Characteristics", not_shown("Characteristics by outcome", study.why_absent("table1")))
    parts = []
    for outcome in dict.fromkeys(
        [o for o in study.outcomes if (table["outcome"] == o).any()] + table["outcome"].dropna().unique().tolist()
    ):
        parts.append(_table1(study, page, table[table["outcome"] == outcome], str(outcome), minimum))
    lead = paragraph(
        "Mean (SD) and median (quartiles) of continuous variables, count (share) of categories, by group of each outcome. SMD is the "
        "absolute standardised mean difference "
        "between the groups (the largest pair where there are more than two); it does not grow with the sample as a p value does."
    )
    return Section("table1", "Characteristics", join([lead, *parts]))


def _several_eyes(study: Study) -> bool:
    """Whether a subject may have several rows."""
    unit = study.plan.get("unit") or {}
    level = unit.get("level", "eye")
    return level == "eye" or (unit.get("visits") == "all" and level != "subject_mean")


def _table1(study: Study, page: Page, table: pd.DataFrame, outcome: str, minimum: int) -> Markup:
    groups = [g for g in ("all", "controls", "cases") if (table["group"] == g).any()]
    groups += [g for g in table["group"].dropna().unique() if g not in groups]
    rows = []
    sizes = {
        g: _largest(
            table.loc[table["group"] == g, ["n", "n_missing"]].sum(axis=1, min_count=1)
            if "n_missing" in table
            else table.loc[table["group"] == g, "n"]
        )
        for g in groups
    }
    for variable, part in table.groupby("variable", sort=False, dropna=False):
        levels = part["level"].dropna().unique().tolist() if "level" in part else []
        if levels:
            cells, missing = _categorical(part, levels, groups, minimum)
        else:
            cells = [_total(part, groups, minimum) if part["spread"].isna().all() else _continuous(part, groups, minimum)]
            missing = _missing(part, groups, minimum)
        smd = part.loc[part["group"] == "all", "smd"].dropna() if "smd" in part else pd.Series(dtype=float)
        smd_text = number(float(smd.iloc[0]), 2) if len(smd) else "\u2013"
        names = [f"{variable}: {lv}" for lv in levels] if levels else [f"{variable}"]
        for i, (name, row) in enumerate(zip(names, cells, strict=True)):
            rows.append((name, *row, smd_text if i == 0 else "", missing if i == 0 else ""))
    header = ["Variable", *(f"{g} ({_size(n)})" for g, n in zip(groups, _shown([sizes[g] for g in groups], groups, minimum), strict=True))]
    header += ["SMD", "Missing"]
    return page.table(
        f"table1_{outcome}",
        f"Characteristics by {outcome}.",
        ROWS[study.rows if _several_eyes(study) else "subjects"],
        header,
        rows,
        numeric=range(1, len(header)),
        sortable=False,
    )


def _shown(counts: list[float], groups: list[str], minimum: int) -> list[str]:
    """Counts of the groups of an outcome; where one is small, a second one goes too, since the reader knows their sum."""
    inner = [i for i, g in enumerate(groups) if g != "all"]
    hidden = dict(zip(inner, hide_cells([counts[i] for i in inner], minimum), strict=True))
    return [show_count(n, minimum) if small(n, minimum) or not hidden.get(i) else "not shown" for i, n in enumerate(counts)]


def _size(text: str) -> str:
    return f"n {text}" if text.startswith(("<", "not")) else f"n = {text}"


def _total(part: pd.DataFrame, groups: list[str], minimum: int) -> list[str]:
    """A row of counts without levels: eyes, subjects."""
    cells = [_cell(part, g) for g in groups]
    return _shown([np.nan if c is None else float(c["value"]) for c in cells], groups, minimum)


def _largest(values: pd.Series) -> float:
    return float(values.max()) if len(values.dropna()) else np.nan


def _cell(part: pd.DataFrame, group: str, level: str | None = None) -> pd.Series | None:
    rows = part[(part["group"] == group) & ((part["level"] == level) if level is not None else True)]
    return rows.iloc[0] if len(rows) else None


def _categorical(part: pd.DataFrame, levels: list[str], groups: list[str], minimum: int) -> tuple[list[list[str]], str]:
    counts = np.array([[np.nan if (c := _cell(part, g, lv)) is None else float(c["value"]) for g in groups] for lv in levels])
    hidden = np.zeros(counts.shape, dtype=bool)
    inner = [i for i, g in enumerate(groups) if g != "all"]
    if inner:
        hidden[:, inner] = hide_matrix(counts[:, inner], minimum)
    for i, g in enumerate(groups):
        if g == "all":
            hidden[:, [i]] = hide_matrix(counts[:, [i]], minimum)
    rows = []
    for a, lv in enumerate(levels):
        cells = []
        for b, g in enumerate(groups):
            cell = _cell(part, g, lv)
            if cell is None or np.isnan(counts[a, b]):
                cells.append("\u2013")
            elif hidden[a, b]:
                cells.append(f"<{minimum}" if small(counts[a, b], minimum) else "not shown")
            else:
                cells.append(f"{count(counts[a, b])} ({percent(cell['spread'])})")
        rows.append(cells)
    return rows, _missing(part[part["level"] == levels[0]], groups, minimum)


def _continuous(part: pd.DataFrame, groups: list[str], minimum: int) -> list[Any]:
    cells: list[Any] = []
    for g in groups:
        cell = _cell(part, g)
        if cell is None or pd.isna(cell["value"]):
            cells.append("\u2013")
        elif small(cell["n"], minimum):
            cells.append(f"not shown (n <{minimum})")
        else:
            mean = f"{number(cell['value'])} ({number(cell['spread'])})"
            if "median" in cell and not pd.isna(cell["median"]):
                quartiles = f"{number(cell['median'])} [{number(cell['q1'])}, {number(cell['q3'])}]"
                cells.append(join([mean, Markup("; <br>"), quartiles]))
            else:
                cells.append(mean)
    return cells


def _missing(part: pd.DataFrame, groups: list[str], minimum: int) -> str:
    if "n_missing" not in part or "all" not in groups:
        return ""
    rows = part.loc[part["group"] == "all", "n_missing"]
    return show_count(rows.iloc[0], minimum) if len(rows) else ""


def quality(study: Study, page: Page, minimum: int) -> Section:
    """Grades by outcome group, and why photographs were rejected."""
    parts: list = []
    table = study.table("quality_by_outcome", "outcome", "group", "grade", "n")
    if table is not None:
        parts.append(_grades_by_group(study, page, table, minimum))
    else:
        parts.append(not_shown("Quality by outcome", study.why_absent("quality_by_outcome")))
    parts.append(_reasons(study, page, minimum))
    lead = paragraph(
        "A photograph that is rejected more often in cases than in controls biases what is left. The bars show the share of each grade "
        "in each group before exclusion."
    )
    return Section("quality", "Image quality and exclusions", join([lead, *parts]))


@dataclass(frozen=True)
class Grades:
    """Grades by outcome group: ``rows`` for a plot (facet, label, series, value, text), ``cells`` for a table, small cells hidden."""

    rows: pd.DataFrame
    cells: list[list[str]]
    grades: list[str]
    joined: list[str]

    @property
    def series(self) -> list[str]:
        """What is stacked, in order: grades, then the names of pieces that hold several (one name an outcome)."""
        return [*self.grades, *self.joined]


def grades_by_group(table: pd.DataFrame, minimum: int) -> Grades:
    """Shares of each grade in each group of each outcome, from ``tables/quality_by_outcome.csv``."""
    rows, cells, within = [], [], {}
    grades = [g for g in GRADES if (table["grade"] == g).any()] + [g for g in table["grade"].dropna().unique() if g not in GRADES]
    for outcome in dict.fromkeys(table["outcome"].dropna()):
        mine = table[table["outcome"] == outcome]
        groups = mine["group"].dropna().unique().tolist()
        counts = np.array([[mine.loc[(mine["group"] == g) & (mine["grade"] == d), "n"].sum() for d in grades] for g in groups], dtype=float)
        hidden = hide_matrix(counts, minimum)
        totals = counts.sum(axis=1)
        hidden |= hide_cells(totals, minimum)[:, None]
        for i, (g, said) in enumerate(zip(groups, _shown(totals.tolist(), groups, minimum), strict=True)):
            total = totals[i]
            line = [str(outcome), str(g), said]
            for j, d in enumerate(grades):
                shown = not hidden[i, j]
                # the reader learns which grades a grey piece holds; their sum is known from the rest anyway
                if not shown and d not in within.setdefault(outcome, []):
                    within[outcome].append(d)
                text = count(counts[i, j]) if shown else f"<{minimum}" if small(counts[i, j], minimum) else "not shown"
                if total:  # a group without photographs has no bar
                    value = counts[i, j] / total if shown else np.nan
                    rows.append({"facet": outcome, "label": g, "series": d, "value": value, "text": text})
                line.append(f"{text} ({percent(counts[i, j] / total)})" if shown and total else text)
            kept = np.nansum(np.where(hidden[i], np.nan, counts[i])) / total if total else 1.0
            if kept < 1:
                rows.append({"facet": outcome, "label": g, "series": _SMALL, "value": 1 - kept, "text": None})
            cells.append(line)
    names = {
        facet: f"{', '.join(hidden[:-1])}{' and ' if hidden[1:] else ''}{hidden[-1]}, not split (small cells)"
        for facet, hidden in within.items()
    }
    joined = list(dict.fromkeys(names[r["facet"]] for r in rows if r["series"] == _SMALL))
    rows = [{**r, "series": names[r["facet"]] if r["series"] == _SMALL else r["series"]} for r in rows]
    return Grades(pd.DataFrame(rows, columns=["facet", "label", "series", "value", "text"]), cells, grades, joined)


def _grades_by_group(study: Study, page: Page, table: pd.DataFrame, minimum: int) -> Markup:
    found = grades_by_group(table, minimum)
    block = {
        "rows": pack(found.rows),
        "series": found.series,
        "joined": found.joined,
        "facets": list(dict.fromkeys(found.rows["facet"])),
        "facetLabel": "Outcome",
        "percent": True,
        "full": True,
        "label": "Quality grades by outcome group",
        "xLabel": "share of the photographs of the group",
    }
    figure = page.figure(
        "quality",
        "bars",
        "Quality grades by outcome group.",
        "Shares of all photographs of the group, exclusions and failures included.",
        block,
        static="quality",
    )
    listed = page.table(
        "quality",
        "Quality grades by outcome group.",
        "Counts of photographs and shares of the group.",
        ("Outcome", "Group", "Photographs", *found.grades),
        found.cells,
        numeric=range(2, 3 + len(found.grades)),
    )
    return figure + listed


def _reasons(study: Study, page: Page, minimum: int) -> Markup:
    quality_table, cohort = study.main("quality"), study.main("cohort")
    if quality_table is None or cohort is None:
        return not_shown("Reasons of exclusion", "the cohort or quality table cannot be read.")
    pieces = []
    unread = cohort.loc[cohort["status"] != "ok", ["image_id", "reason"]].assign(step="cohort")
    if "status" in quality_table:
        failed = quality_table.loc[
            (quality_table["status"] == "failed") & ~quality_table["image_id"].isin(unread["image_id"]), ["image_id", "reason"]
        ]
        pieces.append(failed.assign(step="quality"))
    if "reasons" in quality_table:
        every_failed = set(pd.concat([unread, *pieces])["image_id"])
        graded = quality_table.loc[
            quality_table["grade"].isin(["usable", "reject"]) & ~quality_table["image_id"].isin(every_failed),
            ["image_id", "reasons", "grade"],
        ]
        split = graded.assign(reason=graded["reasons"].astype("string").str.split(";")).explode("reason")
        split["reason"] = split["reason"].str.strip().replace("", pd.NA).fillna("model probability alone")
        pieces.append(split[["image_id", "reason"]].assign(step="graded " + split["grade"].astype(str)))
    every = pd.concat([unread, *pieces])
    if every.empty:
        return paragraph("No photograph failed, and none was graded below gradable.")
    counts = (
        every.groupby(["step", every["reason"].astype("string").fillna("unknown")], observed=True)["image_id"]
        .nunique()
        .reset_index(name="n")
        .sort_values("n", ascending=False)
    )
    total = len(cohort)
    rows = [(r.step, reader(str(r.reason)), count(r.n), percent(r.n / total)) for r in counts.itertuples()]
    return page.table(
        "quality_reasons",
        "Reasons of failures and of grades below gradable.",
        "A photograph may have several reasons. Shares are of all photographs found.",
        ("Where", "Reason", "Photographs", "Share"),
        rows,
        numeric=(2, 3),
    )
