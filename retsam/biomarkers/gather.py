"""Parts, cohort and quality become ``biomarkers.parquet`` and ``biomarkers.csv``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retsam.biomarkers.cohort import part_origin
from retsam.biomarkers.tables import TableWriter

#: Columns of the cohort that go in front.
_COHORT = ("subject", "visit", "shard")


class GatherError(ValueError):
    """Parts, cohort and quality do not belong together; the message lists all faults."""


def _differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Settings that differ, each with both its values; nested ones by their path."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [line for key in sorted({*one, *other}) for line in _differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))]
    if isinstance(one, dict) or isinstance(other, dict):
        return [f"{name} (one of the two does not say)"]
    return [] if one == other else [f"{name} ({one!r}, there {other!r})"]


def _origin_faults(parts: list[Path]) -> list[str]:
    """Parts that were not measured as most of them were, one sentence for each way in which they differ."""
    origins = {path: (part_origin(path) or {}) | {"store": None} for path in parts}
    texts = {path: json.dumps(origin, sort_keys=True) for path, origin in origins.items()}
    usual = Counter(texts.values()).most_common(1)[0][0]
    known = next(path for path in parts if texts[path] == usual)
    odd: dict[str, list[Path]] = {}
    for path in parts:
        if texts[path] != usual:
            odd.setdefault("; ".join(_differences(origins[path], origins[known])), []).append(path)
    mend = "measure them again (`retsam measure`, in the workflow `snakemake --forcerun measure`)"
    faults = []
    for what, paths in odd.items():
        names = ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        faults.append(f"{names}: measured otherwise than {known}: {what}; {mend}")
    return faults


def _faults(parts: list[Path], cohort: pd.DataFrame, quality: pd.DataFrame) -> list[str]:
    known, faults, seen = set(cohort["image_id"]), [], pd.Series(dtype="string")
    if not parts:
        return ["no part given"]
    faults += _origin_faults(parts)
    schema = pq.read_schema(parts[0])
    measured = []
    for path in parts:
        if not pq.read_schema(path).equals(schema):
            faults.append(f"{path}: its columns differ from those of {parts[0]}; measure both with the same configuration")
            continue
        measured.append(pq.read_table(path, columns=["image_id"]).to_pandas()["image_id"])
        strangers = sorted(set(measured[-1]) - known)
        if strangers:
            faults.append(f"{path}: {len(strangers)} images are not in the cohort, such as {strangers[0]!r}")
    seen = pd.concat(measured) if measured else seen
    twice = seen[seen.duplicated()]
    if len(twice):
        faults.append(f"{len(twice)} images are in more than one part, such as {twice.iloc[0]!r}")
    ok = cohort[cohort["status"] == "ok"] if "status" in cohort else cohort
    absent = ok[~ok["image_id"].isin(seen)]
    if len(absent):
        shards = ", ".join(sorted(absent["shard"].astype(str).unique())[:10]) if "shard" in absent else "unknown"
        faults.append(f"{len(absent)} images of the cohort are in no part, such as {absent['image_id'].iloc[0]!r} (shards {shards})")
    unjudged = sorted(set(seen) & known - set(quality["image_id"]))
    if unjudged:
        faults.append(f"{len(unjudged)} measured images are not in the quality table, such as {unjudged[0]!r}")
    return faults


def _reject(table: pa.Table, rejected: np.ndarray) -> pa.Table:
    """Biomarkers of rejected photographs become null with `quality_reject`; failures keep their own reason."""
    mask = pa.array(rejected & np.asarray(pc.equal(table["status"], "ok").to_numpy(zero_copy_only=False), dtype=bool))
    if not pc.any(mask).as_py():
        return table
    names, columns = set(table.schema.names), []
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.name.endswith("__reason") or field.name == "reason":
            column = pc.if_else(mask, pa.scalar("quality_reject"), column)
        elif f"{field.name}__reason" in names:
            column = pc.if_else(mask, pa.scalar(None, field.type), column)
        columns.append(column)
    return pa.table(columns, schema=table.schema)


def _name_source(table: pa.Table, column: str, read: str, known: pd.Series) -> pa.Table:
    """A value that the cohort table does not have came from the photograph's DICOM header, if from anywhere but the picture."""
    position = table.schema.get_field_index(column)
    absent = pa.array(known.isna().to_numpy())
    from_header = pc.and_(absent, pc.fill_null(pc.equal(table[column], read), False))
    return table.set_column(position, column, pc.if_else(from_header, pa.scalar("dicom"), table[column]))


def gather(parts: Iterable[str | Path], cohort: pd.DataFrame, quality: pd.DataFrame, out: str | Path) -> int:
    """Join parts with cohort and quality, and write the study's biomarker table.

    Parameters
    ----------
    parts : iterable of path
        Parts of :func:`retsam.biomarkers.cohort.measure_stores`. Read one at a time.
    cohort, quality : DataFrame
        ``cohort.parquet`` and ``quality.parquet``.
    out : path
        ``biomarkers.parquet``; the CSV is written beside it.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    GatherError
        With every fault at once: parts missing, doubled, of another configuration or of another cohort.
    """
    paths, out = [Path(part) for part in parts], Path(out)
    faults = _faults(paths, cohort, quality)
    if faults:
        raise GatherError("the biomarker table cannot be gathered:\n  " + "\n  ".join(faults))
    front = cohort.set_index("image_id").reindex(columns=[*_COHORT, "um_per_px", "eye"])
    rejected = set(quality.loc[quality["grade"] == "reject", "image_id"])
    first = pq.read_schema(paths[0])
    names = first.names
    order = ["image_id", "subject", "eye", "visit", "shard", *(name for name in names if name not in ("image_id", "eye"))]
    kinds = dict(zip(names, first.types, strict=True))
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in order])
    rows = 0
    with TableWriter(out, out.with_suffix(".csv"), schema) as writer:
        for path in paths:
            table = pq.read_table(path).replace_schema_metadata()
            ids = table["image_id"].to_pandas()
            table = _reject(table, ids.isin(rejected).to_numpy())
            own = front.loc[ids]
            if "um_per_px" in cohort:
                table = _name_source(table, "scale_source", "manifest", own["um_per_px"])
            if "eye" in cohort:
                table = _name_source(table, "eye_source", "table", own["eye"])
            for name in _COHORT:
                values = [None if pd.isna(value) else str(value) for value in own[name]]
                table = table.append_column(pa.field(name, pa.string()), pa.array(values, pa.string()))
            writer.write(table.select(order).cast(schema))
            rows += len(table)
    return rows
