"""``retsam config``: check a configuration, print it whole, or write what one stage of the workflow reads."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from retsam.config import load_config, parse_config
from retsam.config_pages import main as pages
from retsam.stages import STAGES, stage_yaml


@click.group()
def config() -> None:
    """Check a configuration, print a stage's part, write the generated pages.

    \b
    Examples:
      retsam config check config/odir.yaml        all faults at once, or a short summary
      retsam config show config/odir.yaml         every setting, defaults included
      retsam config pages                         config.yaml, JSON schema and README again from the model
    """


@config.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def check(path: Path) -> None:
    """Validate PATH and say what study it describes."""
    study = load_config(path)
    click.echo(f"{path}: valid")
    click.echo(f"  study       {study.study}, results in {study.results}")
    click.echo(f"  samplesheet {study.cohort.samplesheet}")
    click.echo(f"  labels      {', '.join(study.cohort.labels) or 'none'}")
    click.echo(f"  covariates  {', '.join(study.cohort.covariates) or 'none'}")
    click.echo(f"  digest      {study.digest()[:16]}")


@config.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def show(path: Path) -> None:
    """Print every setting of PATH as YAML, defaults included and paths expanded."""
    click.echo(yaml.safe_dump(load_config(path).model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@config.command()
@click.argument("name", type=click.Choice(list(STAGES)))
@click.option("--settings", required=True, help="The study's configuration as JSON text.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="YAML file to write.")
def stage(name: str, settings: str, out: Path) -> None:
    """Write what stage NAME reads of a configuration. The workflow calls this; an edit then reruns only the stages it touches."""
    text = stage_yaml(parse_config(json.loads(settings), source="--settings"), name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


config.add_command(pages, "pages")
