"""Cohorts drawn with known effects, and what the association room makes of them: the scenarios of ``simulation.py``.

Subjects have two eyes (some have one), whose biomarkers and outcomes are correlated. Outcomes are drawn so that the marginal effect,
the one that GEE estimates, is known exactly: binary and ordered ones with a random intercept from the bridge distribution (Wang &
Louis 2003, Biometrika 90:765), times with a positive stable frailty (Hougaard 1986, Biometrika 73:671), and a disease that both eyes
share by drawing biomarkers given the disease (normal with equal variances, so that the log odds are linear: Cornfield 1962, Fed Proc
21:58).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

BETA = 0.4


def bridge(rng: np.random.Generator, phi: float, size: int) -> np.ndarray:
    """Random intercepts under which logistic regression stays logistic at the margin, slopes shrinking by ``phi``."""
    u = rng.random(size)
    return np.log(np.sin(phi * np.pi * u) / np.sin(phi * np.pi * (1 - u))) / phi


def stable(rng: np.random.Generator, alpha: float, size: int) -> np.ndarray:
    """Positive stable frailties, Laplace transform ``exp(-s^alpha)`` (Chambers, Mallows & Stuck 1976)."""
    theta, w = np.pi * rng.random(size), rng.exponential(size=size)
    a = np.sin((1 - alpha) * theta) * np.sin(alpha * theta) ** (alpha / (1 - alpha)) / np.sin(theta) ** (1 / (1 - alpha))
    return (a / w) ** ((1 - alpha) / alpha)


@dataclass
class Eyes:
    """A cohort's eyes: cluster of each row, age and sex of the subject."""

    cluster: np.ndarray
    age: np.ndarray
    sex: np.ndarray

    @classmethod
    def draw(cls, rng, subjects):
        """Nine in ten subjects have both eyes."""
        cluster = np.repeat(np.arange(subjects), np.where(rng.random(subjects) < 0.9, 2, 1))
        age, sex = rng.normal(size=subjects), (rng.random(subjects) < 0.5).astype(float)
        return cls(cluster, age[cluster], sex[cluster])

    def biomarker(self, rng, shared=0.6, age=0.2):
        """Unit variance, ``shared`` of the rest between the eyes, rising with age."""
        k = self.cluster.max() + 1
        rest = math.sqrt(1 - age**2)
        return age * self.age + rest * (
            math.sqrt(shared) * rng.normal(size=k)[self.cluster] + math.sqrt(1 - shared) * rng.normal(size=len(self.cluster))
        )

    def outcome(self, rng, kind, x, beta=BETA, intercept=-1.2):
        """Outcome (and event) with the marginal effect ``beta`` of ``x``, adjusted for age and sex; ``intercept``: log odds of a case."""
        k = self.cluster.max() + 1
        linear = beta * x + 0.3 * self.age + 0.2 * self.sex
        if kind in ("binary", "ordered"):
            phi = 0.75
            eta = linear / phi + bridge(rng, phi, k)[self.cluster]
            if kind == "binary":
                return (rng.random(len(x)) < 1 / (1 + np.exp(-intercept / phi - eta))).astype(float), None
            return np.searchsorted(np.array([-0.5, 0.7, 1.8]) / phi, eta + rng.logistic(size=len(x))).astype(float), None
        if kind == "time":
            alpha = 0.7
            rate = stable(rng, alpha, k)[self.cluster] * np.exp(linear / alpha)
            t = rng.exponential(size=len(x)) / rate
            end = rng.uniform(0.5, 3.0, len(x))
            return np.minimum(t, end), (t <= end).astype(float)
        if kind == "count":
            return rng.poisson(np.exp(linear) * rng.gamma(2, 0.5, k)[self.cluster]).astype(float), None
        return linear + rng.normal(size=k)[self.cluster] + rng.normal(size=len(x)), None


@dataclass(frozen=True)
class Result:
    """One interval and the effect that it should hold; ``fell_back``: the working correlation gave way to independence."""

    estimate: float
    se: float
    low: float
    high: float
    truth: float
    p: float
    fell_back: bool = False
    bounded: bool = False


def problem_of(eyes: Eyes, kind: str, y, event, covariates=None):
    """The cohort as the association room's problem, adjusted for age and sex (or for the given columns)."""
    from retsam.association.config import Outcome
    from retsam.association.design import Covariates
    from retsam.association.grid import Problem
    from retsam.association.outcomes import Coded

    outcome = Outcome(name="y", type=kind, event="e" if kind == "time" else None)
    n = len(y)
    blank = np.full(n, "", dtype=object)
    columns = {"age": eyes.age, "sex": eyes.sex} if covariates is None else covariates
    matrix = np.column_stack([np.ones(n), *((c - c.mean()) / c.std() for c in columns.values())])
    design = Covariates(matrix, ("Intercept", *columns), np.ones(n, dtype=bool), blank)
    return Problem(Coded(outcome, y, event, None, (), blank), "age_sex", "all", design, np.arange(n), eyes.cluster)


def result_of(row: dict, truth: float) -> Result:
    """The interval of a row of the tidy table."""
    notes = row["note"].split(";")
    return Result(
        row["estimate"], row["se"], row["ci_low"], row["ci_high"], truth, row["p"], "independence" in notes, "correlation_bounded" in notes
    )


def one_effect(rng, kind, subjects, small_sample="kauermann_carroll", beta=BETA, correlation="independence"):
    """Estimate and interval of one biomarker, per unit."""
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, estimate_row, make_batch

    eyes = Eyes.draw(rng, subjects)
    x = eyes.biomarker(rng)
    problem = problem_of(eyes, kind, *eyes.outcome(rng, kind, x, beta))
    models = Models(small_sample=small_sample, correlation=correlation)
    row = estimate_row(problem, Exposure("x", "", "", "none", x, np.nan), make_batch(problem, problem.rows, models), models, False, 0.0)
    return {"": result_of(row, beta)}


def shared_disease(rng, subjects, share, alike, beta=BETA, correlation="independence"):
    """A disease of the subject: ``share`` of the subjects have it, and the second eye is as the first in ``alike`` of them.

    Given the disease of an eye its biomarker is normal with unit variance and ``beta`` higher, so that ``beta`` is its log odds ratio.
    Where the eyes are always alike the working correlation of the residuals runs into its bound.
    """
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, estimate_row, make_batch

    eyes = Eyes.draw(rng, subjects)
    first = np.unique(eyes.cluster, return_index=True)[1]
    y = (rng.random(subjects) < share).astype(float)[eyes.cluster]
    again = (rng.random(len(y)) < share).astype(float)
    second = np.ones(len(y), dtype=bool)
    second[first] = False
    y = np.where(second & (rng.random(len(y)) > alike), again, y)
    x = beta * y + eyes.biomarker(rng, age=0.0)
    problem = problem_of(eyes, "binary", y, None)
    models = Models(correlation=correlation)
    row = estimate_row(problem, Exposure("x", "", "", "none", x, np.nan), make_batch(problem, problem.rows, models), models, False, 0.0)
    return {"": result_of(row, beta)}


def rare_marker(rng, subjects, beta, carriers=0.04, intercept=-2.2):
    """A marker that few carry, of a rare disease: where its carriers are all controls, or all cases, the sample is separated.

    ``wald``: the estimate and so many standard errors, where the room gives the profile of the penalised likelihood.
    """
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, commonest_value, make_batch, prepare_exposure
    from retsam.association.models import fit_model, interval

    eyes = Eyes.draw(rng, subjects)
    first = np.unique(eyes.cluster, return_index=True)[1]
    x = (rng.random(subjects) < carriers).astype(float)[eyes.cluster]
    alone = rng.random(len(x)) < 0.3
    alone[first] = False
    x = np.where(alone, 0.0, x)  # of three in ten carriers one eye alone has the marker
    problem = problem_of(eyes, "binary", *eyes.outcome(rng, "binary", x, beta, intercept))
    models = Models()
    batch = make_batch(problem, problem.rows, models)
    if batch.refusal:
        return {}
    unit, _, _, note = prepare_exposure(Exposure("x", "", "", "none", x, commonest_value(x)), batch, models, False, 0.0)
    if unit is None:
        return {}
    answer = fit_model("binary", unit, batch.z, batch.y, batch.starts, models, separated_covariates=batch.separated)
    if answer.fit is None:
        return {}
    mine, wald = answer.interval(0.95)[0], interval(float(answer.fit.beta[0]), math.sqrt(float(answer.fit.cov[0, 0])), answer.df, 0.95)
    return {
        key: Result(v["estimate"], v["se"], v["ci_low"], v["ci_high"], beta, v["p"], answer.model == "firth_logit")
        for key, v in (("", mine), ("wald", wald))
    }


def noisy_effect(rng, kind, subjects, reliability, repeats=0):
    """Plain and corrected estimates of a biomarker read with error; the truth is the effect per unit of the true biomarker."""
    from retsam.association.config import Models
    from retsam.association.describe import icc_oneway
    from retsam.association.grid import Exposure, make_batch, prepare_exposure
    from retsam.association.measurement_error import Reliability, regression_calibration, simex
    from retsam.association.models import fit_model, interval

    eyes = Eyes.draw(rng, subjects)
    true = eyes.biomarker(rng)
    error = math.sqrt((1 - reliability) / reliability)
    read = true + error * rng.normal(size=len(true))
    problem = problem_of(eyes, kind, *eyes.outcome(rng, kind, true))
    models = Models()
    batch = make_batch(problem, problem.rows, models)
    x, sd, r2, _ = prepare_exposure(Exposure("x", "", "", "none", read, np.nan), batch, models, True, 0.0)
    if repeats:
        other = Eyes.draw(rng, repeats)
        eye = np.unique(other.cluster, return_index=True)[1]
        again = other.biomarker(rng)[eye]
        value, low, high = icc_oneway(again + error * rng.normal(size=len(eye)), again + error * rng.normal(size=len(eye)))
        known = Reliability(value, low, high, "repeat_photographs")
    else:
        known = Reliability(reliability, math.nan, math.nan, "given")
    answer = fit_model(kind, x, batch.z, batch.y, batch.starts, models, batch.event)
    plain = interval(float(answer.fit.beta[0]), math.sqrt(float(answer.fit.cov[0, 0])), answer.df, 0.95)
    out = {}
    found = {
        "plain": plain,
        "rc": regression_calibration(problem, batch, x, known, models),
        "simex": simex(problem, batch, x, r2, known, models, rng),
    }
    for name, values in found.items():
        if values is not None:
            out[name] = Result(values["estimate"] / sd, values["se"] / sd, values["ci_low"] / sd, values["ci_high"] / sd, BETA, values["p"])
    return out


def many_tests(rng, subjects, biomarkers, share):
    """Share of rejections among true nulls at 0.05, whether any null was rejected, and the false discovery proportion of BH at 0.05."""
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, run_grid
    from retsam.association.multiplicity import adjust

    eyes = Eyes.draw(rng, subjects)
    common = eyes.biomarker(rng)
    columns = [math.sqrt(0.4) * common + math.sqrt(0.6) * eyes.biomarker(rng) for _ in range(biomarkers)]
    effective = int(round(share * biomarkers))
    # real effects are carried by biomarkers of their own block, so that the others are truly null
    own = [eyes.biomarker(rng, age=0.0) for _ in range(effective)]
    score = sum(own) * (0.5 / math.sqrt(max(effective, 1))) * 1.5 if effective else np.zeros(len(eyes.cluster))
    problem = problem_of(eyes, "binary", *eyes.outcome(rng, "binary", score, beta=1.0))
    values = own + columns[effective:]
    null = np.r_[np.zeros(effective, dtype=bool), np.ones(biomarkers - effective, dtype=bool)]
    exposures = [Exposure(f"b{j}", "", "", "none", v, np.nan) for j, v in enumerate(values)]
    p = run_grid([problem], exposures, Models(), workers=1)["p"].to_numpy(dtype=float)
    rejected = adjust(p, "bh") < 0.05
    false = float(np.sum(rejected & null)) / max(int(rejected.sum()), 1)
    return {"": (float(np.mean(p[null] < 0.05)), false, float(np.mean(rejected[~null])) if effective else math.nan)}


def bad_situations(seed: int) -> pd.DataFrame:
    """What the room answers where the data have no answer, or a hard one: one row a situation and type of outcome.

    Returns
    -------
    DataFrame
        ``situation``, ``kind``, ``model``, ``n``, ``estimate`` (per SD), ``se``, ``note``.
    """
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, commonest_value, run_grid

    rng = np.random.default_rng([seed, 999])
    rows = []
    for kind in ("binary", "ordered", "count", "time", "continuous"):
        eyes = Eyes.draw(rng, 120)
        x = eyes.biomarker(rng)
        n = len(x)
        y, event = eyes.outcome(rng, kind, x)
        high = (event if kind == "time" else (y > np.median(y))).astype(float)
        least = y.max() if kind == "time" else y.min()
        carriers = np.zeros(n)
        # carriers have the highest outcomes only (binary: cases only; time: the first events)
        order = np.argsort(-y if kind != "time" else np.where(event == 1, y, np.inf), kind="stable")
        carriers[order[:12]] = 1.0
        nobody = np.zeros(n)
        nobody[np.flatnonzero(y == least)[:12] if np.sum(y == least) >= 12 else order[-12:]] = 1.0
        amount = np.where(high == 1, np.exp(rng.normal(0, 1.5, n)), np.where(rng.random(n) < 0.03, 0.3, 0.0))
        one = np.zeros(n)
        one[5], one[17:40] = 1e4, rng.random(23)
        biomarkers = {
            "an ordinary biomarker": x,
            "constant": np.full(n, 3.0),
            "90 % missing": np.where(rng.random(n) < 0.9, np.nan, x),
            "all missing": np.full(n, np.nan),
            "times a million": x * 1e6,
            "over a million": x * 1e-6,
            "beside a million": x + 1e6,
            "the outcome itself": np.where(np.isfinite(y), y, 0.0),
            "twelve carriers, all of them high": carriers,
            "twelve carriers, none of them high": nobody,
            "zero but in those who are high": amount,
            "one value of ten thousand": one,
            "three carriers": np.r_[np.ones(3), np.zeros(n - 3)],
            "the covariate": 2 * eyes.age - 1,
            "nearly the covariate": eyes.age + 1e-3 * rng.normal(size=n),
        }
        exposures = [Exposure(name, "", "", "none", v, commonest_value(v)) for name, v in biomarkers.items()]
        plain = {"age": eyes.age, "sex": eyes.sex}
        single = Eyes(np.arange(n), eyes.age, eyes.sex)
        few = (np.arange(n) < 3).astype(float)
        settings = {
            "": (eyes, y, event, plain, exposures),
            "one eye a subject": (single, y, event, plain, exposures[:1]),
            "collinear covariates": (eyes, y, event, {**plain, "months": 12 * eyes.age}, exposures[:1]),
            "a covariate that tells who is high": (eyes, y, event, {**plain, "site": high}, exposures[:1]),
            "12 eyes": (Eyes(eyes.cluster[:12], eyes.age[:12], eyes.sex[:12]), y[:12], event[:12] if event is not None else None,
                        {"age": eyes.age[:12]}, [Exposure("x", "", "", "none", x[:12], np.nan)]),
            "three cases": (eyes, few if kind != "time" else y, few if kind == "time" else None, plain, exposures[:1]),
        }  # fmt: skip
        for name, (who, outcome, happened, columns, tested) in settings.items():
            if name == "three cases" and kind == "continuous":
                continue
            table = run_grid([problem_of(who, kind, outcome, happened, columns)], tested, Models(), workers=1)
            for row in table.itertuples():
                rows.append((name or row.biomarker, kind, row.model, row.n, row.estimate, row.se, row.note))
    return pd.DataFrame(rows, columns=["situation", "kind", "model", "n", "estimate", "se", "note"])
