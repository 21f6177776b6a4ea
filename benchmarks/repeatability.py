"""Repeatability of the biomarkers: coefficient of variation and ICC of each, under two protocols.

*masks*: reference artery and vein masks of DRIVE and HRF, brought to 1,024 px, perturbed in seven ways
(`retsam.biomarkers.phantoms.perturb`): what an error of the segmentation does to each vessel biomarker.

*photographs*: photographs that no head was trained on (GAVE test part; IDRiD's held-out ones with retinopathy), as they are, compressed,
lit otherwise and blurred, each segmented anew by the shipped network: what a worse copy of the same photograph does to each biomarker.

The coefficient of variation is the SD within an eye over the mean of the eyes, for quantities that cannot be negative; the ICC (one-way,
single measure) is the share of the variance that lies between eyes. Of the photographs it is taken within data sets, so that a difference
between cameras does not pass for one between eyes.

    python benchmarks/repeatability.py [--eyes 12] [--seeds 1] [--photographs 8] [--minutes M] [--weights FILE]
    retsam measure dictionary --out docs           # then, to bring the figures into the dictionary

Writes `docs/benchmarks/repeatability.md` and `retsam/biomarkers/evidence/repeatability.csv`, of which the dictionary is made. `--only`
measures one protocol (`masks`, `photographs`) and keeps the table's rows of the other, or writes the `page` alone. The last line is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from biomarkers import data_root, load

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye import measure_row
from retsam.biomarkers.phantoms.eyes import phantom_context
from retsam.biomarkers.phantoms.perturb import KINDS, perturb
from retsam.biomarkers.registry import Null, registry
from retsam.biomarkers.vessels import DICTIONARY, measure_vessels
from retsam.biomarkers.worth import FOLDER, PROTOCOLS
from retsam.cohort.reading import read_photograph
from retsam.evaluation.reference import read_manifest
from retsam.segmentation.predict import Segmenter
from retsam.training.config import TrainConfig
from retsam.training.frames import held_out

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "repeatability.md"
SIZES = {"drive": (1024, 1058), "hrf": (1045, 697)}
PHOTOGRAPHS = {"gave": "vessels, disc, macula", "idrid_grading": "disc, macula, lesions (retinopathy of grade 2 or more)"}
COPIES = {
    "compressed": "as JPEG of quality 30",
    "relit": "a gamma of 1.15, a tenth darker, and light that falls off by a third from one side to the other",
    "blurred": "by a Gaussian of 0.1 % of the picture's width (about 1 px of 1,024)",
}
MIN_EYES = 5

# One eye's values of one biomarker: kind of change -> values, the unchanged one first.
Found = dict[str, dict[str, dict[int, list[float]]]]


def copies(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """The photograph and its worse copies."""
    code = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    light = np.linspace(1.0, 2 / 3, rgb.shape[1], dtype=np.float32)[None, :, None]
    relit = 255 * (rgb.astype(np.float32) / 255) ** 1.15 * 0.9 * light
    return {
        "original": rgb,
        "compressed": np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]),
        "relit": np.clip(np.rint(relit), 0, 255).astype(np.uint8),
        "blurred": cv2.GaussianBlur(rgb, (0, 0), max(rgb.shape[:2]) / 1000),
    }


def icc(groups: list[np.ndarray], strata: list[str] | None = None) -> float:
    """One-way random-effects intraclass correlation of single measurements, groups of unequal size; within strata where given."""
    strata = strata or ["all"] * len(groups)
    pairs = [(g, s) for g, s in zip(groups, strata, strict=True) if len(g) > 1]
    members = {s: np.concatenate([g for g, t in pairs if t == s]) for _, s in pairs}
    sizes = np.array([len(g) for g, _ in pairs])
    total, count = sizes.sum(), len(pairs)
    if count <= len(members):
        return float("nan")
    between = sum(len(g) * (g.mean() - members[s].mean()) ** 2 for g, s in pairs) / (count - len(members))
    within = sum(((g - g.mean()) ** 2).sum() for g, _ in pairs) / (total - count)
    size = (total - (sizes**2).sum() / total) / (count - 1)
    return float((between - within) / (between + (size - 1) * within)) if between + within > 0 else float("nan")


def of_masks(eyes: int, seeds: int) -> tuple[Found, list[str]]:
    """Values under the protocol *masks*, and each eye's data set."""
    root = data_root()
    names = [
        (dataset, path.name.removesuffix("_av.png"))
        for dataset, share in (("drive", eyes // 2), ("hrf", eyes - eyes // 2))
        for path in sorted((root / dataset / "masks").glob("*_av.png"))[:share]
    ]
    found: Found = {}
    for eye, (dataset, name) in enumerate(tqdm(names, desc="masks", unit="eye")):
        image = load(root, name, dataset, SIZES[dataset])
        planes = {key: image[key] for key in ("artery", "vein")}
        disc = tuple(float(v) for v in image["disc"])
        reference = measure_vessels(phantom_context(planes, disc=disc, fov=image["fov"]))
        for kind in KINDS:
            for seed in range(seeds):
                changed, moved = perturb(planes, disc, kind, 1000 * eye + seed)
                for key, value in measure_vessels(phantom_context(changed, disc=moved, fov=image["fov"])).items():
                    if not isinstance(value, Null) and not isinstance(reference[key], Null):
                        values = found.setdefault(key, {}).setdefault(kind, {}).setdefault(eye, [float(reference[key])])
                        values.append(float(value))
    # Phantoms have no scale of their own: lengths in DD and micrometres repeat like those in pixels, but for the disc's part in them.
    known = {entry.name for entry in DICTIONARY}
    return {key: kinds for key, kinds in found.items() if key in known and not key.endswith(("_dd", "_um", "_mm"))}, [d for d, _ in names]


def of_photographs(number: int, weights: Path | None, minutes: float | None = None) -> tuple[Found, list[str], str]:
    """Values under the protocol *photographs*, each eye's data set, and the SHA-256 of the weights.

    Data sets take turns, and after so many ``minutes`` no further photograph is begun.
    """
    root = data_root()
    manifest = read_manifest(root / "manifest.csv")
    manifest = manifest[held_out(manifest, TrainConfig.read(ROOT / "config" / "train-base.yaml"))]
    sick = (manifest["dataset"] != "idrid_grading") | (pd.to_numeric(manifest["dr_grade"], errors="coerce") >= 2)
    manifest = manifest[manifest["dataset"].isin(PHOTOGRAPHS) & sick].groupby("dataset", sort=False).head(number)
    manifest = manifest.iloc[np.argsort(manifest.groupby("dataset").cumcount().to_numpy(), kind="stable")]
    started, seen = time.monotonic(), 0
    segmenter, config = Segmenter(weights), BiomarkersConfig()
    dictionary = registry(config.families)
    found: Found = {}
    for eye, record in enumerate(tqdm(manifest.to_dict("records"), desc="photographs", unit="eye")):
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        seen = eye + 1
        side = record["eye"] if record.get("eye") in ("R", "L") else None
        rows = {}
        for kind, rgb in copies(read_photograph(root / record["image"]).rgb).items():
            rows[kind] = measure_row(segmenter.predict([rgb])[0].masks(image_id=record["image"], eye=side), config)
        for name in dictionary:
            for kind in COPIES:
                pair = [rows["original"][name], rows[kind][name]]
                if np.isfinite(pair).all():
                    found.setdefault(name, {}).setdefault(kind, {})[eye] = pair
    return found, manifest["dataset"].tolist()[:seen], segmenter.weights_sha256


def figures(found: Found, datasets: list[str], protocol: str) -> pd.DataFrame:
    """One row a biomarker: CV under each kind of change, their mean, ICC over all of them, eyes."""
    strata = datasets if protocol == "photographs" else None
    rows = []
    for name, entry in registry().items():
        kinds = found.get(name, {})
        eyes = sorted({eye for of in kinds.values() for eye in of})
        if len(eyes) < MIN_EYES:
            continue
        row: dict[str, object] = {"biomarker": name, "protocol": protocol, "eyes": len(eyes)}
        for kind, of in kinds.items():
            arrays = [np.array(values) for values in of.values()]
            grand = float(np.mean([a.mean() for a in arrays]))
            spread = float(np.sqrt(np.mean([a.var(ddof=1) for a in arrays])))
            row[kind] = spread / grand if entry.valid_range[0] >= 0 and grand > 0 else np.nan
        # The unchanged value once.
        pooled = [
            np.array([next(of[e][0] for of in kinds.values() if e in of), *(v for of in kinds.values() for v in of.get(e, [])[1:])])
            for e in eyes
        ]
        changes = [row[kind] for kind in kinds if np.isfinite(row[kind])]
        row["cv"] = float(np.mean(changes)) if changes else np.nan
        row["icc"] = icc(pooled, [strata[e] for e in eyes] if strata else None)
        rows.append(row)
    return pd.DataFrame(rows)


def paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 138, break_long_words=False, break_on_hyphens=False)


def page(tables: dict[str, pd.DataFrame], about: dict[str, dict]) -> str:
    """Text of the page."""
    text = ["# Repeatability of the biomarkers", ""]
    text += paragraph(
        "Generated by `python benchmarks/repeatability.py`. Columns: coefficient of variation within an eye under each change (of "
        "quantities that cannot be negative); their mean; intraclass correlation over all changes, the share of the variance that lies "
        "between eyes. "
        "The dictionary shows mean and ICC of both protocols."
    )
    for protocol, table in tables.items():
        kinds = KINDS if protocol == "masks" else COPIES
        on = ", ".join(f"{n} of {dataset}" for dataset, n in about[protocol]["eyes"].items())
        more = (
            f"Masks at 1,024 px, repetitions of each change: {about[protocol]['repetitions']}. Lengths in DD and micrometres repeat "
            "like those in pixels, but for the disc's part in them."
            if protocol == "masks"
            else f"The ICC is within data sets. Weights: `{about[protocol]['weights_sha256'][:12]}`."
        )
        said = PROTOCOLS[protocol][0].upper() + PROTOCOLS[protocol][1:]
        text += ["", f"## {protocol.capitalize()}", "", *paragraph(f"{said}. Eyes: {on}. {more}")]
        text += ["", *(f"- `{kind}`: {what}" for kind, what in kinds.items()), ""]
        text += ["| biomarker | " + " | ".join(kinds) + " | mean CV | ICC | eyes |", "| --- |" + " --- |" * (len(kinds) + 3)]
        for row in table.to_dict("records"):
            cells = [f"{100 * row[k]:.1f} %" if np.isfinite(row.get(k, np.nan)) else "-" for k in (*kinds, "cv")]
            ratio = f"{row['icc']:.2f}" if np.isfinite(row["icc"]) else "-"
            text.append(f"| `{row['biomarker']}` | " + " | ".join(cells) + f" | {ratio} | {row['eyes']} |")
    return "\n".join(text) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=12, help="eyes whose reference masks are perturbed")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions of each perturbation of masks")
    parser.add_argument("--photographs", type=int, default=8, help="photographs of each data set")
    parser.add_argument("--minutes", type=float, help="begin no further photograph after so many: a busy machine measures fewer eyes")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    parser.add_argument("--only", choices=(*PROTOCOLS, "page"))
    arguments = parser.parse_args()
    source, beside = FOLDER / "repeatability.csv", FOLDER / "repeatability.json"
    tables: dict[str, pd.DataFrame] = {}
    about: dict[str, dict] = json.loads(beside.read_text()) if beside.exists() else {}
    for protocol in PROTOCOLS:
        if arguments.only not in (None, protocol):
            old = pd.read_csv(source)
            tables[protocol] = old[old["protocol"] == protocol].dropna(axis=1, how="all")
            continue
        if protocol == "masks":
            found, datasets = of_masks(arguments.eyes, arguments.seeds)
            about[protocol] = {"repetitions": arguments.seeds}
        else:
            found, datasets, weights = of_photographs(arguments.photographs, arguments.weights, arguments.minutes)
            about[protocol] = {"weights_sha256": weights}
        about[protocol]["eyes"] = pd.Series(datasets).value_counts(sort=False).to_dict()
        tables[protocol] = figures(found, datasets, protocol)
    FOLDER.mkdir(exist_ok=True)
    both = pd.concat([tables[p] for p in PROTOCOLS], ignore_index=True)
    numbers = both.select_dtypes("number").columns.difference(["eyes"])
    both[numbers] = both[numbers].round(4)
    both.to_csv(source, index=False)
    beside.write_text(json.dumps(about, indent=1) + "\n")
    PAGE.write_text(page(tables, about))
    out: dict[str, object] = {}
    for protocol, table in tables.items():
        ratios = table["icc"].dropna()
        out[protocol] = {
            "eyes": about[protocol]["eyes"],
            "biomarkers": len(table),
            "median_icc": round(float(ratios.median()), 3),
            "share_icc_above_075": round(float((ratios > 0.75).mean()), 3),
            "median_cv_percent": round(100 * float(table["cv"].median()), 2),
        }
    print(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
