"""Segment one shard of a cohort into one mask store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import pandas as pd
import torch
from tqdm import tqdm

from retsam.cohort.reading import UnreadablePhotograph, read_photograph
from retsam.masks.masks import Failure, Masks
from retsam.masks.store import write_store
from retsam.quality.field_of_view import FieldOfView
from retsam.segmentation.config import SegmentationConfig
from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.predict import PreparedImage, Segmenter, prepare

log = logging.getLogger(__name__)


def segment_shard(
    shard: pd.DataFrame,
    metrics: pd.DataFrame,
    out: Path,
    config: SegmentationConfig,
    max_pixels: int,
    segmenter: Segmenter | None = None,
    progress: bool = True,
) -> Path:
    """Segment every readable photograph of a shard.

    Photographs are read and put in their frames by threads ahead of the network. A photograph that quality control could not read, or
    that fails here, is a row of the store with its reason.

    Parameters
    ----------
    shard : DataFrame
        ``image_id``, ``path``, and where known ``eye`` and ``um_per_px``.
    metrics : DataFrame
        Quality metrics of the same images (``status``, ``reason``, ``fov_*``).
    out : Path
        Store to write.
    config : SegmentationConfig
    max_pixels : int
        Larger photographs are refused before they are decoded.
    segmenter : Segmenter, optional
    progress : bool

    Returns
    -------
    Path
        The store.

    Raises
    ------
    ValueError
        If the metrics are of other images.
    """
    metrics = metrics.set_index("image_id")
    if missing := sorted(set(shard["image_id"]) - set(metrics.index)):
        raise ValueError(f"{len(missing)} images have no row of quality metrics, e.g. {missing[:3]}: run `retsam quality metrics` first")
    if config.threads:
        torch.set_num_threads(config.threads)
    segmenter = segmenter or segmenter_of(config)
    attrs = {
        "weights_sha256": segmenter.weights_sha256,
        "model": segmenter.model_name,
        "thresholds": segmenter.thresholds,
        "target_status": segmenter.target_status,
        "pen": segmenter.pen,
        "frame_side": FRAME_SIDE,
        "precision": str(segmenter.dtype).removeprefix("torch."),
    }
    rows = shard.to_dict("records")
    started = time.monotonic()
    counts = {"ok": 0, "failed": 0}

    def results() -> Iterator[Masks | Failure]:
        with tqdm(total=len(rows), desc=out.stem, unit="image", disable=not progress, mininterval=5) as bar:
            for group in _groups(_read_ahead(rows, metrics, config.workers, max_pixels), segmenter.batch_size):
                done = _predict(segmenter, group)
                for item in done:
                    counts["failed" if isinstance(item, Failure) else "ok"] += 1
                    bar.update()
                    yield item

    path = write_store(out, results(), attrs)
    speed = len(rows) / (time.monotonic() - started)
    log.info("%s: %d segmented, %d failed, %.2f images/s on %s", out.name, counts["ok"], counts["failed"], speed, segmenter.device)
    return path


def segmenter_of(config: SegmentationConfig) -> Segmenter:
    """The network that a study's settings ask for."""
    return Segmenter(
        config.weights,
        config.device,
        config.precision,
        config.batch_size,
        config.flips,
        pen=config.pen,
        unbiased=config.unbiased,
        thresholds=config.thresholds,
    )


def _read_one(row: dict, metrics: pd.DataFrame, max_pixels: int) -> tuple[dict, PreparedImage | Failure]:
    image_id, eye = row["image_id"], row.get("eye")
    eye = eye if isinstance(eye, str) and eye else None
    quality = metrics.loc[image_id]
    if quality["status"] != "ok":
        return row, Failure(image_id, str(quality["reason"]), str(quality["detail"]), eye)
    try:
        photograph = read_photograph(row["path"], max_pixels=max_pixels)
        if pd.isna(row.get("um_per_px")) and photograph.um_per_px:
            row = {**row, "um_per_px": photograph.um_per_px}
        if eye is None and photograph.eye:
            row = {**row, "eye": photograph.eye}
        return row, prepare(photograph.rgb, FieldOfView.from_columns(quality))
    except UnreadablePhotograph as error:
        return row, Failure(image_id, error.reason, error.detail, eye)
    except (ValueError, MemoryError, cv2.error) as error:
        return row, Failure(image_id, "segmentation_failed", f"{type(error).__name__}: {error}", eye)


def _read_ahead(rows: list[dict], metrics: pd.DataFrame, workers: int, max_pixels: int) -> Iterator[tuple[dict, PreparedImage | Failure]]:
    """Photographs in order, a few read ahead of the one asked for."""
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future] = []
        source = iter(rows)
        for row in islice(source, 2 * workers + 1):
            pending.append(pool.submit(_read_one, row, metrics, max_pixels))
        while pending:
            yield pending.pop(0).result()
            for row in islice(source, 1):
                pending.append(pool.submit(_read_one, row, metrics, max_pixels))


def _groups(items: Iterator, size: int) -> Iterator[list]:
    while group := list(islice(items, size)):
        yield group


def _predict(segmenter: Segmenter, group: list[tuple[dict, PreparedImage | Failure]]) -> list[Masks | Failure]:
    """Masks of a group, in order; failures stay where they are, and a photograph that cannot be segmented becomes one."""
    try:
        return _masks(segmenter, group)
    except torch.AcceleratorError:  # the device is broken, not the photograph: no later one would fare better
        raise
    except Exception as error:  # one photograph must not end a shard: each alone has its masks, or a row that says what happened
        if len(group) == 1:
            # Every photograph takes about as much, so it is the device that others fill: as a row the fault would outlast its cause.
            if isinstance(error, torch.OutOfMemoryError):
                raise
            row = group[0][0]
            log.exception("image %s could not be segmented", row["image_id"])
            eye = row.get("eye")
            detail = f"{type(error).__name__}: {error}"
            return [Failure(row["image_id"], "segmentation_failed", detail, eye if isinstance(eye, str) and eye else None)]
    # Only here, as the error held on to the tensors of the batch that failed.
    if segmenter.device.type == "cuda":
        torch.cuda.empty_cache()
    return [found for one in group for found in _predict(segmenter, [one])]


def _masks(segmenter: Segmenter, group: list[tuple[dict, PreparedImage | Failure]]) -> list[Masks | Failure]:
    """:func:`_predict` of a group in one go."""
    ready = [(row, item) for row, item in group if not isinstance(item, Failure)]
    predictions = iter(segmenter.predict_prepared([item for _, item in ready]))
    out: list[Masks | Failure] = []
    for row, item in group:
        if isinstance(item, Failure):
            out.append(item)
            continue
        eye, um_per_px = row.get("eye"), row.get("um_per_px")
        out.append(
            next(predictions).masks(
                image_id=row["image_id"],
                eye=eye if isinstance(eye, str) and eye else None,
                um_per_px=None if um_per_px is None or pd.isna(um_per_px) else float(um_per_px),
            )
        )
    return out
