"""The public synthetic biomarker benchmark, run on this package.

Nine shapes whose biomarkers follow from their geometry are drawn at four angles (`retsam.biomarkers.phantoms.families`), measured, and
compared with the values that the geometry requires; our row is set beside the rows that the benchmark's authors publish for other
tools. Writes `docs/benchmarks/synthetic.md`.

Usage: python benchmarks/synthetic.py [--out docs/benchmarks/synthetic.md] [--check]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.phantoms.eyes import phantom_context
from retsam.biomarkers.phantoms.families import ANGLES, FAMILIES, SIDE, UM_PER_PX, Shape, draw_family, truth_of
from retsam.biomarkers.registry import Null
from retsam.biomarkers.vessels import measure_vessels

#: Rows as published by the benchmark's authors (docs/benchmarks/biomarker-synthetic-results.md of staskh/fundus-atlas, read 2026-11).
_COLUMNS = ("comparable", "median", "within25", "moving", "wrong", "raised", "seconds")
PUBLISHED = {
    tool: dict(zip(_COLUMNS, row, strict=True))
    for tool, row in {
        "PVBM": (392, 3.8, 82, "13 / 32", "11 / 22", 16, 36.4),
        "OCULAR": (312, 4.6, 74, "8 / 18", "7 / 10", 0, 2.1),
        "AutoMorph": (216, 8.0, 76, "16 / 18", "6 / 10", 0, 0.8),
        "AutoMorphalyzer": (232, 7.0, 91, "19 / 40", "2 / 12", 0, 3.6),
        "AutoMorphClass": (216, 7.3, 89, "11 / 18", "3 / 10", 0, 0.4),
        "VascX": (80, 0.7, 90, "4 / 20", "2 / 6", 0, 2.6),
    }.items()
}
#: Worst error over shapes and angles, per cent, as published on the same page.
PUBLISHED_WORST = {
    "junction-counts/junctions/artery": (785.7, 42.9, None, None, None, None),
    "junction-counts/endpoints/vein": (250.0, 100.0, None, None, None, None),
    "central-retinal-equivalents/hubbard/artery": (81.4, None, None, None, None, None),
    "tortuosity/hart-tau1/vein": (32.8, 31.2, 542.2, 13.4, 7.4, 43.4),
    "vessel-area-and-length/skeleton-length/vein": (36.0, 100.0, None, None, None, None),
    "vessel-calibre/mean-width/vein": (None, None, 56.5, 18.6, 22.3, 1.1),
    "avr/hubbard/both": (32.2, None, None, None, None, None),
    "tortuosity/grisan-density/artery": (None, None, math.inf, math.inf, math.inf, None),
}
#: A value whose geometry requires zero is right within this much of one per disc diameter (or one radian).
ZERO_TOLERANCE = 0.02


def canonical(values: dict[str, float | Null], shape: Shape) -> dict[str, float]:
    """Our columns under the benchmark's canonical names, in pixels; nulls are left out."""
    dd = 2.0 * shape.disc[2]
    fov_area = float(np.count_nonzero(shape.fov))
    found: dict[str, float | Null] = {}

    def give(name: str, column: str, factor: float = 1.0, plus: float = 0.0) -> None:
        value = values[column]
        if not isinstance(value, Null):
            found[name] = value * factor + plus

    for kind, own in (("artery", "artery"), ("vein", "vein"), ("vessels", "vessel")):
        give(f"tortuosity/hart-tau1/{kind}", f"tortuosity_distance_{own}", plus=1.0)
        give(f"tortuosity/hart-tau2/{kind}", f"tortuosity_tau2_{own}")
        give(f"tortuosity/hart-tau3/{kind}", f"tortuosity_tau3_{own}", 1.0 / dd)
        give(f"tortuosity/hart-tau4/{kind}", f"tortuosity_curvature_mean_{own}", 1.0 / dd)
        give(f"tortuosity/hart-tau5/{kind}", f"tortuosity_curvature_{own}", 1.0 / dd**2)
        give(f"tortuosity/hart-tau6/{kind}", f"tortuosity_tau6_{own}", 1.0 / dd)
        give(f"tortuosity/hart-tau7/{kind}", f"tortuosity_tau7_{own}", 1.0 / dd**2)
        give(f"tortuosity/spline-mean-curvature/{kind}", f"tortuosity_curvature_mean_{own}", 1.0 / dd)
        give(f"tortuosity/grisan-density/{kind}", f"tortuosity_density_{own}", 1.0 / dd)
        give(f"vessel-calibre/mean-width/{kind}", f"width_mean_{own}")
        give(f"vessel-calibre/median-width/{kind}", f"width_p50_{own}")
        give(f"vessel-area-and-length/area/{kind}", f"area_density_{own}", fov_area)
        give(f"vessel-area-and-length/skeleton-length/{kind}", f"length_density_{own}", fov_area)
        give(f"sparsity/mean-distance/{kind}", f"sparsity_mean_{own}")
        give(f"sparsity/max-distance/{kind}", f"sparsity_max_{own}")
        give(f"junction-counts/junctions/{kind}", f"branchpoint_count_{own}")
        give(f"junction-counts/endpoints/{kind}", f"endpoint_count_{own}")
        give(f"junction-counts/components/{kind}", f"component_count_{own}")
        give(f"bifurcation-angle/between-daughters/{kind}", f"branching_angle_{own}")
        give(f"fractal-dimension/box-counting/{kind}", f"fractal_dimension_mask_d0_{own}")
        for order in ("d0", "d1", "d2"):
            give(f"fractal-dimension/multifractal-{order}/{kind}", f"fractal_dimension_mask_{order}_{own}")
        length = found.get(f"vessel-area-and-length/skeleton-length/{kind}")
        rate = values[f"inflection_count_{own}"]
        if length is not None and not isinstance(rate, Null):
            inflections = rate / dd * length
            found[f"tortuosity/inflection-count/{kind}"] = inflections
            found[f"tortuosity/arc-chord-times-inflections/{kind}"] = inflections * found[f"tortuosity/hart-tau1/{kind}"]
    for kind, row in (("artery", "crae"), ("vein", "crve")):
        give(f"central-retinal-equivalents/knudtson/{kind}", row)
        give(f"central-retinal-equivalents/hubbard/{kind}", f"{row}_hubbard_um")
    give("avr/knudtson/both", "avr")
    give("avr/hubbard/both", "avr_hubbard")
    give("vascular-density/over-field-of-view/vessels", "area_density_vessel")
    give("vascular-density/over-image/vessels", "area_density_vessel", fov_area / SIDE**2)
    if "vessel-calibre/mean-width/vein" in found:
        found["avr/ratio-of-calibres/both"] = found["vessel-calibre/mean-width/artery"] / found["vessel-calibre/mean-width/vein"]
    return found


def error_of(name: str, said: float, truth: float, dd: float) -> float:
    """Relative error; where the geometry requires zero, the deviation in its natural unit, 0 inside `ZERO_TOLERANCE`."""
    if truth != 0.0:
        return said / truth - 1.0
    power = {"tau3": 1, "tau4": 1, "tau5": 2, "tau6": 1, "tau7": 2, "spline-mean-curvature": 1, "grisan-density": 1}
    scale = dd ** next((p for key, p in power.items() if key in name), 0)
    return 0.0 if abs(said) * scale <= ZERO_TOLERANCE else math.inf


def run() -> tuple[list[tuple[str, float, str, float, float, float]], dict[str, dict[str, list[float]]], float, int]:
    """Measure all drawings.

    Returns
    -------
    rows : list of (family, angle, canonical name, said, truth, error)
    spreads : per family and own column, the values at the four angles
    seconds : CPU seconds a drawing
    columns : int
    """
    config = BiomarkersConfig(extra_tortuosity=True)
    rows, spreads = [], {}
    seconds, drawings, columns = 0.0, 0, 0
    for name, family in FAMILIES.items():
        truth = truth_of(family())
        for angle in ANGLES:
            shape = draw_family(name, angle, truth)
            context = phantom_context(shape.planes, disc=shape.disc, fov=shape.fov, um_per_px=UM_PER_PX, config=config)
            if drawings == 0:
                measure_vessels(context)
                context = phantom_context(shape.planes, disc=shape.disc, fov=shape.fov, um_per_px=UM_PER_PX, config=config)
            start = time.process_time()
            values = measure_vessels(context)
            seconds += time.process_time() - start
            drawings += 1
            columns = len(values)
            for column, value in values.items():
                if not isinstance(value, Null):
                    spreads.setdefault(name, {}).setdefault(column, []).append(value)
            said = canonical(values, shape)
            rows += [
                (name, angle, key, said[key], required, error_of(key, said[key], required, 2.0 * shape.disc[2]))
                for key, required in sorted(truth.items())
                if key in said
            ]
    return rows, spreads, seconds / drawings, columns


def report(rows: list, spreads: dict, seconds: float, columns: int) -> tuple[str, dict[str, float]]:
    """The page, and its figures."""
    errors = np.array([abs(r[5]) for r in rows])
    names = sorted({r[2] for r in rows})
    finite = np.where(np.isfinite(errors), errors, 1e9)
    worst = {n: max(abs(r[5]) for r in rows if r[2] == n) for n in names}
    moving = set()
    for by_column in spreads.values():
        for column, values in by_column.items():
            biggest = max(abs(v) for v in values)
            if len(values) == len(ANGLES) and biggest > 1e-6 and (max(values) - min(values)) / biggest > 0.10:
                # A value that is zero but for rounding has no relative spread.
                if not (column.startswith(("tortuosity", "width_sd")) and biggest < ZERO_TOLERANCE):
                    moving.add(column)
    figures = {
        "comparable": len(rows),
        "biomarkers": len(names),
        "median_percent": round(float(np.median(finite)) * 100, 3),
        "within_2_percent": round(float((finite <= 0.02).mean()), 4),
        "within_25_percent": round(float((finite <= 0.25).mean()), 4),
        "beyond_2_percent": int((finite > 0.02).sum()),
        "moving_columns": len(moving),
        "columns": columns,
        "cpu_s_2048": round(seconds, 3),
    }
    text = [
        "# The public synthetic biomarker benchmark",
        "",
        "Generated by `python benchmarks/synthetic.py`. Nine shapes at four angles, drawn on 2048 x 2048 px at 5 um/px by our own",
        "generator after the public benchmark of [fundus-atlas](https://github.com/staskh/fundus-atlas) (docs/benchmarks); every value",
        "follows from geometry. The other tools' rows are the ones published there; we did not run them here. Three values of the public",
        "ground truth are not ours: areas of forks (it counts the overlap of the branches twice), the free ends of `deep-bifurcation`",
        "(16 tips, of which four meet tip on tip in the drawing: 14), and Hubbard's equivalents, for which it takes the wider vessel of a",
        "pair as the first of the formula (151.7 and 225.0 um for six arteries of 80 um and veins of 120 um), where the formula, and PVBM,",
        "have the narrower (154.9 and 231.4 um).",
        "",
        "| | comparable measurements | median disagreement | within 25 % | move > 10 % when turned | exceptions | s an image |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| **retsam** | **{len(rows)}** | **{figures['median_percent']:.2f} %** | **{figures['within_25_percent']:.0%}** | "
        f"**{len(moving)} / {columns}** | **0** | **{seconds:.2f}** |",
    ]
    for tool, row in PUBLISHED.items():
        cells = (row["comparable"], f"{row['median']} %", f"{row['within25']} %", row["moving"], row["raised"], row["seconds"])
        text.append(f"| {tool} | " + " | ".join(str(cell) for cell in cells) + " |")
    text += [
        "",
        f"Within 2 % of the geometry: {int((finite <= 0.02).sum())} of {len(rows)} ({figures['within_2_percent']:.1%}); PVBM: 144 of 262",
        "on the first eight shapes.",
        "",
        "## Worst error over shapes and angles, beside the published ones",
        "",
        "| biomarker | retsam | " + " | ".join(PUBLISHED) + " |",
        "| --- | --- |" + " --- |" * len(PUBLISHED),
    ]
    for name, others in PUBLISHED_WORST.items():
        cells = ["-" if v is None else "infinite" if math.isinf(v) else f"{v:.1f} %" for v in others]
        text.append(f"| `{name}` | **{worst[name]:.2%}** | " + " | ".join(cells) + " |")
    text += [
        "",
        "## Every biomarker of ours",
        "",
        "| biomarker | measurements | mean error | worst error | worst at |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in names:
        own = [r for r in rows if r[2] == name]
        bad = max(own, key=lambda r: abs(r[5]))
        mean = float(np.mean([r[5] for r in own]))
        text.append(f"| `{name}` | {len(own)} | {mean:+.2%} | {abs(bad[5]):.2%} | {bad[0]} {bad[1]:.0f} |")
    beyond = [r for r in rows if abs(r[5]) > 0.02]
    text += ["", "## Beyond 2 %", ""]
    if beyond:
        text += ["| shape | angle | biomarker | measured | geometry | error |", "| --- | --- | --- | --- | --- | --- |"]
        text += [f"| {f} | {a:.0f} | `{n}` | {s:.5g} | {t:.5g} | {e:+.1%} |" for f, a, n, s, t, e in beyond]
    else:
        text.append("None.")
    text += [
        "",
        "Columns that move by more than 10 % between the angles: " + (", ".join(f"`{m}`" for m in sorted(moving)) or "none") + ".",
        "",
        "All of them are of `koch`, and its geometry does not fix them at the pens used (8 and 12 px, sides of 77 px). The middle",
        "between a vessel's two edges leaves the pen's path at a corner: it is the parabola between the tip of the inner edge,",
        "w / (2 sin(t/2)) from a corner of angle t, and the outer edge. At the five corners of 60 degrees it leaves the path 0.87 w before",
        "the corner and passes 0.33 w inside of it, at the ten of 120 degrees 0.29 w and 0.04 w: 0.52 w and 0.04 w shorter a corner, 2.9 w",
        "in all, 1.9 % of the artery and 2.8 % of the vein before any smoothing. A smoothing spline, without which pixels would make",
        "straight vessels tortuous, rounds corners once more. Only a tool that knows that the pen was of one width could go back",
        "to its path. The dimension log 4 / log 3 is that of the limit of all generations: two of them, with sides of six pens, have no",
        "range of box sizes over which N(s) follows a power.",
        "What moves when the picture turns is curvature at corners, curvature of stretches cut short by a zone, and spreads (`width_sd`,",
        "`singularity_length`) of things that are equal.",
        "",
    ]
    return "\n".join(text), figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "benchmarks" / "synthetic.md")
    arguments = parser.parse_args()
    rows, spreads, seconds, columns = run()
    text, figures = report(rows, spreads, seconds, columns)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    for line in text.splitlines():
        if line.startswith("|"):
            print(line)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
