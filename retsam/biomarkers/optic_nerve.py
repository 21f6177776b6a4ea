"""The optic nerve head: disc, cup and rim.

Heights run along the eye's vertical (perpendicular to the line from disc to fovea; the picture's vertical without a fovea), widths
across it. Rim widths are radial from the disc's centre. Clock hours are in the eye's own frame: 12 superior, 3 nasal, 6 inferior,
9 temporal, in right *and* left eyes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retsam.biomarkers.context import Axis, Context
from retsam.biomarkers.disc import largest_component
from retsam.biomarkers.outline import RAYS, extents, radial_outline, running_mean
from retsam.biomarkers.phenotypes import atrophy_plane
from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.units import area_columns, area_values, length_columns, length_values

#: Width in degrees of the running mean before the rim's minimum is taken; a single ray would follow pixel steps.
MINIMUM_WINDOW_DEG = 10.0
#: A rim thinner than this share of the disc's diameter counts as absent (DDLS stages 6 to 10).
RIM_ABSENT = 0.01

#: Arc of the rim -> its centre and extent in degrees from superior, through nasal (as clock hours run), and what it is in words.
SECTORS = {"superior": 0.0, "nasal": 90.0, "inferior": 180.0, "temporal": 270.0}
RIM_ARCS: dict[str, tuple[float, float, str]] = {
    **{name: (centre, 90.0, f"the 90 degrees about {name}") for name, centre in SECTORS.items()},
    **{
        f"clock_{hour:02d}": (hour * 30.0 % 360, 30.0, f"the 30 degrees about {hour} o'clock (12 superior, 3 nasal, in both eyes)")
        for hour in range(1, 13)
    },
}


def _entry(name: str, definition: str, *needs: str, **more) -> Biomarker:
    more.setdefault("valid_range", (0.0, math.inf))
    more.setdefault("least_disc", True)
    return Biomarker(name, "optic_nerve", definition, needs=needs, **more)


def _dictionary() -> list[Biomarker]:
    ratio = {"valid_range": (0.0, 1.0), "structure": "cup", "direction": "higher: larger cup, as in glaucoma", "source": "Jonas 1999"}
    entries = [
        _entry("cdr_vertical", "Height of the cup over height of the disc, along the eye's vertical.", "disc", "cup", **ratio),
        _entry("cdr_horizontal", "Width of the cup over width of the disc, across the eye's vertical.", "disc", "cup", **ratio),
        _entry("cdr_area", "Area of the cup over area of the disc.", "disc", "cup", **ratio),
    ]
    for part in ("disc", "cup"):
        needs = ("disc",) if part == "disc" else ("disc", "cup")
        for side, along in (("height", "along"), ("width", "across")):
            entries += length_columns(
                _entry(
                    f"{part}_{side}",
                    f"Extent of the {part} {along} the eye's vertical.",
                    *needs,
                    structure=part,
                    direction=f"higher: larger {part}",
                )
            )
        entries += area_columns(_entry(f"{part}_area", f"Area of the {part}.", *needs, structure=part, direction=f"higher: larger {part}"))
    entries += area_columns(
        _entry("rim_area", "Area of the disc outside the cup.", "disc", "cup", structure="rim", direction="lower: loss of nerve fibres")
    )
    rim = {"structure": "rim", "source": "Jonas 1999", "direction": "lower: thinner rim, as in glaucoma"}
    for arc, (_, _, words) in RIM_ARCS.items():
        definition = f"Mean radial width of the rim, from the disc's centre, over {words}."
        entries += length_columns(_entry(f"rim_width_{arc}", definition, "disc", "cup", "laterality", region=arc, **rim))
    entries += [
        _entry(
            "isnt_rule",
            "1 if the mean rim widths of the sectors keep inferior >= superior >= nasal >= temporal, else 0.",
            "disc",
            "cup",
            "laterality",
            valid_range=(0.0, 1.0),
            structure="rim",
            source="Harizman 2006",
            direction="0: the rule is broken, as often in glaucoma",
        ),
        _entry(
            "rim_min_ratio",
            f"Least rim width (running mean over {MINIMUM_WINDOW_DEG:.0f} degrees) over the disc's diameter at the same meridian.",
            "disc",
            "cup",
            valid_range=(0.0, 1.0),
            structure="rim",
            source="Spaeth 2002",
            direction="lower: thinner rim, as in glaucoma",
        ),
        _entry(
            "rim_min_position_deg",
            "Where the rim is thinnest (the middle of the longest arc where it is absent): degrees from superior, 90 nasal, 180 inferior, "
            "270 temporal.",
            "disc",
            "cup",
            "laterality",
            unit="deg",
            valid_range=(0.0, 360.0),
            structure="rim",
            source="Spaeth 2002",
        ),
        _entry(
            "rim_absent_extent_deg",
            f"Circumference over which the rim is absent (under {RIM_ABSENT:.0%} of the disc's diameter).",
            "disc",
            "cup",
            unit="deg",
            valid_range=(0.0, 360.0),
            structure="rim",
            source="Spaeth 2002",
            direction="higher: advanced glaucoma",
        ),
        _entry(
            "ddls_stage",
            "Disc damage likelihood scale for a disc of average size: 1 (least rim ratio at least 0.4), 2 (0.3), 3 (0.2), 4 (0.1), "
            "5 (under 0.1), 6 to 10 (rim absent for under 45, to 90, to 180, to 270, over 270 degrees).",
            "disc",
            "cup",
            unit="grade",
            valid_range=(1.0, 10.0),
            structure="rim",
            source="Spaeth 2002",
            direction="higher: glaucoma more likely",
        ),
        _entry(
            "disc_ovality",
            "Minor over major axis of the ellipse fitted to the disc.",
            "disc",
            valid_range=(0.0, 1.0),
            structure="disc",
            source="Tay 2005",
            direction="lower: tilted disc, as in myopia",
        ),
        _entry(
            "disc_orientation_deg",
            "Angle of the disc's major axis to the eye's vertical, positive where its upper end leans to temporal; undefined for a circle.",
            "disc",
            "laterality",
            unit="deg",
            valid_range=(-90.0, 90.0),
            structure="disc",
            source="How 2009",
        ),
    ]
    entries += length_columns(
        _entry(
            "disc_fovea_distance",
            "Distance between the disc's centre and the fovea.",
            "disc",
            "fovea",
            structure="disc",
            direction="lower in disc diameters: large disc",
            least_disc=False,
        )
    )
    entries += [
        _entry(
            "disc_fovea_angle_deg",
            "Angle of the line from the disc's centre to the fovea below the picture's horizontal. It turns with the photograph: "
            "cyclotorsion of the eye and tilt of the head are in it.",
            "disc",
            "fovea",
            unit="deg",
            valid_range=(-180.0, 180.0),
            structure="disc",
            source="Jonas 2015",
            least_disc=False,
            direction="higher: fovea lower than the disc",
        ),
        _entry(
            "ppa_to_disc_area",
            "Area of peripapillary atrophy over area of the disc.",
            "disc",
            "peripapillary_atrophy",
            structure="peripapillary_atrophy",
            source="Jonas 1989",
            direction="higher: more atrophy, as in myopia and glaucoma",
        ),
    ]
    return entries


DICTIONARY: list[Biomarker] = _dictionary()

_CUP_NAMES = tuple(entry.name for entry in DICTIONARY if "cup" in entry.needs)


@dataclass(frozen=True)
class RimProfile:
    """Radii of disc and cup along rays from the disc's centre, grid px; ray ``i`` points to ``angles[i]`` (radians, +x to +y)."""

    angles: np.ndarray
    disc: np.ndarray
    cup: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """Rim width on every ray."""
        return np.maximum(self.disc - self.cup, 0.0)


def rim_profile(context: Context, cup: np.ndarray) -> RimProfile:
    """Radial profile of disc and cup (bool [H, W], not empty)."""
    disc = context.disc
    assert disc is not None
    radii = [radial_outline(mask, (disc.x, disc.y)) for mask in (disc.mask, cup)]
    return RimProfile(np.arange(RAYS) * 2 * math.pi / RAYS, radii[0], radii[1])


def _bearing(profile: RimProfile, axis: Axis) -> np.ndarray:
    """Degrees of every ray from superior, through nasal, in [0, 360)."""
    rays = np.stack([np.cos(profile.angles), np.sin(profile.angles)], axis=1)
    return np.degrees(np.arctan2(-(rays @ np.array(axis.temporal)), rays @ np.array(axis.superior))) % 360


def _sector_mean(width: np.ndarray, bearing: np.ndarray, centre: float, span: float) -> float:
    away = np.abs((bearing - centre + 180) % 360 - 180)
    # Rays on the border between two sectors belong to both, half each, so that a mirrored eye gives the mirrored answer.
    weight = np.where(np.isclose(away, span / 2, atol=1e-6), 0.5, (away < span / 2).astype(float))
    return float((width * weight).sum() / weight.sum())


def _longest_arc(rays: np.ndarray) -> int:
    """Middle ray of the longest arc of rays that hold (bool [RAYS], any of them true)."""
    if rays.all():
        return 0
    start = int(np.argmin(rays))  # from a ray that does not hold, so that no arc is cut in two
    edges = np.diff(np.concatenate([[0], np.roll(rays, -start).astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = int(np.argmax(ends - begins))
    return (start + int(begins[longest] + ends[longest] - 1) // 2) % RAYS


def ddls_stage(least_ratio: float, absent_deg: float) -> int:
    """Stage of the disc damage likelihood scale for a disc of average size (Spaeth 2002)."""
    if absent_deg > 0:
        return 6 + int(np.searchsorted([45, 90, 180, 270], absent_deg, side="left"))
    return 5 - int(np.searchsorted([0.1, 0.2, 0.3, 0.4], least_ratio, side="right"))


def _rim(context: Context, cup: np.ndarray) -> dict[str, float | Null]:
    profile = rim_profile(context, cup)
    width, diameter = profile.width, profile.disc + np.roll(profile.disc, RAYS // 2)
    out: dict[str, float | Null] = {}
    axis = context.axis
    if isinstance(axis, Null):
        arcs: dict[str, float | Null] = dict.fromkeys(RIM_ARCS, axis)
    else:
        bearing = _bearing(profile, axis)
        arcs = {name: _sector_mean(width, bearing, centre, span) for name, (centre, span, _) in RIM_ARCS.items()}
    for name, value in arcs.items():
        out |= length_values(context, f"rim_width_{name}", value)
    if isinstance(axis, Null):
        out["isnt_rule"] = axis
    else:
        inferior, superior, nasal, temporal = (arcs[name] for name in ("inferior", "superior", "nasal", "temporal"))
        out["isnt_rule"] = float(inferior >= superior >= nasal >= temporal)
    diameter = np.maximum(diameter, 1e-9)
    smooth = running_mean(width, MINIMUM_WINDOW_DEG) / diameter
    least = float(smooth.min())
    absent = float(np.mean(width / diameter < RIM_ABSENT)) * 360
    out["rim_min_ratio"] = least
    # Where the rim is absent, which ray is thinnest would be chance.
    position = _longest_arc(smooth <= max(least, RIM_ABSENT))
    out["rim_min_position_deg"] = axis if isinstance(axis, Null) else float(bearing[position])
    out["rim_absent_extent_deg"] = absent
    out["ddls_stage"] = float(ddls_stage(least, absent))
    return out


def _orientation(context: Context) -> float | Null:
    disc, axis = context.disc, context.axis
    assert disc is not None
    if isinstance(axis, Null):
        return axis
    # Below 2 % of difference the major axis follows pixel steps.
    if disc.semi_minor > 0.98 * disc.semi_major:
        return Null("not_defined")
    major = (math.cos(disc.angle), math.sin(disc.angle))
    up = major[0] * axis.superior[0] + major[1] * axis.superior[1]
    out = major[0] * axis.temporal[0] + major[1] * axis.temporal[1]
    return math.degrees(math.atan(out / up)) if up else 90.0


def _fovea_line(context: Context) -> dict[str, float | Null]:
    null = context.disc_null or context.fovea_null
    if null is not None:
        return length_values(context, "disc_fovea_distance", null) | {"disc_fovea_angle_deg": null}
    dx, dy = context.fovea[0] - context.disc.x, context.fovea[1] - context.disc.y
    # Where nobody knows the eye, or the table and the picture disagree on it, temporal is where the fovea is.
    unsure = context.eye is None or context.laterality_conflict
    outward = abs(dx) if unsure else (-dx if context.eye == "R" else dx)
    return length_values(context, "disc_fovea_distance", math.hypot(dx, dy)) | {
        "disc_fovea_angle_deg": math.degrees(math.atan2(dy, outward))
    }


def _own_size(context: Context, values: dict[str, float | Null]) -> dict[str, float | Null]:
    """The disc's own size in micrometres means nothing where the scale was taken from the disc."""
    if context.scale_source and context.scale_source.startswith("disc_"):
        return {key: Null("scale_from_disc") if key.endswith(("_um", "_mm2")) else value for key, value in values.items()}
    return values


def measure_optic_nerve(context: Context) -> dict[str, float | Null]:
    """Biomarkers of the optic nerve head.

    Parameters
    ----------
    context : Context

    Returns
    -------
    dict of str to float or Null
        One entry for each name of :data:`DICTIONARY`.
    """
    out = _fovea_line(context)
    null = context.disc_null
    if null is None and 2 * context.disc.r * context.native_scale < context.config.min_disc_diameter_px:
        null = Null("resolution_too_low")
    if null is not None:
        return {entry.name: out.get(entry.name, null) for entry in DICTIONARY}
    disc = context.disc
    (hx, hy), _ = context.horizontal
    vertical, horizontal = (-hy, hx), (hx, hy)
    if disc.cut_off:
        height, width, area = disc.extent(*vertical), disc.extent(*horizontal), disc.area
    else:
        height, width = extents(disc.mask, [vertical, horizontal])
        area = float(np.count_nonzero(disc.mask))
    for name, value in (("disc_height", height), ("disc_width", width)):
        out |= _own_size(context, length_values(context, name, value))
    out |= _own_size(context, area_values(context, "disc_area", area))
    out["disc_ovality"] = disc.semi_minor / disc.semi_major
    out["disc_orientation_deg"] = _orientation(context)

    atrophy = atrophy_plane(context, "peripapillary_atrophy")
    out["ppa_to_disc_area"] = context.missing("peripapillary_atrophy") if atrophy is None else float(np.count_nonzero(atrophy)) / area

    cup_plane = context.plane("cup")
    cup_null = context.missing("cup")
    if cup_null is None and disc.cut_off:
        cup_null = Null("disc_cut_off")
    if cup_null is None:
        cup, _ = largest_component(cup_plane & disc.mask)
        if not cup.any():
            cup_null = Null("no_cup")
    if cup_null is not None:
        return out | {name: cup_null for name in _CUP_NAMES}
    # Smoothed about another ellipse than the disc's, a cup that reaches the margin may come out a fraction of a pixel beyond it.
    cup_height, cup_width = np.minimum(extents(cup, [vertical, horizontal]), (height, width)).tolist()
    cup_area = float(np.count_nonzero(cup))
    out |= {"cdr_vertical": cup_height / height, "cdr_horizontal": cup_width / width, "cdr_area": cup_area / area}
    out |= length_values(context, "cup_height", cup_height) | length_values(context, "cup_width", cup_width)
    out |= area_values(context, "cup_area", cup_area) | area_values(context, "rim_area", area - cup_area)
    return out | _rim(context, cup)
