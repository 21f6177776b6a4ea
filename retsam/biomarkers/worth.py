"""What each biomarker is worth, as measured: how it repeats, and how it follows drawn masks.

The figures stand in ``evidence/``, written by ``benchmarks/repeatability.py`` and ``benchmarks/fidelity.py``; the dictionary shows them.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "evidence"

#: What was repeated, in words.
PROTOCOLS = {
    "masks": "reference masks perturbed as a segmentation errs: borders, breaks, false twigs, lost twigs, the disc elsewhere",
    "photographs": "photographs compressed, lit otherwise and blurred, then segmented anew",
}


def _rows(name: str) -> list[dict[str, str]]:
    path = FOLDER / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def repeatability() -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Biomarker -> protocol (of :data:`PROTOCOLS`) -> ``cv``, ``icc``, ``eyes``; None where undefined."""
    out: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for row in _rows("repeatability.csv"):
        values = {"cv": _number(row["cv"]), "icc": _number(row["icc"]), "eyes": int(row["eyes"])}
        out.setdefault(row["biomarker"], {})[row["protocol"]] = values
    return out


@cache
def fidelity() -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Biomarker -> data set -> ``n``, ``r``, ``icc`` and ``bias_sd`` of predicted against drawn masks."""
    out: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for row in _rows("fidelity.csv"):
        values = {name: _number(row[name]) for name in ("r", "icc", "bias_sd")}
        out.setdefault(row["biomarker"], {})[row["dataset"]] = {"n": int(row["n"]), **values}
    return out


def about() -> dict[str, dict]:
    """How the figures came about: table -> what its benchmark wrote beside it."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def in_words(name: str) -> tuple[str, str]:
    """Repeatability and fidelity of a biomarker, for a cell of a table each; empty where not measured."""
    repeats = []
    for protocol, found in repeatability().get(name, {}).items():
        cv, icc = ("-" if found[key] is None else format(found[key], form) for key, form in (("cv", ".1%"), ("icc", ".2f")))
        repeats.append(f"{protocol} {cv}, {icc}")
    follows = "; ".join(
        f"{dataset} {found['r']:.2f}, {found['bias_sd']:+.1f}"
        for dataset, found in fidelity().get(name, {}).items()
        if found["r"] is not None and found["bias_sd"] is not None
    )
    return "; ".join(repeats), follows
