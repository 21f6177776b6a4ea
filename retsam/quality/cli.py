"""Commands of the quality room."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from retsam.cli_types import Output, Table, Tables

_METRICS = Tables("image_id", "status", made_by="retsam quality metrics")


@click.group()
def quality() -> None:
    """Field of view, image metrics, grades and duplicates.

    `metrics` looks at photographs, a shard at a time, and knows no threshold; `grade` reads the metrics of all shards and decides. So a
    threshold can be changed without opening a photograph again.
    """


@quality.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option(
    "--shard-file", required=True, type=click.Path(exists=True, dir_okay=False), help="CSV of a shard: image_id, path, eye, um_per_px."
)
@click.option("--out", required=True, type=Output(".parquet"), help="Metrics to write (.parquet), one row a photograph.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes; the answer is the same for any number.")
@click.option("--progress/--no-progress", default=True, help="Bar with the time left (only on a terminal).")
def metrics(config_path: str, shard_file: str, out: Path, jobs: int, progress: bool) -> None:
    """Measure the photographs of a shard.

    A file that cannot be read, or a picture without anything in it, is a row with a reason.

    \b
    Example:
      retsam quality metrics --config my.yaml --shard-file shards/s0000.csv --out metrics/s0000.parquet --jobs 4
    """
    from retsam.cohort.ingest import read_shard, write_parquet
    from retsam.config import load_config
    from retsam.quality.table import measure_shard

    config = load_config(config_path)
    try:
        shard = read_shard(shard_file)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    table = measure_shard(shard, config.cohort.max_pixels, jobs, progress)
    write_parquet(table, out)
    failed = table[table["status"] == "failed"]
    said = "".join(f", {count} {reason}" for reason, count in failed["reason"].value_counts().items())
    click.echo(f"{Path(shard_file).stem}: {len(table):,} photographs measured{said}", err=True)


@quality.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option(
    "--cohort",
    "cohort_path",
    required=True,
    type=Table("image_id", "subject", "eye", made_by="retsam ingest"),
    help="Cohort table (.parquet).",
)
@click.option("--metrics", "metrics_option", multiple=True, type=_METRICS, help="Metrics of a shard, or a folder of them.")
@click.option("--out", required=True, type=Output(".parquet"), help="Quality table to write (.parquet).")
@click.argument("more_metrics", nargs=-1, type=_METRICS)
def grade(config_path: str, cohort_path: Path, metrics_option: tuple[Path, ...], out: Path, more_metrics: tuple[Path, ...]) -> None:
    """Grade the photographs of a cohort and find duplicates.

    Metrics of all shards are given after --metrics, several at once, or as their folder.

    \b
    Example:
      retsam quality grade --config my.yaml --cohort cohort.parquet --metrics metrics/*.parquet --out quality.parquet
    """
    from retsam.cohort.ingest import write_parquet
    from retsam.config import load_config
    from retsam.quality.grading import grade_table, summary

    paths: list[Path] = []
    for path in (*metrics_option, *more_metrics):
        paths += sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise click.UsageError("no metrics given: --metrics FILE..., or the folder that holds them")
    config = load_config(config_path)
    cohort = pd.read_parquet(cohort_path)
    table = pd.concat([pd.read_parquet(p) for p in paths], ignore_index=True)
    try:
        graded = grade_table(table, config.quality, cohort)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    write_parquet(graded, out)
    for line in summary(graded):
        click.echo(line, err=True)
