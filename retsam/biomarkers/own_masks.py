"""Masks that a user brings: a table of PNG files, measured at their own resolution.

Columns (all but ``image_id`` and one mask optional; paths relative to the table): ``image_id``; ``eye`` (R, L, OD, OS, right, left);
``artery``, ``vein``, ``vessel``, ``fov`` (PNG, zero or not); ``disc_cup`` (PNG index: 0 background, 1 disc outside the cup, 2 cup);
``lesions`` (PNG bit mask: 1 microaneurysm, 2 haemorrhage, 4 hard exudate, 8 soft exudate); ``fovea_x``, ``fovea_y`` (pixels);
``um_per_px``. Files are lossless. A row whose ``status`` is ``failed``, as `retsam masks export` writes it, is a photograph without masks;
its ``reason`` and ``detail`` are handed on.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from retsam.biomarkers.cohort import safe_row
from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import failed_row
from retsam.biomarkers.running import runner
from retsam.biomarkers.tables import rows_to_arrow
from retsam.masks.files import MaskFileError, check_values, read_index
from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks

BINARY = ("artery", "vein", "vessel", "fov")
MASK_COLUMNS = ("artery", "vein", "vessel", "disc_cup", "lesions")
COLUMNS = ("image_id", "eye", *BINARY[:3], "disc_cup", "lesions", "fov", "fovea_x", "fovea_y", "um_per_px")
# What `retsam masks export` adds: photographs without masks stay in its table, and in that of their biomarkers.
_EXPORTED = ("status", "reason", "detail")

#: Bit of the `lesions` mask -> target.
LESION_BITS = {1: "microaneurysm", 2: "hemorrhage", 4: "hard_exudate", 8: "cotton_wool_spot"}

#: What this room adds to a row, in words.
EXTRA_COLUMNS = {
    "fov_source": "mask, or whole_image where no field of view was given: densities then count black corners as retina",
    "vessel_source": "mask, or artery_or_vein where the vessel mask was made from the two",
}

_EYES = {"r": "R", "od": "R", "right": "R", "l": "L", "os": "L", "left": "L"}


class MaskTableError(ValueError):
    """The table of masks is wrong; the message lists every fault with its row and column."""


@dataclass(frozen=True)
class OwnMasks:
    """One row of the table: where the masks are, and what is known about the eye."""

    image_id: str
    eye: str | None
    files: dict[str, str]
    fovea: tuple[float, float] | None
    um_per_px: float | None
    failure: tuple[str, str] | None = None
    """Reason and detail of a photograph that the table itself says has no masks."""


def _number(text: str, where: str, faults: list[str], positive: bool = False) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        faults.append(f"{where}: expected a number, found {text!r}")
        return None
    if not math.isfinite(value) or (positive and value <= 0) or (not positive and value < 0):
        faults.append(f"{where}: expected a number {'above 0' if positive else 'of 0 or more'}, found {text!r}")
        return None
    return value


def read_mask_table(path: str | Path) -> list[OwnMasks]:
    """Read and check a table of masks; no mask is opened.

    Parameters
    ----------
    path : path
        CSV.

    Raises
    ------
    MaskTableError
        With all faults at once: columns misspelt, ids missing or doubled, files that are not there, values of the wrong kind.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise MaskTableError(f"{path}: cannot be read as CSV: {error}") from error
    table.columns = [str(column).strip() for column in table.columns]
    faults: list[str] = []
    for column in table.columns:
        near = difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=0.8)
        if column not in (*COLUMNS, *_EXPORTED) and near and near[0] not in table.columns:
            faults.append(f"column {column!r}: unknown; is {near[0]!r} meant?")
    if "image_id" not in table.columns:
        faults.append(f"column 'image_id': missing; found {', '.join(table.columns)}")
    failed = table["status"].str.strip().str.lower().eq("failed") if "status" in table.columns else pd.Series(False, index=table.index)
    if not set(MASK_COLUMNS) & set(table.columns) and not (len(table) and failed.all()):
        faults.append(f"no column with masks; expected at least one of {', '.join(MASK_COLUMNS)}")
    if not len(table):
        faults.append("the table has no rows")
    rows = []
    first_row: dict[str, int] = {}
    for number, record in enumerate(table.to_dict("records"), start=2):
        cell = {column: str(record.get(column, "")).strip() for column in (*COLUMNS, *_EXPORTED)}
        image_id = cell["image_id"]
        if "image_id" in table.columns and not image_id:
            faults.append(f"row {number}, column 'image_id': empty")
        elif image_id in first_row and image_id:
            faults.append(f"row {number}, column 'image_id': {image_id!r} is already in row {first_row[image_id]}")
        first_row.setdefault(image_id, number)
        eye = _EYES.get(cell["eye"].lower())
        if cell["eye"] and eye is None:
            faults.append(f"row {number}, column 'eye': expected R or L (or OD, OS, right, left), found {cell['eye']!r}")
        if failed.iloc[number - 2]:
            reason = (cell["reason"] or "no_masks", cell["detail"] or "the table of masks says that this photograph has none")
            rows.append(OwnMasks(image_id, eye, {}, None, None, reason))
            continue
        files = {}
        for column in (*MASK_COLUMNS, "fov"):
            if cell[column]:
                files[column] = str(path.parent / cell[column])
                if not Path(files[column]).is_file():
                    faults.append(f"row {number}, column {column!r}: no such file {files[column]}")
        if set(MASK_COLUMNS) & set(table.columns) and not set(files) & set(MASK_COLUMNS):
            faults.append(f"row {number}: no mask; fill at least one of {', '.join(c for c in MASK_COLUMNS if c in table.columns)}")
        x, y = (_number(cell[column], f"row {number}, column {column!r}", faults) for column in ("fovea_x", "fovea_y"))
        if bool(cell["fovea_x"]) != bool(cell["fovea_y"]):
            faults.append(f"row {number}: fovea_x and fovea_y belong together; one of them is empty")
        spacing = _number(cell["um_per_px"], f"row {number}, column 'um_per_px'", faults, positive=True)
        rows.append(OwnMasks(image_id, eye, files, None if x is None or y is None else (x, y), spacing))
    if faults:
        raise MaskTableError(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n  " + "\n  ".join(faults))
    return rows


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
    except MaskFileError as error:
        return Failure(row.image_id, error.reason, str(error), row.eye)
    height, width = next(iter(shapes.values()))
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


def measure_own_masks(path: str | Path, config: BiomarkersConfig, quiet: bool = False) -> pa.Table:
    """Measure every row of a table of masks.

    Parameters
    ----------
    path : path
        CSV; see the module's text for its columns.
    config : BiomarkersConfig
    quiet : bool
        No progress bar.

    Returns
    -------
    pyarrow.Table
        Rows in the table's order. A mask that cannot be read is a row with ``status`` ``failed``, a ``reason`` (``unreadable``,
        ``bad_encoding``, ``size_mismatch``) and a ``detail``.

    Raises
    ------
    MaskTableError
        If the table itself is wrong.
    """
    rows = read_mask_table(path)
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
