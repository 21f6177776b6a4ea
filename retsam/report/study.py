"""What a study left behind, read for the report: tables, stores and provenance, each present or absent with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as pq

#: Tables of the rooms before this one: file in the results folder, and columns without which it is of no use.
MAIN_TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cohort": ("cohort.parquet", ("image_id", "subject", "status", "reason")),
    "quality": ("quality.parquet", ("image_id", "grade")),
    "biomarkers": ("biomarkers.parquet", ("image_id", "status", "reason")),
    "associations": (
        "associations.parquet",
        (
            "outcome",
            "biomarker",
            "covariate_set",
            "subgroup",
            "model",
            "n",
            "n_cases",
            "n_clusters",
            "estimate",
            "se",
            "ci_low",
            "ci_high",
            "p",
            "neg_log10_p",
            "q",
            "family",
            "converged",
            "note",
        ),
    ),
}

#: Columns that hold text in every table of ``tables/``, whatever their cells look like (a site called ``007`` is no number).
TEXT_COLUMNS = (
    "outcome",
    "biomarker",
    "covariate_set",
    "subgroup",
    "model",
    "group",
    "level",
    "variable",
    "reason",
    "reasons",
    "note",
    "stage",
    "predictors",
    "columns",
    "analysis",
    "split",
    "grade",
    "text",
    "family",
    "unit",
    "transform",
    "plan",
    "biomarker_a",
    "biomarker_b",
    "subgroup_variable",
    "levels",
    "heads",
    "reliability_source",
    "scope",
    "title",
    "table",
)


@dataclass(frozen=True)
class Problem:
    """Something that the reader must know before trusting the report.

    Parameters
    ----------
    level : {"fault", "warning"}
        A fault means that a part of the report is missing; a warning that it must be read with care.
    text : str
        A sentence.
    """

    level: str
    text: str


@dataclass
class Study:
    """A results folder.

    Parameters
    ----------
    results : Path
        ``results/<study>``.
    settings : mapping
        The study's configuration as plain values (``StudyConfig.model_dump(mode="json")``).
    """

    results: Path
    settings: Mapping[str, Any]
    problems: list[Problem] = field(default_factory=list)
    _tables: dict[str, pd.DataFrame | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = Path(self.results)
        if not self.results.is_dir():
            raise FileNotFoundError(f"{self.results}: no such folder; expected the results folder of a study, results/<study>")

    # ---- tables ------------------------------------------------------------------------------------------------------

    def main(self, name: str) -> pd.DataFrame | None:
        """A table of :data:`MAIN_TABLES`, or None with a :class:`Problem` noted."""
        key = f"main:{name}"
        if key not in self._tables:
            self._tables[key] = self._read_main(*MAIN_TABLES[name])
        return self._tables[key]

    def _read_main(self, file: str, needed: tuple[str, ...]) -> pd.DataFrame | None:
        path = self.results / file
        if not path.is_file():
            self.problems.append(Problem("fault", f"{file} does not exist, so what depends on it is not shown."))
            return None
        try:
            # a biobank's reasons are as large as its numbers, and wanted one column at a time: see :meth:`reasons`
            names = pq.read_schema(path).names
            columns = [c for c in names if not (c.endswith("__reason") and c.removesuffix("__reason") in names)]
            table = pq.read_table(path, columns=columns).to_pandas(self_destruct=True, split_blocks=True)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            self.problems.append(Problem("fault", f"{file} cannot be read ({error}), so what depends on it is not shown."))
            return None
        missing = [c for c in needed if c not in table.columns]
        if missing:
            self.problems.append(Problem("fault", f"{file} lacks the columns {', '.join(missing)}, so what depends on it is not shown."))
            return None
        return table

    def table(self, name: str, *needed: str) -> pd.DataFrame | None:
        """``tables/<name>.csv`` with at least one row, or None (see :meth:`why_absent`)."""
        if name not in self._tables:
            self._tables[name] = self._read_csv(name)
        table = self._tables[name]
        if table is None or table.empty:
            return None
        missing = [c for c in needed if c not in table.columns]
        if missing:
            text = f"tables/{name}.csv lacks the columns {', '.join(missing)}, so what depends on it is not shown."
            if all(p.text != text for p in self.problems):
                self.problems.append(Problem("fault", text))
            return None
        return table

    def _read_csv(self, name: str) -> pd.DataFrame | None:
        path = self.results / "tables" / f"{name}.csv"
        if not path.is_file():
            return None
        try:
            header = pd.read_csv(path, nrows=0).columns
            # Texts are never taken for numbers, and only an empty cell is missing: a subgroup may be called "NA".
            table = pd.read_csv(path, dtype={c: "string" for c in header if c in TEXT_COLUMNS}, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            self.problems.append(Problem("fault", f"tables/{name}.csv cannot be read ({error}), so what depends on it is not shown."))
            return None
        for column in table.columns.intersection(TEXT_COLUMNS):
            # The association room guards text cells against spreadsheets with a quote; here they are shown as they were.
            table[column] = table[column].str.replace(r"^'(?=[=+\-@\t\r])", "", regex=True)
        return table

    def why_absent(self, name: str) -> str:
        """A sentence on why :meth:`table` gave None."""
        index = self._index
        if index is not None and name in index.index:
            note = index.loc[name, "note"]
            if isinstance(note, str) and note:
                return f"The table {name} is empty: {note}"
        path = self.results / "tables" / f"{name}.csv"
        if path.is_file():
            return f"The table {name} of this study has no rows."
        return f"This study has no table {name} (tables/{name}.csv): the analysis was not asked for, or did not run."

    @cached_property
    def _index(self) -> pd.DataFrame | None:
        table = self.table("index", "table", "note")
        return None if table is None else table.drop_duplicates("table").set_index("table")

    # ---- names and order ---------------------------------------------------------------------------------------------

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        """The plan that the estimates were made with (``tables/plan.json``); the configuration's where nothing tells of that."""
        return self.results_plan.get("association") or self.settings.get("association") or {}

    def changed_plan(self) -> list[str]:
        """Settings of the configuration that are not those of the estimates: ``models.level: 0.9 in the configuration, 0.95 used``."""
        used, asked = self.results_plan.get("association"), self.settings.get("association")
        if not isinstance(used, Mapping) or not isinstance(asked, Mapping):
            return []
        found = _differences(_complete(asked), used)
        seeds = [self.settings.get("seed"), self.results_plan.get("seed")]
        if None not in seeds and seeds[0] != seeds[1]:
            found.append(f"seed: {seeds[0]} in the configuration, {seeds[1]} used")
        return found

    @property
    def rows(self) -> str:
        """What a row of the analysis is, in the plural."""
        unit = self.plan.get("unit") or {}
        if unit.get("level") == "subject_mean":
            return "subjects"
        return "photographs" if unit.get("visits") == "all" else "eyes"

    @property
    def cluster(self) -> str:
        """What rows that are not independent have in common: ``subject``, or another column of the plan."""
        return str((self.plan.get("unit") or {}).get("cluster") or "subject")

    @property
    def clusters(self) -> str:
        """What is counted as ``n_clusters``: ``subjects``, or ``clusters`` of another column."""
        return "subjects" if self.cluster == "subject" else "clusters"

    @cached_property
    def outcomes(self) -> list[str]:
        """Outcomes in the order of the plan, then any other that the results hold."""
        names = [str(o["name"]) for o in self.plan.get("outcomes") or ()]
        table = self.main("associations")
        found = [] if table is None else [str(o) for o in table["outcome"].dropna().unique()]
        return list(dict.fromkeys(names + found))

    def outcome_type(self, outcome: str) -> str:
        """``binary``, ``ordered``, ``continuous``, ``count`` or ``time``."""
        for o in self.plan.get("outcomes") or ():
            if str(o["name"]) == outcome:
                return str(o.get("type", "binary"))
        table = self.main("associations")
        if table is not None and "outcome_type" in table:
            types = table.loc[table["outcome"] == outcome, "outcome_type"].dropna()
            if len(types):
                return str(types.iloc[0])
        return "binary"

    @cached_property
    def covariate_sets(self) -> list[str]:
        """Covariate sets in the order of the plan."""
        names = [str(s) for s in self.plan.get("covariate_sets") or ()]
        table = self.main("associations")
        found = [] if table is None else [str(s) for s in table["covariate_set"].dropna().unique()]
        return [s for s in dict.fromkeys(names + found) if not found or s in found]

    @cached_property
    def primary_set(self) -> str | None:
        """Covariate set whose estimates are shown first: the plan's, else the last."""
        chosen = (self.plan.get("robustness") or {}).get("covariate_set")
        if chosen in self.covariate_sets:
            return chosen
        return self.covariate_sets[-1] if self.covariate_sets else None

    @cached_property
    def primary(self) -> pd.DataFrame | None:
        """Rows of the main table with everybody in (``subgroup`` is ``all`` or empty)."""
        table = self.main("associations")
        if table is None:
            return None
        everyone = table["subgroup"].isna() | table["subgroup"].isin(["all", ""])
        return table[everyone].reset_index(drop=True)

    @cached_property
    def biomarker_names(self) -> list[str]:
        """Columns of the biomarker table that have a reason beside them."""
        if self.main("biomarkers") is None:
            return []
        names = pq.read_schema(self.results / MAIN_TABLES["biomarkers"][0]).names
        known = set(names)
        return [c for c in names if f"{c}__reason" in known]

    def reasons(self, biomarker: str) -> pd.Series:
        """Why the values of a biomarker are missing, a row a photograph (null where measured)."""
        column = f"{biomarker}__reason"
        return self._biomarker_file.read(columns=[column]).to_pandas()[column]

    @cached_property
    def _biomarker_file(self) -> pq.ParquetFile:
        """Opened once, for its footer tells of thousands of columns; read column by column, for a cohort's reasons together are large."""
        return pq.ParquetFile(self.results / MAIN_TABLES["biomarkers"][0])

    @cached_property
    def measured_biomarkers(self) -> int:
        """How many biomarkers have a value in at least one eye."""
        table = self.main("biomarkers")
        return 0 if table is None else sum(bool(table[b].notna().any()) for b in self.biomarker_names)

    @cached_property
    def dictionary(self) -> dict[str, Any]:
        """Biomarker name -> its entry in the dictionary."""
        from retsam.biomarkers.registry import registry

        return dict(registry())

    def family_of(self, biomarker: str) -> str:
        """Family of a biomarker, ``other`` where the dictionary does not know it."""
        entry = self.dictionary.get(biomarker.removesuffix("__present"))
        return entry.family if entry else "other"

    def heads_of(self, biomarker: str) -> set[str]:
        """Targets whose masks a biomarker needs, alternatives included; empty for one that the dictionary does not know."""
        entry = self.dictionary.get(biomarker.removesuffix("__present"))
        return set() if entry is None else {part for need in entry.needs for part in need.split("|")}

    def unit_of(self, biomarker: str) -> str:
        """Unit of a biomarker, empty for dimensionless and unknown ones."""
        entry = self.dictionary.get(biomarker)
        return "" if entry is None or entry.unit == "1" else entry.unit

    @cached_property
    def stores(self) -> list[Path]:
        """Mask stores of the study."""
        return sorted((self.results / "masks").glob("*.zarr"))

    @cached_property
    def provenance(self) -> dict[str, Any] | None:
        """``provenance.json``, or None."""
        path = self.results / "provenance.json"
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.problems.append(Problem("warning", f"provenance.json cannot be read ({error})."))
            return None

    @cached_property
    def results_plan(self) -> dict[str, Any]:
        """``tables/plan.json``: the plan that the associations were computed with; empty where it does not exist."""
        path = self.results / "tables" / "plan.json"
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            self.problems.append(Problem("warning", f"tables/plan.json cannot be read ({error})."))
            return {}


#: Settings of the plan whose keys are names that the study gives: compared whole, order included.
_NAMED = ("covariate_sets", "subgroups", "exclude", "exposures.transforms", "robustness.reliability")


def _complete(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan with the defaults that it leaves out; as it is where it does not hold together."""
    from pydantic import ValidationError

    from retsam.association.config import AssociationConfig

    try:
        return AssociationConfig.model_validate(plan).model_dump(mode="json")
    except ValidationError:
        return plan


def _differences(asked: Mapping[str, Any], used: Mapping[str, Any], under: str = "") -> list[str]:
    """Settings that two plans both have and that differ; the number of threads changes nothing."""
    found = []
    for key in (k for k in asked if k in used and under + k != "workers"):
        name, a, b = under + key, asked[key], used[key]
        if name == "outcomes" and [o["name"] for o in a] == [o["name"] for o in b]:
            for mine, theirs in zip(a, b, strict=True):
                found += _differences(mine, theirs, f"outcome {mine['name']}: ")
        elif isinstance(a, Mapping) and isinstance(b, Mapping) and name not in _NAMED:
            found += _differences(a, b, f"{name}.")
        elif json.dumps(a, default=str) != json.dumps(b, default=str):
            found.append(f"{name}: {_short(a)} in the configuration, {_short(b)} used")
    return found


def _short(value: Any, most: int = 60) -> str:
    """A setting in a few words: of outcomes, their names."""
    if isinstance(value, list):
        value = [v["name"] if isinstance(v, Mapping) else v for v in value]
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "\u2026"
