"""Masks drawn on photographs."""

from __future__ import annotations

import numpy as np
import pytest
from report_study import photograph

from retsam.masks.frame import Frame
from retsam.masks.masks import Masks
from retsam.masks.overlay import COLOURS, overlay
from retsam.segmentation.targets import TARGETS


@pytest.fixture
def pair():
    return photograph(np.random.default_rng(0))


def test_size_type_and_source_are_kept(pair):
    rgb, masks = pair
    before = rgb.copy()
    out = overlay(rgb, masks)
    assert out.shape == rgb.shape and out.dtype == np.uint8 and (rgb == before).all()
    touched = (out != rgb).any(axis=2)
    assert touched.any() and not touched[: rgb.shape[0] // 8, : rgb.shape[1] // 8].any()


def test_only_the_asked_targets_are_drawn(pair):
    rgb, masks = pair
    touched = (overlay(rgb, masks, ["vein"]) != rgb).any(axis=2)
    assert (touched == masks.planes["vein"]).all()


def test_colours_of_artery_and_vein_lie_on_their_side(pair):
    rgb, masks = pair
    out = overlay(rgb, masks, ["artery", "vein"]).astype(int)
    alone = {n: masks.planes[n] & ~masks.planes[o] for n, o in (("artery", "vein"), ("vein", "artery"))}
    assert (out[alone["artery"]][:, 0] > out[alone["artery"]][:, 2]).all()
    assert (out[alone["vein"]][:, 2] > out[alone["vein"]][:, 0]).all()


def test_disc_and_cup_are_contours_that_leave_the_inside_visible(pair):
    rgb, masks = pair
    touched = (overlay(rgb, masks, ["disc", "cup"]) != rgb).any(axis=2)
    ys, xs = np.nonzero(masks.planes["cup"])
    assert not touched[int(ys.mean()), int(xs.mean())] and touched.any()


def test_masks_of_a_frame_are_drawn_on_the_native_photograph_where_they_lie():
    # A frame of half the resolution, 10 px right of and 6 px below the native origin.
    side = 64
    plane = np.zeros((side, side), bool)
    plane[20:30, 40:50] = True
    frame = Frame.from_square(10, 6, 2 * side, side, 200, 160)
    masks = Masks({"vein": plane}, np.ones((side, side), bool), frame, None, None)
    rgb = np.zeros((160, 200, 3), np.uint8)
    ys, xs = np.nonzero(overlay(rgb, masks).any(axis=2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (6 + 40, 6 + 59, 10 + 80, 10 + 99)
    warped = overlay(np.zeros((side, side, 3), np.uint8), masks)
    assert (warped.any(axis=2) == plane).all()


def test_fovea_is_a_cross_where_it_was_found(pair):
    rgb, masks = pair
    touched = (overlay(rgb, masks, ["fovea"]) != rgb).any(axis=2)
    ys, xs = np.nonzero(touched)
    assert abs(xs.mean() - masks.fovea[0]) < 0.6 and abs(ys.mean() - masks.fovea[1]) < 0.6


def test_empty_masks_change_nothing():
    masks = Masks({"disc": np.zeros((50, 50), bool)}, np.ones((50, 50), bool), Frame.identity(50, 50), None, None)
    rgb = np.full((50, 50, 3), 7, np.uint8)
    assert (overlay(rgb, masks) == rgb).all()


def test_legend_is_added_below(pair):
    rgb, masks = pair
    out = overlay(rgb, masks, legend=True)
    assert out.shape[0] > rgb.shape[0] and (out[: rgb.shape[0]] == overlay(rgb, masks)).all()


def test_faults_say_what_was_expected(pair):
    rgb, masks = pair
    with pytest.raises(ValueError, match="160x160"):
        overlay(rgb[:-1], masks)
    with pytest.raises(ValueError, match="uint8"):
        overlay(rgb.astype(float), masks)
    with pytest.raises(ValueError, match="unknown targets drus"):
        overlay(rgb, masks, ["drus"])
    with pytest.raises(ValueError, match="no plane of drusen"):
        overlay(rgb, masks, ["drusen"])


def test_every_target_has_a_colour_of_its_own():
    assert set(COLOURS) == set(TARGETS)
    assert len(set(COLOURS.values())) == len(COLOURS) - 1, "disc and fovea, a contour and a cross, share white"


def test_colours_stay_apart_for_colour_blind_readers():
    """Brettel-like projection by Vienot 1999: pairs that lie on each other keep a visible distance for protan and deutan readers."""
    linear = {n: ((np.array(c) / 255) ** 2.2) for n, c in COLOURS.items()}
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for loss in (protan, deutan):
        seen = {n: np.clip(np.linalg.solve(to_lms, loss @ to_lms @ c), 0, 1) ** (1 / 2.2) for n, c in linear.items()}
        for a, b in (
            ("artery", "vein"),
            ("disc", "cup"),
            ("microaneurysm", "hard_exudate"),
            ("hemorrhage", "hard_exudate"),
            ("hard_exudate", "cotton_wool_spot"),
            ("myelinated_nerve_fiber", "vitreous_degeneration"),
            ("myelinated_nerve_fiber", "hard_exudate"),
            ("laser_spot", "hard_exudate"),
        ):
            assert np.linalg.norm(seen[a] - seen[b]) > 0.2, (a, b)
