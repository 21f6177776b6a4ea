"""Phenotypes: tessellation of the fundus, and the atrophies of the myopic eye."""

from __future__ import annotations

import math

import numpy as np

from retsam.biomarkers.blobs import Blobs, pixels
from retsam.biomarkers.context import Context
from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.units import area_columns, area_values, length_columns, length_values

#: Classes of myopic atrophy (META-PM; Ohno-Matsui 2015).
ATROPHIES = ("peripapillary_atrophy", "diffuse_atrophy", "patchy_atrophy")

_TESSELLATION_ZONES = {
    "tessellation_coverage": ("whole", "the field of view"),
    "tessellation_coverage_macula": ("macula_6mm", "the circle of 6 mm diameter about the fovea"),
    "tessellation_coverage_peripapillary": ("peripapillary", "the ring of 1 to 2 disc radii about the disc's centre"),
}
_ZONE_NEEDS = {"whole": (), "macula_6mm": ("fovea", "scale"), "peripapillary": ("disc",)}

#: Directions about the disc in which the atrophy's width is sought.
_DIRECTIONS = 360


def _entry(name: str, definition: str, *needs: str, **more) -> Biomarker:
    more.setdefault("valid_range", (0.0, math.inf))
    more.setdefault("resolution", "area")
    return Biomarker(name, "phenotypes", definition, needs=needs, **more)


def _dictionary() -> list[Biomarker]:
    tessellation = {"structure": "tessellation", "direction": "higher: thinner choroid, longer or older eye"}
    entries = [
        _entry(
            name,
            f"Area of tessellation over area of {title}, inside the field of view.",
            "tessellation",
            *_ZONE_NEEDS[zone],
            region=zone,
            source="Yan 2015",
            **(tessellation | {"valid_range": (0.0, 1.0)}),
        )
        for name, (zone, title) in _TESSELLATION_ZONES.items()
    ]
    shape = {"structure": "tessellation"}
    entries += [
        _entry(
            "tessellation_circularity",
            "Mean of 4 pi area / perimeter^2 over the patches of tessellation.",
            "tessellation",
            valid_range=(0.0, 1.0),
            **shape,
        ),
        _entry(
            "tessellation_aspect_ratio",
            "Mean of major over minor axis over the patches of tessellation.",
            "tessellation",
            valid_range=(1.0, math.inf),
            **shape,
        ),
        _entry(
            "tessellation_dispersion",
            "Root mean square distance of the patches' centroids from their mean, over half the diameter of the field of view.",
            "tessellation",
            "fov",
            **shape,
        ),
    ]
    for name in ATROPHIES:
        title = name.replace("_", " ")
        common = {"structure": name, "source": "Ohno-Matsui 2015", "direction": "higher: more myopic degeneration"}
        entries.append(_entry(f"{name}_count", f"Number of areas of {title}.", name, unit="count", **common))
        entries += area_columns(_entry(f"{name}_area", f"Area of {title}.", name, **common))
        entries += area_columns(_entry(f"{name}_largest_area", f"Area of the largest patch of {title}.", name, **common))
        entries.append(
            _entry(f"{name}_coverage", f"Area of {title} over area of the field of view.", name, **(common | {"valid_range": (0.0, 1.0)}))
        )
    ppa = {"structure": "peripapillary_atrophy", "direction": "higher: more myopic degeneration"}
    entries += length_columns(
        _entry(
            "ppa_max_width",
            "Greatest width of peripapillary atrophy along a ray from the disc's centre, from the disc's margin outwards.",
            "peripapillary_atrophy",
            "disc",
            source="Jonas 1989",
            **ppa,
        )
    )
    entries.append(
        _entry(
            "ppa_angular_extent_deg",
            "Angle about the disc's centre over which peripapillary atrophy is present.",
            "peripapillary_atrophy",
            "disc",
            unit="deg",
            source="Jonas 1989",
            **(ppa | {"valid_range": (0.0, 360.0)}),
        )
    )
    entries += length_columns(
        _entry(
            "atrophy_fovea_distance",
            "Distance from the fovea to the nearest myopic atrophy of any class that has a head.",
            "|".join(ATROPHIES),
            "fovea",
            structure="myopic_atrophy",
            direction="lower: sight in danger",
        )
    )
    entries.append(
        _entry(
            "atrophy_coverage",
            "Area of myopic atrophy of any class that has a head over area of the field of view.",
            "|".join(ATROPHIES),
            structure="myopic_atrophy",
            valid_range=(0.0, 1.0),
            direction="higher: more myopic degeneration",
        )
    )
    return entries


DICTIONARY: list[Biomarker] = _dictionary()


def _tessellation(context: Context) -> dict[str, float | Null]:
    plane = context.plane("tessellation")
    names = [entry.name for entry in DICTIONARY if entry.structure == "tessellation"]
    if plane is None:
        return dict.fromkeys(names, context.missing("tessellation"))
    out: dict[str, float | Null] = {}
    for name, (zone_name, _) in _TESSELLATION_ZONES.items():
        null = context.zone_null(zone_name)
        if null is None:
            zone = context.zone(zone_name).mask
            out[name] = float(np.count_nonzero(plane & zone)) / int(np.count_nonzero(zone))
        else:
            out[name] = null
    blobs = Blobs.of(plane)
    if not blobs.count:
        return out | dict.fromkeys(names[len(_TESSELLATION_ZONES) :], Null("none_present"))
    spread = math.sqrt(float(np.var(blobs.x) + np.var(blobs.y)))
    return out | {
        "tessellation_circularity": float(blobs.circularity.mean()),
        "tessellation_aspect_ratio": float(blobs.aspect_ratio.mean()),
        "tessellation_dispersion": spread / (context.fov_diameter / 2),
    }


def _ppa_ring(context: Context) -> tuple[float | Null, float | Null]:
    """Greatest radial width (grid px) and angular extent (degrees) of peripapillary atrophy."""
    null = context.missing("peripapillary_atrophy") or context.disc_null
    if null is not None:
        return null, null
    disc = context.disc
    rows, columns = pixels(context.plane("peripapillary_atrophy") & ~disc.mask)
    if not len(rows):
        return 0.0, 0.0
    angle = np.arctan2(rows - disc.y, columns - disc.x)
    distance = np.hypot(rows - disc.y, columns - disc.x)
    # Radius of the disc's ellipse in the direction of each pixel.
    cos, sin = np.cos(angle - disc.angle), np.sin(angle - disc.angle)
    margin = disc.semi_major * disc.semi_minor / np.hypot(disc.semi_minor * cos, disc.semi_major * sin)
    width = max(0.0, float((distance + 0.5 - margin).max()))
    present = np.bincount(((angle + math.pi) / (2 * math.pi) * _DIRECTIONS).astype(int) % _DIRECTIONS, minlength=_DIRECTIONS) > 0
    return width, float(present.mean() * 360)


def measure_phenotypes(context: Context) -> dict[str, float | Null]:
    """Biomarkers of tessellation and myopic atrophy.

    Returns
    -------
    dict of str to float or Null
        One entry for each name of :data:`DICTIONARY`.
    """
    if not context.fov_area:
        return {entry.name: Null("no_fov") for entry in DICTIONARY}
    out = _tessellation(context)
    planes = []
    for name in ATROPHIES:
        plane = context.plane(name)
        if plane is None:
            null = context.missing(name)
            out |= {f"{name}_count": null, f"{name}_coverage": null}
            out |= area_values(context, f"{name}_area", null) | area_values(context, f"{name}_largest_area", null)
            continue
        planes.append(plane)
        blobs = Blobs.of(plane)
        out |= {f"{name}_count": float(blobs.count), f"{name}_coverage": blobs.total_area / context.fov_area}
        out |= area_values(context, f"{name}_area", float(blobs.total_area))
        out |= area_values(context, f"{name}_largest_area", float(blobs.area.max(initial=0)))
    width, extent_deg = _ppa_ring(context)
    out |= length_values(context, "ppa_max_width", width) | {"ppa_angular_extent_deg": extent_deg}
    if not planes:
        null = context.missing(*ATROPHIES)
        return out | {"atrophy_coverage": null} | length_values(context, "atrophy_fovea_distance", null)
    rows, columns = pixels(np.logical_or.reduce(planes))
    out["atrophy_coverage"] = len(rows) / context.fov_area
    distance: float | Null | None = context.fovea_null or (None if len(rows) else Null("none_present"))
    if distance is None:
        x, y = context.fovea
        distance = max(0.0, math.sqrt(float(((columns - x) ** 2 + (rows - y) ** 2).min())) - 0.5)
    return out | length_values(context, "atrophy_fovea_distance", distance)
