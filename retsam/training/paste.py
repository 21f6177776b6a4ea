"""Lesions of one photograph put onto another: drawn lesions are few, healthy retinas are many."""

from __future__ import annotations

import cv2
import numpy as np

from retsam.training.labels import FOV_BIT, LESION_BITS

_LESIONS = sum(bit for name, bit in LESION_BITS.items() if name != "known")
# The ground behind lesions is a mean over what lies so far around them, px: the nearest that has an answer.
_REACHES = (6.0, 16.0, 40.0)
# A lesion is drawn to where its annotator saw its edge: its light goes so much further, px.
_HALO = 2
_BLUE = 60.0
"""Blue of the ground from which on it tells all of a lesion's blue."""
_DARKEST, _BRIGHTEST = 0.25, 3.0
"""Range of a lesion's light relative to its ground."""


def paste(
    rgb: np.ndarray, label: np.ndarray, donor_rgb: np.ndarray, donor_label: np.ndarray, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Put the lesions of one crop onto another, where it has none.

    What is carried over is the light of each pixel relative to the ground around its lesion, channel by channel, so that a lesion takes the
    colour and brightness of the retina that it comes to lie on (copy and paste: Ghiasi et al. 2021; in relative light, as haemoglobin and
    pigment act).

    Parameters
    ----------
    rgb, donor_rgb : ndarray of uint8, [H, W, 3]
    label, donor_label : ndarray of uint8, [H, W]
        Bits of :data:`retsam.training.labels.LESION_BITS` and the field of view's.
    strength : float
        Power of the relative light: under 1 the lesions are fainter than they were.

    Returns
    -------
    rgb, label : ndarray of uint8
        Copies; those that were given where there is nothing to put.
    """
    inside = (label & FOV_BIT > 0) & (label & LESION_BITS["known"] > 0)
    new = (donor_label & _LESIONS > 0) & (donor_label & FOV_BIT > 0)
    size = 2 * _HALO + 1
    near = cv2.dilate((label & _LESIONS > 0).view(np.uint8), np.ones((size, size), np.uint8)) > 0
    # A lesion that would be cut by another, or by the edge, is left out as a whole: half a lesion looks like none.
    count, parts = cv2.connectedComponents(new.view(np.uint8), connectivity=8)
    cut = np.zeros(count, bool)
    cut[parts[new & (near | ~inside)]] = True
    new &= ~cut[parts]
    if not new.any():
        return rgb, label
    relative = _relative_light(donor_rgb, donor_label)
    alpha = cv2.GaussianBlur(cv2.dilate(new.astype(np.float32), np.ones((3, 3), np.uint8)), (size, size), 0.5 * _HALO)
    alpha[near | ~inside] = 0
    light = np.exp(strength * alpha[..., None] * np.log(relative))
    out = np.clip(rgb * light, 0, 255).astype(np.uint8)
    return out, np.where(new, label | (donor_label & _LESIONS), label).astype(np.uint8)


def _relative_light(rgb: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Light of each pixel over that of its ground, float32 ``[H, W, 3]``; 1 where no ground is near."""
    size = 2 * _HALO + 3
    covered = cv2.dilate((label & _LESIONS > 0).view(np.uint8), np.ones((size, size), np.uint8)) > 0
    free = (~covered & (label & FOV_BIT > 0)).astype(np.float32)
    values = rgb.astype(np.float32) + 1
    ground = values.copy()
    missing = np.ones(free.shape, bool)
    for reach in _REACHES:
        weight = cv2.GaussianBlur(free, (0, 0), reach)
        found = missing & (weight > 0.05)
        if found.any():
            mean = cv2.GaussianBlur(values * free[..., None], (0, 0), reach) / np.maximum(weight, 1e-6)[..., None]
            ground[found] = mean[found]
            missing &= ~found
    relative = np.clip(values / ground, _DARKEST, _BRIGHTEST)
    # Many cameras record next to no blue. What a lesion does to it follows what it does to green, where the ground is too dark to say.
    told = np.clip(ground[..., 2] / _BLUE, 0, 1)
    relative[..., 2] = relative[..., 2] ** told * relative[..., 1] ** (0.7 * (1 - told))
    return relative
