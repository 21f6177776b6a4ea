"""Shape of an association: quintiles, restricted cubic splines, a test of non-linearity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from retsam.association.config import Models
from retsam.association.grid import Exposure, Problem, make_batch, prepare_exposure
from retsam.association.models import fit_model, interval, wald

#: Quantiles of the knots (Harrell 2015, Regression Modeling Strategies, table 2.3).
KNOTS = {
    3: (0.10, 0.50, 0.90),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.50, 0.725, 0.95),
    6: (0.05, 0.23, 0.41, 0.59, 0.77, 0.95),
    7: (0.025, 0.1833, 0.3417, 0.50, 0.6583, 0.8167, 0.975),
}


def restricted_cubic_spline(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Basis of a cubic spline that is linear beyond the outer knots.

    Parameters
    ----------
    x : ndarray [n]
    knots : ndarray [k]
        Increasing, at least 3.

    Returns
    -------
    ndarray [n, k - 1]
        ``x`` itself first; the others divided by the squared distance of the outer knots (Harrell 2015, eq. 2.25).
    """
    knots = np.asarray(knots, dtype=float)
    last, before = knots[-1], knots[-2]
    scale = (last - knots[0]) ** 2

    def cube(t):
        return np.maximum(x - t, 0.0) ** 3

    terms = [x]
    for t in knots[:-2]:
        terms.append((cube(t) - cube(before) * (last - t) / (last - before) + cube(last) * (before - t) / (last - before)) / scale)
    return np.column_stack(terms)


@dataclass
class Shape:
    """Rows of the three tables of shape for one biomarker and problem."""

    quintiles: list[dict]
    spline: list[dict]
    tests: dict


def shape_of(problem: Problem, exposure: Exposure, models: Models, knots: int, winsor: float, points: int = 41) -> Shape:
    """Quintiles, spline and tests of one biomarker.

    Parameters
    ----------
    problem : Problem
    exposure : Exposure
    models : Models
    knots : int
        Of the spline; fewer where quantiles coincide.
    winsor : float
    points : int
        At which the curve is given, between the 2.5 and 97.5 percent quantiles.

    Returns
    -------
    Shape
        The spline is on the transformed scale of the primary model; the ``x`` of its points is in the biomarker's own unit.
    """
    key = {"outcome": problem.coded.outcome.name, "biomarker": exposure.name, "covariate_set": problem.covariate_set}
    rows = problem.rows[np.isfinite(exposure.values[problem.rows])]
    batch = make_batch(problem, rows, models)
    test = {**key, "n": len(rows), "n_cases": batch.n_cases, "knots": None, "reference": math.nan}
    x, sd, _, note = (None, math.nan, math.nan, batch.refusal) if batch.refusal else prepare_exposure(exposure, batch, models, True, winsor)
    if x is None:
        return Shape([], [], {**test, "note": note})
    raw = exposure.values[rows]
    notes: list[str] = []
    quintiles, p_trend = _quintiles(problem, batch, raw, models, key, notes)
    test["p_trend"] = p_trend
    spline = _spline(problem, batch, raw, x, exposure, models, knots, winsor, points, key, test, notes)
    return Shape(quintiles, spline, {**test, "note": ";".join(dict.fromkeys(notes)) or None})


def _fit(problem, batch, columns, models):
    start, alpha = batch.start, batch.start_alpha
    return fit_model(problem.kind, columns, batch.z, batch.y, batch.starts, models, batch.event, batch.entry, start, alpha, batch.separated)


def _quintiles(problem, batch, raw, models: Models, key: dict, notes: list[str]) -> tuple[list[dict], float]:
    edges = np.unique(np.quantile(raw, [0.2, 0.4, 0.6, 0.8]))
    group = np.searchsorted(edges, raw, side="left")
    members = [int(np.sum(group == q)) for q in range(len(edges) + 1)]
    if len(edges) < 4 or min(members) < models.min_cell:
        notes.append("fewer_quintiles")
        return [], math.nan
    out = []
    indicators = np.column_stack([(group == q).astype(float) for q in range(1, 5)])
    answer = _fit(problem, batch, indicators, models)
    medians = np.array([np.median(raw[group == q]) for q in range(5)])
    for q in range(5):
        inside = group == q
        cases = None
        if problem.kind in ("binary", "ordered"):
            cases = int(np.sum(batch.y[inside] > 0))
        elif problem.kind == "time":
            cases = int(np.sum(batch.event[inside] == 1))
        remarks: tuple[str, ...] = ()
        row = {
            **key,
            "quintile": q + 1,
            "low": raw[inside].min(),
            "high": raw[inside].max(),
            "median": medians[q],
            "n": members[q],
            "n_cases": cases,
        }
        if q == 0:
            row.update(estimate=0.0)
        elif answer.fit is not None:
            values, remarks = answer.interval(models.level, q - 1)
            row.update({k: values[k] for k in ("estimate", "se", "ci_low", "ci_high", "p")})
        row["note"] = ";".join([*answer.notes, *remarks]) or None
        out.append(row)
    trend = medians[group]
    trend = trend - trend.mean()
    answer = _fit(problem, batch, trend / trend.std(), models)
    if answer.fit is None:
        notes.extend(answer.notes)
        return out, math.nan
    return out, answer.interval(models.level)[0]["p"]


def _spline(problem, batch, raw, x, exposure: Exposure, models: Models, knots, winsor, points, key, test, notes) -> list[dict]:
    at = np.unique(np.quantile(x, KNOTS[knots]))
    if len(at) < 3:
        notes.append("too_few_knots")
        return []
    basis = restricted_cubic_spline(x, at)
    answer = _fit(problem, batch, basis - basis.mean(axis=0), models)
    if answer.fit is None:
        notes.extend(answer.notes or ("not_converged",))
        return []
    k = basis.shape[1]
    beta, cov = answer.fit.beta[:k], answer.fit.cov[:k, :k]
    test["p_overall"] = wald(beta, cov, answer.joint_df)[2]
    test["p_nonlinear"] = wald(beta[1:], cov[1:, 1:], answer.df_of(1) if len(beta) == 2 else answer.joint_df)[2]
    order = np.argsort(raw, kind="stable")
    grid = np.unique(np.quantile(raw, np.linspace(0.025, 0.975, points)))
    reference = float(np.median(raw))
    # transformed position of raw values, from the rows themselves: holds for every monotone transform
    place = np.interp(np.append(grid, reference), raw[order], x[order])
    test["reference"] = reference
    test["knots"] = ";".join(f"{v:.6g}" for v in np.interp(at, x[order], raw[order]))
    difference = restricted_cubic_spline(place[:-1], at) - restricted_cubic_spline(place[-1:], at)
    estimate = difference @ beta
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", difference, cov, difference), 0.0))
    unit = interval(0.0, 1.0, answer.joint_df, models.level)["ci_high"]
    return [
        {**key, "x": g, "estimate": e, "ci_low": e - unit * s, "ci_high": e + unit * s}
        for g, e, s in zip(grid, estimate, error, strict=True)
    ]


def shape_tables(shapes: list[Shape]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The three tables of all biomarkers."""
    return (
        pd.DataFrame([r for s in shapes for r in s.quintiles]),
        pd.DataFrame([r for s in shapes for r in s.spline]),
        pd.DataFrame([s.tests for s in shapes]),
    )


__all__ = ["KNOTS", "Shape", "restricted_cubic_spline", "shape_of", "shape_tables"]
