"""Where the centrelines of two graphs cross."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from retsam.biomarkers.vessels.graph import VesselGraph

#: A vessel must go on by this many of its widths on either side, or one ends on the other.
GO_ON_WIDTHS = 0.75
#: Crossings nearer to each other than this many widths are one; and a vessel that lies on the other one farther, up to where it ends,
#: does not cross it.
ONE_CROSSING_WIDTHS = 1.5


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
def _intersections(one, one_segment, two, two_segment, height, width, reach):
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
        # Links that can meet start within the length of both of each other.
        for y in range(max(cy - reach, 0), min(cy + reach + 1, height)):
            for x in range(max(cx - reach, 0), min(cx + reach + 1, width)):
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


def find_crossings(
    artery: VesselGraph, vein: VesselGraph, shape: tuple[int, int], disc: tuple[float, float, float] | None
) -> list[Crossing]:
    """All crossings of arteries and veins, each once.

    Where one vessel lies on the other along a stretch, their centrelines meet many times in name only: it is one crossing if they meet
    an odd number of times, so that they leave on other sides than they came, and none if an even one.

    Parameters
    ----------
    artery, vein : VesselGraph
    shape : tuple of int
        Height and width of the picture.
    disc : tuple of float or None
        (x, y, radius): inside it vessels overlie each other in tangles, and no crossing is counted.
    """
    height, width = shape
    reach = max(1, 2 * round(max(artery.pixel, vein.pixel)))
    pairs = _intersections(
        artery.points, artery.segment_of.astype(np.int64), vein.points, vein.segment_of.astype(np.int64), height, width, reach
    )
    if not len(pairs):
        return []
    run = _runs(artery, vein, pairs[:, 0])
    meetings: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in sorted(map(tuple, pairs.tolist())):
        meetings.setdefault((int(run[i]), int(vein.segment_of[j])), []).append((i, j))
    found: list[Crossing] = []
    for members in meetings.values():
        if len(members) % 2 == 0:
            continue
        i, j = members[len(members) // 2]
        x, y = (artery.points[i] + vein.points[j]) / 2.0
        if disc is not None and math.hypot(x - disc[0], y - disc[1]) < disc[2]:
            continue
        widths = (float(artery.width[i]), float(vein.width[j]))
        if any(
            _room(graph, sample) < GO_ON_WIDTHS * own + 0.5 * other
            for graph, sample, own, other in ((artery, i, widths[0], widths[1]), (vein, j, widths[1], widths[0]))
        ):
            continue
        near = ONE_CROSSING_WIDTHS * max(widths)
        if _to_the_end(artery, i, run) > near or any(math.hypot(x - c.x, y - c.y) < near for c in found):
            continue
        u, v = _heading(artery, i), _heading(vein, j)
        found.append(Crossing(float(x), float(y), i, j, math.degrees(math.acos(min(1.0, abs(float(u @ v)))))))
    return found


def _runs(artery: VesselGraph, vein: VesselGraph, meeting: np.ndarray) -> np.ndarray:
    """Number of the stretch that each artery sample is in, int [K]: of one segment, and all of it on a vein or none of it.

    Parameters
    ----------
    meeting : ndarray of int
        Samples at which the two meet.
    """
    away, nearest = cKDTree(vein.points).query(artery.points)
    on_vein = away < 0.5 * np.maximum(artery.width, vein.width[nearest])
    on_vein[meeting] = True
    return np.cumsum(np.diff(on_vein, prepend=on_vein[0]) | (np.diff(artery.segment_of, prepend=0) != 0))


def _to_the_end(graph: VesselGraph, sample: int, run: np.ndarray) -> float:
    """Length from a sample to the farther end of its segment that its run reaches (px); 0 where the run ends before both."""
    segment = int(graph.segment_of[sample])
    first, last = graph.offsets[segment], graph.offsets[segment + 1]
    before, after = float(graph.step[first:sample].sum()), float(graph.step[sample:last].sum())
    return max(before if run[first] == run[sample] else 0.0, after if run[last - 1] == run[sample] else 0.0)


def _room(graph: VesselGraph, sample: int) -> float:
    """Length of vessel from a sample to the nearer end of its segment (px); a bifurcation is no end."""
    segment = int(graph.segment_of[sample])
    first, last = graph.offsets[segment], graph.offsets[segment + 1]
    before, after = float(graph.step[first:sample].sum()), float(graph.step[sample:last].sum())
    kinds = ["end" if n < 0 else str(graph.node_kind[n]) for n in graph.ends[segment]]
    return min(math.inf if kinds[0] == "bifurcation" else before, math.inf if kinds[1] == "bifurcation" else after)


def _heading(graph: VesselGraph, sample: int) -> np.ndarray:
    """Unit vector along a centreline at a sample."""
    segment = int(graph.segment_of[sample])
    low, high = max(sample - 3, graph.offsets[segment]), min(sample + 3, graph.offsets[segment + 1] - 1)
    vector = graph.points[high] - graph.points[low]
    return vector / max(float(np.hypot(*vector)), 1e-9)
