"""Accuracy of the shipped network on photographs that it was never trained on, as the table of the README.

    python benchmarks/accuracy.py --data $RETSAM_DATA [--limit 20] [--out runs/accuracy] [--jobs 1] [--write]

Runs ``retsam evaluate`` on the parts kept out of training, vessels drawn in no one's pen; on the vessel data sets again, each in its own
pen; on fovea and HEI-MED, whose figures rest on few photographs or rare events, without ``--limit``. A run whose scores are there
already, from the same weights, card and code of segmentation, is not repeated. ``--only lesions`` is for weights in which nothing but the
decoder of lesions or its thresholds are new (``only: [lesions_dr]`` in their training), ``--only pens`` for new thresholds of the pens: all
other figures stay as the README has them. ``--write`` puts the table between the README's markers and the scores, but for those in a data
set's pen, into the model card. The last line is one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retsam.segmentation.predict import DEFAULT_WEIGHTS
from retsam.segmentation.weights import file_sha256
from retsam.training.export import attach_scores

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- accuracy:begin -->\n", "<!-- accuracy:end -->"
HELD_OUT = "config/train-base.yaml"
VESSELS = ("drive", "hrf", "gave", "aria", "orvs")
ARTERIES = ("drive", "hrf", "gave")
LESIONS = ("hard_exudate", "hemorrhage", "cotton_wool_spot", "microaneurysm")

# Name, data set, target, metric, pooled over pixels; those of vessels have a figure in the data set's own pen too.
ROWS = [
    *((f"vessel DSC, {d}", d, "vessel", "dsc") for d in VESSELS),
    *((f"vessel clDice, {d}", d, "vessel", "cldice") for d in VESSELS),
    *((f"artery/vein accuracy on vessels found, {d}", d, "artery_vein", "accuracy_found") for d in ARTERIES),
    *((f"artery/vein accuracy on all drawn vessels, {d}", d, "artery_vein", "accuracy") for d in ARTERIES),
    *((f"{target} DSC, {d}", d, target, "dsc") for d in ARTERIES for target in ("artery", "vein")),
    *((f"disc DSC, {d}", d, "disc", "dsc") for d in ("drishti", "ords", "palm", "idrid_seg")),
    ("cup DSC, drishti", "drishti", "cup", "dsc"),
    ("vertical CDR error, drishti", "drishti", "vcdr", "error"),
    ("fovea error, DD, idrid_grading", "idrid_grading", "fovea", "distance_dd"),
    ("fovea within 0.25 DD, idrid_grading", "idrid_grading", "fovea", "within_0.25_dd"),
    ("fovea within 0.5 DD, idrid_grading", "idrid_grading", "fovea", "within_0.5_dd"),
    *((f"{target} DSC, idrid_seg", "idrid_seg", target, "dsc") for target in LESIONS),
    *((f"{target} AUPR, mean over images, idrid_seg", "idrid_seg", target, "aupr") for target in LESIONS),
    *((f"{target} AUPR, pooled over pixels, idrid_seg", "idrid_seg", target, "aupr_pooled") for target in LESIONS),
    ("exudate, image AUC, hei_med (camera not trained on)", "hei_med", "hard_exudate", "image_auc"),
]


def made_by(weights: Path, pen: bool = False) -> str:
    """What scores rest on: the weights, what their card says of the heads but for scores, and the code that segments."""
    heads = json.loads(weights.with_suffix(".json").read_text())["heads"]
    other = {"scores", "unbiased"} if pen else {"scores", "unbiased", "pens", "pen_twigs"}
    rules = {name: {key: value for key, value in head.items() if key not in other} for name, head in heads.items()}
    code = {path.name: file_sha256(path) for path in (ROOT / "retsam" / "segmentation").glob("*.py")}
    return json.dumps([file_sha256(weights), rules, code], sort_keys=True)


def scores(data: Path, out: Path, options: list[str]) -> dict:
    """Scores of one evaluation, run where they are missing or of other weights or thresholds."""
    rests_on = made_by(DEFAULT_WEIGHTS, "--pen" in options)
    mark = out.with_suffix(".made_by.json")
    if not (out.exists() and mark.exists() and mark.read_text() == rests_on):
        command = [sys.executable, "-m", "retsam", "evaluate", "--manifest", str(data / "manifest.csv"), "--root", str(data)]
        command += ["--held-out", HELD_OUT, "--out", str(out), *options]
        print("$", " ".join(command[1:]), flush=True)
        subprocess.run(command, cwd=ROOT, check=True)
        mark.write_text(rests_on)
    return json.loads(out.read_text())


def figure(values: dict, dataset: str, target: str, metric: str) -> dict | None:
    """Value, interval and n of one metric; None where it was not scored."""
    pooled = metric.endswith("_pooled")
    entry = values.get(dataset, {}).get(target, {}).get(metric.removesuffix("_pooled"))
    if entry is None:
        return None
    keys = ("pooled", "pooled_ci_low", "pooled_ci_high") if pooled else ("value", "ci_low", "ci_high")
    n = entry.get("n_pooled", entry["n"]) if pooled else entry["n"]  # scores of earlier versions do not say how many were pooled
    return dict(zip(("value", "low", "high"), (entry[key] for key in keys), strict=True)) | {"n": n}


def kept_rows(readme: str, names: list[str]) -> dict[str, list[str]]:
    """Both figures of each row of the README's table by name.

    Raises
    ------
    ValueError
        Naming all rows that it lacks.
    """
    lines = (line.strip("| ").split("|") for line in readme.split(BEGIN)[1].split(END)[0].splitlines() if line.startswith("| "))
    rows = {cells[0].strip(): [cell.strip() for cell in (*cells[1:], "")][:2] for cells in lines}
    if missing := [name for name in names if name not in rows]:
        raise ValueError(f"README.md: its table of accuracy lacks the rows {missing}; run without --only first")
    return rows


def cell(entry: dict | None) -> str:
    """A figure for people."""
    if entry is None or entry["value"] is None:
        return ""
    return f"{entry['value']:.3f} ({entry['low']:.3f}-{entry['high']:.3f}), n = {entry['n']}"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--limit", type=int, default=20, help="photographs of each data set, but of fovea and HEI-MED")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="folder for scores")
    parser.add_argument("--jobs", type=int, default=1, help="evaluations at a time; give each OMP_NUM_THREADS of its own")
    parser.add_argument("--only", action="append", choices=("lesions", "pens"), help="only these figures; the others stay; may be repeated")
    parser.add_argument("--write", action="store_true", help="write the README's table and the model card")
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    limit = ["--limit", str(arguments.limit)]
    readme = ROOT / "README.md"
    kept = kept_rows(readme.read_text(), [name for name, *_ in ROWS]) if arguments.only else {}
    lesions = {
        "lesions": ["--task", "lesions_dr", "--dataset", "idrid_seg", *limit],
        "hei_med": ["--task", "lesions_dr", "--dataset", "hei_med"],
    }
    every = {
        "plain": limit,
        "pens": ["--task", "vessels", "--pen", "own", *limit, *(x for d in VESSELS for x in ("--dataset", d))],
        "fovea": ["--task", "macula", "--task", "optic_nerve", "--dataset", "idrid_grading"],
        "hei_med": lesions["hei_med"],
    }
    wanted = arguments.only or []
    runs = every if not wanted else (lesions if "lesions" in wanted else {}) | ({"pens": every["pens"]} if "pens" in wanted else {})
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = {name: pool.submit(scores, data, out / f"{name}.json", options) for name, options in runs.items()}
    found = {name: job.result() for name, job in jobs.items()}
    pens = found.pop("pens", {})
    plain = {dataset: values for run in found.values() for dataset, values in run.items()}
    lines, figures = ["| what, on photographs never trained on | in no one's pen | in the data set's pen |", "|---|---|---|"], {}
    for name, *where in ROWS:
        new = {"plain": figure(plain, *where), "own_pen": figure(pens, *where) if where[0] in VESSELS else None}
        cells = [cell(entry) for entry in new.values()]
        if wanted:
            fresh = "lesions" in wanted and where[1] in LESIONS, "pens" in wanted and where[0] in VESSELS
            cells = [value if is_new else old for value, is_new, old in zip(cells, fresh, kept[name], strict=True)]
            new = {which: entry for (which, entry), is_new in zip(new.items(), fresh, strict=True) if is_new}
        if new:
            figures[name] = new
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if arguments.write:
        before, rest = readme.read_text().split(BEGIN)
        readme.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END, 1)[1])
        for name in found:
            attach_scores(DEFAULT_WEIGHTS.with_suffix(".json"), out / f"{name}.json")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
