"""`retsam train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with settings and files, as a message instead of a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


@click.group(invoke_without_command=True)
@click.option("--config", "config_path", type=click.Path(exists=True, dir_okay=False), help="Training configuration (YAML).")
@click.option("--stage", type=click.Choice(["experts", "unify", "adapt"]), help="Over the configuration's stage.")
@click.option("--task", "only", multiple=True, help="experts: train only these tasks' networks (default: each, one after the other).")
@click.option("--minutes", type=float, help="Stop after that long, with a checkpoint; the same command goes on from it.")
@click.pass_context
def train(context: click.Context, config_path: str | None, stage: str | None, only: tuple[str, ...], minutes: float | None) -> None:
    """Train the segmentation network.

    Three stages, as in the RetSAM paper: `experts` trains one network a task; `unify` trains one network for all tasks, on masks and on
    pseudo-labels of the experts; `adapt` tunes a trained network on your own masks (rows of a manifest). A configuration whose stage is
    `weak` trains heads without masks, from words about photographs and painted lesions, on the frozen trunk of finished weights.

    Each resumes from its checkpoint, with the data and settings that it began with; more `steps` prolong it. A resumed run draws other
    crops than one that was never stopped. On several GPUs: torchrun --nproc-per-node 4 -m retsam train --config ...

    \b
    Examples:
      retsam train --config config/train-base.yaml --minutes 60
      retsam train export --config config/train-base.yaml --out my-weights.safetensors
      retsam train --config config/train-weak.yaml
    """
    if context.invoked_subcommand is not None:
        return
    if config_path is None:
        raise click.UsageError("give --config, a training configuration such as config/train-base.yaml")
    from retsam.training.stages import run_stage
    from retsam.training.weak.config import WeakConfig

    with _told():
        config = _read(config_path)
        if isinstance(config, WeakConfig):
            if stage or only:
                raise click.UsageError("--stage and --task are not for a configuration whose stage is `weak`")
            from retsam.training.weak.trainer import train_weak

            click.echo(str(train_weak(config, minutes)))
            return
        for path in run_stage(config, stage, only, minutes):
            click.echo(str(path))


@train.command("export")
@click.option(
    "--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Training configuration of the run."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Weights file to write; its card goes beside it.")
@click.option("--name", default="retsam-base", show_default=True, help="Name in the model card.")
@click.option("--per-dataset", default=12, show_default=True, help="Photographs of each data set that set the thresholds.")
def export_command(config_path: str, out: str, name: str, per_dataset: int) -> None:
    """Export a run's weights: half precision, thresholds from training photographs, model card.

    For a configuration whose stage is `weak`: its base's weights with the weak heads added, judged on held-out photographs.
    For one with `only`: the weights it began with, the tuned decoders put in; for one with `own_trunk` its trunk and decoders.
    """
    from retsam.training.export import export, export_only, export_own_trunk
    from retsam.training.weak.config import WeakConfig
    from retsam.training.weak.export import export_weak

    with _told():
        config = _read(config_path)
        if isinstance(config, WeakConfig):
            written = export_weak(config, Path(out))
        elif config.only:
            written = export_only(config, Path(out))
        elif config.own_trunk:
            written = export_own_trunk(config, Path(out), per_dataset)
        else:
            written = export(config, Path(out), name, per_dataset)
    click.echo(str(written))


@train.command("thresholds")
@click.option(
    "--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Training configuration of the heads."
)
@click.option("--weights", required=True, type=click.Path(exists=True, dir_okay=False), help="Weights whose card is rewritten.")
@click.option("--per-dataset", default=12, show_default=True, help="Photographs of each data set that set the thresholds.")
def thresholds_command(config_path: str, weights: str, per_dataset: int) -> None:
    """Choose the thresholds of exported weights anew, on training photographs, and write them into their card.

    Masks change with them: scores in the card are those of the thresholds before.
    """
    from retsam.training.export import recalibrate
    from retsam.training.weak.config import WeakConfig

    with _told():
        config = _read(config_path)
        if isinstance(config, WeakConfig):
            raise click.ClickException("thresholds of weak heads are set by `retsam train export`")
        entries = recalibrate(config, Path(weights), per_dataset)
    for name, entry in entries.items():
        click.echo(f"{name}: {entry}")


@train.command("merge-weak")
@click.option("--heads", required=True, type=click.Path(exists=True, dir_okay=False), help="Weights whose weak heads are taken.")
@click.option("--into", required=True, type=click.Path(exists=True, dir_okay=False), help="Weights that they go into; may be --out.")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Weights file to write; card and learned list go beside it.")
def merge_weak_command(heads: str, into: str, out: str) -> None:
    """Put the weak heads of one weights file into another of the same whole-frame trunk: tensors, card, learned photographs."""
    from retsam.training.weak.export import merge_weak

    with _told():
        click.echo(str(merge_weak(Path(heads), Path(into), Path(out))))


@train.command("judge-weak")
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the heads.")
@click.option("--weights", required=True, type=click.Path(exists=True, dir_okay=False), help="Weights whose card is rewritten.")
def judge_weak_command(config_path: str, weights: str) -> None:
    """Judge the weak heads of finished weights on their held-out photographs again: their masks follow the disc."""
    from retsam.training.weak.config import WeakConfig
    from retsam.training.weak.export import rejudge

    with _told():
        config = _read(config_path)
        if not isinstance(config, WeakConfig):
            raise click.ClickException(f"{config_path}: expected a configuration of stage `weak`")
        scores = rejudge(config, Path(weights))
    for target, by_dataset in scores.items():
        for dataset, values in by_dataset.items():
            auc = values["auc"]
            click.echo(f"{target}, {dataset}: AUC {auc['value']} ({auc['ci_low']} to {auc['ci_high']}), n = {auc['n']}")


@train.command("attach-scores")
@click.option("--card", required=True, type=click.Path(exists=True, dir_okay=False), help="Model card (.json).")
@click.option("--scores", required=True, type=click.Path(exists=True, dir_okay=False), help="Scores from `retsam evaluate`.")
def attach_scores_command(card: str, scores: str) -> None:
    """Write measured scores into a model card."""
    from retsam.training.export import attach_scores

    with _told():
        attach_scores(Path(card), Path(scores))


@train.command("pseudo-label")
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Training configuration.")
@click.option(
    "--weights", multiple=True, required=True, type=click.Path(exists=True, dir_okay=False), help="Experts; several are averaged."
)
@click.option("--dataset", "datasets", multiple=True, required=True, help="Data sets of the manifest to label.")
@click.option("--limit", default=500, show_default=True, help="Photographs of each data set.")
def pseudo_label_command(config_path: str, weights: tuple[str, ...], datasets: tuple[str, ...], limit: int) -> None:
    """Label unlabelled photographs with trained networks; only what they are sure of is kept."""
    from retsam.training.config import TrainConfig
    from retsam.training.pseudo import pseudo_label

    with _told():
        config = _read(config_path)
        if not isinstance(config, TrainConfig):
            raise click.ClickException(f"{config_path}: expected a configuration of another stage than `weak`")
        table = pseudo_label(config, [Path(w) for w in weights], datasets, limit)
    click.echo(f"{len(table)} photographs labelled")


def _read(path: str):
    """The configuration, of the kind that its stage names."""
    import yaml

    from retsam.training.config import TrainConfig
    from retsam.training.weak.config import WeakConfig

    try:
        content = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a training configuration in YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a training configuration (settings by name), found {type(content).__name__}")
    weak = isinstance(content, dict) and content.get("stage") == "weak"
    return (WeakConfig if weak else TrainConfig).read(Path(path))
