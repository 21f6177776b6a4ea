"""How printable figures look: fonts, colours that colour-blind readers tell apart, and files that come out the same each time."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from retsam.report.html import SUPERSCRIPT, number

#: Okabe and Ito's colours, in the order of the page's (blue, vermillion, green, ochre, purple, sky, brown, slate).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B8860B", "#B3568D", "#3F97CF", "#7A6A55", "#444C52")
SHAPES = ("o", "s", "D", "^", "v", "P")
SOFT, HAIR, INK = "#6B7278", "#D9D9D4", "#1D2226"

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    # Ids inside an SVG come from this and not from chance, so that the same tables give the same file.
    "svg.hashsalt": "retsam",
    "text.parse_math": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for the figures of a report."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def panels(n: int, width: float = 3.3, height: float = 2.7, most: int = 2) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` panels in at most ``most`` columns; sizes in inches."""
    columns = min(most, max(1, n))
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[n:]:
        spare.set_axis_off()
    return figure, axes[:n]


def ratio_axis(axis, low: float, high: float) -> None:
    """Label an axis of natural logs with ratios."""
    steps: list[float] = []
    decades = (high - low) / math.log(10)
    if decades > 7:
        step = math.ceil(decades / 6) * math.log(10)
        steps = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    for chosen in (
        ()
        if steps
        else (
            [1, 10],
            [1, 3],
            [1, 2, 5],
            [1, 1.5, 2, 3, 5, 7],
            [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 9],
            [1, 1.1, 1.2, 1.3, 1.5, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 9.5],
        )
    ):
        found = {
            round(math.log(m * 10.0**e), 9)
            for e in range(math.floor(low / math.log(10)) - 1, math.ceil(high / math.log(10)) + 1)
            for m in chosen
        }
        inside = sorted(t for t in found if low <= t <= high)
        if len(inside) > 7 and len(steps) >= 2:
            break
        steps = inside
        if len(steps) >= 4:
            break
    axis.set_major_locator(FixedLocator(steps) if len(steps) >= 2 else MaxNLocator(4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: ratio_tick(v)))


def ratio_tick(log: float) -> str:
    """A ratio from its log, without the zeros that end it: ``0.5``, ``1 000``, ``10\u2076``."""
    value = float(f"{math.exp(log):.3g}")
    exponent = math.floor(math.log10(value) + 1e-9)
    if 10.0**exponent == value and not -4 < exponent < 5:
        return "10" + str(exponent).translate(SUPERSCRIPT)
    text = number(value)
    return text if "\u00d7" in text or "." not in text else text.rstrip("0").rstrip(".")


def bulk(values: Sequence[float]) -> tuple[float, float]:
    """Range of the bulk of the values: a few that lie far out (nearly separated models) must not press all others together."""
    known = np.array([v for v in values if v is not None and np.isfinite(v)], dtype=float)
    if known.size < 8:
        return -math.inf, math.inf
    # of a few, even one moves the outer quantiles
    outer, times = (0.25, 3.0) if known.size < 40 else (0.03, 1.5)
    low, high = np.quantile(known, [outer, 1 - outer])
    room = max(high - low, 1e-9) * times
    return float(low - room), float(high + room)


def limits(values: Sequence[float], pad: float = 0.06, include: Sequence[float] = ()) -> tuple[float, float]:
    """Range of the finite values and of ``include``, a little wider."""
    known = np.array([v for v in [*values, *include] if v is not None and np.isfinite(v)], dtype=float)
    if known.size == 0:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = (high - low) * pad or 0.5
    return low - room, high + room


def absent(why: str) -> Figure:
    """A figure that says why there is nothing to draw (files that a workflow expects always exist)."""
    figure = Figure(figsize=(6, 1.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0, 0.5, f"Not shown: {why}", wrap=True, va="center", color=SOFT)
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name.svg`` and ``name.pdf``, each whole or not at all, without dates."""
    for kind, metadata in (
        ("svg", {"Date": None, "Creator": "retsam"}),
        ("pdf", {"CreationDate": None, "ModDate": None, "Creator": "retsam", "Producer": None}),
    ):
        out = io.BytesIO()
        figure.savefig(out, format=kind, metadata=metadata)
        temporary = folder / f".{name}.{kind}.part"
        temporary.write_bytes(out.getvalue())
        os.replace(temporary, folder / f"{name}.{kind}")
