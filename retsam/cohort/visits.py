"""Visits in time: which of an eye's photographs is the first."""

from __future__ import annotations

import numpy as np
import pandas as pd


def visit_order(texts: np.ndarray) -> np.ndarray:
    """Visits as numbers that order them in time.

    Parameters
    ----------
    texts : ndarray of str [n]
        Cells: numbers (``2``), ISO dates (``2021-02-01``) or names that differ by a number at their end (``V2``); empty where not known.

    Returns
    -------
    ndarray of float [n]
        NaN where not known.

    Raises
    ------
    ValueError
        If the cells are of no such kind.
    """
    known = pd.Series(texts[texts != ""], dtype=object).str.strip()
    order = np.full(len(texts), np.nan)
    if known.empty:
        return order
    for values in (
        pd.to_numeric(known, errors="coerce"),
        pd.to_datetime(known.where(known.str.match(r"\d{4}-\d{2}")), format="ISO8601", errors="coerce", utc=True),
        pd.to_numeric(known.str.extract(r"(\d+)$")[0]) if known.str.replace(r"\d+$", "", regex=True).nunique() == 1 else None,
    ):
        if values is not None and values.notna().all():
            dates = pd.api.types.is_datetime64_any_dtype(values.dtype)
            order[texts != ""] = values.astype("int64").to_numpy(float) if dates else values.to_numpy(float)
            return order
    some = ", ".join(sorted(known.unique())[:5])
    raise ValueError(
        f"expected numbers (2), ISO dates (2021-02-01) or names that differ by a number at their end (V2), found {some}: "
        "which visit comes first cannot be told; number them, or set `unit.visits: all`"
    )


def visit_faults(frame: pd.DataFrame) -> list[str]:
    """What is wrong with the visits, where an eye has more than one.

    Parameters
    ----------
    frame : DataFrame
        Photographs, with ``subject``, ``eye`` and ``visit``.

    Returns
    -------
    list of str
    """
    if "visit" not in frame:
        return []
    of_eyes = pd.DataFrame({c: _texts(frame[c]) if c in frame else "" for c in ("subject", "eye", "visit")})
    of_eyes = of_eyes[(of_eyes["subject"] != "") & (of_eyes["eye"] != "") & (of_eyes["visit"] != "")]
    if (of_eyes.groupby(["subject", "eye"])["visit"].nunique() <= 1).all():
        return []
    try:
        visit_order(_texts(frame["visit"]))
    except ValueError as error:
        return [f"column 'visit': {error}"]
    return []


def _texts(column: pd.Series) -> np.ndarray:
    """Cells as text, missing ones as empty text."""
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)
