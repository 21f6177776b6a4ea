"""One eye: its masks in, one row of the biomarker table out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pandas as pd

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.context import Context, Zone
from retsam.biomarkers.registry import FAMILIES, Biomarker, Null, registry
from retsam.masks.masks import Failure, Masks

log = logging.getLogger(__name__)

#: Columns that describe the measurement itself, in front of the biomarkers, with their meaning.
ROW_COLUMNS: dict[str, str] = {
    "image_id": "image",
    "eye": "R or L: the table's, else from the positions of disc and fovea",
    "status": "ok or failed",
    "reason": "code of a failure",
    "detail": "the failure, or what went wrong in one family, in a sentence",
    "eye_source": "table, dicom or image",
    "eye_image": "R or L by the positions of disc and fovea alone",
    "laterality_conflict": "true where table and image disagree",
    "axis_source": "fovea; or upright where the photograph was taken as upright because disc or fovea is missing",
    "scale_source": "manifest, dicom, or disc_1800um (1 DD = 1.8 mm)",
    "um_per_px": "micrometres per native pixel",
    "px_per_dd": "disc diameter in native pixels",
    "px_per_mask_px": "native pixels per pixel of the masks that were measured",
    "zone_b_share": "share of zone B (0.5-1 DD from the disc's margin) inside the field of view",
    "zone_c_share": "share of zone C (0.5-2 DD from the disc's margin) inside the field of view",
    "macula_6mm_share": "share of the circle of 6 mm diameter about the fovea inside the field of view",
}

_ZONES = ("zone_b", "zone_c", "macula_6mm")


def family_registry(config: BiomarkersConfig) -> Mapping[str, Biomarker]:
    """Biomarkers that a configuration asks for, in the order of the columns."""
    return registry(tuple(family for family in FAMILIES if family in config.families), config.extra_tortuosity)


def _describe(context: Context) -> dict[str, Any]:
    """Columns of :data:`ROW_COLUMNS` for a measured eye."""
    scale = context.native_scale
    shares = {f"{name}_share": zone.share if isinstance(zone := context.zone(name), Zone) else math.nan for name in _ZONES}
    return {
        "image_id": context.masks.image_id,
        "eye": context.eye,
        "status": "ok",
        "reason": None,
        "detail": None,
        "eye_source": context.eye_source,
        "eye_image": context.eye_derived,
        "laterality_conflict": context.laterality_conflict,
        "axis_source": None if isinstance(context.axis, Null) else context.axis.source,
        "scale_source": context.scale_source,
        "um_per_px": math.nan if context.um_per_px_native is None else context.um_per_px_native,
        "px_per_dd": math.nan if context.px_per_dd is None else context.px_per_dd * scale,
        "px_per_mask_px": scale,
    } | shares


def _measure_family(context: Context, family: str) -> dict[str, float | Null]:
    module = import_module(FAMILIES[family])
    return getattr(module, f"measure_{family}")(context)


def _settle(context: Context, biomarker: Biomarker, value: float | Null) -> float | Null:
    """Demands that hold for every biomarker: pixels enough, a finite value, a possible value."""
    if isinstance(value, Null):
        return value
    too_coarse = context.resolution_null(biomarker.resolution)
    if too_coarse is not None:
        return too_coarse
    value = float(value)
    if not math.isfinite(value):
        return Null("not_defined")
    low, high = biomarker.valid_range
    slack = 1e-9 * max(1.0, abs(value))
    return value if low - slack <= value <= high + slack else Null("out_of_range")


def measure_row(masks: Masks | Failure, config: BiomarkersConfig | None = None) -> dict[str, Any]:
    """Row of the biomarker table of one image, as a dictionary; see :func:`measure`."""
    config = config or BiomarkersConfig()
    if isinstance(masks, Failure):
        return failed_row(masks, config)
    entries = family_registry(config)
    context = Context(masks, config)
    row = _describe(context)
    faults = []
    for family in FAMILIES:
        if family not in config.families:
            continue
        names = [name for name, entry in entries.items() if entry.family == family]
        try:
            values = _measure_family(context, family)
            if set(values) != set(names):
                odd = sorted(set(values) ^ set(names))
                raise KeyError(f"values and dictionary of the family differ in {len(odd)} names, such as {', '.join(odd[:5])}")
        except Exception as error:  # noqa: BLE001 (one odd mask must not end a cohort's run; the row says what happened)
            log.exception("image %s: family %s could not be measured", masks.image_id, family)
            faults.append(f"{family}: {type(error).__name__}: {error}")
            values = dict.fromkeys(names, Null("measurement_failed"))
        for name in names:
            value = _settle(context, entries[name], values[name])
            missing = isinstance(value, Null)
            row[name], row[f"{name}__reason"] = (math.nan, value.reason) if missing else (value, None)
    row["detail"] = "; ".join(faults) or None
    return row


def failed_row(failure: Failure, config: BiomarkersConfig) -> dict[str, Any]:
    """Row of an image without masks: every biomarker null with `image_failed`."""
    row: dict[str, Any] = dict.fromkeys(ROW_COLUMNS)
    row |= {"image_id": failure.image_id, "eye": failure.eye, "status": "failed", "reason": failure.reason, "detail": failure.detail}
    for name in family_registry(config):
        row[name], row[f"{name}__reason"] = math.nan, "image_failed"
    return row


def measure(masks: Masks, config: BiomarkersConfig | None = None) -> pd.Series:
    """Measure every biomarker of one eye.

    Parameters
    ----------
    masks : Masks
        From :func:`retsam.segment`, from a mask store, or a user's own (``native=True``).
    config : BiomarkersConfig, optional

    Returns
    -------
    pandas.Series
        Columns of :data:`ROW_COLUMNS`, then each biomarker (float, NaN where it could not be measured) followed by
        ``<name>__reason`` (a code of :data:`retsam.biomarkers.registry.REASONS`, None where it was measured).

    Raises
    ------
    ValueError
        If the planes have not all the same shape. Empty, full or otherwise odd masks do not raise: they give nulls and reasons.

    Examples
    --------
    >>> row = retsam.measure(masks)                              # doctest: +SKIP
    >>> row["cdr_vertical"], row["cdr_vertical__reason"]         # doctest: +SKIP
    (0.43, None)
    """
    row = measure_row(masks, config)
    return pd.Series(row, name=masks.image_id, dtype=object)
