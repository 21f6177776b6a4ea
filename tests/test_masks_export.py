"""Export of masks as PNG at native size, and the commands around it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from retsam.masks import Failure, Frame, Masks
from retsam.masks.cli import masks as command
from retsam.masks.export import export_masks, folder_name
from retsam.masks.store import write_store
from retsam.segmentation.targets import TARGETS

SIDE = 128
AVAILABLE = ("artery", "vein", "vessel", "disc", "cup", "hemorrhage", "hard_exudate", "fovea")
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
    planes |= dict(hemorrhage=disc(90, 90, 5), hard_exudate=disc(92, 90, 3))
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
    for name in ("artery", "vessel", "disc_cup", "lesions", "fov", "av"):
        assert (out / table.loc["../up", name]).resolve().is_relative_to(out.resolve())
        assert (out / table.loc["../up", name]).exists()
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
