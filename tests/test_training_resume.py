"""A run goes on with what it began with; its data are checked before any work."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from fundus_drawings import write_manifest

from retsam.training import frames
from retsam.training.checks import check_run
from retsam.training.cli import train as command
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.frames import load_frames
from retsam.training.stages import run_stage

torch.set_num_threads(1)


@pytest.fixture
def config(tmp_path):
    settings = dict(datasets={"drawn": 1}, crop=64, batch=2, frame=64)
    tasks = {"macula": TaskConfig(**settings), "vessels": TaskConfig(**settings)}
    manifest = write_manifest(tmp_path)
    run = dict(manifest=manifest, root=tmp_path, out=tmp_path / "run", init="random", steps=2, warmup=0, checkpoint_every=9)
    return TrainConfig(**run, tasks=tasks)


def step_of(config):
    return torch.load(config.out / "checkpoint.pt", weights_only=True)["step"]


def test_another_run_is_not_gone_on_with(config, caplog, tmp_path):
    run_stage(config)
    mine = config.model_copy(update={"tasks": {"macula": config.tasks["macula"].model_copy(update={"crop": 96})}, "learning_rate": 0.5})
    with pytest.raises(ValueError, match="checkpoint.pt: was trained with other data or settings") as error:
        run_stage(mine)
    for part in (
        "learning_rate: was 0.001, is 0.5",
        "tasks.macula.crop: was 64, is 96",
        "tasks.vessels.crop: was 64, is not there",
        "`out`",
    ):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="stage: was unify, is adapt"):
        run_stage(config.model_copy(update={"init": str(config.out / "weights.safetensors")}), "adapt")
    table = pd.read_csv(config.manifest)
    table.assign(fovea_x=99).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match=r"data.macula: was \w+, is \w+") as error:
        run_stage(config.model_copy(update={"manifest": tmp_path / "other.csv"}))
    assert "data.vessels" not in str(error.value) and step_of(config) == 2


def test_a_run_is_prolonged_elsewhere_and_says_when_nothing_is_left(config, caplog, tmp_path):
    run_stage(config)
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    for path in tmp_path.glob("*.*"):
        shutil.copyfile(path, elsewhere / path.name)
    moved = {"root": elsewhere, "manifest": elsewhere / "manifest.csv", "steps": 3, "loaders": 2, "threads": 1, "checkpoint_every": 1}
    run_stage(config.model_copy(update=moved), minutes=5)
    assert step_of(config) == 3 and "nothing is left to do" not in caplog.text
    run_stage(config.model_copy(update=moved))
    assert "all 3 steps are done, nothing is left to do" in caplog.text
    state = torch.load(config.out / "checkpoint.pt", weights_only=True)
    del state["run"]
    torch.save(state, config.out / "checkpoint.pt")
    caplog.clear()
    run_stage(config.model_copy(update={"steps": 4}))
    assert caplog.text.count("of an older version") == 1 and step_of(config) == 4


def test_names_that_nothing_has_are_told_at_once(config, tmp_path):
    typos = {"holdout": {"drwan": 0.5}, "copies": [["0_rgb.png", "gone.png"]], "pseudo_labels": tmp_path / "psuedo"}
    with pytest.raises(ValueError, match="3 faults") as error:
        run_stage(config.model_copy(update=typos))
    for part in ("holdout: no data set 'drwan'; there are drawn", "copies: no photograph 'gone.png'", "psuedo/vessels.csv"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="2 faults"):
        frames.read_manifest(config.model_copy(update=typos))
    macula = config.model_copy(update={"pseudo_labels": tmp_path, "tasks": {"macula": config.tasks["macula"]}})
    with pytest.raises(ValueError, match="vessels only"):
        check_run(macula)
    check_run(macula.model_copy(update={"stage": "experts"}))


def test_faults_of_files_are_told_with_row_and_column_before_the_cache(config, tmp_path):
    (tmp_path / "0_rgb.png").unlink()
    (tmp_path / "1_vessel.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "1_av.jpg"), np.zeros((400, 400), np.uint8))
    table = pd.read_csv(config.manifest)
    table.loc[1, "av"] = "1_av.jpg"
    table = pd.concat([table, table.iloc[[1]].assign(vessel="small.png", av="gone.png", group="drawn:9")])
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((200, 300), np.uint8))
    table.to_csv(config.manifest, index=False)
    with pytest.raises(ValueError, match="5 faults") as error:
        run_stage(config)
    for part in (
        "row 2, column 'image': no such file",
        "row 3, column 'vessel': ",
        "row 3, column 'av': ",
        "row 5, column 'vessel': ",
        "row 5, column 'av': no such file",
    ):
        assert part in str(error.value)
    assert "found 300x200" in str(error.value) and "found a JPEG file" in str(error.value)
    assert not config.out.exists()


def test_faults_inside_files_are_told_at_once_too(config, tmp_path):
    values = np.full((400, 400), 9, np.uint8)
    cv2.imwrite(str(tmp_path / "0_av.png"), values)
    (tmp_path / "1_vessel.png").write_bytes((tmp_path / "1_vessel.png").read_bytes()[:-60])
    with pytest.raises(ValueError, match="2 faults") as error:
        load_frames(config, "vessels", progress=False)
    assert "row 2, column 'av': " in str(error.value) and "row 3, column 'vessel': " in str(error.value)
    assert not list((config.out / "cache").glob("*.csv")), "nothing says that the cache is whole"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "--config", "bad.yaml", "--out", "w.safetensors"], "bad.yaml: expected a training configuration"),
        (["export", "--config", "list.yaml", "--out", "w.safetensors"], "list.yaml: expected a training configuration"),
        (["pseudo-label", "--config", "run.yaml", "--weights", "WEIGHTS", "--dataset", "nope"], "no training photograph of nope"),
        (["pseudo-label", "--config", "run.yaml", "--weights", "WEIGHTS", "--dataset", "drawn"], "`pseudo_labels` must name"),
        (["attach-scores", "--card", "bad.yaml", "--scores", "list.json"], "bad.yaml: expected a model card in JSON"),
        (["attach-scores", "--card", "card.json", "--scores", "list.json"], "list.json: expected a JSON object"),
        (["attach-scores", "--card", "card.json", "--scores", "bad.yaml"], "bad.yaml: expected JSON"),
        (["thresholds", "--config", "run.yaml", "--weights", "bad.yaml"], "bad.yaml: expected a .safetensors file"),
    ],
)
def test_commands_name_what_is_wrong(config, tmp_path, monkeypatch, arguments, says):
    from retsam.segmentation.weights import DEFAULT_WEIGHTS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "card.json").write_text('{"heads": {}}')
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    result = CliRunner().invoke(command, [str(DEFAULT_WEIGHTS) if a == "WEIGHTS" else a for a in arguments])
    assert result.exit_code == 1 and "Error: " in result.output and says in result.output, result.output
