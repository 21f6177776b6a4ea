"""Small cells: counts of people that are too small to be shown, and cells that would give them away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def small(count: float | None, minimum: int) -> bool:
    """Whether a count lies between 1 and ``minimum - 1``. Missing and zero are not small."""
    return count is not None and not pd.isna(count) and 0 < count < minimum


def show_count(count: float | None, minimum: int) -> str:
    """Text of a count: ``<5`` where small, an en dash where missing."""
    if count is None or pd.isna(count):
        return "\u2013"
    if small(count, minimum):
        return f"<{minimum}"
    return f"{int(count):,}".replace(",", "\u202f")


def hide_cells(counts: Sequence[float], minimum: int, total_known: bool = True) -> np.ndarray:
    """Which cells of a row of counts must be hidden.

    Parameters
    ----------
    counts : sequence of float
        Cells that add up to a total; NaN is allowed.
    minimum : int
        Smallest count that may be shown.
    total_known : bool
        Whether the reader knows the total. Then a single hidden cell could be worked out by subtraction, so the
        smallest other cell that is not zero is hidden too.

    Returns
    -------
    ndarray of bool, shape (len(counts),)
    """
    values = np.asarray(counts, dtype=float)
    hidden = (values > 0) & (values < minimum)
    if total_known and hidden.sum() == 1:
        others = np.where(~hidden & (values > 0), values, np.inf)
        if np.isfinite(others).any():
            hidden[int(np.argmin(others))] = True
    return hidden


def hide_pairs(part: pd.Series, whole: pd.Series, minimum: int) -> pd.Series:
    """Rows in which a part, or the rest of its whole, is small: cases and non-cases of one estimate.

    Parameters
    ----------
    part, whole : Series of float
        For example cases and rows of the same fits.
    """
    rest = whole - part
    return ((part > 0) & (part < minimum)) | ((rest > 0) & (rest < minimum)).fillna(False)


def hide_matrix(counts: np.ndarray, minimum: int) -> np.ndarray:
    """Which cells of a table of counts with known margins must be hidden.

    Every row and column that would be left with a single hidden cell gets a second one (its smallest other count), until
    none can be worked out from its margin.

    Parameters
    ----------
    counts : ndarray of float, shape (rows, columns)
    minimum : int

    Returns
    -------
    ndarray of bool, same shape
    """
    values = np.asarray(counts, dtype=float)
    hidden = (values > 0) & (values < minimum)
    changed = True
    while changed:
        changed = False
        for axis in (0, 1):
            lines = hidden if axis == 0 else hidden.T  # views: writing to them writes to `hidden`
            cells = values if axis == 0 else values.T
            if cells.shape[1] < 2:
                continue
            for i in np.flatnonzero(lines.sum(axis=1) == 1):
                others = np.where(~lines[i] & (cells[i] > 0), cells[i], np.inf)
                if np.isfinite(others).any():
                    lines[i, int(np.argmin(others))] = True
                    changed = True
    return hidden


def hide_fits(table: pd.DataFrame, minimum: int, within: Sequence[str], total_known: bool = True) -> pd.Series:
    """Rows of a table of fits whose counts and estimates must be hidden.

    Parameters
    ----------
    table : DataFrame
        With ``n`` and ``n_cases``.
    minimum : int
    within : sequence of str
        Columns of the groups whose rows add up to a known total (the levels of one subgroup variable, quintiles).
    total_known : bool
        Whether a single hidden row could be worked out from the others.

    Returns
    -------
    Series of bool
    """
    n, cases = table["n"].astype("Float64"), table["n_cases"].astype("Float64")
    hidden = ((n > 0) & (n < minimum)).fillna(False).astype(bool) | hide_pairs(cases, n, minimum).fillna(False).astype(bool)
    if not total_known or not hidden.any():
        return hidden
    # Only groups with exactly one hidden row need a second one: few, where there are thousands of groups.
    keys = [table[c] for c in within]
    alone = hidden.groupby(keys, dropna=False, sort=False).transform("sum") == 1
    visible = cases.where(cases.notna(), n).astype(float)[alone & ~hidden]
    if len(visible):
        second = visible.groupby([k[alone & ~hidden] for k in keys], dropna=False, sort=False).idxmin()
        hidden.loc[second.dropna()] = True
    return hidden
