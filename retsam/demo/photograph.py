"""What the camera does to the fundus: light, media, optics, field of view, sensor and software."""

from __future__ import annotations

import math

import cv2
import numpy as np

from retsam.demo.geometry import Projection
from retsam.demo.paint import noise
from retsam.demo.parameters import EyeParameters

__all__ = ["field_of_view", "photograph"]


def field_of_view(projection: Projection) -> np.ndarray:
    """Coverage of the field of view, float32 [H, W]."""
    return np.clip(projection.radius - projection.from_centre() + 0.5, 0, 1)


def photograph(scene: np.ndarray, parameters: EyeParameters, projection: Projection, rng: np.random.Generator) -> np.ndarray:
    """Turn the fundus into a photograph.

    Parameters
    ----------
    scene : ndarray float32 [H, W, 3]
        Colours of the fundus, 0..1.
    parameters : EyeParameters
    projection : Projection
    rng : numpy.random.Generator

    Returns
    -------
    ndarray uint8 [H, W, 3]
    """
    camera, shape = parameters.camera, scene.shape[:2]
    distance = projection.from_centre() / np.float32(projection.radius)
    x = (np.arange(shape[1], dtype=np.float32)[None, :] - projection.centre[0]) / projection.radius
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - projection.centre[1]) / projection.radius

    # Flash: brightest somewhere near the middle, falling off to the edge.
    spot = rng.normal(0, 0.16, 2)
    off = np.hypot(x - np.float32(spot[0]), y - np.float32(spot[1]))
    light = (1.12 - camera.vignette * off**2 * 0.75) * (1 + 0.03 * noise(shape, 0.8 * projection.radius, rng))
    image = scene * (light * np.float32(parameters.brightness))[..., None]

    # Stray light at the rim of the pupil: a yellowish or bluish crescent on one side.
    direction = rng.uniform(0, 2 * math.pi)
    side = np.clip((x * math.cos(direction) + y * math.sin(direction)) / np.maximum(distance, 1e-3), -1, 1) * 0.5 + 0.5
    glow = camera.edge_glow * parameters.brightness * np.exp(-((1 - np.clip(distance, 0, 1)) / rng.uniform(0.06, 0.16))) * (0.25 + side)
    warm = np.array([0.42, 0.40, 0.22], np.float32) if rng.random() < 0.6 else np.array([0.30, 0.38, 0.34], np.float32)
    image += glow[..., None] * warm
    if parameters.media_opacity > 0:
        # A cataract scatters: contrast goes, a veil comes, blue goes first.
        veil = np.array([0.50, 0.38, 0.24], np.float32) * parameters.brightness
        image += np.float32(0.65 * parameters.media_opacity) * (veil - image)

    # The eye's and the camera's blur add in quadrature with that of a cataract.
    sigma = projection.px_per_mm / 1000 * math.hypot(camera.blur_um, parameters.defocus_um, 45 * parameters.media_opacity)
    if sigma > 0.15:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    inside = field_of_view(projection)
    if camera.notch:
        _notch(inside, projection)
    dark = np.float32(camera.black_level) * np.array([1.0, 0.9, 0.9], np.float32)
    # The edge of the aperture is blurred a little too, with a dark rim inside.
    softened = cv2.GaussianBlur(inside, (0, 0), max(0.7, 0.0022 * projection.radius))
    image *= (1 - 0.35 * np.exp(-(((projection.radius - projection.from_centre()) / (0.008 * projection.radius)) ** 2)))[..., None]
    image = dark + softened[..., None] * (image - dark)

    # Sensor: shot noise grows with the signal; the mosaic correlates it between neighbours and channels.
    grain = rng.standard_normal((*shape, 3), dtype=np.float32)
    grain += 0.6 * rng.standard_normal((*shape, 1), dtype=np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.55) * 1.5
    image += np.float32(camera.noise) * grain * np.sqrt(np.clip(image, 0.02, 1) + 0.03)
    if camera.sharpen > 0:
        image += np.float32(camera.sharpen) * (image - cv2.GaussianBlur(image, (0, 0), 1.6))
    # A soft shoulder: highlights saturate as film and sensors do, not by clipping alone.
    image = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2), image)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _notch(inside: np.ndarray, projection: Projection) -> None:
    """The camera's orientation mark: a tab on the edge of the field, upper right."""
    angle = math.radians(-42)
    centre = np.array(projection.centre) + 0.995 * projection.radius * np.array([math.cos(angle), math.sin(angle)])
    size = 0.032 * projection.radius
    top, left = int(max(0, centre[1] - 2 * size)), int(max(0, centre[0] - 2 * size))
    window = inside[top : int(centre[1] + 2 * size) + 1, left : int(centre[0] + 2 * size) + 1]
    y, x = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]]
    np.maximum(window, np.clip(size - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1), out=window)
