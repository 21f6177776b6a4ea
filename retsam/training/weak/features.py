"""The frozen trunk's features of every training photograph, computed once.

The trunk does not change, so its passes are the training's dearest part and need no repetition: each photograph is taken as it is, and in
augmented or painted copies, and the features that the heads read are kept in memory-mapped half precision (about 1.5 MB a copy).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from retsam.cohort.reading import read_photograph
from retsam.quality.metrics import content_hash
from retsam.segmentation.landmarks import disc_circle
from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.predict import WHOLE_SIDE, Segmenter, locate_fovea, prepare
from retsam.segmentation.weak import STRIDE
from retsam.training import augment
from retsam.training.weak.brushes import Canvas
from retsam.training.weak.config import ZONES, WeakConfig
from retsam.training.weak.paint import paint
from retsam.training.weak.words import labelled, teaching

CELLS = WHOLE_SIDE // STRIDE
LEVELS = {"raw": (6, CELLS), "s4": (24, CELLS), "s8": (40, CELLS // 2), "s16": (112, CELLS // 4)}
"""What the heads read: channels and side."""
ZONE_BITS = {zone: 1 << i for i, zone in enumerate(ZONES)}
_MACULA_DD, _RIM_DD = 2.2, 1.0


@dataclass
class Features:
    """Features of the training copies.

    Parameters
    ----------
    levels : dict of str to ndarray of float16, [N, channels, side, side]
        See :data:`LEVELS`.
    zones : ndarray of uint8, [N, cells, cells]
        Bits of :data:`ZONE_BITS`.
    masks : ndarray of uint8, [N, cells, cells]
        Painted lesion's share of each cell, 0-255; zero where nothing is painted.
    table : DataFrame
        One row a copy: ``row`` (of the labelled photographs), ``version`` (0 as it is), ``painted`` (target or missing), ``part``.
    words : ndarray of float, [N, words]
        1 present, 0 absent, NaN unclear.
    landmarks : ndarray of float, [N, 5]
        Disc ``x, y, diameter`` and fovea ``x, y`` of the photograph as it is, px of the whole-frame view; NaN where not found.
    healthy : ndarray of bool, [N]
        The photograph is one of a healthy eye.
    """

    levels: dict[str, np.ndarray]
    zones: np.ndarray
    masks: np.ndarray
    table: pd.DataFrame
    words: np.ndarray
    landmarks: np.ndarray
    healthy: np.ndarray


def plan_copies(config: WeakConfig, rows: pd.DataFrame, words: pd.DataFrame) -> pd.DataFrame:
    """Which copies are made: photographs as they are (those that are trained on, and those that set thresholds), augmented, painted."""
    rng = np.random.default_rng(config.seed)
    fit = teaching(config, rows, words)
    plain = [*fit, *teaching(config, rows, words, "tune")]
    counts = (words.iloc[fit] == 1).sum()
    copies = [(int(r), 0, None) for r in plain]
    for r in fit:
        present = [name for name in words if words[name].iloc[r] == 1]
        if present:
            rare = any(counts[name] < config.rare for name in present)
            copies += [(int(r), v, None) for v in range(1, config.versions * (2 if rare else 1))]
    healthy = [r for r in fit if rows["healthy"].iloc[r]]
    version = 1000
    for target, count in config.painted.items():
        for r in rng.choice(healthy, count) if healthy else ():
            version += 1
            copies.append((int(r), version, target))
    table = pd.DataFrame(copies, columns=["row", "version", "painted"])
    table["part"] = rows["part"].to_numpy()[table["row"]]
    return table


def load_features(config: WeakConfig, segmenter: Segmenter | None = None) -> Features:
    """Features from the run's cache, computed where missing or made with another trunk or selection; an interrupted run goes on."""
    rows, words = labelled(config)
    table = plan_copies(config, rows, words)
    trunk = trunk_digest(config.base)
    key = hashlib.sha256(json.dumps([trunk, rows["image"].tolist(), table.astype(str).to_numpy().tolist(), 2]).encode()).hexdigest()[:12]
    folder = config.out / f"features-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: (len(table), c, side, side) for name, (c, side) in LEVELS.items()}
    files = {name: (np.float16, shape) for name, shape in shapes.items()}
    files |= {name: (np.uint8, (len(table), CELLS, CELLS)) for name in ("zones", "masks")}
    files["landmarks"] = (np.float64, (len(rows), 5))
    done_path = folder / "done.txt"
    done = int(done_path.read_text()) if done_path.exists() else 0
    mode = "r+" if done else "w+"
    maps = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode, dtype, shape) for name, (dtype, shape) in files.items()}
    if done < len(table):
        segmenter = segmenter or Segmenter(config.base, tasks=("optic_nerve", "macula"))
        _Builder(config, rows, segmenter, maps).run(table, done, done_path)
    labels = words.to_numpy()[table["row"]].copy()
    labels[table["painted"].notna()] = np.nan
    own = table["row"].to_numpy()
    healthy = rows["healthy"].to_numpy(bool)[own]
    return Features({name: maps[name] for name in LEVELS}, maps["zones"], maps["masks"], table, labels, maps["landmarks"][own], healthy)


def trunk_digest(weights: Path) -> str:
    """Digest of all tensors that the weak heads' input depends on: a run goes on only with the trunk that it began with."""
    from retsam.segmentation.weights import load_state

    state, _ = load_state(weights)
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.startswith("encoder.") or name.startswith("views.whole.encoder."):
            digest.update(name.encode())
            digest.update(state[name].numpy().tobytes())
    return digest.hexdigest()[:16]


class _Builder:
    def __init__(self, config: WeakConfig, rows: pd.DataFrame, segmenter: Segmenter, maps: dict[str, np.ndarray]) -> None:
        self.config, self.rows, self.maps = config, rows, maps
        self.network, self.device = segmenter.networks["whole"], segmenter.device

    def run(self, table: pd.DataFrame, done: int, done_path: Path) -> None:
        copies = table.to_dict("records")
        for index in tqdm(range(done, len(copies)), desc="features", unit="copy", mininterval=15):
            copy = copies[index]
            seed = [self.config.seed, copy["row"], copy["version"]]
            self._write(index, copy["row"], copy["version"], copy["painted"], np.random.default_rng(seed))
            if index % 50 == 49 or index + 1 == len(copies):
                for plane in self.maps.values():
                    plane.flush()
                done_path.write_text(str(index + 1))

    def _write(self, index: int, row: int, version: int, painted: str | None, rng: np.random.Generator) -> None:
        path = self.config.root / self.rows["image"].iloc[row]
        item = prepare(read_photograph(path).rgb)
        rgb = cv2.resize(item.rgb, (WHOLE_SIDE, WHOLE_SIDE), interpolation=cv2.INTER_AREA)
        fov = item.fov[::2, ::2]
        mask = np.zeros(fov.shape, np.uint8)
        if isinstance(painted, str):
            x, y, diameter, fx, fy = typical(self.maps["landmarks"][row])
            canvas = Canvas(rgb.astype(np.float32) / 255, fov, (x, y, diameter), (fx, fy), rng)
            picture, lesion = paint(painted, canvas)
            rgb, mask = (picture * 255).astype(np.uint8), lesion.astype(np.uint8) * 255
        if version:
            centre = np.full(2, (WHOLE_SIDE - 1) / 2) + rng.uniform(-0.04, 0.04, 2) * WHOLE_SIDE
            scale = np.exp(rng.uniform(np.log(0.87), np.log(1.15)))
            matrix = augment.crop_affine(rng, centre, WHOLE_SIDE, scale, rng.uniform(-25, 25), rng.random() < 0.5)
            size = (WHOLE_SIDE, WHOLE_SIDE)
            mask = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR)
            landmarks = moved(self.maps["landmarks"][row], matrix)
            rgb, inside = augment.warp(rgb, fov.astype(np.uint8), matrix, WHOLE_SIDE)
            fov = inside > 0
            rgb = augment.recolour(rng, rgb, fov)
        features = self._encode(index, rgb, fov)
        if version == 0:
            self.maps["landmarks"][row] = landmarks = self._locate(features, fov)
        self.maps["zones"][index] = zones(fov, landmarks)
        self.maps["masks"][index] = cv2.resize(mask, (CELLS, CELLS), interpolation=cv2.INTER_AREA)

    @torch.inference_mode()
    def _encode(self, index: int, rgb: np.ndarray, fov: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float() / 255
        inside = torch.from_numpy(np.ascontiguousarray(fov)).to(self.device).float()[None, None]
        x, features = self.network.encode(x.contiguous(memory_format=torch.channels_last), inside, 4)
        for name, value in zip(LEVELS, (F.avg_pool2d(x, STRIDE), *features[2:5]), strict=True):
            self.maps[name][index] = value[0].float().cpu().numpy().astype(np.float16)
        return features

    @torch.inference_mode()
    def _locate(self, features: list[torch.Tensor], fov: np.ndarray) -> np.ndarray:
        """Disc ``x, y, diameter`` and fovea ``x, y``, px of the whole-frame view; NaN where not found."""
        nerve = torch.sigmoid(self.network.decoders["optic_nerve"](features).float()).cpu().numpy()[0, 0] * fov
        disc = disc_circle(nerve) or (np.nan,) * 3
        fovea, _ = locate_fovea(self.network.decoders["macula"](features)[0, 0])
        fovea = (np.nan,) * 2 if fovea is None else tuple(v * WHOLE_SIDE / FRAME_SIDE for v in fovea)
        return np.array([*disc, *fovea])


def moved(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Landmarks under an affine map."""
    x, y, diameter, *fovea = landmarks
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return np.array([*(matrix @ [x, y, 1.0]), diameter * scale, *(matrix @ [*fovea, 1.0])])


def typical(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks with typical ones in place of those that were not found."""
    usual = WHOLE_SIDE * np.array([0.3, 0.48, 0.13, 0.5, 0.5])
    return np.where(np.isnan(landmarks), usual, landmarks)


def zones(fov: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Zone bits of each cell, from the landmarks (px of the whole-frame view).

    Without a disc there is no rim, and no disc to keep off; without a fovea the macula is the middle of the field of view.
    """
    inside = cv2.resize(fov.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 0.9
    ys, xs = (np.mgrid[:CELLS, :CELLS] + 0.5) * STRIDE
    x, y, diameter, fx, fy = typical(landmarks)
    out = inside * ZONE_BITS["fov"]
    off = np.ones_like(inside)
    if not np.isnan(landmarks[0]):
        radius = np.hypot(xs - x, ys - y) / diameter
        off = radius > 0.52
        out = out | ((inside & off & (radius < 0.5 + _RIM_DD)) * ZONE_BITS["rim"])
    macula = np.hypot(xs - fx, ys - fy) < _MACULA_DD * diameter
    return (out | ((inside & off) * ZONE_BITS["off_disc"]) | ((inside & macula & off) * ZONE_BITS["macula"])).astype(np.uint8)


def content_hashes(config: WeakConfig, rows: pd.DataFrame) -> pd.Series:
    """Content hash of each photograph, by which a study recognises those that taught a head, whatever their names there."""
    return pd.Series([content_hash(read_photograph(config.root / image).rgb) for image in rows["image"]], index=rows.index)
