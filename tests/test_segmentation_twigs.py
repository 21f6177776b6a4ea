"""Faint vessels: what hangs on a sure vessel comes back as a line, and the thresholds that decide it; arteries and veins are vessels."""

import json
import shutil

import cv2
import numpy as np
import pytest

from retsam.evaluation.reference import Reference
from retsam.evaluation.scoring import score_image
from retsam.evaluation.twigs import twig_threshold, unbiased_thresholds
from retsam.masks.frame import Frame
from retsam.segmentation.config import SegmentationConfig
from retsam.segmentation.postprocess import TWIGS, classes, ridges, to_planes, vessel_mask
from retsam.segmentation.predict import Prediction, Segmenter
from retsam.segmentation.shard import segmenter_of
from retsam.segmentation.weights import DEFAULT_WEIGHTS

SIDE = 200


def probability(twig: float = 0.25, gap: float = 0.25) -> np.ndarray:
    """A sure trunk, a faint twig that hangs on it, a faint streak that hangs on nothing."""
    p = np.full((SIDE, SIDE), 0.02, np.float32)
    p[96:104, 10:190] = 0.95
    p[60:96, 99:102] = gap
    p[20:60, 99:102] = twig
    p[:, 98] = np.where(p[:, 99] == twig, 0.6 * twig, p[:, 98])  # less likely to one side of its line
    p[150:153, 20:120] = 0.25
    return p


def test_a_twig_comes_back_as_a_line_and_a_loose_streak_does_not():
    fov = np.ones((SIDE, SIDE), bool)
    sure = vessel_mask(probability(), fov, 0.5)
    found = vessel_mask(probability(), fov, 0.5, 0.2)
    assert sure[96:104, 10:190].all() and sure.sum() == 8 * 180
    added = found & ~sure
    assert added[22:96].any(axis=1).all(), "no gap up to the vessel that it hangs on"
    assert added.sum(axis=1).max() <= 3 and not added[30:60, 98].any(), "a line, as wide as it is probable"
    assert not found[140:].any(), "hangs on nothing"
    assert cv2.connectedComponents(found.astype(np.uint8), connectivity=8)[0] == 2
    assert (vessel_mask(probability(), fov, 0.5, 0.6) == sure).all()
    fov[:, 90:110] = False
    assert not vessel_mask(probability(), fov, 0.5, 0.2)[:, 90:110].any()


def test_a_break_in_a_vessel_is_bridged_where_the_network_saw_something():
    fov = np.ones((SIDE, SIDE), bool)
    p = probability(twig=0.9, gap=0.25)
    assert cv2.connectedComponents(vessel_mask(p, fov, 0.5).astype(np.uint8))[0] == 3
    assert cv2.connectedComponents(vessel_mask(p, fov, 0.5, 0.2).astype(np.uint8))[0] == 2


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 135])
@pytest.mark.parametrize("width", [1.2, 3.0])
def test_a_ridge_is_the_middle_of_a_thin_vessel_at_any_angle(angle, width):
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    across = np.abs(np.cos(np.radians(angle)) * y - np.sin(np.radians(angle)) * x)
    along = np.sin(np.radians(angle)) * y + np.cos(np.radians(angle)) * x
    p = (0.02 + 0.2 * np.exp(-0.5 * (across / width) ** 2)).astype(np.float32)
    found = ridges(p) & (np.abs(along) < 80) & (p > 0.1)
    assert across[found].max() < 1.5, "beside the middle"
    assert np.ptp(along[found]) > 155 and cv2.connectedComponents(found.astype(np.uint8), connectivity=8)[0] == 2, "no gaps"
    assert found.sum() < 2.5 * 160, "a line"


def test_a_wide_vessel_and_a_plain_have_no_ridge():
    p = np.full((SIDE, SIDE), 0.1, np.float32)
    p[80:120] = 0.9
    assert not ridges(p)[[30, 100, 170]].any()
    assert not ridges(np.zeros((SIDE, SIDE), np.float32) + 0.3).any()


def test_arteries_are_as_wide_as_the_vessel():
    vessel = np.full((SIDE, SIDE), 0.02, np.float32)
    artery, vein = vessel.copy(), vessel.copy()
    vessel[80:120] = 0.4
    vessel[90:110] = 0.9
    vessel[:, 95:105] = 0.9
    artery[80:120] = 0.45  # wider than the vessel at its threshold
    vein[:, 95:105] = 0.8
    artery[90:110, 95:105] = 0.8
    fov = np.ones(vessel.shape, bool)
    planes = to_planes({"vessel": vessel, "artery": artery, "vein": vein}, fov, {"vessel": 0.5, "artery": 0.3, "vein": 0.3})
    assert planes["artery"][:, 20].sum() == planes["vessel"][:, 20].sum() == 20
    assert (planes["artery"] | planes["vein"] == planes["vessel"]).all()
    assert (planes["artery"] & planes["vein"])[91:109, 96:104].all() and (planes["artery"] & planes["vein"]).sum() == 20 * 10
    parts = classes(planes["vessel"], artery, vein)
    assert (parts[0] == planes["artery"]).all() and (parts[1] == planes["vein"]).all()
    alone = to_planes({"artery": artery, "vein": vein}, fov, {"artery": 0.3, "vein": 0.3})
    assert alone["artery"][:, 20].sum() == 40, "without vessels, by its own threshold"


def test_at_native_size_arteries_are_parts_of_the_vessels_too():
    side = 2 * SIDE
    probabilities = {name: np.full((side, side), 0.02, np.float32) for name in ("vessel", "artery", "vein")}
    probabilities["vessel"][180:220] = 0.9
    probabilities["artery"][170:230] = 0.8
    found = Prediction(probabilities, np.ones((side, side), bool), Frame.from_square(0, 0, SIDE, side, SIDE, SIDE), None, 0.0, {}, {})
    truth = np.zeros((SIDE, SIDE), bool)
    truth[90:110] = True
    score = score_image(found, Reference(masks={"vessel": truth, "artery": truth, "vein": np.zeros_like(truth)}))
    assert score.values["artery"]["dsc"] == score.values["vessel"]["dsc"] > 0.97


def test_twigs_have_a_class():
    p = probability()
    planes = to_planes({"vessel": p, "artery": 0.9 * p, "vein": 0.1 * p}, np.ones(p.shape, bool), {"vessel": 0.5, TWIGS: 0.2})
    assert planes["vessel"][25:90].any() and (planes["artery"] >= planes["vessel"]).all() and not planes["vein"].any()


def test_twigs_are_taken_where_they_are_drawn_and_left_where_they_are_not():
    p, known = probability(), np.ones((SIDE, SIDE), bool)
    trunk = p > 0.9
    drawn = trunk | ((p > 0.2) & (np.arange(SIDE)[:, None] < 96))
    assert twig_threshold({"drawn": [(p, drawn, known)]}, 0.5) == 0.2
    assert twig_threshold({"not": [(p, trunk, known)]}, 0.5) is None
    # Where they are drawn elsewhere than they are seen, the length would be right and clDice pays.
    aside = trunk | np.roll(drawn & ~trunk, 12, axis=1)
    assert twig_threshold({"aside": [(p, aside, known)]}, 0.5, cost=(1.0, 1.0)) == 0.2
    assert twig_threshold({"aside": [(p, aside, known)]}, 0.5, cost=(1.0, 0.005)) is None
    # One data set that would lose is enough to leave them.
    assert twig_threshold({"drawn": [(p, drawn, known)], "not": [(p, trunk, known)]}, 0.5) is None


def test_the_card_says_where_twigs_begin(tmp_path):
    path = tmp_path / "w.safetensors"
    shutil.copyfile(DEFAULT_WEIGHTS, path)
    card = json.loads(DEFAULT_WEIGHTS.with_suffix(".json").read_text())
    for given, expected in ((0.15, 0.15), (None, None)):
        card["heads"]["vessel"]["twigs"] = given
        path.with_suffix(".json").write_text(json.dumps(card))
        assert Segmenter(path, device="cpu").thresholds.get(TWIGS) == expected


def test_two_thresholds_together_leave_neither_length_nor_area_biased():
    p, known = probability(), np.ones((SIDE, SIDE), bool)
    p[92:96, 10:80] = p[104:108, 10:190] = 0.68  # a halo that is vessel or is not
    trunk = np.zeros(p.shape, bool)
    trunk[96:104, 10:190] = True
    drawn = trunk | ((p > 0.2) & (np.arange(SIDE)[:, None] < 96) & (p != np.float32(0.68)))
    assert unbiased_thresholds({"a": [(p, drawn, known)]}) == (0.75, 0.2)
    nothing = (p, np.zeros_like(drawn), known)
    assert unbiased_thresholds({"a": [(p, drawn, known), nothing], "b": [nothing]}) == (0.75, 0.2), "nothing drawn says nothing"
    wide = drawn | (p == np.float32(0.68))
    assert unbiased_thresholds({"a": [(p, wide, known)]}) == (0.45, 0.2)
    assert unbiased_thresholds({"a": [(p, trunk, known)]}) == (0.75, None)
    # Each data set counts once, however many images it has.
    assert unbiased_thresholds({"a": [(p, wide, known)], "b": [(p, trunk, known)] * 4, "c": [(p, wide, known)]}, cost=1.0) == (0.45, 0.2)
    # Twigs that are drawn as long elsewhere would take their length back, for more overlap than it is worth.
    aside = trunk | np.roll(drawn & ~trunk, 12, axis=1)
    assert unbiased_thresholds({"a": [(p, aside, known)]}, cost=1.0) == (0.75, 0.2)
    assert unbiased_thresholds({"a": [(p, aside, known)]}, cost=0.001) == (0.75, None)
    with pytest.raises(ValueError, match="no validation image"):
        unbiased_thresholds({"a": [nothing]})


def test_a_study_may_ask_for_unbiased_vessels(tmp_path):
    path = tmp_path / "w.safetensors"
    shutil.copyfile(DEFAULT_WEIGHTS, path)
    card = json.loads(DEFAULT_WEIGHTS.with_suffix(".json").read_text())
    card["heads"]["vessel"]["unbiased"] = {"threshold": 0.71, "twigs": None}
    path.with_suffix(".json").write_text(json.dumps(card))
    segmenter = segmenter_of(SegmentationConfig(weights=path, device="cpu", unbiased=True, thresholds={"disc": 0.41}))
    assert segmenter.thresholds["vessel"] == 0.71 and TWIGS not in segmenter.thresholds and segmenter.thresholds["disc"] == 0.41
    segmenter.use_pen("hrf")
    assert segmenter.thresholds["vessel"] == card["heads"]["vessel"]["pens"]["hrf"] and segmenter.thresholds["disc"] == 0.41
    given = segmenter_of(SegmentationConfig(weights=path, device="cpu", unbiased=True, thresholds={"vessel": 0.33})).thresholds
    assert given["vessel"] == 0.33, "what is given comes before what is chosen"
    del card["heads"]["vessel"]["unbiased"]
    path.with_suffix(".json").write_text(json.dumps(card))
    assert Segmenter(path, device="cpu").thresholds["vessel"] == card["heads"]["vessel"]["threshold"]
    with pytest.raises(ValueError, match="w.safetensors has no thresholds of unbiased"):
        Segmenter(path, device="cpu", unbiased=True)
