"""Vessel biomarkers: one graph a structure, and everything that is measured on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from retsam.biomarkers.registry import Biomarker
from retsam.biomarkers.vessels import arcades, branching, calibre, crossings, density, fractal, tortuosity, widths
from retsam.biomarkers.vessels.analysis import STRUCTURES, Analysis, Value
from retsam.biomarkers.vessels.graph import segment_table

if TYPE_CHECKING:
    from retsam.biomarkers.context import Context

_MODULES = (calibre, widths, density, fractal, tortuosity, branching, arcades, crossings)

#: Every vessel biomarker, in the order of the columns.
DICTIONARY: list[Biomarker] = [biomarker for module in _MODULES for biomarker in module.DICTIONARY]

#: Those that `BiomarkersConfig.extra_tortuosity` adds.
EXTRA_DICTIONARY: list[Biomarker] = tortuosity.EXTRA_DICTIONARY


def measure_vessels(context: Context, analysis: Analysis | None = None) -> dict[str, Value]:
    """Measure every vessel biomarker of one eye.

    Parameters
    ----------
    context : Context
        Masks and shared geometry of the eye.
    analysis : Analysis, optional
        Graphs that were already built for this context.

    Returns
    -------
    dict of str to float or Null
        One value for each name of `DICTIONARY` (and of `EXTRA_DICTIONARY` where the configuration asks for it).
    """
    analysis = analysis or Analysis(context)
    values: dict[str, Value] = {}
    for module in _MODULES:
        values |= module.measure(analysis)
    return values


def vessel_graphs(context: Context, analysis: Analysis | None = None) -> pd.DataFrame:
    """The vessel graphs of one eye as a table, one row a segment.

    Parameters
    ----------
    context : Context
    analysis : Analysis, optional
        Graphs that were already built for this context.

    Returns
    -------
    pandas.DataFrame
        structure, segment, kind, node_a, node_b, node_a_kind, node_b_kind, length_px, width_px (native px), tortuosity_distance,
        curvature_squared (native px^-2, mean), turns, and x and y: lists of the centreline's samples in grid px. Width is NaN where it
        was measured nowhere (between two junctions close together), the three after it where the columns of tortuosity leave the
        segment out: too short, or back at its start.
    """
    analysis = analysis or Analysis(context)
    tables = []
    for structure in STRUCTURES:
        if context.missing(structure) is not None or not context.fov_area:
            continue
        graph = analysis.graph(structure)
        pieces = analysis.stretches(structure)
        metrics = {
            "tortuosity_distance": pieces.course / pieces.course_chord.clip(1e-9) - 1.0,
            "curvature_squared": pieces.curvature_squared / pieces.measured_length.clip(1e-9) / context.native_scale**2,
            "turns": pieces.turns,
        }
        metrics = {name: np.where(pieces.long_enough, values, np.nan) for name, values in metrics.items()}
        tables.append(segment_table(graph, metrics, context.native_scale))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
