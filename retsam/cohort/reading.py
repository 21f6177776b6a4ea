"""Reading photographs: whatever the camera or the archive wrote, as 8-bit RGB, upright, or a reason why not."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from retsam.cohort.dicom import read_dicom
from retsam.cohort.photograph import (
    DECODE_ERRORS,
    Photograph,
    UnreadablePhotograph,
    check_size,
    failed,
    from_pillow,
    on_black,
    to_eight_bits,
    turned,
)
from retsam.cohort.tiff import read_tiff

__all__ = ["Photograph", "SUFFIXES", "UnreadablePhotograph", "read_photograph"]

#: Endings by which photographs are found in a folder (what a file is, is read from its content).
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".ppm", ".pgm", ".bmp", ".jp2", ".webp", ".dcm", ".dicom",
)  # fmt: skip

# Formats that Pillow may try. Others (EPS starts an interpreter, for one) are no photographs.
_FORMATS = ("JPEG", "PNG", "PPM", "TIFF", "BMP", "JPEG2000", "WEBP")

# The limit on pixels is ours (`max_pixels`, checked before decoding), so Pillow's softer warning about the same says nothing new.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_photograph(path: str | Path, max_pixels: int = 80_000_000) -> Photograph:
    """Read a photograph from a JPEG, PNG, TIFF, PPM, BMP, JPEG 2000, WebP or DICOM file.

    What the file is, is taken from its content, not from its name. Sizes are read from the header first, so a file that claims
    gigapixels is refused before any of it is decoded. 10-, 12- and 16-bit samples are scaled by the significant bits that the file
    states (DICOM ``BitsStored``, PNG ``sBIT``, TIFF ``MaxSampleValue``, the maximum of a PPM); where it states none, they are guessed
    from the brightest sample, and a note says so. Of a TIFF's pages the largest is taken. CMYK and greyscale become RGB, transparency
    is laid on black, EXIF rotation is applied.

    Parameters
    ----------
    path : str or Path
    max_pixels : int
        Largest width x height to decode.

    Returns
    -------
    Photograph

    Raises
    ------
    UnreadablePhotograph
        With a reason code and a sentence.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadablePhotograph("missing", f"no file {path}") from error
    except OSError as error:
        raise UnreadablePhotograph("unreadable", f"{path.name} cannot be opened: {error.strerror or error}") from error
    if not data:
        raise UnreadablePhotograph("empty", f"{path.name} has no bytes")
    if data[128:132] == b"DICM":
        return read_dicom(data, path.name, max_pixels)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return read_tiff(data, path.name, max_pixels)
    return _read_common(data, path.name, max_pixels)


def _read_common(data: bytes, name: str, max_pixels: int) -> Photograph:
    """All formats that Pillow decodes."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph("too_large", f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePhotograph("unreadable", f"{name} is not a picture in a known format (first bytes {data[:8]!r})") from error
    except DECODE_ERRORS as error:
        raise failed(error, name) from error
    check_size(*image.size, name, max_pixels)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    try:
        image.load()
    except DECODE_ERRORS as error:
        raise failed(error, name) from error
    if kind == "PNG" and data[24] == 16:
        # Pillow keeps the upper byte of each sample, which loses pictures that fill only the lower 12 bits.
        return _sixteen_bit(data, image, name, kind, _png_bits)
    if kind == "PPM":
        return _ppm(data, image, name)
    return from_pillow(image, name, kind)


def _sixteen_bit(data: bytes, image: Image.Image, name: str, kind: str, stated: Callable[[bytes, np.ndarray], int | None]) -> Photograph:
    """Decode a 16-bit PNG or PPM with OpenCV, which keeps all bits, and scale."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise UnreadablePhotograph("unreadable", f"{name}: 16-bit {kind} that does not decode")
    colour, alpha = samples, None
    if samples.ndim == 3:
        colour, alpha = samples[..., 2::-1], samples[..., 3] if samples.shape[2] == 4 else None
    small, bits, *notes = to_eight_bits(colour, stated(data, colour))
    channels = 1 if small.ndim == 2 else 3
    if alpha is not None:
        small = on_black(np.dstack([small, to_eight_bits(alpha)[0]]))
        notes.append("alpha laid on black")
    rgb, rotated = turned(Image.fromarray(small).convert("RGB"), image)
    return Photograph(np.asarray(rgb), None, bits, channels, kind, None, (*notes, *rotated))


def _png_bits(data: bytes, colour: np.ndarray) -> int | None:
    """Significant bits by a 16-bit PNG's ``sBIT``.

    The standard wants samples spread over all 16 bits. Some writers leave them in the lower bits: then the lowest, which spreading
    leaves empty in samples that dark, are in use.
    """
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            return None
        if kind == b"sBIT":
            bits = max(data[at + 8 : at + 8 + (3 if data[25] in (2, 6) else 1)], default=0)
            lower = 0 < bits < 16 and colour.max() < 2**bits and bool((colour & (2 ** (16 - bits) - 1)).any())
            return bits if lower else 16
        at += 12 + length
    return None


def _ppm(data: bytes, image: Image.Image, name: str) -> Photograph:
    """A PPM or PGM is scaled by its maximum, unless that is the one which every 16-bit writer puts there."""
    words = re.sub(rb"#[^\r\n]*", b" ", data[:4096]).split(maxsplit=4)
    if words[0] in (b"P2", b"P3", b"P5", b"P6") and words[3] == b"65535":
        return _sixteen_bit(data, image, name, "PPM", lambda *_: None)
    return from_pillow(image, name, "PPM")
