"""Biomarkers of a cohort: mask stores in, one Parquet part a store out.

A store is measured in batches of ``images_per_task`` images, wherever the configuration's scheduler is; a worker holds one batch. An
image that cannot be read or measured is a row with a reason. A part carries the digest of its store and the settings in its metadata,
so that a stopped run goes on at the first part that is missing or out of date, and parts of different settings are not gathered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from tqdm import tqdm

from retsam._version import __version__
from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import failed_row, measure_row
from retsam.biomarkers.running import runner
from retsam.biomarkers.tables import rows_to_arrow, write_parquet
from retsam.masks.masks import Failure, Masks
from retsam.masks.store import StoreError, read_masks, store_faults

_METADATA_KEY = b"retsam"

#: Settings that change where the work runs, never its result.
_NOT_RESULT = {"scheduler", "workers", "images_per_task"}


@dataclass(frozen=True)
class Part:
    """One store and the Parquet part of its biomarkers."""

    store: Path
    out: Path


def store_digest(store: Path) -> str:
    """SHA-256 over the bytes of a mask store: other eyes, pixel sizes or planes are another store, also where no file's size tells.

    It costs nothing beside measuring: some 40 KB a photograph, for a million of them a minute of one core where measuring takes two days.
    """
    metadata = (store / "zarr.json").read_bytes()
    state = hashlib.sha256(metadata)
    for name in sorted(json.loads(metadata)["attributes"]["files"]):
        with open(store / name, "rb") as stream:
            state.update(hashlib.file_digest(stream, "sha256").digest())
    return state.hexdigest()


def origin(config: BiomarkersConfig) -> dict[str, Any]:
    """What a part depends on beside its store: the settings and the program."""
    return {"settings": config.model_dump(mode="json", exclude=_NOT_RESULT), "retsam": __version__}


def part_origin(part: Path) -> dict[str, Any] | None:
    """What a part says it was measured from (``store``, ``settings``, ``retsam``); None where it does not say.

    Raises
    ------
    OSError, pyarrow.ArrowInvalid
        If it is not a whole Parquet file.
    """
    stored = (pq.read_schema(part).metadata or {}).get(_METADATA_KEY)
    return None if stored is None else json.loads(stored)


def is_current(part: Part, config: BiomarkersConfig) -> bool:
    """Whether a part is whole and was measured from this store with these settings."""
    if not part.out.exists():
        return False
    try:
        stored = part_origin(part.out) or {}
    except (pa.ArrowInvalid, OSError):
        return False
    digest = stored.pop("store", None)
    return stored == origin(config) and digest == store_digest(part.store)


def safe_row(masks: Masks | Failure, config: BiomarkersConfig) -> dict[str, Any]:
    """:func:`measure_row`, with anything that it raises as a failed row."""
    try:
        return measure_row(masks, config)
    except Exception as error:  # noqa: BLE001 (one bad image is a row with a reason)
        return failed_row(Failure(masks.image_id, "measurement_failed", f"{type(error).__name__}: {error}", masks.eye), config)


def measure_batch(store: str, image_ids: list[str], config: BiomarkersConfig) -> pa.Table:
    """Rows of some images of a store, in the store's order; what cannot be read is a failed row."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    try:
        return rows_to_arrow([safe_row(masks, config) for masks in read_masks(store, image_ids)], config)
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 (find the image that cannot be read, below)
        rows = []
        for image_id in image_ids:
            try:
                rows += [safe_row(masks, config) for masks in read_masks(store, [image_id])]
            except Exception as error:  # noqa: BLE001 (one bad image is a row with a reason)
                rows.append(failed_row(Failure(image_id, "unreadable", f"masks: {type(error).__name__}: {error}"), config))
        return rows_to_arrow(rows, config)


def store_ids(store: Path) -> list[str]:
    """Image ids of a store, in its order."""
    return [str(image_id) for image_id in zarr.open_group(store, mode="r")["image_id"][...]]


@dataclass
class _Progress:
    """Batches of one part as they come back."""

    part: Part
    origin: dict[str, Any]
    batches: list[list[str]]
    tables: list[pa.Table | None]

    @classmethod
    def start(cls, part: Part, config: BiomarkersConfig) -> _Progress:
        ids, step = store_ids(part.store), config.images_per_task
        batches = [ids[start : start + step] for start in range(0, len(ids), step)]
        # Before it is measured: a store that is replaced meanwhile is then out of date, not taken for the one measured.
        return cls(part, {"store": store_digest(part.store), **origin(config)}, batches, [None] * len(batches))

    def finish(self) -> None:
        table = pa.concat_tables(self.tables)
        write_parquet(table.replace_schema_metadata({_METADATA_KEY: json.dumps(self.origin)}), self.part.out)
        self.tables = []


def _failed_batch(ids: list[str], error: Exception, config: BiomarkersConfig) -> pa.Table:
    """A worker that died (of memory, say) takes its batch with it."""
    failures = [Failure(image_id, "measurement_failed", f"{type(error).__name__}: {error}") for image_id in ids]
    return rows_to_arrow([failed_row(failure, config) for failure in failures], config)


def measure_stores(parts: Iterable[Part], config: BiomarkersConfig, force: bool = False, quiet: bool = False) -> list[Path]:
    """Measure mask stores, one part each; parts that are up to date stay as they are.

    Parameters
    ----------
    parts : iterable of Part
    config : BiomarkersConfig
        Threads, processes and a cluster give the same table.
    force : bool
        Measure again what is up to date.
    quiet : bool
        No progress bar.

    Returns
    -------
    list of Path
        The parts, in the order given.

    Raises
    ------
    StoreError
        If a store is not whole.
    """
    parts = list(parts)
    faults = [f"{part.store}: {fault}" for part in parts for fault in store_faults(part.store)]
    if faults:
        raise StoreError("mask stores that cannot be measured:\n  " + "\n  ".join(faults))
    todo = [_Progress.start(part, config) for part in parts if force or not is_current(part, config)]
    # Batches of all stores in one row, so that no worker waits at the end of a store.
    places = [(work, index) for work in todo for index in range(len(work.batches))]
    tasks = [(str(work.part.store), work.batches[index], config) for work, index in places]
    total = sum(len(batch) for work in todo for batch in work.batches)
    if todo:
        with runner(config) as run, tqdm(total=total, unit="eye", desc="measure", disable=quiet, smoothing=0.05) as progress:
            for number, result in run(measure_batch, tasks):
                work, index = places[number]
                if isinstance(result, StoreError):
                    raise result
                ids = work.batches[index]
                work.tables[index] = _failed_batch(ids, result, config) if isinstance(result, Exception) else result
                progress.update(len(ids))
                if all(table is not None for table in work.tables):
                    work.finish()
    return [part.out for part in parts]
