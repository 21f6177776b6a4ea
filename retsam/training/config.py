"""Settings of a training run, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from retsam.training.run import Run, Section

_ONLY_FOR = {
    "pen": ("vessels",),
    "skeleton": ("vessels",),
    "paste": ("lesions_dr",),
    "mine": ("lesions_dr",),
    "negatives": ("lesions_dr",),
    "roi": ("optic_nerve",),
}
"""Option of a task -> tasks for which it does something."""


class Finish(Section):
    """Crops of the last part of a run, nearer to what prediction meets.

    Hard augmentation carries a network to other cameras, and leaves it a blurred answer: what tells arteries from veins is the first
    that blur and compression take away.
    """

    scale: tuple[float, float] = Field(description="In place of the task's `scale`.")
    degrade: float = Field(ge=0, le=1, description="In place of the task's `degrade`.")


class TaskConfig(Section):
    """How one task is trained."""

    share: float = Field(1.0, gt=0, description="Share of the steps spent on this task, relative to the others.")
    datasets: dict[str, float] = Field(description="Data set of the manifest -> its weight in the draw.")
    negatives: dict[str, float] = Field(
        default_factory=dict, description="Data sets whose healthy photographs teach that a lesion is absent -> weight."
    )
    negatives_limit: int = Field(120, ge=1, description="Healthy photographs of each data set at most: they only fill the cache.")
    crop: int = Field(480, multiple_of=32, description="Side of a training crop, px; of close-ups only where `roi` is 1.")
    batch: int = Field(3, ge=1, description="Crops a step.")
    frame: int = Field(1024, description="Side of the canonical frame at which the task works, px.")
    scale: tuple[float, float] = Field((0.7, 1.5), description="Range of the random magnification.")
    rotation: float = Field(180.0, description="Largest random rotation, degrees.")
    roi: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the crops centred on the disc at the scale of the refinement pass; with 1, `scale` is relative to that.",
    )
    large: float = Field(
        0.0, ge=0, lt=1, description="Share of the task's steps on photographs with more detail than `frame`, in the frame for large ones."
    )
    degrade: float = Field(
        1.0, ge=0, le=1, description="Factor on how often crops are blurred, enlarged from a small copy, made noisy or recompressed."
    )
    pen: float = Field(
        0.0, ge=0, le=1, description="Share of the crops answered in the pen of their data set, the rest without; `vessels` only."
    )
    skeleton: float = Field(
        0.0, ge=0, description="Weight of the share of the vessels' centrelines that is missed: a lost twig costs what its length is."
    )
    mine: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the crops of healthy photographs that are centred where `init`, a weights file with its card, shows a "
        "lesion; `lesions_dr` only.",
    )
    paste: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the crops that get lesions of another photograph put onto them; `lesions_dr` only. It raises overlap on "
        "drawn photographs, and what healthy eyes show: judge it by both (`benchmarks/healthy_eyes.py`).",
    )
    finish: Finish | None = Field(None, description="Milder crops for the run's last part, in which the rate falls; none keeps them.")


class TrainConfig(Run):
    """A training run; one file a stage."""

    stage: Literal["experts", "unify", "adapt"] = Field(
        "unify", description="experts: one network a task; unify: all tasks in one network, pseudo-labels joined; adapt: tune on your data."
    )
    init: str = Field("imagenet", description="`imagenet`, `random`, or a weights file (.safetensors) to start from.")
    tasks: dict[str, TaskConfig] = Field(description="Tasks to train.")
    pseudo_labels: Path | None = Field(None, description="Folder written by `retsam train pseudo-label`; joined with a lower weight.")
    pseudo_weight: float = Field(0.3, gt=0, lt=1, description="Weight of a pseudo-labelled crop's loss.")
    pseudo_share: float = Field(0.5, gt=0, description="Steps on pseudo-labels relative to the steps on drawn vessels.")
    only: list[str] = Field(
        default_factory=list,
        description="Tune the decoders of these tasks and leave every other tensor of `init`, a shipped weights file, bit by bit as it is.",
    )
    own_trunk: bool = Field(
        False,
        description="The tasks, all those of one view, get a trunk of their own, which starts from that of `init`, a shipped weights file; "
        "everything else of that file stays bit by bit as it is. `optic_nerve` with a `roi` of 1 is the view of close-ups, which also "
        "gets a decoder of its own.",
    )
    keep: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="With `own_trunk`: share of `init` in the exported weights, the rest is the run's. Weights between a network and "
        "what further training made of it are often better than either (Wortsman et al. 2022).",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    encoder_rate: float = Field(0.5, gt=0, description="Learning rate of the trunk relative to the decoders.")
    frozen: int = Field(3, ge=0, description="Blocks of the trunk, stem included, that stay as they are; 3 saves a third of a step.")
    steps: int = Field(6000, ge=1, description="Steps in all; the rate is constant after the warm-up and falls over the last part.")
    warmup: int = Field(200, ge=0, description="Steps of linear warm-up.")
    cooldown: float = Field(0.3, ge=0, le=1, description="Last share of the steps over which the rate falls to zero.")
    ema: float = Field(0.998, ge=0, lt=1, description="Decay of the moving average of the weights, which is what ships.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    loaders: int = Field(1, ge=1, description="Background threads that cut and augment crops.")

    @model_validator(mode="after")
    def _does_something(self) -> TrainConfig:
        """Refuse an option where it would do nothing; all such at once."""
        idle = [
            f"{task}.{option} (it is for {', '.join(tasks)} only)"
            for task, settings in self.tasks.items()
            for option, tasks in _ONLY_FOR.items()
            if getattr(settings, option) and task not in tasks
        ]
        if idle:
            raise ValueError(f"tasks: these options would do nothing, take them out: {'; '.join(idle)}")
        if self.init in ("imagenet", "random") and any(settings.mine for settings in self.tasks.values()):
            raise ValueError(f"mine: expected `init` to be a weights file with its card, which shows lesions; found {self.init}")
        return self

    @property
    def pens(self) -> dict[str, list[str]]:
        """Task -> names of its pens, the data sets that it learns from."""
        return {task: sorted(settings.datasets) for task, settings in self.tasks.items() if settings.pen}
