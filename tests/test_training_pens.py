"""Pens: one network learns each data set's way of drawing, and draws in none or in one of them."""

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from fundus_drawings import write_manifest

from retsam.segmentation.consistency import smooth_classes
from retsam.segmentation.postprocess import TWIGS, expected_dice, to_planes
from retsam.segmentation.predict import Segmenter
from retsam.segmentation.weights import load_state
from retsam.training import labels as lab
from retsam.training import losses
from retsam.training.calibrate import _calibrations, _Photograph
from retsam.training.cli import train
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.export import between, export, export_own_trunk, recalibrate
from retsam.training.sampler import TaskSampler
from retsam.training.stages import run_stage
from retsam.training.trainer import task_samplers

torch.set_num_threads(1)


@pytest.fixture
def config(tmp_path):
    crops = {"datasets": {"drawn": 1}, "crop": 64, "batch": 2, "frame": 128}
    tasks = {"vessels": TaskConfig(**crops, pen=1.0, skeleton=0.5), "lesions_dr": TaskConfig(**crops)}
    manifest = write_manifest(tmp_path)
    return TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks, steps=5, warmup=1)


def write_config(config: TrainConfig):
    path = config.out.parent / "train.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    return path


def test_a_crop_has_its_data_sets_pen_or_none(config):
    samplers, _ = task_samplers(config, False)
    rng, sampler = np.random.default_rng(0), samplers["vessels"]
    batch = sampler.batch(rng)
    assert batch.pens.tolist() == [[1.0], [1.0]] and batch.skeleton == 0.5
    assert samplers["lesions_dr"].batch(rng).pens is None
    sampler.settings = sampler.settings.model_copy(update={"pen": 0.5})
    drawn = np.concatenate([sampler.batch(rng).pens for _ in range(30)])
    assert 0 < drawn.sum() < len(drawn)
    guessed = TaskSampler("vessels", sampler.frames, config.tasks["vessels"], loss_weight=0.3)
    assert not guessed.batch(rng).pens.any(), "masks of a network are in nobody's pen"


def test_centrelines_lie_in_the_vessels_and_their_loss_counts_what_is_missed():
    label = np.zeros((32, 32), np.uint8)
    label[10:19] = lab.VESSEL_BITS["vessel"] | lab.VESSEL_BITS["known_vessel"] | lab.FOV_BIT
    label[25:26] = lab.VESSEL_BITS["vessel"] | lab.VESSEL_BITS["known_vessel"] | lab.FOV_BIT
    tube = lab.skeleton_bit(label) > 0
    assert tube[13:16, 8:24].all() and tube[25, 4:28].all(), "three pixels of a wide vessel, all of a thin one"
    assert not tube[[10, 18]].any() and not tube[24].any(), "nothing at the wide vessel's edges, nothing outside"
    full = torch.from_numpy((label | lab.skeleton_bit(label)).astype(np.uint8))[None]
    logits = torch.full((1, 3, 32, 32), -12.0)
    missed = losses.vessel_loss(logits, full, skeleton=0.5)["skeleton"]
    found = logits.clone()
    found[:, 2, 10:19] = 12
    assert missed == pytest.approx(0.5, abs=0.01)
    rest = losses.vessel_loss(found, full, skeleton=0.5)["skeleton"]
    assert rest == pytest.approx(0.5 * tube[25].sum() / tube.sum(), abs=0.01)
    assert "skeleton" not in losses.vessel_loss(logits, full)


def test_weights_ship_their_pens_with_a_threshold_each(config):
    run_stage(config)
    base = export(config, config.out / "pens.safetensors", per_dataset=2)
    segmenter = Segmenter(base, precision="float32")
    assert segmenter.pens == {"vessels": ["drawn"]} and segmenter.pen is None
    card = json.loads(base.with_suffix(".json").read_text())
    assert set(card["heads"]["vessel"]["pens"]) == set(card["heads"]["vessel"]["pen_twigs"]) == {"drawn"}
    assert "twigs" in card["heads"]["vessel"], "chosen, if only to have none"
    moved = json.loads(json.dumps(card))
    moved["heads"]["vessel"] |= {"threshold": 0.99, "twigs": 0.98}
    base.with_suffix(".json").write_text(json.dumps(moved))
    result = CliRunner().invoke(train, ["thresholds", "--config", str(write_config(config)), "--weights", str(base), "--per-dataset", "2"])
    assert result.exit_code == 0, result.output
    assert json.loads(base.with_suffix(".json").read_text())["heads"] == card["heads"], "chosen anew, on the same photographs"
    assert {"threshold", "twigs"} == set(recalibrate(config, base, 2)["vessel"]["unbiased"])
    card["heads"]["vessel"]["pens"]["drawn"] = 0.61
    card["heads"]["vessel"] |= {"twigs": 0.11, "pen_twigs": {"drawn": 0.22}}
    base.with_suffix(".json").write_text(json.dumps(card))
    state, _ = load_state(base)
    assert state["decoders.vessels.pen"].abs().sum() > 0, "the pen was trained"
    rgb = np.full((200, 200, 3), 90, np.uint8)
    (plain,), (drawn,) = (Segmenter(base, precision="float32", pen=pen).predict([rgb]) for pen in (None, "drawn"))
    assert not np.array_equal(plain.probabilities["vessel"], drawn.probabilities["vessel"])
    assert np.array_equal(plain.probabilities["hemorrhage"], drawn.probabilities["hemorrhage"]), "lesions have no pens"
    assert drawn.thresholds[TWIGS] == 0.22 and plain.thresholds[TWIGS] == 0.11
    assert drawn.thresholds["vessel"] == 0.61 and plain.thresholds["vessel"] == card["heads"]["vessel"]["threshold"]
    with pytest.raises(ValueError, match="knows drawn"):
        Segmenter(base, pen="driwe")
    own = config.model_copy(update={"own_trunk": True, "init": str(base), "out": config.out / "own", "steps": 1, "learning_rate": 1e-9})
    run_stage(own)
    grown = export_own_trunk(own, config.out / "grown.safetensors", per_dataset=2)
    pen = load_state(grown)[0]["decoders.vessels.pen"]
    assert torch.allclose(pen, state["decoders.vessels.pen"], atol=1e-3) and Segmenter(grown).pens == segmenter.pens
    other = {"vessels": config.tasks["vessels"].model_copy(update={"pen": 0.0}), "lesions_dr": config.tasks["lesions_dr"]}
    plainly = own.model_copy(update={"tasks": other, "out": config.out / "plain"})
    run_stage(plainly)
    assert Segmenter(export_own_trunk(plainly, config.out / "plain.safetensors", per_dataset=2)).pens == {}


def test_weights_between_two_networks():
    first = {"a": torch.tensor([0.0, 2.0]), "b": torch.zeros(2)}
    last = {"a": torch.tensor([4.0, 4.0]), "b": torch.ones(3), "c": torch.ones(1)}
    mixed = between(first, last, 0.25)
    assert mixed["a"].tolist() == [3.0, 3.5]
    assert mixed["b"].tolist() == [1.0] * 3 and mixed["c"].tolist() == [1.0], "what only the last has, or in another shape, is the last's"


def test_confidence_is_calibrated_on_the_masks_that_a_store_holds():
    """An artery is as wide as its vessel, however wide its own probabilities are: its Dice is that of the vessel's part."""
    photographs, expected, observed = [], [], []
    for k in range(24):
        vessel, artery, truth = np.full((128, 128), 0.05, np.float16), np.full((128, 128), 0.05, np.float16), np.zeros((128, 128), bool)
        vessel[60:66, 10:118], artery[54:72, 10:118] = 0.8, 0.6 + 0.015 * k
        truth[60:66, 10 : 70 + 2 * k] = True
        everywhere = np.ones((128, 128), bool)
        drawn = {"artery": (np.packbits(truth), np.packbits(everywhere))}
        probabilities = {"vessel": vessel, "artery": artery, "vein": np.full((128, 128), 0.1, np.float16)}
        photographs.append(_Photograph(probabilities, np.packbits(everywhere), drawn))
        observed.append(2 * truth.sum() / (truth.sum() + 6 * 108))
    found = _calibrations(photographs, {"vessel": 0.5, "artery": 0.5, "vein": 0.5})
    assert set(found) == {"artery"}
    for photograph in photographs:
        planes = {name: plane.astype(np.float32) for name, plane in photograph.probabilities.items()}
        mask = to_planes(planes, np.ones((128, 128), bool), {"vessel": 0.5})["artery"]
        assert mask.sum() == 6 * 108
        expected.append(expected_dice(smooth_classes(planes["artery"], planes["vein"], mask)[0], mask))
    gain, offset = found["artery"]
    assert gain * np.mean(expected) + offset == pytest.approx(np.mean(observed), abs=1e-3)
