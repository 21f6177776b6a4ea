"""Mask files are decoded alike wherever they are read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retsam.evaluation.reference import read_manifest, read_reference
from retsam.masks.export import AV_COLOURS, DISC_CUP_COLOURS, export_masks
from retsam.masks.files import MaskFileError, read_index
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks
from retsam.training import labels as lab

SHAPE = (60, 80)


@pytest.fixture
def eye() -> Masks:
    lesions = ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
    planes = {name: np.zeros((80, 80), bool) for name in ("artery", "vein", "vessel", "disc", "cup", *lesions)}
    planes["artery"][10:14], planes["vein"][:60, 30:34] = True, True
    planes["vessel"] = planes["artery"] | planes["vein"]
    planes["disc"][30:50, 40:60], planes["cup"][35:45, 45:55] = True, True
    planes["hard_exudate"][20:24, 60:70], planes["hemorrhage"][22:28, 60:64] = True, True
    return Masks(planes, np.ones((80, 80), bool), Frame.from_square(0, 0, 80, 80, 80, 60), None, None, "R", "a")


def test_masks_that_were_exported_teach_and_judge(eye, tmp_path):
    """Their palettes are for eyes: the indices count."""
    row = export_masks(eye, tmp_path)
    (tmp_path / "manifest.csv").write_text(
        "dataset,image,vessel,av,disc_cup,lesions\nmine,a.jpg," + ",".join(row[c] for c in ("vessel", "av", "disc_cup", "lesions")) + "\n"
    )
    (record,) = read_manifest(tmp_path / "manifest.csv").to_dict("records")
    reference = read_reference(record, tmp_path, SHAPE)
    assert not reference.faults
    for name in ("artery", "vein", "vessel", "disc", "cup", "hard_exudate", "hemorrhage"):
        np.testing.assert_array_equal(reference.masks[name], eye.planes[name][:60], name)
    label, nerve, lesions = (f(record, tmp_path, SHAPE) for f in (lab.vessel_label, lab.nerve_label, lab.lesion_label))
    for plane, bits, names in (
        (label, lab.VESSEL_BITS, ("artery", "vein", "vessel")),
        (nerve, lab.NERVE_BITS, ("disc", "cup")),
        (lesions, lab.LESION_BITS, ("hard_exudate", "hemorrhage")),
    ):
        for name in names:
            np.testing.assert_array_equal(plane & bits[name] > 0, eye.planes[name][:60], name)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("lesions", np.full(SHAPE, 255), "values 0 to 15, found 255"),
        ("av", np.full(SHAPE, 5), "values 0 to 4, found 5"),
        ("disc_cup", np.full(SHAPE, 128), "values 0 to 2, found 128"),
        ("av", np.full((*SHAPE, 3), (200, 0, 0)), "found a colour image"),
        ("vessel", np.full((*SHAPE, 3), (200, 0, 0)), "found a colour image"),
    ],
)
def test_other_encodings_are_refused(tmp_path, column, values, words):
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=words):
        lab.read_mask(tmp_path / "m.png", SHAPE, column)
    reference = read_reference({"dataset": "mine", column: "m.png"}, tmp_path, SHAPE)
    assert words in reference.faults[0][1] and not reference.masks


def test_lossy_and_fractional_masks_are_refused(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:24] = 255
    for name, reason in (("m.jpg", "JPEG"), ("m.webp", "WEBP")):
        Image.fromarray(mask).save(tmp_path / name)
        with pytest.raises(MaskFileError, match=f"expected a lossless mask, found a {reason} file; save masks as PNG"):
            read_index(tmp_path / name)
    Image.fromarray(mask.astype(np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(MaskFileError, match="expected whole numbers, found float32"):
        read_index(tmp_path / "m.tif")


@pytest.mark.parametrize("colours", [AV_COLOURS, DISC_CUP_COLOURS, ((0,) * 3, (128,) * 3, (255,) * 3)])
def test_indices_whatever_the_palette(tmp_path, colours):
    image = Image.fromarray(np.tile(np.uint8([0, 1, 2, 1]), (4, 1)))
    image.putpalette([c for colour in colours for c in colour])
    image.save(tmp_path / "m.png")
    assert read_index(tmp_path / "m.png", "disc_cup")[0].tolist() == [0, 1, 2, 1]


def test_black_is_nothing_wherever_it_stands_in_a_palette(tmp_path):
    image = Image.fromarray(np.tile(np.uint8([0, 1, 0, 1]), (4, 1)))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "m.png")
    assert (read_index(tmp_path / "m.png", "vessel")[0] > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("colours", [[255, 0, 0, 0, 0, 0], [200, 30, 40, 0, 0, 0, 9, 9, 9]])
def test_black_is_nothing_in_a_palette_of_colours_too(tmp_path, colours):
    """A drawing in red on black, whichever of the two comes first; where nothing is black, index 0 is nothing."""
    for drawing, palette in ((0, colours), (1, [*colours[3:6], *colours[:3]])):
        image = Image.fromarray(np.tile(np.uint8([drawing, 1 - drawing]), (4, 2)))
        image.putpalette(palette)
        image.save(tmp_path / "m.png")
        assert (read_index(tmp_path / "m.png", "vessel")[0] > 0).tolist() == [True, False, True, False]
    image.putpalette([255, 255, 255, *colours[:3]])
    image.save(tmp_path / "m.png")
    assert (read_index(tmp_path / "m.png", "vessel")[0] > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("column", ["vessel", "lesions"])
def test_a_drawing_in_transparency_is_refused(tmp_path, mode, column):
    values = np.zeros((*SHAPE, len(mode)), np.uint8)
    values[20:24, :, -1] = 255
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(MaskFileError, match=r"expected an opaque mask, found transparency of 0 to 255: .* save the mask without one"):
        read_index(tmp_path / "m.png", column)
    values[..., -1], values[20:24, :, :-1] = 255, 1
    Image.fromarray(values).save(tmp_path / "m.png")
    assert np.count_nonzero(read_index(tmp_path / "m.png", column)) == 4 * SHAPE[1], "an alpha channel that says nothing does no harm"


def test_a_transparent_colour_of_a_palette(tmp_path):
    """Hides nothing of an index; of a mask that is zero or not, it may be all that tells the two apart."""
    image = Image.fromarray(np.tile(np.uint8([0, 1]), (4, 2)))
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.save(tmp_path / "m.png", transparency=0)
    assert read_index(tmp_path / "m.png", "disc_cup")[0].tolist() == [0, 1, 0, 1]
    with pytest.raises(MaskFileError, match="expected an opaque mask"):
        read_index(tmp_path / "m.png", "vessel")
