"""Mask files: one reading of index, bit and binary images for all rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

HIGHEST = {"av": 4, "disc_cup": 2, "lesions": 15, "bright": 2}
"""Column of a table of masks -> the highest value of its index or bits; other masks are zero or not."""

# Modes of Pillow whose last channel is transparency.
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
# A JPEG rings around every edge: taken as zero or not, a mask of vessels doubles, and an index gains classes that nobody drew.
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")


class MaskFileError(ValueError):
    """A mask file cannot be used; ``reason`` is a row's code (``unreadable``, ``bad_encoding``)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that it survives the way from another process
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def read_index(path: str | Path, column: str = "") -> np.ndarray:
    """A mask as integers ``[H, W]``, of a palette image its indices: their colours are for eyes.

    Parameters
    ----------
    path : path
        PNG or another lossless format; a colour image must have three equal channels, and transparency must not vary.
    column : str
        What the mask says. The palette of a mask that is zero or not is resolved, so that black is 0 wherever it stands in the palette.
        Values are left as they are: :func:`check_values` refuses those out of range.

    Raises
    ------
    MaskFileError
        If the file cannot be read, or is not a lossless mask of one channel of whole numbers.
    """
    try:
        with Image.open(path) as image:
            require_lossless(image, path)
            binary = column not in HIGHEST
            _check_opaque(image, path, binary)
            values = _resolved(image) if binary and image.mode == "P" else np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaskFileError("unreadable", f"{path}: expected a PNG mask, could not read it as an image: {error}") from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise MaskFileError("bad_encoding", f"{path}: expected one channel (or three equal ones), found a colour image {values.shape}")
        values = colours[..., 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iu":
        raise MaskFileError("bad_encoding", f"{path}: expected whole numbers, found {values.dtype}; save the mask as an 8-bit PNG")
    return values


def require_lossless(image: Image.Image, path: str | Path) -> None:
    """Refuse a mask whose format smears values.

    Raises
    ------
    MaskFileError
    """
    if image.format in _LOSSY or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        name = image.format if image.format in _LOSSY else "JPEG-compressed"
        raise MaskFileError("bad_encoding", f"{path}: expected a lossless mask, found a {name} file; save masks as PNG when drawn")


def _check_opaque(image: Image.Image, path: str | Path, binary: bool) -> None:
    """Refuse what may be drawn in transparency, which is not read; the indices of a palette count whether they can be seen or not."""
    if binary and image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in _ALPHA:
        return
    low, high = image.getchannel(image.getbands()[-1]).getextrema()
    if low != high:
        raise MaskFileError(
            "bad_encoding",
            f"{path}: expected an opaque mask, found transparency of {low} to {high}: what is drawn in an alpha channel is not read; "
            "save the mask without one, 0 where there is nothing",
        )


def _resolved(image: Image.Image) -> np.ndarray:
    """A mask that is zero or not from its palette: black is nothing; where nothing is black, index 0 is."""
    indices = np.asarray(image)
    palette = np.zeros((256, 3), np.uint8)
    colours = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette[: len(colours)] = colours
    grey = bool(len(colours)) and bool((colours == colours[:, :1]).all())
    if grey or not palette[np.unique(indices)].any(axis=1).all():
        return palette.max(axis=1)[indices]
    return indices


def check_values(values: np.ndarray, column: str, path: str | Path) -> np.ndarray:
    """The mask, as ``uint8`` where its column holds an index or bits.

    Raises
    ------
    MaskFileError
        If it has values beyond :data:`HIGHEST` of the column: a mask of 0 and 255 read as bits would show everything.
    """
    if column not in HIGHEST:
        return values
    found = np.unique(values)
    if found[-1] > HIGHEST[column] or found[0] < 0:
        raise MaskFileError(
            "bad_encoding",
            f"{path}: column {column!r} expects values 0 to {HIGHEST[column]}, found {', '.join(map(str, found[:8].tolist()))}; "
            "see `retsam measure --help` for the encoding",
        )
    return values.astype(np.uint8)
