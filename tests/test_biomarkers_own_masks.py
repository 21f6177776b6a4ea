"""`retsam measure --masks`: masks that a user brings, every encoding, every fault."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from retsam.biomarkers import own_masks
from retsam.biomarkers.cli import measure as command
from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import measure
from retsam.biomarkers.eye_phantoms import EyePhantom, Spot
from retsam.biomarkers.own_masks import MaskTableError, load_own_masks, measure_own_masks, read_mask_table
from retsam.masks.export import export_stores
from retsam.masks.masks import Failure
from retsam.masks.store import write_store

CONFIG = BiomarkersConfig(scheduler="synchronous")
SPOTS = (Spot("hemorrhage", 0.5, 0.5, 0.1), Spot("hard_exudate", -0.5, 0.4, 0.1), Spot("microaneurysm", 0.4, -0.4, 0.05))


def save(path, values) -> str:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path.name


@pytest.fixture(scope="module")
def masks():
    made = EyePhantom(px_per_dd=90, spots=SPOTS).masks()
    rows, columns = np.mgrid[: made.fov.shape[0], : made.fov.shape[1]]
    made.planes["artery"] = made.fov & (np.abs(rows - 200) < 4)
    made.planes["vein"] = made.fov & (np.abs(columns - 300) < 5)
    return made


@pytest.fixture
def folder(masks, tmp_path):
    """A table of one eye with everything, under the encodings that the command documents."""
    planes = masks.planes
    (tmp_path / "png").mkdir()
    png = tmp_path / "png"
    bits = {"microaneurysm": 1, "hemorrhage": 2, "hard_exudate": 4, "cotton_wool_spot": 8}
    lesions = sum(planes[name] * bit for name, bit in bits.items())
    row = {"image_id": "eye 1", "eye": "OD"}
    for name in ("artery", "vein"):
        row[name] = "png/" + save(png / f"{name}.png", planes[name] * 255)
    row["disc_cup"] = "png/" + save(png / "disc_cup.png", planes["disc"] * 1 + planes["cup"] * 1)
    row["lesions"] = "png/" + save(png / "lesions.png", lesions)
    row["fov"] = "png/" + save(png / "fov.png", masks.fov * 255)
    row |= {"fovea_x": masks.fovea[0], "fovea_y": masks.fovea[1], "um_per_px": 20.0}
    pd.DataFrame([row]).to_csv(tmp_path / "masks.csv", index=False)
    return tmp_path


def table(folder, **columns) -> str:
    frame = pd.read_csv(folder / "masks.csv")
    for name, value in columns.items():
        frame[name] = value
    frame.to_csv(folder / "changed.csv", index=False)
    return folder / "changed.csv"


def test_values_are_those_of_the_library(folder, masks):
    masks.um_per_px, masks.fovea_confidence = 20.0, None
    masks.planes["vessel"] = masks.planes["artery"] | masks.planes["vein"]
    expected = measure(masks)
    row = measure_own_masks(folder / "masks.csv", CONFIG, quiet=True).to_pylist()[0]
    assert row["image_id"] == "eye 1" and row["eye"] == "R" and row["scale_source"] == "manifest"
    assert (row["fov_source"], row["vessel_source"]) == ("mask", "artery_or_vein")
    names = [name for name in expected.index if f"{name}__reason" in expected.index]
    for name in names:
        assert (row[name] is None) == bool(np.isnan(expected[name])), name
        assert row[f"{name}__reason"] == expected[f"{name}__reason"], name
        if row[name] is not None:
            assert row[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    assert row["hemorrhage_count"] == 1 and row["cotton_wool_spot_count"] == 0
    assert row["area_density_vessel"] > 0


def test_a_missing_field_of_view_is_said(folder):
    row = measure_own_masks(table(folder, fov=""), CONFIG, quiet=True).to_pylist()[0]
    assert row["fov_source"] == "whole_image" and row["fov_share"] == pytest.approx(1.0)


def test_one_mask_is_enough(folder):
    frame = pd.read_csv(folder / "masks.csv")[["image_id", "disc_cup"]]
    frame.to_csv(folder / "few.csv", index=False)
    row = measure_own_masks(folder / "few.csv", CONFIG, quiet=True).to_pylist()[0]
    assert row["status"] == "ok" and row["cdr_vertical"] > 0
    assert row["hemorrhage_count__reason"] == row["crae__reason"] == "mask_not_given"
    assert row["eye"] is None and row["rim_width_inferior_px__reason"] == "no_fovea"


@pytest.mark.parametrize("encoding", ["one", "palette", "rgb", "1-bit"])
def test_encodings_of_a_binary_mask(folder, masks, encoding):
    plane = masks.planes["artery"]
    image = Image.fromarray(plane.astype(np.uint8))
    if encoding == "palette":
        image.putpalette([0, 0, 0, 255, 0, 0])
    elif encoding == "rgb":
        image = Image.fromarray(np.repeat(plane[..., None] * np.uint8(255), 3, axis=2))
    elif encoding == "1-bit":
        image = Image.fromarray(plane)
    image.save(folder / "png" / "artery.png")
    loaded, _ = load_own_masks(read_mask_table(folder / "masks.csv")[0])
    assert (loaded.planes["artery"] == plane).all()


@pytest.mark.parametrize(
    ("name", "values", "reason", "words"),
    [
        ("lesions", np.full((20, 20), 16), "size_mismatch", "20x20"),
        ("disc_cup", None, "bad_encoding", "expects values 0 to 2, found 0, 127, 255"),
        ("artery", "text", "unreadable", "artery.png"),
        ("vein", "colour", "bad_encoding", "one channel"),
    ],
)
def test_a_bad_mask_is_a_row_with_a_reason(folder, masks, name, values, reason, words):
    path = folder / "png" / f"{name}.png"
    if isinstance(values, np.ndarray):
        save(path, values)
    elif values is None:
        save(path, masks.planes["disc"] * 127 + masks.planes["cup"] * 128)
    elif values == "text":
        path.write_text("no picture")
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*masks.fov.shape, 3), dtype=np.uint8)).save(path)
    row = measure_own_masks(folder / "masks.csv", CONFIG, quiet=True).to_pylist()[0]
    assert (row["status"], row["reason"]) == ("failed", reason)
    assert words in row["detail"]
    assert row["cdr_vertical"] is None and row["cdr_vertical__reason"] == "image_failed"


def test_all_faults_of_the_table_at_once(folder):
    good = pd.read_csv(folder / "masks.csv")
    bad = pd.concat([good] * 6, ignore_index=True).astype(object)
    bad.loc[1, "eye"] = "middle"
    bad.loc[2, "artery"] = "png/absent.png"
    bad.loc[3, "um_per_px"] = -2
    bad.loc[3, "fovea_x"] = "left"
    bad.loc[4, ["artery", "vein", "disc_cup", "lesions"]] = ""
    bad.loc[5, "image_id"] = ""
    bad.loc[5, "fovea_y"] = ""
    bad.rename(columns={"fov": "fovv"}).to_csv(folder / "bad.csv", index=False)
    with pytest.raises(MaskTableError) as caught:
        read_mask_table(folder / "bad.csv")
    text = str(caught.value)
    for words in (
        "row 3, column 'eye': expected R, L, OD, OS, right or left, found 'middle'",
        "row 3, column 'image_id': 'eye 1' is already in row 2",
        "row 4, column 'artery': no such file",
        "row 5, column 'um_per_px': expected 0.2 to 300 um, found '-2'",
        "row 5, column 'fovea_x': expected a number, found 'left'",
        "row 6: no mask",
        "row 7, column 'image_id': empty",
        "row 7: fovea_x and fovea_y belong together",
        "column 'fovv': unknown; is 'fov' meant?",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image_id\na\n", "no column with masks"),
        ("artery\na.png\n", "'image_id': missing"),
        ("image_id,artery\n", "no rows"),
        ("", "cannot be read"),
    ],
)
def test_tables_that_are_none(tmp_path, content, words):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(MaskTableError, match=words):
        read_mask_table(tmp_path / "t.csv")


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_command(folder, ending):
    out = folder / f"out{ending}"
    arguments = ["--masks", str(folder / "masks.csv"), "--out", str(out), "--graphs", str(folder / "graphs")]
    result = CliRunner().invoke(command, [*arguments, "--scheduler", "synchronous", "--quiet"])
    assert result.exit_code == 0, result.output
    row = (pd.read_csv if ending == ".csv" else pd.read_parquet)(out).iloc[0]
    assert row["image_id"] == "eye 1" and row["cdr_vertical"] == pytest.approx(0.24 / 0.53, abs=0.02)
    graph = pd.read_parquet(folder / "graphs" / "eye 1.parquet")
    assert (graph["image_id"] == "eye 1").all() and set(graph["structure"]) >= {"artery", "vein"}
    line = graph[graph["structure"] == "artery"].iloc[0]
    assert np.allclose(line["y"], 200, atol=1.0) and len(line["x"]) == len(line["y"])


def test_command_reports_a_bad_table(tmp_path):
    (tmp_path / "t.csv").write_text("image_id,artery\na,absent.png\n")
    result = CliRunner().invoke(command, ["--masks", str(tmp_path / "t.csv"), "--out", str(tmp_path / "o.csv")])
    assert result.exit_code == 1 and "no such file" in result.output


def test_an_export_with_failed_photographs_is_measured(masks, tmp_path):
    """The photograph that could not be segmented is a failed row with its reason, and the others are measured."""
    failures = [Failure("b", "unreadable", "not a picture", "L"), Failure("c", "too_small")]
    good = replace(masks, image_id="a", status=dict.fromkeys(masks.planes, "supervised"), native=False)
    store = write_store(tmp_path / "s.zarr", [good, *failures], {})
    export_stores([store], tmp_path / "png")
    rows = measure_own_masks(tmp_path / "png" / "masks.csv", CONFIG, quiet=True).to_pylist()
    assert [(row["image_id"], row["status"], row["reason"]) for row in rows] == [
        ("a", "ok", None), ("b", "failed", "unreadable"), ("c", "failed", "too_small")
    ]  # fmt: skip
    assert rows[1]["detail"] == "not a picture" and rows[1]["eye"] == "L" and rows[0]["cdr_vertical"] > 0
    export_stores([store], tmp_path / "none", image_ids=["b"])
    assert [row["reason"] for row in measure_own_masks(tmp_path / "none" / "masks.csv", CONFIG, quiet=True).to_pylist()] == ["unreadable"]


def test_one_strange_mask_leaves_its_neighbours_alone(folder, masks, monkeypatch):
    Image.fromarray(np.zeros(masks.fov.shape, np.float32)).save(folder / "png" / "float.tif")
    Image.fromarray(masks.planes["artery"]).convert("L").save(folder / "png" / "lossy.jpg")
    good = pd.read_csv(folder / "masks.csv")
    rows = pd.concat([good] * 4, ignore_index=True).assign(image_id=list("abcd"))
    rows.loc[1, "lesions"], rows.loc[2, "artery"] = "png/float.tif", "png/lossy.jpg"
    rows.to_csv(folder / "four.csv", index=False)
    found = measure_own_masks(folder / "four.csv", CONFIG, quiet=True).to_pylist()
    assert [row["reason"] for row in found] == [None, "bad_encoding", "bad_encoding", None]
    assert "whole numbers, found float32" in found[1]["detail"] and "lossless" in found[2]["detail"]

    def load(row):
        if row.image_id == "a":
            raise RuntimeError("no one thought of this")
        return load_own_masks(row)

    monkeypatch.setattr("retsam.biomarkers.own_masks.load_own_masks", load)
    found = measure_own_masks(folder / "four.csv", CONFIG, quiet=True).to_pylist()
    assert [row["reason"] for row in found] == ["measurement_failed", "bad_encoding", "bad_encoding", None]
    assert found[0]["detail"] == "RuntimeError: no one thought of this"


def test_whatever_a_file_raises_is_a_failure_of_its_row(tmp_path, monkeypatch):
    """Where rows are measured and where their graphs are written: neither may end at an odd file."""

    def odd(path, column):
        raise TypeError("no such dtype")

    monkeypatch.setattr(own_masks, "read_index", odd)
    row = own_masks.OwnMasks("a", "R", {"vessel": str(tmp_path / "a.png")}, None, None)
    failure = own_masks.load_safely(row)
    assert (failure.image_id, failure.reason, failure.detail) == ("a", "measurement_failed", "TypeError: no such dtype")
    assert own_masks.own_row(row, BiomarkersConfig())["status"] == "failed"


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("image_id,artery,vein\na,a.png,a.png,\nb,a.png,a.png\n", ["row 2: expected 3 cells, as many as there are names, found 4"]),
        ("image_id,artery\na,a.png,x\nb\n", ["row 2: expected 2 cells", "row 3: expected 2 cells"]),
        ("image_id,artery\n\na,a.png\n,\nb,none.png\n", ["row 5, column 'artery': no such file"]),
        ("image_id,artery,artery\na,,a.png\n", ["column 'artery': 2 times in the table; keep one"]),
        ("image_id,artery,disc,cup\na,a.png,a.png,a.png\n", ["column 'disc': not read; put it into disc_cup (0 background", "'cup'"]),
        ("image_id,artery,Laterality,Pixel Size\na,a.png,OD,12\n", ["'Laterality': not read; put it into eye", "put it into um_per_px"]),
        ("image_id,artery,hemorrhages\na,a.png,a.png\n", ["put it into lesions (1 microaneurysm, 2 hemorrhage, 4 hard_exudate, 8"]),
        ("image_id,lesions,av\na,a.png,a.png\n", ["'av': not read; put it into artery, vein (one file each"]),
        ('image_id,artery,um_per_px\na,a.png,0.012\nb,a.png,"12,5"\n', ["row 2, column 'um_per_px': expected 0.2 to 300 um", "row 3,"]),
    ],
)
def test_faults_of_a_table_that_would_read_as_something_else(tmp_path, content, faults):
    save(tmp_path / "a.png", np.ones((9, 9)))
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(MaskTableError) as caught:
        read_mask_table(tmp_path / "t.csv")
    assert len(str(caught.value).splitlines()) == 1 + len(faults), str(caught.value)
    for words in faults:
        assert words in str(caught.value), words


def test_columns_that_are_not_used_are_named(folder, caplog):
    """An older export lists every target's own file beside those that are measured."""
    path = table(folder, disc="png/disc.png", cup="png/cup.png", av="png/av.png", drusen="png/drusen.png", camera="x")
    assert len(read_mask_table(path)) == 1
    assert [record.getMessage() for record in caplog.records] == [f"{path}: columns not used: disc, cup, av, drusen, camera"]
    caplog.clear()
    read_mask_table(folder / "masks.csv")
    assert not caplog.records


def test_the_words_for_an_eye_are_those_of_the_samplesheet(folder):
    for word, side in (("OS", "L"), ("Right", "R"), ("le", "L"), ("", None)):
        assert read_mask_table(table(folder, eye=word))[0].eye == side


@pytest.mark.parametrize("kind", ["swapped", "no disc", "swapped, open below"])
def test_codes_of_disc_and_cup_that_leave_no_rim_are_refused(folder, masks, kind):
    disc, cup = masks.planes["disc"], masks.planes["cup"]
    if kind == "swapped, open below":
        cup = cup.copy()
        rows, columns = np.nonzero(disc)
        cup[rows.mean().astype(int) : rows.max() + 1, int(columns.mean())] = True
        cup &= disc
    save(folder / "png" / "disc_cup.png", disc * 2 - cup * 1 if "swapped" in kind else cup * 2)
    row = measure_own_masks(folder / "masks.csv", CONFIG, quiet=True).to_pylist()[0]
    assert (row["status"], row["reason"]) == ("failed", "bad_encoding")
    assert "0 background, 1 disc outside the cup, 2 cup; found 0, " in row["detail"] and "the wrong way round" in row["detail"]


def test_a_disc_without_a_cup_and_a_rim_that_is_nearly_gone_are_no_fault(folder, masks):
    disc = masks.planes["disc"]
    save(folder / "png" / "disc_cup.png", disc * 1)
    row = measure_own_masks(folder / "masks.csv", CONFIG, quiet=True).to_pylist()[0]
    assert row["disc_height_px"] > 0 and row["cdr_vertical__reason"] == "no_cup"
    rows, columns = np.nonzero(disc)
    rim = disc & (np.mgrid[: disc.shape[0], : disc.shape[1]][1] < columns.min() + 6)
    save(folder / "png" / "disc_cup.png", disc * 2 - rim * 1)
    row = measure_own_masks(folder / "masks.csv", CONFIG, quiet=True).to_pylist()[0]
    assert row["ddls_stage"] == 10 and row["cdr_vertical"] > 0.95


def test_a_fovea_outside_the_photograph_is_a_failed_row(folder, masks):
    height, width = masks.fov.shape
    row = measure_own_masks(table(folder, fovea_x=9999, fovea_y=3), CONFIG, quiet=True).to_pylist()[0]
    assert (row["status"], row["reason"]) == ("failed", "fovea_outside")
    assert row["detail"] == f"fovea (9999, 3) lies outside the mask of {width}x{height}"
    row = measure_own_masks(table(folder, fovea_x=width - 1, fovea_y=height - 1), CONFIG, quiet=True).to_pylist()[0]
    assert row["status"] == "ok" and row["fovea_x_px__reason"] == "no_fovea", "in the picture, but not in its field of view"


def test_command_lists_failed_rows_among_the_graphs(folder):
    frame = pd.read_csv(folder / "masks.csv")
    rows = pd.concat([frame, frame], ignore_index=True).assign(image_id=["good", "bad"])
    rows.loc[1, "artery"] = "png/lossy.jpg"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "png" / "lossy.jpg")
    rows.to_csv(folder / "two.csv", index=False)
    arguments = ["--masks", str(folder / "two.csv"), "--out", str(folder / "o.csv"), "--graphs", str(folder / "g")]
    result = CliRunner().invoke(command, [*arguments, "--scheduler", "synchronous", "--quiet"])
    assert result.exit_code == 0, result.output
    failures = pd.read_csv(folder / "g" / "_failures.csv")
    assert failures[["image_id", "reason"]].to_dict("records") == [{"image_id": "bad", "reason": "bad_encoding"}]
    assert (folder / "g" / "good.parquet").is_file()
