"""Every kind of file that a cohort may hold is read right, or says why not."""

import struct
import zlib

import cv2
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from retsam.cohort.reading import UnreadablePhotograph, read_photograph

H, W = 96, 128


@pytest.fixture
def rgb():
    """Smooth colours, a red top-left corner, so that turns, swapped channels and scale are all seen."""
    ys, xs = np.mgrid[:H, :W].astype(float)
    picture = np.stack([60 + 100 * xs / W, 40 + 80 * ys / H, 30 + 40 * (xs + ys) / (H + W)], -1)
    picture[: H // 4, : W // 4] = (230, 20, 10)
    return picture.round().astype(np.uint8)


def dicom(path, samples, **changes):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns = samples.shape[:2]
    ds.SamplesPerPixel = samples.shape[2] if samples.ndim == 3 else 1
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if ds.SamplesPerPixel == 3 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * samples.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.PixelData = samples.tobytes()
    for key, value in changes.items():
        setattr(ds, key, value)
    ds.HighBit = ds.BitsStored - 1
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("ending, tolerance", [("png", 0), ("tif", 0), ("ppm", 0), ("bmp", 0), ("jpg", 12)])
def test_common_formats(tmp_path, rgb, ending, tolerance):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(rgb).save(path, **({"quality": 98, "subsampling": 0} if ending == "jpg" else {}))
    photograph = read_photograph(path)
    assert photograph.rgb.dtype == np.uint8 and photograph.bits == 8 and photograph.channels == 3
    assert np.abs(photograph.rgb.astype(int) - rgb).max() <= tolerance


def test_content_counts_not_the_name(tmp_path, rgb):
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).save(path, format="PNG")
    assert read_photograph(path).format == "PNG"


@pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bit_containers_are_scaled_by_significant_bits(tmp_path, rgb, ending, bits):
    samples = (rgb.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
    samples[-1, -1] = 2**bits - 1
    path = tmp_path / f"a.{ending}"
    assert cv2.imwrite(str(path), samples[..., ::-1])
    photograph = read_photograph(path)
    assert np.abs(photograph.rgb.astype(int) - rgb)[:-1].max() <= 1
    assert photograph.bits == bits
    assert ("depth guessed" in photograph.notes[0]) == (bits < 16)


def test_grey_sixteen_bit_tiff(tmp_path, rgb):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb[..., 0].astype(np.uint16) * 257)
    photograph = read_photograph(path)
    assert photograph.channels == 1
    assert np.abs(photograph.rgb - rgb[..., :1].astype(int)).max() <= 1


def test_lzw_tiff(tmp_path, rgb):
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).save(path, compression="tiff_lzw")
    assert (read_photograph(path).rgb == rgb).all()


def test_cmyk_grey_alpha_palette(tmp_path, rgb):
    image = Image.fromarray(rgb)
    image.convert("CMYK").save(tmp_path / "c.jpg", quality=98, subsampling=0)
    cmyk = read_photograph(tmp_path / "c.jpg")
    assert cmyk.channels == 4 and "CMYK converted" in cmyk.notes
    assert np.abs(cmyk.rgb.astype(int) - rgb).max() <= 16
    image.convert("L").save(tmp_path / "g.png")
    grey = read_photograph(tmp_path / "g.png")
    assert grey.channels == 1 and (grey.rgb[..., 0] == grey.rgb[..., 2]).all()
    alpha = np.full((H, W), 255, np.uint8)
    alpha[:, W // 2 :] = 0
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "a.png")
    clear = read_photograph(tmp_path / "a.png").rgb
    assert (clear[:, : W // 2] == rgb[:, : W // 2]).all() and (clear[:, W // 2 :] == 0).all()
    image.quantize(256).save(tmp_path / "p.png")
    assert np.abs(read_photograph(tmp_path / "p.png").rgb.astype(int) - rgb).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, rgb, orientation):
    # How a camera held in each way would have stored the upright picture.
    stored = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, 1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=exif)
    upright = read_photograph(tmp_path / "a.jpg").rgb
    assert upright.shape == rgb.shape
    assert np.abs(upright.astype(int) - rgb).max() <= 12


def test_dicom(tmp_path, rgb):
    photograph = read_photograph(dicom(tmp_path / "a", rgb, PixelSpacing=[0.008, 0.008], ImageLaterality="L"))
    assert (photograph.rgb == rgb).all()
    assert photograph.um_per_px == pytest.approx(8.0) and photograph.eye == "L" and photograph.format == "DICOM"
    assert read_photograph(dicom(tmp_path / "b", rgb, ImagerPixelSpacing=[0.008, 0.008])).um_per_px is None
    far = read_photograph(dicom(tmp_path / "d", rgb, PixelSpacing=[2.0, 2.0]))
    assert far.um_per_px is None and far.notes == (
        "PixelSpacing 2 mm left out: expected 0.2 to 300 um, micrometres a pixel on the retina (often 3 to 30)",
    )
    uneven = read_photograph(dicom(tmp_path / "c", rgb, PixelSpacing=[0.008, 0.012]))
    assert uneven.um_per_px is None and "not square" in uneven.notes[0]


def test_dicom_photometric_interpretations(tmp_path, rgb):
    grey = rgb[..., 1]
    assert (read_photograph(dicom(tmp_path / "a", 255 - grey, PhotometricInterpretation="MONOCHROME1")).rgb[..., 0] == grey).all()
    twelve = (grey.astype(np.float64) / 255 * 4095).round().astype(np.uint16)
    deep = read_photograph(dicom(tmp_path / "b", twelve, BitsStored=12))
    assert deep.bits == 12 and np.abs(deep.rgb[..., 0].astype(int) - grey).max() <= 1
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    full = read_photograph(dicom(tmp_path / "c", np.ascontiguousarray(ycc), PhotometricInterpretation="YBR_FULL"))
    assert np.abs(full.rgb.astype(int) - rgb).max() <= 3


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_bad_files_have_reasons(tmp_path, rgb):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(whole)
    png = tmp_path / "whole.png"
    Image.fromarray(rgb).save(png)
    tiff = tmp_path / "whole.tif"
    tifffile.imwrite(tiff, rgb)
    two = tmp_path / "two.tif"
    tifffile.imwrite(two, np.stack([rgb, rgb]), photometric="rgb")
    real = tmp_path / "real.tif"
    tifffile.imwrite(real, rgb.astype(np.float32), photometric="rgb")
    one = tmp_path / "one.png"
    Image.fromarray(rgb[:1, :1]).save(one)
    frames = dicom(tmp_path / "frames", rgb)
    ds = pydicom.dcmread(frames)
    ds.NumberOfFrames = 3
    ds.save_as(frames)
    expected = {
        "missing": [tmp_path / "none.jpg"],
        "empty": [(tmp_path / "empty.jpg", b"")],
        "unreadable": [(tmp_path / "text.jpg", b"not a picture at all" * 20), (tmp_path / "zeros.jpg", b"\0" * 4000), tmp_path],
        "truncated": [
            (tmp_path / "half.jpg", whole.read_bytes()[: whole.stat().st_size // 2]),
            (tmp_path / "half.png", png.read_bytes()[: png.stat().st_size // 2]),
        ],
        "too_small": [one],
        "too_large": [(tmp_path / "giga.png", png_claiming(60_000, 60_000)), (tmp_path / "big.png", png_claiming(9_000, 9_000))],
        "multi_frame": [two, frames],
        "unsupported_pixels": [real],
    }
    for reason, cases in expected.items():
        for case in cases:
            path = case
            if isinstance(case, tuple):
                path, data = case
                path.write_bytes(data)
            with pytest.raises(UnreadablePhotograph) as caught:
                read_photograph(path)
            assert caught.value.reason == reason, (path, caught.value)
            assert caught.value.detail


def test_truncated_tiff_and_dicom_do_not_pass_as_whole(tmp_path, rgb):
    tiff, file = tmp_path / "a.tif", dicom(tmp_path / "a.dcm", rgb)
    tifffile.imwrite(tiff, rgb)
    for path in (tiff, file):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UnreadablePhotograph) as caught:
            read_photograph(path)
        assert caught.value.reason == "truncated"


def test_a_dicom_that_does_not_say_its_size_is_unreadable(tmp_path, rgb):
    empty, missing = dicom(tmp_path / "a", rgb, Rows=None), dicom(tmp_path / "b", rgb)
    ds = pydicom.dcmread(missing)
    del ds.Columns
    ds.save_as(missing)
    for path, key in ((empty, "Rows"), (missing, "Columns")):
        with pytest.raises(UnreadablePhotograph, match=f"unreadable: {path.name} does not say how large its picture is: no {key}"):
            read_photograph(path)


def test_limit_is_the_users(tmp_path, rgb):
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path)
    with pytest.raises(UnreadablePhotograph, match=f"more than the {H * W - 1:,} px"):
        read_photograph(path, max_pixels=H * W - 1)
    assert read_photograph(path, max_pixels=H * W).rgb.shape == (H, W, 3)
