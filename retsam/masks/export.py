"""Masks as PNG at the size of the photograph, for other programs and for eyes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import zarr
from PIL import Image

from retsam.masks.masks import Failure, Masks
from retsam.masks.store import StoreError, read_masks, store_faults

AV_COLOURS = ((0, 0, 0), (220, 40, 40), (40, 80, 230), (200, 60, 220))
"""Of ``av.png``: 0 background, 1 artery, 2 vein, 3 both (a crossing)."""
DISC_CUP_COLOURS = ((0, 0, 0), (250, 220, 60), (240, 120, 30))
"""Of ``disc_cup.png``: 0 background, 1 disc outside the cup, 2 cup."""
LESION_BITS = {"microaneurysm": 1, "hemorrhage": 2, "hard_exudate": 4, "cotton_wool_spot": 8}
"""Of ``lesions.png``, a grey PNG of bits: lesions may overlap."""


def native_planes(masks: Masks) -> dict[str, np.ndarray]:
    """Every plane and the field of view at native size, ``bool [native_height, native_width]``."""
    planes = {**masks.planes, "fov": masks.fov}
    return planes if masks.native else {name: masks.frame.unwarp(plane, 0).astype(bool) for name, plane in planes.items()}


def artery_vein_index(artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """``uint8``: 1 artery, 2 vein, 3 both."""
    return artery.astype(np.uint8) | vein.astype(np.uint8) << 1


def disc_cup_index(disc: np.ndarray, cup: np.ndarray) -> np.ndarray:
    """``uint8``: 1 disc outside the cup, 2 cup (cup counts only inside the disc)."""
    return np.where(disc, np.where(cup, 2, 1), 0).astype(np.uint8)


def _save(path: Path, values: np.ndarray, colours: tuple[tuple[int, int, int], ...] = ()) -> str:
    image = Image.fromarray(values.astype(np.uint8) * 255 if values.dtype == bool else values, "L")
    if colours:
        image = image.convert("P") if image.mode != "L" else Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([channel for colour in colours for channel in colour])
    image.save(path, optimize=False)
    return path.name


def export_masks(masks: Masks, folder: str | Path, targets: Iterable[str] | None = None) -> dict[str, object]:
    """Write one photograph's masks.

    ``<target>.png`` (0 or 255) for every head that exists, ``fov.png``, and where the heads exist and are asked for ``av.png`` and
    ``disc_cup.png`` (index colour) and ``lesions.png`` (bits), all of native size.

    Parameters
    ----------
    masks : Masks
    folder : path
        Created; files of the same name are replaced.
    targets : iterable of str, optional
        Only these.

    Returns
    -------
    dict
        One row of the table that ``retsam measure --masks`` reads: file names (relative to ``folder``), fovea in native px.

    Raises
    ------
    KeyError
        If an asked target has no plane.
    """
    folder = Path(folder)
    wanted = list(masks.planes) if targets is None else list(targets)
    if absent := [t for t in wanted if t not in masks.planes]:
        raise KeyError(f"no plane of {', '.join(absent)} for image {masks.image_id!r}; it has {', '.join(masks.planes)}")
    folder.mkdir(parents=True, exist_ok=True)
    planes = native_planes(masks)
    row: dict[str, object] = {"image_id": masks.image_id, "eye": masks.eye}
    row |= {name: _save(folder / f"{name}.png", planes[name]) for name in (*wanted, "fov")}
    if {"artery", "vein"} <= set(wanted):
        row["av"] = _save(folder / "av.png", artery_vein_index(planes["artery"], planes["vein"]), AV_COLOURS)
    if {"disc", "cup"} <= set(wanted):
        row["disc_cup"] = _save(folder / "disc_cup.png", disc_cup_index(planes["disc"], planes["cup"]), DISC_CUP_COLOURS)
    if lesions := [t for t in LESION_BITS if t in wanted]:
        bits = np.zeros(planes["fov"].shape, np.uint8)
        for target in lesions:
            bits |= planes[target].astype(np.uint8) * np.uint8(LESION_BITS[target])
        row["lesions"] = _save(folder / "lesions.png", bits)
    fovea = (np.nan, np.nan) if masks.fovea is None else masks.frame.to_native(masks.fovea)
    return row | {"fovea_x": float(fovea[0]), "fovea_y": float(fovea[1]), "um_per_px": masks.um_per_px}


def folder_name(image_id: str) -> str:
    """A name for one folder that is different for different ids, whatever they contain."""
    return quote(image_id, safe=" ()+,=@") if image_id.strip(".") else image_id.replace(".", "%2E")


def export_stores(
    stores: Iterable[str | Path], out: str | Path, image_ids: Iterable[str] | None = None, targets: Iterable[str] | None = None
) -> pd.DataFrame:
    """Export chosen images of several stores into ``out/<image_id>/`` and list them in ``out/masks.csv``.

    Returns
    -------
    pandas.DataFrame
        The rows of ``masks.csv``: one an image, with ``status`` and, of a failed one, ``reason`` and ``detail``; paths relative to ``out``.

    Raises
    ------
    StoreError
        If an asked image is in none of the stores, or a store is not whole.
    """
    out = Path(out)
    wanted = None if image_ids is None else set(image_ids)
    targets = None if targets is None else list(targets)
    rows = []
    for store in stores:
        for item in _chosen(store, wanted):
            if isinstance(item, Failure):
                rows.append({"image_id": item.image_id, "eye": item.eye, "status": "failed", "reason": item.reason, "detail": item.detail})
                continue
            name = folder_name(item.image_id)
            row = export_masks(item, out / name, targets)
            files = {key: f"{name}/{value}" for key, value in row.items() if key not in ("image_id", "eye") and isinstance(value, str)}
            rows.append({**row, **files, "status": "ok", "reason": None})
    if wanted is not None and (missing := sorted(wanted - {row["image_id"] for row in rows})):
        raise StoreError(f"no store has image {', '.join(map(repr, missing))}")
    table = pd.DataFrame(rows)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "masks.csv", index=False)
    return table


def _chosen(store: str | Path, wanted: set[str] | None) -> Iterator[Masks | Failure]:
    """Those of the asked images that lie in this store."""
    if wanted is None or store_faults(store):  # reading says what the faults are
        yield from read_masks(store)
        return
    ids = set(map(str, zarr.open_group(store, mode="r")["image_id"][...]))
    if ids & wanted:
        yield from read_masks(store, ids & wanted)
