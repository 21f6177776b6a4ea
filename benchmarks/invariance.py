"""Which biomarkers move when the same masks are turned by 90 degrees, mirrored (with the eye), halved or doubled.

    python benchmarks/invariance.py                 # rendered eyes of the demo, and DRIVE and HRF masks where RETSAM_DATA has them
    python benchmarks/invariance.py --write         # and write docs/benchmarks/invariance.md

A value moves when it changes by more than 5 % (of itself), or is measured once and null the other time. Values in pixels are compared
after scaling only where they should stay. Prints a table of what moved, and as its last line one JSON object: the share of values
that moved, by transformation, altogether, and by family. Exits with 1 where nothing could be measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from retsam.biomarkers.eye import measure
from retsam.biomarkers.own_masks import read_index
from retsam.biomarkers.registry import registry
from retsam.demo import render_eye
from retsam.demo.population import simulate
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "invariance.md"
TOLERANCE = 0.05

#: Defined by the picture, not by the eye: they must follow it.
OF_THE_PICTURE = {
    "rotated": {"fovea_x_px", "fovea_y_px", "disc_fovea_angle_deg"},
    "mirrored": {"fovea_x_px"},
    "halved": set(),
    "doubled": set(),
}

#: Why a biomarker may move, by what its name contains; the first that fits.
REASONS = {
    "count": "a whole number: one small structure that the coarser pixels drop, join or split is a step of more than 5 %",
    "quadrants": "a whole number of four",
    "stage": "a grade: a value next to a border",
    "severity": "a grade: a value next to a border",
    "isnt": "a rule: two sectors of nearly equal width",
    "position": "an angle from zero: the rim is nearly as thin elsewhere",
    "orientation": "an angle from zero: the disc is nearly a circle",
    "fovea_distance": "a distance to an edge, short in pixels: the edge moves by half a pixel",
    "vessel_distance": "a distance to an edge, short in pixels: the edge moves by half a pixel",
    "within_1dd": "small lesions on a border",
    "coverage": "lesions of a few pixels: their area changes with the pixels that draw them",
    "area": "lesions or vessels of a few pixels: their area changes with the pixels that draw them",
    "circularity": "outline of a few pixels",
    "aspect": "outline of a few pixels",
    "width": "vessels of 1 to 3 pixels: their width is known to half a pixel",
    "curvature": "second derivative of the centreline: its scale of smoothing is bound by the pixels",
    "inflection": "sign changes of a second derivative of the centreline",
    "tortuosity": "segments end where branches join: a branch that the coarser pixels drop joins two segments to one",
    "junctional": "ratio of widths of a few pixels",
    "branching": "ratio of widths of a few pixels, over few junctions",
    "asymmetry": "ratio of widths of a few pixels",
    "optimality": "ratio of widths of a few pixels",
    "nicking": "ratio of widths of a few pixels, over few crossings",
    "beading": "variance of widths of a few pixels",
    "fractal": "the range of box sizes is bound by the pixels",
    "singularity": "difference of two slopes",
    "sparsity": "distance to the nearest vessel: thin vessels that the coarser pixels drop",
}


def _mapped(masks: Masks, plane: Callable[[np.ndarray], np.ndarray], point: Callable, scale: float = 1.0, swap: bool = False) -> Masks:
    fov = plane(masks.fov)
    return dataclasses.replace(
        masks,
        planes={name: plane(values) for name, values in masks.planes.items()},
        fov=fov,
        frame=Frame.identity(fov.shape[1], fov.shape[0]),
        fovea=None if masks.fovea is None else point(*masks.fovea),
        eye={"R": "L", "L": "R", None: None}[masks.eye] if swap else masks.eye,
        um_per_px=None if masks.um_per_px is None else masks.um_per_px / scale,
    )


def rotated(masks: Masks) -> Masks:
    """A quarter turn counter-clockwise."""
    width = masks.fov.shape[1]
    return _mapped(masks, lambda plane: np.ascontiguousarray(np.rot90(plane)), lambda x, y: (y, width - 1 - x))


def mirrored(masks: Masks) -> Masks:
    """Left to right, and the other eye."""
    width = masks.fov.shape[1]
    return _mapped(masks, lambda plane: np.ascontiguousarray(plane[:, ::-1]), lambda x, y: (width - 1 - x, y), swap=True)


def scaled(masks: Masks, scale: float) -> Masks:
    """Other pixels: averaged (or interpolated) and cut at one half."""
    height, width = (round(side * scale) for side in masks.fov.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def plane(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values.astype(np.float32), (width, height), interpolation=how) >= 0.5

    return _mapped(masks, plane, lambda x, y: ((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5), scale)


TRANSFORMATIONS: dict[str, Callable[[Masks], Masks]] = {
    "rotated": rotated,
    "mirrored": mirrored,
    "halved": lambda masks: scaled(masks, 0.5),
    "doubled": lambda masks: scaled(masks, 2.0),
}


def rendered_eyes(count: int, size: int, seed: int) -> Iterator[Masks]:
    """True masks of the demo's eyes, healthy and diseased."""
    _, parameters = simulate(max(4, (count + 1) // 2), size, seed)
    for number, eye in enumerate(parameters[:count]):
        yield render_eye(eye, seed * 100_003 + number).to_masks(f"rendered {number}")


def real_eyes(count: int) -> Iterator[Masks]:
    """Artery and vein masks of DRIVE and HRF at native size, without disc or fovea; none where the data are missing."""
    root = Path(os.environ.get("RETSAM_DATA", "../shared/data"))
    if not (root / "manifest.csv").exists():
        return
    manifest = pd.read_csv(root / "manifest.csv", low_memory=False)
    for dataset in ("drive", "hrf"):
        rows = manifest[(manifest["dataset"] == dataset) & manifest["av"].notna()]
        for row in rows.iloc[:: max(1, len(rows) // max(count, 1))].head(count).itertuples():
            av = read_index(str(root / row.av))
            fov = read_index(str(root / row.fov)) > 0 if isinstance(row.fov, str) else np.ones(av.shape, bool)
            planes = {"artery": np.isin(av, (1, 3)), "vein": np.isin(av, (2, 3)), "vessel": av > 0}
            yield Masks(planes, fov, Frame.identity(*av.shape[::-1]), None, None, image_id=f"{dataset} {row.image}", native=True)


def compare(masks: Masks, transformations: list[str]) -> list[dict]:
    """One row a transformation and biomarker that was measured before or after it."""
    before, known, rows = measure(masks), registry(), []
    for name in transformations:
        after = measure(TRANSFORMATIONS[name](masks))
        skip = set(OF_THE_PICTURE[name])
        if name in ("halved", "doubled"):
            skip |= {key for key, entry in known.items() if not entry.scale_free}
        for key in known:
            a, b = before[key], after[key]
            if key in skip or (math.isnan(a) and math.isnan(b)):
                continue
            if math.isnan(a) or math.isnan(b):
                # A photograph of half the pixels may be too coarse for a biomarker; saying so is right.
                if "resolution_too_low" in (before[f"{key}__reason"], after[f"{key}__reason"]):
                    continue
                change = math.inf
            else:
                change = abs(b - a) / abs(a) if a else (0.0 if abs(b) < 1e-9 else math.inf)
            rows.append({"image": masks.image_id, "transformation": name, "biomarker": key, "before": a, "after": b, "change": change})
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Biomarkers that moved in any eye, the most often first."""
    table = table.assign(moved=table["change"] > TOLERANCE)
    grouped = table.groupby(["transformation", "biomarker"])
    out = grouped.agg(n=("moved", "size"), moved=("moved", "sum"), median_change=("change", "median")).reset_index()
    out = out[out["moved"] > 0].sort_values(["transformation", "moved", "biomarker"], ascending=[True, False, True])
    out["reason"] = [next((why for part, why in REASONS.items() if part in name), "") for name in out["biomarker"]]
    return out


def page(shares: dict[str, float], moved: pd.DataFrame, eyes: int, command: str) -> str:
    """The documentation page."""
    lines = [
        "# Invariance of the biomarkers",
        "",
        f"Generated by `{command}`: the masks of {eyes} eyes turned by 90 degrees, mirrored (with the eye), and redrawn with half and "
        "double the pixels. A value moves when it changes by more than 5 % or is null on one side only. Values in pixels are compared "
        "for turns and mirrors only; the fovea's coordinates and `disc_fovea_angle_deg` follow the picture by definition.",
        "",
        "| transformation, or family | values that moved |",
        "|---|---|",
        *(f"| {name} | {share:.2%} |" for name, share in shares.items()),
        "",
        "## What moved, and why",
        "",
        "| transformation | biomarker | moved in | median change | reason |",
        "|---|---|---|---|---|",
    ]
    for row in moved.itertuples():
        change = "null on one side" if math.isinf(row.median_change) else f"{row.median_change:.1%}"
        lines.append(f"| {row.transformation} | `{row.biomarker}` | {row.moved} of {row.n} | {change} | {row.reason} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=12, help="rendered eyes")
    parser.add_argument("--real", type=int, default=3, help="eyes of each of DRIVE and HRF")
    parser.add_argument("--size", type=int, default=1024, help="width of the rendered photographs, pixels")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/invariance.md")
    arguments = parser.parse_args()
    rows: list[dict] = []
    eyes = 0
    for masks in (*rendered_eyes(arguments.eyes, arguments.size, arguments.seed), *real_eyes(arguments.real)):
        rows += compare(masks, list(TRANSFORMATIONS))
        eyes += 1
        print(f"{masks.image_id}: {len(rows)} values", file=sys.stderr)
    if not rows:
        print("nothing could be measured", file=sys.stderr)
        return 1
    table = pd.DataFrame(rows)
    moved = summary(table)
    with pd.option_context("display.max_rows", None, "display.width", 200, "display.max_colwidth", 90, "display.precision", 3):
        print(moved.to_string(index=False))
    shares = {name: float((part["change"] > TOLERANCE).mean()) for name, part in table.groupby("transformation", sort=False)}
    shares["all"] = float((table["change"] > TOLERANCE).mean())
    families = {name: entry.family for name, entry in registry().items()}
    for family, part in table.groupby(table["biomarker"].map(families), sort=False):
        shares[family] = float((part["change"] > TOLERANCE).mean())
    if arguments.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        command = " ".join(["python", "benchmarks/invariance.py", *sys.argv[1:]])
        PAGE.write_text(page(shares, moved, eyes, command), encoding="utf-8")
        print(f"written: {PAGE}", file=sys.stderr)
    print(json.dumps({"eyes": eyes, "values": len(table), **{f"moved_{name}": round(share, 5) for name, share in shares.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
