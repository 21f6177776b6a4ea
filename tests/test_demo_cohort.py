"""The rendered cohort: tables, truth, effects of disease, bad photographs, command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from retsam.config import StudyConfig
from retsam.demo.cli import demo
from retsam.demo.population import EFFECTS, PREVALENCE, effects_table, simulate
from retsam.demo.study import demo_config, write_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo(out, subjects=4, size=512, seed=1, workers=1, progress=False)
    return out


def test_every_photograph_of_the_sheet_exists(folder):
    sheet = pd.read_csv(folder / "samplesheet.csv")
    assert len(sheet) == 4 * 2 + 6 and sheet["image"].is_unique
    assert all((folder / image).is_file() for image in sheet["image"])
    assert set(sheet["eye"]) == {"R", "L"} and sheet["age"].between(35, 90).all()
    good = sheet[sheet["subject"].str.startswith("S")]
    for image in good["image"]:
        picture = cv2.imread(str(folder / image))
        assert picture is not None and picture.shape[1] == 512
    same = good.groupby("subject")[["age", "sex", "site", "hypertension"]].nunique()
    assert (same == 1).all(axis=None), "what belongs to a subject must be the same in both eyes"


def test_truth_tables_fit_the_sheet_and_the_masks(folder):
    sheet, truth = pd.read_csv(folder / "samplesheet.csv"), pd.read_csv(folder / "truth" / "biomarkers.csv")
    assert list(truth["image"]) == list(sheet["image"][: len(truth)])
    brought, manifest = pd.read_csv(folder / "truth" / "masks.csv"), pd.read_csv(folder / "truth" / "manifest.csv")
    assert list(brought.columns) == [
        "image_id",
        "eye",
        "artery",
        "vein",
        "vessel",
        "disc_cup",
        "lesions",
        "fov",
        "fovea_x",
        "fovea_y",
        "um_per_px",
    ]
    for row, known in zip(brought.itertuples(), truth.itertuples(), strict=True):
        disc_cup = cv2.imread(str(folder / "truth" / row.disc_cup), cv2.IMREAD_UNCHANGED)
        assert (disc_cup > 0).sum() == pytest.approx(known.disc_area_px2, rel=0.02)
        lesions = cv2.imread(str(folder / "truth" / row.lesions), cv2.IMREAD_UNCHANGED)
        assert cv2.connectedComponents((lesions & 2), connectivity=8)[0] - 1 == known.hemorrhage_count
    assert all((folder / path).is_file() for column in ("image", "vessel", "av", "disc_cup", "fov") for path in manifest[column])
    av = cv2.imread(str(folder / manifest["av"][0]), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(av)) <= {0, 1, 2, 3} and (av == 1).any() and (av == 2).any()
    effects = pd.read_csv(folder / "truth" / "effects.csv")
    assert set(effects["biomarker"].dropna()) - set(truth.columns) == set()
    pd.testing.assert_frame_equal(effects, effects_table().reset_index(drop=True), check_dtype=False)
    pairs = set(zip(effects["cause"], effects["biomarker"], strict=True))
    assert {("hypertension", "vein_tortuosity_distance"), ("hypertension", "artery_tortuosity_distance"), ("age", "drusen_count")} <= pairs


def test_age_brings_drusen_from_fifty_on():
    (effect,) = (effect for effect in EFFECTS if (effect.cause, effect.parameter) == ("age", "drusen"))
    assert [effect.on({"age": age}) for age in (40, 50, 74)] == [0, 0, pytest.approx(2)]
    (effect,) = (effect for effect in EFFECTS if (effect.cause, effect.parameter) == ("age", "artery_width_um"))
    assert [effect.on({"age": age}) for age in (50, 70)] == [pytest.approx(3), pytest.approx(-3)]


def test_bad_photographs_are_bad(folder):
    defects = pd.read_csv(folder / "truth" / "defects.csv").set_index("defect")
    assert cv2.imread(str(folder / defects.loc["unreadable", "image"])) is None
    copy, original = (folder / defects.loc["duplicate", column] for column in ("image", "made_from"))
    assert copy.read_bytes() == original.read_bytes() and copy != original
    whole = folder / defects.loc["truncated", "made_from"]
    assert (folder / defects.loc["truncated", "image"]).stat().st_size < whole.stat().st_size / 2
    assert cv2.imread(str(folder / defects.loc["too_dark", "image"])).mean() < 15
    assert cv2.imread(str(folder / defects.loc["not_a_fundus", "image"]))[:20, :20].min() > 80


def test_same_seed_same_cohort(tmp_path, folder):
    write_demo(tmp_path, subjects=4, size=512, seed=1, workers=1, defects=False, progress=False)
    for name in ("photographs/S0001_R.jpg", "truth/masks/S0003_L_av.png", "truth/biomarkers.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_cores_are_counted_where_there_is_no_affinity(tmp_path):
    """macOS has no `os.sched_getaffinity`."""
    code = (
        "import os, sys\nvars(os).pop('sched_getaffinity', None)\n"
        "from retsam.biomarkers.config import BiomarkersConfig\nfrom retsam.biomarkers.running import worker_count\n"
        "from retsam.demo.cli import demo\nassert worker_count(BiomarkersConfig()) > 0\n"
        "demo(['--subjects', '4', '--size', '512', '--no-defects', '--quiet', '--out', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_effects_are_in_the_cohort():
    table, parameters = simulate(400, 768, seed=2)
    assert len(table) == len(parameters) == 800
    eyes = pd.concat([table, pd.DataFrame([p.flat() for p in parameters]).drop(columns="eye")], axis=1)
    for disease, share in PREVALENCE.items():
        column = eyes["dr_grade"].gt(0) if disease == "dr" else eyes[disease].eq(1)
        assert column.groupby(eyes["subject"]).max().mean() == pytest.approx(share, abs=0.01)
        right, left = (column[eyes["eye"] == eye].to_numpy() for eye in "RL")
        assert np.corrcoef(right, left)[0, 1] > 0.5, "eyes of a subject must resemble each other"
    order = ["age", "hypertension", "dr_grade", "glaucoma", "pathological_myopia", "amd"]
    adjust = np.column_stack([np.ones(len(eyes)), eyes[order]])
    for parameter, tolerance in (("artery_width_um", 2.5), ("vein_width_um", 3.0), ("cdr_vertical", 0.03)):
        slopes = np.linalg.lstsq(adjust, eyes[parameter], rcond=None)[0]
        expected = {effect.cause: effect.change for effect in EFFECTS if effect.parameter == parameter}
        for cause, slope in zip(order, slopes[1:], strict=True):
            assert slope == pytest.approx(expected.get(cause, 0.0), abs=tolerance), (parameter, cause)
    mean = eyes.groupby("dr_grade")["n_hemorrhage"].mean()
    assert mean.is_monotonic_increasing and mean[0] == 0 and mean[3] == pytest.approx(17, abs=4)


def test_config_is_valid():
    study = StudyConfig.model_validate(demo_config("somewhere"))
    assert [outcome.name for outcome in study.association.outcomes] == ["dr", "amd", "glaucoma", "myopia"]
    assert study.cohort.samplesheet == "somewhere/samplesheet.csv"


def test_command(tmp_path):
    result = CliRunner().invoke(
        demo, ["--out", str(tmp_path / "d"), "--subjects", "4", "--size", "512", "--workers", "1", "--no-defects", "--quiet"]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "d" / "config.yaml").is_file() and "snakemake" in result.output
    assert len(pd.read_csv(tmp_path / "d" / "samplesheet.csv")) == 8
    assert CliRunner().invoke(demo, ["--out", str(tmp_path / "e"), "--size", "100"]).exit_code == 2


def test_the_study_is_found_from_any_folder(tmp_path, monkeypatch):
    """The samplesheet's path holds from elsewhere too, and the command can be copied although the folder's name has a space."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(demo, [*"--subjects 4 --size 512 --workers 1 --no-defects --quiet --out".split(), "my demos/d"])
    config = yaml.safe_load((tmp_path / "my demos/d/config.yaml").read_text())
    assert Path(config["cohort"]["samplesheet"]) == tmp_path / "my demos/d/samplesheet.csv"
    command = shlex.split(result.output.splitlines()[-1].removeprefix("next: "))
    assert command[0] == "snakemake" and command[-2:] == ["--configfile", "my demos/d/config.yaml"]
    assert Path(command[command.index("--snakefile") + 1]).is_file()


def test_a_folder_with_another_cohort_is_refused(tmp_path, folder):
    """Nothing is written then: what stays of the other would pass for this one's."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for options in ("--subjects 5 --seed 1", "--subjects 4 --seed 1 --no-defects", "--subjects 4 --seed 2"):
        result = CliRunner().invoke(demo, [*options.split(), "--size", "512", "--quiet", "--out", str(folder)])
        assert result.exit_code == 1 and "samplesheet.csv: the samplesheet of another cohort" in result.output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "mine.jpg").touch()
    result = CliRunner().invoke(demo, ["--subjects", "4", "--size", "512", "--quiet", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "mine.jpg" in result.output and "another folder" in result.output
    assert not (tmp_path / "truth").exists()


def test_no_site_has_the_cases_of_a_disease_to_itself():
    """The camera must not tell the diseases: each site has its share of the subjects with each of them, give or take one or two."""
    table, _ = simulate(60, 512, 0)
    ill = table.assign(dr=table["dr_grade"] > 0).groupby(["site", "subject"])[["dr", "amd", "glaucoma", "pathological_myopia"]].any()
    cases = ill.groupby("site").sum()
    assert (cases.max() - cases.min()).max() <= 2, cases
