"""A decoded photograph, the reason why there is none, and what all formats need on the way from one to the other."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

#: Photographs with a shorter side below this hold no retina to speak of.
MIN_SIDE_PX = 48
#: What decoders raise on damaged input.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error, OverflowError)
_TRUNCATION_WORDS = (
    "truncated",
    "unexpected end",
    "broken data stream",
    "premature",
    "not enough data",
    "less than expected",
    "buffer is smaller",
    "out of data",
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Sample depths that cameras write into 16-bit containers.
_DEPTHS = (8, 10, 12, 16)
#: Words of the note on a photograph whose depth the file does not tell.
GUESSED_DEPTH = "depth guessed"


class UnreadablePhotograph(Exception):
    """A photograph that cannot be used, and why.

    Parameters
    ----------
    reason : str
        Short code: ``missing``, ``empty``, ``unreadable``, ``truncated``, ``too_small``, ``too_large``, ``multi_frame``,
        ``unsupported_pixels``.
    detail : str
        One sentence: what was found and what was expected.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self):
        # Exceptions cross process borders by their arguments.
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph.

    Parameters
    ----------
    rgb : ndarray of uint8, [H, W, 3]
        Upright, red first.
    um_per_px : float or None
        Size of a pixel on the retina in micrometres, where the file says so (DICOM ``PixelSpacing``).
    bits : int
        Significant bits a sample in the file, before scaling to 8.
    channels : int
        Channels in the file: 1 for greyscale, 3 for colour, 4 for CMYK.
    format : str
        ``JPEG``, ``PNG``, ``TIFF``, ``PPM``, ``DICOM``, ...
    eye : {'R', 'L'} or None
        Laterality, where the file says so (DICOM).
    notes : tuple of str
        What was done beyond decoding (rotated, alpha removed, depth guessed, ...).
    """

    rgb: np.ndarray
    um_per_px: float | None = None
    bits: int = 8
    channels: int = 3
    format: str = ""
    eye: str | None = None
    notes: tuple[str, ...] = ()


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse what is too large to decode or too small to show anything."""
    if width * height > max_pixels:
        raise UnreadablePhotograph("too_large", f"{name} is {width}x{height} px, more than the {max_pixels:,} px that max_pixels allows")
    if min(width, height) < MIN_SIDE_PX:
        raise UnreadablePhotograph("too_small", f"{name} is {width}x{height} px, the shorter side must have at least {MIN_SIDE_PX}")


def failed(error: BaseException, name: str) -> UnreadablePhotograph:
    """What a decoder's error means for the photograph."""
    text = str(error) or type(error).__name__
    if any(word in text.lower() for word in _TRUNCATION_WORDS) or isinstance(error, EOFError):
        return UnreadablePhotograph("truncated", f"{name} ends before its picture does: {text}")
    return UnreadablePhotograph("unreadable", f"{name} does not decode: {text}")


def to_eight_bits(samples: np.ndarray, bits: int | None = None) -> tuple[np.ndarray, int, str]:
    """Scale unsigned samples of up to 16 bits to uint8.

    Parameters
    ----------
    samples : ndarray of unsigned int
    bits : int, optional
        Significant bits that the file states. Without them, or where the samples refute them, they are the smallest usual depth that
        holds the brightest sample; that is a guess below half of what 16 bits hold, and the note says so.

    Returns
    -------
    samples : ndarray of uint8
    bits : int
    note : str
    """
    peak, doubt = int(samples.max()), ""
    if bits is None or peak >= 2**bits:
        doubt = f" ({GUESSED_DEPTH}: brightest sample {peak})" if peak < 2**15 else ""
        bits = next(b for b in _DEPTHS if peak < 2**b)
    scaled = samples.astype(np.float32) * np.float32(255.0 / (2**bits - 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), bits, f"{bits}-bit samples scaled to 8{doubt}"


def on_black(rgba: np.ndarray) -> np.ndarray:
    """Colours times opacity, uint8 ``[H, W, 3]``, from uint8 ``[H, W, 4]``."""
    return np.rint(rgba[..., :3].astype(np.float32) * (rgba[..., 3:].astype(np.float32) / 255.0)).astype(np.uint8)


def upright(image: Image.Image, orientation: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Turn a picture as its EXIF orientation says, and the note of it."""
    if orientation not in _TURNS:
        return image, ()
    return image.transpose(_TURNS[orientation]), (f"turned upright (EXIF orientation {orientation})",)


def turned(image: Image.Image, source: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Apply the EXIF orientation of `source` to `image`."""
    try:
        orientation = source.getexif().get(0x0112, 1)
    except DECODE_ERRORS:
        return image, ("EXIF block unreadable, taken as upright",)
    return upright(image, orientation)


def from_pillow(image: Image.Image, name: str, kind: str) -> Photograph:
    """A photograph of what Pillow has decoded."""
    mode, notes, bits, channels = image.mode, [], 8, 3
    if mode in ("I", "I;16", "I;16L", "I;16B"):
        samples = np.asarray(image)
        if samples.min() < 0:
            raise UnreadablePhotograph("unsupported_pixels", f"{name} has negative samples")
        # Pillow has spread the samples of these formats (PGM, JPEG 2000) over 16 bits already.
        small, bits, note = to_eight_bits(np.minimum(samples, 65535).astype(np.uint16), 16)
        picture, channels = Image.fromarray(small), 1
        notes.append(note)
    elif mode in ("RGBA", "LA", "PA", "La", "RGBa") or (mode == "P" and "transparency" in image.info):
        picture, channels = Image.fromarray(on_black(np.asarray(image.convert("RGBA")))), 1 if mode in ("LA", "La") else 3
        notes.append("alpha laid on black")
    elif mode in ("RGB", "L", "1", "P", "YCbCr", "LAB", "HSV"):
        picture, channels = image, 1 if mode in ("L", "1") else 3
    elif mode == "CMYK":
        picture, channels = image, 4
        notes.append("CMYK converted")
    else:
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has pixels of mode {mode}; expected grey, RGB, CMYK or palette")
    rgb, rotated = turned(picture.convert("RGB"), image)
    return Photograph(np.asarray(rgb), None, bits, channels, kind, None, (*notes, *rotated))
