"""Lesions painted on healthy photographs, with their masks.

Each painter follows how the lesion is described to look on a colour photograph (Yannuzzi, *The Retinal Atlas*, 2010; META-PM for myopic
atrophy, Ohno-Matsui 2015); sizes are in disc diameters, and opacity, size and number are drawn wide, so that the head meets faint and
strong ones.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from retsam.training.weak.brushes import Canvas, blob, dots, network, noise

Painted = tuple[np.ndarray, np.ndarray]
"""The painted picture, float32 ``[side, side, 3]``, and the lesion's mask, bool ``[side, side]``."""


def drusen(canvas: Canvas) -> Painted:
    """Soft and hard drusen: yellowish dots of 40 to 250 micrometres about the fovea, denser towards it, some confluent."""
    n = int(np.exp(canvas.uniform(np.log(8), np.log(110))))
    spread = canvas.uniform(0.35, 1.1) * canvas.dd
    xy = np.array(canvas.fovea) + canvas.rng.normal(size=(n, 2)) * spread
    top = canvas.uniform(0.03, 0.085)
    radius = canvas.dd * np.exp(canvas.rng.uniform(np.log(0.016), np.log(top), n))
    faint = canvas.uniform(0.3, 0.75)
    alpha = dots(canvas.side, xy, radius, canvas.rng.uniform(0.5, 1, n) * faint, canvas.uniform(0.6, 1.6))
    colour = np.clip(canvas.ground * np.array([1.2, 1.55, 1.35]) + np.array([0.06, 0.07, 0.02]), 0, 1)
    return canvas.blend(colour, alpha), dots(canvas.side, xy, radius, np.ones(n), 0) > 0.5


def laser_spot(canvas: Canvas) -> Painted:
    """Scars of photocoagulation: pale round spots with dark centres or rims, in rows over the mid-periphery or as a grid at the macula."""
    dd, rng = canvas.dd, canvas.rng
    size = canvas.uniform(0.045, 0.12)
    if canvas.uniform(0, 1) < 0.75:  # scatter: rings about the posterior pole, over a sector or all round
        gap = size * canvas.uniform(2.2, 4.5)
        start, sweep = canvas.uniform(0, 2 * np.pi), canvas.uniform(1.0, 2 * np.pi)
        rings = np.arange(canvas.uniform(1.3, 2.2), 4.0, gap)
        polar = [(r, start + a) for r in rings for a in np.arange(0, sweep, gap / r)]
    else:
        gap = size * canvas.uniform(2.0, 4.0)
        polar = [(r, a) for r in np.arange(0.35, canvas.uniform(0.7, 1.3), gap) for a in np.arange(0, 2 * np.pi, gap / r)]
    polar = np.array(polar)
    polar = polar[rng.random(len(polar)) < canvas.uniform(0.35, 0.9)]
    middle = np.array(canvas.fovea)
    xy = middle + dd * polar[:, :1] * np.stack([np.cos(polar[:, 1]), np.sin(polar[:, 1])], 1)
    xy = xy + rng.normal(size=xy.shape) * 0.25 * gap * dd
    xy = xy[np.hypot(*(xy - np.array(canvas.disc[:2])).T) > 0.75 * dd]
    n = len(xy)
    radius = dd * size * rng.uniform(0.6, 1.3, n)
    ones = rng.uniform(0.6, 1.0, n)
    pale = dots(canvas.side, xy, radius, ones * canvas.uniform(0.25, 0.75), canvas.uniform(0.7, 1.5))
    rgb = canvas.blend(np.clip(canvas.ground * np.array([1.15, 1.6, 1.5]) + canvas.uniform(0.03, 0.15), 0, 1), pale)
    aside = xy + rng.normal(size=xy.shape) * 0.2 * dd * size
    dark = dots(canvas.side, aside, radius * canvas.uniform(0.3, 0.7), ones * canvas.uniform(0, 0.7), 0.8)
    rgb = rgb * (1 - 0.7 * dark[..., None])
    if canvas.uniform(0, 1) < 0.4:  # pigment rim
        rim = np.clip(dots(canvas.side, xy, radius * 1.35, ones, 0.7) - dots(canvas.side, xy, radius, ones, 0.7), 0, 1)
        rgb = rgb * (1 - canvas.uniform(0.2, 0.6) * rim[..., None])
    return rgb.astype(np.float32), dots(canvas.side, xy, radius, np.ones(n), 0) > 0.5


def myelinated_nerve_fiber(canvas: Canvas) -> Painted:
    """White, feathery fans along the nerve fibres, mostly from the disc's edge."""
    x0, y0, dd = canvas.disc
    plane = np.zeros((canvas.side, canvas.side), np.float32)
    for _ in range(1 + (canvas.uniform(0, 1) < 0.3)):
        middle, spread = canvas.uniform(0, 2 * np.pi), canvas.uniform(0.12, 0.5)
        length, bend = canvas.uniform(0.35, 1.9), canvas.uniform(-0.9, 0.9)
        start = 0.5 if canvas.uniform(0, 1) < 0.8 else canvas.uniform(0.7, 1.8)
        for _ in range(int(canvas.uniform(60, 220))):
            angle = middle + spread * canvas.rng.normal()
            reach = length * canvas.uniform(0.4, 1.15) * np.exp(-0.5 * ((angle - middle) / (1.6 * spread)) ** 2)
            t = np.linspace(0, 1, 14)
            r = dd * (start + canvas.uniform(-0.08, 0.15) + reach * t)
            a = angle + bend * reach * t**1.5 * 0.4
            line = np.stack([x0 + r * np.cos(a), y0 + r * np.sin(a)], 1)
            points, width = [np.round(16 * line).astype(np.int32)], int(canvas.uniform(1, 4))
            cv2.polylines(plane, points, False, canvas.uniform(0.5, 1.0), width, cv2.LINE_AA, 4)
    plane = cv2.GaussianBlur(plane, (0, 0), canvas.uniform(1.0, 2.2))
    mask = plane > 0.25
    alpha = np.clip(plane * canvas.uniform(0.75, 1.2), 0, 1) * canvas.uniform(0.6, 0.97)
    colour = canvas.light() * np.array([1.0, canvas.uniform(0.85, 1.0), canvas.uniform(0.65, 0.9)])
    return canvas.blend(colour, alpha), mask


def peripapillary_atrophy(canvas: Canvas) -> Painted:
    """Crescent or ring outside the disc: pale, choroidal vessels or sclera showing, sharp or pigmented outer edge."""
    x0, y0, dd = canvas.disc
    towards = np.arctan2(canvas.fovea[1] - y0, canvas.fovea[0] - x0) + canvas.rng.normal() * 0.6
    shift, size = canvas.uniform(0.0, 0.35) * dd, canvas.uniform(1.05, 1.6)
    x, y = x0 + shift * np.cos(towards), y0 + shift * np.sin(towards)
    stretch = canvas.uniform(0.9, 1.15)
    distance = np.hypot((canvas.xs - x) * stretch, (canvas.ys - y) / stretch) / (dd / 2 * size)
    distance = distance + canvas.uniform(0.01, 0.06) * noise(canvas.rng, canvas.side, 24)
    edge = canvas.uniform(0.02, 0.12)
    outer = 1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))
    zone = outer * canvas.off_disc()
    choroid = network(canvas.rng, canvas.side, int(canvas.uniform(35, 60)), 0.5)
    white = canvas.uniform(0, 1)
    pale = canvas.light() * np.array([1.0, 0.68 + 0.25 * white, 0.4 + 0.4 * white])
    shown = (0.5 * pale + 0.5 * np.clip(canvas.ground * np.array([1.3, 1.6, 1.5]), 0, 1)) * (0.94 + 0.06 * choroid[..., None])
    rgb = canvas.blend(shown, zone * canvas.uniform(0.25, 0.85))
    if canvas.uniform(0, 1) < 0.4:
        rim = np.exp(-(((distance - 1.05) / 0.05) ** 2)) * canvas.off_disc()
        rgb = rgb * (1 - canvas.uniform(0.1, 0.45) * rim[..., None])
    return rgb.astype(np.float32), zone > 0.5


def tessellation(canvas: Canvas) -> Painted:
    """Choroidal vessels showing through a thin pigment epithelium: orange bands with dark islands between, over much of the fundus."""
    region = 1 / (1 + np.exp(-3 * (noise(canvas.rng, canvas.side, 3) + canvas.uniform(-0.3, 1.5))))
    to_fovea = np.hypot(canvas.xs - canvas.fovea[0], canvas.ys - canvas.fovea[1]) / canvas.dd
    region = region * np.clip((to_fovea - canvas.uniform(0, 1.0)) / 0.6, 0, 1) * canvas.off_disc()
    cells = int(canvas.uniform(18, 34))
    under, over = (network(canvas.rng, canvas.side, cells, 0.4) for _ in range(2))
    bands = np.maximum(over, canvas.uniform(0.4, 0.9) * under)
    bands = cv2.GaussianBlur(bands, (0, 0), canvas.uniform(1.0, 3.0))
    depth = canvas.uniform(0.15, 0.5)
    relief = (bands - bands.mean()) * depth * region
    rgb = canvas.rgb * np.exp(relief[..., None] * np.array([0.55, 1.2, 1.0]))
    # The pigment is thin: all of it is a little paler and more orange, and there is less of the macular shade.
    return canvas.blend(np.clip(rgb * np.array([1.06, 1.05, 0.95]), 0, 1), region), region > 0.5


def diffuse_atrophy(canvas: Canvas) -> Painted:
    """Ill-defined yellowish-white areas at the posterior pole."""
    mix = np.zeros((canvas.side, canvas.side), np.float32)
    for _ in range(int(canvas.uniform(1, 4))):
        share = canvas.uniform(-0.2, 1.2)
        x = canvas.disc[0] + share * (canvas.fovea[0] - canvas.disc[0]) + canvas.rng.normal() * 0.5 * canvas.dd
        y = canvas.disc[1] + share * (canvas.fovea[1] - canvas.disc[1]) + canvas.rng.normal() * 0.5 * canvas.dd
        mix = np.maximum(mix, blob(canvas, x, y, canvas.uniform(0.6, 2.0) * canvas.dd, canvas.uniform(0.8, 1.5), 0.15))
    mix = mix * canvas.off_disc()
    choroid = network(canvas.rng, canvas.side, int(canvas.uniform(18, 32)), 0.45)
    colour = np.clip(canvas.ground * np.array([1.25, 1.45, 1.4]) + np.array([0.14, 0.1, 0.05]), 0, 1) * (0.93 + 0.1 * choroid[..., None])
    return canvas.blend(np.clip(colour, 0, 1), mix * canvas.uniform(0.35, 0.75)), mix > 0.5


def patchy_atrophy(canvas: Canvas) -> Painted:
    """Well-defined greyish-white patches of complete atrophy, large choroidal vessels and clumps of pigment in them."""
    patches = np.zeros((canvas.side, canvas.side), np.float32)
    for _ in range(int(canvas.uniform(1, 5))):
        angle, distance = canvas.uniform(0, 2 * np.pi), canvas.uniform(0.2, 1.9) * canvas.dd
        x, y = canvas.fovea[0] + distance * np.cos(angle), canvas.fovea[1] + distance * np.sin(angle)
        patches = np.maximum(patches, blob(canvas, x, y, canvas.uniform(0.15, 0.8) * canvas.dd, canvas.uniform(0.08, 0.25), 0.2))
    patches = patches * canvas.off_disc()
    choroid = network(canvas.rng, canvas.side, int(canvas.uniform(14, 26)), 0.25)
    white = canvas.light() * np.array([0.97, canvas.uniform(0.75, 0.92), canvas.uniform(0.5, 0.75)])
    shown = white * (1 - 0.25 * choroid[..., None] * np.array([0.5, 1.0, 1.0]))
    rgb = canvas.blend(shown, patches * canvas.uniform(0.65, 0.95))
    if canvas.uniform(0, 1) < 0.6:
        n = int(canvas.uniform(3, 25))
        ys, xs = np.nonzero((patches > 0.3) & (patches < 0.95))
        if len(xs) > n:
            pick = canvas.rng.integers(0, len(xs), n)
            clumps = dots(canvas.side, np.stack([xs[pick], ys[pick]], 1), canvas.dd * canvas.rng.uniform(0.01, 0.06, n), np.ones(n), 1.0)
            rgb = rgb * (1 - canvas.uniform(0.4, 0.8) * clumps[..., None])
    return rgb.astype(np.float32), patches > 0.5


def epiretinal_membrane(canvas: Canvas) -> Painted:
    """A glistening greyish sheen over the macula with fine folds that run towards one point."""
    x, y = np.array(canvas.fovea) + canvas.rng.normal(size=2) * 0.4 * canvas.dd
    region = blob(canvas, x, y, canvas.uniform(0.5, 1.3) * canvas.dd, 0.6, 0.2)
    texture = 0.5 + 0.5 * noise(canvas.rng, canvas.side, int(canvas.uniform(20, 50)))
    sheen = np.clip(region * (0.4 + 0.6 * np.clip(texture, 0, 1.3)), 0, 1) * canvas.uniform(0.12, 0.4)
    rgb = canvas.blend(canvas.light() * np.array([0.85, 0.78, 0.66]), sheen)
    folds = np.zeros((canvas.side, canvas.side), np.float32)
    for _ in range(int(canvas.uniform(8, 40))):
        angle = canvas.uniform(0, 2 * np.pi)
        near, far = canvas.uniform(0.1, 0.6) * canvas.dd, canvas.uniform(0.7, 1.5) * canvas.dd
        t = np.linspace(near, far, 8)
        wave = canvas.uniform(-0.25, 0.25) * (t / canvas.dd) ** 2
        line = np.stack([x + t * np.cos(angle + wave), y + t * np.sin(angle + wave)], 1)
        cv2.polylines(folds, [np.round(16 * line).astype(np.int32)], False, canvas.uniform(0.4, 1), 1, cv2.LINE_AA, 4)
    folds = cv2.GaussianBlur(folds, (0, 0), 0.8) * region * canvas.uniform(0.2, 0.6)
    light = np.clip(rgb + 0.35 * folds[..., None] * canvas.light() * np.array([1.0, 0.95, 0.8]), 0, 1)
    return light.astype(np.float32), region > 0.5


def vitreous_degeneration(canvas: Canvas) -> Painted:
    """Asteroid bodies: many small bright bodies in the vitreous, in front of vessels and disc, in a cloud."""
    n = int(np.exp(canvas.uniform(np.log(30), np.log(350))))
    middle = canvas.side / 2 + canvas.rng.normal(size=2) * 0.12 * canvas.side
    xy = middle + canvas.rng.normal(size=(n, 2)) * canvas.uniform(0.1, 0.24) * canvas.side
    radius = canvas.dd * np.exp(canvas.rng.uniform(np.log(0.01), np.log(canvas.uniform(0.025, 0.1)), n))
    alpha = dots(canvas.side, xy, radius, canvas.rng.uniform(0.4, 1, n), canvas.uniform(0.5, 2.5)) * canvas.uniform(0.6, 0.98)
    rgb = canvas.blend(canvas.light() * np.array([1.0, canvas.uniform(0.85, 1.0), canvas.uniform(0.55, 0.9)]), alpha)
    return rgb, dots(canvas.side, xy, radius + 0.01 * canvas.dd, np.ones(n), 0) > 0.5


def artifact(canvas: Canvas) -> Painted:
    """Dust and moisture on the lens: a few out-of-focus spots, pale or grey, often with a ring, small or as large as the disc."""
    rgb, mask = canvas.rgb, np.zeros((canvas.side, canvas.side), bool)
    pale = canvas.uniform(0, 1) < 0.6
    for _ in range(int(canvas.uniform(1, 8))):
        angle, r = canvas.uniform(0, 2 * np.pi), 0.47 * canvas.side * np.sqrt(canvas.uniform(0, 1))
        x, y = canvas.side / 2 + r * np.cos(angle), canvas.side / 2 + r * np.sin(angle)
        radius = np.exp(canvas.uniform(np.log(0.03), np.log(0.55))) * canvas.dd
        distance = np.hypot(canvas.xs - x, canvas.ys - y) / radius
        spot = 1 / (1 + np.exp(np.clip((distance - 1) / canvas.uniform(0.08, 0.4), -30, 30)))
        ring = np.exp(-(((distance - 0.9) / 0.2) ** 2)) * canvas.uniform(0, 0.8)
        alpha = np.clip(spot * canvas.uniform(0.3, 1.0) + ring, 0, 1) * canvas.uniform(0.15, 0.55)
        grey = canvas.light() * (np.array([0.8, 0.75, 0.7]) if pale else np.array([0.12, 0.08, 0.07]))
        rgb = rgb * (1 - alpha[..., None]) + grey * alpha[..., None]
        mask |= distance < 1.05
    return (np.clip(rgb, 0, 1) * canvas.fov[..., None]).astype(np.float32), mask


PAINTERS: dict[str, Callable[[Canvas], Painted]] = {
    painter.__name__: painter
    for painter in (
        tessellation,
        peripapillary_atrophy,
        diffuse_atrophy,
        patchy_atrophy,
        drusen,
        laser_spot,
        epiretinal_membrane,
        myelinated_nerve_fiber,
        vitreous_degeneration,
        artifact,
    )
}
"""Target -> painter."""


def paint(target: str, canvas: Canvas) -> Painted:
    """Paint lesions of a target; the mask is inside the field of view.

    Raises
    ------
    ValueError
        If nobody taught how the target looks.
    """
    if target not in PAINTERS:
        raise ValueError(f"no painter for {target!r}; there are painters for {', '.join(PAINTERS)}")
    rgb, mask = PAINTERS[target](canvas)
    return rgb, mask & canvas.fov
