"""Masks that a user brings: PNG files listed in a table (:mod:`retsam.biomarkers.mask_table`), measured at their own resolution."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from retsam.biomarkers.cohort import safe_row
from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import failed_row
from retsam.biomarkers.mask_table import LESION_BITS, MaskTableError, OwnMasks, read_mask_table
from retsam.biomarkers.running import runner
from retsam.biomarkers.tables import rows_to_arrow
from retsam.masks.files import MaskFileError, check_values, read_index
from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks

__all__ = ["MaskTableError", "OwnMasks", "load_own_masks", "load_safely", "measure_own_masks", "own_row", "read_mask_table"]

#: Least share of the disc's outline that must be rim: of masks with less, codes are the wrong way round, or the cup is all they show.
MIN_RIM_OUTLINE = 0.05

#: What this room adds to a row, in words.
EXTRA_COLUMNS = {
    "fov_source": "mask, or whole_image where no field of view was given: densities then count black corners as retina",
    "vessel_source": "mask, or artery_or_vein where the vessel mask was made from the two",
}


def _check_disc_cup(values: np.ndarray, path: str) -> None:
    """Refuse a disc whose margin is cup all round: it would measure as one without any rim.

    Raises
    ------
    MaskFileError
    """
    disc = values > 0
    margin = disc & (cv2.erode(disc.view(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0)
    if not (values == 2).any() or np.count_nonzero(values[margin] == 1) >= MIN_RIM_OUTLINE * np.count_nonzero(margin):
        return
    found = ", ".join(map(str, np.unique(values).tolist()))
    raise MaskFileError(
        "bad_encoding",
        f"{path}: column 'disc_cup' expects 0 background, 1 disc outside the cup, 2 cup; found {found} with 2 all along the disc's margin: "
        "are cup and rim the wrong way round, or is the disc around the cup missing?",
    )


def load_own_masks(row: OwnMasks) -> tuple[Masks, dict[str, str]] | Failure:
    """Masks of one row at their own resolution, and the columns of :data:`EXTRA_COLUMNS`; or why there are none."""
    if row.failure is not None:
        return Failure(row.image_id, *row.failure, row.eye)
    try:
        images = {column: read_index(path, column) for column, path in row.files.items()}
        shapes = {column: image.shape for column, image in images.items()}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{column} {shape[1]}x{shape[0]}" for column, shape in shapes.items())
            raise MaskFileError("size_mismatch", f"the masks of one photograph must have one size, found {sizes}")
        images = {column: check_values(image, column, row.files[column]) for column, image in images.items()}
        if "disc_cup" in images:
            _check_disc_cup(images["disc_cup"], row.files["disc_cup"])
    except MaskFileError as error:
        return Failure(row.image_id, error.reason, str(error), row.eye)
    height, width = next(iter(shapes.values()))
    if row.fovea is not None and not (row.fovea[0] < width - 0.5 and row.fovea[1] < height - 0.5):
        x, y = row.fovea
        return Failure(row.image_id, "fovea_outside", f"fovea ({x:g}, {y:g}) lies outside the mask of {width}x{height}", row.eye)
    planes = {column: images[column] > 0 for column in ("artery", "vein", "vessel") if column in images}
    sources = {"fov_source": "mask" if "fov" in images else "whole_image"}
    if "vessel" not in planes and {"artery", "vein"} <= set(planes):
        planes["vessel"] = planes["artery"] | planes["vein"]
        sources["vessel_source"] = "artery_or_vein"
    elif "vessel" in planes:
        sources["vessel_source"] = "mask"
    if "disc_cup" in images:
        planes |= {"disc": images["disc_cup"] > 0, "cup": images["disc_cup"] == 2}
    if "lesions" in images:
        planes |= {name: (images["lesions"] & bit) > 0 for bit, name in LESION_BITS.items()}
    masks = Masks(
        planes=planes,
        fov=images["fov"] > 0 if "fov" in images else np.ones((height, width), bool),
        frame=Frame.identity(width, height),
        fovea=row.fovea,
        fovea_confidence=None,
        eye=row.eye,
        image_id=row.image_id,
        um_per_px=row.um_per_px,
        native=True,
    )
    return masks, sources


def load_safely(row: OwnMasks) -> tuple[Masks, dict[str, str]] | Failure:
    """:func:`load_own_masks`, with anything that it raises as a failure of that row alone."""
    try:
        return load_own_masks(row)
    except Exception as error:  # noqa: BLE001 (one odd file must not cost the rows that it is read with)
        return Failure(row.image_id, "measurement_failed", f"{type(error).__name__}: {error}", row.eye)


def own_row(row: OwnMasks, config: BiomarkersConfig) -> dict[str, Any]:
    """Row of the biomarker table for one row of the table of masks; whatever is wrong with its files is that row's fault alone."""
    loaded = load_safely(row)
    if isinstance(loaded, Failure):
        return failed_row(loaded, config)
    masks, sources = loaded
    return safe_row(masks, config) | sources


def _measure_some(rows: list[OwnMasks], config: BiomarkersConfig) -> pa.Table:
    return rows_to_arrow([own_row(row, config) for row in rows], config, EXTRA_COLUMNS)


def _batches(rows: list[OwnMasks], size: int) -> Iterator[list[OwnMasks]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def measure_own_masks(table: str | Path | list[OwnMasks], config: BiomarkersConfig, quiet: bool = False) -> pa.Table:
    """Measure every row of a table of masks.

    Parameters
    ----------
    table : path or list of OwnMasks
        CSV (:mod:`retsam.biomarkers.mask_table` for its columns), or its rows.
    config : BiomarkersConfig
    quiet : bool
        No progress bar.

    Returns
    -------
    pyarrow.Table
        Rows in the table's order. A mask that cannot be read is a row with ``status`` ``failed``, a ``reason`` (``unreadable``,
        ``bad_encoding``, ``size_mismatch``, ``fovea_outside``) and a ``detail``.

    Raises
    ------
    MaskTableError
        If the table itself is wrong.
    """
    rows = table if isinstance(table, list) else read_mask_table(table)
    batches = list(_batches(rows, 4))
    tables: list[pa.Table | None] = [None] * len(batches)
    with runner(config) as run, tqdm(total=len(rows), unit="eye", desc="measure", disable=quiet) as progress:
        for index, result in run(_measure_some, [(batch, config) for batch in batches]):
            if isinstance(result, Exception):
                failures = [Failure(row.image_id, "measurement_failed", f"{type(result).__name__}: {result}") for row in batches[index]]
                result = rows_to_arrow([failed_row(failure, config) for failure in failures], config, EXTRA_COLUMNS)
            tables[index] = result
            progress.update(len(batches[index]))
    return pa.concat_tables(tables)
