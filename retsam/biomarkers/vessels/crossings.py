"""Where arteries cross veins, and how much the vein narrows there."""

from __future__ import annotations

import math

import numpy as np

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import Analysis, Value
from retsam.biomarkers.vessels.intersections import Crossing

#: Vein just beside the artery: from the artery's edge over this many vein widths; and farther out, for comparison.
NEAR_WIDTHS = 1.5
FAR_WIDTHS = 4.0
#: Crossings at a narrower angle (degrees) have no near and far.
LEAST_ANGLE = 20.0
#: Narrower veins (px) show no nicking.
LEAST_VEIN_PX = 4.0

DICTIONARY: list[Biomarker] = [
    Biomarker(
        "crossing_count", "vessels",
        "Number of places where the centreline of an artery crosses that of a vein, outside the disc where a disc is known; where the one "
        "lies on the other along a stretch, one if it leaves on the other side, else none.",
        unit="count", needs=("artery", "vein", "fov"), valid_range=(0.0, 1e4), direction="more crossings", structure="vessel",
        resolution="density",
    ),
    Biomarker(
        "nicking_index", "vessels",
        "Relative narrowing of the vein beside the artery at crossings: 1 - (mean width within 1.5 vein widths of the artery's edge) / "
        "(mean width from there to 4 vein widths), both sides; mean over crossings.",
        source="after Nguyen 2013 (arteriovenous nicking)", needs=("artery", "vein", "fov"), valid_range=(-1.0, 1.0),
        direction="more nicking", structure="vein", resolution="calibre",
    ),
]  # fmt: skip


def nicking(analysis: Analysis, crossing: Crossing) -> float | None:
    """Relative narrowing of the vein beside the artery, or None where it cannot be told."""
    artery, vein = analysis.graph("artery"), analysis.graph("vein")
    width = float(vein.width[crossing.vein])
    if crossing.angle < LEAST_ANGLE or width < LEAST_VEIN_PX * vein.unit:
        return None
    hidden = 0.5 * float(artery.width[crossing.artery]) / math.sin(math.radians(crossing.angle)) + vein.unit
    segment = int(vein.segment_of[crossing.vein])
    window = slice(vein.offsets[segment], vein.offsets[segment + 1])
    along = np.cumsum(vein.step[window])
    along = np.abs(along - along[crossing.vein - vein.offsets[segment]])
    near = vein.measured[window] & (along > hidden) & (along <= hidden + NEAR_WIDTHS * width)
    far = vein.measured[window] & (along > hidden + NEAR_WIDTHS * width) & (along <= hidden + FAR_WIDTHS * width)
    if np.count_nonzero(near) < 4 or np.count_nonzero(far) < 4:
        return None
    return 1.0 - float(vein.width[window][near].mean()) / float(vein.width[window][far].mean())


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    null = analysis.missing("artery", "density") or analysis.missing("vein", "density")
    if null is not None:
        return {"crossing_count": null, "nicking_index": null}
    crossings = analysis.crossings
    null = analysis.missing("vein", "calibre")
    found = [n for n in (nicking(analysis, c) for c in crossings) if n is not None] if null is None else []
    index: Value = float(np.mean(found)) if found else (null or Null("too_few_vessels"))
    return {"crossing_count": float(len(crossings)), "nicking_index": index}
