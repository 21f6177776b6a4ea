"""`retsam ingest` and `retsam init`: what they write, and what they say."""

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from retsam.cohort.cli import ingest, init
from retsam.config import load_config


@pytest.fixture
def clinic(tmp_path):
    """A samplesheet as a clinic would write it, with names that are nobody's standard."""
    (tmp_path / "photos").mkdir()
    rows = []
    for i in range(60):
        for eye in ("OD", "OS"):
            Image.new("RGB", (64, 64), (90, 40, 20)).save(tmp_path / "photos" / f"{i}_{eye}.png")
            rows.append(
                (
                    f"photos/{i}_{eye}.png",
                    f"pt{i:03d}",
                    eye,
                    40 + i % 30,
                    "MF"[i % 2],
                    22.5 + i,
                    ["normal", "DR"][i % 2],
                    i % 5,
                    i % 2,
                    f"note {i}",
                )
            )
    columns = ["Photo File", "PatientID", "Laterality", "Age (years)", "Gender", "BMI", "Diagnosis", "DR grade", "glaucoma", "remarks"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "clinic list.csv", index=False)
    return tmp_path


def run(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_init_understands_a_samplesheet(clinic):
    done = run(init, clinic / "clinic list.csv", "--out", clinic / "my.yaml")
    assert done.exit_code == 0, done.output
    config = load_config(clinic / "my.yaml")
    assert config.study == "clinic_list"
    columns = config.cohort.columns
    assert (columns.image, columns.subject, columns.eye) == ("Photo File", "PatientID", "Laterality")
    assert set(config.cohort.covariates) == {"age", "sex", "bmi"}
    assert {o.name for o in config.association.outcomes} == {"diagnosis_dr", "dr_grade_any", "glaucoma"}
    assert config.cohort.labels["diagnosis_dr"].negative == ("normal",)
    assert set(config.association.covariate_sets) == {"crude", "age_sex", "full"}
    for said in ("'Photo File'", "60 different", "not used: remarks", "covariate age", "outcome glaucoma"):
        assert said in done.output, said
    assert run(init, clinic / "clinic list.csv", "--out", clinic / "my.yaml").exit_code != 0
    assert run(init, clinic / "clinic list.csv", "--out", clinic / "my.yaml", "--force").exit_code == 0


def test_what_init_proposes_can_be_ingested(clinic):
    run(init, clinic / "clinic list.csv", "--out", clinic / "my.yaml")
    done = run(ingest, "--config", clinic / "my.yaml", "--out", clinic / "cohort.parquet", "--shards", clinic / "shards")
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(clinic / "cohort.parquet")
    assert len(table) == 120 and table["subject"].nunique() == 60 and set(table["eye"]) == {"R", "L"}
    assert table["diagnosis_dr"].sum() == 60 and table["dr_grade_any"].sum() == 96 and table["glaucoma"].sum() == 60
    assert [p.name for p in (clinic / "shards").iterdir()] == ["s0000.csv"]
    assert "120 photographs of 60 subjects (60 with both eyes)" in done.output


def test_init_of_a_folder_and_of_nothing(clinic):
    done = run(init, clinic / "photos", "--out", clinic / "folder.yaml")
    assert done.exit_code == 0 and "120 photographs" in done.output and "60 with both eyes" in done.output
    assert load_config(clinic / "folder.yaml").cohort.samplesheet == str(clinic / "photos")
    (clinic / "none").mkdir()
    assert "no file in" in run(init, clinic / "none").output
    (clinic / "other.csv").write_text("a,b\n1,2\n")
    assert "a column of paths of photographs" in run(init, clinic / "other.csv").output


def test_ingest_stops_before_any_work_with_all_faults(clinic):
    sheet = pd.read_csv(clinic / "clinic list.csv")
    sheet.loc[3, "Age (years)"] = 300
    sheet.loc[4, "Photo File"] = "photos/none.png"
    sheet.loc[5, "Laterality"] = "both"
    sheet.to_csv(clinic / "bad.csv", index=False)
    run(init, clinic / "clinic list.csv", "--out", clinic / "my.yaml")
    settings = yaml.safe_load((clinic / "my.yaml").read_text())
    settings["cohort"]["samplesheet"] = str(clinic / "bad.csv")
    (clinic / "bad.yaml").write_text(yaml.safe_dump(settings))
    done = run(ingest, "--config", clinic / "bad.yaml", "--out", clinic / "cohort.parquet", "--shards", clinic / "shards")
    assert done.exit_code == 1
    for said in (
        "3 faults",
        "row 5, column 'Age (years)'",
        "row 6, column 'Photo File'",
        "row 7, column 'Laterality'",
        "300",
        "none.png",
        "both",
    ):
        assert said in done.output, said
    assert not (clinic / "cohort.parquet").exists() and not (clinic / "shards").exists()


def test_ingest_needs_something_to_do(clinic):
    run(init, clinic / "photos", "--out", clinic / "my.yaml")
    assert "nothing to write" in run(ingest, "--config", clinic / "my.yaml").output
    assert run(ingest, "--config", clinic / "my.yaml", "--shards", clinic / "s", "--shard", "s0007").exit_code == 1
