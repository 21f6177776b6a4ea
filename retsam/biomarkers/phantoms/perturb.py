"""Masks perturbed as a segmentation errs: borders that move, breaks, false twigs, lost fine vessels, a disc found elsewhere."""

from __future__ import annotations

import math

import cv2
import numpy as np

from retsam.biomarkers.phantoms.draw import draw_vessel, line

#: Name -> what happens to the masks.
KINDS = {
    "border": "the vessels' borders move by a smooth random field (SD 0.35 px)",
    "wider": "every border lies 0.35 px farther out",
    "narrower": "every border lies 0.35 px farther in",
    "breaks": "vessels are cut at 12 places by 4 to 10 px",
    "twigs": "12 false twigs of 8 to 20 px grow from the vessels",
    "fine_lost": "a third of the vessels' thin ends is not found",
    "disc": "the disc is found elsewhere (SD 4 % of its radius) and of another size (SD 4 %)",
}


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the border, positive inside (px)."""
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside)


def _smooth_border(mask: np.ndarray) -> np.ndarray:
    """A mask's soft inside (0 to 1) whose 0.5 level is its border, about 1 px wide."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)


def perturb(
    planes: dict[str, np.ndarray], disc: tuple[float, float, float], kind: str, seed: int
) -> tuple[dict[str, np.ndarray], tuple[float, float, float]]:
    """Perturb artery and vein masks, or the disc.

    Parameters
    ----------
    planes : dict of str to ndarray of bool, [H, W]
        ``artery`` and ``vein``.
    disc : tuple of float
        (x, y, radius).
    kind : str
        Key of `KINDS`.
    seed : int

    Returns
    -------
    planes, disc

    Raises
    ------
    KeyError
        For an unknown kind.
    """
    if kind not in KINDS:
        raise KeyError(f"unknown perturbation {kind!r}; expected one of {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    if kind == "disc":
        x, y, radius = disc
        dx, dy, dr = rng.normal(0.0, 0.04, 3)
        return planes, (x + dx * radius, y + dy * radius, radius * (1.0 + dr))
    return {name: _perturb_mask(np.ascontiguousarray(mask), kind, rng) for name, mask in planes.items()}, disc


def _perturb_mask(mask: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind in ("border", "wider", "narrower"):
        # The slope of a step blurred with SD 0.8 px is 0.5 a pixel at the border.
        level = 0.5
        if kind == "border":
            noise = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), 4.0)
            level = 0.5 + 0.5 * 0.35 * noise / noise.std()
        else:
            level += 0.5 * (0.35 if kind == "narrower" else -0.35)
        return _smooth_border(mask) > level
    changed = mask.copy()
    distance = _signed_distance(mask)
    rows, columns = np.nonzero((distance > 0) & (distance >= cv2.dilate(distance.astype(np.float32), np.ones((3, 3), np.uint8)) - 0.3))
    if not len(rows):
        return changed
    if kind == "fine_lost":
        thin = distance < np.quantile(distance[rows, columns], 0.35)
        spots = rng.choice(len(rows), size=min(len(rows), 40), replace=False)
        for i in spots:
            if thin[rows[i], columns[i]]:
                cv2.circle(changed.view(np.uint8), (int(columns[i]), int(rows[i])), 12, 0, cv2.FILLED)
        return changed
    for i in rng.choice(len(rows), size=min(len(rows), 12), replace=False):
        x, y = float(columns[i]), float(rows[i])
        if kind == "breaks":
            cv2.circle(
                changed.view(np.uint8), (int(x), int(y)), math.ceil(distance[rows[i], columns[i]] + rng.uniform(2.0, 5.0)), 0, cv2.FILLED
            )
        else:
            reach = distance[rows[i], columns[i]] + rng.uniform(8.0, 20.0)
            draw_vessel(changed, line((x, y), rng.uniform(0.0, 360.0), reach), 3.0)
    return changed
