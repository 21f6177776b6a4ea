"""Where a study's results come from: versions, settings, weights, commands, times, in one JSON file."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from safetensors import SafetensorError, safe_open

from retsam._version import __version__
from retsam.cli_types import Output

#: Packages whose versions decide figures.
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-image",
    "opencv-python-headless",
    "zarr",
    "xarray",
    "dask",
    "distributed",
    "formulaic",
    "matplotlib",
    "pydantic",
    "pydicom",
    "tifffile",
    "pillow",
    "numba",
    "snakemake",
)


def package_versions() -> dict[str, str | None]:
    """Version of each package that decides figures; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def git_revision(folder: Path | None = None) -> dict[str, Any]:
    """Commit that the package's source is at, and whether tracked files were changed since; both None outside a clone."""
    folder = folder or Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    # A package installed into an environment that lies inside some other repository is not at that repository's commit.
    if top is None or Path(top).resolve() != folder.parent.resolve():
        return {"commit": None, "changed": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}


@cache
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes; read again only when its size or time has changed."""
    info = os.stat(path)
    return _sha256(str(Path(path).resolve()), info.st_size, info.st_mtime_ns)


def weights_file(segmentation=None) -> Path:
    """Weights that a `SegmentationConfig` names; those of the package where it names none. Does not import torch."""
    named = getattr(segmentation, "weights", None)
    if named is not None and not Path(named).name:
        raise ValueError(
            "segmentation.weights: expected a weights file (.safetensors), found an empty path; null takes the shipped weights"
        )
    return Path(named) if named else Path(__file__).resolve().parent / "segmentation" / "weights" / "retsam-base.safetensors"


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file and its model card (thresholds live there, and thresholds decide masks).

    Raises
    ------
    ValueError
        The weights or the card are missing.
    """
    card = path.with_suffix(".json")
    missing = [str(p) for p in (path, card) if not p.is_file()]
    if missing:
        raise ValueError(f"segmentation.weights: expected a weights file and its model card, found no {' and no '.join(missing)}")
    return hashlib.sha256((file_sha256(path) + file_sha256(card)).encode()).hexdigest()


def check_pen(segmentation) -> None:
    """Whether the weights of a `SegmentationConfig` know the pen that it asks for; reads the file's header only, does not import torch.

    Raises
    ------
    ValueError
        They do not, or are no safetensors file.
    """
    if segmentation.pen is None:
        return
    path = weights_file(segmentation)
    try:
        with safe_open(path, "np") as file:
            pens = json.loads((file.metadata() or {}).get("pens", "{}"))
    except SafetensorError as error:
        raise ValueError(f"segmentation.weights: {path}: expected a safetensors file, could not read it ({error})") from error
    known = sorted({name for names in pens.values() for name in names})
    if segmentation.pen not in known:
        raise ValueError(f"segmentation.pen is {segmentation.pen!r}; {path.name} knows {', '.join(known) or 'no pens'}")


def read_benchmarks(folder: Path) -> list[dict[str, Any]]:
    """Time and memory of every job, from Snakemake's benchmark files under `folder`.

    Returns
    -------
    list of dict
        ``stage``, ``part`` (shard or None), ``seconds``, ``cpu_seconds``, ``peak_rss_mb``; None where not measured.
    """
    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        if not rows:
            continue
        relative = path.relative_to(folder).with_suffix("")
        stage, part = (relative.parts[0], relative.name) if len(relative.parts) > 1 else (relative.name, None)
        jobs.append(
            {
                "stage": stage,
                "part": part,
                "seconds": _number(rows[-1].get("s")),
                "cpu_seconds": _number(rows[-1].get("cpu_time")),
                "peak_rss_mb": _number(rows[-1].get("max_rss")),
            }
        )
    return jobs


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # Snakemake writes NA or - where a job ended before it was measured
        return None


def stage_times(jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Jobs of `read_benchmarks` summed by stage: jobs, seconds (summed, and of the longest job), peak memory in MB."""
    stages: dict[str, dict[str, Any]] = {}
    for job in jobs:
        stage = stages.setdefault(job["stage"], {"jobs": 0, "seconds": 0.0, "longest_job_seconds": 0.0, "peak_rss_mb": None})
        stage["jobs"] += 1
        stage["seconds"] = round(stage["seconds"] + (job["seconds"] or 0.0), 2)
        stage["longest_job_seconds"] = round(max(stage["longest_job_seconds"], job["seconds"] or 0.0), 2)
        if job["peak_rss_mb"] is not None:
            stage["peak_rss_mb"] = max(stage["peak_rss_mb"] or 0.0, job["peak_rss_mb"])
    return stages


def read_commands(folder: Path) -> list[dict[str, Any]]:
    """What every job announced in the first lines of its log (see `retsam.cli.announce`), in order of start."""
    found = []
    for path in sorted(folder.rglob("*.log")):
        with open(path, encoding="utf-8", errors="replace") as stream:
            for _, line in zip(range(20), stream, strict=False):  # warnings of imports may come first
                if line.startswith('{"retsam"'):
                    try:
                        record = json.loads(line)
                    except json.JSONDecodeError:
                        continue
                    found.append({"log": str(path.relative_to(folder)), **record})
                    break
    return sorted(found, key=lambda record: record.get("started", ""))


def collect(config, results: Path) -> dict[str, Any]:
    """Provenance of a study.

    Parameters
    ----------
    config : StudyConfig
    results : Path
        The study's results folder, with ``logs/`` and ``benchmarks/``.

    Returns
    -------
    dict
        JSON-like: run_id, created, retsam (version, commit), python, platform, packages, config (digest and settings), weights (file,
        sha256), samplesheet (path, sha256), tables (sha256 of each), stages, jobs, commands.
    """
    weights = weights_file(config.segmentation)
    samplesheet = Path(config.cohort.samplesheet)
    jobs = read_benchmarks(results / "benchmarks")
    tables = ("cohort.parquet", "quality.parquet", "biomarkers.parquet", "associations.parquet")
    return {
        "run_id": os.environ.get("RETSAM_RUN_ID"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": config.study,
        "retsam": {"version": __version__, **git_revision()},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": package_versions(),
        "config": {"sha256": config.digest(), "settings": config.model_dump(mode="json")},
        "weights": {"file": weights.name, "sha256": file_sha256(weights)},
        "samplesheet": {"path": str(samplesheet), "sha256": file_sha256(samplesheet) if samplesheet.is_file() else None},
        "tables": {name: file_sha256(results / name) for name in tables if (results / name).is_file()},
        "stages": stage_times(jobs),
        "jobs": jobs,
        "commands": read_commands(results / "logs"),
    }


@click.command("provenance")
@click.option("--config", "config_path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The study's configuration.")
@click.option("--results", required=True, type=click.Path(file_okay=False, exists=True, path_type=Path), help="The study's results folder.")
@click.option("--out", required=True, type=Output(".json"), help="JSON file to write.")
def command(config_path: Path, results: Path, out: Path) -> None:
    """Write versions, hashes, commands and times of a study into one JSON file.

    \b
    Example:
      retsam provenance --config config/odir.yaml --results results/odir --out results/odir/provenance.json
    """
    from retsam.config import load_config

    record = collect(load_config(config_path), results)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, out)
    click.echo(f"{out}: {len(record['jobs'])} jobs, run {record['run_id'] or 'outside the workflow'}")
