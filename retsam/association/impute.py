"""Multiple imputation by chained equations, and Rubin's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Pooled:
    """Rubin's combination of estimates from imputed data sets.

    Attributes
    ----------
    estimate, se : float
    df : float
        Barnard & Rubin (1999, Biometrika 86:948).
    missing_information : float
        Fraction of missing information.
    """

    estimate: float
    se: float
    df: float
    missing_information: float

    def interval(self, level: float) -> dict[str, float]:
        """``ci_low``, ``ci_high``, ``p`` and ``neg_log10_p``."""
        from retsam.association.models import log10_p

        width = self.se * float(stdtrit(self.df, 0.5 + level / 2))
        z = self.estimate / self.se
        return {
            "ci_low": self.estimate - width,
            "ci_high": self.estimate + width,
            "p": 2 * float(stdtr(self.df, -abs(z))),
            "neg_log10_p": log10_p(z, self.df),
        }


def pool(estimates: np.ndarray, errors: np.ndarray, df_complete: float = math.inf) -> Pooled:
    """Rubin's rules (Rubin 1987, Multiple Imputation for Nonresponse in Surveys).

    Parameters
    ----------
    estimates, errors : ndarray [m]
        Estimate and standard error of each imputed data set, m >= 2.
    df_complete : float
        Degrees of freedom had nothing been missing.

    Returns
    -------
    Pooled
    """
    m = len(estimates)
    within = float(np.mean(np.square(errors)))
    between = float(np.var(estimates, ddof=1))
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    df = math.inf if share == 0 else (m - 1) / share**2
    if math.isfinite(df_complete):
        observed = (df_complete + 1) / (df_complete + 3) * df_complete * (1 - share)
        df = observed if not math.isfinite(df) else df * observed / (df + observed)
    if not math.isfinite(df):
        df = 1e12
    riv = share / (1 - share) if share < 1 else math.inf
    information = (riv + 2 / (df + 3)) / (riv + 1) if math.isfinite(riv) else 1.0
    return Pooled(float(np.mean(estimates)), math.sqrt(total), df, information)


def _coded(column: pd.Series) -> np.ndarray:
    """Numbers as one column, words as indicators of all levels but the first; NaN where missing."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=float)[:, None]
    levels = sorted(column.dropna().unique())
    out = (
        np.column_stack([(column == level).to_numpy(dtype=float) for level in levels[1:]])
        if len(levels) > 1
        else np.zeros((len(column), 1))
    )
    out[column.isna().to_numpy()] = np.nan
    return out


def chained_equations(data: pd.DataFrame, m: int, rng: np.random.Generator, cycles: int = 10, donors: int = 5) -> list[pd.DataFrame]:
    """Complete data sets by chained equations with predictive mean matching.

    Parameters
    ----------
    data : DataFrame [n rows]
        Numbers (NaN where missing) and words (None where missing). The outcome belongs among the columns (Moons 2006, J Clin Epidemiol
        59:1092), and must be complete.
    m : int
        Data sets.
    rng : Generator
    cycles : int
        Rounds through the incomplete columns.
    donors : int
        Observed rows, nearest in predicted mean, one of which lends its value.

    Returns
    -------
    list of DataFrame
        In each, every missing cell holds a value that some other row has.

    Notes
    -----
    van Buuren & Groothuis-Oudshoorn (2011, J Stat Softw 45(3)), type-1 matching: the prediction of observed rows uses the estimate, that
    of missing rows a draw from its posterior. Words are matched on the predicted shares of their levels.
    """
    incomplete = [c for c in data.columns if data[c].isna().any() and data[c].notna().any()]
    absent = {c: data[c].isna().to_numpy() for c in incomplete}
    out = []
    for _ in range(m):
        filled = data.copy()
        for c in incomplete:
            seen = data[c].dropna().to_numpy()
            filled.loc[absent[c], c] = rng.choice(seen, int(absent[c].sum()))
        for _ in range(cycles if len(incomplete) > 1 else 1):
            for c in incomplete:
                others = [_coded(filled[o]) for o in data.columns if o != c]
                x = np.column_stack([np.ones(len(data)), *others])
                spread = x.std(axis=0)
                spread[0] = 1.0
                x = x[:, spread > 0]
                x[:, 1:] = (x[:, 1:] - x[:, 1:].mean(axis=0)) / x[:, 1:].std(axis=0)
                target = _coded(data[c])
                gone, seen = absent[c], ~absent[c]
                filled.loc[gone, c] = _match(x, target, data[c].to_numpy(), seen, gone, rng, donors)
        out.append(filled)
    return out


def _match(x, target, values, seen, gone, rng, donors):
    xs = x[seen]
    gram = xs.T @ xs
    gram[np.diag_indices_from(gram)] *= 1 + 1e-6  # collinear columns: a small ridge, as mice uses
    factor = np.linalg.cholesky(gram)
    inverse_factor = np.linalg.inv(factor)
    beta = np.linalg.solve(gram, xs.T @ target[seen])
    residual = target[seen] - xs @ beta
    df = max(int(seen.sum()) - x.shape[1], 1)
    scale = np.sqrt(np.sum(residual**2, axis=0) / rng.chisquare(df))
    drawn = beta + inverse_factor.T @ rng.normal(size=beta.shape) * scale
    mean_seen, mean_gone = xs @ beta, x[gone] @ drawn
    pool_of = values[seen]
    count = min(donors, len(pool_of))
    if mean_seen.shape[1] == 1:
        order = np.argsort(mean_seen[:, 0], kind="stable")
        ranked = mean_seen[order, 0]
        place = np.searchsorted(ranked, mean_gone[:, 0])
        # the nearest `donors` lie within `donors` places on either side
        window = np.clip(place[:, None] + np.arange(-donors, donors)[None, :], 0, len(ranked) - 1)
        distance = np.abs(ranked[window] - mean_gone)
        repeated = np.column_stack([np.zeros(len(window), dtype=bool), window[:, 1:] == window[:, :-1]])
        distance[repeated] = np.inf
        nearest = np.take_along_axis(window, np.argsort(distance, axis=1, kind="stable")[:, :count], axis=1)
        nearest = order[nearest]
    else:
        from scipy.spatial import cKDTree

        nearest = cKDTree(mean_seen).query(mean_gone, k=count)[1].reshape(len(mean_gone), count)
    return pool_of[nearest[np.arange(len(nearest)), rng.integers(0, count, len(nearest))]]
