"""What weak heads are worth: does the area of their masks separate photographs that carry the word from those that do not?"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from retsam.cohort.reading import read_photograph
from retsam.evaluation.metrics import roc_auc
from retsam.masks.overlay import overlay
from retsam.quality.scoring import interval
from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.postprocess import drop_specks
from retsam.segmentation.predict import Segmenter, prepare
from retsam.segmentation.weak import OFF_DISC, SMALLEST, STRIDE, WeakHeads, at_rim, enlarge
from retsam.training.frames import read_manifest
from retsam.training.labels import read_mask
from retsam.training.weak.config import WeakConfig
from retsam.training.weak.features import LEVELS, ZONE_BITS, Features

MYOPIC = ("tessellation", "peripapillary_atrophy", "diffuse_atrophy", "patchy_atrophy")
# Cells of the logits are halved for the placing: single ones shrink under interpolation and are dropped as specks, as in prediction.
_PLACED = 2
_GRID = np.r_[np.arange(0.1, 0.9, 0.05), np.arange(0.9, 0.985, 0.01)].round(3)
# Thresholds are set on the photographs kept for it where at least so many carry the word, else on all training photographs.
_ENOUGH = 8
# The lowest threshold within this of the best area under the curve: healthy eyes are guarded by a limit of their own, and eyes with the
# word should show their lesion.
_SLACK = 0.01


@torch.inference_mode()
def probabilities(model: WeakHeads, features: Features, index: np.ndarray) -> np.ndarray:
    """Probabilities ``[n, targets, h, w]`` of cached copies, zero where the target cannot be: outside the field of view, on the disc."""
    out = []
    for start in range(0, len(index), 16):
        part = index[start : start + 16]
        logits = model.from_pyramid(*(torch.from_numpy(features.levels[name][part]).float() for name in LEVELS))
        zones = torch.from_numpy(features.zones[part])
        for channel, target in enumerate(model.targets):
            bit = "off_disc" if target in OFF_DISC else "fov"
            logits[:, channel][(zones & ZONE_BITS[bit]) == 0] = -20
        out.append(torch.sigmoid(logits).numpy().astype(np.float16))
    return np.concatenate(out)


def shown(values: np.ndarray, landmarks: np.ndarray, target: str) -> np.ndarray:
    """Share of the picture that a head shows at each threshold, placed as prediction places it.

    Parameters
    ----------
    values : ndarray, [n, h, w]
        Probabilities of a target, zero where it cannot be.
    landmarks : ndarray, [n, 5]
        See :class:`Features`; the disc's circle stands for its mask.
    target : str

    Returns
    -------
    ndarray of float, [thresholds, n]
    """
    side = _PLACED * values.shape[1]
    smallest = round(SMALLEST * (side / FRAME_SIDE) ** 2)
    areas = np.zeros((len(_GRID), len(values)))
    ys, xs = (np.mgrid[:side, :side] + 0.5) * STRIDE / _PLACED
    for i, (value, (x, y, diameter, *_)) in enumerate(zip(values, landmarks, strict=True)):
        value = enlarge(value.astype(np.float32), side)
        rim = target == "peripapillary_atrophy" and not np.isnan(diameter)
        disc = np.hypot(xs - x, ys - y) < diameter / 2 if rim else None
        for k, t in enumerate(_GRID):
            plane = value >= t
            if not plane.any():
                break  # thresholds rise
            plane = at_rim(plane & ~disc, disc) if rim and disc.any() else plane
            areas[k, i] = drop_specks(plane, smallest).mean()
    return areas


def choose_thresholds(config: WeakConfig, model: WeakHeads, features: Features) -> dict[str, dict]:
    """Threshold of each head, from training photographs as they are.

    Of the thresholds at which at most ``most_healthy`` of the healthy eyes show anything, the lowest whose area under the curve is
    near the best of them; where there is none, the one that shows something in the fewest.

    Returns
    -------
    dict
        Target -> ``threshold``, ``threshold_auc`` (optimistic), ``threshold_set_on``, ``shown_without_word`` and ``shown_in_healthy``
        (shares of the photographs without the word, and of healthy eyes, that show any of it).
    """
    table = features.table
    index = np.flatnonzero((table["version"] == 0).to_numpy())
    tune = table["part"].eq("tune").to_numpy()[index]
    healthy, landmarks = features.healthy[index], features.landmarks[index]
    p = probabilities(model.eval(), features, index)
    entries = {}
    for column, word in enumerate(config.words.values()):
        truth = features.words[index, column]
        known = ~np.isnan(truth)
        own = known & tune if (known & tune & (truth == 1)).sum() >= _ENOUGH else known
        absent = truth[own] == 0
        for target in word.targets:
            areas = shown(p[own, model.targets.index(target)], landmarks[own], target)
            aucs = np.nan_to_num(np.array([roc_auc(a, truth[own] == 1) for a in areas]), nan=0.5)
            clear = absent & healthy[own]
            false = (areas[:, clear if clear.any() else absent] > 0).mean(1)
            allowed = false <= max(config.most_healthy, false.min())
            best = int(np.flatnonzero(allowed & (aucs >= aucs[allowed].max() - _SLACK))[0])
            entries[target] = {
                "threshold": float(_GRID[best]),
                "threshold_auc": round(float(aucs[best]), 3),
                "threshold_set_on": "tuning photographs" if own.sum() < known.sum() else "all training photographs",
                "shown_without_word": round(float((areas[best][absent] > 0).mean()), 3),
                "shown_in_healthy": round(float(false[best]), 3),
            }
    return entries


def judged_rows(config: WeakConfig, rows: pd.DataFrame, words: pd.DataFrame) -> np.ndarray:
    """Positions of the held-out photographs that are judged: all with a word, and a random sample of those without any."""
    held = rows["part"].eq("held_out").to_numpy()
    with_word = (words == 1).any(axis=1).to_numpy()
    keep = list(np.flatnonzero(held & with_word))
    for dataset in rows["dataset"].unique():
        here = np.flatnonzero(held & ~with_word & rows["dataset"].eq(dataset).to_numpy())
        keep += list(np.random.default_rng(config.seed).permutation(here)[: config.judged])
    return np.array(sorted(keep))


def mask_areas(config: WeakConfig, rows: pd.DataFrame, weights: Path, targets: tuple[str, ...]) -> pd.DataFrame:
    """Share of the field of view that each head's mask covers, as a study would store it.

    Parameters
    ----------
    rows : DataFrame
        Labelled photographs.
    weights : Path
        Whose card calls every one of the targets available.
    targets : tuple of str

    Returns
    -------
    DataFrame
        image, and a column a target; ``myopic`` is the union of tessellation and myopic atrophies.
    """
    segmenter = Segmenter(weights, tasks=("optic_nerve", "weak"))
    out = []
    for image in tqdm(rows["image"], desc="judge", unit="image", mininterval=15):
        masks = segmenter.predict_prepared([prepare(read_photograph(config.root / image).rgb)])[0].masks()
        field = max(1, int(masks.fov.sum()))
        union = np.zeros_like(masks.fov)
        for target in MYOPIC:
            union |= masks.planes.get(target, False)
        out.append({"image": image, **{t: masks.planes[t].sum() / field for t in targets}, "myopic": union.sum() / field})
    return pd.DataFrame(out)


def score(config: WeakConfig, rows: pd.DataFrame, words: pd.DataFrame, areas: pd.DataFrame) -> dict[str, dict[str, dict]]:
    """Area under the ROC curve of each head's mask area, and how often healthy eyes show any, by data set.

    Returns
    -------
    dict
        Target -> data set -> ``{"auc": {value, ci_low, ci_high, n, n_with_word}, "shown_in_healthy": {value, ci_low, ci_high, n}}``
        with bootstrap intervals over subjects. ``myopic`` joins tessellation and atrophies. Targets without areas are left out.
    """
    targets = {t: name for name, word in config.words.items() for t in word.targets if t in areas}
    union = next((name for name, word in config.words.items() if set(word.targets) & set(MYOPIC)), None)
    if union:
        targets["myopic"] = union
    out: dict[str, dict[str, dict]] = {}
    groups = rows["group"].to_numpy(str)
    for target, name in targets.items():
        for dataset in rows["dataset"].unique():
            own = (rows["dataset"].eq(dataset) & words[name].notna()).to_numpy()
            y, x = words[name].to_numpy()[own] == 1, areas[target].to_numpy()[own]
            if not (y.any() and (~y).any()):
                continue
            auc = _estimate(lambda y, x: roc_auc(x, y), y, x, groups[own]) | {"n_with_word": int(y.sum())}
            entry = out.setdefault(target, {})[f"{dataset} (held out)"] = {"auc": auc}
            clear = rows["healthy"].to_numpy(bool)[own] & ~y
            if clear.any():
                entry["shown_in_healthy"] = _estimate(lambda _, x: (x > 0).mean(), y[clear], x[clear], groups[own][clear])
    return out


def _estimate(statistic, y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> dict:
    """A statistic with its bootstrap interval over groups."""
    low, high = interval(y, x, groups, statistic)
    return {k: round(float(v), 3) for k, v in {"value": statistic(y, x), "ci_low": low, "ci_high": high}.items()} | {"n": len(y)}


def score_outlines(config: WeakConfig, weights: Path) -> dict[str, dict[str, dict]]:
    """Masks against coarse outlines of a data set that taught no weak head.

    Returns
    -------
    dict
        Target that is available -> data set -> ``auc`` of the area (outlined eyes against the others), ``inside`` (share of the outlined
        eyes' mask that lies in an outline) and ``inside_by_chance`` (share of the field of view that the outlines cover), each with its
        bootstrap interval.
    """
    out: dict[str, dict[str, dict]] = {}
    manifest = read_manifest(config)
    segmenter = Segmenter(weights, tasks=("optic_nerve", "weak"))
    for target, outline in config.outlines.items():
        if segmenter.target_status[target] == "not_available":
            continue
        rows = manifest[manifest["dataset"].eq(outline.dataset) & manifest[outline.column].notna()]
        counts = []
        for row in tqdm(rows.to_dict("records"), desc=f"outlines of {target}", unit="image", mininterval=15):
            rgb = read_photograph(config.root / row["image"]).rgb
            truth = read_mask(config.root / row[outline.column], rgb.shape[:2], outline.column) == outline.value
            item = prepare(rgb)
            masks = segmenter.predict_prepared([item])[0].masks()
            truth = item.frame.warp(truth, nearest=True) & masks.fov
            plane = masks.planes[target]
            counts.append((truth.sum(), masks.fov.sum(), plane.sum(), (plane & truth).sum()))
        values = _outline_values(np.array(counts, float), rows["group"].to_numpy(str))
        out[target] = {f"{outline.dataset} (not trained on)": values}
    return out


def _outline_values(counts: np.ndarray, groups: np.ndarray) -> dict[str, dict]:
    """From pixels outlined, of the field of view, of the mask, and of the mask inside outlines, a row an eye."""
    drawn, field, found, hit = counts.T
    some = drawn > 0
    statistics = {
        "auc": lambda y, i: roc_auc((found / field)[i], y),
        "inside": lambda y, i: hit[i][y].sum() / max(found[i][y].sum(), 1),
        "inside_by_chance": lambda y, i: drawn[i][y].sum() / max(field[i][y].sum(), 1),
    }
    values, index = {}, np.arange(len(counts))
    for name, statistic in statistics.items():
        values[name] = _estimate(statistic, some, index, groups) | {"n_with_word": int(some.sum())}
    return values


def examples(
    config: WeakConfig, rows: pd.DataFrame, words: pd.DataFrame, areas: pd.DataFrame, weights: Path, out: Path, side: int = 320
) -> list[Path]:
    """Pictures of each head: with the word and most area, with the word and least, without it and most; masks beside the photographs."""
    segmenter = Segmenter(weights, tasks=("optic_nerve", "weak"))
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, word in config.words.items():
        for target in word.targets:
            order = areas[target].sort_values(ascending=False).index
            present, absent = [[i for i in order if words[name].loc[i] == value] for value in (1, 0)]
            strips = []
            for picked in (present[:5], present[-4:], absent[:5]):
                tiles = [_tile(config.root / rows["image"].loc[i], segmenter, target, side) for i in picked]
                tiles += [np.zeros((2 * side, side, 3), np.uint8)] * (5 - len(tiles))
                strips.append(np.hstack(tiles))
            path = out / f"{target}.png"
            cv2.imwrite(str(path), np.vstack(strips)[..., ::-1])
            paths.append(path)
    return paths


def _tile(path: Path, segmenter: Segmenter, target: str, side: int) -> np.ndarray:
    item = prepare(read_photograph(path).rgb)
    masks = segmenter.predict_prepared([item])[0].masks()
    drawn = overlay(item.rgb, masks, [target])
    return np.vstack([cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA) for x in (item.rgb, drawn)])
