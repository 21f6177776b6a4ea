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

#: Directions about the disc in which the atrophy is sought, and the step outwards, grid px.
_DIRECTIONS = 720
_STEP = 0.5
#: Atrophy begins at the disc's margin where less than this of the disc's diameter lies between: two masks need not touch.
_GAP = 0.05


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
            "Greatest width of peripapillary atrophy along a ray from the disc's centre: from the disc's margin outwards as far as it goes "
            "on without a break.",
            "peripapillary_atrophy",
            "disc",
            source="Jonas 1989",
            **ppa,
        )
    )
    entries.append(
        _entry(
            "ppa_angular_extent_deg",
            "Angle about the disc's centre over which peripapillary atrophy lies at the disc's margin.",
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


def atrophy_plane(context: Context, name: str) -> np.ndarray | None:
    """Mask of a kind of atrophy, that about the disc without the disc, on which masks from elsewhere may go on; None without a head."""
    plane = context.plane(name)
    if name == "peripapillary_atrophy" and plane is not None and context.disc is not None:
        plane = plane & ~context.disc.mask
    return plane


def _ppa_ring(context: Context) -> tuple[float | Null, float | Null]:
    """Greatest radial width (grid px) and angular extent (degrees) of the peripapillary atrophy that begins at the disc's margin.

    Along each ray from the disc's centre the atrophy goes on as far as it does so without a break: a patch elsewhere is no width.
    """
    null = context.missing("peripapillary_atrophy") or context.disc_null
    if null is not None:
        return null, null
    disc, plane = context.disc, atrophy_plane(context, "peripapillary_atrophy")
    rows, columns = pixels(plane)
    if not len(rows):
        return 0.0, 0.0
    angle = np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    # Radius of the disc's ellipse in each direction.
    cos, sin = np.cos(angle - disc.angle), np.sin(angle - disc.angle)
    margin = disc.semi_major * disc.semi_minor / np.hypot(disc.semi_minor * cos, disc.semi_major * sin)
    gap = max(1.5, _GAP * 2 * disc.r)
    farthest = float(np.hypot(rows - disc.y, columns - disc.x).max()) + 1
    out = np.arange(_STEP / 2, max(farthest - float(margin.min()), gap) + 2 * _STEP, _STEP)
    radius = margin[:, None] + out
    y = np.rint(disc.y + radius * np.sin(angle)[:, None]).astype(int)
    x = np.rint(disc.x + radius * np.cos(angle)[:, None]).astype(int)
    inside = (y >= 0) & (y < plane.shape[0]) & (x >= 0) & (x < plane.shape[1])
    hit = inside & plane[np.clip(y, 0, plane.shape[0] - 1), np.clip(x, 0, plane.shape[1] - 1)]
    begins = hit[:, out <= gap].any(axis=1)
    # Behind the first pixel of atrophy, the first without; the last sample lies beyond all atrophy.
    behind = np.arange(len(out)) > hit.argmax(axis=1)[:, None]
    ends = np.argmax(behind & ~hit, axis=1)
    width = np.where(begins, out[ends] - _STEP / 2, 0.0)
    return float(width.max()), float(begins.mean() * 360)


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
        plane = atrophy_plane(context, name)
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
