"""False alarms of a network on healthy photographs, and options that would do nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from retsam.segmentation.predict import DEFAULT_WEIGHTS
from retsam.training import labels as lab
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.frames import Frames
from retsam.training.mine import false_alarms
from retsam.training.sampler import TaskSampler

torch.set_num_threads(1)
SIDE = 512
KNOWN = lab.LESION_BITS["known"] | lab.FOV_BIT
SPOT = (330, 180)


def frames() -> Frames:
    """A healthy photograph with a dark red spot on it, a blank one, and one that is not healthy."""
    rng = np.random.default_rng(0)
    rgb = np.clip(np.array([190, 95, 50]) + rng.normal(0, 2, (3, SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
    for index in (0, 2):
        cv2.circle(rgb[index], SPOT, 12, (110, 30, 20), -1)
        rgb[index] = cv2.GaussianBlur(rgb[index], (0, 0), 1.5)
    label = np.full((3, SIDE, SIDE), KNOWN, np.uint8)
    label[2, 172:188, 322:338] |= lab.LESION_BITS["hemorrhage"]
    names = [f"{index}.png" for index in range(3)]
    table = pd.DataFrame({"dataset": "a", "image": names, "weight": 1.0, "negative": [True, True, False], "point_x": np.nan})
    return Frames(rgb, label, table.assign(point_y=np.nan, point_size=np.nan))


def test_false_alarms_are_where_the_network_shows_lesions(tmp_path):
    found = false_alarms(frames(), DEFAULT_WEIGHTS, tmp_path)
    assert 2 not in found, "a photograph with lesions has no false alarms"
    near = np.hypot(*(found[0] - np.array(SPOT)).T) < 25
    assert near.mean() > 0.8
    (kept,) = tmp_path.glob("alarms-*.npz")
    written = kept.stat().st_mtime_ns
    assert np.array_equal(false_alarms(frames(), DEFAULT_WEIGHTS, tmp_path)[0], found[0])
    assert kept.stat().st_mtime_ns == written, "the answer was not kept"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_crops_of_healthy_photographs_are_centred_on_false_alarms_by_the_share(share: float):
    settings = TaskConfig(datasets={"a": 1}, crop=64, batch=1, frame=SIDE, mine=share, scale=(1, 1.01))
    alarms = {0: np.array([SPOT])}
    sampler, rng = TaskSampler("lesions_dr", frames(), settings, alarms=alarms), np.random.default_rng(0)
    matrices = [sampler._matrix(rng, 0, 64, False) for _ in range(200)]
    shows = np.mean([(np.abs(m @ [*SPOT, 1.0] - 31.5) < 32).all() for m in matrices])
    assert share * 0.85 <= shows <= share + 0.12


@pytest.mark.parametrize(
    ("task", "options", "fault"),
    [
        ("vessels", {"paste": 0.5, "mine": 0.2}, "vessels.paste.*vessels.mine"),
        ("lesions_dr", {"pen": 0.5}, "lesions_dr.pen.*vessels only"),
        ("lesions_dr", {"mine": 0.5}, "expected `init` to be a weights file"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, task: str, options: dict, fault: str):
    tasks = {task: TaskConfig(datasets={"a": 1}, **options)}
    with pytest.raises(ValueError, match=fault):
        TrainConfig(manifest=tmp_path / "m.csv", root=tmp_path, out=tmp_path, tasks=tasks)
