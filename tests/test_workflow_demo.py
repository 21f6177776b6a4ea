"""The whole study of a tiny rendered cohort: killed on the way, resumed, and what it leaves behind held to the contract."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from workflow_study import ROOT, planned, snakemake

from retsam.masks.store import open_stores
from retsam.provenance import weights_file

SUBJECTS, BAD, SHARD = 6, 6, 6

#: Columns that other people's scripts read.
COLUMNS = {
    "cohort.parquet": "image_id path subject eye visit shard status reason detail dr amd glaucoma myopia age sex",
    "quality.parquet": "image_id status reason detail grade probability reasons fov_kind fov_x fov_y fov_radius fov_coverage width height "
    "sharpness illumination contrast content_hash duplicate_of",
    "biomarkers.parquet": "image_id subject eye status reason scale_source um_per_px",
    "associations.parquet": "outcome biomarker covariate_set subgroup model n n_cases n_clusters estimate se ci_low ci_high p neg_log10_p "
    "q family converged note",
}


def test_make_demo_shows_the_log_of_a_job_that_failed(tmp_path):
    """With the options that the Makefile gives Snakemake."""
    options = re.search(r"/snakemake --cores \$\(CORES\)(.*)", (ROOT / "Makefile").read_text())[1].split()
    (tmp_path / "Snakefile").write_text("rule a:\n    output: 'a'\n    log: 'a.log'\n    shell: 'echo the reason why > {log}; false'\n")
    done = snakemake(
        *options, "--workflow-profile", str(ROOT / "profiles" / "default"), cwd=tmp_path, snakefile=tmp_path / "Snakefile", check=False
    )
    assert done.returncode != 0 and "\nthe reason why\n" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Configuration of a study that was killed after its first store and then resumed."""
    weights = weights_file()
    if not weights.is_file():
        pytest.skip(f"no shipped weights at {weights}")
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [sys.executable, "-m", "retsam", "demo", "--out", str(folder / "cohort"), "--subjects", str(SUBJECTS), "--size", "512", "--quiet"],
        check=True,
        cwd=ROOT,
    )
    settings = yaml.safe_load((folder / "cohort" / "config.yaml").read_text())
    settings["cohort"]["samplesheet"] = str(folder / "cohort" / "samplesheet.csv")
    settings["cohort"]["shard_size"] = SHARD
    settings["results"] = str(folder / "results")
    settings["segmentation"] = {"device": "cpu"}
    settings["association"]["outcomes"] = ["dr", "glaucoma", "amd", "myopia"]
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    return config


@pytest.fixture(scope="module")
def resumed(study) -> tuple[Path, dict[str, float]]:
    """The finished study, and the time stamps of the stores that stood when it was killed."""
    folder, results = study.parent, study.parent / "results"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--configfile", str(study)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "killed.log", "w") as log:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 600
        # Snakemake has taken note of a store once it has put its time stamp into it.
        while not list(results.glob("masks/*.zarr/.snakemake_timestamp")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert run.poll() is None, (folder / "killed.log").read_text()
        time.sleep(1.0)  # into the next shard
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    stores = {path.parent.name: path.stat().st_mtime for path in results.glob("masks/*.zarr/zarr.json")}
    assert stores and not (results / "report.html").exists()
    for name in stores:
        assert json.loads((results / "masks" / name / "zarr.json").read_text())["attributes"]["complete"] is True
    assert any((folder / ".snakemake" / "locks").iterdir()), "the killed run should have left its lock"
    done = snakemake("--configfile", str(study), cwd=folder)  # without --unlock
    assert "lock of a run that was killed" in done.stderr
    (folder / "resumed.log").write_text(done.stdout + done.stderr)
    return study, stores


@pytest.fixture(scope="module")
def results(resumed) -> Path:
    return resumed[0].parent / "results"


def test_a_killed_run_resumes_without_computing_finished_shards_again(resumed):
    config, before = resumed
    masks = config.parent / "results" / "masks"
    names = sorted(path.name for path in masks.iterdir())
    assert names == [f"s{i:04d}.zarr" for i in range((2 * SUBJECTS + BAD) // SHARD)], "nothing but whole stores is left"
    kept = [name for name, stamp in before.items() if (masks / name / "zarr.json").stat().st_mtime == stamp]
    # The job that was running when the lights went out may have renamed its store before Snakemake took note of it.
    assert len(kept) >= max(1, len(before) - 1)


def test_a_finished_study_has_nothing_to_do(resumed):
    assert planned(resumed[0]) == {}


def test_results_follow_the_contract(results):
    files = "cohort.parquet quality.parquet biomarkers.parquet biomarkers.csv associations.parquet associations.csv associations.json "
    for name in (files + "report.html provenance.json figures tables logs benchmarks masks configs").split():
        assert (results / name).exists(), name
    for name, columns in COLUMNS.items():
        table = pd.read_parquet(results / name)
        assert not set(columns.split()) - set(table.columns), f"{name} lacks {sorted(set(columns.split()) - set(table.columns))}"
    for name in ("biomarkers", "associations"):
        rows = len(pd.read_parquet(results / f"{name}.parquet"))
        assert len(pd.read_csv(results / f"{name}.csv", low_memory=False)) == rows
    biomarkers = pd.read_parquet(results / "biomarkers.parquet")
    named = [c.removesuffix("__reason") for c in biomarkers.columns if c.endswith("__reason")]
    assert len(named) > 30
    for name in named:
        empty = biomarkers[name].isna()
        assert biomarkers.loc[empty, f"{name}__reason"].notna().all(), f"{name} is empty without a reason"
        assert biomarkers.loc[~empty, f"{name}__reason"].isna().all(), f"{name} is measured and has a reason"


def test_every_photograph_is_accounted_for(results):
    cohort = pd.read_parquet(results / "cohort.parquet")
    quality = pd.read_parquet(results / "quality.parquet")
    assert len(cohort) == 2 * SUBJECTS + BAD
    assert list(quality["image_id"]) == list(cohort["image_id"])
    assert quality.loc[quality["status"] == "failed", "reason"].notna().all()
    assert (quality["status"] == "failed").sum() >= 2  # unreadable, truncated
    assert quality["duplicate_of"].notna().sum() >= 1
    stores = sorted((results / "masks").glob("*.zarr"))
    with open_stores(stores) as masks:
        assert sorted(map(str, masks["image_id"].values)) == sorted(cohort["image_id"])
    biomarkers = pd.read_parquet(results / "biomarkers.parquet")
    assert not set(biomarkers["image_id"]) - set(cohort["image_id"])


def test_provenance_says_what_made_the_results(results):
    record = json.loads((results / "provenance.json").read_text())
    assert record["run_id"]
    assert len(record["config"]["sha256"]) == 64 and record["config"]["settings"]["study"] == "demo"
    assert len(record["weights"]["sha256"]) == 64
    assert record["packages"]["torch"] and record["retsam"]["version"]
    stages = record["stages"]
    assert {"ingest", "metrics", "grade", "segment", "measure", "gather", "associate"} <= set(stages)
    assert stages["segment"]["jobs"] == (2 * SUBJECTS + BAD) // SHARD and stages["segment"]["seconds"] > 0
    assert any(c["command"].startswith("retsam segment") for c in record["commands"])
    assert {"cohort.parquet", "associations.parquet"} <= set(record["tables"])


def test_the_report_is_there_and_whole(results):
    text = (results / "report.html").read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html") and text.rstrip().endswith("</html>")


def test_snakemakes_own_report_holds_the_results(resumed):
    target = resumed[0].parent / "snakemake-report.zip"
    snakemake("--report", str(target), "--configfile", str(resumed[0]), cwd=resumed[0].parent)
    assert target.stat().st_size > 10_000
