"""Evaluation of a manifest: encodings, scores, rows with reasons, intervals, files and pictures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from evaluation_fakes import FakeSegmenter, ellipse
from PIL import Image

from retsam.evaluation import run
from retsam.evaluation.cli import evaluate as command
from retsam.evaluation.gallery import error_overlay, write_gallery
from retsam.evaluation.histogram import Histogram
from retsam.evaluation.reference import ManifestError, read_manifest, read_reference
from retsam.evaluation.scoring import ImageScore
from retsam.evaluation.summary import Bootstrap, summarise

SHAPE = (96, 120)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def photograph(folder, key, shape=SHAPE):
    image = np.random.default_rng(key).integers(30, 200, (*shape, 3), dtype=np.uint8)
    image[0, 0, 0] = key
    Image.fromarray(image).save(folder / f"{key}.png")
    return f"{key}.png"


def save(folder, name, values):
    values = np.asarray(values)
    Image.fromarray(values.astype(np.uint8) * 255 if values.dtype == bool else values.astype(np.uint8)).save(folder / name)
    return name


def write(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def lines():
    artery, vein = np.zeros((2, *SHAPE), bool)
    artery[20:24, 10:110] = True
    vein[60:66, 10:110] = True
    return artery, vein


def test_perfect_prediction(tmp_path):
    """A segmenter that knows the truth scores 1 everywhere, and nothing is scored that is not labelled."""
    artery, vein = lines()
    av = artery * 1 + vein * 2
    disc, cup = ellipse(SHAPE, 60, 48, 20, 18), ellipse(SHAPE, 60, 48, 9, 9)
    lesions = ellipse(SHAPE, 90, 80, 4, 4) * 1 + ellipse(SHAPE, 20, 80, 5, 5) * 4
    row = dict(dataset="toy", image=photograph(tmp_path, 1), vessel=save(tmp_path, "v.png", artery | vein))
    row |= dict(av=save(tmp_path, "av.png", av), disc_cup=save(tmp_path, "dc.png", disc * 1 + cup), fovea_x=30.0)
    row |= dict(lesions=save(tmp_path, "l.png", lesions), fovea_y=40.0, expert_vcdr=0.55)
    planes = dict(artery=artery, vein=vein, vessel=artery | vein, disc=disc, cup=cup)
    planes |= dict(microaneurysm=lesions & 1, hard_exudate=lesions & 4 > 0)
    manifest = read_manifest(write(tmp_path, [row]))
    result = run.evaluate(FakeSegmenter({1: (planes, (30.0, 40.0))}), manifest, tmp_path, resamples=20, progress=False)
    scores = result.scores["toy"]
    assert set(scores) == {"vessel", "artery", "vein", "artery_vein", "disc", "cup", "microaneurysm", "hard_exudate", "fovea", "vcdr",
                           "hemorrhage", "cotton_wool_spot"}  # fmt: skip
    for target in ("vessel", "artery", "vein", "disc", "cup", "microaneurysm", "hard_exudate"):
        for metric in ("dsc", "jac", "sensitivity", "precision", "aupr"):
            assert scores[target][metric]["value"] == scores[target][metric]["pooled"] == 1, (target, metric)
    assert scores["vessel"]["cldice"]["value"] == 1 and "cldice" not in scores["disc"]
    assert scores["disc"]["hd95"]["value"] == 0 and "hd95" not in scores["vessel"]
    assert scores["artery_vein"]["accuracy"]["value"] == scores["artery_vein"]["accuracy_found"]["value"] == 1
    assert scores["fovea"]["distance_dd"]["value"] == 0 and scores["fovea"]["within_0.25_dd"]["value"] == 1
    assert scores["vcdr"]["error"]["value"] == 0 and scores["vcdr"]["expert_error"]["value"] == pytest.approx(abs(0.55 - 19 / 37), abs=1e-6)
    # labelled as absent, and nothing predicted: no Dice, one image of no false positive
    absent = scores["hemorrhage"]["dsc"]
    assert (absent.pop("n"), absent.pop("n_groups"), absent.pop("n_pooled")) == (0, 0, 1) and set(absent.values()) == {None}
    assert result.images.loc[0, "status"] == "ok" and result.images.loc[0, "hemorrhage_predicted_px"] == 0


def test_crossings_and_uncertain_pixels(tmp_path):
    """3 is both, but unknown in HRF; 4 is never counted. An av mask alone gives classes, not widths."""
    av = np.zeros(SHAPE, np.uint8)
    av[10], av[20], av[30], av[40] = 1, 2, 3, 4
    files = dict(av=save(tmp_path, "av.png", av), vessel=save(tmp_path, "v.png", av > 0))

    def reference(**row):
        return read_reference(row, tmp_path, SHAPE)

    drive, hrf = reference(dataset="drive", **files), reference(dataset="hrf", **files)
    assert drive.masks["artery"].sum() == drive.masks["vein"].sum() == 240 and drive.ignored["artery"].sum() == 120
    assert hrf.masks["artery"].sum() == hrf.masks["vein"].sum() == 120 and hrf.ignored["vein"].sum() == 240
    assert not drive.valid("artery")[40].any() and drive.valid("vessel") is None and not drive.class_only
    alone = reference(dataset="avrdb", av=files["av"])
    assert alone.class_only and "vessel" not in alone.masks
    manifest = read_manifest(write(tmp_path, [dict(dataset="avrdb", image=photograph(tmp_path, 5), av=files["av"])]))
    planes = dict(artery=np.where(av == 1, 0.4, 0.1), vein=np.where(av == 2, 0.3, 0.2), vessel=av == 1)
    scores = run.evaluate(FakeSegmenter({5: (planes, None)}), manifest, tmp_path, 10, progress=False).scores["avrdb"]
    assert set(scores) == {"artery_vein"}
    # under the threshold, but the artery's probability is the larger on its pixels; veins are not found as vessel
    assert scores["artery_vein"]["accuracy"]["value"] == 1
    images = run.evaluate(FakeSegmenter({5: (planes, None)}), manifest, tmp_path, 10, progress=False).images
    assert images.loc[0, "artery_vein_accuracy_found"] == 1


def test_field_of_view_counts(tmp_path):
    vessel, fov = np.zeros((2, *SHAPE), bool)
    vessel[10:14, 10:100], fov[:50] = True, True
    predicted = vessel.copy()
    predicted[70:90] = True  # outside: does not count where a field of view is given
    rows = [dict(dataset="a", image=photograph(tmp_path, 1), vessel=save(tmp_path, "v.png", vessel), fov=save(tmp_path, "f.png", fov))]
    rows += [dict(dataset="b", image="1.png", vessel="v.png")]
    manifest = read_manifest(write(tmp_path, rows))
    scores = run.evaluate(FakeSegmenter({1: (dict(vessel=predicted), None)}), manifest, tmp_path, 10, progress=False).scores
    assert scores["a"]["vessel"]["dsc"]["value"] == 1 and scores["b"]["vessel"]["dsc"]["value"] < 0.3


def test_lesion_labels_and_images(tmp_path, rng):
    """A missing bit is absence, unless it was not looked for; image-level AUC where some images have the lesion."""
    bits = [4, 0, 4, 0, 0, 0]
    rows, answers = [], {}
    for i, bit in enumerate(bits):
        blob = ellipse(SHAPE, 40 + 5 * i, 50, 6, 6)
        lesions = save(tmp_path, f"l{i}.png", blob * bit)
        rows.append(dict(dataset="toy", image=photograph(tmp_path, i + 1), lesions=lesions, lesions_labelled=12))
        answers[i + 1] = (dict(hard_exudate=np.where(blob, 0.9 if bit else 0.3 + 0.02 * i, 0.01), microaneurysm=blob), None)
    rows.append(dict(dataset="coarse", image="1.png", bright=save(tmp_path, "b.png", ellipse(SHAPE, 40, 50, 6, 6) * 1)))
    rows.append(dict(dataset="coarse", image="2.png", bright=save(tmp_path, "b2.png", ellipse(SHAPE, 45, 50, 6, 6) * 2)))
    manifest = read_manifest(write(tmp_path, rows))
    result = run.evaluate(FakeSegmenter(answers, batch_size=4), manifest, tmp_path, 50, progress=False)
    toy, coarse = result.scores["toy"], result.scores["coarse"]
    assert set(toy) == {"hard_exudate", "cotton_wool_spot"}
    assert toy["hard_exudate"]["dsc"]["n"] == 2
    assert toy["hard_exudate"]["image_auc"]["value"] == 1 and toy["hard_exudate"]["image_auc"]["n"] == 6
    assert "image_auc" not in toy["cotton_wool_spot"]
    assert coarse["hard_exudate"]["image_auc"]["value"] == 1
    assert toy["hard_exudate"]["aupr"]["pooled"] == 1


def test_every_figure_stands_beside_its_n(tmp_path):
    """Two of six images have the lesion: their Dice coefficient is of two, the pooled AUPR and the AUC of all."""
    rows, answers = [], {}
    for k in range(1, 7):
        blob = ellipse(SHAPE, 40, 50, 6, 6)
        rows.append(dict(dataset="toy", image=photograph(tmp_path, k), lesions=save(tmp_path, f"l{k}.png", blob * 4 * (k < 3))))
        answers[k] = (dict(hard_exudate=np.roll(blob, k, 1)), None)
    scores = run.evaluate(FakeSegmenter(answers), read_manifest(write(tmp_path, rows)), tmp_path, 50, progress=False).scores
    entry = scores["toy"]["hard_exudate"]
    assert (entry["aupr"]["n"], entry["aupr"]["n_pooled"], entry["dsc"]["n_groups"]) == (2, 6, 2)
    line = run.table(scores).set_index("target").loc["hard_exudate"]
    assert line["n"] == 6 and line["dsc"].endswith("[n = 2]") and "[" not in line["aupr"]
    assert "[" not in line["other"].split("image_auc ")[1]


def test_a_cup_that_nobody_drew_has_no_ratio(tmp_path):
    """A disc drawn without a cup says nothing of the cup's height; a drawn cup that was not found costs."""
    disc, cup = ellipse(SHAPE, 60, 48, 20, 18), ellipse(SHAPE, 60, 48, 9, 9)
    masks = [save(tmp_path, f"m{k}.png", disc * 1 + cup * k) for k in (0, 1)]
    rows = [dict(dataset="d", image=photograph(tmp_path, k + 1), disc_cup=mask) for k, mask in enumerate(masks)]
    answers = {1: (dict(disc=disc, cup=cup), None), 2: (dict(disc=disc), None)}
    vcdr = run.evaluate(FakeSegmenter(answers), read_manifest(write(tmp_path, rows)), tmp_path, 10, progress=False).scores["d"]["vcdr"]
    assert vcdr["error"]["n"] == 1 and vcdr["bias"]["value"] == pytest.approx(-19 / 37, abs=1e-6)


def test_positions_in_disc_diameters(tmp_path):
    """The reference's disc measures; without one the predicted; without any the median of the others. A lost fovea is in no circle."""
    disc = ellipse(SHAPE, 80, 48, 10, 10)
    rows = [dict(dataset="d", image=photograph(tmp_path, k), od_x=80, od_y=48, fovea_x=40, fovea_y=48) for k in range(1, 5)]
    answers = {1: (dict(disc=disc), (40.0, 52.8)), 2: (dict(disc=disc), None), 3: ({}, (40.0, 60.0))}
    answers[4] = (dict(disc=np.roll(disc, 4, 0)), (40.0, 48.0))
    result = run.evaluate(FakeSegmenter(answers), read_manifest(write(tmp_path, rows)), tmp_path, 20, progress=False)
    images, scores = result.images, result.scores["d"]
    assert list(images.dd_source) == ["predicted", "predicted", "median", "predicted"]
    assert images.dd_px.to_numpy() == pytest.approx([20] * 4, abs=0.3)
    assert images.fovea_distance_dd.to_numpy()[[0, 2, 3]] == pytest.approx([0.24, 0.6, 0], abs=0.01)
    assert np.isnan(images.fovea_distance_dd[1]) and list(images["fovea_within_0.5_dd"]) == [1, 0, 0, 1]
    fovea = scores["fovea"]
    assert fovea["found"]["value"] == 0.75 and fovea["distance_dd"]["n"] == 3 and fovea["within_0.5_dd"]["n"] == 4
    assert scores["disc"]["distance_dd"]["value"] == pytest.approx(0.2 / 3, abs=0.01) and scores["disc"]["found"]["value"] == 0.75


def test_bad_images_are_rows(tmp_path):
    vessel = np.zeros(SHAPE, bool)
    vessel[10:14] = True
    mask = save(tmp_path, "v.png", vessel)
    small = save(tmp_path, "small.png", vessel[::2, ::2])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot")
    rows = [dict(dataset="t", image=photograph(tmp_path, k), vessel=mask) for k in (1, 2, 3)]
    rows += [dict(dataset="t", image="broken.png", vessel=mask), dict(dataset="t", image="gone.png", vessel=mask)]
    rows += [dict(dataset="t", image="1.png", vessel="nomask.png"), dict(dataset="t", image="1.png", vessel=small)]
    rows += [dict(dataset="t", image="1.png"), dict(dataset="t", image="1.png", vessel=mask, lesions="nolesions.png")]
    manifest = read_manifest(write(tmp_path, rows))
    segmenter = FakeSegmenter({1: (dict(vessel=vessel), None), 2: ({}, None), 3: (dict(vessel=vessel), None)}, broken={2})
    result = run.evaluate(segmenter, manifest, tmp_path, 10, progress=False)
    images = result.images
    assert list(images.status) == ["ok", "failed", "ok", "failed", "failed", "failed", "failed", "failed", "partial"]
    assert list(images.reason.iloc[[1, 4, 5, 6, 7, 8]]) == [
        "prediction_failed", "missing", "missing_mask", "unusable_mask", "no_reference", "missing_mask"]  # fmt: skip
    assert images.reason[3] in ("unreadable", "truncated")
    assert "image 2 is beyond me" in images.detail[1] and "expected 120x96 px" in images.detail[6] and "nolesions.png" in images.detail[8]
    assert result.scores["t"]["vessel"]["dsc"]["n"] == 3 and result.scores["t"]["vessel"]["dsc"]["value"] == 1


def test_manifest_faults_all_at_once(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("dataset,image,fovea_x\na,1.png,left\n,2.png,3\n")
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert "row 2, fovea_x: 'left'" in str(error.value) and "row 3: dataset or image is empty" in str(error.value)
    path.write_text("dataset,image,has_drusen\na,1.png,yes\na,2.png,1\na,3.png,\na,4.png,2\n")
    with pytest.raises(ManifestError, match=r"2 faults[\s\S]*row 2, has_drusen: 'yes' is not 0 or 1[\s\S]*row 5, has_drusen: '2'"):
        read_manifest(path)
    path.write_text("set,picture\na,b\n")
    with pytest.raises(ManifestError, match=r"2 faults[\s\S]*'dataset'[\s\S]*'image'"):
        read_manifest(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def image_score(dsc, tp=10, fp=0, fn=0):
    return ImageScore(values={"vessel": {"dsc": dsc}}, counts={"vessel": {"tp": tp, "fp": fp, "fn": fn}})


def test_bootstrap_by_group(rng):
    """Groups are drawn whole: one group has no interval, and doubling every image narrows nothing."""
    values = rng.random(40)
    scores = [image_score(v) for v in values]
    lone = summarise(scores, ["a"] * 40, 200)["vessel"]["dsc"]
    assert lone["value"] == pytest.approx(values.mean(), abs=1e-6)
    assert {lone[f"{pooled}ci_{end}"] for pooled in ("", "pooled_") for end in ("low", "high")} == {None}
    assert (lone["n"], lone["n_pooled"], lone["n_groups"]) == (40, 40, 1)
    own = summarise(scores, [str(i) for i in range(40)], 4000)["vessel"]["dsc"]
    half = 1.96 * values.std() / np.sqrt(40)
    assert own["ci_high"] - own["ci_low"] == pytest.approx(2 * half, rel=0.08)
    twice = summarise(scores * 2, [str(i) for i in range(40)] * 2, 4000)["vessel"]["dsc"]
    assert twice["ci_high"] - twice["ci_low"] == pytest.approx(2 * half, rel=0.08) and twice["n"] == 80
    assert Bootstrap(["a", "b"], 50).weights.sum(1).tolist() == [2.0] * 50


def test_pooled_is_of_all_pixels():
    out = summarise([image_score(1.0, 100, 0, 0), image_score(0.0, 0, 50, 50), ImageScore()], ["a", "b", "c"], 100)["vessel"]["dsc"]
    assert out["value"] == 0.5 and out["pooled"] == pytest.approx(200 / 300, abs=1e-6) and out["n"] == 2
    histograms = [Histogram.of(np.array([0.9, 0.2]), np.array([True, False])), Histogram.of(np.array([0.1, 0.5]), np.array([True, False]))]
    scores = [ImageScore(values={"drusen": {"aupr": h.average_precision()}}, histograms={"drusen": h}) for h in histograms]
    out = summarise(scores, ["a", "b"], 100)["drusen"]["aupr"]
    assert out["value"] == pytest.approx((1 + 0.5) / 2) and out["pooled"] == pytest.approx((1 + 2 / 4) / 2)


def test_command(tmp_path, monkeypatch):
    """Files, filters, table, pictures and messages of `retsam evaluate`."""
    import retsam.segmentation.predict as predict

    vessel = np.zeros(SHAPE, bool)
    vessel[10:14, 5:100] = True
    rows, answers = [], {}
    for k in range(1, 6):
        rows.append(dict(dataset="one" if k < 5 else "two", image=photograph(tmp_path, k), split="test" if k > 1 else "train", group=k // 2,
                         vessel=save(tmp_path, f"v{k}.png", vessel), fovea_x=50, fovea_y=60))  # fmt: skip
        answers[k] = (dict(vessel=np.roll(vessel, k - 2, 0)), (50.0, 60.0))
    path = write(tmp_path, rows)
    monkeypatch.setattr(predict, "Segmenter", lambda **options: FakeSegmenter(answers, **options))
    out, pictures = tmp_path / "out" / "scores.json", tmp_path / "pictures"
    args = ["--manifest", str(path), "--out", str(out), "--quiet", "--resamples", "20"]
    result = CliRunner().invoke(command, [*args, "--split", "test", "--dataset", "one", "--overlays", str(pictures)])
    assert result.exit_code == 0, result.output
    scores = json.loads(out.read_text())
    assert list(scores) == ["one"] and {"value", "pooled", "ci_low", "ci_high", "n"} <= set(scores["one"]["vessel"]["dsc"])
    dsc = scores["one"]["vessel"]["dsc"]
    assert dsc["n"] == 3 and 0 < dsc["ci_low"] <= dsc["value"] <= dsc["ci_high"]
    assert len(pd.read_csv(out.with_suffix(".csv"))) == len(pd.read_parquet(out.with_suffix(".parquet"))) == 3
    about = json.loads(out.with_suffix(".run.json").read_text())
    assert about["images"] == {"ok": 3} and about["weights_sha256"] == "0" * 64
    names = sorted(p.name for p in (pictures / "one").iterdir())
    assert [n for n in names if n.startswith("vessel_worst1")] == ["vessel_worst1_0.500_4.jpg"] and any("fovea" in n for n in names)
    assert "vessel" in result.output and "3 ok" in result.output
    assert CliRunner().invoke(command, [*args, "--limit", "1"]).exit_code == 0
    assert len(pd.read_csv(out.with_suffix(".csv"))) == 2
    wrong = CliRunner().invoke(command, [*args, "--dataset", "three", "--split", "val"])
    assert wrong.exit_code == 1 and "'three'" in wrong.output and "'val'" in wrong.output and "one, two" in wrong.output
    assert CliRunner().invoke(command, []).exit_code == 2
    for k in range(1, 6):
        (tmp_path / f"{k}.png").unlink()
    nothing = CliRunner().invoke(command, args)
    assert nothing.exit_code == 1 and "no image could be scored: missing (5)" in nothing.output
    assert json.loads(out.read_text()) == {}


def test_error_overlay_colours():
    rgb = np.full((20, 20, 3), 100, np.uint8)
    predicted, reference, valid = np.zeros((2, 20, 20), bool)[0], np.zeros((20, 20), bool), np.ones((20, 20), bool)
    predicted[:10, :10], reference[5:15, :10], valid[:, 15:] = True, True, False
    picture = error_overlay(rgb, predicted, reference, valid).astype(int)
    assert picture[7, 5].argmax() == 1 and picture[2, 5].argmax() == 0 and picture[12, 5].argmax() == 2
    assert picture[2, 17].sum() < picture[17, 5].sum()


def test_gallery_of_all_kinds(tmp_path):
    artery, vein = lines()
    disc = ellipse(SHAPE, 60, 48, 20, 18)
    row = dict(dataset="x/y", image=photograph(tmp_path, 1), av=save(tmp_path, "av.png", artery * 1 + vein * 2), fovea_x=30, fovea_y=30)
    row |= dict(vessel=save(tmp_path, "v.png", artery | vein), disc_cup=save(tmp_path, "dc.png", disc * 1))
    manifest = read_manifest(write(tmp_path, [row]))
    segmenter = FakeSegmenter({1: (dict(artery=vein, vein=vein, vessel=artery, disc=np.roll(disc, 5, 0)), None)})
    result = run.evaluate(segmenter, manifest, tmp_path, 10, progress=False)
    written = write_gallery(result, segmenter, manifest, tmp_path, tmp_path / "g")
    assert {p.name.split("_worst")[0] for p in written} == {"vessel", "artery", "vein", "artery_vein", "disc", "fovea"}
    assert all(Image.open(p).size[0] > 100 for p in written)


def test_each_data_set_is_drawn_in_its_own_pen(tmp_path):
    vessel = np.ones(SHAPE, bool)
    names = ("drive", "drive", "stare", "drive")
    rows = [
        dict(dataset=name, image=photograph(tmp_path, i + 1), vessel=save(tmp_path, f"v{i}.png", vessel)) for i, name in enumerate(names)
    ]
    segmenter = FakeSegmenter({i + 1: (dict(vessel=vessel), None) for i in range(4)}, batch_size=3)
    run.evaluate(segmenter, read_manifest(write(tmp_path, rows)), tmp_path, 10, progress=False, own_pen=True)
    assert list(zip(segmenter.batches, segmenter.drawn_in, strict=True)) == [(2, "drive"), (1, None), (1, "drive")]


def test_own_pens_are_never_quietly_left_out(tmp_path, monkeypatch):
    from retsam.segmentation import predict

    vessel = np.ones(SHAPE, bool)
    monkeypatch.setattr(predict, "Segmenter", lambda **options: FakeSegmenter({1: (dict(vessel=vessel), None)}, **options))
    for dataset, code, said in (("stare", 1, "none of these data sets"), ("drive", 0, "1 images")):
        row = dict(dataset=dataset, image=photograph(tmp_path, 1), vessel=save(tmp_path, "v.png", vessel))
        options = ["--manifest", str(write(tmp_path, [row])), "--out", str(tmp_path / "s.json")]
        options += ["--pen", "own", "--quiet", "--resamples", "5"]
        result = CliRunner().invoke(command, options)
        assert result.exit_code == code and said in result.output, result.output
