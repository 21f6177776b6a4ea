"""What the settings of every training run have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A part of a settings file; an unknown name in it is an error."""

    model_config = ConfigDict(extra="forbid")


class Run(Section):
    """Data, split and length of a training run."""

    manifest: Path = Field(description="Table of photographs and masks in the form of the training data's manifest.")
    root: Path = Field(description="Folder that the manifest's paths are relative to.")
    out: Path = Field(description="Run folder: cache, checkpoint, log.")
    holdout: dict[str, float] = Field(
        default_factory=dict, description="Data sets without an official test part -> share of their groups kept out of training."
    )
    holdout_from: float = Field(
        0.0, ge=0, lt=1, description="Where the share that is kept out begins, so that other folds can be: 0, 0.2, 0.4 ... for five."
    )
    copies: list[list[str]] = Field(
        default_factory=list,
        description="Groups of photographs (`image` of the manifest) that are copies of each other under other names and groups: where one "
        "of them is trained on, those held out are not scored either, as the network has seen them.",
    )
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay of AdamW.")
    threads: int = Field(0, ge=0, description="Threads of torch; 0 takes all cores.")
    seed: int = Field(0, description="Seed of everything random; the split depends on the groups' names alone.")

    @field_validator("copies")
    @classmethod
    def _several(cls, copies: list[list[str]]) -> list[list[str]]:
        if few := [group for group in copies if len(set(group)) < 2]:
            raise ValueError(f"expected at least two photographs in each group of copies, found {few}")
        return copies

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML file; environment variables in it are expanded (regular expressions must not hold a ``$`` and a name).

        Raises
        ------
        ValueError
            Listing all faults of the file (pydantic's ``ValidationError``).
        """
        os.environ.setdefault("RETSAM_DATA", "../shared/data")
        return cls.model_validate(yaml.safe_load(os.path.expandvars(Path(path).read_text())))
