"""The mask store: what goes in comes out, and what was cut short is never taken for whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

from retsam.masks import Failure, Frame, Masks
from retsam.masks.store import StoreError, open_stores, plane, read_masks, store_faults, write_store
from retsam.segmentation.targets import STORE_GROUPS, TARGETS

SIDE = 64
AVAILABLE = ("artery", "vein", "vessel", "disc", "cup", "fovea", "hard_exudate", "venous_beading", "other_lesion")
STATUS = {t: "supervised" if t in AVAILABLE else "not_available" for t in TARGETS}
ATTRS = {"weights_sha256": "ab" * 32, "model": "test", "thresholds": {"vessel": 0.5}, "target_status": STATUS, "frame_side": SIDE}


def make(image_id: str, seed: int, eye: str | None = "R", found: bool = True) -> Masks:
    rng = np.random.default_rng(seed)
    planes = {t: rng.random((SIDE, SIDE)) < 0.2 for t in AVAILABLE if t != "fovea"}
    return Masks(
        planes=planes,
        fov=rng.random((SIDE, SIDE)) < 0.9,
        frame=Frame.from_square(-3 + seed, 5, 200, SIDE, 220, 190),
        fovea=(20.25, 31.5) if found else None,
        fovea_confidence=0.75 if found else None,
        eye=eye,
        image_id=image_id,
        um_per_px=7.5 if found else None,
        status=STATUS,
        confidence={"vessel": 0.8125} if found else {},
    )


def same(a: Masks, b: Masks) -> None:
    assert set(a.planes) == set(b.planes)
    for name in a.planes:
        np.testing.assert_array_equal(a.planes[name], b.planes[name], err_msg=name)
    np.testing.assert_array_equal(a.fov, b.fov)
    assert (a.frame, a.fovea, a.fovea_confidence, a.eye, a.image_id) == (b.frame, b.fovea, b.fovea_confidence, b.eye, b.image_id)
    assert (a.um_per_px, a.status, a.confidence, a.native) == (b.um_per_px, b.status, b.confidence, b.native)


def test_round_trip(tmp_path):
    items = [Failure("bad", "unreadable", "not a JPEG", "L")]
    items += [make(f"image {i}", i, eye=[None, "R", "L"][i % 3], found=i % 2 == 0) for i in range(37)]  # more than two blocks
    items.insert(20, Failure("worse", "no_field_of_view"))
    store = write_store(tmp_path / "masks" / "s0000.zarr", iter(items), ATTRS)
    back = list(read_masks(store))
    assert [b.image_id for b in back] == [i.image_id for i in items]
    for item, read in zip(items, back, strict=True):
        if isinstance(item, Failure):
            assert read == item
        else:
            same(item, read)
    chosen = list(read_masks(store, ["image 30", "bad"]))
    assert [c.image_id for c in chosen] == ["bad", "image 30"]
    same(chosen[1], items[32])
    assert os.listdir(store.parent) == ["s0000.zarr"]


def test_layout(tmp_path):
    """One Zarr shard an array, inner chunks of one image, CF flags of available heads only, complete and consolidated."""
    store = write_store(tmp_path / "s0001.zarr", [make(f"i{i}", i) for i in range(20)], ATTRS)
    root = zarr.open_group(store, mode="r", use_consolidated=True)
    assert sorted(k for k, a in root.arrays() if a.ndim == 3) == ["anatomy", "lesions_dr", "lesions_other"]
    anatomy, other = root["anatomy"], root["lesions_other"]
    assert (anatomy.shards, anatomy.chunks, anatomy.dtype, other.dtype) == ((20, SIDE, SIDE), (1, SIDE, SIDE), np.uint8, np.uint16)
    assert len([f for f in (store / "anatomy" / "c").rglob("*") if f.is_file()]) == 1
    assert root["lesions_dr"].attrs["flag_meanings"] == "hard_exudate venous_beading"
    assert root["lesions_dr"].attrs["flag_masks"] == [4, 64]
    assert other.attrs["flag_masks"] == [1 << STORE_GROUPS["lesions_other"].index("other_lesion")]
    assert anatomy.attrs["flag_meanings"] == "artery vein vessel disc cup fov"
    assert root.attrs["complete"] is True and root.attrs["frame_side"] == SIDE and root.attrs["retsam_version"]
    masks = next(read_masks(store))
    bits = anatomy[0]
    for bit, name in enumerate(("artery", "vein", "vessel", "disc", "cup")):
        np.testing.assert_array_equal(bits >> bit & 1, masks.planes[name])


def test_attributes_from_the_first_masks(tmp_path):
    store = write_store(tmp_path / "s.zarr", [Failure("a", "truncated"), make("b", 1)])
    root = zarr.open_group(store, mode="r")
    assert root.attrs["target_status"] == STATUS
    with pytest.raises(StoreError, match="frame_side and target_status"):
        write_store(tmp_path / "t.zarr", [Failure("a", "truncated")])
    lone = write_store(tmp_path / "u.zarr", [Failure("a", "truncated")], ATTRS)
    assert list(read_masks(lone)) == [Failure("a", "truncated")]
    assert not os.path.exists(tmp_path / "t.zarr")


def test_many_stores_with_dask(tmp_path):
    shards = {f"s{k}": [make(f"{k}-{i}", 10 * k + i) for i in range(n)] for k, n in enumerate((5, 3, 7))}
    shards["s1"].append(Failure("1-bad", "too_small", "1x1 px"))
    paths = [write_store(tmp_path / f"{name}.zarr", items, ATTRS) for name, items in shards.items()]
    cohort = open_stores(paths)
    assert cohort.anatomy.chunks[0] == (5, 4, 7) and cohort.anatomy.chunks[1:] == ((SIDE,), (SIDE,))
    assert dask.is_dask_collection(cohort.anatomy.data) and not dask.is_dask_collection(cohort.image_id.data)
    assert list(cohort.shard.values) == ["s0"] * 5 + ["s1"] * 4 + ["s2"] * 7
    areas = plane(cohort, "hard_exudate").sum(("y", "x")).compute(scheduler="synchronous")
    expected = [0 if isinstance(m, Failure) else m.planes["hard_exudate"].sum() for items in shards.values() for m in items]
    np.testing.assert_array_equal(areas.values, expected)
    assert cohort.fovea.sel(image=0).values.tolist() == [20.25, 31.5]
    assert cohort.confidence.sel(target="vessel").notnull().sum() == 15
    with pytest.raises(KeyError, match="not_available"):
        plane(cohort, "drusen")
    assert open_stores(paths, chunk=2).anatomy.chunks[0][:3] == (2, 2, 1)


def test_stores_that_do_not_belong_together(tmp_path):
    a = write_store(tmp_path / "a.zarr", [make("x", 1)], ATTRS)
    b = write_store(tmp_path / "b.zarr", [make("x", 2)], {**ATTRS, "weights_sha256": "cd" * 32})
    with pytest.raises(StoreError) as error:
        open_stores([a, b])
    assert "weights_sha256" in str(error.value) and "ids in more than one store: x" in str(error.value)
    with pytest.raises(StoreError, match="no mask store"):
        open_stores([])


def test_stores_in_different_pens_do_not_belong_together(tmp_path):
    """An older store says nothing of pens and is no fault."""
    pens = {"old": {}, "own": {"pen": "drive"}, "none": {"pen": None}}
    paths = {name: write_store(tmp_path / f"{name}.zarr", [make(name, 1)], ATTRS | pen) for name, pen in pens.items()}
    with pytest.raises(StoreError, match="pen of .*none.zarr differs from that of .*own.zarr"):
        open_stores(paths.values())
    assert open_stores([paths["old"], paths["own"]]).sizes["image"] == open_stores([paths["old"], paths["none"]]).sizes["image"] == 2


WRITER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from test_masks_store import ATTRS, make
import retsam.masks.store as store
from pathlib import Path
stop = {stop!r}
if stop == "arrays":  # in the middle of the arrays, once the first bytes lie on disk
    original = store._Rows.block
    def block(self, group, start, end):
        if start:
            Path({flag!r}).touch(); time.sleep(60)
        return original(self, group, start, end)
    store._Rows.block = block
else:                 # everything written, not renamed
    store._rename = lambda *a: (Path({flag!r}).touch(), time.sleep(60))
store.write_store({path!r}, [make(f"n{{i}}", i) for i in range(24)], ATTRS)
"""


@pytest.mark.parametrize("stop", ["arrays", "rename"])
def test_killed_writer_leaves_no_store(tmp_path, stop):
    path, flag = tmp_path / "s0000.zarr", tmp_path / "flag"
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path), flag=str(flag), stop=stop)
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 60
    while not flag.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert flag.exists()
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = [p for p in tmp_path.iterdir() if p.name.startswith(".s0000")]
    assert not path.exists() and len(left) == 1
    with pytest.raises(StoreError):
        open_stores([path])
    if stop == "arrays":  # and even under its own name the torso is refused
        os.rename(left[0], path)
        with pytest.raises(StoreError, match="cut short|zarr.json"):
            list(read_masks(path))
        os.rename(path, left[0])
    again = write_store(path, [make("n0", 0)], ATTRS)
    assert [p.name for p in tmp_path.iterdir() if p != flag] == [again.name]  # the torso is swept away
    same(next(read_masks(again)), make("n0", 0))


def test_failing_prediction_keeps_the_older_store(tmp_path):
    path = write_store(tmp_path / "s.zarr", [make("old", 1)], ATTRS)

    def broken():
        yield make("new", 2)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        write_store(path, broken(), ATTRS)
    assert next(read_masks(path)).image_id == "old" and len(os.listdir(tmp_path)) == 1
    write_store(path, [make("new", 2)], ATTRS)
    assert next(read_masks(path)).image_id == "new" and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("what", ["folder", "file", "zarr"])
def test_what_is_no_mask_store_is_not_replaced(tmp_path, what):
    path = tmp_path / "masks"
    if what == "folder":
        path.mkdir()
        (path / "thesis.docx").write_text("years of work")
    elif what == "zarr":
        zarr.open_group(path, mode="w", attributes={"title": "somebody's"})
    else:
        path.write_text("years of work")
    before = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}
    with pytest.raises(StoreError, match="expected nothing there or an older mask store"):
        write_store(path, [make("a", 1)], ATTRS)
    assert {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()} == before


def test_an_empty_folder_is_nobodys(tmp_path):
    (tmp_path / "s0000.zarr").mkdir()
    assert store_faults(write_store(tmp_path / "s0000.zarr", [make("a", 1)], ATTRS)) == []


def test_partly_copied_store_is_refused(tmp_path):
    """Zarr reads a missing shard as zeros: without the check, an eye without vessels."""
    path = write_store(tmp_path / "s.zarr", [make("a", 1)], ATTRS)
    shard = path / "anatomy" / "c" / "0" / "0" / "0"
    content = shard.read_bytes()
    shard.write_bytes(content[:-7])
    assert any("anatomy" in fault and str(len(content)) in fault for fault in store_faults(path))
    shard.unlink()
    with pytest.raises(StoreError, match="is missing"):
        open_stores([path])
    shard.write_bytes(content)
    assert store_faults(path) == []
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["complete"] = False
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="cut short"):
        open_stores([path])


def test_masks_that_do_not_fit(tmp_path):
    wrong = make("wrong", 1)
    wrong.planes["vessel"] = wrong.planes["vessel"].astype(np.uint8)
    del wrong.planes["cup"]
    wrong.planes["drusen"] = wrong.planes["disc"]
    with pytest.raises(StoreError) as error:
        write_store(tmp_path / "s.zarr", [make("fine", 0), wrong], ATTRS)
    message = str(error.value)
    assert "'wrong'" in message and "'vessel' is uint8" in message and "no plane of cup" in message and "drusen" in message
    with pytest.raises(StoreError, match="more than once in one store: 'a'"):
        write_store(tmp_path / "s.zarr", [make("a", 1), make("b", 2), make("a", 3)], ATTRS)
    with pytest.raises(StoreError, match="at least one image"):
        write_store(tmp_path / "s.zarr", [], ATTRS)
    assert os.listdir(tmp_path) == []


def test_empty_string_and_unknown_id(tmp_path):
    path = write_store(tmp_path / "s.zarr", [make("Œil gauche 1", 1)], ATTRS)
    assert next(read_masks(path)).image_id == "Œil gauche 1"
    with pytest.raises(StoreError, match="no image 'ghost'"):
        list(read_masks(path, ["ghost"]))
