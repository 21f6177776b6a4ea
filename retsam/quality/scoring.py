"""Statistics that the quality model is fitted and scored with."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata

from retsam.quality.model import sigmoid

_SEED = 20


def fit_logistic(
    x: np.ndarray, y: np.ndarray, penalty: float, sign: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Ridge logistic regression with signs: minimise sum w log loss + penalty/2 |b|^2, b_j of the given sign.

    Parameters
    ----------
    x : ndarray [n, p]
        Standardised metrics.
    y : ndarray of 0/1, [n]
    penalty : float
        The intercept is not penalised.
    sign : ndarray [p]
        +1, -1, or 0 for free.
    weight : ndarray [n], optional

    Returns
    -------
    coefficients : ndarray [p]
    intercept : float
    """
    w = np.ones(len(y)) if weight is None else weight

    def loss(b):
        z = x @ b[1:] + b[0]
        residual = w * (sigmoid(z) - y)
        value = (w * (np.logaddexp(0, z) - y * z)).sum() + penalty / 2 * (b[1:] @ b[1:])
        return value, np.r_[residual.sum(), x.T @ residual + penalty * b[1:]]

    bounds = [(None, None), *[{1: (0, None), -1: (None, 0), 0: (None, None)}[int(s)] for s in sign]]
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    if not found.success:
        raise RuntimeError(f"logistic regression did not converge: {found.message}")
    return found.x[1:], float(found.x[0])


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney, ties by half)."""
    ranks, positive = rankdata(score), y == 1
    n1, n0 = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if n1 and n0 else float("nan")


def interval(y: np.ndarray, score: np.ndarray, groups: np.ndarray, statistic, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic, whole groups drawn."""
    rng = np.random.default_rng(_SEED)
    names, inverse = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        values.append(statistic(y[rows], score[rows]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds, probabilities held within one in a million of 0 and 1."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def calibration(y: np.ndarray, p: np.ndarray, bins: int = 5) -> dict:
    """Brier score, expected calibration error, slope and intercept of the logit, and the reliability table."""
    slope, intercept = fit_logistic(logit(p)[:, None], y, 0.0, np.zeros(1))
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(p, edges) - 1, 0, bins - 1)
    table = [
        {
            "from": round(edges[k], 2),
            "to": round(edges[k + 1], 2),
            "n": int((which == k).sum()),
            "predicted": rounded(p[which == k].mean()),
            "seen": rounded(y[which == k].mean()),
        }
        for k in range(bins)
        if (which == k).any()
    ]
    error = sum(row["n"] * abs(row["predicted"] - row["seen"]) for row in table) / len(y)
    return {
        "brier": rounded(((p - y) ** 2).mean()),
        "expected_calibration_error": rounded(error),
        "slope": rounded(slope[0]),
        "intercept": rounded(intercept),
        "bins": table,
    }


def rounded(value: float, digits: int = 4) -> float:
    """A float as a JSON file should hold it."""
    return round(float(value), digits)
