"""Lesions of one photograph put onto another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retsam.training import labels as lab
from retsam.training.config import TaskConfig
from retsam.training.frames import Frames
from retsam.training.paste import paste
from retsam.training.sampler import TaskSampler

SIDE = 96
KNOWN = lab.LESION_BITS["known"] | lab.FOV_BIT


def ground(*colour: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of one colour, known to be free of lesions."""
    return np.full((SIDE, SIDE, 3), colour, np.uint8), np.full((SIDE, SIDE), KNOWN, np.uint8)


def with_lesion(y: int, x: int, bit: int, light: float = 0.5, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A photograph with one square lesion of so much of its ground's light."""
    rgb, label = ground(200, 100, 80)
    rgb[y : y + side, x : x + side] = np.array([200, 100, 80]) * light
    label[y : y + side, x : x + side] |= bit
    return rgb, label


def test_lesion_takes_the_light_of_the_ground_that_it_comes_to_lie_on():
    donor, drawn = with_lesion(40, 50, lab.LESION_BITS["hemorrhage"])
    rgb, label = paste(*ground(120, 60, 100), donor, drawn)
    assert np.array_equal(label & lab.LESION_BITS["hemorrhage"] > 0, drawn & lab.LESION_BITS["hemorrhage"] > 0)
    assert rgb[44, 54] == pytest.approx([60, 30, 50], abs=2)
    away = np.ones((SIDE, SIDE), bool)
    away[36:52, 46:62] = False
    assert (rgb[away] == [120, 60, 100]).all(), "the photograph changed where no lesion was put"


def test_faint_lesions_are_fainter():
    donor, drawn = with_lesion(40, 50, lab.LESION_BITS["microaneurysm"])
    full, _ = paste(*ground(120, 60, 100), donor, drawn)
    faint, label = paste(*ground(120, 60, 100), donor, drawn, strength=0.5)
    assert full[44, 54, 1] < faint[44, 54, 1] < 60
    assert (label & lab.LESION_BITS["microaneurysm"]).any()


def test_a_ground_without_blue_says_nothing_about_the_blue_of_its_lesions():
    donor, drawn = ground(200, 100, 2)
    donor[40:48, 50:58], drawn[40:48, 50:58] = (120, 50, 2), KNOWN | lab.LESION_BITS["hemorrhage"]
    rgb, _ = paste(*ground(200, 120, 120), donor, drawn)
    assert rgb[44, 54, 2] < 90, "a haemorrhage came out blue"


@pytest.mark.parametrize("where", ["own lesion", "edge", "unknown"])
def test_a_lesion_that_would_be_cut_is_left_out_as_a_whole(where: str):
    donor, drawn = with_lesion(40, 50, lab.LESION_BITS["hemorrhage"])
    rgb, label = ground(120, 60, 100)
    if where == "own lesion":
        label[44:46, 57:60] |= lab.LESION_BITS["microaneurysm"]
    elif where == "edge":
        label[:, 55:] = 0
    else:
        label[:, 55:] = lab.FOV_BIT
    out, bits = paste(rgb, label, donor, drawn)
    assert np.array_equal(out, rgb) and np.array_equal(bits, label)


def test_crops_of_healthy_photographs_get_lesions_by_the_share_that_is_asked_for():
    healthy, sick = ground(120, 60, 100), with_lesion(40, 40, lab.LESION_BITS["hard_exudate"], 2.0, 16)
    table = pd.DataFrame({"dataset": "a", "weight": [1.0, 1e-9], "negative": [True, False], "point_x": np.nan, "point_y": np.nan})
    frames = Frames(np.stack([healthy[0], sick[0]]), np.stack([healthy[1], sick[1]]), table.assign(point_size=np.nan, image=["0", "1"]))

    def share(paste_share: float) -> float:
        settings = TaskConfig(datasets={"a": 1}, crop=64, batch=2, frame=SIDE, paste=paste_share, scale=(0.9, 1.1))
        sampler, rng = TaskSampler("lesions_dr", frames, settings), np.random.default_rng(0)
        labels = np.concatenate([sampler.batch(rng).label for _ in range(30)])
        return float((labels & lab.LESION_BITS["hard_exudate"] > 0).any(axis=(1, 2)).mean())

    assert share(0.0) == 0.0
    assert 0.2 < share(0.5) < share(1.0)
