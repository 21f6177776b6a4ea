"""Biomarkers of predicted against drawn masks: what is compared, and what comes out when the prediction is perfect or too thin."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import FakePrediction, FakeSegmenter, ellipse
from PIL import Image

from retsam.biomarkers.config import BiomarkersConfig
from retsam.evaluation.biomarkers import CONFIG, compare_rows, into_frame, is_drawn, masks_to_compare, score_biomarkers
from retsam.evaluation.reference import Reference, read_manifest
from retsam.evaluation.scoring import score_image
from retsam.masks import Frame, Masks
from retsam.training.export import attach_scores

SHAPE = (700, 700)


def test_what_is_compared():
    assert is_drawn(("vessel", "fov"), {"vessel"}) and not is_drawn(("vessel", "fov"), {"disc"})
    assert is_drawn(("artery", "disc", "fovea"), {"artery"})  # the predicted disc only places the zone
    assert not is_drawn(("artery", "vein", "disc"), {"artery", "disc"})
    assert not is_drawn(("disc", "cup"), {"disc"}) and is_drawn(("disc", "cup"), {"cup"})
    assert is_drawn(("disc", "scale"), {"disc"}) and not is_drawn(("disc", "fovea"), {"disc"})
    assert is_drawn(("artery|vessel",), {"vessel"}) and not is_drawn(("fov",), {"vessel"})


def test_into_frame_keeps_area():
    mask = ellipse((300, 400), 200, 150, 60, 50)
    for side in (128, 512):
        frame = Frame.from_square(50, 0, 300, side, 400, 300)
        assert into_frame(mask, frame).sum() * frame.scale**2 == pytest.approx(mask.sum(), rel=0.01)


def vessels(lines: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for i in range(lines):
        y = 90 + 60 * i
        mask[y - width // 2 : y - width // 2 + width, 100:600] = True
    return mask


@pytest.mark.parametrize("width", [7, 5])
def test_fidelity(tmp_path, width):
    rows, answers = [], {}
    for k in range(1, 6):
        image = np.full((*SHAPE, 3), 90, np.uint8)
        image[0, 0, 0] = k
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        Image.fromarray(vessels(k + 3, 7)).save(tmp_path / f"v{k}.png")
        rows.append(dict(dataset="toy", image=f"{k}.png", vessel=f"v{k}.png"))
        planes = dict(vessel=vessels(k + 3, width), disc=ellipse(SHAPE, 500, 350, 45, 45), cup=ellipse(SHAPE, 500, 350, 20, 20))
        answers[k] = (planes, (300.0, 350.0))
    rows.append(dict(dataset="toy", image="gone.png", vessel="v1.png"))
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    manifest = read_manifest(tmp_path / "m.csv")
    figures = score_biomarkers(FakeSegmenter(answers), manifest, tmp_path, tmp_path / "scores.json", 50, 0, progress=False)
    table = pd.read_csv(tmp_path / "scores.biomarkers.csv").query("group == 'toy'").set_index("biomarker")
    density, disc = table.loc["area_density_vessel"], table.filter(like="disc_", axis=0)
    assert density["n"] == 5 and density["mean_predicted"] == pytest.approx(density["mean_reference"] * width / 7, rel=0.01)
    assert (density["bias"] == 0) == (width == 7) and density["r"] == pytest.approx(1, abs=1e-6)
    assert (disc["n"] == 0).all() and len(disc)  # no disc is drawn, so nothing about discs is compared
    assert set(figures["group"]) == {"toy"} and set(figures["kind"]) == {"density", "length", "fractal_dimension", "mean"}
    card = json.loads((tmp_path / "scores.fidelity.json").read_text())
    assert card["toy"]["pen"] == "none" and card["toy"]["mean"]["n"] == 5 and card["toy"]["density"]["r"] == pytest.approx(1, abs=1e-4)
    assert len(pd.read_parquet(tmp_path / "scores.reference.parquet")) == 5


def toy(planes: dict[str, np.ndarray]) -> Masks:
    return FakePrediction(
        {name: p.astype(np.float32) for name, p in planes.items()}, np.ones(SHAPE, bool), Frame.identity(*SHAPE), None
    ).masks()


def test_vessels_without_a_class_are_in_neither_sides_arteries():
    one, two = vessels(1, 7), vessels(2, 7) & ~vessels(1, 7)
    wide = vessels(1, 9), vessels(2, 9) & ~vessels(1, 9)
    none = np.zeros(SHAPE, bool)
    found = toy({"vessel": wide[0] | wide[1], "artery": wide[0] | wide[1], "vein": none})
    reference = Reference(masks={"vessel": one | two, "artery": one, "vein": none})
    predicted, drawn, own = masks_to_compare(found, reference)
    assert own == {"vessel", "artery", "vein"} and (drawn.planes["artery"] == one).all()
    assert (predicted.planes["artery"] == wide[0]).all(), "the second vessel is drawn and not classed"
    assert (predicted.planes["vessel"] == (wide[0] | wide[1])).all() and (drawn.planes["vessel"] == (one | two)).all()
    # Marked as uncertain: the same.
    unsure = Reference(masks={"vessel": one | two, "artery": one | two, "vein": none}, ignored={"artery": two, "vein": two})
    predicted, drawn, _ = masks_to_compare(found, unsure)
    assert (predicted.planes["artery"] == wide[0]).all() and (drawn.planes["artery"] == one).all()
    # An artery mask drawn a little thinner than the vessel mask leaves no vessel without a class.
    slim = Reference(masks={"vessel": vessels(2, 9), "artery": vessels(2, 7), "vein": none})
    assert (masks_to_compare(found, slim)[0].planes["artery"] == (wide[0] | wide[1])).all()


def test_both_sides_are_measured_in_the_given_field_of_view():
    fov = np.zeros(SHAPE, bool)
    fov[:, :400] = True
    found = toy({"vessel": vessels(3, 7)})
    rows = compare_rows(found, Reference(masks={"vessel": vessels(3, 7)}, fov=fov), CONFIG.model_copy(update={"families": ("vessels",)}))
    for row in rows:
        assert row["area_density_vessel"] == pytest.approx(3 * 7 * 300 / (700 * 400))
        assert np.isnan(row["area_density_artery"]) and row["area_density_artery__reason"] == "mask_not_given"


def test_central_equivalents_are_compared_where_half_of_zone_b_is_seen():
    assert CONFIG.min_calibre_zone_share == 0.5 < BiomarkersConfig().min_calibre_zone_share


def test_fidelity_goes_into_the_card_with_the_scores_that_it_belongs_to(tmp_path):
    card, scores, fidelity = (tmp_path / name for name in ("w.json", "s.json", "s.fidelity.json"))
    card.write_text(json.dumps({"heads": {"vessel": {}}, "fidelity": {"old": {"pen": "none"}}}))
    scores.write_text(json.dumps({"drive": {"vessel": {"dsc": {"value": 0.8}}}}))
    fidelity.write_text(json.dumps({"drive": {"pen": "own", "mean": {"r": 0.7}}}))
    os.utime(fidelity, (1, 1))
    attach_scores(card, scores)
    assert set(json.loads(card.read_text())["fidelity"]) == {"old"}, "of an earlier run"
    os.utime(scores, (1, 1))
    attach_scores(card, scores)
    written = json.loads(card.read_text())
    assert written["fidelity"]["drive"]["mean"]["r"] == 0.7 and set(written["fidelity"]) == {"old", "drive"}
    assert written["heads"]["vessel"]["scores"]["drive"]["dsc"]["value"] == 0.8


def test_nothing_to_measure(tmp_path):
    pd.DataFrame([dict(dataset="toy", image="gone.png", vessel="v.png")]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="no image could be measured"):
        score_biomarkers(FakeSegmenter(), read_manifest(tmp_path / "m.csv"), tmp_path, tmp_path / "s.json", 10, 0, progress=False)


def test_native_scores_are_finer_than_the_stored_mask():
    """Thin vessels in a coarse frame: the network's answer at native size beats the stored bits, and both are reported."""
    truth = vessels(8, 5)
    frame = Frame.from_square(0, 0, 700, 400, 700, 700)
    probability = frame.warp(truth.astype(np.float32)).astype(np.float16)
    prediction = FakePrediction({"vessel": probability}, np.ones((400, 400), bool), frame, None)
    values = score_image(prediction, Reference(masks={"vessel": truth})).values["vessel"]
    assert values["dsc"] > 0.97 and values["dsc_stored"] < values["dsc"] - 0.005


def test_clean_up_is_followed():
    """What the stored mask leaves out stays out, what it adds (here: a filled hole) stays in."""
    disc = ellipse(SHAPE, 350, 350, 60, 60)
    hole, speck = ellipse(SHAPE, 350, 350, 20, 20), ellipse(SHAPE, 100, 100, 10, 10)
    frame = Frame.identity(700, 700)

    class Cleaned(FakePrediction):
        def masks(self, *args, **kwargs):
            masks = super().masks()
            masks.planes["disc"] = disc
            return masks

    probability = np.where((disc & ~hole) | speck, 0.9, 0.1).astype(np.float16)
    values = score_image(Cleaned({"disc": probability}, np.ones(SHAPE, bool), frame, None), Reference(masks={"disc": disc})).values
    assert values["disc"]["dsc"] == values["disc"]["dsc_stored"] == 1
