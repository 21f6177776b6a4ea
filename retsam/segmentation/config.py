"""Settings of segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    threads: int = Field(0, ge=0, description="Threads of torch on CPU; 0 takes all cores.")
    workers: int = Field(2, ge=1, description="Threads that read and resample photographs ahead of the network.")
    flips: Literal["auto"] | bool = Field(
        "auto",
        description="Average the prediction over a mirrored copy: slightly better masks, twice the time. `auto` does so for vessels, "
        "lesions, fovea and the disc's close-up of photographs with detail enough to measure vessels (over 515 px across the field).",
    )
    pen: str | None = Field(
        None,
        description="Draw vessels as the annotators of one training data set did (the weights' card lists them under `pens`): to compare "
        "with a study whose masks were drawn so. null draws in no one's pen. Every photograph of a study is drawn in the same pen.",
    )
    thresholds: dict[str, float] = Field(default_factory=dict, description="Probability threshold of a target, over the model card's own.")
