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


def chained_equations(
    data: pd.DataFrame, m: int, rng: np.random.Generator, cycles: int = 10, donors: int = 5, cluster: np.ndarray | None = None
) -> list[pd.DataFrame]:
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
    cluster : ndarray of int [n], optional
        Cluster of each row; rows without one are clusters of their own.

    Returns
    -------
    list of DataFrame
        In each, every missing cell holds a value that some other row has.

    Notes
    -----
    van Buuren & Groothuis-Oudshoorn (2011, J Stat Softw 45(3)), type-1 matching: the prediction of observed rows uses the estimate, that
    of missing rows one drawn anew. Words are matched on the predicted shares of their levels. Clusters come in three times: the mean of
    the cluster's other rows in every column is among the predictors (the fellow eye; van Buuren 2011, ch. 10 in Hox & Roberts, Handbook of
    Advanced Multilevel Analysis), the coefficients are drawn by resampling whole clusters, and what never differs within a cluster (age,
    sex) is one value for all its rows, taken from the fellow where that has it.
    """
    cluster = np.arange(len(data)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    data = data.copy()
    same = [c for c in data.columns if _is_of_cluster(data[c], cluster)]
    for c in same:
        data[c] = data[c].where(data[c].notna(), data.groupby(cluster)[c].transform("first"))
    incomplete = [c for c in data.columns if data[c].isna().any() and data[c].notna().any()]
    absent = {c: data[c].isna().to_numpy() for c in incomplete}
    fellows = _Fellows(cluster)
    out = []
    for _ in range(m):
        filled = data.copy()
        for c in incomplete:
            seen = data[c].dropna().to_numpy()
            filled.loc[absent[c], c] = rng.choice(seen, int(absent[c].sum()))
        for _ in range(cycles if len(incomplete) > 1 or fellows.any else 1):
            for c in incomplete:
                others = [_coded(filled[o]) for o in data.columns if o != c]
                if fellows.any:
                    # what never differs within a cluster says nothing more by the fellow
                    others += [fellows.mean(_coded(filled[o])) for o in data.columns if o not in same]
                    others.append(fellows.alone[:, None])
                x = np.column_stack([np.ones(len(data)), *others])
                spread = x.std(axis=0)
                spread[0] = 1.0
                x = x[:, spread > 0]
                x[:, 1:] = (x[:, 1:] - x[:, 1:].mean(axis=0)) / x[:, 1:].std(axis=0)
                target = _coded(data[c])
                gone, seen = absent[c], ~absent[c]
                values = _match(x, target, data[c].to_numpy(), seen, gone, cluster, rng, donors)
                if c in same:
                    first = np.unique(cluster[gone], return_index=True, return_inverse=True)
                    values = values[first[1]][first[2]]
                filled.loc[gone, c] = values
        out.append(filled)
    return out


def _is_of_cluster(column: pd.Series, cluster: np.ndarray) -> bool:
    """Whether a column never differs within a cluster, and there is a cluster that shows it."""
    groups = column.groupby(cluster)
    return bool((groups.nunique() <= 1).all() and (groups.count() > 1).any())


class _Fellows:
    """Other rows of the same cluster."""

    def __init__(self, cluster: np.ndarray):
        self.cluster = cluster
        self.others = np.bincount(cluster)[cluster] - 1
        self.alone = (self.others == 0).astype(float)
        self.any = bool((self.others > 0).any())

    def mean(self, columns: np.ndarray) -> np.ndarray:
        """Mean of the other rows of the cluster; of all rows where there are none (``alone`` tells the two apart)."""
        total = np.zeros((self.cluster.max() + 1, columns.shape[1]))
        np.add.at(total, self.cluster, columns)
        mean = (total[self.cluster] - columns) / np.maximum(self.others, 1)[:, None]
        return np.where(self.others[:, None] > 0, mean, columns.mean(axis=0))


def _match(x, target, values, seen, gone, cluster, rng, donors):
    beta = _ridge(x[seen], target[seen], np.ones(int(seen.sum())))
    # whole clusters drawn with replacement: how often each row counts
    owners, position = np.unique(cluster[seen], return_inverse=True)
    counts = rng.multinomial(len(owners), np.full(len(owners), 1.0 / len(owners)))[position].astype(float)
    drawn = _ridge(x[seen], target[seen], counts)
    mean_seen, mean_gone = x[seen] @ beta, x[gone] @ drawn
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


def _ridge(x, target, weights):
    gram = (x * weights[:, None]).T @ x
    # collinear columns: a small ridge, as mice uses; an empty column of a draw gets one of its own
    gram[np.diag_indices_from(gram)] += 1e-6 * np.maximum(np.diag(gram), 1e-3 * np.diag(gram).max())
    return np.linalg.solve(gram, (x * weights[:, None]).T @ target)
