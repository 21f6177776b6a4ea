"""Masks: the canonical frame, what segmentation hands on, and the Zarr store that keeps it."""

from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks

__all__ = ["Failure", "Frame", "Masks"]
