"""Settings of segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retsam.segmentation.targets import PEAK, PEAKED, TARGETS


class SegmentationConfig(BaseModel):
    """Which weights segment a study, on what, and how."""

    model_config = ConfigDict(extra="forbid")

    weights: Path | None = Field(
        None, description="Weights file (.safetensors, with its model card .json beside it); null takes the shipped ones."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU where there is one.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="`auto` takes bfloat16 where the processor computes it natively, else float32, and says which."
    )
    batch_size: int = Field(1, ge=1, description="Photographs a pass. 1 is fastest on CPU; 8 to 16 on a GPU.")
    threads: int = Field(
        0,
        ge=0,
        description="Threads of torch on CPU; 0 takes all cores, in the workflow one a job, since it segments several shards at a time.",
    )
    workers: int = Field(2, ge=1, description="Threads that read and resample photographs ahead of the network.")
    flips: Literal["auto"] | bool = Field(
        "auto",
        description="Average the prediction over a mirrored copy: slightly better masks, twice the time. `auto` does so for fovea and the "
        "disc's close-up of photographs with detail enough to measure vessels (over 515 px across the field), and averages vessels and "
        "lesions of those over looks at two or three sizes that fit their detail, one of them mirrored.",
    )
    pen: str | None = Field(
        None,
        description="Draw vessels as the annotators of one training data set did (the weights' card lists them under `pens`): to compare "
        "with a study whose masks were drawn so, with thresholds of unbiased length and area. null draws in no "
        "one's pen. Every photograph of a study is drawn in the same pen.",
    )
    unbiased: bool = Field(
        False,
        description="In no one's pen, cut vessels at the thresholds of unbiased length and area over all training data sets instead of "
        "those of the best overlap: thinner trunks, more twigs. A pen's thresholds are always so.",
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        description="Probability threshold of a target, over the model card's own; `vessel_twigs` is that of faint vessels, and "
        "`microaneurysm_peak` what a microaneurysm must reach somewhere to count (likewise of hemorrhage, hard_exudate, cotton_wool_spot). "
        "Arteries and veins are parts of the vessels and have none, nor has the fovea, which is a point.",
    )

    @field_validator("thresholds")
    @classmethod
    def _of_targets(cls, thresholds: dict[str, float]) -> dict[str, float]:
        """A threshold that nothing would heed is a fault, not a setting."""
        without = {"artery": "it is a part of the vessels: set `vessel`", "vein": "it is a part of the vessels: set `vessel`"}
        without["fovea"] = "it is a point"
        faults = [f"{name} has no threshold: {why}" for name, why in without.items() if name in thresholds]
        known = [*(name for name in TARGETS if name not in without), "vessel_twigs", *(name + PEAK for name in PEAKED)]
        faults += [f"{name} is no target; there are {', '.join(known)}" for name in thresholds if name not in (*known, *without)]
        faults += [f"{name} is {value}, expected 0 to 1" for name, value in thresholds.items() if not 0 <= value <= 1]
        if faults:
            raise ValueError("; ".join(faults))
        return thresholds
