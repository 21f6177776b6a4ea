"""Pseudo-labels: trained networks label photographs that nobody drew on, where they are sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.quality.field_of_view import detect_field_of_view
from retsam.segmentation import postprocess
from retsam.segmentation.looks import FRAME_SIDE
from retsam.segmentation.predict import Segmenter, prepare
from retsam.segmentation.targets import TASKS
from retsam.training import labels as lab
from retsam.training.config import TrainConfig
from retsam.training.frames import Frames, read_manifest

# A pixel is labelled where the mean probability is this far from even; between, it is unknown.
_SURE = 0.2
# A photograph is kept where the expected Dice of its vessels reaches this.
_LEAST_DICE = 0.8


def pseudo_label(config: TrainConfig, weights: Sequence[Path], datasets: Sequence[str], limit: int) -> pd.DataFrame:
    """Label the vessels of unlabelled photographs with one network or the mean of several.

    Held-out photographs are never labelled. A photograph on which the networks are unsure as a whole is left out, and counted in the
    returned table with its expected Dice.

    Parameters
    ----------
    config : TrainConfig
        ``pseudo_labels`` names the folder to write.
    weights : sequence of Path
    datasets : sequence of str
    limit : int
        Photographs of each data set.

    Returns
    -------
    DataFrame
        dataset, image, group, expected_dice, kept.

    Raises
    ------
    ValueError
        If the configuration names no folder, a data set has no training photograph, weights have no vessels, or nothing was kept.
    """
    manifest = read_manifest(config)
    known = sorted(set(manifest.loc[~manifest["held_out"], "dataset"]))
    networks = [Segmenter(path) for path in weights]
    faults = ["the configuration's `pseudo_labels` must name the folder to write"] if config.pseudo_labels is None else []
    if unknown := sorted(set(datasets) - set(known)):
        faults.append(f"no training photograph of {', '.join(unknown)}; {config.manifest} has some of {', '.join(known) or 'no data set'}")
    for network in networks:
        if absent := [head for head in TASKS["vessels"] if network.target_status[head] == "not_available"]:
            faults.append(f"{network.weights_path}: expected heads of {', '.join(TASKS['vessels'])}, found no {', '.join(absent)}")
    if faults:
        raise ValueError("; ".join(faults))
    rows = manifest[~manifest["held_out"] & manifest["dataset"].isin(datasets)]
    rows = pd.concat([part.sample(min(limit, len(part)), random_state=config.seed) for _, part in rows.groupby("dataset")])
    folder = config.pseudo_labels
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), FRAME_SIDE, FRAME_SIDE)
    rgb_map = np.lib.format.open_memmap(folder / "vessels-rgb.npy", "w+", np.uint8, (*shape, 3))
    label_map = np.lib.format.open_memmap(folder / "vessels-label.npy", "w+", np.uint8, shape)
    records, kept = [], 0
    for row in tqdm(rows.to_dict("records"), desc="pseudo-labels", mininterval=10):
        bgr = cv2.imread(str(config.root / row["image"]), cv2.IMREAD_COLOR)
        record = {"dataset": row["dataset"], "image": row["image"], "group": row["group"], "expected_dice": np.nan, "kept": False}
        records.append(record)
        fov = detect_field_of_view(np.ascontiguousarray(bgr[..., ::-1])) if bgr is not None else None
        if fov is None or fov.kind == "none":
            continue
        item = prepare(np.ascontiguousarray(bgr[..., ::-1]), fov)
        answers = [network.predict_prepared([item])[0].probabilities for network in networks]
        mean = {name: np.mean([a[name].astype(np.float32) for a in answers], axis=0) for name in ("artery", "vein", "vessel")}
        record["expected_dice"] = postprocess.expected_dice(mean["vessel"], mean["vessel"] >= 0.5)
        if record["expected_dice"] < _LEAST_DICE:
            continue
        rgb_map[kept], label_map[kept] = item.rgb, vessel_bits(mean, item.fov)
        record["kept"], kept = True, kept + 1
    table = pd.DataFrame(records)
    if not kept:
        raise ValueError(f"no photograph of {list(datasets)} reached an expected Dice of {_LEAST_DICE}")
    table.to_csv(folder / "vessels.csv", index=False)
    return table


def vessel_bits(mean: dict[str, np.ndarray], fov: np.ndarray) -> np.ndarray:
    """Bits of :data:`retsam.training.labels.VESSEL_BITS` from probabilities; unsure pixels are unknown."""
    bits = lab.VESSEL_BITS
    label = np.where(fov, lab.FOV_BIT, 0).astype(np.uint8)
    for name in ("artery", "vein", "vessel"):
        label[fov & (mean[name] >= 0.5)] |= bits[name]
    sure = {name: np.abs(mean[name] - 0.5) > _SURE for name in mean}
    label[fov & sure["vessel"]] |= bits["known_vessel"]
    label[fov & sure["artery"] & sure["vein"]] |= bits["known_av"]
    return label


def load_pseudo(folder: Path) -> Frames:
    """Frames written by :func:`pseudo_label`, each photograph as often as another."""
    table = pd.read_csv(folder / "vessels.csv")
    table = table[table["kept"]].reset_index(drop=True).assign(weight=1.0, negative=False, point_x=np.nan, point_y=np.nan, point_size=0.0)
    return Frames(np.load(folder / "vessels-rgb.npy", mmap_mode="r"), np.load(folder / "vessels-label.npy", mmap_mode="r"), table)
