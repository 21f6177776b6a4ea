"""The biomarker table on disk: column types, Parquet and CSV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import ROW_COLUMNS, family_registry

#: Columns about the row that are numbers; the others are text, one is a truth value.
_NUMBERS = {"um_per_px", "px_per_dd", "px_per_mask_px", "zone_b_share", "zone_c_share", "macula_6mm_share"}

#: A spreadsheet takes a cell that begins with one of these as a formula (CWE-1236).
_FORMULA = r"^([=+\-@\t\r])"

#: A row group is written at this many rows or bytes.
_GROUP_ROWS, _GROUP_BYTES = 5_000, 128 << 20

#: Pieces that wait are made one at this many: thousands of columns in many chunks cost more than what is in them.
_GROUP_PIECES = 64


def row_schema(config: BiomarkersConfig, extra: Iterable[str] = ()) -> pa.Schema:
    """Arrow schema of a part: the row's own columns, further text columns, then each biomarker and its reason."""
    kinds = {name: pa.float64() if name in _NUMBERS else pa.string() for name in ROW_COLUMNS} | {"laterality_conflict": pa.bool_()}
    kinds |= dict.fromkeys(extra, pa.string())
    for name in family_registry(config):
        kinds |= {name: pa.float64(), f"{name}__reason": pa.string()}
    return pa.schema(list(kinds.items()))


def rows_to_arrow(rows: list[dict[str, Any]], config: BiomarkersConfig, extra: Iterable[str] = ()) -> pa.Table:
    """Rows of :func:`retsam.biomarkers.eye.measure_row` as a typed table; NaN becomes null."""
    schema = row_schema(config, extra)
    columns = [pa.array([_clean(row.get(field.name)) for row in rows], field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _clean(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def neutralise(table: pa.Table) -> pa.Table:
    """Text cells that a spreadsheet would run as a formula get a leading apostrophe; for CSV only."""
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and not field.name.endswith("__reason"):
            safe = pc.replace_substring_regex(table.column(position), _FORMULA, r"'\1")
            table = table.set_column(position, field, safe)
    return table


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write whole under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet or CSV by the file's extension.

    Raises
    ------
    ValueError
        For another extension.
    """
    if path.suffix == ".parquet":
        write_parquet(table, path)
    elif path.suffix == ".csv":
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            pa.csv.write_csv(neutralise(table), temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    else:
        raise ValueError(f"{path}: expected a name that ends in .parquet or .csv")


class TableWriter:
    """Parquet and CSV of one table, written piece by piece; complete only after leaving the context.

    Pieces are collected until they make a row group of about 5,000 rows. Every row group costs its writer and each reader a few
    megabytes for 2,584 columns, so a group a piece would make memory grow with the number of pieces.

    Parameters
    ----------
    parquet, csv : Path
    schema : pyarrow.Schema
    """

    def __init__(self, parquet: Path, csv: Path, schema: pa.Schema) -> None:
        parquet.parent.mkdir(parents=True, exist_ok=True)
        self._targets = [parquet, csv]
        self._temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in self._targets]
        self._parquet = pq.ParquetWriter(self._temporary[0], schema, compression="zstd")
        self._csv = pa.csv.CSVWriter(self._temporary[1], schema)
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows, self._bytes = self._rows + len(table), self._bytes + table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()
        elif len(self._waiting) >= _GROUP_PIECES:
            self._waiting = [self._joined()]

    def _joined(self) -> pa.Table:
        return pa.concat_tables(self._waiting).combine_chunks()

    def _flush(self) -> None:
        if self._waiting:
            table = self._joined()
            self._waiting, self._rows, self._bytes = [], 0, 0
            self._parquet.write_table(table)
            self._csv.write_table(neutralise(table))

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        whole = False
        try:
            if kind is None:
                self._flush()
                whole = True
        finally:
            self._parquet.close()
            self._csv.close()
            for temporary, target in zip(self._temporary, self._targets, strict=True):
                if whole:
                    temporary.replace(target)
                else:
                    temporary.unlink(missing_ok=True)
