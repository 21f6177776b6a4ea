"""Outcomes as numbers: cells of the cohort table checked and coded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from retsam.association.config import Outcome
from retsam.association.design import plain
from retsam.cohort.variables import listed, slips, spellings
from retsam.cohort.variables import plain as text_of

_TRUE = {"1", "true", "yes", "y", "t"}
_FALSE = {"0", "false", "no", "n", "f"}


@dataclass(frozen=True)
class Coded:
    """An outcome as numbers.

    Attributes
    ----------
    outcome : Outcome
    y : ndarray [n]
        0/1, level 0..J-1, number, or follow-up time; NaN where unlabelled.
    event : ndarray [n] or None
        0/1 for ``time``.
    entry : ndarray [n] or None
    levels : tuple of str
        Names of the levels (``ordered``), or ``('controls', 'cases')``.
    why : ndarray of str [n]
        Why a row has no outcome; empty where it has one.
    """

    outcome: Outcome
    y: np.ndarray
    event: np.ndarray | None
    entry: np.ndarray | None
    levels: tuple[str, ...]
    why: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Rows with an outcome."""
        return np.isfinite(self.y)

    def take(self, rows: np.ndarray) -> Coded:
        """The outcome of some rows (positions)."""
        event, entry = (None if values is None else values[rows] for values in (self.event, self.entry))
        return Coded(self.outcome, self.y[rows], event, entry, self.levels, self.why[rows])


def cell_text(column: pd.Series | None, n: int) -> np.ndarray:
    """Cells of a column as text, missing ones (or a missing column of ``n`` rows) as empty text."""
    if column is None:
        return np.full(n, "", dtype=object)
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)


def _plain_texts(texts: np.ndarray) -> np.ndarray:
    """Texts as lists of a config are compared with them, empty ones as they are; each different text is read once."""
    codes, found = pd.factorize(texts)
    return np.array([text_of(v) if v != "" else "" for v in found], dtype=object)[codes]


def _binary(texts: np.ndarray, outcome: Outcome) -> np.ndarray:
    """1 cases, 0 controls, -1 neither, -2 empty, -3 not understood."""
    out = np.full(len(texts), -3)
    empty = texts == ""  # "None" is a grade as good as "Mild": which words mean a missing cell, `missing_values` of the cohort says
    if outcome.positive is not None:
        out[:] = -1 if outcome.negative is not None else 0
        if outcome.negative is not None:
            out[np.isin(texts, list(listed(outcome.negative)))] = 0
        out[np.isin(texts, list(listed(outcome.positive)))] = 1
    else:
        low = np.char.lower(texts.astype(str)) if len(texts) else texts
        out[np.isin(low, list(_TRUE))] = 1
        out[np.isin(low, list(_FALSE))] = 0
    out[empty] = -2
    return out


def other_words(values: Iterable[object] | None, cells: Iterable[str]) -> str:
    """What a yes-or-no column holds, where a list says yes or no in other words alone; else empty text.

    A variable of `type: binary` is 0 or 1 whatever the samplesheet says: `yes` of it would find no row. A grade that no row happens to
    have, as 4 among 0 and 1, is no fault: a part of a cohort may hold none.
    """
    there, said = {cell.lower() for cell in cells} - {""}, {text.lower() for text in listed(values)}
    words = _TRUE | _FALSE | {"on", "off"}  # YAML reads `on` as `true` reads, so a list of it holds both
    odd = said and there and said <= words and any(there <= kind and not said & kind for kind in ({"0", "1"}, {"true", "false"}))
    return " and ".join(sorted(there)) if odd else ""


def outcome_faults(frame: pd.DataFrame, outcome: Outcome) -> list[str]:
    """What is wrong with the cells of an outcome's columns."""
    texts = _plain_texts(cell_text(frame[outcome.source], len(frame)))
    where = f"outcome {outcome.name!r}, column {outcome.source!r}"
    if outcome.type == "binary":
        odd = sorted(set(texts[_binary(texts, outcome) == -3]))
        mend = "say which values are `positive`, or give the outcome another `type`"
        faults = [f"{where}: expected 0/1 or yes/no, found {', '.join(odd[:5])}; {mend}"] if odd else []
        for key in ("positive", "negative"):
            values = getattr(outcome, key)
            if there := other_words(values, texts):
                faults.append(f"{where}: `{key}` lists {', '.join(map(str, values))}, and the column holds {there}; list what it holds")
            near = slips(values, set(texts) - {""})
            faults += [f"{where}: `{key}` lists {text!r}, which no row has; did you mean {other!r}?" for text, other in near]
        return faults
    if outcome.type == "ordered" and outcome.levels is not None:
        odd = sorted(set(texts) - listed(outcome.levels) - {""})
        return [f"{where}: values that are not in `levels`: {', '.join(odd[:5])}"] if odd else []
    faults = []
    for column in filter(None, (outcome.source, outcome.event, outcome.entry)):
        cells = _plain_texts(cell_text(frame[column], len(frame)))
        if column == outcome.event:
            odd = sorted(set(cells) - {""} - _TRUE - _FALSE - {"True", "False"})
            kind = "0/1 or yes/no"
        else:
            numbers = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(dtype=float)
            bad = (cells != "") & ~np.isfinite(numbers)
            if outcome.type in ("count", "time"):
                bad |= numbers < 0
            if outcome.type == "count":
                bad |= np.isfinite(numbers) & (numbers % 1 != 0)
            odd = sorted(set(cells[bad]))
            kind = {"count": "whole numbers from 0", "time": "numbers from 0"}.get(outcome.type, "numbers")
        if odd:
            faults.append(f"outcome {outcome.name!r}, column {column!r}: expected {kind}, found {', '.join(odd[:5])}")
    return faults


def code_outcome(frame: pd.DataFrame, outcome: Outcome) -> Coded:
    """Code an outcome whose cells have been checked.

    Parameters
    ----------
    frame : DataFrame [n]
    outcome : Outcome

    Returns
    -------
    Coded
    """
    n = len(frame)
    texts = _plain_texts(cell_text(frame[outcome.source], n))
    why = np.full(n, "", dtype=object)
    event = entry = None
    if outcome.type == "binary":
        state = _binary(texts, outcome)
        y = np.where(state >= 0, state, np.nan).astype(float)
        why[state == -1] = "neither_case_nor_control"
        why[state == -2] = "no_label"
        return Coded(outcome, y, None, None, ("controls", "cases"), why)
    if outcome.type == "ordered":
        if outcome.levels is not None:
            levels = [spellings(v)[0] for v in outcome.levels]
        else:
            numbers = pd.to_numeric(pd.Series(texts), errors="coerce").dropna().unique()
            levels = [text_of(v) for v in sorted(numbers)]
        place = {text: i for i, v in enumerate(outcome.levels or levels) for text in spellings(v)}
        y = np.array([place.get(t, np.nan) for t in texts], dtype=float)
        why[~np.isfinite(y)] = "no_label"
        return Coded(outcome, y, None, None, tuple(levels), why)
    y = plain(pd.Series(pd.to_numeric(pd.Series(texts), errors="coerce"))).to_numpy(dtype=float)
    why[~np.isfinite(y)] = "no_label"
    if outcome.type == "time":
        happened = np.char.lower(cell_text(frame[outcome.event], n).astype(str)) if n else np.empty(0, dtype=str)
        happened = _plain_texts(happened.astype(object))
        event = np.where(np.isin(happened, list(_TRUE)), 1.0, np.where(np.isin(happened, list(_FALSE)), 0.0, np.nan))
        unknown = ~np.isfinite(event) & (why == "")
        why[unknown] = "no_event_status"
        if outcome.entry:
            entry = pd.to_numeric(frame[outcome.entry], errors="coerce").astype(float).to_numpy()
            why[(why == "") & ~np.isfinite(entry)] = "no_entry_time"
            why[(why == "") & ~(entry < y)] = "entry_not_before_end"
        else:
            why[(why == "") & ~(y > 0)] = "no_follow_up"
        y = np.where(why == "", y, np.nan)
    return Coded(outcome, y, event, entry, (), why)
