"""Colours of the fundus: choroid, macula, nerve fibres, disc, vessels and lesions, before the camera.

Everything is float32 RGB in 0..1 in display space. Pigments absorb: they multiply by ``exp(-density)`` per channel. The
densities were set by eye and by the measured contrast of vessels against their surroundings in public photographs (veins
about 0.93 / 0.73 / 0.85 of the background in R / G / B, arteries 1.00 / 0.86 / 0.95).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from retsam.demo.geometry import Projection, cup_centre, fovea_position
from retsam.demo.lesions import Lesion
from retsam.demo.parameters import EyeParameters
from retsam.demo.raster import draw_vessel, ellipse_coverage, star_coverage

__all__ = ["noise", "paint_background", "paint_disc", "paint_lesions", "paint_vessels"]

_VEIN = np.array([0.16, 0.52, 0.30], np.float32)
_ARTERY = np.array([0.06, 0.35, 0.18], np.float32)


def noise(shape: tuple[int, int], scale: float | tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit variance, float32 [H, W].

    Parameters
    ----------
    shape : tuple of int
    scale : float or tuple of float
        Grain in pixels, or down and across.
    rng : numpy.random.Generator
    """
    down, across = (max(1.0, part) for part in (scale if isinstance(scale, tuple) else (scale, scale)))
    rows, columns = int(math.ceil(shape[0] / down)) + 3, int(math.ceil(shape[1] / across)) + 3
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    # One affine map: the picture's pixels onto the coarse grid, one grain in from its edge.
    onto = np.array([[1 / across, 0, 1.0], [0, 1 / down, 1.0]], np.float64)
    patch = cv2.warpAffine(
        coarse, onto, (shape[1], shape[0]), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return patch / max(float(patch.std()), 1e-6)


def _cloud(shape: tuple[int, int], scales: tuple[float, ...], weights: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    total = sum((weight * noise(shape, scale, rng) for scale, weight in zip(scales, weights, strict=True)), np.float32(0))
    return np.asarray(total) / np.float32(math.sqrt(sum(weight**2 for weight in weights)))


def _choroid(projection: Projection, rng: np.random.Generator) -> np.ndarray:
    """Web of choroidal vessels, 0 between them to 1 on them, float32 [H, W].

    Strands of 0.1 to 0.3 mm run from the posterior pole outward to the vortex veins, wander, and cross at acute angles.
    """
    shape, unit = (projection.height, projection.width), projection.px_per_mm
    pole = projection.to_pixels(np.array([2.2, 0.4]))
    count, step = 260, 0.12 * unit
    wander = 0.55 * noise(shape, 2.4 * unit, rng) + 0.30 * noise(shape, 0.9 * unit, rng)
    places = np.array(projection.centre) + 1.15 * projection.radius * (2 * rng.random((count, 2)) - 1)
    lean = rng.choice([-0.55, 0.0, 0.0, 0.55], count) + rng.normal(0, 0.12, count)
    lengths = rng.integers(16, 46, count)
    tracks = [places.copy()]
    for _ in range(int(lengths.max())):
        column = np.clip(places[:, 0], 0, shape[1] - 1).astype(int)
        row = np.clip(places[:, 1], 0, shape[0] - 1).astype(int)
        outward = places - pole
        angle = np.arctan2(outward[:, 1], outward[:, 0]) + wander[row, column] + lean
        places = places + step * np.column_stack([np.cos(angle), np.sin(angle)])
        tracks.append(places)
    tracks = np.stack(tracks, 1)
    planes = np.zeros(shape, np.float32), np.full(shape, 9.0, np.float32), np.zeros(shape, np.float32)
    for track, length, width in zip(tracks, lengths, rng.uniform(0.11, 0.27, count), strict=True):
        draw_vessel(track[:length], max(1.0, width * unit), *planes, width)
    coverage, offset, _ = planes
    rounded = coverage * np.sqrt(np.clip(1 - offset**2, 0, 1)) * (0.8 + 0.2 * noise(shape, 0.8 * unit, rng))
    return cv2.GaussianBlur(np.clip(rounded, 0, 1.1), (0, 0), 0.045 * unit + 0.3)


def paint_background(
    parameters: EyeParameters, projection: Projection, grid: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Pigment epithelium, choroid, macula and nerve-fibre sheen, float32 [H, W, 3]."""
    shape, unit = (projection.height, projection.width), projection.px_per_mm
    x, y = grid
    tint = np.array(parameters.camera.tint, np.float32) * np.float32(1.22 - 0.45 * parameters.pigmentation)
    image = np.empty((*shape, 3), np.float32)
    broad = _cloud(shape, (3.2 * unit, 1.5 * unit), (1.0, 0.7), rng)
    mottle = _cloud(shape, (0.5 * unit, 0.22 * unit, 0.09 * unit), (0.7, 0.8, 0.8), rng)
    hue = noise(shape, 2.2 * unit, rng)
    density = 0.075 * broad + 0.038 * mottle
    web = _choroid(projection, rng)
    # Choroidal vessels show where the pigment epithelium is thin: below and around the disc first, least under the macula.
    fovea = fovea_position(parameters)
    from_fovea = np.hypot(x - fovea[0], y - fovea[1])
    window = 0.65 + 0.35 * np.tanh(noise(shape, 3 * unit, rng)) + 0.25 * np.clip(y / 4, -0.5, 1)
    window *= 1 - 0.75 * np.exp(-((from_fovea / 2.0) ** 2))
    show = np.float32(parameters.tessellation) * np.clip(window, 0, 1.3)
    stroma = show * (0.70 - web)
    for channel, (pigment, choroid, drift) in enumerate(((0.55, 0.25, 0.015), (1.0, 0.52, 0.045), (1.25, 0.36, 0.07))):
        image[..., channel] = tint[channel] * np.exp(-(pigment * density + choroid * stroma + drift * hue))
    # Macula: xanthophyll takes the blue, taller pigment epithelium darkens the rest, the pit is darkest.
    squeeze = np.hypot((x - fovea[0]) / 1.08, y - fovea[1])
    strength = np.float32(rng.uniform(0.75, 1.2))
    wide, pit = np.exp(-((squeeze / 1.25) ** 2)), np.exp(-((squeeze / 0.42) ** 2))
    for channel, (outer, inner) in enumerate(((0.17, 0.15), (0.30, 0.27), (0.45, 0.3))):
        image[..., channel] *= np.exp(-strength * (outer * wide + inner * pit))
    # Nerve fibres: a striated sheen above and below the disc.
    from_disc = np.hypot(x, y) + 1e-3
    arch = np.abs(y) / from_disc
    sheen = np.exp(-((from_disc - 1.4) ** 2) / 2.6) * arch**2
    stripes = 0.7 + 0.3 * noise(shape, 0.12 * unit, rng) * 0.6
    glow = np.float32(rng.uniform(0.02, 0.06)) * sheen * stripes
    image += glow[..., None] * np.array([0.35, 0.8, 0.7], np.float32)
    return image


def disc_grid(parameters: EyeParameters, projection: Projection, grid: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the disc's own axes (temporal, inferior along its long axis), in pixel units."""
    angle = math.radians(parameters.disc_tilt)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    unit = np.float32(projection.px_per_mm)
    return (c * grid[0] + s * grid[1]) * unit, (-s * grid[0] + c * grid[1]) * unit


def paint_disc(
    image: np.ndarray, parameters: EyeParameters, projection: Projection, grid: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Paint the optic nerve head and any peripapillary atrophy in place.

    Returns
    -------
    dict of ndarray
        Coverage, float32 [H, W], of ``disc``, ``cup`` and ``peripapillary_atrophy``.
    """
    shape, unit = image.shape[:2], projection.px_per_mm
    u, v = disc_grid(parameters, projection, grid)
    axes = (0.5 * parameters.disc_width_mm * unit, 0.5 * parameters.disc_height_mm * unit)
    disc, radius = ellipse_coverage((u, v), axes)
    masks = {"disc": disc.astype(np.float32), "peripapillary_atrophy": np.zeros(shape, np.float32), "cup": np.zeros(shape, np.float32)}
    tint = np.array(parameters.camera.tint, np.float32)
    light = float(np.clip(1.25 - 0.45 * parameters.pigmentation, 0.8, 1.2))
    grain = noise(shape, 0.16 * unit, rng)
    fine = noise(shape, 0.06 * unit, rng)

    # A faint halo, and the pigmented or bared crescent that many discs have.
    halo = np.exp(-(((radius - 1) / 0.35) ** 2)) * (radius > 1)
    image *= 1 + (0.10 * halo)[..., None] * np.array([0.6, 1.0, 0.8], np.float32)
    if parameters.ppa_mm > 0:
        # Beta zone: an ellipse that the disc pushes aside, widest temporally.
        extent = parameters.ppa_mm * unit
        shift = 0.5 * extent
        wide, outer = ellipse_coverage((u - shift, v), (axes[0] + shift, axes[1] + 0.35 * extent))
        bare = np.clip(wide - disc, 0, 1).astype(np.float32)
        masks["peripapillary_atrophy"] = bare
        soft = cv2.GaussianBlur(bare, (0, 0), 0.05 * unit + 0.5)
        scleral = np.array([0.90, 0.72, 0.48], np.float32) * light * (tint / np.array([0.74, 0.37, 0.19], np.float32)) ** 0.35
        patchy = np.clip(0.50 + 0.14 * grain + 0.05 * fine, 0.2, 0.95)
        image += (soft * patchy)[..., None] * (scleral - image)
        border = np.exp(-(((outer - 1.03) / 0.05) ** 2)) * (u > -0.2 * axes[0]) * np.clip(0.6 + 0.6 * grain, 0, 1.4)
        image *= np.exp(-(0.30 * border)[..., None] * np.array([0.7, 0.9, 0.6], np.float32))

    # Rim: the fundus's own hue, lighter, by about the medians of 50 public photographs (1.44 / 1.41 / 1.34 in R / G / B). Cup: lighter
    # still and paler, more than theirs (1.64 / 1.78 / 1.88, vessels included), so that its size is seen at this resolution. Edges softer
    # than the masks'.
    around = tint * np.float32(1.22 - 0.45 * parameters.pigmentation)
    rim_colour = around * np.array([1.40, 1.48, 1.50], np.float32)
    cup_colour = around * np.array([1.85, 3.00, 4.50], np.float32)
    edge = float(rng.uniform(0.022, 0.05)) * unit + 0.4
    blend = cv2.GaussianBlur(masks["disc"], (0, 0), edge)
    pale = np.clip(0.4 + 0.5 * u / axes[0], 0, 1) * 0.15
    colour = rim_colour + pale[..., None] * (cup_colour - rim_colour)
    colour *= (1 + 0.03 * grain + 0.015 * fine)[..., None]
    if parameters.cdr_vertical > 0:
        centre = cup_centre(parameters)
        cup_axes = (axes[0] * parameters.cdr_horizontal, axes[1] * parameters.cdr_vertical)
        cup, inner = ellipse_coverage((u - centre[0] * unit, v - centre[1] * unit), cup_axes)
        masks["cup"] = np.minimum(cup, disc).astype(np.float32)
        slope = cv2.GaussianBlur(masks["cup"], (0, 0), float(rng.uniform(0.03, 0.05)) * unit)
        deep = 1 - 0.25 * np.clip(inner, 0, 1)
        colour += (slope * (0.85 + 0.15 * deep))[..., None] * (cup_colour - colour)
        if parameters.cdr_vertical > 0.55:  # lamina cribrosa: grey dots at the bottom of a deep cup
            pores = np.clip(noise(shape, 0.07 * unit, rng) - 0.7, 0, 1.2) * np.exp(-((inner / 0.6) ** 2))
            colour *= np.exp(-(0.16 * pores)[..., None] * np.array([1.0, 1.0, 0.8], np.float32))
    # Scleral ring: a thin bright rim on the temporal edge.
    ring = np.exp(-(((radius - 1.0) / 0.035) ** 2)) * np.clip(u / axes[0], 0, 1) * float(rng.uniform(0.0, 0.7))
    image += (blend * 0.94)[..., None] * (colour - image)
    image += (0.25 * ring)[..., None] * (cup_colour - image)
    return masks


def paint_vessels(
    image: np.ndarray,
    fields: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    disc: np.ndarray,
    cup: np.ndarray,
    px_per_mm: float,
    rng: np.random.Generator,
) -> None:
    """Paint veins, then arteries over them, in place.

    Parameters
    ----------
    image : ndarray float32 [H, W, 3]
    fields : dict
        ``artery`` and ``vein``: coverage, offset (0 on the centreline, 1 at the wall) and local width (mm), float32 [H, W].
    disc : ndarray float32 [H, W]
        Coverage of the disc; blood stands out more there.
    cup : ndarray float32 [H, W]
        Coverage of the cup; vessels that lie deep in it are veiled by what is before them and out of focus.
    px_per_mm : float
    rng : numpy.random.Generator
    """
    oxygen = float(rng.uniform(0.8, 1.15))
    clarity = 1 + 0.10 * noise(image.shape[:2], 1.6 * px_per_mm, rng)
    deep = cv2.GaussianBlur(cup, (0, 0), 0.07 * px_per_mm + 0.3)
    for kind, pigment, reflex in (("vein", _VEIN, 0.10), ("artery", _ARTERY * oxygen, 0.42)):
        coverage, offset, width = fields[kind]
        rows, columns = np.nonzero(coverage > 0)
        if not len(rows):
            continue
        cover, position, bore = coverage[rows, columns], offset[rows, columns], width[rows, columns]
        # Light crosses the chord of a cylinder: thick vessels are darker in the middle, thin ones lighter throughout.
        chord = bore * np.sqrt(np.clip(1 - position**2, 0.05, 1))
        density = 1 - np.exp(-chord / 0.041)
        density *= 1 - reflex * np.exp(-((position / 0.30) ** 2)) * np.clip((bore - 0.035) / 0.05, 0, 1)
        density *= cover * clarity[rows, columns] * (1 + 0.10 * disc[rows, columns] - 0.15 * deep[rows, columns])
        image[rows, columns] *= np.exp(-density[:, None] * pigment)


def paint_lesions(
    image: np.ndarray, lesions: list[Lesion], parameters: EyeParameters, projection: Projection, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Paint lesions in place and return their coverage per kind, float32 [H, W]."""
    unit = projection.px_per_mm
    tint = np.array(parameters.camera.tint, np.float32)
    bright = tint / np.array([0.74, 0.37, 0.19], np.float32)
    light = float(np.clip(1.2 - 0.4 * parameters.pigmentation, 0.8, 1.15))
    order = ("drusen", "cotton_wool_spot", "hemorrhage", "microaneurysm", "hard_exudate")
    masks = {kind: np.zeros(image.shape[:2], np.float32) for kind in order}
    for lesion in sorted(lesions, key=lambda item: order.index(item.kind)):
        centre = projection.to_pixels(np.array([lesion.x, lesion.y]))
        # The outline's angle and mirror follow the eye into the picture.
        tip = projection.to_pixels(np.array([lesion.x + math.cos(lesion.angle), lesion.y + math.sin(lesion.angle)])) - centre
        angle = math.atan2(tip[1], tip[0])
        place = (image.shape[:2], (float(centre[0]), float(centre[1])), lesion.radius * unit, lesion.waves, lesion.stretch, angle)
        rows, columns, cover, relative = star_coverage(*place)
        masks[lesion.kind][rows, columns] = np.maximum(masks[lesion.kind][rows, columns], cover.astype(np.float32))
        rows, columns, cover, relative = star_coverage(*place, soft=max(0.6, lesion.soft * unit))
        patch = image[rows, columns]
        weight = (cover * lesion.strength)[..., None].astype(np.float32)
        grain = noise(patch.shape[:2], max(2.0, 0.05 * unit), rng)[..., None] if patch.size else 0
        if lesion.kind == "hemorrhage":
            core = (1.08 - 0.3 * np.clip(relative, 0, 1.2) ** 2)[..., None].astype(np.float32)
            patch *= np.exp(-weight * core * (1 + 0.08 * grain) * np.array([0.30, 0.70, 0.42], np.float32))
        elif lesion.kind == "microaneurysm":
            patch *= np.exp(-weight * np.array([0.22, 0.62, 0.32], np.float32))
        elif lesion.kind == "hard_exudate":
            colour = np.array([0.96, 0.82, 0.36], np.float32) * light * bright**0.5
            patch += np.clip(weight * 0.85, 0, 0.95) * (colour * (1 + 0.03 * grain) - patch)
        elif lesion.kind == "cotton_wool_spot":
            colour = np.array([0.93, 0.80, 0.62], np.float32) * light * bright**0.5
            patch += np.clip(weight * 0.6 * (1 + 0.05 * grain), 0, 0.9) * (colour - patch)
        else:
            colour = np.array([0.94, 0.68, 0.34], np.float32) * light * bright**0.6
            patch += np.clip(weight * 0.5, 0, 0.8) * (colour - patch)
    return masks
