"""How much vessel there is: densities, counts of the graph, and the distance from the retina to its nearest vessel."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import (
    HEMIFIELDS,
    STRUCTURES,
    ZONES,
    Analysis,
    Value,
    column,
    length_columns,
    length_entries,
    lookup,
)
from retsam.biomarkers.vessels.pose import canonical_pose

REGIONS = (*ZONES, *HEMIFIELDS)
#: Regions in which the graph's nodes are counted.
COUNT_REGIONS = ("whole", "zone_c")

_COUNTS = {
    "segment_count": (
        "Number of vessel segments between nodes of the graph (after spurs are cut and crossings led through).",
        "more segments",
    ),
    "endpoint_count": ("Number of free vessel ends.", "more, or more broken, vessels"),
    "branchpoint_count": (
        "Number of bifurcations; a junction counts once, a crossing of artery and vein not at all. Vessels of one kind are taken not to "
        "cross: an X of two of them counts as one bifurcation at about a right angle, as two at a slant.",
        "more branching",
    ),
    "component_count": (
        "Number of connected pieces of the vessel graph; in a zone, of what lies inside it, each vessel that only joins others outside "
        "by itself.",
        "more, or more broken, vessels",
    ),
}


def _needs(structure: str, region: str) -> tuple[str, ...]:
    extra = {"whole": (), "superior": ("disc", "fovea", "laterality"), "inferior": ("disc", "fovea", "laterality")}.get(region, ("disc",))
    return (structure, "fov", *extra)


DICTIONARY: list[Biomarker] = []
for _structure in STRUCTURES:
    for _region in REGIONS:
        DICTIONARY.append(
            Biomarker(
                column("area_density", _structure, _region), "vessels",
                "Area of the vessels over the area of the region inside the field of view.",
                needs=_needs(_structure, _region), valid_range=(0.0, 1.0), direction="denser vessels",
                structure=_structure, region=_region, resolution="density",
            )
        )  # fmt: skip
        for _suffix, _unit, _extra, _word in (
            ("", "px^-1", (), "native pixel"), ("dd", "DD^-1", ("disc",), "disc diameter"), ("mm", "mm^-1", ("scale",), "millimetre"),
        ):  # fmt: skip
            DICTIONARY.append(
                Biomarker(
                    column("length_density", _structure, _region, _suffix), "vessels",
                    f"Length of the smoothed centrelines over the region's area inside the field of view: {_word}s per square {_word}.",
                    unit=_unit, needs=tuple(dict.fromkeys((*_needs(_structure, _region), *_extra))), valid_range=(0.0, 1e3),
                    direction="denser vessels", structure=_structure, region=_region, resolution="density",
                )
            )  # fmt: skip
    for _region in COUNT_REGIONS:
        for _name, (_definition, _direction) in _COUNTS.items():
            DICTIONARY.append(
                Biomarker(
                    column(_name, _structure, _region), "vessels", _definition, unit="count", needs=_needs(_structure, _region),
                    valid_range=(0.0, 1e5), direction=_direction, structure=_structure, region=_region, resolution="density",
                )
            )  # fmt: skip
    for _name, _definition in (
        (
            "sparsity_mean",
            "Mean distance from a point of the retina in the field of view to the edge of the nearest vessel (not stray pixels).",
        ),
        (
            "sparsity_max",
            "Largest distance from a point of the retina in the field of view to the edge of the nearest vessel (not stray pixels).",
        ),
    ):
        DICTIONARY += length_entries(
            length_columns(_name, _structure), _structure, "whole", _definition, needs=(_structure, "fov"), source="Vargas Quiros 2025",
            direction="sparser vessels", resolution="density",
        )  # fmt: skip


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    for structure in STRUCTURES:
        for region in REGIONS:
            null = analysis.null(structure, region, "density")
            values |= _densities(analysis, structure, region, null)
        for region in COUNT_REGIONS:
            null = analysis.null(structure, region, "density")
            counts: dict[str, Value] = dict.fromkeys(_COUNTS, null) if null is not None else _counts(analysis, structure, region)
            values |= {column(name, structure, region): value for name, value in counts.items()}
        null = analysis.missing(structure, "density")
        mean, largest = (null, null) if null is not None else _sparsity(analysis, structure)
        values |= analysis.lengths(length_columns("sparsity_mean", structure), mean)
        values |= analysis.lengths(length_columns("sparsity_max", structure), largest)
    return values


def _densities(analysis: Analysis, structure: str, region: str, null: Null | None) -> dict[str, Value]:
    area_name = column("area_density", structure, region)
    names = [column("length_density", structure, region, suffix) for suffix in ("", "dd", "mm")]
    if null is not None:
        return dict.fromkeys([area_name, *names], null)
    mask = analysis.region_mask(region)
    area = int(np.count_nonzero(mask))
    plane = analysis.context.plane(structure)
    graph = analysis.graph(structure)
    length = float(graph.sample_length[analysis.inside(structure, region)].sum())
    vessel = np.count_nonzero(plane) if region == "whole" else int(cv2.countNonZero(plane.view(np.uint8) & mask.view(np.uint8)))
    density = length / area
    um = analysis.context.um_per_grid_px
    return {
        area_name: vessel / area,
        names[0]: density / analysis.native,
        names[1]: density * analysis.px_per_dd if analysis.px_per_dd else (analysis.context.disc_null or Null("no_disc")),
        names[2]: density * 1000.0 / um if um is not None else Null("no_scale"),
    }


def _counts(analysis: Analysis, structure: str, region: str) -> dict[str, Value]:
    graph = analysis.graph(structure)
    mask = analysis.region_mask(region)
    inside = lookup(mask, graph.node_points) if region != "whole" else np.ones(len(graph.node_points), bool)
    pieces = analysis.stretches(structure, region)
    parent = list(range(len(pieces)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    # What meets outside the region, in the disc for one, is not connected within it.
    first: dict[int, int] = {}
    for i, (segment, start, stop) in enumerate(zip(pieces.segment, pieces.start, pieces.stop, strict=True)):
        reached = start == graph.offsets[segment], stop == graph.offsets[segment + 1]
        for node in graph.ends[segment][list(reached)].tolist():
            if node >= 0 and inside[node]:
                parent[root(i)] = root(first.setdefault(node, i))
    return {
        "segment_count": float(len(np.unique(pieces.segment))),
        "endpoint_count": float(np.count_nonzero(inside & (graph.node_kind == "end"))),
        "branchpoint_count": float(np.count_nonzero(inside & (graph.node_kind == "bifurcation"))),
        "component_count": float(sum(parent[i] == i for i in range(len(pieces)))),
    }


def _sparsity(analysis: Analysis, structure: str) -> tuple[float, float]:
    """Mean and largest distance to the nearest vessel (grid px)."""
    # Cells begin in the picture's corner: in one pose a turned or mirrored mask meets the same cells.
    pose = canonical_pose(analysis.context.plane(structure))
    vessel, fov = pose.apply(analysis.context.plane(structure)).view(np.uint8), pose.apply(analysis.context.fov)
    # Distances of many pixels need no grid of one: from 900 px on, they are taken from every second (third...).
    stride = max(1, round(max(vessel.shape) / 600))
    kept = vessel
    if stride > 1:
        # Pieces are told apart on cells of that size; a cell is vessel if any of its pixels is, so that no thin vessel falls through.
        kernel = np.ones((stride, stride), np.uint8)
        kept = np.ascontiguousarray(cv2.dilate(vessel, kernel)[stride // 2 :: stride, stride // 2 :: stride])
    kept = _led_through(kept, (pose.move(analysis.graph(structure).points) - (stride - 1) / 2.0) / stride)
    found = _distances(vessel, kept, stride)[fov[stride // 2 :: stride, stride // 2 :: stride]]
    # Pixel centre to pixel centre: the vessel's edge lies half a pixel nearer.
    found = np.maximum(found - 0.5, 0.0)
    return float(found.mean()), float(found.max())


@njit(cache=True)
def _distances(vessel, kept, stride):
    """Distance from the middle pixel of each cell of `stride` to the nearest vessel pixel of a kept cell (px): float64 of `kept`'s shape.

    Of a mask thinned out to cells vessels would be as wide as cells, and the retina nearer to them by half of one.
    """
    height, width = vessel.shape
    rows, columns = kept.shape
    # The way to the nearest vessel pixel up or down the column, on the cells' middle rows.
    far = height + width
    upright = np.full((rows, width), far)
    for downwards in (True, False):
        away = np.full(width, far)
        for i in range(height):
            y = i if downwards else height - 1 - i
            row = min(y // stride, rows - 1)
            for x in range(width):
                if vessel[y, x] and kept[row, min(x // stride, columns - 1)]:
                    away[x] = 0
                else:
                    away[x] += 1
            if y % stride == stride // 2:
                for x in range(width):
                    upright[row, x] = min(upright[row, x], away[x])
    found = np.empty((rows, columns))
    lowest = np.empty(width, np.int64)
    begins = np.empty(width + 1)
    for row in range(rows):
        # Each column's squared distance is a parabola along the row; the lowest of them are the distances.
        k = 0
        lowest[0] = 0
        begins[0] = -np.inf
        for x in range(1, width):
            here = upright[row, x] ** 2 + x * x
            while True:
                at = lowest[k]
                meet = (here - upright[row, at] ** 2 - at * at) / (2.0 * (x - at))
                if meet > begins[k]:
                    break
                k -= 1
            k += 1
            lowest[k] = x
            begins[k] = meet
        begins[k + 1] = np.inf
        k = 0
        for cell in range(columns):
            x = cell * stride + stride // 2
            while begins[k + 1] < x:
                k += 1
            at = lowest[k]
            found[row, cell] = math.sqrt((x - at) ** 2 + upright[row, at] ** 2)
    return found


def _led_through(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The pieces of a mask (0 or 1) that a centreline of the graph leads through: what the graph holds for no vessel is none."""
    # A centreline may round to the pixel beside a vessel that is one pixel thin.
    count, labels = cv2.connectedComponents(cv2.dilate(mask, np.ones((3, 3), np.uint8)), connectivity=8, ltype=cv2.CV_32S)
    x, y = np.clip(np.rint(points).astype(np.intp), 0, np.array(mask.shape[::-1]) - 1).T
    kept = np.zeros(count, np.uint8)
    kept[labels[y, x]] = 1
    return mask * kept[labels]


__all__ = ["DICTIONARY", "measure"]
