"""The command ``retsam demo``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write; made if missing.")
@click.option("--subjects", type=click.IntRange(4, 100_000), default=64, show_default=True, help="Subjects, two eyes each.")
@click.option("--size", type=click.IntRange(512, 2000), default=768, show_default=True, help="Width of the photographs in pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed renders the same cohort.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; one a core if left out.")
@click.option("--defects/--no-defects", default=True, show_default=True, help="Add photographs that are bad on purpose.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def demo(out: Path, subjects: int, size: int, seed: int, workers: int | None, defects: bool, quiet: bool) -> None:
    """Render a cohort of fundus photographs whose masks, biomarkers and disease effects are known.

    \b
    Writes into OUT:
      photographs/*.jpg, samplesheet.csv, config.yaml   what a study needs
      truth/biomarkers.csv, parameters.csv, effects.csv what the study should find
      truth/defects.csv                                 which photographs are bad, and how
      truth/masks.csv, masks/                           for `retsam measure --masks OUT/truth/masks.csv`
      truth/manifest.csv                                for `retsam evaluate --manifest OUT/truth/manifest.csv --root OUT`

    \b
    Examples:
      retsam demo --out demo
      retsam demo --out big --subjects 500 --size 1024
      snakemake --cores 2 --configfile demo/config.yaml
    """
    from retsam.cohort.cli import snakemake_command
    from retsam.demo.study import write_demo

    try:
        config = write_demo(out, subjects, size, seed, workers, defects, not quiet)
    except FileExistsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{2 * subjects} photographs of {subjects} subjects{' and 6 bad ones' if defects else ''} in {out}")
    click.echo(f"next: {snakemake_command(config)}")
