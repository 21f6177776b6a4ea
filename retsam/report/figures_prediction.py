"""Printable figures of agreement, replication, ROC curves and calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from retsam.report.config import ReportConfig
from retsam.report.figures_robustness import Interval, intervals
from retsam.report.sections.biomarkers import ranking
from retsam.report.sections.common import MEASURES, is_ratio, per
from retsam.report.sections.prediction import MODELS, thin
from retsam.report.study import Study
from retsam.report.style import COLOURS, SHAPES, SOFT, bulk, limits, panels, ratio_axis


def agreement(study: Study, config: ReportConfig) -> Figure | None:
    """Right against left eye: intraclass correlation of the biomarkers with the strongest associations."""
    table = study.table("agreement", "biomarker", "n_pairs", "icc", "ci_low", "ci_high")
    if table is None:
        return None
    order = ranking(study)
    table = table[(table["n_pairs"] >= config.min_cell) & table["icc"].notna()]
    table = table.assign(rank=table["biomarker"].map(order).fillna(len(order))).sort_values("rank", kind="stable").head(30)
    if table.empty:
        return None
    table = table.sort_values("icc", ascending=False)
    figure, (axes,) = panels(1, 6.6, 0.9 + 0.17 * len(table), 1)
    intervals(axes, [Interval(r.biomarker, r.icc, r.ci_low, r.ci_high, COLOURS[0]) for r in table.itertuples()], False)
    axes.set_xlabel("intraclass correlation of right and left eye")
    return figure


def replication(study: Study, config: ReportConfig) -> Figure | None:
    """Estimates of the discovery part against those of the replication part, in the primary covariate set."""
    table = study.table("replication", "outcome", "biomarker", "covariate_set", "estimate_discovery", "estimate_replication")
    if table is None:
        return None
    in_primary = table["covariate_set"] == study.primary_set
    table = table[in_primary] if in_primary.any() else table
    table = table[table["estimate_discovery"].notna() & table["estimate_replication"].notna()]
    outcomes = [o for o in study.outcomes if (table["outcome"] == o).any()]
    if not outcomes:
        return None
    figure, axes = panels(len(outcomes), 3.3, 3.1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        mine = table[table["outcome"] == outcome]
        both = mine[["estimate_discovery", "estimate_replication"]]
        held = both.clip(*bulk(both.to_numpy().ravel().tolist()))
        low, high = limits(held.to_numpy().ravel().tolist(), 0.08, [0.0])
        replicated = (
            mine["replicated"].map(lambda v: str(v).lower() == "true") if "replicated" in mine else pd.Series(False, index=mine.index)
        )
        for flag, colour, marker, label in ((False, SOFT, "D", "not replicated"), (True, COLOURS[0], "o", "replicated")):
            some = held[replicated == flag]
            ax.scatter(some.iloc[:, 0], some.iloc[:, 1], s=9, color=colour, marker=marker, linewidths=0, label=label)
        ax.plot([low, high], [low, high], color=SOFT, linewidth=0.7, linestyle="--")
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        if is_ratio(study, outcome):
            ratio_axis(ax.xaxis, low, high)
            ratio_axis(ax.yaxis, low, high)
        ax.set_title(outcome)
        ax.set_xlabel(f"{MEASURES[study.outcome_type(outcome)][0]} {per(study)}, discovery")
        ax.set_ylabel("replication")
        ax.legend()
    return figure


def _curves(study: Study, table: pd.DataFrame | None, draw: Callable, x: str, y: str) -> Figure | None:
    """A square panel an outcome with one series a model, the diagonal behind."""
    outcomes = [] if table is None else [o for o in study.outcomes if (table["outcome"] == o).any()]
    if not outcomes:
        return None
    figure, axes = panels(len(outcomes), 3.3, 3.1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        mine = table[table["outcome"] == outcome]
        ax.plot([0, 1], [0, 1], color=SOFT, linewidth=0.7, linestyle="--")
        for k, (name, part) in enumerate(mine.groupby("predictors", sort=False)):
            draw(ax, part, {"color": COLOURS[k % 8], "label": MODELS.get(name, name)}, k)
        ax.set_title(outcome)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        ax.legend()
    return figure


def roc(study: Study, config: ReportConfig) -> Figure | None:
    """ROC curves of the held-out predictions."""

    def draw(ax, part: pd.DataFrame, style: dict, k: int) -> None:
        curve = thin(part)
        ax.plot(curve["fpr"], curve["tpr"], linewidth=1.2, linestyle=("-", "--", ":", "-.")[k % 4], **style)

    return _curves(study, study.table("roc", "outcome", "predictors", "fpr", "tpr"), draw, "1 \u2212 specificity", "sensitivity")


def calibration(study: Study, config: ReportConfig) -> Figure | None:
    """Observed share against predicted risk, by bins with enough eyes."""
    table = study.table("calibration", "outcome", "predictors", "predicted", "observed", "ci_low", "ci_high")
    if table is not None and "n" in table:
        table = table[~((table["n"] > 0) & (table["n"] < config.min_cell))]

    def draw(ax, part: pd.DataFrame, style: dict, k: int) -> None:
        part = part.dropna(subset=["predicted", "observed"])
        reach = np.abs(part[["ci_low", "ci_high"]].to_numpy(dtype=float).T - part["observed"].to_numpy(dtype=float))
        ax.errorbar(part["predicted"], part["observed"], yerr=reach, fmt=SHAPES[k % len(SHAPES)], markersize=3.4, linewidth=0.9, **style)

    return _curves(study, table, draw, "predicted risk", "observed share")


FIGURES: dict[str, Callable[[Study, ReportConfig], Figure | None]] = {
    "agreement": agreement,
    "replication": replication,
    "roc": roc,
    "calibration": calibration,
}
