"""Widths of vessels normal to their centrelines, beading, and length over width."""

from __future__ import annotations

import numpy as np

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import (
    STRUCTURES,
    ZONES,
    Analysis,
    Value,
    column,
    length_columns,
    length_entries,
    weighted_quantiles,
)
from retsam.biomarkers.vessels.curves import SHARPEST_WIDTH

_STATISTICS = {
    "width_mean": "Mean width of the vessels, each segment weighted by the length that was measured; a segment's width is the mean of "
    "sub-pixel widths normal to its centreline, outside junctions and sharp bends.",
    "width_sd": "Standard deviation of the segments' widths, weighted by length.",
    "width_p10": "10th percentile (Harrell-Davis) of widths along the vessels, each the mean of a piece 1/34 of the field of view long.",
    "width_p50": "Median (Harrell-Davis) of widths along the vessels, each the mean of a piece 1/34 of the field of view long.",
    "width_p90": "90th percentile (Harrell-Davis) of widths along the vessels, each the mean of a piece 1/34 of the field of view long.",
}

#: Percentiles are those of pieces of the segments about this long (units, see `graph.build_graph`): where a segment is cut does not matter.
PIECE_PX = 16.0
#: A segment's beading is measured when it is at least this many widths long and this many px wide.
BEADING_LENGTH_WIDTHS = 5.0
BEADING_WIDTH_PX = 3.0
#: Widths are averaged over this many px before their variance is taken.
BEADING_AVERAGE_PX = 3.0
#: Variance of a width that pixels of the mask alone produce: two edges, each off by a uniform half pixel.
_PIXEL_VARIANCE = 2.0 / 12.0

DICTIONARY: list[Biomarker] = [
    entry
    for structure in STRUCTURES
    for region in ZONES
    for name, definition in _STATISTICS.items()
    for entry in length_entries(
        length_columns(name, structure, region),
        structure,
        region,
        definition,
        needs=(structure, "fov") + (("disc",) if region != "whole" else ()),
        direction="more unequal vessels" if name == "width_sd" else "wider vessels",
        resolution="calibre",
    )
]
for _structure in STRUCTURES:
    DICTIONARY.append(
        Biomarker(
            column("length_diameter_ratio", _structure),
            "vessels",
            "Median over segments between two bifurcations of length over mean width.",
            source="Witt 2006; King 1996",
            needs=(_structure, "fov"),
            valid_range=(0.0, 1e4),
            direction="longer, thinner segments",
            structure=_structure,
            resolution="calibre",
        )
    )
DICTIONARY.append(
    Biomarker(
        "beading_index_vein",
        "vessels",
        "Variance of the vein's width along a segment beyond a linear taper, less what pixels alone produce, over the squared mean "
        "width; mean over segments, weighted by length.",
        source="after ETDRS report 10 (venous beading), 1991",
        needs=("vein", "fov"),
        valid_range=(0.0, 1.0),
        direction="more beading",
        structure="vein",
        resolution="calibre",
    )
)


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    for structure in STRUCTURES:
        for region in ZONES:
            null = analysis.null(structure, region, "calibre")
            found: list[Value] = [null] * 5 if null is not None else _statistics(analysis, structure, region)
            for name, value in zip(_STATISTICS, found, strict=True):
                values |= analysis.lengths(length_columns(name, structure, region), value)
        null = analysis.missing(structure, "calibre")
        values[column("length_diameter_ratio", structure)] = null if null is not None else _length_diameter_ratio(analysis, structure)
    null = analysis.missing("vein", "calibre")
    values["beading_index_vein"] = null if null is not None else _beading(analysis)
    return values


def _statistics(analysis: Analysis, structure: str, region: str) -> list[Value]:
    """Mean, SD and percentiles of the segments' widths (grid px)."""
    pieces = analysis.stretches(structure, region)
    use = pieces.samples > 0
    if not use.any():
        return [Null("too_few_vessels")] * 5
    width, weight = pieces.width[use], pieces.samples[use]
    mean = float(np.average(width, weights=weight))
    sd = float(np.sqrt(np.average((width - mean) ** 2, weights=weight)))
    return [mean, sd, *weighted_quantiles(*_pieces(analysis, structure, region), (0.1, 0.5, 0.9))]


def _pieces(analysis: Analysis, structure: str, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean widths of pieces of the segments about `PIECE_PX` long, and how many samples each has."""
    graph = analysis.graph(structure)
    use = graph.measured & analysis.inside(structure, region)
    use &= np.abs(graph.curvature) * graph.width <= SHARPEST_WIDTH
    if not use.any():
        use = graph.measured & analysis.inside(structure, region)
    along = np.arange(len(use)) - graph.offsets[graph.segment_of]
    piece = along // max(1, round(PIECE_PX * graph.unit / graph.pixel))
    starts = np.flatnonzero((np.diff(piece, prepend=-1) != 0) | (along == 0))
    number = np.add.reduceat(use.astype(float), starts)
    total = np.add.reduceat(np.where(use, graph.width, 0.0), starts)
    some = number > 0
    return total[some] / number[some], number[some]


def _length_diameter_ratio(analysis: Analysis, structure: str) -> Value:
    graph = analysis.graph(structure)
    pieces = analysis.stretches(structure)
    bifurcation = np.append(graph.node_kind == "bifurcation", False)
    between = bifurcation[graph.ends[pieces.segment]].all(axis=1) & (pieces.samples > 0)
    if not between.any():
        return Null("too_few_vessels")
    return float(np.median(pieces.length[between] / pieces.width[between]))


def _beading(analysis: Analysis) -> Value:
    graph = analysis.graph("vein")
    pieces = analysis.stretches("vein")
    # An odd number of samples, which lie a pixel of the drawn mask apart.
    average = 2 * round((BEADING_AVERAGE_PX * graph.unit / graph.pixel - 1.0) / 2.0) + 1
    use = (pieces.length >= BEADING_LENGTH_WIDTHS * pieces.width) & (pieces.width >= BEADING_WIDTH_PX * graph.unit)
    use &= pieces.samples >= 4 * average
    total = weight = 0.0
    for i in np.flatnonzero(use):
        window = slice(pieces.start[i], pieces.stop[i])
        ok = graph.measured[window]
        along = np.cumsum(graph.step[window])[ok]
        smooth = np.convolve(graph.width[window][ok], np.ones(average) / average, mode="valid")
        along = along[average // 2 : average // 2 + len(smooth)]
        residual = smooth - np.polyval(np.polyfit(along, smooth, 1), along)
        # A mean over so many pixels of the mask; how many samples the grid takes of them makes no difference.
        variance = max(float(residual.var()) - _PIXEL_VARIANCE / (average * graph.pixel), 0.0)
        total += pieces.length[i] * variance / pieces.width[i] ** 2
        weight += pieces.length[i]
    return total / weight if weight else Null("too_few_vessels")
