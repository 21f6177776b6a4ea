"""Faults of a samplesheet: collected whole, told at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Rows of one kind of fault that a message spells out; the exception's `faults` has all.
_SHOWN_PER_KIND = 50


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a samplesheet.

    Parameters
    ----------
    row : int or None
        Row as a spreadsheet numbers it (the header is row 1; in Parquet the first record is row 1); None for the table as a whole.
    column : str
        Column of the samplesheet; ``-`` for a row, or the table, as a whole.
    expected, found, mend : str
        What should be there, what is, and how to put it right.
    """

    row: int | None
    column: str
    expected: str
    found: str
    mend: str

    def __str__(self) -> str:
        where = ([f"row {self.row}"] if self.row is not None else []) + ([f"column {self.column!r}"] if self.column != "-" else [])
        return f"{', '.join(where) or 'the table'}: expected {self.expected}, found {self.found}"


def cell_faults(wrong: np.ndarray, rows: np.ndarray, cells: pd.Series, column: str, expected: str, mend: str) -> list[Fault]:
    """One fault for each cell where `wrong` (bool ``[n]``) is true; `rows` are row numbers for messages."""
    wrong = np.asarray(wrong, bool)
    found = ("an empty cell" if pd.isna(c) else repr(c) for c in cells[wrong])
    return [Fault(int(r), column, expected, f, mend) for r, f in zip(rows[wrong], found, strict=True)]


class SamplesheetError(ValueError):
    """A samplesheet that cannot be used, with every fault in it.

    Parameters
    ----------
    source : str
        The samplesheet or folder.
    faults : iterable of Fault
    """

    def __init__(self, source: str, faults: Iterable[Fault]):
        self.source = source
        self.faults = list(faults)
        super().__init__(self._message())

    def __reduce__(self):
        return type(self), (self.source, self.faults)

    def _message(self) -> str:
        kinds: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.faults:
            kinds.setdefault((fault.column, fault.mend), []).append(fault)
        n = len(self.faults)
        lines = [f"{self.source}: {n} fault{'s' if n != 1 else ''}"]
        for (_, mend), faults in kinds.items():
            lines += [f"  {fault}" for fault in faults[:_SHOWN_PER_KIND]]
            if len(faults) > _SHOWN_PER_KIND:
                rows = [str(f.row) for f in faults[_SHOWN_PER_KIND : _SHOWN_PER_KIND + 20]]
                more = "" if len(faults) <= _SHOWN_PER_KIND + 20 else ", ..."
                lines.append(f"  ... and {len(faults) - _SHOWN_PER_KIND} more of the same kind, in rows {', '.join(rows)}{more}")
            lines.append(f"    -> {mend}")
        return "\n".join(lines)
