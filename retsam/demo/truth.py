"""What is known of a rendered eye without looking at its pixels: biomarkers from the generating geometry.

Nothing here imports the biomarker room, so that the two can be held against each other (`compare`). Formulas are written out
again from their papers on purpose.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from retsam.demo.geometry import Projection, cup_centre, fovea_position
from retsam.demo.lesions import Lesion
from retsam.demo.parameters import LESIONS, EyeParameters
from retsam.demo.raster import polyline_crossings
from retsam.demo.vessels import Segment

__all__ = ["eye_truth", "knudtson"]


def knudtson(widths: list[float], factor: float) -> float:
    """Revised central equivalent of the six widest vessels (Knudtson et al. 2003).

    Parameters
    ----------
    widths : list of float
        Of all vessels that cross zone B, any unit.
    factor : float
        0.88 for arterioles, 0.95 for venules.

    Returns
    -------
    float
        NaN for fewer than six.
    """
    if len(widths) < 6:
        return math.nan
    rest = sorted(widths, reverse=True)[:6]
    while len(rest) > 1:
        rest.sort()
        odd = [rest.pop(len(rest) // 2)] if len(rest) % 2 else []
        rest = [factor * math.hypot(rest[i], rest[-1 - i]) for i in range(len(rest) // 2)] + odd
    return rest[0]


def _extent(width: float, height: float, tilt: float, direction: float) -> float:
    """Full extent of an ellipse (axes `width`, `height`, turned by `tilt`) along a direction; angles in radians from x."""
    return math.hypot(width * math.cos(direction - tilt), height * math.sin(direction - tilt))


def _inside(points: np.ndarray, projection: Projection, fov: np.ndarray) -> np.ndarray:
    pixels = np.rint(projection.to_pixels(points)).astype(int)
    ok = (pixels[:, 0] >= 0) & (pixels[:, 1] >= 0) & (pixels[:, 0] < fov.shape[1]) & (pixels[:, 1] < fov.shape[0])
    ok[ok] = fov[pixels[ok, 1], pixels[ok, 0]]
    return ok


def _vessel_truth(segments: list[Segment], kind: str, radius: float, projection: Projection, fov: np.ndarray) -> dict[str, Any]:
    unit = projection.px_per_mm
    crossing_zone: list[float] = []
    length = weighted_width = weighted_turn = whole = area = 0.0
    branchpoints = in_zone_c = 0
    by_index = dict(enumerate(segments))
    for segment in segments:
        if segment.kind != kind:
            continue
        points = segment.points
        distance = np.hypot(points[:, 0], points[:, 1])
        visible = _inside(points, projection, fov)
        zone = (distance >= 2 * radius) & (distance <= 3 * radius)
        if distance.min() < 2 * radius and distance.max() > 3 * radius and visible[zone].mean() > 0.5:
            crossing_zone.append(segment.width)
        outside_disc = visible & (distance > radius)
        steps = np.hypot(*np.diff(points, axis=0).T) * (visible[1:] & visible[:-1])
        mine = float(steps.sum())
        length += mine
        weighted_width += mine * segment.width
        area += mine * segment.width
        if outside_disc.all():
            chord = float(np.hypot(*(points[-1] - points[0])))
            weighted_turn += mine * (mine / chord - 1)
            whole += mine
        live = [child for child in segment.children if child in by_index]
        if len(live) >= 2 and outside_disc[-1]:
            branchpoints += 1
            in_zone_c += int(2 * radius <= distance[-1] <= 5 * radius)
    factor = 0.88 if kind == "artery" else 0.95
    equivalent = knudtson(crossing_zone, factor)
    return {
        f"{kind}_zone_b_count": len(crossing_zone),
        f"{kind}_zone_b_widths_px": [round(width * unit, 4) for width in sorted(crossing_zone, reverse=True)],
        ("crae_px" if kind == "artery" else "crve_px"): equivalent * unit,
        ("crae_um" if kind == "artery" else "crve_um"): equivalent * 1000,
        f"{kind}_length_px": length * unit,
        f"{kind}_width_mean_px": weighted_width / length * unit if length else math.nan,
        f"{kind}_area_px2": area * unit**2,
        f"{kind}_tortuosity_distance": weighted_turn / whole if whole else math.nan,
        f"{kind}_branchpoint_count": branchpoints,
        f"{kind}_zone_c_branchpoint_count": in_zone_c,
    }


def eye_truth(
    parameters: EyeParameters, projection: Projection, segments: list[Segment], lesions: list[Lesion], fov: np.ndarray
) -> dict[str, Any]:
    """Biomarkers of a rendered eye from what it was generated from.

    Parameters
    ----------
    parameters : EyeParameters
    projection : Projection
    segments : list of Segment
    lesions : list of Lesion
    fov : ndarray bool [H, W]

    Returns
    -------
    dict
        Pixels are those of the photograph. Vessel lengths, areas and widths are those inside the field of view (vessels that run
        over one another on the disc count twice), branch points and crossings those outside the disc, tortuosity that of segments
        wholly visible outside it; ``zone_b_coverage`` is the share of zone B inside the field of view. NaN where a definition is not
        met (fewer than six vessels across zone B).
    """
    unit = projection.px_per_mm
    p = parameters
    radius = 0.25 * (p.disc_width_mm + p.disc_height_mm)
    fovea = fovea_position(p)
    fovea_px, disc_px = projection.to_pixels(fovea), projection.to_pixels(np.zeros(2))
    tilt = math.radians(p.disc_tilt)
    cup = (p.disc_width_mm * p.cdr_horizontal, p.disc_height_mm * p.cdr_vertical)
    # The eye's vertical is square to the line from disc to fovea, the horizontal along it.
    across = math.radians(p.fovea_angle)
    vertical, horizontal = across + math.pi / 2, across
    disc_axes = (p.disc_width_mm, p.disc_height_mm)
    ring = np.linspace(0, 2 * math.pi, 360, endpoint=False)
    zone = np.concatenate([k * radius * np.column_stack([np.cos(ring), np.sin(ring)]) for k in np.linspace(2.05, 2.95, 10)])
    weights = np.repeat(np.linspace(2.05, 2.95, 10), 360)
    line = projection.to_pixels(np.zeros(2)) - fovea_px
    truth: dict[str, Any] = {
        "um_per_px": 1000 / unit,
        "fov_area_px2": int(fov.sum()),
        "zone_b_coverage": float(np.average(_inside(zone, projection, fov), weights=weights)),
        "disc_x": float(disc_px[0]),
        "disc_y": float(disc_px[1]),
        "fovea_x": float(fovea_px[0]),
        "fovea_y": float(fovea_px[1]),
        "disc_diameter_px": 2 * radius * unit,
        "disc_height_px": _extent(*disc_axes, tilt, vertical) * unit,
        "disc_width_px": _extent(*disc_axes, tilt, horizontal) * unit,
        "disc_area_px2": math.pi / 4 * p.disc_width_mm * p.disc_height_mm * unit**2,
        "disc_ovality": min(disc_axes) / max(disc_axes),
        "cup_height_px": _extent(*cup, tilt, vertical) * unit,
        "cup_width_px": _extent(*cup, tilt, horizontal) * unit,
        "cup_area_px2": math.pi / 4 * cup[0] * cup[1] * unit**2,
        "cdr_vertical": _extent(*cup, tilt, vertical) / _extent(*disc_axes, tilt, vertical),
        "cdr_horizontal": _extent(*cup, tilt, horizontal) / _extent(*disc_axes, tilt, horizontal),
        "cdr_area": cup[0] * cup[1] / (disc_axes[0] * disc_axes[1]),
        "disc_fovea_distance_px": p.fovea_distance_mm * unit,
        "disc_fovea_distance_dd": p.fovea_distance_mm / (2 * radius),
        "disc_fovea_angle_deg": math.degrees(math.atan2(fovea_px[1] - disc_px[1], abs(line[0]))),
        "cup_centre_offset_mm": math.hypot(*cup_centre(p)),
    }
    for kind in ("artery", "vein"):
        truth.update(_vessel_truth(segments, kind, radius, projection, fov))
        truth[f"{kind}_length_density_per_px"] = truth[f"{kind}_length_px"] / truth["fov_area_px2"]
        truth[f"{kind}_area_density"] = truth[f"{kind}_area_px2"] / truth["fov_area_px2"]
    truth["avr"] = truth["crae_px"] / truth["crve_px"]
    edges = {
        kind: np.concatenate([np.stack([s.points[:-1], s.points[1:]], 1) for s in segments if s.kind == kind] or [np.zeros((0, 2, 2))])
        for kind in ("artery", "vein")
    }
    points = polyline_crossings(edges["artery"], edges["vein"])
    truth["crossing_count"] = int((_inside(points, projection, fov) & (np.hypot(*points.T) > radius)).sum()) if len(points) else 0
    half_width, half_height, extent = 0.5 * p.disc_width_mm, 0.5 * p.disc_height_mm, p.ppa_mm
    crescent = math.pi * ((half_width + 0.5 * extent) * (half_height + 0.35 * extent) - half_width * half_height)
    truth["peripapillary_atrophy_area_px2"] = crescent * unit**2
    for kind in LESIONS:
        mine = [lesion for lesion in lesions if lesion.kind == kind]
        truth[f"{kind}_count"] = len(mine)
        truth[f"{kind}_area_px2"] = sum(lesion.area for lesion in mine) * unit**2
    return truth
