"""Which correction of the sandwich variance, and which degrees of freedom, cover 95 % when subjects or cases are few.

Run:

    python benchmarks/corrections.py                  # 4,000 cohorts a scenario, about 40 s of one processor
    python benchmarks/corrections.py --cohorts 500    # a quick look

Working independence on the cohorts of ``simulation.py``. Variances: the plain sandwich, times K/(K-p), Kauermann & Carroll, Mancl &
DeRouen, the mean of these two, and Morel, Bokossa & Neerchal (2003, Biom J 45:395). Degrees of freedom of t: Pan & Wall's (at most K-p),
K-p, and the normal distribution. Prints coverage in percent; the last line is JSON with, for each pair, the least and the largest.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from cohorts import BETA, Eyes
from scipy.special import stdtrit

SCENARIOS = {
    "binary, 60 subjects": {"kind": "binary", "subjects": 60},
    "binary, 60 subjects, no effect": {"kind": "binary", "subjects": 60, "beta": 0.0},
    "binary, 300 subjects": {"kind": "binary", "subjects": 300},
    "count, 60 subjects": {"kind": "count", "subjects": 60},
    "count, 60 subjects, no effect": {"kind": "count", "subjects": 60, "beta": 0.0},
    "continuous, 60 subjects": {"kind": "continuous", "subjects": 60},
    "binary, 20 cases of 300": {"kind": "binary", "subjects": 300, "share": 0.07},
    "binary, 20 cases of 300, no effect": {"kind": "binary", "subjects": 300, "share": 0.07, "beta": 0.0},
}
FAMILY = {"binary": "logit", "continuous": "linear", "count": "poisson"}


def cohort(rng, kind, subjects, beta=BETA, share=None):
    """Exposure, covariates, outcome and clusters; ``share``: a disease of the subject, the eyes alike in 97 %."""
    from retsam.association.fit import cluster_starts

    eyes = Eyes.draw(rng, subjects)
    if share is None:
        x = eyes.biomarker(rng)
        y = eyes.outcome(rng, kind, x, beta)[0]
    else:
        y = (rng.random(subjects) < share).astype(float)[eyes.cluster]
        other = rng.random(len(y)) > 0.97
        other[np.unique(eyes.cluster, return_index=True)[1]] = False
        y = np.where(other, rng.random(len(y)) < share, y).astype(float)
        x = beta * y + eyes.biomarker(rng, age=0.0)
    z = np.column_stack([np.ones(len(y)), *((c - c.mean()) / c.std() for c in (eyes.age, eyes.sex))])
    return x - x.mean(), z, y, cluster_starts(eyes.cluster)


def intervals(x, z, y, starts, family):
    """Estimate, variances by correction, degrees of freedom by method; None where a fit has no answer."""
    from retsam.association.gee import fit_gee

    fits = {m: fit_gee(x, z, y, starts, family, "independence", m) for m in ("none", "df", "kauermann_carroll", "mancl_derouen")}
    if any(f.code for f in fits.values()):
        return None
    plain, n = fits["none"], len(y)
    clusters, p = plain.n_clusters, len(plain.beta)
    variance = {name: f.cov[0, 0] for name, f in fits.items()}
    variance["mean of KC and MD"] = (variance["kauermann_carroll"] + variance["mancl_derouen"]) / 2
    excess = 1.0 if family == "linear" else max(1.0, float(np.trace(np.linalg.solve(plain.naive, plain.cov))) / p)
    size = (n - 1) / (n - p) * clusters / (clusters - 1)
    variance["morel_bokossa_neerchal"] = size * variance["none"] + min(0.5, p / (clusters - p)) * excess * plain.naive[0, 0]
    steady = min(float(fits["kauermann_carroll"].steady[0]), clusters - p)
    return plain.beta[0], variance, {"pan_wall": steady, "clusters": clusters - p, "normal": 1e9}


def main() -> int:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    covered: dict[tuple[str, str], dict[str, float]] = {}
    for place, (name, settings) in enumerate(SCENARIOS.items()):
        inside: dict[tuple[str, str], list[bool]] = {}
        truth = settings.get("beta", BETA)
        for i in range(args.cohorts):
            x, z, y, starts = cohort(np.random.default_rng([args.seed, 100 + place, i]), **settings)
            if settings["kind"] == "binary" and min(y.sum(), len(y) - y.sum()) < 10:
                continue  # the room gives no estimate there
            found = intervals(x, z, y, starts, FAMILY[settings["kind"]])
            if found is None:
                continue
            for variance, v in found[1].items():
                for freedom, df in found[2].items():
                    hit = abs(found[0] - truth) <= np.sqrt(v) * stdtrit(df, 0.975)
                    inside.setdefault((variance, freedom), []).append(bool(hit))
        for key, hits in inside.items():
            covered.setdefault(key, {})[name] = 100 * float(np.mean(hits))
        print(f"{name}: {len(next(iter(inside.values())))} cohorts", flush=True)
    print("| variance | degrees of freedom | " + " | ".join(SCENARIOS) + " |")
    print("|---|---|" + "---|" * len(SCENARIOS))
    for (variance, freedom), by_name in covered.items():
        print(f"| {variance} | {freedom} | " + " | ".join(f"{by_name[name]:.1f}" for name in SCENARIOS) + " |")
    print(json.dumps({f"{v}, {d}": [round(min(c.values()), 2), round(max(c.values()), 2)] for (v, d), c in covered.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
