"""Photographs that were trained on are recognised in manifests that call them otherwise; what a line of scores holds is told."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import public_trees as trees
import pytest
import yaml
from click.testing import CliRunner
from evaluation_fakes import FakeSegmenter

from retsam.evaluation.cli import evaluate as command
from retsam.evaluation.reference import ManifestError, read_manifest
from retsam.evaluation.trained_on import kept_out
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.frames import held_out

TRAINED = [
    # data set, file, group, split
    ("drive", "21", "drive:21", "train"),
    ("drive", "01", "drive:01", "test"),
    ("hrf", "06_dr", "hrf:06_dr", "train"),
    ("hrf", "09_h", "hrf:09_h", "test"),
    ("refuge_roi", "T0001", "refuge_roi:T0001", "train"),
    ("idrid_seg", "IDRiD_01", "idrid:IDRiD_102", "train"),
    ("drishti", "drishtiGS_001", "drishti:drishtiGS_001", "train"),
]


@pytest.fixture
def config(tmp_path):
    rows = [dict(dataset=d, image=f"{d}/{stem}.jpg", group=g, split=s, vessel="v.png") for d, stem, g, s in TRAINED]
    pd.DataFrame(rows).to_csv(tmp_path / "trained.csv", index=False)
    settings = {"manifest": str(tmp_path / "trained.csv"), "root": str(tmp_path), "out": str(tmp_path / "run")}
    settings["tasks"] = {"vessels": {"datasets": {"drive": 1}}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    return TrainConfig(**settings | {"tasks": {"vessels": TaskConfig(datasets={"drive": 1})}})


def other(tmp_path, dataset, photographs):
    """Manifest of a data set as published: file stem -> (group, split)."""
    path = tmp_path / "published.csv"
    rows = [dict(dataset=dataset, image=f"/p/{stem}.png", group=g, split=s) for stem, (g, s) in photographs.items()]
    pd.DataFrame(rows).to_csv(path, index=False)
    return read_manifest(path), path


@pytest.mark.parametrize(
    "dataset, photographs, kept",
    [
        ("hrf", {"06_dr": ("hrf:06_dr", "test"), "09_h": ("hrf:09_h", "test")}, [False, True]),
        ("drive", {"21_training": ("drive:21", "train"), "01_test": ("drive:01", "test")}, [False, True]),
        ("rite", {"21_training": ("rite:21", "train"), "01_test": ("rite:01", "test")}, [False, True]),
        ("refuge", {"T0001": ("refuge:T0001", "test"), "V0001": ("refuge:V0001", "validation")}, [False, True]),
        ("drishti_gs", {"drishtiGS_001": ("drishti_gs:drishtiGS_001", "test")}, [False]),
        # Part C shows the eye of the part A photograph that was trained on; its group says so.
        ("idrid", {"IDRiD_01": ("idrid:A:IDRiD_01", "train"), "IDRiD_102": ("idrid:C:train:IDRiD_102", "train")}, [False, False]),
        ("chase_db1", {"Image_11L": ("chase_db1:11", "test"), "Image_01L": ("chase_db1:01", "train")}, [True, True]),
    ],
)
def test_published_photographs_that_were_trained_on(tmp_path, config, dataset, photographs, kept):
    table, path = other(tmp_path, dataset, photographs)
    found, told = kept_out(table, path, config)
    assert found.tolist() == kept
    assert list(told) == [dataset]
    assert f"{sum(kept)} of {len(kept)}" in told[dataset] or "holds its photographs" in told[dataset]


def test_a_part_of_the_training_manifest_keeps_its_split(tmp_path, config):
    whole = read_manifest(config.manifest)
    same, _ = kept_out(whole, config.manifest, config)
    assert same.tolist() == held_out(whole, config).tolist()
    part = tmp_path / "part.csv"
    whole[whole["dataset"].isin(["drive", "hrf"])].to_csv(part, index=False)
    assert kept_out(read_manifest(part), part, config)[0].tolist() == same.tolist()[:4]


def test_what_cannot_be_told_is_refused(tmp_path, config):
    table, path = other(tmp_path, "drive", {"a": ("drive:a", "test"), "b": ("drive:b", "test")})
    with pytest.raises(ManifestError, match=r"none of its 2 photographs bears the name[\s\S]*such as 21; found a[\s\S]*without --held-out"):
        kept_out(table, path, config)
    config.manifest.unlink()
    with pytest.raises(ManifestError, match="says which photographs were trained on"):
        kept_out(table, path, config)


class Learned(FakeSegmenter):
    card = {"learned_from_labels": {"datasets": ["drive", "drishti"]}}


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    import retsam.segmentation.predict as predict

    monkeypatch.setattr(predict, "Segmenter", lambda **options: Learned(**options))

    def run(*arguments):
        return CliRunner().invoke(command, [*map(str, arguments), "--quiet", "--resamples", "5"])

    return run


def test_command_on_a_public_data_set(tmp_path, config, evaluate):
    trees.drive(tmp_path / "data")
    options = ["--dataset", "drive", "--root", tmp_path / "data", "--out", tmp_path / "s.json"]
    bare = evaluate(*options)
    assert bare.exit_code == 0, bare.output
    assert "several parts are scored together: train (2), test (1)" in bare.output
    assert "the weights learned from drive; without --held-out" in bare.output
    held = evaluate(*options, "--held-out", tmp_path / "train.yaml")
    assert held.exit_code == 0 and "drive: 2 of 3 photographs kept out" in held.output and "the weights learned" not in held.output
    about = json.loads((tmp_path / "s.run.json").read_text())
    assert about["parts"] == {"drive": {"train": 1, "test": 1}} and about["held_out"].endswith("train.yaml")
    assert list(pd.read_csv(tmp_path / "s.csv")["group"]) == ["drive:22", "drive:01"]
    (tmp_path / "trained.csv").unlink()
    gone = evaluate(*options, "--held-out", tmp_path / "train.yaml")
    assert gone.exit_code == 1 and "RETSAM_DATA" in gone.output


@pytest.mark.parametrize("name", ["scores.csv", "run.v1", "scores"])
def test_scores_are_never_written_over(tmp_path, evaluate, name):
    trees.drive(tmp_path / "data")
    found = evaluate("--dataset", "drive", "--root", tmp_path / "data", "--out", tmp_path / name)
    assert found.exit_code == 1 and "ends in .json" in found.output
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_biomarkers_are_refused_before_the_work(tmp_path, evaluate):
    trees.save(tmp_path / "v.png", trees.VESSEL)
    trees.photo(tmp_path / "p.png")
    rows = [dict(dataset="x", image="p.png", vessel="v.png"), dict(dataset="x", image="p.png", vessel=np.nan)]
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    found = evaluate("--manifest", tmp_path / "m.csv", "--out", tmp_path / "s.json", "--biomarkers")
    assert found.exit_code == 1 and not (tmp_path / "s.json").exists()
    assert (
        "more than once" in found.output
        and "x: p.png" in found.output
        and "at least 5 photographs with drawn masks, found 1" in found.output
    )


def test_sets_without_a_headline_and_counts_are_told(tmp_path, evaluate):
    """Discs have no biomarkers of vessels; photographs that fail are counted whatever becomes of biomarkers."""
    trees.save(tmp_path / "d.png", trees.DISC)
    for k in range(6):
        trees.photo(tmp_path / f"p{k}.png")
    pd.DataFrame([dict(dataset="x", image=f"p{k}.png", disc="d.png") for k in range(6)]).to_csv(tmp_path / "m.csv", index=False)
    options = ["--manifest", tmp_path / "m.csv", "--out", tmp_path / "s.json", "--biomarkers"]
    found = evaluate(*options)
    assert found.exit_code == 0, found.output
    assert "biomarkers, x: no biomarker of vessels" in found.output and "Empty DataFrame" not in found.output and "6 ok" in found.output
    for k in range(2):
        (tmp_path / f"p{k}.png").unlink()
    few = evaluate(*options)
    assert few.exit_code == 1 and "4 ok, 2 failed" in few.output and "at least 5 photographs with drawn masks, found 4" in few.output
