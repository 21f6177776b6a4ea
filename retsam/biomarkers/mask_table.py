"""The table of masks that a user brings: read and checked whole before any mask is opened.

Columns (all but ``image_id`` and one mask optional; paths relative to the table): ``image_id``; ``eye`` (R, L, OD, OS, right, left);
``artery``, ``vein``, ``vessel``, ``fov`` (PNG, zero or not); ``disc_cup`` (PNG index: 0 background, 1 disc outside the cup, 2 cup);
``lesions`` (PNG bit mask: 1 microaneurysm, 2 haemorrhage, 4 hard exudate, 8 soft exudate); ``fovea_x``, ``fovea_y`` (pixels);
``um_per_px``. A row whose ``status`` is ``failed``, as `retsam masks export` writes it, is a photograph without masks; its ``reason``
and ``detail`` are handed on.
"""

from __future__ import annotations

import difflib
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from retsam.cohort.faults import SamplesheetError
from retsam.cohort.samplesheet import read_sheet
from retsam.eyes import UM_PER_PX, UM_PER_PX_MEND, UM_PER_PX_WORDS, eye_of

log = logging.getLogger(__name__)

MASK_COLUMNS = ("artery", "vein", "vessel", "disc_cup", "lesions")
COLUMNS = ("image_id", "eye", *MASK_COLUMNS, "fov", "fovea_x", "fovea_y", "um_per_px")
# What `retsam masks export` adds: photographs without masks stay in its table, and in that of their biomarkers.
_EXPORTED = ("status", "reason", "detail")

#: Bit of the `lesions` mask -> target.
LESION_BITS = {1: "microaneurysm", 2: "hemorrhage", 4: "hard_exudate", 8: "cotton_wool_spot"}


def _word(name: str) -> str:
    """A column's name as :data:`_OTHERWISE` has it: lower case, one kind of gap, no plural."""
    return name.lower().replace(" ", "_").replace("-", "_").removesuffix("s")


# What is read -> how it is encoded there, and what else people call such columns.
_SYNONYMS = {
    "disc_cup": ("0 background, 1 disc outside the cup, 2 cup", ("disc", "cup", "optic_disc", "optic_cup", "disk", "optic_disk")),
    "artery, vein": ("one file each, zero or not", ("av", "artery_vein")),
    "artery": ("zero or not", ("arteries", "arterioles")),
    "vein": ("zero or not", ("veins", "venules")),
    "vessel": ("zero or not", ("vessels", "blood_vessels")),
    "lesions": (
        ", ".join(f"{bit} {name}" for bit, name in LESION_BITS.items()),
        (*LESION_BITS.values(), "exudates", "soft_exudates", "haemorrhages"),
    ),
    "fov": ("zero or not", ("field_of_view",)),
    "eye": ("R or L", ("laterality", "side", "eye_side")),
    "um_per_px": ("micrometres per pixel", ("pixel_size", "pixel_spacing", "spacing")),
}
_OTHERWISE = {_word(name): (instead, encoding) for instead, (encoding, names) in _SYNONYMS.items() for name in names}


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


def _column_faults(table: pd.DataFrame) -> list[str]:
    """Columns that are there twice, or under another name than the one that is read."""
    names = list(table.columns)
    faults = [
        f"column {name!r}: {names.count(name)} times in the table; keep one" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    for place, name in enumerate(names):
        if name in COLUMNS or name in _EXPORTED or table.iloc[:, place].isna().all():
            continue
        instead, encoding = _OTHERWISE.get(_word(name), ("", ""))
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)
        if instead and not set(instead.split(", ")) & set(names):
            faults.append(f"column {name!r}: not read; put it into {instead} ({encoding}), or remove the column")
        elif not instead and near and near[0] not in names:
            faults.append(f"column {name!r}: unknown; is {near[0]!r} meant?")
    return faults


def _number(text: str, where: str, faults: list[str]) -> float | None:
    """A number of 0 or more."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        faults.append(f"{where}: expected a number, found {text!r}")
        return None
    if not math.isfinite(value) or value < 0:
        faults.append(f"{where}: expected a number of 0 or more, found {text!r}")
        return None
    return value


def _spacing(text: str, where: str, faults: list[str]) -> float | None:
    """Micrometres per pixel, within what a photograph can have."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not UM_PER_PX[0] <= value <= UM_PER_PX[1]:
        faults.append(f"{where}: expected {UM_PER_PX_WORDS}, found {text!r}; {UM_PER_PX_MEND}")
        return None
    return value


def _row(number: int, cell: dict[str, str], folder: Path, columns: list[str], faults: list[str]) -> OwnMasks:
    """One row; what is wrong with it goes to `faults`."""
    where = f"row {number}"
    image_id, eye = cell["image_id"], None
    if "image_id" in columns and not image_id:
        faults.append(f"{where}, column 'image_id': empty")
    try:
        eye = eye_of(cell["eye"])
    except ValueError as error:
        faults.append(f"{where}, column 'eye': {error}")
    if cell["status"].lower() == "failed":
        reason = (cell["reason"] or "no_masks", cell["detail"] or "the table of masks says that this photograph has none")
        return OwnMasks(image_id, eye, {}, None, None, reason)
    files = {column: str(folder / cell[column]) for column in (*MASK_COLUMNS, "fov") if cell[column]}
    faults += [f"{where}, column {column!r}: no such file {path}" for column, path in files.items() if not Path(path).is_file()]
    known = [column for column in MASK_COLUMNS if column in columns]
    if known and not set(files) & set(known):
        faults.append(f"{where}: no mask; fill at least one of {', '.join(known)}")
    x, y = (_number(cell[column], f"{where}, column {column!r}", faults) for column in ("fovea_x", "fovea_y"))
    if bool(cell["fovea_x"]) != bool(cell["fovea_y"]):
        faults.append(f"{where}: fovea_x and fovea_y belong together; one of them is empty")
    spacing = _spacing(cell["um_per_px"], f"{where}, column 'um_per_px'", faults)
    return OwnMasks(image_id, eye, files, None if x is None or y is None else (x, y), spacing)


def read_mask_table(path: str | Path) -> list[OwnMasks]:
    """Read and check a table of masks; no mask is opened. Columns that are not read are named in a warning.

    Parameters
    ----------
    path : path
        CSV (TSV and Parquet are read as well). Rows count as a spreadsheet counts them; blank ones are left out.

    Raises
    ------
    MaskTableError
        With all faults at once: rows of another length than the header (before anything else), columns misspelt, doubled or of another
        name, ids missing or doubled, files that are not there, values of the wrong kind.
    """
    path = Path(path)
    try:
        table, first_row = read_sheet(path)
    except SamplesheetError as error:
        raise MaskTableError("\n  ".join([f"{path}: cannot be read as a table", *map(str, error.faults)])) from error
    columns = list(table.columns)
    faults = _column_faults(table)
    if "image_id" not in columns:
        faults.append(f"column 'image_id': missing; found {', '.join(columns)}")
    absent = dict.fromkeys((*COLUMNS, *_EXPORTED), "")
    cells = enumerate(table.fillna("").to_numpy().tolist(), start=first_row)
    records = [(number, absent | dict(zip(columns, values, strict=True))) for number, values in cells if any(values)]
    if not set(MASK_COLUMNS) & set(columns) and not (records and all(cell["status"].lower() == "failed" for _, cell in records)):
        faults.append(f"no column with masks; expected at least one of {', '.join(MASK_COLUMNS)}")
    if not records:
        faults.append("the table has no rows")
    rows = []
    first: dict[str, int] = {}
    for number, cell in records:
        image_id = cell["image_id"]
        if image_id in first and image_id:
            faults.append(f"row {number}, column 'image_id': {image_id!r} is already in row {first[image_id]}")
        first.setdefault(image_id, number)
        rows.append(_row(number, cell, path.parent, columns, faults))
    if faults:
        raise MaskTableError(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n  " + "\n  ".join(faults))
    if unused := [column for column in columns if column not in (*COLUMNS, *_EXPORTED)]:
        log.warning("%s: columns not used: %s", path, ", ".join(unused))
    return rows
