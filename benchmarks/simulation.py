"""Simulated cohorts with known effects: bias, coverage of 95 % intervals, type-I error, false discovery rate.

Run:

    python benchmarks/simulation.py                 # 1,000 cohorts
    python benchmarks/simulation.py --cohorts 100   # a quick look

Subjects have two eyes (some have one), whose biomarkers and outcomes are correlated. Outcomes are drawn so that the marginal effect,
the one that GEE estimates, is known exactly: binary and ordered ones with a random intercept from the bridge distribution (Wang &
Louis 2003, Biometrika 90:765), times with a positive stable frailty (Hougaard 1986, Biometrika 73:671). The last line is JSON, one
entry a scenario.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
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


def problem_of(eyes: Eyes, kind: str, y, event):
    """The cohort as the association room's problem, adjusted for age and sex."""
    from retsam.association.config import Outcome
    from retsam.association.design import covariate_matrix
    from retsam.association.grid import Problem
    from retsam.association.outcomes import Coded

    outcome = Outcome(name="y", type=kind, event="e" if kind == "time" else None)
    coded = Coded(outcome, y, event, None, (), np.full(len(y), "", dtype=object))
    covariates = covariate_matrix(pd.DataFrame({"age": eyes.age, "sex": eyes.sex}), ["age", "sex"])
    return Problem(coded, "age_sex", "all", covariates, np.arange(len(y)), eyes.cluster)


def one_effect(rng, kind, subjects, small_sample="kauermann_carroll"):
    """Estimate and interval of one biomarker, per unit."""
    from retsam.association.config import Models
    from retsam.association.grid import Exposure, estimate_row, make_batch

    eyes = Eyes.draw(rng, subjects)
    x = eyes.biomarker(rng)
    problem = problem_of(eyes, kind, *eyes.outcome(rng, kind, x))
    models = Models(small_sample=small_sample)
    row = estimate_row(problem, Exposure("x", "", "", "none", x, np.nan), make_batch(problem, problem.rows, models), models, False, 0.0)
    return {"": (row["estimate"], row["se"], row["ci_low"], row["ci_high"], BETA)}


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
            out[name] = (values["estimate"] / sd, values["se"] / sd, values["ci_low"] / sd, values["ci_high"] / sd, BETA)
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


SCENARIOS = {
    **{
        f"{kind}, 300 subjects": (one_effect, {"kind": kind, "subjects": 300})
        for kind in ("binary", "continuous", "count", "ordered", "time")
    },
    "binary, 60 subjects": (one_effect, {"kind": "binary", "subjects": 60}),
    "binary, 60 subjects, no correction": (one_effect, {"kind": "binary", "subjects": 60, "small_sample": "none"}),
    "binary, 60 subjects, Mancl-DeRouen": (one_effect, {"kind": "binary", "subjects": 60, "small_sample": "mancl_derouen"}),
    **{
        f"{kind}, reliability {r}": (noisy_effect, {"kind": kind, "subjects": 400, "reliability": r})
        for kind in ("binary", "continuous")
        for r in (0.5, 0.7, 0.9)
    },
    "binary, reliability 0.7 from 150 repeats": (noisy_effect, {"kind": "binary", "subjects": 400, "reliability": 0.7, "repeats": 150}),
    "null, 40 correlated biomarkers": (many_tests, {"subjects": 300, "biomarkers": 40, "share": 0.0}),
    "8 of 40 biomarkers real": (many_tests, {"subjects": 300, "biomarkers": 40, "share": 0.2}),
}


def run_part(arguments):
    """Cohorts ``first`` to ``last`` of a scenario."""
    os.environ["OMP_NUM_THREADS"] = "1"
    name, seed, first, last = arguments
    function, settings = SCENARIOS[name]
    place = list(SCENARIOS).index(name)
    return [function(np.random.default_rng([seed, place, i]), **settings) for i in range(first, last)]


def summarise(name: str, results: list[dict]) -> dict:
    """Bias, coverage and so on of one scenario, by estimator."""
    out = {}
    for key in dict.fromkeys(k for r in results for k in r):
        values = np.array([r[key] for r in results if key in r], dtype=float)
        if SCENARIOS[name][0] is many_tests:
            out[key] = {"type1": float(np.mean(values[:, 0])), "fdr": float(np.mean(values[:, 1])), "power": float(np.mean(values[:, 2]))}
            out[key]["power"] = out[key]["power"] if math.isfinite(out[key]["power"]) else None
            out[key]["mc_error_type1"] = float(values[:, 0].std(ddof=1) / math.sqrt(len(values)))
            continue
        done = np.isfinite(values[:, 0])
        v = values[done]
        inside = (v[:, 2] <= v[:, 4]) & (v[:, 4] <= v[:, 3])
        out[key] = {
            "estimated": int(done.sum()),
            "bias": float(np.mean(v[:, 0] - v[:, 4])),
            "mc_error_bias": float(v[:, 0].std(ddof=1) / math.sqrt(len(v))),
            "sd": float(v[:, 0].std(ddof=1)),
            "mean_se": float(np.mean(v[:, 1])),
            "coverage": float(np.mean(inside)),
            "mc_error_coverage": float(math.sqrt(0.95 * 0.05 / len(v))),
        }
    return out


def main() -> int:
    """Run every scenario, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="Scenarios whose name contains this.")
    args = parser.parse_args()
    wanted = [s for s in SCENARIOS if args.only in s]
    if not wanted or args.cohorts < 2:
        print("no scenario of that name, or fewer than 2 cohorts: nothing to measure", file=sys.stderr)
        return 1
    began = time.perf_counter()
    report = {}
    print(f"{'scenario':44s} {'estimator':9s} {'bias':>8s} {'(MC)':>7s} {'SD':>7s} {'mean SE':>8s} {'coverage':>9s}")
    with ProcessPoolExecutor(args.workers) as pool:
        for name in wanted:
            edges = np.linspace(0, args.cohorts, 4 * args.workers + 1).astype(int)
            parts = pool.map(run_part, [(name, args.seed, int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)])
            report[name] = summarise(name, [r for part in parts for r in part])
            for key, r in report[name].items():
                if "type1" in r:
                    print(
                        f"{name:44s} type-I error {r['type1']:.4f} (MC {r['mc_error_type1']:.4f}), FDR {r['fdr']:.4f}, power "
                        f"{r['power']:.3f}",
                        flush=True,
                    )
                else:
                    print(
                        f"{name:44s} {key:9s} {r['bias']:8.4f} {r['mc_error_bias']:7.4f} {r['sd']:7.4f} {r['mean_se']:8.4f} "
                        f"{r['coverage']:9.4f}",
                        flush=True,
                    )
    seconds = time.perf_counter() - began
    print(json.dumps({"cohorts": args.cohorts, "seconds": round(seconds, 1), "scenarios": report}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
