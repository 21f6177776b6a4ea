"""What lies around a photograph - pages, frames, captions, a second eye - neither hides its field of view nor passes unsaid."""

import cv2
import numpy as np
import pandas as pd
import pytest
from test_quality_room import render, row_of

from retsam.quality.config import QualityConfig
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.quality.grading import grade_table, summary
from retsam.quality.table import as_table


@pytest.fixture(scope="module")
def whole():
    return render(384)


@pytest.fixture(scope="module")
def cut():
    """Wide and cut off above and below, as IDRiD's are."""
    return render(384, width=560)[70:-70]


def caption(rgb, colour, share=0.15, letters=True):
    strip = np.full((round(share * len(rgb)), rgb.shape[1], 3), colour, np.uint8)
    if letters:
        cv2.putText(strip, "OD 2020-01-01 P0001", (5, len(strip) - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
    return np.vstack([rgb, strip])


def texture(rgb):
    """A panel of no one colour below the photograph."""
    strip = np.random.default_rng(0).integers(90, 255, (4, rgb.shape[1] // 20, 3)).astype(np.uint8)
    return np.vstack([rgb, cv2.resize(strip, (rgb.shape[1], 40), interpolation=cv2.INTER_NEAREST)])


def on_page(rgb, colour):
    return np.where(detect_field_of_view(rgb).mask()[..., None], rgb, colour).astype(np.uint8)


def framed(rgb, px, colour):
    return np.pad(rgb, ((px, px), (px, px), (0, 0)), constant_values=colour)


AROUND = {
    "white page": lambda p: on_page(p, 255),
    "light grey page": lambda p: on_page(p, 180),
    "white frame of 3 px": lambda p: framed(p, 3, 255),
    "white frame": lambda p: framed(p, 20, 255),
    "grey frame": lambda p: framed(p, 8, 100),
    "white caption": lambda p: caption(p, 255),
    "grey caption": lambda p: caption(p, 60, 0.04, letters=False),
    "textured panel": texture,
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("shape", ["whole", "cut"])
def test_what_is_around_a_photograph_does_not_hide_its_field(shape, around, request):
    rgb = request.getfixturevalue(shape)
    alone, found = detect_field_of_view(rgb), detect_field_of_view(AROUND[around](rgb))
    assert alone.kind != "none" and found.kind == alone.kind and found.radius == pytest.approx(alone.radius, rel=0.02)
    if around != "textured panel":  # which no colour tells from the retina
        assert found.mask().sum() == pytest.approx(alone.mask().sum(), rel=0.03)


def test_without_a_rim_or_with_two_fields_a_photograph_is_at_most_usable(whole):
    lit = whole[110:-110, 110:-110]
    assert detect_field_of_view(lit).kind == "none" == detect_field_of_view(np.minimum(lit * 1.6 + 60, 255).astype(np.uint8)).kind
    gap = np.zeros((len(whole), 20, 3), np.uint8)
    table = pd.concat([row_of(p, i) for i, p in (("one", whole), ("crop", lit), ("two", np.hstack([whole, gap, whole[:, ::-1]])))])
    graded = grade_table(table, QualityConfig(reject_above=1, gradable_above=0, not_fundus_above=1)).set_index("image_id")
    assert graded.loc["one", "grade"] == "gradable" and graded.loc["one", "fov_outside"] < 0.05
    assert graded.loc["crop", "grade"] == "usable" and "no_rim" in graded.loc["crop", "reasons"]
    assert graded.loc["two", "grade"] == "usable" and "several_fields" in graded.loc["two", "reasons"]


def test_overexposed_is_not_called_something_else(whole):
    white = np.where(detect_field_of_view(whole).mask()[..., None], (255, 255, 120), 0).astype(np.uint8)
    table = pd.concat([row_of(white, "white"), row_of(np.full_like(whole, 255) - whole // 60, "page")])
    graded = grade_table(table, QualityConfig(not_fundus_above=0)).set_index("image_id")
    assert tuple(graded.loc["white", ["status", "grade", "reasons"]]) == ("ok", "reject", "overexposed")
    assert graded.loc["page", "reason"] == "not_a_fundus"


def test_field_of_view_of_an_older_table_is_told(whole):
    row = row_of(whole)
    assert FieldOfView.from_columns(row.iloc[0]).outside == row.loc[0, "fov_outside"]
    with pytest.raises(ValueError, match="fov_outside.*run `retsam quality metrics` again"):
        grade_table(row.drop(columns="fov_outside"), QualityConfig())


def copies(whole):
    thumbnail = cv2.resize(whole, (100, 100), interpolation=cv2.INTER_AREA)
    middle = cv2.resize(whole, (300, 300), interpolation=cv2.INTER_AREA)
    return as_table([row_of(p, i).iloc[0].to_dict() for i, p in (("thumbnail", thumbnail), ("middle", middle), ("native", whole))])


def test_the_best_of_near_copies_is_kept(whole):
    graded = grade_table(copies(whole), QualityConfig(duplicates="near", near_distance=48, reject_above=1, gradable_above=0))
    graded = graded.set_index("image_id")
    assert graded.loc["native", "status"] == "ok" and graded.loc["native", "grade"] == "gradable"
    assert list(graded.loc[["thumbnail", "middle"], "duplicate_of"]) == ["native", "native"]
    kept = grade_table(copies(whole), QualityConfig(near_distance=48)).set_index("image_id")
    assert (kept["reason"].fillna("") != "duplicate").all() and kept.loc["native", "near_duplicate_of"] == "thumbnail"


def test_copies_contradict_only_where_subjects_are_known(whole):
    table = pd.concat([row_of(whole, "a"), row_of(whole, "b")])
    cohort = pd.DataFrame({"image_id": ["a", "b"], "subject": ["a", "b"], "eye": pd.array([pd.NA, pd.NA], "string")})
    unknown = grade_table(table, QualityConfig(), cohort)
    assert unknown.loc[1, "detail"] == "the same pixels as a" and "another subject" not in " ".join(summary(unknown))
    known = grade_table(table, QualityConfig(), cohort.assign(subject=["P1", "P2"]))
    assert "subject P2 here, P1 there" in known.loc[1, "detail"]
