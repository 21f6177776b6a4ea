"""Heads without pixel masks: words, painted lesions, losses, and a short run from photographs to shipped weights."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from fundus_drawings import MANIFEST_COLUMNS, drawn_eye

from retsam.quality.field_of_view import detect_field_of_view
from retsam.quality.metrics import content_hash
from retsam.segmentation.predict import Segmenter, prepare
from retsam.segmentation.weak import WeakHeads, tidy
from retsam.segmentation.weights import DEFAULT_WEIGHTS, load_state, read_card, save_weights
from retsam.training.weak import judge
from retsam.training.weak.brushes import Canvas
from retsam.training.weak.config import Rule, WeakConfig, Word
from retsam.training.weak.export import export_weak, merge_weak, rejudge
from retsam.training.weak.features import ZONE_BITS, Features, load_features, moved, zones
from retsam.training.weak.losses import absent_loss, painted_loss, present_loss
from retsam.training.weak.paint import PAINTERS, paint
from retsam.training.weak.trainer import train_weak
from retsam.training.weak.words import labelled, word_table

torch.set_num_threads(1)


def canvas(seed: int = 0, side: int = 512) -> Canvas:
    rgb, _ = drawn_eye(side)
    rng = np.random.default_rng(seed)
    fov = detect_field_of_view(rgb).mask()
    return Canvas(rgb.astype(np.float32) / 255, fov, (0.7 * side, side / 2, side / 7), (0.4 * side, side / 2), rng)


@pytest.mark.parametrize("target", PAINTERS)
def test_painters_change_the_picture_where_their_mask_is(target):
    for seed in range(4):
        own = canvas(seed)
        rgb, mask = paint(target, own)
        again, same = paint(target, canvas(seed))
        assert np.array_equal(rgb, again) and np.array_equal(mask, same)
        assert rgb.dtype == np.float32 and 0 <= rgb.min() and rgb.max() <= 1
        assert not (mask & ~own.fov).any()
        if target in ("peripapillary_atrophy", "patchy_atrophy", "diffuse_atrophy", "tessellation"):
            ys, xs = np.nonzero(mask)
            assert (np.hypot(xs - own.disc[0], ys - own.disc[1]) > 0.48 * own.disc[2]).all()
        change = np.abs(rgb - canvas(seed).rgb).sum(2)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((61, 61))) > 0
        assert mask.any() and change[mask].mean() > 4 * change[own.fov & ~near].mean()


def test_no_painter_is_said():
    with pytest.raises(ValueError, match="no painter for 'macular_hole'"):
        paint("macular_hole", canvas())


def make_config(tmp_path, **more) -> WeakConfig:
    rows = []
    for k in range(12):
        rgb, _ = drawn_eye(300, seed=k)
        if k % 3 == 0:
            cv2.circle(rgb, (110, 150), 9, (250, 230, 150), -1)
        cv2.imwrite(str(tmp_path / f"{k}.png"), rgb[..., ::-1])
        words = ("drusen, something", "normal fundus", "maybe drusen")[k % 3] if k < 9 else "drusen" if k == 9 else "normal fundus"
        row = {"dataset": "drawn", "image": f"{k}.png", "split": "test" if k >= 9 else "train", "group": f"drawn:{k}", "keywords": words}
        rows.append(row)
    manifest = tmp_path / "manifest.csv"
    pd.DataFrame(rows, columns=MANIFEST_COLUMNS).to_csv(manifest, index=False)
    rule = Rule(dataset="drawn", present="(^|,)drusen", unclear="maybe")
    settings = dict(
        manifest=manifest, root=tmp_path, out=tmp_path / "run", base=DEFAULT_WEIGHTS, tuning=0.0, negatives={"drawn": 9},
        healthy=[Rule(dataset="drawn", present="normal")],
        words={"drusen": Word(targets=("drusen",), zone="macula", rules=[rule])},
        painted={"drusen": 2}, versions=2, rare=0, batch=4, steps=4, warmup=1, checkpoint_every=2, judged=3,
    )  # fmt: skip
    return WeakConfig(**{**settings, **more})


def test_words_are_present_absent_or_unclear_and_test_parts_never_train(tmp_path):
    config = make_config(tmp_path)
    rows, words = labelled(config)
    assert len(rows) == 9 and "maybe drusen" not in set(rows["keywords"])  # nothing is known of the unclear ones
    assert words["drusen"].tolist() == rows["keywords"].str.startswith("drusen").astype(float).tolist()
    assert rows.loc[rows["part"] == "held_out", "image"].tolist() == ["9.png", "10.png", "11.png"]
    manifest = pd.read_csv(config.manifest)
    assert word_table(config, manifest)["drusen"].isna().sum() == 3
    with pytest.raises(ValueError, match="not in the taxonomy"):
        make_config(tmp_path, painted={"freckle": 3})
    with pytest.raises(ValueError, match="nothing teaches"):
        make_config(tmp_path, painted={}, words={"drusen": Word(targets=("drusen",))})


def test_zones_follow_the_landmarks():
    landmarks = np.array([350.0, 250.0, 70.0, 190.0, 260.0])
    bits = zones(np.ones((512, 512), bool), landmarks)
    at = lambda x, y: int(bits[int(y) // 4, int(x) // 4])  # noqa: E731
    assert not at(350, 250) & ZONE_BITS["off_disc"] and not at(350, 250) & ZONE_BITS["rim"]
    assert at(350, 295) & ZONE_BITS["rim"] and not at(350, 400) & ZONE_BITS["rim"]
    assert at(190, 260) & ZONE_BITS["macula"] and not at(480, 30) & ZONE_BITS["macula"]
    shifted = moved(landmarks, np.array([[2.0, 0, 5], [0, 2.0, -7]]))
    assert np.allclose(shifted, [705, 493, 140, 385, 513])
    lost = zones(np.ones((512, 512), bool), np.array([np.nan] * 3 + [190.0, 260.0]))
    assert not (lost & ZONE_BITS["rim"]).any() and (lost & ZONE_BITS["off_disc"]).all()


def test_losses_ask_for_what_the_words_say():
    word = Word(targets=("drusen",), zone="macula", least=0.05, most=0.2)
    zone = torch.ones(20, 20, dtype=torch.bool)
    nothing, some, all_over = torch.full((20, 20), -6.0), torch.full((20, 20), -6.0), torch.full((20, 20), 6.0)
    some[:2, :20] = 6.0
    at = {name: float(present_loss(z, zone, zone, word)) for name, z in (("none", nothing), ("some", some), ("all", all_over))}
    assert at["some"] < 0.1 < at["all"] < at["none"]
    assert present_loss(some, torch.zeros_like(zone), zone, word) is None
    absent = [float(absent_loss(z[None], torch.zeros(1), zone[None], word)) for z in (nothing, some)]
    assert absent[0] < 0.1 < absent[1]
    mask = (some > 0).float()
    good, bad = (float(painted_loss(z, torch.zeros(2), mask, zone, 0)) for z in (some, -some))
    assert good < 0.2 and bad > 5


def test_place_of_each_lesion():
    planes = {name: np.zeros((256, 256), bool) for name in ("disc", "peripapillary_atrophy", "drusen", "artifact")}
    cv2.circle(disc := np.zeros((256, 256), np.uint8), (128, 128), 20, 1, -1)
    planes["disc"] = disc > 0
    planes["peripapillary_atrophy"][110:146, 110:165] = True  # around the disc
    planes["peripapillary_atrophy"][10:30, 10:30] = True  # far away
    planes["drusen"][120:136, 60:140] = True
    planes["drusen"][200:203, 200:203] = True  # less than a cell of the logits
    planes["artifact"][120:136, 120:136] = True  # dust lies on the disc too
    before = {name: plane.copy() for name, plane in planes.items()}
    tidy(planes, ("peripapillary_atrophy", "drusen", "artifact"))
    assert planes["peripapillary_atrophy"].any() and not planes["peripapillary_atrophy"][:40].any()
    for name in ("peripapillary_atrophy", "drusen"):
        assert not (planes[name] & planes["disc"]).any()
    assert planes["drusen"][128, 70] and not planes["drusen"][190:].any()
    assert np.array_equal(planes["artifact"], before["artifact"]) and np.array_equal(planes["disc"], before["disc"])


def test_from_words_to_weights_without_moving_a_bit_of_the_other_heads(tmp_path):
    config = make_config(tmp_path, least_auc=0.5)
    train_weak(config.model_copy(update={"steps": 2}))
    assert torch.load(config.out / "checkpoint.pt", weights_only=True)["step"] == 2
    heads, about = load_state(train_weak(config))
    assert about["step"] == 4 and all(torch.isfinite(v).all() for v in heads.values())
    features = load_features(config)
    assert (features.table["part"] == "fit").all() and features.masks[features.table["painted"].notna()].max(axis=(1, 2)).min() > 0
    out = export_weak(config, tmp_path / "new.safetensors")

    base, extended = load_state(DEFAULT_WEIGHTS)[0], load_state(out)[0]
    assert {n for n in extended if not n.startswith("weak.")} == {n for n in base if not n.startswith("weak.")}
    assert all(torch.equal(base[n], extended[n]) for n in base if not n.startswith("weak."))
    card = read_card(out)
    head = card["heads"]["drusen"]
    assert head["confidence"] is None and head["confidence_reason"] and head["photographs"]["drawn"]["with_word"] == 3
    assert head["scores"]["drawn (held out)"]["auc"]["n"] == 3
    assert head["scores"]["drawn (held out)"]["shown_in_healthy"]["n"] == 2
    shipped = read_card(DEFAULT_WEIGHTS)["heads"]
    assert all(card["heads"][t] == e for t, e in shipped.items() if e["status"] == "supervised")

    learned = pd.read_csv(out.with_suffix(".learned.csv"))
    own = {content_hash(cv2.imread(str(tmp_path / f"{k}.png"))[..., ::-1]) for k in range(9) if k % 3 != 2}
    assert set(learned["content_hash"]) == own and set(learned["heads"]) == {"drusen"}

    merged = merge_weak(out, DEFAULT_WEIGHTS, tmp_path / "merged.safetensors")
    assert load_state(merged)[1] == load_state(out)[1] and all(torch.equal(v, extended[n]) for n, v in load_state(merged)[0].items())
    assert read_card(merged)["heads"] == card["heads"] and read_card(merged)["weak"]["learned_from"].startswith("merged.learned.csv")
    assert merged.with_suffix(".learned.csv").read_text() == out.with_suffix(".learned.csv").read_text()
    shifted = {n: v + (n.startswith("encoder.")) for n, v in extended.items()}
    save_weights(other := tmp_path / "other.safetensors", torch.nn.Module(), load_state(out)[1], shifted)
    other.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="train them on it"):
        merge_weak(out, other, tmp_path / "merged.safetensors")

    card["heads"]["drusen"]["status"] = "weak"
    found = card["heads"]["drusen"].pop("scores")
    out.with_suffix(".json").write_text(json.dumps(card))
    before = out.read_bytes()
    assert rejudge(config, out)["drusen"] == found  # nothing has changed: the same figures
    assert out.read_bytes() == before
    again = read_card(out)["heads"]["drusen"]
    assert again["scores"] == found and again["status"] == (
        "weak" if found["drawn (held out)"]["auc"]["value"] >= config.least_auc else "not_available"
    )
    with pytest.raises(ValueError, match="its weak heads are"):
        rejudge(config, DEFAULT_WEIGHTS)
    out.with_suffix(".json").write_text(json.dumps(card))
    item = prepare(drawn_eye(300)[0])
    old, new = (Segmenter(w).predict_prepared([item])[0] for w in (DEFAULT_WEIGHTS, out))
    supervised = [t for t, e in shipped.items() if e["status"] == "supervised" and t in old.probabilities]
    assert len(supervised) >= 9 and all(np.array_equal(old.probabilities[t], new.probabilities[t]) for t in supervised)
    assert old.fovea == new.fovea
    masks = new.masks()
    assert masks.planes["drusen"].shape == masks.fov.shape and "drusen" not in masks.confidence and not masks.faults()
    card["heads"]["drusen"]["status"] = "not_available"
    out.with_suffix(".json").write_text(json.dumps(card))
    assert "drusen" not in Segmenter(out, tasks=("optic_nerve", "weak")).predict_prepared([item])[0].probabilities


def test_thresholds_leave_healthy_eyes_clear(monkeypatch):
    """Heads that fire in every healthy eye at low thresholds get a high one; peripapillary atrophy is placed as prediction places it."""
    ys, xs = (np.mgrid[:128, :128] + 0.5) * 4
    landmarks = np.tile([256.0, 256.0, 70.0, 150.0, 256.0], (20, 1))
    away = np.hypot(xs - 256, ys - 256)
    ring, far = (away > 37) & (away < 60), np.hypot(xs - 60, ys - 60) < 30
    present = np.arange(20) < 10
    p = np.zeros((20, 2, 128, 128), np.float16)
    p[present, 0] = np.where(ring, 0.95, 0)  # at the disc
    p[~present, 0] = np.where(far, 0.95, 0)  # as sure, but elsewhere
    p[present, 1], p[~present, 1] = np.where(far, 0.9, 0), np.where(far, 0.5, 0)
    areas = judge.shown(p[:, 0], landmarks, "peripapillary_atrophy")
    assert (areas[0][present] > 0).all() and not areas[:, ~present].any()
    lost = judge.shown(p[~present, 0], np.full((10, 5), np.nan), "peripapillary_atrophy")
    assert (lost[0] > 0).all()  # without a disc, nothing says that it is elsewhere
    words = {t: Word(targets=(t,), rules=[Rule(dataset="drawn", present="x")]) for t in ("peripapillary_atrophy", "drusen")}
    config = WeakConfig(manifest="m", root="r", out="o", base="b", healthy=[], negatives={}, words=words)
    monkeypatch.setattr(judge, "probabilities", lambda *_: p)
    table = pd.DataFrame({"version": [0] * 20, "part": "tune"})
    features = Features({}, None, None, table, np.stack([present] * 2, 1) * 1.0, landmarks, ~present)
    found = judge.choose_thresholds(config, WeakHeads(config.branches), features)
    assert 0.5 < found["drusen"]["threshold"] <= 0.9 and found["drusen"]["threshold_auc"] == 1
    assert all(found[t]["shown_in_healthy"] == 0 for t in words)


def test_a_run_begins_with_the_heads_of_another(tmp_path):
    config = make_config(tmp_path, painted={}, negatives={"drawn": 2}, versions=1, steps=1, warmup=0)
    first = train_weak(config)
    again = config.model_copy(update={"init": first, "out": tmp_path / "second", "learning_rate": 1e-12, "weight_decay": 0.0, "ema": 0.0})
    before, after = load_state(first)[0], load_state(train_weak(again))[0]
    assert all(torch.allclose(v, after[n], atol=1e-3) for n, v in before.items() if n.endswith("weight"))
    with pytest.raises(ValueError, match="cannot be begun with: weak: expected"):
        other = {"laser": Word(targets=("laser_spot",), rules=config.words["drusen"].rules)}
        train_weak(again.model_copy(update={"out": tmp_path / "third", "words": other}))


def test_heads_of_another_trunk_are_refused(tmp_path):
    config = make_config(tmp_path)
    config.out.mkdir()
    model = WeakHeads(config.branches)
    torch.save({"trunk": "other", "step": 1, "model": model.state_dict()}, config.out / "checkpoint.pt")
    with pytest.raises(ValueError, match="trained on the trunk other"):
        train_weak(config.model_copy(update={"painted": {}, "negatives": {"drawn": 2}, "versions": 1}))
