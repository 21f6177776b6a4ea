"""``retsam report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The study's configuration.",
)
@click.option("--results", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The study's results folder.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="HTML file to write.")
def report(config_path: Path, results: Path, out: Path) -> None:
    """Write the report: one offline HTML page, with figures/ and tables/report/ beside it.

    It is written even when images, outcomes or whole tables failed; the top of the page then says so. Only a results folder that
    does not exist stops it.

    \b
    Example:
      retsam report --config config/odir.yaml --results results/odir --out results/odir/report.html
    """
    from retsam.config import load_config
    from retsam.report.build import build_report

    config = load_config(config_path)
    done = build_report(results, out, config.report, config.model_dump(mode="json"))
    for problem in done.problems:
        click.echo(f"{problem.level}: {problem.text}", err=True)
    click.echo(f"{out}: {done.bytes / 1e6:.1f} MB, {done.figures} figures, {done.tables} tables, {done.pictures} eyes")
