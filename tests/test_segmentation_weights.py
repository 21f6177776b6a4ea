"""Weights on disk: the same content is the same file, others may read it, and a damaged one is named."""

from __future__ import annotations

import json
import os
import stat

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from retsam.segmentation.cli import segment
from retsam.segmentation.weights import DEFAULT_WEIGHTS, file_sha256, load_state, read_card, save_weights

METADATA = {"step": 3, "stage": "unify", "pens": {"vessels": ["drive", "hrf"]}, "weak": {}, "name": "é"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_the_same_weights_are_the_same_file(model, tmp_path):
    path = tmp_path / "w.safetensors"
    hashes = set()
    for _ in range(8):
        save_weights(path, model, METADATA)
        hashes.add(file_sha256(path))
    assert len(hashes) == 1
    state, metadata = load_state(path)
    assert metadata == METADATA
    with safe_open(path, "pt") as file:
        assert list(json.loads(path.read_bytes()[8:].split(b'"0.bias"')[0].rstrip(b",") + b"}")["__metadata__"]) == sorted(METADATA)
        assert set(file.keys()) == set(state) == {n for n, v in model.state_dict().items() if v.dtype.is_floating_point}
    assert all(torch.equal(value, model.state_dict()[name].half().float()) for name, value in state.items())


def test_others_may_read_what_the_umask_lets_them(model, tmp_path):
    umask = os.umask(0o022)
    try:
        save_weights(tmp_path / "w.safetensors", model, METADATA)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o644


def test_weights_of_before_are_read(model, tmp_path):
    save_file({"a": torch.ones(2).half()}, tmp_path / "w.safetensors", {key: json.dumps(value) for key, value in METADATA.items()})
    state, metadata = load_state(tmp_path / "w.safetensors")
    assert metadata == METADATA and torch.equal(state["a"], torch.ones(2))
    assert load_state(DEFAULT_WEIGHTS)[1]["step"]


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ("{", "a.json: expected a model card in JSON"),
        ("{}", "a.json: .*with `heads`"),
        ('{"heads": {"vessel": 1}}', "a.json: .*with `heads`"),
    ],
)
def test_a_broken_card_is_named(model, tmp_path, card, says):
    save_weights(tmp_path / "a.safetensors", model, METADATA)
    (tmp_path / "a.json").write_text(card)
    with pytest.raises(ValueError, match=says):
        read_card(tmp_path / "a.safetensors")


def test_damaged_weights_are_named_by_the_command(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, model, METADATA)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="a.safetensors: expected a whole .safetensors file"):
        load_state(path)
    (tmp_path / "s.csv").write_text("image_id,path,eye,um_per_px\na,a.png,R,\n")
    study = {"study": "x", "cohort": {"samplesheet": str(tmp_path / "s.csv")}, "segmentation": {"weights": str(path), "device": "cpu"}}
    (tmp_path / "c.yaml").write_text(json.dumps(study))
    metrics = tmp_path / "m.parquet"
    pd.DataFrame({"image_id": ["a"], "status": ["ok"]}).to_parquet(metrics)
    arguments = ["--config", str(tmp_path / "c.yaml"), "--shard-file", str(tmp_path / "s.csv"), "--metrics", str(metrics)]
    result = CliRunner().invoke(segment, [*arguments, "--out", str(tmp_path / "o.zarr")])
    assert result.exit_code == 1 and f"Error: {path}: expected a whole .safetensors file" in result.output, result.output
