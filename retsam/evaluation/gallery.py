"""Pictures of where a model is best and worst."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retsam.evaluation.reference import Reference
from retsam.evaluation.run import Evaluation, Predictor, load, predict_each
from retsam.masks.masks import Masks

RIGHT, INVENTED, MISSED = (60, 200, 90), (240, 60, 60), (70, 130, 255)
"""Colours of true positive, false positive and false negative pixels."""
LEGEND = "green right, red invented, blue missed"
LEGENDS = {"artery_vein": "green right, red the other class, blue no class", "fovea": "blue drawn, red found"}
PANEL = 1100
"""Longer side of a picture, px."""


def error_overlay(rgb: np.ndarray, predicted: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Photograph with right pixels green, invented ones red, missed ones blue.

    Parameters
    ----------
    rgb : ndarray of uint8, [H, W, 3]
    predicted, reference : ndarray of bool, [H, W]
    valid : ndarray of bool, optional
        Outside of it the picture is darkened: nothing counts there.
    """
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    out = (0.75 * grey).astype(np.uint8)
    if valid is not None:
        out[~valid] //= 3
        predicted, reference = predicted & valid, reference & valid
    for colour, where in ((RIGHT, predicted & reference), (INVENTED, predicted & ~reference), (MISSED, reference & ~predicted)):
        out[where] = (0.25 * out[where] + 0.75 * np.array(colour)).astype(np.uint8)
    return out


def artery_vein_overlay(rgb: np.ndarray, predicted: Masks, reference: Reference) -> np.ndarray:
    """Reference vessels by the class they were given: green right, red the other one, blue none."""
    grey = (0.75 * cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)).astype(np.uint8)
    artery, vein = reference.masks["artery"], reference.masks["vein"]
    found_artery, found_vein = (predicted.frame.unwarp(predicted.planes[t], 0).astype(bool) for t in ("artery", "vein"))
    known = artery ^ vein
    right = known & ((artery & found_artery) | (vein & found_vein))
    grey[known & ~right] = MISSED
    grey[known & ~right & (found_artery | found_vein)] = INVENTED
    grey[right] = RIGHT
    return grey


def _shrink(picture: np.ndarray) -> np.ndarray:
    scale = PANEL / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, (round(picture.shape[1] * scale), round(picture.shape[0] * scale)), interpolation=cv2.INTER_AREA)


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    """Box around a disc with as much again on each side."""
    rows, cols = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    margin = max(20, rows[-1] - rows[0], cols[-1] - cols[0])
    return slice(max(0, rows[0] - margin), rows[-1] + margin), slice(max(0, cols[0] - margin), cols[-1] + margin)


def _picture(rgb: np.ndarray, found: Masks, reference: Reference, target: str, caption: str) -> Image.Image:
    if target == "artery_vein":
        right = artery_vein_overlay(rgb, found, reference)
    elif target == "fovea":
        right = rgb.copy()
        for point, colour in ((reference.fovea, MISSED), (None if found.fovea is None else found.frame.to_native(found.fovea), INVENTED)):
            if point is not None:
                cv2.drawMarker(right, (round(point[0]), round(point[1])), colour, cv2.MARKER_CROSS, max(15, max(rgb.shape) // 30), 3)
    else:
        head = "disc" if target == "disc_expert2" else target
        predicted = found.frame.unwarp(found.planes[head], 0).astype(bool)
        right = error_overlay(rgb, predicted, reference.masks[target], reference.valid(target))
        if target in ("disc", "cup", "disc_expert2") and (reference.masks[target] | predicted).any():
            box = _around(reference.masks[target] | predicted)
            rgb, right = rgb[box], right[box]
    pair = np.concatenate([_shrink(rgb), _shrink(right)], axis=1)
    image = Image.new("RGB", (pair.shape[1], pair.shape[0] + 22), (20, 20, 20))
    image.paste(Image.fromarray(pair), (0, 22))
    ImageDraw.Draw(image).text((6, 5), caption, fill=(240, 240, 240))
    return image


def _ranking(rows: pd.DataFrame, target: str) -> tuple[str, pd.Series] | None:
    """Metric that ranks the images of a target, and its values, best first; None where there is none."""
    metric = {"artery_vein": "accuracy", "fovea": "distance_dd"}.get(target, "dsc")
    if target == "fovea" and (metric_column := rows.get("fovea_distance_dd")) is not None and metric_column.isna().all():
        metric = "distance_px"  # no disc anywhere to measure with
    if f"{target}_{metric}" not in rows:
        return None
    values = rows[f"{target}_{metric}"].astype(float)
    if target == "fovea":  # one that was not found is the worst there is
        values = values.mask(rows["fovea_found"] == 0, np.inf)
    return metric, values.dropna().sort_values(ascending=target == "fovea")


def _chosen(images: pd.DataFrame, each: int) -> list[tuple[int, str, str, str, float]]:
    """(row, target, rank, metric, value) of the best and worst images of every data set and target."""
    targets = [c.removesuffix("_dsc") for c in images.columns if c.endswith("_dsc")] + ["artery_vein", "fovea"]
    out = []
    for _, rows in images.groupby("dataset", sort=False):
        for target in targets:
            if (ranking := _ranking(rows, target)) is None:
                continue
            metric, ranked = ranking
            worst = list(ranked.index[::-1][:each])
            best = [i for i in ranked.index[:each] if i not in worst]
            for name, chosen in (("best", best), ("worst", worst)):
                out += [(i, target, f"{name}{k + 1}", metric, float(ranked[i])) for k, i in enumerate(chosen)]
    return out


def write_gallery(
    evaluation: Evaluation, segmenter: Predictor, manifest: pd.DataFrame, root: str | Path, folder: str | Path, each: int = 3
) -> list[Path]:
    """Write the best and worst images of every data set and target as ``<dataset>/<target>_<worst1>_<value>_<image>.jpg``.

    Left the photograph, right the errors (green right, red invented, blue missed). The images are predicted again: keeping every
    prediction while scoring would take gigabytes.

    Parameters
    ----------
    each : int
        Best, and as many worst, of every target.

    Returns
    -------
    list of Path
    """
    root, folder = Path(root), Path(folder)
    wanted: dict[int, list] = {}
    for row, *rest in _chosen(evaluation.images, each):
        wanted.setdefault(row, []).append(rest)
    written = []
    for row, entries in wanted.items():
        record = manifest.iloc[row]
        loaded = load(record, row, root)
        prediction = predict_each(segmenter, [loaded.rgb])[0]
        if isinstance(prediction, Exception):
            raise prediction  # it could be predicted a moment ago
        found = prediction.masks()
        for target, rank, metric, value in entries:
            caption = f"{record['dataset']}  {record['image']}  {target} {metric} {value:.3f}   {LEGENDS.get(target, LEGEND)}"
            stem = re.sub(r"[^\w.-]+", "_", Path(record["image"]).stem)
            path = folder / re.sub(r"[^\w.-]+", "_", record["dataset"]) / f"{target}_{rank}_{value:.3f}_{stem}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(loaded.rgb, found, loaded.reference, target, caption).save(path, quality=88)
            written.append(path)
    return written
