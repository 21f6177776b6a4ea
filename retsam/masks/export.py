"""Masks as PNG at the size of the photograph, for other programs and for eyes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image

from retsam.masks.masks import Failure, Masks
from retsam.masks.store import StoreError, image_ids, read_masks

AV_COLOURS = ((0, 0, 0), (220, 40, 40), (40, 80, 230), (200, 60, 220))
"""Of ``av.png``: 0 background, 1 artery, 2 vein, 3 both (a crossing)."""
DISC_CUP_COLOURS = ((0, 0, 0), (250, 220, 60), (240, 120, 30))
"""Of ``disc_cup.png``: 0 background, 1 disc outside the cup, 2 cup."""
LESION_BITS = {"microaneurysm": 1, "hemorrhage": 2, "hard_exudate": 4, "cotton_wool_spot": 8}
"""Of ``lesions.png``, a grey PNG of bits: lesions may overlap."""
MEASURED = ("artery", "vein", "vessel", "fov", "disc_cup", "lesions")
"""Of the files, those that ``retsam measure --masks`` reads, and that ``masks.csv`` lists."""


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

    ``<target>.png`` (0 or 255) for every head that exists, ``fov.png``, and of native size too: ``av.png`` (index colour) where artery and
    vein are asked for; ``disc_cup.png`` (index colour) where one of disc and cup is asked for and both exist; ``lesions.png`` (bits) where
    all four of its lesions are asked for. A file of several targets is not written without one of them: it would say that it is absent.

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
        One row: file names (relative to ``folder``), fovea in native px.

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
    if {"disc", "cup"} & set(wanted) and {"disc", "cup"} <= set(planes):
        row["disc_cup"] = _save(folder / "disc_cup.png", disc_cup_index(planes["disc"], planes["cup"]), DISC_CUP_COLOURS)
    if set(LESION_BITS) <= set(wanted):
        bits = np.zeros(planes["fov"].shape, np.uint8)
        for target, bit in LESION_BITS.items():
            bits |= planes[target].astype(np.uint8) * np.uint8(bit)
        row["lesions"] = _save(folder / "lesions.png", bits)
    fovea = (np.nan, np.nan) if masks.fovea is None else masks.frame.to_native(masks.fovea)
    return row | {"fovea_x": float(fovea[0]), "fovea_y": float(fovea[1]), "um_per_px": masks.um_per_px}


def folder_name(image_id: str) -> str:
    """A name for one folder that is different for different ids, whatever they contain."""
    return quote(image_id, safe=" ()+,=@") if image_id.strip(".") else image_id.replace(".", "%2E")


def export_stores(
    stores: Iterable[str | Path], out: str | Path, image_ids: Iterable[str] | None = None, targets: Iterable[str] | None = None
) -> pd.DataFrame:
    """Export chosen images of several stores into ``out/<image_id>/``, with the tables ``out/masks.csv`` and ``out/files.csv``.

    ``masks.csv`` is what ``retsam measure --masks`` reads: the files that it can measure (:data:`MEASURED`), fovea, micrometres per pixel.
    ``files.csv`` lists the other files.

    Returns
    -------
    pandas.DataFrame
        The rows of ``masks.csv``: one an image, with ``status`` and, of a failed one, ``reason`` and ``detail``; paths relative to ``out``.

    Raises
    ------
    StoreError
        If an asked image is in none of the stores, a store is not whole, or stores share image ids. Nothing is written then.
    """
    out, stores = Path(out), list(stores)
    targets = None if targets is None else list(targets)
    rows, others = [], []
    for store, chosen in _chosen(stores, image_ids):
        for item in read_masks(store, chosen):
            known = {"image_id": item.image_id, "eye": item.eye}
            if isinstance(item, Failure):
                rows.append({**known, "status": "failed", "reason": item.reason, "detail": item.detail})
                continue
            name = folder_name(item.image_id)
            row = export_masks(item, out / name, targets)
            files = {key: f"{name}/{value}" for key, value in row.items() if key not in known and isinstance(value, str)}
            rest = {key: value for key, value in row.items() if key not in files}
            rows.append({**rest, **{key: path for key, path in files.items() if key in MEASURED}, "status": "ok", "reason": None})
            others += [{**known, "file": key, "path": path} for key, path in files.items() if key not in MEASURED]
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(others, columns=["image_id", "eye", "file", "path"]).to_csv(out / "files.csv", index=False)
    table = pd.DataFrame(rows)
    table.to_csv(out / "masks.csv", index=False)
    return table


def _chosen(stores: list[str | Path], wanted: Iterable[str] | None) -> list[tuple[str | Path, set[str]]]:
    """Stores, and those of the asked images that lie in each."""
    ids = [set(held) for held in image_ids(stores)]
    if wanted is not None:
        wanted = set(wanted)
        if missing := sorted(wanted - set().union(*ids)):
            raise StoreError(f"no store has image {', '.join(map(repr, missing))}")
        ids = [held & wanted for held in ids]
    return [(store, held) for store, held in zip(stores, ids, strict=True) if held]
