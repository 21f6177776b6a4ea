"""A shard of photographs, good and bad, to one store."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from fundus_drawings import drawn_eye

import retsam
from retsam.masks.masks import Failure, Masks
from retsam.masks.store import read_masks
from retsam.quality.field_of_view import detect_field_of_view
from retsam.segmentation.config import SegmentationConfig
from retsam.segmentation.predict import Segmenter, prepare
from retsam.segmentation.shard import _predict, segment_shard


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


def test_bad_photographs_are_rows_and_the_order_is_kept(tmp_path, segmenter):
    rgb, _ = drawn_eye(300)
    cv2.imwrite(str(tmp_path / "good.png"), rgb[..., ::-1])
    (tmp_path / "gone.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    shard = pd.DataFrame(
        {
            "image_id": ["a", "b", "c"],
            "path": [str(tmp_path / name) for name in ("good.png", "gone.jpg", "good.png")],
            "eye": ["R", None, "L"],
            "um_per_px": [12.5, np.nan, np.nan],
        }
    )
    fov = detect_field_of_view(rgb).to_columns()
    metrics = pd.DataFrame([{"image_id": i, "status": "ok", "reason": None, "detail": None, **fov} for i in "abc"])
    path = segment_shard(shard, metrics, tmp_path / "s0000.zarr", SegmentationConfig(workers=2), 10**7, segmenter, progress=False)
    items = list(read_masks(path))
    assert [item.image_id for item in items] == ["a", "b", "c"]
    assert isinstance(items[0], Masks) and isinstance(items[1], Failure) and isinstance(items[2], Masks)
    assert items[1].reason and items[1].detail
    assert items[0].eye == "R" and items[0].um_per_px == 12.5 and items[2].um_per_px is None
    assert items[0].frame.native_width == 300
    assert all(np.array_equal(items[0].planes[name], items[2].planes[name]) for name in items[0].planes)
    assert "macular_hole" not in items[0].planes and items[0].status["macular_hole"] == "not_available"


def test_a_photograph_that_the_network_fails_on_is_a_row_and_a_broken_device_is_not(tmp_path, segmenter, monkeypatch):
    rgb, _ = drawn_eye(300)
    cv2.imwrite(str(tmp_path / "good.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "odd.png"), rgb[::-1, :, ::-1])
    shard = pd.DataFrame({"image_id": list("abc"), "path": [str(tmp_path / name) for name in ("good.png", "odd.png", "good.png")]})
    fov = detect_field_of_view(rgb).to_columns()
    metrics = pd.DataFrame([{"image_id": i, "status": "ok", "reason": None, "detail": None, **fov} for i in "abc"])
    config, predict = SegmentationConfig(workers=1), segmenter.predict_prepared
    good = prepare(rgb).rgb

    def failing(error):
        def odd(items):
            if any(not np.array_equal(item.rgb, good) for item in items):
                raise error
            return predict(items)

        return odd

    monkeypatch.setattr(segmenter, "batch_size", 3)
    monkeypatch.setattr(segmenter, "predict_prepared", failing(RuntimeError("odd shape")))
    items = list(read_masks(segment_shard(shard, metrics, tmp_path / "s.zarr", config, 10**7, segmenter, progress=False)))
    assert [type(item) for item in items] == [Masks, Failure, Masks]
    assert items[1].reason == "segmentation_failed" and items[1].detail == "RuntimeError: odd shape"
    monkeypatch.setattr(segmenter, "predict_prepared", failing(torch.AcceleratorError("illegal memory access")))
    with pytest.raises(torch.AcceleratorError):
        segment_shard(shard, metrics, tmp_path / "t.zarr", config, 10**7, segmenter, progress=False)


def test_a_batch_that_is_too_large_is_let_go_before_its_photographs_are_tried_alone(segmenter, monkeypatch):
    """And a photograph that finds no memory by itself ends the shard: a store must not say that it cannot be segmented."""

    class Held:
        alive = 0

        def __init__(self):
            Held.alive += 1

        def __del__(self):
            Held.alive -= 1

    seen = []

    def short_of_memory(items):
        seen.append((len(items), Held.alive))
        held = Held()  # noqa: F841 (as the tensors of a batch)
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(items)

    predict, group = segmenter.predict_prepared, [({"image_id": name}, prepare(drawn_eye(200)[0])) for name in "ab"]
    monkeypatch.setattr(segmenter, "predict_prepared", short_of_memory)
    most = 1
    assert [type(item) for item in _predict(segmenter, group)] == [Masks, Masks]
    assert seen == [(2, 0), (1, 0), (1, 0)]
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        _predict(segmenter, group)


def test_metrics_of_other_images_are_refused(tmp_path, segmenter):
    shard = pd.DataFrame({"image_id": ["a"], "path": ["a.png"]})
    with pytest.raises(ValueError, match="quality metrics"):
        segment_shard(
            shard, pd.DataFrame({"image_id": ["z"], "status": ["ok"]}), tmp_path / "s.zarr", SegmentationConfig(), 10**7, segmenter
        )


def test_segment_checks_its_input_and_gives_masks(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        retsam.segment(np.zeros((10, 10), np.float32))
    rgb, _ = drawn_eye(300)
    cv2.imwrite(str(tmp_path / "eye.png"), rgb[..., ::-1])
    from_file = retsam.segment(tmp_path / "eye.png", eye="L")
    masks = retsam.segment(rgb, eye="L")
    assert np.array_equal(from_file.planes["vessel"], masks.planes["vessel"])
    drawn = {target for target in masks.planes if masks.status[target] == "supervised"}
    assert masks.eye == "L" and masks.fov.mean() > 0.7
    assert set(masks.confidence) == drawn, "a weak head has no masks to calibrate an expected Dice with"
