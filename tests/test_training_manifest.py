"""What training takes from a manifest: bare ones, copies, lesions that nobody looked for, masks that were corrected."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from fundus_drawings import write_manifest

from retsam.evaluation.reference import ManifestError
from retsam.evaluation.reference import read_manifest as read_for_scores
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.export import build_card
from retsam.training.frames import held_out, load_frames, read_manifest, task_rows
from retsam.training.labels import lesion_label

CONFIGS = sorted((Path(__file__).parents[1] / "config").glob("train-*.yaml"))


@pytest.fixture
def config(tmp_path):
    tasks = {
        task: TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=128) for task in ("vessels", "optic_nerve", "lesions_dr", "macula")
    }
    return TrainConfig(manifest=write_manifest(tmp_path, 6), root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks)


def rewrite(config, change) -> None:
    table = pd.read_csv(config.manifest)
    change(table).to_csv(config.manifest, index=False)


def test_a_manifest_that_can_be_scored_can_be_trained_on(config):
    rewrite(config, lambda table: table[["dataset", "image", "vessel"]])
    config = config.model_copy(update={"tasks": {"vessels": config.tasks["vessels"]}, "holdout": {"drawn": 0.5}})
    manifest = read_manifest(config)
    assert manifest["group"].tolist() == [f"drawn:{image}" for image in manifest["image"]], "each photograph is its own group"
    assert manifest["held_out"].nunique() == 2, "empty groups must not move together"
    assert manifest["held_out"].tolist() == held_out(read_for_scores(config.manifest), config).tolist()
    frames = load_frames(config, "vessels", progress=False)
    assert len(frames.table) == (~manifest["held_out"]).sum()
    card = build_card(config, {}, {"vessel": {"threshold": 0.5}}, "mine")
    assert card["data"]["drawn"]["photographs"] == len(frames.table) and card["learned_from_labels"]["subjects"] == []
    # The reader refuses what evaluation refuses.
    rewrite(config, lambda table: table.drop(columns="dataset"))
    with pytest.raises(ManifestError, match="no column 'dataset'"):
        read_manifest(config)


def test_half_a_group_column_and_points_that_lack_a_coordinate(config):
    rewrite(config, lambda table: table.assign(group=[f"drawn:{k}" if k % 2 else np.nan for k in range(6)], fovea_y=[1.0, *[np.nan] * 5]))
    manifest = read_manifest(config)
    assert manifest["group"].tolist()[:2] == ["drawn:0_rgb.png", "drawn:1"]
    assert task_rows(manifest, "macula", config.tasks["macula"])["image"].tolist() == ["0_rgb.png"]


def test_both_eyes_of_a_subject_are_on_one_side_of_the_split(config):
    rewrite(config, lambda table: table.assign(group=np.nan, split=np.nan, subject_id=["a", "a", "b", "b", np.nan, np.nan]))
    manifest = read_manifest(config.model_copy(update={"holdout": {"drawn": 0.5}}))
    assert manifest["group"].tolist()[:4] == ["drawn:a", "drawn:a", "drawn:b", "drawn:b"]
    assert manifest["group"].tolist()[4:] == ["drawn:4_rgb.png", "drawn:5_rgb.png"]
    assert (manifest.groupby("group")["held_out"].nunique() == 1).all()
    # a group that only one photograph of the subject names is that of the others too
    rewrite(config, lambda table: table.assign(group=[np.nan, "pair", *[np.nan] * 4]))
    assert read_manifest(config)["group"].tolist() == ["pair", "pair", "drawn:b", "drawn:b", "drawn:4_rgb.png", "drawn:5_rgb.png"]


def test_held_out_copies_of_trained_photographs_are_set_aside(config):
    """Neither trained on nor scored; and their group stays out of training."""
    copies = [["0_rgb.png", "5_rgb.png"], ["1_rgb.png", "2_rgb.png"]]  # 5 is the test part
    rewrite(config, lambda table: table.assign(group=["a", "b", "c", "d", "e", "e"]))
    bare, aside = read_manifest(config), read_manifest(config.model_copy(update={"copies": copies}))
    assert bare["held_out"].tolist() == [False, False, False, False, True, True]
    assert aside["image"].tolist() == [f"{k}_rgb.png" for k in range(5)] and aside["held_out"].tolist() == [False] * 4 + [True]
    table = read_for_scores(config.manifest)
    assert held_out(table, config.model_copy(update={"copies": copies})).tolist() == [False] * 4 + [True, False]
    assert held_out(table, config.model_copy(update={"copies": [["4_rgb.png", "5_rgb.png"]]})).tolist()[4:] == [True, True]
    with pytest.raises(ValueError, match="at least two photographs"):
        TrainConfig.model_validate(config.model_dump() | {"copies": [["0_rgb.png"]]})


def test_shipped_runs_that_hold_out_idrid_grading_know_its_copies():
    pairs = [{"021", "391"}, {"279", "079"}, {"397", "013"}]
    for path in CONFIGS:
        if "idrid_grading: 0.2" in path.read_text():
            copies = TrainConfig.read(path).copies
            assert [{Path(image).stem.removeprefix("IDRiD_") for image in pair} for pair in copies] == pairs, path.name


def test_lesions_that_nobody_looked_for_are_no_negatives(config):
    rewrite(config, lambda table: table.assign(lesions_labelled=[4, 15, np.nan, 1, 15, 15]))
    manifest = read_manifest(config)
    with pytest.raises(ValueError, match=r"(?s)lesions_labelled 15 or empty.*1.0, 4.0 of 2 photographs of drawn: 0_rgb.png, 3_rgb.png"):
        task_rows(manifest, "lesions_dr", config.tasks["lesions_dr"])
    assert len(task_rows(manifest, "vessels", config.tasks["vessels"])) == 5
    rows = manifest.to_dict("records")
    with pytest.raises(ValueError, match="0_lesions.png: expected masks of all four lesions"):
        lesion_label(rows[0], config.root, (400, 400))
    assert lesion_label(rows[1], config.root, (400, 400)).any()


@pytest.mark.parametrize("change", ["mask", "image", "fovea", "negative"])
def test_frames_are_made_anew_where_their_sources_changed(config, change):
    task = {"fovea": "macula", "negative": "lesions_dr"}.get(change, "vessels")
    stamp = lambda: {path.name: path.stat().st_mtime_ns for path in (config.out / "cache").glob("*.csv")}  # noqa: E731
    first = load_frames(config, task, progress=False)
    before, label = stamp(), np.array(first.label)
    load_frames(config, task, progress=False)
    assert stamp() == before, "nothing changed, nothing to do"
    if change == "fovea":
        rewrite(config, lambda table: table.assign(fovea_x=table["fovea_x"] + 30))
    elif change == "negative":  # the same photographs, now known as healthy
        rewrite(config, lambda table: table.assign(dr_grade=0))
        settings = TaskConfig(datasets={"drawn": 1}, negatives={"drawn": 1}, crop=64, batch=2, frame=128)
        config = config.model_copy(update={"tasks": {"lesions_dr": settings}})
    else:
        path = config.root / ("0_vessel.png" if change == "mask" else "0_rgb.png")
        about = path.stat()
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.zeros_like(picture) if change == "mask" else picture[::-1])
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))  # a slow clock must not hide it
    second = load_frames(config, task, progress=False)
    assert len(stamp()) == 2
    if change == "mask":
        assert (label[0] & 4).any() and not (second.label[0] & 4).any()
    if change == "fovea":
        assert (second.table["point_x"] > first.table["point_x"]).all()
