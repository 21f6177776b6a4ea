"""Disc and cup on a trunk and a decoder of the close-up's own."""

import json

import numpy as np
import pytest
import torch
from fundus_drawings import write_manifest

from retsam.segmentation.predict import Segmenter
from retsam.segmentation.weights import load_state, of_view
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.export import export, export_own_trunk
from retsam.training.sampler import ROI_DISC, ROI_SIDE
from retsam.training.stages import run_stage
from retsam.training.trainer import task_samplers

torch.set_num_threads(1)


@pytest.fixture
def config(tmp_path):
    small = {"datasets": {"drawn": 1}, "crop": 64, "batch": 2, "frame": 128}
    tasks = {
        "vessels": TaskConfig(**small, pen=0.5),
        "optic_nerve": TaskConfig(**small, roi=0.5),
        "lesions_dr": TaskConfig(**small),
        "macula": TaskConfig(**{**small, "frame": 64}),
    }
    manifest = write_manifest(tmp_path)
    return TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks, steps=4, warmup=1)


def close_ups(config: TrainConfig, base) -> TrainConfig:
    task = config.tasks["optic_nerve"].model_copy(update={"roi": 1.0, "scale": (0.4, 0.5)})
    changes = {"own_trunk": True, "tasks": {"optic_nerve": task}, "init": str(base), "out": config.out / "own", "frozen": 0}
    return config.model_copy(update=changes | {"learning_rate": 0.05})


def test_the_close_up_gets_trunk_and_decoder_and_all_else_stays(config):
    run_stage(config)
    base = export(config, config.out / "base.safetensors", per_dataset=2)
    card = json.loads(base.with_suffix(".json").read_text())
    card["heads"]["disc"]["scores"] = card["heads"]["vessel"]["scores"] = {"drawn": {"dsc": 1.0}}
    card["data"]["drawn"]["photographs"] = 50  # as if the base had learned from more
    base.with_suffix(".json").write_text(json.dumps(card))
    own = close_ups(config, base)
    run_stage(own)
    grown = export_own_trunk(own, config.out / "grown.safetensors", per_dataset=2)
    (before, old_metadata), (after, metadata) = load_state(base), load_state(grown)
    for view in ("fine", "whole"):
        old, new = of_view(before, view), of_view(after, view)
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    old, new = of_view(before, "roi"), of_view(after, "roi")
    for part in ("encoder._blocks", "decoders.optic_nerve."):
        assert any(not torch.equal(old[name], new[name]) for name in old if name.startswith(part))
    assert metadata["pens"] == old_metadata["pens"] != {}, "pens of vessels, which this run knows nothing of, stay"
    grown_card = json.loads(grown.with_suffix(".json").read_text())
    heads = grown_card["heads"]
    assert grown_card["data"] == card["data"], "what the other views learned from is still what the weights learned from"
    assert "scores" not in heads["disc"] and heads["vessel"]["scores"], "scores of another network must not stay"
    tuned = load_state(own.out / "weights.safetensors")[0]["decoders.optic_nerve.head.weight"]
    assert torch.equal(Segmenter(grown, precision="float32").networks["roi"].decoders["optic_nerve"].head.weight, tuned)


def test_close_ups_alone_have_the_crop_and_scale_of_their_task(config):
    rng = np.random.default_rng(3)
    beside = task_samplers(config, False)[0]["optic_nerve"]
    assert beside.batch(rng, True).rgb.shape[1] == ROI_SIDE and beside.batch(rng, False).rgb.shape[1] == 64
    alone = task_samplers(close_ups(config, "base.safetensors"), False)[0]["optic_nerve"]
    assert alone.batch(rng).rgb.shape[1] == 64
    size = float(alone.frames.table["point_size"].iloc[0])
    magnified = [np.sqrt(abs(np.linalg.det(alone._matrix(rng, 0, 64, True)[:, :2]))) * size / ROI_DISC for _ in range(20)]
    assert 0.36 < min(magnified) and max(magnified) < 0.55
