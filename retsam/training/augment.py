"""Random crops that look as if another camera had taken them."""

from __future__ import annotations

import cv2
import numpy as np


def crop_affine(rng: np.random.Generator, centre, side: int, scale: float, rotation: float, flip: bool) -> np.ndarray:
    """2x3 matrix from frame to crop: ``centre`` goes to the middle, then rotation (degrees), magnification and mirror."""
    angle = np.deg2rad(rotation)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    if flip:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    # A little shear and stretch: some archives store photographs out of proportion.
    matrix = matrix @ (np.eye(2) + rng.uniform(-0.05, 0.05, (2, 2)))
    shift = np.full(2, (side - 1) / 2) - matrix @ np.asarray(centre, float)
    return np.column_stack([matrix, shift])


def warp(rgb: np.ndarray, label: np.ndarray, matrix: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop by linear interpolation; a bit of the label is set where the larger part of its pixel lies inside.

    Nearest neighbours would fray vessels two pixels wide. Bits from 8 on mark regions, kinds or large lesions: nearest does there.
    """
    size = (side, side)
    out = cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    for bit in (1, 2, 4):
        plane = label & bit
        if plane.any():
            smooth = cv2.warpAffine(plane * np.uint8(255 // bit), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
            out = (out & np.uint8(255 - bit)) | ((smooth >= 127).astype(np.uint8) * np.uint8(bit))
    return cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), out


def recolour(rng: np.random.Generator, rgb: np.ndarray, fov: np.ndarray, degrade: float = 1.0) -> np.ndarray:
    """Camera, light and file: what differs between photographs of the same retina.

    Gamma and gain are shared by the channels, and single channels are moved by little: the difference of red and green is what tells
    arteries from veins.

    Parameters
    ----------
    rng : Generator
    rgb : ndarray of uint8, [H, W, 3]
    fov : ndarray of bool, [H, W]
    degrade : float
        Factor on the probabilities of whatever loses detail (small copy, blur, noise, JPEG). Much of it hides how sharp the camera
        was, and with that how wide its vessels are drawn.

    Returns
    -------
    ndarray of uint8, [H, W, 3]
    """
    x = rgb.astype(np.float32) / 255
    side = rgb.shape[0]
    if rng.random() < 0.35 * degrade:  # resolution: an archive's small copy, enlarged
        k = rng.uniform(0.4, 0.9)
        small = cv2.resize(x, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        x = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3 * degrade:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6))
    elif rng.random() < 0.2:
        x = np.clip(x + rng.uniform(0.3, 1.0) * (x - cv2.GaussianBlur(x, (0, 0), 1.5)), 0, 1)
    if rng.random() < 0.6:  # uneven light
        field = cv2.resize(rng.uniform(-0.35, 0.35, (3, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        x = x * np.exp(field)[..., None]
    grey = x.mean(2, keepdims=True)
    x = grey + (x - grey) * rng.uniform(0.75, 1.25)
    x = np.clip(x, 1e-4, 1) ** np.exp(rng.normal(0, 0.2))
    x = x * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.035, 3)).astype(np.float32)
    if rng.random() < 0.15:  # haze of a cloudy lens
        haze = rng.uniform(0.05, 0.3)
        x = x * (1 - haze) + haze * rng.uniform(0.3, 0.7)
    if rng.random() < 0.5 * degrade:
        x = x + rng.normal(0, rng.uniform(0.003, 0.03), x.shape).astype(np.float32)
    out = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.5 * degrade:
        out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1], cv2.IMREAD_COLOR)
    out[~fov] = 0
    return out
