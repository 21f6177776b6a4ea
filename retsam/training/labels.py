"""From a manifest's masks to bit planes that losses can read.

A training label is one ``uint8`` plane a photograph and task: a bit a target, and bits that say where a target is known.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from skimage.morphology import skeletonize

from retsam.masks.files import check_values, read_index

# Bits of a label, per task. `known` bits mark the pixels whose answer the annotators gave.
VESSEL_BITS = {"artery": 1, "vein": 2, "vessel": 4, "known_av": 8, "known_vessel": 16, "class_only": 32, "skeleton": 64}
NERVE_BITS = {"disc": 1, "cup": 2, "known_disc": 4, "known_cup": 8}
LESION_BITS = {"microaneurysm": 1, "hemorrhage": 2, "hard_exudate": 4, "cotton_wool_spot": 8, "known": 16}
ALL_LESIONS = 15
FOV_BIT = 128

PARTLY_LABELLED = f"expected masks of all four lesions (lesions_labelled {ALL_LESIONS} or empty): those not looked for would teach absence"


def read_mask(path: Path, shape: tuple[int, int], column: str = "") -> np.ndarray:
    """Mask ``[H, W]`` of a column of the manifest (:func:`retsam.masks.files.read_index`).

    Raises
    ------
    ValueError
        If the file cannot be read, its size is not the photograph's, or its values are not the column's.
    """
    mask = read_index(path, column)
    if mask.shape != shape:
        raise ValueError(f"{path}: expected {shape[1]}x{shape[0]} px like its photograph, found {mask.shape[1]}x{mask.shape[0]}")
    return check_values(mask, column, path)


def _read_column(row, column: str, root: Path, shape: tuple[int, int]) -> np.ndarray:
    """:func:`read_mask` of a row's file, its column named where it is at fault."""
    try:
        return read_mask(root / row[column], shape, column)
    except ValueError as error:
        raise ValueError(f"column {column!r}: {error}") from error


def vessel_label(row, root: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Bits of :data:`VESSEL_BITS` from the manifest's ``vessel`` and ``av`` masks; None where neither exists."""
    bits, has_av, has_vessel = VESSEL_BITS, isinstance(row["av"], str), isinstance(row["vessel"], str)
    if not (has_av or has_vessel):
        return None
    label = np.zeros(shape, np.uint8)
    vessel = _read_column(row, "vessel", root, shape) > 0 if has_vessel else None
    if has_vessel:
        label |= bits["known_vessel"]
        label[vessel] |= bits["vessel"]
    if has_av:
        av = _read_column(row, "av", root, shape)
        # 3 is a crossing (both); HRF also writes it where the annotator was uncertain, so there the class is unknown. 4 is uncertain.
        unsure = (av == 4) | ((av == 3) & (row["dataset"] == "hrf"))
        label[(av == 1) | ((av == 3) & ~unsure)] |= bits["artery"]
        label[(av == 2) | ((av == 3) & ~unsure)] |= bits["vein"]
        if vessel is None:  # too wide to teach a width: the class on its pixels only
            known = (av > 0) & ~unsure
            label[known] |= bits["class_only"]
        else:
            unsure |= vessel & (av == 0)
            label[~unsure] |= bits["known_av"]
    return label


def skeleton_bit(label: np.ndarray) -> np.ndarray:
    """Bit plane of the vessels' centrelines, three pixels wide and inside the vessel; of a vessel label in its frame."""
    vessel = label & VESSEL_BITS["vessel"] > 0
    tube = cv2.dilate(skeletonize(vessel).astype(np.uint8), np.ones((3, 3), np.uint8))
    return (tube & vessel) * np.uint8(VESSEL_BITS["skeleton"])


def nerve_label(row, root: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Bits of :data:`NERVE_BITS`; where two experts drew the disc, their disagreement is unknown."""
    bits = NERVE_BITS
    label = np.zeros(shape, np.uint8)
    if isinstance(row["disc_cup"], str):
        mask = _read_column(row, "disc_cup", root, shape)
        label |= bits["known_disc"] | bits["known_cup"]
        label[mask >= 1] |= bits["disc"]
        label[mask == 2] |= bits["cup"]
    elif isinstance(row["disc"], str):
        disc = _read_column(row, "disc", root, shape) > 0
        known = np.ones(shape, bool)
        if isinstance(row["disc_expert2"], str):
            other = _read_column(row, "disc_expert2", root, shape) > 0
            known, disc = disc == other, disc & other
        label[known] |= bits["known_disc"]
        label[disc] |= bits["disc"]
    else:
        return None
    return label


def lesions_looked_for(row) -> int:
    """Bits of the lesions that the photograph's annotators looked for: all where the manifest does not say."""
    given = row.get("lesions_labelled")
    return ALL_LESIONS if pd.isna(given) else int(float(given))


def lesion_label(row, root: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Bits of :data:`LESION_BITS` from the manifest's bit mask; None where the photograph has none.

    Raises
    ------
    ValueError
        Also where only some lesions were looked for: a label has one bit for all of them that says where they are known.
    """
    if not isinstance(row["lesions"], str):
        return None
    if lesions_looked_for(row) != ALL_LESIONS:
        raise ValueError(f"{root / row['lesions']}: {PARTLY_LABELLED}, found lesions_labelled {row['lesions_labelled']}")
    return _read_column(row, "lesions", root, shape) | np.uint8(LESION_BITS["known"])


def healthy_lesion_label(shape: tuple[int, int]) -> np.ndarray:
    """Label of a photograph that its graders found free of retinopathy: every lesion known to be absent."""
    return np.full(shape, LESION_BITS["known"], np.uint8)


LABELS = {"vessels": vessel_label, "optic_nerve": nerve_label, "lesions_dr": lesion_label}


def is_healthy(row) -> bool:
    """Whether the manifest calls the photograph free of retinopathy and other fundus disease."""
    grade = row["dr_grade"]
    graded_zero = str(grade) in ("0", "0.0") and str(row["quality"]) != "reject"
    return graded_zero or str(row["diagnosis"]) in ("healthy", "N", "normal")
