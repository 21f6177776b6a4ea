"""Fidelity: do biomarkers of the network's masks follow those of drawn masks of the same photographs?

For each data set: mean Pearson r and mean |bias| (in SD of the drawn masks' values) over density, length, fractal dimension, CRAE and
CRVE, with 95 % bootstrap intervals over photographs; tortuosity and widths beside them; Dice and clDice in the canonical frame.

    python benchmarks/fidelity.py                                   # test parts of DRIVE, HRF, GAVE; shipped weights, no pen
    python benchmarks/fidelity.py --unbiased                        # no pen, thresholds of unbiased length and area
    python benchmarks/fidelity.py --pen own --write                 # in each data set's pen; writes page and dictionary's table
    python benchmarks/fidelity.py --split train --limit 12          # on training photographs: where choices are made
    python benchmarks/fidelity.py --keep predictions                # keeps probabilities there, and reads those that are there
    python benchmarks/fidelity.py --keep predictions --split train --threshold vessel=0.5 --threshold vessel_twigs=0.1 --vessels-only

`--keep` with `--threshold` tries thresholds (of heads, and `vessel_twigs` of faint vessels) without the network; without `--threshold` kept
probabilities are cut at the thresholds that the card holds today. `--write` writes docs/benchmarks/fidelity.md,
`retsam/biomarkers/evidence/fidelity.csv`, from which `retsam measure dictionary --out docs` takes the figures, and `fidelity` in the model
card. Where a data set's vessels were drawn twice, the second observer is measured as well. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.morphology import skeletonize
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from biomarkers import data_root

from retsam.biomarkers.fidelity import HEADLINE, fidelity, headline, summary
from retsam.biomarkers.worth import FOLDER
from retsam.cohort.reading import read_photograph
from retsam.evaluation.biomarkers import CONFIG, compare_rows, into_frame, masks_to_compare
from retsam.evaluation.reference import Reference, read_manifest, read_reference
from retsam.masks.frame import Frame
from retsam.segmentation.consistency import smooth_classes
from retsam.segmentation.postprocess import TWIGS, vessel_mask
from retsam.segmentation.predict import Prediction, Segmenter
from retsam.segmentation.weights import DEFAULT_WEIGHTS, file_sha256

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "fidelity.md"
DATASETS = ("drive", "hrf", "gave")
KEPT = ("artery", "vein", "vessel", "disc", "cup")
BESIDE = {
    "tortuosity_distance_artery": "tortuosity (arc/chord), arteries",
    "tortuosity_distance_vein": "tortuosity (arc/chord), veins",
    "tortuosity_curvature_artery": "tortuosity (squared curvature), arteries",
    "tortuosity_curvature_vein": "tortuosity (squared curvature), veins",
    "width_mean_artery": "mean width, arteries",
    "width_mean_vein": "mean width, veins",
    "width_p10_vessel": "width, 10th percentile",
    "width_p50_vessel": "width, median",
    "width_p90_vessel": "width, 90th percentile",
    "avr": "AVR",
}


HEADLINE_NAMES = {name for names in HEADLINE.values() for name in names}
VESSEL_NAMES = [name for names in HEADLINE.values() for name in names if name.endswith("_vessel")]
OTHER_HAND = 0.9
"""Two masks of one drawing overlap by more: GAVE's and those of DRIVE's training part by 1.00, HRF's by 0.95."""


def keep(path: Path, prediction: Prediction) -> None:
    """Probabilities and what else masks are made from."""
    np.savez_compressed(
        path,
        fov=prediction.fov,
        fovea=np.array(prediction.fovea or (np.nan, np.nan)),
        about=json.dumps([vars(prediction.frame), prediction.fovea_confidence, prediction.thresholds, prediction.status]),
        **{name: prediction.probabilities[name].astype(np.float16) for name in KEPT if name in prediction.probabilities},
    )


def kept(path: Path) -> Prediction:
    """What :func:`keep` wrote."""
    with np.load(path) as found:
        frame, confidence, thresholds, status = json.loads(str(found["about"]))
        fovea = None if np.isnan(found["fovea"]).any() else tuple(float(v) for v in found["fovea"])
        planes = {name: found[name].astype(np.float32) for name in KEPT if name in found}
        return Prediction(planes, found["fov"], Frame(**frame), fovea, confidence, thresholds, status)


def dice(predicted: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Dice and clDice of two masks."""
    line, drawn_line = skeletonize(predicted), skeletonize(drawn)
    precision, recall = (line & drawn).sum() / max(line.sum(), 1), (drawn_line & predicted).sum() / max(drawn_line.sum(), 1)
    return {
        "dsc": float(2 * (predicted & drawn).sum() / max(predicted.sum() + drawn.sum(), 1)),
        "cldice": float(2 * precision * recall / max(precision + recall, 1e-9)),
    }


class Source:
    """Predictions: of the network, or kept ones of an earlier run."""

    def __init__(self, weights: Path | None, pen: str | None, folder: Path | None, unbiased: bool, thresholds: dict[str, float]) -> None:
        self.segmenter = Segmenter(weights, tasks=["vessels", "optic_nerve", "macula"], unbiased=unbiased, thresholds=thresholds)
        self.pen = pen
        # A folder within for each weights file: predictions of two networks must never stand in for each other.
        self.folder = folder / file_sha256(weights or DEFAULT_WEIGHTS)[:12] if folder else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def predict(self, record: dict, rgb: np.ndarray) -> Prediction:
        path = self.folder and self.folder / f"{record['dataset']}-{record['split']}-{Path(record['image']).stem}-{self.pen or 'none'}.npz"
        known = {name for names in self.segmenter.pens.values() for name in names}
        own = record["dataset"] if record["dataset"] in known else None
        self.segmenter.use_pen(own if self.pen == "own" else self.pen)
        if path and path.exists():
            return self.settled(kept(path))
        prediction = self.segmenter.predict([rgb])[0]
        if path:
            keep(path, prediction)
        return self.settled(prediction)

    def settled(self, prediction: Prediction) -> Prediction:
        """With the card's thresholds of today, or those that are tried; classes are kept along the vessels that these find."""
        of = self.segmenter.thresholds
        if of != prediction.thresholds:
            prediction.thresholds, planes = of, prediction.probabilities
            vessel = vessel_mask(planes["vessel"], prediction.fov, of["vessel"], of.get(TWIGS))
            planes["artery"], planes["vein"] = smooth_classes(planes["artery"], planes["vein"], vessel)
        return prediction


def measured(source: Source, manifest: pd.DataFrame, root: Path, families: tuple[str, ...]) -> tuple[pd.DataFrame, ...]:
    """Biomarkers of predicted and of drawn masks, and overlap, one row a photograph each."""
    config = CONFIG.model_copy(update={"families": families})
    tables: tuple[list[dict], ...] = ([], [], [], [], [], [])
    for record in tqdm(manifest.to_dict("records"), unit="photograph"):
        rgb = read_photograph(root / record["image"]).rgb
        reference = read_reference(record, root, rgb.shape[:2])
        eye = record["eye"] if record.get("eye") in ("R", "L") else None
        found = source.predict(record, rgb).masks(image_id=f"{record['dataset']}:{record['image']}", eye=eye)
        for table, row in zip(tables, compare_rows(found, reference, config), strict=False):
            table.append(row | {"dataset": record["dataset"]})
        tables[2].append({"dataset": record["dataset"], **overlap(found, reference)})
        second = second_drawing(reference)
        if second is not None:
            both = replace(found, planes=found.planes | {"vessel": into_frame(second, found.frame)}, confidence={})
            for table, row in zip(tables[3:], compare_rows(both, reference, config), strict=False):
                table.append({name: value for name, value in row.items() if name == "image_id" or name in VESSEL_NAMES})
                table[-1]["dataset"] = record["dataset"]
            tables[5].append({"dataset": record["dataset"], **overlap(both, reference)})
    return tuple(pd.DataFrame(table) for table in tables)


def second_drawing(reference: Reference) -> np.ndarray | None:
    """Vessels as a second observer drew them, where arteries and veins are told apart on drawings of another hand.

    DRIVE's test part is so: its classes lie on the second observer's vessels, which agree with the first's at a Dice of 0.79.
    """
    if not {"artery", "vein", "vessel"} <= reference.masks.keys() or reference.class_only:
        return None
    classed = reference.masks["artery"] | reference.masks["vein"]
    for target in ("artery", "vein"):
        classed = classed | reference.ignored.get(target, False)
    return classed if dice(classed, reference.masks["vessel"])["dsc"] < OTHER_HAND else None


def overlap(found, reference: Reference) -> dict[str, float]:
    """Overlap of vessels, arteries and veins in the canonical frame, where the reference draws them."""
    predicted, drawn, own = masks_to_compare(found, reference)
    return {
        f"{target}_{name}": value
        for target in ("vessel", "artery", "vein")
        if target in own
        for name, value in dice(predicted.planes[target], drawn.planes[target]).items()
    }


def paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 138, break_long_words=False, break_on_hyphens=False)


def page(figures: pd.DataFrame, table: pd.DataFrame, overlaps: pd.DataFrame, observers: list[str], groups: list[str], about: dict) -> str:
    """Text of the page."""
    pen = "each data set's own pen" if about["pen"] == "own" else f"the pen of {about['pen']}" if about["pen"] else "no data set's pen"
    counts = ", ".join(f"{n} of {name}" for name, n in about["photographs"].items())
    text = ["# Fidelity: biomarkers of predicted against drawn masks", ""]
    text += paragraph(
        f"Generated by `python benchmarks/fidelity.py{' --pen ' + about['pen'] if about['pen'] else ''} --write` on the {about['split']} "
        f"parts ({counts}), never trained on; weights `{about['weights_sha256'][:12]}`, vessels drawn in {pen}."
    )
    text += [""]
    text += paragraph(
        "Both masks are measured in the same frame and field of view, with the predicted disc and fovea. Vessels that the reference draws "
        "without a class are in neither side's artery and vein planes. CRAE and CRVE are compared wherever at least half of zone B lies in "
        "the photograph, which cuts both sides alike; a study leaves them empty below 0.85, where they would be too narrow."
    )
    text += [""]
    text += paragraph(
        "Density, length and fractal dimension are means over arteries, veins and all vessels. Intervals: 95 %, bootstrap over "
        "photographs. Bias: predicted minus drawn, in standard deviations of the drawn masks' values over the data set."
    )
    text += [
        "",
        "| data set | quantity | photographs | r | mean absolute bias, SD |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in figures.to_dict("records"):
        kind = "**mean over these**" if row["kind"] == "mean" else row["kind"].replace("_", " ")
        text.append(f"| {row['group']} | {kind} | {row['n']} | {interval(row, 'r')} | {interval(row, 'bias_sd')} |")
    text += ["", "Beside them, and each biomarker on its own:", "", "| biomarker | " + " | ".join(about["photographs"]) + " |"]
    text += ["| --- |" + " --- |" * len(about["photographs"])]
    names = {name: f"`{name}`" for name in dict.fromkeys(n for n in table["biomarker"] if n in HEADLINE_NAMES)}
    for name, label in {**names, **BESIDE}.items():
        cells = []
        for dataset in about["photographs"]:
            row = table[(table["group"] == dataset) & (table["biomarker"] == name)].iloc[0]
            cells.append(f"r {row['r']:.2f}, bias {row['bias_sd']:+.2f} SD" if np.isfinite(row["r"]) else "-")
        text.append(f"| {label} | " + " | ".join(cells) + " |")
    text += ["", "Overlap in the canonical frame:", "", "| data set | " + " | ".join(c.replace("_", " ") for c in overlaps) + " |"]
    text += ["| --- |" + " --- |" * len(overlaps.columns)]
    text += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for name, row in zip(overlaps.index, overlaps.values, strict=True)]
    if observers:
        text += ["", "## How far two observers agree", ""]
        text += paragraph(
            "The classes of DRIVE's test part are drawn on the second observer's vessels, the vessels themselves are the first's. So "
            "arteries, veins, CRAE and CRVE are compared with the second observer and all vessels with the first, and the second's "
            "vessels can be measured against the first's as the network's are:"
        )
        text += ["", *observers]
    if groups:
        text += ["", "## Within groups", ""]
        text += paragraph(
            "r within the diagnoses of a data set, few photographs each. Drawings of one data set are not all alike, and that bounds r: "
            "where it is high within some groups and low over all, photographs were drawn to different twigs or widths."
        )
        text += ["", *groups]
    return "\n".join(text) + "\n"


def interval(row: dict, name: str) -> str:
    low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return f"{row[name]:.2f}" + (f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else "")


def observer_rows(second: pd.DataFrame, first: pd.DataFrame, between: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Table of a second observer's vessels against the first's, beside the network's; empty where nobody drew twice."""
    if second.empty:
        return []
    rows = fidelity(second, first, second.set_index("image_id")["dataset"], 20).set_index(["group", "biomarker"])
    network = table.set_index(["group", "biomarker"])
    out = ["| all vessels | second observer | network |", "| --- | --- | --- |"]
    for dataset in sorted(set(second["dataset"])):
        for name in VESSEL_NAMES:
            cells = [f"r {of.loc[(dataset, name), 'r']:.2f}, bias {of.loc[(dataset, name), 'bias_sd']:+.2f} SD" for of in (rows, network)]
            out.append(f"| {dataset}, `{name}` | {cells[0]} | {cells[1]} |")
        scores = between[between["dataset"] == dataset].mean(numeric_only=True)
        out.append(f"| {dataset}, vessel dsc, cldice | {scores['vessel_dsc']:.3f}, {scores['vessel_cldice']:.3f} | see above |")
    return out


def group_rows(predicted: pd.DataFrame, drawn: pd.DataFrame, diagnosis: pd.Series) -> list[str]:
    """Table of r within the diagnoses of a data set that has several, each of five photographs or more; empty where none has.

    ``diagnosis`` is of the rows of both tables, in their order.
    """
    out = []
    for dataset in predicted["dataset"].unique():
        of_set = predicted["dataset"].eq(dataset).to_numpy()
        known = diagnosis[of_set].dropna()
        parts = [name for name, n in known.value_counts(sort=False).items() if n >= 5]
        if len(parts) < 2:
            continue
        out += [
            f"| {dataset} | " + " | ".join([*(name.replace("_", " ") for name in parts), "all"]) + " |",
            "| --- |" + " --- |" * (len(parts) + 1),
        ]
        for name in (name for name in predicted.columns if name in HEADLINE_NAMES):
            cells = [of_set & (diagnosis == part).to_numpy() for part in parts] + [of_set]
            rs = [predicted.loc[rows, name].corr(drawn.loc[rows, name]) for rows in cells]
            out.append(f"| `{name}` | " + " | ".join(f"{r:.2f}" for r in rs) + " |")
    return out


def into_card(weights: Path, headline_figures: dict[str, dict]) -> None:
    """The headline into the model card beside the weights, in place of an earlier one of the same data sets."""
    path = weights.with_suffix(".json")
    card = json.loads(path.read_text())
    card["fidelity"] = card.get("fidelity", {}) | headline_figures
    path.write_text(json.dumps(card, indent=1) + "\n")


def write(figures: pd.DataFrame, table: pd.DataFrame, overlaps: pd.DataFrame, observers: list[str], groups: list[str], about: dict) -> None:
    """The page, and the dictionary's table."""
    PAGE.write_text(page(figures, table, overlaps, observers, groups, about))
    FOLDER.mkdir(exist_ok=True)
    of_sets = table[(table["group"] != "all") & (table["n"] > 0) & table["r"].notna()]
    columns = ["biomarker", "group", "n", "r", "icc", "bias_sd"]
    of_sets[columns].rename(columns={"group": "dataset"}).round(4).to_csv(FOLDER / "fidelity.csv", index=False)
    (FOLDER / "fidelity.json").write_text(json.dumps(about | {"headline": summary(figures, about["pen"] == "own")}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    parser.add_argument("--pen", help="a training data set's, or `own`: each photograph's")
    parser.add_argument("--unbiased", action="store_true", help="where there is no pen, the thresholds of unbiased length and area")
    parser.add_argument("--dataset", action="append", dest="datasets", help="DRIVE, HRF and GAVE by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="photographs of each data set")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for predictions")
    parser.add_argument("--threshold", action="append", default=[], metavar="TARGET=VALUE", help="over the model card's")
    parser.add_argument("--vessels-only", action="store_true", help="measure no other family")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    thresholds = {name: float(value) for name, _, value in (text.partition("=") for text in arguments.threshold)}
    if arguments.write and (arguments.split != "test" or thresholds or arguments.limit or arguments.datasets or arguments.vessels_only):
        parser.error("--write is for whole test parts with the model card's thresholds and all families")
    root = data_root()
    manifest = read_manifest(root / "manifest.csv")
    datasets = arguments.datasets or list(DATASETS)
    manifest = manifest[manifest["split"] == arguments.split].set_index("dataset", drop=False).loc[datasets].reset_index(drop=True)
    manifest = manifest.groupby("dataset", sort=False).head(arguments.limit) if arguments.limit else manifest
    source = Source(arguments.weights, arguments.pen, arguments.keep, arguments.unbiased, thresholds)
    families = ("vessels",) if arguments.vessels_only else CONFIG.families
    predicted, drawn, overlaps, second, first, between = measured(source, manifest, root, families)
    groups = predicted.set_index("image_id")["dataset"]
    figures = headline(predicted, drawn, groups, arguments.resamples)
    overlaps = overlaps.groupby("dataset", sort=False).mean()
    print(overlaps.round(4).to_string())
    print(figures.round(3).to_string(index=False))
    about = {
        "weights_sha256": file_sha256(arguments.weights or DEFAULT_WEIGHTS),
        "pen": arguments.pen,
        "split": arguments.split,
        "photographs": groups.value_counts(sort=False).to_dict(),
    }
    table = fidelity(predicted, drawn, groups, 20)
    observers = observer_rows(second, first, between, table)
    within = group_rows(predicted, drawn, manifest["diagnosis"].reset_index(drop=True))
    print(*observers, *within, sep="\n")
    if arguments.write:
        write(figures, table, overlaps, observers, within, about)
        into_card(arguments.weights or DEFAULT_WEIGHTS, summary(figures, arguments.pen == "own"))
    print(json.dumps(summary(figures, arguments.pen == "own")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
