"""The printable figures: one SVG and one PDF each in ``figures/``, under names that do not depend on the study."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from retsam.report import figures_prediction, figures_robustness
from retsam.report.config import ReportConfig
from retsam.report.flow import flow_table, reasons_text, shared_steps, stage_text
from retsam.report.heads import weak_targets
from retsam.report.html import count, estimate_text, p_text
from retsam.report.sections.associations import MARKS, marked, primary_rows
from retsam.report.sections.biomarkers import (
    correlation_matrix,
    density_blocks,
    hidden_reasons,
    hidden_sizes,
    missingness,
    never_measured,
    ranking,
)
from retsam.report.sections.common import MEASURES, alpha, family_order, is_ratio, method_name, per, reader
from retsam.report.sections.participants import grades_by_group
from retsam.report.study import Problem, Study
from retsam.report.style import COLOURS, HAIR, INK, SHAPES, SOFT, absent, bulk, limits, panels, ratio_axis, save, styled

#: Base names of the files, in the order of the report. Each is always written; one without data says why.
FIGURES: dict[str, Callable[[Study, ReportConfig], Figure | None]] = {}


def _figure(name: str):
    def register(function):
        FIGURES[name] = function
        return function

    return register


def write_figures(study: Study, config: ReportConfig, folder: Path) -> list[Path]:
    """Write every figure of :data:`FIGURES` into ``folder``.

    Returns
    -------
    list of Path
        The SVG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with styled(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, draw in FIGURES.items():
            figure = draw(study, config)
            save(
                figure
                if figure is not None
                else absent(f"the study has no table for the figure \u201c{name.replace('_', ' ')}\u201d, or no rows in it."),
                folder,
                name,
            )
    lacking = set()
    for w in caught:
        glyph = _GLYPH.match(str(w.message))
        if glyph:
            lacking.add(chr(int(glyph.group(1))))
        else:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    if lacking:
        study.problems.append(
            Problem(
                "warning",
                f"The printable figures need {len(lacking)} characters that no font of this machine has ({''.join(sorted(lacking)[:20])}): "
                "in the PDFs they are boxes, in the SVGs they show where a reader has such a font.",
            )
        )
    return [folder / f"{name}.svg" for name in FIGURES]


#: How Matplotlib says that a character cannot be drawn.
_GLYPH = re.compile(r"Glyph (\d+) ")


def stills(files: Iterable[Path], largest: int = 400_000) -> dict[str, str]:
    """Figures as ``data:`` addresses by their name, for readers without scripts; files over ``largest`` bytes stay beside the page."""
    return {
        path.stem: "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        for path in files
        if path.stat().st_size <= largest
    }


# ---- participants ----------------------------------------------------------------------------------------------------


@_figure("flow")
def _flow(study: Study, config: ReportConfig) -> Figure | None:
    table = flow_table(study)
    if table is None:
        return None
    steps = shared_steps(table)
    figure = Figure(figsize=(6.6, 0.72 * len(steps) + 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10)
    axes.set_ylim(-len(steps) + 0.3, 0.6)
    axes.set_axis_off()
    for i, (_, row) in enumerate(steps.iterrows()):
        name, excluded = stage_text(study, row)
        subjects = "" if pd.isna(row["n_subjects"]) else f" ({count(row['n_subjects'])} subjects)"
        axes.add_patch(Rectangle((0.2, -i - 0.27), 4.2, 0.54, facecolor="white", edgecolor=INK, linewidth=0.8))
        axes.text(2.3, -i, f"{name}: {count(row['n_images'])}{subjects}", ha="center", va="center")
        if i:
            axes.annotate(
                "",
                (2.3, -i + 0.27),
                (2.3, -i + 0.73),
                arrowprops={"arrowstyle": "-|>", "linewidth": 0.8, "color": INK, "shrinkA": 0, "shrinkB": 0},
            )
            if row["n_excluded"]:
                reasons = reasons_text(row, 4)
                text = f"{count(row['n_excluded'])} {excluded}" + (f"\n({reasons})" if reasons else "")
                axes.plot([2.3, 4.9], [-i + 0.5] * 2, color=INK, linewidth=0.8)
                axes.text(5.0, -i + 0.5, text, va="center", fontsize=7, color=INK)
    return figure


@_figure("quality")
def _quality(study: Study, config: ReportConfig) -> Figure | None:
    table = study.table("quality_by_outcome", "outcome", "group", "grade", "n")
    if table is None:
        return None
    found = grades_by_group(table, config.min_cell)
    shares = found.rows.set_index(["facet", "label", "series"])["value"].to_dict()
    groups = list(dict.fromkeys(zip(found.rows["facet"], found.rows["label"], strict=True)))
    figure, (axes,) = panels(1, 6.6, 0.9 + 0.22 * len(groups), 1)
    colours = {name: HAIR if name in found.joined else COLOURS[k % 8] for k, name in enumerate(found.series)}
    for y, (outcome, group) in enumerate(groups):
        at = 0.0
        for name in found.series:
            share = shares.get((outcome, group, name), 0.0)
            if share > 0:
                axes.barh(y, share, left=at, color=colours[name], height=0.7, edgecolor="white", linewidth=0.5)
                at += share
    axes.set_yticks(range(len(groups)), [f"{o}: {g}" for o, g in groups])
    axes.invert_yaxis()
    axes.set_xlabel("share of the photographs of the group")
    axes.set_xlim(0, 1)
    figure.legend(
        handles=[Line2D([], [], marker="s", linestyle="", color=c, label=name) for name, c in colours.items()],
        loc="outside upper center",
        ncols=3,
    )
    return figure


# ---- biomarkers ------------------------------------------------------------------------------------------------------


@_figure("distributions")
def _distributions(study: Study, config: ReportConfig) -> Figure | None:
    table = study.table("distribution", "outcome", "group", "biomarker", "n", "p50")
    if table is None:
        return None
    primary = study.primary
    chosen = []
    for outcome in study.outcomes:
        names = (
            [b for b in ranking(study)]
            if primary is None
            else list(
                primary[(primary["outcome"] == outcome) & (primary["covariate_set"] == study.primary_set)]
                .dropna(subset=["neg_log10_p"])
                .sort_values("neg_log10_p", ascending=False)["biomarker"]
            )
        )
        known = set(table.loc[(table["outcome"] == outcome) & table["p50"].notna(), "biomarker"])
        chosen += [(outcome, b) for b in names if b in known][:2]
    if not chosen:
        return None
    density = density_blocks(study, config.min_cell)
    figure, axes = panels(len(chosen), 3.3, 2.1)
    for ax, (outcome, name) in zip(axes, chosen, strict=True):
        block = density.get(f"{outcome}\0{name}")
        mine = table[(table["outcome"] == outcome) & (table["biomarker"] == name) & (table["n"] >= config.min_cell)]
        small_group = hidden_sizes(table, config.min_cell)[(table["outcome"] == outcome) & (table["biomarker"] == name)].any()
        for k, row in enumerate(mine.itertuples()):
            label = row.group if small_group else f"{row.group} (n = {count(row.n)})"
            style = {"color": COLOURS[k % 8], "linestyle": ("-", "--", ":", "-.")[k % 4]}
            if block and row.group in block["groups"]:
                heights = np.array([np.nan if v is None else v for v in block["groups"][row.group]])
                ax.stairs(
                    heights,
                    np.linspace(block["low"], block["high"], len(heights) + 1),
                    baseline=None,
                    linewidth=1.2,
                    label=label,
                    **style,
                )
            else:
                ax.plot([], [], label=label, **style)
            ax.axvline(row.p50, linewidth=0.7, alpha=0.8, **style)
        unit = study.unit_of(name)
        ax.set_title(outcome)
        ax.set_xlabel(f"{name} ({unit})" if unit else name)
        ax.set_ylabel("density")
        ax.set_yticks([])
        ax.legend()
    return figure


@_figure("missingness")
def _missingness(study: Study, config: ReportConfig) -> Figure | None:
    table = missingness(study)
    if table is None:
        return None
    table = table[~hidden_reasons(table, config.min_cell) & ~table["biomarker"].isin(never_measured(table))]
    if table.empty:
        return None
    names = table.groupby("biomarker")["n"].sum().sort_values(ascending=False).index[:30]
    reasons = table.groupby("reason")["n"].sum().sort_values(ascending=False).index
    figure, (axes,) = panels(1, 6.6, 1.1 + 0.17 * len(names), 1)
    at = np.zeros(len(names))
    for k, reason in enumerate(reasons[:8]):
        share = table[table["reason"] == reason].set_index("biomarker")["share"].reindex(names).fillna(0).to_numpy(dtype=float)
        axes.barh(range(len(names)), share, left=at, color=COLOURS[k % 8], height=0.75, label=reader(str(reason)))
        at += share
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("share missing")
    axes.legend(loc="lower right")
    return figure


@_figure("correlation")
def _correlation(study: Study, config: ReportConfig) -> Figure | None:
    found = correlation_matrix(study, config.correlation_biomarkers, config.min_cell)
    if found is None:
        return None
    matrix, _ = found
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("retsam", ["#00529B", "#FAF9F6", "#BE4800"]).with_extremes(bad="#D8D8D4")
    n = len(matrix)
    side = min(9.5, 3.2 + 0.085 * n)
    figure, (axes,) = panels(1, side + 1.2, side, 1)
    picture = axes.imshow(matrix.to_numpy(), cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    size = float(np.clip(380 / n, 2.2, 7))
    axes.set_xticks(range(n), matrix.columns, rotation=90, fontsize=size)
    axes.set_yticks(range(n), matrix.index, fontsize=size)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, shrink=0.4, label="Spearman r").outline.set_visible(False)
    return figure


# ---- associations ----------------------------------------------------------------------------------------------------


def _families(study: Study, table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Family -> colour and marker, as on the page."""
    names = family_order(study, table["biomarker_family"].dropna().unique())
    return {f: (COLOURS[i % 8], SHAPES[i % len(SHAPES)]) for i, f in enumerate(names)}


def _by_outcome(study: Study, config: ReportConfig) -> tuple[pd.DataFrame, list[str]] | None:
    table = primary_rows(study, config.min_cell)
    if table is None:
        return None
    table = table[(table["covariate_set"] == study.primary_set) & table["estimate"].notna() & table["neg_log10_p"].notna()].copy()
    for column in ("estimate", "ci_low", "ci_high", "neg_log10_p", "q", "n", "n_cases"):
        table[column] = table[column].astype(float)
    outcomes = [o for o in study.outcomes if (table["outcome"] == o).any()]
    return (table, outcomes) if outcomes else None


def _each_outcome(
    study: Study,
    config: ReportConfig,
    draw: Callable[[Axes, str, pd.DataFrame, dict], None],
    *size: float,
    legend: bool = False,
    thresholds: bool = False,
) -> Figure | None:
    """A titled panel an outcome, drawn from its estimates and the families' colours and markers; None without estimates."""
    found = _by_outcome(study, config)
    if found is None:
        return None
    table, outcomes = found
    families = _families(study, table)
    figure, axes = panels(len(outcomes), *size)
    for ax, outcome in zip(axes, outcomes, strict=True):
        draw(ax, outcome, table[table["outcome"] == outcome], families)
        ax.set_title(outcome)
    if legend:
        _legend(figure, families)
    if thresholds:
        _threshold_legend(figure, study)
    return figure


def _thresholds(ax: Axes, study: Study, mine: pd.DataFrame) -> float:
    """Draw the Bonferroni threshold, and that of the smallest p that q passes; the height of the former."""
    line = _threshold(study, mine)
    ax.axhline(line, color=SOFT, linewidth=0.7, linestyle="--")
    passing = mine.loc[mine["q"] <= alpha(study), "neg_log10_p"]
    if len(passing) and abs(passing.min() - line) > 0.05:
        ax.axhline(passing.min() - 1e-3, color=SOFT, linewidth=0.7, linestyle=":")
    return line


def _threshold_legend(figure: Figure, study: Study) -> None:
    lines = {"--": f"Bonferroni at {alpha(study):g}", ":": f"q \u2264 {alpha(study):g} ({method_name(study)})"}
    handles = [Line2D([], [], color=SOFT, linewidth=0.8, linestyle=style, label=text) for style, text in lines.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _threshold(study: Study, mine: pd.DataFrame) -> float:
    tests = int(mine["n_tests"].max()) if "n_tests" in mine and mine["n_tests"].notna().any() else len(mine)
    return -np.log10(alpha(study) / max(1, tests))


def _legend(figure: Figure, families: dict[str, tuple[str, str]], marks: str = "") -> None:
    handles = [Line2D([], [], marker=m, color=c, linestyle="", markersize=4, label=f) for f, (c, m) in families.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, max(1, len(handles))), title=marks or None, title_fontsize=7)


@_figure("forest")
def _forest(study: Study, config: ReportConfig) -> Figure | None:
    found = _by_outcome(study, config)
    if found is None:
        return None
    table, outcomes = found
    table = marked(study, table, weak_targets(study))
    families = _families(study, table)
    figure, axes = panels(len(outcomes), 7.0, 0.9 + 0.2 * min(config.forest_rows, max((table["outcome"] == o).sum() for o in outcomes)), 1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        mine = table[table["outcome"] == outcome].sort_values("neg_log10_p", ascending=False).head(config.forest_rows)
        ratio = is_ratio(study, outcome)
        span = limits(mine["estimate"].clip(*bulk(mine["estimate"].tolist())).tolist(), 0.6, [0.0])
        low, high = max(span[0], mine["ci_low"].min()), min(span[1], mine["ci_high"].max())
        low, high = limits([low, high], 0.04, [0.0])
        for y, row in enumerate(mine.itertuples()):
            colour, marker = families.get(row.biomarker_family, (SOFT, "o"))
            ax.plot([row.ci_low, row.ci_high], [y, y], color=colour, linewidth=1.1)
            ax.plot(row.estimate, y, marker=marker, color=colour, markersize=4)
            for edge, beyond, arrow in ((low, row.ci_low < low, "<"), (high, row.ci_high > high, ">")):
                if beyond:
                    ax.plot(edge, y, marker=arrow, color=colour, markersize=4, clip_on=False)
            text = f"{estimate_text(row.estimate, row.ci_low, row.ci_high, ratio)}   p {p_text(row.neg_log10_p)}"
            ax.text(1.04, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
        ax.axvline(0, color=SOFT, linewidth=0.8)
        ax.set_xlim(low, high)
        if ratio:
            ratio_axis(ax.xaxis, low, high)
        ax.set_yticks(range(len(mine)), [_scaled(r) for r in mine.itertuples()])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_title(outcome)
        ax.set_xlabel(f"{MEASURES[study.outcome_type(outcome)][0]} {per(study)}, adjusted for {study.primary_set}")
    _legend(figure, families, _marks(table))
    return figure


def _scaled(row) -> str:
    """A biomarker with its marks, on the scale on which it was analysed: ``log(1 + hemorrhage_count) \u2021``."""
    scale = {"log(1 + x)": "log(1 + {})", "log(1 + x/m)": "log(1 + {}/m)", "rank scale": "ranks of {}"}.get(row.on_scale, "{}")
    return f"{scale.format(row.biomarker)} {row.mark}".strip()


def _marks(table: pd.DataFrame) -> str:
    """What the marks and the scales of the rows mean."""
    said = [f"{sign} {MARKS[sign]}" for sign in MARKS if table["mark"].str.contains(sign).any()]
    if (table["on_scale"] == "log(1 + x/m)").any():
        said.append("m: median of the values above zero")
    return "; ".join(said)


@_figure("volcano")
def _volcano(study: Study, config: ReportConfig) -> Figure | None:
    def draw(ax: Axes, outcome: str, mine: pd.DataFrame, families: dict) -> None:
        mine = mine.assign(estimate=mine["estimate"].clip(*bulk(mine["estimate"].tolist())))
        for family, part in mine.groupby("biomarker_family"):
            ax.scatter(part["estimate"], part["neg_log10_p"], s=11, color=families[family][0], marker=families[family][1], linewidths=0)
        line = _thresholds(ax, study, mine)
        ax.axvline(0, color=SOFT, linewidth=0.7)
        low, high = limits(mine["estimate"].tolist(), 0.1, [0.0])
        ax.set_xlim(low, high)
        ax.set_ylim(0, max(line, mine["neg_log10_p"].max()) * 1.12)
        if is_ratio(study, outcome):
            ratio_axis(ax.xaxis, low, high)
        named: list[float] = []
        for row in mine.nlargest(5, "neg_log10_p").itertuples():
            if row.neg_log10_p > line and all(abs(row.neg_log10_p - other) > 0.055 * ax.get_ylim()[1] for other in named):
                named.append(row.neg_log10_p)
                right = row.estimate > (low + high) / 2
                ax.annotate(
                    row.biomarker,
                    (row.estimate, row.neg_log10_p),
                    (-4 if right else 4, 3),
                    textcoords="offset points",
                    ha="right" if right else "left",
                    fontsize=5.5,
                )
        ax.set_xlabel(f"{MEASURES[study.outcome_type(outcome)][0]} {per(study)}")
        ax.set_ylabel("\u2212log10 p")

    return _each_outcome(study, config, draw, legend=True, thresholds=True)


@_figure("manhattan")
def _manhattan(study: Study, config: ReportConfig) -> Figure | None:
    def draw(ax: Axes, outcome: str, mine: pd.DataFrame, families: dict) -> None:
        mine = mine.iloc[np.argsort(mine["biomarker_family"].map(list(families).index).to_numpy(), kind="stable")].reset_index(drop=True)
        ticks = []
        for k, (family, part) in enumerate(mine.groupby("biomarker_family", sort=False)):
            up = part["estimate"] >= 0
            for marker, some in (("^", part[up]), ("v", part[~up])):
                ax.scatter(some.index, some["neg_log10_p"], s=11, color=families[family][0], marker=marker, linewidths=0)
            if k % 2:
                ax.axvspan(part.index[0] - 0.5, part.index[-1] + 0.5, color=HAIR, alpha=0.35, linewidth=0)
            ticks.append((part.index.to_numpy().mean(), family))
        line = _thresholds(ax, study, mine)
        ax.set_xticks([t for t, _ in ticks], [reader(f) for _, f in ticks], rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlim(-1, len(mine))
        ax.set_ylim(0, max(line, mine["neg_log10_p"].max()) * 1.1)
        ax.set_ylabel("\u2212log10 p")

    return _each_outcome(study, config, draw, 6.8, 2.3, 1, thresholds=True)


@_figure("qq")
def _qq(study: Study, config: ReportConfig) -> Figure | None:
    from scipy.stats import beta

    def draw(ax: Axes, outcome: str, mine: pd.DataFrame, families: dict) -> None:
        observed = np.sort(mine["neg_log10_p"].to_numpy())[::-1]
        n = len(observed)
        i = np.arange(1, n + 1)
        expected = -np.log10((i - 0.5) / n)
        ax.fill_between(
            expected, -np.log10(beta.ppf(0.975, i, n - i + 1)), -np.log10(beta.ppf(0.025, i, n - i + 1)), color=HAIR, linewidth=0
        )
        ax.plot([0, expected.max()], [0, expected.max()], color=SOFT, linewidth=0.8)
        ax.scatter(expected, observed, s=9, color=COLOURS[0], linewidths=0)
        ax.set_xlabel("expected \u2212log10 p")
        ax.set_ylabel("observed \u2212log10 p")

    return _each_outcome(study, config, draw)


FIGURES |= figures_robustness.FIGURES | figures_prediction.FIGURES
