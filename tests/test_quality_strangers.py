"""Pictures of other things are told from retinas, the colour profile is what it says, grades by eye are read in EyeQ's terms."""

import numpy as np
import pandas as pd
import pytest
from test_quality_room import render, row_of

from retsam.quality import project_grades as by_eye
from retsam.quality.config import QualityConfig
from retsam.quality.grading import grade_table
from retsam.quality.model import model_card
from retsam.quality.other_pictures import KINDS, behind_aperture, drawn
from retsam.quality.profile import PROFILE, colour_profile

NEVER_DRAWN_FOR_FITTING = 977


def test_drawn_strangers_do_not_pass_and_retinas_do():
    """Versions that the model was not fitted on. A ramp behind an aperture may look like a hazy retina: it is a reject then."""
    pictures = dict(drawn(versions=2, seed=NEVER_DRAWN_FOR_FITTING))
    pictures = {k: p for k, p in pictures.items() if int(k.rpartition("_")[2]) < 2}
    assert {k.rpartition("_")[0] for k in pictures} == set(KINDS)
    # A plain colour has neither rim nor content: `measure_file` fails it before metrics are taken.
    metrics = pd.concat([row_of(p, k) for k, p in pictures.items() if not k.startswith("uniform")], ignore_index=True)
    graded = grade_table(metrics, QualityConfig(duplicates="keep")).set_index("image_id")
    passed = graded.index[graded["grade"] != "reject"].tolist()
    assert len(passed) <= 1, passed
    named = graded["reason"].eq("not_a_fundus").fillna(False)
    assert named.mean() >= 0.85
    assert named[[k for k in named.index if k.startswith(("text_page", "slit_lamp", "oct_strip"))]].all()
    retinas = pd.concat([row_of(render(512, seed), f"r{seed}") for seed in range(3)], ignore_index=True)
    assert not grade_table(retinas, QualityConfig())["reason"].eq("not_a_fundus").fillna(False).any()


def test_profile_of_known_patterns():
    ys, xs = np.mgrid[:384, :384]
    r = np.hypot(xs - 191.5, ys - 191.5) / 192
    inside = r < 0.96
    plain = np.full((384, 384, 3), (160, 80, 40), np.uint8)
    row = colour_profile(plain, inside)
    assert set(row) == set(PROFILE) and row["white"] == 0
    assert max(abs(row[k]) for k in row if k.startswith("ring")) < 0.02
    dark_pupil = np.where((r < 0.3)[..., None], plain // 4, plain).astype(np.uint8)
    row = colour_profile(dark_pupil, inside)
    assert row["ring1_green"] == pytest.approx(np.log((20 + 8) / (80 + 8)), abs=0.02)
    assert abs(row["ring4_green"]) < 0.02 and row["ring2_green_spread"] > 0.3 > row["ring4_green_spread"]
    half_white = np.where((xs < 192)[..., None], 250, plain).astype(np.uint8)
    assert colour_profile(half_white, inside)["white"] == pytest.approx(0.5, abs=0.03)
    # Brightness as a whole is no part of the profile (apart from the floor under the logarithm), and nothing inside is no error.
    assert colour_profile(np.zeros((384, 384, 3), np.uint8), np.zeros_like(inside)) == dict.fromkeys(PROFILE, 0.0)


def test_aperture_leaves_a_circle():
    seen = behind_aperture(np.full((200, 300, 3), 9, np.uint8))[..., 0] > 0
    assert seen.mean() == pytest.approx(np.pi * 96**2 / (200 * 300), rel=0.02) and not seen[0].any()


def test_metrics_of_an_older_version_are_told():
    metrics = row_of(render(256)).drop(columns=["white"])
    with pytest.raises(ValueError, match="white.*run `retsam quality metrics` again"):
        grade_table(metrics, QualityConfig())


def test_grades_by_eye_in_terms_of_eyeq():
    grades = pd.DataFrame({"image": list("abcdef"), "grade": ["gradable", "usable", "usable", "reject", "reject", "reject"], "weight": 1.0})
    grades.loc[5, "weight"] = 8.0
    eyeq = pd.Series({"a": "good", "b": "usable", "c": "reject", "d": "reject", "e": "usable", "f": "reject"})
    meaning = by_eye.as_eyeq(grades, eyeq)
    assert meaning.index.tolist() == list(by_eye.GRADES)
    np.testing.assert_allclose(meaning.sum(axis=1), 1)
    # 9 of 10 by weight, and one photograph in EyeQ's proportions (10 of 13 are rejects) on top.
    assert meaning.loc["reject", "reject"] == pytest.approx((9 + 10 / 13) / 11)
    assert meaning.loc["borderline", "reject"] == pytest.approx(10 / 13)


def test_file_of_grades_by_eye_is_whole_and_foreign_manifests_are_told():
    table = pd.read_csv(by_eye.FILE)
    assert set(table["grade"]) <= set(by_eye.GRADES) and table["image"].is_unique and (table["weight"] > 0).all()
    with pytest.raises(ValueError, match="not in the manifest"):
        by_eye.project_grades(pd.DataFrame({"image": ["x.jpg"], "quality": ["good"]}))


def test_half_of_the_subjects_are_kept_back_whole():
    groups = pd.Series([f"odir:{k // 2}" for k in range(400)])
    back = by_eye.held_back(groups)
    assert 0.4 < back.mean() < 0.6 and (back.groupby(groups).nunique() == 1).all()


def test_card_tells_what_was_kept_back():
    held_out = model_card()["held_out"]
    for part in held_out["reject"]["kept_back"].values():
        assert part["auc_clear_grades"] > 0.95
        # Calibrated within five points of what the grades by eye lead one to expect.
        assert abs(part["mean_probability"] - part["expected_share"]) < 0.05
    strange = held_out["not_fundus"]
    assert strange["threshold"] == QualityConfig().not_fundus_above
    assert sum(p["called"] for p in strange["kept_back_called_not_fundus"].values()) <= 0.01 * sum(
        p["n"] for p in strange["kept_back_called_not_fundus"].values()
    )
