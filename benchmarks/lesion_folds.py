"""Lesions in five folds of IDRiD's photographs: every drawn photograph judged by a network that never met it.

    python benchmarks/lesion_folds.py --data $RETSAM_DATA [--fold 0] [--minutes 60] [--write]

Each fold's network starts from that of ``config/train-without-a.yaml`` (``benchmarks/leave_out.py``), which has met no lesion, and learns
from the other four folds for the steps of ``config/train-lesion-folds.yaml``, a fraction of the shipped network's. A fold that is
trained and scored already, by the same weights, is not repeated. ``--write`` makes ``docs/benchmarks/lesion-folds.md`` and puts the
scores into the shipped model's card (``lesion_folds``). The last line is one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from retsam.evaluation.histogram import Histogram
from retsam.evaluation.reference import read_manifest
from retsam.evaluation.run import load
from retsam.evaluation.scoring import ImageScore, score_image
from retsam.evaluation.summary import summarise
from retsam.segmentation.predict import DEFAULT_WEIGHTS, Segmenter
from retsam.segmentation.weights import file_sha256, load_state
from retsam.training import frames
from retsam.training.config import TrainConfig
from retsam.training.trainer import train

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "lesion-folds.md"
CONFIG = ROOT / "config" / "train-lesion-folds.yaml"
FOLDS = 5
LESIONS = {"hard_exudate": (0.80, 0.885), "hemorrhage": (0.62, 0.680), "cotton_wool_spot": (0.62, 0.700), "microaneurysm": (0.45, 0.502)}
"""Lesion -> AUPR aimed at, and the challenge winner's (Porwal et al. 2020), which is pooled over the pixels of its test part."""


def fold_config(config: TrainConfig, fold: int) -> TrainConfig:
    """The run of one fold, whose photographs are kept out."""
    return config.model_copy(
        update={
            "out": ROOT / config.out / str(fold),
            "init": str(ROOT / config.init),
            "holdout": config.holdout | {"idrid_seg": 1 / FOLDS},
            "holdout_from": fold / FOLDS,
        }
    )


def trained(config: TrainConfig, minutes: float | None) -> Path:
    """Weights of a fold, trained further where steps are missing, with the least card that they can be loaded with.

    Raises
    ------
    RuntimeError
        If its steps are not done when the minutes are up.
    """
    weights = config.out / "weights.safetensors"
    if done(weights) < config.steps:
        train(config, minutes)
    if done(weights) < config.steps:
        raise RuntimeError(f"{weights}: {done(weights)} of {config.steps} steps are done; the same command goes on from there")
    heads = {lesion: {"status": "supervised"} for lesion in LESIONS}  # heads that no card names are not answered for
    weights.with_suffix(".json").write_text(json.dumps({"name": f"lesion fold {config.out.name}", "heads": heads}) + "\n")
    return weights


def done(weights: Path) -> int:
    """Steps that weights were trained for; 0 where there are none."""
    return int(load_state(weights)[1].get("step", 0)) if weights.exists() else 0


def histograms(config: TrainConfig, data: Path, weights: Path) -> dict[str, np.ndarray]:
    """Groups of a fold's photographs, and of each lesion the pixels of every one by probability (``[photographs, 2, bins]``).

    Where a lesion is not in a photograph its reference says so, and the photograph counts for the pooled figure.
    """
    path, code = config.out / "scores.npz", made_by(weights)
    if path.exists():
        with np.load(path) as kept:
            if str(kept["made_by"]) == code:
                return {name: kept[name] for name in kept.files if name != "made_by"}
    manifest = read_manifest(data / "manifest.csv")
    rows = manifest[(manifest["dataset"] == "idrid_seg") & frames.held_out(manifest, config)].reset_index(drop=True)
    segmenter = Segmenter(weights, tasks=["lesions_dr"])
    found: dict[str, list] = {name: [] for name in LESIONS}
    for position, row in enumerate(tqdm(rows.to_dict("records"), desc=config.out.name, unit="photograph")):
        item = load(row, position, data)
        if item.rgb is None:
            raise ValueError(f"{row['image']}: {item.reason}: {item.detail}")
        scored = score_image(segmenter.predict([item.rgb])[0], item.reference)
        for name, of_lesion in found.items():
            of_image = scored.histograms[name]
            of_lesion.append(np.stack([of_image.positive, of_image.negative]))
    out = {"group": rows["group"].to_numpy(str)} | {name: np.stack(values) for name, values in found.items()}
    np.savez_compressed(path, made_by=np.array(code), **out)
    return out


def made_by(weights: Path) -> str:
    """What scores rest on: the weights, and the code that segments."""
    files = [weights, *sorted((ROOT / "retsam" / "segmentation").glob("*.py"))]
    return " ".join(file_sha256(path)[:12] for path in files)


def figures(folds: list[dict[str, np.ndarray]]) -> dict[str, dict]:
    """AUPR of each lesion over the photographs of all folds: mean over those that have it and pooled, with intervals."""
    scores, groups = [], []
    for fold in folds:
        for index, group in enumerate(fold["group"]):
            score = ImageScore()
            for name in LESIONS:
                score.histograms[name] = Histogram(*fold[name][index])
                score.values[name] = {"aupr": score.histograms[name].average_precision()}
            scores.append(score)
            groups.append(str(group))
    return {name: metrics["aupr"] for name, metrics in summarise(scores, groups).items()}


def page(found: dict[str, dict], folds: list[dict[str, np.ndarray]], config: TrainConfig) -> str:
    """The page of the figures."""
    count = sum(len(fold["group"]) for fold in folds)
    lines = [
        "# Lesions in five folds",
        "",
        f"Generated by `python benchmarks/lesion_folds.py --data $RETSAM_DATA --write`: {count} photographs of IDRiD in",
        f"{len(folds)} folds, each judged by a network that learned from the others. The networks start from one that has met no lesion",
        f"and train for {config.steps:,} steps, a fraction of the shipped network's, and without the mined and pasted crops of its last",
        "steps: the figures are not those of the shipped weights. The challenge's winners trained on all 54 and are scored on another",
        "27 photographs, pooled over pixels (Porwal et al.",
        "2020). Intervals: 95 %, bootstrap over photographs.",
        "",
        "| lesion | AUPR, pooled over pixels | AUPR, mean over photographs | photographs with it | aimed at | challenge winner |",
        "|---|---|---|---|---|---|",
    ]
    for name, (aim, winner) in LESIONS.items():
        entry = found[name]
        pooled = f"{entry['pooled']:.3f} ({entry['pooled_ci_low']:.3f}-{entry['pooled_ci_high']:.3f})"
        mean = f"{entry['value']:.3f} ({entry['ci_low']:.3f}-{entry['ci_high']:.3f})"
        lines.append(f"| {name} | {pooled} | {mean} | {entry['n']} | {aim:.2f} | {winner:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), action="append", help="only this one [default: all]")
    parser.add_argument("--minutes", type=float, help="longest training of a fold in this call [default: to its end]")
    parser.add_argument("--write", action="store_true", help="write the page and the model card")
    arguments = parser.parse_args()
    if arguments.write and arguments.fold:
        parser.error("--write makes the page of all folds; leave --fold out")
    config, folds = TrainConfig.read(CONFIG), []
    for fold in arguments.fold or range(FOLDS):
        of_fold = fold_config(config, fold)
        weights = trained(of_fold, arguments.minutes)
        torch.set_num_threads(config.threads or torch.get_num_threads())
        folds.append(histograms(of_fold, arguments.data.resolve(), weights))
    found = figures(folds)
    text = page(found, folds, config)
    print(text)
    if arguments.write:
        PAGE.write_text(text)
        card_path = DEFAULT_WEIGHTS.with_suffix(".json")
        card = json.loads(card_path.read_text())
        card["lesion_folds"] = {"folds": FOLDS, "steps": config.steps, "photographs": sum(len(f["group"]) for f in folds), "aupr": found}
        card_path.write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps({name: {"pooled": entry["pooled"], "mean": entry["value"]} for name, entry in found.items()}))


if __name__ == "__main__":
    main()
