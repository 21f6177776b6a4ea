"""What a biomarker is, why one can be missing, and the one dictionary of them all.

Each family of biomarkers (``vessels``, ``optic_nerve``, ``macula``, ``phenotypes``, ``lesions``, ...) is a module with a
``DICTIONARY``: a list of :class:`Biomarker`. :func:`registry` joins them. Columns, documentation, hover texts of the report and
``docs/biomarkers.json`` are all made from it, so that a definition is written down once.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache

from retsam.biomarkers.config import DISC_FLOOR_PX, RESOLUTION_FLOORS

#: Families in the order of the columns, and the module that holds each one's ``DICTIONARY``.
FAMILIES: dict[str, str] = {
    "image": "retsam.biomarkers.image",
    "vessels": "retsam.biomarkers.vessels",
    "optic_nerve": "retsam.biomarkers.optic_nerve",
    "macula": "retsam.biomarkers.macula",
    "phenotypes": "retsam.biomarkers.phenotypes",
    "lesions": "retsam.biomarkers.lesions",
}

#: Reason codes of missing values, each with the sentence that documentation and report show.
REASONS: dict[str, str] = {
    "no_fov": "The field of view is empty, so nothing can be measured.",
    "no_disc": "No optic disc was found in the photograph.",
    "disc_too_small": "The disc mask is too small (a few pixels) to be an optic disc.",
    "disc_cut_off": "The optic disc is cut by the edge of the field of view.",
    "disc_implausible": "The disc mask has no shape an optic disc can have.",
    "no_cup": "No optic cup was found inside the disc.",
    "no_fovea": "No fovea was found, or its confidence was below the configured minimum.",
    "fovea_implausible": "Disc and fovea lie at a distance that no eye has, so one of the two is wrong.",
    "laterality_unknown": "Neither the table nor disc and fovea say whether this is a right or a left eye.",
    "laterality_conflict": "The table calls it the other eye than disc and fovea do, so which way is up cannot be told.",
    "no_scale": "Neither a pixel size nor a disc is known, so lengths cannot be given in micrometres.",
    "scale_from_disc": "The scale was taken from the disc itself, so the disc's own size in micrometres would say nothing.",
    "zone_outside_fov": "Too little of the region lies inside the photograph's field of view.",
    "too_few_vessels": "Fewer vessels (or branches, or crossings) than the definition needs.",
    "none_present": "The structure whose property this is does not occur in the eye (for example: shape of zero lesions).",
    "resolution_too_low": "The photograph has too few pixels for this biomarker.",
    "head_not_available": "The segmentation model has no head for a structure that this biomarker needs.",
    "mask_not_given": "The table of masks has no mask of a structure that this biomarker needs.",
    "not_defined": "The quantity is mathematically undefined for these masks (for example: a division by zero).",
    "out_of_range": "The value lies outside its possible range, so a mask is wrong.",
    "quality_reject": "The photograph was rejected by quality control.",
    "image_failed": "The photograph could not be read or segmented.",
    "measurement_failed": "The measurement stopped on an error; the column `detail` says which.",
}


@dataclass(frozen=True)
class Null:
    """A biomarker that could not be measured, and why.

    Parameters
    ----------
    reason : str
        One of the codes of :data:`REASONS`.
    """

    reason: str

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"unknown reason code {self.reason!r}; expected one of {', '.join(REASONS)}")


@dataclass(frozen=True)
class Biomarker:
    """One column of the biomarker table.

    Parameters
    ----------
    name : str
        Column name; the unit is its suffix where it has one (``_px``, ``_dd``, ``_um``, ``_deg``...).
    family : str
        Key of :data:`FAMILIES`.
    definition : str
        What is measured, in one or two sentences, exact enough to compute it by.
    unit : str
        ``"1"`` for dimensionless, else the unit (``px``, ``DD``, ``um``, ``mm2``, ``deg``, ``count``...).
    source : str
        Paper of the definition, empty if the definition is ours.
    needs : tuple of str
        Mask names of the taxonomy (``artery``, ``disc``...) and any of ``fov``, ``fovea``, ``scale``, ``laterality``.
        Alternatives are written ``"artery|vessel"``.
    valid_range : tuple of float
        Lowest and highest possible value; a value outside is a failed measurement, not an extreme eye.
    direction : str
        What a higher value means, in words.
    structure, region : str
        What it is measured on (``artery``, ``disc``, ``drusen``...) and where (``whole``, ``zone_b``, ``macula_6mm``...).
    resolution : str
        Key of ``BiomarkersConfig.min_fov_diameter_px``: which demand on the photograph's pixels it makes; empty for none.
    least_disc : bool
        It also demands a disc of ``BiomarkersConfig.min_disc_diameter_px``.
    """

    name: str
    family: str
    definition: str
    unit: str = "1"
    source: str = ""
    needs: tuple[str, ...] = ()
    valid_range: tuple[float, float] = (-math.inf, math.inf)
    direction: str = ""
    structure: str = ""
    region: str = "whole"
    resolution: str = ""
    least_disc: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"biomarker {self.name!r}: unknown family {self.family!r}; expected one of {', '.join(FAMILIES)}")

    @property
    def scale_free(self) -> bool:
        """Whether the value should not move when the same eye is photographed with other pixels."""
        return not self.unit.startswith("px")

    @property
    def resolution_floor(self) -> int | None:
        """Least diameter of the field of view (native px, as shipped) below which it is null with `resolution_too_low`; None for none."""
        return RESOLUTION_FLOORS[self.resolution] if self.resolution else None

    @property
    def disc_floor(self) -> float | None:
        """Least diameter of the disc (native px, as shipped) below which it is null with `resolution_too_low`; None for none."""
        return DISC_FLOOR_PX if self.least_disc else None

    def to_dict(self) -> dict[str, object]:
        """Plain types, for JSON: infinite bounds become None."""
        plain = asdict(self) | {"resolution_floor": self.resolution_floor, "disc_floor": self.disc_floor}
        del plain["least_disc"]
        plain["needs"] = list(self.needs)
        plain["valid_range"] = [None if math.isinf(bound) else bound for bound in self.valid_range]
        return plain


def index(biomarkers: Iterable[Biomarker]) -> dict[str, Biomarker]:
    """Biomarkers by name.

    Raises
    ------
    ValueError
        If two share a name, or a name is not a plain lower-case identifier.
    """
    found: dict[str, Biomarker] = {}
    for biomarker in biomarkers:
        if biomarker.name in found:
            raise ValueError(f"two biomarkers are named {biomarker.name!r}")
        if not biomarker.name.isidentifier() or biomarker.name != biomarker.name.lower():
            raise ValueError(f"biomarker name {biomarker.name!r}: expected lower-case letters, digits and underscores")
        found[biomarker.name] = biomarker
    return found


@cache
def registry(families: tuple[str, ...] = tuple(FAMILIES), extra: bool = False) -> Mapping[str, Biomarker]:
    """Biomarkers by name, in the order of the columns.

    Parameters
    ----------
    families : tuple of str
        All by default.
    extra : bool
        Also those that a module lists in ``EXTRA_DICTIONARY`` (measured on request only).

    Returns
    -------
    dict of str to Biomarker
    """
    everything: list[Biomarker] = []
    for family, module in FAMILIES.items():
        if family not in families:
            continue
        loaded = importlib.import_module(module)
        for biomarker in (*loaded.DICTIONARY, *(getattr(loaded, "EXTRA_DICTIONARY", ()) if extra else ())):
            if biomarker.family != family:
                raise ValueError(f"{module}: biomarker {biomarker.name!r} says family {biomarker.family!r}, expected {family!r}")
            everything.append(biomarker)
    return index(everything)
