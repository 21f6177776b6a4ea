"""The grid that vessels are measured on: areas kept, one graph at every size, short gaps closed, hairlines kept."""

from dataclasses import replace

import numpy as np
import pytest

from retsam.biomarkers.config import RESOLUTION_FLOORS, BiomarkersConfig
from retsam.biomarkers.context import Context
from retsam.biomarkers.eye import measure
from retsam.biomarkers.eye_phantoms import EyePhantom
from retsam.biomarkers.phantoms import draw
from retsam.biomarkers.registry import registry
from retsam.biomarkers.vessels.analysis import weighted_quantiles
from retsam.biomarkers.vessels.curves import stretches
from retsam.biomarkers.vessels.graph import build_graph
from retsam.biomarkers.vessels.grid import PER_UNIT, soften
from retsam.masks.frame import Frame


@pytest.mark.parametrize("unit", [1.0, 1.37, 1.9, 3.1, 6.2])
def test_smoothing_keeps_areas(unit):
    mask = np.zeros((420, 500), bool)
    draw.draw_vessel(mask, draw.line((100.0, 120.0), 27.0, 300.0), 9.0)
    assert soften(mask, unit).sum() * (unit / PER_UNIT) ** 2 == pytest.approx(mask.sum(), rel=0.005)


def tree(scale, side=600):
    """A forked vessel with a twig, drawn in a picture of `scale` times the pixels."""
    mask = np.zeros((round(side * scale),) * 2, bool)
    fork = np.array([300.0, 300.0])
    for start, heading, length, width in ((fork, 170.0, 180.0, 7.0), (fork, -25.0, 190.0, 6.0), (fork, 40.0, 150.0, 4.0)):
        draw.draw_vessel(mask, (draw.line(tuple(start), heading, length) + 0.5) * scale - 0.5, width * scale)
    twig = draw.line((300.0, 300.0), 170.0, 90.0)[-1]
    draw.draw_vessel(mask, (draw.line(tuple(twig), 95.0, 60.0) + 0.5) * scale - 0.5, 2.5 * scale)
    return mask


@pytest.mark.parametrize("scale", [0.7, 1.4, 2.0, 3.3])
def test_one_graph_at_every_size(scale):
    one, two = build_graph("artery", tree(1.0), unit=1.6), build_graph("artery", tree(scale), unit=1.6 * scale)
    assert one.size == two.size == 5
    for kind in ("end", "bifurcation"):
        assert np.count_nonzero(one.node_kind == kind) == np.count_nonzero(two.node_kind == kind)
    a, b = stretches(one), stretches(two)
    assert np.sort(b.length / scale) == pytest.approx(np.sort(a.length), rel=0.02, abs=1.0)
    for width in (np.sort(a.width), np.sort(b.width / scale)):
        assert width == pytest.approx([2.5, 4.0, 6.0, 7.0, 7.0], rel=0.02)


@pytest.mark.parametrize(("gap", "pieces"), [(2, 1), (3, 1), (14, 2)])
def test_short_gaps_are_closed_and_long_ones_are_not(gap, pieces):
    mask = np.zeros((300, 400), bool)
    draw.draw_vessel(mask, draw.line((60.0, 150.0), 20.0, 280.0), 3.0)
    mask[:, 200 : 200 + gap] = False
    assert build_graph("vein", mask).size == pieces


@pytest.mark.parametrize("unit", [1.0, 2.5, 4.0])
def test_a_vessel_of_one_pixel_is_not_lost(unit):
    mask = np.zeros((1200, 1200), bool)
    mask[300:310, 100:1100] = True
    mask[700, 100:1100] = True
    graph = build_graph("vein", mask, unit=unit)
    pieces = stretches(graph)
    assert pieces.length == pytest.approx([1000.0, 1000.0], abs=12.0)
    assert np.sort(pieces.width) == pytest.approx([1.0, 10.0], rel=0.03)


@pytest.mark.parametrize("kind", sorted(RESOLUTION_FLOORS))
def test_below_its_floor_a_biomarker_is_null_and_says_why(kind):
    masks = EyePhantom(px_per_dd=80).masks()
    for name, heading in (("artery", 20.0), ("vein", 70.0)):
        masks.planes[name] = np.zeros(masks.fov.shape, bool)
        centre = (masks.fov.shape[1] / 2.0, masks.fov.shape[0] / 2.0)
        draw.draw_vessel(masks.planes[name], draw.line(centre, heading, 200.0), 6.0)
    masks.planes["drusen"] = np.zeros(masks.fov.shape, bool)
    masks.planes["drusen"][-200:-190, 250:260] = True
    diameter = Context(masks).fov_diameter_native
    names = [name for name, entry in registry().items() if entry.resolution == kind]
    assert names and all(registry()[name].resolution_floor == RESOLUTION_FLOORS[kind] for name in names)
    high = measure(masks, BiomarkersConfig(min_fov_diameter_px={kind: 1}))
    low = measure(masks, BiomarkersConfig(min_fov_diameter_px={kind: int(diameter) + 1}))
    measured = [name for name in names if np.isfinite(high[name])]
    assert measured
    assert {low[f"{name}__reason"] for name in measured} == {"resolution_too_low"}
    assert all(np.isnan(low[name]) for name in names)


def test_a_quantile_of_few_values_does_not_jump_when_one_more_counts():
    values, weights = np.array([0.01, 0.02, 0.05]), np.array([100.0, 80.0, 60.0])
    (before,) = weighted_quantiles(values, weights, (0.5,))
    (after,) = weighted_quantiles(np.append(values, 0.3), np.append(weights, 0.1), (0.5,))
    assert after == pytest.approx(before, rel=0.005)
    assert 0.01 < before < 0.05


def test_quantiles_of_many_values_are_those_of_the_sample():
    values = np.random.default_rng(3).gamma(2.0, 1.0, 5000)
    found = weighted_quantiles(values, np.ones(len(values)), (0.1, 0.5, 0.9))
    assert found == pytest.approx(np.quantile(values, (0.1, 0.5, 0.9)), rel=0.01)
    assert weighted_quantiles(np.array([3.0]), np.array([2.0]), (0.1, 0.9)) == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("scale", [0.7, 1.4, 2.0])
def test_dimensions_of_the_mask_do_not_follow_its_pixels(scale):
    found = []
    for factor in (1.0, scale):
        masks = EyePhantom(px_per_dd=160).masks()
        side = round(900 * factor)
        plane = tree(factor * 1.2, side=750)[:side, :side]
        masks = replace(masks, planes={"vessel": plane}, fov=np.ones_like(plane), fovea=None, frame=Frame.identity(side, side))
        found.append(measure(masks, BiomarkersConfig(families=("vessels",))))
    for name in ("d0", "d1", "d2"):
        column = f"fractal_dimension_mask_{name}_vessel"
        assert found[1][column] == pytest.approx(found[0][column], rel=0.006)
