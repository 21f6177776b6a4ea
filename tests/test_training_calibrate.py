"""Thresholds of lesions count what healthy photographs show."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from fundus_drawings import write_manifest

from retsam.segmentation.predict import prepare
from retsam.segmentation.targets import TASKS
from retsam.training.calibrate import calibrate
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.export import build_card


class BrightIsExudate:
    """A network that gives ``yellow`` to the drawn exudates, ``peak`` to their middle, and ``pale`` to paler spots."""

    pens: dict[str, list[str]] = {}

    def __init__(self, yellow: float = 0.68, pale: float = 0.5, peak: float = 0.68) -> None:
        self.yellow, self.pale, self.peak = yellow, pale, peak

    def predict(self, images):
        """As a segmenter does."""
        return self.predict_prepared([prepare(image) for image in images])

    def predict_prepared(self, inputs):
        """As a segmenter does."""
        return [SimpleNamespace(probabilities=self._shown(item.rgb), fov=item.fov, frame=item.frame) for item in inputs]

    def _shown(self, rgb):
        yellow, pale = rgb[..., 0] > 225, (rgb[..., 0] > 180) & (rgb[..., 2] > 140)
        shown = np.where(yellow, self.yellow, np.where(pale, self.pale, 0.01)).astype(np.float32)
        shown[cv2.erode(yellow.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = self.peak
        return {name: shown if name == "hard_exudate" else np.zeros_like(shown) for name in TASKS["lesions_dr"]}


@pytest.mark.parametrize("with_healthy", [False, True])
def test_specks_on_healthy_eyes_lift_the_threshold(tmp_path, with_healthy: bool):
    manifest = write_manifest(tmp_path)
    table = pd.read_csv(manifest)
    rng, rows = np.random.default_rng(0), []
    for index in range(4):
        rgb = cv2.imread(str(tmp_path / table["image"].iloc[0]))
        side = rgb.shape[0]
        rgb[...] = np.where((rgb.max(2) > 20)[..., None], (60, 90, 150), 0)
        for x, y in rng.uniform(0.35, 0.65, (6, 2)) * side:
            cv2.circle(rgb, (int(x), int(y)), side // 40, (160, 200, 200), -1)
        cv2.imwrite(str(tmp_path / f"well_{index}.png"), rgb)
        rows.append({"dataset": "well", "image": f"well_{index}.png", "split": "train", "group": f"well:{index}", "diagnosis": "healthy"})
    pd.concat([table, pd.DataFrame(rows)]).to_csv(manifest, index=False)
    settings = TaskConfig(datasets={"drawn": 1}, negatives={"well": 1} if with_healthy else {})
    config = TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", tasks={"lesions_dr": settings})
    entry = calibrate(config, BrightIsExudate(), per_dataset=4)["hard_exudate"]
    assert (entry["threshold"] > 0.5) == with_healthy, entry
    assert entry.get("peak") is None, "the threshold has left healthy eyes nothing"
    # A network that would have both at one threshold tells them apart by how sure it is somewhere.
    sure = calibrate(config, BrightIsExudate(yellow=0.88, pale=0.88, peak=0.95), per_dataset=4)["hard_exudate"]
    assert sure.get("peak") == (0.9 if with_healthy else None)


def test_a_photograph_that_cannot_be_read_is_named(tmp_path):
    manifest = write_manifest(tmp_path)
    settings = TaskConfig(datasets={"drawn": 1})
    config = TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", tasks={"lesions_dr": settings})
    for image in pd.read_csv(manifest)["image"]:
        (tmp_path / image).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="names a photograph that could not be read"):
        calibrate(config, BrightIsExudate(), per_dataset=4)


def test_a_head_that_no_photograph_shows_has_no_threshold(tmp_path, caplog):
    """Healthy photographs alone cannot set one: NaN is no threshold, and no JSON."""
    manifest = write_manifest(tmp_path)
    table = pd.read_csv(manifest)
    for name in table["lesions"]:
        mask = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / name), np.where(mask == 8, 0, mask))
    table["dr_grade"] = 0
    table.to_csv(manifest, index=False)
    settings = TaskConfig(datasets={"drawn": 1}, negatives={"drawn": 1})
    config = TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", tasks={"lesions_dr": settings})
    entries = calibrate(config, BrightIsExudate(), per_dataset=2)
    assert set(entries) == {"microaneurysm", "hemorrhage", "hard_exudate"}
    json.loads(json.dumps(entries, allow_nan=False))
    assert "shows cotton_wool_spot" in caplog.text
    assert "cotton_wool_spot" not in build_card(config, {}, entries, "mine")["heads"]


@pytest.mark.parametrize("absent", [("artery",), ("artery", "vein", "vessel")])
def test_vessels_without_a_class_are_calibrated_too(tmp_path, caplog, absent):
    manifest = write_manifest(tmp_path)
    for index in range(3):
        for name, gone in (("av", 1), ("vessel", 255)):
            path = tmp_path / f"{index}_{name}.png"
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if name == "av" or "vessel" in absent:
                cv2.imwrite(str(path), np.zeros_like(mask) if "vessel" in absent else np.where(mask == gone, 0, mask))
    config = TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", tasks={"vessels": TaskConfig(datasets={"drawn": 1})})
    entries = calibrate(config, DarkIsVessel(), per_dataset=2)
    assert set(entries) == {"artery", "vein", "vessel"} - set(absent)
    assert f"shows {', '.join(absent)}" in caplog.text


class DarkIsVessel(BrightIsExudate):
    """A network that gives dark lines to all of the vessels' heads."""

    def _shown(self, rgb):
        shown = np.where((rgb[..., 0] < 175) & (rgb[..., 0] > 60), 0.8, 0.05).astype(np.float32)
        return {name: shown for name in TASKS["vessels"]}
