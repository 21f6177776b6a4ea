"""Commands of the association room."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import click

from retsam.cli_types import Number, Output, Table


class Bars:
    """Progress of an analysis on the screen: one bar a stage. Called with the stage's name, the steps done and their total."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.stage: str | None = None
        self.bar = None
        self.lock = Lock()  # models are fitted in threads, each of which tells

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage; the first call of another one begins a new bar."""
        if self.quiet:
            return
        from tqdm import tqdm

        with self.lock:
            if stage != self.stage:
                self.close()
                unit = "model" if stage == "associations" else "step"
                self.stage, self.bar = stage, tqdm(total=total, desc=stage, unit=unit, mininterval=1.0)
            self.bar.update(max(0, done - self.bar.n))

    def close(self) -> None:
        """Close the bar that is open, if any."""
        if self.bar is not None:
            self.bar.close()


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option("--cohort", "cohort_path", required=True, type=Table(made_by="retsam ingest"), help="cohort.parquet")
@click.option("--quality", "quality_path", required=True, type=Table(made_by="retsam quality grade"), help="quality.parquet")
@click.option("--biomarkers", "biomarkers_path", required=True, type=Table(made_by="retsam measure gather"), help="biomarkers.parquet")
@click.option("--out", required=True, type=Output(".parquet"), help="associations.parquet; .csv, .json and tables/ are written beside it.")
@click.option("--workers", type=click.IntRange(0), default=None, help="Threads; the config's value if left out (0: one a CPU core).")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def associate(config_path, cohort_path, quality_path, biomarkers_path, out, workers, quiet) -> None:
    """Associations of every biomarker with every outcome, with the plan's covariate sets, subgroups and further analyses.

    Needs the three tables only, no photographs and no masks: from a frozen biomarker table it takes seconds to minutes.
    Tables are described in docs/association-tables.md.

    \b
    Example:
      retsam associate --config config/odir.yaml --cohort results/odir/cohort.parquet --quality results/odir/quality.parquet \\
        --biomarkers results/odir/biomarkers.parquet --out results/odir/associations.parquet
    """
    import pandas as pd

    from retsam.association.analysis import analyse
    from retsam.association.circularity import learned_photographs
    from retsam.association.read import read_biomarkers
    from retsam.association.sample import PlanError
    from retsam.association.tables import write_analysis
    from retsam.config import load_config
    from retsam.provenance import weights_file

    study = load_config(config_path)
    plan = study.association
    if workers is not None:
        plan = plan.model_copy(update={"workers": workers})
    progress = Bars(quiet)
    try:
        tables = [pd.read_parquet(p) for p in (cohort_path, quality_path)]
        tables.append(read_biomarkers(biomarkers_path, plan))
        learned = learned_photographs(weights_file(study.segmentation))
        analysis = analyse(plan, *tables, seed=study.seed, progress=progress, learned=learned)
    except PlanError as error:
        raise click.ClickException(str(error)) from error
    finally:
        progress.close()
    write_analysis(analysis, out)
    table = analysis.associations
    estimated = int(table["converged"].sum())
    click.echo(f"{out}: {len(table)} tests, {estimated} estimated, {len(table) - estimated} with a reason instead", err=True)


@click.command()
@click.option(
    "--study", "studies", required=True, multiple=True, metavar="NAME=FILE", help="A study's associations.parquet; give two or more."
)
@click.option("--out", required=True, type=Output(".parquet"), help="Table to write (.parquet; a .csv is written beside it).")
@click.option(
    "--method", type=click.Choice(["bonferroni", "holm", "bh", "by"]), default="bh", show_default=True, help="Correction for multiplicity."
)
@click.option("--level", type=Number(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True, help="Coverage of intervals.")
def meta(studies, out, method, level) -> None:
    """Compare and pool the associations of two or more studies (fixed and random effects).

    \b
    Example:
      retsam meta --study odir=results/odir/associations.parquet --study mine=results/mine/associations.parquet --out results/meta.parquet
    """
    import pandas as pd

    from retsam.association.meta import meta_analysis
    from retsam.association.tables import write_csv

    tables, faults, kind = {}, [], Table("outcome", "biomarker", made_by="retsam associate")
    for study in studies:
        name, _, path = study.partition("=")
        if not name or not path:
            faults.append(f"--study {study!r}: expected NAME=FILE")
        elif name in tables:
            faults.append(f"--study {study!r}: a study named {name!r} was given already")
        elif not Path(path).is_file():
            faults.append(f"--study {study!r}: no such file")
        else:
            kind.check(Path(path))
            tables[name] = pd.read_parquet(path)
    if not faults and len(tables) < 2:
        faults.append("give two studies or more")
    if faults:
        raise click.UsageError("; ".join(faults))
    try:
        pooled = meta_analysis(tables, level, method)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    pooled.to_parquet(out, index=False)
    write_csv(pooled, out.with_suffix(".csv"))
    click.echo(f"{out}: {len(pooled)} tests, {int((pooled['n_studies'] > 1).sum())} in more than one study", err=True)
