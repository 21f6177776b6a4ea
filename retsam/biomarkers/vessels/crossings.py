"""Where arteries cross veins, and how much the vein narrows there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import Analysis, Value

#: A vessel must go on by this many of its widths on either side, or one ends on the other.
GO_ON_WIDTHS = 0.75
#: Vein just beside the artery: from the artery's edge over this many vein widths; and farther out, for comparison.
NEAR_WIDTHS = 1.5
FAR_WIDTHS = 4.0
#: Crossings at a narrower angle (degrees) have no near and far.
LEAST_ANGLE = 20.0
#: Narrower veins (px) show no nicking.
LEAST_VEIN_PX = 4.0

DICTIONARY: list[Biomarker] = [
    Biomarker(
        "crossing_count", "vessels",
        "Number of places where the centreline of an artery crosses that of a vein, outside the disc where a disc is known.",
        unit="count", needs=("artery", "vein", "fov"), valid_range=(0.0, 1e4), direction="more crossings", structure="vessel",
        resolution="density",
    ),
    Biomarker(
        "nicking_index", "vessels",
        "Relative narrowing of the vein beside the artery at crossings: 1 - (mean width within 1.5 vein widths of the artery's edge) / "
        "(mean width from there to 4 vein widths), both sides; mean over crossings.",
        source="after Nguyen 2013 (arteriovenous nicking)", needs=("artery", "vein", "fov"), valid_range=(-1.0, 1.0),
        direction="more nicking", structure="vein", resolution="calibre",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Crossing:
    """One crossing of an artery and a vein.

    Parameters
    ----------
    x, y : float
        Grid px.
    artery, vein : int
        Sample of each graph at the crossing.
    angle : float
        Degrees between the two, 0 to 90.
    """

    x: float
    y: float
    artery: int
    vein: int
    angle: float


@njit(cache=True)
def _intersections(one, one_segment, two, two_segment, height, width):
    """Sample pairs (i, j) at which link i..i+1 of `one` meets link j..j+1 of `two`: int64 [n, 2]."""
    # Chains of links by pixel; entries are one more than a link's number, 0 ends a chain.
    grid = np.zeros((height, width), np.int32)
    chain = np.zeros(len(one), np.int32)
    for i in range(len(one) - 1):
        if one_segment[i] != one_segment[i + 1]:
            continue
        y = min(max(int(one[i, 1]), 0), height - 1)
        x = min(max(int(one[i, 0]), 0), width - 1)
        chain[i] = grid[y, x]
        grid[y, x] = i + 1
    found = np.empty((len(two) + 1, 2), np.int64)
    count = 0
    for j in range(len(two) - 1):
        if two_segment[j] != two_segment[j + 1]:
            continue
        cy = int(two[j, 1])
        cx = int(two[j, 0])
        # Links are about a pixel long: those that can meet start within two pixels of each other.
        for y in range(max(cy - 2, 0), min(cy + 3, height)):
            for x in range(max(cx - 2, 0), min(cx + 3, width)):
                following = grid[y, x]
                while following > 0:
                    i = following - 1
                    ax = one[i + 1, 0] - one[i, 0]
                    ay = one[i + 1, 1] - one[i, 1]
                    bx = two[j + 1, 0] - two[j, 0]
                    by = two[j + 1, 1] - two[j, 1]
                    cross = ax * by - ay * bx
                    if cross != 0.0:
                        ox = two[j, 0] - one[i, 0]
                        oy = two[j, 1] - one[i, 1]
                        t = (ox * by - oy * bx) / cross
                        u = (ox * ay - oy * ax) / cross
                        if 0.0 <= t < 1.0 and 0.0 <= u < 1.0 and count < len(found):
                            found[count, 0] = i
                            found[count, 1] = j
                            count += 1
                    following = chain[i]
    return found[:count]


def find_crossings(analysis: Analysis) -> list[Crossing]:
    """All crossings of arteries and veins outside the disc, each once."""
    artery, vein = analysis.graph("artery"), analysis.graph("vein")
    height, width = analysis.context.shape
    pairs = _intersections(artery.points, artery.segment_of.astype(np.int64), vein.points, vein.segment_of.astype(np.int64), height, width)
    disc = analysis.context.disc
    found: list[Crossing] = []
    for i, j in pairs.tolist():
        x, y = (artery.points[i] + vein.points[j]) / 2.0
        if disc is not None and math.hypot(x - disc.x, y - disc.y) < disc.r:
            continue
        widths = (float(artery.width[i]), float(vein.width[j]))
        if any(
            _room(graph, sample) < GO_ON_WIDTHS * own + 0.5 * other
            for graph, sample, own, other in ((artery, i, widths[0], widths[1]), (vein, j, widths[1], widths[0]))
        ):
            continue
        # Vessels that share their course cross several times in name only.
        if any(math.hypot(x - c.x, y - c.y) < 1.5 * max(widths) for c in found):
            continue
        u, v = _heading(artery, i), _heading(vein, j)
        found.append(Crossing(float(x), float(y), i, j, math.degrees(math.acos(min(1.0, abs(float(u @ v)))))))
    return found


def _room(graph, sample: int) -> float:
    """Length of vessel from a sample to the nearer end of its segment (px); a bifurcation is no end."""
    segment = int(graph.segment_of[sample])
    first, last = graph.offsets[segment], graph.offsets[segment + 1]
    before, after = float(graph.step[first:sample].sum()), float(graph.step[sample:last].sum())
    kinds = ["end" if n < 0 else str(graph.node_kind[n]) for n in graph.ends[segment]]
    return min(math.inf if kinds[0] == "bifurcation" else before, math.inf if kinds[1] == "bifurcation" else after)


def _heading(graph, sample: int) -> np.ndarray:
    """Unit vector along a centreline at a sample."""
    segment = int(graph.segment_of[sample])
    low, high = max(sample - 3, graph.offsets[segment]), min(sample + 3, graph.offsets[segment + 1] - 1)
    vector = graph.points[high] - graph.points[low]
    return vector / max(float(np.hypot(*vector)), 1e-9)


def nicking(analysis: Analysis, crossing: Crossing) -> float | None:
    """Relative narrowing of the vein beside the artery, or None where it cannot be told."""
    artery, vein = analysis.graph("artery"), analysis.graph("vein")
    width = float(vein.width[crossing.vein])
    if crossing.angle < LEAST_ANGLE or width < LEAST_VEIN_PX:
        return None
    hidden = 0.5 * float(artery.width[crossing.artery]) / math.sin(math.radians(crossing.angle)) + 1.0
    segment = int(vein.segment_of[crossing.vein])
    window = slice(vein.offsets[segment], vein.offsets[segment + 1])
    along = np.cumsum(vein.step[window])
    along = np.abs(along - along[crossing.vein - vein.offsets[segment]])
    near = vein.measured[window] & (along > hidden) & (along <= hidden + NEAR_WIDTHS * width)
    far = vein.measured[window] & (along > hidden + NEAR_WIDTHS * width) & (along <= hidden + FAR_WIDTHS * width)
    if np.count_nonzero(near) < 4 or np.count_nonzero(far) < 4:
        return None
    return 1.0 - float(vein.width[window][near].mean()) / float(vein.width[window][far].mean())


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    null = analysis.missing("artery", "density") or analysis.missing("vein", "density")
    if null is not None:
        return {"crossing_count": null, "nicking_index": null}
    crossings = find_crossings(analysis)
    null = analysis.missing("vein", "calibre")
    found = [n for n in (nicking(analysis, c) for c in crossings) if n is not None] if null is None else []
    index: Value = float(np.mean(found)) if found else (null or Null("too_few_vessels"))
    return {"crossing_count": float(len(crossings)), "nicking_index": index}
