"""Lesions placed inside the field of view, none overlapping another of its kind, with exact areas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retsam.demo.parameters import LESIONS, EyeParameters
from retsam.demo.raster import star_area

__all__ = ["Lesion", "place_lesions"]


@dataclass(frozen=True)
class Lesion:
    """One lesion: a star-shaped blob in the eye's frame.

    Attributes
    ----------
    kind : str
        Canonical target name.
    x, y : float
        Centre, millimetres.
    radius : float
        Millimetres, of the circle of the same area without waves.
    waves : ndarray [n, 3]
        Wave number, amplitude, phase of the outline.
    stretch, angle : float
        Elongation along `angle` (radians).
    strength : float
        Contrast relative to the usual.
    soft : float
        Half the width of the edge, millimetres.
    """

    kind: str
    x: float
    y: float
    radius: float
    waves: np.ndarray
    stretch: float
    angle: float
    strength: float
    soft: float

    @property
    def area(self) -> float:
        """Square millimetres inside the outline."""
        return star_area(self.radius, self.waves)

    @property
    def reach(self) -> float:
        """Radius of a circle that holds the lesion, millimetres."""
        return self.radius * (1 + float(np.sum(np.abs(self.waves[:, 1])))) * max(self.stretch, 1 / self.stretch)


def _waves(rng: np.random.Generator, roughness: float, first: int = 2, count: int = 4) -> np.ndarray:
    numbers = np.arange(first, first + count)
    return np.column_stack([numbers, roughness * rng.uniform(0.3, 1.0, count) / (numbers - first + 1), rng.uniform(0, 2 * math.pi, count)])


def _shape(kind: str, x: float, y: float, rng: np.random.Generator, scale: float) -> Lesion:
    """A lesion of the given kind at a place; `scale` (mm) is the smallest radius that the picture resolves."""
    angle = rng.uniform(0, math.pi)
    strength = rng.uniform(0.75, 1.15)
    if kind == "microaneurysm":
        return Lesion(kind, x, y, max(scale, rng.uniform(0.020, 0.050)), _waves(rng, 0.05), 1.0, angle, strength, 0.010)
    if kind == "hemorrhage":
        if rng.random() < 0.35 and math.hypot(x, y) < 4.5:  # flame, along the nerve fibres that arch out of the disc
            along = math.atan2(y, x) + rng.normal(0, 0.25)
            return Lesion(
                kind,
                x,
                y,
                max(1.5 * scale, rng.uniform(0.07, 0.15)),
                _waves(rng, 0.24, count=6),
                rng.uniform(1.4, 1.9),
                along,
                strength,
                0.045,
            )
        return Lesion(
            kind,
            x,
            y,
            max(1.5 * scale, float(np.clip(rng.lognormal(math.log(0.10), 0.45), 0.06, 0.38))),
            _waves(rng, 0.3, count=6),
            rng.uniform(1.0, 1.3),
            angle,
            strength,
            0.035,
        )
    if kind == "hard_exudate":
        radius = max(1.1 * scale, float(np.clip(rng.lognormal(math.log(0.045), 0.5), 0.022, 0.2)))
        return Lesion(kind, x, y, radius, _waves(rng, 0.22), rng.uniform(1.0, 1.35), angle, rng.uniform(0.85, 1.2), 0.010)
    if kind == "cotton_wool_spot":
        return Lesion(
            kind,
            x,
            y,
            rng.uniform(0.16, 0.32),
            _waves(rng, 0.18),
            rng.uniform(1.0, 1.35),
            math.atan2(y, x) + math.pi / 2,
            rng.uniform(0.8, 1.1),
            0.085,
        )
    return Lesion(
        kind,
        x,
        y,
        max(1.2 * scale, float(np.clip(rng.lognormal(math.log(0.055), 0.4), 0.03, 0.17))),
        _waves(rng, 0.08),
        1.0,
        angle,
        rng.uniform(0.6, 1.1),
        0.028,
    )


def _site(
    kind: str, rng: np.random.Generator, parameters: EyeParameters, fovea: np.ndarray, view: tuple[float, float, float], cluster: np.ndarray
) -> tuple[float, float]:
    if kind == "drusen":
        distance, angle = abs(rng.normal(0, 1.1)) + 0.15, rng.uniform(0, 2 * math.pi)
        return fovea[0] + distance * math.cos(angle), fovea[1] + 0.85 * distance * math.sin(angle)
    if kind == "hard_exudate":
        middle = cluster[rng.integers(len(cluster))]
        distance, angle = middle[2] * (0.55 + 0.5 * rng.normal()), rng.uniform(0, 2 * math.pi)  # rings round a leak
        return middle[0] + distance * math.cos(angle), middle[1] + distance * math.sin(angle)
    if kind == "cotton_wool_spot":
        distance, angle = rng.uniform(1.9, 4.6), rng.uniform(-math.pi, math.pi)
        return distance * math.cos(angle), distance * math.sin(angle)
    if rng.random() < 0.6:  # dark lesions gather temporal of the fovea and along the arcades
        distance, angle = abs(rng.normal(0, 1.0)) * 2.3 + 0.4, rng.uniform(0, 2 * math.pi)
        return fovea[0] + 0.4 + distance * math.cos(angle), fovea[1] + distance * math.sin(angle)
    distance, angle = view[2] * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    return view[0] + distance * math.cos(angle), view[1] + distance * math.sin(angle)


def place_lesions(
    parameters: EyeParameters,
    rng: np.random.Generator,
    fovea: np.ndarray,
    view: tuple[float, float, float],
    mm_per_px: float,
    inside: Callable[[float, float, float], bool],
    busy: Callable[[float, float], bool],
) -> list[Lesion]:
    """Draw the requested number of each lesion.

    Parameters
    ----------
    parameters : EyeParameters
    rng : numpy.random.Generator
    fovea : ndarray [2]
    view : tuple of float
        Centre and radius of the field of view, millimetres.
    mm_per_px : float
    inside : callable
        ``inside(x, y, reach)``: whether a lesion lies wholly in the photograph.
    busy : callable
        ``busy(x, y)``: whether a vessel is there, which small dark lesions avoid.

    Returns
    -------
    list of Lesion
        Lesions of one kind keep 2 px apart, so that their number is the number of connected components.

    Raises
    ------
    ValueError
        Where the field of view has no room for the requested number.
    """
    clear_of_disc = 0.62 * max(parameters.disc_height_mm, parameters.disc_width_mm)
    placed: list[Lesion] = []
    for kind in LESIONS:
        wanted = int(parameters.lesions.get(kind, 0))
        clusters = np.array(
            [
                [fovea[0] + distance * math.cos(angle), fovea[1] + distance * math.sin(angle), size]
                for distance, angle, size in zip(
                    rng.uniform(0.5, 2.4, 8), rng.uniform(0, 2 * math.pi, 8), rng.uniform(0.35, 0.95, 8), strict=True
                )
            ]
        )[: max(1, min(8, 1 + wanted // 15))]
        mine: list[Lesion] = []
        tries = 0
        while len(mine) < wanted:
            tries += 1
            if tries > 400 + 60 * wanted:
                raise ValueError(f"EyeParameters.lesions: no room for {wanted} {kind} in the field of view, {len(mine)} placed")
            # Where clusters are full, new ones open, so that a heavy load still finds room.
            if tries % (20 + 10 * wanted) == 0:
                clusters = np.vstack([clusters, [*(fovea + rng.normal(0, 1.8, 2)), 0.8]])
            x, y = _site(kind, rng, parameters, fovea, view, clusters)
            lesion = _shape(kind, float(x), float(y), rng, 1.25 * mm_per_px)
            if not inside(x, y, lesion.reach + 2 * mm_per_px) or math.hypot(x, y) - lesion.reach < clear_of_disc + parameters.ppa_mm:
                continue
            if kind in ("microaneurysm", "hemorrhage") and busy(x, y):
                continue
            dark = kind in ("microaneurysm", "hemorrhage")
            rivals = mine + [other for other in placed if dark and other.kind in ("microaneurysm", "hemorrhage")]
            gap = 2 * mm_per_px
            if any(math.hypot(x - other.x, y - other.y) < lesion.reach + other.reach + gap for other in rivals):
                continue
            mine.append(lesion)
        placed += mine
    return placed
