"""Settings of the biomarkers room."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

#: Diameter in micrometres of the retina in a 45-degree photograph: 0.293 mm a degree, an eye of 24.3 mm (Bennett 1994).
FIELD_45_DEGREES_UM = 13_200.0

#: See ``BiomarkersConfig.min_fov_diameter_px``. Each figure is (micrometres of the smallest structure that counts) /
#: (pixels it must span) = the coarsest pixel allowed; 13,200 um / that pixel = the field's diameter in pixels.
#: What they are worth: docs/benchmarks/resolution.md.
RESOLUTION_FLOORS: dict[str, int] = {
    # An arteriole of CRAE size, 150 um, must span 6 px, so that half a pixel of edge error stays under 9 %: 25 um/px.
    "calibre": 528,
    # Presence and course of vessels: a 60 um vessel must span 2 px to be drawn without gaps: 30 um/px.
    "density": 440,
    # Curvature of a centreline: where its median error falls to that of a calibre's edge (5 % at 540 px, 9 % at 400): 25 um/px.
    "tortuosity": 528,
    # Microaneurysms, 60 um at the median, must span 2 px: 30 um/px.
    "microlesion": 440,
    # Size classes at 63 um: the class border must span 3 px: 21 um/px.
    "drusen_size": 628,
    # Areas and positions of lesions and phenotypes of 0.1 mm and more: 50 um/px.
    "area": 264,
}


#: See ``BiomarkersConfig.min_disc_diameter_px``.
DISC_FLOOR_PX = 12.0


class BiomarkersConfig(BaseModel):
    """How biomarkers are measured: families, scale, what is too little to measure on, and where the work runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    families: tuple[str, ...] = Field(
        ("image", "vessels", "optic_nerve", "macula", "phenotypes", "lesions"),
        description="Families of biomarkers to measure, in any order.",
    )
    um_per_dd: float = Field(
        1800.0,
        ge=500,
        le=5000,
        description="Diameter of the optic disc in micrometres: the scale where neither the table nor the DICOM header gives a pixel size.",
    )
    min_zone_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Least share of a zone inside the field of view; below it the zone's biomarkers are null (`zone_outside_fov`).",
    )
    min_calibre_zone_share: float = Field(
        0.85,
        ge=0,
        le=1,
        description="Least share of zone B inside the field of view for CRAE, CRVE and their ratio (`zone_outside_fov`); "
        "where the photograph cuts off more, its widest vessels may be missing.",
    )
    min_fovea_confidence: float = Field(
        0.2, ge=0, le=1, description="Fovea positions with a lower confidence are treated as not found (`no_fovea`)."
    )
    fovea_distance_dd: tuple[float, float] = Field(
        (1.2, 5.0),
        description="Disc-to-fovea distances, in disc diameters, that an eye can have; outside them the fovea is not used.",
    )
    min_disc_diameter_px: float = Field(
        DISC_FLOOR_PX,
        gt=0,
        description="Least disc diameter, in native pixels, for measures of disc, cup and rim (a 0.05 step of cup-to-disc ratio is then "
        "0.6 px); below it they are null (`resolution_too_low`), but for where disc and fovea lie to each other.",
    )
    min_fov_diameter_px: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: dict(RESOLUTION_FLOORS),
        description="Least diameter of the field of view in native pixels, by kind of biomarker; below it: `resolution_too_low`.",
    )
    laterality_conflict: Literal["null", "table", "image"] = Field(
        "null",
        description="What to do where the table's eye and the positions of disc and fovea disagree (flagged in any case). `null` leaves "
        "empty what needs to know which way is up (sectors, quadrants, ETDRS fields); `table` is right for photographs turned by 180 "
        "degrees; `image` for wrong entries of the table and for mirrored files.",
    )
    extra_tortuosity: bool = Field(False, description="Also report Hart's tau2, tau3, tau6 and tau7.")
    scheduler: str = Field(
        "processes",
        pattern=r"^(synchronous|threads|processes|(tcp|tls|ucx|ws|wss)://.+:[0-9]+|inproc://.+)$",
        description="Where images are measured: `processes` or `threads` (a Dask cluster on this machine), `synchronous` (in this process) "
        "or the address of a Dask scheduler (`tcp://host:port`). The answer is the same on all.",
    )
    workers: int = Field(
        0,
        ge=0,
        description="Workers on this machine; 0 means one a CPU core, in the workflow one a job, since it measures several shards at once. "
        "With one, no cluster is started.",
    )
    images_per_task: int = Field(16, ge=1, description="Images a task reads and measures at a time; bounds the memory of a worker.")

    @field_validator("families")
    @classmethod
    def _known_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        from retsam.biomarkers.registry import FAMILIES

        unknown = sorted(set(families) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown families {', '.join(unknown)}; expected some of {', '.join(FAMILIES)}")
        if not families:
            raise ValueError(f"no family, so nothing would be measured; expected some of {', '.join(FAMILIES)}")
        return tuple(family for family in FAMILIES if family in families)

    @field_validator("fovea_distance_dd")
    @classmethod
    def _in_order(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        low, high = bounds
        if not 0 <= low < high:
            raise ValueError(f"expected two distances, 0 or more, the lower one first; with {low:g} to {high:g} no fovea would be used")
        return bounds

    @field_validator("min_fov_diameter_px")
    @classmethod
    def _known_kinds(cls, floors: dict[str, int]) -> dict[str, int]:
        unknown = sorted(set(floors) - set(RESOLUTION_FLOORS))
        if unknown:
            raise ValueError(f"unknown kinds {', '.join(unknown)}; expected some of {', '.join(RESOLUTION_FLOORS)}")
        return {**RESOLUTION_FLOORS, **floors}
