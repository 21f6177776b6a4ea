"""Tortuosity: distance (Hart tau1), curvature (tau4, tau5), turns (Grisan), inflections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import STRUCTURES, ZONES, Analysis, Value, column, weighted_quantiles
from retsam.biomarkers.vessels.curves import Stretches

_HART = "Hart 1999"


def _weighted(values: np.ndarray, pieces: Stretches, keep: np.ndarray) -> float:
    return float(np.average(values[keep], weights=pieces.length[keep]))


def _distance(pieces: Stretches) -> np.ndarray:
    return pieces.course / np.maximum(pieces.course_chord, 1e-9) - 1.0


def _rate(integral: np.ndarray, pieces: Stretches) -> np.ndarray:
    """An integral over the measured part of each stretch, as a mean over its length."""
    return integral / np.maximum(pieces.measured_length, 1e-9)


#: name -> (definition, unit, power of DD, source, direction, function of (stretches, which to use))
_ROWS: dict[str, tuple[str, str, int, str, str, Callable[[Stretches, np.ndarray], float]]] = {
    "tortuosity_distance": (
        "Arc length over chord, less one (Hart's tau1 - 1), of the segments between their junctions: all arcs over all chords, so that "
        "one that comes back to its start does not outvote the others. Arc length is that of the smoothing spline.", "1", 0, _HART,
        "more tortuous", lambda p, k: float(p.course[k].sum() / p.course_chord[k].sum() - 1.0),
    ),
    "tortuosity_distance_median": (
        "Arc length over chord, less one (Hart's tau1 - 1): median (Harrell-Davis) over segments, weighted by length.", "1", 0, _HART,
        "more tortuous",
        lambda p, k: weighted_quantiles(_distance(p)[k], p.length[k], (0.5,))[0],
    ),
    "tortuosity_curvature": (
        "Integral of squared curvature over arc length (Hart's tau5), all segments together, times DD^2.", "DD^-2", 2, _HART,
        "sharper bends", lambda p, k: float(p.curvature_squared[k].sum() / p.measured_length[k].sum()),
    ),
    "tortuosity_curvature_mean": (
        "Integral of absolute curvature over arc length (Hart's tau4), all segments together, times DD.", "DD^-1", 1, _HART,
        "more bending", lambda p, k: float(p.curvature[k].sum() / p.measured_length[k].sum()),
    ),
    "tortuosity_density": (
        "(n-1)/n times the sum of (arc/chord - 1, at most 1) over a segment's n turn curves, over its length, times DD; mean weighted by "
        "length. A turn curve keeps one sense of bending, by hysteresis on the spline's curvature (0.15 rad and a bow of 1/1350 of the "
        "field of view); straight runs go half to either neighbour.", "DD^-1", 1, "Grisan 2008", "more changes of direction",
        lambda p, k: _weighted(p.turn_density, p, k),
    ),
    "inflection_count": (
        "Changes of the sense of bending (turn curves less one) per length of vessel, per DD.", "DD^-1", 1, "Hart 1999; Bullitt 2003",
        "more changes of direction", lambda p, k: float(np.maximum(p.turns[k] - 1.0, 0.0).sum() / p.length[k].sum()),
    ),
}  # fmt: skip

#: Behind `BiomarkersConfig.extra_tortuosity`.
_EXTRA_ROWS: dict[str, tuple[str, str, int, str, str, Callable[[Stretches, np.ndarray], float]]] = {
    "tortuosity_tau2": (
        "Integral of absolute curvature (Hart's tau2): mean over segments, weighted by length.", "rad", 0, _HART, "more bending",
        lambda p, k: _weighted(_rate(p.curvature, p) * p.length, p, k),
    ),
    "tortuosity_tau3": (
        "Integral of squared curvature (Hart's tau3): mean over segments, weighted by length, times DD.", "DD^-1", 1, _HART,
        "sharper bends", lambda p, k: _weighted(_rate(p.curvature_squared, p) * p.length, p, k),
    ),
    "tortuosity_tau6": (
        "Integral of absolute curvature over the chord (Hart's tau6): mean over segments, weighted by length, times DD.", "DD^-1", 1,
        _HART, "more bending", lambda p, k: _weighted(_rate(p.curvature, p) * p.course / np.maximum(p.course_chord, 1e-9), p, k),
    ),
    "tortuosity_tau7": (
        "Integral of squared curvature over the chord (Hart's tau7): mean over segments, weighted by length, times DD^2.", "DD^-2", 2,
        _HART, "sharper bends", lambda p, k: _weighted(_rate(p.curvature_squared, p) * p.course / np.maximum(p.course_chord, 1e-9), p, k),
    ),
}  # fmt: skip


def _entries(rows: dict) -> list[Biomarker]:
    return [
        Biomarker(
            column(name, structure, region), "vessels", definition, unit=unit, source=source,
            needs=(structure, "fov") + (("disc",) if power or region != "whole" else ()), valid_range=(-1e-6, 1e6),
            direction=direction, structure=structure, region=region, resolution="tortuosity",
        )
        for structure in STRUCTURES
        for region in ZONES
        for name, (definition, unit, power, source, direction, _) in rows.items()
    ]  # fmt: skip


DICTIONARY: list[Biomarker] = _entries(_ROWS)
#: Columns that only `BiomarkersConfig.extra_tortuosity` adds.
EXTRA_DICTIONARY: list[Biomarker] = _entries(_EXTRA_ROWS)


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`, and of `EXTRA_DICTIONARY` where the configuration asks for it."""
    rows = {**_ROWS, **_EXTRA_ROWS} if analysis.context.config.extra_tortuosity else _ROWS
    values: dict[str, Value] = {}
    for structure in STRUCTURES:
        for region in ZONES:
            null = analysis.null(structure, region, "tortuosity")
            if null is None:
                pieces = analysis.stretches(structure, region)
                keep = pieces.long_enough
                if not keep.any():
                    null = Null("too_few_vessels")
            for name, (_, _, power, _, _, function) in rows.items():
                key = column(name, structure, region)
                if null is not None:
                    values[key] = null
                elif power and not analysis.px_per_dd:
                    values[key] = analysis.context.disc_null or Null("no_disc")
                else:
                    values[key] = function(pieces, keep) * (analysis.px_per_dd or 1.0) ** power
    return values
