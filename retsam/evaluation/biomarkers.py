"""Fidelity: biomarkers of predicted masks against those of reference masks of the same photographs.

Both masks are measured in the predicted masks' canonical frame, so that only the segmentation differs. Structures that the reference
does not draw (the disc behind zone B of a vessel data set, say) are the predicted ones on both sides; a biomarker counts only where the
reference draws what it is measured on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import measure_row
from retsam.biomarkers.fidelity import fidelity, headline
from retsam.biomarkers.registry import registry
from retsam.evaluation.reference import Reference
from retsam.evaluation.run import Predictor, predict_each, read_ahead
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks

_PLACES = ("disc", "fovea")
"""Structures that others are placed by."""
_NOT_DRAWN = ("fov", "scale", "laterality")


def into_frame(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """A native bool mask in the frame: pixels that it covers by half or more."""
    return frame.warp(mask.astype(np.uint8) * 255) >= 128


def reference_masks(found: Masks, reference: Reference) -> tuple[Masks, set[str]]:
    """Predicted masks with everything that the reference draws put in its place.

    Returns
    -------
    Masks
    set of str
        Structures that are the reference's.
    """
    planes, drawn = dict(found.planes), set()
    for target, mask in reference.masks.items():
        if target in planes and not (reference.class_only and target in ("artery", "vein")):
            planes[target] = into_frame(mask, found.frame) & found.fov
            drawn.add(target)
    fovea, confidence = found.fovea, found.fovea_confidence
    if reference.fovea is not None:
        x, y = found.frame.to_frame(reference.fovea)
        fovea, confidence = (float(x), float(y)), 1.0
        drawn.add("fovea")
    return replace(found, planes=planes, fovea=fovea, fovea_confidence=confidence), drawn


def is_drawn(needs: tuple[str, ...], drawn: set[str]) -> bool:
    """Whether the reference draws what a biomarker is measured on.

    Disc and fovea may be the predicted ones where they only place another structure; all else that the biomarker needs must be drawn.
    """
    wanted = [need.split("|") for need in needs if need not in _NOT_DRAWN]
    measured_on = [names for names in wanted if not set(names) & set(_PLACES)] or wanted
    return bool(measured_on) and all(set(names) & drawn for names in measured_on)


def measure_both(
    segmenter: Predictor,
    manifest: pd.DataFrame,
    root: str | Path,
    config: BiomarkersConfig | None = None,
    progress: bool = True,
    own_pen: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Biomarkers of every image with drawn masks, twice.

    Returns
    -------
    predicted, reference : DataFrame
        Biomarker tables with ``image_id`` (data set and path) and ``dataset``. Images that cannot be read or predicted are in neither:
        the table of scores names them and says why.
    """
    config, root = config or BiomarkersConfig(), Path(root)
    dictionary = registry(config.families)
    known = {name for names in segmenter.pens.values() for name in names}
    rows: tuple[list[dict], list[dict]] = ([], [])
    for item in tqdm(read_ahead(manifest, root, 2), total=len(manifest), unit="image", desc="biomarkers", disable=not progress):
        record = manifest.iloc[item.position]
        if item.rgb is None or not (item.reference.masks or item.reference.fovea):
            continue
        if own_pen:
            segmenter.use_pen(record["dataset"] if record["dataset"] in known else None)
        prediction = predict_each(segmenter, [item.rgb])[0]
        if isinstance(prediction, Exception):
            continue
        eye = record.get("eye") if record.get("eye") in ("R", "L") else None
        found = prediction.masks(image_id=f"{record['dataset']}:{record['image']}", eye=eye)
        truth, drawn = reference_masks(found, item.reference)
        for table, masks in zip(rows, (found, truth), strict=True):
            row = measure_row(masks, config) | {"dataset": record["dataset"]}
            for name, biomarker in dictionary.items():
                if not is_drawn(biomarker.needs, drawn):
                    row[name], row[f"{name}__reason"] = np.nan, "mask_not_given"
            table.append(row)
    return pd.DataFrame(rows[0]), pd.DataFrame(rows[1])


def score_biomarkers(
    segmenter: Predictor,
    manifest: pd.DataFrame,
    root: str | Path,
    out: str | Path,
    resamples: int,
    seed: int,
    progress: bool = True,
    own_pen: bool = False,
) -> pd.DataFrame:
    """Write ``<out>.biomarkers.csv`` (agreement of each biomarker), both tables as Parquet, and return the headline figures.

    Raises
    ------
    ValueError
        If no image of the manifest has drawn masks.
    """
    out = Path(out)
    predicted, reference = measure_both(segmenter, manifest, root, progress=progress, own_pen=own_pen)
    if predicted.empty:
        raise ValueError("no image could be measured on both a predicted and a drawn mask")
    groups = predicted.set_index("image_id")["dataset"]
    table = fidelity(predicted, reference, groups, resamples, seed)
    table.to_csv(out.with_suffix(".biomarkers.csv"), index=False)
    for name, frame in (("predicted", predicted), ("reference", reference)):
        frame.to_parquet(out.with_suffix(f".{name}.parquet"), index=False)
    return headline(table)
