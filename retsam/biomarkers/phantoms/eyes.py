"""Phantom eyes: drawn masks with a disc, a fovea and a field of view, ready to be measured."""

from __future__ import annotations

import numpy as np

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.context import Context
from retsam.biomarkers.phantoms.draw import circle
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks


def phantom_masks(
    planes: dict[str, np.ndarray],
    disc: tuple[float, float, float] | None = None,
    fovea: tuple[float, float] | None = None,
    fov: np.ndarray | None = None,
    eye: str | None = None,
    um_per_px: float | None = None,
) -> Masks:
    """Masks of a phantom at its own resolution.

    Parameters
    ----------
    planes : dict of str to ndarray of bool, [H, W]
        Target -> mask.
    disc : tuple of float, optional
        (x, y, radius) of a circular disc to draw.
    fovea : tuple of float, optional
        (x, y).
    fov : ndarray of bool, optional
        Field of view; the whole picture if None.
    eye : {"R", "L"}, optional
    um_per_px : float, optional

    Returns
    -------
    Masks
    """
    shape = next(iter(planes.values())).shape
    planes = {name: np.asarray(plane, bool) for name, plane in planes.items()}
    if disc is not None:
        planes["disc"] = circle(shape, disc[:2], disc[2])
    return Masks(
        planes=planes,
        fov=np.ones(shape, bool) if fov is None else np.asarray(fov, bool),
        frame=Frame.identity(shape[1], shape[0]),
        fovea=fovea,
        fovea_confidence=None if fovea is None else 1.0,
        eye=eye,
        um_per_px=um_per_px,
        native=True,
    )


def phantom_context(*args: object, config: BiomarkersConfig | None = None, **kwargs: object) -> Context:
    """Context of a phantom; arguments as in `phantom_masks`."""
    return Context(phantom_masks(*args, **kwargs), config)
