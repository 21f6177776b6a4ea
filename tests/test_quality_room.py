"""Metrics follow what they claim to measure, grades follow metrics and thresholds, and copies are found."""

import json
import time

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from retsam.quality.cli import quality
from retsam.quality.config import QualityConfig
from retsam.quality.duplicates import _SAME_LIGHT, near_content, same_content
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.quality.grading import REASONS, grade_table, summary
from retsam.quality.metrics import METRICS, content_hash, measure_quality
from retsam.quality.model import HEADS, load_model, model_card
from retsam.quality.table import COLUMNS, as_table, measure_file, measure_shard


def render(side=768, seed=0, width=None):
    """A plausible retina: uneven orange background, disc, macula, vessels that arch from the disc and branch."""
    rng = np.random.default_rng(seed)
    width = width or side
    centre, radius = np.array([width / 2, side / 2]), 0.47 * side
    ys, xs = np.mgrid[:side, :width].astype(np.float32)
    disc = centre + radius * np.array([0.45, rng.uniform(-0.1, 0.1)])
    macula = centre + radius * np.array([-0.2, 0.05])

    def spot(point, sigma):
        return np.exp(-((xs - point[0]) ** 2 + (ys - point[1]) ** 2) / (2 * (sigma * radius) ** 2))

    light = 1 - 0.25 * ((xs - centre[0]) ** 2 + (ys - centre[1]) ** 2) / radius**2
    vessels = np.zeros((side, width), np.uint8)
    for _ in range(26):
        angle = rng.uniform(0, 2 * np.pi)
        point, thick = disc.copy(), rng.uniform(0.012, 0.024)
        for _ in range(60):
            step = radius * 0.03 * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(
                vessels, *[tuple(int(v * 16) for v in p) for p in (point, point + step)], 255, max(1, round(thick * radius)), cv2.LINE_AA, 4
            )
            point, angle, thick = point + step, angle + rng.normal(0, 0.12), thick * 0.985
    dark = cv2.GaussianBlur(vessels.astype(np.float32) / 255, (0, 0), 0.002 * side)
    red = 0.72 * light + 0.2 * spot(disc, 0.11) - 0.06 * dark
    green = (0.36 * light + 0.4 * spot(disc, 0.11) - 0.1 * spot(macula, 0.12)) * (1 - 0.35 * dark)
    blue = (0.13 * light + 0.2 * spot(disc, 0.11)) * (1 - 0.2 * dark)
    picture = np.stack([red, green, blue], -1)
    grain = cv2.resize(rng.normal(0, 1, (256, 256)).astype(np.float32), (width, side), interpolation=cv2.INTER_CUBIC)
    picture *= 1 + 0.015 * grain[..., None]
    inside = (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2 <= radius**2
    return (255 * np.clip(picture * inside[..., None], 0, 1)).round().astype(np.uint8)


def row_of(rgb, image_id="a"):
    return as_table([{"image_id": image_id, "status": "ok"} | measure_quality(rgb)])


@pytest.fixture(scope="module")
def good():
    return render()


@pytest.fixture(scope="module")
def metrics_of_good(good):
    return measure_quality(good)


def test_metrics_are_the_ones_described(metrics_of_good):
    assert set(METRICS) <= set(metrics_of_good) and set(METRICS) <= set(COLUMNS)
    assert all(np.isfinite(metrics_of_good[m]) for m in METRICS)
    assert set().union(*REASONS.values()) <= set(METRICS)


@pytest.mark.parametrize(
    "change, falls, rises",
    [
        (lambda p: cv2.GaussianBlur(p, (0, 0), 8), ["sharpness", "sharpness_medium", "vessel", "vessel_coverage"], []),
        (lambda p: (p * 0.15).astype(np.uint8), ["brightness"], ["darkness"]),
        (lambda p: np.where(p > 0, np.clip(p.astype(int) * 4, 0, 255), 0).astype(np.uint8), [], ["brightness", "saturation"]),
        (lambda p: (p * np.linspace(1, 0.1, p.shape[1])[None, :, None]).astype(np.uint8), ["illumination"], ["shadow"]),
        (lambda p: (0.25 * p + 0.75 * (p > 0) * np.array([120, 150, 150])).astype(np.uint8), ["contrast", "vessel"], ["not_red"]),
    ],
)
def test_damage_moves_its_metric(good, metrics_of_good, change, falls, rises):
    damaged = measure_quality(change(good))
    for name in falls:
        assert damaged[name] < metrics_of_good[name], name
    for name in rises:
        assert damaged[name] > metrics_of_good[name], name


def test_resolution_is_a_metric_of_its_own(metrics_of_good):
    """The same retina at 512 and 2048 px differs in its diameter and hardly in what the grade is made of."""
    rows = pd.concat([row_of(cv2.resize(render(2048), (side, side), interpolation=cv2.INTER_AREA), str(side)) for side in (512, 2048)])
    assert rows["fov_diameter_px"].iloc[1] == pytest.approx(4 * rows["fov_diameter_px"].iloc[0], rel=0.01)
    p = load_model()["reject"].probability(rows)
    assert abs(p[0] - p[1]) < 0.1
    for name in ("sharpness", "sharpness_medium", "vessel", "contrast", "illumination", "brightness"):
        assert rows[name].iloc[0] == pytest.approx(rows[name].iloc[1], abs=0.08), name


def test_field_of_view_survives_the_table(good):
    fov = detect_field_of_view(good)
    row = row_of(good).iloc[0]
    assert FieldOfView.from_columns(row) == fov
    assert fov.kind == "circle" and fov.radius == pytest.approx(0.47 * 768, rel=0.02)


def test_grades_of_extremes(good):
    rng = np.random.default_rng(0)
    pictures = {
        "good": good,
        "blurred": cv2.GaussianBlur(good, (0, 0), 14),
        "dark": (good * 0.06).astype(np.uint8),
        "noise": rng.integers(0, 255, good.shape, dtype=np.uint8),
        "page": np.where(rng.random((*good.shape[:2], 1)) > 0.08, 250, 10).astype(np.uint8).repeat(3, 2),
    }
    metrics = pd.concat([row_of(p, k) for k, p in pictures.items()], ignore_index=True)
    graded = grade_table(metrics, QualityConfig()).set_index("image_id")
    assert graded.loc["good", "grade"] != "reject"
    assert graded.loc[["blurred", "dark", "noise", "page"], "grade"].tolist() == ["reject"] * 4
    assert graded.loc[["noise", "page"], "reason"].tolist() == ["not_a_fundus"] * 2
    assert (graded["probability"].between(0, 1)).all()
    assert graded.loc["blurred", "probability"] < graded.loc["good", "probability"]
    assert graded.loc["blurred", "reasons"] and pd.isna(graded.loc["good", "reasons"]) or graded.loc["good", "grade"] == "usable"


def test_thresholds_act_in_grading_only(good):
    metrics = row_of(good)
    strict = QualityConfig(gradable_above=1.0, min_coverage=1.0)
    assert grade_table(metrics, QualityConfig(reject_above=0.0))["grade"].tolist() == ["reject"]
    assert grade_table(metrics, strict)["grade"].iloc[0] in ("usable", "reject")
    assert grade_table(metrics, QualityConfig(reject_above=1.0, gradable_above=0.0))["grade"].tolist() == ["gradable"]
    assert "grade" not in metrics and "probability" not in metrics


def test_low_resolution_is_noted_not_rejected(good):
    small = row_of(cv2.resize(good, (240, 240), interpolation=cv2.INTER_AREA))
    graded = grade_table(small, QualityConfig(reject_above=1.0, not_fundus_above=1.0))
    assert graded["grade"].iloc[0] != "reject" and "low_resolution" in graded["reasons"].iloc[0]
    tiny = grade_table(small, QualityConfig(reject_diameter_px=240, reject_above=1.0, not_fundus_above=1.0))
    assert tiny["grade"].iloc[0] == "reject" and "too_small" in tiny["reasons"].iloc[0]


def test_content_hash_is_of_pixels(tmp_path, good):
    Image.fromarray(good).save(tmp_path / "a.png")
    Image.fromarray(good).save(tmp_path / "b.tif")
    rows = [measure_file(n, str(tmp_path / n)) for n in ("a.png", "b.tif")]
    assert rows[0]["content_hash"] == rows[1]["content_hash"] == content_hash(good)
    changed = good.copy()
    changed[5, 5, 0] ^= 1
    assert content_hash(changed) != content_hash(good) != content_hash(good.reshape(768 * 2, -1, 3))


def test_duplicates_are_named_counted_and_the_first_is_kept(good):
    other = render(seed=1)
    metrics = pd.concat([row_of(p, k) for k, p in {"b": good, "a": good, "c": other, "d": good}.items()], ignore_index=True)
    cohort = pd.DataFrame({"image_id": ["a", "b", "c", "d"], "subject": ["1", "1", "2", "3"], "eye": ["R", "R", "L", "R"]})
    lenient = {"reject_above": 1.0, "not_fundus_above": 1.0}
    graded = grade_table(metrics, QualityConfig(**lenient), cohort).set_index("image_id")
    assert graded.index.tolist() == ["a", "b", "c", "d"]
    assert graded["duplicate_of"].fillna("").tolist() == ["", "a", "", "a"]
    assert graded.loc[["b", "d"], ["status", "reason", "grade"]].to_numpy().tolist() == [["failed", "duplicate", "reject"]] * 2
    assert "contradict" not in graded.loc["b", "detail"] and "subject 3 here, 1 there" in graded.loc["d", "detail"]
    assert any("failed, duplicate: 2" in line for line in summary(graded.reset_index()))
    kept = grade_table(metrics, QualityConfig(**lenient, duplicates="keep"), cohort)
    assert (kept["status"] == "ok").all() and kept["duplicate_of"].notna().sum() == 2


def test_one_photograph_many_times_is_compared_once(good):
    """Pairs of equal photographs would be four and a half million here."""
    table = row_of(good, "a").loc[[0] * 3000].reset_index(drop=True)
    began = time.process_time()
    assert near_content(table, 24).tolist() == [-1] + [0] * 2999
    assert time.process_time() - began < 1


def test_near_copies_are_those_of_every_pair():
    """Chains, repeats and rows without a hash: the earliest photograph within reach, as comparing all pairs finds it."""
    rng = np.random.default_rng(0)
    light = pd.DataFrame(dict.fromkeys(_SAME_LIGHT, 0.5), index=range(90))
    light["brightness"] += 0.01 * rng.integers(0, 4, 90)
    bits = np.repeat(rng.integers(0, 2, (6, 256), dtype=np.uint8), 15, axis=0)
    for row in bits:
        row[rng.choice(256, rng.choice([0, 0, 8]), replace=False)] ^= 1
    order = rng.permutation(90)
    packed = np.packbits(bits[order], axis=1)
    table = light.assign(perceptual_hash=[None if i % 17 == 3 else code.tobytes().hex() for i, code in enumerate(packed)])
    expected = [-1] * 90
    for i in range(90):
        for j in range(i):
            near = abs(table["brightness"][i] - table["brightness"][j]) <= _SAME_LIGHT["brightness"]
            known = i % 17 != 3 and j % 17 != 3
            if expected[i] < 0 and near and known and np.bitwise_count(packed[i] ^ packed[j]).sum() <= 12:
                expected[i] = j
    assert near_content(table, 12).tolist() == expected and 10 < expected.count(-1) < 80


def test_near_duplicates(good):
    jpeg = cv2.imdecode(cv2.imencode(".jpg", cv2.resize(good, (500, 500), interpolation=cv2.INTER_AREA), [1, 70])[1], 1)
    pictures = {"a": good, "small": jpeg, **{f"o{k}": render(seed=k) for k in range(1, 6)}, "mirror": np.ascontiguousarray(good[:, ::-1])}
    metrics = pd.concat([row_of(p, k) for k, p in pictures.items()], ignore_index=True)
    assert near_content(metrics, 24).tolist() == [-1, 0] + [-1] * 6
    lenient = {"reject_above": 1.0, "not_fundus_above": 1.0}
    graded = grade_table(metrics, QualityConfig(**lenient)).set_index("image_id")
    assert graded.loc["small", "near_duplicate_of"] == "a" and graded.loc["small", "status"] == "ok"
    dropped = grade_table(metrics, QualityConfig(**lenient, duplicates="near")).set_index("image_id")
    assert dropped.loc["small", ["status", "reason", "duplicate_of"]].tolist() == ["failed", "duplicate", "a"]


def test_same_content_ignores_unread_photographs():
    assert same_content(pd.Series([None, "x", None, "x", "y"], dtype="string")).tolist() == [-1, -1, -1, 1, -1]


def test_bad_photographs_are_rows(tmp_path, good):
    Image.fromarray(good).save(tmp_path / "ok.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (400, 400), (90, 40, 20)).save(tmp_path / "plain.png")
    names = ["ok", "empty", "text", "one", "plain", "gone"]
    shard = pd.DataFrame({"image_id": names, "path": [str(tmp_path / f"{n}.png") for n in names], "um_per_px": [8.5] + [np.nan] * 5})
    table = measure_shard(shard)
    assert table["image_id"].tolist() == names and list(table.columns) == list(COLUMNS)
    assert table["reason"].fillna("ok").tolist() == ["ok", "empty", "unreadable", "too_small", "no_field_of_view", "missing"]
    assert table.loc[table["status"] == "failed", "detail"].notna().all()
    assert table["um_per_px"].iloc[0] == 8.5
    # A shard of nothing but failures has the same column types, so shards can be joined.
    assert (measure_shard(shard.iloc[1:]).dtypes == table.dtypes).all()
    graded = grade_table(table, QualityConfig())
    assert graded["grade"].iloc[1:].tolist() == ["reject"] * 5 and graded["reasons"].tolist()[1:] == table["reason"].tolist()[1:]
    assert graded["probability"].iloc[1:].isna().all()


def test_an_error_in_one_photograph_is_its_row(tmp_path, good, monkeypatch):
    Image.fromarray(good).save(tmp_path / "a.png")

    def broken(*_):
        raise ZeroDivisionError("inside the metrics")

    monkeypatch.setattr("retsam.quality.table.measure_quality", broken)
    row = measure_file("a", str(tmp_path / "a.png"))
    assert (row["status"], row["reason"]) == ("failed", "internal_error") and "inside the metrics" in row["detail"]


def test_any_number_of_processes_gives_the_same(tmp_path):
    for k in range(4):
        Image.fromarray(render(256, k)).save(tmp_path / f"{k}.png")
    shard = pd.DataFrame({"image_id": [str(k) for k in range(4)], "path": [str(tmp_path / f"{k}.png") for k in range(4)]})
    pd.testing.assert_frame_equal(measure_shard(shard, jobs=1), measure_shard(shard, jobs=2))


def test_grading_says_what_it_lacks(good):
    metrics = row_of(good)
    with pytest.raises(ValueError, match="1 of 2 photographs of the cohort have no metrics, for example b"):
        grade_table(metrics, QualityConfig(), pd.DataFrame({"image_id": ["a", "b"]}))
    with pytest.raises(ValueError, match="more than once: a"):
        grade_table(pd.concat([metrics, metrics]), QualityConfig())


def test_commands(tmp_path, good):
    Image.fromarray(good).save(tmp_path / "a.png")
    Image.fromarray(render(seed=3)).save(tmp_path / "b.png")
    (tmp_path / "c.yaml").write_text(f"study: t\ncohort:\n  samplesheet: {tmp_path}\n")
    cohort = pd.DataFrame(
        {"image_id": ["a", "b"], "path": [str(tmp_path / "a.png"), str(tmp_path / "b.png")], "eye": ["R", ""], "um_per_px": ""}
    )
    cohort.to_csv(tmp_path / "s0000.csv", index=False)
    cohort.assign(subject=["1", "2"]).to_parquet(tmp_path / "cohort.parquet")
    runner = CliRunner()
    common = ["--config", str(tmp_path / "c.yaml")]
    done = runner.invoke(
        quality, ["metrics", *common, "--shard-file", str(tmp_path / "s0000.csv"), "--out", str(tmp_path / "m" / "s0000.parquet")]
    )
    assert done.exit_code == 0, done.output
    done = runner.invoke(
        quality,
        [
            "grade",
            *common,
            "--cohort",
            str(tmp_path / "cohort.parquet"),
            "--metrics",
            str(tmp_path / "m"),
            "--out",
            str(tmp_path / "q.parquet"),
        ],
    )
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(tmp_path / "q.parquet")
    assert table["image_id"].tolist() == ["a", "b"] and {
        "grade",
        "probability",
        "reasons",
        "fov_radius",
        "content_hash",
        "duplicate_of",
    } <= set(table)


def test_model_card_is_whole():
    card = model_card()
    assert set(card["heads"]) == set(HEADS)
    for head in card["heads"].values():
        assert set(head["features"]) <= {*METRICS, "fov_coverage"}
    assert card["data"] and card["split"] and card["command"]
    held_out = card["held_out"]
    assert held_out["reject"]["auc"]["ci_low"] <= held_out["reject"]["auc"]["value"] <= held_out["reject"]["auc"]["ci_high"]
    assert held_out["reject"]["auc"]["value"] >= 0.95 and held_out["not_fundus"]["recall_drimdb"]["value"] == 1.0
    json.dumps(card)
