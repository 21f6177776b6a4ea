"""A biomarker read off a predicted mask is noisy: its reliability, and estimates corrected for it.

The observed biomarker is ``W = X + U`` with error ``U`` independent of everything, ``var(U) = (1 - reliability) var(W)``, and
independent between the two eyes of a subject. ``W`` is what is analysed: for an analysis of the mean of a subject's eyes the reliability
is that of the mean.

Regression calibration (Rosner, Spiegelman & Willett 1990, Am J Epidemiol 132:734; Carroll et al. 2006, Measurement Error in Nonlinear
Models, ch. 4) replaces ``W`` by ``E[X | W of all eyes of the subject, covariates]``. The fellow eye belongs in it: the true values of
two eyes are correlated, so that the fellow's reading tells of this eye's truth, and a correction by this eye's reliability alone
would be wrong under an exchangeable working correlation.

SIMEX (Cook & Stefanski 1994, JASA 89:1314) adds more error, watches the estimate shrink, and extrapolates back to none, with the
extrapolant ``a + b / (c + zeta)`` whose ``c = var(W | covariates) / var(U)`` is known: exact for a linear model under working
independence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig, Models
from retsam.association.describe import eye_pairs, icc_oneway
from retsam.association.grid import Batch, Exposure, Problem, make_batch, prepare_exposure
from retsam.association.models import UNBOUNDED, fit_model, interval
from retsam.association.problems import Problems
from retsam.association.sample import numbers
from retsam.association.scale import LOGS, transformed

#: Added errors of SIMEX in units of the biomarker's own, and pairs of draws (an error and its negative) at each.
ZETA = (0.5, 1.0, 2.0)
PAIRS = 10

#: Attenuation below which there is more noise than signal, and no corrected estimate is given.
LEAST_ATTENUATION = 0.3


@dataclass(frozen=True)
class Reliability:
    """Share of a biomarker's variance that is not error, its interval, and where it comes from."""

    value: float
    low: float
    high: float
    source: str

    @property
    def se(self) -> float:
        """Standard error that the 95 % interval implies; 0 where the value is given."""
        return (self.high - self.low) / (2 * 1.959964) if math.isfinite(self.high - self.low) else 0.0


def repeat_pairs(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions, in the table of every image, of two usable photographs of the same eye at the same visit (or none known)."""
    usable = frame["excluded"].astype(str).isin(["", "one_per_eye:another_photograph_of_the_eye"]).to_numpy()
    if "eye" not in frame:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    rows = frame.loc[usable & frame["eye"].notna().to_numpy()]
    visit = rows["visit"].astype(object).where(rows["visit"].notna(), "") if "visit" in rows else ""
    groups = pd.DataFrame({"s": rows["subject_key"], "e": rows["eye"].astype(str), "v": visit, "o": rows["order"]}).groupby(
        ["s", "e", "v"]
    )["o"]
    pairs = groups.agg(list)
    pairs = pairs[pairs.map(len) >= 2]
    return np.array([p[0] for p in pairs], dtype=int), np.array([p[1] for p in pairs], dtype=int)


def repeats_of_subjects(frame: pd.DataFrame, first: np.ndarray, second: np.ndarray, readings: np.ndarray) -> np.ndarray:
    """Two readings of the mean over a subject's eyes: for an analysis of that mean, whose error is less than that of one photograph.

    Parameters
    ----------
    frame : DataFrame
        Every image.
    first, second : ndarray of int [n]
        Positions of the pairs of :func:`repeat_pairs`.
    readings : ndarray
        The biomarker of every image.

    Returns
    -------
    ndarray [s, 2]
        Of subjects of whom every analysed eye with a value was photographed twice: with one eye of two, the mean of both is not known
        twice.
    """
    a, b = readings[first], readings[second]
    keys = frame["subject_key"].to_numpy()
    visit = frame["visit"].astype(object).where(frame["visit"].notna(), "").astype(str).to_numpy() if "visit" in frame else None
    both = pd.DataFrame({"s": keys[first], "v": "" if visit is None else visit[first], "a": a, "b": b})
    both["whole"] = np.isfinite(both["a"]) == np.isfinite(both["b"])
    analysed = frame["excluded"].astype(str).eq("").to_numpy() & np.isfinite(readings)
    eyes = pd.Series(keys[analysed]).value_counts()
    groups = both.groupby(["s", "v"], sort=True)
    out = groups[["a", "b"]].mean().assign(whole=groups["whole"].all(), eyes=groups["a"].count()).reset_index()
    out = out[out["whole"] & (out["eyes"] == out["s"].map(eyes).fillna(0))].drop_duplicates("s")
    return out[["a", "b"]].to_numpy(dtype=float)


def reliability_of(
    exposure: Exposure, config: AssociationConfig, eyes: tuple[np.ndarray, np.ndarray], repeats: np.ndarray | None
) -> Reliability | None:
    """Reliability on the analysis scale, from the best source there is.

    Parameters
    ----------
    exposure : Exposure
    config : AssociationConfig
    eyes : (right, left)
        Positions of the eyes of a subject in the sample.
    repeats : ndarray [n, 2] or None
        Two readings of what is analysed: from two photographs of the same eye, or of each eye of a subject.

    Returns
    -------
    Reliability or None
        None where nothing is known of it.
    """
    plan = config.robustness
    for pattern, value in plan.reliability.items():
        if fnmatchcase(exposure.name, pattern):
            return Reliability(value, math.nan, math.nan, "given")
    sources = []
    if repeats is not None:
        sources.append(("repeat_photographs", repeats[:, 0], repeats[:, 1]))
    if plan.eyes_as_replicates:
        sources.append(("both_eyes", exposure.values[eyes[0]], exposure.values[eyes[1]]))
    for source, a, b in sources:
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < 20:
            continue
        scale = exposure.transform if exposure.transform in LOGS else "none"
        x, _ = transformed(np.concatenate([a[both], b[both]]), scale, 0.0, exposure.log_unit)
        if x is None:
            continue
        icc, low, high = icc_oneway(*np.split(x, 2))
        if math.isfinite(icc) and icc > 0:
            return Reliability(min(icc, 1.0), low, high, source)
    return None


def calibrated(x: np.ndarray, z: np.ndarray, starts: np.ndarray, reliability: float) -> np.ndarray | None:
    """``E[X | W of the cluster, covariates]`` under normality.

    Parameters
    ----------
    x : ndarray [n]
        Observed values of unit variance.
    z : ndarray [n, q]
        Intercept and covariates.
    starts : ndarray [K + 1]
    reliability : float

    Returns
    -------
    ndarray [n] or None
        None where the error is as large as all variance that the covariates leave.

    Notes
    -----
    With residuals ``e = W - z'g`` of variance ``v`` and covariance ``c`` between rows of a cluster of ``m``, the truth has variance
    ``v - s`` (``s`` the error's) and the same covariance, so that ``E[X] = z'g + e - s V^-1 e`` with ``V = (v - c) I + c 11'``.
    """
    fitted = z @ np.linalg.lstsq(z, x, rcond=None)[0]
    e = x - fitted
    error = (1 - reliability) * float(x.var())
    v = float(e @ e) / len(e)
    sizes = np.diff(starts)
    sums = np.add.reduceat(e, starts[:-1])
    pairs = float(np.sum(sizes * (sizes - 1)))
    c = (float(sums @ sums) - float(e @ e)) / pairs if pairs else 0.0
    if error >= 0.98 * v:
        return None
    # the truth's covariance cannot exceed its variance
    c = min(max(c, -0.9 * (v - error) / max(int(sizes.max()) - 1, 1)), 0.999 * (v - error))
    mean = np.repeat(sums / (v - c + sizes * c), sizes)
    return fitted + e - error * (e - c * mean) / (v - c)


def regression_calibration(
    problem: Problem, batch: Batch, x: np.ndarray, reliability: Reliability, models: Models
) -> dict[str, float] | None:
    """Estimate and interval with the calibrated biomarker; the reliability's own uncertainty is carried along (delta method)."""

    def fit(value: float, used: Models = models):
        unit = calibrated(x, batch.z, batch.starts, min(max(value, 0.02), 1.0))
        if unit is None:
            return None
        answer = fit_model(
            problem.kind,
            unit,
            batch.z,
            batch.y,
            batch.starts,
            used,
            batch.event,
            batch.entry,
            batch.start,
            batch.start_alpha,
            batch.separated,
        )
        return answer if answer.fit is not None else None

    middle = fit(reliability.value)
    if middle is None:
        return None
    beta, variance = float(middle.fit.beta[0]), float(middle.fit.cov[0, 0])
    if reliability.se > 0:
        step = min(0.02, (1 - reliability.value) / 2)
        # one working correlation on both sides, or a slope would be made of the step from one to the other
        same = models.model_copy(update={"correlation": "independence"})
        up, down = (fit(reliability.value + step, same), fit(reliability.value - step, same)) if step > 0 else (None, None)
        if up is not None and down is not None:
            slope = float(up.fit.beta[0] - down.fit.beta[0]) / (2 * step)
            variance += slope**2 * reliability.se**2
    return interval(beta, math.sqrt(variance), middle.df, models.level)


def simex(
    problem: Problem, batch: Batch, x: np.ndarray, r2: float, reliability: Reliability, models: Models, rng: np.random.Generator
) -> dict[str, float] | None:
    """Simulation-extrapolation under working independence.

    Returns
    -------
    dict or None
        None where the error is as large as all variance that the covariates leave, or a refit has no estimate.
    """
    used = models.model_copy(update={"correlation": "independence"})
    error = (1 - reliability.value) * float(x.var())
    c = (1 - r2) * float(x.var()) / error if error > 0 else math.inf
    if c <= 1.02:
        return None

    def fit(values):
        return fit_model(
            problem.kind, values, batch.z, batch.y, batch.starts, used, batch.event, batch.entry, batch.start, 0.0, batch.separated
        )

    plain = fit(x)
    if plain.fit is None:
        return None
    if not math.isfinite(c):
        return interval(float(plain.fit.beta[0]), math.sqrt(float(plain.fit.cov[0, 0])), plain.df, models.level)
    zeta, beta = [0.0], [float(plain.fit.beta[0])]
    for z in ZETA:
        estimates = []
        for _ in range(PAIRS):
            added = math.sqrt(z * error) * rng.normal(size=len(x))
            # an error and its negative: what is odd in the error cancels in the mean, so that few draws do
            for values in (x + added, x - added):
                answer = fit(values)
                if answer.fit is None:
                    return None
                estimates.append(float(answer.fit.beta[0]))
        zeta.append(z)
        beta.append(float(np.mean(estimates)))
    basis = np.column_stack([np.ones(len(zeta)), 1 / (c + np.array(zeta))])
    at = np.array([1.0, 1 / (c - 1)])
    estimate = float(at @ np.linalg.lstsq(basis, np.array(beta), rcond=None)[0])
    # the extrapolant (a is near 0) multiplies the estimate by c / (c - 1), and its error with it; extrapolating the variances instead, as
    # Stefanski & Cook (1995, JASA 90:1247) do, takes hundreds of draws at a reliability of 0.5
    attenuation = (c - 1) / c
    variance = float(plain.fit.cov[0, 0]) / attenuation**2
    slope = estimate / attenuation / (1 - r2)
    return interval(estimate, math.sqrt(variance + slope**2 * reliability.se**2), plain.df, models.level)


def corrected(
    problem: Problem, exposure: Exposure, reliability: Reliability | None, config: AssociationConfig, seed: Sequence[int]
) -> dict:
    """A row of ``measurement_error.csv``."""
    models = config.models
    row = {"outcome": problem.coded.outcome.name, "biomarker": exposure.name, "covariate_set": problem.covariate_set, "note": None}
    if reliability is None:
        return {**row, "note": "reliability_unknown"}
    row.update(
        reliability=reliability.value,
        reliability_low=reliability.low,
        reliability_high=reliability.high,
        reliability_source=reliability.source,
    )
    rows = problem.rows[np.isfinite(exposure.values[problem.rows])]
    batch = make_batch(problem, rows, models)
    if batch.refusal:
        return {**row, "note": batch.refusal}
    # in SDs throughout, which is what the corrections are steady in; the answer is brought to the plan's scale at the end
    x, sd, r2, note = prepare_exposure(exposure, batch, models, True, config.exposures.winsorise)
    if x is None:
        return {**row, "note": note}
    size = 1.0 if config.exposures.standardise else sd
    answer = fit_model(
        problem.kind, x, batch.z, batch.y, batch.starts, models, batch.event, batch.entry, batch.start, batch.start_alpha, batch.separated
    )
    if answer.fit is None:
        return {**row, "note": ";".join(answer.notes)}
    plain, remarks = answer.interval(models.level)
    row.update({k: plain[k] / size for k in ("estimate", "se", "ci_low", "ci_high")})
    row["attenuation"] = (reliability.value - r2) / (1 - r2)
    notes = [*answer.notes, *remarks]
    if row["attenuation"] < LEAST_ATTENUATION:
        return {**row, "note": ";".join([*notes, "reliability_too_low"])}
    calibration = regression_calibration(problem, batch, x, reliability, models)
    extrapolation = simex(problem, batch, x, r2, reliability, models, np.random.default_rng(list(seed)))
    if problem.kind != "continuous":
        bound = UNBOUNDED / float(x.std())
        calibration, extrapolation = (v if v is not None and abs(v["estimate"]) <= bound else None for v in (calibration, extrapolation))
    if calibration is None or extrapolation is None:
        notes.append("not_corrected")
    for suffix, values in (("rc", calibration), ("simex", extrapolation)):
        if values is not None:
            row.update({f"{k}_{suffix}": values[k] / size for k in ("estimate", "se", "ci_low", "ci_high")})
    return {**row, "note": ";".join(notes) or None}


def measurement_error(
    problems: Problems, exposures: dict[str, list[Exposure]], config: AssociationConfig, biomarkers: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Reliability and corrected estimates of the biomarkers of each outcome.

    Parameters
    ----------
    problems : Problems
    exposures : dict of str to list of Exposure
    config : AssociationConfig
    biomarkers : DataFrame
        Of every image, with ``image_id`` (for repeat photographs of an eye).
    seed : int

    Returns
    -------
    DataFrame
        Columns of ``measurement_error.csv`` without ``plan``.
    """
    frame = problems.sample.every_image
    first, second = repeat_pairs(frame) if frame is not None else (np.empty(0, dtype=int), np.empty(0, dtype=int))
    if len(first):
        row_of = pd.Index(biomarkers["image_id"].astype(str)).get_indexer(frame["image_id"])
    eyes = eye_pairs(problems.sample.frame)
    rows = []
    for place, (outcome, chosen) in enumerate(exposures.items()):
        problem = problems.problem(outcome, config.primary_set)
        for i, e in enumerate(chosen):
            name = e.name.removesuffix("__present")
            repeats = None
            if len(first) >= 20 and name in biomarkers and name == e.name:
                readings = numbers(biomarkers[name], row_of)
                if config.unit.level == "subject_mean":
                    # where all photographs are kept, their mean is read only once
                    repeats = repeats_of_subjects(frame, first, second, readings) if config.unit.visits != "all" else None
                else:
                    repeats = np.column_stack([readings[first], readings[second]])
            rows.append(corrected(problem, e, reliability_of(e, config, eyes, repeats), config, (seed, 4, place, i)))
    return pd.DataFrame(rows)
