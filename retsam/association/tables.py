"""Tables of the association room: order of columns, what they mean, and writing them so that nothing in a cell can run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from retsam.association.config import AssociationConfig
from retsam.association.dictionary import COLUMNS, TABLES
from retsam.association.grid import Exposure

#: Libraries whose versions are written beside every result.
LIBRARIES = ("numpy", "scipy", "pandas", "formulaic", "numba", "dask")


@dataclass
class Analysis:
    """Everything that an analysis leaves behind.

    Attributes
    ----------
    associations : DataFrame
        One row a test.
    tables : dict of str to DataFrame
        By file name without suffix; each has the columns of :data:`retsam.association.dictionary.TABLES`.
    notes : dict of str to str
        Why a table is empty.
    plan : dict
        The plan as validated, its hash, seed and library versions.
    methods : str
        Paragraphs for the methods section.
    """

    associations: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    plan: dict = field(default_factory=dict)
    methods: str = ""


def plan_digest(config: AssociationConfig, seed: int) -> str:
    """SHA-256 of the analysis plan and its seed, as hexadecimal. The number of threads is no part of it."""
    plan = config.model_dump(mode="json")
    plan.pop("workers", None)
    text = json.dumps({"association": plan, "seed": seed}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plan_record(config: AssociationConfig, seed: int, exposures: Sequence[Exposure] = ()) -> dict:
    """What ``plan.json`` holds: the plan, its hash, versions, and the transform that it comes to for each biomarker."""
    from retsam._version import __version__

    return {
        "association": config.model_dump(mode="json"),
        "seed": seed,
        "sha256": plan_digest(config, seed),
        "transforms": {e.name: {"transform": e.transform, "log_unit": json_value(e.log_unit)} for e in exposures},
        "versions": {"retsam": __version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}},
    }


def shaped(table: pd.DataFrame, name: str, plan: str) -> pd.DataFrame:
    """A table with exactly its columns of the dictionary, in order, and the hash of the plan in each row."""
    columns = TABLES[name].columns
    out = table.copy()
    out["plan"] = plan
    unknown = [c for c in out.columns if c not in columns]
    if unknown:
        raise ValueError(f"table {name!r} has columns that the dictionary does not know: {', '.join(unknown)}")
    return out.reindex(columns=list(columns))


def guard(value: object) -> object:
    """Text that a spreadsheet would run as a formula, preceded by an apostrophe; everything else as it is."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def write_csv(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a CSV whose text cells no spreadsheet runs; whole or not at all."""
    safe = table.copy()
    for column in safe.columns:
        if not (pd.api.types.is_numeric_dtype(safe[column].dtype) or pd.api.types.is_bool_dtype(safe[column].dtype)):
            safe[column] = safe[column].map(guard)
    safe = safe.rename(columns=guard)
    _replace(path, lambda temporary: safe.to_csv(temporary, index=False, encoding="utf-8"))


def _replace(path: str | os.PathLike, write) -> None:
    temporary = f"{os.fspath(path)}.part"
    write(temporary)
    os.replace(temporary, path)


def json_value(value: object) -> object:
    """Numbers that JSON has no name for, and missing values, as null."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if hasattr(value, "item"):
        return json_value(value.item())
    return value


def _write_json(path: str, record: dict, table: pd.DataFrame, block: int = 2000) -> None:
    """``record`` with the table's rows under ``rows``, written some rows at a time: as one text they take a gigabyte of a large plan."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1] + ', "rows": [')
        for first in range(0, len(table), block):
            rows = table.iloc[first : first + block].to_dict("records")
            texts = [json.dumps({k: json_value(v) for k, v in row.items()}, ensure_ascii=False, allow_nan=False) for row in rows]
            file.write((", " if first else "") + ", ".join(texts))
        file.write("]}")


def write_analysis(analysis: Analysis, out: str | os.PathLike) -> list[Path]:
    """Write ``associations.parquet``, ``.csv``, ``.json`` and the folder ``tables/`` beside them.

    Parameters
    ----------
    analysis : Analysis
    out : path
        The Parquet file.

    Returns
    -------
    list of Path
        Files written. Tables come first and the Parquet file last, so that it stands only where everything does.
    """
    out = Path(out)
    folder = out.parent / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in analysis.tables.items():
        write_csv(table, folder / f"{name}.csv")
        written.append(folder / f"{name}.csv")
    index = pd.DataFrame(
        [{"table": n, "rows": len(t), "title": TABLES[n].title, "note": analysis.notes.get(n)} for n, t in analysis.tables.items()]
    )
    write_csv(shaped(index, "index", analysis.plan["sha256"][:12]), folder / "index.csv")
    dictionary = pd.DataFrame([{"table": n, "column": c, "meaning": COLUMNS.get(c, "")} for n, t in TABLES.items() for c in t.columns])
    write_csv(shaped(dictionary, "dictionary", analysis.plan["sha256"][:12]), folder / "dictionary.csv")
    _replace(folder / "plan.json", lambda p: Path(p).write_text(json.dumps(analysis.plan, indent=2, ensure_ascii=False), encoding="utf-8"))
    _replace(folder / "methods.md", lambda p: Path(p).write_text(analysis.methods, encoding="utf-8"))
    written += [folder / "index.csv", folder / "dictionary.csv", folder / "plan.json", folder / "methods.md"]
    table = analysis.associations
    write_csv(table, out.with_suffix(".csv"))
    record = {
        "plan": analysis.plan["association"],
        "plan_sha256": analysis.plan["sha256"],
        "seed": analysis.plan["seed"],
        "versions": analysis.plan["versions"],
        "dictionary": {c: COLUMNS.get(c, "") for c in table.columns},
    }
    _replace(out.with_suffix(".json"), lambda p: _write_json(p, record, table))
    _replace(out, lambda p: table.to_parquet(p, index=False))
    return [*written, out.with_suffix(".csv"), out.with_suffix(".json"), out]
