"""Size and speed of the mask store against one PNG a layer, on the true masks of rendered eyes.

    python benchmarks/store.py                     # 32 eyes in the store's frame of 1,024 px
    python benchmarks/store.py --memory 250        # also the peak memory of writing one shard of 250 images, in a process of its own
    python benchmarks/store.py --stores M1 M2      # size of stores that a study left behind

Prints a table and, as its last line, one JSON object: `kb_per_image`, `files`, `write_images_per_second`, `read_images_per_second`, the
CPU milliseconds an image of both, the same of PNG (`png_...`), and `peak_mb` (null without --memory). PNG is written as most pipelines
do: one 8-bit file a layer and image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from retsam.demo import render_eye
from retsam.demo.population import simulate
from retsam.masks import Frame, Masks
from retsam.masks.store import open_stores, plane, read_masks, write_store
from retsam.segmentation.targets import STORE_GROUPS, TARGETS

HEADS = ("artery", "vein", "vessel", "disc", "cup", "microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
STATUS = {t: "supervised" if t in (*HEADS, "fovea") else "not_available" for t in TARGETS}
ATTRIBUTES = {"target_status": STATUS, "model": "rendered truth"}


def in_frame(masks: Masks, side: int, image_id: str) -> Masks:
    """True masks of a rendered eye in a canonical frame, as a network would hand them on."""
    height, width = masks.fov.shape
    columns = np.nonzero(masks.fov.any(0))[0]
    rows = np.nonzero(masks.fov.any(1))[0]
    span = int(max(np.ptp(columns), np.ptp(rows))) + 1
    frame = Frame.from_square(int(columns[0]), int(rows[0]), span, side, width, height)

    def warp(mask: np.ndarray) -> np.ndarray:
        return frame.warp(mask.astype(np.uint8) * 255) >= 128

    empty = np.zeros((height, width), bool)
    planes = {name: warp(masks.planes.get(name, empty)) for name in HEADS}
    return Masks(planes, warp(masks.fov), frame, (side / 2, side / 2), 0.9, masks.eye, image_id, status=STATUS)


def eyes(n: int, side: int, seed: int) -> list[Masks]:
    _, parameters = simulate(max(4, (n + 1) // 2), side, seed)
    chosen = tqdm(parameters[:n], desc="render", unit="eye", file=sys.stderr)
    return [in_frame(render_eye(p, seed * 100_003 + i).to_masks(), side, f"eye{i}") for i, p in enumerate(chosen)]


def size_of(folder: Path) -> tuple[float, int]:
    """Kilobytes and files."""
    files = [f for f in folder.rglob("*") if f.is_file()]
    return sum(f.stat().st_size for f in files) / 1000, len(files)


def write_png(items: list[Masks], folder: Path) -> None:
    for masks in items:
        for name, layer in {**masks.planes, "fov": masks.fov}.items():
            Image.fromarray(layer.astype(np.uint8) * 255).save(folder / f"{masks.image_id}_{name}.png")


def read_png(items: list[Masks], folder: Path) -> int:
    return sum(int((np.asarray(Image.open(folder / f"{m.image_id}_{name}.png")) > 0).sum()) for m in items for name in (*m.planes, "fov"))


def pixels(items) -> int:
    return sum(int(layer.sum()) for m in items for layer in (*m.planes.values(), m.fov))


def memory_of_a_shard(images: int, side: int) -> float:
    """Peak memory, MB, of a process that writes one shard of dense masks (every available bit random in a third of the frame)."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import store; print(store.write_dense_shard({images}, {side}))"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def write_dense_shard(images: int, side: int) -> float:
    """Write a shard from a generator and return this process's peak memory, MB."""
    available = [t for targets in STORE_GROUPS.values() for t in targets if t != "fov"]
    status = {t: "supervised" for t in TARGETS}
    rng = np.random.default_rng(0)
    base = np.kron(rng.random((side // 8, side // 8)) < 0.15, np.ones((8, 8), bool))
    frame = Frame.identity(side, side)

    def shard():
        for i in range(images):
            planes = {t: np.roll(base, (13 * i + 7 * k, 5 * i), (0, 1)) for k, t in enumerate(available)}
            yield Masks(planes, np.ones((side, side), bool), frame, None, None, None, f"i{i}", status=status)

    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "s0000.zarr", shard(), {"target_status": status})
    # not getrusage: its peak is inherited from the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) / 1024


def stores_of_a_study(paths: list[Path]) -> int:
    cohort = open_stores(paths)
    kilobytes, files = (sum(x) for x in zip(*map(size_of, paths), strict=True))
    start = time.perf_counter()
    area = plane(cohort, "vessel").sum(("y", "x")).compute(scheduler="synchronous")
    seconds = time.perf_counter() - start
    n = cohort.sizes["image"]
    print(f"{len(paths)} stores, {n} images: {kilobytes / n:.1f} KB, {files / n:.2f} files an image; vessels read at {n / seconds:.0f}/s")
    figures = {"images": n, "kb_per_image": round(kilobytes / n, 1), "files_per_image": round(files / n, 3)}
    print(json.dumps(figures | {"read_images_per_second": round(n / seconds, 1), "mean_vessel_px": float(area.mean())}))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=32)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, metavar="IMAGES", help="measure the peak memory of writing a shard of so many images")
    parser.add_argument("--stores", type=Path, nargs="+", help="measure these stores instead")
    args = parser.parse_args()
    if args.stores:
        return stores_of_a_study(args.stores)
    items = eyes(args.eyes, args.side, args.seed)
    truth, n = pixels(items), len(items)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("store", "png"):
            place = Path(folder) / name
            place.mkdir()
            clocks = [(time.perf_counter(), time.process_time())]
            if name == "store":
                write_store(place / "s0000.zarr", iter(items), ATTRIBUTES)
            else:
                write_png(items, place)
            clocks.append((time.perf_counter(), time.process_time()))
            found = pixels(read_masks(place / "s0000.zarr")) if name == "store" else read_png(items, place)
            clocks.append((time.perf_counter(), time.process_time()))
            if found != truth:
                print(f"{name}: read {found} pixels, wrote {truth}", file=sys.stderr)
                return 1
            kilobytes, files = size_of(place)
            (wall_write, cpu_write), (wall_read, cpu_read) = np.diff(clocks, axis=0)
            rows[name] = (kilobytes / n, files, n / wall_write, n / wall_read, 1000 * cpu_write / n, 1000 * cpu_read / n)
    peak = memory_of_a_shard(args.memory, args.side) if args.memory else None
    print(f"{n} rendered eyes, {len(HEADS) + 1} layers, {args.side} px")
    print(f"{'':8s}{'KB/image':>10s}{'files':>8s}{'write/s':>10s}{'read/s':>10s}{'write CPU ms':>14s}{'read CPU ms':>14s}")
    for name, (kilobytes, files, write, read, cpu_write, cpu_read) in rows.items():
        print(f"{name:8s}{kilobytes:10.1f}{files:8d}{write:10.1f}{read:10.1f}{cpu_write:14.1f}{cpu_read:14.1f}")
    if peak:
        print(f"writing {args.memory} dense images of {args.side} px with all {len(TARGETS)} heads: peak {peak:.0f} MB")
    figures = {}
    for name, prefix in (("store", ""), ("png", "png_")):
        keys = ("kb_per_image", "files", "write_images_per_second", "read_images_per_second", "write_cpu_ms", "read_cpu_ms")
        figures |= {prefix + key: round(float(value), 2) for key, value in zip(keys, rows[name], strict=True)}
    print(json.dumps(figures | {"images": n, "peak_mb": None if peak is None else round(peak)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
