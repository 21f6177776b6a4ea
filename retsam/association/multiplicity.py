"""Families of tests: corrected p values, and how many tests there really are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

LABELS = {
    "bonferroni": "Bonferroni",
    "holm": "Holm",
    "bh": "Benjamini-Hochberg",
    "by": "Benjamini-Yekutieli",
    "meff": "Bonferroni over effective tests (Li-Ji)",
}


def adjust(p: np.ndarray, method: str, m_eff: float | None = None) -> np.ndarray:
    """Corrected p values of one family.

    Parameters
    ----------
    p : ndarray [m]
        NaN where there was no test: it stays NaN and is not counted.
    method : {'bonferroni', 'holm', 'bh', 'by', 'meff'}
    m_eff : float, optional
        Effective number of tests, for ``meff``: ``min(1, p * m_eff)``.

    Returns
    -------
    ndarray [m]
    """
    p = np.asarray(p, dtype=float)
    out = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if not tested.any():
        return out
    if method == "meff":
        if m_eff is None:
            raise ValueError("method `meff` needs the effective number of tests")
        out[tested] = np.minimum(1.0, p[tested] * m_eff)
    else:
        out[tested] = _adjust_all(p[tested], method)
    return out


def _adjust_all(p: np.ndarray, method: str) -> np.ndarray:
    """Corrected p values of a family without missing values.

    Written out because ``statsmodels.stats.multitest.multipletests`` runs the garbage collector at each call, which costs more than a
    grid of models does; the tests hold the two equal.
    """
    m = len(p)
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    rank = np.arange(1, m + 1)
    if method == "bonferroni":
        corrected = ranked * m
    elif method == "holm":
        corrected = np.maximum.accumulate(ranked * (m - rank + 1))
    elif method in ("bh", "by"):
        penalty = np.sum(1.0 / rank) if method == "by" else 1.0
        corrected = np.minimum.accumulate((ranked * m * penalty / rank)[::-1])[::-1]
    else:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(LABELS)}")
    out = np.empty(m)
    out[order] = np.minimum(1.0, corrected)
    return out


#: Rows that :func:`spearman_matrix` turns into ranks at a time: 50 MB for 1,300 biomarkers.
BLOCK = 4096


def spearman_matrix(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Spearman correlations over the rows that a pair of columns shares.

    Parameters
    ----------
    columns : sequence of B ndarrays [n]
        NaN where missing.

    Returns
    -------
    rho : ndarray [B, B]
        Ranks are taken once per column (as ``pandas`` does not): exact where nothing is missing. NaN for pairs with under 10 shared rows or
        without variation.
    n : ndarray of int [B, B]
        Shared rows.
    """
    width, length = len(columns), len(columns[0]) if len(columns) else 0
    # twice the mean rank is a whole number: four bytes a cell, 0 where missing
    doubled = np.zeros((width, length), dtype=np.int32)
    counts = np.ones(width)
    for j, column in enumerate(columns):
        rows = np.isfinite(column)
        if rows.any():
            doubled[j, rows] = np.round(2 * rankdata(column[rows]))
            counts[j] = rows.sum()
    n, sx, sxx, sxy = (np.zeros((width, width)) for _ in range(4))
    for first in range(0, length, BLOCK):
        part = doubled[:, first : first + BLOCK]
        w = (part > 0).astype(float)
        ranks = (part / (2 * counts[:, None]) - 0.5) * w
        n += w @ w.T
        sx += ranks @ w.T  # sum of column a's ranks over the rows shared with b
        sxx += (ranks * ranks) @ w.T
        sxy += ranks @ ranks.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cov = sxy - sx * sx.T / n
        var = sxx - sx * sx / n
        rho = cov / np.sqrt(var * var.T)
    rho[(n < 10) | ~np.isfinite(rho)] = np.nan
    rho = np.clip(rho, -1.0, 1.0)
    return rho, n.astype(int)


def effective_tests(correlation: np.ndarray) -> float:
    """Effective number of independent tests (Li & Ji 2005, Heredity 95:221).

    Parameters
    ----------
    correlation : ndarray [m, m]
        NaN counts as 0.

    Returns
    -------
    float
        ``sum_i I(l_i >= 1) + (l_i - floor(l_i))`` over the absolute eigenvalues, between 1 and m.
    """
    m = len(correlation)
    if m == 0:
        return 0.0
    r = np.where(np.isfinite(correlation), correlation, 0.0)
    np.fill_diagonal(r, 1.0)
    # rounding keeps an eigenvalue of 0.9999999 from counting as a fraction of a test instead of one
    values = np.round(np.abs(np.linalg.eigvalsh(r)), 9)
    return float(min(m, max(1.0, np.sum((values >= 1) + (values - np.floor(values))))))
