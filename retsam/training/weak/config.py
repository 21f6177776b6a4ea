"""Settings of the weak heads' training, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from retsam.segmentation.targets import TASK_OF
from retsam.training.run import Run, Section

ZONES = ("fov", "macula", "rim", "off_disc")
"""Where a word's lesion lies: anywhere; within 2.2 disc diameters of the fovea; around the disc; anywhere but on it."""


class Rule(Section):
    """What a data set's text says of a word: matched in the order present, unclear, absent; what matches none is unclear."""

    dataset: str = Field(description="Data set of the manifest.")
    column: str = Field("keywords", description="Column with the text.")
    present: str = Field("(?!)", description="Regular expression: the lesion is there.")
    unclear: str = Field("(?!)", description="Regular expression: it may be there; the photograph teaches nothing about it.")
    absent: str = Field("", description="Regular expression: it is not there. The empty one matches every text.")


class Word(Section):
    """A word about whole photographs, and the targets whose masks it speaks of."""

    targets: tuple[str, ...] = Field(description="Targets; a word that speaks of several is present where any of them is.")
    rules: list[Rule] = Field(default_factory=list, description="One a data set; none where the head learns from painted lesions only.")
    zone: Literal["fov", "macula", "rim", "off_disc"] = Field("fov", description="Where the lesion lies.")
    least: float = Field(0.01, gt=0, lt=1, description="Share of the zone that a photograph with the word shows at least.")
    most: float = Field(0.2, gt=0, lt=1, description="Share of the zone that it shows at most.")
    weight: float = Field(1.0, gt=0, description="Of this word's loss.")
    draw: float = Field(1.0, gt=0, description="How often its photographs are drawn, relative to the other words'.")


class Outline(Section):
    """Coarse outlines of a target in a data set that taught no weak head: a check of place, beside that of area."""

    dataset: str = Field(description="Data set of the manifest.")
    column: str = Field(description="Column with the index masks.")
    value: int = Field(ge=1, description="Index of the target in them.")


class WeakConfig(Run):
    """A training run of the weak heads."""

    stage: Literal["weak"] = "weak"
    base: Path = Field(description="Weights (.safetensors) whose trunk is used, frozen.")
    init: Path | None = Field(None, description="Heads (`weak.safetensors`) of an earlier run on the same trunk to begin with.")
    tuning: float = Field(0.2, ge=0, lt=1, description="Share of the training groups that set the thresholds and are not trained on.")
    healthy: list[Rule] = Field(description="Photographs to paint lesions on: those that `present` matches.")
    negatives: dict[str, int] = Field(description="Data set -> photographs without any of the words at most.")
    words: dict[str, Word] = Field(description="Words, by name.")
    painted: dict[str, int] = Field(default_factory=dict, description="Target -> photographs with painted lesions of it.")
    versions: int = Field(2, ge=1, description="Augmented copies of a photograph with a word.")
    rare: int = Field(60, ge=0, description="Words with fewer photographs get twice the copies.")
    batch: int = Field(12, ge=4, description="Photographs a step: half with a word, a quarter each without and painted.")
    steps: int = Field(1200, ge=1, description="Steps in all.")
    warmup: int = Field(150, ge=0, description="First steps, on painted lesions and photographs without words only.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW; a cosine to zero follows the warm-up.")
    ema: float = Field(0.99, ge=0, lt=1, description="Decay of the moving average of the weights, which is what ships.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    outlines: dict[str, Outline] = Field(default_factory=dict, description="Target -> outlines that its masks are compared with.")
    judged: int = Field(500, ge=1, description="Held-out photographs of a data set without any of the words that are judged at most.")
    most_healthy: float = Field(
        0.1, gt=0, le=1, description="Share of the healthy training eyes in which a head may show anything: thresholds keep under it."
    )
    least_auc: float = Field(0.75, ge=0.5, le=1, description="A head whose area under the curve is lower ships as not available.")

    @model_validator(mode="after")
    def _known(self) -> WeakConfig:
        named = [t for word in self.words.values() for t in word.targets] + list(self.painted)
        if unknown := sorted({t for t in named if t not in TASK_OF}):
            raise ValueError(f"targets {unknown} are not in the taxonomy")
        if silent := [name for name, word in self.words.items() if not word.rules and not set(word.targets) & set(self.painted)]:
            raise ValueError(f"words {silent} have neither rules nor painted lesions: nothing teaches them")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets with a head, in the order of the outputs: by task, then as the words name them."""
        return tuple(t for targets in self.branches.values() for t in targets)

    @property
    def branches(self) -> dict[str, tuple[str, ...]]:
        """Task -> its targets."""
        out: dict[str, list[str]] = {}
        for target in dict.fromkeys([t for word in self.words.values() for t in word.targets]):
            out.setdefault(TASK_OF[target], []).append(target)
        return {task: tuple(targets) for task, targets in out.items()}
