"""Commands of the cohort room."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pandas as pd

from retsam.cli_types import Output
from retsam.cohort.faults import SamplesheetError


@click.command()
@click.option("--config", "config_path", type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option(
    "--cohort",
    "written",
    type=click.Path(exists=True, dir_okay=False),
    help="Cohort table that --out wrote before: --shards are taken from it, and the samplesheet is not read again.",
)
@click.option("--out", type=Output(".parquet"), help="Cohort table to write (.parquet).")
@click.option("--shards", type=click.Path(file_okay=False), help="Folder for one CSV a shard (image_id, path, eye, um_per_px; no labels).")
@click.option("--shard", "only", multiple=True, help="Write only this shard's CSV (may be given several times); needs --shards.")
@click.option("--quiet", is_flag=True, help="Do not say what was understood.")
def ingest(config_path: str | None, written: str | None, out: Path | None, shards: str | None, only: tuple[str, ...], quiet: bool) -> None:
    """Validate the samplesheet whole and write the cohort table.

    Every fault is reported at once, with its row, its column, what was expected, what was found and how to mend it; nothing is
    written then. Photographs are not opened here: what cannot be read becomes a row with a reason in `retsam quality metrics`.

    \b
    Examples:
      retsam ingest --config my.yaml --out results/my/cohort.parquet --shards results/my/shards
      retsam ingest --config my.yaml --shards results/my/shards --shard s0003
      retsam ingest --cohort results/my/cohort.parquet --shards results/my/shards --shard s0003
    """
    from retsam.cohort.ingest import build_cohort_table, read_shard_rows, write_parquet, write_shards
    from retsam.cohort.samplesheet import load_cohort
    from retsam.config import load_config
    from retsam.plan import plan_faults

    if out is None and shards is None:
        raise click.UsageError("nothing to write: give --out, --shards or both")
    if only and shards is None:
        raise click.UsageError("--shard needs --shards, the folder to write to")
    if (config_path is None) == (written is None):
        raise click.UsageError("give --config, or --cohort in its place")
    if written is not None:
        if out is not None:
            raise click.UsageError("--cohort is a table that is there already: it goes with --shards and without --out")
        try:
            write_shards(read_shard_rows(written, set(only)), shards, set(only) or None)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        return
    study = load_config(config_path)
    config = study.cohort
    try:
        cohort = load_cohort(config)
    except SamplesheetError as error:
        raise click.ClickException(str(error)) from error
    # The workflow's settings of this stage hold no plan.
    if study.association.outcomes and (faults := plan_faults(study, cohort.table)):
        raise click.ClickException("\n  ".join(["the analysis plan does not fit the samplesheet", *faults]))
    table = build_cohort_table(config, cohort)
    if shards is not None:
        try:
            write_shards(table, shards, set(only) or None)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    if out is not None:
        write_parquet(table, out)
    if not quiet:
        for line in [*cohort.notes, *describe(table, list(config.labels), list(config.covariates))]:
            click.echo(line, err=True)


def describe(table: pd.DataFrame, labels: list[str], covariates: list[str]) -> list[str]:
    """What a cohort table holds, a line each: counts, both eyes, every label and covariate with how many are missing."""
    eyes = table.dropna(subset=["eye"])
    both = (eyes.groupby("subject")["eye"].nunique() == 2).sum()
    failed = "".join(f"; {count:,} files are {reason}" for reason, count in table["reason"].value_counts().items())
    lines = [
        f"{len(table):,} photographs of {table['subject'].nunique():,} subjects ({int(both):,} with both eyes), "
        f"{table['shard'].nunique():,} shards{failed}"
    ]
    for name in [*labels, *covariates]:
        values = table[name].dropna()
        missing = len(table) - len(values)
        if values.empty:
            said = "no values"
        elif pd.api.types.is_float_dtype(values):
            said = f"{values.astype(float).mean():.3g} on average ({values.min():g} to {values.max():g})"
        elif values.nunique() > 12:
            said = f"{values.nunique():,} different values"
        else:
            said = ", ".join(f"{value}: {count:,}" for value, count in values.value_counts().sort_index().items())
        lines.append(f"  {'label' if name in labels else 'covariate'} {name}: {said}" + (f"; missing in {missing:,}" if missing else ""))
    return lines


@click.command()
@click.argument("source", type=click.Path(exists=True))
@click.option("--out", type=click.Path(dir_okay=False), help="Configuration to write; printed if left out.")
@click.option("--study", help="Name of the study; made from the source's name if left out.")
@click.option("--root", type=click.Path(exists=True, file_okay=False), help="Folder that relative image paths start from.")
@click.option("--force", is_flag=True, help="Overwrite --out.")
def init(source: str, out: str | None, study: str | None, root: str | None, force: bool) -> None:
    """Write a study's configuration from SOURCE, a folder of photographs or a samplesheet (.csv, .tsv, .parquet).

    Columns are recognised by their names and by what is in them: the path of the photograph, subject, eye, visit, age, sex, and
    what may be an outcome. What was understood, and what was not, is said line by line; the configuration is then yours to edit.

    \b
    Examples:
      retsam init photographs/ --out my.yaml
      retsam init patients.csv --root photographs/ --out my.yaml
      snakemake --configfile my.yaml
    """
    from retsam.cohort.init import propose

    try:
        text, said = propose(Path(source), study=study, root=Path(root) if root else None)
    except SamplesheetError as error:
        raise click.ClickException(str(error)) from error
    for line in said:
        click.echo(line, err=True)
    if out is None:
        click.echo(text, nl=False)
        return
    target = Path(out)
    if target.exists() and not force:
        raise click.ClickException(f"{target} exists; choose another --out, or overwrite it with --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    click.echo(f"written: {target}\nnext: read it, then {snakemake_command(target)}", err=True)


def snakemake_command(config: Path) -> str:
    """The command that runs a study, fit to be copied into a shell.

    It names the workflow where Snakemake would not find it by itself: in a folder without the Snakefile.
    """
    snakefile = ""
    if not Path("Snakefile").is_file():
        checkout = Path(__file__).resolve().parents[2] / "Snakefile"
        snakefile = f"--snakefile {shlex.quote(str(checkout)) if checkout.is_file() else 'path/to/retsam/Snakefile'} "
    return f"snakemake {snakefile}--configfile {shlex.quote(str(config))}"
