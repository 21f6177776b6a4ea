"""Mask files: one reading of index, bit and binary images for all rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

HIGHEST = {"av": 4, "disc_cup": 2, "lesions": 15, "bright": 2}
"""Column of a table of masks -> the highest value of its index or bits; other masks are zero or not."""

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
        PNG or another lossless format; a colour image must have three equal channels.
    column : str
        What the mask says. A grey palette of a mask that is zero or not is resolved, so that black is 0 wherever it stands in the palette.
        Values are left as they are: :func:`check_values` refuses those out of range.

    Raises
    ------
    MaskFileError
        If the file cannot be read, or is not a lossless mask of one channel of whole numbers.
    """
    try:
        with Image.open(path) as image:
            lossy = image.format in _LOSSY or image.info.get("compression") in ("jpeg", "tiff_jpeg")
            if lossy:
                name = image.format if image.format in _LOSSY else "JPEG-compressed"
                raise MaskFileError("bad_encoding", f"{path}: expected a lossless mask, found a {name} file; save masks as PNG when drawn")
            values = np.asarray(image.convert("L") if column not in HIGHEST and _grey_palette(image) else image)
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


def _grey_palette(image: Image.Image) -> bool:
    if image.mode != "P":
        return False
    palette = np.asarray(image.getpalette() or [], np.uint8).reshape(-1, 3)
    return bool(len(palette)) and bool((palette == palette[:, :1]).all())


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
