"""The grid: every biomarker x outcome x covariate set x subgroup, in batches that share their rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import dask
import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig, Models
from retsam.association.design import Covariates, explained, independent_columns
from retsam.association.firth import one_sided, separated
from retsam.association.fit import OK, cluster_starts
from retsam.association.gee import fit_gee
from retsam.association.models import _FAMILY, Answer, fit_model
from retsam.association.outcomes import Coded
from retsam.association.scale import choose_transform, log_unit, transformed

#: Share of a biomarker's variance explained by the covariates from which it counts as one of them (a variance inflation of 1,000).
COLLINEAR = 0.999

#: Share of a biomarker's variance held by one row from which the reader is told so.
DOMINANT = 0.5


@dataclass(frozen=True)
class Exposure:
    """A biomarker as the plan tests it.

    Attributes
    ----------
    name, family, unit : str
    transform : {'none', 'log1p', 'log_relative', 'rank_inverse_normal'}
    values : ndarray [n]
        On every row of the sample, NaN where not measured.
    commonest : float
        Its commonest value over the sample.
    log_unit : float
        The ``m`` of log(1 + x / m); NaN for other transforms.
    """

    name: str
    family: str
    unit: str
    transform: str
    values: np.ndarray
    commonest: float
    log_unit: float = math.nan


@dataclass(frozen=True)
class Problem:
    """One outcome, covariate set and subgroup: the rows that have all three.

    Attributes
    ----------
    coded : Coded
        On every row of the sample.
    covariate_set, subgroup : str
    covariates : Covariates
        On every row of the sample.
    rows : ndarray of int
        Positions in the sample, increasing.
    cluster : ndarray [n]
        Cluster of every row of the sample.
    refusal : str
        Code of why no model is fitted, whatever the data; empty where one may be.
    """

    coded: Coded
    covariate_set: str
    subgroup: str
    covariates: Covariates
    rows: np.ndarray
    cluster: np.ndarray
    refusal: str = ""

    @property
    def kind(self) -> str:
        """Type of the outcome."""
        return self.coded.outcome.type


@dataclass(frozen=True)
class Batch:
    """Rows of a problem on which a group of biomarkers is measured, ready to be fitted.

    Attributes
    ----------
    rows, y, event, entry : ndarray
    z : ndarray [n, q]
        Covariates, linearly independent on these rows.
    starts : ndarray [K + 1]
    n_cases : int or None
    notes : tuple of str
        About covariates.
    refusal : str
        Why no model can be fitted on these rows; empty where one can.
    start : ndarray or None
    start_alpha : float
    separated : bool
        The covariates alone separate cases from controls.
    """

    rows: np.ndarray
    y: np.ndarray
    event: np.ndarray | None
    entry: np.ndarray | None
    z: np.ndarray
    starts: np.ndarray
    n_cases: int | None
    notes: tuple[str, ...] = ()
    refusal: str = ""
    start: np.ndarray | None = None
    start_alpha: float = 0.0
    separated: bool = False
    gram: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


def count_cases(kind: str, y: np.ndarray, event: np.ndarray | None) -> int | None:
    """Cases (binary), rows above the lowest level (ordered), events (time); None for other types."""
    if kind == "binary":
        return int(np.sum(y == 1))
    if kind == "ordered":
        return int(np.sum(y > 0))
    if kind == "time":
        return int(np.sum(event == 1))
    return None


def refusal(kind: str, y: np.ndarray, event: np.ndarray | None, n_clusters: int, models: Models) -> str:
    """Code of what makes these rows too few for a model; empty where they suffice."""
    n = len(y)
    if n == 0:
        return "too_few_rows"
    if kind in ("binary", "ordered", "time"):
        cases = count_cases(kind, y, event) or 0
        if cases < models.min_cases:
            return "too_few_events" if kind == "time" else "too_few_cases"
        if kind == "binary" and n - cases < models.min_cases:
            return "too_few_controls"
        if kind == "ordered" and np.max(np.bincount(y.astype(int))) > n - models.min_cases:
            return "too_few_levels"
    elif np.ptp(y) == 0:
        return "constant_outcome"
    if n < models.min_rows:
        return "too_few_rows"
    if n_clusters < models.min_clusters:
        return "too_few_clusters"
    return ""


def make_batch(problem: Problem, rows: np.ndarray, models: Models, warm: bool = True) -> Batch:
    """Outcome, covariates and clusters on some rows of a problem.

    Parameters
    ----------
    problem : Problem
    rows : ndarray of int
        Positions in the sample, increasing.
    models : Models
    warm : bool
        Fit the model without exposures, to start the others from.

    Returns
    -------
    Batch
    """
    coded = problem.coded
    y = coded.y[rows]
    event = coded.event[rows] if coded.event is not None else None
    entry = coded.entry[rows] if coded.entry is not None else None
    starts = cluster_starts(problem.cluster[rows])
    cases = count_cases(problem.kind, y, event)
    bad = problem.refusal or refusal(problem.kind, y, event, len(starts) - 1, models)
    z = problem.covariates.matrix[rows]
    if bad:
        return Batch(rows, y, event, entry, z, starts, cases, refusal=bad)
    if problem.kind == "ordered":
        y = np.unique(y, return_inverse=True)[1].astype(float)
    keep = independent_columns(z)
    notes = tuple(f"covariate_dropped:{name}" for j, name in enumerate(problem.covariates.names) if j not in keep)
    z = np.ascontiguousarray(z[:, keep])
    if len(starts) - 1 <= z.shape[1] + 1:
        return Batch(rows, y, event, entry, z, starts, cases, notes, "too_few_clusters")
    if models.correlation == "exchangeable" and problem.kind in _FAMILY and len(starts) - 1 == len(y):
        notes = (*notes, "no_pairs")
    batch = Batch(rows, y, event, entry, z, starts, cases, notes, gram=z.T @ z)
    if problem.kind not in _FAMILY or not (warm or problem.kind == "binary"):
        return batch
    null = fit_gee(np.empty((len(y), 0)), z, y, starts, _FAMILY[problem.kind], models.correlation, "none", tolerance=1e-6)
    if warm and null.code == OK:
        batch = replace(batch, start=null.beta, start_alpha=null.alpha)
    if problem.kind == "binary" and (null.code != OK or any(one_sided(column, y) for column in z.T[1:])):
        batch = replace(batch, separated=separated(z, y))
    return batch


def empty_row(problem: Problem, exposure: Exposure, standardise: bool) -> dict:
    """A row of the tidy table before anything is estimated."""
    scale = "+".join([t for t in (exposure.transform if exposure.transform != "none" else "", "standardise" if standardise else "") if t])
    return {
        "outcome": problem.coded.outcome.name,
        "biomarker": exposure.name,
        "covariate_set": problem.covariate_set,
        "subgroup": problem.subgroup,
        "model": "",
        "n": 0,
        "n_cases": None,
        "n_clusters": 0,
        **dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "p", "neg_log10_p"), math.nan),
        "converged": False,
        "note": "",
        "biomarker_family": exposure.family,
        "transform": scale or "none",
        "log_unit": exposure.log_unit,
        "scale": "per_sd" if standardise else "per_unit",
        "sd": math.nan,
        "t_df": math.nan,
        "correlation": math.nan,
        "r2_covariates": math.nan,
        "outcome_type": problem.kind,
    }


def prepare_exposure(
    exposure: Exposure, batch: Batch, models: Models, standardise: bool, winsor: float
) -> tuple[np.ndarray | None, float, float, str]:
    """A biomarker on the rows of a batch, on its analysis scale.

    Returns
    -------
    x : ndarray [n] or None
        Centred; in SDs where ``standardise``. None where it cannot be tested.
    sd : float
    r2 : float
        Share of its variance that the covariates explain.
    note : str
    """
    raw = exposure.values[batch.rows]
    low, high = raw.min(), raw.max()
    if low == high:
        return None, math.nan, math.nan, "constant_biomarker"
    if np.count_nonzero(raw != exposure.commonest) < models.min_cell or np.count_nonzero(raw != low) < 1:
        return None, math.nan, math.nan, "rare_biomarker"
    x, note = transformed(raw, exposure.transform, winsor, exposure.log_unit)
    if x is None:
        return None, math.nan, math.nan, note
    mean = x.mean()
    x = x - mean
    sd = float(np.sqrt(x @ x / (len(x) - 1)))
    if not sd > 1e-12 * max(abs(mean), np.abs(x).max()):
        return None, sd, math.nan, "constant_biomarker"
    unit = x / sd
    r2 = explained(batch.gram, batch.z.T @ unit, float(unit @ unit), len(x), 0.0)
    if r2 > COLLINEAR:
        return None, sd, r2, "collinear_with_covariates"
    return (unit if standardise else x), sd, r2, ""


def estimate_row(problem: Problem, exposure: Exposure, batch: Batch, models: Models, standardise: bool, winsor: float) -> dict:
    """Fit one test; the row says why where there is no estimate."""
    row = empty_row(problem, exposure, standardise)
    row.update(n=len(batch.rows), n_cases=batch.n_cases, n_clusters=len(batch.starts) - 1)
    if batch.refusal:
        row["note"] = batch.refusal
        return row
    x, row["sd"], row["r2_covariates"], note = prepare_exposure(exposure, batch, models, standardise, winsor)
    if x is None:
        row["note"] = note
        return row
    answer = fit_model(
        problem.kind, x, batch.z, batch.y, batch.starts, models, batch.event, batch.entry, batch.start, batch.start_alpha, batch.separated
    )
    alone = ("one_value_dominates",) if float(np.max(x * x)) > DOMINANT * float(x @ x) else ()
    return fill_row(row, answer, models.level, (*alone, *batch.notes))


def fill_row(row: dict, answer: Answer, level: float, notes: Iterable[str] = ()) -> dict:
    """Put the first coefficient of an answer into a row."""
    row["note"] = ";".join([*answer.notes, *notes])
    if answer.fit is None:
        return row
    values, remarks = answer.interval(level)
    row["note"] = ";".join([*answer.notes, *remarks, *notes])
    row.update(values)
    row.update(model=answer.model, converged=True, t_df=answer.df)
    if answer.model.startswith("gee"):
        row["correlation"] = answer.fit.alpha
    return row


def run_problem(
    problem: Problem, exposures: Sequence[Exposure], measured: np.ndarray, models: Models, standardise: bool, winsor: float
) -> list[dict]:
    """All biomarkers that share their missing values, on one problem.

    Parameters
    ----------
    problem : Problem
    exposures : sequence of Exposure
        Measured on the same rows of the sample.
    measured : ndarray of bool
        Rows of the sample where they are measured.

    Returns
    -------
    list of dict
        Rows of the tidy table, in the order of ``exposures``.
    """
    rows = problem.rows[measured[problem.rows]]
    batch = make_batch(problem, rows, models)
    out = [estimate_row(problem, e, batch, models, standardise, winsor) for e in exposures]
    if len(rows) == 0 and (why := _nothing_left(problem)):
        for row in out:
            row["note"] = why
    return out


def _nothing_left(problem: Problem) -> str:
    """Code of what no row of a sample has; empty where it is the subgroup, or the sample, that has no rows."""
    if len(problem.rows) > 0:
        return "biomarker_missing"
    known = problem.coded.labelled
    if len(known) > 0 and not known.any():
        return "outcome_missing"
    return "covariates_missing" if known.any() and not (known & problem.covariates.complete).any() else ""


def missing_patterns(exposures: Sequence[Exposure], largest: int = 25) -> list[tuple[np.ndarray, list[int]]]:
    """Biomarkers grouped by where they are measured, in groups of at most ``largest`` (units of work for a thread)."""
    groups: dict[bytes, tuple[np.ndarray, list[int]]] = {}
    for i, exposure in enumerate(exposures):
        measured = np.isfinite(exposure.values)
        groups.setdefault(np.packbits(measured).tobytes(), (measured, []))[1].append(i)
    return [(mask, members[i : i + largest]) for mask, members in groups.values() for i in range(0, len(members), largest)]


def commonest_value(values: np.ndarray) -> float:
    """The most frequent finite value (the smallest of equally frequent ones); NaN where there is none."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return math.nan
    found, counts = np.unique(finite, return_counts=True)
    return float(found[np.argmax(counts)])


def make_exposures(
    names: Sequence[str], values: np.ndarray, families: dict[str, str], units: dict[str, str], config: AssociationConfig
) -> list[Exposure]:
    """Biomarkers with the transforms of the plan, and their presence indicators where it asks for them.

    Parameters
    ----------
    names : sequence of str
    values : ndarray [n, B]
    families, units : dict of str to str
        From the dictionary of biomarkers; ``other`` and empty where it does not know one.
    config : AssociationConfig

    Returns
    -------
    list of Exposure
    """
    out = []
    for j, name in enumerate(names):
        column = np.ascontiguousarray(values[:, j])
        finite = column[np.isfinite(column)]
        zero = float(np.mean(finite == 0)) if len(finite) else 0.0
        minimum = float(finite.min()) if len(finite) else 0.0
        family, unit = families.get(name, "other"), units.get(name, "")
        transform = choose_transform(name, family, unit, config.exposures)
        out.append(Exposure(name, family, unit, transform, column, commonest_value(column), log_unit(column, transform)))
        if config.exposures.presence and zero > 0.5 and minimum >= 0:
            present = np.where(np.isfinite(column), (column > 0).astype(float), np.nan)
            out.append(Exposure(f"{name}__present", family, "", "none", present, 0.0))
    return out


def run_grid(
    problems: Sequence[Problem],
    exposures: Sequence[Exposure],
    models: Models,
    standardise: bool = True,
    winsor: float = 0.0,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Fit every biomarker on every problem.

    Parameters
    ----------
    problems : sequence of Problem
    exposures : sequence of Exposure
    models : Models
    standardise : bool
        Estimates per SD within the analysed rows.
    winsor : float
        Winsorised share at either end.
    workers : int
        Threads; 0 means one a CPU core. The compiled solver holds no lock, so threads run side by side on one copy of the data.
    progress : callable, optional
        Called with the number of tests done.

    Returns
    -------
    DataFrame
        One row a test, in the order of problems and exposures.
    """
    groups = missing_patterns(exposures)
    columns = list(empty_row_columns())

    def work(problem: Problem, mask: np.ndarray, members: list[int], place: int):
        rows = run_problem(problem, [exposures[i] for i in members], mask, models, standardise, winsor)
        if progress is not None:
            progress(len(rows))
        return [(place, i, row) for i, row in zip(members, rows, strict=True)]

    tasks = [
        dask.delayed(work, pure=False)(problem, mask, members, place) for place, problem in enumerate(problems) for mask, members in groups
    ]
    if not tasks:
        return pd.DataFrame(columns=columns)
    done = dask.compute(*tasks, scheduler="threads", num_workers=workers or os.cpu_count() or 1)
    flat = sorted((item for part in done for item in part), key=lambda item: item[:2])
    return pd.DataFrame([row for _, _, row in flat], columns=columns).astype({"n_cases": "Int64"})


def empty_row_columns() -> tuple[str, ...]:
    """Columns of :func:`run_grid`'s table."""
    return (
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
        "converged",
        "note",
        "biomarker_family",
        "transform",
        "log_unit",
        "scale",
        "sd",
        "t_df",
        "correlation",
        "r2_covariates",
        "outcome_type",
    )
