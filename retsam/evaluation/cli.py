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
              help="Training configuration (YAML): only photographs that it keeps out of training. Those of another manifest than its own "
                   "are recognised by their names.")
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

    Writes OUT (.json, `{dataset: {target: {metric: {value, pooled, ci_low, ci_high, n, n_pooled, n_groups}}}}`: means over images and
    pooled, 95 % bootstrap intervals over groups, none of a single group), a table of every image beside it (.csv, .parquet) and how it was
    made (.run.json), and prints a table. A figure whose n is not its line's says so.
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
    from retsam.evaluation.run import output_paths

    if list_datasets:
        click.echo(describe())
        return
    try:
        output_paths(out)
    except ValueError as error:
        raise click.ClickException(f"--out {error}") from error
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
    table = _kept_out(table, manifest, held_out, datasets) if held_out else table
    table = table[table["dataset"].isin(datasets)] if datasets else table
    table = table[table["split"] == split] if split else table
    table = table.groupby("dataset", sort=False).head(limit) if limit else table
    if not len(table):
        raise click.ClickException(f"no row of {manifest} is left after --dataset, --split and --held-out")
    table = table.reset_index(drop=True)
    if options["biomarkers"]:
        _check_for_biomarkers(table, manifest)
    _run(table, manifest, root or manifest.parent, out, held_out, **options)


def _kept_out(table, manifest: Path, config: Path, datasets: tuple[str, ...]):
    """Rows that a training run keeps out: official test parts, and its share of the groups of other sets."""
    from retsam.evaluation.reference import ManifestError
    from retsam.evaluation.trained_on import kept_out
    from retsam.training.config import TrainConfig

    try:
        settings = TrainConfig.read(config)
    except ValueError as error:
        raise click.ClickException(f"{config}: {error}") from error
    try:
        kept, told = kept_out(table, manifest, settings)
    except ManifestError as error:
        raise click.ClickException(f"--held-out {config}: {error}") from error
    for name, words in told.items():
        if not datasets or name in datasets:
            click.echo(f"{name}: {words}")
    return table[kept]


def _check_for_biomarkers(table, manifest: Path) -> None:
    """What agreement of biomarkers needs, before hours of work: photographs once each, and enough of them with drawn masks."""
    from retsam.biomarkers.fidelity import MIN_PAIRS
    from retsam.evaluation.reference import DRAWN

    faults = []
    copies = table.loc[table.duplicated(["dataset", "image"]), ["dataset", "image"]].drop_duplicates()
    if len(copies):
        names = [f"{row.dataset}: {row.image}" for row in copies.itertuples()]
        shown = "\n  ".join(names[:10] + ([f"and {len(names) - 10} more"] if len(names) > 10 else []))
        faults.append(f"--biomarkers: {manifest} has photographs more than once; keep one row of each:\n  {shown}")
    drawn = int(table[[name for name in DRAWN if name in table.columns]].notna().any(axis=1).sum())
    if drawn < MIN_PAIRS:
        faults.append(f"--biomarkers: agreement needs at least {MIN_PAIRS} photographs with drawn masks, found {drawn} in {manifest}")
    if faults:
        raise click.ClickException("\n".join(faults))


def _what_is_scored(table, segmenter, held_out: Path | None) -> None:
    """Say where one line of scores holds several parts of a data set, or photographs that the weights may have learned from."""
    from retsam.evaluation.trained_on import sources

    learned_from = set(getattr(segmenter, "card", {}).get("learned_from_labels", {}).get("datasets", ()))
    for name, rows in table.groupby("dataset", sort=False):
        parts = rows["split"].fillna("no part").value_counts()
        if len(parts) > 1:
            words = ", ".join(f"{part} ({n})" for part, n in parts.items())
            click.echo(f"{name}: photographs of several parts are scored together: {words}; --split scores one of them")
        if held_out is None and (taught := sources(str(name), learned_from)):
            names = ", ".join(taught)
            click.echo(f"{name}: the weights learned from {names}; without --held-out, photographs trained on may be among these")


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
    table, manifest, root, out, held_out, weights, device, batch_size, overlays, biomarkers, resamples, seed, quiet, pen, unbiased, tasks
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
    _what_is_scored(table, segmenter, held_out)
    evaluation = run.evaluate(segmenter, table, root, resamples, seed, progress=not quiet, own_pen=pen == "own")
    about = {
        "retsam_version": __version__,
        "command": sys.argv,
        "weights_sha256": segmenter.weights_sha256,
        "target_status": segmenter.target_status,
        "manifest": str(manifest),
        "manifest_sha256": hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
        "held_out": held_out and str(held_out),
        "parts": {name: rows["split"].fillna("").value_counts().to_dict() for name, rows in table.groupby("dataset", sort=False)},
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
    if evaluation.scores:
        click.echo(run.table(evaluation.scores).to_string(index=False))
    fault = None
    if biomarkers and evaluation.scores:
        from retsam.evaluation.biomarkers import score_biomarkers

        try:
            figures = score_biomarkers(segmenter, table, root, out, resamples, seed, progress=not quiet, own_pen=pen == "own")
            click.echo(_headline(figures, list(dict.fromkeys(table["dataset"]))))
        except ValueError as error:
            fault = f"--biomarkers: {error}"
    states = evaluation.images["status"].value_counts()
    click.echo(f"{len(table)} images: " + ", ".join(f"{n} {state}" for state, n in states.items()) + f"; {', '.join(map(str, paths))}")
    if not evaluation.scores:
        reasons = evaluation.images["reason"].value_counts()
        raise click.ClickException("no image could be scored: " + ", ".join(f"{reason} ({n})" for reason, n in reasons.items()))
    if fault:
        raise click.ClickException(fault)


def _headline(figures, datasets: list[str]) -> str:
    from retsam.biomarkers.fidelity import MIN_PAIRS

    lines = []
    if len(figures):
        lines = ["biomarkers, mean over density, length, fractal dimension, CRAE, CRVE:", figures.round(3).to_string(index=False)]
    if without := [name for name in datasets if name not in set(figures["group"])]:
        few = f"no biomarker of vessels could be measured on both masks of {MIN_PAIRS} photographs"
        lines.append(f"biomarkers, {', '.join(without)}: {few}, so there is no headline; the others are in OUT.biomarkers.csv")
    return "\n".join(lines)
