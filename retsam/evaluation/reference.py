"""The labelled manifest: one row an image, and how its masks say what is where.

Columns (a missing mask means not labelled, never absent): ``dataset``, ``image`` (path relative to the root); ``split``, ``group``;
``vessel``, ``disc``, ``disc_expert2``, ``fov``: PNG, 0 or not; ``av``: 1 artery, 2 vein, 3 crossing (both), 4 uncertain;
``disc_cup``: 1 disc outside the cup, 2 cup; ``lesions``: bits 1 microaneurysm, 2 haemorrhage, 4 hard exudate, 8 cotton-wool spot;
``lesions_labelled``: which of those bits were looked for (all where not given); ``bright``: 1 exudate, 2 other bright lesion;
``fovea_x, fovea_y, od_x, od_y``: px in the stored image; ``expert_vcdr``. Training also reads ``subject_id``, ``diagnosis``,
``dr_grade`` and ``quality``. Further columns named as a target hold a mask of it, and
``has_<target>`` holds 0 or 1 for its presence anywhere in the image. ``<column>__fault`` says, as ``reason: detail``, why the file that
the column names could not be made (:func:`retsam.evaluation.public.prepare`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from retsam.segmentation.targets import TARGETS
from retsam.training.labels import LESION_BITS, lesions_looked_for, read_mask

LESIONS = tuple(name for name in LESION_BITS if name != "known")
"""Of the ``lesions`` bit mask, lowest bit first."""
MASK_COLUMNS = ("vessel", "av", "fov", "disc", "disc_expert2", "disc_cup", "lesions", "bright")
REQUIRED = ("dataset", "image")
NUMBERS = ("fovea_x", "fovea_y", "od_x", "od_y", "expert_vcdr", "lesions_labelled")
OPTIONAL = ("split", "group", *MASK_COLUMNS, *NUMBERS, "subject_id", "diagnosis", "dr_grade", "quality")
OWN_MASKS = tuple(t for t in TARGETS if t not in ("vessel", "disc", "fovea"))
"""Targets that a column of their own name may hold a mask of."""
DRAWN = (*(name for name in MASK_COLUMNS if name != "fov"), *OWN_MASKS, "fovea_x")
"""Columns of what biomarkers are measured on."""
PRESENCE = tuple(f"has_{target}" for target in TARGETS)
FAULT = "__fault"
"""Ending of a column that says why the file of another one is missing."""


class ManifestError(ValueError):
    """A manifest cannot be used; the message lists every fault."""


@dataclass
class Reference:
    """What annotators said of one image.

    Parameters
    ----------
    masks : dict of str to ndarray
        Target -> ``bool [H, W]``. ``disc_expert2`` is a second opinion on ``disc``.
    ignored : dict of str to ndarray
        Target -> pixels that do not count, where there are some.
    fov : ndarray or None
        Given field of view; scores count inside it only.
    class_only : bool
        Artery and vein masks give the class of their pixels, not the width of vessels.
    fovea, disc_centre : (x, y) or None
        px in the stored image.
    vcdr : float or None
        Vertical cup-to-disc ratio of experts.
    presence : dict of str to bool
        Target -> whether it is anywhere in the image.
    faults : list of (reason, detail)
        Masks that could not be used.
    """

    masks: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: dict[str, np.ndarray] = field(default_factory=dict)
    fov: np.ndarray | None = None
    class_only: bool = False
    fovea: tuple[float, float] | None = None
    disc_centre: tuple[float, float] | None = None
    vcdr: float | None = None
    presence: dict[str, bool] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def valid(self, target: str) -> np.ndarray | None:
        """Pixels that count for a target; None where all do."""
        ignored = self.ignored.get(target)
        if ignored is None:
            return self.fov
        return ~ignored if self.fov is None else self.fov & ~ignored

    @property
    def empty(self) -> bool:
        return not (self.masks or self.presence or self.fovea or self.disc_centre or self.vcdr is not None)


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read and check a manifest, for evaluation and training alike; all faults at once.

    Optional columns that are missing are there, and empty; photographs without a group are one by subject.

    Raises
    ------
    ManifestError
        Columns missing, no rows, rows without dataset or image, numbers that are none, presence that is not 0 or 1.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as CSV ({error})") from error
    faults = [f"no column {name!r}; found {', '.join(table.columns)}" for name in REQUIRED if name not in table.columns]
    if not len(table):
        faults.append("no rows")
    if not faults:
        empty = table.index[table[list(REQUIRED)].isna().any(axis=1)]
        faults += [f"row {i + 2}: dataset or image is empty" for i in empty]
    for name in [c for c in (*NUMBERS, *PRESENCE) if c in table.columns]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        usable, expected = (numbers.isin([0, 1]), "0 or 1") if name in PRESENCE else (numbers.notna(), "a number")
        faults += [f"row {i + 2}, {name}: {table[name][i]!r} is not {expected}" for i in table.index[~usable & table[name].notna()]]
        table[name] = numbers
    if faults:
        raise ManifestError("\n  ".join([f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''} in the manifest", *faults]))
    for name in OPTIONAL:
        if name not in table.columns:
            table[name] = np.nan if name in NUMBERS else pd.Series(np.nan, table.index, dtype=object)
    # Without a group, the photographs of a subject are one (that which some of them name), and a photograph of no one known is its own.
    table["group"] = table["group"].fillna(table.groupby(["dataset", "subject_id"])["group"].transform("first"))
    for name in ("subject_id", "image"):
        table["group"] = table["group"].fillna((table["dataset"] + ":" + table[name].astype(str)).where(table[name].notna()))
    return table


def told_fault(row, column: str) -> tuple[str, str] | None:
    """Reason and detail of a file that could not be made for a column; None where the manifest says nothing of it."""
    fault = row.get(f"{column}{FAULT}")
    if not isinstance(fault, str):
        return None
    reason, _, detail = fault.partition(": ")
    return reason, detail


def _mask(reference: Reference, row, column: str, root: Path, shape: tuple[int, int]) -> np.ndarray | None:
    name = row.get(column)
    if not isinstance(name, str):
        return None
    path = root / name
    if not path.is_file():
        reason, detail = told_fault(row, column) or ("missing_mask", f"no file {path}")
        reference.faults.append((reason, f"{column}: {detail}"))
        return None
    try:
        return read_mask(path, shape, column)
    except ValueError as error:
        reference.faults.append(("unusable_mask", f"{column}: {error}"))
        return None


def _point(row, x: str, y: str) -> tuple[float, float] | None:
    if pd.isna(row.get(x)) or pd.isna(row.get(y)):
        return None
    return float(row[x]), float(row[y])


def read_reference(row, root: Path, shape: tuple[int, int]) -> Reference:
    """Everything that a manifest's row says, decoded.

    Parameters
    ----------
    row : mapping
        Row of :func:`read_manifest`.
    root : Path
        That paths are relative to.
    shape : (int, int)
        Height and width of the image: masks must have it.

    Returns
    -------
    Reference
        Masks that are missing, unreadable or of another size stand in ``faults``.
    """
    out = Reference()
    fov = _mask(out, row, "fov", root, shape)
    out.fov = None if fov is None else fov > 0
    vessel, av = _mask(out, row, "vessel", root, shape), _mask(out, row, "av", root, shape)
    if vessel is not None:
        out.masks["vessel"] = vessel > 0
    if av is not None:
        # 3 is a crossing, both; HRF writes it for uncertain pixels too, so there the class is not known. 4 is uncertain.
        hrf = str(row["dataset"]).lower().startswith("hrf")
        unsure = (av == 4) | ((av == 3) & hrf)
        for target, value in (("artery", 1), ("vein", 2)):
            out.masks[target] = (av == value) | ((av == 3) & ~unsure)
            if unsure.any():
                out.ignored[target] = unsure
        out.class_only = not isinstance(row.get("vessel"), str)
    disc_cup = _mask(out, row, "disc_cup", root, shape)
    if disc_cup is not None:
        out.masks["disc"], out.masks["cup"] = disc_cup >= 1, disc_cup == 2
    for column in ("disc", "disc_expert2"):
        mask = _mask(out, row, column, root, shape)
        if mask is not None and column not in out.masks:
            out.masks[column] = mask > 0
    _lesions(out, row, root, shape)
    for target in OWN_MASKS:
        mask = _mask(out, row, target, root, shape)
        if mask is not None:
            out.masks[target] = mask > 0
    for target in TARGETS:
        if not pd.isna(row.get(f"has_{target}")):
            out.presence[target] = float(row[f"has_{target}"]) > 0
    out.fovea, out.disc_centre = _point(row, "fovea_x", "fovea_y"), _point(row, "od_x", "od_y")
    out.vcdr = None if pd.isna(row.get("expert_vcdr")) else float(row["expert_vcdr"])
    return out


def _lesions(out: Reference, row, root: Path, shape: tuple[int, int]) -> None:
    lesions = _mask(out, row, "lesions", root, shape)
    if lesions is not None:
        labelled = lesions_looked_for(row)
        for target in LESIONS:
            if labelled & LESION_BITS[target]:  # a bit that is nowhere set says: absent from this image
                out.masks[target] = (lesions & LESION_BITS[target]) > 0
                out.presence[target] = bool(out.masks[target].any())
    bright = _mask(out, row, "bright", root, shape)
    if bright is not None:
        out.masks["hard_exudate"] = bright == 1
        out.presence["hard_exudate"] = bool((bright == 1).any())
