"""Two vessels whose tips touch are two vessels; one that bends, or winds to and fro, is one."""

import numpy as np
import pytest

from retsam.biomarkers.phantoms import draw
from retsam.biomarkers.vessels.curves import stretches
from retsam.biomarkers.vessels.graph import build_graph

APEX = np.array([420.0, 300.0])


def drawn(*courses, width=4.0, side=640):
    mask = np.zeros((side, side), bool)
    for course in courses:
        draw.draw_vessel(mask, np.asarray(course, float), width)
    return mask


def arm(heading, beyond=0.0, length=220.0):
    """A straight vessel that ends at the apex, or goes beyond it."""
    way = np.array([np.cos(np.radians(heading)), np.sin(np.radians(heading))])
    return APEX + np.linspace(length, -beyond, 200)[:, None] * way


def turned(angle):
    """Headings of two arms between which a vessel would turn by `angle`."""
    return 180.0 - (180.0 - angle) / 2.0, 180.0 + (180.0 - angle) / 2.0


@pytest.mark.parametrize("unit", [1.0, 1.7])
@pytest.mark.parametrize("beyond", [0.0, 2.0])
@pytest.mark.parametrize("angle", [95.0, 115.0, 135.0])
def test_two_tips_that_touch_are_no_hairpin(angle, beyond, unit):
    first, second = turned(angle)
    graph = build_graph("vein", drawn(arm(first, beyond), arm(second)), unit=unit)
    pieces = stretches(graph)
    assert graph.size == 2
    assert np.count_nonzero(graph.node_kind == "end") == 2
    assert np.count_nonzero(graph.node_kind == "bifurcation") == 0
    assert pieces.course / pieces.course_chord - 1.0 == pytest.approx(0.0, abs=0.003)
    assert pieces.length == pytest.approx(220.0, abs=8.0)


@pytest.mark.parametrize("angle", [20.0, 45.0, 60.0])
def test_a_vessel_that_bends_is_one(angle):
    graph = build_graph("vein", drawn(*(arm(heading) for heading in turned(angle))))
    assert graph.size == 1


def test_a_round_hairpin_is_one():
    half = np.linspace(-90.0, 90.0, 200)
    turn = 420.0 + 15.0 * np.cos(np.radians(half)), 300.0 + 15.0 * np.sin(np.radians(half))
    course = np.concatenate([[[200.0, 285.0]], np.column_stack(turn), [[200.0, 315.0]]])
    graph = build_graph("vein", drawn(course))
    assert graph.size == 1
    assert stretches(graph).length == pytest.approx(440.0 + np.pi * 15.0, rel=0.02)


def test_a_vessel_that_winds_to_and_fro_is_one():
    steps = np.arange(9)
    course = np.column_stack([100.0 + 22.0 * steps, 300.0 + 22.0 * (steps % 2)])
    graph = build_graph("vein", drawn(course, width=3.0))
    assert graph.size == 1
