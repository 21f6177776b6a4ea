"""What is installed: constraints, environments and packaging agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "every constraint is one exact public version"
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_direct_dependency_is_pinned_and_satisfied():
    from packaging.requirements import Requirement

    pins = constraints()
    wanted = [
        *project()["project"]["dependencies"],
        *(d for group in project()["project"]["optional-dependencies"].values() for d in group),
    ]
    for text in wanted:
        requirement = Requirement(text)
        assert normal(requirement.name) in pins, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pins[normal(requirement.name)]), f"constraints do not satisfy {text}"


def test_no_dependency_is_a_cuda_package_or_a_second_torch():
    assert not [name for name in constraints() if name.startswith(("nvidia", "triton", "torchvision", "torchaudio", "timm"))]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_conda_environments_have_the_versions_of_the_constraints(kind):
    pins = constraints()
    environment = yaml.safe_load((ROOT / "envs" / f"{kind}.yaml").read_text())
    packages = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    listed = dict(p.split("==") for p in packages if not p.startswith("--"))
    assert {normal(d.split(">")[0]) for d in project()["project"]["dependencies"]} == {normal(name) for name in listed}
    for name, version in listed.items():
        assert version.removesuffix("+cpu") == pins[normal(name)]
    assert (ROOT / "envs" / f"{kind}.post-deploy.sh").stat().st_mode & 0o100


def test_weights_of_provenance_are_those_of_the_network():
    from retsam.provenance import weights_file
    from retsam.segmentation.weights import DEFAULT_WEIGHTS

    assert weights_file() == DEFAULT_WEIGHTS.resolve()


def test_one_row_of_each_photograph_is_kept_where_sizes_differ(tmp_path):
    from retsam.cohort.config import CohortConfig
    from retsam.cohort.faults import SamplesheetError
    from retsam.cohort.samplesheet import load_cohort

    rows = ["image,group,scale"]
    for name, group, scale in [
        ("a", "g1", "0.25"),
        ("b", "g2", "0.25"),
        ("c", "g1", "1.0"),
        ("d", "", "1"),
        ("e", "", "1"),
        ("f", "g2", "0.25"),
    ]:
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
        rows.append(f"{name}.jpg,{group},{scale}")
    sheet = tmp_path / "s.csv"
    sheet.write_text("\n".join(rows) + "\n")
    config = CohortConfig(samplesheet=str(sheet), unique={"by": "group", "keep_largest": "scale"})
    cohort = load_cohort(config)
    assert [Path(p).stem for p in cohort.table["path"]] == ["b", "c", "d", "e"]
    assert any("2 rows left out" in note for note in cohort.notes)
    sheet.write_text("\n".join(rows).replace("g1,1.0", "g1,full") + "\n")
    with pytest.raises(SamplesheetError, match="row 4, column 'scale'"):
        load_cohort(config)
