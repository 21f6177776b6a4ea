"""Settings of the quality room. They act in ``retsam quality grade`` only, never in ``retsam quality metrics``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class QualityConfig(BaseModel):
    """Where gradable, usable and reject begin. Whatever the thresholds, at most usable are photographs without a round rim of the field of
    view (`no_rim`: crops, montages), with a second lit field (`several_fields`), or with a quarter of the field white (`overexposed`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reject_above: float = Field(0.5, ge=0, le=1, description="Probability of being a reject from which a photograph is rejected.")
    gradable_above: float = Field(
        0.5, ge=0, le=1, description="Probability of being gradable from which a photograph is gradable; between the two it is usable."
    )
    not_fundus_above: float = Field(
        0.15, ge=0, le=1, description="Probability of not showing a retina from which a photograph is rejected as such (`not_a_fundus`)."
    )
    min_diameter_px: int = Field(
        256,
        ge=1,
        description="Diameter of the field of view, in native pixels, below which a photograph is noted as `low_resolution`. "
        "It is not rejected for that: each biomarker has a floor of its own.",
    )
    reject_diameter_px: int = Field(
        128, ge=1, description="Diameter of the field of view below which a photograph is rejected (`too_small`)."
    )
    min_coverage: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Share of the field of view's circle that must lie inside the picture; below it, at most usable (`cut_off`).",
    )
    duplicates: Literal["content", "near", "keep"] = Field(
        "content",
        description="`content`: photographs with the same pixels count once, the first in the cohort's order is kept. `near`: so do "
        "resized and recompressed copies, of which the one with the best grade is kept, then the one with the largest field of view in "
        "pixels, then the first. `keep`: duplicates are named but kept.",
    )
    near_distance: int = Field(24, ge=0, le=48, description="Bits of 256 in which the perceptual hashes of two near-duplicates may differ.")

    @model_validator(mode="after")
    def _possible(self) -> QualityConfig:
        if self.reject_diameter_px > self.min_diameter_px:
            raise ValueError(f"reject_diameter_px ({self.reject_diameter_px}) is above min_diameter_px ({self.min_diameter_px})")
        return self
