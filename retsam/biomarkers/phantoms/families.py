"""The nine families of the public synthetic biomarker benchmark, drawn by our own generator.

The shapes, sizes and canonical names are those of the `fundus-atlas` repository (staskh/fundus-atlas, docs/benchmarks/
biomarker-synthetic-shapes.md and docs/BIOMARKER-NAMES.md): a 2048 px frame at 5 um/px, arteries 80 um and veins 120 um wide, a disc
1800 um across. What each shape must measure follows from its geometry, in closed form or by integration, never from its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retsam.biomarkers.phantoms.draw import circle, draw_vessel, koch, line, turn
from retsam.biomarkers.vessels.calibre import hubbard, knudtson

SIDE = 2048
UM_PER_PX = 5.0
ARTERY_UM, VEIN_UM, DISC_UM = 80.0, 120.0, 1800.0
ANGLES = (0.0, 30.0, 60.0, 90.0)
KINDS = ("artery", "vein")

_DISC_OFF_CENTRE = (0.70 * SIDE, 0.50 * SIDE)
_DISC_CENTRED = (0.50 * SIDE, 0.50 * SIDE)
_RADIUS = DISC_UM / 2.0 / UM_PER_PX
_WIDTH = {"artery": ARTERY_UM / UM_PER_PX, "vein": VEIN_UM / UM_PER_PX}
_CENTRE = (SIDE / 2.0, SIDE / 2.0)
#: Samples of a smooth curve: chords stray by less than 1e-5 px.
_SAMPLES = 20_001


@dataclass(frozen=True)
class Curve:
    """A centreline and its signed curvature at each point (None where the curve has corners)."""

    points: np.ndarray
    curvature: np.ndarray | None


@dataclass(frozen=True)
class Family:
    """One family before it is turned and drawn.

    Parameters
    ----------
    curves : dict of str to list of Curve
        Centrelines of ``artery`` and ``vein``, in the frame's edge-based coordinates (the frame is [0, 2048]^2).
    truth : dict of str to float
        Canonical name -> value that the geometry requires, the counts and what only this family fixes.
    disc : tuple of float
        Centre of the disc.
    width_factor : float
        Of the usual vessel widths.
    straight_segments : bool
        False where segments of the drawing are not the pieces it is drawn from, so that their tau1 is not those pieces'.
    """

    curves: dict[str, list[Curve]]
    truth: dict[str, float]
    disc: tuple[float, float] = _DISC_OFF_CENTRE
    width_factor: float = 1.0
    straight_segments: bool = True


@dataclass(frozen=True)
class Shape:
    """One drawing.

    Parameters
    ----------
    planes : dict of str to ndarray of bool
        ``artery`` and ``vein``.
    fov : ndarray of bool
    disc : tuple of float
        (x, y, radius), pixel-centre coordinates.
    truth : dict of str to float
        Canonical name -> required value.
    """

    family: str
    angle: float
    planes: dict[str, np.ndarray]
    fov: np.ndarray
    disc: tuple[float, float, float]
    truth: dict[str, float]


def _margin(disc: tuple[float, float], heading: float) -> tuple[float, float]:
    angle = math.radians(heading)
    return disc[0] + _RADIUS * math.cos(angle), disc[1] + _RADIUS * math.sin(angle)


def _straight_curve(start: tuple[float, float], heading: float, length: float) -> Curve:
    return Curve(line(start, heading, length), np.zeros(2))


def _counts(junctions: int, ends: int, components: int) -> dict[str, float]:
    """Counts of one kind, and of both together."""
    truth = {}
    for name, value in (("junctions", junctions), ("endpoints", ends), ("components", components)):
        truth |= {f"junction-counts/{name}/{kind}": float(value) for kind in KINDS}
        truth[f"junction-counts/{name}/vessels"] = 2.0 * value
    return truth


def _straight() -> Family:
    curves = {kind: [_straight_curve(_margin(_DISC_OFF_CENTRE, h), h, 0.30 * SIDE)] for kind, h in (("artery", 180.0), ("vein", 90.0))}
    return Family(curves, _counts(0, 2, 1))


def _arc() -> Family:
    curves = {}
    for kind, heading, radius in (("artery", 180.0, 0.22 * SIDE), ("vein", 250.0, 0.165 * SIDE)):
        start, away = _margin(_DISC_OFF_CENTRE, heading), math.radians(heading)
        centre = np.array([start[0] - radius * math.sin(away), start[1] + radius * math.cos(away)])
        first = math.atan2(start[1] - centre[1], start[0] - centre[0])
        sweep = first + np.linspace(0.0, math.pi / 2.0, _SAMPLES)
        points = centre + radius * np.column_stack([np.cos(sweep), np.sin(sweep)])
        curves[kind] = [Curve(points, np.full(_SAMPLES, 1.0 / radius))]
    return Family(curves, _counts(0, 2, 1))


def _sinusoid() -> Family:
    amplitude, wavelength, cycles = 0.035 * SIDE, 0.16 * SIDE, 1.5
    k = 2.0 * math.pi / wavelength
    along = np.linspace(0.0, wavelength * cycles, _SAMPLES)
    across = amplitude * np.sin(k * along)
    slope, second = amplitude * k * np.cos(k * along), -amplitude * k * k * np.sin(k * along)
    curves = {}
    for kind, heading in (("artery", 180.0), ("vein", 100.0)):
        start, away = _margin(_DISC_OFF_CENTRE, heading), math.radians(heading)
        points = np.column_stack([
            start[0] + along * math.cos(away) - across * math.sin(away),
            start[1] + along * math.sin(away) + across * math.cos(away),
        ])  # fmt: skip
        curves[kind] = [Curve(points, second / (1.0 + slope**2) ** 1.5)]
    return Family(curves, _counts(0, 2, 1))


def _bifurcation() -> Family:
    angle, arm = 60.0, 0.13 * SIDE
    curves = {}
    for kind, heading in (("artery", 180.0), ("vein", 120.0)):
        trunk = _straight_curve(_margin(_DISC_OFF_CENTRE, heading), heading, arm)
        tip = tuple(trunk.points[-1])
        curves[kind] = [trunk, *(_straight_curve(tip, heading + side * angle / 2.0, arm) for side in (-1, 1))]
    truth = {f"bifurcation-angle/between-daughters/{kind}": angle for kind in KINDS}
    return Family(curves, {**_counts(1, 3, 1), **truth})


def _deep_bifurcation() -> Family:
    # The inner last daughters of the two middle forks end in the same point, tip on tip: the drawing has 14 free ends where the tree
    # has 16 tips (which is what the public ground truth counts), and the two make one bent segment, so tau1 is not 1 everywhere.
    angle, arm, spur, generations = 50.0, 0.07 * SIDE, 0.35, 3
    curves: dict[str, list[Curve]] = {}
    for kind, heading in (("artery", 190.0), ("vein", 130.0)):
        trunk = _straight_curve(_margin(_DISC_OFF_CENTRE, heading), heading, arm)
        pieces, tips = [trunk], [(tuple(trunk.points[-1]), heading)]
        for _ in range(generations):
            following = []
            for tip, came in tips:
                pieces.append(_straight_curve(tip, came + 90.0, arm * spur))
                for side in (-1, 1):
                    daughter = _straight_curve(tip, came + side * angle / 2.0, arm)
                    pieces.append(daughter)
                    following.append((tuple(daughter.points[-1]), came + side * angle / 2.0))
            tips = following
        curves[kind] = pieces
    truth = {f"bifurcation-angle/between-daughters/{kind}": angle for kind in KINDS}
    return Family(curves, {**_counts(7, 14, 1), **truth}, straight_segments=False)


def _disjoint() -> Family:
    length, spacing, number = 0.34 * SIDE, 0.075 * SIDE, 4
    first = SIDE * 0.5 - spacing * (2 * number - 1) / 2.0
    curves: dict[str, list[Curve]] = {"artery": [], "vein": []}
    for index in range(2 * number):
        start = (SIDE * 0.32 - length / 2.0, first + index * spacing)
        curves[KINDS[index % 2]].append(_straight_curve(start, 0.0, length))
    return Family(curves, _counts(0, 2 * number, number))


def _koch() -> Family:
    curves = {
        kind: [Curve(koch(_margin(_DISC_OFF_CENTRE, heading), heading, 0.34 * SIDE, 2), None)]
        for kind, heading in (("artery", 180.0), ("vein", 110.0))
    }
    dimension = math.log(4.0) / math.log(3.0)
    truth = {
        f"fractal-dimension/{variant}/{structure}": dimension
        for variant in ("box-counting", "multifractal-d0", "multifractal-d1", "multifractal-d2")
        for structure in (*KINDS, "vessels")
    }
    return Family(curves, {**_counts(0, 2, 1), **truth}, width_factor=0.5)


def _spokes(disc: tuple[float, float]) -> Family:
    number, reach = 6, 2.2 * _RADIUS
    curves: dict[str, list[Curve]] = {"artery": [], "vein": []}
    for index in range(2 * number):
        heading = 360.0 * index / (2 * number)
        curves[KINDS[index % 2]].append(_straight_curve(_margin(disc, heading), heading, reach))
    truth = _counts(0, 2 * number, number)
    for kind in KINDS:
        truth[f"central-retinal-equivalents/knudtson/{kind}"] = knudtson([_WIDTH[kind]] * number, kind)
        truth[f"central-retinal-equivalents/hubbard/{kind}"] = hubbard([_WIDTH[kind] * UM_PER_PX] * number, kind)
    for variant in ("knudtson", "hubbard"):
        artery, vein = (truth[f"central-retinal-equivalents/{variant}/{kind}"] for kind in KINDS)
        truth[f"avr/{variant}/both"] = artery / vein
    return Family(curves, truth, disc=disc)


FAMILIES: dict[str, Callable[[], Family]] = {
    "straight": _straight,
    "arc": _arc,
    "sinusoid": _sinusoid,
    "bifurcation": _bifurcation,
    "disjoint": _disjoint,
    "deep-bifurcation": _deep_bifurcation,
    "koch": _koch,
    "spokes-macula-centred": lambda: _spokes(_DISC_OFF_CENTRE),
    "spokes-disc-centred": lambda: _spokes(_DISC_CENTRED),
}


def _curve_truth(curve: Curve) -> dict[str, float]:
    """What one centreline fixes, by canonical name without its structure."""
    steps = np.hypot(*np.diff(curve.points, axis=0).T)
    length, chord = float(steps.sum()), float(np.hypot(*(curve.points[-1] - curve.points[0])))
    truth = {"tortuosity/hart-tau1": length / chord}
    if curve.curvature is None:
        return truth
    middle = (curve.curvature[:-1] + curve.curvature[1:]) / 2.0
    total, squared = float(np.abs(middle) @ steps), float(middle**2 @ steps)
    sign = np.sign(np.where(np.abs(curve.curvature) < 1e-12, 0.0, curve.curvature))
    bending = np.flatnonzero(sign)
    cuts = bending[1:][np.diff(sign[bending]) != 0]
    turns = len(cuts) + 1 if bending.size else 0
    density = 0.0
    if turns > 1:
        bounds = [0, *cuts.tolist(), len(curve.points) - 1]
        excess = 0.0
        for a, b in zip(bounds[:-1], bounds[1:], strict=True):
            excess += float(steps[a:b].sum()) / float(np.hypot(*(curve.points[b] - curve.points[a]))) - 1.0
        density = (turns - 1) / turns * excess / length
    inflections = max(turns - 1, 0)
    return {
        **truth,
        "tortuosity/hart-tau2": total,
        "tortuosity/hart-tau3": squared,
        "tortuosity/hart-tau4": total / length,
        "tortuosity/hart-tau5": squared / length,
        "tortuosity/hart-tau6": total / chord,
        "tortuosity/hart-tau7": squared / chord,
        "tortuosity/spline-mean-curvature": total / length,
        "tortuosity/grisan-density": density,
        "tortuosity/inflection-count": float(inflections),
        "tortuosity/arc-chord-times-inflections": length / chord * inflections,
    }


def _sparsity(curves: list[tuple[np.ndarray, float]]) -> tuple[float, float]:
    """Mean and largest distance from the field of view to the nearest vessel, on a grid of 8 px."""
    axis = (np.arange(SIDE // 8) + 0.5) * 8.0
    x, y = np.meshgrid(axis, axis)
    inside = (x - SIDE / 2.0) ** 2 + (y - SIDE / 2.0) ** 2 <= (SIDE / 2.0) ** 2
    points = np.column_stack([x[inside], y[inside]])
    nearest = np.full(len(points), np.inf)
    for path, width in curves:
        coarse = path if len(path) < 400 else path[np.unique(np.linspace(0, len(path) - 1, 400).astype(int))]
        for a, b in zip(coarse[:-1], coarse[1:], strict=True):
            along = np.clip((points - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-12), 0.0, 1.0)
            nearest = np.minimum(nearest, np.hypot(*(points - a - along[:, None] * (b - a)).T) - width / 2.0)
    nearest = np.maximum(nearest, 0.0)
    return float(nearest.mean()), float(nearest.max())


def _area_with_overlaps(paths: list[np.ndarray], width: float) -> float:
    """Area of the union of straight tubes, integrated on a grid of 1/8 px (the public ground truth adds overlapping tubes up twice)."""
    low = np.min([p.min(axis=0) for p in paths], axis=0) - width
    size = np.ceil((np.max([p.max(axis=0) for p in paths], axis=0) + width - low) * 8).astype(int)
    mask = np.zeros((size[1], size[0]), bool)
    for path in paths:
        draw_vessel(mask, (path - low) * 8.0 - 0.5, width * 8.0)
    return float(np.count_nonzero(mask)) / 64.0


def truth_of(family: Family) -> dict[str, float]:
    """Everything that a family's geometry fixes, by canonical name."""
    truth = dict(family.truth)
    widths = {kind: _WIDTH[kind] * family.width_factor for kind in KINDS}
    lengths, areas = {}, {}
    for kind, curves in family.curves.items():
        each = [_curve_truth(c) for c in curves]
        own_lengths = [float(np.hypot(*np.diff(c.points, axis=0).T).sum()) for c in curves]
        lengths[kind] = sum(own_lengths)
        if family.truth[f"junction-counts/junctions/{kind}"] or curves[0].curvature is None:
            areas[kind] = _area_with_overlaps([c.points for c in curves], widths[kind])
        else:
            # A tube of constant width about a centreline, with its two round ends.
            areas[kind] = sum(length * widths[kind] + math.pi * widths[kind] ** 2 / 4.0 for length in own_lengths)
        # Of several pieces, only what they agree on; straight pieces that meet at corners have no curvature there.
        names = set(each[0]) if len(each) == 1 else {"tortuosity/hart-tau1"} if family.straight_segments else set()
        truth |= {f"{name}/{kind}": each[0][name] for name in names}
        truth[f"vessel-calibre/mean-width/{kind}"] = truth[f"vessel-calibre/median-width/{kind}"] = widths[kind]
        truth[f"vessel-area-and-length/skeleton-length/{kind}"] = lengths[kind]
        truth[f"vessel-area-and-length/area/{kind}"] = areas[kind]
    truth["vessel-area-and-length/skeleton-length/vessels"] = sum(lengths.values())
    truth["vessel-area-and-length/area/vessels"] = sum(areas.values())
    truth["vascular-density/over-field-of-view/vessels"] = sum(areas.values()) / (math.pi * SIDE**2 / 4.0)
    truth["vascular-density/over-image/vessels"] = sum(areas.values()) / SIDE**2
    truth["avr/ratio-of-calibres/both"] = widths["artery"] / widths["vein"]
    drawn = {kind: [(c.points, widths[kind]) for c in curves] for kind, curves in family.curves.items()}
    for structure, part in (*drawn.items(), ("vessels", drawn["artery"] + drawn["vein"])):
        mean, largest = _sparsity(part)
        truth[f"sparsity/mean-distance/{structure}"] = mean
        truth[f"sparsity/max-distance/{structure}"] = largest
    return truth


def draw_family(name: str, angle: float, truth: dict[str, float] | None = None) -> Shape:
    """Draw one family at one angle.

    Parameters
    ----------
    name : str
        Key of `FAMILIES`.
    angle : float
        Degrees about the frame's centre.
    truth : dict, optional
        What `truth_of` gave before: it is the same at every angle.
    """
    family = FAMILIES[name]()
    planes = {}
    for kind, curves in family.curves.items():
        mask = np.zeros((SIDE, SIDE), bool)
        for curve in curves:
            coarse = curve.points if len(curve.points) < 4000 else np.vstack([curve.points[::10], curve.points[-1:]])
            # Edge-based coordinates to pixel-centre ones: half a pixel.
            draw_vessel(mask, turn(coarse, angle, _CENTRE) - 0.5, _WIDTH[kind] * family.width_factor)
        planes[kind] = mask
    x, y = turn(np.array([family.disc]), angle, _CENTRE)[0] - 0.5
    fov = circle((SIDE, SIDE), (SIDE / 2.0 - 0.5, SIDE / 2.0 - 0.5), SIDE / 2.0)
    return Shape(name, angle, planes, fov, (float(x), float(y), _RADIUS), truth if truth is not None else truth_of(family))
