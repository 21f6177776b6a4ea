"""Lengths and areas, each in native pixels, disc diameters and micrometres (or millimetres squared)."""

from __future__ import annotations

from dataclasses import replace

from retsam.biomarkers.context import Context
from retsam.biomarkers.registry import Biomarker, Null


def length_columns(template: Biomarker) -> list[Biomarker]:
    """The three columns ``<name>_px``, ``<name>_dd``, ``<name>_um`` of a length."""
    needs = template.needs
    return [
        replace(template, name=f"{template.name}_px", unit="px", definition=f"{template.definition} In native pixels."),
        replace(
            template,
            name=f"{template.name}_dd",
            unit="DD",
            definition=f"{template.definition} In disc diameters.",
            needs=(*needs, *(("disc",) if "disc" not in needs else ())),
        ),
        replace(
            template, name=f"{template.name}_um", unit="um", definition=f"{template.definition} In micrometres.", needs=(*needs, "scale")
        ),
    ]


def area_columns(template: Biomarker) -> list[Biomarker]:
    """The three columns ``<name>_px2``, ``<name>_dd2``, ``<name>_mm2`` of an area."""
    needs = template.needs
    return [
        replace(template, name=f"{template.name}_px2", unit="px2", definition=f"{template.definition} In square native pixels."),
        replace(
            template,
            name=f"{template.name}_dd2",
            unit="DD2",
            definition=f"{template.definition} In square disc diameters.",
            needs=(*needs, *(("disc",) if "disc" not in needs else ())),
        ),
        replace(
            template,
            name=f"{template.name}_mm2",
            unit="mm2",
            definition=f"{template.definition} In square millimetres.",
            needs=(*needs, "scale"),
        ),
    ]


def length_values(context: Context, name: str, grid_px: float | Null) -> dict[str, float | Null]:
    """Values of :func:`length_columns` from a length in grid px."""
    if isinstance(grid_px, Null):
        return {f"{name}_{unit}": grid_px for unit in ("px", "dd", "um")}
    native = grid_px * context.native_scale
    return {
        f"{name}_px": native,
        f"{name}_dd": grid_px / context.px_per_dd if context.px_per_dd else _null(context.disc_null),
        f"{name}_um": native * context.um_per_px_native if context.um_per_px_native else Null("no_scale"),
    }


def area_values(context: Context, name: str, grid_px2: float | Null) -> dict[str, float | Null]:
    """Values of :func:`area_columns` from an area in grid px^2."""
    if isinstance(grid_px2, Null):
        return {f"{name}_{unit}": grid_px2 for unit in ("px2", "dd2", "mm2")}
    native = grid_px2 * context.native_scale**2
    return {
        f"{name}_px2": native,
        f"{name}_dd2": grid_px2 / context.px_per_dd**2 if context.px_per_dd else _null(context.disc_null),
        f"{name}_mm2": native * context.um_per_px_native**2 / 1e6 if context.um_per_px_native else Null("no_scale"),
    }


def _null(reason: Null | None) -> Null:
    """The reason that stands in for a value; its absence where a value is missing too is a fault of the program."""
    if reason is None:
        raise AssertionError("a value is missing without a reason")
    return reason
