"""Lesions: how many, how much, how large, of which shape and where; each class and each group of classes.

A class without a head in the model is null, never zero lesions. A group is the union of those of its classes that have a head.
"""

from __future__ import annotations

import math

import numpy as np

from retsam.biomarkers.blobs import Blobs
from retsam.biomarkers.context import ETDRS_FIELDS, QUADRANTS, Context
from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.units import area_columns, area_values, length_columns, length_values
from retsam.segmentation.targets import CATEGORY, TASKS

CLASSES: tuple[str, ...] = tuple(target for target, category in CATEGORY.items() if category == "lesion")

#: Groups of classes that are counted together.
GROUPS: dict[str, tuple[str, ...]] = {
    "lesions_red": ("microaneurysm", "hemorrhage"),
    "lesions_bright": ("hard_exudate", "cotton_wool_spot"),
    "lesions_dr": TASKS["lesions_dr"],
    "lesions_amd": TASKS["lesions_amd"],
    "lesions_other": tuple(name for name in TASKS["lesions_other"] if name != "artifact"),
    "lesions_all": tuple(name for name in CLASSES if name != "artifact"),
}

#: Borders between small, medium and large by equivalent diameter.
DRUSEN_BORDERS_UM = (63.0, 125.0)
BORDERS_DD = (0.05, 0.15)

#: Borders of coverage between minimal, mild, moderate and severe (grades 0 to 3).
SEVERITY_BORDERS = (0.01, 0.03, 0.10)

#: The 4-2-1 rule asks for more haemorrhages and microaneurysms than this in each quadrant (ETDRS report 12; Wilkinson 2003).
SEVERE_RED_LESIONS = 20


def _resolution(name: str) -> str:
    """A group needs the pixels that its smallest members need, or its counts would follow the camera."""
    return "microlesion" if "microaneurysm" in GROUPS.get(name, (name,)) else "area"


def _title(name: str) -> str:
    """``lesions of group lesions_red`` or ``hard exudates``."""
    if name in GROUPS:
        return f"lesions of the group {name} ({', '.join(GROUPS[name])})"
    return name.replace("_", " ") + ("" if name.endswith(("beading", "nicking", "sheathing", "edema", "change", "degeneration")) else "s")


def _entries(name: str) -> list[Biomarker]:
    title = _title(name)
    small, large = ("63 um", "125 um") if name == "drusen" else ("0.05 DD", "0.15 DD")
    sizes = {"small": f"below {small}", "medium": f"from {small} to {large}", "large": f"of {large} and more"}
    common = {
        "family": "lesions",
        "structure": name,
        "needs": ("|".join(GROUPS.get(name, (name,))),),
        "resolution": _resolution(name),
        "valid_range": (0.0, math.inf),
        "direction": "higher: more disease",
    }
    size = {
        **common,
        "unit": "count",
        "needs": (*common["needs"], "scale" if name == "drusen" else "disc"),
        "resolution": "drusen_size" if name == "drusen" else common["resolution"],
    }
    placed = {**common, "needs": (*common["needs"], "disc", "fovea", "laterality")}
    out = [Biomarker(f"{name}_count", definition=f"Number of {title} (8-connected components).", unit="count", **common)]
    out += area_columns(Biomarker(f"{name}_area", definition=f"Area of {title}.", **common))
    share = {**common, "valid_range": (0.0, 1.0)}
    out.append(Biomarker(f"{name}_coverage", definition=f"Area of {title} over area of the field of view.", **share))
    for label, where in sizes.items():
        out.append(Biomarker(f"{name}_count_{label}", definition=f"Number of {title} with an equivalent diameter {where}.", **size))
    out.append(
        Biomarker(
            f"{name}_circularity",
            definition=f"Mean of 4 pi area / perimeter^2 over {title}; 1 for circles.",
            **{**common, "valid_range": (0.0, 1.0), "direction": "higher: rounder"},
        )
    )
    out.append(
        Biomarker(
            f"{name}_aspect_ratio",
            definition=f"Mean of major over minor axis over {title}.",
            **{**common, "valid_range": (1.0, math.inf), "direction": "higher: longer"},
        )
    )
    for quadrant in QUADRANTS:
        out.append(
            Biomarker(
                f"{name}_count_{quadrant}",
                definition=f"Number of {title} whose centroid lies in the {quadrant} quadrant about the fovea.",
                unit="count",
                region=quadrant,
                **placed,
            )
        )
    out.append(
        Biomarker(
            f"{name}_quadrants",
            definition=f"Number of quadrants about the fovea with any {title}.",
            unit="count",
            **{**placed, "valid_range": (0.0, 4.0)},
        )
    )
    for field in ETDRS_FIELDS:
        out.append(
            Biomarker(
                f"{name}_coverage_etdrs_{field}",
                definition=f"Area of {title} over the visible area of the ETDRS field {field.replace('_', ' ')}.",
                source="ETDRS report 10, 1991",
                region=f"etdrs_{field}",
                **{**placed, "needs": (*placed["needs"], "scale"), "valid_range": (0.0, 1.0)},
            )
        )
    out += length_columns(
        Biomarker(
            f"{name}_fovea_distance",
            definition=f"Distance from the fovea to the nearest edge of {title}.",
            **{**common, "needs": (*common["needs"], "fovea"), "direction": "lower: nearer to the centre of sight"},
        )
    )
    out.append(
        Biomarker(
            f"{name}_severity",
            definition=f"Coverage by {title} as a grade: 0 minimal (under 1 %), 1 mild (under 3 %), 2 moderate (under 10 %), 3 severe.",
            unit="grade",
            **{**common, "valid_range": (0.0, 3.0)},
        )
    )
    return out


def _named_inputs() -> list[Biomarker]:
    dr = {"family": "lesions", "valid_range": (0.0, math.inf), "direction": "higher: more disease"}
    return [
        Biomarker(
            "dr_421_red_quadrants",
            definition=f"Number of quadrants with more than {SEVERE_RED_LESIONS} haemorrhages and microaneurysms; 4 meets the first part "
            "of the 4-2-1 rule of severe non-proliferative retinopathy.",
            unit="count",
            source="Wilkinson 2003",
            needs=("microaneurysm", "hemorrhage", "disc", "fovea", "laterality"),
            structure="lesions_red",
            resolution="microlesion",
            **{**dr, "valid_range": (0.0, 4.0)},
        ),
        Biomarker(
            "dr_421_beading_quadrants",
            definition="Number of quadrants with venous beading; 2 meets the second part of the 4-2-1 rule.",
            unit="count",
            source="Wilkinson 2003",
            needs=("venous_beading", "disc", "fovea", "laterality"),
            structure="venous_beading",
            resolution="area",
            **{**dr, "valid_range": (0.0, 4.0)},
        ),
        Biomarker(
            "hard_exudate_within_1dd",
            definition="1 if hard exudate lies within one disc diameter of the fovea, else 0 (macular oedema of the photograph).",
            source="Wilkinson 2003",
            needs=("hard_exudate", "disc", "fovea"),
            structure="hard_exudate",
            region="fovea_1dd",
            resolution="area",
            **{**dr, "valid_range": (0.0, 1.0)},
        ),
        Biomarker(
            "hard_exudate_area_within_1dd_dd2",
            definition="Area of hard exudate within one disc diameter of the fovea, in square disc diameters.",
            unit="DD2",
            source="Wilkinson 2003",
            needs=("hard_exudate", "disc", "fovea"),
            structure="hard_exudate",
            region="fovea_1dd",
            resolution="area",
            **dr,
        ),
        Biomarker(
            "drusen_area_6mm_mm2",
            definition="Area of drusen within the circle of 6 mm diameter about the fovea, in square millimetres.",
            unit="mm2",
            source="AREDS report 6, 2001",
            needs=("drusen", "fovea", "scale"),
            structure="drusen",
            region="macula_6mm",
            resolution="area",
            **dr,
        ),
    ]


DICTIONARY: list[Biomarker] = [entry for name in (*CLASSES, *GROUPS) for entry in _entries(name)] + _named_inputs()


def severity(coverage: float) -> int:
    """Grade 0 (minimal) to 3 (severe) of a coverage between 0 and 1."""
    return int(np.searchsorted(SEVERITY_BORDERS, coverage, side="right"))


_NAMES: dict[str, list[str]] = {name: [entry.name for entry in _entries(name)] for name in (*CLASSES, *GROUPS)}


def _sizes(context: Context, name: str, blobs: Blobs) -> dict[str, float | Null]:
    null = context.scale_null if name == "drusen" else context.disc_null
    labels = [f"{name}_count_{label}" for label in ("small", "medium", "large")]
    if null is not None:
        return dict.fromkeys(labels, null)
    unit = context.um_per_grid_px if name == "drusen" else 1 / context.px_per_dd
    sizes = np.searchsorted(DRUSEN_BORDERS_UM if name == "drusen" else BORDERS_DD, blobs.equivalent_diameter * unit, side="right")
    return dict(zip(labels, np.bincount(sizes, minlength=3).astype(float).tolist(), strict=True))


def _by_quadrant(context: Context, name: str, blobs: Blobs) -> dict[str, float | Null]:
    keys = [f"{name}_count_{quadrant}" for quadrant in QUADRANTS]
    axis = context.fovea_axis
    if isinstance(axis, Null):
        return dict.fromkeys((*keys, f"{name}_quadrants"), axis)
    place = context.to_eye(np.stack([blobs.x, blobs.y], axis=-1), context.fovea)
    # Same numbering as Context.quadrant_labels, from the centroids.
    labels = 2 * (place[:, 1] < 0) + (place[:, 0] < 0)
    counts = np.bincount(labels, minlength=4).astype(float)
    unseen = [context.quadrant_share[quadrant] < context.config.min_zone_share for quadrant in QUADRANTS]
    values = [Null("zone_outside_fov") if out else count for out, count in zip(unseen, counts.tolist(), strict=True)]
    quadrants = Null("zone_outside_fov") if any(unseen) else float(np.count_nonzero(counts))
    return dict(zip(keys, values, strict=True)) | {f"{name}_quadrants": quadrants}


def _by_field(context: Context, name: str, blobs: Blobs) -> dict[str, float | Null]:
    labels, keys = context.etdrs_labels, {field: f"{name}_coverage_etdrs_{field}" for field in ETDRS_FIELDS}
    if isinstance(labels, Null):
        return dict.fromkeys(keys.values(), labels)
    inside = np.bincount(labels[blobs.pixels], minlength=10)
    out: dict[str, float | Null] = {}
    for field, share in context.etdrs_share.items():
        value = ETDRS_FIELDS[field]
        enough = share >= context.config.min_zone_share
        out[keys[field]] = float(inside[value] / context.etdrs_areas[value]) if enough else Null("zone_outside_fov")
    return out


def _measure_class(context: Context, name: str, blobs: Blobs) -> dict[str, float | Null]:
    coverage = blobs.total_area / context.fov_area
    out: dict[str, float | Null] = {f"{name}_count": float(blobs.count), f"{name}_coverage": coverage}
    out |= area_values(context, f"{name}_area", float(blobs.total_area))
    out |= _sizes(context, name, blobs) | _by_quadrant(context, name, blobs) | _by_field(context, name, blobs)
    nothing = Null("none_present") if blobs.count == 0 else None
    out[f"{name}_circularity"] = nothing or float(blobs.circularity.mean())
    out[f"{name}_aspect_ratio"] = nothing or float(blobs.aspect_ratio.mean())
    null = context.fovea_null or nothing
    out |= length_values(context, f"{name}_fovea_distance", null or blobs.nearest(*context.fovea))
    out[f"{name}_severity"] = float(severity(coverage))
    return out


def _dr_inputs(context: Context, blobs: dict[str, Blobs]) -> dict[str, float | Null]:
    out: dict[str, float | Null] = {}
    axis = context.fovea_axis
    axis_null = axis if isinstance(axis, Null) else None

    null = context.missing("microaneurysm", "hemorrhage") or axis_null
    if null is None:
        # Of both heads' masks together: a spot that both show is one.
        red = _by_quadrant(context, "lesions_red", blobs["lesions_red"])
        per_quadrant = [red[f"lesions_red_count_{quadrant}"] for quadrant in QUADRANTS]
        null = next((count for count in per_quadrant if isinstance(count, Null)), None)
    out["dr_421_red_quadrants"] = null or float(sum(count > SEVERE_RED_LESIONS for count in per_quadrant))

    null = context.missing("venous_beading") or axis_null
    out["dr_421_beading_quadrants"] = null or _by_quadrant(context, "venous_beading", blobs["venous_beading"])["venous_beading_quadrants"]

    null = context.missing("hard_exudate") or context.disc_null or context.fovea_null
    if null is None and context.ring(context.fovea, 0.0, context.px_per_dd).share < context.config.min_zone_share:
        null = Null("zone_outside_fov")
    if null is None:
        rows, columns = blobs["hard_exudate"].pixels
        x, y = context.fovea
        near = int(np.count_nonzero((columns - x) ** 2 + (rows - y) ** 2 <= context.px_per_dd**2))
    out["hard_exudate_within_1dd"] = null or float(near > 0)
    out["hard_exudate_area_within_1dd_dd2"] = null or near / context.px_per_dd**2

    null = context.missing("drusen") or context.zone_null("macula_6mm")
    if null is None:
        inside = int(np.count_nonzero(context.zone("macula_6mm").mask[blobs["drusen"].pixels]))
    out["drusen_area_6mm_mm2"] = null or inside * context.um_per_grid_px**2 / 1e6
    return out


def _union(context: Context, names: tuple[str, ...]) -> np.ndarray:
    planes = [context.plane(name) for name in names]
    return planes[0] if len(planes) == 1 else np.logical_or.reduce(planes)


def measure_lesions(context: Context) -> dict[str, float | Null]:
    """Biomarkers of every lesion class and group.

    Returns
    -------
    dict of str to float or Null
        One entry for each name of :data:`DICTIONARY`.
    """
    if not context.fov_area:
        return {entry.name: Null("no_fov") for entry in DICTIONARY}
    out: dict[str, float | Null] = {}
    blobs: dict[str, Blobs] = {}
    seen: dict[tuple[str, ...], Blobs] = {}
    for name in (*CLASSES, *GROUPS):
        members = GROUPS.get(name, (name,))
        # Groups often have the same heads (in a model with four lesion heads): components are found once.
        available = tuple(member for member in members if context.plane(member) is not None)
        if not available:
            out |= dict.fromkeys(_NAMES[name], context.missing(*members))
            continue
        if available not in seen:
            seen[available] = Blobs.of(_union(context, available))
        blobs[name] = seen[available]
        out |= _measure_class(context, name, blobs[name])
    return out | _dr_inputs(context, blobs)
