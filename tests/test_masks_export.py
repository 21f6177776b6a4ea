"""Export of masks as PNG at native size, and the commands around it."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from retsam.biomarkers.cli import measure
from retsam.masks import Failure, Frame, Masks
from retsam.masks.cli import masks as command
from retsam.masks.export import LESION_BITS, MEASURED, export_masks, folder_name
from retsam.masks.store import write_store
from retsam.segmentation.targets import TARGETS

SIDE = 128
AVAILABLE = ("artery", "vein", "vessel", "disc", "cup", *LESION_BITS, "fovea")
STATUS = {t: "supervised" if t in AVAILABLE else "not_available" for t in TARGETS}
ATTRS = {"weights_sha256": "00", "model": "test", "target_status": STATUS, "frame_side": SIDE}


def disc(x, y, r):
    ys, xs = np.mgrid[:SIDE, :SIDE]
    return (xs - x) ** 2 + (ys - y) ** 2 <= r * r


def eye(image_id="a b/c") -> Masks:
    frame = Frame.from_square(-20, 10, 320, SIDE, 280, 350)  # 2.5 native px a frame px
    artery, vein = np.zeros((2, SIDE, SIDE), bool)
    artery[60:64], vein[:, 50:54] = True, True
    planes = dict(artery=artery, vein=vein, vessel=artery | vein, disc=disc(40, 60, 12), cup=disc(40, 60, 6))
    planes |= dict(
        hemorrhage=disc(90, 90, 5), hard_exudate=disc(92, 90, 3), microaneurysm=disc(30, 90, 1), cotton_wool_spot=disc(30, 30, 4)
    )
    return Masks(planes, disc(63.5, 63.5, 62), frame, (80.0, 64.0), 0.9, "L", image_id, 5.5, STATUS)


def test_png_at_native_size(tmp_path):
    masks = eye()
    row = export_masks(masks, tmp_path)
    read = {p.stem: Image.open(p) for p in tmp_path.glob("*.png")}
    assert set(read) == {*masks.planes, "fov", "av", "disc_cup", "lesions"}
    assert {image.size for image in read.values()} == {(280, 350)}
    area = np.asarray(read["disc"]) > 0
    # the frame's disc, 2.5 times as large, around its native centre
    ys, xs = np.nonzero(area)
    np.testing.assert_allclose((xs.mean(), ys.mean()), masks.frame.to_native((40, 60)), atol=0.3)
    assert area.sum() == pytest.approx(masks.planes["disc"].sum() * 2.5**2, rel=0.02)
    assert read["av"].mode == "P" and read["disc_cup"].mode == "P"
    av = np.asarray(read["av"])
    assert set(np.unique(av)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(av & 1 > 0, np.asarray(read["artery"]) > 0)
    np.testing.assert_array_equal(av == 3, (np.asarray(read["artery"]) > 0) & (np.asarray(read["vein"]) > 0))
    cup = np.asarray(read["disc_cup"])
    assert (cup == 2).sum() == (np.asarray(read["cup"]) > 0).sum() and (cup > 0).sum() == area.sum()
    lesions = np.asarray(read["lesions"])
    np.testing.assert_array_equal(lesions & 4 > 0, np.asarray(read["hard_exudate"]) > 0)
    assert 6 in np.unique(lesions)  # where both lie
    np.testing.assert_allclose((row["fovea_x"], row["fovea_y"]), masks.frame.to_native((80, 64)))
    x, y = masks.frame.to_native((100, 62)).astype(int).tolist()
    assert read["av"].convert("RGB").getpixel((x, y)) == (220, 40, 40)


def test_export_command(tmp_path):
    one = write_store(tmp_path / "s0.zarr", [eye("a b/c"), Failure("gone", "unreadable")], ATTRS)
    two = write_store(tmp_path / "s1.zarr", [eye("../up"), eye("third")], ATTRS)
    run = CliRunner()
    out = tmp_path / "png"
    args = ["export", str(one), str(two), "--out", str(out)]
    result = run.invoke(command, [*args, "--image-id", "a b/c", "--image-id", "../up", "--image-id", "gone"])
    assert result.exit_code == 0, result.output
    assert "2 images exported" in result.output and "1 without masks" in result.output
    table = pd.read_csv(out / "masks.csv").set_index("image_id")
    assert table.status.to_dict() == {"a b/c": "ok", "gone": "failed", "../up": "ok"}
    assert table.loc["gone", "reason"] == "unreadable"
    for name in MEASURED:
        assert (out / table.loc["../up", name]).resolve().is_relative_to(out.resolve())
        assert (out / table.loc["../up", name]).exists()
    others = pd.read_csv(out / "files.csv")
    assert set(others.image_id) == {"a b/c", "../up"} and set(others.file) == {"disc", "cup", "av", *LESION_BITS}
    assert not set(others.file) & set(table.columns) and all((out / path).is_file() for path in others.path)
    listed = {*others.path, *table[list(MEASURED)].stack().dropna()}
    assert listed == {str(path.relative_to(out)) for path in out.rglob("*.png")}, "every file is in one of the tables"
    assert table.loc["a b/c", "um_per_px"] == 5.5
    some = run.invoke(command, ["export", str(two), "--out", str(tmp_path / "few"), "--all", "--target", "vessel"])
    assert some.exit_code == 0 and sorted(p.name for p in (tmp_path / "few" / "third").iterdir()) == ["fov.png", "vessel.png"]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ([], "choose images"),
        (["--image-id", "nobody"], "no store has image 'nobody'"),
        (["--image-id", "third", "--target", "drusen"], "no plane of drusen"),
    ],
)
def test_export_command_says_what_is_wrong(tmp_path, extra, says):
    store = write_store(tmp_path / "s1.zarr", [eye("third")], ATTRS)
    result = CliRunner().invoke(command, ["export", str(store), "--out", str(tmp_path / "x"), *extra])
    assert result.exit_code != 0 and says in result.output


@pytest.mark.parametrize(
    ("planes", "targets", "files"),
    [
        (None, ["hemorrhage", "hard_exudate"], {"hemorrhage", "hard_exudate"}),
        (None, list(LESION_BITS), {*LESION_BITS, "lesions"}),
        (["disc", "hemorrhage"], None, {"disc", "hemorrhage"}),
        (["cup"], None, {"cup"}),
        (None, ["cup"], {"cup", "disc_cup"}),
    ],
)
def test_no_file_says_that_something_is_absent_which_nobody_looked_for(tmp_path, planes, targets, files):
    masks = eye()
    if planes:
        masks = replace(masks, planes={name: masks.planes[name] for name in planes})
    row = export_masks(masks, tmp_path, targets)
    assert {p.stem for p in tmp_path.glob("*.png")} == {*files, "fov"} == {k for k, v in row.items() if str(v).endswith(".png")}
    if "disc_cup" in files:
        assert (np.asarray(Image.open(tmp_path / "disc_cup.png")) > 0).sum() > (np.asarray(Image.open(tmp_path / "cup.png")) > 0).sum()


def test_corrected_files_are_measured_again(tmp_path):
    store = write_store(tmp_path / "s0.zarr", [eye("a")], ATTRS)
    out = tmp_path / "png"
    assert CliRunner().invoke(command, ["export", str(store), "--out", str(out), "--all"]).exit_code == 0
    path = out / "a" / "disc_cup.png"
    values = np.asarray(Image.open(path))

    def ratio() -> float:
        result = CliRunner().invoke(measure, ["--masks", str(out / "masks.csv"), "--out", str(tmp_path / "b.csv"), "--workers", "1"])
        assert result.exit_code == 0, result.output
        return pd.read_csv(tmp_path / "b.csv")["cdr_vertical"][0]

    before = ratio()
    cup = cv2.dilate((values == 2).astype(np.uint8), np.ones((13, 13), np.uint8))
    Image.fromarray(np.where(values > 0, 1 + cup, 0).astype(np.uint8)).save(path)
    assert before < 0.6 < ratio()
    few = CliRunner().invoke(command, ["export", str(store), "--out", str(tmp_path / "few"), "--all", "--target", "hemorrhage"])
    assert "none of the files is one that `retsam measure --masks` reads" in few.output


def test_an_image_in_two_stores_is_refused_before_anything_is_written(tmp_path):
    stores = [str(write_store(tmp_path / f"s{k}.zarr", [eye("a"), eye(f"b{k}")], ATTRS)) for k in range(2)]
    for chosen in (["--all"], ["--image-id", "a"]):
        result = CliRunner().invoke(command, ["export", *stores, "--out", str(tmp_path / "x"), *chosen])
        assert result.exit_code == 1 and "image ids in more than one store: a" in result.output, result.output
    missing = CliRunner().invoke(command, ["export", stores[0], "--out", str(tmp_path / "x"), "--image-id", "a", "--image-id", "c"])
    assert missing.exit_code == 1 and not (tmp_path / "x").exists()


def test_folder_names_differ():
    names = [folder_name(i) for i in ("a/b", "a_b", "a%2Fb", ".", "..", "_.", "ü")]
    assert len(set(names)) == len(names) and not any("/" in n or n in (".", "..") for n in names)


def test_info(tmp_path):
    store = write_store(tmp_path / "s0.zarr", [eye("a"), Failure("gone", "unreadable"), Failure("g2", "unreadable")], ATTRS)
    result = CliRunner().invoke(command, ["info", str(store), "--json"])
    summary = json.loads(result.output)
    assert summary["images"] == 3 and summary["failed"] == {"unreadable": 2}
    assert set(summary["heads"]) == set(AVAILABLE) and "drusen" in summary["not_available"]
    assert "unreadable: 2" in CliRunner().invoke(command, ["info", str(store)]).output
    missing = CliRunner().invoke(command, ["info", str(tmp_path / "none.zarr")])
    assert missing.exit_code == 1 and "no readable zarr.json" in missing.output
