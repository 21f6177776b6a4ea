"""Metrics of a shard: one row a photograph, hard failures included, no thresholds."""

from __future__ import annotations

import logging
import multiprocessing
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.cohort.reading import UnreadablePhotograph, read_photograph
from retsam.quality.field_of_view import detect_field_of_view
from retsam.quality.metrics import METRICS, measure_quality

_log = logging.getLogger(__name__)

_TEXT = ("image_id", "status", "reason", "detail", "fov_kind", "content_hash", "perceptual_hash", "format", "eye_in_file", "notes")
_FOV = ("fov_x", "fov_y", "fov_radius", "fov_coverage", "fov_left", "fov_top", "fov_right", "fov_bottom", "fov_outside")
_WHOLE = ("width", "height", "bits", "channels")
#: Columns of a metrics table, in order.
COLUMNS = (
    "image_id", "status", "reason", "detail", "fov_kind", *_FOV, "width", "height", "um_per_px", *METRICS,
    "content_hash", "perceptual_hash", "format", "bits", "channels", "eye_in_file", "notes",
)  # fmt: skip


def measure_file(image_id: str, path: str, um_per_px: float | None = None, max_pixels: int = 80_000_000) -> dict[str, object]:
    """Read and measure one photograph; whatever is wrong with it becomes a reason in its row.

    Parameters
    ----------
    image_id, path : str
    um_per_px : float, optional
        Micrometres a pixel as the samplesheet has it; without it, the file's (DICOM).
    max_pixels : int

    Returns
    -------
    dict
        Some of `COLUMNS`; ``status`` is ``ok`` or ``failed``.
    """
    row: dict[str, object] = {"image_id": image_id, "status": "failed"}
    if um_per_px is not None and not np.isnan(um_per_px):
        row["um_per_px"] = float(um_per_px)
    try:
        photograph = read_photograph(path, max_pixels=max_pixels)
        rgb = photograph.rgb
        row |= {"format": photograph.format, "bits": photograph.bits, "channels": photograph.channels, "eye_in_file": photograph.eye}
        row |= {"notes": "; ".join(photograph.notes) or None, "height": rgb.shape[0], "width": rgb.shape[1]}
        row.setdefault("um_per_px", photograph.um_per_px)
        small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
        if int(np.ptp(small, axis=(0, 1)).max()) < 4:
            detail = f"the whole picture has one colour (about {', '.join(map(str, small.mean((0, 1)).round().astype(int)))})"
            return row | {"reason": "no_field_of_view", "detail": detail}
        return row | measure_quality(rgb, detect_field_of_view(rgb)) | {"status": "ok"}
    except UnreadablePhotograph as error:
        return row | {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return row | {
            "reason": "too_large",
            "detail": "not enough memory to decode and measure it; lower cohort.max_pixels or give more memory",
        }
    except Exception as error:  # one photograph must not end a cohort: its row says what happened
        _log.error("%s (%s): %s", image_id, path, traceback.format_exc())
        return row | {"reason": "internal_error", "detail": f"{type(error).__name__}: {error}"}


def _measure(task: tuple) -> dict[str, object]:
    return measure_file(*task)


def _start_worker() -> None:
    # Processes already fill the cores.
    cv2.setNumThreads(1)


def measure_shard(shard: pd.DataFrame, max_pixels: int = 80_000_000, jobs: int = 1, progress: bool = False) -> pd.DataFrame:
    """Measure the photographs of a shard.

    Parameters
    ----------
    shard : DataFrame
        ``image_id``, ``path`` and, if known, ``um_per_px``.
    max_pixels : int
    jobs : int
        Processes; the answer is the same for any number.
    progress : bool
        Show a bar with the time left on standard error.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row a photograph, in the order of `shard`.
    """
    spacing = shard["um_per_px"] if "um_per_px" in shard else pd.Series(np.nan, index=shard.index)
    tasks = [
        (str(i), str(p), None if pd.isna(u) else float(u), max_pixels)
        for i, p, u in zip(shard["image_id"], shard["path"], spacing, strict=True)
    ]
    rows = list(tqdm(_run(tasks, jobs), total=len(tasks), unit="image", desc="quality", disable=None if progress else True))
    return as_table(rows)


def _run(tasks: list[tuple], jobs: int) -> Iterator[dict[str, object]]:
    if jobs <= 1 or len(tasks) < 2:
        _start_worker()
        yield from map(_measure, tasks)
        return
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_start_worker) as pool:
        yield from pool.map(_measure, tasks, chunksize=4)


def as_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows as a table whose column types do not depend on what is in them (a shard of failures has the same)."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in COLUMNS:
        if name in _TEXT:
            table[name] = table[name].astype("string")
        elif name in _WHOLE:
            table[name] = pd.to_numeric(table[name]).astype("Int64")
        else:
            table[name] = pd.to_numeric(table[name]).astype("float64")
    return table
