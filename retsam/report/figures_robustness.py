"""Printable figures of the robustness sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from retsam.report.config import ReportConfig
from retsam.report.disclosure import hide_fits
from retsam.report.html import p_text
from retsam.report.sections.associations import note_text
from retsam.report.sections.common import MEASURES, is_ratio, logs, per, reader
from retsam.report.sections.prediction import CHECKS
from retsam.report.sections.robustness import KEY, analysis_label, strongest_first, subgroup_rows
from retsam.report.study import Study
from retsam.report.style import COLOURS, SOFT, limits, panels, ratio_axis


class Interval(NamedTuple):
    """An interval of a panel; ``why`` is what stands in its place where there is no estimate."""

    label: str
    estimate: float
    low: float
    high: float
    colour: str
    why: str = "no estimate"


def _first(study: Study, table: pd.DataFrame, each: int = 1) -> list[tuple[str, str, str]]:
    """For each outcome, the biomarkers with the smallest primary p that the table has: (outcome, biomarker, covariate set)."""
    chosen = []
    primary = study.primary
    for outcome in study.outcomes:
        mine = table[table["outcome"] == outcome]
        order = {}
        if primary is not None:
            ranked = primary[(primary["outcome"] == outcome) & (primary["covariate_set"] == study.primary_set)].sort_values(
                "neg_log10_p", ascending=False
            )
            order = {b: i for i, b in enumerate(ranked["biomarker"])}
        pairs = mine[["biomarker", "covariate_set"]].drop_duplicates()
        pairs = pairs.assign(rank=pairs["biomarker"].map(order).fillna(len(order))).sort_values("rank", kind="stable")
        chosen += [(outcome, str(r.biomarker), str(r.covariate_set)) for r in pairs.head(each).itertuples()]
    return chosen


def _rows_of(table: pd.DataFrame, key: tuple[str, str, str]) -> pd.DataFrame:
    return table[(table["outcome"] == key[0]) & (table["biomarker"] == key[1]) & (table["covariate_set"] == key[2])]


def intervals(ax, rows: list[Interval], ratio: bool, reference: float = 0.0) -> None:
    """Estimates with their intervals, one row each, on a panel."""
    known = [r for r in rows if np.isfinite(r.estimate)]
    for y, row in enumerate(rows):
        if np.isfinite(row.estimate):
            ax.plot([row.low, row.high], [y, y], color=row.colour, linewidth=1.1)
            ax.plot(row.estimate, y, marker="s", color=row.colour, markersize=3.6)
        else:
            ax.text(0.02, y, row.why, transform=ax.get_yaxis_transform(), va="center", fontsize=6, color=SOFT, backgroundcolor="white")
    ax.axvline(reference, color=SOFT, linewidth=0.8)
    span = limits([v for r in known for v in (r.estimate, r.low, r.high)], 0.05, [reference])
    ax.set_xlim(*span)
    if ratio:
        ratio_axis(ax.xaxis, *span)
    ax.set_yticks(range(len(rows)), [r.label for r in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)


def _measure(study: Study, outcome: str) -> str:
    return f"{MEASURES[study.outcome_type(outcome)][0]} {per(study)}"


def dose_response(study: Study, config: ReportConfig) -> Figure | None:
    """Splines of the two strongest biomarkers of each outcome."""
    spline = study.table("shape_spline", *KEY, "x", "estimate", "ci_low", "ci_high")
    if spline is None:
        return None
    tests = study.table("shape_tests", *KEY, "p_nonlinear")
    chosen = _first(study, spline, 2)
    if not chosen:
        return None
    figure, axes = panels(len(chosen), 3.3, 2.4)
    for ax, key in zip(axes, chosen, strict=True):
        curve = _rows_of(spline, key).dropna(subset=["estimate"]).sort_values("x")
        ax.fill_between(curve["x"], curve["ci_low"], curve["ci_high"], color=COLOURS[0], alpha=0.17, linewidth=0)
        ax.plot(curve["x"], curve["estimate"], color=COLOURS[0], linewidth=1.3)
        ax.axhline(0, color=SOFT, linewidth=0.7)
        middle = limits(curve["estimate"].tolist(), 0.8)
        ax.set_ylim(max(middle[0], curve["ci_low"].min()), min(middle[1], curve["ci_high"].max()))
        if is_ratio(study, key[0]):
            ratio_axis(ax.yaxis, *ax.get_ylim())
        test = None if tests is None else _rows_of(tests, key)["p_nonlinear"].dropna()
        note = "" if test is None or test.empty else f", p non-linear {p_text(float(logs(test).iloc[0]))}"
        ax.set_title(key[0] + note, fontsize=7.5)
        ax.set_xlabel(f"{key[1]} ({study.unit_of(key[1])})" if study.unit_of(key[1]) else key[1])
        ax.set_ylabel(MEASURES[study.outcome_type(key[0])][0] + "\nagainst the median")
    return figure


def _strongest(study: Study, table: pd.DataFrame, rows: Callable[[pd.DataFrame], list[Interval]], height: float) -> Figure | None:
    """A panel an outcome, of its strongest biomarker in the table; one below the other, because the rows' names are long."""
    chosen = _first(study, table)
    if not chosen:
        return None
    figure, axes = panels(len(chosen), 6.6, height, 1)
    for ax, key in zip(axes, chosen, strict=True):
        intervals(ax, rows(_rows_of(table, key)), is_ratio(study, key[0]))
        ax.set_title(f"{key[0]}: {key[1]}", fontsize=7.5)
        ax.set_xlabel(_measure(study, key[0]))
    return figure


def _interval(label: str, row, first: bool) -> Interval:
    values = (float("nan") if pd.isna(v) else float(v) for v in (row.estimate, row.ci_low, row.ci_high))
    note = note_text(row.note)
    why = "no estimate" if not isinstance(note, str) or not note else note if note.startswith("not shown") else f"no estimate: {note}"
    return Interval(label, *values, COLOURS[7 if first else 0], why)


def subgroups(study: Study, config: ReportConfig) -> Figure | None:
    """Subgroups of the strongest biomarker of each outcome."""
    rows = subgroup_rows(study, config.min_cell)
    if rows is None:
        return None

    def drawn(mine: pd.DataFrame) -> list[Interval]:
        return [_interval("everybody" if r.subgroup == "all" else str(r.subgroup), r, r.subgroup == "all") for r in mine.itertuples()]

    in_some = pd.MultiIndex.from_frame(rows[list(KEY)]).isin(pd.MultiIndex.from_frame(rows.loc[rows["subgroup"] != "all", list(KEY)]))
    return _strongest(study, rows[in_some], drawn, 2.2)


def sensitivity(study: Study, config: ReportConfig) -> Figure | None:
    """Sensitivity analyses of the strongest biomarker of each outcome."""
    table = study.table("sensitivity", *KEY, "analysis", "estimate", "ci_low", "ci_high")
    if table is None:
        return None

    def drawn(mine: pd.DataFrame) -> list[Interval]:
        return [
            _interval(analysis_label(r.analysis, r.model, r.note, study.cluster), r, r.analysis == "primary") for r in mine.itertuples()
        ]

    table = table.assign(**table.reindex(columns=["model", "note"]))
    return _strongest(study, table[~hide_fits(table, config.min_cell, KEY, total_known=False)], drawn, 2.6)


def measurement_error(study: Study, config: ReportConfig) -> Figure | None:
    """Plain and corrected estimates of the three strongest biomarkers of each outcome."""
    table = study.table("measurement_error", *KEY, "reliability", "estimate", "ci_low", "ci_high")
    if table is None:
        return None
    chosen = _first(study, table[table["estimate"].notna()], 3)
    outcomes = list(dict.fromkeys(k[0] for k in chosen))
    if not outcomes:
        return None
    figure, axes = panels(len(outcomes), 6.6, 2.5, 1)
    kinds = (("", "as measured", 7), ("_rc", "regression calibration", 0), ("_simex", "SIMEX", 1))
    for ax, outcome in zip(axes, outcomes, strict=True):
        drawn: list[Interval] = []
        for key in [k for k in chosen if k[0] == outcome]:
            row = _rows_of(table, key).iloc[0]
            for suffix, label, colour in kinds:
                estimate = row.get(f"estimate{suffix}")
                if estimate is not None and pd.notna(estimate):
                    name = (
                        f"{key[1]} (reliability {row['reliability']:.2f})"
                        if not suffix and pd.notna(row["reliability"])
                        else key[1]
                        if not suffix
                        else label
                    )
                    drawn.append(
                        Interval(name, estimate, row.get(f"ci_low{suffix}", np.nan), row.get(f"ci_high{suffix}", np.nan), COLOURS[colour])
                    )
        intervals(ax, drawn, is_ratio(study, outcome))
        ax.set_title(outcome)
        ax.set_xlabel(_measure(study, outcome))
    return figure


def discrimination(study: Study, config: ReportConfig) -> Figure | None:
    """AUC of the covariates, of single biomarkers and of the set."""
    return _auc(study, study.table("discrimination", "outcome", "predictors", "auc", "ci_low", "ci_high", "n", "n_cases"), config)


def camera(study: Study, config: ReportConfig) -> Figure | None:
    """AUC of camera variables alone."""
    return _auc(study, study.table("camera", "outcome", "predictors", "auc", "ci_low", "ci_high"), config)


def _auc(study: Study, table: pd.DataFrame | None, config: ReportConfig) -> Figure | None:
    if table is None:
        return None
    if {"n", "n_cases"} <= set(table):
        table = table[~hide_fits(table, config.min_cell, ["outcome"], total_known=False)]
    table = table[table["auc"].notna()]
    if "biomarker" in table:
        single = table["biomarker"].notna()
        table = pd.concat([table[~single], strongest_first(study, table[single])])
    outcomes = [o for o in study.outcomes if (table["outcome"] == o).any()]
    if not outcomes:
        return None
    most = max(min(12, (table["outcome"] == o).sum()) for o in outcomes)
    figure, axes = panels(len(outcomes), 6.6, 0.8 + 0.19 * most, 1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        drawn: list[Interval] = []
        for r in table[table["outcome"] == outcome].head(12).itertuples():
            name = getattr(r, "biomarker", None)
            label = CHECKS.get(r.predictors, reader(str(r.predictors))) + (f" ({name})" if isinstance(name, str) else "")
            drawn.append(Interval(label, r.auc, r.ci_low, r.ci_high, COLOURS[0]))
        intervals(ax, drawn, False, 0.5)
        ax.set_title(outcome)
        ax.set_xlabel("area under the ROC curve")
    return figure


FIGURES: dict[str, Callable[[Study, ReportConfig], Figure | None]] = {
    "dose_response": dose_response,
    "subgroups": subgroups,
    "sensitivity": sensitivity,
    "discrimination": discrimination,
    "camera": camera,
    "measurement_error": measurement_error,
}
