"""The temporal arcades: the angle that they enclose at the disc, and how strongly they curve about the macula."""

from __future__ import annotations

import math

import numpy as np

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import Analysis, Value, column
from retsam.biomarkers.vessels.branching import flow_distance

#: An arcade is followed from here to there, in disc radii from the disc's centre.
INNER, OUTER = 2.0, 7.0
#: Between these angles (degrees) from the direction of the fovea a vessel leaves the disc into a temporal arcade.
SECTOR = (10.0, 135.0)
#: The angle at the disc is taken over these distances, in disc radii.
ANGLE_AT = (2.5, 4.0)
#: An arcade must be followed at least this far, in disc radii from the disc's centre.
LEAST_REACH = 4.5

DICTIONARY: list[Biomarker] = []
for _structure in ("artery", "vein"):
    DICTIONARY += [
        Biomarker(
            column("arcade_angle", _structure), "vessels",
            f"Angle at the disc's centre between the superior and inferior temporal {_structure} (each the widest there), mean direction "
            "between 1.25 and 2 DD.",
            unit="deg", source="Wilson 2006; Vargas Quiros 2025 (temporal angle)", needs=(_structure, "disc", "fovea", "fov"),
            valid_range=(0.0, 360.0), direction="wider arcades", structure=_structure, resolution="density",
        ),
        Biomarker(
            column("arcade_concavity", _structure), "vessels",
            f"Coefficient a of the parabola t = a s^2 + b s + c through both temporal arcades of the {_structure} (t towards the fovea, s "
            "towards superior, from the disc's centre, up to 3.5 DD), times DD.",
            unit="DD^-1", source="Oloumi 2014", needs=(_structure, "disc", "fovea", "fov"), valid_range=(-10.0, 10.0),
            direction="narrower, more curved arcades", structure=_structure, resolution="density",
        ),
    ]  # fmt: skip


def follow(analysis: Analysis, structure: str, side: int) -> np.ndarray | None:
    """Points of one temporal arcade, seen along the line from the disc to the fovea.

    From the widest vessel that leaves zone B into the sector, outwards along the graph, at each bifurcation into the wider of the
    branches that lead on, the straighter one counting for more.

    Parameters
    ----------
    analysis : Analysis
    structure : str
    side : int
        +1 or -1: one side of that line and the other. Which of them is superior makes no difference to angle and concavity.

    Returns
    -------
    ndarray [n, 2] or None
        Coordinates from the disc's centre towards the fovea and across, in disc radii; None if no vessel is there.
    """
    graph, disc = analysis.graph(structure), analysis.context.disc
    (x, y), _ = analysis.context.horizontal
    eye = (graph.points - (disc.x, disc.y)) @ np.array([[x, -y], [y, x]]) / disc.r
    radius = np.hypot(eye[:, 0], eye[:, 1])
    angle = np.degrees(np.arctan2(side * eye[:, 1], eye[:, 0]))
    sector = (angle > SECTOR[0]) & (angle < SECTOR[1])
    start = sector & (radius >= INNER) & (radius <= INNER + 1.0) & graph.measured
    if np.count_nonzero(start) < 5:
        return None
    segments = graph.segment_of[start]
    lengths = np.bincount(segments, weights=graph.sample_length[start], minlength=graph.size)
    totals = np.bincount(segments, weights=graph.sample_length[start] * graph.width[start], minlength=graph.size)
    means = np.where(lengths >= 0.3 * disc.r, totals / np.maximum(lengths, 1e-9), 0.0)
    if means.max() <= 0.0:
        return None
    segment = int(np.argmax(means))
    flow = flow_distance(graph, (disc.x, disc.y))
    incident = graph.incident()
    path: list[np.ndarray] = []
    visited: set[int] = set()
    while segment not in visited:
        visited.add(segment)
        samples = np.arange(graph.offsets[segment], graph.offsets[segment + 1])
        a, b = (int(n) for n in graph.ends[segment])
        # Outwards: away from the disc along the tree.
        if a < 0:
            path.append(samples)
            break
        if flow[a] > flow[b]:
            samples, a, b = samples[::-1], b, a
        path.append(samples)
        if radius[samples[-1]] > OUTER:
            break
        heading = eye[samples[-1]] - eye[samples[max(-12, -len(samples))]]
        best, best_score = None, 0.0
        for following, end in incident.get(b, []):
            if following in visited:
                continue
            onward = np.arange(graph.offsets[following], graph.offsets[following + 1])
            onward = onward if end == 0 else onward[::-1]
            ok = graph.measured[onward]
            width = float(graph.width[onward][ok].mean()) if ok.any() else 0.0
            course = eye[onward[min(12, len(onward) - 1)]] - eye[onward[0]]
            norm = float(np.hypot(*heading) * np.hypot(*course))
            cosine = float(heading @ course) / norm if norm > 0 else 0.0
            score = width * (1.0 + cosine)
            if score > best_score:
                best, best_score = following, score
        if best is None:
            break
        segment = best
    points = np.concatenate(path)
    points = points[(radius[points] >= INNER) & (radius[points] <= OUTER) & (side * eye[points, 1] > 0)]
    return eye[points] if len(points) >= 5 else None


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    for structure in ("artery", "vein"):
        names = (column("arcade_angle", structure), column("arcade_concavity", structure))
        null = analysis.missing(structure, "density")
        if null is None:
            null = analysis.context.disc_null or analysis.context.fovea_null
        values |= dict.fromkeys(names, null) if null is not None else dict(zip(names, _arcades(analysis, structure), strict=True))
    return values


def _arcades(analysis: Analysis, structure: str) -> tuple[Value, Value]:
    arcades = [follow(analysis, structure, side) for side in (1, -1)]
    too_few = Null("too_few_vessels")
    if any(a is None for a in arcades):
        return too_few, too_few
    headings = []
    for arcade in arcades:
        radius = np.hypot(arcade[:, 0], arcade[:, 1])
        near = arcade[(radius >= ANGLE_AT[0]) & (radius <= ANGLE_AT[1])]
        if len(near) < 3:
            return too_few, too_few
        unit = near / np.hypot(near[:, 0], near[:, 1])[:, None]
        headings.append(unit.mean(axis=0))
    angle = sum(math.degrees(math.atan2(abs(float(h[1])), float(h[0]))) for h in headings)
    if min(float(np.hypot(a[:, 0], a[:, 1]).max()) for a in arcades) < LEAST_REACH:
        return angle, too_few
    points = np.concatenate(arcades)
    # Both arcades weigh the same, however long each could be followed.
    weights = np.concatenate([np.full(len(a), 1.0 / math.sqrt(len(a))) for a in arcades])
    coefficient = float(np.polyfit(points[:, 1], points[:, 0], 2, w=weights)[0])
    # In radii so far: a x radius = a per unit; in DD the coefficient is twice that.
    return angle, 2.0 * coefficient
