"""Disc and fovea found with an eye on each other; the outline of disc and cup."""

import cv2
import numpy as np
import pytest
import torch

from retsam.biomarkers.disc import Disc, fit_disc
from retsam.biomarkers.registry import Null
from retsam.segmentation.landmarks import as_drawn, disc_circle, fovea_map, fovea_prior, locate_fovea
from retsam.segmentation.postprocess import to_planes

torch.set_num_threads(1)

SIDE = 400
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def ellipse(x, y, a, b, degrees=0.0, side=SIDE):
    ys, xs = np.mgrid[:side, :side]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (((xs - x) * c + (ys - y) * s) / a) ** 2 + (((ys - y) * c - (xs - x) * s) / b) ** 2 <= 1


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def heat(*peaks, cells=128):
    """Heatmap logits with a Gaussian bump at each ``(x, y, height)``, cells."""
    ys, xs = np.mgrid[:cells, :cells]
    out = np.full((cells, cells), 1e-9)
    for x, y, height in peaks:
        out += height * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 2.5**2))
    return torch.from_numpy(np.log(out).astype(np.float32))


@pytest.mark.parametrize("degrees", [0.0, 35.0])
def test_outline_loses_what_hangs_on_the_disc_and_its_ragged_edge(degrees):
    truth = ellipse(200, 190, 70, 60, degrees)
    rng = np.random.default_rng(0)
    ragged = cv2.GaussianBlur(truth + 0.8 * cv2.GaussianBlur(rng.normal(size=truth.shape), (0, 0), 3), (0, 0), 1) > 0.5
    rough = truth | (ragged & ellipse(200, 190, 76, 66, degrees))
    rough[180:196, 255:330] = True  # a tongue of atrophy
    drawn = as_drawn(rough, EVERYWHERE)
    assert dice(rough, truth) < 0.965 and dice(drawn, truth) > 0.975
    assert not drawn[188, 290:].any()


def test_outline_of_an_ellipse_is_that_ellipse():
    truth = ellipse(150.3, 201.8, 62, 55, 20)
    assert dice(as_drawn(truth, EVERYWHERE), truth) > 0.995
    assert as_drawn(truth, EVERYWHERE).sum() == pytest.approx(truth.sum(), rel=0.01)


def test_what_is_no_disc_stays_so_and_is_called_implausible():
    blot = ellipse(120, 120, 80, 30) | ellipse(200, 200, 30, 90) | ellipse(280, 260, 80, 25)
    assert np.array_equal(as_drawn(blot, EVERYWHERE), blot)
    assert fit_disc(as_drawn(blot, EVERYWHERE), EVERYWHERE) == Null("disc_implausible")
    empty = np.zeros_like(blot)
    assert np.array_equal(as_drawn(empty, EVERYWHERE), empty)
    assert fit_disc(as_drawn(empty, EVERYWHERE), EVERYWHERE) == Null("no_disc")
    speck = ellipse(50, 50, 3, 3)
    assert np.array_equal(as_drawn(speck, EVERYWHERE), speck)


def test_a_disc_amid_atrophy_is_found_where_the_network_is_surer():
    disc, atrophy = ellipse(200, 200, 60, 52), ellipse(190, 290, 75, 22) | ellipse(130, 240, 22, 75)
    planes = to_planes({"disc": 0.65 * (disc | atrophy) + 0.2 * disc}, EVERYWHERE, {"disc": 0.5})
    assert dice(planes["disc"], disc) > 0.99
    blot = 0.65 * (disc | atrophy) + 0.2 * ellipse(200, 200, 20, 20)  # a sure part so small is no disc
    assert np.array_equal(to_planes({"disc": blot}, EVERYWHERE, {"disc": 0.5})["disc"], disc | atrophy)
    calm = np.where(disc, 0.85, np.where(ellipse(200, 200, 64, 56), 0.6, 0.0))  # an ellipse stays that of its threshold
    assert dice(to_planes({"disc": calm}, EVERYWHERE, {"disc": 0.5})["disc"], ellipse(200, 200, 64, 56)) > 0.99


def test_disc_at_the_edge_of_the_field_is_still_told_as_cut_off():
    fov = ellipse(200, 200, 190, 190)
    whole = ellipse(40, 200, 60, 55)
    drawn = as_drawn(whole & fov, fov)
    assert not (drawn & ~fov).any() and dice(drawn, whole & fov) > 0.98
    fitted = fit_disc(drawn, fov)
    assert isinstance(fitted, Disc) and fitted.cut_off and fitted.area == pytest.approx(np.pi * 60 * 55, rel=0.05)


def test_cup_is_an_ellipse_inside_the_disc():
    disc, cup = ellipse(200, 200, 80, 70), ellipse(225, 200, 50, 45)
    probabilities = {"disc": 0.1 + 0.8 * disc, "cup": 0.1 + 0.8 * (cup | ellipse(262, 200, 30, 8))}
    planes = to_planes(probabilities, EVERYWHERE, {})
    assert not (planes["cup"] & ~planes["disc"]).any()
    assert dice(planes["cup"], cup) > 0.97 and dice(planes["disc"], disc) > 0.99


def test_the_fovea_tells_the_disc_from_a_larger_bright_lesion():
    """As in an eye whose macula is one exudate: the larger candidate has the fovea inside."""
    side = 512
    disc, lesion = ellipse(60, 190, 38, 38, side=side), ellipse(270, 230, 46, 46, side=side)
    probability = np.where(disc | lesion, 0.98, 0.0).astype(np.float32)
    assert disc_circle(probability)[0] == pytest.approx(270, abs=1)
    fovea = fovea_map(heat((68, 58, 1.0)))
    x, y, diameter = disc_circle(probability, fovea=fovea)
    assert (x, y, diameter) == pytest.approx((60, 190, 76), abs=1)
    assert disc_circle(np.where(lesion, 0.98, 0.0).astype(np.float32), fovea=fovea)[0] == pytest.approx(270, abs=1)
    assert disc_circle(np.zeros((side, side), np.float32), fovea=fovea) is None


def test_a_speck_is_no_disc_wherever_the_fovea_lies():
    side = 512
    disc, speck = ellipse(270, 230, 46, 46, side=side), ellipse(60, 210, 9, 9, side=side)
    probability = np.where(disc | speck, 0.98, 0.0).astype(np.float32)
    assert disc_circle(probability, fovea=fovea_map(heat((68, 58, 1.0))))[0] == pytest.approx(270, abs=1)
    assert disc_circle(np.where(ellipse(60, 210, 5, 5, side=side), 0.98, 0.0).astype(np.float32)) is None


def test_the_disc_chooses_among_peaks_of_the_fovea_and_moves_none():
    two = heat((96, 77, 1.0), (45, 76, 0.7))
    disc = (369.0, 271.0, 70.0)
    assert locate_fovea(two)[0] == pytest.approx((96.5 * 8 - 0.5, 77.5 * 8 - 0.5), abs=2)
    point, confidence = locate_fovea(two, disc=disc)
    assert point == pytest.approx((45.5 * 8 - 0.5, 76.5 * 8 - 0.5), abs=2) and confidence == pytest.approx(0.7 / 1.7, abs=0.02)
    one = heat((40, 90, 1.0))
    assert locate_fovea(one, disc=disc)[0] == locate_fovea(one)[0]
    nowhere, confidence = locate_fovea(torch.zeros(128, 128), disc=disc)
    assert nowhere is None and confidence < 0.2


def test_the_prior_of_the_fovea_knows_no_side_and_excludes_nothing():
    prior = fovea_prior((255.5, 255.5, 60.0), 512, 128)
    assert np.allclose(prior, prior[:, ::-1]) and prior.min() >= 0.05 and prior.max() <= 1
    y, x = np.unravel_index(prior.argmax(), prior.shape)
    assert np.hypot(x - 63.5, y - 63.5) * 4 == pytest.approx(2.45 * 60, rel=0.05) and y > 63.5
