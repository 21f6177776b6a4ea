"""Which photographs of a manifest a training run kept out, whatever its manifest calls them.

A training run's split rests on names: data set, group and official split of the manifest that it was trained with. Another manifest of the
same photographs, such as a public data set's as published, has other names and other splits, so its rows are looked up in the training
manifest by the names of their files, which owners and copies have in common.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from retsam.evaluation.reference import ManifestError, read_manifest
from retsam.training.frames import held_out
from retsam.training.run import Run

SAME_PHOTOGRAPHS = {
    "rite": ("drive",),
    "drishti_gs": ("drishti",),
    "refuge": ("refuge_roi",),
    "idrid": ("idrid_seg", "idrid_grading", "idrid_native"),
}
"""Public data set -> data sets of training manifests that hold its photographs, whole or cropped, beside one of its own name."""


def sources(dataset: str, known: set[str]) -> list[str]:
    """Those of the known data sets that hold photographs of another."""
    return sorted({dataset, *SAME_PHOTOGRAPHS.get(dataset, ())} & known)


def kept_out(table: pd.DataFrame, manifest: Path, config: Run) -> tuple[pd.Series, dict[str, str]]:
    """Whether a row is kept out of a training run, and what to tell of each data set.

    Parameters
    ----------
    table : DataFrame
        As read from ``manifest``.
    manifest : Path
    config : Run
        Of the training run.

    Returns
    -------
    kept : Series of bool
    told : dict of str to str
        A sentence a data set.

    Raises
    ------
    ManifestError
        If the run's own manifest is another one and cannot be read, or names none of the photographs of a data set that it holds: then
        those that were trained on cannot be told from others.
    """
    if _same(manifest, config.manifest):
        kept = held_out(table, config)
        parts = kept.groupby(table["dataset"], sort=False)
        return kept, {str(name): f"{part.sum()} of {len(part)} photographs kept out of training" for name, part in parts}
    try:
        trained = read_manifest(config.manifest)
    except ManifestError as error:
        raise ManifestError(
            f"{error}\nThe training configuration's manifest says which photographs were trained on, {manifest} does not. Set its path "
            "(RETSAM_DATA) to the data that the weights were trained with"
        ) from error
    trained["kept"] = held_out(trained, config)
    kept, told, faults = pd.Series(True, table.index), {}, []
    for dataset, rows in table.groupby("dataset", sort=False):
        known = sources(str(dataset), set(trained["dataset"]))
        if not known:
            told[str(dataset)] = f"no data set of {config.manifest} holds its photographs; all {len(rows)} count as kept out of training"
            continue
        there = trained[trained["dataset"].isin(known)]
        taught = _names(there[~there["kept"]])
        if not _is_among(rows, _names(there)).any():
            faults.append(
                f"{dataset}: none of its {len(rows)} photographs bears the name of one of {', '.join(known)} in {config.manifest} (such as "
                f"{Path(there['image'].iloc[0]).stem}; found {Path(rows['image'].iloc[0]).stem}), so those trained on cannot be told"
            )
            continue
        kept[rows.index] = ~_is_among(rows, taught)
        left = int(kept[rows.index].sum())
        others = f"; the others bear names of photographs of {', '.join(known)} that {config.manifest} gives to training"
        told[str(dataset)] = f"{left} of {len(rows)} photographs kept out of training{others if left < len(rows) else ''}"
    if faults:
        raise ManifestError("\n".join([*faults, "If they are other photographs, score them without --held-out"]))
    return kept, told


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and (one.samefile(other) or one.read_bytes() == other.read_bytes())


def _names(rows: pd.DataFrame) -> set[str]:
    """What photographs are called: their files' stems, and their groups without the data set's name."""
    return {Path(image).stem.lower() for image in rows["image"]} | {_last(group) for group in rows["group"]}


def _is_among(rows: pd.DataFrame, names: set[str]) -> pd.Series:
    return rows["image"].map(lambda image: Path(image).stem.lower()).isin(names) | rows["group"].map(_last).isin(names)


def _last(group: object) -> str:
    return str(group).rsplit(":", 1)[-1].lower()
