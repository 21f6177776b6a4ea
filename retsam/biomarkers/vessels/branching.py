"""Bifurcations: angle between the daughters, and how parent and daughter widths relate."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import brentq

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import STRUCTURES, Analysis, Value, column
from retsam.biomarkers.vessels.graph import VesselGraph

#: A branch's direction and width are taken over this many widths (and at least this many px) of its measured course.
DIRECTION_WIDTHS = 2.5
DIRECTION_PX = 8.0
WIDTH_WIDTHS = 4.0
#: Fewer bifurcations than this have no median worth reporting.
LEAST_BIFURCATIONS = 1
#: A branch narrower than this (px) has no ratio of widths.
LEAST_WIDTH_PX = 2.0
#: Junctional exponents are sought in this range (Murray's law: 3).
EXPONENTS = (0.5, 12.0)

_ROWS = {
    "branching_angle": (
        "Angle between the two daughters at bifurcations; median. Directions are those of straight lines through the daughters' "
        "centrelines beyond the junction. The parent is the branch on the way to the disc (without one the widest); where more than two "
        "others meet it, the daughters are the two that go on most nearly straight.",
        "deg", "Zamir 1976; Stanton 1995", (0.0, 180.0), "wider angles",
    ),
    "branching_coefficient": (
        "(d1^2 + d2^2) / d0^2 of the daughters' and the parent's widths; median over bifurcations.", "1", "Zamir 1976; Patton 2006",
        (0.0, 50.0), "wider daughters",
    ),
    "junctional_exponent": (
        "Exponent x with d0^x = d1^x + d2^x; median over bifurcations whose parent is wider than either daughter.", "1", "Murray 1926",
        EXPONENTS, "narrower daughters at equal parents",
    ),
    "asymmetry_ratio": (
        "Width of the narrower over the wider daughter; median over bifurcations.", "1", "Zamir 1978; Witt 2006", (0.0, 1.0),
        "more symmetric forks",
    ),
    "optimality": (
        "((d1^3 + d2^3) / (2 d0^3))^(1/3); median over bifurcations; 0.79 where Murray's law holds.", "1", "Chapman 2002; Witt 2006",
        (0.0, 10.0), "wider daughters",
    ),
}  # fmt: skip

DICTIONARY: list[Biomarker] = [
    Biomarker(
        column(name, structure), "vessels", definition, unit=unit, source=source, needs=(structure, "fov"), valid_range=valid,
        direction=direction, structure=structure, resolution="density" if name == "branching_angle" else "calibre",
    )
    for structure in STRUCTURES
    for name, (definition, unit, source, valid, direction) in _ROWS.items()
]  # fmt: skip


@njit(cache=True)
def _branch_ends(points, width, measured, offsets, stretch, stretch_widths, width_widths, pixel, out):
    """Direction and width of each segment at either end: out [S, 2, 4] = (dx, dy away from the node, width, samples)."""
    for s in range(len(offsets) - 1):
        first, last = offsets[s], offsets[s + 1]
        total = 0.0
        number = 0
        for i in range(first, last):
            if measured[i]:
                total += width[i]
                number += 1
        mean = total / number if number else 0.0
        for e in range(2):
            step = 1 if e == 0 else -1
            i = first if e == 0 else last - 1
            n = 0
            # Samples lie a pixel of the drawn mask apart.
            limit = max(stretch, stretch_widths * mean) / pixel
            width_limit = max(stretch, width_widths * mean) / pixel
            sx = sy = sxx = sxy = syy = 0.0
            x0 = y0 = x1 = y1 = 0.0
            sum_width = 0.0
            widths = 0
            while first <= i < last and widths < width_limit:
                if measured[i]:
                    x = points[i, 0]
                    y = points[i, 1]
                    if n < limit:
                        if n == 0:
                            x0, y0 = x, y
                        x1, y1 = x, y
                        sx += x
                        sy += y
                        sxx += x * x
                        sxy += x * y
                        syy += y * y
                        n += 1
                    sum_width += width[i]
                    widths += 1
                i += step
            out[s, e, 3] = n
            if n < 3:
                continue
            cx = sx / n
            cy = sy / n
            angle = 0.5 * math.atan2(2.0 * (sxy / n - cx * cy), (sxx / n - cx * cx) - (syy / n - cy * cy))
            dx = math.cos(angle)
            dy = math.sin(angle)
            if (x1 - x0) * dx + (y1 - y0) * dy < 0.0:
                dx, dy = -dx, -dy
            out[s, e, 0] = dx
            out[s, e, 1] = dy
            out[s, e, 2] = sum_width / widths


@dataclass(frozen=True)
class Bifurcation:
    """One bifurcation.

    Parameters
    ----------
    node : int
    angle : float
        Degrees between the daughters.
    parent, wide, narrow : float
        Widths of the parent, the wider and the narrower daughter (grid px).
    """

    node: int
    angle: float
    parent: float
    wide: float
    narrow: float


def flow_distance(graph: VesselGraph, origin: tuple[float, float]) -> np.ndarray:
    """Distance along the vessels from each node to its component's node nearest `origin`: how far blood has come, or has to go.

    Parameters
    ----------
    graph : VesselGraph
    origin : tuple of float
        (x, y) of the disc's centre.

    Returns
    -------
    ndarray [N]
    """
    count = len(graph.node_points)
    lengths = np.add.reduceat(graph.step, graph.offsets[:-1]) if graph.size else np.zeros(0)
    links: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for (a, b), length in zip(graph.ends.tolist(), lengths.tolist(), strict=True):
        if a >= 0:
            links[a].append((b, length))
            links[b].append((a, length))
    distance = [math.inf] * count
    away = np.hypot(graph.node_points[:, 0] - origin[0], graph.node_points[:, 1] - origin[1])
    for start in np.argsort(away, kind="stable").tolist():
        if distance[start] < math.inf:
            continue
        distance[start] = 0.0
        heap = [(0.0, start)]
        while heap:
            here, node = heapq.heappop(heap)
            if here > distance[node]:
                continue
            for other, length in links[node]:
                there = here + length
                if there < distance[other]:
                    distance[other] = there
                    heapq.heappush(heap, (there, other))
    return np.array(distance)


def bifurcations(graph: VesselGraph, origin: tuple[float, float] | None) -> list[Bifurcation]:
    """Parent, daughters and angle of each bifurcation.

    The parent is the branch on the way to the disc; without a disc, the widest branch, or where widths tell nothing the one
    opposite to the other two. At a node of more than three branches the daughters are the two that go on most nearly straight.

    Parameters
    ----------
    graph : VesselGraph
    origin : tuple of float or None
        (x, y) of the disc's centre.

    Returns
    -------
    list of Bifurcation
        Without those that have a branch too short to have a direction.
    """
    ends = np.zeros((graph.size, 2, 4))
    stretch = DIRECTION_PX * graph.unit
    _branch_ends(graph.points, graph.width, graph.measured, graph.offsets, stretch, DIRECTION_WIDTHS, WIDTH_WIDTHS, graph.pixel, ends)
    flow = flow_distance(graph, origin) if origin is not None else None
    found = []
    for node, incident in graph.incident().items():
        if graph.node_kind[node] != "bifurcation" or len(incident) < 3:
            continue
        branches = np.array([ends[s, e] for s, e in incident])
        if (branches[:, 3] < 3).any():
            continue
        directions, widths = branches[:, :2], branches[:, 2]
        cosines = directions @ directions.T
        parent = None
        if flow is not None:
            beyond = [flow[graph.ends[s, 1 - e]] for s, e in incident]
            nearest = int(np.argmin(beyond))
            if beyond[nearest] < flow[node]:
                parent = nearest
        if parent is None:
            order = np.argsort(widths)
            if widths[order[-1]] > 1.1 * widths[order[-2]]:
                parent = int(order[-1])
            else:
                # The fork's two prongs are closest in direction; the parent is the one that is opposite to both.
                parent = int(np.argmin(cosines.sum(axis=1)))
        others = [i for i in range(len(incident)) if i != parent]
        one, two = sorted(others, key=lambda i: cosines[parent, i])[:2]
        wide, narrow = max(widths[one], widths[two]), min(widths[one], widths[two])
        angle = math.degrees(math.acos(float(np.clip(cosines[one, two], -1.0, 1.0))))
        found.append(Bifurcation(node, angle, float(widths[parent]), float(wide), float(narrow)))
    return found


def junctional_exponent(parent: float, wide: float, narrow: float) -> float | None:
    """Exponent x with parent^x = wide^x + narrow^x, or None if there is none within `EXPONENTS`.

    Parameters
    ----------
    parent, wide, narrow : float
        Widths in any common unit.
    """
    if parent <= wide:
        return None

    def excess(x: float) -> float:
        return (wide / parent) ** x + (narrow / parent) ** x - 1.0

    low, high = EXPONENTS
    return float(brentq(excess, low, high)) if excess(low) > 0.0 > excess(high) else None


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    disc = analysis.context.disc
    for structure in STRUCTURES:
        names = {name: column(name, structure) for name in _ROWS}
        null = analysis.missing(structure, "density")
        if null is not None:
            values |= dict.fromkeys(names.values(), null)
            continue
        forks = bifurcations(analysis.graph(structure), (disc.x, disc.y) if disc else None)
        too_few = Null("too_few_vessels")
        angles = [f.angle for f in forks]
        values[names["branching_angle"]] = float(np.median(angles)) if len(angles) >= LEAST_BIFURCATIONS else too_few
        null = analysis.missing(structure, "calibre")
        wide_enough = [f for f in forks if min(f.parent, f.narrow) >= LEAST_WIDTH_PX * analysis.graph(structure).unit]
        ratios: dict[str, list[float]] = {
            "branching_coefficient": [(f.wide**2 + f.narrow**2) / f.parent**2 for f in wide_enough],
            "junctional_exponent": [x for f in wide_enough if (x := junctional_exponent(f.parent, f.wide, f.narrow)) is not None],
            "asymmetry_ratio": [f.narrow / f.wide for f in wide_enough],
            "optimality": [((f.wide**3 + f.narrow**3) / (2.0 * f.parent**3)) ** (1.0 / 3.0) for f in wide_enough],
        }
        for name, found in ratios.items():
            enough = len(found) >= LEAST_BIFURCATIONS
            values[names[name]] = null if null is not None else float(np.median(found)) if enough else too_few
    return values
