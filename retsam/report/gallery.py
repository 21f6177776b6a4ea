"""Photographs with their masks: typical eyes, and the eyes at both ends of the biomarkers with the strongest associations."""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from retsam.cohort.reading import UnreadablePhotograph, read_photograph
from retsam.masks.masks import Failure, Masks
from retsam.masks.overlay import overlay
from retsam.masks.store import StoreError, read_masks
from retsam.report.config import ReportConfig
from retsam.report.study import Problem, Study
from retsam.segmentation.targets import CATEGORY, TARGETS


@dataclass(frozen=True)
class Pick:
    """An eye chosen for the gallery: why, and with which value."""

    group: str
    end: str
    image_id: str
    biomarker: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Picture:
    """A pick with its pictures as JPEG."""

    pick: Pick
    photograph: bytes
    masks: bytes


def choose(study: Study, config: ReportConfig) -> list[Pick]:
    """Eyes to show: typical ones, then the lowest and highest of each top biomarker. Depends on the tables only."""
    measured = study.main("biomarkers")
    if measured is None or not study.biomarker_names:
        return []
    eyes = measured[measured["status"] == "ok"].drop_duplicates("image_id").set_index("image_id")
    if eyes.empty:
        return []
    values = eyes[[b for b in study.biomarker_names if pd.api.types.is_numeric_dtype(eyes[b].dtype)]]
    return _typical(values, config) + _extremes(study, values, config)


def _typical(values: pd.DataFrame, config: ReportConfig) -> list[Pick]:
    """Eyes whose biomarkers lie closest to the medians (median absolute robust z over the biomarkers, at least half known)."""
    # an eye of 5,000 evenly drawn ones is as typical as one of a million
    values = values.iloc[:: max(1, len(values) // 5000)].astype(float)
    spread = (values.quantile(0.75) - values.quantile(0.25)).replace(0, np.nan)
    z = ((values - values.median()) / spread).abs()
    usable = z.notna().sum(axis=1) >= max(1, z.notna().any().sum() // 2)
    distance = z[usable].median(axis=1).sort_values(kind="stable")
    return [Pick("Typical eyes", "", str(i)) for i in distance.index[: config.gallery_typical]]


def _in_turn(study: Study) -> list[str]:
    """Biomarkers by their p in the primary models, the outcomes taking turns: else the outcome with most cases fills the gallery."""
    table = study.primary
    if table is None:
        return []
    mine = table[(table["covariate_set"] == study.primary_set) & table["neg_log10_p"].notna()]
    ranked = mine.sort_values("neg_log10_p", ascending=False, kind="stable")
    lists = [ranked.loc[ranked["outcome"] == o, "biomarker"].tolist() for o in study.outcomes]
    return list(dict.fromkeys(b for turn in itertools.zip_longest(*lists) for b in turn if b is not None))


def _extremes(study: Study, values: pd.DataFrame, config: ReportConfig) -> list[Pick]:
    order = [b for b in _in_turn(study) if b in values.columns] or [b for b in values.columns if values[b].notna().any()]
    picks: list[Pick] = []
    chosen: list[str] = []
    ranks: dict[str, pd.Series] = {}
    for name in order:
        column = values[name].dropna()
        if len(chosen) == config.gallery_biomarkers:
            break
        # Measures that move together would show the same eyes again.
        own = values[name].astype(float).rank()
        if column.nunique() < 2 or any(abs(own.corr(ranks[other])) > 0.7 for other in chosen):
            continue
        ranks[name] = own
        chosen.append(name)
        ordered = column.sort_values(kind="stable")
        k = config.gallery_per_end
        low, high = ordered.head(k), ordered.tail(k)[::-1]
        # An end that many eyes share (zero lesions) is no extreme: one of them is shown.
        if (column == ordered.iloc[0]).sum() > max(10, 3 * k):
            low = low.iloc[:1]
        picks += [Pick(name, "lowest", str(i), name, float(v)) for i, v in low.items()]
        picks += [Pick(name, "highest", str(i), name, float(v)) for i, v in high.items() if i not in low.index]
    return picks


def _targets(study: Study, biomarker: str | None) -> list[str] | None:
    """Masks to draw: all for a typical eye, else those that the biomarker is made from and the disc, so that nothing covers them."""
    if biomarker is None:
        return None
    wanted = study.heads_of(biomarker) & set(TARGETS)
    return sorted(wanted | {"disc"} | ({"fovea"} if "fovea" in study.heads_of(biomarker) else set())) if wanted else None


def render(study: Study, picks: list[Pick], side: int, quality: int) -> list[Picture]:
    """Draw the picks in the canonical frame. An eye that cannot be shown is a problem, not an end."""
    cohort = study.main("cohort")
    if cohort is None or not picks:
        return []
    where = cohort.drop_duplicates("image_id").set_index("image_id")
    wanted = {p.image_id for p in picks}
    asked: dict[str, list[str | None]] = {}
    for p in picks:
        asked.setdefault(p.image_id, []).append(p.biomarker)
    drawn: dict[tuple[str, str | None], tuple[bytes, bytes]] = {}
    by_store = _stores_of(study, where, wanted)
    if not study.stores:
        study.problems.append(Problem("fault", "There are no mask stores (masks/*.zarr), so no eye is shown."))
        return []
    for path, ids in by_store.items():
        try:
            for masks in read_masks(path, ids):
                if isinstance(masks, Failure):
                    study.problems.append(Problem("warning", f"{masks.image_id} is not in the gallery: its masks failed ({masks.reason})."))
                    continue
                rgb = _photograph(study, where, masks)
                if rgb is None:
                    continue
                photograph, drawable = jpeg(rgb, side, quality), _visible(masks, side)
                for name in dict.fromkeys(asked[masks.image_id]):
                    drawn[masks.image_id, name] = (
                        photograph,
                        jpeg(overlay(rgb, drawable, _shown(masks, _targets(study, name))), side, quality),
                    )
        except StoreError as error:
            study.problems.append(Problem("fault", f"masks/{path.name} cannot be read for the gallery: {error}"))
    missing = sorted(wanted - set().union(*by_store.values()) if by_store else wanted)
    if missing:
        study.problems.append(
            Problem("warning", f"{len(missing)} eyes chosen for the gallery are in no mask store, for example {missing[0]}.")
        )
    return [Picture(p, *drawn[p.image_id, p.biomarker]) for p in picks if (p.image_id, p.biomarker) in drawn]


def _visible(masks: Masks, side: int) -> Masks:
    """Lesions a little larger, so that one of a few pixels is still seen in a picture of ``side`` px."""
    grow = int(np.ceil(max(masks.fov.shape) / side / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
    planes = {
        name: cv2.dilate(plane.astype(np.uint8), kernel).astype(bool) if CATEGORY.get(name) == "lesion" else plane
        for name, plane in masks.planes.items()
    }
    return replace(masks, planes=planes)


def _shown(masks: Masks, targets: list[str] | None) -> list[str] | None:
    """Those of the targets that this eye has a mask of."""
    return None if targets is None else [t for t in targets if t in masks.planes or t == "fovea"]


def _stores_of(study: Study, where: pd.DataFrame, wanted: set[str]) -> dict[Path, set[str]]:
    """Store -> the wanted images in it, by the shard of the cohort table."""
    paths = {p.name.removesuffix(".zarr"): p for p in study.stores}
    found: dict[Path, set[str]] = {}
    for image in wanted:
        shard = where.at[image, "shard"] if image in where.index and "shard" in where else None
        if isinstance(shard, str) and shard in paths:
            found.setdefault(paths[shard], set()).add(image)
    return found


def _photograph(study: Study, where: pd.DataFrame, masks: Masks) -> np.ndarray | None:
    """The photograph in the masks' frame, or None, which the report then says."""
    limit = int((study.settings.get("cohort") or {}).get("max_pixels", 80_000_000))
    try:
        rgb = read_photograph(where.at[masks.image_id, "path"], limit).rgb
        return rgb if masks.native else masks.frame.warp(rgb)
    except (UnreadablePhotograph, ValueError) as error:
        study.problems.append(Problem("warning", f"{masks.image_id} is not in the gallery: its photograph cannot be shown ({error})."))
        return None


def jpeg(rgb: np.ndarray, side: int, quality: int) -> bytes:
    """A picture shrunk so that its longer side is ``side`` px, as JPEG without metadata."""
    scale = side / max(rgb.shape[:2])
    if scale < 1:
        rgb = cv2.resize(rgb, (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))), interpolation=cv2.INTER_AREA)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality, optimize=True, progressive=True)
    return out.getvalue()


def data_uri(image: bytes) -> str:
    """A JPEG as an address that needs no network."""
    return "data:image/jpeg;base64," + base64.b64encode(image).decode("ascii")
