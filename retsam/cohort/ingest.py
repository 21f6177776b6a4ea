"""From samplesheet to cohort table and shards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from retsam.cohort.config import CohortConfig
from retsam.cohort.samplesheet import Cohort, load_cohort

#: Columns of a shard's file: what reading and segmenting a photograph needs, and no label.
SHARD_COLUMNS = ["image_id", "path", "eye", "um_per_px"]

#: Rows of a row group: rows lie in the order of shards, so who asks for one shard reads one group or two.
_GROUP_ROWS = 50_000


def shard_names(n_images: int, shard_size: int) -> np.ndarray:
    """Shard of each row, ``[n_images]``: ``s0000``, ``s0001``, ... in the order of rows.

    Rows added at the end leave all earlier shards, except the last one if it was not full, as they were.
    """
    index = np.arange(n_images) // shard_size
    width = max(4, len(str(int(index[-1])))) if n_images else 4
    return np.array([f"s{i:0{width}d}" for i in index], dtype=object)


def plan_shards(config: CohortConfig, cohort: Cohort | None = None) -> dict[str, str]:
    """Shards of a study and a digest of what each holds, for a workflow to plan by.

    The digest covers image id, path, eye, pixel size, and size and time of the file; not labels or covariates, so editing those changes
    no digest. Photographs are not opened: 100,000 rows take seconds.

    Parameters
    ----------
    config : CohortConfig
    cohort : Cohort, optional
        What :func:`~retsam.cohort.samplesheet.load_cohort` returned for the same config.

    Returns
    -------
    dict of str to str
        Shard id to 16 hexadecimal digits.

    Raises
    ------
    SamplesheetError
        With every fault of the samplesheet.
    """
    cohort = load_cohort(config) if cohort is None else cohort
    columns = [cohort.table[c].astype("string").fillna("").tolist() for c in SHARD_COLUMNS]
    columns += [cohort.files[c].astype(str).tolist() for c in ("size", "mtime_ns")]
    digests = {}
    for name, *values in zip(shard_names(len(cohort.table), config.shard_size), *columns, strict=True):
        # Unit and record separators cannot occur in a cell, so no two different rows read the same.
        digests.setdefault(name, hashlib.blake2b(digest_size=8)).update("\x1f".join(values).encode() + b"\x1e")
    return {name: digest.hexdigest() for name, digest in digests.items()}


def build_cohort_table(config: CohortConfig, cohort: Cohort | None = None) -> pd.DataFrame:
    """The cohort table (``cohort.parquet``): one row a photograph.

    Parameters
    ----------
    config : CohortConfig
    cohort : Cohort, optional
        What :func:`~retsam.cohort.samplesheet.load_cohort` returned for the same config.

    Returns
    -------
    DataFrame
        image_id, path, subject, eye, visit, um_per_px, shard, status, reason, detail, then labels and covariates.
        ``status`` is ``failed`` only for files of no bytes and dead links in a folder; whether a photograph can be read is found out by
        the quality room.
    """
    cohort = load_cohort(config) if cohort is None else cohort
    table = cohort.table.copy()
    size = cohort.files["size"].to_numpy()
    failed = [size < 0, size == 0]
    table.insert(6, "shard", pd.array(shard_names(len(table), config.shard_size), "string"))
    table.insert(7, "status", pd.array(np.where(size > 0, "ok", "failed"), "string"))
    for at, name, words in ((8, "reason", ["missing", "empty"]), (9, "detail", ["no file, or a link to none", "the file has no bytes"])):
        table.insert(at, name, pd.array(np.select(failed, np.array(words, object), None), "string"))
    return table


def write_parquet(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table whole: to a temporary name beside its own, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        table.to_parquet(temporary, index=False, row_group_size=_GROUP_ROWS)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_shard_rows(path: str | Path, only: set[str] | None = None) -> pd.DataFrame:
    """What the files of shards hold, from a cohort table on disk: no samplesheet is read and no photograph looked for.

    Parameters
    ----------
    path : str or Path
        Cohort table, or the workflow's index.
    only : set of str, optional
        Shards to read; all if left out.

    Returns
    -------
    DataFrame
        image_id, path, eye, um_per_px and shard.

    Raises
    ------
    ValueError
        If the table lacks one of these columns or of these shards.
    """
    wanted = [*SHARD_COLUMNS, "shard"]
    found = pq.read_schema(path).names
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(
            f"{path}: expected a table that `retsam ingest --out` wrote, with columns {', '.join(wanted)}; "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    table = pd.read_parquet(path, columns=wanted, filters=[("shard", "in", sorted(only))] if only else None)
    if (only or set()) - set(table["shard"]):
        _check_known(only, pd.read_parquet(path, columns=["shard"])["shard"])
    return table


def _check_known(only: set[str], shards: pd.Series) -> None:
    if unknown := sorted(only - set(shards)):
        raise ValueError(f"no shard {', '.join(unknown)} in this cohort; it has {shards.iloc[0]} to {shards.iloc[-1]}")


def write_shards(table: pd.DataFrame, folder: str | Path, only: set[str] | None = None) -> list[Path]:
    """Write one CSV a shard (image_id, path, eye, um_per_px).

    A file whose content would not change is left alone, time stamp and all, so that editing labels makes nothing stale.

    Parameters
    ----------
    table : DataFrame
        Cohort table, or what :func:`read_shard_rows` read of one.
    folder : str or Path
    only : set of str, optional
        Shards to write; all if left out.

    Returns
    -------
    list of Path
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_known(only or set(), table["shard"])
    paths = []
    for shard, rows in table.groupby("shard", sort=False):
        if only is not None and shard not in only:
            continue
        path = folder / f"{shard}.csv"
        text = rows[SHARD_COLUMNS].to_csv(index=False, lineterminator="\n")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        paths.append(path)
    return paths


def read_shard(path: str | Path) -> pd.DataFrame:
    """Read a shard's file: image_id, path, eye (text or NA) and um_per_px (float or NaN)."""
    table = pd.read_csv(
        path,
        dtype={"image_id": "string", "path": "string", "eye": "string"},
        keep_default_na=False,
        na_values={"eye": [""], "um_per_px": [""]},
    )
    missing = [c for c in ("image_id", "path") if c not in table]
    if missing:
        raise ValueError(f"{path}: expected columns image_id and path, found {', '.join(table.columns)}")
    if "eye" not in table:
        table["eye"] = pd.Series(pd.NA, index=table.index, dtype="string")
    table["um_per_px"] = pd.to_numeric(table["um_per_px"]) if "um_per_px" in table else np.nan
    return table
