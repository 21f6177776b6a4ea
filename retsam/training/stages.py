"""The three stages of training, over one loop.

Source: Wang et al. 2026 (arXiv 2602.07012): task experts; one unified network on masks and filtered pseudo-labels; adaptation to
a user's own data.
"""

from __future__ import annotations

from pathlib import Path

from retsam.training.checks import check_run
from retsam.training.config import TrainConfig
from retsam.training.ranks import together
from retsam.training.trainer import train


def run_stage(config: TrainConfig, stage: str | None = None, only: tuple[str, ...] = (), minutes: float | None = None) -> list[Path]:
    """Run one stage.

    Parameters
    ----------
    config : TrainConfig
    stage : str, optional
        Over ``config.stage``.
    only : tuple of str
        ``experts``: the tasks to train; all by default.
    minutes : float, optional
        Of this call; shared evenly by the experts.

    Returns
    -------
    list of Path
        Weights written.

    Raises
    ------
    ValueError
        If a task is unknown, or ``adapt`` has no network to start from.
    """
    config = config.model_copy(update={"stage": stage or config.stage})
    if unknown := sorted(set(only) - set(config.tasks)):
        raise ValueError(f"unknown tasks {unknown}; the configuration has {sorted(config.tasks)}")
    if config.stage == "experts":
        tasks = only or tuple(config.tasks)
        share = None if minutes is None else minutes / len(tasks)
        # The faults of all tasks now, not those of the second when the first is trained.
        check_run(config.model_copy(update={"tasks": {t: config.tasks[t] for t in tasks}}))
        with together():
            return [train(config.model_copy(update={"tasks": {t: config.tasks[t]}, "out": config.out / t}), share) for t in tasks]
    if config.stage == "adapt" and config.init in ("imagenet", "random"):
        raise ValueError("stage adapt starts from a trained network: set `init` to its .safetensors file")
    return [train(config, minutes)]
