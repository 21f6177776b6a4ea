"""A samplesheet is validated whole: every fault at once, with row, column, what was expected, what was found and how to mend it."""

import os
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from pydantic import ValidationError

from retsam.cohort.cli import ingest
from retsam.cohort.config import CohortConfig
from retsam.cohort.faults import SamplesheetError
from retsam.cohort.folder import guess_from_names
from retsam.cohort.ingest import build_cohort_table, plan_shards, read_shard, write_parquet, write_shards
from retsam.cohort.samplesheet import image_ids, load_cohort


def photographs(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (90, 40, 20)).save(path)


@pytest.fixture
def study(tmp_path):
    """Ten photographs of five subjects and a sheet that is right."""
    names = [f"p{i}_{eye}.png" for i in range(5) for eye in ("od", "os")]
    photographs(tmp_path / "images", names)
    sheet = pd.DataFrame(
        {
            "file": [f"images/{n}" for n in names],
            "person": [f"P{i // 2}" for i in range(10)],
            "side": ["OD", "OS"] * 5,
            "age": [40, 41, 50.5, 50.5, 60, 60, "", "", 70, 70],
            "sex": ["F", "M"] * 5,
            "diagnosis": ["N", "D", "N", "D;G", "G", "O", "N", "", "C", "D"],
            "grade": [0, 1, 2, 3, 4, 0, 1, 2, 3, 4],
        }
    )
    sheet.to_csv(tmp_path / "sheet.csv", index=False)
    settings = {
        "samplesheet": str(tmp_path / "sheet.csv"),
        "columns": {"image": "file", "subject": "person", "eye": "side"},
        "labels": {"dr": {"column": "diagnosis", "positive": ["D"], "negative": ["N"], "separator": ";"}, "grade": {"type": "ordinal"}},
        "covariates": ["age", "sex"],
        "shard_size": 4,
    }
    return tmp_path, sheet, settings


def faults_of(settings):
    with pytest.raises(SamplesheetError) as caught:
        load_cohort(CohortConfig(**settings))
    return caught.value


def test_a_right_sheet(study):
    folder, _, settings = study
    table = build_cohort_table(CohortConfig(**settings))
    assert list(table.columns) == [
        "image_id", "path", "subject", "eye", "visit", "um_per_px", "shard", "status", "reason", "detail", "dr", "grade", "age", "sex",
    ]  # fmt: skip
    assert table["image_id"].tolist()[:2] == ["images-p0_od", "images-p0_os"]
    assert table["path"].map(os.path.isabs).all() and table["path"].map(os.path.exists).all()
    assert table["eye"].tolist() == ["R", "L"] * 5
    assert table["shard"].tolist() == ["s0000"] * 4 + ["s0001"] * 4 + ["s0002"] * 2
    assert table["dr"].astype(object).where(table["dr"].notna(), None).tolist() == [0, 1, 0, 1, None, None, 0, None, None, 1]
    assert table["age"].isna().sum() == 2 and table["age"].dropna().iloc[2] == 50.5
    assert (table["status"] == "ok").all() and table["reason"].isna().all()


def test_all_faults_are_told_at_once(study):
    folder, sheet, settings = study
    sheet["key"] = [f"k{i}" for i in range(10)]
    sheet = sheet.astype(object)
    sheet.loc[1, "key"] = "k0"
    sheet.loc[2, "file"] = "images/gone.png"
    sheet.loc[3, "age"] = 214
    sheet.loc[4, "side"] = "B"
    sheet.loc[5, "person"] = ""
    sheet.loc[6, "age"] = "sixty"
    sheet.loc[7, "age"] = -3
    sheet.loc[8, "grade"] = 2.5
    sheet.loc[9, "file"] = sheet.loc[8, "file"]
    sheet.to_csv(settings["samplesheet"], index=False)
    settings["columns"]["image_id"] = "key"
    error = faults_of(settings)
    told = {(f.row, f.column) for f in error.faults}
    # Row numbers are those of a spreadsheet: the header is row 1.
    assert told == {(3, "key"), (4, "file"), (5, "age"), (6, "side"), (7, "person"), (8, "age"), (9, "age"), (10, "grade"), (11, "file")}
    assert all(f.expected and f.found and f.mend for f in error.faults)
    message = str(error)
    assert "9 faults" in message
    for part in ("'k0' again (first in row 2)", "gone.png", "214", "'B'", "sixty", "0 to 120", "row 10, column 'grade'"):
        assert part in message, part


def test_missing_columns_name_near_ones(study):
    _, _, settings = study
    settings["columns"] = {"image": "files", "subject": "persons"}
    settings["covariates"] = ["Age", "bmi"]
    error = faults_of(settings)
    assert {f.column for f in error.faults} == {"files", "persons", "Age", "bmi"}
    message = str(error)
    assert "did you mean 'file'" in message and "did you mean 'person'" in message and "did you mean 'age'" in message


@pytest.mark.parametrize("ending", ["tsv", "parquet", "semicolon.csv", "bom.csv"])
def test_other_tables_say_the_same(study, ending):
    folder, sheet, settings = study
    expected = build_cohort_table(CohortConfig(**settings))
    path = folder / f"other.{ending}"
    if ending == "parquet":
        sheet["age"] = pd.to_numeric(sheet["age"])
        sheet.to_parquet(path)
    else:
        kinds = {"tsv": {"sep": "\t"}, "semicolon.csv": {"sep": ";", "quotechar": '"'}, "bom.csv": {"encoding": "utf-8-sig"}}
        sheet.to_csv(path, index=False, **kinds[ending])
    settings["samplesheet"] = str(path)
    pd.testing.assert_frame_equal(build_cohort_table(CohortConfig(**settings)), expected)


def test_filter_and_root(study, tmp_path):
    folder, sheet, settings = study
    (folder / "elsewhere").mkdir()
    sheet.to_csv(folder / "elsewhere" / "sheet.csv", index=False)
    settings |= {"samplesheet": str(folder / "elsewhere" / "sheet.csv"), "root": str(folder), "filter": {"grade": [0, 4]}}
    cohort = load_cohort(CohortConfig(**settings))
    assert len(cohort.table) == 4 and "4 of 10 rows pass the filter" in cohort.notes[0]
    settings["filter"] = {"grade": [9]}
    assert "check `filter`" in str(faults_of(settings))


def test_labels_by_pattern(study):
    _, sheet, settings = study
    sheet["keywords"] = ["normal fundus", "Drusen, laser spot", "", "epiretinal membrane"] + ["normal"] * 6
    sheet.to_csv(settings["samplesheet"], index=False)
    settings["labels"] = {"drusen": {"column": "keywords", "positive_pattern": "drusen", "negative_pattern": "^normal"}}
    drusen = build_cohort_table(CohortConfig(**settings))["drusen"]
    assert drusen.isna().tolist() == [False, False, True, True] + [False] * 6
    assert drusen.dropna().tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"labels": {"dr": {"positive": ["D"], "negative": ["D"]}}}, "both `positive` and `negative`"),
        ({"labels": {"dr": {"positive_pattern": "("}}}, "not a regular expression"),
        ({"labels": {"path": None}}, "needs itself: path"),
        ({"labels": ["age"], "covariates": ["age"]}, "both label and covariate"),
        ({"labels": {"dr": {"negative": ["N"]}}}, "say what means yes"),
        ({"shard_size": 0}, "greater than or equal to 1"),
        ({"shardsize": 3}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_themselves(wrong, said):
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        CohortConfig(samplesheet="x.csv", **wrong)


def test_bare_folder(tmp_path):
    photographs(tmp_path, ["a/1_left.png", "a/1_right.png", "a/10_left.png", "a/2_right.png"])
    (tmp_path / "a" / "notes.txt").write_text("not a photograph")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    cohort = load_cohort(CohortConfig(samplesheet=str(tmp_path)))
    assert cohort.table["image_id"].tolist() == ["a-1_left", "a-1_right", "a-2_right", "a-10_left"]
    assert cohort.table["eye"].tolist() == ["L", "R", "R", "L"]
    assert cohort.table["subject"].tolist() == ["a-1", "a-1", "a-2", "a-10"]
    assert any("guessed from file names" in note for note in cohort.notes)


@pytest.mark.parametrize(
    "names",
    [["a.png", "b_left.png"], ["left_right.png", "b_left.png"], ["x_l.png", "y_l.png"], ["l.png", "r.png"], ["bright.png", "cleft.png"]],
)
def test_nothing_is_guessed_in_doubt(names):
    guess, notes = guess_from_names(names)
    assert guess.isna().all().all() and "not guessed" in notes[0]


def test_empty_folder_and_missing_sheet(tmp_path):
    assert "no file in" in str(faults_of({"samplesheet": str(tmp_path)}))
    (tmp_path / "sheet.csv").write_text("image\n")
    said = str(faults_of({"samplesheet": str(tmp_path / "shet.csv")}))
    assert f"nothing at {tmp_path / 'shet.csv'}" in said and "near it lie sheet.csv" in said


def test_a_missing_sheet_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = str(faults_of({"samplesheet": "demo/sheet.csv"}))
    assert f"nothing at {tmp_path / 'demo' / 'sheet.csv'}" in said and "the folder that it is relative to" in said


def test_ids_are_unique_and_depend_on_their_own_path_only():
    paths = ["a/b.png", "a-b.png", "c.png", "c.jpg", "d e/f.png"]
    ids = image_ids(paths)
    assert len(set(ids)) == len(ids) and all("/" not in i for i in ids)
    assert ids[4] == "d-e-f"
    assert image_ids(paths[::-1]) == ids[::-1]
    assert image_ids([*paths, "new.png"])[:5] == ids


def test_shards_do_not_depend_on_labels(study):
    folder, sheet, settings = study
    before = plan_shards(CohortConfig(**settings))
    assert list(before) == ["s0000", "s0001", "s0002"]
    sheet["diagnosis"] = "N"
    sheet["age"] = 33
    sheet.to_csv(settings["samplesheet"], index=False)
    assert plan_shards(CohortConfig(**settings)) == before
    without = {k: v for k, v in settings.items() if k not in ("labels", "covariates")}
    assert plan_shards(CohortConfig(**without)) == before
    # What changes an image changes the digest of its shard and of no other.
    Image.new("RGB", (70, 64)).save(folder / "images" / "p2_od.png")
    after = plan_shards(CohortConfig(**settings))
    assert [k for k in before if before[k] != after[k]] == ["s0001"]
    sheet.loc[9, "side"] = "OD"
    sheet.to_csv(settings["samplesheet"], index=False)
    assert [k for k in before if plan_shards(CohortConfig(**settings))[k] != after[k]] == ["s0002"]


def test_shard_files_are_left_alone_when_nothing_changes(study):
    folder, sheet, settings = study
    table = build_cohort_table(CohortConfig(**settings))
    paths = write_shards(table, folder / "shards")
    assert [p.name for p in paths] == ["s0000.csv", "s0001.csv", "s0002.csv"]
    shard = read_shard(paths[0])
    assert list(shard.columns) == ["image_id", "path", "eye", "um_per_px"] and shard["um_per_px"].isna().all()
    os.utime(paths[0], (1, 1))
    sheet["age"] = 20
    sheet.to_csv(settings["samplesheet"], index=False)
    write_shards(build_cohort_table(CohortConfig(**settings)), folder / "shards")
    assert paths[0].stat().st_mtime == 1
    with pytest.raises(ValueError, match="no shard s0009"):
        write_shards(table, folder / "shards", {"s0009"})


def test_one_shard_comes_from_the_table_and_no_samplesheet_is_read(study, tmp_path):
    folder, sheet, settings = study
    sheet["um"] = np.where(np.arange(len(sheet)) % 2, "", "5.25")
    sheet.to_csv(settings["samplesheet"], index=False)
    settings["columns"]["um_per_px"] = "um"
    table = build_cohort_table(CohortConfig(**settings))
    whole = write_shards(table, tmp_path / "whole")
    write_parquet(table, tmp_path / "index.parquet")
    os.remove(settings["samplesheet"])
    arguments = ["--cohort", str(tmp_path / "index.parquet"), "--shards", str(tmp_path / "one")]
    done = CliRunner().invoke(ingest, [*arguments, "--shard", "s0001"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["s0001.csv"]
    assert (tmp_path / "one" / "s0001.csv").read_bytes() == whole[1].read_bytes()
    assert CliRunner().invoke(ingest, arguments).exit_code == 0
    assert [(tmp_path / "one" / path.name).read_bytes() for path in whole] == [path.read_bytes() for path in whole]
    done = CliRunner().invoke(ingest, [*arguments, "--shard", "s0001", "--shard", "s0009"])
    assert done.exit_code == 1 and "no shard s0009 in this cohort; it has s0000 to s0002" in done.output
    table[["image_id", "path"]].to_parquet(tmp_path / "index.parquet")
    done = CliRunner().invoke(ingest, arguments)
    assert done.exit_code == 1 and "eye, um_per_px, shard are missing" in done.output
    for wrong, said in ((["--out", str(tmp_path / "c.parquet")], "without --out"), (["--config", __file__], "in its place")):
        done = CliRunner().invoke(ingest, [*arguments, *wrong])
        assert done.exit_code == 2 and said in done.output


def test_empty_file_is_a_row(study):
    folder, _, settings = study
    (folder / "images" / "p0_od.png").write_bytes(b"")
    table = build_cohort_table(CohortConfig(**settings))
    assert table.loc[0, ["status", "reason"]].tolist() == ["failed", "empty"] and (table.loc[1:, "status"] == "ok").all()


def test_planning_scales(tmp_path):
    n = 20_000
    (tmp_path / "i").mkdir()
    for i in range(n):
        os.close(os.open(tmp_path / "i" / f"{i}.png", os.O_CREAT | os.O_WRONLY))
    frame = pd.DataFrame({"image": [f"i/{i}.png" for i in range(n)], "subject": np.arange(n) // 2, "eye": ["R", "L"] * (n // 2)})
    frame.to_csv(tmp_path / "s.csv", index=False)
    config = CohortConfig(samplesheet=str(tmp_path / "s.csv"), columns={"subject": "subject", "eye": "eye"})
    start = time.perf_counter()
    assert len(plan_shards(config)) == 80
    # Linear: 100,000 rows take five times this. Generous, as other work may share the machine.
    assert time.perf_counter() - start < 6
