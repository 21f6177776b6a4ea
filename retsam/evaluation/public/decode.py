"""Decoding the masks of public data sets into those of the manifest. Every decoder is a function of the image's size.

Decoders raise OSError where a file is missing or damaged, ValueError where it is not what its owners publish; the message names the file.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat
from skimage.draw import polygon2mask

Decoder = Callable[[tuple[int, int]], np.ndarray | None]
"""None: the file says nothing about this column."""


class DamagedFile(OSError):
    """A file is there and cannot be read; the message names it and says why."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into :class:`DamagedFile`; a missing file stays FileNotFoundError.

    Libraries raise nearly anything over a file that was cut short (EOFError, zlib.error, SyntaxError, KeyError, struct.error ...), so
    only the reading itself may stand inside.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise DamagedFile(f"{path}: expected {what}, its format is none that is known") from error
    except Exception as error:
        reason = str(error).strip() or "it ends too early"
        raise DamagedFile(f"{path}: expected {what}, it cannot be read ({type(error).__name__}: {reason})") from error


def unpacked(path: Path) -> bytes:
    """A file's content, gunzipped where it ends in ``.gz``."""
    data = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return data
    with reading(path, "a gzipped file"):
        return gzip.decompress(data)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a photograph, from its header."""
    with reading(path, "a photograph"), Image.open(path) as image:
        return image.height, image.width


def read_picture(path: Path, mode: str) -> np.ndarray:
    """A mask file (PNG, BMP, TIFF, GIF, PPM, also gzipped) as ``L`` or ``RGB``.

    Raises
    ------
    OSError
        If it is missing or unreadable.
    """
    data = unpacked(path)
    with reading(path, "a mask"), Image.open(io.BytesIO(data)) as image:
        if mode == "L" and image.mode == "P":  # palette indices are the labels; their colours are for eyes
            palette = np.asarray(image.getpalette() or [], np.uint8)
            grey = palette.size and (palette.reshape(-1, 3) == palette.reshape(-1, 3)[:, :1]).all()
            return np.asarray(image.convert("L") if grey else image)
        return np.asarray(image.convert(mode))


def _sized(mask: np.ndarray, shape: tuple[int, int], path: Path) -> np.ndarray:
    if mask.shape[:2] != tuple(shape):
        raise ValueError(f"{path}: expected {shape[1]}x{shape[0]} px like its photograph, found {mask.shape[1]}x{mask.shape[0]}")
    return mask


def _binary(path: Path, shape) -> np.ndarray:
    mask = _sized(read_picture(path, "L"), shape, path)
    return np.where(mask > mask.max() / 2, 255, 0).astype(np.uint8)


def binary(path: Path) -> Decoder:
    """0 or not (0/1 or 0/255, edges smoothed or not): above half of the highest value."""
    return partial(_binary, path)


def _against_border(path: Path, shape) -> np.ndarray:
    mask = _sized(read_picture(path, "L"), shape, path) >= 128
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return np.where(mask != (border.mean() > 0.5), 255, 0).astype(np.uint8)


def against_border(path: Path) -> Decoder:
    """Black on white or white on black: what differs from the picture's border. The iChallenge sets are published both ways."""
    return partial(_against_border, path)


def _labels(mask: np.ndarray, mapping: tuple[tuple[int, int], ...], path: Path) -> np.ndarray:
    """Values -> labels, refusing values that have none: another encoding read as this one shows something that nobody drew."""
    known = [value for value, _ in mapping]
    if not np.isin(mask, known).all():
        found = np.unique(mask)
        shown = ", ".join(map(str, found[:8].tolist())) + (" ..." if len(found) > 8 else "")
        raise ValueError(f"{path}: expected the values {', '.join(map(str, sorted(known)))}, found {shown}")
    out = np.zeros(mask.shape, np.uint8)
    for value, label in mapping:
        out[mask == value] = label
    return out


def _index(path: Path, mapping: tuple[tuple[int, int], ...], shape) -> np.ndarray:
    return _labels(_sized(read_picture(path, "L"), shape, path), mapping, path)


DISC_AND_CUP = {0: 0, 1: 1, 2: 2}
REFUGE_GREYS = {255: 0, 128: 1, 0: 2}


def index(path: Path, mapping: dict[int, int]) -> Decoder:
    """Grey values or palette indices -> labels; a value without a label is refused."""
    return partial(_index, path, tuple(mapping.items()))


def _with_cup(decoder: Decoder, shape) -> np.ndarray | None:
    mask = decoder(shape)
    return mask if mask is not None and (mask == 2).any() else None


def with_cup(decoder: Decoder) -> Decoder:
    """Disc and cup where a cup is drawn: a cup that nobody drew is not an absent one."""
    return partial(_with_cup, decoder)


def _disc_and_cup(disc: Path, cup: Path, share: float, shape) -> np.ndarray:
    planes = [_sized(read_picture(p, "L"), shape, p) for p in (disc, cup)]
    # Relative to the highest value in files of 0 and 1 only: where no pixel has all experts, a map's highest value is less than all.
    is_disc, is_cup = (p >= share * (255 if p.max() > 1 else 1) for p in planes)
    return np.where(is_disc | is_cup, np.where(is_cup, 2, 1), 0).astype(np.uint8)


def disc_and_cup(disc: Path, cup: Path, share: float = 0.5) -> Decoder:
    """Two masks -> 0, 1, 2; ``share`` of the experts in soft maps (255, or 1 in a file of 0 and 1, is all of them)."""
    return partial(_disc_and_cup, disc, cup, share)


def _contours(disc: Path | None, cup: Path | None, shape) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    for path, label in ((disc, 1), (cup, 2)):
        if path is not None:
            with reading(path, "a contour, lines of x and y"):
                points = np.loadtxt(path, ndmin=2)[:, :2]
            if len(points) < 3 or points.shape[1] < 2:
                found = f"{points.shape[0]} lines of {points.shape[1]} numbers"
                raise ValueError(f"{path}: expected a contour, lines of x and y, found {found}")
            out[polygon2mask(shape, points[:, ::-1])] = label  # pixels whose centre is inside
    return out


def contours(disc: Path | None, cup: Path | None = None) -> Decoder:
    """Contours, a text line ``x y`` a point, filled -> 0, 1, 2."""
    return partial(_contours, disc, cup)


def _mat(path: Path, name: str, shape) -> np.ndarray:
    with reading(path, "a MATLAB file"):
        content = loadmat(path)
    if name not in content:
        raise ValueError(f"{path}: expected a variable {name!r}, found {', '.join(k for k in content if not k.startswith('_'))}")
    mask = np.asarray(content[name])
    if mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected {name!r} to be a matrix of numbers, found {mask.ndim} dimensions of {mask.dtype}")
    return _labels(_sized(mask, shape, path), tuple(DISC_AND_CUP.items()), path)


def mat(path: Path, name: str = "mask") -> Decoder:
    """Index mask (0, 1, 2) of a MATLAB file."""
    return partial(_mat, path, name)


def _artery_vein(path: Path, shape) -> np.ndarray:
    rgb = _sized(read_picture(path, "RGB"), shape, path) >= 128
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    out = np.zeros(red.shape, np.uint8)
    out[red & ~blue & ~green], out[blue & ~red & ~green] = 1, 2
    out[green & ~red & ~blue], out[red & green & blue] = 3, 4
    return out


def artery_vein(path: Path) -> Decoder:
    """RITE, LES-AV: red artery, blue vein, green crossing, white uncertain -> 1, 2, 3, 4."""
    return partial(_artery_vein, path)


def _any_vessel(path: Path, shape) -> np.ndarray:
    return np.where((_sized(read_picture(path, "RGB"), shape, path) >= 128).any(-1), 255, 0).astype(np.uint8)


def any_vessel(path: Path) -> Decoder:
    """Any colour of an artery/vein mask -> vessel."""
    return partial(_any_vessel, path)


def _lesions(parts: tuple[tuple[Path, int], ...], shape) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    for path, bit in parts:
        out |= np.where(_binary(path, shape) > 0, bit, 0).astype(np.uint8)
    return out


def lesions(parts: dict[Path, int]) -> Decoder:
    """One mask file a lesion -> bits; lesions without a file are absent."""
    return partial(_lesions, tuple(parts.items()))
