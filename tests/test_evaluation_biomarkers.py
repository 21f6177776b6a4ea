"""Biomarkers of predicted against drawn masks: what is compared, and what comes out when the prediction is perfect or too thin."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import FakePrediction, FakeSegmenter, ellipse
from PIL import Image

from retsam.evaluation.biomarkers import into_frame, is_drawn, score_biomarkers
from retsam.evaluation.reference import Reference, read_manifest
from retsam.evaluation.scoring import score_image
from retsam.masks import Frame

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
    assert set(figures["group"]) == {"all", "toy"}
    assert len(pd.read_parquet(tmp_path / "scores.reference.parquet")) == 5


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
