"""Photographs in DICOM objects."""

from __future__ import annotations

import io

import numpy as np
import pydicom

from retsam.cohort.photograph import DECODE_ERRORS, Photograph, UnreadablePhotograph, check_size, failed, to_eight_bits
from retsam.eyes import UM_PER_PX, UM_PER_PX_MEND, UM_PER_PX_WORDS


def read_dicom(data: bytes, name: str, max_pixels: int) -> Photograph:
    """Decode a DICOM object of one frame; see `retsam.cohort.reading.read_photograph`."""
    try:
        ds = pydicom.dcmread(io.BytesIO(data))
    except (*DECODE_ERRORS, pydicom.errors.InvalidDicomError, AttributeError) as error:
        raise failed(error, name) from error
    if "PixelData" not in ds:
        raise UnreadablePhotograph("unreadable", f"{name} is a DICOM object without a picture (no PixelData)")
    lacking = [key for key in ("Rows", "Columns") if not ds.get(key)]
    if lacking:
        raise UnreadablePhotograph("unreadable", f"{name} does not say how large its picture is: no {' or '.join(lacking)}")
    frames = int(ds.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise UnreadablePhotograph("multi_frame", f"{name} holds {frames} frames; expected one photograph, export the one that is meant")
    check_size(int(ds.Columns), int(ds.Rows), name, max_pixels)
    photometric = str(ds.get("PhotometricInterpretation", ""))
    bits = int(ds.get("BitsStored", 8) or 8)
    try:
        # pydicom turns YBR into RGB by itself.
        samples = pydicom.pixels.pixel_array(ds)
        if photometric == "PALETTE COLOR":
            samples = pydicom.pixels.apply_color_lut(samples, ds)
            bits = 8 * samples.dtype.itemsize
    except (*DECODE_ERRORS, AttributeError, RuntimeError) as error:
        raise failed(error, name) from error
    if samples.dtype.kind == "i":
        if samples.min() < 0:
            raise UnreadablePhotograph("unsupported_pixels", f"{name} has negative samples")
        samples = samples.astype(np.uint16)
    if samples.dtype.kind != "u" or bits > 16:
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has {samples.dtype} samples; expected unsigned, at most 16 bits")
    spacing, notes = _pixel_spacing(ds)
    small = samples
    if bits != 8 or samples.dtype != np.uint8:
        small, bits, note = to_eight_bits(samples, bits)
        notes = (note, *notes)
    if photometric == "MONOCHROME1":  # white is zero
        small = 255 - small
    channels = 1 if small.ndim == 2 else 3
    rgb = np.repeat(small[..., None], 3, 2) if small.ndim == 2 else np.ascontiguousarray(small[..., :3])
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
    spacing = 500.0 * (rows + columns)
    if not UM_PER_PX[0] <= spacing <= UM_PER_PX[1]:
        return None, (f"PixelSpacing {rows:g} mm left out: expected {UM_PER_PX_WORDS}, {UM_PER_PX_MEND.split(';')[0]}",)
    return spacing, ()
