"""Samples of more than 8 bits are scaled by what the file states, TIFFs are read whatever their planes and pages."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from test_cohort_reading import H, W, rgb  # noqa: F401

from retsam.cohort.photograph import UnreadablePhotograph
from retsam.cohort.reading import read_photograph
from retsam.quality.config import QualityConfig
from retsam.quality.grading import grade_table, summary
from retsam.quality.table import as_table


def deep(rgb, bits=16):  # noqa: F811
    return (rgb.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)


def close(photograph, expected):
    return photograph.rgb.shape == expected.shape and np.abs(photograph.rgb.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("how", [{}, {"compression": "deflate"}, {"compression": "deflate", "predictor": True}, {"tile": (32, 32)}])
@pytest.mark.parametrize("planar", [False, True])
def test_sixteen_bit_tiff_in_either_planes(tmp_path, rgb, how, planar):  # noqa: F811
    samples = np.moveaxis(deep(rgb), 2, 0).copy() if planar else deep(rgb)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", planarconfig="separate" if planar else "contig", **how)
    assert close(read_photograph(tmp_path / "a.tif"), rgb)


@pytest.mark.parametrize("orientation, turns", [(3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_is_turned_upright_once(tmp_path, rgb, orientation, turns, depth):  # noqa: F811
    tifffile.imwrite(tmp_path / "a.tif", rgb if depth == 8 else deep(rgb), photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    assert close(read_photograph(tmp_path / "a.tif"), np.rot90(rgb, turns))


def test_grey_of_either_sense_and_alpha(tmp_path, rgb):  # noqa: F811
    grey, path = np.repeat(rgb[..., :1], 3, 2), tmp_path / "a.tif"
    for photometric, samples in (("minisblack", deep(rgb[..., 0])), ("miniswhite", 65535 - deep(rgb[..., 0]))):
        tifffile.imwrite(path, samples, photometric=photometric)
        assert close(read_photograph(path), grey) and read_photograph(path).channels == 1
    alpha = np.full((H, W), 65535, np.uint16)
    tifffile.imwrite(path, np.dstack([deep(rgb, 12), alpha]), photometric="rgb", extrasamples=["unassalpha"])
    assert close(read_photograph(path), rgb)  # opacity does not tell the depth of the colours


def png(samples, stated):
    """A 16-bit PNG with ``sBIT`` of `stated`."""
    data = cv2.imencode(".png", samples[..., ::-1])[1].tobytes()
    body = b"sBIT" + bytes([stated] * 3)
    return data[:33] + struct.pack(">I", 3) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def test_depth_that_a_file_states_is_not_guessed(tmp_path, rgb):  # noqa: F811
    dark = rgb // 20  # its brightest sample would do for 12 bits
    path = tmp_path / "a.png"
    lower = deep(dark, 12)
    # As read; spread over 16 bits, as the standard wants; left in the lower 12.
    for samples, stated, bits in ((deep(dark), 16, 16), (lower << 4 | lower >> 8, 12, 16), (lower, 12, 12)):
        path.write_bytes(png(samples, stated))
        photograph = read_photograph(path)
        assert photograph.bits == bits and close(photograph, dark) and "guessed" not in photograph.notes[0]
    tifffile.imwrite(tmp_path / "a.tif", deep(dark), photometric="rgb", extratags=[(281, "H", 3, (65535,) * 3, True)])
    assert close(read_photograph(tmp_path / "a.tif"), dark)
    tifffile.imwrite(tmp_path / "b.tif", deep(dark), photometric="rgb")
    guess = read_photograph(tmp_path / "b.tif")
    assert guess.bits == 12 and "depth guessed: brightest sample" in guess.notes[0]
    for magic, samples in ((b"P6", deep(dark, 12)), (b"P5", deep(dark[..., 0], 12))):
        (tmp_path / "a.ppm").write_bytes(magic + b" # maximum\n%d %d\n4095\n" % (W, H) + samples.astype(">u2").tobytes())
        word = read_photograph(tmp_path / "a.ppm")
        assert close(word, dark if magic == b"P6" else np.repeat(dark[..., :1], 3, 2)) and "guessed" not in " ".join(word.notes)


def test_guessed_depths_that_differ_are_told():
    rows = [
        {"image_id": str(i), "status": "failed", "reason": "no_field_of_view", "bits": bits, "notes": note}
        for i, (bits, note) in enumerate(
            [(16, "16-bit samples scaled to 8"), (12, "12-bit samples scaled to 8 (depth guessed: ...)"), (8, None)]
        )
    ]
    told = [line for line in summary(grade_table(as_table(rows), QualityConfig())) if "guessed" in line]
    assert told == [
        "  depth guessed: 1 of 2 photographs with deep samples, of different depths (12 bits: 1, 16 bits: 1); of one camera, some are then "
        "read too bright or too dark: state the depth in the files (sBIT, MaxSampleValue) or convert to 8 bits"
    ]
    alike = as_table([r | {"bits": 12} for r in rows[:2]])
    assert "guessed" not in " ".join(summary(grade_table(alike, QualityConfig())))


def pages(path, *pictures):
    with tifffile.TiffWriter(path) as file:
        for picture, reduced in pictures:
            file.write(picture, photometric="rgb" if picture.ndim == 3 else "minisblack", subfiletype=int(reduced))
    return path


def test_the_largest_page_that_is_no_copy_is_taken(tmp_path, rgb):  # noqa: F811
    small = cv2.resize(rgb, (W // 2, H // 2 + 8), interpolation=cv2.INTER_AREA)
    for bits in (8, 16):
        whole, preview = (p if bits == 8 else deep(p) for p in (rgb, small))
        taken = read_photograph(pages(tmp_path / "a.tif", (preview, True), (whole, False)))
        assert close(taken, rgb) and taken.notes[0] == "page 2 of 2 taken, the largest"
    larger = np.repeat(np.repeat(rgb, 2, 0), 2, 1)
    assert close(read_photograph(pages(tmp_path / "b.tif", (larger, True), (rgb, False))), rgb)
    assert read_photograph(pages(tmp_path / "c.tif", (rgb, False))).notes == ()


def test_several_pictures_are_told_from_planes_of_one(tmp_path, rgb):  # noqa: F811
    nearly = np.ascontiguousarray(rgb[:-20])
    cases = {
        "holds 2 pictures": pages(tmp_path / "a.tif", (rgb, False), *[(np.ascontiguousarray(rgb[::2, ::2]), False)] * 9, (nearly, False)),
        "holds 3 grey pages .* save it as one RGB": pages(
            tmp_path / "b.tif", *[(np.ascontiguousarray(rgb[..., c]), False) for c in range(3)]
        ),
    }
    for words, path in cases.items():
        with pytest.raises(UnreadablePhotograph, match=f"multi_frame: .*{words}"):
            read_photograph(path)


def test_pages_of_a_truncated_tiff_do_not_pass(tmp_path, rgb):  # noqa: F811
    for samples in (np.moveaxis(deep(rgb), 2, 0).copy(), deep(rgb)):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, samples, photometric="rgb", planarconfig="separate" if len(samples) == 3 else "contig")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UnreadablePhotograph, match="truncated"):
            read_photograph(path)


def test_compressions_that_only_opencv_knows(tmp_path, rgb):  # noqa: F811
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), deep(rgb)[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert close(read_photograph(path), rgb)
    Image.fromarray(deep(rgb[..., 0])).save(path, compression="tiff_lzw")
    assert close(read_photograph(path), np.repeat(rgb[..., :1], 3, 2))
