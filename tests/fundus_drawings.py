"""Small drawn photographs and manifests for tests of segmentation and training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

MANIFEST_COLUMNS = (
    "dataset,image,split,group,width,height,scale,vessel,av,fov,disc,disc_expert2,disc_cup,lesions,bright,fovea_x,fovea_y,od_x,od_y,"
    "subject_id,eye,age,sex,diagnosis,keywords,dr_grade,dme_risk,quality,expert_vcdr"
).split(",")


def drawn_eye(side: int = 400, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A red disc with dark lines, a bright spot and a dark one: enough to train on for two steps, not to recognise."""
    rng = np.random.default_rng(seed)
    rgb = np.zeros((side, side, 3), np.uint8)
    centre, radius = (side // 2, side // 2), int(0.47 * side)
    cv2.circle(rgb, centre, radius, (190, 90, 50), -1, cv2.LINE_AA)
    masks = {name: np.zeros((side, side), np.uint8) for name in ("artery", "vein", "disc", "cup", "lesions")}
    for k in range(8):
        name = ("artery", "vein")[k % 2]
        angle = rng.uniform(0, 2 * np.pi)
        end = (int(side * (0.7 + 0.4 * np.cos(angle))), int(side * (0.5 + 0.4 * np.sin(angle))))
        cv2.line(masks[name], (int(0.7 * side), side // 2), end, 1, max(2, side // 130))
    cv2.circle(masks["disc"], (int(0.7 * side), side // 2), side // 14, 1, -1)
    cv2.circle(masks["cup"], (int(0.7 * side), side // 2), side // 30, 1, -1)
    for bit in (1, 2, 4, 8):
        cv2.circle(masks["lesions"], tuple(int(v) for v in rng.uniform(0.3, 0.6, 2) * side), side // 60, bit, -1)
    rgb[masks["disc"] > 0] = (240, 200, 140)
    rgb[masks["artery"] > 0] = (160, 50, 40)
    rgb[masks["vein"] > 0] = (120, 30, 40)
    rgb[masks["lesions"] >= 4] = (240, 220, 120)
    inside = cv2.circle(np.zeros((side, side), np.uint8), centre, radius, 1, -1)
    return rgb, {name: mask * inside for name, mask in masks.items()}


def write_manifest(folder: Path, eyes: int = 3) -> Path:
    """Photographs and masks of all tasks in the form of the training manifest; the last eye is a test part."""
    rows = []
    for k in range(eyes):
        rgb, masks = drawn_eye(seed=k)
        paths = {name: f"{k}_{name}.png" for name in ("rgb", "vessel", "av", "disc_cup", "lesions")}
        av = masks["artery"] + 2 * (masks["vein"] & ~masks["artery"] & 1)
        cv2.imwrite(str(folder / paths["rgb"]), rgb[..., ::-1])
        cv2.imwrite(str(folder / paths["vessel"]), (av > 0).astype(np.uint8) * 255)
        cv2.imwrite(str(folder / paths["av"]), av)
        cv2.imwrite(str(folder / paths["disc_cup"]), masks["disc"] + masks["cup"])
        cv2.imwrite(str(folder / paths["lesions"]), masks["lesions"])
        row = {"dataset": "drawn", "image": paths["rgb"], "split": "test" if k == eyes - 1 else "train", "group": f"drawn:{k}"}
        row |= {name: paths[name] for name in ("vessel", "av", "disc_cup", "lesions")}
        rows.append(row | {"fovea_x": 140.0, "fovea_y": 205.0, "width": 400, "height": 400})
    path = folder / "manifest.csv"
    pd.DataFrame(rows, columns=MANIFEST_COLUMNS).to_csv(path, index=False)
    return path
