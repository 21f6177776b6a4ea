"""Frame, field of view, network, weights."""

import json
import os

import cv2
import numpy as np
import pytest
import torch

from retsam.masks.frame import Frame
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.segmentation import postprocess
from retsam.segmentation.consistency import smooth_classes
from retsam.segmentation.looks import _LOOKS, Look, detail, looks
from retsam.segmentation.network import DECODERS, Refiner, RetinaNetwork, decoders_of, local_contrast
from retsam.segmentation.predict import Segmenter, locate_fovea, prepare
from retsam.segmentation.targets import CATEGORY, STORE_GROUPS, TARGETS, TASKS
from retsam.segmentation.weights import load_state, save_weights

torch.set_num_threads(1)


def test_taxonomy_has_five_structures_four_phenotypes_and_22_lesions():
    kinds = [CATEGORY[t] for t in TARGETS if t != "vessel"]  # vessel is artery or vein, not a structure of its own
    assert (kinds.count("anatomy"), kinds.count("phenotype"), kinds.count("lesion")) == (5, 4, 22)
    stored = {t for targets in STORE_GROUPS.values() for t in targets}
    assert stored - {"fov"} == set(TARGETS) - {"fovea"}


@pytest.mark.parametrize(("width", "height", "x", "y", "radius"), [(600, 500, 300.0, 250.0, 220.0), (1200, 800, 580.0, 410.0, 470.0)])
def test_field_of_view_finds_circle_and_cut(width, height, x, y, radius):
    ys, xs = np.mgrid[:height, :width]
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[(xs - x) ** 2 + (ys - y) ** 2 <= radius**2] = (180, 90, 50)
    fov = detect_field_of_view(rgb)
    assert abs(fov.x - x) < 0.01 * radius and abs(fov.y - y) < 0.01 * radius and abs(fov.radius - radius) < 0.01 * radius
    assert fov.kind == ("circle" if radius < height / 2 - 5 else "cut_off")
    agreement = (fov.mask() == (rgb[..., 0] > 0)).mean()
    assert agreement > 0.99
    assert FieldOfView.from_columns(fov.to_columns()) == fov


def test_field_of_view_of_a_picture_lit_to_its_corners_is_none():
    rgb = np.random.default_rng(0).integers(100, 255, (300, 400, 3), dtype=np.uint8)
    assert detect_field_of_view(rgb).kind == "none"
    assert detect_field_of_view(np.zeros((50, 50, 3), np.uint8)).kind == "none"


@pytest.mark.parametrize("radius", [180.0, 700.0])
def test_frame_goes_there_and_back(radius):
    size = int(2.2 * radius)
    fov = FieldOfView("circle", size / 2, size / 2 - 3, radius, 1.0, 0.0, 0.0, float(size), float(size), size, size)
    frame = Frame.from_field_of_view(fov, 512)
    points = np.array([[10.5, 20.0], [300.0, 511.0]])
    assert np.allclose(frame.to_frame(frame.to_native(points)), points)
    assert np.allclose(Frame.from_affine(frame.affine, 512, size, size).to_native(points), frame.to_native(points))
    disc = cv2.circle(np.zeros((size, size), np.uint8), (size // 2, size // 2), int(radius / 5), 1, -1) > 0
    there = frame.warp(disc.astype(np.float32)) >= 0.5
    back = frame.unwarp(there)
    dice = 2 * (back & disc).sum() / (back.sum() + disc.sum())
    assert dice > 0.985
    ys, xs = np.nonzero(there)
    assert np.allclose(frame.to_native([xs.mean(), ys.mean()]), [size // 2, size // 2], atol=1.0)
    with pytest.raises(ValueError, match="isotropic"):
        Frame.from_affine((1, 0.1, 0, 0, 1, 0), 512, size, size)


def test_network_answers_at_full_resolution_for_each_task():
    model = RetinaNetwork().eval()
    with torch.inference_mode():
        out = model(torch.rand(1, 3, 128, 128), torch.ones(1, 1, 128, 128), list(DECODERS))
    assert {task: tuple(v.shape) for task, v in out.items()} == {
        "vessels": (1, 3, 128, 128),
        "optic_nerve": (1, 2, 128, 128),
        "macula": (1, 1, 32, 32),
        "lesions_dr": (1, 4, 128, 128),
    }
    assert all(len(TASKS[task]) >= settings["outputs"] for task, settings in DECODERS.items())


def test_the_refiner_starts_as_no_change_and_older_files_have_none():
    x, detail_map = torch.rand(1, 32, 40, 40), torch.rand(1, 24, 40, 40)
    refiner = Refiner(32, (40, 56, 80)).eval()
    assert torch.equal(refiner(x, detail_map), x)
    refiner.add.weight.data.normal_()
    assert not torch.allclose(refiner(x, detail_map), x)
    names = list(RetinaNetwork().state_dict())
    assert decoders_of(names) == DECODERS
    older = decoders_of(name for name in names if ".refine." not in name and "macula" not in name)
    assert set(older) == set(DECODERS) - {"macula"} and older["vessels"]["refine"] is None


def test_local_contrast_ignores_light_and_exposure():
    rng = np.random.default_rng(0)
    texture = torch.from_numpy(rng.uniform(0.3, 0.6, (1, 3, 256, 256)).astype(np.float32))
    fov = torch.ones(1, 1, 256, 256)
    bright, dim = local_contrast(texture, fov, 8), local_contrast(texture * 0.5, fov, 8)
    assert (bright - dim).abs().mean() < 0.06 * bright.abs().mean() + 0.02


def test_weights_are_half_precision_and_never_a_pickle(tmp_path):
    model = RetinaNetwork({"macula": DECODERS["macula"]})
    save_weights(tmp_path / "w.safetensors", model, {"step": 3})
    state, metadata = load_state(tmp_path / "w.safetensors")
    assert metadata == {"step": 3}
    assert torch.allclose(state["encoder._conv_stem.weight"], model.encoder._conv_stem.weight, atol=1e-3)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="safetensors"):
        load_state(tmp_path / "w.pt")
    with pytest.raises(FileNotFoundError, match="model card"):
        Segmenter(tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps({"heads": {"fovea": {"status": "supervised"}}}))
    segmenter = Segmenter(tmp_path / "w.safetensors", precision="float32")
    assert segmenter.target_status["fovea"] == "supervised" and segmenter.target_status["drusen"] == "not_available"


def test_locate_fovea_finds_the_peak_and_says_when_there_is_none():
    heat = torch.full((128, 128), -10.0)
    heat[40, 70] = 10
    point, confidence = locate_fovea(heat)
    assert np.allclose(point, ((70.5) * 8 - 0.5, 40.5 * 8 - 0.5)) and confidence > 0.99
    point, confidence = locate_fovea(torch.zeros(128, 128))
    assert point is None and confidence < 0.05


def test_postprocessing_keeps_trees_whole_and_the_cup_in_the_disc():
    shape = (64, 64)
    p = {name: np.zeros(shape, np.float16) for name in ("artery", "vein", "vessel", "disc", "cup")}
    p["vessel"][30, 5:60] = 0.9
    p["artery"][30, 5:30] = 0.8
    p["artery"][30, 30:60] = 0.4
    p["vein"][30, 30:60] = 0.3
    ys, xs = np.mgrid[:64, :64]
    p["disc"][np.hypot(ys - 14.5, xs - 14.5) < 9] = 0.9
    p["disc"][50:52, 50:52] = 0.9
    p["cup"][14:30, 12:20] = 0.8
    planes = postprocess.to_planes(p, np.ones(shape, bool), {})
    assert planes["artery"][30, 5:60].all() and not planes["vein"].any()
    assert planes["disc"].sum() == pytest.approx(np.pi * 81, rel=0.05) and not planes["disc"][40:].any()
    assert not (planes["cup"] & ~planes["disc"]).any() and planes["cup"].any()


def test_expected_dice_is_the_dice_of_calibrated_probabilities():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.8, (300, 300))
    truth = rng.random(p.shape) < p
    mask = p >= 0.5
    observed = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert abs(postprocess.expected_dice(p, mask) - observed) < 0.02


needs_bfloat16 = pytest.mark.skipif(
    not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() or os.environ.get("RETSAM_TEST_BF16")),
    reason="this processor has no bfloat16 arithmetic",
)


@needs_bfloat16
def test_bfloat16_agrees_with_float32_within_the_stated_tolerance():
    from fundus_drawings import drawn_eye

    rgb, _ = drawn_eye(600)
    half = Segmenter(precision="bfloat16").predict([rgb])[0]
    full = Segmenter(precision="float32").predict([rgb])[0]
    for name, p in full.probabilities.items():
        difference = np.abs(p.astype(np.float32) - half.probabilities[name].astype(np.float32))
        assert difference.mean() < 0.005, name
        flipped = ((p >= 0.5) != (half.probabilities[name] >= 0.5)).mean()
        assert flipped < 0.003, name


def test_a_vessel_keeps_its_class_along_its_length():
    artery, vein = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    artery[30:33, 4:60], vein[30:33, 4:60] = 0.8, 0.1
    artery[30:33, 20:26], vein[30:33, 20:26] = 0.3, 0.6  # a stretch that looks like a vein
    smooth_artery, smooth_vein = smooth_classes(artery, vein, artery + vein > 0.5)
    assert (smooth_artery > smooth_vein)[31, 6:58].all()
    assert np.allclose(smooth_artery + smooth_vein, artery + vein)
    crossing = artery.copy()
    vein[:, 40:43] = 0.9
    _, across = smooth_classes(crossing, vein, crossing + vein > 0.5)
    assert across[31, 41] > 0.5 and (across > 0.5)[4:28, 41].all()
    nothing = np.zeros((8, 8), np.float32)
    assert not smooth_classes(nothing, nothing, nothing > 0)[0].any()


def test_a_mask_does_not_depend_on_its_batch():
    """A small, an ordinary and a large photograph are each looked at in their own way, alone or side by side."""
    from fundus_drawings import drawn_eye

    images = [drawn_eye(side)[0] for side in (300, 900, 1500)]
    alone, together = Segmenter(precision="float32"), Segmenter(precision="float32", batch_size=3)
    assert [detail(prepare(image).frame.scale) for image in images] == ["small", "ordinary", "large"]
    for single, joint in zip(alone.predict(images), together.predict(images), strict=True):
        for target, probability in single.probabilities.items():
            assert np.abs(probability - joint.probabilities[target]).max() < 2e-3, target


def test_a_mask_does_not_depend_on_the_other_heads():
    """The disc says how to look at vessels, whether or not the disc is asked for."""
    from fundus_drawings import drawn_eye

    image = drawn_eye(900)[0]
    whole, vessels = (Segmenter(precision="float32", tasks=tasks).predict([image])[0] for tasks in (None, ["vessels"]))
    assert set(vessels.probabilities) == {"artery", "vein", "vessel"} and vessels.fovea is None
    for target, probability in vessels.probabilities.items():
        assert np.array_equal(probability, whole.probabilities[target]), target


def test_looks_follow_the_detail_and_the_field():
    for scale, kind in ((0.4, "small"), (0.7, "ordinary"), (1.0, "ordinary"), (2.0, "large")):
        assert detail(scale) == kind
        usual = looks(scale, 150.0)
        assert usual == looks(scale, None)  # no disc in sight: nothing is known
        for task in ("vessels", "lesions_dr"):
            assert any(task in look.tasks for look in usual)
        assert all(look.side % 32 == 0 and look.side % look.pool == 0 for look in usual)
        # A narrow field shows its vessels wide as it is.
        assert looks(scale, 230.0) == (looks(1.0, None) if kind == "large" else usual)


def test_looks_are_averaged_where_there_is_detail(monkeypatch):
    """`auto`: of a photograph that is not small vessels and lesions are the mean over several looks, one of them mirrored, fovea and the
    disc's close-up the mean over the mirror."""
    from fundus_drawings import drawn_eye

    detailed, small = (drawn_eye(side)[0] for side in (900, 400))
    never, auto, always = (Segmenter(precision="float32", flips=flips) for flips in (False, "auto", True))

    found = {
        (kind, name): segmenter.predict([rgb])[0]
        for kind, segmenter in (("never", never), ("auto", auto), ("always", always))
        for name, rgb in (("detailed", detailed), ("small", small))
    }
    monkeypatch.setitem(_LOOKS, "ordinary", (Look(1024), Look(1024, True)))
    as_large = auto.predict([detailed])[0]
    for name in ("vessel", "hemorrhage", "disc"):
        planes = {key: prediction.probabilities[name] for key, prediction in found.items()}
        assert np.array_equal(planes["auto", "small"], planes["never", "small"])
        assert not np.array_equal(planes["auto", "detailed"], planes["never", "detailed"])
        if name != "disc":  # its coarse view, which centres the close-up, is not mirrored
            assert not np.array_equal(planes["auto", "detailed"], planes["always", "detailed"])
            assert np.abs(as_large.probabilities[name] - planes["always", "detailed"]).max() < 1e-4
    fovea = {key: prediction.fovea_confidence for key, prediction in found.items()}
    assert fovea["auto", "small"] == fovea["never", "small"] and fovea["auto", "detailed"] != fovea["never", "detailed"]
