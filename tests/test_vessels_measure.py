"""The vessel columns: calibre, crossings, regions, nulls with reasons, invariance."""

import math

import cv2
import numpy as np
import pytest

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import measure_row
from retsam.biomarkers.graphs import graph_table
from retsam.biomarkers.phantoms import draw
from retsam.biomarkers.phantoms.eyes import phantom_context, phantom_masks
from retsam.biomarkers.phantoms.families import draw_family
from retsam.biomarkers.registry import Null, index
from retsam.biomarkers.vessels import DICTIONARY, EXTRA_DICTIONARY, centreline, density, measure_vessels, vessel_graphs
from retsam.biomarkers.vessels.analysis import Analysis
from retsam.biomarkers.vessels.calibre import hubbard, knudtson, zone_b_widths
from retsam.biomarkers.vessels.crossings import nicking
from retsam.biomarkers.vessels.graph import build_graph
from retsam.biomarkers.vessels.grid import harden, soften
from retsam.biomarkers.vessels.skeleton import make_skeleton

SIDE = 800
DISC = (420.0, 390.0, 55.0)


def spokes(widths, disc=DISC, first=7.0, outer=4.0, side=SIDE):
    """Straight vessels from the disc's margin outwards, one of each width."""
    mask = np.zeros((side, side), bool)
    for i, width in enumerate(widths):
        heading = first + 360.0 * i / len(widths)
        start = draw.line(disc[:2], heading, disc[2])[-1]
        draw.draw_vessel(mask, draw.line(tuple(start), heading, (outer - 1.0) * disc[2]), width)
    return mask


def tree_eye():
    """An eye with arteries and veins that bend, fork and cross, the disc to the right of the fovea (a right eye)."""
    planes = {"artery": np.zeros((SIDE, SIDE), bool), "vein": np.zeros((SIDE, SIDE), bool)}
    disc, fovea = (560.0, 400.0, 45.0), (340.0, 415.0)
    for kind, shift, width in (("artery", 0.0, 7.0), ("vein", 11.0, 10.0)):
        for side in (-1, 1):
            t = np.linspace(0.0, 1.0, 200)
            x = 540.0 - 430.0 * t
            y = 400.0 + side * (30.0 + shift + 190.0 * np.sqrt(t) + 14.0 * np.sin(9.0 * t + shift))
            draw.draw_vessel(planes[kind], np.column_stack([x, y]), width)
            for k, (at, heading, length) in enumerate(((60, 120, 150), (110, 95, 120), (150, 60, 160))):
                start = (x[at], y[at])
                wave = draw.sinusoid(start, side * (heading + shift), 3.0, 70.0, length / 70.0, 300)
                draw.draw_vessel(planes[kind], wave, width * (0.6 - 0.08 * k))
                draw.draw_vessel(planes[kind], draw.line(start, -side * (heading - 25.0 + 2 * shift), 110.0), width * 0.5)
            nasal = draw.line((580.0, 400.0 + side * (20.0 + shift)), side * (35.0 + shift), 200.0)
            draw.draw_vessel(planes[kind], nasal, width * 0.8)
    fov = draw.circle((SIDE, SIDE), (399.5, 399.5), 395.0)
    return {"planes": {k: p & fov for k, p in planes.items()}, "disc": disc, "fovea": fovea, "fov": fov, "eye": "R"}


def values_of(**arguments):
    planes = arguments.pop("planes")
    # The phantoms' eye is right, however they are turned.
    config = BiomarkersConfig(laterality_conflict="table")
    return measure_vessels(phantom_context(planes, config=config, **arguments))


# ---- dictionary ----------------------------------------------------------------------------------------------------------


def test_every_column_is_in_the_dictionary_and_in_range():
    eye = tree_eye()
    planes = eye.pop("planes")
    values = measure_vessels(phantom_context(planes, **eye, config=BiomarkersConfig(extra_tortuosity=True)))
    by_name = index([*DICTIONARY, *EXTRA_DICTIONARY])
    assert set(values) == set(by_name)
    for name, value in values.items():
        if not isinstance(value, Null):
            low, high = by_name[name].valid_range
            assert math.isfinite(value) and low <= value <= high, name
    measured = [n for n, v in values.items() if not isinstance(v, Null)]
    assert len(measured) > 0.9 * len(values)


def test_entries_are_documented():
    for entry in [*DICTIONARY, *EXTRA_DICTIONARY]:
        assert entry.definition and entry.unit and entry.needs, entry.name
    assert {e.name for e in DICTIONARY} >= {
        "crae", "crve", "avr", "crae_um", "crae_hubbard_um", "fractal_dimension_d0_artery", "width_mean_vein_zone_b",
        "tortuosity_curvature_vessel", "tortuosity_density_vein_zone_c", "sparsity_mean_vessel_dd", "crossing_count",
        "nicking_index", "beading_index_vein", "arcade_angle_artery", "length_diameter_ratio_artery",
    }  # fmt: skip


# ---- calibre -------------------------------------------------------------------------------------------------------------


def by_hand(widths, factor):
    widest = sorted(widths)[-6:]
    while len(widest) > 1:
        paired = [factor * math.hypot(widest[i], widest[-1 - i]) for i in range(len(widest) // 2)]
        widest = sorted(paired + ([widest[len(widest) // 2]] if len(widest) % 2 else []))
    return widest[0]


def test_knudtson_from_widths():
    widths = [14.2, 9.1, 12.7, 8.8, 11.0, 7.3, 5.0, 2.0]
    # Six widest: (14.2, 7.3), (12.7, 8.8), (11.0, 9.1) -> three -> widest with narrowest, the middle one waits -> one.
    first = sorted(0.88 * math.hypot(a, b) for a, b in ((14.2, 7.3), (12.7, 8.8), (11.0, 9.1)))
    second = sorted([0.88 * math.hypot(first[0], first[2]), first[1]])
    assert knudtson(widths, "artery") == pytest.approx(0.88 * math.hypot(*second), abs=1e-9)
    assert knudtson(widths, "vein") == pytest.approx(by_hand(widths, 0.95), abs=1e-9)
    assert knudtson([3.0 * w for w in widths], "artery") == pytest.approx(3.0 * knudtson(widths, "artery"), abs=1e-9)


def test_equivalents_of_equal_widths():
    assert knudtson([16.0] * 6, "artery") == pytest.approx(27.97487818001744, abs=1e-9)
    assert knudtson([24.0] * 6, "vein") == pytest.approx(51.302659931040594, abs=1e-9)
    first = [math.sqrt(1.66 * 80.0**2 - 10.76), math.sqrt(1.66 * (1.66 * 80.0**2 - 10.76) - 10.76)]
    last = math.sqrt(0.87 * first[0] ** 2 + 1.01 * first[1] ** 2 - 0.22 * first[0] * first[1] - 10.76)
    assert hubbard([80.0] * 6, "artery") == pytest.approx(last, abs=1e-9) == 154.91495561345894


def test_hubbard_weighs_the_wider_branch_more():
    artery = math.sqrt(0.87 * 60.0**2 + 1.01 * 110.0**2 - 0.22 * 60.0 * 110.0 - 10.76)
    assert hubbard([110.0, 60.0], "artery") == pytest.approx(artery, abs=1e-9)
    veins = [70.0, 85.0, 120.0, 170.0]
    outer, inner = (math.sqrt(0.72 * a**2 + 0.91 * b**2 + 450.05) for a, b in ((70.0, 170.0), (85.0, 120.0)))
    narrow, wide = sorted((outer, inner))
    assert hubbard(veins, "vein") == pytest.approx(math.sqrt(0.72 * narrow**2 + 0.91 * wide**2 + 450.05), abs=1e-9)


@pytest.mark.parametrize("first", [0.0, 7.0, 22.0, 41.0])
def test_calibre_from_a_drawing(first):
    arteries, veins = [9.0, 8.0, 7.5, 7.0, 6.0, 6.0, 5.0], [12.0, 11.0, 10.0, 9.0, 9.0, 8.0, 6.0, 4.0]
    planes = {"artery": spokes(arteries, first=first), "vein": spokes(veins, first=first + 25.0)}
    values = values_of(planes=planes, disc=DISC, um_per_px=12.0)
    assert values["vessel_count_artery_zone_b"] == 7
    assert values["vessel_count_vein_zone_b"] == 8
    assert values["crae"] == pytest.approx(knudtson(arteries, "artery"), rel=0.02)
    assert values["crve"] == pytest.approx(knudtson(veins, "vein"), rel=0.02)
    assert values["avr"] == pytest.approx(values["crae"] / values["crve"], abs=1e-12)
    assert values["crae_um"] == pytest.approx(12.0 * values["crae"], abs=1e-9)
    assert values["crae_dd"] == pytest.approx(values["crae"] / (2 * DISC[2]), rel=0.01)
    assert values["crae_hubbard_um"] == pytest.approx(hubbard([12.0 * w for w in arteries], "artery"), rel=0.02)


def test_vessel_that_forks_in_zone_b_counts_once():
    """A vessel that forks late counts as one, one that forks early as its two branches; never as three."""
    for fork_at, expected in ((2.75, 1), (2.2, 2)):
        mask = np.zeros((SIDE, SIDE), bool)
        tip = tuple(draw.line(DISC[:2], 20.0, fork_at * DISC[2])[-1])
        draw.draw_vessel(mask, np.array([draw.line(DISC[:2], 20.0, DISC[2])[-1], tip]), 9.0)
        for side in (-1, 1):
            draw.draw_vessel(mask, draw.line(tip, 20.0 + side * 30.0, 150.0), 7.0)
        analysis = Analysis(phantom_context({"artery": mask, "vein": mask}, disc=DISC))
        assert len(zone_b_widths(analysis, "artery")) == expected


@pytest.mark.parametrize(
    ("trunk", "branches", "expected"),
    [
        ((2.99, 16.0), (), [16.0]),
        ((2.99, 16.0), ((2.2, 2.99, 4.0, -20.0), (2.8, 2.99, 4.0, 18.0)), [16.0, 4.0]),
        # no width is measured between forks as close as these
        ((2.99, 16.0), ((2.33, 2.99, 4.0, -20.0), (2.67, 2.99, 4.0, 18.0)), [16.0, 4.0]),
        ((2.99, 16.0), ((2.3, 2.55, 4.0, -18.0),), [16.0]),
        ((2.1, 16.0), ((2.1, 2.99, 12.0, -8.0), (2.1, 2.65, 14.0, 15.0)), [14.0, 12.0]),
    ],
)
def test_twigs_do_not_hide_the_trunk_that_they_grow_from(trunk, branches, expected):
    """Trunk: end (disc radii) and width; branches: from, to, width and turn (degrees about the disc)."""
    disc = (SIDE / 2, SIDE / 2, 60.0)

    def at(radius, angle):
        return draw.line(disc[:2], angle, radius * disc[2])[-1]

    mask = np.zeros((SIDE, SIDE), bool)
    outwards = {2.99: 6.0}  # what leaves the zone goes on beyond it
    draw.draw_vessel(mask, np.array([at(0.9, 300.0), at(outwards.get(trunk[0], trunk[0]), 300.0)]), trunk[1])
    for start, stop, width, turn in branches:
        draw.draw_vessel(mask, np.array([at(start, 300.0), at(outwards.get(stop, stop), 300.0 + turn)]), width)
    widths = zone_b_widths(Analysis(phantom_context({"artery": mask, "vein": mask}, disc=disc)), "artery")
    assert sorted(widths, reverse=True) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (lambda t: 60.0 * np.tanh(t) ** 3, 1),  # on the artery for a stretch, away on the other side
        (lambda t: 60.0 * np.abs(np.tanh(t)) ** 3, 0),  # and away on the side it came from
        (lambda t: 1.5 * np.sin(9.0 * t), 0),  # a vessel that both masks claim
        (lambda t: 30.0 * np.sin(2.5 * t), 3),
    ],
)
def test_a_vein_that_lies_on_an_artery_crosses_it_once_or_not_at_all(course, expected):
    t = np.linspace(-2.5, 2.5, 600)
    planes = {name: np.zeros((SIDE, SIDE), bool) for name in ("artery", "vein")}
    draw.draw_vessel(planes["artery"], np.column_stack([400.0 + 120.0 * t, 400.0 + 0.0 * t]), 7.0)
    draw.draw_vessel(planes["vein"], np.column_stack([400.0 + 120.0 * t, 400.0 + course(t)]), 7.0 if expected == 0 else 9.0)
    assert len(Analysis(phantom_context(planes, disc=(400.0, 650.0, 50.0))).crossings) == expected


@pytest.mark.parametrize("slant", [0.0, 30.0])
def test_an_artery_that_a_vein_cuts_across_keeps_its_width(slant):
    disc = (SIDE / 2, SIDE / 2, 60.0)
    planes = {"artery": np.zeros((SIDE, SIDE), bool), "vein": np.zeros((SIDE, SIDE), bool)}
    draw.draw_vessel(planes["artery"], draw.line((SIDE / 2 + 50, SIDE / 2 + 3), 7.0, 300.0), 11.0)
    middle = draw.line((SIDE / 2 + 50, SIDE / 2 + 3), 7.0, 100.0)[-1]
    for heading in (97.0 - slant, 277.0 - slant):
        draw.draw_vessel(planes["vein"], draw.line(tuple(middle), heading, 120.0), 12.0)
    planes["artery"] &= ~planes["vein"]
    widths = zone_b_widths(Analysis(phantom_context(planes, disc=disc)), "artery")
    assert widths == pytest.approx([11.0], abs=0.1)


def test_vessels_that_meet_in_the_disc_alone_are_apart_in_zone_c():
    artery = np.zeros((SIDE, SIDE), bool)
    for i in range(6):
        draw.draw_vessel(artery, draw.line(DISC[:2], 7.0 + 60.0 * i, 6.0 * DISC[2]), 8.0)
    # a seventh that leaves one of the six inside the zone, and an arch that joins two of them beyond it
    draw.draw_vessel(artery, np.array([draw.line(DISC[:2], 7.0, r * DISC[2])[-1] if r == 3.0 else (760.0, 540.0) for r in (3.0, 6.0)]), 6.0)
    draw.draw_vessel(artery, draw.arc(DISC[:2], 5.8 * DISC[2], 67.0, 60.0), 6.0)
    values = values_of(planes={"artery": artery, "vein": artery}, disc=DISC)
    assert (values["component_count_artery"], values["component_count_artery_zone_c"]) == (1.0, 6.0)


def test_stray_pixels_do_not_halve_the_sparsity():
    planes = {"artery": spokes([8.0] * 6), "vein": spokes([9.0] * 6, first=40.0)}
    clean = values_of(planes=planes, disc=DISC)
    rng = np.random.default_rng(0)
    specked = {name: plane.copy() for name, plane in planes.items()}
    specked["artery"][rng.integers(40, SIDE - 40, 40), rng.integers(40, SIDE - 40, 40)] = True
    values = values_of(planes=specked, disc=DISC)
    for name in ("sparsity_mean_artery", "sparsity_max_artery"):
        assert values[name] == pytest.approx(clean[name], rel=0.02)


@pytest.mark.parametrize("side", [800, 1700])
def test_sparsity_is_the_distance_to_the_drawn_edge_in_photographs_of_every_size(side):
    disc = tuple(np.array(DISC) * side / SIDE)
    artery = spokes([0.006 * side] * 6, disc, side=side)
    for i in range(12):  # where vessels are dense, half a cell is much
        draw.draw_vessel(artery, draw.line((0.2 * side, (0.15 + 0.02 * i) * side), 20.0, 0.3 * side), 0.003 * side)
    context = phantom_context({"artery": artery, "vein": artery}, disc=disc)
    exact = cv2.distanceTransform(1 - artery.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[context.fov]
    mean, largest = density._sparsity(Analysis(context), "artery")
    assert mean == pytest.approx(np.maximum(exact - 0.5, 0.0).mean(), rel=0.003)
    assert largest == pytest.approx(exact.max() - 0.5, rel=0.01)
    turned = np.ascontiguousarray(np.rot90(artery))
    assert density._sparsity(Analysis(phantom_context({"artery": turned, "vein": turned})), "artery") == pytest.approx((mean, largest))


# ---- nulls ---------------------------------------------------------------------------------------------------------------


def reason(values, name):
    assert isinstance(values[name], Null), f"{name} = {values[name]}"
    return values[name].reason


def test_fewer_than_six_vessels_is_null_with_the_count_beside():
    values = values_of(planes={"artery": spokes([8.0] * 5), "vein": spokes([9.0] * 7, first=40.0)}, disc=DISC)
    assert reason(values, "crae") == reason(values, "crae_um") == reason(values, "crae_hubbard_um") == "too_few_vessels"
    assert reason(values, "avr") == "too_few_vessels"
    assert values["vessel_count_artery_zone_b"] == 5
    assert values["crve"] > 0


def test_no_disc():
    values = values_of(planes={"artery": spokes([8.0] * 6), "vein": spokes([9.0] * 6, first=40.0)})
    for name in ("crae", "avr", "width_mean_vein_zone_b", "tortuosity_curvature_artery", "width_mean_artery_dd", "arcade_angle_vein"):
        assert reason(values, name) in ("no_disc", "mask_not_given"), name
    assert reason(values, "width_mean_artery_um") == "no_scale"
    assert values["width_mean_artery"] == pytest.approx(8.0, abs=0.3)
    assert values["tortuosity_distance_artery"] < 0.003


def test_no_fovea():
    values = values_of(planes={"artery": spokes([8.0] * 6), "vein": spokes([9.0] * 6, first=40.0)}, disc=DISC)
    assert reason(values, "arcade_angle_artery") == "no_fovea"
    assert reason(values, "area_density_vessel_superior") == "no_fovea"
    assert values["crae"] > 0


def test_zone_outside_the_photograph():
    disc = (30.0, 390.0, 55.0)
    planes = {"artery": spokes([8.0] * 6, disc=(60.0, 390.0, 55.0)), "vein": spokes([9.0] * 6, disc=(60.0, 390.0, 55.0), first=40.0)}
    values = values_of(planes=planes, disc=disc)
    assert reason(values, "crae") == "zone_outside_fov"
    assert reason(values, "vessel_count_vein_zone_b") == "zone_outside_fov"


@pytest.mark.parametrize("table", ["R", "L", None])
def test_arcades_have_their_shape_whatever_eye_the_table_says(table):
    dd, (x, y) = 110.0, (520.0, 400.0)
    artery = np.zeros((SIDE, SIDE), bool)
    s = np.linspace(0.25, 2.4, 200)
    for side in (-1, 1):  # t = 0.4 s^2 - 0.1 towards the fovea, in disc diameters
        draw.draw_vessel(artery, np.column_stack([x - dd * (0.4 * s**2 - 0.1), y + side * dd * s]), 9.0)
        draw.draw_vessel(artery, draw.line((x + 0.3 * dd, y + 0.3 * side * dd), side * 50.0, 1.8 * dd), 7.0)
    context = phantom_context({"artery": artery, "vein": artery}, disc=(x, y, dd / 2), fovea=(x - 2.5 * dd, y), eye=table)
    values = measure_vessels(context)
    assert values["arcade_concavity_artery"] == pytest.approx(0.4, abs=0.005)
    t = 0.4 * s**2 - 0.1
    near = (np.hypot(t, s) >= 1.25) & (np.hypot(t, s) <= 2.0)
    assert values["arcade_angle_artery"] == pytest.approx(2 * np.degrees(np.arctan2(s, t))[near].mean(), abs=2.0)


def test_a_strip_of_a_hemifield_has_no_density():
    fov = np.zeros((SIDE, SIDE), bool)
    fov[: int(DISC[1]) + 90] = True
    planes = {"artery": spokes([8.0] * 6) & fov, "vein": spokes([9.0] * 6, first=40.0) & fov}
    values = values_of(planes=planes, disc=DISC, fov=fov, fovea=(200.0, 400.0), eye="R")
    assert reason(values, "area_density_artery_inferior") == reason(values, "length_density_vein_inferior_dd") == "zone_outside_fov"
    assert values["area_density_artery_superior"] > 0


def test_empty_masks():
    empty = np.zeros((SIDE, SIDE), bool)
    values = values_of(planes={"artery": empty, "vein": spokes([9.0] * 6)}, disc=DISC, fovea=(200.0, 400.0), eye="R")
    for entry in DICTIONARY:
        if entry.structure == "artery":
            assert reason(values, entry.name) == "too_few_vessels"
    assert reason(values, "avr") == reason(values, "crossing_count") == "too_few_vessels"
    assert values["crve"] > 0


def test_mask_not_given():
    values = values_of(planes={"vessel": spokes([9.0] * 6)}, disc=DISC)
    assert reason(values, "crae") == reason(values, "avr") == "mask_not_given"
    assert values["width_mean_vessel"] == pytest.approx(9.0, abs=0.3)


def test_low_resolution():
    small = (210.0, 195.0, 27.0)
    planes = {"artery": spokes([4.0] * 6, disc=small, side=400), "vein": spokes([5.0] * 6, disc=small, first=30.0, side=400)}
    values = values_of(planes=planes, disc=small)
    assert reason(values, "crae") == reason(values, "width_mean_vein") == reason(values, "area_density_artery") == "resolution_too_low"
    assert reason(values, "tortuosity_distance_artery") == reason(values, "inflection_count_vein") == "resolution_too_low"


# ---- crossings -----------------------------------------------------------------------------------------------------------


def cross(angle, gap=False, notch=0.0):
    """One artery over one vein; with a gap, the artery's mask interrupts the vein's; a notch narrows the vein beside it."""
    planes = {"artery": np.zeros((SIDE, SIDE), bool), "vein": np.zeros((SIDE, SIDE), bool)}
    middle = (399.5, 399.5)
    draw.draw_vessel(planes["artery"], draw.line(tuple(draw.line(middle, 10.0 + angle, -250.0)[-1]), 10.0 + angle, 500.0), 8.0)
    along = np.linspace(-250.0, 250.0, 1001)
    width = 12.0 * (1.0 - notch * (np.abs(along) < 22.0))
    vein = np.column_stack([middle[0] + along * math.cos(math.radians(10)), middle[1] + along * math.sin(math.radians(10))])
    draw.draw_vessel(planes["vein"], vein, width)
    if gap:
        planes["vein"] &= ~planes["artery"]
    return planes


@pytest.mark.parametrize("angle", [35.0, 60.0, 90.0])
@pytest.mark.parametrize("gap", [False, True])
def test_crossing_is_one_and_no_bifurcation(angle, gap):
    values = values_of(planes=cross(angle, gap), um_per_px=12.0)
    assert values["crossing_count"] == 1
    for structure, segments, ends in (("artery", 1, 2), ("vein", 1, 2), ("vessel", 2, 4)):
        assert values[f"branchpoint_count_{structure}"] == 0, structure
        assert values[f"segment_count_{structure}"] == segments, structure
        assert values[f"endpoint_count_{structure}"] == ends, structure


def test_crossing_angle_and_place():
    crossing = Analysis(phantom_context(cross(60.0))).crossings[0]
    assert (crossing.x, crossing.y) == pytest.approx((399.5, 399.5), abs=1.0)
    assert crossing.angle == pytest.approx(60.0, abs=2.0)


def test_nicking():
    for notch in (0.0, 0.25):
        analysis = Analysis(phantom_context(cross(80.0, notch=notch)))
        assert nicking(analysis, analysis.crossings[0]) == pytest.approx(notch, abs=0.04)


def test_artery_that_ends_on_a_vein_is_no_bifurcation():
    planes = cross(80.0)
    planes["artery"][:395] = False
    values = values_of(planes=planes)
    assert values["branchpoint_count_vessel"] == 0
    assert values["crossing_count"] == 0
    assert values["segment_count_vessel"] == 2


def test_spur_is_cut_and_branch_is_kept():
    for length, branches in ((9.0, 0), (40.0, 1)):
        mask = np.zeros((SIDE, SIDE), bool)
        draw.draw_vessel(mask, draw.line((100.0, 400.0), 8.0, 600.0), 10.0)
        draw.draw_vessel(mask, draw.line(tuple(draw.line((100.0, 400.0), 8.0, 300.0)[-1]), 80.0, length), 5.0)
        values = values_of(planes={"artery": mask, "vein": mask})
        assert values["branchpoint_count_artery"] == branches


def test_loop_is_kept():
    mask = np.zeros((SIDE, SIDE), bool)
    draw.draw_vessel(mask, draw.arc((400.0, 400.0), 120.0, 0.0, 360.0), 8.0)
    draw.draw_vessel(mask, draw.line((520.0, 400.0), 10.0, 200.0), 8.0)
    values = values_of(planes={"artery": mask, "vein": mask})
    assert values["branchpoint_count_artery"] == 1
    assert values["segment_count_artery"] == 2
    assert values["endpoint_count_artery"] == 1
    # A vessel that comes back to its start has no chord, so only the straight one has a tortuosity.
    assert values["tortuosity_distance_artery"] < 0.003


def test_beading():
    beading = []
    for amplitude in (0.0, 2.0):
        mask = np.zeros((SIDE, SIDE), bool)
        along = np.linspace(0.0, 1.0, 601)
        width = 12.0 + amplitude * np.sin(2.0 * np.pi * 600.0 * along / 40.0) - 2.0 * along
        draw.draw_vessel(mask, draw.line((100.0, 380.0), 11.0, 600.0, 601), width)
        beading.append(values_of(planes={"artery": mask, "vein": mask})["beading_index_vein"])
    assert beading[0] < 0.001
    # Variance of a sine of amplitude 2 is 2; mean width 11.
    assert beading[1] == pytest.approx(2.0 / 11.0**2, rel=0.15)


@pytest.mark.parametrize("side", [1300, 2400])
def test_little_beading_shows_the_same_in_finer_photographs(side):
    mask = np.zeros((side, side), bool)
    along = np.linspace(0.0, 1.0, 801)
    width = side / 135.0 * (1.0 + 0.06 * np.sin(2.0 * np.pi * 12.0 * along))
    draw.draw_vessel(mask, draw.line((0.1 * side, 0.47 * side), 11.0, 0.8 * side, 801), width)
    value = values_of(planes={"artery": mask, "vein": mask})["beading_index_vein"]
    assert value == pytest.approx(0.06**2 / 2.0, rel=0.2)


# ---- masks that are no vessels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, 11])
def test_noise_is_measured_within_its_arrays(seed):
    noise = np.random.default_rng(seed).random((560, 560)) > 0.5
    field = soften(noise, 1.0)
    skeleton = make_skeleton(harden(field), field)
    edges = (skeleton.mask[[0, -1]], skeleton.mask[:, [0, -1]], skeleton.pixels[[0, -1]], skeleton.pixels[:, [0, -1]])
    assert not any(edge.any() for edge in edges)
    build_graph("vein", noise)


def test_a_graph_whose_centrelines_need_more_room_gets_it(monkeypatch):
    mask, rooms, fit = spokes([8.0] * 4), [], centreline.fit_centrelines

    def cramped(*arguments):
        rooms.append(len(arguments[-2]))
        return -1 if len(rooms) == 1 else fit(*arguments)

    plain = build_graph("vein", mask)
    monkeypatch.setattr(centreline, "fit_centrelines", cramped)
    assert np.array_equal(build_graph("vein", mask).points, plain.points)
    assert rooms[1] == 2 * rooms[0]


def test_a_vessel_that_comes_back_to_its_own_fork_has_a_chord():
    vein = draw.draw_vessel(np.zeros((SIDE, SIDE), bool), draw.arc((400.0, 400.0), 18.0, 0.0, 360.0), 8.0)
    draw.draw_vessel(vein, np.array([[418.0, 400.0], [750.0, 420.0]]), 8.0)
    config = BiomarkersConfig(extra_tortuosity=True)
    values = measure_vessels(phantom_context({"artery": vein, "vein": vein}, disc=(100.0, 100.0, 55.0), config=config))
    for name in ("tortuosity_tau6_vein", "tortuosity_tau7_vein"):
        assert isinstance(values[name], Null) or 0.0 <= values[name] < 1e3, values[name]


# ---- table of the graph ----------------------------------------------------------------------------------------------------


def test_graph_table():
    eye = tree_eye()
    table = vessel_graphs(phantom_context(eye.pop("planes"), **eye))
    assert set(table["structure"]) == {"artery", "vein", "vessel"}
    assert (table["x"].map(len) == table["y"].map(len)).all()
    row = table[table["structure"] == "vessel"].sort_values("length_px").iloc[-1]
    assert row["length_px"] == pytest.approx(float(np.hypot(np.diff(row["x"]), np.diff(row["y"])).sum()), rel=0.01)
    assert row["kind"] in ("artery", "vein")


def test_graph_table_leaves_empty_the_tortuosity_of_a_segment_too_short_to_have_one():
    vein = draw.draw_vessel(np.zeros((SIDE, SIDE), bool), np.array([[100.0, 400.0], [700.0, 400.0]]), 14.0)
    for x, heading in ((380.0, 60.0), (396.0, -60.0)):  # two forks closer together than their junctions are wide
        draw.draw_vessel(vein, draw.line((x, 400.0), heading, 200.0), 10.0)
    table = vessel_graphs(phantom_context({"vein": vein}, disc=(100.0, 400.0, 55.0)))
    assert len(table) == 5
    between = table["length_px"] == table["length_px"].min()
    columns = ["tortuosity_distance", "curvature_squared", "turns"]
    assert table.loc[between, columns].isna().all(axis=None)
    assert (table.loc[~between, columns] >= 0).all(axis=None)


# ---- invariance ------------------------------------------------------------------------------------------------------------


def turned(eye, how):
    """The same eye, its masks turned by 90 degrees or mirrored."""
    side = SIDE - 1.0
    move = {
        "quarter": (lambda m: np.rot90(m), lambda x, y: (y, side - x)),
        "half": (lambda m: np.rot90(m, 2), lambda x, y: (side - x, side - y)),
        "mirror": (lambda m: m[:, ::-1], lambda x, y: (side - x, y)),
    }[how]
    disc = eye["disc"]
    return {
        "planes": {k: np.ascontiguousarray(move[0](p)) for k, p in eye["planes"].items()},
        "disc": (*move[1](*disc[:2]), disc[2]),
        "fovea": move[1](*eye["fovea"]),
        "fov": np.ascontiguousarray(move[0](eye["fov"])),
        "eye": {"R": "L", "L": "R"}[eye["eye"]] if how == "mirror" else eye["eye"],
    }


#: Values that are zero but for noise have no relative change: what is too small to matter, by the start of the name.
FLOORS = {"tortuosity_distance": 5e-4, "nicking_index": 0.02, "singularity_length": 0.02, "beading_index": 5e-4}


def moved(one, two, names, tolerance=0.05):
    """Names of values that differ by more than the tolerance (of the larger), or are null in one only."""
    found = []
    for name in names:
        floor = next((f for start, f in FLOORS.items() if name.startswith(start)), 1e-6)
        a, b = one[name], two[name]
        if isinstance(a, Null) or isinstance(b, Null):
            if type(a) is not type(b):
                found.append(name)
        elif abs(a - b) > tolerance * max(abs(a), abs(b)) + floor:
            found.append(name)
    return found


def test_black_around_the_field_of_view_moves_nothing():
    eye = tree_eye()
    top, left = 11, 37
    padded = {
        **eye,
        "planes": {name: np.pad(plane, ((top, 20), (left, 5))) for name, plane in eye["planes"].items()},
        "fov": np.pad(eye["fov"], ((top, 20), (left, 5))),
        "disc": (eye["disc"][0] + left, eye["disc"][1] + top, eye["disc"][2]),
        "fovea": (eye["fovea"][0] + left, eye["fovea"][1] + top),
    }
    assert values_of(**padded) == values_of(**eye)
    tables = [graph_table(phantom_masks(**e)) for e in (eye, padded)]
    for axis, moved_by in (("x", left), ("y", top)):
        assert np.concatenate(tables[1][axis]) == pytest.approx(np.concatenate(tables[0][axis]) + moved_by)
    rows = [measure_row(phantom_masks(**e), BiomarkersConfig(families=("macula",))) for e in (eye, padded)]
    assert (rows[1]["fovea_x_px"], rows[1]["fovea_y_px"]) == (rows[0]["fovea_x_px"] + left, rows[0]["fovea_y_px"] + top)


@pytest.mark.parametrize("how", ["quarter", "half", "mirror"])
def test_turning_and_mirroring_moves_nothing(how):
    eye = tree_eye()
    one, two = values_of(**{**eye}), values_of(**turned(eye, how))
    different = moved(one, two, one)
    assert len(different) <= 0.02 * len(one), different


@pytest.mark.parametrize("factor", [0.5, 2])
def test_scaling_moves_little(factor):
    eye = tree_eye()
    base = 2 if factor == 0.5 else 1

    def resampled(k):
        grow = lambda m: np.kron(m, np.ones((k, k), bool))  # noqa: E731
        place = lambda p: tuple(k * (v + 0.5) - 0.5 for v in p)  # noqa: E731
        disc = eye["disc"]
        return {
            "planes": {n: grow(p) for n, p in eye["planes"].items()}, "fov": grow(eye["fov"]), "fovea": place(eye["fovea"]),
            "disc": (*place(disc[:2]), k * disc[2]), "eye": eye["eye"],
        }  # fmt: skip

    one, two = values_of(**resampled(base)), values_of(**resampled(base * 2 if factor == 2 else 1))
    names = [e.name for e in DICTIONARY if e.scale_free]
    different = moved(one, two, names)
    assert len(different) <= 0.05 * len(names), different


# ---- the public benchmark, in part -------------------------------------------------------------------------------------------


def test_public_spokes_at_thirty_degrees():
    shape = draw_family("spokes-macula-centred", 30.0)
    values = measure_vessels(phantom_context(shape.planes, disc=shape.disc, fov=shape.fov, um_per_px=5.0))
    for name, column in (
        ("knudtson/artery", "crae"),
        ("knudtson/vein", "crve"),
        ("hubbard/artery", "crae_hubbard_um"),
        ("hubbard/vein", "crve_hubbard_um"),
    ):
        assert values[column] == pytest.approx(shape.truth[f"central-retinal-equivalents/{name}"], rel=0.005)
    assert values["avr"] == pytest.approx(0.5452909891537863, rel=0.005)
    assert values["width_mean_artery"] == pytest.approx(16.0, rel=0.005)
    assert values["endpoint_count_vessel"] == 24 and values["branchpoint_count_vessel"] == 0
    assert values["component_count_vessel"] == 12
