"""What is wrong with an analysis plan: names that no table has, and cells that do not suit what the plan asks of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from retsam.association.config import AssociationConfig

if TYPE_CHECKING:
    import pandas as pd

#: What associations put before the columns that they join to those of the cohort: the quality table's and the biomarker table's states.
JOINED = ("quality_", "measured_")

#: Different numbers that a column may have for each to be a subgroup of its own.
MOST_LEVELS = 12
#: Different words that a column may have for each to be a subgroup, or to be left out, of its own: a whole run of models each.
MOST_WORDS = 50
#: Indicator columns that a term of a covariate set may become.
MOST_INDICATORS = 100
_CODES = "if they are codes, declare the variable `type: categorical`"


class PlanError(ValueError):
    """The analysis plan does not fit the tables; the message lists every fault."""

    def __init__(self, faults: Iterable[str]):
        self.faults = list(faults)
        super().__init__("the analysis plan does not fit the tables:\n" + "\n".join(f"  - {f}" for f in self.faults))


def column_faults(config: AssociationConfig, columns: Sequence[str], elsewhere: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Columns that the plan names and the tables lack.

    Parameters
    ----------
    config : AssociationConfig
    columns : sequence of str
        Those of the cohort table and, as ``quality_*``, of the quality table.
    elsewhere : callable, optional
        Whether a name that is not among them shall be let pass, because its table is not known yet.

    Returns
    -------
    list of str
        Each with the key, the name, and the nearest that exists.
    """
    faults = []

    def need(where: str, names: Iterable[str | None]) -> None:
        for name in names:
            if name is not None and name not in columns and not elsewhere(name):
                near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
                known = ", ".join(column for column in columns if not column.startswith(JOINED))
                known = f"nearest: {near[0]}" if near else f"expected one of {known}, or `quality_<column>` of the quality table"
                mend = "" if name.startswith(JOINED) else ". Declare it under cohort.labels or cohort.covariates"
                faults.append(f"{where}: {name!r} is no column of this cohort; {known}{mend}")

    for outcome in config.outcomes:
        need(f"outcomes, outcome {outcome.name}", (outcome.source, outcome.event, outcome.entry))
    for name, terms in config.covariate_sets.items():
        for term in terms:
            if term.isidentifier() or term in columns:
                need(f"covariate_sets.{name}", [term])
                continue
            from retsam.association.design import required_columns  # takes a second, and most plans have no formula

            try:
                need(f"covariate_sets.{name}", required_columns([term], columns))
            except ValueError as error:
                faults.append(f"covariate_sets.{name}: {error}")
    need("subgroups", config.subgroups)
    need("exclude", config.exclude)
    need("unit.cluster", [config.unit.cluster])
    further = config.robustness
    need("robustness.leave_one_out", further.leave_one_out)
    need("robustness.camera_columns", further.camera_columns)
    need("robustness.replication", [further.replication] if further.replication != "subject" else [])
    return list(dict.fromkeys(faults))


def cell_faults(config: AssociationConfig, frame: pd.DataFrame) -> list[str]:
    """What the plan asks of cells and cannot have; columns that the table lacks are passed over.

    Parameters
    ----------
    config : AssociationConfig
    frame : DataFrame
        The cohort, with ``quality_*`` columns where they are known.

    Returns
    -------
    list of str
    """
    from retsam.association.design import plain
    from retsam.association.outcomes import cell_text, other_words, outcome_faults, text_of
    from retsam.cohort.variables import slips
    from retsam.cohort.visits import visit_faults

    columns, faults = list(frame.columns), []
    for outcome in config.outcomes:
        if all(column in columns for column in (outcome.source, outcome.event, outcome.entry) if column):
            faults += [f"outcomes: {fault}" for fault in outcome_faults(frame, outcome)]
    if config.unit.visits != "all":
        faults += [f"unit.visits: {fault}" for fault in visit_faults(frame)]
    for column, values in config.exclude.items():
        if column in columns:
            cells = {text_of(v) for v in cell_text(frame[column], len(frame)) if v != ""}
            if there := other_words(values, cells):
                faults.append(f"exclude: column {column!r} holds {there}, and none of {', '.join(map(str, values))}; list what it holds")
            near = slips(values, cells)
            faults += [f"exclude: column {column!r} has no {text!r}; did you mean {other!r}?" for text, other in near]
    for name, terms in config.covariate_sets.items():
        faults += [f"covariate_sets.{name}: {fault}" for term in terms if (fault := _term_fault(term, frame))]
    for column, cuts in config.subgroups.items():
        if column in columns:
            faults += _subgroup_faults(frame, column, cuts)
    for column in config.robustness.leave_one_out:
        if column in columns:
            faults += _too_many_levels(frame, column, f"robustness.leave_one_out, column {column!r}", _CODES, "leave out groups of levels")
    for column in config.robustness.camera_columns:
        if column in columns and (values := plain(frame[column])).dtype == object and (count := values.nunique()) > MOST_INDICATORS:
            mend = f"group its levels in a column with at most {MOST_INDICATORS}, such as the make for the serial number"
            faults.append(f"robustness.camera_columns: column {column!r} has {count} levels, and each would be a predictor; {mend}")
    return faults


def _subgroup_faults(frame: pd.DataFrame, column: str, cuts: tuple[float, ...] | None) -> list[str]:
    from retsam.association.design import plain

    if cuts is None:
        mend = f"give cut points, for example `{column}: [60]`; {_CODES}"
        return _too_many_levels(frame, column, f"subgroups.{column}", mend, "make subgroups of groups of levels")
    values = plain(frame[column])
    if values.dtype == object and (values.notna().any() or frame[column].dtype == "string"):
        return [f"subgroups.{column}: expected numbers for the cut points {list(cuts)}, found words; write `{column}: null`"]
    return []


def _too_many_levels(frame: pd.DataFrame, column: str, where: str, numbers: str, words: str) -> list[str]:
    """Fault of a column with more levels than can each be analysed by itself; ``numbers`` and ``words`` say how to mend it of either."""
    from retsam.association.design import plain

    values = plain(frame[column])
    count = values.nunique()
    if values.dtype != object and count > MOST_LEVELS:
        return [f"{where}: {count} different numbers, and each would be a level of its own; {numbers}"]
    if values.dtype == object and count > MOST_WORDS:
        mend = f"{words}: a column with a wider one for each, such as the region for the clinic"
        return [f"{where}: {count} different values, and each would be a level of its own, expected at most {MOST_WORDS}; {mend}"]
    return []


def _term_fault(term: str, frame: pd.DataFrame) -> str | None:
    """Why a term of a covariate set cannot be worked out of the cells; None where it can, or where a column is missing or empty."""
    from retsam.association.design import covariate_matrix, required_columns

    try:
        needed = required_columns([term], list(frame.columns))
    except ValueError:  # told by `column_faults`
        return None
    if any(column not in frame or frame[column].isna().all() for column in needed):
        return None
    if fault := _indicator_fault(term, frame[needed]):
        return fault
    if term in frame:
        return None
    try:
        covariate_matrix(frame, [term])
    except Exception as error:  # formulas raise whatever their functions do
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return f"covariate {term!r} cannot be worked out of {', '.join(needed)}: {why}"
    return None


def _indicator_fault(term: str, frame: pd.DataFrame) -> str | None:
    """Fault of a term whose words, or numbers in ``C(...)``, have more levels (in a product: combinations) than a model has room for."""
    from retsam.association.design import level_columns, plain

    cells = {column: plain(frame[column]) for column in frame}
    for columns in level_columns(term, list(cells), [name for name, values in cells.items() if values.dtype == object]):
        count = math.prod(cells[column].nunique() for column in columns)
        if count > MOST_INDICATORS:
            what = f"column {columns[0]!r} has" if len(columns) == 1 else f"columns {', '.join(map(repr, columns))} have together"
            mend = f"cluster by it (`unit.cluster: {columns[0]}`), group its levels in a column with fewer, or leave it out"
            return f"{what} {count} levels, and each would be a covariate of its own, expected at most {MOST_INDICATORS}; {mend}"
    return None


def check_plan(config: AssociationConfig, frame: pd.DataFrame) -> None:
    """Raise :class:`PlanError` with every fault of the plan against the joined tables."""
    faults = [*column_faults(config, list(frame.columns)), *cell_faults(config, frame)]
    if faults:
        raise PlanError(dict.fromkeys(faults))
