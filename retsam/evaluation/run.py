"""Scoring a segmenter on the images of a manifest, one after another, with a row for every image."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.cohort.reading import UnreadablePhotograph, read_photograph
from retsam.evaluation.reference import Reference, read_reference, told_fault
from retsam.evaluation.scoring import ImageScore, Prediction, in_disc_diameters, score_image
from retsam.evaluation.summary import summarise

log = logging.getLogger(__name__)

# What a network, a resampling or a reference that does not fit may raise on one image; anything else is a fault of the program.
_IMAGE_ERRORS = (ValueError, RuntimeError, ArithmeticError, cv2.error)


class Predictor(Protocol):
    """What evaluation needs of a segmenter (:class:`retsam.segmentation.predict.Segmenter`)."""

    batch_size: int
    pens: dict[str, list[str]]

    def use_pen(self, pen: str | None) -> None: ...

    def predict(self, images, fovs=None) -> list[Prediction]: ...


@dataclass
class Loaded:
    """One image of the manifest, read; ``rgb`` is None where it could not be."""

    position: int
    rgb: np.ndarray | None
    reference: Reference
    reason: str | None = None
    detail: str | None = None


@dataclass
class Evaluation:
    """Scores of a manifest.

    Parameters
    ----------
    scores : dict
        ``{dataset: {target: {metric: {value, pooled, ci_low, ci_high, ..., n}}}}``.
    images : DataFrame
        One row an image: dataset, image, split, group, status (``ok``, ``partial``, ``failed``), reason, detail, then
        ``<target>_<metric>`` and further columns.
    """

    scores: dict[str, dict]
    images: pd.DataFrame


def load(row, position: int, root: Path) -> Loaded:
    """Read one row's photograph and reference."""
    try:
        rgb = read_photograph(root / row["image"]).rgb
    except UnreadablePhotograph as error:
        reason, detail = told_fault(row, "image") or (error.reason, error.detail)
        return Loaded(position, None, Reference(), reason, detail)
    reference = read_reference(row, root, rgb.shape[:2])
    if reference.empty:
        faults = reference.faults or [("no_reference", "the manifest labels nothing in this image")]
        return Loaded(position, None, reference, faults[0][0], "; ".join(detail for _, detail in faults))
    return Loaded(position, rgb, reference)


def read_ahead(manifest: pd.DataFrame, root: Path, window: int) -> Iterator[Loaded]:
    """Read images in two threads, at most ``window`` ahead of the network, in the manifest's order."""
    rows = manifest.to_dict("records")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(load, row, i, root) for i, row in enumerate(rows[:window])]
        for i in range(len(rows)):
            item = waiting.pop(0)
            if i + window < len(rows):
                waiting.append(pool.submit(load, rows[i + window], i + window, root))
            yield item.result()


def predict_each(segmenter: Predictor, images: list[np.ndarray]) -> list[Prediction | Exception]:
    """Predict a batch; where it fails, image by image, so that one bad image costs one row."""
    try:
        return list(segmenter.predict(images, [None] * len(images)))
    except _IMAGE_ERRORS as error:
        if len(images) == 1:
            return [error]
        log.warning("a batch of %d images failed (%s); predicting them one by one", len(images), error)
    return [predict_each(segmenter, [image])[0] for image in images]


def evaluate(
    segmenter: Predictor,
    manifest: pd.DataFrame,
    root: str | Path,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
    own_pen: bool = False,
) -> Evaluation:
    """Score a segmenter on every image of a manifest.

    Parameters
    ----------
    segmenter : Predictor
    manifest : DataFrame
        As :func:`retsam.evaluation.reference.read_manifest` reads it.
    root : path
        That the manifest's paths are relative to.
    resamples : int
        Of the bootstrap.
    seed : int
    progress : bool
        Show a bar with the time left.
    own_pen : bool
        Draw each photograph in its data set's pen, where the segmenter knows it.

    Returns
    -------
    Evaluation
        Memory holds the images of a batch and, of each image scored, counts and histograms.
    """
    root, batch_size = Path(root), max(1, segmenter.batch_size)
    scores: dict[int, ImageScore] = {}
    states: list[dict] = [{} for _ in range(len(manifest))]
    batch: list[Loaded] = []
    datasets = manifest["dataset"].tolist()
    known = {name for names in segmenter.pens.values() for name in names} if own_pen else set()

    def finish() -> None:
        if own_pen and batch:
            dataset = datasets[batch[0].position]
            segmenter.use_pen(dataset if dataset in known else None)
        for item, prediction in zip(batch, predict_each(segmenter, [b.rgb for b in batch]), strict=True):
            state = states[item.position]
            if isinstance(prediction, Exception):
                state |= {"status": "failed", "reason": "prediction_failed", "detail": f"{type(prediction).__name__}: {prediction}"}
                continue
            try:
                scores[item.position] = score_image(prediction, item.reference)
            except _IMAGE_ERRORS as error:
                state |= {"status": "failed", "reason": "scoring_failed", "detail": f"{type(error).__name__}: {error}"}
                continue
            faults = item.reference.faults
            state |= {"status": "partial" if faults else "ok", "reason": faults[0][0] if faults else None}
            state["detail"] = "; ".join(detail for _, detail in faults) or None
        batch.clear()

    for item in tqdm(read_ahead(manifest, root, 2 * batch_size), total=len(manifest), unit="image", desc="evaluate", disable=not progress):
        if item.rgb is None:
            states[item.position] |= {"status": "failed", "reason": item.reason, "detail": item.detail}
            continue
        if own_pen and batch and datasets[batch[0].position] != datasets[item.position]:
            finish()  # a batch is drawn in one pen
        batch.append(item)
        if len(batch) == batch_size:
            finish()
    if batch:
        finish()
    summaries = {}
    for dataset, rows in manifest.reset_index(drop=True).groupby("dataset", sort=False):
        positions = [i for i in rows.index if i in scores]
        if positions:
            of_set = [scores[i] for i in positions]
            in_disc_diameters(of_set)
            summaries[str(dataset)] = summarise(of_set, [manifest["group"].iloc[i] for i in positions], resamples, seed)
    return Evaluation(summaries, _image_table(manifest, states, scores))


def _image_table(manifest: pd.DataFrame, states: list[dict], scores: dict[int, ImageScore]) -> pd.DataFrame:
    rows = []
    for i, (_, row) in enumerate(manifest.iterrows()):
        out = {name: row.get(name) for name in ("dataset", "image", "split", "group")} | states[i]
        if i in scores:
            score = scores[i]
            out |= {f"{target}_{metric}": value for target, values in score.values.items() for metric, value in values.items()}
            out |= score.columns
            for target, (top, area, present) in score.presence.items():
                out |= {f"{target}_present": present, f"{target}_top_probability": top, f"{target}_area_share": area}
        rows.append(out)
    return pd.DataFrame(rows)


def table(scores: dict[str, dict], metrics: tuple[str, ...] = ("dsc", "jac", "cldice", "aupr", "hd95")) -> pd.DataFrame:
    """One line a data set and target: the usual metrics with their intervals, for people.

    The mean over images; of AUPR the value pooled over pixels, as the IDRiD challenge reports it. ``n`` is that of the figure with the
    most images; figures of fewer say their own.
    """
    rows = []
    for dataset, targets in scores.items():
        for target, values in targets.items():
            most = max(max(entry["n"], entry["n_pooled"] if name == "aupr" else 0) for name, entry in values.items())
            row = {"dataset": dataset, "target": target, "n": most}
            for name in metrics:
                if name in values:
                    pooled = ("pooled", "pooled_ci_low", "pooled_ci_high", "n_pooled")
                    keys = pooled if name == "aupr" else ("value", "ci_low", "ci_high", "n")
                    value, low, high, n = (values[name][key] for key in keys)
                    if value is not None:
                        row[name] = f"{value:.3f}" + (f" ({low:.3f}-{high:.3f})" if low is not None else "") + _own_n(n, most)
            others = {name: entry for name, entry in values.items() if name not in (*metrics, "sensitivity", "precision", "dsc_stored")}
            known = ((name, entry) for name, entry in others.items() if entry["value"] is not None)
            row["other"] = ", ".join(f"{name} {entry['value']:.3f}{_own_n(entry['n'], most)}" for name, entry in known)
            rows.append(row)
    columns = ["dataset", "target", "n", *metrics, "other"]
    return pd.DataFrame([{name: row.get(name, "") for name in columns} for row in rows], columns=columns)


def _own_n(n: int, most: int) -> str:
    return "" if n == most else f" [n = {n}]"


def output_paths(out: str | Path) -> list[Path]:
    """Scores, per-image table (``.csv``, ``.parquet``) and how they came about (``.run.json``).

    Raises
    ------
    ValueError
        If the scores' name does not end in ``.json``: tables take its place, and of ``run.v1`` and ``run.v2`` the same.
    """
    out = Path(out)
    if out.suffix.lower() != ".json":
        raise ValueError(f"{out}: expected a name that ends in .json, for tables of other endings go beside it; try {out.name}.json")
    return [out, out.with_suffix(".csv"), out.with_suffix(".parquet"), out.with_suffix(".run.json")]


def write(evaluation: Evaluation, out: str | Path, run: dict) -> list[Path]:
    """Write scores, table and account to :func:`output_paths`."""
    paths = output_paths(out)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    counts = evaluation.images["status"].value_counts().to_dict() if len(evaluation.images) else {}
    failed = evaluation.images[evaluation.images["status"] != "ok"]
    run = {**run, "images": {k: int(v) for k, v in counts.items()}, "reasons": failed["reason"].value_counts().to_dict()}
    paths[0].write_text(json.dumps(evaluation.scores, indent=1) + "\n")
    evaluation.images.to_csv(paths[1], index=False)
    evaluation.images.to_parquet(paths[2], index=False)
    paths[3].write_text(json.dumps(run, indent=1, default=str) + "\n")
    return paths
