"""What the vessel biomarkers of one eye share: graphs, stretches in regions, scale, and reasons for nulls."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.special import betainc

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.curves import Stretches, stretches
from retsam.biomarkers.vessels.graph import VesselGraph, build_graph, join_graphs
from retsam.biomarkers.vessels.intersections import Crossing, find_crossings

if TYPE_CHECKING:
    from retsam.biomarkers.context import Context

STRUCTURES = ("artery", "vein", "vessel")
#: Regions by zone and by hemifield.
ZONES = ("whole", "zone_b", "zone_c")
HEMIFIELDS = ("superior", "inferior")

#: Artery and vein masks that leave out more of the vessel mask than this do not stand for it.
LARGEST_UNNAMED_SHARE = 0.3

#: Diameter of the field of view at which one pixel is the length that the vessels' constants in px are meant for.
REFERENCE_FIELD_PX = 540.0

Value = float | Null


def column(name: str, structure: str = "", region: str = "whole", suffix: str = "") -> str:
    """Name of a column: biomarker, structure, region (none for the whole field), unit suffix."""
    parts = [name, structure, "" if region == "whole" else region, suffix]
    return "_".join(part for part in parts if part)


#: Units in which lengths are given: suffix, unit, and what it needs beside the masks.
LENGTH_UNITS = (("", "px", ()), ("dd", "DD", ("disc",)), ("um", "um", ("scale",)))


def length_entries(
    names: tuple[str, str, str], structure: str, region: str, definition: str, needs: tuple[str, ...], **fields: str
) -> list[Biomarker]:
    """A length's three columns (see `length_columns`): native px, disc diameters, micrometres."""
    upper = {"": 1e5, "dd": 100.0, "um": 1e5}
    return [
        Biomarker(
            name,
            "vessels",
            definition,
            unit=unit,
            structure=structure,
            region=region,
            needs=tuple(dict.fromkeys((*needs, *extra))),
            valid_range=(0.0, upper[suffix]),
            **fields,
        )  # fmt: skip
        for name, (suffix, unit, extra) in zip(names, LENGTH_UNITS, strict=True)
    ]


def length_columns(name: str, structure: str = "", region: str = "whole") -> tuple[str, str, str]:
    """Names of a length's three columns: native px (no suffix), disc diameters (`_dd`), micrometres (`_um`)."""
    px, dd, um = (column(name, structure, region, suffix) for suffix, _, _ in LENGTH_UNITS)
    return px, dd, um


class Analysis:
    """The vessels of one eye.

    Parameters
    ----------
    context : retsam.biomarkers.context.Context
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._graphs: dict[str, VesselGraph] = {}
        self._inside: dict[tuple[str, str], np.ndarray | Null] = {}
        self._stretches: dict[tuple[str, str], Stretches] = {}

    # ---- scale -------------------------------------------------------------------------------------------------------------

    @property
    def native(self) -> float:
        """Native px per grid px."""
        return self.context.native_scale

    @property
    def unit(self) -> float:
        """Grid px to the length that the vessels' constants in px are meant for: a pixel of a field `REFERENCE_FIELD_PX` wide.

        In finer photographs such constants would let the unsteadiness of a drawing or of a network pass for the vessel's own, and the
        same eye would be the more tortuous the finer its photograph is.
        """
        return max(1.0, self.context.fov_diameter / REFERENCE_FIELD_PX)

    @property
    def px_per_dd(self) -> float | None:
        """Grid px per disc diameter."""
        return self.context.px_per_dd

    def lengths(self, names: tuple[str, str, str], value: Value) -> dict[str, Value]:
        """A length in grid px as its three columns (`length_columns`)."""
        if isinstance(value, Null):
            return dict.fromkeys(names, value)
        um = self.context.um_per_px_native
        no_disc = self.context.disc_null or Null("no_disc")
        return {
            names[0]: value * self.native,
            names[1]: value / self.px_per_dd if self.px_per_dd else no_disc,
            names[2]: value * self.native * um if um is not None else Null("no_scale"),
        }

    # ---- graphs and regions ------------------------------------------------------------------------------------------------

    def graph(self, structure: str) -> VesselGraph:
        """Graph of a structure that is not `missing`.

        Where artery and vein masks hold most of the vessels, the graph of all vessels is theirs, side by side, and that of the
        vessels that neither mask names: an artery along a vein then stays two vessels, and a crossing no node. Where they do not,
        the vessel mask has a graph of its own.
        """
        if structure not in self._graphs:
            planes = {name: self.context.plane(name) for name in STRUCTURES}
            if structure == "vessel":
                self._graphs[structure] = self._vessel_graph(planes)
            else:
                self._graphs[structure] = build_graph(structure, planes[structure], planes["artery"], planes["vein"], self.unit)
        return self._graphs[structure]

    def _vessel_graph(self, planes: dict[str, np.ndarray | None]) -> VesselGraph:
        plane, artery, vein = planes["vessel"], planes["artery"], planes["vein"]
        assert plane is not None
        if artery is None or vein is None:
            return build_graph("vessel", plane, unit=self.unit)
        named = (artery | vein).view(np.uint8)
        vessel = plane.view(np.uint8)
        parts = [self.graph("artery"), self.graph("vein")]
        unnamed = cv2.bitwise_and(vessel, cv2.bitwise_not(named * 255))
        if cv2.countNonZero(unnamed):
            # The masks' outlines differ by a fraction of a width: only what lies farther off is another vessel.
            widths = np.concatenate([g.width[g.measured] for g in parts])
            reach = 2 * round(max(2.0 * self.unit, 0.5 * float(widths.mean()) if widths.size else 0.0)) + 1
            near = cv2.dilate(named, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
            unnamed = cv2.bitwise_and(unnamed, 1 - near)
            if cv2.countNonZero(unnamed) > LARGEST_UNNAMED_SHARE * cv2.countNonZero(vessel):
                return build_graph("vessel", plane, artery, vein, self.unit)
            parts.append(build_graph("vessel", unnamed.view(bool), unit=self.unit))
        crossings = np.array([(c.x, c.y) for c in self.crossings]).reshape(-1, 2)
        return join_graphs("vessel", parts, crossings)

    @cached_property
    def crossings(self) -> list[Crossing]:
        """Places where an artery crosses a vein; neither may be missing."""
        disc = self.context.disc
        return find_crossings(self.graph("artery"), self.graph("vein"), self.context.shape, (disc.x, disc.y, disc.r) if disc else None)

    def missing(self, structure: str, kind: str = "") -> Null | None:
        """Why nothing can be measured on a structure at all, or None."""
        null = self.context.missing(structure) or (None if self.context.fov_area else Null("no_fov"))
        null = null or self.context.resolution_null(kind)
        if null is None and self.graph(structure).size == 0:
            return Null("too_few_vessels")
        return null

    def region_mask(self, region: str) -> np.ndarray | Null:
        """Pixels of a region inside the field of view, bool [H, W], or why it cannot be measured."""
        if region in HEMIFIELDS:
            return self._hemifields if isinstance(self._hemifields, Null) else self._hemifields[region]
        null = self.context.zone_null(region)
        if null is not None:
            return null
        zone = self.context.zone(region)
        return zone if isinstance(zone, Null) else zone.mask

    @cached_property
    def _hemifields(self) -> dict[str, np.ndarray | Null] | Null:
        labels = self.context.hemifield_labels
        if isinstance(labels, Null):
            return labels
        # Vessels are the denser the nearer to the line through disc and fovea: the strip of a photograph cut off there is no hemifield.
        least = self.context.config.min_zone_share * np.pi * self.context.fov_diameter**2 / 8.0
        masks = {name: labels == value for value, name in enumerate(HEMIFIELDS, start=1)}
        return {name: mask if np.count_nonzero(mask) >= least else Null("zone_outside_fov") for name, mask in masks.items()}

    def null(self, structure: str, region: str, kind: str = "") -> Null | None:
        """Why a structure cannot be measured in a region, or None."""
        null = self.missing(structure, kind)
        if null is None:
            mask = self.region_mask(region)
            null = mask if isinstance(mask, Null) else None
        return null

    def inside(self, structure: str, region: str) -> np.ndarray:
        """Which samples of a structure's graph lie in a region that is not null, bool [K]."""
        key = (structure, region)
        if key not in self._inside:
            graph = self.graph(structure)
            mask = self.region_mask(region)
            assert not isinstance(mask, Null)
            self._inside[key] = np.ones(len(graph.points), bool) if region == "whole" else lookup(mask, graph.points)
        return self._inside[key]

    def stretches(self, structure: str, region: str = "whole") -> Stretches:
        """A structure's segments cut to a region that is not null."""
        key = (structure, region)
        if key not in self._stretches:
            inside = None if region == "whole" else self.inside(structure, region)
            self._stretches[key] = stretches(self.graph(structure), inside)
        return self._stretches[key]


def lookup(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a mask at points [n, 2] (x, y), by the nearest pixel; False outside."""
    x = np.rint(points[:, 0]).astype(np.intp)
    y = np.rint(points[:, 1]).astype(np.intp)
    ok = (x >= 0) & (y >= 0) & (y < mask.shape[0]) & (x < mask.shape[1])
    out = np.zeros(len(points), bool)
    out[ok] = mask[y[ok], x[ok]]
    return out


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, levels: tuple[float, ...]) -> list[float]:
    """Quantiles of weighted values by Harrell and Davis (1982): a mean of all values, weighted by how likely each is the sample's quantile.

    One value, or two, of few are not what decides, so that a quantile moves no more than its values do.

    Parameters
    ----------
    values, weights : ndarray [n]
    levels : tuple of float
        Between 0 and 1.
    """
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    edges /= edges[-1]
    # As many values of equal weight would be as uncertain (Kish 1965).
    number = float(weights.sum() ** 2 / (weights**2).sum())
    found = []
    for level in levels:
        # Beyond nine standard deviations the distribution is 0 or 1.
        near = np.abs(edges - level) < 9.0 * np.sqrt(level * (1.0 - level) / (number + 2.0))
        share = (edges > level).astype(float)
        share[near] = betainc(level * (number + 1.0), (1.0 - level) * (number + 1.0), edges[near])
        found.append(float(np.diff(share) @ values))
    return found
