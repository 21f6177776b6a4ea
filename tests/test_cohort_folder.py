"""A bare folder: whatever lies in it is a photograph, or counted as left out."""

import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_cohort_reading import dicom

from retsam.cohort.cli import ingest
from retsam.cohort.config import CohortConfig
from retsam.cohort.faults import SamplesheetError
from retsam.cohort.folder import find_photographs
from retsam.cohort.ingest import build_cohort_table, plan_shards
from retsam.cohort.init import propose
from retsam.cohort.samplesheet import load_cohort


def photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (90, 40, 20)).save(path, format="JPEG")
    return path


def test_every_ending_and_none_is_found_or_counted(tmp_path):
    for name in ("a.jfif", "b.jpe", "c.JPG"):
        photograph(tmp_path / name)
    for name in ("IM0001", "1.2.840.7"):
        dicom(tmp_path / name, np.full((64, 64, 3), 90, np.uint8))
    for name in ("d.gif", "e.gif", "list.xlsx", "README", ".DS_Store"):
        (tmp_path / name).write_bytes(b"something else" * 20)
    found = find_photographs(tmp_path)
    assert found.photographs == ["1.2.840.7", "IM0001", "a.jfif", "b.jpe", "c.JPG"]
    said = "4 other files left out: .gif 2, .xlsx 1, without ending 1"
    assert found.notes() == [said]
    assert said in load_cohort(CohortConfig(samplesheet=str(tmp_path))).notes and said in propose(tmp_path)[1]


def test_a_folder_without_photographs_says_what_it_has(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    for look in (lambda: load_cohort(CohortConfig(samplesheet=str(tmp_path))), lambda: propose(tmp_path)):
        with pytest.raises(SamplesheetError, match="no file in .* that ends in .*; 1 other files left out: .gif 1"):
            look()


def test_a_dead_link_is_a_row(tmp_path):
    photograph(tmp_path / "photographs" / "a.jpg")
    (tmp_path / "photographs" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    config = CohortConfig(samplesheet=str(tmp_path / "photographs"))
    table = build_cohort_table(config).set_index("image_id")
    assert tuple(table.loc["gone", ["status", "reason"]]) == ("failed", "missing") and table.loc["a", "status"] == "ok"
    before = plan_shards(config)
    photograph(tmp_path / "nowhere.jpg")
    assert plan_shards(config) != before and (build_cohort_table(config)["status"] == "ok").all()
    (tmp_path / "nowhere.jpg").unlink()
    (tmp_path / "my.yaml").write_text(f"study: my\ncohort: {{samplesheet: {tmp_path / 'photographs'}}}\n")
    run = CliRunner().invoke(ingest, ["--config", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "cohort.parquet")])
    assert run.exit_code == 0 and "1 files are missing" in run.output


def test_each_folder_is_read_once(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    photograph(root / "z" / "a.jpg")
    photograph(root / ".store" / "b.jpg")
    photograph(other / "c.jpg")
    for name, target in (("again", root), ("a", root / "z"), ("store", root / ".store"), ("one", other), ("two", other)):
        (root / name).symlink_to(target)
    (other / "back").symlink_to(tmp_path)
    found = find_photographs(root)
    assert found.photographs == ["one/c.jpg", "store/b.jpg", "z/a.jpg"]
    assert sorted(found.again) == ["a", "again", "one/back/other", "one/back/root", "two"]
    assert "read under another name: a, again" in found.notes()[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_closed_folder_is_told(tmp_path):
    photograph(tmp_path / "a.jpg")
    (tmp_path / "closed").mkdir(mode=0)
    assert find_photographs(tmp_path).notes() == ["folders left out, since they cannot be opened: closed"]
