"""Networks adapted on masks of some heads only: they export what they learned, and a shard is segmented with that."""

from __future__ import annotations

import json
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from fundus_drawings import drawn_eye, write_manifest

from retsam.masks.masks import Masks
from retsam.masks.store import read_masks
from retsam.quality.field_of_view import detect_field_of_view
from retsam.segmentation.config import SegmentationConfig
from retsam.segmentation.predict import Segmenter
from retsam.segmentation.shard import segment_shard
from retsam.training import export as exporting
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.export import export, recalibrate
from retsam.training.pseudo import pseudo_label
from retsam.training.stages import run_stage

torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one step on a manifest with some columns of masks."""
    monkeypatch.setattr(exporting, "view_statistics", partial(exporting.view_statistics, batches=1))

    def trained(task: str, columns: tuple[str, ...]) -> TrainConfig:
        table = pd.read_csv(write_manifest(tmp_path, 2))
        others = [c for c in ("vessel", "av", "disc", "disc_cup", "lesions") if c not in columns]
        if "disc" in columns:
            table["disc"] = table["disc_cup"].fillna("")
        table.assign(**dict.fromkeys(others, np.nan)).to_csv(tmp_path / "manifest.csv", index=False)
        tasks = {task: TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=64)}
        config = TrainConfig(manifest=tmp_path / "manifest.csv", root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks, steps=1)
        run_stage(config)
        return config

    return trained


@pytest.mark.parametrize(
    ("task", "columns", "heads"),
    [
        ("vessels", ("vessel",), {"vessel"}),
        ("optic_nerve", ("disc",), {"disc"}),
        ("lesions_dr", ("lesions",), {"microaneurysm", "hemorrhage", "hard_exudate"}),
    ],
)
def test_a_shard_is_segmented_with_the_heads_that_were_drawn(run, tmp_path, monkeypatch, task, columns, heads):
    config = run(task, columns)
    if task == "lesions_dr":
        mask = cv2.imread(str(tmp_path / "0_lesions.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "0_lesions.png"), np.where(mask == 8, 0, mask))
    weights = export(config, tmp_path / "mine.safetensors", per_dataset=1)
    assert set(json.loads(weights.with_suffix(".json").read_text())["heads"]) == heads
    rgb = drawn_eye(200)[0]
    cv2.imwrite(str(tmp_path / "eye.png"), rgb[..., ::-1])
    shard = pd.DataFrame({"image_id": ["a"], "path": [str(tmp_path / "eye.png")]})
    about = {"image_id": "a", "status": "ok", "reason": None, "detail": None} | detect_field_of_view(rgb).to_columns()
    segmenter = Segmenter(weights, flips=False)
    store = segment_shard(shard, pd.DataFrame([about]), tmp_path / "s.zarr", SegmentationConfig(), 10**7, segmenter, progress=False)
    (masks,) = read_masks(store)
    assert isinstance(masks, Masks) and set(masks.planes) == heads
    if task == "vessels":
        assert set(recalibrate(config, weights, 1)) == heads
        with pytest.raises(ValueError, match="mine.safetensors: expected heads of artery, vein, vessel, found no artery, vein"):
            pseudo_label(config.model_copy(update={"pseudo_labels": tmp_path}), [weights], ["drawn"], 1)
        other = config.model_copy(update={"tasks": {"optic_nerve": config.tasks["vessels"]}})
        with pytest.raises(ValueError, match="expected heads of optic_nerve"):
            recalibrate(other, weights, 1)


def test_heads_without_a_threshold_are_no_export(run, tmp_path):
    """Classes of vessels without vessels, and masks that show nothing: nothing is written, not even thresholds of trial."""
    config = run("vessels", ("av",))
    with pytest.raises(ValueError, match=r"expected `vessel` masks .* found none \(`av` masks alone"):
        export(config, tmp_path / "mine.safetensors", per_dataset=1)
    for path in tmp_path.glob("*_vessel.png"):
        cv2.imwrite(str(path), np.zeros((400, 400), np.uint8))
    table = pd.read_csv(config.manifest)
    table.assign(vessel=[f"{k}_vessel.png" for k in range(len(table))], av=np.nan).to_csv(config.manifest, index=False)
    with pytest.raises(ValueError, match="no head of vessels has a threshold"):
        export(config, tmp_path / "mine.safetensors", per_dataset=1)
    assert not list(tmp_path.glob("mine.*"))
