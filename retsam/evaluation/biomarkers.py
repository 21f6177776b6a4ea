"""Fidelity: biomarkers of predicted masks against those of reference masks of the same photographs.

Both masks are measured in one way, so that only the segmentation differs: in the predicted masks' canonical frame, inside the reference's
field of view where one is given. Structures that the reference does not draw (the disc behind zone B of a vessel data set, say) are the
predicted ones on both sides; a biomarker counts only where the reference draws what it is measured on. Vessels that the reference draws
without saying whether they are artery or vein are in neither plane of either side: not labelled is not absent. Where the photograph cuts
zone B, both sides lose the same vessels, so central equivalents are compared down to half a zone (:data:`CONFIG`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import measure_row
from retsam.biomarkers.fidelity import MIN_PAIRS, fidelity, headline, summary
from retsam.biomarkers.registry import registry
from retsam.evaluation.reference import Reference
from retsam.evaluation.run import Predictor, predict_each, read_ahead
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks

_PLACES = ("disc", "fovea")
"""Structures that others are placed by."""
_NOT_DRAWN = ("fov", "scale", "laterality")
CONFIG = BiomarkersConfig(min_calibre_zone_share=0.5)
"""How both masks are measured."""
# A predicted vessel pixel is the drawn vessel's that lies nearest, up to so far (frame px).
_REACH = 6.0
_SLIVER = 2.0


def into_frame(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """A native bool mask in the frame: pixels that it covers by half or more."""
    return frame.warp(mask.astype(np.uint8) * 255) >= 128


def masks_to_compare(found: Masks, reference: Reference) -> tuple[Masks, Masks, set[str]]:
    """Predicted masks and the same with everything that the reference draws put in its place, both fit to be compared.

    Returns
    -------
    predicted, drawn : Masks
    set of str
        Structures of ``drawn`` that are the reference's.
    """
    fov = found.fov if reference.fov is None else found.fov & into_frame(reference.fov, found.frame)
    planes = {name: plane & fov for name, plane in found.planes.items()}
    predicted, drawn, own = dict(planes), dict(planes), set()
    for target, mask in reference.masks.items():
        if target in planes and not (reference.class_only and target in ("artery", "vein")):
            drawn[target] = into_frame(mask, found.frame) & fov
            own.add(target)
    if {"artery", "vein"} <= own:
        open_class = _without_class(found.frame, reference, drawn)
        for side, name in ((side, name) for side in (predicted, drawn) for name in ("artery", "vein")):
            side[name] = side[name] & ~open_class
    fovea, confidence = found.fovea, found.fovea_confidence
    if reference.fovea is not None:
        x, y = found.frame.to_frame(reference.fovea)
        fovea, confidence = (float(x), float(y)), 1.0
        own.add("fovea")
    return (
        replace(found, planes=predicted, fov=fov),
        replace(found, planes=drawn, fov=fov, fovea=fovea, fovea_confidence=confidence),
        own,
    )


def _without_class(frame: Frame, reference: Reference, drawn: dict[str, np.ndarray]) -> np.ndarray:
    """Where the nearest drawn vessel has no class: pixels marked as uncertain, and vessels in neither the artery nor the vein mask."""
    unsure = np.zeros_like(drawn["artery"])
    for target in ("artery", "vein"):
        if target in reference.ignored:
            unsure |= into_frame(reference.ignored[target], frame)
    classed = (drawn["artery"] | drawn["vein"]) & ~unsure
    open_class = unsure
    if "vessel" in reference.masks:
        # Two masks of one vessel, drawn apart, differ by slivers along its edges: those are no vessels without a class.
        bare = drawn["vessel"] & ~classed
        apart = (bare & ~_within(classed, _SLIVER)).astype(np.uint8)
        open_class = unsure | (bare & (cv2.dilate(apart, np.ones((7, 7), np.uint8)) > 0))
    if not open_class.any():
        return open_class
    return _within(open_class, _REACH) & (_distance(open_class) < _distance(classed))


def _distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel from a mask, px."""
    return cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _within(mask: np.ndarray, reach: float) -> np.ndarray:
    return _distance(mask) <= reach if mask.any() else np.zeros_like(mask)


def is_drawn(needs: tuple[str, ...], drawn: set[str]) -> bool:
    """Whether the reference draws what a biomarker is measured on.

    Disc and fovea may be the predicted ones where they only place another structure; all else that the biomarker needs must be drawn.
    """
    wanted = [need.split("|") for need in needs if need not in _NOT_DRAWN]
    measured_on = [names for names in wanted if not set(names) & set(_PLACES)] or wanted
    return bool(measured_on) and all(set(names) & drawn for names in measured_on)


def compare_rows(found: Masks, reference: Reference, config: BiomarkersConfig = CONFIG) -> tuple[dict, dict]:
    """Rows of the biomarker table of the predicted and of the drawn masks; what the reference does not draw is null in both."""
    predicted, drawn, own = masks_to_compare(found, reference)
    rows = measure_row(predicted, config), measure_row(drawn, config)
    for row in rows:
        for name, biomarker in registry(config.families).items():
            if not is_drawn(biomarker.needs, own):
                row[name], row[f"{name}__reason"] = np.nan, "mask_not_given"
    return rows


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
        Biomarker tables with ``image_id`` (data set and path), ``dataset`` and ``group``. Images that cannot be read or predicted are in
        neither: the table of scores names them and says why.
    """
    config, root = config or CONFIG, Path(root)
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
        for table, row in zip(rows, compare_rows(found, item.reference, config), strict=True):
            table.append(row | {"dataset": record["dataset"], "group": record["group"]})
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
    """Write what the predicted masks' biomarkers are worth, and return the headline figures.

    ``<out>.biomarkers.csv``: agreement of each biomarker; ``<out>.fidelity.json``: the headline, for the model card;
    ``<out>.predicted.parquet`` and ``<out>.reference.parquet``: both tables.

    Raises
    ------
    ValueError
        If no image could be measured on both masks.
    """
    out = Path(out)
    predicted, reference = measure_both(segmenter, manifest, root, progress=progress, own_pen=own_pen)
    if predicted.empty:
        raise ValueError("no image could be measured on both a predicted and a drawn mask")
    if len(predicted) < MIN_PAIRS:
        raise ValueError(f"agreement needs at least {MIN_PAIRS} photographs with drawn masks, found {len(predicted)}")
    groups, subjects = (predicted.set_index("image_id")[name] for name in ("dataset", "group"))
    table = fidelity(predicted, reference, groups, resamples, seed, subjects)
    table.to_csv(out.with_suffix(".biomarkers.csv"), index=False)
    for name, frame in (("predicted", predicted), ("reference", reference)):
        frame.to_parquet(out.with_suffix(f".{name}.parquet"), index=False)
    figures = headline(predicted, reference, groups, resamples, seed, subjects=subjects)
    out.with_suffix(".fidelity.json").write_text(json.dumps(summary(figures, own_pen), indent=1) + "\n")
    return figures
