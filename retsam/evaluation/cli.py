"""``retsam evaluate``: score the shipped model on labelled photographs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click


@click.command()
@click.option("--manifest", type=click.Path(dir_okay=False, path_type=Path), help="Labelled manifest (CSV), paths relative to --root.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Folder of the data [default: the manifest's own].")
@click.option("--dataset", "datasets", multiple=True, help="With --manifest: only this set. Without: a public one, as published.")
@click.option("--list", "list_datasets", is_flag=True, help="List the public data sets that are known, with their layouts, and stop.")
@click.option("--prepared", type=click.Path(file_okay=False, path_type=Path), help="Folder for a public set's manifest and decoded masks.")
@click.option("--split", help="Only rows of this split (train, test, ...).")
@click.option("--held-out", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Training configuration (YAML): only the rows that it keeps out of training.")
@click.option("--weights", type=click.Path(dir_okay=False, path_type=Path),
              help="Weights file, or the published checkpoint [default: the shipped one].")
@click.option("--out", default="scores.json", show_default=True, type=click.Path(dir_okay=False, path_type=Path), help="Scores to write.")
@click.option("--overlays", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures of the best and worst images.")
@click.option("--biomarkers", is_flag=True, help="Also agreement of biomarkers on predicted and drawn masks (OUT.biomarkers.csv).")
@click.option("--pen", help="Draw vessels in the pen of this training data set, or, with `own`, of each photograph's own data set.")
@click.option("--unbiased", is_flag=True, help="In no one's pen, vessels at the thresholds of unbiased length and area.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(["vessels", "optic_nerve", "macula", "lesions_dr", "weak"]),
              help="Only these heads (much faster); all by default.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N images of each data set.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(2), help="Bootstrap resamples (of groups).")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1), help="1 is fastest on a CPU.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def evaluate(manifest, root, datasets, list_datasets, prepared, split, held_out, limit, out, **options) -> None:
    """Score the shipped model on labelled photographs, at the size they are stored in.

    Writes OUT (`{dataset: {target: {metric: {value, pooled, ci_low, ci_high, n}}}}`: means over images and pooled, 95 % bootstrap
    intervals), a table of every image beside it (.csv, .parquet) and how it was made (.run.json), and prints a table.
    An image or a mask that cannot be read is a row with a reason.

    \b
    Examples:
      retsam evaluate --manifest data/manifest.csv --split test --out scores.json --overlays overlays
      retsam evaluate --manifest data/manifest.csv --dataset drive --dataset hrf --split test --biomarkers
      retsam evaluate --manifest data/manifest.csv --held-out config/train-base.yaml
      retsam evaluate --manifest data/manifest.csv --held-out config/train-base.yaml --pen own
      retsam evaluate --manifest data/manifest.csv --dataset drishti --task optic_nerve --task macula
      retsam evaluate --dataset REFUGE --root /data/REFUGE --out refuge.json
      retsam evaluate --list
    """
    from retsam.evaluation.public import LayoutError, describe, prepare
    from retsam.evaluation.reference import ManifestError, read_manifest

    if list_datasets:
        click.echo(describe())
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if manifest is None:
        if len(datasets) != 1 or root is None:
            raise click.UsageError("give --manifest M.csv, or --dataset NAME --root DIR for a public data set (see --list)")
        try:
            manifest = prepare(datasets[0], root, prepared or out.with_suffix(".prepared"))
        except LayoutError as error:
            raise click.ClickException(str(error)) from error
        root, datasets = manifest.parent, ()
    try:
        table = read_manifest(manifest)
    except ManifestError as error:
        raise click.ClickException(str(error)) from error
    faults = []
    for column, asked in (("dataset", datasets), ("split", (split,) if split else ())):
        present = sorted(table[column].dropna().unique())
        has = ", ".join(present) or "none"
        faults += [f"--{column} {value!r} is not in {manifest}; it has {has}" for value in asked if value not in present]
    if faults:
        raise click.ClickException("\n".join(faults))
    # First of all: a group that has a test photograph in another data set is kept out of training in this one too.
    table = _kept_out(table, held_out) if held_out else table
    table = table[table["dataset"].isin(datasets)] if datasets else table
    table = table[table["split"] == split] if split else table
    table = table.groupby("dataset", sort=False).head(limit) if limit else table
    if not len(table):
        raise click.ClickException(f"no row of {manifest} is left after --dataset, --split and --held-out")
    _run(table.reset_index(drop=True), manifest, root or manifest.parent, out, **options)


def _kept_out(table, config: Path):
    """Rows that a training run keeps out: official test parts, and its share of the groups of other sets."""
    from retsam.training.config import TrainConfig
    from retsam.training.frames import held_out

    try:
        settings = TrainConfig.read(config)
    except ValueError as error:
        raise click.ClickException(f"{config}: {error}") from error
    return table[held_out(table, settings)]


def _segmenter(weights: Path | None, device: str, batch_size: int, pen: str | None, tasks: tuple[str, ...] = (), unbiased: bool = False):
    """The shipped network, one of its kind, or the published checkpoint where the file is one."""
    if weights is not None and weights.exists():
        from retsam.segmentation.published import PublishedSegmenter, is_published

        if is_published(weights):
            if tasks:
                raise ValueError("--task: the published checkpoint answers for all its heads at once")
            if unbiased:
                raise ValueError("--unbiased: the published checkpoint has one threshold a head")
            published = PublishedSegmenter(weights, device, batch_size)
            published.use_pen(None if pen == "own" else pen)
            return published
    from retsam.segmentation.predict import Segmenter

    own = None if pen == "own" else pen
    return Segmenter(weights=weights, device=device, batch_size=batch_size, pen=own, tasks=tasks or None, unbiased=unbiased)


def _run(
    table, manifest, root, out, weights, device, batch_size, overlays, biomarkers, resamples, seed, quiet, pen, unbiased, tasks
) -> None:
    import hashlib

    from retsam._version import __version__
    from retsam.evaluation import run
    from retsam.evaluation.gallery import write_gallery

    try:
        segmenter = _segmenter(weights, device, batch_size, pen, tasks, unbiased)
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    if pen == "own":
        known = {name for names in segmenter.pens.values() for name in names}
        if not known & set(table["dataset"]):
            raise click.ClickException(f"--pen own: the weights know {', '.join(sorted(known)) or 'no pens'}, none of these data sets")
        for name in sorted(set(table["dataset"]) - known):
            click.echo(f"{name}: the weights know no pen of it; drawn in no one's")
    evaluation = run.evaluate(segmenter, table, root, resamples, seed, progress=not quiet, own_pen=pen == "own")
    about = {
        "retsam_version": __version__,
        "command": sys.argv,
        "weights_sha256": segmenter.weights_sha256,
        "target_status": segmenter.target_status,
        "manifest": str(manifest),
        "manifest_sha256": hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
        "resamples": resamples,
        "seed": seed,
        "pen": pen,
        "unbiased": unbiased,
        "tasks": tasks,
    }
    paths = run.write(evaluation, out, about)
    if overlays:
        pictures = write_gallery(evaluation, segmenter, table, root, overlays)
        click.echo(f"{len(pictures)} pictures in {overlays}")
    click.echo(run.table(evaluation.scores).to_string(index=False))
    if biomarkers and evaluation.scores:
        from retsam.evaluation.biomarkers import score_biomarkers

        try:
            figures = score_biomarkers(segmenter, table, root, out, resamples, seed, progress=not quiet, own_pen=pen == "own")
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        click.echo("biomarkers, mean over density, length, fractal dimension, CRAE, CRVE:\n" + figures.round(3).to_string(index=False))
    states = evaluation.images["status"].value_counts()
    click.echo(f"{len(table)} images: " + ", ".join(f"{n} {state}" for state, n in states.items()) + f"; {', '.join(map(str, paths))}")
    if not evaluation.scores:
        reasons = evaluation.images["reason"].value_counts()
        raise click.ClickException("no image could be scored: " + ", ".join(f"{reason} ({n})" for reason, n in reasons.items()))
