"""Holds measured biomarkers against what is known of a rendered eye."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from retsam.demo.parameters import LESIONS

__all__ = ["COMPARED", "compare"]


def _compared() -> dict[str, tuple[str, str]]:
    """Biomarker -> (key of `eye_truth`, kind of error)."""
    pairs = {
        **{name: (name, "px") for name in ("disc_height_px", "disc_width_px", "cup_height_px", "cup_width_px", "disc_fovea_distance_px")},
        **{name: (name, "absolute") for name in ("disc_ovality", "cdr_vertical", "cdr_horizontal", "cdr_area")},
        **{name: (name, "relative") for name in ("disc_area_px2", "cup_area_px2", "disc_fovea_distance_dd", "crae_um", "crve_um", "avr")},
        "fovea_x_px": ("fovea_x", "px"),
        "fovea_y_px": ("fovea_y", "px"),
        "crae": ("crae_px", "relative"),
        "crve": ("crve_px", "relative"),
        "crossing_count": ("crossing_count", "count"),
        "peripapillary_atrophy_area_px2": ("peripapillary_atrophy_area_px2", "relative"),
    }
    for kind in ("artery", "vein"):
        pairs[f"vessel_count_{kind}_zone_b"] = (f"{kind}_zone_b_count", "count")
        pairs[f"width_mean_{kind}"] = (f"{kind}_width_mean_px", "px")
        # Trunks join on the disc, where no tool can count bifurcations: compared in zone C.
        pairs[f"branchpoint_count_{kind}_zone_c"] = (f"{kind}_zone_c_branchpoint_count", "count")
        pairs[f"tortuosity_distance_{kind}"] = (f"{kind}_tortuosity_distance", "absolute")
        pairs[f"length_density_{kind}"] = (f"{kind}_length_density_per_px", "relative")
        pairs[f"area_density_{kind}"] = (f"{kind}_area_density", "relative")
    for lesion in LESIONS:
        pairs[f"{lesion}_count"] = (f"{lesion}_count", "count")
        pairs[f"{lesion}_area_px2"] = (f"{lesion}_area_px2", "relative")
    return pairs


#: Biomarker -> (what it is compared with, how its error is told: `px`, `relative`, `absolute` or `count`).
COMPARED: dict[str, tuple[str, str]] = _compared()


def compare(truth: Mapping[str, Any], measured: Mapping[str, Any]) -> pd.DataFrame:
    """Truth and measurement side by side.

    Parameters
    ----------
    truth : mapping
        `RenderedEye.truth`, or a row of ``truth/biomarkers.csv``.
    measured : mapping
        Of `retsam.measure`, or a row of ``biomarkers.parquet``.

    Returns
    -------
    DataFrame
        ``biomarker``, ``kind`` (of error), ``truth``, ``measured``, ``error`` (relative: measured / truth - 1; else measured - truth;
        null where either is; infinite where something is measured that is not there, null where nothing is there and nothing measured),
        ``reason`` (why the measurement is missing). One row for every biomarker of `COMPARED` that both sides know.
    """
    rows = []
    for biomarker, (key, kind) in COMPARED.items():
        if key not in truth or biomarker not in measured:
            continue
        known, found = float(truth[key]), measured[biomarker]
        found = math.nan if found is None or pd.isna(found) else float(found)
        error = found - known
        if kind == "relative":
            error = error / known if known else math.copysign(math.inf, error) if error else math.nan
        reason = measured.get(f"{biomarker}__reason")
        rows.append((biomarker, kind, known, found, error, reason))
    return pd.DataFrame(rows, columns=["biomarker", "kind", "truth", "measured", "error", "reason"])
