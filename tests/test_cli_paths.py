"""Paths and numbers that cannot be right are answered with a message, before any work and without a traceback."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from workflow_study import write_study

from retsam.cli import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study's files, right ones and wrong ones."""
    root = tmp_path_factory.mktemp("paths")
    write_study(root / "study", images=4)
    pd.DataFrame({"image_id": ["a"], "subject": ["1"], "eye": ["R"], "status": ["ok"]}).to_parquet(root / "cohort.parquet")
    pd.DataFrame({"image_id": ["a"], "status": ["ok"], "grade": ["usable"]}).to_parquet(root / "quality.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(root / "other.parquet")
    (root / "patients.csv").write_text("image,subject\na.jpg,1\n")
    (root / "cut.parquet").write_bytes((root / "cohort.parquet").read_bytes()[:-20])
    (root / "empty.parquet").write_bytes(b"")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(root / "vessel.png")
    (root / "masks.csv").write_text("image_id,vessel\na,vessel.png\n")
    return root


CONFIG = "--config {f}/study/config.yaml"
GATHER = f"measure gather {CONFIG} --cohort {{f}}/cohort.parquet --quality {{f}}/quality.parquet --parts {{f}}/quality.parquet"
GRADE = f"quality grade {CONFIG} --metrics {{f}}/quality.parquet --out {{f}}/new/q.parquet"
ASSOCIATE = f"associate {CONFIG} --quality {{f}}/quality.parquet --biomarkers {{f}}/quality.parquet"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"ingest {CONFIG} --out {{f}}/c.txt", "expected a name that ends in .parquet"),
        (f"ingest {CONFIG} --out {{f}}/patients.csv/c.parquet", "patients.csv is no folder"),
        (f"{GATHER} --out {{f}}/b.txt", "expected a name that ends in .parquet"),
        (f"{GATHER} --out {{f}}/b", "expected a name that ends in .parquet"),
        ("measure gather --cohort {f}/patients.csv --quality {f}/quality.parquet --parts {f}/quality.parquet --out {f}/b.parquet",
         "expected a Parquet table as `retsam ingest` writes it"),
        ("measure gather --cohort {f}/cohort.parquet --quality {f}/other.parquet --parts {f}/quality.parquet --out {f}/b.parquet",
         "found none of its columns image_id, grade"),
        (f"{GRADE} --cohort {{f}}/patients.csv", "expected a Parquet table as `retsam ingest` writes it"),
        (f"{GRADE} --cohort {{f}}/cut.parquet", "could not read it"),
        (f"{GRADE} --cohort {{f}}/empty.parquet", "could not read it"),
        (f"{GRADE} --cohort {{f}}/other.parquet", "found none of its columns image_id, subject, eye"),
        (f"quality grade {CONFIG} --cohort {{f}}/cohort.parquet --metrics {{f}} --out {{f}}/q.parquet", "retsam quality metrics"),
        (f"{ASSOCIATE} --cohort {{f}}/patients.csv --out {{f}}/a.parquet", "expected a Parquet table as `retsam ingest` writes it"),
        (f"{ASSOCIATE} --cohort {{f}}/cohort.parquet --out {{f}}/a.csv", "expected a name that ends in .parquet"),
        (f"{ASSOCIATE} --cohort {{f}}/cohort.parquet --out {{f}}/a.parquet --workers -1", "-1 is not in the range"),
        ("meta --study a={f}/patients.csv --study b={f}/quality.parquet --out {f}/m.parquet", "as `retsam associate` writes it"),
        ("meta --study a={f}/quality.parquet --study b={f}/quality.parquet --out {f}/m.parquet --level nan", "finite"),
        (f"provenance {CONFIG} --results {{f}} --out {{f}}/p.txt", "expected a name that ends in .json"),
        ("measure calibrate --disc-diameter-px nan", "finite"),
        ("measure calibrate --disc-diameter-px inf", "finite"),
        ("measure calibrate --fov-diameter-px 1000 --field-degrees nan", "finite"),
        ("measure calibrate --disc-diameter-px 210 --field-degrees 30", "--field-degrees: not used with --disc-diameter-px"),
        ("measure calibrate --fov-diameter-px 1430 --disc-diameter-um 1700", "--disc-diameter-um: not used with --fov-diameter-px"),
        ("measure --masks {f}/masks.csv --out {f}/m.csv --scheduler tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
        ("measure --masks {f}/masks.csv --out {f}/m.csv --scheduler tcp://host:port", "scheduler"),
    ],
)  # fmt: skip
def test_a_wrong_path_or_number_is_told_without_a_traceback(folder, command, message):
    before = sorted(folder.rglob("*"))
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = CliRunner().invoke(cli, command.format(f=folder).split())
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit), (done.output, done.exception)
    assert message in " ".join(done.output.split()), done.output
    assert sorted(folder.rglob("*")) == before, "nothing is left half done"


def test_folders_of_outputs_are_made(folder):
    out = folder / "deep" / "er" / "provenance.json"
    done = CliRunner().invoke(cli, f"provenance {CONFIG.format(f=folder)} --results {folder}/study --out {out}".split())
    assert done.exit_code == 0, done.output
    assert out.is_file()


def test_calibration_by_what_was_measured():
    assert CliRunner().invoke(cli, "measure calibrate --disc-diameter-px 180 --disc-diameter-um 1800".split()).output == "10.0000\n"
    assert CliRunner().invoke(cli, "measure calibrate --fov-diameter-px 1430 --field-degrees 45".split()).exit_code == 0
