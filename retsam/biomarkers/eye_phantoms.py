"""Eyes with a known disc, cup, fovea and lesions, drawn from their equations in any rotation, mirror and scale.

Everything is given in the eye's own frame, so that the truth does not depend on how the eye is photographed: positions are
(temporal, superior) in disc diameters from the disc's centre; the fovea lies on the temporal axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from retsam.biomarkers.context import ETDRS_RADII_MM
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks

#: Direction (temporal, superior) of the sectors of the ETDRS grid.
_SECTORS = {"superior": (0.0, 1.0), "nasal": (-1.0, 0.0), "inferior": (0.0, -1.0), "temporal": (1.0, 0.0)}


@dataclass(frozen=True)
class Spot:
    """A round lesion: class, centre (temporal, superior) from the *fovea* in DD, and radius in DD."""

    target: str
    temporal: float
    superior: float
    radius: float


@dataclass(frozen=True)
class EyePhantom:
    """A known eye, and how it is photographed.

    Parameters
    ----------
    disc : tuple of float
        Semi-axes across and along the eye's vertical in DD; their mean should be 0.5.
    disc_tilt_deg : float
        Lean of the disc's upper end to temporal.
    cup : tuple of float
        Semi-axes across and along the vertical, DD.
    cup_at : tuple of float
        (temporal, superior) of the cup's centre, DD.
    fovea_distance : float
        DD.
    spots : tuple of Spot
    eye : str
        ``R`` or ``L``: the two are mirror images.
    rotation_deg : float
        Turn of the photograph, clockwise on the screen.
    px_per_dd : float
        Grid pixels per disc diameter.
    field_dd : float
        Diameter of the field of view in DD, centred half way between disc and fovea.
    targets : tuple of str
        Lesion classes that have a plane even without a spot.
    """

    disc: tuple[float, float] = (0.47, 0.53)
    disc_tilt_deg: float = 0.0
    cup: tuple[float, float] = (0.2, 0.24)
    cup_at: tuple[float, float] = (0.0, 0.0)
    fovea_distance: float = 2.5
    spots: tuple[Spot, ...] = ()
    eye: str = "R"
    rotation_deg: float = 0.0
    px_per_dd: float = 140.0
    field_dd: float = 7.0
    targets: tuple[str, ...] = ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
    um_per_px: float | None = None
    um_per_dd: float = field(default=1800.0)

    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Temporal and superior unit vectors in the grid (x, y down)."""
        turn = math.radians(self.rotation_deg)
        cos, sin = math.cos(turn), math.sin(turn)
        rotate = np.array([[cos, -sin], [sin, cos]])
        return rotate @ np.array([-1.0 if self.eye == "R" else 1.0, 0.0]), rotate @ np.array([0.0, -1.0])

    def masks(self) -> Masks:
        """Draw the eye: a pixel belongs to a shape if its centre does."""
        temporal, superior = self._directions()
        side = math.ceil(self.field_dd * self.px_per_dd) | 1
        middle = np.array([(side - 1) / 2, (side - 1) / 2])
        disc_at = middle - temporal * self.fovea_distance / 2 * self.px_per_dd
        rows, columns = np.mgrid[:side, :side]
        t = ((columns - disc_at[0]) * temporal[0] + (rows - disc_at[1]) * temporal[1]) / self.px_per_dd
        s = ((columns - disc_at[0]) * superior[0] + (rows - disc_at[1]) * superior[1]) / self.px_per_dd
        lean = math.radians(self.disc_tilt_deg)
        along = t * math.sin(lean) + s * math.cos(lean)
        across = t * math.cos(lean) - s * math.sin(lean)
        disc = (across / self.disc[0]) ** 2 + (along / self.disc[1]) ** 2 <= 1
        planes = {"disc": disc}
        planes["cup"] = ((t - self.cup_at[0]) / self.cup[0]) ** 2 + ((s - self.cup_at[1]) / self.cup[1]) ** 2 <= 1
        planes["cup"] &= disc
        for target in (*self.targets, *(spot.target for spot in self.spots)):
            planes.setdefault(target, np.zeros((side, side), bool))
        for spot in self.spots:
            away = (t - self.fovea_distance - spot.temporal) ** 2 + (s - spot.superior) ** 2
            planes[spot.target] |= away <= spot.radius**2
        fovea = disc_at + temporal * self.fovea_distance * self.px_per_dd
        return Masks(
            planes=planes,
            fov=(columns - middle[0]) ** 2 + (rows - middle[1]) ** 2 <= (self.field_dd * self.px_per_dd / 2) ** 2,
            frame=Frame.identity(side, side),
            fovea=(float(fovea[0]), float(fovea[1])),
            fovea_confidence=1.0,
            eye=self.eye,
            image_id=f"{self.eye}_{self.rotation_deg:g}_{self.px_per_dd:g}",
            um_per_px=self.um_per_px,
            native=True,
        )

    def truth(self) -> dict[str, float]:
        """Values that the equations fix, under the names of the dictionary (for an untilted disc and a cup inside it)."""
        across, along = self.disc
        mean = (across + along) / 2
        ct, cs = self.cup_at
        dd = 2 * mean
        values = {
            "cdr_vertical": self.cup[1] / along,
            "cdr_horizontal": self.cup[0] / across,
            "cdr_area": self.cup[0] * self.cup[1] / (across * along),
            "disc_ovality": min(self.disc) / max(self.disc),
            "disc_height_dd": 2 * along / dd,
            "disc_width_dd": 2 * across / dd,
            "disc_area_dd2": math.pi * across * along / dd**2,
            "cup_height_dd": 2 * self.cup[1] / dd,
            "cup_area_dd2": math.pi * self.cup[0] * self.cup[1] / dd**2,
            "disc_fovea_distance_dd": self.fovea_distance / dd,
        }
        # Bearing of a ray: degrees from superior through nasal; cup and disc radii along it.
        bearing = np.radians(np.arange(0, 360, 0.05))
        t, s = -np.sin(bearing), np.cos(bearing)
        disc_radius = 1 / np.hypot(t / across, s / along)
        a = (t / self.cup[0]) ** 2 + (s / self.cup[1]) ** 2
        b = -2 * (t * ct / self.cup[0] ** 2 + s * cs / self.cup[1] ** 2)
        c = (ct / self.cup[0]) ** 2 + (cs / self.cup[1]) ** 2 - 1
        cup_radius = (-b + np.sqrt(np.maximum(b * b - 4 * a * c, 0))) / (2 * a)
        width = (disc_radius - cup_radius) / dd
        sectors = {"superior": 0.0, "nasal": 90.0, "inferior": 180.0, "temporal": 270.0}
        spans = [(f"rim_width_{sector}", degrees, 90.0) for sector, degrees in sectors.items()]
        spans += [(f"rim_width_clock_{hour:02d}", hour * 30.0 % 360, 30.0) for hour in range(1, 13)]
        for name, centre, span in spans:
            inside = np.abs((np.degrees(bearing) - centre + 180) % 360 - 180) < span / 2
            values[f"{name}_dd"] = float(width[inside].mean())
        inferior, superior, nasal, temporal = (values[f"rim_width_{sector}_dd"] for sector in ("inferior", "superior", "nasal", "temporal"))
        values["isnt_rule"] = float(inferior >= superior >= nasal >= temporal)
        return values


def etdrs_centre(field_name: str, um_per_dd: float = 1800.0) -> tuple[float, float]:
    """Middle (temporal, superior) of an ETDRS field, DD from the fovea."""
    if field_name == "center":
        return 0.0, 0.0
    ring, sector = field_name.split("_")
    inner, outer = ETDRS_RADII_MM[:2] if ring == "inner" else ETDRS_RADII_MM[1:]
    reach = (inner + outer) / 2 * 1000 / um_per_dd
    return _SECTORS[sector][0] * reach, _SECTORS[sector][1] * reach
