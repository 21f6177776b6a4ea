"""Simulated cohorts with known effects: bias, coverage of 95 % intervals, type-I error, false discovery rate, and bad situations.

Run:

    python benchmarks/simulation.py                 # 1,000 cohorts, in one process
    python benchmarks/simulation.py --cohorts 100   # a quick look
    python benchmarks/simulation.py --page docs/benchmarks/simulation.md
    python benchmarks/simulation.py --parts simulation-parts   # keeps each scenario's result there: a stopped run goes on

Scenarios of single fits get four times the cohorts (``--quick``): they cost milliseconds, and the Monte-Carlo error of a coverage falls
from 0.7 to 0.3 points, against bars one point wide. The page also has the share among the first ``--cohorts``.

Subjects have two eyes (some have one), whose biomarkers and outcomes are correlated. Outcomes are drawn so that the marginal effect,
the one that GEE estimates, is known exactly: binary and ordered ones with a random intercept from the bridge distribution (Wang &
Louis 2003, Biometrika 90:765), times with a positive stable frailty (Hougaard 1986, Biometrika 73:671), and a disease that both eyes
share by drawing biomarkers given the disease (normal with equal variances, so that the log odds are linear: Cornfield 1962, Fed Proc
21:58). The last line is JSON, one entry a scenario.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

BETA = 0.4

#: Bars: coverage of 95 % intervals, type-I error at 0.05, false discovery rate at 0.05.
COVERAGE, TYPE1, FDR = (0.94, 0.96), (0.04, 0.06), 0.05


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

    def outcome(self, rng, kind, x, beta=BETA):
        """Outcome (and event) with the marginal effect ``beta`` of ``x``, adjusted for age and sex."""
        k = self.cluster.max() + 1
        linear = beta * x + 0.3 * self.age + 0.2 * self.sex
        if kind in ("binary", "ordered"):
            phi = 0.75
            eta = linear / phi + bridge(rng, phi, k)[self.cluster]
            if kind == "binary":
                return (rng.random(len(x)) < 1 / (1 + np.exp(1.2 / phi - eta))).astype(float), None
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


#: Scenario -> function, settings, and whether the bars are asked of it (the others stand there to be compared with).
SCENARIOS = {
    **{
        f"{kind}, 300 subjects": (one_effect, {"kind": kind, "subjects": 300}, True)
        for kind in ("binary", "continuous", "count", "ordered", "time")
    },
    **{
        f"{kind}, 300 subjects, no effect": (one_effect, {"kind": kind, "subjects": 300, "beta": 0.0}, True)
        for kind in ("binary", "continuous", "count", "ordered", "time")
    },
    "binary, 60 subjects": (one_effect, {"kind": "binary", "subjects": 60}, True),
    "binary, 60 subjects, no correction": (one_effect, {"kind": "binary", "subjects": 60, "small_sample": "none"}, False),
    "binary, 60 subjects, Mancl-DeRouen": (one_effect, {"kind": "binary", "subjects": 60, "small_sample": "mancl_derouen"}, False),
    **{
        f"{kind}, exchangeable{text}": (
            one_effect, {"kind": kind, "subjects": 300, "beta": beta, "correlation": "exchangeable"}, True
        )
        for kind in ("binary", "continuous")
        for text, beta in (("", BETA), (", no effect", 0.0))
    },
    **{
        f"{name}{how}{text}": (shared_disease, {**settings, "beta": beta, "correlation": how.strip(", ") or "independence"}, True)
        for name, settings in (
            ("eyes always alike", {"subjects": 300, "share": 0.25, "alike": 1.0}),
            ("eyes mostly alike, 20 cases", {"subjects": 300, "share": 0.07, "alike": 0.97}),
            ("eyes alike in 80 %", {"subjects": 300, "share": 0.25, "alike": 0.8}),
        )
        for how in ("", ", exchangeable")
        for text, beta in (("", BETA), (", no effect", 0.0))
    },
    **{
        f"{kind}, reliability {r}": (noisy_effect, {"kind": kind, "subjects": 400, "reliability": r}, True)
        for kind in ("binary", "continuous")
        for r in (0.5, 0.7, 0.9)
    },
    "binary, reliability 0.7 from 150 repeats": (
        noisy_effect, {"kind": "binary", "subjects": 400, "reliability": 0.7, "repeats": 150}, True
    ),
    "null, 40 correlated biomarkers": (many_tests, {"subjects": 300, "biomarkers": 40, "share": 0.0}, True),
    "8 of 40 biomarkers real": (many_tests, {"subjects": 300, "biomarkers": 40, "share": 0.2}, True),
    "ordered, 60 subjects": (one_effect, {"kind": "ordered", "subjects": 60}, True),
    "time, 60 subjects": (one_effect, {"kind": "time", "subjects": 60}, True),
    "count, 60 subjects": (one_effect, {"kind": "count", "subjects": 60}, True),
}  # fmt: skip


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


def kept(folder: str | None, name: str, settings: dict, run) -> list[dict]:
    """A scenario's results: read from ``folder`` where they were computed with these settings, else computed and left there."""
    if not folder:
        return run()
    path = Path(folder) / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["settings"] == settings:
            return [{k: Result(**v) if isinstance(v, dict) else v for k, v in r.items()} for r in record["results"]]
    results = run()
    rows = [{k: vars(v) if isinstance(v, Result) else v for k, v in r.items()} for r in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"settings": settings, "results": rows}), encoding="utf-8")
    os.replace(part, path)
    return results


def run_part(arguments):
    """Cohorts ``first`` to ``last`` of a scenario."""
    name, seed, first, last = arguments
    function, settings, _ = SCENARIOS[name]
    place = list(SCENARIOS).index(name)
    return [function(np.random.default_rng([seed, place, i]), **settings) for i in range(first, last)]


def within(value: float, bar: tuple[float, float]) -> bool:
    """Whether a share lies in its bar, ends included."""
    return bar[0] - 1e-9 <= value <= bar[1] + 1e-9


def summarise(name: str, results: list[dict], first: int) -> dict:
    """Bias, coverage and so on of one scenario, by estimator; ``first``: cohorts that are also counted alone.

    ``met`` is left out where no bar is asked."""
    out = {}
    function, _, asked = SCENARIOS[name]
    for key in dict.fromkeys(k for r in results for k in r):
        if function is many_tests:
            values = np.array([r[key] for r in results], dtype=float)
            part = {"type1": float(np.mean(values[:, 0])), "fdr": float(np.mean(values[:, 1]))}
            part["power"] = float(np.mean(values[:, 2])) if np.isfinite(values[:, 2]).all() else None
            part["mc_error_fdr"] = float(values[:, 1].std(ddof=1) / math.sqrt(len(values)))
            part["mc_error_type1"] = float(values[:, 0].std(ddof=1) / math.sqrt(len(values)))
            part["met"] = within(part["type1"], TYPE1) and part["fdr"] <= FDR
            out[key] = part
            continue
        done = [r[key] for r in results if key in r and math.isfinite(r[key].estimate)]
        v = np.array([(r.estimate, r.se, r.low, r.high, r.truth, r.p) for r in done])
        inside = (v[:, 2] <= v[:, 4]) & (v[:, 4] <= v[:, 3])
        part = {
            "estimated": len(done),
            "bias": float(np.mean(v[:, 0] - v[:, 4])),
            "mc_error_bias": float(v[:, 0].std(ddof=1) / math.sqrt(len(v))),
            "sd": float(v[:, 0].std(ddof=1)),
            "mean_se": float(np.mean(v[:, 1])),
            "coverage": float(np.mean(inside)),
            "mc_error_coverage": float(math.sqrt(0.95 * 0.05 / len(v))),
            "largest": float(np.abs(v[:, 0]).max()),
            "fell_back": float(np.mean([r.fell_back for r in done])),
            "bounded": float(np.mean([r.bounded for r in done])),
        }
        if np.all(v[:, 4] == 0):
            part["type1"] = float(np.mean(v[:, 5] < 0.05))
        if len(results) > first:
            early = [r[key] for r in results[:first] if key in r and math.isfinite(r[key].estimate)]
            part["coverage_first"] = float(np.mean([r.low <= r.truth <= r.high for r in early]))
        # a plain estimate of a noisy biomarker is not asked to cover: that it does not is why it is corrected
        if asked and key != "plain":
            part["met"] = within(part["coverage"], COVERAGE) and within(part.get("type1", 0.05), TYPE1)
        out[key] = part
    return out


def page(report: dict, bad: pd.DataFrame, cohorts: int, quick: int, seconds: float, seed: int) -> str:
    """The results as Markdown."""
    error, less = (100 * math.sqrt(0.95 * 0.05 / c) for c in (cohorts, quick * cohorts))
    lines = [
        "# Simulated cohorts",
        "",
        f"Written by `python benchmarks/simulation.py --cohorts {cohorts} --quick {quick} --seed {seed}",
        f"--page docs/benchmarks/simulation.md` ({seconds:.0f} s of one processor). Cohorts have two eyes a subject (one in a",
        "tenth of them), biomarkers and outcomes correlated between the eyes, and a known marginal effect, adjusted for age and sex.",
        "",
        "## Intervals",
        f"Bar: 95 % intervals cover 94-96 %; of no effect, type-I error 4-6 %. Monte-Carlo error of a coverage: {error:.2f} points of",
        f"{cohorts:,} cohorts, {less:.2f} of {quick * cohorts:,}; `first`: coverage among the first {cohorts:,} of these.",
        "`fell back`: share of cohorts whose exchangeable working correlation gave way to independence, in brackets those where it had hit",
        "its bound.",
        "",
        "| scenario | estimator | estimated | bias (MC error) | SD | mean SE | coverage % (first) | type-I % | fell back % | bar met |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, estimators in report.items():
        for key, r in estimators.items():
            if "coverage" not in r:
                continue
            met = {True: "yes", False: "**no**", None: ""}[r.get("met")]
            type1 = f"{100 * r['type1']:.1f}" if "type1" in r else ""
            early = f" ({100 * r['coverage_first']:.1f})" if "coverage_first" in r else ""
            lines.append(
                f"| {name} | {key or 'model'} | {r['estimated']} | {r['bias']:+.4f} ({r['mc_error_bias']:.4f}) | "
                f"{r['sd']:.4f} | {r['mean_se']:.4f} | {100 * r['coverage']:.1f}{early} | {type1} | "
                f"{100 * r['fell_back']:.0f} ({100 * r['bounded']:.0f}) | {met} |"
            )
    lines += [
        "",
        "The plan's default is working independence. `eyes alike`: a disease of the subject that shows in both eyes, read off each eye's",
        "biomarker. There an exchangeable working correlation estimates another quantity (Pepe & Anderson 1994); it gives way to",
        "independence from a working correlation of 0.9, or where the two estimates differ by more than a quarter of a standard error.",
        "",
        "`rc` is regression calibration, `simex` simulation-extrapolation, `plain` the estimate that they correct: its interval is about",
        "another effect, the attenuated one, and no bar is asked of it. Scenarios without an entry under `bar met` are for comparison.",
        "",
        "## Many tests",
        "| scenario | type-I error at 0.05 (MC error) | FDR of Benjamini-Hochberg at 0.05 (MC error) | power | bar met |",
        "|---|---|---|---|---|",
    ]
    for name, estimators in report.items():
        for r in estimators.values():
            if "fdr" in r:
                power = "" if r["power"] is None else f"{r['power']:.3f}"
                met = "yes" if r["met"] else "**no**"
                errors = f"{r['type1']:.4f} ({r['mc_error_type1']:.4f}) | {r['fdr']:.4f} ({r['mc_error_fdr']:.4f})"
                lines.append(f"| {name} | {errors} | {power} | {met} |")
    lines += [
        "",
        "## Bad situations: an estimate or a reason",
        "One cohort of 120 subjects each; estimates per SD with their standard error, or the code of the reason (see",
        "[association-tables.md](../association-tables.md)).",
        "",
        "| situation | binary | ordered | count | time | continuous |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in bad.groupby("situation", sort=False):
        cells = part.set_index("kind")
        texts = []
        for kind in ("binary", "ordered", "count", "time", "continuous"):
            if kind not in cells.index:
                texts.append("")
                continue
            row = cells.loc[kind]
            notes = ", ".join(f"`{c}`" for c in str(row["note"] or "").split(";") if c)
            number = f"{row['estimate']:.2f} ({row['se']:.2f})" if math.isfinite(row["estimate"]) else "none"
            texts.append(f"{number} {notes}".strip())
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Run every scenario, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="Processes.")
    parser.add_argument("--only", default="", help="Scenarios whose name contains this.")
    parser.add_argument("--page", help="Markdown file to write.")
    parser.add_argument("--quick", type=int, default=4, help="Times as many cohorts for scenarios of single fits.")
    parser.add_argument("--parts", help="Folder that keeps the results of each scenario; a later run with the same settings reads them.")
    args = parser.parse_args()
    wanted = [s for s in SCENARIOS if args.only in s]
    if not wanted or args.cohorts < 2:
        print("no scenario of that name, or fewer than 2 cohorts: nothing to measure", file=sys.stderr)
        return 1
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[threads] = "1"
    began = time.process_time()
    report = {}
    print(f"{'scenario':44s} {'estimator':9s} {'bias':>8s} {'(MC)':>7s} {'SD':>7s} {'mean SE':>8s} {'coverage':>9s} {'type-I':>7s}")
    pool = ProcessPoolExecutor(args.workers) if args.workers > 1 else None
    for name in wanted:
        function, settings, _ = SCENARIOS[name]
        cohorts = args.cohorts * (args.quick if function in (one_effect, shared_disease) else 1)

        def run(name=name, cohorts=cohorts):
            if pool is None:
                return run_part((name, args.seed, 0, cohorts))
            edges = np.linspace(0, cohorts, 4 * args.workers + 1).astype(int)
            parts = [(name, args.seed, int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
            return [r for part in pool.map(run_part, parts) for r in part]

        results = kept(args.parts, name, {**settings, "seed": args.seed, "cohorts": cohorts}, run)
        report[name] = summarise(name, results, args.cohorts)
        for key, r in report[name].items():
            miss = "" if r.get("met", True) else "  <- outside the bar"
            if "fdr" in r:
                print(f"{name:44s} type-I error {r['type1']:.4f} (MC {r['mc_error_type1']:.4f}), FDR {r['fdr']:.4f}{miss}", flush=True)
                continue
            type1 = f"{r['type1']:7.4f}" if "type1" in r else ""
            print(
                f"{name:44s} {key:9s} {r['bias']:8.4f} {r['mc_error_bias']:7.4f} {r['sd']:7.4f} {r['mean_se']:8.4f} {r['coverage']:9.4f} "
                f"{type1}{miss}",
                flush=True,
            )
    bad = bad_situations(args.seed)
    wild = bad[(bad["kind"] != "continuous") & (bad["estimate"].abs() > 5)]
    silent = bad[bad["estimate"].isna() & (bad["note"].fillna("") == "")]
    for row in bad.itertuples():
        print(f"{row.situation:40s} {row.kind:10s} {row.model:13s} {row.n:4d} {row.estimate:9.3f} {row.se:8.3f} {row.note}")
    print(f"bad situations: {len(bad)}, wild estimates {len(wild)}, without estimate or reason {len(silent)}")
    children = os.times()
    seconds = time.process_time() - began + children.children_user + children.children_system
    if args.page:
        Path(args.page).write_text(page(report, bad, args.cohorts, args.quick, seconds, args.seed), encoding="utf-8")
    print(
        json.dumps(
            {
                "cohorts": args.cohorts,
                "cpu_seconds": round(seconds, 1),
                "missed": [f"{n} {k}".strip() for n, part in report.items() for k, r in part.items() if not r.get("met", True)],
                "wild": len(wild),
                "silent": len(silent),
                "scenarios": report,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
