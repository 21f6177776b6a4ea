"""The macula: where the fovea is, and the vessels about it."""

from __future__ import annotations

import math

import numpy as np

from retsam.biomarkers.blobs import pixels
from retsam.biomarkers.context import Context
from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.units import length_columns, length_values

_RADII_MM = (1, 3, 6)

DICTIONARY: list[Biomarker] = [
    Biomarker("fovea_x_px", "macula", "Column of the fovea in the photograph.", unit="px", needs=("fovea",), structure="fovea"),
    Biomarker("fovea_y_px", "macula", "Row of the fovea in the photograph.", unit="px", needs=("fovea",), structure="fovea"),
    Biomarker(
        "fovea_confidence",
        "macula",
        "Confidence that the segmentation model gives to the position of the fovea.",
        needs=("fovea",),
        valid_range=(0.0, 1.0),
        structure="fovea",
        direction="higher: more certain",
    ),
    *(
        Biomarker(
            f"macula_{vessel}_density_{diameter}mm",
            "macula",
            f"Area of {vessel}s over area of the field of view within the circle of {diameter} mm diameter about the fovea.",
            needs=(vessel, "fovea", "scale"),
            valid_range=(0.0, 1.0),
            structure=vessel,
            region=f"macula_{diameter}mm",
            resolution="density",
            direction="higher: denser vessels",
        )
        for vessel in ("artery", "vein", "vessel")
        for diameter in _RADII_MM[1:]
    ),
    *length_columns(
        Biomarker(
            "fovea_vessel_distance",
            "macula",
            "Distance from the fovea to the nearest vessel seen in the photograph.",
            needs=("vessel", "fovea"),
            valid_range=(0.0, math.inf),
            structure="vessel",
            region="macula_6mm",
            resolution="density",
            direction="higher: larger zone without visible vessels",
        )
    ),
]


def measure_macula(context: Context) -> dict[str, float | Null]:
    """Biomarkers of the macula.

    Returns
    -------
    dict of str to float or Null
        One entry for each name of :data:`DICTIONARY`.
    """
    if context.fovea is None:
        return {entry.name: context.fovea_null for entry in DICTIONARY}
    x, y = (float(v) for v in context.masks.frame.to_native(np.array(context.fovea)))
    confidence = context.masks.fovea_confidence
    out: dict[str, float | Null] = {
        "fovea_x_px": x,
        "fovea_y_px": y,
        # A position that a user brings has no confidence.
        "fovea_confidence": Null("not_defined") if confidence is None else float(confidence),
    }
    for vessel in ("artery", "vein", "vessel"):
        plane = context.plane(vessel)
        for diameter in _RADII_MM[1:]:
            zone_name = f"macula_{diameter}mm"
            null = context.missing(vessel) or context.zone_null(zone_name)
            if null is None:
                zone = context.zone(zone_name).mask
                null_or_value: float | Null = float(np.count_nonzero(plane & zone)) / int(np.count_nonzero(zone))
            else:
                null_or_value = null
            out[f"macula_{vessel}_density_{diameter}mm"] = null_or_value
    return out | length_values(context, "fovea_vessel_distance", _vessel_distance(context))


def _vessel_distance(context: Context) -> float | Null:
    """Grid px from the fovea to the nearest vessel pixel's edge."""
    if (null := context.missing("vessel")) is not None:
        return null
    rows, columns = pixels(context.plane("vessel"))
    if not len(rows):
        return Null("too_few_vessels")
    x, y = context.fovea
    return max(0.0, math.sqrt(float(((columns - x) ** 2 + (rows - y) ** 2).min())) - 0.5)
