"""The notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from retsam.demo.population import simulate

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def _run(name: str) -> tuple[nbformat.NotebookNode, str]:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    text = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    return notebook, text


def _results(folder: Path) -> None:
    """A study's tables, with biomarkers taken from the parameters of a simulated population (no photographs needed)."""
    from retsam.association import AssociationConfig, associate

    table, parameters = simulate(120, 768, seed=9)
    rng = np.random.default_rng(0)
    cohort = table.assign(image_id=[f"i{k}" for k in range(len(table))], status="ok", reason=None, dr=(table["dr_grade"] > 0).astype(int))
    cohort = cohort.rename(columns={"pathological_myopia": "myopia"})
    grade = np.where(np.arange(len(table)) % 20 == 0, "reject", "gradable")
    quality = pd.DataFrame({"image_id": cohort["image_id"], "status": "ok", "grade": grade})
    biomarkers = cohort[["image_id", "subject", "eye", "status"]].copy()
    biomarkers["cdr_vertical"] = [p.cdr_vertical for p in parameters] + rng.normal(0, 0.03, len(table))
    biomarkers["crae_um"] = [1.3 * p.artery_width_um for p in parameters] + rng.normal(0, 4, len(table))
    biomarkers["hemorrhage_count"] = [float(p.lesions.get("hemorrhage", 0)) for p in parameters]
    for name in ("cdr_vertical", "crae_um", "hemorrhage_count"):
        biomarkers.loc[grade == "reject", name] = np.nan
        biomarkers[f"{name}__reason"] = np.where(grade == "reject", "quality_reject", None)
    plan = AssociationConfig(outcomes=["dr", "amd", "glaucoma", "myopia"], workers=1)
    for name, frame in (
        ("cohort", cohort),
        ("quality", quality),
        ("biomarkers", biomarkers),
        ("associations", associate(plan, cohort, quality, biomarkers)),
    ):
        frame.to_parquet(folder / f"{name}.parquet")


def test_notebooks_hold_no_outputs():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert all(
            not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells if cell.cell_type == "code"
        ), path.name


def test_segment_and_measure():
    _, text = _run("01_segment_and_measure.ipynb")
    assert "cdr_vertical" in text and "on segmented masks" in text


def test_custom_model(tmp_path, monkeypatch):
    _results(tmp_path)
    monkeypatch.setenv("RETSAM_RESULTS", str(tmp_path))
    _, text = _run("02_from_tables_to_a_custom_model.ipynb")
    assert "228 eyes of 120 subjects" in text
    effect = float(text.split("vertical cup-to-disc ratio in glaucoma: ")[1].split(" ")[0])
    assert effect == pytest.approx(0.24, abs=0.05), "the effect that the population was given must come back"
