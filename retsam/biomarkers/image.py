"""What the photograph shows of the retina. Sharpness, illumination and contrast are measured by the quality room."""

from __future__ import annotations

from retsam.biomarkers.context import Context
from retsam.biomarkers.registry import Biomarker, Null

DICTIONARY: list[Biomarker] = [
    Biomarker(
        "fov_diameter_px",
        "image",
        "Diameter of the field of view: its longest side along rows or columns, so that a circle cut off above and below keeps its width. "
        "In native pixels.",
        unit="px",
        needs=("fov",),
        valid_range=(0.0, 1e6),
        direction="higher: more pixels on the retina",
        structure="fov",
    ),
    Biomarker(
        "fov_diameter_dd",
        "image",
        "Diameter of the field of view in disc diameters; about 7 in a photograph of 45 degrees.",
        unit="DD",
        needs=("fov", "disc"),
        valid_range=(0.0, 100.0),
        direction="higher: wider field",
        structure="fov",
    ),
    Biomarker(
        "fov_share",
        "image",
        "Area of the field of view over the area of the photograph.",
        needs=("fov",),
        valid_range=(0.0, 1.0),
        direction="higher: less of the picture is black",
        structure="fov",
    ),
]


def measure_image(context: Context) -> dict[str, float | Null]:
    """Biomarkers of the family ``image``."""
    if not context.fov_area:
        return {biomarker.name: Null("no_fov") for biomarker in DICTIONARY}
    frame = context.masks.frame
    return {
        "fov_diameter_px": context.fov_diameter_native,
        "fov_diameter_dd": context.fov_diameter / context.px_per_dd if context.px_per_dd else context.disc_null,
        "fov_share": min(1.0, context.fov_area * context.native_scale**2 / (frame.native_width * frame.native_height)),
    }
