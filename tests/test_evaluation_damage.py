"""Public data sets damaged, renamed or in another encoding: a row with its reason, or a layout fault that names file and row."""

from __future__ import annotations

import shutil

import numpy as np
import public_trees as trees
import pytest
from evaluation_fakes import FakeSegmenter
from public_trees import CUP, DISC, SHAPE, VESSEL, photo, save

from retsam.evaluation import run
from retsam.evaluation.public import LayoutError, decode, find, prepare
from retsam.evaluation.reference import read_manifest, read_reference


def evaluated(name, tmp_path):
    path = prepare(name, tmp_path / "data", tmp_path / "prepared", progress=False)
    return run.evaluate(FakeSegmenter(), read_manifest(path), path.parent, 5, progress=False).images


def references(name, tmp_path):
    path = prepare(name, tmp_path / "data", tmp_path / "prepared", progress=False)
    manifest = read_manifest(path)
    return manifest, [read_reference(row, path.parent, SHAPE) for _, row in manifest.iterrows()]


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("damage", [lambda p: cut(p), lambda p: cut(p, 0.97), lambda p: p.write_bytes(b"no gzip")])
@pytest.mark.parametrize("file", ["stare-images/im0001.ppm.gz", "labels-ah/im0001.ah.ppm.gz"])
def test_a_damaged_file_is_one_row(tmp_path, file, damage):
    trees.stare(tmp_path / "data")
    damage(tmp_path / "data" / file)
    images = evaluated("stare", tmp_path)
    assert list(images["status"]) == ["failed", "ok"]
    assert images["reason"][0] == ("unreadable" if "images" in file else "unusable_mask")
    assert file in images["detail"][0] and "expected a gzipped file" in images["detail"][0]


@pytest.mark.parametrize("content", [b"", b"MATLAB 7.3 MAT-file, broken" + b"\0" * 200, b"MATLAB 5.0 MAT-file" + b"\0" * 150])
def test_a_damaged_matlab_file_is_one_row(tmp_path, content):
    trees.origa(tmp_path / "data")
    (tmp_path / "data/ORIGA/Semi-automatic-annotations/002.mat").write_bytes(content)
    images = evaluated("origa", tmp_path)
    assert list(images["status"]) == ["ok", "failed"] and "002.mat" in images["detail"][1]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "ppm", "tif"])
def test_pictures_with_wrong_bytes_raise_what_rows_can_hold(tmp_path, ending):
    path, rng = tmp_path / f"m.{ending}", np.random.default_rng(0)
    save(path, VESSEL)
    whole = path.read_bytes()
    for _ in range(150):
        wrong = bytearray(whole)
        for place in rng.integers(8, min(len(wrong), 200), 3):
            wrong[place] = rng.integers(256)
        path.write_bytes(wrong)
        try:
            decode.binary(path)(SHAPE)
        except (OSError, ValueError) as error:
            assert path.name in str(error)


def first(root, pattern):
    return next(root.rglob(pattern))


TABLES = {
    # damage -> data set, file, content, what must be told
    "archive": ("refuge", "Fovea_location.xlsx", b"PK\x03\x04 broken", ["Fovea_location.xlsx: expected a table", "BadZipFile"]),
    "text": ("refuge", "Fovea_location.xlsx", b"ImgName,Fovea_X\n", ["Fovea_location.xlsx: expected a table"]),
    "number": ("idrid", "a. *OD_Center*", b"Image No,X- Coordinate,Y - Coordinate\nIDRiD_001,1 0,33\n", ["row 2 (IDRiD_001)", "'1 0'"]),
    "empty": ("idrid", "a. *OD_Center*", b"", ["expected a table"]),
    "others": ("idrid", "a. *OD_Center*", b"Image No,X- Coordinate,Y - Coordinate\nA,1,33\n", ["names none of 1 photographs", "found a"]),
    "grade": ("mmac", "*Training_Labels.csv", b"image,myopic_maculopathy_grade\nmmac_task_1_train_0001.png,two\n", ["row 2", "'two'"]),
    "ratios": ("drishti_gs", "*cdrValues.txt", b"", ["cdrValues.txt: expected the experts'", "found none"]),
}


@pytest.mark.parametrize("damage", TABLES)
def test_a_damaged_table_is_a_layout_fault(tmp_path, damage):
    name, file, content, told = TABLES[damage]
    getattr(trees, name)(tmp_path)
    first(tmp_path, file).write_bytes(content)
    with pytest.raises(LayoutError) as error:
        find(name, tmp_path)
    assert all(words in str(error.value) for words in told), str(error.value)


def test_mmac_names_without_an_ending(tmp_path):
    trees.mmac(tmp_path / "data")
    table = first(tmp_path / "data", "*Training_Labels.csv")
    table.write_text(table.read_text().replace(".png", ""))
    assert [r.presence["tessellation"] for r in references("mmac", tmp_path)[1]] == [False, True, True]


def test_palm_by_part(tmp_path):
    """Each part's own table, though all bear one name; another part's is refused."""
    trees.palm_by_part(tmp_path / "data")
    manifest, found = references("palm", tmp_path)
    assert list(manifest["split"]) == ["train", "validation", "test"]
    assert all(r.fovea == (22.5, 31.5) and (r.masks["disc"] == DISC).all() for r in found)
    table = tmp_path / "data/PALM/Training/Fovea Localization.xlsx"
    trees.fovea_table(table, "H0009", "imgName")
    with pytest.raises(LayoutError, match="Training/Fovea Localization.xlsx names none of 1 photographs: expected T0001 or the like"):
        find("palm", tmp_path / "data")


IDRID = "A. Segmentation/A. Segmentation/2. All Segmentation Groundtruths/a. Training Set"


def test_a_lesion_folder_that_is_not_there_is_no_absent_lesion(tmp_path):
    trees.idrid(tmp_path / "i")
    (tmp_path / "i" / IDRID / "1. Microaneurysms").rename(tmp_path / "i" / IDRID / "1. Microaneurysm")
    with pytest.raises(LayoutError, match=r"no folder .*a. Training Set/1. Microaneurysms/"):
        find("idrid", tmp_path / "i")
    trees.ddr(tmp_path / "d")
    shutil.rmtree(tmp_path / "d/DDR-dataset/lesion_segmentation/train/label/HE")
    with pytest.raises(LayoutError, match="no folder lesion_segmentation/train/label/HE/"):
        find("ddr", tmp_path / "d")


def test_lesion_folders_in_any_case(tmp_path):
    trees.idrid(tmp_path / "data")
    (tmp_path / "data" / IDRID / "1. Microaneurysms").rename(tmp_path / "data" / IDRID / "1. microaneurysms")
    assert references("idrid", tmp_path)[1][0].masks["microaneurysm"].any()


def test_a_lesion_file_that_ddr_lacks_is_a_fault_of_its_row(tmp_path):
    trees.ddr(tmp_path / "data")
    top = tmp_path / "data/DDR-dataset/lesion_segmentation/train"
    photo(top / "image/007-2.jpg")
    for code in ("MA", "EX", "SE"):
        save(top / f"label/{code}/007-2.tif", VESSEL)
    images = evaluated("ddr", tmp_path)
    assert list(images["status"]) == ["ok", "failed", "ok", "ok"] and images["reason"][1] == "missing_mask"
    assert "HE/007-2.tif" in images["detail"][1]


@pytest.mark.parametrize("name, file", [("origa", "ORIGA/Masks/001.png"), ("g1020", "G1020/Masks/image_0.png")])
def test_another_encoding_is_refused(tmp_path, name, file):
    getattr(trees, name)(tmp_path / "data")
    save(tmp_path / "data" / file, (DISC * 1 + CUP * 1) * 127)
    images = evaluated(name, tmp_path)
    assert images["status"][0] == "failed" and "expected the values 0, 1, 2, found 0, 127, 254" in images["detail"][0]


def test_refuge_of_indices_is_refused(tmp_path):
    trees.refuge(tmp_path / "data")
    save(tmp_path / "data/REFUGE-Test-GT/Disc_Cup_Masks/G/T0001.bmp", DISC * 1 + CUP * 1)
    images = evaluated("refuge", tmp_path)
    assert list(images["status"]) == ["ok", "ok", "failed"] and "expected the values 0, 128, 255, found 0, 1, 2" in images["detail"][2]


def test_a_cup_that_nobody_drew_is_not_labelled(tmp_path):
    trees.g1020(tmp_path / "data")
    photo(tmp_path / "data/G1020/Images/image_1.jpg")
    save(tmp_path / "data/G1020/Masks/image_1.png", DISC * 1)
    found = references("g1020", tmp_path)[1]
    assert [sorted(r.masks) for r in found] == [["cup", "disc"], ["disc"]] and not any(r.faults for r in found)
    assert all((r.masks["disc"] == DISC).all() for r in found)


def test_both_observers_of_stare_in_one_folder(tmp_path):
    trees.stare(tmp_path / "data")
    (tmp_path / "data/labels-ah").rename(tmp_path / "data/labels")
    for stem in ("im0001", "im0002"):
        save(tmp_path / f"data/labels/{stem}.vk.ppm", DISC, "RGB")
    assert all((r.masks["vessel"] == VESSEL).all() for r in references("stare", tmp_path)[1])
    save(tmp_path / "data/labels/im0001.ah.ppm", VESSEL, "RGB")
    with pytest.raises(LayoutError, match=r"two files of one name, labels/im0001.ah.ppm and labels/im0001.ah.ppm.gz"):
        find("stare", tmp_path / "data")


def test_rim_one_names_that_both_kinds_have(tmp_path):
    trees.rim_one(tmp_path / "data")
    photo(tmp_path / "data/RIM-ONE_DL_images/partitioned_by_hospital/training_set/normal/r1_Im001.png")
    for what, mask in (("Disc", ~DISC), ("Cup", CUP)):
        save(tmp_path / f"data/RIM-ONE_DL_reference_segmentations/normal/r1_Im001-1-{what}-T.png", mask)
    found = references("rim_one", tmp_path)[1]
    assert (found[0].masks["disc"] == DISC).all() and not (found[1].masks["disc"] == DISC).all()
