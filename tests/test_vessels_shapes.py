"""Vessel biomarkers on drawn shapes whose answer is known."""

import math

import numpy as np
import pytest

from retsam.biomarkers.phantoms import draw
from retsam.biomarkers.vessels.branching import bifurcations, junctional_exponent
from retsam.biomarkers.vessels.curves import stretches
from retsam.biomarkers.vessels.fractal import dimensions
from retsam.biomarkers.vessels.graph import build_graph
from retsam.biomarkers.vessels.skeleton import make_skeleton

#: At exactly 45 degrees a mask holds whole diagonals only, 0.71 px apart; 43 asks the same of any other angle.
ANGLES = (0.0, 17.0, 30.0, 43.0, 60.0, 90.0)


def on_grid(width):
    """A row about which a horizontal vessel of an integer width covers as many rows."""
    return 349.5 if round(width) % 2 == 0 else 349.0


def graph_of(curves, width, side=700, angle=0.0):
    """Graph of curves drawn with one width each, turned about the picture's centre."""
    mask = np.zeros((side, side), bool)
    middle = ((side - 1) / 2.0, (side - 1) / 2.0)
    for curve in curves:
        draw.draw_vessel(mask, draw.turn(curve, angle, middle), width)
    return build_graph("artery", mask)


def one_stretch(curve, width, side=700, angle=0.0):
    pieces = stretches(graph_of([curve], width, side, angle))
    assert len(pieces) == 1
    return pieces


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("width", [2.0, 2.5, 3.0, 3.3, 5.0, 8.0, 12.5, 20.0, 35.0, 60.0])
def test_bar_width_within_half_a_pixel(width, angle):
    pieces = one_stretch(draw.line((120.3, on_grid(width)), 0.0, 460.0), width, angle=angle)
    assert abs(pieces.width[0] - width) <= 0.5 + 1e-4


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("width", [3.0, 6.0, 16.0, 24.0])
def test_straight_vessel_is_straight_and_as_long_as_drawn(width, angle):
    pieces = one_stretch(draw.line((150.0, on_grid(width)), 0.0, 400.0), width, angle=angle)
    assert pieces.length[0] / pieces.chord[0] - 1.0 < 0.003
    # Half a pixel at either end is what a pixel grid knows of a tip.
    assert abs(pieces.length[0] - 400.0) <= 0.003 * 400.0 + 0.5
    assert pieces.turns[0] == 0
    assert pieces.curvature[0] / pieces.length[0] < 1e-4


@pytest.mark.parametrize("angle", [0.0, 30.0, 77.0])
@pytest.mark.parametrize(("radius", "sweep", "width"), [(200.0, 90.0, 6.0), (200.0, 160.0, 12.0), (120.0, 120.0, 4.0)])
def test_arc(radius, sweep, width, angle):
    curve = draw.arc((350.0, 250.0 + radius), radius, -90.0 - sweep / 2.0, sweep)
    truth = draw.curve_truth(curve)
    pieces = one_stretch(curve, width, angle=angle)
    assert pieces.length[0] == pytest.approx(truth["length"], rel=0.01)
    assert pieces.length[0] / pieces.chord[0] == pytest.approx(truth["tau1"], rel=0.01)
    assert pieces.curvature_squared[0] / pieces.measured_length[0] == pytest.approx(1.0 / radius**2, rel=0.02)
    assert pieces.curvature[0] / pieces.measured_length[0] == pytest.approx(1.0 / radius, rel=0.01)
    assert pieces.turns[0] == 1
    assert pieces.turn_density[0] == 0.0


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_the_spline_leaves_a_bend_as_sharp_as_it_is(angle):
    """In a photograph of many pixels: what is left of an error there is the spline's own, not the pixels'."""
    radius, mask = 640.0, np.zeros((1400, 1400), bool)
    curve = draw.arc((700.0, 200.0 + radius), radius, -113.5, 47.0)
    draw.draw_vessel(mask, draw.turn(curve, angle, (699.5, 699.5)), 24.0)
    graph = build_graph("artery", mask, unit=3.8)
    curvature = np.abs(graph.curvature[graph.measured]) * radius
    assert curvature.mean() == pytest.approx(1.0, abs=0.0125)
    assert np.abs(curvature - 1.0).max() < 0.065


@pytest.mark.parametrize("width", [3.0, 6.0, 12.0])
def test_circle_is_a_loop_of_one_curvature(width):
    pieces = one_stretch(draw.arc((350.0, 350.0), 220.0, 0.0, 360.0), width)
    assert pieces.graph.ends[0, 0] == -1
    assert pieces.length[0] == pytest.approx(2.0 * math.pi * 220.0, rel=0.01)
    assert pieces.curvature_squared[0] / pieces.measured_length[0] == pytest.approx(1.0 / 220.0**2, rel=0.03)
    assert pieces.turns[0] == 1


@pytest.mark.parametrize("angle", [0.0, 30.0, 77.0])
@pytest.mark.parametrize(("amplitude", "wavelength", "cycles", "width"), [(20.0, 120.0, 4.0, 5.0), (40.0, 250.0, 2.0, 14.0)])
def test_sinusoid(amplitude, wavelength, cycles, width, angle):
    curve = draw.sinusoid((100.0, 350.0), 0.0, amplitude, wavelength, cycles)
    truth = draw.curve_truth(curve)
    pieces = one_stretch(curve, width, angle=angle)
    assert pieces.length[0] == pytest.approx(truth["length"], rel=0.01)
    assert pieces.length[0] / pieces.chord[0] == pytest.approx(truth["tau1"], rel=0.01)
    # A sine wave of n cycles changes its sense of bending at every zero between its ends.
    assert pieces.turns[0] - 1 == 2 * cycles - 1


def test_spiral_bends_one_way():
    curve = draw.spiral((350.0, 350.0), 60.0, 300.0, 3.0)
    pieces = one_stretch(curve, 5.0)
    assert pieces.length[0] == pytest.approx(draw.curve_truth(curve)["length"], rel=0.01)
    assert pieces.turns[0] == 1


def test_taper_is_measured_along_the_vessel():
    mask = np.zeros((200, 700), bool)
    draw.draw_vessel(mask, draw.line((50.0, 100.0), 3.0, 600.0, 100), np.linspace(20.0, 6.0, 100))
    graph = build_graph("artery", mask)
    along = (graph.points[:, 0] - 50.0) / (600.0 * math.cos(math.radians(3.0)))
    ok = graph.measured & (along > 0.05) & (along < 0.95)
    expected = 20.0 - 14.0 * along[ok]
    smooth = np.convolve(graph.width[ok], np.ones(15) / 15, mode="same")[10:-10]
    assert np.abs(smooth - expected[10:-10]).max() < 0.6


@pytest.mark.parametrize("angle", [0.0, 13.0, 30.0, 45.0, 60.0, 90.0])
@pytest.mark.parametrize(("between", "width"), [(40.0, 6.0), (60.0, 10.0), (90.0, 4.0), (110.0, 16.0)])
def test_fork(between, width, angle):
    tip = (350.0, 350.0)
    curves = [draw.line(tip, 180.0, 200.0), *(draw.line(tip, side * between / 2.0, 200.0) for side in (-1, 1))]
    graph = graph_of(curves, width, angle=angle)
    assert np.count_nonzero(graph.node_kind == "bifurcation") == 1
    assert np.count_nonzero(graph.node_kind == "end") == 3
    assert graph.size == 3
    fork = bifurcations(graph, None)[0]
    assert fork.angle == pytest.approx(between, abs=2.0)
    centre = np.array(tip) - 349.5
    node = graph.node_points[fork.node] - 349.5
    assert np.hypot(*(node - draw.turn(centre[None], angle, (0.0, 0.0))[0])) < 1.0
    assert graph.sample_length.sum() == pytest.approx(600.0, rel=0.01)


@pytest.mark.parametrize("angle", [0.0, 30.0, 43.0])
def test_fork_of_known_widths(angle):
    tip, mask = np.array([350.0, 349.5]), np.zeros((700, 700), bool)
    for heading, width in ((180.0, 14.0), (-25.0, 12.0), (40.0, 8.0)):
        draw.draw_vessel(mask, draw.turn(draw.line(tip, heading, 220.0), angle, (349.5, 349.5)), width)
    graph = build_graph("artery", mask)
    root = draw.turn(np.array([[130.0, 349.5]]), angle, (349.5, 349.5))[0]
    fork = bifurcations(graph, tuple(root))[0]
    assert (fork.parent, fork.wide, fork.narrow) == pytest.approx((14.0, 12.0, 8.0), abs=0.3)
    assert fork.angle == pytest.approx(65.0, abs=2.0)


def test_junctional_exponent_of_murray():
    narrow, wide = 7.0, 9.0
    assert junctional_exponent((narrow**3 + wide**3) ** (1 / 3), wide, narrow) == pytest.approx(3.0, abs=1e-9)
    assert junctional_exponent(8.0, 9.0, 3.0) is None


def test_sierpinski_carpet():
    carpet = draw.sierpinski_carpet(6)
    found = dimensions(carpet, np.ones_like(carpet), 2.0, len(carpet) / 4)
    for key in ("d0", "d1", "d2"):
        assert found[key] == pytest.approx(math.log(8) / math.log(3), abs=0.03)


@pytest.mark.parametrize("angle", [0.0, 12.0, 30.0, 45.0])
def test_line_has_dimension_one(angle):
    graph = graph_of([draw.line((100.0, 500.0), 0.0, 800.0)], 3.0, side=1001, angle=angle)
    line = np.zeros((1001, 1001), bool)
    x, y = np.rint(graph.points).astype(int).T
    line[y, x] = True
    assert dimensions(line, draw.circle(line.shape, (500, 500), 500), 2.0, 250.0)["d0"] == pytest.approx(1.0, abs=0.03)


def test_filled_square_has_dimension_two():
    square = np.ones((300, 300), bool)
    assert dimensions(square, square, 2.0, 75.0)["d0"] == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 7])
def test_diagonal_of_any_thickness_keeps_its_skeleton(width):
    mask = np.zeros((200, 200), bool)
    for k in range(width):
        index = np.arange(20, 170)
        mask[index, index + k] = True
    skeleton = make_skeleton(mask)
    rows = np.flatnonzero(skeleton.pixels.any(axis=1))
    assert rows[-1] - rows[0] >= 150 - 2 * width
    assert skeleton.pixels.any(axis=1)[rows[0] : rows[-1]].all()
