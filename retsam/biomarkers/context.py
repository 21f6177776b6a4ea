"""The geometry that all biomarkers of one eye share: masks, field of view, disc, fovea, scale, axis, zones, fields.

Everything is in *grid pixels* (the pixels of the masks that were handed in, from the first row and column of the field of view) and
pixel-centre coordinates, y down. ``native_scale`` turns grid pixels into pixels of the photograph, ``masks.frame`` their places.
Regions are oriented to the eye, not to the picture: the *temporal* unit vector points from the disc's centre to the fovea, the
*superior* one is perpendicular to it on the side that the laterality says, so that a field means the same in left and right eyes and
in a rotated photograph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from retsam.biomarkers.config import FIELD_45_DEGREES_UM, BiomarkersConfig
from retsam.biomarkers.disc import Disc, fit_disc
from retsam.biomarkers.registry import Null
from retsam.eyes import eye_of

if TYPE_CHECKING:
    from retsam.masks.masks import Masks

#: Zones about the disc's centre, in disc radii (inner, outer). B is 0.5-1 DD and C 0.5-2 DD from the disc's margin.
ZONES: dict[str, tuple[float, float]] = {"zone_b": (2.0, 3.0), "zone_c": (2.0, 5.0)}

#: Quadrants about the fovea, and their values in ``Context.quadrant_labels``.
QUADRANTS: dict[str, int] = {"superotemporal": 1, "superonasal": 2, "inferotemporal": 3, "inferonasal": 4}

#: Hemifields about the line through disc and fovea, and their values in ``Context.hemifield_labels``.
HEMIFIELDS: dict[str, int] = {"superior": 1, "inferior": 2}

#: ETDRS fields, and their values in ``Context.etdrs_labels``.
ETDRS_FIELDS: dict[str, int] = {
    "center": 1,
    "inner_superior": 2,
    "inner_nasal": 3,
    "inner_inferior": 4,
    "inner_temporal": 5,
    "outer_superior": 6,
    "outer_nasal": 7,
    "outer_inferior": 8,
    "outer_temporal": 9,
}

#: Radii of the ETDRS circles in millimetres (diameters of 1, 3 and 6 mm; ETDRS report 10, 1991).
ETDRS_RADII_MM = (0.5, 1.5, 3.0)

#: Statuses under which a head's mask may be used.
_USABLE = ("supervised", "weak", "given")


@dataclass(frozen=True)
class Zone:
    """A region of the retina.

    Parameters
    ----------
    mask : ndarray of bool, [H, W]
        Pixels of the region inside the field of view.
    share : float
        Share of the whole region's area that lies inside the field of view, 0 to 1.
    """

    mask: np.ndarray
    share: float


@dataclass(frozen=True)
class Axis:
    """The eye's own directions as unit vectors in the grid.

    Parameters
    ----------
    temporal, superior : tuple of float
        (x, y), y down.
    source : str
        ``fovea`` (from the disc to the fovea) or ``upright`` (no fovea: the photograph is taken as upright, the axis as
        horizontal and its side from the eye).
    """

    temporal: tuple[float, float]
    superior: tuple[float, float]
    source: str


def _cropped(masks: Masks) -> Masks:
    """Masks cut to the box of their field of view: grids and boxes begin at the field's edge, however much black lies around it."""
    fov = np.asarray(masks.fov, dtype=bool)
    rows, columns = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    if not len(rows):
        return masks
    y, x = int(rows[0]), int(columns[0])
    box = (slice(y, int(rows[-1]) + 1), slice(x, int(columns[-1]) + 1))
    frame = masks.frame
    return replace(
        masks,
        planes={name: plane[box] for name, plane in masks.planes.items()},
        fov=fov[box],
        frame=replace(frame, tx=frame.tx + x * frame.scale, ty=frame.ty + y * frame.scale),
        fovea=None if masks.fovea is None else (masks.fovea[0] - x, masks.fovea[1] - y),
    )


class Context:
    """Shared geometry of one eye.

    Parameters
    ----------
    masks : Masks
    config : BiomarkersConfig, optional

    Attributes
    ----------
    masks : Masks
        Those given, cut to the box of their field of view.
    fov : ndarray of bool, [H, W]
    disc : Disc or None
        Fitted ellipse (x, y, r, semi_major, semi_minor, angle, mask), grid px. `disc_null` says why it is None.
    fovea : tuple of float or None
        (x, y), grid px. `fovea_null` says why it is None.
    px_per_dd : float or None
        Grid px per disc diameter.
    native_scale : float
        Native px per grid px.
    um_per_px_native : float or None
        Micrometres per native px; `scale_source` is ``manifest`` (known from outside), ``disc_1800um`` or None.
    eye : str or None
        ``R`` or ``L``, from the table, else from disc and fovea; `eye_derived` is the latter alone.
    """

    def __init__(self, masks: Masks, config: BiomarkersConfig | None = None) -> None:
        if masks.fov.ndim != 2:
            raise ValueError(f"field of view of image {masks.image_id!r}: expected a mask [H, W], found shape {masks.fov.shape}")
        for name, plane in masks.planes.items():
            if plane.shape != masks.fov.shape:
                raise ValueError(
                    f"mask {name!r} of image {masks.image_id!r}: expected the shape of its field of view {masks.fov.shape}, "
                    f"found {plane.shape}"
                )
        self.masks = masks = _cropped(masks)
        self.config = config or BiomarkersConfig()
        self.fov = np.ascontiguousarray(masks.fov, dtype=bool)
        self.shape = self.fov.shape
        self.native_scale = float(masks.frame.scale)
        self._planes: dict[str, np.ndarray] = {}
        self._fit_disc()
        self._find_fovea()
        self._set_scale()
        self._set_laterality()

    # ---- masks -----------------------------------------------------------------------------------------------------------

    def status(self, name: str) -> str:
        """``supervised``, ``weak``, ``given`` (a user's own mask) or ``not_available`` / ``not_given``."""
        if name not in self.masks.planes:
            return "not_given" if self.masks.native else "not_available"
        return self.masks.status.get(name, "given" if self.masks.native else "supervised")

    def plane(self, name: str) -> np.ndarray | None:
        """Mask of a target inside the field of view, bool [H, W]; None where its head does not exist.

        ``disc`` contains the cup, where there is a disc; ``vessel`` is the union of artery and vein where it has no mask of its own.
        """
        if name not in self._planes:
            self._planes[name] = self._read(name)
        return self._planes[name]

    def _read(self, name: str) -> np.ndarray | None:
        raw = self.masks.planes
        if name == "vessel" and name not in raw and "artery" in raw and "vein" in raw:
            return (raw["artery"].astype(bool) | raw["vein"].astype(bool)) & self.fov
        if name not in raw or self.status(name) not in _USABLE:
            return None
        plane = raw[name].astype(bool) & self.fov
        if name == "disc" and "cup" in raw and plane.any():  # a cup alone is no disc: the ruler would be the cup
            plane |= raw["cup"].astype(bool) & self.fov
        return plane

    def missing(self, *names: str) -> Null | None:
        """Null with the reason why one of the targets cannot be used, or None if all can."""
        for name in names:
            if self.plane(name) is None:
                return Null("mask_not_given" if self.status(name) == "not_given" else "head_not_available")
        return None

    # ---- field of view ---------------------------------------------------------------------------------------------------

    @cached_property
    def fov_area(self) -> int:
        """Pixels of the field of view (grid px^2)."""
        return int(np.count_nonzero(self.fov))

    @cached_property
    def fov_diameter(self) -> float:
        """Diameter of the field of view in grid px: its longest side along rows or columns (a cut-off circle keeps its width)."""
        if not self.fov_area:
            return 0.0
        rows, columns = np.flatnonzero(self.fov.any(axis=1)), np.flatnonzero(self.fov.any(axis=0))
        return float(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1)

    @property
    def fov_diameter_native(self) -> float:
        """Diameter of the field of view in native px."""
        return self.fov_diameter * self.native_scale

    def resolution_null(self, kind: str) -> Null | None:
        """Null(`resolution_too_low`) if the photograph has too few pixels for this kind of biomarker, else None."""
        if kind and self.fov_diameter_native < self.config.min_fov_diameter_px[kind]:
            return Null("resolution_too_low")
        return None

    # ---- disc, fovea, scale, eye -----------------------------------------------------------------------------------------

    def _fit_disc(self) -> None:
        plane = self.plane("disc")
        fitted: Disc | Null
        if not self.fov_area:
            fitted = Null("no_fov")
        elif plane is None:
            missing = self.missing("disc")
            assert missing is not None
            fitted = missing
        else:
            fitted = fit_disc(plane, self.fov)
        self.disc = None if isinstance(fitted, Null) else fitted
        self.disc_null = fitted if isinstance(fitted, Null) else None
        self.px_per_dd = 2 * self.disc.r if self.disc else None

    def _find_fovea(self) -> None:
        self.fovea: tuple[float, float] | None = None
        self.fovea_null: Null | None = Null("no_fovea")
        point, confidence = self.masks.fovea, self.masks.fovea_confidence
        if point is None or not all(math.isfinite(v) for v in point):
            return
        if confidence is not None and not confidence >= self.config.min_fovea_confidence:
            return
        x, y = float(point[0]), float(point[1])
        column, row = round(x), round(y)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1] and self.fov[row, column]):
            return
        if self.disc is not None:
            low, high = self.config.fovea_distance_dd
            if not low <= math.hypot(x - self.disc.x, y - self.disc.y) / (2 * self.disc.r) <= high:
                self.fovea_null = Null("fovea_implausible")
                return
        self.fovea, self.fovea_null = (x, y), None

    def _set_scale(self) -> None:
        given = self.masks.um_per_px
        self.scale_source: str | None = None
        self.um_per_px_native: float | None = None
        if given is not None and math.isfinite(given) and given > 0:
            self.um_per_px_native = float(given)
            # Masks do not say where their pixel size came from; `gather` tells the DICOM header's apart by the cohort table.
            self.scale_source = "manifest"
        elif self.px_per_dd:
            self.um_per_px_native = self.config.um_per_dd / (self.px_per_dd * self.native_scale)
            self.scale_source = f"disc_{self.config.um_per_dd:.0f}um"

    @property
    def um_per_grid_px(self) -> float | None:
        """Micrometres per grid px."""
        return None if self.um_per_px_native is None else self.um_per_px_native * self.native_scale

    @property
    def scale_null(self) -> Null | None:
        """Null(`no_scale`) without a scale in micrometres, else None."""
        return Null("no_scale") if self.um_per_px_native is None else None

    def _set_laterality(self) -> None:
        try:
            table = eye_of(self.masks.eye)
        except ValueError as error:
            raise ValueError(f"eye of image {self.masks.image_id!r}: {error}") from None
        self.eye_derived: str | None = None
        if self.disc and self.fovea:
            dx, dy = self.fovea[0] - self.disc.x, self.fovea[1] - self.disc.y
            # In an upright photograph of a right eye the fovea lies to the left of the disc. Within 45 degrees of the vertical
            # the photograph is not upright and says nothing.
            if abs(dx) > abs(dy):
                self.eye_derived = "R" if dx < 0 else "L"
        self.laterality_conflict: bool | None = None if table is None or self.eye_derived is None else table != self.eye_derived
        follow_image = table is None or (self.laterality_conflict and self.config.laterality_conflict == "image")
        self.eye = self.eye_derived if follow_image else table
        self.eye_source = None if self.eye is None else ("image" if follow_image else "table")

    @cached_property
    def axis(self) -> Axis | Null:
        """Temporal and superior directions of the eye, or Null (`no_disc`..., `laterality_unknown`, `laterality_conflict`)."""
        if self.laterality_conflict and self.config.laterality_conflict == "null":
            return Null("laterality_conflict")
        if self.eye is None:
            return self.disc_null or (Null("laterality_unknown") if self.fovea else Null("no_fovea"))
        if self.disc and self.fovea:
            dx, dy = self.fovea[0] - self.disc.x, self.fovea[1] - self.disc.y
            length = math.hypot(dx, dy)
            tx, ty, source = dx / length, dy / length, "fovea"
        else:
            tx, ty, source = (-1.0 if self.eye == "R" else 1.0), 0.0, "upright"
        # A quarter turn from temporal to superior, clockwise on the screen in a right eye, the other way in a left one.
        superior = (-ty, tx) if self.eye == "R" else (ty, -tx)
        return Axis((tx, ty), superior, source)

    @cached_property
    def horizontal(self) -> tuple[tuple[float, float], str]:
        """Direction of the disc-fovea line and its source; unlike :attr:`axis` it needs no laterality, so its sign may be either.

        Without fovea the photograph is taken as upright.
        """
        if self.disc and self.fovea:
            dx, dy = self.fovea[0] - self.disc.x, self.fovea[1] - self.disc.y
            length = math.hypot(dx, dy)
            return (dx / length, dy / length), "fovea"
        return (1.0, 0.0), "upright"

    @property
    def fovea_axis(self) -> Axis | Null:
        """The axis where disc and fovea give it; Null where it would rest on an assumption."""
        if self.fovea_null or self.disc_null:
            return self.disc_null or self.fovea_null  # type: ignore[return-value]
        return self.axis

    # ---- regions ---------------------------------------------------------------------------------------------------------

    def along(self, direction: tuple[float, float], origin: tuple[float, float]) -> np.ndarray:
        """Coordinate of every pixel along a unit vector from an origin, float32 [H, W], grid px."""
        rows = (np.arange(self.shape[0], dtype=np.float32) - np.float32(origin[1])) * np.float32(direction[1])
        columns = (np.arange(self.shape[1], dtype=np.float32) - np.float32(origin[0])) * np.float32(direction[0])
        return rows[:, None] + columns[None, :]

    def squared_distance(self, origin: tuple[float, float]) -> np.ndarray:
        """Squared distance of every pixel from a point, float32 [H, W], grid px^2."""
        rows = (np.arange(self.shape[0], dtype=np.float32) - np.float32(origin[1])) ** 2
        columns = (np.arange(self.shape[1], dtype=np.float32) - np.float32(origin[0])) ** 2
        return rows[:, None] + columns[None, :]

    def ring(self, origin: tuple[float, float], inner: float, outer: float) -> Zone:
        """Ring about a point (grid px); ``inner`` 0 gives a circle. The share is of the ring's true area."""
        squared = self.squared_distance(origin)
        mask = self.fov & (squared < outer * outer)
        if inner > 0:
            mask &= squared >= inner * inner
        area = math.pi * (outer * outer - inner * inner)
        return Zone(mask, min(1.0, float(np.count_nonzero(mask)) / area) if area > 0 else 0.0)

    @cached_property
    def _zones(self) -> dict[str, Zone]:
        return {}

    def zone(self, name: str) -> Zone | Null:
        """A region inside the field of view.

        Parameters
        ----------
        name : str
            ``whole``, ``zone_b``, ``zone_c``, ``peripapillary`` (1-2 r), ``macula_1mm``, ``macula_3mm``, ``macula_6mm``.

        Returns
        -------
        Zone or Null
            Null without a field, disc, fovea or scale; the caller compares ``share`` by :meth:`zone_null`.
        """
        if name not in self._zones:
            found = self._make_zone(name)
            if isinstance(found, Null):
                return found
            self._zones[name] = found
        return self._zones[name]

    def _make_zone(self, name: str) -> Zone | Null:
        if not self.fov_area:
            return Null("no_fov")
        if name == "whole":
            return Zone(self.fov, 1.0)
        if name in ZONES or name == "peripapillary":
            if self.disc is None:
                assert self.disc_null is not None
                return self.disc_null
            inner, outer = ZONES.get(name, (1.0, 2.0))
            return self.ring((self.disc.x, self.disc.y), inner * self.disc.r, outer * self.disc.r)
        if name.startswith("macula_"):
            if self.fovea is None:
                assert self.fovea_null is not None
                return self.fovea_null
            if self.um_per_grid_px is None:
                return Null("no_scale")
            diameter_mm = float(name.removeprefix("macula_").removesuffix("mm"))
            return self.ring(self.fovea, 0.0, 500.0 * diameter_mm / self.um_per_grid_px)
        raise KeyError(f"unknown zone {name!r}")

    def zone_null(self, name: str) -> Null | None:
        """Why a zone cannot be measured (no disc, `zone_outside_fov`, ...), or None if it can."""
        found = self.zone(name)
        if isinstance(found, Null):
            return found
        return None if found.share >= self.config.min_zone_share else Null("zone_outside_fov")

    @cached_property
    def hemifield_labels(self) -> np.ndarray | Null:
        """uint8 [H, W]: 0 outside the field of view, else :data:`HEMIFIELDS` about the line through disc and fovea."""
        axis = self.fovea_axis
        if isinstance(axis, Null):
            return axis
        superior = self.along(axis.superior, self.fovea) >= 0
        return np.where(superior, np.uint8(1), np.uint8(2)) * self.fov

    @cached_property
    def quadrant_labels(self) -> np.ndarray | Null:
        """uint8 [H, W]: 0 outside the field of view, else :data:`QUADRANTS` about the fovea."""
        axis = self.fovea_axis
        if isinstance(axis, Null):
            return axis
        inferior = (self.along(axis.superior, self.fovea) < 0).view(np.uint8)
        nasal = (self.along(axis.temporal, self.fovea) < 0).view(np.uint8)
        return (1 + 2 * inferior + nasal) * self.fov

    @cached_property
    def quadrant_share(self) -> dict[str, float]:
        """Share of each quadrant, as far as the circle of 6 mm diameter goes, inside the field of view; empty where there are none."""
        labels, circle = self.quadrant_labels, self.zone("macula_6mm")
        if isinstance(labels, Null) or isinstance(circle, Null):
            return {}
        seen = np.bincount(labels[circle.mask], minlength=5)
        quarter = math.pi * (1000 * ETDRS_RADII_MM[-1] / self.um_per_grid_px) ** 2 / 4
        return {name: min(1.0, float(seen[value] / quarter)) for name, value in QUADRANTS.items()}

    @cached_property
    def etdrs_labels(self) -> np.ndarray | Null:
        """uint8 [H, W]: 0 outside grid or field of view, else :data:`ETDRS_FIELDS`; diagonals at 45 degrees to the axis."""
        axis = self.fovea_axis
        if isinstance(axis, Null):
            return axis
        if self.um_per_grid_px is None:
            return Null("no_scale")
        radii = [1000 * radius / self.um_per_grid_px for radius in ETDRS_RADII_MM]
        (x, y), reach = self.fovea, radii[-1] + 1
        rows = slice(max(0, math.floor(y - reach)), min(self.shape[0], math.ceil(y + reach) + 1))
        columns = slice(max(0, math.floor(x - reach)), min(self.shape[1], math.ceil(x + reach) + 1))
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y)
        dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(x)
        up = dx * np.float32(axis.superior[0]) + dy * np.float32(axis.superior[1])
        out = dx * np.float32(axis.temporal[0]) + dy * np.float32(axis.temporal[1])
        squared = dx * dx + dy * dy
        vertical = np.abs(up) >= np.abs(out)
        # Order within a ring: superior, nasal, inferior, temporal.
        sector = np.where(vertical, np.where(up >= 0, np.uint8(2), np.uint8(4)), np.where(out < 0, np.uint8(3), np.uint8(5)))
        sector += np.where(squared >= radii[1] ** 2, np.uint8(4), np.uint8(0))
        sector[squared < radii[0] ** 2] = 1
        sector[squared >= radii[2] ** 2] = 0
        labels = np.zeros(self.shape, np.uint8)
        labels[rows, columns] = sector * self.fov[rows, columns]
        return labels

    @cached_property
    def etdrs_areas(self) -> np.ndarray:
        """Visible pixels by value of :attr:`etdrs_labels`, int [10]; only where there is a grid."""
        return cv2.calcHist([self.etdrs_labels], [0], None, [10], [0, 10]).ravel().astype(np.int64)

    @cached_property
    def etdrs_share(self) -> dict[str, float]:
        """Share of each ETDRS field that lies inside the field of view; empty where there is no grid."""
        if isinstance(self.etdrs_labels, Null):
            return {}
        r1, r2, r3 = (1000 * radius / self.um_per_grid_px for radius in ETDRS_RADII_MM)
        areas = [math.pi * r1**2] + [math.pi * (r2**2 - r1**2) / 4] * 4 + [math.pi * (r3**2 - r2**2) / 4] * 4
        return {name: min(1.0, float(self.etdrs_areas[value] / areas[value - 1])) for name, value in ETDRS_FIELDS.items()}

    def to_eye(self, xy: np.ndarray, origin: tuple[float, float]) -> np.ndarray:
        """Points [..., 2] in grid px as (temporal, superior) coordinates from an origin, grid px.

        Raises
        ------
        ValueError
            If the eye's axis is unknown.
        """
        if isinstance(self.axis, Null):
            raise ValueError(f"the axis of image {self.masks.image_id!r} is unknown ({self.axis.reason})")
        relative = np.asarray(xy, dtype=float) - np.asarray(origin, dtype=float)
        return relative @ np.array([self.axis.temporal, self.axis.superior]).T


def assumed_um_per_px(fov_diameter_native: float) -> float:
    """Micrometres per native px if the field of view is one of 45 degrees (13.2 mm)."""
    return FIELD_45_DEGREES_UM / fov_diameter_native
