"""What the lesion heads show on eyes without retinopathy, and whether they tell those from eyes that have it.

    python benchmarks/healthy_eyes.py --data $RETSAM_DATA [--weights FILE] [--odir 60] [--write]

Masks of drawn photographs, all full of lesions, say nothing of healthy eyes: a head can gain overlap there and show specks on every
healthy eye of a cohort. So: of eyes graded as free of retinopathy the share that shows a lesion and how much of it, and the area under
the ROC curve of its area against eyes with at least moderate retinopathy, with 95 % bootstrap intervals over subjects. On the part of
IDRiD's graded photographs that is kept out of training, on HRF's test part and on ODIR, whose labels teach no head of these lesions
(``--odir`` eyes of each side, one of a subject, by its words). ``--write`` makes ``docs/benchmarks/healthy-eyes.md``. The last line is one
JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from retsam.cohort.reading import UnreadablePhotograph, read_photograph
from retsam.evaluation.metrics import roc_auc
from retsam.evaluation.summary import Bootstrap
from retsam.segmentation.predict import DEFAULT_WEIGHTS, Segmenter
from retsam.segmentation.weights import file_sha256
from retsam.training.config import TrainConfig
from retsam.training.frames import held_out

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "healthy-eyes.md"
LESIONS = ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
MODERATE = "moderate non proliferative|severe non"
"""Words of ODIR for retinopathy that has more than microaneurysms."""


def eyes(data: Path, odir: int) -> pd.DataFrame:
    """Photographs with ``sick``: at least moderate retinopathy, or none; mild ones are left out."""
    manifest = pd.read_csv(data / "manifest.csv", low_memory=False)
    kept_out = held_out(manifest, TrainConfig.read(ROOT / "config" / "train-base.yaml"))
    grade = pd.to_numeric(manifest["dr_grade"], errors="coerce")
    words, diagnosis = manifest["keywords"].fillna("").str.lower(), manifest["diagnosis"].fillna("")
    graded = manifest["dataset"].eq("idrid_grading") & kept_out
    hrf = manifest["dataset"].eq("hrf") & manifest["split"].eq("test")
    cohort = manifest["dataset"].eq("odir")
    sick = graded & (grade >= 2) | hrf & manifest["image"].str.contains("_dr") | cohort & words.str.contains(MODERATE)
    well = graded & (grade == 0) | hrf & manifest["image"].str.contains("_h") | cohort & diagnosis.eq("N")
    table = manifest[sick | well].assign(sick=sick)
    parts = [table[table["dataset"] != "odir"]]
    for side in (False, True):
        of_side = table[table["dataset"].eq("odir") & table["sick"].eq(side)].drop_duplicates("group")
        parts.append(of_side.sample(min(odir, len(of_side)), random_state=0))
    return pd.concat(parts).reset_index(drop=True)


def measured(table: pd.DataFrame, data: Path, segmenter: Segmenter) -> pd.DataFrame:
    """The share of the field of view that each lesion covers; photographs that cannot be read are counted, and left out."""
    rows, unread = [], 0
    for record in tqdm(table.to_dict("records"), unit="photograph"):
        try:
            rgb = read_photograph(data / record["image"]).rgb
        except UnreadablePhotograph:
            unread += 1
            continue
        masks = segmenter.predict([rgb])[0].masks()
        inside = max(int(masks.fov.sum()), 1)
        shares = {name: masks.planes[name].sum() / inside for name in LESIONS}
        counts = {f"{name}_count": cv2.connectedComponents(masks.planes[name].view(np.uint8), connectivity=8)[0] - 1 for name in LESIONS}
        rows.append({name: record[name] for name in ("dataset", "group", "sick")} | shares | counts)
    print(f"{len(rows)} photographs measured, {unread} could not be read")
    return pd.DataFrame(rows)


def figures(table: pd.DataFrame) -> dict[str, dict]:
    """Of each data set and lesion: what healthy eyes show, and the area under the curve with its interval."""
    out: dict[str, dict] = {}
    for dataset, part in table.groupby("dataset", sort=False):
        sick = part["sick"].to_numpy(bool)
        bootstrap = Bootstrap(part["group"].tolist(), 500)
        out[str(dataset)] = {"healthy": int((~sick).sum()), "sick": int(sick.sum())}
        for name in LESIONS:
            values = part[name].to_numpy(float)
            drawn = np.array([roc_auc(values, sick, weights) for weights in bootstrap.weights.astype(float)])
            low, high = bootstrap.interval(drawn)
            out[str(dataset)][name] = {
                "healthy_shown": round(float((values[~sick] > 0).mean()), 3),
                "healthy_count": round(float(part.loc[~sick, f"{name}_count"].mean()), 1),
                "healthy_per_mille": round(float(1000 * values[~sick].mean()), 3),
                "auc": round(float(roc_auc(values, sick)), 3),
                "auc_low": round(low, 3),
                "auc_high": round(high, 3),
            }
    return out


def page(found: dict[str, dict], weights: Path) -> str:
    """The page of the figures."""
    lines = [
        "# Lesions on healthy eyes",
        "",
        "Generated by `python benchmarks/healthy_eyes.py --data $RETSAM_DATA --write`; weights",
        f"`{file_sha256(weights)[:12]}`. What the heads show on eyes without retinopathy: the share of eyes with any of it, how many a",
        "healthy eye shows on average, and the mean of the field of view that they cover; and whether the area tells those eyes from eyes",
        "with at least moderate retinopathy (area under the ROC curve, 95 % bootstrap interval over subjects). None of the photographs",
        "taught these heads.",
        "",
        "| data set | healthy, sick | lesion | healthy eyes that show it | how many each | of their field, per mille | AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset, entry in found.items():
        for name in LESIONS:
            value = entry[name]
            auc = f"{value['auc']:.3f} ({value['auc_low']:.3f}-{value['auc_high']:.3f})"
            shown = f"{value['healthy_shown']:.0%} | {value['healthy_count']:.1f} | {value['healthy_per_mille']:.3f}"
            lines.append(f"| {dataset} | {entry['healthy']}, {entry['sick']} | {name} | {shown} | {auc} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="the shipped ones by default")
    parser.add_argument("--odir", type=int, default=60, help="eyes of ODIR of each side")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--write", action="store_true", help="write the page")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = arguments.data.resolve()
    segmenter = Segmenter(arguments.weights, tasks=["lesions_dr"])
    found = figures(measured(eyes(data, arguments.odir), data, segmenter))
    text = page(found, arguments.weights)
    print(text)
    if arguments.write:
        PAGE.write_text(text)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
