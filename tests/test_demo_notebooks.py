"""The notebooks run from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

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

    # As many eyes as the demo's study has after quality control.
    table, parameters = simulate(60, 768, seed=0)
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
    assert "eyes of 60 subjects" in text
    effect = float(text.split("vertical cup-to-disc ratio in glaucoma: ")[1].split(" ")[0])
    assert effect == pytest.approx(0.24, abs=0.05), "the effect that the population was given must come back"
    for start in ("odds ratio of hypertension per 10 um narrower: ", "glaucoma:C(sex)[T.male]: "):
        value, low, high, p = map(float, re.match(r"(\S+) \((\S+) to (\S+)\), p = (\S+)", text.split(start)[1]).groups())
        assert low < value < high and 0 <= p <= 1 and high - low < 10, text


def test_a_model_that_did_not_fit_is_told(tmp_path, monkeypatch):
    """Cases and controls separated: an odds ratio without end is no result."""
    _results(tmp_path)
    biomarkers = pd.read_parquet(tmp_path / "biomarkers.parquet")
    ill = pd.read_parquet(tmp_path / "cohort.parquet")["hypertension"]
    biomarkers["crae_um"] = biomarkers["crae_um"].where(biomarkers["crae_um"].isna(), 150.0 - 40.0 * ill + np.arange(len(ill)) % 7)
    biomarkers.to_parquet(tmp_path / "biomarkers.parquet")
    monkeypatch.setenv("RETSAM_RESULTS", str(tmp_path))
    with pytest.raises(CellExecutionError, match="did not fit: .*separated"):
        _run("02_from_tables_to_a_custom_model.ipynb")


def test_a_difference_that_no_eye_shows_is_no_result(tmp_path, monkeypatch):
    """No man has the disease: its difference between the sexes would be 0, from 0 to 0."""
    _results(tmp_path)
    cohort = pd.read_parquet(tmp_path / "cohort.parquet")
    cohort["glaucoma"] = cohort["glaucoma"].where(cohort["sex"] == "female", 0)
    cohort.to_parquet(tmp_path / "cohort.parquet")
    monkeypatch.setenv("RETSAM_RESULTS", str(tmp_path))
    with pytest.raises(CellExecutionError, match="did not fit: its terms cannot be told apart"):
        _run("02_from_tables_to_a_custom_model.ipynb")
