"""Labels and covariates: cells of a samplesheet checked, typed, and turned into yes/no where a study asks for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from retsam.cohort.config import DEFAULT_RANGES, Variable
from retsam.cohort.faults import Fault, cell_faults

YES = {"1", "true", "yes", "y", "t"}
NO = {"0", "false", "no", "n", "f"}
_BOOLEAN = {True: ("yes", "true", "on"), False: ("no", "false", "off")}


def plain(value: object) -> str:
    """Text of a value as lists in a config and cells of a table can both be compared: ``2``, ``2.0`` and ``"2"`` are one.

    Not for ids (:func:`id_text`): ``007`` and ``7``, ``1.10`` and ``1.1`` are one value and two people.
    """
    text = str(value).strip()
    if re.fullmatch(r"[+-]?\d+", text):
        return str(int(text))
    if not re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)", text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def id_text(value: object) -> str:
    """Text of an id, as it is written; of a whole number that a table holds as a decimal one, without the decimals."""
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value).strip()


def spellings(value: object) -> tuple[str, ...]:
    """Texts of cells that a value of a list in a config stands for.

    YAML reads an unquoted yes, no, on or off as true or false: in a list of values it means the word again.
    """
    if not isinstance(value, bool):
        return (plain(value),)
    return tuple(form for word in _BOOLEAN[value] for form in (word, word.capitalize(), word.upper()))


def listed(values: Iterable[object] | None) -> set[str]:
    """Texts of cells that the values of a list stand for."""
    return {text for value in values or () for text in spellings(value)}


def slips(values: Iterable[object] | None, cells: Iterable[str]) -> list[tuple[str, str]]:
    """Values of a list that no cell has, and a cell that is all but the same: another letter case, or a slip of the pen."""
    there = sorted({plain(cell) for cell in cells})
    lower = {cell.lower(): cell for cell in there}
    found = []
    for value in values or ():
        if not isinstance(value, bool) and (text := plain(value)) not in there:
            # With a digit in it, a value that is nearly another is another: grade 1 and grade 10.
            near = [] if re.search(r"\d", text) else difflib.get_close_matches(text, there, 1, 0.85)
            near = [lower[text.lower()]] if text.lower() in lower else near
            found += [(text, near[0])] if near else []
    return found


def convert(name: str, variable: Variable, cells: pd.Series, rows: np.ndarray) -> tuple[pd.Series, list[Fault]]:
    """Check and type the cells of a variable.

    Parameters
    ----------
    name : str
        Name of the variable in the cohort table.
    variable : Variable
    cells : Series of str
        Cells of its column; NA where not known.
    rows : ndarray of int, [n]
        Row numbers for messages.

    Returns
    -------
    values : Series
        ``Float64`` (continuous), ``Int64`` (ordinal), ``boolean`` -> ``Int64`` 0/1 (binary) or ``string``; NA where not known.
    faults : list of Fault
    """
    column = variable.column or name
    if variable.derived:
        return _derive(variable, cells), _list_faults(variable, column, cells)
    limits = variable.range or DEFAULT_RANGES.get(name.lower())
    kind = variable.type or ("continuous" if limits is not None and variable.levels is None else _guess(variable, cells))
    if kind == "continuous":
        return _number(column, cells, rows, limits)
    if kind == "binary":
        return _yes_no(column, cells, rows)
    if variable.levels is not None:
        return _levels(column, variable, cells, rows, kind == "ordinal")
    if kind == "ordinal":
        values, faults = _number(column, cells, rows, limits)
        broken = values.notna() & (values % 1 != 0)
        mend = "give whole numbers, or list the `levels` in order"
        faults += [
            Fault(int(r), column, "a whole number (ordinal)", repr(c), mend) for r, c in zip(rows[broken], cells[broken], strict=True)
        ]
        return values.where(~broken).astype("Int64"), faults
    return cells.astype("string"), []


def _guess(variable: Variable, cells: pd.Series) -> str:
    if variable.levels is not None:
        return "ordinal"
    known = cells.dropna()
    if known.empty:
        return "categorical"
    # One cell that should be a number and is not is a fault of that cell, not a change of the column's kind.
    numbers = pd.to_numeric(known, errors="coerce")
    return "continuous" if numbers.notna().mean() >= 0.75 else "categorical"


def _number(column: str, cells: pd.Series, rows: np.ndarray, limits: tuple[float, float] | None) -> tuple[pd.Series, list[Fault]]:
    values = pd.to_numeric(cells, errors="coerce").astype("Float64")
    wrong = (cells.notna() & (values.isna() | ~np.isfinite(values.fillna(0).to_numpy(float)))).to_numpy(bool)
    comma = any(re.fullmatch(r"\s*-?\d+,\d+\s*", str(c)) for c in cells[wrong])
    mend = "correct the cell, leave it empty if the value is not known, or set `type: categorical` for this variable in the config"
    mend = "write decimals with a point" if comma else mend
    faults = cell_faults(wrong, rows, cells, column, "a number", mend)
    if limits is not None:
        out = ((values < limits[0]) | (values > limits[1])).fillna(False).to_numpy(bool) & ~wrong
        mend = "correct the cell, leave it empty if the value is not known, or set `range` of this variable in the config"
        expected = f"a number from {limits[0]:g} to {limits[1]:g}"
        faults += cell_faults(out, rows, cells, column, expected, mend)
        wrong = wrong | out
    return values.mask(pd.Series(wrong, index=values.index)), faults


def _yes_no(column: str, cells: pd.Series, rows: np.ndarray) -> tuple[pd.Series, list[Fault]]:
    keys = cells.map(lambda c: plain(c).lower(), na_action="ignore")
    values = keys.map({**dict.fromkeys(YES, 1), **dict.fromkeys(NO, 0)}).astype("Int64")
    wrong = (cells.notna() & values.isna()).to_numpy(bool)
    mend = "write 0/1 or yes/no, or list what means yes in `positive` (and no in `negative`) of this variable"
    return values, cell_faults(wrong, rows, cells, column, "0/1, yes/no or true/false", mend)


def _levels(column: str, variable: Variable, cells: pd.Series, rows: np.ndarray, coded: bool) -> tuple[pd.Series, list[Fault]]:
    order = {text: i for i, level in enumerate(variable.levels) for text in spellings(level)}
    codes = cells.map(lambda c: order.get(plain(c)), na_action="ignore").astype("Int64")
    wrong = (cells.notna() & codes.isna()).to_numpy(bool)
    mend = "correct the cell, or add the value to `levels` of this variable in the config"
    expected = "one of " + ", ".join(spellings(level)[0] for level in variable.levels)
    faults = cell_faults(wrong, rows, cells, column, expected, mend)
    return (codes if coded else cells.map(plain, na_action="ignore").astype("string")), faults


def _derive(variable: Variable, cells: pd.Series) -> pd.Series:
    """1 where a cell means yes, 0 where it means no, NA where it means neither or is not known."""
    distinct = {cell: _meaning(variable, cell) for cell in cells.dropna().unique()}
    return cells.map(distinct, na_action="ignore").astype("Int64")


def _parts(variable: Variable, cell: str) -> list[str]:
    parts = [p.strip() for p in str(cell).split(variable.separator)] if variable.separator else [str(cell)]
    return [p for p in parts if p]


def _list_faults(variable: Variable, column: str, cells: pd.Series) -> list[Fault]:
    """Listed values that no cell has though one is all but the same: every eye with it would count as a control."""
    parts = {part for cell in cells.dropna().unique() for part in _parts(variable, cell)}
    return [
        Fault(None, column, f"a cell that is {text!r}, as `{key}` says", f"none, but {near!r}", f"write {near!r} in `{key}`")
        for key in ("positive", "negative")
        for text, near in slips(getattr(variable, key), parts)
    ]


def _meaning(variable: Variable, cell: str) -> int | None:
    parts = _parts(variable, cell)

    def says(values, pattern) -> bool:
        texts = listed(values)
        return any(plain(p) in texts or (pattern is not None and re.search(pattern, p, re.IGNORECASE)) for p in parts)

    if says(variable.positive, variable.positive_pattern):
        return 1
    if variable.negative is None and variable.negative_pattern is None:
        return 0
    return 0 if says(variable.negative, variable.negative_pattern) else None
