"""Nothing stale is kept: runs that stop half way, photographs that are withdrawn, weights with a list of their own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from workflow_study import finish, planned, snakemake, write_study

from retsam.cohort.ingest import read_shard
from retsam.config import load_config
from retsam.provenance import weights_file
from retsam.stages import stage_yaml
from retsam.workflow import StudyPlan, drop_shards, plan_study

FROM_SEGMENTATION = {"gather": 1, "associate": 1, "provenance": 1, "report": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of 3 shards that looks finished; settings, index and shards are real, so that these rules can run."""
    config = write_study(tmp_path_factory.mktemp("stale") / "a")
    until(config, "settings")
    until(config, "shard")
    finish(config)
    assert planned(config) == {}
    return config


def until(config: Path, *rules: str):
    """Run the workflow up to some rules: what is there when a run is killed right after them."""
    return snakemake("--configfile", str(config), "--until", *rules, cwd=config.parent)


def test_a_run_that_stops_after_the_shards_does_not_hide_a_replaced_photograph(study):
    photograph, table = study.parent / "photographs" / "2.jpg", study.parent / "results" / "parts" / "shards" / "s0001.csv"
    before, text = photograph.read_bytes(), table.read_text()
    photograph.write_bytes(b"another photograph")
    until(study, "shard")
    assert table.read_text() == text, "the file of the shard holds nothing that has changed"
    assert planned(study) == {"metrics": 1, "grade": 1, "segment": 1, "measure": 1, **FROM_SEGMENTATION}
    photograph.write_bytes(before)
    finish(study)


def test_a_run_that_stops_after_the_settings_does_not_hide_a_new_model_card(study):
    card = study.parent / "w.json"
    before = card.read_bytes()
    card.write_bytes(b"{ }")
    until(study, "settings")
    assert planned(study) == {"segment": 3, "measure": 3, **FROM_SEGMENTATION}
    card.write_bytes(before)


def test_an_empty_file_that_is_replaced_is_in_the_tables_again(tmp_path):
    path = write_study(tmp_path / "d")
    config = load_config(path).model_dump(mode="json")
    plan = plan_study(config)
    (path.parent / "photographs" / "0.jpg").write_bytes(b"")
    empty = plan_study(config)
    assert empty.index_digest != plan.index_digest and empty.cohort_digest != plan.cohort_digest


def test_associations_read_the_list_of_the_studys_own_weights(study, tmp_path, monkeypatch):
    """The stage's file names them, and the command asks for the list beside them."""
    stage = tmp_path / "associate.yaml"
    stage.write_text(stage_yaml(load_config(study), "associate"))
    own = study.parent / "w.safetensors"
    assert weights_file(load_config(stage).segmentation) == own

    from retsam.association import circularity, cli
    from retsam.association.sample import PlanError

    def learned(weights):
        raise PlanError([f"asked for the list of {weights}"])

    monkeypatch.setattr(circularity, "learned_photographs", learned)
    tables = []
    for name in ("cohort", "quality", "biomarkers"):
        pd.DataFrame({"image_id": ["a"], "subject": ["1"]}).to_parquet(tmp_path / f"{name}.parquet")
        tables += [f"--{name}", str(tmp_path / f"{name}.parquet")]
    done = CliRunner().invoke(cli.associate, ["--config", str(stage), *tables, "--out", str(tmp_path / "a.parquet"), "--quiet"])
    assert f"asked for the list of {own}" in done.output, done.output


def test_another_list_of_taught_photographs_recomputes_associations(study):
    listed = study.parent / "w.learned.csv"
    listed.write_text("content_hash,heads\nabc,exudate\n")
    try:
        assert planned(study) == {"associate": 1, "provenance": 1, "report": 1}
    finally:
        listed.unlink()
    frozen = plan_study({**yaml.safe_load(study.read_text()), "frozen": True})
    listed.write_text("content_hash,heads\nabc,drusen\n")
    other = plan_study({**yaml.safe_load(study.read_text()), "frozen": True})
    listed.unlink()
    assert not frozen.model_digests["associate"] and other.model_digests["associate"]


def test_shards_that_the_cohort_no_longer_has_are_removed_when_a_run_starts(tmp_path):
    config = write_study(tmp_path / "b")
    until(config, "shard")
    finish(config)
    results, sheet = config.parent / "results", config.parent / "samplesheet.csv"
    sheet.write_text("\n".join(sheet.read_text().splitlines()[:5]) + "\n")

    def left() -> set[str]:
        return {str(path.relative_to(results)) for path in results.rglob("s0002*") if "zarr/" not in str(path)}

    assert {"masks/s0002.zarr", "parts/quality/s0002.parquet", "parts/biomarkers/s0002.parquet", "parts/shards/s0002.csv"} <= left()
    before = left()
    assert planned(config)["gather"] == 1
    assert left() == before, "a dry run removes nothing"
    done = until(config, "index")
    assert "no shard s0002 any more" in done.stderr
    assert not left()
    assert (results / "masks" / "s0001.zarr").is_dir() and (results / "parts" / "quality" / "s0000.parquet").is_file()


def test_only_shards_of_this_study_are_removed(tmp_path):
    config = write_study(tmp_path / "c", images=2)
    plan = plan_study(load_config(config).model_dump(mode="json"))
    results, elsewhere = config.parent / "results", tmp_path / "elsewhere"
    stay = ["masks/s0000.zarr", "masks/mine.zarr", "masks/s12.zarr", "masks/s0001.zarr.bak", "logs/settings/segment.log", "s0001.csv"]
    for name in [*stay, "masks/s0001.zarr", "logs/segment/s0001.log"]:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).mkdir() if name.endswith(".zarr") else (results / name).write_text("")
    elsewhere.mkdir()
    (elsewhere / "s0001.parquet").write_text("")
    (results / "parts").mkdir()
    (results / "parts" / "quality").symlink_to(elsewhere)
    assert drop_shards(StudyPlan(plan.config)) == [], "a frozen study has no shards and loses none"
    removed, told = drop_shards(plan)
    assert "no shard s0001 any more" in removed and "parts/quality/s0001.parquet" in told
    assert all((results / name).exists() for name in stay) and (elsewhere / "s0001.parquet").exists()
    assert not (results / "masks" / "s0001.zarr").exists() and not (results / "logs" / "segment" / "s0001.log").exists()


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan"])
def test_a_photograph_called_like_a_missing_value_is_segmented_under_its_name(tmp_path, monkeypatch, name):
    from retsam.segmentation import cli, shard

    (tmp_path / "s0000.csv").write_text(f"image_id,path,eye,um_per_px\n{name},a.jpg,,\nb,b.jpg,R,6.5\n")
    (tmp_path / "c.yaml").write_text("study: s\ncohort: {samplesheet: s.csv}\n")
    pd.DataFrame({"image_id": [name, "b"]}).to_parquet(tmp_path / "q.parquet")
    seen = []
    monkeypatch.setattr(shard, "segment_shard", lambda table, *_, **__: seen.append(table))
    paths = {"--config": "c.yaml", "--shard-file": "s0000.csv", "--metrics": "q.parquet", "--out": "s0000.zarr"}
    done = CliRunner().invoke(cli.segment, [part for option, file in paths.items() for part in (option, str(tmp_path / file))])
    assert done.exit_code == 0, done.output
    assert list(seen[0]["image_id"]) == [name, "b"] and list(seen[0]["um_per_px"].isna()) == [True, False]
    pd.testing.assert_frame_equal(seen[0], read_shard(tmp_path / "s0000.csv"))
