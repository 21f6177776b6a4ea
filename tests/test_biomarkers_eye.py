"""Disc, cup, rim, fovea and lesions on eyes whose answer is known, however they are photographed."""

import dataclasses
import math

import numpy as np
import pytest

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.context import ETDRS_FIELDS, Context
from retsam.biomarkers.eye import measure
from retsam.biomarkers.eye_phantoms import EyePhantom, Spot, etdrs_centre
from retsam.biomarkers.optic_nerve import ddls_stage
from retsam.biomarkers.registry import registry
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks

#: The phantoms' eye is right, however they are turned.
CONFIG = BiomarkersConfig(families=("image", "optic_nerve", "macula", "phenotypes", "lesions"), laterality_conflict="table")
NAMES = [name for name, entry in registry().items() if entry.family in CONFIG.families]

#: Rim widths fall from inferior over superior and nasal to temporal: the rule holds.
ISNT = dict(disc=(0.47, 0.53), cup=(0.24, 0.2), cup_at=(0.04, 0.02))


def spots() -> tuple[Spot, ...]:
    """Lesions of several classes and sizes, all over the field and none on a border."""
    rng = np.random.default_rng(5)
    made = []
    for target, count, radius in (("hemorrhage", 25, 0.08), ("microaneurysm", 15, 0.03), ("hard_exudate", 10, 0.12)):
        for _ in range(count):
            angle, reach = rng.uniform(0.1, math.pi / 2 - 0.1) + math.pi / 2 * rng.integers(4), rng.uniform(0.5, 2.1)
            made.append(Spot(target, reach * math.cos(angle), reach * math.sin(angle), radius))
    return tuple(made)


@pytest.mark.parametrize("eye", ["R", "L"])
@pytest.mark.parametrize("rotation", [0, 30, 90, 200])
@pytest.mark.parametrize("px_per_dd", [70, 200])
def test_disc_cup_and_rim_are_right_within_a_pixel(eye, rotation, px_per_dd):
    phantom = EyePhantom(eye=eye, rotation_deg=rotation, px_per_dd=px_per_dd, cup_at=(0.04, 0.06))
    row, truth = measure(phantom.masks(), CONFIG), phantom.truth()
    for name, value in truth.items():
        # A pixel of width or height is 1 / px_per_dd disc diameters.
        assert row[name] == pytest.approx(value, abs=1.0 / px_per_dd), name


@pytest.mark.parametrize("rotation", [0, 60, 90, 180])
@pytest.mark.parametrize("eye", ["R", "L"])
def test_isnt_rule_in_the_eyes_own_frame(eye, rotation):
    # Thick below, thin on the temporal side.
    kept = EyePhantom(**ISNT, eye=eye, rotation_deg=rotation)
    assert kept.truth()["isnt_rule"] == 1.0
    assert measure(kept.masks(), CONFIG)["isnt_rule"] == 1.0
    broken = dataclasses.replace(kept, cup_at=(0.0, -0.22))
    row = measure(broken.masks(), CONFIG)
    assert row["isnt_rule"] == 0.0
    assert row["rim_width_inferior_dd"] < row["rim_width_superior_dd"]
    assert row["rim_min_position_deg"] == pytest.approx(180, abs=12)


def test_nasal_and_temporal_are_not_swapped():
    row = measure(EyePhantom(cup_at=(0.1, 0.0)).masks(), CONFIG)
    assert row["rim_width_temporal_dd"] < row["rim_width_nasal_dd"]
    assert row["rim_width_clock_09_dd"] < row["rim_width_clock_03_dd"]
    assert row["rim_min_position_deg"] == pytest.approx(270, abs=12)


@pytest.mark.parametrize("tilt", [-40.0, 0.0, 25.0, 80.0])
@pytest.mark.parametrize("eye", ["R", "L"])
def test_disc_orientation(eye, tilt):
    row = measure(EyePhantom(disc=(0.4, 0.6), disc_tilt_deg=tilt, cup=(0.1, 0.1), eye=eye, rotation_deg=15).masks(), CONFIG)
    assert row["disc_orientation_deg"] == pytest.approx(tilt, abs=1.0)
    assert row["disc_ovality"] == pytest.approx(0.4 / 0.6, abs=0.01)


def test_disc_orientation_of_a_circle_is_undefined():
    row = measure(EyePhantom(disc=(0.5, 0.5)).masks(), CONFIG)
    assert row["disc_orientation_deg__reason"] == "not_defined"


@pytest.mark.parametrize(
    ("ratio", "absent", "stage"),
    [(0.4, 0, 1), (0.39, 0, 2), (0.2, 0, 3), (0.1, 0, 4), (0.05, 0, 5), (0, 30, 6), (0, 60, 7), (0, 180, 8), (0, 200, 9), (0, 300, 10)],
)
def test_ddls_stages(ratio, absent, stage):
    assert ddls_stage(ratio, absent) == stage


def test_absent_rim_is_found():
    row = measure(EyePhantom(disc=(0.5, 0.5), cup=(0.35, 0.35), cup_at=(0.0, -0.2)).masks(), CONFIG)
    assert row["rim_absent_extent_deg"] > 20
    assert row["ddls_stage"] >= 6


@pytest.mark.parametrize("px_per_dd", [60, 150, 300])
@pytest.mark.parametrize(("extent", "stage"), [(20, 6), (60, 7), (100, 8)])
@pytest.mark.parametrize("middle", [180, 97])
def test_a_notch_of_the_rim_is_as_wide_at_every_scale(px_per_dd, extent, stage, middle):
    """The cup reaches the margin over some degrees and leaves two fifths of the radius elsewhere: averaging would fill a narrow notch."""
    masks = EyePhantom(disc=(0.5, 0.5), cup=(0.3, 0.3), px_per_dd=px_per_dd).masks()
    context = Context(masks)
    rows, columns = np.mgrid[: masks.fov.shape[0], : masks.fov.shape[1]]
    bearing = np.degrees(np.arctan2(columns - context.disc.x, context.disc.y - rows))  # a right eye: nasal to the right
    masks.planes["cup"] |= masks.planes["disc"] & (np.abs((bearing - middle + 180) % 360 - 180) <= extent / 2)
    row = measure(masks, CONFIG)
    assert row["rim_absent_extent_deg"] == pytest.approx(extent, abs=3 if px_per_dd > 60 else 5)
    assert row["ddls_stage"] == stage
    assert row["rim_min_ratio"] == pytest.approx(0, abs=0.003)
    assert row["rim_min_position_deg"] == pytest.approx(middle, abs=3)
    hour = round(middle / 30)
    edges = np.clip([middle - extent / 2, middle + extent / 2], hour * 30 - 15, hour * 30 + 15)
    assert row[f"rim_width_clock_{hour:02d}_dd"] == pytest.approx(0.2 * (1 - np.ptp(edges) / 30), abs=1 / px_per_dd)
    if middle == 180:
        assert row["cdr_vertical"] == pytest.approx(0.8, abs=0.02), "the cup's height reaches into the notch"


@pytest.mark.parametrize("px_per_dd", [60, 100, 200])
@pytest.mark.parametrize("rotation", [0, 20, 77])
@pytest.mark.parametrize(("shift", "stage"), [(0.12, 5), (0.03, 4), (0.0, 4), (0.17, 7)])
def test_the_rim_of_a_smooth_cup_keeps_its_stage(px_per_dd, rotation, shift, stage):
    """Pixel steps make no notch: the thinnest rim is 0.15 - shift, and absent over 57 degrees where the cup passes the margin by 0.02."""
    row = measure(EyePhantom(disc=(0.5, 0.5), cup=(0.35, 0.35), cup_at=(0.0, -shift), rotation_deg=rotation, px_per_dd=px_per_dd).masks())
    assert row["ddls_stage"] == stage
    assert row["rim_min_ratio"] == pytest.approx(max(0.15 - shift, 0), abs=0.006)
    assert row["rim_absent_extent_deg"] == pytest.approx(57 if shift == 0.17 else 0, abs=9)


@pytest.mark.parametrize("eye", ["R", "L"])
@pytest.mark.parametrize("rotation", [0, 45, 90, 270])
@pytest.mark.parametrize("scale", [60.0, 150.0])
def test_a_lesion_is_found_in_its_etdrs_field(eye, rotation, scale):
    for field in ETDRS_FIELDS:
        spot = Spot("hemorrhage", *etdrs_centre(field), radius=0.1)
        row = measure(EyePhantom(spots=(spot,), eye=eye, rotation_deg=rotation, px_per_dd=scale).masks(), CONFIG)
        inside = {name: row[f"hemorrhage_coverage_etdrs_{name}"] for name in ETDRS_FIELDS}
        assert {name for name, value in inside.items() if value > 0} == {field}
        assert row["hemorrhage_area_dd2"] == pytest.approx(math.pi * 0.01, rel=0.06 if scale < 100 else 0.03)  # pixels of a small circle
        expected = max(0.0, math.hypot(spot.temporal, spot.superior) - 0.1)
        assert row["hemorrhage_fovea_distance_dd"] == pytest.approx(expected, abs=1.5 / scale)


@pytest.mark.parametrize("eye", ["R", "L"])
@pytest.mark.parametrize("rotation", [0, 90, 230])
def test_quadrants(eye, rotation):
    places = {"superotemporal": (0.6, 0.5), "superonasal": (-0.6, 0.5), "inferotemporal": (0.6, -0.5), "inferonasal": (-0.6, -0.5)}
    for count, (quadrant, (temporal, superior)) in enumerate(places.items(), start=1):
        made = tuple(Spot("hemorrhage", temporal * (1 + 0.5 * i), superior * (1 + 0.5 * i), 0.05) for i in range(count))
        row = measure(EyePhantom(spots=made, eye=eye, rotation_deg=rotation).masks(), CONFIG)
        found = {name: row[f"hemorrhage_count_{name}"] for name in places}
        assert found == {name: float(count) if name == quadrant else 0.0 for name in places}
        assert row["hemorrhage_quadrants"] == 1.0


def test_red_lesions_of_the_421_rule():
    crowd = tuple(Spot("hemorrhage", 0.4 + 0.15 * (i % 5), 0.4 + 0.15 * (i // 5), 0.03) for i in range(21))
    row = measure(EyePhantom(spots=crowd).masks(), CONFIG)
    assert row["hemorrhage_count"] == 21 and row["dr_421_red_quadrants"] == 1
    row = measure(EyePhantom(spots=crowd[:-1]).masks(), CONFIG)
    assert row["dr_421_red_quadrants"] == 0, "more than twenty"
    both = (*crowd[:-1], *(Spot("microaneurysm", s.temporal, s.superior, 0.03) for s in crowd[:-1]))
    row = measure(EyePhantom(spots=both).masks(), CONFIG)
    assert row["microaneurysm_count"] == 20 and row["dr_421_red_quadrants"] == 0, "a spot that both heads show is one"
    assert row["dr_421_beading_quadrants__reason"] == "mask_not_given"


def test_exudate_within_one_disc_diameter():
    near, far = Spot("hard_exudate", 0.5, 0.0, 0.1), Spot("hard_exudate", 1.5, 0.0, 0.1)
    row = measure(EyePhantom(spots=(near, far)).masks(), CONFIG)
    assert row["hard_exudate_within_1dd"] == 1
    assert row["hard_exudate_area_within_1dd_dd2"] == pytest.approx(math.pi * 0.01, rel=0.02)
    assert measure(EyePhantom(spots=(far,)).masks(), CONFIG)["hard_exudate_within_1dd"] == 0


def test_sizes_of_drusen_in_micrometres_and_of_others_in_disc_diameters():
    um = 1 / 1800
    druse = tuple(Spot("drusen", -0.5 + 0.3 * i, 0.3, radius * um) for i, radius in enumerate((25, 25, 45, 80)))
    other = tuple(Spot("hemorrhage", -0.5 + 0.4 * i, -0.5, radius) for i, radius in enumerate((0.02, 0.05, 0.05, 0.1)))
    row = measure(EyePhantom(spots=druse + other, px_per_dd=220).masks(), CONFIG)
    assert [row[f"drusen_count_{size}"] for size in ("small", "medium", "large")] == [2, 1, 1]
    assert [row[f"hemorrhage_count_{size}"] for size in ("small", "medium", "large")] == [1, 2, 1]
    assert row["drusen_area_6mm_mm2"] == pytest.approx(math.pi * (2 * 25**2 + 45**2 + 80**2) / 1e6, rel=0.06)


def test_no_lesion_is_zero_and_no_head_is_not():
    row = measure(EyePhantom().masks(), CONFIG)
    assert row["hemorrhage_count"] == 0 and row["hemorrhage_coverage"] == 0 and row["hemorrhage_severity"] == 0
    assert row["hemorrhage_circularity__reason"] == "none_present"
    assert row["hemorrhage_fovea_distance_dd__reason"] == "none_present"
    assert math.isnan(row["drusen_count"]) and row["drusen_count__reason"] == "mask_not_given"
    masks = EyePhantom().masks()
    masks.native = False
    assert measure(masks, CONFIG)["drusen_count__reason"] == "head_not_available"


def test_shapes_of_lesions():
    masks = EyePhantom(px_per_dd=150).masks()
    plane = masks.planes["hemorrhage"]
    plane[500:520, 400:440] = True
    row = measure(masks, CONFIG)
    assert row["hemorrhage_aspect_ratio"] == pytest.approx(2.0, abs=0.02)
    # Of a rectangle a x 2a: 4 pi 2 a^2 / (6 a)^2 = 0.698. Crofton's perimeter in eight directions is 1.4 % and 1.9 px short here.
    assert 0.698 - 0.01 <= row["hemorrhage_circularity"] <= 0.75
    circle = measure(EyePhantom(spots=(Spot("hemorrhage", 0.5, 0.5, 0.2),), px_per_dd=150).masks(), CONFIG)
    assert circle["hemorrhage_circularity"] == pytest.approx(1.0, abs=0.03)


def test_phenotypes_have_known_values():
    masks = EyePhantom(px_per_dd=100).masks()
    context = Context(masks)
    disc = context.disc
    rows, columns = np.mgrid[: masks.fov.shape[0], : masks.fov.shape[1]]
    distance, angle = np.hypot(rows - disc.y, columns - disc.x), np.degrees(np.arctan2(rows - disc.y, columns - disc.x))
    # A crescent over 120 degrees, out to 0.9 DD from the centre of the disc (semi-axes 0.47 and 0.53 DD).
    masks.planes["peripapillary_atrophy"] = (distance <= 90) & (np.abs(angle) <= 60) & ~disc.mask
    masks.planes["tessellation"] = masks.fov & (rows < disc.y)
    row = measure(masks, CONFIG)
    assert row["ppa_angular_extent_deg"] == pytest.approx(120, abs=2)
    masks.planes["peripapillary_atrophy"] |= np.hypot(rows - disc.y, columns - disc.x - 110) < 3
    masks.planes["peripapillary_atrophy"] |= disc.mask & (np.abs(angle) <= 60)
    other = measure(masks, CONFIG)
    assert other["ppa_max_width_dd"] == row["ppa_max_width_dd"], "a speck far off is no width"
    assert other["ppa_angular_extent_deg"] == row["ppa_angular_extent_deg"]
    assert other["ppa_to_disc_area"] == pytest.approx(row["ppa_to_disc_area"], abs=0.005), "the disc is no atrophy about it"
    assert other["peripapillary_atrophy_count"] == 2
    assert row["ppa_max_width_dd"] == pytest.approx(0.9 - 0.47, abs=0.015)
    assert row["peripapillary_atrophy_count"] == 1
    assert row["ppa_to_disc_area"] == pytest.approx((math.pi * 0.81 / 3 - 0.25) / (math.pi * 0.25), abs=0.05)
    assert row["tessellation_coverage"] == pytest.approx(0.5, abs=0.01)
    assert row["tessellation_coverage_peripapillary"] == pytest.approx(0.5, abs=0.01)
    assert row["atrophy_coverage"] == row["peripapillary_atrophy_coverage"]
    assert row["diffuse_atrophy_count__reason"] == "mask_not_given"


def moved(before, after, names=NAMES, relative=0.05) -> list[str]:
    """Biomarkers that one of two rows lacks, or that differ by more than a share of the first."""
    out = []
    for name in names:
        a, b = before[name], after[name]
        if math.isnan(a) != math.isnan(b) or (not math.isnan(a) and abs(a - b) > relative * abs(a) + 1e-9):
            out.append(name)
    return out


SCALE_FREE = [name for name in NAMES if registry()[name].scale_free and "clock" not in name]


def test_a_quarter_turn_moves_only_what_is_defined_by_the_picture():
    base = EyePhantom(spots=spots(), cup_at=(0.05, 0.06))
    row = measure(base.masks(), CONFIG)
    turned = measure(dataclasses.replace(base, rotation_deg=90).masks(), CONFIG)
    assert set(moved(row, turned, relative=1e-3)) <= {"fovea_x_px", "fovea_y_px", "disc_fovea_angle_deg"}


def test_mirroring_the_eye_moves_nothing_but_the_column_of_the_fovea():
    base = EyePhantom(spots=spots(), cup_at=(0.05, 0.06))
    row = measure(base.masks(), CONFIG)
    mirrored = measure(dataclasses.replace(base, eye="L").masks(), CONFIG)
    assert set(moved(row, mirrored, relative=1e-3)) <= {"fovea_x_px"}
    assert mirrored["eye"] == "L" and mirrored["laterality_conflict"] is False


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_moves_under_two_percent_of_values(scale):
    base = EyePhantom(spots=spots(), cup_at=(0.05, 0.06), px_per_dd=160)
    row = measure(base.masks(), CONFIG)
    scaled = measure(dataclasses.replace(base, px_per_dd=160 * scale).masks(), CONFIG)
    out = moved(row, scaled, SCALE_FREE)
    assert len(out) <= 0.02 * sum(not math.isnan(row[name]) for name in SCALE_FREE), out


def test_grid_and_native_pixels():
    masks = EyePhantom(px_per_dd=100, um_per_px=6.0).masks()
    side = masks.fov.shape[0]
    coarse = dataclasses.replace(masks, frame=Frame(side, 3.0, 10.0, 20.0, 3 * side, 3 * side), native=False)
    one, three = measure(masks, CONFIG), measure(coarse, CONFIG)
    assert three["disc_height_px"] == pytest.approx(3 * one["disc_height_px"])
    assert three["disc_area_px2"] == pytest.approx(9 * one["disc_area_px2"])
    assert three["disc_height_um"] == pytest.approx(three["disc_height_px"] * 6.0)
    assert three["cdr_vertical"] == one["cdr_vertical"]
    assert three["fovea_x_px"] == pytest.approx(3 * masks.fovea[0] + 10.0)
    assert three["fov_diameter_px"] == 3 * one["fov_diameter_px"]


# ---- scale and laterality ----------------------------------------------------------------------------------------------------


def test_scale_source():
    row = measure(EyePhantom(px_per_dd=100).masks(), CONFIG)
    assert row["scale_source"] == "disc_1800um" and row["um_per_px"] == pytest.approx(18.0, rel=0.01)
    assert row["disc_height_um__reason"] == "scale_from_disc" and row["cup_height_um"] > 0
    row = measure(EyePhantom(px_per_dd=100, um_per_px=16.0).masks(), CONFIG)
    assert row["scale_source"] == "manifest" and row["um_per_px"] == 16.0
    assert row["disc_height_um"] == pytest.approx(106 * 16.0, rel=0.02)


@pytest.mark.parametrize("word", ["L", "left", "OS", " os "])
def test_the_eye_in_other_words(word):
    masks = EyePhantom(eye="L").masks()
    expected, masks.eye = measure(masks, CONFIG), word
    row = measure(masks, CONFIG)
    assert (row["eye"], row["eye_source"], row["laterality_conflict"]) == ("L", "table", False)
    assert row["rim_width_superior_dd"] == expected["rim_width_superior_dd"]
    masks.eye = "both"
    with pytest.raises(ValueError, match="eye of image .*: expected R, L, OD, OS, right or left, found 'both'"):
        measure(masks, CONFIG)


def test_laterality_from_the_image_and_conflicts():
    masks = EyePhantom(eye="L").masks()
    masks.eye = None
    row = measure(masks, CONFIG)
    assert (row["eye"], row["eye_source"], row["laterality_conflict"]) == ("L", "image", None)
    right = measure(masks, CONFIG)
    masks.eye = "R"
    row = measure(masks, CONFIG.model_copy(update={"laterality_conflict": BiomarkersConfig().laterality_conflict}))
    assert (row["eye"], row["eye_source"], row["eye_image"], row["laterality_conflict"]) == ("R", "table", "L", True)
    assert row["isnt_rule__reason"] == row["rim_width_superior_dd__reason"] == "laterality_conflict", "upside down or not?"
    for name in ("cdr_vertical", "disc_fovea_distance_dd", "disc_fovea_angle_deg"):
        assert row[name] == right[name], name
    table = measure(masks, CONFIG)
    assert table["rim_width_superior_dd"] == pytest.approx(right["rim_width_inferior_dd"], rel=0.05)
    assert table["disc_fovea_angle_deg"] == right["disc_fovea_angle_deg"]
    row = measure(masks, CONFIG.model_copy(update={"laterality_conflict": "image"}))
    assert (row["eye"], row["eye_source"], row["laterality_conflict"]) == ("L", "image", True)


def test_an_unknown_eye_on_its_side_has_no_quadrants():
    masks = EyePhantom(rotation_deg=90, spots=spots()).masks()
    masks.eye = None
    row = measure(masks, CONFIG)
    assert row["isnt_rule__reason"] == "laterality_unknown"
    assert row["hemorrhage_count_superonasal__reason"] == "laterality_unknown"
    assert row["cdr_vertical"] == pytest.approx(0.24 / 0.53, abs=0.01)


# ---- nulls -------------------------------------------------------------------------------------------------------------------


def no(masks: Masks, *names: str) -> Masks:
    """Masks with some planes emptied."""
    planes = {name: np.zeros_like(plane) if name in names else plane for name, plane in masks.planes.items()}
    return dataclasses.replace(masks, planes=planes)


def test_no_disc():
    row = measure(no(EyePhantom().masks(), "disc", "cup"), CONFIG)
    for name in ("cdr_vertical", "disc_fovea_distance_dd", "hemorrhage_count_large", "hemorrhage_count_superonasal", "fov_diameter_dd"):
        assert row[f"{name}__reason"] == "no_disc", name
    assert row["macula_vessel_density_3mm__reason"] == "mask_not_given"
    assert row["hemorrhage_area_mm2__reason"] == "no_scale"
    assert math.isnan(row["zone_b_share"]) and row["scale_source"] is None


def test_a_cup_alone_is_no_disc():
    """Its diameter would be the ruler of everything."""
    row = measure(no(EyePhantom().masks(), "disc"), CONFIG)
    assert row["cdr_vertical__reason"] == row["ddls_stage__reason"] == "no_disc" and math.isnan(row["px_per_dd"])


def test_disc_head_missing():
    masks = EyePhantom().masks()
    masks = dataclasses.replace(masks, planes={k: v for k, v in masks.planes.items() if k not in ("disc", "cup")}, native=False)
    assert measure(masks, CONFIG)["cdr_vertical__reason"] == "head_not_available"


def test_no_cup():
    row = measure(no(EyePhantom().masks(), "cup"), CONFIG)
    assert row["cdr_vertical__reason"] == row["rim_area_px2__reason"] == row["isnt_rule__reason"] == "no_cup"
    assert row["disc_height_px"] > 0


def test_a_dot_is_no_disc():
    masks = no(EyePhantom().masks(), "disc", "cup")
    masks.planes["disc"][300, 300] = True
    assert measure(masks, CONFIG)["cdr_vertical__reason"] == "disc_too_small"


def test_a_line_is_no_disc():
    masks = no(EyePhantom().masks(), "disc", "cup")
    masks.planes["disc"][300:308, 200:300] = True
    assert measure(masks, CONFIG)["disc_ovality__reason"] == "disc_implausible"


def test_a_disc_at_the_border_is_completed_and_its_rim_is_null():
    phantom = EyePhantom(px_per_dd=120)
    masks = phantom.masks()
    context = Context(masks)
    # The field's edge cuts a fifth of the disc's width off.
    edge = round(context.disc.x + 0.3 * 120)
    masks.fov[:, edge:] = False
    row = measure(masks, CONFIG)
    assert row["px_per_dd"] == pytest.approx(120, rel=0.02)
    assert row["cdr_vertical__reason"] == row["rim_min_ratio__reason"] == "disc_cut_off"
    assert row["disc_height_dd"] == pytest.approx(1.06, abs=0.03)
    masks.fov[:, round(context.disc.x - 0.2 * 120) :] = False
    assert measure(masks, CONFIG)["disc_ovality__reason"] == "disc_cut_off"


def test_a_disc_that_only_touches_the_border_is_whole():
    masks = EyePhantom(px_per_dd=120, disc=(0.5, 0.5), cup=(0.25, 0.25)).masks()
    masks.fov[:, round(Context(masks).disc.x + 0.49 * 120) :] = False
    assert measure(masks, CONFIG)["cdr_horizontal"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("change", [{"fovea": None}, {"fovea_confidence": 0.05}, {"fovea": (math.nan, 3.0)}, {"fovea": (-5.0, 3.0)}])
def test_no_fovea(change):
    row = measure(dataclasses.replace(EyePhantom(spots=spots()).masks(), **change), CONFIG)
    for name in ("fovea_x_px", "disc_fovea_distance_dd", "hemorrhage_count_superonasal", "hard_exudate_within_1dd"):
        assert row[f"{name}__reason"] == "no_fovea", name
    # With the eye known the rim is still measured, with the photograph taken as upright, and the row says so.
    assert row["axis_source"] == "upright" and row["rim_width_inferior_dd"] > 0


def test_no_fovea_and_no_eye():
    row = measure(dataclasses.replace(EyePhantom().masks(), fovea=None, eye=None), CONFIG)
    assert row["isnt_rule__reason"] == "no_fovea" and row["axis_source"] is None
    assert row["cdr_vertical"] > 0


def test_a_fovea_on_the_disc_is_not_believed():
    masks = EyePhantom().masks()
    disc = Context(masks).disc
    row = measure(dataclasses.replace(masks, fovea=(disc.x + 20, disc.y)), CONFIG)
    assert row["disc_fovea_distance_dd__reason"] == "fovea_implausible"


def test_zone_outside_the_field():
    masks = EyePhantom(spots=spots()).masks()
    x = round(masks.fovea[0])
    masks.fov[:, :x] = False  # the temporal half is not in the picture
    masks = dataclasses.replace(masks, planes={**masks.planes, "tessellation": masks.fov.copy()})
    row = measure(masks, CONFIG)
    assert row["hemorrhage_coverage_etdrs_outer_temporal__reason"] == "zone_outside_fov"
    assert row["hemorrhage_coverage_etdrs_outer_nasal"] >= 0
    assert row["macula_6mm_share"] == pytest.approx(0.5, abs=0.01)
    for name in ("hemorrhage_count_superotemporal", "microaneurysm_count_inferotemporal", "hemorrhage_quadrants", "dr_421_red_quadrants"):
        assert math.isnan(row[name]) and row[f"{name}__reason"] == "zone_outside_fov", name
    assert row["hemorrhage_count_superonasal"] > 0 and row["hemorrhage_count"] > 0
    strict = CONFIG.model_copy(update={"min_zone_share": 0.8})
    assert measure(masks, strict)["tessellation_coverage_macula__reason"] == "zone_outside_fov"


def test_nothing_seen_within_one_disc_diameter_is_not_nothing_there():
    masks = EyePhantom(spots=(Spot("hemorrhage", -1.0, 0.5, 0.1),)).masks()
    masks.planes["venous_beading"] = np.zeros_like(masks.fov)
    masks.fov[:, : round(masks.fovea[0]) - 40] = False  # a disc-centred photograph with the fovea 0.3 DD from its edge
    row = measure(masks, CONFIG)
    assert row["hard_exudate_within_1dd"] == 0 and row["hemorrhage_count_superonasal"] == 1, "more than half of the circle is seen"
    for name in ("hemorrhage_count_superotemporal", "hemorrhage_quadrants", "dr_421_red_quadrants", "dr_421_beading_quadrants"):
        assert row[f"{name}__reason"] == "zone_outside_fov", name
    strict = measure(masks, CONFIG.model_copy(update={"min_zone_share": 0.8}))
    assert strict["hard_exudate_within_1dd__reason"] == strict["hard_exudate_area_within_1dd_dd2__reason"] == "zone_outside_fov"
    loose = measure(masks, CONFIG.model_copy(update={"min_zone_share": 0.0}))
    assert loose["hemorrhage_quadrants"] == 1 and loose["hemorrhage_count_superotemporal"] == 0


def test_a_disc_of_few_pixels_empties_what_the_dictionary_says():
    row = measure(EyePhantom(px_per_dd=11, disc=(0.5, 0.5)).masks(), BiomarkersConfig(families=("optic_nerve",)))
    entries = [entry for entry in registry().values() if entry.family == "optic_nerve"]
    assert {entry.name for entry in entries if row[f"{entry.name}__reason"] == "resolution_too_low"} == {
        entry.name for entry in entries if entry.least_disc
    }
    assert row["disc_fovea_distance_dd"] == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"families": ()}, "nothing would be measured"),
        ({"fovea_distance_dd": (5.0, 1.2)}, "the lower one first; with 5 to 1.2 no fovea"),
        ({"fovea_distance_dd": (-1.0, 2.0)}, "0 or more"),
        ({"fovea_distance_dd": (2.0, 2.0)}, "no fovea would be used"),
    ],
)
def test_settings_under_which_nothing_is_measured_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        BiomarkersConfig(**settings)


def test_the_order_of_families_is_no_setting():
    assert BiomarkersConfig(families=("lesions", "image", "image")) == BiomarkersConfig(families=("image", "lesions"))


def test_resolution_too_low():
    row = measure(EyePhantom(px_per_dd=58, spots=spots()).masks(), CONFIG)  # a field of 407 px
    assert row["microaneurysm_count__reason"] == "resolution_too_low"
    assert row["hemorrhage_count"] > 0
    tiny = measure(EyePhantom(px_per_dd=10).masks(), CONFIG)
    assert tiny["cdr_vertical__reason"] == "resolution_too_low"


def test_a_blown_up_photograph_is_judged_by_its_own_pixels():
    masks = EyePhantom(px_per_dd=140, spots=spots()).masks()  # 981 px of masks ...
    side = masks.fov.shape[0]
    small = dataclasses.replace(masks, frame=Frame(side, 0.4, 0.0, 0.0, round(0.4 * side), round(0.4 * side)), native=False)
    assert measure(small, CONFIG)["microaneurysm_count__reason"] == "resolution_too_low"  # ... of 392 px of photograph


def odd(name: str) -> Masks:
    side = 64
    empty, full = np.zeros((side, side), bool), np.ones((side, side), bool)
    names = ("artery", "vein", "vessel", "disc", "cup", "hemorrhage", "hard_exudate", "tessellation", "peripapillary_atrophy", "drusen")
    dot = empty.copy()
    dot[32, 32] = True
    frame, fovea = Frame.identity(side, side), (20.0, 30.0)
    made = {
        "empty": ({key: empty for key in names}, full, fovea),
        "empty field": ({key: full for key in names}, empty, fovea),
        "everything full": ({key: full for key in names}, full, fovea),
        "one pixel": ({key: dot for key in names}, full, fovea),
        "one pixel of field": ({key: full for key in names}, dot, fovea),
        "no planes": ({}, full, None),
        "nothing": ({}, empty, None),
    }[name]
    return Masks(planes=made[0], fov=made[1], frame=frame, fovea=made[2], fovea_confidence=None, eye="R", image_id=name, native=True)


@pytest.mark.parametrize("name", ["empty", "empty field", "everything full", "one pixel", "one pixel of field", "no planes", "nothing"])
def test_odd_masks_give_nulls_and_never_raise(name):
    row = measure(odd(name), BiomarkersConfig(min_fov_diameter_px=dict.fromkeys(BiomarkersConfig().min_fov_diameter_px, 1)))
    assert row["status"] == "ok"
    assert row["detail"] is None
    assert math.isnan(row["cdr_vertical"]) and row["cdr_vertical__reason"]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_masks(size):
    full = np.ones(size, bool)
    masks = Masks({"disc": full, "vessel": full, "hemorrhage": full}, full, Frame.identity(*size[::-1]), None, None, native=True)
    assert measure(masks)["detail"] is None


def test_planes_of_another_shape_are_refused():
    masks = EyePhantom(px_per_dd=40).masks()
    masks.planes["cup"] = masks.planes["cup"][:-1]
    with pytest.raises(ValueError, match="mask 'cup'.*expected the shape"):
        measure(masks)


def test_masks_are_left_as_they_were():
    masks = EyePhantom(spots=spots(), px_per_dd=60).masks()
    before = {name: plane.copy() for name, plane in masks.planes.items()}
    measure(masks)
    assert all((before[name] == masks.planes[name]).all() for name in before)
