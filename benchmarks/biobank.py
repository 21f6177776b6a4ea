"""Associations and report at biobank size: frozen tables of 100,000 photographs with every biomarker of the dictionary, made up.

Run:

    python benchmarks/biobank.py --plan main                    # outcomes x covariate sets, everybody, all 1,284 biomarkers
    python benchmarks/biobank.py --plan whole --biomarkers 160  # subgroups and every further analysis, a part of the biomarkers
    python benchmarks/biobank.py --plan main --report           # and the report of it
    python benchmarks/biobank.py --photographs 5000             # a quick look

The three tables are written as the rooms before would leave them (two eyes a subject, some photographed twice; counts and areas that are
zero in most eyes, families that are missing together with a reason, 5 % rejected, disease in 3-9 % of eyes), then `retsam associate` and
`retsam report` run on them as commands, each a process of its own. The last line is JSON: `associate_seconds`, `associate_cpu_seconds`,
`associate_mb` (that process's peak), `models`, `estimated`, `ms_a_model` (processor time), and the same of the report. Tables are kept in
`--folder` and read again by a later run with the same size and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tqdm import tqdm

BLOCK = 5000

#: Outcomes and their share of cases among the eyes.
OUTCOMES = {"dr": 0.09, "amd": 0.05, "glaucoma": 0.04, "myopia": 0.03}

#: Everything beyond the main table, off.
NOTHING = {
    "interactions": False, "shape": False, "gradable_only": False, "other_correlation": False, "one_eye": False, "winsorise": 0,
    "rank": False, "replication": None, "discrimination": False, "measurement_error": False, "camera": False,
}  # fmt: skip


def people(photographs: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cohort and quality tables."""
    rng = np.random.default_rng(seed)
    subjects = int(photographs / 1.9)
    subject = np.repeat(np.arange(subjects), 2)[:photographs]
    eye = np.tile(["R", "L"], subjects)[: len(subject)]
    again = rng.choice(len(subject), photographs - len(subject))  # eyes photographed twice
    subject, eye = np.r_[subject, subject[again]], np.r_[eye, eye[again]]
    age, sex = rng.normal(58, 9, subjects).round(), rng.choice(["Female", "Male"], subjects)
    ids = [f"p{i:07d}" for i in range(photographs)]
    cohort = pd.DataFrame(
        {"image_id": ids, "path": [f"/photographs/{i}.jpg" for i in ids], "subject": [f"s{s:06d}" for s in subject], "eye": eye}
    )
    cohort = cohort.assign(visit=None, shard="s0000", status="ok", reason=None, detail=None, age=age[subject], sex=sex[subject])
    frailty = rng.normal(size=(subjects, len(OUTCOMES)))
    for j, (name, share) in enumerate(OUTCOMES.items()):
        liability = frailty[subject, j] + rng.normal(size=photographs) + 0.03 * (age[subject] - 58)
        cohort[name] = (liability > np.quantile(liability, 1 - share)).astype(float)
    grade = rng.choice(["gradable", "usable", "reject"], photographs, p=[0.8, 0.15, 0.05])
    quality = pd.DataFrame({"image_id": ids, "status": "ok", "reason": None, "detail": None, "grade": grade})
    for name in ("probability", "sharpness", "illumination", "contrast", "fov_coverage"):
        quality[name] = rng.beta(5, 2, photographs)
    quality["reasons"] = np.where(grade == "gradable", "", "blur")
    side = rng.choice([1444, 2048, 2196], photographs)
    quality = quality.assign(fov_kind="circle", width=side, height=side, fov_radius=side * 0.48, fov_x=side / 2, fov_y=side / 2)
    return cohort, quality.assign(content_hash=[f"h{i}" for i in range(photographs)], duplicate_of=None)


def write_biomarkers(path: Path, cohort: pd.DataFrame, quality: pd.DataFrame, names: list[str], seed: int) -> None:
    """Biomarkers with their reasons, some rows at a time; the first of each family follow the outcomes."""
    from retsam.biomarkers.registry import registry

    known = registry()
    subject = cohort["subject"].str[1:].astype(int).to_numpy()
    rng = np.random.default_rng([seed, 1])
    families = sorted({known[b].family for b in names})
    shared = rng.normal(size=(subject.max() + 1, 8)).astype(np.float32)  # what the eyes of a subject have in common
    weights = rng.normal(size=(8, len(names))) * np.sqrt(0.5 / 8)
    sick = cohort[list(OUTCOMES)].to_numpy()
    effect = rng.normal(size=(len(OUTCOMES), len(names))) * 0.2 * (rng.random(len(names)) < 0.3)
    absent = {f: rng.random(len(cohort)) < share for f, share in zip(families, np.linspace(0.02, 0.12, len(families)), strict=True)}
    rejected = (quality["grade"] == "reject").to_numpy()
    fields = [("image_id", pa.string()), ("subject", pa.string()), ("eye", pa.string()), ("status", pa.string()), ("reason", pa.string())]
    fields += [pair for b in names for pair in ((b, pa.float64()), (f"{b}__reason", pa.string()))]
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema) as writer:
        for first in tqdm(range(0, len(cohort), BLOCK), desc="biomarkers", unit="block", file=sys.stderr):
            rows = slice(first, min(first + BLOCK, len(cohort)))
            n = rows.stop - first
            latent = shared[subject[rows]] @ weights + sick[rows] @ effect + np.sqrt(0.5) * rng.normal(size=(n, len(names)))
            columns = [pa.array(cohort[c].iloc[rows], pa.string()) for c in ("image_id", "subject", "eye", "status", "reason")]
            for j, b in enumerate(names):
                x, about = latent[:, j], known[b]
                if about.family in ("lesions", "phenotypes"):  # nothing in most eyes, then a count or an amount
                    x = np.where(x > 1.2, np.exp(2 * (x - 1.2)), 0.0)
                    x = np.ceil(x) if about.unit == "count" else 0.01 * x
                elif about.unit in ("count", "grade"):
                    x = np.floor(np.exp(2 + 0.5 * x))
                gone = absent[about.family][rows] | rejected[rows]
                why = np.where(rejected[rows], "quality_reject", "structure_not_found")
                columns += [pa.array(x, mask=gone), pa.array(np.where(gone, why, None), pa.string())]
            writer.write_table(pa.table(columns, schema=schema))


def settings(plan: str, folder: Path, biomarkers: list[str] | None) -> dict:
    """Configuration of the study: ODIR's outcomes, covariate sets and subgroups."""
    association = {
        "outcomes": list(OUTCOMES),
        "covariate_sets": {
            "crude": [],
            "age_sex": ["age", "sex"],
            "full": ["age", "sex", "quality_sharpness", "quality_illumination", "quality_contrast", "quality_fov_radius"],
        },
        "robustness": {"covariate_set": "age_sex"} if plan == "whole" else {"covariate_set": "age_sex", **NOTHING},
    }
    if plan != "main":
        association["subgroups"] = {"sex": None, "age": [60]}
    if biomarkers is not None:
        association["exposures"] = {"families": [], "columns": biomarkers}
    columns = {
        "samplesheet": str(folder / "cohort.parquet"),
        "labels": {name: {"column": name} for name in OUTCOMES},
        "covariates": {"age": {}, "sex": {"type": "categorical", "levels": ["Female", "Male"]}},
    }
    return {"study": "biobank", "results": str(folder), "seed": 1, "cohort": columns, "association": association}


def command(arguments: list[str]) -> dict[str, float]:
    """Run a command of retsam in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # the peak of children is the largest of all so far: a process between this one and the command reports the command's own
    code = (
        "import resource, subprocess, sys; r = subprocess.run([sys.executable, '-m', 'retsam', *sys.argv[1:]]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu, "mb": int(done.stdout.split()[-1]) / 1024}


def main() -> int:
    """Make the tables, run the commands, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--biomarkers", type=int, default=0, help="Biomarkers in the plan, drawn evenly from the dictionary; 0 means all.")
    parser.add_argument(
        "--plan", choices=("main", "subgroups", "whole"), default="main",
        help="`main`: everybody. `subgroups`: also by sex and by age. `whole`: also all further analyses.",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="Also write the report.")
    parser.add_argument("--workers", type=int, default=1, help="Threads.")
    parser.add_argument("--folder", help="Where the tables lie (about 12 kB a photograph); a temporary folder if left out.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.photographs < 500:
        parser.error("fewer than 500 photographs have too few cases for any model")
    from retsam.biomarkers.registry import registry

    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[threads] = str(args.workers)
    every = list(registry())
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, args.biomarkers).round().astype(int))] if args.biomarkers else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stamp = json.dumps({"photographs": args.photographs, "seed": args.seed, "biomarkers": len(every)})
        if not (folder / "made.json").is_file() or (folder / "made.json").read_text() != stamp:
            cohort, quality = people(args.photographs, args.seed)
            cohort.to_parquet(folder / "cohort.parquet")
            quality.to_parquet(folder / "quality.parquet")
            write_biomarkers(folder / "biomarkers.parquet", cohort, quality, every, args.seed)
            (folder / "made.json").write_text(stamp)
        (folder / "study.yaml").write_text(yaml.safe_dump(settings(args.plan, folder, chosen)))
        tables = [f"--{t}={folder / t}.parquet" for t in ("cohort", "quality", "biomarkers")]
        out = folder / "associations.parquet"
        config = f"--config={folder / 'study.yaml'}"
        ran = {"associate": command(["associate", config, *tables, f"--out={out}", f"--workers={args.workers}", "--quiet"])}
        size = 0.0
        if args.report:
            ran["report"] = command(["report", config, f"--results={folder}", f"--out={folder / 'report.html'}"])
            size = (folder / "report.html").stat().st_size / 1e6
        found = pd.read_parquet(out, columns=["biomarker", "converged", "n"])
    models, estimated = len(found), int(found["converged"].sum())
    if estimated == 0:
        print("no model was estimated: nothing to measure", file=sys.stderr)
        return 1
    record = {
        "photographs": args.photographs, "plan": args.plan, "biomarkers": found["biomarker"].nunique(), "models": models,
        "estimated": estimated, "largest_n": int(found["n"].max()),
        "ms_a_model": round(1000 * ran["associate"]["cpu_seconds"] / models, 2),
        **{f"{name}_{key}": round(value, 1) for name, values in ran.items() for key, value in values.items()},
    }  # fmt: skip
    if size:
        record["report_html_mb"] = round(size, 2)
    for name, values in ran.items():
        print(f"{name:10s} {values['seconds']:8.1f} s {values['cpu_seconds']:8.1f} CPU-s {values['mb']:7.0f} MB")
    print(f"{models} models of {record['biomarkers']} biomarkers, {estimated} estimated, on up to {record['largest_n']} eyes")
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
