"""The published architecture: tensors as published, nothing executed on loading, masks where the photograph shows them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retsam.segmentation import published as p

pytest.importorskip("monai", reason="the published architecture needs MONAI (extra `training`)")
pytest.importorskip("einops", reason="MONAI's Swin needs einops")

TINY = dict(width=8, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return p.PublishedNetwork(**TINY, coordinates=True).eval()


@pytest.fixture
def tiny_is_published(tiny, monkeypatch):
    """Takes the tiny network's tensors for the published ones: the real checkpoint has three gigabytes."""
    state = {name: value.clone() for name, value in tiny.state_dict().items()}
    monkeypatch.setattr(p, "expected_tensors", lambda coordinates: {n: (tuple(v.shape), v.dtype) for n, v in state.items()})
    return state


def test_tensors_are_the_published_ones():
    """Every name, shape and type of the list, and no other; 766 million parameters."""
    network = p.PublishedNetwork(decoder_device="meta")
    state, expected = network.state_dict(), p.expected_tensors()
    assert {name: (tuple(value.shape), value.dtype) for name, value in state.items()} == expected
    assert len(expected) == 515 and sum(x.numel() for x in network.parameters()) / 1e6 == pytest.approx(766, abs=0.5)
    assert len(p.expected_tensors(coordinates=True)) == 521


def test_forward(tiny):
    with torch.inference_mode():
        logits, fovea = tiny(torch.randn(2, 3, 128, 192))
    assert [tuple(x.shape) for x in logits] == [(2, head.channels, 128, 192) for head in p.HEADS]
    assert fovea.shape == (2, 2) and (fovea > 0).all() and (fovea < 1).all()


@pytest.mark.parametrize("kind", ["safetensors", "lightning", "plain"])
def test_checkpoints(kind, tiny_is_published, tmp_path):
    state = tiny_is_published
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "weights.ckpt"
        prefixed = {f"model.module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": prefixed, "epoch": 3} if kind == "lightning" else prefixed, path)
    assert p.is_published(path)
    back = p.read_checkpoint(path)
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)


def test_network_takes_a_checkpoint(tiny, tiny_is_published):
    network = p.PublishedNetwork(**TINY, coordinates=True, decoder_device="meta")
    network.load_state_dict(tiny_is_published, strict=True, assign=True)
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        for a, b in zip(network.eval()(x)[0], tiny(x)[0], strict=True):
            torch.testing.assert_close(a, b)


def test_wrong_tensors_are_listed(tiny_is_published, tmp_path):
    state = dict(tiny_is_published)
    del state["swinViT.patch_embed.proj.bias"]
    state["decoder_modules.0.out.conv.conv.bias"] = torch.zeros(7)
    state["classifier.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="3 differences") as error:
        p.read_checkpoint(tmp_path / "w.pth")
    assert "missing swinViT.patch_embed.proj.bias" in str(error.value) and "unexpected classifier.weight (2, 2)" in str(error.value)
    assert "decoder_modules.0.out.conv.conv.bias is (7,), expected (2,)" in str(error.value)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_pickle_is_executed(tmp_path):
    victim = tmp_path / "victim"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": Evil(victim)}, tmp_path / "evil.ckpt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Evil(victim)))
    for name in ("evil.ckpt", "evil2.pt"):
        with pytest.raises(ValueError, match="convert it to safetensors") as error:
            p.read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(error.value), "torch's advice is to execute it"
    assert not victim.exists()


def test_checkpoints_of_the_old_format_are_read(tiny_is_published, tmp_path):
    path = tmp_path / "weights.ckpt"
    torch.save({"state_dict": tiny_is_published}, path, _use_new_zipfile_serialization=False)
    back = p.read_checkpoint(path)
    assert all(torch.equal(back[name], value) for name, value in tiny_is_published.items())


def damaged(folder):
    tensors = {"a": torch.zeros(500)}
    torch.save(tensors, folder / "whole.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    files = {"empty.ckpt": b"", "text.ckpt": b"<html>not found"}
    files |= {f"cut_{name}.pt": (folder / f"{name}.pt").read_bytes()[:-700] for name in ("whole", "old")}
    files["cut.safetensors"] = b"\x10\x00\x00\x00"
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def test_damaged_files_are_told_as_such(tmp_path):
    says = {"empty.ckpt": "an empty file", "text.ckpt": "begins with b'<html>"}
    for name in damaged(tmp_path):
        with pytest.raises(ValueError, match=says.get(name, "cut short")) as error:
            p.read_checkpoint(tmp_path / name)
        assert name in str(error.value) and "code" not in str(error.value) and "weights_only" not in str(error.value)


class Painter(nn.Module):
    """Says disc where the input is bright in red, hemorrhage where it is bright in blue; fovea at a quarter and a half."""

    def __init__(self):
        super().__init__()
        self.coordinate_head = nn.Identity()

    def forward(self, x):
        red, blue = x[:, 0] > 1, x[:, 2] > 1
        zero = torch.zeros_like(x[:, 0])
        logits = [torch.stack([zero] * head.channels, 1) - 9 * torch.arange(head.channels).view(1, -1, 1, 1).gt(0) for head in p.HEADS]
        logits[0] = logits[0] - 9
        logits[1] = torch.stack([-20.0 * red, zero - 9 + 18 * red, zero - 30], 1)
        logits[4] = torch.stack([-20.0 * blue, zero - 9 + 18 * blue, zero - 30, zero - 30, zero - 30], 1)
        return logits, torch.tensor([[0.25, 0.5]]).expand(len(x), 2)


def test_masks_lie_where_the_photograph_shows_them():
    """An oblong photograph is squeezed to 640 x 640 and its masks come back undistorted."""
    height, width = 480, 720
    ys, xs = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 60, np.uint8)
    image[(xs - 360) ** 2 + (ys - 240) ** 2 > 230**2] = 0
    disc, blot = (xs - 460) ** 2 + (ys - 200) ** 2 <= 40**2, (xs - 300) ** 2 + (ys - 300) ** 2 <= 25**2
    image[disc, 0], image[blot, 2] = 255, 255
    image[240, 420, 2] = 255  # a speck: fewer than 15 pixels
    segmenter = p.PublishedSegmenter(None, device="cpu", network=Painter())
    prediction = segmenter.predict([image])[0]
    masks = prediction.masks()
    for target, truth in (("disc", disc), ("hemorrhage", blot)):
        found = masks.frame.unwarp(masks.planes[target], 0)
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97, target
    assert not masks.planes["vessel"].any() and not masks.planes["drusen"].any()
    fovea = masks.frame.to_native(masks.fovea)
    assert fovea == pytest.approx((130 + 0.25 * 460, 240), abs=6)
    assert masks.status["drusen"] == "supervised" and masks.status["microaneurysm"] == "not_available"
    assert segmenter.predict([image, image])[1].frame == prediction.frame


def test_arteries_and_veins_are_each_what_reaches_its_threshold():
    """As the authors' inference keeps them: also where the other is likelier."""
    segmenter = p.PublishedSegmenter(None, device="cpu", network=Painter())
    prediction = segmenter.predict([np.full((480, 480, 3), 60, np.uint8)])[0]
    prediction.fov[...] = True
    for name, value in (("artery", 0.35), ("vein", 0.6), ("vessel", 0.6)):
        prediction.probabilities[name] = np.full_like(prediction.probabilities[name], value)
    planes = prediction.masks().planes
    assert planes["artery"].all() and planes["vein"].all() and planes["vessel"].all()
    prediction.probabilities["artery"][...] = 0.25
    assert not prediction.masks().planes["artery"].any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said():
    with pytest.raises(ValueError, match="torch sees no GPU"):
        p.PublishedSegmenter(None, device="cuda", network=Painter())


def test_no_weights_is_said():
    with pytest.raises(ValueError, match="ships no weights"):
        p.PublishedSegmenter(None)
