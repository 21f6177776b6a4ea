"""The command ``retsam``: one sub-command a stage, each defined in its room and imported only when called."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import click

from retsam._version import __version__

#: Sub-command -> (where it lives, one line of help). The line stands here so that `retsam --help` imports no room.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("retsam.cohort.cli:init", "Write a study's configuration from a folder or a samplesheet, and say what it understood."),
    "ingest": ("retsam.cohort.cli:ingest", "Validate the samplesheet whole and write the cohort table."),
    "quality": ("retsam.quality.cli:quality", "Field of view, image metrics, grades, duplicates."),
    "segment": ("retsam.segmentation.cli:segment", "Segment photographs into mask stores (Zarr)."),
    "masks": ("retsam.masks.cli:masks", "Look into mask stores; export them as PNG."),
    "measure": ("retsam.biomarkers.cli:measure", "Biomarkers of mask stores, or of masks that you bring as PNG."),
    "associate": ("retsam.association.cli:associate", "Associations of biomarkers with outcomes."),
    "meta": ("retsam.association.cli:meta", "Meta-analysis of association tables of several studies."),
    "report": ("retsam.report.cli:report", "The study's report as one HTML file that works offline."),
    "provenance": ("retsam.provenance:command", "Collect versions, hashes, commands and times of a study into provenance.json."),
    "config": ("retsam.cli_config:config", "Check a configuration, print a stage's part, write the generated pages."),
    "demo": ("retsam.demo.cli:demo", "Render a cohort of photographs with known truth."),
    "train": ("retsam.training.cli:train", "Train the segmentation network."),
    "evaluate": ("retsam.evaluation.cli:evaluate", "Score the shipped network on labelled photographs."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: `retsam --help` must not wait for torch."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        return getattr(import_module(module), attribute)

    def resolve_command(self, ctx, args):
        if args and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else "; see retsam --help"))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands, in the order of a study"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="retsam")
@click.option("-v", "--verbose", count=True, help="Say more: -v informs, -vv is for finding faults.")
@click.pass_context
def cli(context: click.Context, verbose: int) -> None:
    """Colour fundus photographs -> quality -> segmentation -> biomarkers -> associations -> report.

    A whole study is run by Snakemake (`snakemake --configfile config/odir.yaml`); these commands are its stages, to be used alone.

    \b
    Start here:
      retsam demo --out demo           render a cohort, and the configuration of a study of it
      retsam init FOLDER --out my.yaml write the configuration of your own study
      retsam COMMAND --help            what a command reads and writes, with examples
    """
    level = logging.WARNING if verbose == 0 else logging.INFO if verbose == 1 else logging.DEBUG
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    # `config` only writes settings, which provenance has anyway.
    if os.environ.get("RETSAM_RUN_ID") and context.invoked_subcommand != "config":
        announce()


def announce() -> None:
    """First line of a job's log under the workflow: what runs, where and since when. `retsam provenance` reads it."""
    record = {
        "retsam": __version__,
        "run_id": os.environ["RETSAM_RUN_ID"],
        "command": shlex.join(["retsam", *sys.argv[1:]]),
        "host": os.uname().nodename,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    click.echo(json.dumps(record), err=True)


def main() -> None:
    """Entry point of the console script: faults that a user can mend are one message, not a traceback."""
    from retsam.config import ConfigError

    try:
        cli(prog_name="retsam")
    except ConfigError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # no fault of a file that the user named
            raise
        click.echo(f"Error: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)


def repository_root() -> Path:
    """The folder that the package lies in (the clone, where it was installed in place)."""
    return Path(__file__).resolve().parent.parent


if __name__ == "__main__":
    main()
