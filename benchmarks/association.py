"""Speed of the association grid against statsmodels: 150 biomarkers x 4 outcomes x 3 covariate sets on 100,000 eyes of 52,000 subjects.

Run:

    python benchmarks/association.py

The same kind of models (GEE, logit, exchangeable, robust errors) are fitted by statsmodels on a sample of the grid in the same run, one
at a time, and their coefficients and errors compared. The last line is JSON: ``ratio_statsmodels`` (time a model there over time a
model here, wall clock, all of this machine's cores for both), ``seconds`` (whole grid), ``cpu_seconds`` and ``ratio_cpu`` (the same in
processor time, which a busy machine stretches less), ``peak_mb`` (peak resident memory of the grid, before statsmodels runs).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
import pandas as pd


def cohort(eyes: int, subjects: int, biomarkers: int, outcomes: int, seed: int):
    """Eyes of subjects with correlated biomarkers, 2-20 % cases and a few missing values (a family of biomarkers shares its own)."""
    rng = np.random.default_rng(seed)
    subject = np.sort(np.concatenate([np.arange(subjects), rng.choice(subjects, eyes - subjects, replace=False)]))
    frame = pd.DataFrame(
        {"subject": subject, "age": rng.normal(60, 9, subjects)[subject], "sex": rng.integers(0, 2, subjects)[subject].astype(float)}
    )
    frame["bmi"] = rng.normal(27, 4, subjects)[subject]
    frame["smoker"] = (rng.random(subjects) < 0.2).astype(float)[subject]
    frame["site"] = rng.integers(0, 4, subjects)[subject].astype(str)
    values = np.empty((eyes, biomarkers))
    block = 10
    for first in range(0, biomarkers, block):
        width = min(block, biomarkers - first)
        common = rng.normal(size=subjects)[subject]
        for j in range(first, first + width):
            values[:, j] = 0.5 * common + 0.6 * rng.normal(size=subjects)[subject] + 0.6 * rng.normal(size=eyes)
        values[rng.random(eyes) < rng.uniform(0, 0.1), first : first + width] = np.nan
    frailty = rng.normal(size=subjects)[subject]
    prevalence = np.linspace(-3.5, -1.2, outcomes)
    for o in range(outcomes):
        eta = (
            prevalence[o] + 0.3 * np.nan_to_num(values[:, 10 * o % biomarkers]) + 0.03 * (frame["age"] - 60) + 0.2 * frame["sex"] + frailty
        )
        frame[f"y{o}"] = (rng.random(eyes) < 1 / (1 + np.exp(-eta))).astype(float)
    return frame, values


def main() -> int:
    """Time both, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=100_000)
    parser.add_argument("--subjects", type=int, default=52_000)
    parser.add_argument("--biomarkers", type=int, default=150)
    parser.add_argument("--outcomes", type=int, default=4)
    parser.add_argument("--reference-models", type=int, default=4, help="Models that statsmodels fits.")
    parser.add_argument("--workers", type=int, default=2, help="Threads of the grid.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from retsam.association.config import AssociationConfig
    from retsam.association.grid import make_exposures, run_grid
    from retsam.association.problems import Problems
    from retsam.association.sample import Sample

    frame, values = cohort(args.eyes, args.subjects, args.biomarkers, args.outcomes, args.seed)
    names = [f"b{j}" for j in range(args.biomarkers)]
    frame["subject_key"] = frame["subject"].astype(str)
    frame["cluster"] = frame["subject"]
    sets = {"crude": (), "age_sex": ("age", "sex"), "full": ("age", "sex", "bmi", "smoker", "site")}
    config = AssociationConfig(
        outcomes=[f"y{o}" for o in range(args.outcomes)],
        covariate_sets=sets,
        models={"correlation": "exchangeable"},  # the slower of the two, and the one that statsmodels is compared under
        workers=args.workers,
    )

    began, began_cpu = time.perf_counter(), time.process_time()
    sample = Sample(frame, values, pd.DataFrame(index=frame.index), names)
    problems = Problems(sample, config)
    exposures = make_exposures(names, values, {}, {}, config)
    table = run_grid(list(problems.all()), exposures, config.models, workers=args.workers)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fitted = int(table["converged"].sum())
    print(
        f"grid: {len(table)} models, {fitted} estimated, {seconds:.1f} s, {1000 * seconds / len(table):.1f} ms a model "
        f"({cpu_seconds:.1f} s of processor time), peak {peak:.0f} MB"
    )
    if fitted == 0:
        print("no model was estimated: nothing to measure", file=sys.stderr)
        return 1

    import statsmodels.api as sm

    rng = np.random.default_rng(args.seed + 1)
    picked = rng.choice(len(table), min(args.reference_models, len(table)), replace=False)
    spent, spent_cpu, worst_beta, worst_se = [], [], 0.0, 0.0
    print(f"{'model':32s} {'statsmodels s':>13s} {'estimate':>10s} {'relative difference':>20s}")
    for i in picked:
        row = table.iloc[i]
        problem = next(p for p in problems.all() if (p.coded.outcome.name, p.covariate_set) == (row["outcome"], row["covariate_set"]))
        x = values[:, int(row["biomarker"][1:])]
        rows = problem.rows[np.isfinite(x[problem.rows])]
        unit = (x[rows] - x[rows].mean()) / x[rows].std(ddof=1)
        design = np.column_stack([unit, problem.covariates.matrix[rows]])
        start, start_cpu = time.perf_counter(), time.process_time()
        # where the grid took working independence (and says so) the estimates are compared under that
        structure = sm.cov_struct.Independence() if "independence" in str(row["note"]).split(";") else sm.cov_struct.Exchangeable()
        model = sm.GEE(problem.coded.y[rows], design, sample.cluster[rows], family=sm.families.Binomial(), cov_struct=structure)
        fit = model.fit(maxiter=100, ctol=1e-7, cov_type="bias_reduced" if config.models.small_sample == "mancl_derouen" else "robust")
        spent.append(time.perf_counter() - start)
        spent_cpu.append(time.process_time() - start_cpu)
        difference = abs(row["estimate"] / fit.params[0] - 1)
        worst_beta = max(worst_beta, difference)
        # The room's error is never less than that of working independence (untimed here). The small-sample correction moves it by the order
        # of p / clusters; the uncorrected one is compared in the tests to 1e-6.
        alone = sm.GEE(
            problem.coded.y[rows], design, sample.cluster[rows], family=sm.families.Binomial(), cov_struct=sm.cov_struct.Independence()
        )
        worst_se = max(worst_se, abs(row["se"] / max(fit.bse[0], alone.fit(maxiter=100).bse[0]) - 1))
        print(
            f"{row['outcome'] + ' ~ ' + row['biomarker'] + ' | ' + row['covariate_set']:32s} {spent[-1]:13.2f} "
            f"{row['estimate']:10.4f} {difference:20.1e}"
        )
    ratio = float(np.mean(spent)) / (seconds / len(table))
    print(f"statsmodels: {np.mean(spent):.2f} s a model; the grid is {ratio:.0f} times faster")
    print(
        json.dumps(
            {
                "ratio_statsmodels": round(ratio, 1),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds, 2),
                "ratio_cpu": round(float(np.mean(spent_cpu)) / (cpu_seconds / len(table)), 1),
                "peak_mb": round(peak, 1),
                "models": len(table),
                "estimated": fitted,
                "max_relative_difference_estimate": worst_beta,
                "max_relative_difference_se": worst_se,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
