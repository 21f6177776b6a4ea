"""Cost and agreement of the biomarker dictionary against PVBM, on real masks, in one run.

DRIVE at its native 565 x 584, HRF enlarged smoothly to the 3504 x 2336 of its photographs, and both brought to 1024 px. PVBM runs in an
environment of its own (`--pvbm-python`, or one that this script makes with `pip install`), pinned to one version. CPU seconds are those of
the measuring process, one thread, without start-up, compilation and reading.

Usage: python benchmarks/biomarkers.py [--drive 20] [--hrf 2] [--pvbm-python PYTHON] [--write]

`--write` writes docs/benchmarks/pvbm.md.

The last line is a JSON object: ratio_pvbm_3504, ratio_pvbm_565, cpu_s_1024, peak_mb, and the figures behind them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

PVBM_VERSION = "3.0.1.8"
PVBM_NEEDS = ("numpy==2.4.6", "scipy==1.17.1", "scikit-image==0.26.0", "pillow")
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "benchmarks" / "pvbm.md"

#: Ours, PVBM's, and what to know where the two definitions part.
PAIRS = (
    ("area_density_artery", "area_artery", "same: area (PVBM's divided by the field here)"),
    ("area_density_vein", "area_vein", "same"),
    ("length_density_artery", "length_artery", "PVBM adds chords between branch points, of trees from the disc only"),
    ("length_density_vein", "length_vein", "as above"),
    ("fractal_dimension_mask_d0_artery", "d0_artery", "PVBM: best of 25 rotations, only boxes filled to more than a least share"),
    ("fractal_dimension_mask_d0_vein", "d0_vein", "as above"),
    ("fractal_dimension_mask_d2_artery", "d2_artery", "as above"),
    ("fractal_dimension_mask_d2_vein", "d2_vein", "as above"),
    ("tortuosity_distance_median_artery", "tortuosity_median_artery", "PVBM: pixel steps, so a straight vessel reads up to 0.08"),
    ("tortuosity_distance_median_vein", "tortuosity_median_vein", "as above"),
    ("branching_angle_artery", "angle_median_artery", "PVBM: median over all pairs of branches, parent included"),
    ("branching_angle_vein", "angle_median_vein", "as above"),
    ("branchpoint_count_artery", "intersections_artery", "PVBM counts the pixels of a junction, of trees from the disc only"),
    ("branchpoint_count_vein", "intersections_vein", "as above"),
    ("crae", "craek_artery", "PVBM combines whatever number of vessels it finds; ours is null below six"),
    ("crve", "crvek_vein", "as above"),
)  # fmt: skip


def data_root() -> Path:
    """The data folder, or an exit that says how to name it."""
    root = Path(os.environ.get("RETSAM_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "drive" / "masks").is_dir() or not (root / "hrf" / "masks").is_dir():
        sys.exit(f"expected drive/masks and hrf/masks under {root}; set RETSAM_DATA to the folder that holds them")
    return root


def find_disc(photograph: np.ndarray, fov: np.ndarray) -> tuple[float, float, float]:
    """About where the disc is: the brightest spot of its size. Both tools are given the same one."""
    radius = 0.065 * float(fov.any(axis=0).sum())
    bright = cv2.GaussianBlur(photograph[:, :, 1].astype(np.float32), (0, 0), 0.8 * radius)
    inner = cv2.erode(fov.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(2 * radius) | 1,) * 2))
    bright[inner == 0] = 0
    y, x = np.unravel_index(int(np.argmax(bright)), bright.shape)
    return float(x), float(y), radius


def load(root: Path, name: str, dataset: str, size: tuple[int, int] | None) -> dict[str, object]:
    """Artery, vein, field of view and disc of one image, at a size (width, height) or its own."""
    av = cv2.imread(str(root / dataset / "masks" / f"{name}_av.png"), cv2.IMREAD_UNCHANGED)
    photograph = cv2.imread(str(next((root / dataset / "images").glob(f"{name}.*"))), cv2.IMREAD_COLOR)
    field = root / dataset / "masks" / f"{name}_fov.png"
    fov = cv2.imread(str(field), cv2.IMREAD_UNCHANGED) > 0 if field.exists() else photograph.max(axis=2) > 25
    disc = np.array(find_disc(photograph, fov))
    planes = {"artery": (av == 1) | (av == 3), "vein": (av == 2) | (av == 3), "fov": fov}
    if size is not None:
        # Smooth outlines, not enlarged pixels: those would be measured at their own, smaller size.
        planes = {
            key: cv2.GaussianBlur(cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), (0, 0), 1.0) > 0.5
            for key, plane in planes.items()
        }
        disc = disc * size[0] / av.shape[1]
    return {**planes, "disc": disc, "name": name}


def retsam_worker(source: str, target: str) -> None:
    """Measure every biomarker of the dictionary on an archive of masks; runs in a process of its own."""
    from retsam.biomarkers.eye import measure
    from retsam.biomarkers.phantoms.eyes import phantom_masks

    archive = np.load(source)
    rows = []
    for i in [0, *range(sum(name.startswith("disc_") for name in archive.files))]:
        planes = {"artery": archive[f"artery_{i}"] > 0, "vein": archive[f"vein_{i}"] > 0}
        x, y, radius = (float(v) for v in archive[f"disc_{i}"])
        masks = phantom_masks(planes, disc=(x, y, radius), fov=archive[f"fov_{i}"] > 0)
        start = time.process_time()
        values = measure(masks)
        seconds = time.process_time() - start
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float | np.number) and np.isfinite(v)}
        rows.append({"cpu_s": seconds, "values": numbers, "fov_area": int((archive[f"fov_{i}"] > 0).sum())})
    # The first run compiled or loaded the compiled code.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    Path(target).write_text(json.dumps({"rows": rows[1:], "peak_mb": peak}))


def run_tool(command: list[str], images: list[dict[str, object]]) -> dict[str, object]:
    """Hand masks to a worker process and read its figures."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {}
        for i, image in enumerate(images):
            arrays |= {f"{key}_{i}": np.asarray(image[key]).astype(np.uint8) for key in ("artery", "vein", "fov")}
            arrays[f"disc_{i}"] = image["disc"]
        source, target = Path(folder) / "masks.npz", Path(folder) / "out.json"
        np.savez_compressed(source, **arrays)
        environment = {**os.environ, **THREADS, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, str(source), str(target)], check=True, env=environment)
        return json.loads(target.read_text())


def pvbm_environment(python: str | None) -> str:
    """Python of an environment with PVBM, made here if none is given."""
    if python is None:
        folder = Path(tempfile.gettempdir()) / f"pvbm-{PVBM_VERSION}"
        python = str(folder / "bin" / "python")
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PVBM_NEEDS], check=True)
            # Without its dependencies: its measuring code imports none of the networks that they are for.
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", f"pvbm=={PVBM_VERSION}"], check=True)
    query = "from importlib.metadata import version; print(version('pvbm'))"
    found = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip()
    if found != PVBM_VERSION:
        sys.exit(f"{python} has pvbm {found}; expected {PVBM_VERSION}")
    return python


def agreement(ours: list[dict], theirs: list[dict]) -> list[str]:
    """Table of correlation and Bland-Altman limits for biomarkers that both tools have."""
    lines = [
        "| retsam | PVBM | n | r | mean difference | limits of agreement | definitions |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for own, other, note in PAIRS:
        pairs = []
        for mine, their in zip(ours, theirs, strict=True):
            if own in mine["values"] and other in their["values"] and their["values"][other] > 0:
                value = their["values"][other]
                if own.startswith(("area_density", "length_density")):
                    value /= mine["fov_area"]
                if "tortuosity" in own:
                    value -= 1.0
                pairs.append((mine["values"][own], value))
        if len(pairs) < 3:
            lines.append(f"| `{own}` | `{other}` | {len(pairs)} | - | - | - | {note} |")
            continue
        a, b = np.array(pairs).T
        difference = a - b
        r = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")
        mean, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
        lines.append(f"| `{own}` | `{other}` | {len(a)} | {r:.2f} | {mean:.4g} | {mean - spread:.4g} to {mean + spread:.4g} | {note} |")
    return lines


def page(cost: list[str], tables: dict[str, list[str]], command: str) -> str:
    """The documentation page."""
    lines = [
        "# Cost and agreement beside PVBM",
        "",
        f"Generated by `{command.replace(tempfile.gettempdir(), '$TMPDIR')}`, PVBM {PVBM_VERSION} in an environment of its own.",
        "Drawn artery and vein masks of DRIVE and HRF (the latter enlarged smoothly to the size of its photographs); both tools are given",
        "the same masks and the same disc (the brightest spot of a disc's size). CPU seconds of measuring alone, one thread: ours all",
        "biomarkers of the dictionary that these masks allow, PVBM's all that it computes. Lengths and widths in px; differences are",
        "ours - PVBM.",
        "",
        *cost,
    ]
    for title, table in tables.items():
        lines += ["", f"## {title}", "", *table]
    lines += [
        "",
        "Where the definitions are the same (areas) the numbers are the same. Elsewhere PVBM follows only vessels that its walk reaches",
        "from the disc, adds chords instead of arcs, counts each pixel of a junction, and combines fewer than six vessels without a word;",
        "a low correlation there is a difference of what is measured. On shapes whose answer is known see `synthetic.md`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    if len(sys.argv) == 4 and sys.argv[1] == "retsam-worker":
        retsam_worker(sys.argv[2], sys.argv[3])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=int, default=20, help="images of DRIVE at 565 x 584")
    parser.add_argument("--hrf", type=int, default=2, help="images of HRF at 3504 x 2336")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/pvbm.md")
    parser.add_argument("--pvbm-python", default=None, help=f"Python of an environment with pvbm {PVBM_VERSION}; one is made if not given")
    arguments = parser.parse_args()
    root = data_root()
    python = pvbm_environment(arguments.pvbm_python)
    own = [sys.executable, str(Path(__file__).resolve()), "retsam-worker"]
    pvbm = [python, str(HERE / "pvbm_worker.py")]

    drive_names = sorted(p.name.removesuffix("_av.png") for p in (root / "drive" / "masks").glob("*_av.png"))[: arguments.drive]
    hrf_names = sorted(p.name.removesuffix("_av.png") for p in (root / "hrf" / "masks").glob("*_av.png"))[: arguments.hrf]
    drive = [load(root, n, "drive", None) for n in drive_names]
    hrf = [load(root, n, "hrf", (3504, 2336)) for n in hrf_names]
    frames = [load(root, n, "drive", (1024, 1058)) for n in drive_names[:4]]
    # The field's square of an HRF photograph brought to 1024 px shows its retina at 1045 x 697.
    frames += [load(root, n, "hrf", (1045, 697)) for n in hrf_names]

    results = {name: (run_tool(own, images), run_tool(pvbm, images)) for name, images in (("565", drive), ("3504", hrf))}
    at_1024 = run_tool(own, frames)
    mean = {
        (name, tool): float(np.mean([r["cpu_s"] for r in results[name][i]["rows"]]))
        for name in results
        for i, tool in enumerate(("retsam", "pvbm"))
    }
    cost = ["| size | images | retsam CPU-s | PVBM CPU-s | ratio | retsam peak MB | PVBM peak MB |", "|---|---|---|---|---|---|---|"]
    for name, images in (("565", drive), ("3504", hrf)):
        ours, theirs = mean[name, "retsam"], mean[name, "pvbm"]
        peaks = [results[name][i]["peak_mb"] for i in (0, 1)]
        cost.append(f"| {name} | {len(images)} | {ours:.3f} | {theirs:.2f} | {theirs / ours:.1f} | {peaks[0]:.0f} | {peaks[1]:.0f} |")
    cpu_1024 = float(np.mean([r["cpu_s"] for r in at_1024["rows"]]))
    cost.append(f"| 1024 | {len(frames)} | {cpu_1024:.3f} | | | {at_1024['peak_mb']:.0f} | |")
    tables = {
        title: agreement(results[name][0]["rows"], results[name][1]["rows"])
        for title, name in (("DRIVE, 565 x 584", "565"), ("HRF, 3504 x 2336", "3504"))
    }
    print("\n".join(cost))
    for title, lines in tables.items():
        print("\n" + "\n".join([title, *lines]))
    if arguments.write:
        PAGE.write_text(page(cost, tables, " ".join(["python", "benchmarks/biomarkers.py", *sys.argv[1:]])), encoding="utf-8")
    failed = sum(any(k.endswith("_error") for k in r["values"]) for name in results for r in results[name][1]["rows"])
    figures = {
        "ratio_pvbm_3504": round(mean["3504", "pvbm"] / mean["3504", "retsam"], 1),
        "ratio_pvbm_565": round(mean["565", "pvbm"] / mean["565", "retsam"], 1),
        "cpu_s_1024": round(cpu_1024, 3),
        "peak_mb": round(max(results["3504"][0]["peak_mb"], at_1024["peak_mb"])),
        "cpu_s_3504": round(mean["3504", "retsam"], 3),
        "cpu_s_565": round(mean["565", "retsam"], 3),
        "pvbm_cpu_s_3504": round(mean["3504", "pvbm"], 2),
        "pvbm_cpu_s_565": round(mean["565", "pvbm"], 2),
        "pvbm_peak_mb": round(results["3504"][1]["peak_mb"]),
        "pvbm_images_with_errors": failed,
        "columns": len(results["565"][0]["rows"][0]["values"]),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
