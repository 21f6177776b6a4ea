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
        Whether the reader knows the total. Then a single hidden cell could be worked out by subtraction, and so could two of one eye
        each: the smallest other cells that are not zero are hidden too, until two are hidden and their sum is not small.

    Returns
    -------
    ndarray of bool, shape (len(counts),)
    """
    values = np.asarray(counts, dtype=float)
    hidden = (values > 0) & (values < minimum)
    while total_known and _told(values, hidden, minimum):
        others = np.where(~hidden & (values > 0), values, np.inf)
        if not np.isfinite(others).any():
            break
        hidden[int(np.argmin(others))] = True
    return hidden


def _told(values: np.ndarray, hidden: np.ndarray, minimum: int) -> bool:
    """Whether the hidden cells of a row of known total are told by the others: fewer than two that count, or a small sum."""
    under = values[hidden & (values > 0)]
    return 0 < len(under) and (len(under) == 1 or under.sum() < minimum)


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

    Every row and column that would be left with a single hidden cell, or with hidden cells of a small sum, gets another one (its
    smallest other count), until none can be worked out from its margin.

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
            for i in np.flatnonzero(lines.any(axis=1)):
                if not _told(cells[i], lines[i], minimum):
                    continue
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
    parts = _parts(table)
    for rows in _groups(table, within):
        flags = hidden.to_numpy()[rows]
        if len(rows) > 1 and flags.any() and not flags.all():
            hidden.iloc[rows] = _protected(parts[rows], flags, minimum)
    return hidden


def _groups(table: pd.DataFrame, within: Sequence[str]) -> list[np.ndarray]:
    """Positions of the rows of each group; a missing key is a key."""
    codes = table.groupby(list(within), dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []


def _parts(table: pd.DataFrame) -> np.ndarray:
    """Cases, other eyes, and eyes of each row; NaN where an outcome has no cases."""
    n, cases = (table[c].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for c in ("n", "n_cases"))
    return np.column_stack([cases, n - cases, n])


def _protected(parts: np.ndarray, hidden: np.ndarray, minimum: int) -> np.ndarray:
    """Hide further rows of a group of known totals until none of the counts of a hidden one follows from the rest.

    A row without cases protects no row with cases, so that each kind of count gets its own second row.
    """
    hidden = hidden.copy()
    for values in parts.T:
        while _told(values, hidden, minimum):
            others = np.where(~hidden & (values > 0), values, np.inf)
            if not np.isfinite(others).any():
                break
            hidden[int(np.argmin(others))] = True
    return hidden


def hide_remainders(table: pd.DataFrame, minimum: int, within: Sequence[str]) -> pd.Series:
    """Rows of a sensitivity table whose counts would tell, less those of the primary model, how few eyes were left out.

    Parameters
    ----------
    table : DataFrame
        With ``analysis``, ``n`` and ``n_cases``.
    minimum : int
    within : sequence of str
        Columns that name a model: rows of the same one are compared with its row ``primary``.

    Returns
    -------
    Series of bool
        ``without:site=A`` where site A is small; with a single such site, the next smallest of the same column too, since what all
        sites leave out adds up to the whole.
    """
    out = pd.Series(False, index=table.index)
    parts = _parts(table)
    analysis = table["analysis"].astype(str).to_numpy()
    column = np.array([a.split("=", 1)[0] for a in analysis], dtype=object)
    for rows in _groups(table, within):
        first = [r for r in rows if analysis[r] == "primary"]
        if not first:
            continue
        for name in dict.fromkeys(column[rows]):
            if not (name.startswith("without:") or name in ("gradable_only", "untrained_subjects")):
                continue
            mine = np.array([r for r in rows if column[r] == name])
            rest = parts[first[0]] - parts[mine]
            few = ((rest > 0) & (rest < minimum)).any(axis=1)
            if few.any() and name.startswith("without:"):
                few = _protected(rest, few, minimum)
            out.iloc[mine] = few
    return out


def near_whole(
    table: pd.DataFrame, minimum: int, within: Sequence[str], whole: pd.DataFrame | None = None, levels: Sequence[str] = ()
) -> pd.Series:
    """Rows whose counts would tell, less those of the whole sample, how few eyes had a value missing.

    Parameters
    ----------
    table : DataFrame
        With ``n`` and ``n_cases``.
    minimum : int
    within : sequence of str
        Columns of the rows that share a sample; its size is the largest of theirs.
    whole : DataFrame, optional
        Sizes that the reader knows from elsewhere: ``n`` and ``n_cases``, a row a row of ``table`` (NaN where unknown).
    levels : sequence of str
        Columns of the groups whose rows add up to a row that is shown (the levels of a subgroup variable).

    Returns
    -------
    Series of bool
        Rows that lack 1 to ``minimum - 1`` of the eyes, of the cases or of the other eyes.
    """
    own = pd.DataFrame({c: table[c].astype("Float64").astype(float) for c in ("n", "n_cases")})
    most = own.groupby([table[c] for c in within], dropna=False, sort=False).transform("max")
    if whole is not None:
        most = most.combine(whole[["n", "n_cases"]].astype(float), np.fmax)
    rest = _parts(most) - _parts(own)
    few = ((rest > 0) & (rest < minimum)).any(axis=1)
    if levels and few.any():
        for rows in _groups(table, levels):
            if len(rows) > 1 and few[rows].any():
                few[rows] = _protected(rest[rows], few[rows], minimum)
    return pd.Series(few, index=table.index)


def near_others(
    table: pd.DataFrame, minimum: int, within: Sequence[str], hidden: pd.Series, order: pd.Series, levels: Sequence[str] = ()
) -> pd.Series:
    """Rows whose counts would tell, less those of a row of the same group that is shown, how few eyes one of the two lacks.

    Parameters
    ----------
    table : DataFrame
        With ``n`` and ``n_cases``.
    minimum : int
    within : sequence of str
        Columns of the groups: the same test on samples of which one lies in the other, as those of covariate sets do.
    hidden : Series of bool
        Rows whose counts are not shown anyway.
    order : Series
        Of two rows the one with the larger value is hidden.
    levels : sequence of str
        As in :func:`near_whole`: a level that is hidden alone takes the smallest other with it.

    Returns
    -------
    Series of bool
    """
    parts, shown, place = _parts(table), ~hidden.to_numpy(dtype=bool), order.to_numpy()
    out = np.zeros(len(table), dtype=bool)
    for rows in _groups(table, within):
        kept: list[int] = []
        for r in rows[np.argsort(place[rows], kind="stable")]:
            apart = np.abs(parts[kept] - parts[r])
            if shown[r] and ((apart > 0) & (apart < minimum)).any():
                out[r] = True
            elif shown[r]:
                kept.append(r)
    for rows in _groups(table, levels) if levels and out.any() else ():
        others = rows[shown[rows] & ~out[rows]]
        if len(others) and len(others) == len(rows) - 1 and out[rows].any():
            out[others[np.argmin(parts[others, -1])]] = True
    return pd.Series(out, index=table.index)


def blank_people(table: pd.DataFrame, minimum: int, within: Sequence[str], whole: pd.Series, order: pd.Series) -> pd.Series:
    """Empty the subjects of rows (in place) that lack a few of all, or of those of another covariate set; their eyes may be many.

    Parameters
    ----------
    table : DataFrame
        With ``n_clusters``; nothing is done without.
    minimum, within, order
        As in :func:`near_others`; rows that share a sample differ in ``within`` from others.
    whole : Series of float
        Subjects that the reader knows from elsewhere (NaN: unknown).

    Returns
    -------
    Series of bool
    """
    if "n_clusters" not in table:
        return pd.Series(False, index=table.index)
    people = table.assign(n=table["n_clusters"], n_cases=np.nan)
    few = near_whole(people, minimum, within, pd.DataFrame({"n": whole, "n_cases": np.nan}))
    few |= near_others(people, minimum, [*within, "biomarker"], few, order)
    table["n_clusters"] = table["n_clusters"].astype("Float64").mask(few)
    return few


def blank_counts(table: pd.DataFrame, rows: pd.Series, code: str = "counts_hidden") -> None:
    """Empty the counts of some rows (in place), keep their estimates, and say so in ``note``."""
    for column in ("n", "n_cases", "n_clusters"):
        if column in table:
            table[column] = table[column].astype("Float64").mask(rows)
    if rows.any():
        note = table["note"].astype("string") if "note" in table else pd.Series(pd.NA, index=table.index, dtype="string")
        table["note"] = note.mask(rows, (note.fillna("") + ";" + code).str.removeprefix(";"))
