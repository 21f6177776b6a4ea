"""Faults of a run's data, all at once and before any work: names that nothing has, files that are missing or not what they should be."""

from __future__ import annotations

from pathlib import Path

import cv2
import pandas as pd
from PIL import Image, UnidentifiedImageError

from retsam.evaluation import reference
from retsam.masks.files import MaskFileError, require_lossless
from retsam.training.config import TrainConfig
from retsam.training.frames import MASKS, name_faults, task_rows, told, with_split

_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError)


def check_run(config: TrainConfig) -> None:
    """Look at what a run is to learn from; of files at their headers only.

    Raises
    ------
    ValueError
        With all faults: data sets and photographs that the manifest does not have, pseudo-labels that are not there, photographs and
        masks that are missing, unreadable, of the wrong format or size, with their row and column.
    """
    manifest = reference.read_manifest(config.manifest)
    faults = name_faults(manifest, config) + _pseudo_faults(config)
    manifest = with_split(manifest, config)
    found: dict[str, None] = {}  # a photograph of several tasks is told once
    for task, settings in config.tasks.items():
        try:
            rows = task_rows(manifest, task, settings, config.seed)
        except ValueError as error:
            faults.append(str(error))
            continue
        found |= dict.fromkeys(fault for row in rows.to_dict("records") for fault in _file_faults(row, task, config.root))
    if faults := [*faults, *found]:
        raise ValueError(told(config, faults))


def _pseudo_faults(config: TrainConfig) -> list[str]:
    if config.pseudo_labels is None or config.stage == "experts":  # which come before pseudo-labels
        return []
    if "vessels" not in config.tasks:
        return ["pseudo_labels: there are some of vessels only, which are not among the tasks; take them out"]
    if not (config.pseudo_labels / "vessels.csv").exists():
        return [f"pseudo_labels: no {config.pseudo_labels / 'vessels.csv'}; `retsam train pseudo-label` writes it, or take the setting out"]
    return []


def _file_faults(row: dict, task: str, root: Path) -> list[str]:
    where = f"row {row['manifest_row']}, column"
    path, size = root / row["image"], None
    try:
        with Image.open(path) as image:
            size = image.size
    except _UNREADABLE as error:
        # OpenCV, which reads photographs, knows formats that Pillow does not.
        if not path.is_file():
            return [f"{where} 'image': no such file {path}"]
        if not cv2.haveImageReader(str(path)):
            return [f"{where} 'image': {path}: expected a photograph, could not read it as an image: {error}"]
    faults = []
    for column in () if row["negative"] else MASKS[task]:
        if not pd.isna(row[column]):
            fault = _mask_fault(root / row[column], size)
            faults += [f"{where} {column!r}: {fault}"] if fault else []
    return faults


def _mask_fault(path: Path, size: tuple[int, int] | None) -> str | None:
    if not path.is_file():
        return f"no such file {path}"
    try:
        with Image.open(path) as image:
            require_lossless(image, path)
            # A photograph that its file says to turn is as high as it says it is wide; whoever reads both looks closer.
            if size is not None and image.size not in (size, size[::-1]):
                return f"{path}: expected {size[0]}x{size[1]} px like its photograph, found {image.size[0]}x{image.size[1]}"
    except MaskFileError as error:
        return str(error)
    except _UNREADABLE as error:
        return f"{path}: expected a PNG mask, could not read it as an image: {error}"
    return None
