"""Commands of the association room."""

from __future__ import annotations

import click


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option("--cohort", "cohort_path", required=True, type=click.Path(exists=True, dir_okay=False), help="cohort.parquet")
@click.option("--quality", "quality_path", required=True, type=click.Path(exists=True, dir_okay=False), help="quality.parquet")
@click.option("--biomarkers", "biomarkers_path", required=True, type=click.Path(exists=True, dir_okay=False), help="biomarkers.parquet")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False), help="associations.parquet; .csv, .json and tables/ are written beside it."
)
@click.option("--workers", type=int, default=None, help="Threads; the config's value if left out (0: one a CPU core).")
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
    from tqdm import tqdm

    from retsam.association.associate import analyse
    from retsam.association.sample import PlanError
    from retsam.association.tables import write_analysis
    from retsam.config import load_config

    study = load_config(config_path)
    plan = study.association
    if workers is not None:
        plan = plan.model_copy(update={"workers": workers})
    bar: tqdm | None = None

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal bar
        if quiet:
            return
        if bar is None or bar.desc != f"{stage}: ":
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, desc=stage, unit="model", mininterval=1.0)
        bar.update(done - bar.n)

    try:
        tables = [pd.read_parquet(p) for p in (cohort_path, quality_path, biomarkers_path)]
        analysis = analyse(plan, *tables, seed=study.seed, progress=progress)
    except PlanError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if bar is not None:
            bar.close()
    write_analysis(analysis, out)
    table = analysis.associations
    estimated = int(table["converged"].sum())
    click.echo(f"{out}: {len(table)} tests, {estimated} estimated, {len(table) - estimated} with a reason instead", err=True)
