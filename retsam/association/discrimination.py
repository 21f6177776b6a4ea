"""Discrimination: cross-validated AUC of biomarkers over the covariates, calibration, and the check of confounding by the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri
from scipy.stats import beta as beta_distribution
from scipy.stats import norm, rankdata

from retsam.association.config import AssociationConfig
from retsam.association.design import plain
from retsam.association.fit import OK, cluster_starts
from retsam.association.gee import fit_gee
from retsam.association.grid import Exposure, Problem, refusal
from retsam.association.problems import Problems
from retsam.association.scale import LOGS, rank_inverse_normal, transformed

#: Columns of the quality table that say how large a photograph is, and how good.
SIZE_COLUMNS = ("quality_width", "quality_height", "quality_fov_radius")
QUALITY_COLUMNS = (
    "quality_grade",
    "quality_probability",
    "quality_sharpness",
    "quality_illumination",
    "quality_contrast",
    "quality_fov_coverage",
)
_LEVELS = 12

#: Note of biomarkers that were chosen by p on the same data.
CHOSEN = "chosen_on_same_data"


def clustered_auc(scores: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under ROC curves of clustered rows, and their covariance (Obuchowski 1997, Biometrics 53:567).

    Parameters
    ----------
    scores : ndarray [n, k]
        Each column a predictor; higher means case.
    y : ndarray [n]
        0 or 1, both present.
    cluster : ndarray [n]

    Returns
    -------
    auc : ndarray [k]
    cov : ndarray [k, k]
        Equals DeLong's where every cluster has one row.
    """
    scores = scores[:, None] if scores.ndim == 1 else scores
    case, control = y == 1, y == 0
    m, n = int(case.sum()), int(control.sum())
    _, codes = np.unique(cluster, return_inverse=True)
    clusters = codes.max() + 1
    k = scores.shape[1]
    auc = np.empty(k)
    v10, v01 = np.zeros((clusters, k)), np.zeros((clusters, k))
    cases_of, controls_of = np.bincount(codes[case], minlength=clusters), np.bincount(codes[control], minlength=clusters)
    for j in range(k):
        s = scores[:, j]
        everyone = rankdata(s)
        # share of controls below each case, and of cases above each control, ties counting half
        below = (everyone[case] - rankdata(s[case])) / n
        above = 1 - (everyone[control] - rankdata(s[control])) / m
        auc[j] = below.mean()
        v10[:, j] = np.bincount(codes[case], below, minlength=clusters)
        v01[:, j] = np.bincount(codes[control], above, minlength=clusters)
    a, b = v10 - cases_of[:, None] * auc, v01 - controls_of[:, None] * auc
    with_case, with_control = max(int(np.sum(cases_of > 0)), 2), max(int(np.sum(controls_of > 0)), 2)
    s10 = with_case / ((with_case - 1) * m) * (a.T @ a)
    s01 = with_control / ((with_control - 1) * n) * (b.T @ b)
    s11 = clusters / max(clusters - 1, 1) * (a.T @ b)
    return auc, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def fold_auc(scores: np.ndarray, y: np.ndarray, cluster: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of cross-validated scores, and their covariance: cases are compared with controls of the same fold only.

    Scores of different folds come from different models. A model without any predictor gives a fold with more cases the lower score,
    since the others then have fewer: compared over folds it does worse than chance (Airola et al. 2011, Comput Stat Data Anal 55:1828).

    Parameters
    ----------
    scores : ndarray [n, k]
    y : ndarray [n]
    cluster, fold : ndarray [n]
        Clusters lie within folds.

    Returns
    -------
    auc : ndarray [k]
        Mean over folds with cases and controls, by their number of pairs; NaN where there is none.
    cov : ndarray [k, k]
    """
    scores = scores[:, None] if scores.ndim == 1 else scores
    k = scores.shape[1]
    auc, cov, pairs = np.zeros(k), np.zeros((k, k)), 0.0
    for f in np.unique(fold):
        rows = fold == f
        weight = float(np.sum(y[rows] == 1)) * float(np.sum(y[rows] == 0))
        if weight > 0:
            a, c = clustered_auc(scores[rows], y[rows], cluster[rows])
            auc, cov, pairs = auc + weight * a, cov + weight**2 * c, pairs + weight
    return (auc / pairs, cov / pairs**2) if pairs > 0 else (np.full(k, np.nan), np.full((k, k), np.nan))


def auc_interval(auc: float, variance: float, level: float) -> tuple[float, float]:
    """Interval on the logit scale, which stays inside 0 to 1."""
    if not (0 < auc < 1) or not variance > 0:
        return (math.nan, math.nan)
    width = float(ndtri(0.5 + level / 2)) * math.sqrt(variance) / (auc * (1 - auc))
    middle = math.log(auc / (1 - auc))
    return float(expit(middle - width)), float(expit(middle + width))


def folds_by_cluster(cluster: np.ndarray, y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each row: clusters stay whole, and those with a case are dealt out evenly."""
    names, codes = np.unique(cluster, return_inverse=True)
    has_case = np.zeros(len(names), dtype=bool)
    has_case[codes[y == 1]] = True
    fold = np.empty(len(names), dtype=int)
    offset = 0
    for group in (np.flatnonzero(has_case), np.flatnonzero(~has_case)):
        shuffled = rng.permutation(group)
        fold[shuffled] = (np.arange(len(shuffled)) + offset) % folds
        offset += len(shuffled)
    return fold[codes]


def ridge_logistic(x: np.ndarray, y: np.ndarray, penalty: np.ndarray, max_iter: int = 50) -> np.ndarray:
    """Coefficients of a logistic regression with the penalty ``1/2 sum penalty_j beta_j^2``.

    Parameters
    ----------
    x : ndarray [n, p]
        Intercept and columns of unit size.
    y : ndarray [n]
    penalty : ndarray [p]
        Zero for columns that are not shrunken; a whisper of a penalty keeps separated columns finite.

    Returns
    -------
    ndarray [p]
    """
    p = x.shape[1]
    beta = np.zeros(p)
    penalty = np.maximum(penalty, 1e-4)

    def value(b):
        eta = x @ b
        return float(np.sum(np.logaddexp(0, eta) - y * eta) + 0.5 * np.sum(penalty * b * b))

    current = value(beta)
    for _ in range(max_iter):
        mu = expit(x @ beta)
        gradient = x.T @ (y - mu) - penalty * beta
        hessian = (x * (mu * (1 - mu))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        for _ in range(20):
            new = value(beta + step)
            if new <= current + 1e-10 * abs(current):
                break
            step = step / 2
        beta, current = beta + step, new
        if np.abs(step).max() < 1e-7:
            break
    return beta


def cross_validated(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, shrunken: np.ndarray, grid: Sequence[float] = (0.0,)
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold log odds, and scores.

    Parameters
    ----------
    x : ndarray [n, p]
        Predictors without intercept; NaN where missing (filled with the training mean). Scaled on the training part.
    y : ndarray [n]
    fold : ndarray of int [n]
    shrunken : ndarray of bool [p]
        Columns with a ridge penalty.
    grid : sequence of float
        Penalties to choose from, by the deviance of an inner split of the training part.

    Returns
    -------
    eta : ndarray [n]
        Log odds.
    score : ndarray [n]
        Log odds less the intercept of the fold's model, which is the log odds of the average row that it was fitted to: what rows of
        different folds can be compared by. Zero throughout for a model without predictors.
    """
    out, score = np.empty(len(y)), np.empty(len(y))

    def fit_predict(train, test, penalty):
        with np.errstate(invalid="ignore"):
            mean = np.nanmean(x[train], axis=0) if x.shape[1] else np.empty(0)
        mean = np.where(np.isfinite(mean), mean, 0.0)
        filled = [np.where(np.isfinite(x[part]), x[part], mean) - mean for part in (train, test)]
        size = filled[0].std(axis=0)
        size[size < 1e-12] = np.inf
        a, b = (np.column_stack([np.ones(len(f)), f / size]) for f in filled)
        beta = ridge_logistic(a, y[train], np.concatenate([[0.0], np.where(shrunken, penalty, 0.0)]))
        return b @ beta, b[:, 1:] @ beta[1:]

    for held in np.unique(fold):
        test = fold == held
        train = ~test
        penalty = grid[0]
        if len(grid) > 1:
            inner = train & (fold == (held + 1) % (fold.max() + 1))
            rest = train & ~inner
            # with two folds nothing is left to choose on
            penalty = grid[len(grid) // 2]
            if rest.any() and inner.any():
                loss = []
                for candidate in grid:
                    eta, _ = fit_predict(rest, inner, candidate)
                    loss.append(float(np.sum(np.logaddexp(0, eta) - y[inner] * eta)))
                penalty = grid[int(np.argmin(loss))]
        out[test], score[test] = fit_predict(train, test, penalty)
    return out, score


def _calibration(eta: np.ndarray, score: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> tuple[float, float, float]:
    """Brier score, calibration slope (of the scores; none of a constant model), and calibration in the large."""
    p = expit(eta)
    brier = float(np.mean((p - y) ** 2))
    starts = cluster_starts(cluster)
    centred = score - score.mean()
    slope = fit_gee(centred, np.ones((len(y), 1)), y, starts, "logit", "independence", "none") if np.ptp(score) > 1e-9 else None
    # log odds to add to every prediction: Newton's method on one parameter
    shift = 0.0
    for _ in range(50):
        q = expit(eta + shift)
        step = float(np.sum(y - q) / max(np.sum(q * (1 - q)), 1e-12))
        shift += max(-2.0, min(2.0, step))
        if abs(step) < 1e-10:
            break
    return brier, float(slope.beta[0]) if slope is not None and slope.code == OK else math.nan, shift


def _curves(
    eta: np.ndarray, score: np.ndarray, y: np.ndarray, key: dict, level: float, bins: int = 10, points: int = 101
) -> tuple[list[dict], list[dict]]:
    p = expit(eta)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, p, side="right")
    calibration = []
    for b in range(len(edges) + 1):
        inside = place == b
        n, cases = int(inside.sum()), float(y[inside].sum())
        if n == 0:
            continue
        tail = (1 - level) / 2
        low = float(beta_distribution.ppf(tail, cases, n - cases + 1)) if cases > 0 else 0.0
        high = float(beta_distribution.ppf(1 - tail, cases + 1, n - cases)) if cases < n else 1.0
        calibration.append(
            {
                **key,
                "bin": len(calibration) + 1,
                "n": n,
                "predicted": float(p[inside].mean()),
                "observed": cases / n,
                "ci_low": low,
                "ci_high": high,
            }
        )
    order = np.argsort(-score, kind="stable")
    tpr, fpr = np.cumsum(y[order]) / y.sum(), np.cumsum(1 - y[order]) / (1 - y).sum()
    last = np.append(np.flatnonzero(np.diff(score[order])), len(p) - 1)
    fpr, tpr = np.r_[0.0, fpr[last]], np.r_[0.0, tpr[last]]
    at = np.linspace(0, 1, points)
    # a straight line between two steps, where rows are tied: that of a constant model is the diagonal
    left = np.searchsorted(fpr, at, side="right") - 1
    right = np.minimum(left + 1, len(fpr) - 1)
    along = np.divide(at - fpr[left], fpr[right] - fpr[left], out=np.zeros(points), where=fpr[right] > fpr[left])
    top = tpr[left] + along * (tpr[right] - tpr[left])
    roc = [{**key, "fpr": 0.0, "tpr": 0.0}, *({**key, "fpr": float(f), "tpr": float(t)} for f, t in zip(at, top, strict=True))]
    return calibration, roc


def discrimination(
    problems: Problems, chosen: dict[str, list[Exposure]], everything: Sequence[Exposure], config: AssociationConfig, seed: int
):
    """Cross-validated discrimination of every binary outcome.

    Parameters
    ----------
    problems : Problems
    chosen : dict of str to list of Exposure
        Biomarkers of each outcome that are tried one by one. Where they are not all of ``everything`` they were chosen by p on the same
        eyes, which the folds cannot undo: their rows say so, and have no p of the gain.
    everything : sequence of Exposure
        The set that is tried together (ridge): those measured in at least 80 % of the eyes.
    config : AssociationConfig
    seed : int

    Returns
    -------
    discrimination, calibration, roc : DataFrame
        Without ``plan``.
    """
    rows, calibration, roc = [], [], []
    for place, (outcome, singles) in enumerate(chosen.items()):
        coded = problems.coded[outcome]
        if coded.outcome.type != "binary":
            continue
        problem = problems.problem(outcome, config.primary_set)
        base = {"outcome": outcome, "covariate_set": config.primary_set}
        y_all = coded.y[problem.rows]
        bad = problem.refusal or refusal("binary", y_all, None, len(np.unique(problem.cluster[problem.rows])), config.models)
        if bad:
            rows.append({**base, "predictors": "covariates", "n": len(problem.rows), "n_cases": int(y_all.sum()), "note": bad})
            continue
        fold_all = np.full(len(problem.cluster), -1)
        fold_all[problem.rows] = folds_by_cluster(
            problem.cluster[problem.rows], y_all, config.robustness.folds, np.random.default_rng([seed, 5, place])
        )
        shared = [
            e for e in everything if np.isfinite(e.values[problem.rows]).mean() >= 0.8 and np.ptp(_finite(e.values[problem.rows])) > 0
        ]
        if shared:
            x = np.column_stack([_scaled(e, problem.rows) for e in shared])
            part, curves = _compare(problem, problem.rows, fold_all, x, "set", "", base, config, grid=(1.0, 10.0, 100.0, 1000.0))
        else:
            part, curves = _compare(problem, problem.rows, fold_all, np.empty((len(problem.rows), 0)), "", "", base, config)
        rows += part
        calibration += curves[0]
        roc += curves[1]
        selected = 0 < config.robustness.top <= len(singles) < len(everything)
        for e in singles:
            rows += _compare(
                problem,
                problem.rows[np.isfinite(e.values[problem.rows])],
                fold_all,
                None,
                "biomarker",
                e.name,
                base,
                config,
                e,
                selected=selected,
            )[0]
    return pd.DataFrame(rows), pd.DataFrame(calibration), pd.DataFrame(roc)


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _scaled(exposure: Exposure, rows: np.ndarray) -> np.ndarray:
    x = exposure.values[rows].copy()
    seen = np.isfinite(x)
    scale = exposure.transform if exposure.transform in LOGS else "none"
    value, _ = transformed(x[seen], scale, 0.0, exposure.log_unit)
    x[seen] = value if value is not None else x[seen]
    return x


def _compare(
    problem: Problem,
    rows,
    fold_all,
    x,
    what: str,
    name: str,
    base: dict,
    config: AssociationConfig,
    exposure=None,
    grid=(0.0,),
    selected=False,
):
    """Covariates alone, and with a biomarker or the set, on the same rows and folds; ``selected``: one of the smallest p."""
    y, cluster, fold = problem.coded.y[rows], problem.cluster[rows], fold_all[rows]
    level = config.models.level
    counts = {"n": len(rows), "n_cases": int(y.sum()), "folds": len(np.unique(fold)), "biomarker": name or None}
    per_fold = [(y[fold == f].sum(), (1 - y[fold == f]).sum()) for f in np.unique(fold)]
    if not per_fold or min(min(c) for c in per_fold) < 2:
        return [{**base, **counts, "predictors": f"covariates+{what}" if what else "covariates", "note": "too_few_cases_per_fold"}], (
            [],
            [],
        )
    if exposure is not None:
        x = _scaled(exposure, rows)[:, None]
    z = problem.covariates.matrix[rows][:, 1:]
    models = {"covariates": cross_validated(z, y, fold, np.zeros(z.shape[1], dtype=bool))}
    if what == "biomarker":
        models["biomarker"] = cross_validated(x, y, fold, np.zeros(1, dtype=bool))
    if what:
        together = np.column_stack([z, x])
        shrunken = np.r_[np.zeros(z.shape[1], dtype=bool), np.full(x.shape[1], what == "set")]
        models[f"covariates+{what}"] = cross_validated(together, y, fold, shrunken, grid)
    auc, cov = fold_auc(np.column_stack([score for _, score in models.values()]), y, cluster, fold)
    out, curves = [], ([], [])
    for j, (label, (eta, score)) in enumerate(models.items()):
        if label == "covariates" and what == "biomarker":
            continue  # it stands beside each of them as the difference
        low, high = auc_interval(auc[j], cov[j, j], level)
        brier, slope, shift = _calibration(eta, score, y, cluster)
        note = CHOSEN if selected else None
        row = {**base, **counts, "predictors": label, "auc": auc[j], "ci_low": low, "ci_high": high, "brier": brier, "note": note}
        row.update(calibration_slope=slope, calibration_intercept=shift)
        if label.startswith("covariates+"):
            difference, variance = auc[j] - auc[0], cov[j, j] + cov[0, 0] - 2 * cov[0, j]
            error = math.sqrt(variance) if variance > 0 else math.nan
            width = float(ndtri(0.5 + level / 2)) * error
            row.update(delta_auc=difference, delta_low=difference - width, delta_high=difference + width)
            if not selected:
                row["delta_p"] = 2 * float(norm.sf(abs(difference / error))) if error > 0 else math.nan
        out.append(row)
        if what != "biomarker":
            c, r = _curves(eta, score, y, {**base, "predictors": label}, level)
            curves[0].extend(c)
            curves[1].extend(r)
    return out, curves


# ---- the camera ------------------------------------------------------------------------------------------------------


def _camera_columns(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Camera variables as predictors: few values as indicators, many as normal scores and their squares; missing as its own level."""
    parts = []
    for column in columns:
        values = plain(frame[column])
        if values.nunique(dropna=False) <= 1:
            continue
        if values.dtype == object or values.nunique() <= _LEVELS:
            texts = values.map(lambda v: "" if pd.isna(v) else str(v))
            # Each level but the commonest; the plan allows columns of words as many as covariates have (`faults.MOST_INDICATORS`).
            parts += [(texts == level).to_numpy(dtype=float) for level in texts.value_counts().index[1:]]
        else:
            x = values.to_numpy(dtype=float)
            seen = np.isfinite(x)
            score = np.zeros(len(x))
            score[seen] = rank_inverse_normal(x[seen])
            parts += [score, score**2]
            if not seen.all():
                parts.append((~seen).astype(float))
    return np.column_stack(parts) if parts else np.empty((len(frame), 0))


def camera_check(problems: Problems, config: AssociationConfig, seed: int) -> pd.DataFrame:
    """Whether image size, source or quality alone predict a binary outcome (or the upper levels of an ordered one).

    Returns
    -------
    DataFrame
        Columns of ``camera.csv`` without ``plan``. ``warning`` where the lower end of the AUC's interval passes the plan's threshold.
    """
    frame = problems.sample.frame
    groups = {
        "image_size": [c for c in SIZE_COLUMNS if c in frame],
        "source": [c for c in config.robustness.camera_columns if c in frame],
        "quality": [c for c in QUALITY_COLUMNS if c in frame],
    }
    groups["camera"] = [c for columns in groups.values() for c in columns]
    rows = []
    for place, (outcome, coded) in enumerate(problems.coded.items()):
        if coded.outcome.type not in ("binary", "ordered"):
            continue
        inside = np.flatnonzero(problems.eligible[outcome])
        y = (coded.y[inside] > 0).astype(float)
        cluster = problems.sample.cluster[inside]
        bad = refusal("binary", y, None, len(np.unique(cluster)), config.models)
        for name, columns in groups.items():
            row = {
                "outcome": outcome,
                "predictors": name,
                "columns": ";".join(columns),
                "n": len(inside),
                "n_cases": int(y.sum()),
                "note": None,
            }
            if not columns:
                rows.append({**row, "warning": False, "note": "no_columns"})
                continue
            x = _camera_columns(frame.iloc[inside], columns)
            if bad or x.shape[1] == 0:
                rows.append({**row, "warning": False, "note": bad or "same_for_all"})
                continue
            fold = folds_by_cluster(cluster, y, config.robustness.folds, np.random.default_rng([seed, 6, place]))
            _, score = cross_validated(x, y, fold, np.ones(x.shape[1], dtype=bool), (1.0, 10.0, 100.0))
            auc, cov = fold_auc(score, y, cluster, fold)
            low, high = auc_interval(auc[0], cov[0, 0], config.models.level)
            warn = bool(math.isfinite(low) and low > config.robustness.camera_warning)
            note = "label_predicted_by_camera" if warn else None
            rows.append({**row, "auc": auc[0], "ci_low": low, "ci_high": high, "warning": warn, "note": note})
    return pd.DataFrame(rows)
