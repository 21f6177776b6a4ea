"""Cached canonical frames: every photograph of a task once, as ``uint8``, in one memory-mapped array."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.evaluation import reference
from retsam.masks.frame import Frame
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.segmentation.looks import LARGE_SCALE, LARGE_SIDE
from retsam.training import labels as lab
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.run import Run

# Photographs that are crops already have no field of view to find.
_CROPS = ("refuge_roi",)


@dataclass
class Frames:
    """Frames of one task.

    Parameters
    ----------
    rgb : ndarray of uint8, [N, side, side, 3]
    label : ndarray of uint8, [N, side, side]
        Bits of the task, and :data:`retsam.training.labels.FOV_BIT`.
    table : DataFrame
        One row a frame: dataset, image, group, weight, negative, point_x, point_y (fovea or disc centre, frame px), point_size (disc
        diameter), scale (native px per frame px).
    """

    rgb: np.ndarray
    label: np.ndarray
    table: pd.DataFrame


def _kept_from_training(manifest: pd.DataFrame, config: Run) -> pd.Series:
    """An official test part, or the held-out share of a data set, by group: before copies are set aside."""

    def number(group: str) -> float:
        return int(hashlib.sha256(str(group).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF

    share = manifest["dataset"].map(config.holdout).fillna(0.0)
    place = (manifest["group"].map(number) - config.holdout_from) % 1.0
    held = manifest["split"].eq("test") | (place < share)
    # A group that is in any test part is out everywhere.
    return held | manifest["group"].isin(manifest.loc[held, "group"])


def set_aside(manifest: pd.DataFrame, config: Run) -> pd.Series:
    """Whether a row is neither trained on nor scored: kept out of training, while a copy of it (``config.copies``) is trained on."""
    kept = _kept_from_training(manifest, config)
    trained = set(manifest.loc[~kept, "image"])
    seen = [image for copies in config.copies if trained & set(copies) for image in copies]
    return kept & manifest["image"].isin(seen)


def held_out(manifest: pd.DataFrame, config: Run) -> pd.Series:
    """Whether a row is kept out of training, to be scored: an official test part, or the held-out share of its data set, by group.

    A group's place depends only on its name, so it never moves when rows are added. Copies of photographs that are trained on are not
    among them (:func:`set_aside`), although no one trains on them either.
    """
    return _kept_from_training(manifest, config) & ~set_aside(manifest, config)


def read_manifest(config: Run) -> pd.DataFrame:
    """The manifest, as evaluation reads it, with a ``held_out`` column; without the rows that are neither trained on nor scored.

    Raises
    ------
    ManifestError
        Of :func:`retsam.evaluation.reference.read_manifest`, and of :func:`name_faults`.
    """
    manifest = reference.read_manifest(config.manifest)
    if faults := name_faults(manifest, config):
        raise reference.ManifestError(told(config, faults))
    return with_split(manifest, config)


def name_faults(manifest: pd.DataFrame, config: Run) -> list[str]:
    """Names in the settings of the split that the manifest does not have: a data set of another name would be held out in no part."""
    known, images = sorted(set(manifest["dataset"])), set(manifest["image"])
    faults = [f"holdout: no data set {name!r}; there are {', '.join(known)}" for name in config.holdout if name not in known]
    return faults + [f"copies: no photograph {image!r}" for group in config.copies for image in group if image not in images]


def told(config: Run, faults: list[str], most: int = 50) -> str:
    """Faults of a run's data as one message."""
    more = [f"and {len(faults) - most} more"] if len(faults) > most else []
    return "\n  ".join([f"{config.manifest}: {len(faults)} fault{'s' if len(faults) > 1 else ''}", *faults[:most], *more])


def with_split(manifest: pd.DataFrame, config: Run) -> pd.DataFrame:
    """:func:`read_manifest` of a table that is read already; ``manifest_row`` is the row in the file."""
    # The split first: a row that is set aside still keeps its group out of training.
    manifest = manifest.assign(held_out=held_out(manifest, config), manifest_row=np.arange(len(manifest)) + 2)
    return manifest[~set_aside(manifest, config)].reset_index(drop=True)


def task_rows(manifest: pd.DataFrame, task: str, settings: TaskConfig, seed: int = 0) -> pd.DataFrame:
    """Training rows of a task, with the draw's ``weight`` (each data set's weight spread over its photographs) and ``negative``."""
    column = {"vessels": ["vessel", "av"], "optic_nerve": ["disc", "disc_cup"], "lesions_dr": ["lesions"], "macula": ["fovea"]}[task]
    train = manifest[~manifest["held_out"]]
    train = train.assign(fovea=train["fovea_x"].where(train["fovea_y"].notna()))
    parts = []
    for dataset, weight in settings.datasets.items():
        rows = train[(train["dataset"] == dataset) & train[column].notna().any(axis=1)]
        parts.append(rows.assign(weight=weight / max(len(rows), 1), negative=False))
    for dataset, weight in settings.negatives.items():
        rows = train[train["dataset"] == dataset]
        rows = rows[rows.apply(lab.is_healthy, axis=1)]
        if len(rows) > settings.negatives_limit:
            rows = rows.sample(settings.negatives_limit, random_state=seed).sort_index()
        parts.append(rows.assign(weight=weight / max(len(rows), 1), negative=True))
    empty = [name for name, part in zip([*settings.datasets, *settings.negatives], parts, strict=True) if part.empty]
    if empty:
        raise ValueError(f"task {task}: no labelled training photograph in data sets {empty}; check the names against the manifest")
    rows = pd.concat(parts, ignore_index=True)
    if task == "lesions_dr":
        _require_all_lesions(rows[~rows["negative"]])
    return rows


def _require_all_lesions(rows: pd.DataFrame) -> None:
    part = rows[rows.apply(lab.lesions_looked_for, axis=1) != lab.ALL_LESIONS]
    if len(part):
        names = ", ".join(part["image"].head(10)) + (f" and {len(part) - 10} more" if len(part) > 10 else "")
        raise ValueError(
            f"task lesions_dr: {lab.PARTLY_LABELLED}; found lesions_labelled {', '.join(map(str, sorted(set(part['lesions_labelled']))))} "
            f"of {len(part)} photographs of {', '.join(sorted(set(part['dataset'])))}: {names}. Take the data set out of the task's "
            "`datasets`, or its rows' `lesions` out of the manifest"
        )


def _frame(row, rgb: np.ndarray, side: int) -> tuple[Frame, np.ndarray]:
    height, width = rgb.shape[:2]
    if row["dataset"] in _CROPS:
        span = max(height, width)
        return Frame.from_square(0, 0, span, side, width, height), np.ones((height, width), bool)
    fov: FieldOfView = detect_field_of_view(rgb)
    return Frame.from_field_of_view(fov, side), fov.mask()


def load_large_frames(config: TrainConfig, task: str, settings: TaskConfig, frames: Frames, progress: bool = True) -> Frames:
    """The task's photographs that hold more detail than ``frames`` keeps, in the frame that prediction uses for such."""
    wanted = frames.table.loc[frames.table["scale"] >= LARGE_SCALE, "image"]
    if wanted.empty:
        raise ValueError(f"task {task}: no photograph is {LARGE_SCALE} times as large as the frame, as `large` expects; set it to 0")
    return load_frames(config, task, progress, settings.model_copy(update={"frame": LARGE_SIDE}), frozenset(wanted))


MASKS = {"vessels": ("vessel", "av"), "optic_nerve": ("disc", "disc_expert2", "disc_cup"), "lesions_dr": ("lesions",), "macula": ()}
"""Task -> masks that its labels are made from."""


def _sources(rows: pd.DataFrame, task: str, root: Path) -> list[list]:
    """All that frames are made from, in what tells one state of it from another: a mask that was corrected is another mask."""

    def state(name: str) -> list:
        path = root / name
        try:
            about = path.stat()
        except OSError:  # whoever reads it says so
            return [str(path)]
        return [str(path), about.st_size, about.st_mtime_ns]

    return [
        [
            row["dataset"],
            str(row["group"]),
            bool(row["negative"]),
            *(state(row[column]) for column in ("image", *MASKS[task]) if isinstance(row[column], str)),
            *([float(row["fovea_x"]), float(row["fovea_y"])] if task == "macula" else []),
        ]
        for row in rows.to_dict("records")
    ]


def rows_digest(rows: pd.DataFrame, task: str, root: Path) -> str:
    """Digest of what a task learns from: names, groups and sizes of files, so that a copy of the data elsewhere is the same."""
    names = ["image", *MASKS[task]]
    sizes = [[(root / row[c]).stat().st_size if isinstance(row[c], str) else None for c in names] for row in rows.to_dict("records")]
    columns = ["dataset", "group", "negative", *names, *(["fovea_x", "fovea_y"] if task == "macula" else [])]
    return hashlib.sha256(json.dumps([rows[columns].astype(str).to_numpy().tolist(), sizes]).encode()).hexdigest()[:12]


def load_frames(
    config: TrainConfig, task: str, progress: bool = True, settings: TaskConfig | None = None, images: frozenset[str] | None = None
) -> Frames:
    """Frames of a task from the run's cache, building it where missing or made from another selection."""
    settings = settings or config.tasks[task]
    rows = task_rows(read_manifest(config), task, settings, config.seed)
    if images is not None:
        rows = rows[rows["image"].isin(images)].reset_index(drop=True)
    key = hashlib.sha256(json.dumps([_sources(rows, task, config.root), settings.frame, 6]).encode()).hexdigest()[:12]
    folder = config.out / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{task}-{key}"
    side, count = settings.frame, len(rows)
    if not stem.with_suffix(".csv").exists():
        rgb_map = np.lib.format.open_memmap(f"{stem}-rgb.npy", "w+", np.uint8, (count, side, side, 3))
        label_map = np.lib.format.open_memmap(f"{stem}-label.npy", "w+", np.uint8, (count, side, side))
        points, scales, faults = [], [], []
        for index, row in enumerate(tqdm(rows.to_dict("records"), desc=f"cache {task}", disable=not progress, mininterval=10)):
            try:
                rgb, label, frame = _labelled(config, task, row, side)
            except ValueError as error:
                faults.append(f"row {row['manifest_row']}, {error}")
            if faults:  # only to find the others
                continue
            rgb_map[index] = frame.warp(rgb)
            label_map[index] = warp_bits(label, frame)
            if task == "vessels":
                label_map[index] |= lab.skeleton_bit(label_map[index])
            scales.append(frame.scale)
            if task == "macula":
                points.append(frame.to_frame([row["fovea_x"], row["fovea_y"]]))
            elif task == "optic_nerve":
                ys, xs = np.nonzero(label_map[index] & lab.NERVE_BITS["disc"])
                size = np.sqrt(4 * len(xs) / np.pi)
                points.append([xs.mean(), ys.mean(), size] if len(xs) else [side / 2, side / 2, 0])
            else:
                points.append([np.nan, np.nan])
        if faults:
            raise ValueError(told(config, faults))
        rgb_map.flush()
        label_map.flush()
        points = np.array([list(p) + [np.nan] * (3 - len(p)) for p in points])
        table = rows[["dataset", "image", "group", "weight", "negative"]].assign(
            point_x=points[:, 0], point_y=points[:, 1], point_size=points[:, 2], scale=scales
        )
        # It says that the frames are all there, so it comes last and whole.
        temporary = stem.with_suffix(".tmp")
        table.to_csv(temporary, index=False)
        os.replace(temporary, stem.with_suffix(".csv"))
    table = pd.read_csv(stem.with_suffix(".csv"))
    table["weight"], table["negative"] = rows["weight"].to_numpy(), rows["negative"].to_numpy()
    return Frames(np.load(f"{stem}-rgb.npy", mmap_mode="r"), np.load(f"{stem}-label.npy", mmap_mode="r"), table)


def _labelled(config: TrainConfig, task: str, row: dict, side: int) -> tuple[np.ndarray, np.ndarray, Frame]:
    """Photograph, bits of its label, and its frame."""
    path = config.root / row["image"]
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"column 'image': {path}: expected a photograph, could not read it")
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    frame, fov = _frame(row, rgb, side)
    shape = rgb.shape[:2]
    if task == "macula":
        label = np.zeros(shape, np.uint8)
    elif row["negative"]:
        label = lab.healthy_lesion_label(shape)
    else:
        label = lab.LABELS[task](row, config.root, shape)
    return rgb, np.where(fov, label | lab.FOV_BIT, 0).astype(np.uint8), frame


def warp_bits(label: np.ndarray, frame: Frame) -> np.ndarray:
    """Warp bit planes, each by the larger part of its pixel: nearest neighbours would drop thin vessels when shrinking."""
    out = np.zeros((frame.side, frame.side), np.uint8)
    for bit in range(8):
        plane = (label >> bit) & 1
        if plane.any():
            out |= (frame.warp(plane * np.uint8(255)) >= 128).astype(np.uint8) << np.uint8(bit)
    return out
