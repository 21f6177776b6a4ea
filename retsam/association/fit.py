"""What a fit of any model hands back, and the rows of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retsam.association.firth import Profile

#: Outcome of a fit.
OK, NOT_CONVERGED, SINGULAR, DIVERGED = 0, 1, 2, 3


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes
    ----------
    beta : ndarray [p]
        Coefficients: exposures first, covariates after.
    cov : ndarray [p, p]
        Robust (sandwich) covariance of ``beta``.
    naive : ndarray [p, p]
        Model-based covariance of ``beta``.
    alpha, scale : float
        Working correlation and dispersion.
    n, n_clusters, n_iter : int
    code : int
        ``OK``, ``NOT_CONVERGED``, ``SINGULAR`` or ``DIVERGED``; ``beta`` and ``cov`` mean something only where it is ``OK``.
    bounded, high_leverage : bool
        The correlation was held inside its valid range; a cluster's leverage was capped in the small-sample correction.
    steady : ndarray [k] or None
        Degrees of freedom of each exposure's variance (:func:`pan_wall`); None where they were not estimated.
    profile : Profile or None
        Of a penalised model (:class:`retsam.association.firth.Profile`): intervals and tests of one coefficient are its likelihood's.
    """

    beta: np.ndarray
    cov: np.ndarray
    naive: np.ndarray
    alpha: float
    scale: float
    n: int
    n_clusters: int
    n_iter: int
    code: int
    bounded: bool = False
    high_leverage: bool = False
    steady: np.ndarray | None = None
    profile: Profile | None = None

    @property
    def df(self) -> int:
        """Clusters minus coefficients: the degrees of freedom of t."""
        return self.n_clusters - len(self.beta)


def pan_wall(second: np.ndarray, fourth: np.ndarray, n_clusters: int) -> np.ndarray:
    """Degrees of freedom of sandwich variances (Pan & Wall 2002, Stat Med 21:1429).

    Parameters
    ----------
    second, fourth : ndarray [k]
        Sums over clusters of the square, and of its square, of the cluster's part ``u_c`` in a coefficient.
    n_clusters : int

    Returns
    -------
    ndarray [k]
        ``2 V^2 / var(V)`` of the variance ``V = sum u_c^2``, whose own variance is estimated by ``K / (K - 1)`` times the sum of squares of
        ``u_c^2`` about their mean; at least 1, infinite where all squares are equal.
    """
    scatter = (fourth - second**2 / n_clusters) * n_clusters / max(n_clusters - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(scatter > 1e-12 * fourth, 2 * second**2 / scatter, np.inf)
    return np.maximum(df, 1.0)


def cluster_starts(codes: np.ndarray) -> np.ndarray:
    """Row at which each cluster begins, and the number of rows.

    Parameters
    ----------
    codes : ndarray [n]
        Cluster of each row; rows of a cluster lie together.

    Returns
    -------
    ndarray of int64 [K + 1]
    """
    codes = np.asarray(codes)
    if len(codes) == 0:
        return np.zeros(1, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [len(codes)]]).astype(np.int64)
