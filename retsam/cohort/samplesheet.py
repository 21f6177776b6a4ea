"""The samplesheet: read from CSV, TSV, Parquet or a bare folder, and validated whole."""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from retsam.cohort.config import CohortConfig
from retsam.cohort.faults import Fault, SamplesheetError, cell_faults
from retsam.cohort.folder import Found, find_photographs, guess_from_names
from retsam.cohort.reading import SUFFIXES
from retsam.cohort.variables import convert, id_text, listed, plain, slips, spellings
from retsam.eyes import EYE_WORDS, EYES, UM_PER_PX, UM_PER_PX_MEND, UM_PER_PX_WORDS


@dataclass
class Cohort:
    """Photographs of a study after validation.

    Parameters
    ----------
    table : DataFrame
        image_id, path (absolute), subject, eye, visit, um_per_px, then labels and covariates; in the order of the samplesheet.
    files : DataFrame
        ``size`` (bytes; -1 where there is no file) and ``mtime_ns`` of each photograph, same index as `table`.
    notes : list of str
        What was understood and assumed, one sentence each.
    """

    table: pd.DataFrame
    files: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def load_cohort(config: CohortConfig) -> Cohort:
    """Read and validate the samplesheet of a study, or the folder in its place.

    Parameters
    ----------
    config : CohortConfig

    Returns
    -------
    Cohort

    Raises
    ------
    SamplesheetError
        With every fault: missing columns, duplicate ids, missing files, impossible values, unknown eye codes.
    """
    source = Path(config.samplesheet)
    if source.is_dir():
        return _load_folder(config, source)
    sheet, first_row = read_sheet(source, config.missing_values)
    root = Path(config.root) if config.root else source.parent
    faults = _column_faults(config, sheet)
    if faults:
        # Rows are checked all the same, as far as they can be without the columns that are missing.
        lesser = _without(config, {f.column for f in faults})
        found = [] if lesser is None else _faults_of(lesser, source, sheet, first_row, root)
        raise SamplesheetError(str(source), [*faults, *found])
    return _load(config, source, sheet, first_row, root)


def _without(config: CohortConfig, columns: set[str]) -> CohortConfig | None:
    """The settings without what reads some columns; None where rows cannot be told apart or chosen without them."""
    chosen = {config.columns.image, *config.filter, *((config.unique.by, config.unique.keep_largest) if config.unique else ())}
    if chosen & columns:
        return None
    roles = {role: None for role, name in config.columns if isinstance(name, str) and name in columns}
    kept = {
        section: {name: variable for name, variable in getattr(config, section).items() if (variable.column or name) not in columns}
        for section in ("labels", "covariates")
    }
    return config.model_copy(update={"columns": config.columns.model_copy(update=roles), **kept})


def _faults_of(config: CohortConfig, source: Path, sheet: pd.DataFrame, first_row: int, root: Path) -> list[Fault]:
    try:
        _load(config, source, sheet, first_row, root)
    except SamplesheetError as error:
        return error.faults
    return []


def _load(config: CohortConfig, source: Path, sheet: pd.DataFrame, first_row: int, root: Path) -> Cohort:
    """The cohort of a sheet that has every column that the settings name."""
    rows = np.arange(len(sheet)) + first_row
    keep = np.ones(len(sheet), bool)
    for column, values in config.filter.items():
        accepted = listed(values)
        keep &= sheet[column].map(lambda c, a=accepted: plain(c) in a, na_action="ignore").fillna(False).to_numpy(bool)
    notes = []
    if config.filter:
        said = "; ".join(f"{c} = {' or '.join(spellings(x)[0] for x in v)}" for c, v in config.filter.items())
        notes.append(f"{int(keep.sum()):,} of {len(sheet):,} rows pass the filter ({said})")
    faults = [
        Fault(None, column, f"a cell that is {text!r}, as `filter` says", f"none, but {near!r}", f"write {near!r} in `filter`")
        for column, values in config.filter.items()
        for text, near in slips(values, sheet[column].dropna().unique())
    ]
    if faults:
        raise SamplesheetError(str(source), faults)
    if not keep.any():
        mend = "check `filter`" if config.filter else "give the table at least one row"
        raise SamplesheetError(str(source), [Fault(None, config.columns.image, "at least one photograph", "none", mend)])
    sheet, rows = sheet[keep].reset_index(drop=True), rows[keep]
    if config.unique is not None:
        first, faults = _largest_of_each(config, sheet, rows)
        if faults:
            raise SamplesheetError(str(source), faults)
        n, by, size = int((~first).sum()), config.unique.by, config.unique.keep_largest
        notes.append(f"{n:,} rows left out: the same {by} with a larger {size} is there (cohort.unique)")
        sheet, rows = sheet[first].reset_index(drop=True), rows[first]
    return _validate(config, str(source), sheet, rows, root, notes)


def read_sheet(source: Path, missing: tuple[str, ...] = ("",)) -> tuple[pd.DataFrame, int]:
    """Read a table with all cells as text.

    Parameters
    ----------
    source : Path
        ``.csv``, ``.tsv``, ``.txt`` (delimiter found by looking) or ``.parquet``.
    missing : tuple of str
        Cells that mean: not known.

    Returns
    -------
    sheet : DataFrame of str
        NA where not known; column names stripped.
    first_row : int
        Number of the first data row in messages.
    """
    if not source.exists():
        near = difflib.get_close_matches(source.name, [p.name for p in source.parent.glob("*")] if source.parent.is_dir() else [], 3)
        hint = f"; near it lie {', '.join(near)}" if near else ""
        started = "" if source.is_absolute() else ", or start from the folder that it is relative to"
        found, mend = f"nothing at {source.absolute()}", f"correct `samplesheet`{started}{hint}"
        raise SamplesheetError(str(source), [Fault(None, "-", "a table (.csv, .tsv, .parquet) or a folder", found, mend)])
    try:
        if source.suffix.lower() in (".parquet", ".pq"):
            raw, first_row = pd.read_parquet(source), 1
            sheet = pd.DataFrame({str(c).strip(): _as_text(raw[c]) for c in raw.columns})
        else:
            sheet, first_row = _read_text(source), 2
    except (pd.errors.EmptyDataError, csv.Error, OSError, ValueError) as error:
        if isinstance(error, SamplesheetError):
            raise
        raise SamplesheetError(
            str(source), [Fault(None, "-", "a table with one row of names", str(error).strip(), "mend the file's form")]
        ) from error
    sheet.columns = [str(c).strip() for c in sheet.columns]
    sheet = sheet.apply(lambda s: s.astype("string").str.strip())
    sheet = sheet.mask(sheet.isin(list(missing)))
    blank = sheet.isna().all(axis=1).to_numpy()
    if blank.any():  # rows that a spreadsheet left behind; row numbers must stay those of the file, so only trailing ones go
        last = int(np.flatnonzero(~blank)[-1]) + 1 if (~blank).any() else 0
        sheet = sheet.iloc[:last]
    return sheet, first_row


def _read_text(source: Path) -> pd.DataFrame:
    """Cells of a delimited text file.

    Raises
    ------
    SamplesheetError
        With every row that has not as many cells as there are names, or the first that is not UTF-8.
    """
    data = source.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        fault = Fault(row, "-", "text in UTF-8", f"byte {data[error.start]:#x}, of another encoding", "save the table as UTF-8 CSV")
        raise SamplesheetError(str(source), [fault]) from error
    lines = text.splitlines(keepends=True)
    if not text.strip():
        raise ValueError("an empty file")
    names, *rows = csv.reader(lines, delimiter=_delimiter(lines[0]))
    names = [name.strip() for name in names]
    faults = [
        Fault(number, "-", f"{len(names)} cells, as many as there are names", str(len(row)), "quote what holds a delimiter, or add one")
        for number, row in enumerate(rows, start=2)
        if row and len(row) != len(names)
    ]
    if faults:
        raise SamplesheetError(str(source), faults)
    table = pd.DataFrame([row or [""] * len(names) for row in rows], columns=range(len(names)), dtype="string")
    # Columns that a spreadsheet left behind have neither name nor cells.
    named = [i for i, name in enumerate(names) if name or table[i].fillna("").str.strip().ne("").any()]
    return table[named].set_axis([names[i] or f"column {i + 1}" for i in named], axis=1)


def _as_text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        return column.map(id_text, na_action="ignore").astype("string")
    return column.astype("string")


def _delimiter(header: str) -> str:
    counts = {d: header.count(d) for d in ("\t", ";", ",", "|")}
    best = max(counts, key=lambda d: counts[d])
    return best if counts[best] else ","


def _column_faults(config: CohortConfig, sheet: pd.DataFrame) -> list[Fault]:
    """Columns that the config names and the samplesheet lacks, with what might have been meant."""
    wanted = [(f"columns.{role}", name) for role, name in config.columns if isinstance(name, str)]
    wanted += [(f"filter.{name}", name) for name in config.filter]
    if config.unique is not None:
        wanted += [("unique.by", config.unique.by), ("unique.keep_largest", config.unique.keep_largest)]
    for section in ("labels", "covariates"):
        wanted += [(f"{section}.{name}", variable.column or name) for name, variable in getattr(config, section).items()]
    lower = {c.lower(): c for c in sheet.columns}
    faults = []
    repeated = sheet.columns[sheet.columns.duplicated()].unique()
    faults += [
        Fault(1, c, "column names that occur once", "several columns of this name", "rename or remove one of them") for c in repeated
    ]
    for key, name in wanted:
        if name in sheet.columns:
            continue
        near = [lower[m] for m in difflib.get_close_matches(name.lower(), lower, 3, 0.6)]
        # A synonym is as likely as a slip of the pen: `cohort.columns.image: image` and a column `filename`.
        near += [c for c in sheet.columns if key == "columns.image" and re.search(r"image|file|path|photo", c, re.I) and c not in near]
        hint = f"did you mean {' or '.join(repr(n) for n in near[:3])}? " if near else ""
        found = "none of this name among " + ", ".join(list(sheet.columns)[:30]) + (", ..." if len(sheet.columns) > 30 else "")
        faults.append(Fault(None, name, f"a column for cohort.{key}", found, f"{hint}set cohort.{key} to a column of the samplesheet"))
    return faults


def _largest_of_each(config: CohortConfig, sheet: pd.DataFrame, rows: np.ndarray) -> tuple[np.ndarray, list[Fault]]:
    """Rows that `unique` keeps, bool ``[n]``, and cells of its column of numbers that are none."""
    by, column = config.unique.by, config.unique.keep_largest
    size = pd.to_numeric(sheet[column], errors="coerce")
    wrong = (size.isna() & sheet[by].notna()).to_numpy(bool)
    faults = cell_faults(wrong, rows, sheet[column], column, "a number", "fill it, or name another column")
    order = size.sort_values(ascending=False, kind="stable").index
    again = sheet[by].loc[order].duplicated() & sheet[by].loc[order].notna()
    return ~again.sort_index().to_numpy(bool), faults


def _validate(
    config: CohortConfig, source: str, sheet: pd.DataFrame, rows: np.ndarray, root: Path, notes: list[str], listed: bool = False
) -> Cohort:
    """Check every cell. A file that a table names and that is not there is a fault; where no table names files (`listed`), it is a row."""
    columns = config.columns
    faults: list[Fault] = []
    images = sheet[columns.image]
    faults += _empty(columns.image, images, rows, "the path of a photograph")
    paths, relative = _resolve(images, root)
    files, missing = _stat(paths, images)
    mend = f"correct the path, remove the row, or set cohort.root (relative paths start from {root})"
    if not listed:
        faults += [
            Fault(int(rows[i]), columns.image, "a file", f"no file at {paths[i]}" if what == "none" else what, mend) for i, what in missing
        ]
    faults += _repeats(
        columns.image, pd.Series(paths).mask(images.isna().to_numpy()), rows, images, "each photograph once", "remove the repeated row"
    )

    if columns.image_id is not None:
        ids = sheet[columns.image_id]
        faults += _empty(columns.image_id, ids, rows, "a unique id")
        faults += _repeats(columns.image_id, ids, rows, ids, "a unique id", mend)
        odd = ids.notna() & ids.str.contains(r"[\x00-\x1f/\\]", regex=True, na=False)
        mend = "ids become file names; replace the slashes"
        faults += cell_faults(odd.to_numpy(bool), rows, ids, columns.image_id, "an id without slashes", mend)
    else:
        ids = pd.Series(image_ids(relative), dtype="string")
        notes.append("image ids are made from the paths (no cohort.columns.image_id)")

    if columns.subject is not None:
        subject = sheet[columns.subject]
        faults += _empty(columns.subject, subject, rows, "a subject", "whose eye it is must be known: fill the cell or remove the row")
    else:
        subject = ids
        notes.append("no column for subjects: every photograph counts as its own subject, so two eyes of one person count as two")
    eye, eye_faults = _eyes(columns.eye, sheet, rows)
    faults += eye_faults
    if columns.eye is None:
        notes.append("no column for the eye: it is left unknown")
    visit = sheet[columns.visit] if columns.visit is not None else pd.Series(pd.NA, index=sheet.index, dtype="string")
    spacing, spacing_faults = _spacing(columns.um_per_px, sheet, rows)
    faults += spacing_faults

    table = pd.DataFrame({"image_id": ids, "path": paths, "subject": subject, "eye": eye, "visit": visit, "um_per_px": spacing})
    for name, variable in config.variables().items():
        table[name], found = convert(name, variable, sheet[variable.column or name], rows)
        faults += found
        if variable.derived and not found and not (table[name] == 1).any():
            notes.append(f"{name}: no cell of column {variable.column or name!r} means yes")
    if faults:
        raise SamplesheetError(source, sorted(faults, key=lambda f: (f.column, f.mend, f.row or 0)))
    for name in ("path", "image_id", "subject", "eye", "visit"):
        table[name] = table[name].astype("string")
    return Cohort(table, files, notes)


def _empty(column: str, cells: pd.Series, rows: np.ndarray, expected: str, mend: str = "fill the cell or remove the row") -> list[Fault]:
    return cell_faults(cells.isna().to_numpy(bool), rows, cells, column, expected, mend)


def _repeats(column: str, keys: pd.Series, rows: np.ndarray, cells: pd.Series, expected: str, mend: str) -> list[Fault]:
    """Faults for the second and later rows of each repeated key."""
    keys = keys.reset_index(drop=True)
    again = (keys.duplicated() & keys.notna()).to_numpy(bool)
    if not again.any():
        return []
    first = dict(zip(keys[::-1], rows[::-1], strict=True))
    return [
        Fault(int(rows[i]), column, expected, f"{cells.iloc[i]!r} again (first in row {first[keys.iloc[i]]})", mend)
        for i in np.flatnonzero(again)
    ]


def _resolve(images: pd.Series, root: Path) -> tuple[list[str], list[str]]:
    """Absolute paths, and the relative ones that ids are made from."""
    base = os.path.abspath(root)
    paths = ["" if pd.isna(c) else os.path.normpath(os.path.join(base, os.path.expanduser(c))) for c in images]
    outside = [p for p in paths if p and not p.startswith(base + os.sep)]
    # Absolute paths elsewhere: relative to the folder that they share, so that ids do not tell where a disk is mounted.
    shared = os.path.dirname(outside[0]) if len(set(outside)) == 1 else os.path.commonpath(outside) if outside else base
    relative = [os.path.relpath(p, base if p.startswith(base + os.sep) else shared) if p else "" for p in paths]
    return paths, relative


def image_ids(relative: list[str]) -> list[str]:
    """Ids from relative paths: folders joined by ``-``, ending dropped; where two would be one, a hash of the path is added.

    An id depends on its own path only, unless two paths differ in nothing but their ending or in what is not a letter, digit, dot
    or underscore; those get eight hexadecimal digits of the SHA-1 of their path.
    """
    plain_ids = [re.sub(r"[^\w.]+", "-", os.path.splitext(p.replace(os.sep, "/"))[0]).strip("-.") or "image" for p in relative]
    counts: dict[str, int] = {}
    for name in plain_ids:
        counts[name] = counts.get(name, 0) + 1
    return [
        name if counts[name] == 1 else f"{name}-{hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()[:8]}"
        for name, path in zip(plain_ids, relative, strict=True)
    ]


def _stat(paths: list[str], images: pd.Series) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    sizes, times, missing = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64), []
    for i, path in enumerate(paths):
        if not path:
            continue
        try:
            info = os.stat(path)
        except OSError as error:
            sizes[i] = -1
            missing.append((i, "none" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"))
            continue
        if info.st_mode & 0o170000 == 0o040000:
            missing.append((i, f"a folder at {path}"))
        sizes[i], times[i] = info.st_size, info.st_mtime_ns
    return pd.DataFrame({"size": sizes, "mtime_ns": times}), missing


def _eyes(column: str | None, sheet: pd.DataFrame, rows: np.ndarray) -> tuple[pd.Series, list[Fault]]:
    if column is None:
        return pd.Series(pd.NA, index=sheet.index, dtype="string"), []
    cells = sheet[column]
    eyes = cells.str.lower().map(EYES, na_action="ignore").astype("string")
    wrong = (cells.notna() & eyes.isna()).to_numpy(bool)
    mend = "write R or L (OD, OS, right, left are understood); leave the cell empty if the eye is not known"
    return eyes, cell_faults(wrong, rows, cells, column, EYE_WORDS, mend)


def _spacing(column: float | str | None, sheet: pd.DataFrame, rows: np.ndarray) -> tuple[pd.Series, list[Fault]]:
    if not isinstance(column, str):
        return pd.Series(np.nan if column is None else float(column), index=sheet.index, dtype="float64"), []
    cells = sheet[column]
    values = pd.to_numeric(cells, errors="coerce")
    wrong = (cells.notna() & ~values.between(*UM_PER_PX)).fillna(True).to_numpy(bool)
    return values.astype("float64"), cell_faults(wrong, rows, cells, column, UM_PER_PX_WORDS, UM_PER_PX_MEND)


def no_photographs(folder: Path, found: Found, mend: str) -> Fault:
    """The fault of a folder without photographs."""
    there = "; ".join([f"no file in {folder} that ends in {', '.join(SUFFIXES)}", *found.notes()])
    return Fault(None, "-", "photographs", there, mend)


def _load_folder(config: CohortConfig, folder: Path) -> Cohort:
    found = find_photographs(folder)
    relative = found.photographs
    if not relative:
        raise SamplesheetError(str(folder), [no_photographs(folder, found, "correct `samplesheet`, or give a table of paths")])
    named = sorted(config.variables()) + sorted(config.filter) + ([config.unique.by, config.unique.keep_largest] if config.unique else [])
    if named:
        fault = Fault(
            None,
            ", ".join(named),
            "a samplesheet with these columns",
            "a bare folder",
            "give a table as `samplesheet`, or remove them from the config",
        )
        raise SamplesheetError(str(folder), [fault])
    guess, notes = guess_from_names(relative)
    sheet = pd.DataFrame({"image": pd.array(relative, "string"), "subject": guess["subject"], "eye": guess["eye"]})
    known = guess["eye"].notna().all()
    columns = config.columns.model_copy(
        update={"image": "image", "image_id": None, "visit": None} | {k: k if known else None for k in ("subject", "eye")}
    )
    if isinstance(columns.um_per_px, str):
        columns = columns.model_copy(update={"um_per_px": None})
    notes[:0] = [f"{len(relative):,} photographs found in {folder}", *found.notes()]
    return _validate(
        config.model_copy(update={"columns": columns}), str(folder), sheet, np.arange(len(sheet)) + 1, folder, notes, listed=True
    )
