"""Reading photographs: whatever the camera or the archive wrote, as 8-bit RGB, upright, or a reason why not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
import tifffile
from PIL import Image

#: Endings by which photographs are found in a folder (what a file is, is read from its content).
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".pgm", ".bmp", ".jp2", ".webp", ".dcm", ".dicom")
#: Photographs with a shorter side below this hold no retina to speak of.
MIN_SIDE_PX = 48

# Formats that Pillow may try. Others (EPS starts an interpreter, for one) are no photographs.
_FORMATS = ("JPEG", "PNG", "PPM", "TIFF", "BMP", "JPEG2000", "WEBP")
# What decoders raise on damaged input.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error, OverflowError)
_TRUNCATION_WORDS = (
    "truncated",
    "unexpected end",
    "broken data stream",
    "premature",
    "not enough data",
    "buffer is smaller",
    "out of data",
)
# Sample depths that cameras write into 16-bit containers.
_DEPTHS = (8, 10, 12, 16)

# The limit on pixels is ours (`max_pixels`, checked before decoding), so Pillow's softer warning about the same says nothing new.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
        What was done beyond decoding (rotated, alpha removed, ...).
    """

    rgb: np.ndarray
    um_per_px: float | None = None
    bits: int = 8
    channels: int = 3
    format: str = ""
    eye: str | None = None
    notes: tuple[str, ...] = ()


def read_photograph(path: str | Path, max_pixels: int = 80_000_000) -> Photograph:
    """Read a photograph from a JPEG, PNG, TIFF, PPM, BMP, JPEG 2000, WebP or DICOM file.

    What the file is, is taken from its content, not from its name. Sizes are read from the header first, so a file that claims
    gigapixels is refused before any of it is decoded. 10-, 12- and 16-bit samples are scaled by their significant bits,
    CMYK and greyscale become RGB, transparency is laid on black, EXIF rotation is applied.

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
        return _read_dicom(data, path.name, max_pixels)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _read_tiff(data, path.name, max_pixels)
    return _read_common(data, path.name, max_pixels)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadablePhotograph("too_large", f"{name} is {width}x{height} px, more than the {max_pixels:,} px that max_pixels allows")
    if min(width, height) < MIN_SIDE_PX:
        raise UnreadablePhotograph("too_small", f"{name} is {width}x{height} px, the shorter side must have at least {MIN_SIDE_PX}")


def _failed(error: BaseException, name: str) -> UnreadablePhotograph:
    text = str(error) or type(error).__name__
    if any(word in text.lower() for word in _TRUNCATION_WORDS) or isinstance(error, EOFError):
        return UnreadablePhotograph("truncated", f"{name} ends before its picture does: {text}")
    return UnreadablePhotograph("unreadable", f"{name} does not decode: {text}")


def _read_common(data: bytes, name: str, max_pixels: int) -> Photograph:
    """All formats that Pillow decodes."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph("too_large", f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePhotograph("unreadable", f"{name} is not a picture in a known format (first bytes {data[:8]!r})") from error
    except _DECODE_ERRORS as error:
        raise _failed(error, name) from error
    _check_size(*image.size, name, max_pixels)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    try:
        image.load()
    except _DECODE_ERRORS as error:
        raise _failed(error, name) from error
    if kind == "PNG" and data[24] == 16:
        # Pillow keeps the upper byte of each sample, which loses pictures that fill only the lower 12 bits.
        return _sixteen_bit(data, image, name, kind)
    return _from_pillow(image, name, kind)


def _sixteen_bit(data: bytes, image: Image.Image, name: str, kind: str) -> Photograph:
    """Decode 16-bit PNG and TIFF with OpenCV, which keeps all bits, and scale."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise UnreadablePhotograph("unreadable", f"{name}: 16-bit {kind} that does not decode")
    if samples.ndim == 3:
        order = [2, 1, 0, 3][: samples.shape[2]]
        samples = samples[..., order]
    small, bits = _to_eight_bits(samples)
    channels = 1 if small.ndim == 2 else small.shape[2]
    notes = [f"{bits}-bit samples scaled to 8"]
    if channels == 4:
        small = _on_black(small)
        notes.append("alpha laid on black")
    rgb, rotated = _upright(Image.fromarray(small).convert("RGB"), image)
    return Photograph(np.asarray(rgb), None, bits, min(channels, 3), kind, None, (*notes, *rotated))


def _to_eight_bits(samples: np.ndarray, bits: int | None = None) -> tuple[np.ndarray, int]:
    """Scale unsigned samples to uint8; the significant bits are the smallest usual depth that holds the maximum."""
    if bits is None:
        peak = int(samples.max())
        bits = next(b for b in _DEPTHS if peak < 2**b)
    scaled = samples.astype(np.float32) * np.float32(255.0 / (2**bits - 1))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), bits


def _on_black(rgba: np.ndarray) -> np.ndarray:
    return np.rint(rgba[..., :3].astype(np.float32) * (rgba[..., 3:].astype(np.float32) / 255.0)).astype(np.uint8)


def _upright(image: Image.Image, source: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Apply the EXIF orientation of `source` to `image`."""
    try:
        orientation = source.getexif().get(0x0112, 1)
    except _DECODE_ERRORS:
        return image, ("EXIF block unreadable, taken as upright",)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    if orientation not in turns:
        return image, ()
    return image.transpose(turns[orientation]), (f"turned upright (EXIF orientation {orientation})",)


def _from_pillow(image: Image.Image, name: str, kind: str) -> Photograph:
    mode, notes, bits, channels = image.mode, [], 8, 3
    if mode in ("I", "I;16", "I;16L", "I;16B"):
        samples = np.asarray(image)
        if samples.min() < 0:
            raise UnreadablePhotograph("unsupported_pixels", f"{name} has negative samples")
        small, bits = _to_eight_bits(np.minimum(samples, 65535).astype(np.uint16))
        picture, channels = Image.fromarray(small), 1
        notes.append(f"{bits}-bit samples scaled to 8")
    elif mode in ("RGBA", "LA", "PA", "La", "RGBa") or (mode == "P" and "transparency" in image.info):
        picture, channels = Image.fromarray(_on_black(np.asarray(image.convert("RGBA")))), 1 if mode in ("LA", "La") else 3
        notes.append("alpha laid on black")
    elif mode in ("RGB", "L", "1", "P", "YCbCr", "LAB", "HSV"):
        picture, channels = image, 1 if mode in ("L", "1") else 3
    elif mode == "CMYK":
        picture, channels = image, 4
        notes.append("CMYK converted")
    else:
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has pixels of mode {mode}; expected grey, RGB, CMYK or palette")
    rgb, rotated = _upright(picture.convert("RGB"), image)
    return Photograph(np.asarray(rgb), None, bits, channels, kind, None, (*notes, *rotated))


def _read_tiff(data: bytes, name: str, max_pixels: int) -> Photograph:
    """TIFF: header by tifffile (which knows every layout), pixels by Pillow (8 bits) or OpenCV (16 bits)."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            width, height, depth, dtype = page.imagewidth, page.imagelength, page.bitspersample, page.dtype
            pages = [(p.imagewidth, p.imagelength) for p in tiff.pages[:8]]
    except (*_DECODE_ERRORS, tifffile.TiffFileError) as error:
        raise _failed(error, name) from error
    _check_size(width, height, name, max_pixels)
    if sum(size == (width, height) for size in pages) > 1:
        raise UnreadablePhotograph("multi_frame", f"{name} holds several pictures of {width}x{height} px; split it, one file each")
    if dtype is None or dtype.kind not in "ub" or depth > 16:
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has {dtype} samples; expected 8 or 16 bits, unsigned")
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
        image.load()
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph("too_large", f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePhotograph("unsupported_pixels", f"{name}: a kind of TIFF that does not decode ({error})") from error
    except _DECODE_ERRORS as error:
        raise _failed(error, name) from error
    if depth > 8 and image.mode != "I;16":
        return _sixteen_bit(data, image, name, "TIFF")
    return _from_pillow(image, name, "TIFF")


def _read_dicom(data: bytes, name: str, max_pixels: int) -> Photograph:
    try:
        ds = pydicom.dcmread(io.BytesIO(data))
    except (*_DECODE_ERRORS, pydicom.errors.InvalidDicomError, AttributeError) as error:
        raise _failed(error, name) from error
    if "PixelData" not in ds:
        raise UnreadablePhotograph("unreadable", f"{name} is a DICOM object without a picture (no PixelData)")
    frames = int(ds.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise UnreadablePhotograph("multi_frame", f"{name} holds {frames} frames; expected one photograph, export the one that is meant")
    _check_size(int(ds.get("Columns", 0)), int(ds.get("Rows", 0)), name, max_pixels)
    photometric = str(ds.get("PhotometricInterpretation", ""))
    bits = int(ds.get("BitsStored", 8) or 8)
    try:
        # pydicom turns YBR into RGB by itself.
        samples = pydicom.pixels.pixel_array(ds)
        if photometric == "PALETTE COLOR":
            samples = pydicom.pixels.apply_color_lut(samples, ds)
            bits = 8 * samples.dtype.itemsize
    except (*_DECODE_ERRORS, AttributeError, RuntimeError) as error:
        raise _failed(error, name) from error
    if samples.dtype.kind == "i":
        if samples.min() < 0:
            raise UnreadablePhotograph("unsupported_pixels", f"{name} has negative samples")
        samples = samples.astype(np.uint16)
    if samples.dtype.kind != "u" or bits > 16:
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has {samples.dtype} samples; expected unsigned, at most 16 bits")
    small = samples if bits == 8 and samples.dtype == np.uint8 else _to_eight_bits(samples, bits)[0]
    if photometric == "MONOCHROME1":  # white is zero
        small = 255 - small
    channels = 1 if small.ndim == 2 else 3
    rgb = np.repeat(small[..., None], 3, 2) if small.ndim == 2 else np.ascontiguousarray(small[..., :3])
    spacing, notes = _pixel_spacing(ds)
    eye = str(ds.get("ImageLaterality", "") or ds.get("Laterality", "")).upper()
    return Photograph(rgb, spacing, bits, channels, "DICOM", eye if eye in ("R", "L") else None, notes)


def _pixel_spacing(ds: pydicom.Dataset) -> tuple[float | None, tuple[str, ...]]:
    """Micrometres a pixel from ``PixelSpacing`` (mm, rows then columns); ``ImagerPixelSpacing`` is the sensor's, not the retina's."""
    value = ds.get("PixelSpacing")
    if not value:
        return None, ()
    try:
        rows, columns = (float(v) for v in value)
    except (TypeError, ValueError):
        return None, (f"PixelSpacing {value!r} not understood",)
    if not (rows > 0 and columns > 0):
        return None, (f"PixelSpacing {value!r} is not positive",)
    if abs(rows - columns) > 0.02 * max(rows, columns):
        return None, (f"PixelSpacing {rows} x {columns} mm: pixels are not square",)
    return 500.0 * (rows + columns), ()
