"""Speed of the default model against the published architecture, on this machine, in one run.

    python benchmarks/segmentation.py                    # CPU: both, the published one with random weights (5 GB of memory)
    python benchmarks/segmentation.py --device cuda      # GPU
    python benchmarks/segmentation.py --images FOLDER    # photographs of your own instead of rendered ones

Measures of the default model, each against one pass of the published network at 640 x 640 px (its only pass a photograph): like for
like, every head once on one image of 640 x 640 px, vessels and lesions in the fine view and the others in the whole one
(`ratio_published`); the same with a mirrored copy for vessels and lesions, as this was counted before photographs were looked at at two
sizes (`ratio_published_mirrored`); the forward passes that a photograph takes in a study, fine view, whole view and the disc's crop at
their own sizes (`ratio_published_passes`); and what a study waits for, from JPEG to masks (`images_per_second`,
`ratio_published_whole`). The published one runs in float32 and, where the device computes it natively, in bfloat16, and the faster
counts. Each runs in a process of its own, with the same threads. Prints a table and, as its last line, one JSON object: the ratios,
`images_per_second`, `weights_mb`, `peak_mb` of the default model, the published one's figures, and `..._cpu`: ratios of CPU seconds,
which hold on a busy machine too.
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

PUBLISHED_SIDE = 640


def peak_mb() -> float:
    """Peak memory of this process (not getrusage: its peak is inherited from the parent)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) / 1024


def rendered(folder: Path, n: int, seed: int = 0) -> list[Path]:
    """Rendered photographs as a camera would store them."""
    import cv2

    from retsam.demo import render_eye
    from retsam.demo.population import simulate

    _, parameters = simulate(max(4, (n + 1) // 2), 1024, seed)
    paths = []
    for i, eye in enumerate(parameters[:n]):
        paths.append(folder / f"{i:03d}.jpg")
        cv2.imwrite(str(paths[-1]), render_eye(eye, seed + i).rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def synchronised(device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def default_model(paths: list[Path], device: str, threads: int, batch: int, precision: str) -> dict[str, float]:
    """Images per second from JPEG to masks; the first batch warms up and does not count."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from retsam.cohort.reading import read_photograph
    from retsam.segmentation.predict import Segmenter, prepare

    torch.set_num_threads(threads)
    segmenter = Segmenter(device=device, batch_size=batch, precision=precision)

    def load(path: Path):
        return prepare(read_photograph(path).rgb)

    for prediction in segmenter.predict_prepared([load(p) for p in paths[:batch]]):
        prediction.masks()
    alone, alone_cpu = network_alone(segmenter, device)
    mirrored, mirrored_cpu = network_alone(segmenter, device, mirror=True)
    passes = count_passes(segmenter, device)
    start, cpu = synchronised(device), time.process_time()
    network = 0.0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = [pool.submit(load, p) for p in paths]
        for i in range(0, len(paths), batch):
            inputs = [f.result() for f in waiting[i : i + batch]]
            before = synchronised(device)
            predictions = segmenter.predict_prepared(inputs)
            network += synchronised(device) - before
            for prediction in predictions:
                prediction.masks()
    seconds = synchronised(device) - start
    figures = {"images_per_second": len(paths) / seconds, "network_share": network / seconds, "peak_mb": peak_mb()}
    figures["cpu_seconds"] = (time.process_time() - cpu) / len(paths)
    figures |= {"network_640_seconds": alone, "network_640_cpu_seconds": alone_cpu}
    figures |= {"network_640_mirrored_seconds": mirrored, "network_640_mirrored_cpu_seconds": mirrored_cpu}
    for key in ("seconds", "cpu_seconds"):
        figures[f"passes_{key}"] = sum(values[key] for values in passes.values()) / len(paths)
    figures["passes"] = {name: round(values["seconds"] / len(paths), 4) for name, values in sorted(passes.items())}
    figures["dtype"] = str(segmenter.dtype).removeprefix("torch.")
    figures["weights_mb"] = segmenter.weights_path.stat().st_size / 1e6
    if device == "cuda":
        figures["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return figures


def count_passes(segmenter, device: str) -> dict[str, dict[str, float]]:
    """Let the segmenter time its forward passes from now on; seconds and CPU seconds by view and side, filled as it predicts."""
    passes: dict[str, dict[str, float]] = {}
    forward = segmenter.logits

    def timed(view, rgb, *rest, **options):
        start, cpu = synchronised(device), time.process_time()
        out = forward(view, rgb, *rest, **options)
        values = passes.setdefault(f"{view}_{rgb.shape[1]}", {"seconds": 0.0, "cpu_seconds": 0.0})
        values["seconds"] += synchronised(device) - start
        values["cpu_seconds"] += time.process_time() - cpu
        return out

    segmenter.logits = timed
    return passes


def network_alone(segmenter, device: str, repeats: int = 5, mirror: bool = False) -> tuple[float, float]:
    """Seconds and CPU seconds of every head once on one image of 640 x 640 px, each in its view, after one pass that warms up; with
    ``mirror``, vessels and lesions on its mirrored copy as well."""
    import torch

    fine = [task for task in segmenter.tasks if task in ("vessels", "lesions_dr")]
    views = (("fine", fine), ("whole", [task for task in segmenter.tasks if task not in fine]))

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (1, PUBLISHED_SIDE, PUBLISHED_SIDE, 3), dtype=np.uint8)
    fov = np.ones(rgb.shape[:3], bool)
    times = []
    for _ in range(repeats + 1):
        start, cpu = synchronised(device), time.process_time()
        with torch.inference_mode():
            for view, tasks in views:
                segmenter.logits(view, rgb, fov, tasks, 8, mirror=mirror and view == "fine")
        times.append((synchronised(device) - start, time.process_time() - cpu))
    seconds, cpu_seconds = np.median(times[1:], axis=0)
    return float(seconds), float(cpu_seconds)


def published_model(device: str, threads: int, repeats: int, budget: float, **architecture) -> dict[str, float]:
    """Seconds a forward pass of the published architecture, random weights, batch of one, in each precision."""
    import torch

    from retsam.segmentation.memory import keep_freed_memory
    from retsam.segmentation.precision import fastest_dtype
    from retsam.segmentation.published import PublishedNetwork

    torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()  # as the default model does
    torch.manual_seed(0)
    network = PublishedNetwork(decoder_device="meta", **architecture)
    filled = {
        name: torch.empty(value.shape, dtype=value.dtype).uniform_(-0.02, 0.02)
        for name, value in network.decoder_modules.state_dict().items()
    }
    network.decoder_modules.load_state_dict(filled, assign=True)
    network = network.eval().to(device)
    x = torch.randn(1, 3, PUBLISHED_SIDE, PUBLISHED_SIDE, device=device)
    figures = {}
    with torch.inference_mode():
        for dtype in dict.fromkeys((torch.float32, fastest_dtype(torch.device(device)))):
            times, cpu = [], time.process_time()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                while len(times) < repeats + 1 and sum(times) < budget:
                    start = synchronised(device)
                    logits, _ = network(x)
                    times.append(synchronised(device) - start)
            if not all(torch.isfinite(y).all() for y in logits):
                raise RuntimeError(f"the published architecture gave no finite logits in {dtype}")
            name = str(dtype).removeprefix("torch.")
            figures[f"published_seconds_{name}"] = float(np.median(times[1:] or times))  # the first warms up
            figures[f"published_cpu_seconds_{name}"] = (time.process_time() - cpu) / len(times)
    best = {kind: min(v for name, v in figures.items() if name.startswith(kind)) for kind in ("published_seconds", "published_cpu_seconds")}
    return figures | best | {"published_peak_mb": peak_mb()}


def in_own_process(call: str) -> dict[str, float]:
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import segmentation as s\nfrom pathlib import Path\n"
    done = subprocess.run([sys.executable, "-c", code + f"print(json.dumps(s.{call}))"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{call.split('(')[0]} could not be measured (exit status {done.returncode})")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs (JPEG); rendered ones by default")
    parser.add_argument("--n", type=int, default=16, help="photographs [16]")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="torch threads of both [all cores of this process]")
    parser.add_argument("--batch", type=int, default=0, help="photographs a pass of the default model [1 on CPU, 8 on GPU]")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"], help="of the default model")
    parser.add_argument("--repeats", type=int, default=2, help="timed passes of the published architecture, after one that warms up")
    parser.add_argument("--budget", type=float, default=240, help="seconds after which no further pass of it is started")
    parser.add_argument("--skip-published", action="store_true", help="measure the default model only")
    args = parser.parse_args()
    import os

    threads = args.threads or len(os.sched_getaffinity(0))
    batch = args.batch or (8 if args.device == "cuda" else 1)
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(p for p in args.images.iterdir() if p.suffix.lower() in (".jpg", ".jpeg")) if args.images else []
        paths = [p.absolute() for p in found[: args.n]] if args.images else rendered(Path(folder), args.n)
        if not paths:
            print(f"no photographs (.jpg) in {args.images}", file=sys.stderr)
            return 1
        try:
            listed = ", ".join(f"Path({str(p)!r})" for p in paths)
            ours = in_own_process(f"default_model([{listed}], {args.device!r}, {threads}, {batch}, {args.precision!r})")
            skip = args.skip_published
            theirs = {} if skip else in_own_process(f"published_model({args.device!r}, {threads}, {args.repeats}, {args.budget})")
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    figures = ours | theirs | {"images": len(paths), "threads": threads, "batch": batch, "device": args.device}
    measures = {
        "": ("every head once at 640 px", ours["network_640_seconds"], ours["network_640_cpu_seconds"]),
        "_mirrored": ("the same, with a mirrored copy", ours["network_640_mirrored_seconds"], ours["network_640_mirrored_cpu_seconds"]),
        "_passes": ("all passes of a photograph", ours["passes_seconds"], ours["passes_cpu_seconds"]),
        "_whole": ("from JPEG to masks", 1 / ours["images_per_second"], ours["cpu_seconds"]),
    }
    for name, (_, seconds, cpu_seconds) in measures.items():
        figures[f"ratio_published{name}"] = theirs["published_seconds"] / seconds if theirs else None
        figures[f"ratio_published{name}_cpu"] = theirs["published_cpu_seconds"] / cpu_seconds if theirs else None
    print(f"{args.device}, {threads} threads, {len(paths)} photographs, {batch} a pass, {ours['dtype']}")
    print(f"default model   {ours['images_per_second']:8.2f} images/s, weights {ours['weights_mb']:.1f} MB, peak {ours['peak_mb']:.0f} MB")
    print(f"                {100 * ours['network_share']:8.0f} % of the time in the network; the rest is reading, frames and masks")
    print("passes          " + ", ".join(f"{name} px {1000 * seconds:.0f} ms" for name, seconds in ours["passes"].items()))
    if theirs:
        print(f"published       {1 / theirs['published_seconds']:8.4f} images/s, peak {theirs['published_peak_mb']:.0f} MB")
    for name, (what, seconds, cpu_seconds) in measures.items():
        ratio = f", {figures[f'ratio_published{name}']:.0f} ({figures[f'ratio_published{name}_cpu']:.0f}) times faster" if theirs else ""
        print(f"{what:32s}{seconds:.3f} s ({cpu_seconds:.3f} CPU-s){ratio}")
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
