"""What an edit recomputes: dry runs of a study that looks finished. And what stops a study before any work."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from workflow_study import ROOT, change, finish, planned, snakemake, write_study

from retsam.config import parse_config
from retsam.provenance import check_pen
from retsam.segmentation.config import SegmentationConfig
from retsam.workflow import StudyPlan

AFTER_ASSOCIATION = {"associate": 1, "provenance": 1, "report": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Configuration of a finished study of 6 photographs in 3 shards."""
    config = write_study(tmp_path_factory.mktemp("study") / "a")
    finish(config)
    return config


@contextmanager
def edited(path: Path):
    """Undo whatever the block does to a file."""
    before = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(before)


def without_settings(jobs: dict[str, int]) -> dict[str, int]:
    """Jobs that do work; writing a stage's settings file is none."""
    return {rule: count for rule, count in jobs.items() if rule != "settings"}


def test_a_finished_study_has_nothing_to_do(study):
    assert planned(study) == {}


def test_editing_labels_recomputes_ingest_association_and_report_only(study):
    with edited(study.parent / "samplesheet.csv") as sheet:
        text = sheet.read_text()
        assert "photographs/0.jpg,p0,R,50,m,0\n" in text
        sheet.write_text(text.replace("photographs/0.jpg,p0,R,50,m,0\n", "photographs/0.jpg,p0,R,50,m,1\n"))
        assert planned(study) == {"ingest": 1, **AFTER_ASSOCIATION}


def test_writing_the_samplesheet_again_unchanged_recomputes_nothing(study):
    sheet = study.parent / "samplesheet.csv"
    sheet.write_text(sheet.read_text())
    assert planned(study) == {}


def test_editing_a_threshold_of_quality_recomputes_what_depends_on_it(study):
    with edited(study):
        change(study, quality__reject_above=0.4)
        assert without_settings(planned(study)) == {"grade": 1, "gather": 1, **AFTER_ASSOCIATION}


def test_editing_segmentation_recomputes_from_segmentation_on(study):
    with edited(study):
        change(study, segmentation__flips=True)
        assert without_settings(planned(study)) == {"segment": 3, "measure": 3, "gather": 1, **AFTER_ASSOCIATION}


def test_other_weights_recompute_from_segmentation_on(study):
    with edited(study.parent / "w.safetensors") as weights:
        weights.write_bytes(b"better ones")
        assert without_settings(planned(study)) == {"segment": 3, "measure": 3, "gather": 1, **AFTER_ASSOCIATION}


def test_two_edits_at_once_recompute_what_both_touch(study):
    """Snakemake does not ask a job about itself once something above it runs, so each cause must travel by files."""
    with edited(study), edited(study.parent / "samplesheet.csv") as sheet:
        change(study, biomarkers__um_per_dd=1700.0)
        sheet.write_text(sheet.read_text().replace(",50,m,0\n", ",51,m,0\n"))
        assert without_settings(planned(study)) == {"ingest": 1, "measure": 3, "gather": 1, **AFTER_ASSOCIATION}


def test_how_it_runs_changes_nothing(study):
    with edited(study):
        change(study, segmentation__device="cpu", segmentation__batch_size=4, biomarkers__workers=2, association__workers=1)
        change(study, segmentation__threads=2, biomarkers__scheduler="threads")
        assert planned(study) == {}


def test_threads_of_a_job_are_what_the_study_says(monkeypatch):
    monkeypatch.setattr("retsam.workflow.shutil.which", lambda name: None)

    def threads(**sections) -> tuple[int, int, int]:
        plan = StudyPlan(parse_config({"cohort": {"samplesheet": "s.csv"}, **sections}))
        return plan.segment_threads, plan.measure_threads, plan.associate_threads

    assert threads() == (1, 1, 2)
    assert threads(segmentation={"threads": 3}, biomarkers={"workers": 4}, association={"workers": 1}) == (3, 4, 1)
    assert threads(segmentation={"device": "cuda", "threads": 3, "workers": 5})[0] == 8
    assert threads(biomarkers={"workers": 4, "scheduler": "tcp://host:8786"})[1] == 1


def test_jobs_use_the_threads_that_snakemake_reserved(study):
    with edited(study):
        change(study, segmentation__threads=2, biomarkers__workers=2, association__workers=1)
        done = snakemake("--configfile", str(study), "-n", "-p", "--forcerun", "measure", "segment", cwd=study.parent)
        more = snakemake("--configfile", str(study), "-n", "-p", "--forcerun", "measure", "--set-threads", "measure=1", cwd=study.parent)
    assert "--workers 2 --out" in done.stdout and "--workers 1 --out" in done.stdout
    assert "--workers 2 --out" not in more.stdout


def test_a_photograph_added_at_the_end_recomputes_its_shard_and_the_gathers(study):
    extra = study.parent / "photographs" / "6.jpg"
    extra.write_bytes(b"new" * 9)
    with edited(study.parent / "samplesheet.csv") as sheet:
        sheet.write_text(sheet.read_text() + "photographs/6.jpg,p3,R,60,f,1\n")
        jobs = without_settings(planned(study))
    assert jobs == {
        **{"ingest": 1, "index": 1, "shard": 1, "metrics": 1, "grade": 1, "segment": 1, "measure": 1, "gather": 1},
        **AFTER_ASSOCIATION,
    }


def test_associations_are_computed_from_frozen_tables_alone(study, tmp_path):
    """No samplesheet, no photographs, no masks: three tables."""
    for name in ("cohort.parquet", "quality.parquet", "biomarkers.parquet"):
        (tmp_path / "results").mkdir(exist_ok=True)
        shutil.copy(study.parent / "results" / name, tmp_path / "results" / name)
    settings = yaml.safe_load(study.read_text())
    settings["results"] = str(tmp_path / "results")
    settings["cohort"]["samplesheet"] = "gone.csv"
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**settings, "frozen": True}))
    assert planned(config, "associate") == {"settings": 1, "associate": 1}
    assert without_settings(planned(config)) == AFTER_ASSOCIATION

    config.write_text(yaml.safe_dump(settings))
    done = snakemake("-n", "--configfile", str(config), cwd=tmp_path, check=False)
    assert done.returncode != 0 and "add `--config frozen=true` to this command" in done.stdout + done.stderr
    done = snakemake("-n", "--configfile", str(config), "--config", "frozen=true", cwd=tmp_path)
    assert "localrules" not in done.stdout + done.stderr
    (tmp_path / "results" / "quality.parquet").unlink()
    config.write_text(yaml.safe_dump({**settings, "frozen": True}))
    done = snakemake("-n", "--configfile", str(config), cwd=tmp_path, check=False)
    assert done.returncode != 0 and "quality.parquet is missing" in done.stdout + done.stderr


def test_lost_masks_are_not_made_again_for_associations(study):
    shutil.rmtree(study.parent / "results" / "masks" / "s0001.zarr")
    try:
        assert planned(study) == {}
    finally:
        (study.parent / "results" / "masks" / "s0001.zarr").mkdir()


def test_faults_stop_the_workflow_before_any_work_and_are_all_told(tmp_path):
    config = write_study(tmp_path / "b")
    sheet = config.parent / "samplesheet.csv"
    sheet.write_text(sheet.read_text().replace("photographs/1.jpg", "photographs/none.jpg").replace(",53,", ",530,"))
    done = snakemake("--configfile", str(config), cwd=config.parent, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "2 faults" in said and "none.jpg" in said and "row 5, column 'age'" in said
    assert not (config.parent / "results").exists()

    change(config, quality__reject_abov=0.4, segmentation__devise="cpu")
    said = (done := snakemake("--configfile", str(config), cwd=config.parent, check=False)).stdout + done.stderr
    assert done.returncode != 0
    assert "nearest: reject_above" in said and "nearest: device" in said


def test_a_pen_that_the_weights_do_not_know_is_refused_before_any_work(tmp_path):
    assert check_pen(SegmentationConfig(pen="drive")) is None and check_pen(SegmentationConfig()) is None
    with pytest.raises(ValueError, match="segmentation.pen is 'driwe'; retsam-base.safetensors knows .*drive"):
        check_pen(SegmentationConfig(pen="driwe"))
    (tmp_path / "w.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        check_pen(SegmentationConfig(weights=tmp_path / "w.safetensors", pen="drive"))


def test_a_study_named_on_the_command_line_is_not_mixed_with_the_default_one(study):
    done = snakemake("-n", "--configfile", str(study), cwd=ROOT, check=False)
    assert "demo" not in (done.stdout + done.stderr).replace(str(ROOT), "")


def test_the_workflow_is_a_module_for_others(tmp_path):
    config = write_study(tmp_path / "c")
    snakefile = config.parent / "Snakefile"
    snakefile.write_text(
        f"""configfile: "other.yaml"

module retsam:
    snakefile: "{ROOT / "Snakefile"}"
    config: config["eyes"]

use rule * from retsam as retsam_*

rule mine:
    default_target: True
    input: "{config.parent}/results/associations.parquet"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}"
"""
    )
    (config.parent / "other.yaml").write_text(yaml.safe_dump({"eyes": yaml.safe_load(config.read_text())}))
    done = snakemake("-n", "--quiet", "rules", cwd=config.parent, snakefile=snakefile)
    from workflow_study import job_table

    jobs = job_table(done.stdout + done.stderr)
    assert jobs["mine"] == 1 and jobs["retsam_associate"] == 1 and jobs["retsam_segment"] == 3


def test_rules_state_what_a_cluster_must_know(study):
    """Threads, memory, run time and GPUs on every rule, a log, a benchmark, a message."""
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in path.read_text().split("\nrule ")[1:]:
            for word in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "gpu=", "conda:", "message:"):
                assert word in rule, f"{path.name}: rule {rule.split(':')[0]} states no {word}"


def test_the_workflow_passes_snakemakes_lint():
    done = snakemake("--lint", cwd=ROOT)
    assert "Congratulations" in done.stdout + done.stderr
