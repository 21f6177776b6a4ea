"""Training loop of the weak heads over cached features; resumable."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from retsam.segmentation.precision import autocast, fastest_dtype
from retsam.segmentation.weak import WeakHeads
from retsam.segmentation.weights import load_state, save_weights
from retsam.training.resume import describe, require_same, table_digest
from retsam.training.trainer import Log
from retsam.training.weak.config import WeakConfig
from retsam.training.weak.features import LEVELS, Features, load_features, trunk_digest
from retsam.training.weak.losses import batch_loss
from retsam.training.weak.words import labelled


def train_weak(config: WeakConfig, minutes: float | None = None) -> Path:
    """Train until the steps are done or the minutes are up; calling again goes on from the checkpoint.

    Parameters
    ----------
    config : WeakConfig
    minutes : float, optional
        Of the loop, after the features are there.

    Returns
    -------
    Path
        ``<out>/weak.safetensors``: the moving average of the heads' weights.

    Raises
    ------
    ValueError
        If the checkpoint was trained on another trunk, or with other data or settings.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    features = load_features(config)
    torch.manual_seed(config.seed)
    model = WeakHeads(config.branches).to(memory_format=torch.channels_last)
    if config.init is not None:
        _begin_with(config, model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.03
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    trunk = trunk_digest(config.base)
    run = describe(config, {"words": _words_digest(config)})
    step = _resume(config, trunk, run, model, average, optimiser)
    if step >= config.steps:
        logging.getLogger(__name__).warning("%s: all %d steps are done, nothing is left to do", config.out, config.steps)
    rng = np.random.default_rng([config.seed, step])
    draw = _Draw(config, features)
    names = {name: (word, [model.targets.index(t) for t in word.targets]) for name, word in config.words.items()}
    log, started, running = Log(config.out / "log.csv"), time.monotonic(), {}
    while step < config.steps and (minutes is None or time.monotonic() - started < 60 * minutes):
        rate = config.learning_rate * _rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        index = draw.batch(rng, step >= config.warmup)
        with autocast(torch.device("cpu")):
            logits = model.from_pyramid(*(_tensor(features.levels[name][index]) for name in LEVELS)).float()
        channels = [None if not isinstance(t, str) else model.targets.index(t) for t in features.table["painted"].iloc[index]]
        masks = torch.from_numpy(features.masks[index]).float() / 255
        words = torch.from_numpy(features.words[index])
        terms = batch_loss(logits, torch.from_numpy(features.zones[index]), masks, words, channels, names)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        _average(average, model, min(config.ema, (1 + step) / (10 + step)))
        for name, value in terms.items():
            running.setdefault(name, []).append(float(value.detach()))
        if step % 50 == 0:
            log.write(step, time.monotonic() - started, rate, running)
            running = {}
        if step % config.checkpoint_every == 0:
            _checkpoint(config, trunk, run, model, average, optimiser, step)
    _checkpoint(config, trunk, run, model, average, optimiser, step)
    return config.out / "weak.safetensors"


class _Draw:
    """Positions of a batch's copies: with a word (each word in proportion to the root of its photographs), without any, and painted."""

    def __init__(self, config: WeakConfig, features: Features) -> None:
        table = features.table
        fit, painted = table["part"].eq("fit").to_numpy(), table["painted"].notna().to_numpy()
        present = features.words == 1
        self.batch_size = config.batch
        self.by_word = [np.flatnonzero(fit & ~painted & present[:, i]) for i in range(present.shape[1])]
        share = np.array([word.draw * np.sqrt(len(own)) for word, own in zip(config.words.values(), self.by_word, strict=True)])
        self.share = share / share.sum() if share.sum() else share
        self.without = np.flatnonzero(fit & ~painted & ~present.any(axis=1))
        self.painted = {t: np.flatnonzero(fit & table["painted"].eq(t).to_numpy()) for t in config.painted}
        self.painted = {t: own for t, own in self.painted.items() if len(own)}
        if not len(self.without):
            raise ValueError("no training photograph without any of the words: they would all be painted over; check `negatives`")

    def batch(self, rng: np.random.Generator, with_words: bool) -> np.ndarray:
        kinds = list(self.painted)
        index = [rng.choice(self.painted[kinds[rng.integers(len(kinds))]]) for _ in range(self.batch_size // 4)] if kinds else []
        if with_words and self.share.sum():  # a photograph with one word is mostly one without the others
            index += [rng.choice(self.by_word[rng.choice(len(self.share), p=self.share)]) for _ in range(self.batch_size // 2)]
        index += list(rng.choice(self.without, self.batch_size - len(index)))
        return np.array(index)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).to(fastest_dtype(torch.device("cpu"))).contiguous(memory_format=torch.channels_last)


def _rate(step: int, config: WeakConfig) -> float:
    if step < 50:
        return (step + 1) / 50
    start = max(config.warmup, 50)
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, max(0, step - start) / max(1, config.steps - start)))))


@torch.no_grad()
def _average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for own, other in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if own.dtype.is_floating_point:
            own.lerp_(other, 1 - decay)
        else:
            own.copy_(other)


def _begin_with(config: WeakConfig, model: WeakHeads) -> None:
    """Take over the heads of an earlier run; they must read the same trunk and have the same targets."""
    state, about = load_state(config.init)
    expected = {"trunk": trunk_digest(config.base), "weak": {task: list(targets) for task, targets in config.branches.items()}}
    faults = [f"{key}: expected {value}, found {about.get(key)}" for key, value in expected.items() if about.get(key) != value]
    if faults:
        raise ValueError(f"{config.init} cannot be begun with: " + "; ".join(faults))
    model.load_state_dict(state, strict=False)


def _words_digest(config: WeakConfig) -> str:
    rows, words = labelled(config)
    return table_digest(pd.concat([rows[["dataset", "image", "group", "part"]], words], axis=1))


def _resume(config: WeakConfig, trunk: str, run: dict, model, average, optimiser) -> int:
    path = config.out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["trunk"] != trunk:
        raise ValueError(f"{path}: was trained on the trunk {state['trunk']}, but {config.base} has {trunk}; name a new `out`")
    require_same(path, state, run)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _checkpoint(config: WeakConfig, trunk: str, run: dict, model, average, optimiser, step: int) -> None:
    """Checkpoint and exported heads under temporary names, then renamed: a killed run never leaves half a file."""
    temporary = config.out / "checkpoint.tmp"
    state = {"trunk": trunk, "step": step, "run": json.dumps(run)}
    state |= {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, temporary)
    os.replace(temporary, config.out / "checkpoint.pt")
    save_weights(config.out / "weak.safetensors", average, {"step": step, "trunk": trunk, "weak": config.branches})
