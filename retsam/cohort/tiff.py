"""Photographs in TIFF files: which page, which planes, how deep."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import tifffile
from PIL import Image

from retsam.cohort.photograph import (
    DECODE_ERRORS,
    Photograph,
    UnreadablePhotograph,
    check_size,
    failed,
    from_pillow,
    on_black,
    to_eight_bits,
    upright,
)

_GREY = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
_PLANES = "{name} holds {n} grey pages of {w}x{h} px, as if a picture's colours were kept apart; save it as one RGB picture"
_SEVERAL = "{name} holds {n} pictures more than half as large as the largest ({w}x{h} px); split it, one file each"
# Pages that differ by less than this factor in area are pictures of their own, not previews.
_PREVIEW = 0.5


def read_tiff(data: bytes, name: str, max_pixels: int) -> Photograph:
    """Decode the largest page of a TIFF; see `retsam.cohort.reading.read_photograph`.

    Header and pages are read by tifffile, which knows every layout, pixels by Pillow where they have 8 bits a sample. Pages that are
    marked as reduced copies or masks are passed over.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            pages = list(tiff.pages)
            number = _main_page(pages, name)
            page = pages[number]
            check_size(page.imagewidth, page.imagelength, name, max_pixels)
            depth, dtype = page.bitspersample, page.dtype
            if dtype is None or dtype.kind not in "ub" or depth > 16:
                raise UnreadablePhotograph("unsupported_pixels", f"{name} has {dtype} samples; expected 8 or 16 bits, unsigned")
            # Pillow keeps 8 bits of CMYK, which serve; of other colours too, which lose pictures that fill only the lower bits.
            deep = depth > 8 and page.photometric != tifffile.PHOTOMETRIC.SEPARATED
            image = _open(data, name, number, page, deep)
            photograph = _deep(data, page, image, name) if deep else from_pillow(image, name, "TIFF")
    except (*DECODE_ERRORS, tifffile.TiffFileError) as error:
        raise failed(error, name) from error
    notes = (f"page {number + 1} of {len(pages)} taken, the largest",) if len(pages) > 1 else ()
    return replace(photograph, notes=(*notes, *photograph.notes))


def _main_page(pages: list[tifffile.TiffPage], name: str) -> int:
    """Number of the page that holds the photograph."""
    whole = [i for i, p in enumerate(pages) if not (p.is_reduced or p.is_mask)] or list(range(len(pages)))
    area = {i: pages[i].imagewidth * pages[i].imagelength for i in whole}
    best = max(whole, key=area.__getitem__)
    large = [i for i in whole if area[i] > _PREVIEW * area[best]]
    if len(large) > 1:
        w, h = pages[best].imagewidth, pages[best].imagelength
        planes = len(large) in (3, 4) and all(
            (p.imagewidth, p.imagelength) == (w, h) and p.samplesperpixel == 1 and p.photometric in _GREY for p in (pages[i] for i in large)
        )
        raise UnreadablePhotograph("multi_frame", (_PLANES if planes else _SEVERAL).format(name=name, n=len(large), w=w, h=h))
    return best


def _open(data: bytes, name: str, number: int, page: tifffile.TiffPage, deep: bool) -> Image.Image | None:
    """A page as Pillow decodes it, which notices where a file ends early; None for deep pages that Pillow does not know."""
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
        image.seek(number)
        image.load()
        return image
    except Image.DecompressionBombError as error:
        raise UnreadablePhotograph("too_large", f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        if deep and len(data) >= max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            return None
        raise UnreadablePhotograph(
            "unsupported_pixels", f"{name}: a kind of TIFF that does not decode ({page.photometric.name})"
        ) from error


def _deep(data: bytes, page: tifffile.TiffPage, image: Image.Image | None, name: str) -> Photograph:
    """A page of 9 to 16 bits a sample."""
    if page.photometric not in (*_GREY, tifffile.PHOTOMETRIC.RGB):
        raise UnreadablePhotograph("unsupported_pixels", f"{name} has 16-bit {page.photometric.name} pixels; expected grey or RGB")
    samples, turned = _samples(data, page, image, name)
    extra = samples[..., -1] if samples.ndim == 3 and samples.shape[2] in (2, 4) else None
    colour = samples if samples.ndim == 2 else samples[..., : 1 if samples.shape[2] < 3 else 3].squeeze()
    # MINISWHITE is turned round in the depth that is stated, so it is never guessed.
    white = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    bits = _stated_bits(page) or (page.bitspersample if white else None)
    small, bits, *notes = to_eight_bits(colour, bits)
    small = 255 - small if white else small
    rgb = np.repeat(small[..., None], 3, 2) if small.ndim == 2 else small
    if extra is not None and page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.UNASSALPHA:
        rgb = on_black(np.dstack([rgb, to_eight_bits(extra)[0]]))
        notes.append("alpha laid on black")
    orientation = page.tags.valueof(274, default=1)
    picture, rotated = (Image.fromarray(rgb), ()) if turned else upright(Image.fromarray(rgb), orientation)
    return Photograph(np.asarray(picture), None, bits, 1 if small.ndim == 2 else 3, "TIFF", None, (*notes, *rotated))


def _stated_bits(page: tifffile.TiffPage) -> int | None:
    """Significant bits that the file tells: samples packed by fewer than 16, or ``MaxSampleValue``."""
    if page.bitspersample < 16:
        return page.bitspersample
    value = page.tags.valueof(281)
    highest = int(np.max(value)) if value is not None else 0
    return highest.bit_length() if 255 < highest <= 65535 else None


def _samples(data: bytes, page: tifffile.TiffPage, image: Image.Image | None, name: str) -> tuple[np.ndarray, bool]:
    """Samples ``[H, W]`` or ``[H, W, channels]``, red first, and whether the decoder has turned them upright."""
    if image is not None and image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), True
    try:
        samples = page.asarray().astype(np.uint16)
        planar = samples.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        return (np.moveaxis(samples, 0, 2) if planar else samples), False
    except ValueError as error:
        # tifffile leaves some compressions to a package that is none of ours; OpenCV knows them, in the first page and in mixed planes.
        samples = None
        if page.index == 0 and page.planarconfig != tifffile.PLANARCONFIG.SEPARATE:
            samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.dtype != np.uint16:
            how = f"16-bit samples in {page.planarconfig.name.lower()} planes, compressed by {page.compression.name}"
            raise UnreadablePhotograph("unsupported_pixels", f"{name} has {how}; save it uncompressed") from error
        return (samples[..., [2, 1, 0, 3][: samples.shape[2]]] if samples.ndim == 3 else samples), True
