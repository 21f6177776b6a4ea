"""A study on disk for tests of the workflow: a samplesheet of empty photographs, a configuration, and Snakemake to plan it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def write_study(folder: Path, images: int = 6, shard_size: int = 2) -> Path:
    """Write photographs (a few bytes each: nothing here opens them), samplesheet, weights and configuration; returns the latter."""
    (folder / "photographs").mkdir(parents=True)
    rows = ["image,subject,eye,age,sex,dr"]
    for i in range(images):
        (folder / "photographs" / f"{i}.jpg").write_bytes(bytes([i]) * 50)
        rows.append(f"photographs/{i}.jpg,p{i // 2},{'RL'[i % 2]},{50 + i},{'mf'[i // 2 % 2]},{i % 2}")
    (folder / "samplesheet.csv").write_text("\n".join(rows) + "\n")
    (folder / "w.safetensors").write_bytes(b"weights")
    (folder / "w.json").write_text("{}")
    settings = {
        "study": "tiny",
        "results": str(folder / "results"),
        "cohort": {
            "samplesheet": str(folder / "samplesheet.csv"),
            "columns": {"image": "image", "subject": "subject", "eye": "eye"},
            "labels": {"dr": {"type": "binary"}},
            "covariates": {"age": {}, "sex": {}},
            "shard_size": shard_size,
        },
        "segmentation": {"weights": str(folder / "w.safetensors")},
        "association": {"outcomes": ["dr"]},
    }
    return write_config(folder / "config.yaml", settings)


def write_config(path: Path, settings: dict) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def change(path: Path, **values) -> None:
    """Set dotted keys (double underscores for dots) of a YAML file."""
    settings = yaml.safe_load(path.read_text())
    for key, value in values.items():
        section = settings
        *parents, last = key.split("__")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    write_config(path, settings)


def snakemake(*arguments: str, cwd: Path, check: bool = True, snakefile: Path = ROOT / "Snakefile", env: dict | None = None):
    """Run Snakemake in its own folder; returns the finished process."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(cwd), "--cores", "2", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RETSAM_") or k == "RETSAM_DATA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**environment, **(env or {})}, timeout=900, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def planned(config: Path, *arguments: str, **options) -> dict[str, int]:
    """Jobs that a dry run would do: rule to number of jobs, without rule `all`."""
    done = snakemake(*arguments, "--configfile", str(config), "-n", "--quiet", "rules", cwd=config.parent, **options)
    return job_table(done.stdout + done.stderr)


def job_table(text: str) -> dict[str, int]:
    """Counts of Snakemake's table `job count`."""
    jobs = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(\w+)\s+(\d+)\s*", line):
            jobs[match.group(1)] = int(match.group(2))
    return {name: count for name, count in jobs.items() if name not in ("all", "total", "job")}


def finish(config: Path) -> None:
    """Make the study look finished: every output there (as it is, where it is), and recorded as made with these settings."""
    done = snakemake("--configfile", str(config), "-n", "--summary", cwd=config.parent)
    folder = config.parent
    for line in done.stdout.splitlines()[1:]:
        name = line.split("\t")[0]
        if not name:
            continue
        path = folder / name
        if path.exists():
            continue
        if path.suffix == ".zarr":
            path.mkdir(parents=True, exist_ok=True)
            (path / "zarr.json").write_text("{}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made by a test\n")
    snakemake("--configfile", str(config), "--touch", "--forceall", cwd=folder)
