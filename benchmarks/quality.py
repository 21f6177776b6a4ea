"""Accuracy of the quality grades on photographs that the model did not see, and its speed.

    python benchmarks/quality.py --data $RETSAM_DATA

Heads are refitted without the group (subject or photograph) that they are tested on: five-fold cross-validation on EyeQ and DRIMDB
grades. Half of the subjects of ODIR and PALM, which no head saw, tell by diagnosis how often photographs would be thrown away.
The last line is one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from retsam.cohort.reading import read_photograph
from retsam.quality.config import QualityConfig
from retsam.quality.fit import fit_all
from retsam.quality.fit_data import load_metrics
from retsam.quality.grading import grade_table
from retsam.quality.metrics import measure_quality
from retsam.quality.model import model_card
from retsam.quality.table import COLUMNS


def rates(table: pd.DataFrame, by: str = "set") -> pd.DataFrame:
    """Shares of grades by data set (or another column), by the shipped model at default thresholds; graded sets by their grade."""
    graded = grade_table(table[list(COLUMNS)], QualityConfig(duplicates="keep"))
    known = table.set_index("image_id").loc[graded["image_id"]]
    names = known["dataset"] + " " + known["quality"].fillna("") + known["held_back"].map({True: "kept back", False: ""})
    graded["set"] = names.str.strip().to_numpy() if by == "set" else known[by].fillna("?").to_numpy()
    graded["not_a_fundus"] = graded["reason"].eq("not_a_fundus").fillna(False).to_numpy(bool)
    sets = graded.groupby("set")
    out = pd.DataFrame({g: sets["grade"].apply(lambda s, g=g: (s == g).mean()) for g in ("gradable", "usable", "reject")})
    return out.assign(not_a_fundus=sets["not_a_fundus"].mean(), median_probability=sets["probability"].median(), n=sets.size())


def milliseconds(path: Path, repeats: int = 5) -> dict[str, float]:
    """Least processor time of several runs on one thread (other work on the machine does not count): decoding and measuring."""
    cv2.setNumThreads(1)
    read, measure = [], []
    for _ in range(repeats):
        start = time.process_time()
        rgb = read_photograph(path).rgb
        middle = time.process_time()
        measure_quality(rgb)
        read.append(middle - start)
        measure.append(time.process_time() - middle)
    return {"read_ms": round(1000 * min(read), 1), "metrics_ms": round(1000 * min(measure), 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RETSAM_DATA", "../shared/data")), help="folder with manifest.csv")
    parser.add_argument("--cache", type=Path, default=Path("build/quality"), help="folder for metrics between runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, default=45, help="most photographs of each curated set")
    parser.add_argument("--sample-odir", type=int, default=4000, help="most photographs of the ODIR cohort")
    options = parser.parse_args()
    if not (options.data / "manifest.csv").exists():
        print(f"no manifest.csv in {options.data}; set RETSAM_DATA or --data", file=sys.stderr)
        return 1

    table = load_metrics(options.data, options.cache, options.jobs, options.sample, options.sample_odir)
    held_out = fit_all(table)["held_out"]
    by_set = rates(table[table["weight"] == 1.0])
    real = by_set[~by_set.index.str.contains("made |skimage ")]
    print("Shares of grades by data set (shipped coefficients, default thresholds; a reject may be one for not being a fundus)")
    print(real.round(3).to_string())
    unseen = table[table["held_back"].astype(bool)]
    by_diagnosis = {name: rates(rows, "diagnosis") for name, rows in unseen.groupby("dataset")}
    for name, part in by_diagnosis.items():
        print(f"\n{name}, subjects that no head saw, by diagnosis")
        print(part.round(3).to_string())
    reject, gradable, strange = (held_out[h] for h in ("reject", "gradable", "not_fundus"))
    print("\nHeld out by group (5-fold, EyeQ + DRIMDB), 95 % bootstrap intervals over groups")
    for name, part in (("reject", reject), ("gradable", gradable), ("not_fundus", strange)):
        a = part["auc"]
        print(f"  {name}: AUC {a['value']:.3f} ({a['ci_low']:.3f} to {a['ci_high']:.3f}), {part['positives']} of {part['n']}")
    for name, part in reject["by_set"].items():
        a = part["auc"]
        print(f"  reject, {name} alone: AUC {a['value']:.3f} ({a['ci_low']:.3f} to {a['ci_high']:.3f}), n {part['n']}")
    for name, a in reject["across_sets"].items():
        print(f"  reject, {name} by a model that saw the other set only: AUC {a['value']:.3f} ({a['ci_low']:.3f} to {a['ci_high']:.3f})")
    print("  calibration of reject:", json.dumps(reject["calibration"]))

    stored = model_card()["held_out"]["reject"]["auc"]["value"]
    if abs(stored - reject["auc"]["value"]) > 0.02:
        print(
            f"note: the shipped card says AUC {stored}, this run {reject['auc']['value']}: other data, or the model needs fitting again",
            file=sys.stderr,
        )
    others = real[~real.index.str.startswith(("drimdb", "eyepacs400"))]
    strange_but_good = real.loc[[i for i in real.index if "not_fundus" not in i and "reject" not in i]]
    share = float((strange_but_good["not_a_fundus"] * strange_but_good["n"]).sum() / strange_but_good["n"].sum())
    manifest = pd.read_csv(options.data / "manifest.csv", low_memory=False).drop_duplicates("dataset").set_index("dataset")["image"]
    speed = {name: milliseconds(options.data / manifest[name]) for name in ("odir", "idrid_native") if name in manifest}
    print("\nProcessor time, one thread:", json.dumps(speed))
    figures = {
        "reject_auc": reject["auc"],
        "reject_auc_by_set": {k: v["auc"] for k, v in reject["by_set"].items()},
        "reject_auc_across_sets": reject["across_sets"],
        "reject_calibration_error": reject["calibration"]["expected_calibration_error"],
        "reject_brier": reject["calibration"]["brier"],
        "gradable_auc": gradable["auc"],
        "not_a_fundus_recall": strange["recall_drimdb"]["value"],
        "not_a_fundus_recall_other_pictures": strange["recall_other_pictures"]["value"],
        "not_a_fundus_false_alarms": round(share, 4),
        "rejected_by_set": {k: round(float(v), 4) for k, v in others["reject"].items()},
        "not_a_fundus_by_set": {k: round(float(v), 4) for k, v in others["not_a_fundus"].items()},
        "kept_back": reject["kept_back"],
        "kept_back_rejected_by_diagnosis": {n: {k: round(float(v), 4) for k, v in p["reject"].items()} for n, p in by_diagnosis.items()},
        "kept_back_not_a_fundus": strange["kept_back_called_not_fundus"],
        "speed": speed,
    }
    print(json.dumps(figures))
    complete = all(np.isfinite(figures[k]["value"]) for k in ("reject_auc", "gradable_auc")) and np.isfinite(figures["not_a_fundus_recall"])
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
