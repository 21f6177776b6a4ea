"""Labels, losses, and a run of two steps that resumes."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from fundus_drawings import write_manifest

from retsam.segmentation.weights import load_state
from retsam.training import labels as lab
from retsam.training import losses
from retsam.training.augment import crop_affine, warp
from retsam.training.config import Finish, TaskConfig, TrainConfig
from retsam.training.frames import held_out, read_manifest, task_rows
from retsam.training.stages import run_stage
from retsam.training.trainer import rate_at, task_samplers

torch.set_num_threads(1)  # two workers on two cores: threads that wait for each other are many times slower


@pytest.fixture
def config(tmp_path):
    tasks = {
        "vessels": TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=128, share=3),
        "optic_nerve": TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=128),
        "lesions_dr": TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=128),
        "macula": TaskConfig(datasets={"drawn": 1}, crop=64, batch=2, frame=64),
    }
    manifest = write_manifest(tmp_path)
    return TrainConfig(
        manifest=manifest, root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks, steps=8, warmup=2, checkpoint_every=4
    )


def test_test_parts_and_their_groups_never_train(config):
    manifest = read_manifest(config)
    assert manifest["held_out"].tolist() == [False, False, True]
    assert len(task_rows(manifest, "vessels", config.tasks["vessels"])) == 2
    twin = manifest.assign(group=["drawn:0", "drawn:9", "drawn:0"])
    assert held_out(twin, config).tolist() == [True, False, True]
    half = config.model_copy(update={"holdout": {"drawn": 1.0}})
    with pytest.raises(ValueError, match="no labelled training photograph"):
        task_rows(read_manifest(half), "vessels", half.tasks["vessels"])


def test_folds_keep_every_group_out_once(config):
    manifest = pd.concat([read_manifest(config)] * 40, ignore_index=True).assign(split="train")
    manifest["group"] = [f"drawn:{number}" for number in range(len(manifest))]
    folds = [config.model_copy(update={"holdout": {"drawn": 0.2}, "holdout_from": shift}) for shift in (0.0, 0.2, 0.4, 0.6, 0.8)]
    held = np.array([held_out(manifest, fold) for fold in folds])
    assert (held.sum(0) == 1).all() and (held.sum(1) > 0).all()
    assert np.array_equal(held[0], held_out(manifest, config.model_copy(update={"holdout": {"drawn": 0.2}})))


def test_run_resumes_and_ships_half_precision(config):
    (path,) = run_stage(config.model_copy(update={"steps": 4}))
    first = (config.out / "checkpoint.pt").stat().st_mtime_ns
    assert torch.load(config.out / "checkpoint.pt", weights_only=True)["step"] == 4
    run_stage(config)
    assert torch.load(config.out / "checkpoint.pt", weights_only=True)["step"] == 8
    assert (config.out / "checkpoint.pt").stat().st_mtime_ns > first
    state, metadata = load_state(path)
    assert metadata["step"] == 8 and all(torch.isfinite(v).all() for v in state.values())


def test_experts_are_one_network_a_task(config):
    small = config.model_copy(update={"steps": 1})
    paths = run_stage(small, "experts", ("macula", "optic_nerve"))
    assert [p.parent.name for p in paths] == ["macula", "optic_nerve"]
    state, _ = load_state(paths[0])
    assert not any(name.startswith("decoders.optic_nerve") for name in state)
    with pytest.raises(ValueError, match="unknown tasks"):
        run_stage(config, "experts", ("ears",))
    with pytest.raises(ValueError, match="starts from a trained network"):
        run_stage(config, "adapt")


def test_adapt_starts_from_weights(config):
    (path,) = run_stage(config.model_copy(update={"steps": 1}))
    adapted = config.model_copy(update={"steps": 1, "init": str(path), "out": config.out / "adapted", "learning_rate": 1e-9})
    (tuned,) = run_stage(adapted, "adapt")
    before, after = load_state(path)[0], load_state(tuned)[0]
    assert torch.allclose(before["encoder._conv_stem.weight"], after["encoder._conv_stem.weight"], atol=1e-3)


def test_pseudo_labels_join_with_a_lower_weight(config, tmp_path):
    from retsam.training.pseudo import vessel_bits

    mean = {name: np.full((4, 4), value) for name, value in (("artery", 0.95), ("vein", 0.02), ("vessel", 0.6))}
    label = vessel_bits(mean, np.ones((4, 4), bool))
    bits = lab.VESSEL_BITS
    assert (label & bits["artery"]).all() and (label & bits["known_av"]).all()
    assert not (label & bits["known_vessel"]).any()  # 0.6 is not sure
    folder = tmp_path / "pseudo"
    folder.mkdir()
    side = 128
    np.save(folder / "vessels-rgb.npy", np.full((1, side, side, 3), 90, np.uint8))
    np.save(folder / "vessels-label.npy", np.full((1, side, side), label[0, 0], np.uint8))
    (folder / "vessels.csv").write_text("dataset,image,group,expected_dice,kept\ndrawn,a,drawn:a,0.9,True\n")
    run_stage(
        config.model_copy(
            update={"steps": 50, "warmup": 5, "pseudo_labels": folder, "pseudo_share": 3.0, "tasks": {"vessels": config.tasks["vessels"]}}
        )
    )
    rows = list(csv.reader((config.out / "log.csv").open()))
    assert any("vessels_pseudo" in cell for row in rows for cell in row)


def test_unknown_pixels_do_not_count():
    label = torch.full((1, 8, 8), lab.FOV_BIT | lab.VESSEL_BITS["known_vessel"], dtype=torch.uint8)
    label[:, :4] = lab.FOV_BIT
    logits = torch.zeros(1, 3, 8, 8)
    changed = logits.clone()
    changed[:, 2, :4] = 9  # where nobody looked
    changed[:, :2] = -7  # artery and vein are not known anywhere
    a, b = losses.vessel_loss(logits, label), losses.vessel_loss(changed, label)
    assert all(torch.isclose(a[name], b[name]) for name in a)
    changed[:, 2, 4:] = 9
    assert losses.vessel_loss(changed, label)["bce"] > a["bce"] + 1


def test_class_only_teaches_the_class_and_never_the_width():
    bits = lab.VESSEL_BITS
    label = torch.full((1, 4, 4), lab.FOV_BIT | bits["class_only"] | bits["artery"], dtype=torch.uint8)
    logits = torch.zeros(1, 3, 4, 4)
    wrong = logits.clone()
    wrong[:, 1] = 5
    assert losses.vessel_loss(logits, label)["bce"] == 0 and losses.vessel_loss(logits, label)["dice"] == 0
    assert losses.vessel_loss(wrong, label)["av"] > losses.vessel_loss(logits, label)["av"]


def test_rate_warms_up_stays_and_falls(config):
    long = config.model_copy(update={"steps": 1000, "warmup": 100, "cooldown": 0.3})
    assert rate_at(0, long) == pytest.approx(0.01) and rate_at(400, long) == 1 and rate_at(999, long) < 0.01


def test_experts_who_disagree_leave_pixels_unknown(tmp_path):
    import cv2

    for name, value in (("a", 255), ("b", 0)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((6, 6), value, np.uint8))
    row = {"disc": "a.png", "disc_expert2": "b.png", "disc_cup": np.nan}
    assert not (lab.nerve_label(row, tmp_path, (6, 6)) & lab.NERVE_BITS["known_disc"]).any()
    with pytest.raises(ValueError, match="expected 5x6"):
        lab.nerve_label(row, tmp_path, (6, 5))


@pytest.mark.parametrize(("task", "view", "head"), [("macula", "whole", "fovea"), ("lesions_dr", "fine", "microaneurysm")])
def test_one_decoder_is_tuned_and_nothing_else_moves(config, task, view, head):
    """Also one of lesions, some of which no shipped head segments: those have no part in the card, and get none."""
    from retsam.segmentation.weights import save_weights
    from retsam.training.export import export_only

    (path,) = run_stage(config)
    state, metadata = load_state(path)
    views = {f"views.{view}.{n}": v for n, v in state.items() if n.endswith(("running_mean", "running_var"))}
    base = config.out / "base.safetensors"
    save_weights(base, torch.nn.Module(), metadata, state | views)
    weak = {"laser_spot": {"status": "weak", "scores": {"a": 1}}}  # a target of the lesions' task, but not of its decoder
    heads = {head: {"status": "supervised", "scores": {"a": 1}, "tuned_steps": 5}} | weak
    base.with_suffix(".json").write_text(json.dumps({"name": "base", "heads": heads}))
    base.with_suffix(".learned.csv").write_text("content_hash,heads\nabc,drusen\n")
    one = config.model_copy(
        update={
            "only": [task],
            "tasks": {task: config.tasks[task]},
            "init": str(base),
            "out": config.out / "only",
            "learning_rate": 0.05,
        }
    )
    run_stage(one)
    before, after = load_state(base)[0], load_state(export_only(one, config.out / "tuned.safetensors"))[0]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and moved and all(name.startswith(f"decoders.{task}.") for name in moved)
    card = json.loads((config.out / "tuned.json").read_text())
    assert (config.out / "tuned.learned.csv").read_text() == base.with_suffix(".learned.csv").read_text(), "the list goes with its heads"
    assert card["heads"] == {head: {"status": "supervised", "tuned_steps": 13}} | weak, "scores of another decoder must not stay"
    with pytest.raises(ValueError, match="must name the same tasks"):
        run_stage(one.model_copy(update={"tasks": config.tasks, "out": config.out / "wrong"}))


def test_a_view_gets_a_trunk_of_its_own_and_the_others_keep_theirs(config):
    from retsam.segmentation.network import VIEWS
    from retsam.segmentation.predict import Segmenter
    from retsam.segmentation.weights import of_view
    from retsam.training.export import export, export_own_trunk

    run_stage(config)
    base = export(config, config.out / "base.safetensors", per_dataset=2)
    card = json.loads(base.with_suffix(".json").read_text())
    card["heads"]["vessel"]["scores"] = card["heads"]["disc"]["scores"] = {"drawn": {"dsc": 1.0}}
    base.with_suffix(".json").write_text(json.dumps(card))
    fine = {task: config.tasks[task] for task in VIEWS["fine"]}
    own = config.model_copy(
        update={"own_trunk": True, "tasks": fine, "init": str(base), "out": config.out / "own", "learning_rate": 0.05, "frozen": 0}
    )
    run_stage(own)
    grown = export_own_trunk(own, config.out / "grown.safetensors", per_dataset=2)
    before, after = load_state(base)[0], load_state(grown)[0]
    for view in ("whole", "roi"):
        old, new = of_view(before, view), of_view(after, view)
        assert all(torch.equal(old[name], new[name]) for name in old if not name.startswith(("decoders.vessels", "decoders.lesions_dr")))
    old, new = of_view(before, "fine"), of_view(after, "fine")
    assert any(not torch.equal(old[n], new[n]) for n in old if n.startswith("encoder."))
    assert any(not torch.equal(old[n], new[n]) for n in old if n.startswith("decoders.vessels."))
    heads = json.loads(grown.with_suffix(".json").read_text())["heads"]
    assert "scores" not in heads["vessel"] and heads["disc"]["scores"], "scores of another network must not stay"
    rgb = np.full((200, 200, 3), 90, np.uint8)
    (a,), (b,) = Segmenter(base).predict([rgb]), Segmenter(grown).predict([rgb])
    assert a.fovea == b.fovea and not np.array_equal(a.probabilities["vessel"], b.probabilities["vessel"])
    again = Segmenter(grown).networks["fine"].state_dict()["encoder._conv_stem.weight"]
    tuned = own.model_copy(update={"init": str(grown), "out": config.out / "again", "steps": 1, "learning_rate": 1e-9})
    run_stage(tuned)
    assert again.shape and torch.allclose(
        load_state(tuned.out / "weights.safetensors")[0]["encoder._conv_stem.weight"], new["encoder._conv_stem.weight"], atol=1e-4
    ), "a further run goes on from the view's own trunk"
    with pytest.raises(ValueError, match="are missing: their decoders fit the old trunk"):
        run_stage(own.model_copy(update={"tasks": {"vessels": fine["vessels"]}}))
    with pytest.raises(ValueError, match="expected `init` to be a weights file"):
        run_stage(own.model_copy(update={"init": "imagenet"}))


def test_crops_are_milder_over_the_last_part(config, monkeypatch):
    from retsam.training import augment

    seen = []
    recolour = augment.recolour
    monkeypatch.setattr(augment, "recolour", lambda rng, rgb, fov, degrade: seen.append(degrade) or recolour(rng, rgb, fov, degrade))
    macula = config.tasks["macula"].model_copy(update={"degrade": 0.9, "finish": Finish(scale=(0.9, 1.1), degrade=0.1)})
    run_stage(config.model_copy(update={"tasks": {"macula": macula}, "steps": 16, "cooldown": 0.5}))
    assert seen[0] == 0.9 and seen[-1] == 0.1 and seen == sorted(seen, reverse=True)


def test_turned_labels_keep_thin_vessels_whole():
    label = np.zeros((64, 64), np.uint8)
    label[31:33] = lab.VESSEL_BITS["vessel"] | lab.VESSEL_BITS["artery"]
    label |= lab.FOV_BIT
    matrix = crop_affine(np.random.default_rng(0), (31.5, 31.5), 64, 1.0, 20.0, False)
    rgb, turned = warp(np.zeros((64, 64, 3), np.uint8), label, matrix, 64)
    vessel = (turned & lab.VESSEL_BITS["vessel"]) > 0
    middle = vessel[:, 12:52]
    assert middle.any(0).all(), "no column may lose the vessel"
    assert abs(middle.sum() / middle.shape[1] - 2 / np.cos(np.deg2rad(20))) < 0.25, "its width stays two pixels across its direction"
    assert ((turned & lab.VESSEL_BITS["artery"]) > 0).sum() == vessel.sum()


def test_large_photographs_are_looked_at_closer(config):
    large = config.tasks["vessels"].model_copy(update={"large": 0.5, "frame": 1024})
    none = config.model_copy(update={"tasks": {"vessels": large}})
    with pytest.raises(ValueError, match="no photograph is 1.3 times as large"):
        task_samplers(none)
