"""Masks: the canonical frame, what segmentation hands on, the Zarr store that keeps it, and the overlay that shows it."""

from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks
from retsam.masks.overlay import overlay

__all__ = ["Failure", "Frame", "Masks", "overlay"]
