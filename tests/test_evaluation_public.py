"""Public data sets: a tiny tree of every layout becomes the right manifest; another layout is refused with what was expected and found."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_fakes import FakeSegmenter
from PIL import Image
from public_trees import (
    AV_INDEX,
    BLOB,
    CUP,
    DISC,
    FOV,
    SHAPE,
    VESSEL,
    adam,
    chase_db1,
    ddr,
    drishti_gs,
    drive,
    e_ophtha,
    fgadr,
    fives,
    g1020,
    hrf,
    idrid,
    les_av,
    mmac,
    origa,
    palm,
    papila,
    photo,
    refuge,
    rim_one,
    rite,
    save,
    stare,
)

from retsam.evaluation import run
from retsam.evaluation.public import DATASETS, LayoutError, decode, describe, find, prepare
from retsam.evaluation.reference import read_manifest, read_reference

DISC_CUP = {"disc": DISC, "cup": CUP}
LESION = {"hard_exudate": BLOB, "cotton_wool_spot": BLOB & False}
EXPECTED = {
    # name: (builder, images, splits, masks of the first image)
    "drive": (drive, 3, {"train": 2, "test": 1}, {"vessel": VESSEL}),
    "stare": (stare, 2, {"all": 2}, {"vessel": VESSEL}),
    "chase_db1": (chase_db1, 3, {"train": 2, "test": 1}, {"vessel": VESSEL}),
    "hrf": (hrf, 2, {"train": 1, "test": 1}, {"vessel": VESSEL}),
    "fives": (fives, 2, {"train": 1, "test": 1}, {"vessel": VESSEL}),
    "rite": (rite, 2, {"train": 1, "test": 1}, {"vessel": VESSEL, "artery": AV_INDEX & 1 > 0, "vein": AV_INDEX & 2 > 0}),
    "les_av": (les_av, 1, {"all": 1}, {"vessel": VESSEL, "artery": AV_INDEX & 1 > 0, "vein": AV_INDEX & 2 > 0}),
    "idrid": (idrid, 5, {"train": 3, "test": 2}, {"disc": DISC, "microaneurysm": np.roll(BLOB, 2, 0), "hemorrhage": BLOB & False} | LESION),
    "ddr": (ddr, 3, {"train": 1, "validation": 1, "test": 1}, {"hemorrhage": BLOB, "microaneurysm": BLOB & False} | LESION),
    "e_ophtha": (e_ophtha, 3, {"all": 3}, {"hard_exudate": BLOB}),
    "fgadr": (fgadr, 1, {"all": 1}, {"microaneurysm": BLOB, "hemorrhage": BLOB, "hard_exudate": BLOB & False, "cotton_wool_spot": BLOB}),
    "refuge": (refuge, 3, {"train": 1, "validation": 1, "test": 1}, DISC_CUP),
    "drishti_gs": (drishti_gs, 2, {"train": 1, "test": 1}, DISC_CUP),
    "rim_one": (rim_one, 2, {"train": 1, "test": 1}, DISC_CUP),
    "origa": (origa, 2, {"train": 1, "test": 1}, DISC_CUP),
    "g1020": (g1020, 1, {"all": 1}, DISC_CUP),
    "papila": (papila, 2, {"all": 2}, DISC_CUP | {"disc_expert2": DISC}),
    "palm": (palm, 2, {"train": 2}, {"disc": DISC}),
    "adam": (adam, 2, {"train": 2}, {"disc": DISC, "drusen": BLOB}),
    "mmac": (mmac, 3, {"train": 3}, {}),
}


def test_every_data_set_is_tested():
    assert set(EXPECTED) == set(DATASETS) and len(DATASETS) >= 17
    assert all(d.title in describe() and d.layout in describe() for d in DATASETS.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_layout(name, tmp_path):
    build, n, splits, masks = EXPECTED[name]
    root = tmp_path / "data"
    build(root)
    path = prepare(name, root, tmp_path / "prepared", progress=False)
    manifest = read_manifest(path)
    assert len(manifest) == n and manifest["split"].value_counts().to_dict() == splits and set(manifest["dataset"]) == {name}
    references = [read_reference(row, path.parent, SHAPE) for _, row in manifest.iterrows()]
    assert not any(r.faults for r in references) and not any(r.empty for r in references)
    assert set(references[0].masks) == set(masks)
    for target, expected in masks.items():
        found = references[0].masks[target]
        if name == "papila":  # a contour through the outermost pixels' centres cuts their corners
            assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.93
        else:
            np.testing.assert_array_equal(found, expected, err_msg=target)
    result = run.evaluate(FakeSegmenter(), manifest, path.parent, 5, progress=False)
    assert set(result.images["status"]) == {"ok"}, result.images[["image", "reason", "detail"]]


def test_details(tmp_path):
    """Groups, points, fields of view, soft maps and presence that the tables above do not show."""

    def rows(name):
        EXPECTED[name][0](tmp_path / name)
        path = prepare(name, tmp_path / name, tmp_path / f"{name}.prepared", progress=False)
        manifest = read_manifest(path)
        return manifest, [read_reference(row, path.parent, SHAPE) for _, row in manifest.iterrows()]

    manifest, references = rows("drive")
    np.testing.assert_array_equal(references[0].fov, FOV)
    manifest, references = rows("rite")
    assert references[0].ignored["artery"][40].all()
    manifest, references = rows("chase_db1")
    assert manifest["group"].tolist()[:2] == ["chase_db1:01", "chase_db1:01"]
    manifest, references = rows("papila")
    assert manifest["group"].nunique() == 1 and set(manifest["eye"]) == {"R", "L"}
    manifest, references = rows("idrid")
    assert (references[3].fovea, references[3].disc_centre) == ((30, 33), (50, 33))
    assert manifest["group"].is_unique, "names start anew in the test part of C"
    manifest, references = rows("refuge")
    assert references[0].fovea == (22.5, 31.5) and references[1].fovea is None
    manifest, references = rows("drishti_gs")
    assert references[0].vcdr == pytest.approx(0.7) and references[1].vcdr is None
    manifest, references = rows("palm")
    assert references[1].fovea == (22.5, 31.5) and "disc" not in references[1].masks
    manifest, references = rows("adam")
    assert [r.presence["drusen"] for r in references] == [True, False] and not references[1].masks["drusen"].any()
    manifest, references = rows("e_ophtha")
    assert [list(r.masks) for r in references] == [["hard_exudate"], ["hard_exudate"], ["microaneurysm"]]
    assert not references[1].masks["hard_exudate"].any()
    assert manifest["group"].tolist() == ["e_ophtha:E0000404", "e_ophtha:E0000001", "e_ophtha:E0000043"], "a patient, in both parts"
    manifest, references = rows("mmac")
    assert [r.presence["tessellation"] for r in references] == [False, True, True]
    assert [r.presence["patchy_atrophy"] for r in references] == [False, False, True]


@pytest.mark.parametrize("name", DATASETS)
def test_wrong_layout_is_refused(name, tmp_path):
    """The message names what was expected and what lies there."""
    photo(tmp_path / "fundus/picture.jpg")
    with pytest.raises(LayoutError) as error:
        find(name, tmp_path)
    message = str(error.value)
    assert DATASETS[name].title in message and DATASETS[name].layout in message and "found: fundus/" in message
    with pytest.raises(LayoutError, match="is not a folder"):
        find(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", [n for n in DATASETS if n not in ("mmac", "idrid")])
def test_masks_of_other_names_are_refused(name, tmp_path):
    """Photographs in their place, no mask of the expected name: an error, not a manifest without labels."""
    EXPECTED[name][0](tmp_path)
    words = ["1st_manual", "labels-ah", "1stho", "manual1", "ground truth", "/av/", "arteries", "label/", "annotation_", "contours"]
    words += ["microaneurysms_masks", "disc_cup_masks", "softmap", "reference", "/masks/", "semi-automatic", "disc_masks"]
    renamed = 0
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
        if any(word in path.as_posix().lower().removeprefix(tmp_path.as_posix().lower()) for word in words):
            path.rename(path.with_name("renamed_" + path.name))
            renamed += 1
    assert renamed
    with pytest.raises(LayoutError, match="expected"):
        find(name, tmp_path)


def test_one_broken_mask_is_one_row(tmp_path):
    drive(tmp_path / "data")
    (tmp_path / "data/DRIVE/training/1st_manual/22_manual1.gif").write_bytes(b"GIF89a")
    (tmp_path / "data/DRIVE/test/1st_manual/01_manual1.gif").unlink()
    photo(tmp_path / "data/DRIVE/test/images/02_test.tif")
    save(tmp_path / "data/DRIVE/test/1st_manual/02_manual1.gif", VESSEL[:-2])
    path = prepare("DRIVE", tmp_path / "data", tmp_path / "prepared", progress=False)
    images = run.evaluate(FakeSegmenter(), read_manifest(path), path.parent, 5, progress=False).images
    assert list(images["status"]) == ["ok", "failed", "failed", "failed"]
    assert list(images["reason"].dropna()) == ["unusable_mask", "missing_mask", "missing_mask"], "of the last: its field of view"
    assert "22_manual1.gif: expected a mask, its format is none that is known" in images["detail"][1]
    assert "01_manual1.gif" in images["detail"][2] and "expected 80x60 px like its photograph, found 80x58" in images["detail"][3]


def test_names_are_forgiving(tmp_path):
    drishti_gs(tmp_path)
    assert find("Drishti-GS", tmp_path)[0] == find("DRISHTI_GS1", tmp_path)[0] == "drishti_gs"
    with pytest.raises(LayoutError, match="no public data set 'MESSIDOR'.*known are drive"):
        find("MESSIDOR", tmp_path)


def test_soft_maps_count_experts_of_all(tmp_path):
    """A map whose highest value is one expert in four is no consensus; a file of 0 and 1 has no experts to count."""
    save(tmp_path / "soft.png", np.where(DISC, 64, 0))
    save(tmp_path / "cup.png", np.zeros(SHAPE))
    assert not decode.disc_and_cup(tmp_path / "soft.png", tmp_path / "cup.png")(SHAPE).any()
    Image.fromarray(DISC.astype(np.uint8)).save(tmp_path / "binary.png")
    assert (decode.disc_and_cup(tmp_path / "binary.png", tmp_path / "cup.png")(SHAPE) == DISC).all()
