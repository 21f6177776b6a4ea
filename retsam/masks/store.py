"""The mask store: one Zarr v3 group a shard of images, bit-planes in the canonical frame.

Layout. Dimensions ``image, y, x``. One array a group of targets (:data:`retsam.segmentation.targets.STORE_GROUPS`), each target a bit
(CF ``flag_masks`` / ``flag_meanings``, which list only heads that exist); inner chunk one image, one Zarr shard an array, blosc-zstd-3
with bitshuffle. Columns over ``image`` carry identity, the affine transform to native pixels, fovea, confidence, status and reason.

A store is written under a temporary name in its own folder and renamed into place, so that a killed job leaves nothing that could be
taken for a whole store; the attribute ``complete`` and the list ``files`` (path -> bytes) catch stores that were copied in part, which
Zarr itself would read as zeros.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from retsam._version import __version__
from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks
from retsam.segmentation.targets import STORE_GROUPS, TARGETS

BLOCK = 16
"""Images expanded in memory at a time."""

DTYPES = {name: np.dtype(np.uint8 if len(targets) <= 8 else np.uint16) for name, targets in STORE_GROUPS.items()}

SHARED_ATTRIBUTES = ("weights_sha256", "thresholds", "target_status", "frame_side", "pen")
"""Attributes that must agree in stores that are opened together; older stores have no ``pen``."""

COLUMNS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "image_id": (("image",), "str", "image id"),
    "eye": (("image",), "str", "R or L; empty where unknown"),
    "status": (("image",), "str", "ok or failed; a failed image has zero planes that no reader may use"),
    "reason": (("image",), "str", "short code of a failure; empty where ok"),
    "detail": (("image",), "str", "the failure in a sentence"),
    "affine": (("image", "affine_element"), "f8", "row-major 2x3 matrix from frame px to native px, pixel-centre coordinates"),
    "native_size": (("image", "size_axis"), "i4", "height and width of the photograph, px"),
    "fov_circle": (("image", "circle_element"), "f4", "x, y and radius of the field of view, frame px"),
    "fovea": (("image", "point_axis"), "f4", "x and y, frame px; NaN where not found"),
    "fovea_confidence": (("image",), "f4", "0 to 1"),
    "um_per_px": (("image",), "f8", "micrometres per native px; NaN where unknown"),
    "confidence": (("image", "target"), "f4", "expected Dice coefficient of a head; NaN where not given"),
}
"""Column -> dimensions, type and meaning."""

LENGTHS = {"affine_element": 6, "size_axis": 2, "circle_element": 3, "point_axis": 2, "target": len(TARGETS)}


class StoreError(ValueError):
    """A mask store, or what was to be written into it, is not what it should be."""


def plane_targets(target_status: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Array name -> its bits' targets that exist, for the arrays that exist. ``fov`` always does."""
    exists = {name for name, status in target_status.items() if status != "not_available"} | {"fov"}
    groups = {group: tuple(t for t in targets if t in exists) for group, targets in STORE_GROUPS.items()}
    return {group: targets for group, targets in groups.items() if targets}


def flag_mask(target: str) -> tuple[str, int]:
    """Array and bit value of a target.

    Raises
    ------
    KeyError
        If the target has no plane (the fovea, or an unknown name).
    """
    for group, targets in STORE_GROUPS.items():
        if target in targets:
            return group, 1 << targets.index(target)
    raise KeyError(f"{target!r} has no plane; targets with planes: {', '.join(t for ts in STORE_GROUPS.values() for t in ts)}")


@dataclass
class _Rows:
    """Images packed and compressed as they come: some 20 KB each instead of a megabyte a group."""

    side: int
    groups: dict[str, tuple[str, ...]]
    columns: dict[str, list] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    packed: dict[str, list[bytes | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.packed = {group: [] for group in self.groups}

    def add(self, item: Masks | Failure) -> None:
        ok = isinstance(item, Masks)
        values: dict[str, Any] = dict(image_id=item.image_id, eye=item.eye or "")
        if ok:
            self._check(item)
            frame = item.frame
            middle = (frame.side - 1) / 2  # the frame is the square around the field of view
            values |= dict(status="ok", reason="", detail="", affine=frame.affine, native_size=(frame.native_height, frame.native_width))
            values |= dict(fov_circle=(middle, middle, frame.side / 2), fovea=item.fovea or (np.nan, np.nan))
            values |= dict(fovea_confidence=np.nan if item.fovea_confidence is None else item.fovea_confidence)
            values |= dict(um_per_px=np.nan if item.um_per_px is None else item.um_per_px)
            values |= dict(confidence=[item.confidence.get(target, np.nan) for target in TARGETS])
        else:
            values |= dict(status="failed", reason=item.reason, detail=item.detail, affine=[np.nan] * 6, native_size=(0, 0))
            values |= dict(fov_circle=[np.nan] * 3, fovea=[np.nan] * 2, fovea_confidence=np.nan, um_per_px=np.nan)
            values |= dict(confidence=[np.nan] * len(TARGETS))
        for name, column in self.columns.items():
            column.append(values[name])
        for group, targets in self.groups.items():
            self.packed[group].append(self._pack(item, group, targets) if ok else None)

    def _check(self, masks: Masks) -> None:
        found = masks.faults()
        if masks.native or masks.frame.side != self.side:
            found.append(f"frame side is {masks.frame.side}{' (native)' if masks.native else ''}; this store's is {self.side}")
        expected = {t for targets in self.groups.values() for t in targets} - {"fov"}
        if missing := sorted(expected - set(masks.planes)):
            found.append(f"no plane of {', '.join(missing)}, which target_status says are available")
        if extra := sorted(set(masks.planes) - expected):
            found.append(f"planes of {', '.join(extra)}, which target_status says are not available")
        if found:
            raise StoreError(f"masks of image {masks.image_id!r} do not fit the store: " + "; ".join(found))

    def _pack(self, masks: Masks, group: str, targets: tuple[str, ...]) -> bytes | None:
        bits = np.zeros((self.side, self.side), DTYPES[group])
        for target in targets:
            plane = masks.fov if target == "fov" else masks.planes[target]
            bits |= plane.astype(bits.dtype) << STORE_GROUPS[group].index(target)
        return blosc.compress(bits.tobytes(), b"zstd", 1, blosc.BITSHUFFLE, typesize=bits.itemsize) if bits.any() else None

    def block(self, group: str, start: int, stop: int) -> np.ndarray:
        out = np.zeros((stop - start, self.side, self.side), DTYPES[group])
        for row, data in zip(out, self.packed[group][start:stop], strict=True):
            if data is not None:
                row[:] = np.frombuffer(blosc.decompress(data), row.dtype).reshape(row.shape)
        return out


def _collect(items: Iterable[Masks | Failure], attrs: dict[str, Any]) -> tuple[_Rows, dict[str, Any]]:
    """Read the iterable once; failures that come before the first masks wait until the frame and the heads are known."""
    attrs = dict(attrs)
    rows: _Rows | None = None
    waiting: list[Failure] = []

    def start() -> _Rows:
        if not attrs.get("frame_side") or not attrs.get("target_status"):
            raise StoreError("no image of this shard has masks: give frame_side and target_status in attrs")
        started = _Rows(int(attrs["frame_side"]), plane_targets(attrs["target_status"]))
        for failure in waiting:
            started.add(failure)
        return started

    for item in items:
        if rows is None and isinstance(item, Failure):
            waiting.append(item)
            continue
        if rows is None:
            attrs["frame_side"] = attrs.get("frame_side") or item.frame.side
            attrs["target_status"] = attrs.get("target_status") or {t: item.status.get(t, "not_available") for t in TARGETS}
            rows = start()
        rows.add(item)
    rows = start() if rows is None else rows
    ids = rows.columns["image_id"]
    if not ids:
        raise StoreError("a store needs at least one image, found none")
    if twice := sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []:
        raise StoreError(f"image ids more than once in one store: {', '.join(map(repr, twice))}")
    return rows, attrs


def write_store(path: str | Path, masks: Iterable[Masks | Failure], attrs: dict[str, Any] | None = None) -> Path:
    """Write one shard's store whole, under a temporary name, and rename it into place.

    Memory stays at some 20 KB an image (compressed bit-planes) plus :data:`BLOCK` expanded images, whatever the shard's size.

    Parameters
    ----------
    path : path
        The store, ``masks/<shard>.zarr``. An older one there is replaced.
    masks : iterable of Masks or Failure
        In the order of the shard; consumed once, so it may be a generator that predicts.
    attrs : dict
        ``weights_sha256``, ``model``, ``thresholds``, ``target_status``, ``frame_side``, ``retsam_version`` and whatever else JSON
        holds. ``target_status`` and ``frame_side`` are taken from the first masks where not given.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        If masks contradict the contract or each other, an id occurs twice, there is no image, or something else than a mask store lies at
        the path.
    """
    path = Path(path)
    _spare_others(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    rows, attrs = _collect(masks, attrs or {})
    for name in ("weights_sha256", "model", "thresholds"):
        attrs.setdefault(name, None)
    attrs.setdefault("retsam_version", __version__)
    temporary = path.parent / f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}"
    try:
        _write(temporary, rows, attrs)
        _synchronise(temporary)
        _rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _write(temporary: Path, rows: _Rows, attrs: dict[str, Any]) -> None:
    n, side = len(rows.columns["image_id"]), rows.side
    root = zarr.create_group(temporary, zarr_format=3, overwrite=True)
    codec = BloscCodec(typesize=None, cname="zstd", clevel=3, shuffle="bitshuffle")
    for group, targets in rows.groups.items():
        array = root.create_array(
            group, shape=(n, side, side), chunks=(1, side, side), shards=(n, side, side), dtype=DTYPES[group], fill_value=0,
            compressors=codec, dimension_names=("image", "y", "x"),
            attributes={
                "flag_masks": [flag_mask(target)[1] for target in targets],
                "flag_meanings": " ".join(targets),
                "long_name": f"bit-planes of {group}",
            },
        )  # fmt: skip
        for start in range(0, n, BLOCK):  # inner chunks are added to the one shard; none is decoded again
            stop = min(start + BLOCK, n)
            array[start:stop] = rows.block(group, start, stop)
    for name, (dimensions, kind, meaning) in COLUMNS.items():
        dtype = np.dtypes.StringDType() if kind == "str" else np.dtype(kind)
        shape = (n, *(LENGTHS[d] for d in dimensions[1:]))
        values = np.array(rows.columns[name], dtype=dtype).reshape(shape)
        column = root.create_array(
            name, shape=shape, dtype=dtype, chunks=shape, dimension_names=dimensions, compressors=ZstdCodec(level=3),
            attributes={"long_name": meaning},
        )  # fmt: skip
        column[...] = values
    names = np.array(TARGETS, dtype=np.dtypes.StringDType())
    root.create_array("target", data=names, chunks=names.shape, dimension_names=("target",))
    files = {str(f.relative_to(temporary)): f.stat().st_size for f in sorted(temporary.rglob("*")) if f.is_file() and f.name != "zarr.json"}
    root.attrs.update({**attrs, "coordinates": " ".join(COLUMNS), "files": files, "complete": True})
    with warnings.catch_warnings():  # consolidated metadata is what xarray reads in one request; the text of Zarr v3 does not name it yet
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        zarr.consolidate_metadata(temporary, zarr_format=3)


def _synchronise(folder: Path) -> None:
    """Flush files, then folders, to disk: a rename that survives a power cut must not point at empty files."""
    for item in [*folder.rglob("*"), folder]:
        handle = os.open(item, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _rename(temporary: Path, path: Path) -> None:
    aside = path.parent / f".{path.name}.old-{socket.gethostname()}-{os.getpid()}"
    if path.exists():  # a folder cannot be renamed over a full one
        os.rename(path, aside)
    os.rename(temporary, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def _spare_others(path: Path) -> None:
    """Refuse a path at which something else lies than the older store that would be replaced."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() and not _is_mask_store(path):
        what = "a folder of other files" if path.is_dir() else "a file"
        raise StoreError(f"{path}: expected nothing there or an older mask store to replace, found {what}; choose another name")


def _is_mask_store(path: Path) -> bool:
    try:
        return "weights_sha256" in json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of this store left here, unless they may still run (other host, or living process)."""
    host = socket.gethostname()
    for kind in ("tmp", "old"):
        for left in path.parent.glob(f".{path.name}.{kind}-{host}-*"):
            process = left.name.rsplit("-", 1)[1]
            if process.isdigit() and (int(process) == os.getpid() or not _alive(int(process))):
                shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def store_faults(path: str | Path) -> list[str]:
    """Why a path is not a whole mask store, one sentence each; empty for a whole one. Reads metadata and file sizes only."""
    path = Path(path)
    try:
        metadata = json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError) as error:
        return [f"{path}: no readable zarr.json ({error}); expected a mask store as written by `retsam segment`"]
    attributes = metadata.get("attributes", {})
    if attributes.get("complete") is not True or "consolidated_metadata" not in metadata:
        return [f"{path}: not marked complete, so its writing was cut short; segment this shard again"]
    found = []
    for name, size in attributes.get("files", {}).items():
        actual = (path / name).stat().st_size if (path / name).exists() else None
        if actual != size:
            has = "is missing" if actual is None else f"has {actual} bytes"
            found.append(f"{path}: {name} {has}, expected {size} bytes; copy the store again, or segment this shard again")
    return found


def _require_whole(paths: list[Path]) -> None:
    if faults := [fault for path in paths for fault in store_faults(path)]:
        raise StoreError("mask stores that cannot be used:\n  " + "\n  ".join(faults))


def open_stores(paths: Iterable[str | Path], chunk: int | None = None) -> xr.Dataset:
    """Open a cohort's stores as one lazy data set.

    Parameters
    ----------
    paths : iterable of path
    chunk : int, optional
        Images a Dask chunk; a whole shard where not given.

    Returns
    -------
    xarray.Dataset
        Bit-planes ``[image, y, x]`` as Dask arrays, the columns in memory as coordinates; ``shard`` names each image's store.

    Raises
    ------
    StoreError
        With all faults at once: stores that are not whole, come from different weights, thresholds or frames, or share image ids.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise StoreError("no mask store given")
    _require_whole(paths)
    sets = []
    for path in paths:
        with warnings.catch_warnings():
            # a chunk smaller than the Zarr shard is meant: inner chunks are read one by one
            warnings.filterwarnings("ignore", message="The specified chunks separate", category=UserWarning)
            opened = xr.open_zarr(path, chunks={"image": chunk or -1}, consolidated=True)
        columns = {name: opened[name].load() for name in COLUMNS}
        opened = opened.assign_coords(columns).assign_coords(shard=("image", [path.name.removesuffix(".zarr")] * opened.sizes["image"]))
        sets.append(opened)
    faults = []
    for name in SHARED_ATTRIBUTES:
        known = [(path, ds.attrs.get(name)) for path, ds in zip(paths, sets, strict=True) if name != "pen" or name in ds.attrs]
        if differing := [str(path) for path, value in known if value != known[0][1]]:
            faults.append(f"{name} of {', '.join(differing)} differs from that of {known[0][0]}")
    faults += _shared_ids([ds.image_id.values for ds in sets])
    if faults:
        raise StoreError(_APART + "\n  ".join(faults))
    keep_first = dict(data_vars="minimal", coords="minimal", compat="override", join="override", combine_attrs="override")
    joined = xr.concat(sets, dim="image", **keep_first)
    joined.attrs.pop("files", None)
    return joined


_APART = "mask stores that do not belong together:\n  "


def _shared_ids(ids: list[np.ndarray]) -> list[str]:
    unique, counts = np.unique(np.concatenate(ids), return_counts=True)
    return [f"image ids in more than one store: {', '.join(map(str, unique[counts > 1][:10]))}"] if (counts > 1).any() else []


def image_ids(paths: Iterable[str | Path]) -> list[list[str]]:
    """Ids of the images of every store.

    Raises
    ------
    StoreError
        If a store is not whole, or stores share image ids.
    """
    paths = [Path(path) for path in paths]
    _require_whole(paths)
    ids = [zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=True)["image_id"][...] for path in paths]
    if ids and (faults := _shared_ids(ids)):
        raise StoreError(_APART + "\n  ".join(faults))
    return [list(map(str, column)) for column in ids]


def plane(dataset: xr.Dataset, target: str) -> xr.DataArray:
    """One target of opened stores as a lazy bool array ``[image, y, x]``.

    Raises
    ------
    KeyError
        If the head is not available in these stores.
    """
    group, bit = flag_mask(target)
    if group not in dataset or target not in dataset[group].attrs["flag_meanings"].split():
        raise KeyError(f"{target!r} is not_available in these stores")
    return ((dataset[group] & bit) != 0).rename(target)


def read_masks(path: str | Path, image_ids: Iterable[str] | None = None) -> Iterator[Masks | Failure]:
    """Read one store image by image, one at a time in memory.

    Parameters
    ----------
    path : path
    image_ids : iterable of str, optional
        Only these, in the store's order.

    Raises
    ------
    StoreError
        If the store is not whole, or an asked id is not in it.
    """
    path = Path(path)
    _require_whole([path])
    root = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=True)
    columns = {name: root[name][...] for name in COLUMNS}
    ids = [str(i) for i in columns["image_id"]]
    rows = range(len(ids))
    if image_ids is not None:
        wanted = set(image_ids)
        if unknown := sorted(wanted - set(ids)):
            raise StoreError(f"{path}: no image {', '.join(map(repr, unknown))}")
        rows = [i for i, name in enumerate(ids) if name in wanted]
    status = dict(root.attrs["target_status"])
    side = int(root.attrs["frame_side"])
    groups = {name: root[name] for name in plane_targets(status)}
    for i in rows:  # one inner chunk at a time; a list of rows as index is ten times slower
        bits = {name: array[i] for name, array in groups.items()} if columns["status"][i] == "ok" else {}
        yield _row(columns, i, bits, status, side)


def _row(columns: dict[str, np.ndarray], i: int, bits: dict[str, np.ndarray], status: dict[str, str], side: int) -> Masks | Failure:
    image_id, eye = str(columns["image_id"][i]), str(columns["eye"][i]) or None
    if columns["status"][i] != "ok":
        return Failure(image_id, str(columns["reason"][i]), str(columns["detail"][i]), eye)
    planes = {t: (bits[group] & flag_mask(t)[1]) != 0 for group, targets in plane_targets(status).items() for t in targets}
    height, width = columns["native_size"][i]
    fovea = columns["fovea"][i]
    known = {name: None if np.isnan(columns[name][i]) else float(columns[name][i]) for name in ("fovea_confidence", "um_per_px")}
    return Masks(
        fov=planes.pop("fov"),
        planes=planes,
        frame=Frame.from_affine(columns["affine"][i], side, int(height), int(width)),
        fovea=None if np.isnan(fovea).any() else (float(fovea[0]), float(fovea[1])),
        eye=eye,
        image_id=image_id,
        status=status,
        confidence={t: float(v) for t, v in zip(TARGETS, columns["confidence"][i], strict=True) if not np.isnan(v)},
        **known,
    )
