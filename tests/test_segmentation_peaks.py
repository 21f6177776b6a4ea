"""A lesion counts where the network is sure of it somewhere: healthy eyes show fewer specks."""

import json
import shutil

import numpy as np
import pytest

from retsam.evaluation.thresholds import peak_threshold
from retsam.segmentation.postprocess import drop_faint, to_planes
from retsam.segmentation.predict import Segmenter
from retsam.segmentation.weights import DEFAULT_WEIGHTS

SIDE = 120
FOV = np.ones((SIDE, SIDE), bool)


def spots(*peaks: float, extent: float = 0.55) -> np.ndarray:
    """Lesions of 5 by 5 px, each with one pixel of its own highest probability, 20 px apart."""
    p = np.full((SIDE, SIDE), 0.01, np.float32)
    for k, peak in enumerate(peaks):
        y, x = 10 + 20 * (k // 5), 10 + 20 * (k % 5)
        p[y : y + 5, x : x + 5] = extent
        p[y + 2, x + 2] = peak
    return p


def test_a_lesion_keeps_its_extent_or_goes_as_a_whole():
    p = spots(0.95, 0.7)
    planes = to_planes({"hard_exudate": p, "hemorrhage": p}, FOV, {"hard_exudate": 0.5, "hemorrhage": 0.5, "hard_exudate_peak": 0.9})
    assert planes["hard_exudate"].sum() == 25 and planes["hard_exudate"][10:15, 10:15].all()
    assert planes["hemorrhage"].sum() == 50, "a peak is of its own lesion alone"
    mask = p >= 0.5
    assert np.array_equal(drop_faint(mask, p, 0.0), mask) and not drop_faint(mask, p, 0.96).any()
    assert not drop_faint(np.zeros_like(mask), p, 0.5).any()


def test_the_peak_is_the_lowest_that_leaves_healthy_eyes_one_lesion_each():
    drawn = spots(0.97, 0.97, 0.97, 0.97)
    truth = drawn >= 0.5
    pairs = [(drawn, truth, FOV)]
    assert peak_threshold(pairs, {"well": [(spots(0.65, 0.75, 0.95), FOV)]}, 0.5, 4) == 0.8
    assert peak_threshold(pairs, {"well": [(spots(0.65), FOV)]}, 0.5, 4) is None, "one lesion each already"
    assert peak_threshold(pairs, {}, 0.5, 4) is None
    # Each data set counts once: two in one of them and none in three photographs of the other are one on average.
    assert peak_threshold(pairs, {"a": [(spots(0.65, 0.65), FOV)], "b": [(spots(), FOV)] * 3}, 0.5, 4) is None
    assert peak_threshold(pairs, {"a": [(spots(*[0.95] * 5), FOV)]}, 0.5, 4) == 0.9, "the highest candidate where none suffices"


def test_a_peak_that_costs_drawn_lesions_is_not_taken():
    truth = spots(0.97, 0.97, 0.97, 0.97) >= 0.5
    well = {"well": [(spots(0.65, 0.75, 0.82, 0.95), FOV)]}
    assert peak_threshold([(spots(0.97, 0.97, 0.97, 0.72), truth, FOV)], well, 0.5, 4) == 0.7
    assert peak_threshold([(spots(0.97, 0.97, 0.97, 0.55), truth, FOV)], well, 0.5, 4) is None
    assert peak_threshold([(spots(0.97, 0.97, 0.97, 0.97), truth, FOV)], well, 0.75, 4) is None, "at 0.75 no spot has five pixels"


@pytest.mark.parametrize(("peak", "expected"), [(0.83, 0.83), (None, None)])
def test_the_card_says_what_a_lesion_must_reach(tmp_path, peak, expected):
    path = tmp_path / "w.safetensors"
    shutil.copy(DEFAULT_WEIGHTS, path)
    card = json.loads(DEFAULT_WEIGHTS.with_suffix(".json").read_text())
    card["heads"]["microaneurysm"]["peak"] = peak
    path.with_suffix(".json").write_text(json.dumps(card))
    assert Segmenter(path, device="cpu", tasks=["lesions_dr"]).thresholds.get("microaneurysm_peak") == expected
