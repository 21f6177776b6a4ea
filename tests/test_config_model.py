"""The configuration: every fault at once, each with its key; generated files that agree with the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from retsam.cli import COMMANDS, cli
from retsam.config import ConfigError, StudyConfig, load_config, models_in, parse_config, read_yaml
from retsam.config_pages import default_yaml, stale
from retsam.stages import EXECUTION, STAGES, execution_settings, stage_settings

ROOT = Path(__file__).resolve().parent.parent
MINIMAL = {"cohort": {"samplesheet": "sheet.csv"}}


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_all_faults_are_told_at_once_with_line_key_expected_found_and_nearest(tmp_path):
    path = write(
        tmp_path,
        """study: 1st
cohort:
  samplesheet: sheet.csv
  shard_sise: 10
  labels:
    dr: {type: binari}
quality:
  reject_above: 1.5
  duplicates: contents
association:
  outcomes: [dr]
""",
    )
    with pytest.raises(ConfigError) as error:
        load_config(path)
    faults = error.value.faults
    assert len(faults) == 5
    text = str(error.value)
    assert "line 4: cohort.shard_sise: unknown key; nearest: shard_size" in text
    assert "line 6: cohort.labels.dr.type" in text and "nearest: binary" in text and "'binari'" in text
    assert "line 8: quality.reject_above" in text and "less than or equal to 1" in text and "found 1.5" in text
    assert "line 9: quality.duplicates" in text and "nearest: content" in text
    assert "line 1: study" in text and "found '1st'" in text


def test_a_missing_section_and_a_wrong_section_name(tmp_path):
    with pytest.raises(ConfigError, match="cohort: missing") as error:
        load_config(write(tmp_path, "study: a\nassociations: {}\n"))
    assert "associations: unknown key; nearest: association" in str(error.value)


def test_keys_given_twice_and_broken_yaml_are_faults(tmp_path):
    with pytest.raises(ConfigError, match="given twice, first in line 2"):
        read_yaml(write(tmp_path, "a: 1\nstudy: x\nstudy: y\n"))
    with pytest.raises(ConfigError, match="line 3"):
        read_yaml(write(tmp_path, "study: x\ncohort: [1, 2\n"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="expected keys and values"):
        read_yaml(write(tmp_path, "- a\n- b\n"))


def test_outcomes_and_covariates_must_be_columns_of_the_cohort():
    settings = {
        "cohort": {"samplesheet": "s.csv", "labels": {"glaucoma": {}}, "covariates": {"age": {}}},
        "association": {
            "outcomes": ["glaucom"],
            "covariate_sets": {"crude": [], "full": ["age", "sexx", "quality_sharpness", "bs(age, df=4)"]},
        },
    }
    with pytest.raises(ConfigError) as error:
        parse_config(settings)
    text = str(error.value)
    assert "'glaucom' is no column of this cohort; nearest: glaucoma" in text
    assert "association.covariate_sets.full: 'sexx'" in text
    assert "quality_sharpness" not in text and "bs(age" not in text


def test_variables_are_expanded_in_paths_only(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", "/somewhere")
    monkeypatch.delenv("RETSAM_DATA", raising=False)
    text = "cohort: {samplesheet: $MY_DATA/s.csv, root: '${RETSAM_DATA}/x', labels: {dr: {positive_pattern: 'retinopathy$MY_DATA'}}}\n"
    config = load_config(write(tmp_path, text))
    assert config.cohort.samplesheet == "/somewhere/s.csv"
    assert config.cohort.root == "../shared/data/x"
    assert config.cohort.labels["dr"].positive_pattern == "retinopathy$MY_DATA"
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE is not set"):
        parse_config({"cohort": {"samplesheet": "$NOT_SET_ANYWHERE/s.csv"}})


def test_results_follow_the_study_and_overrides_win(tmp_path):
    path = write(tmp_path, yaml.safe_dump({"study": "mine", **MINIMAL}))
    assert load_config(path).results == "results/mine"
    config = load_config(path, {"results": "elsewhere", "quality.reject_above": 0.9})
    assert config.results == "elsewhere" and config.quality.reject_above == 0.9


def test_execution_settings_come_from_the_environment_and_only_those(tmp_path, monkeypatch):
    path = write(tmp_path, yaml.safe_dump(MINIMAL))
    monkeypatch.setenv("RETSAM_EXECUTION", json.dumps({"segmentation.batch_size": 7}))
    assert load_config(path).segmentation.batch_size == 7
    monkeypatch.setenv("RETSAM_EXECUTION", json.dumps({"quality.reject_above": 0.1}))
    with pytest.raises(ConfigError, match="quality.reject_above"):
        load_config(path)


def test_every_setting_has_a_description():
    def check(model: type[BaseModel], path: str) -> list[str]:
        bare = [f"{path}.{name}" for name, field in model.model_fields.items() if not field.description]
        for name, field in model.model_fields.items():
            for inner in models_in(field.annotation):
                bare += check(inner, f"{path}.{name}")
        return bare

    assert check(StudyConfig, "StudyConfig") == []


def test_generated_files_agree_with_the_model():
    assert stale(ROOT) == [], "run `python -m retsam.config`"


def test_default_yaml_is_valid_and_writes_out_the_defaults():
    settings = yaml.safe_load(default_yaml())
    config = parse_config(settings)
    assert config.association.outcomes
    assert settings["quality"]["reject_above"] == config.quality.reject_above
    assert settings["cohort"]["shard_size"] == config.cohort.shard_size


@pytest.mark.parametrize("name", ["config", "odir", "idrid"])
def test_studies_of_the_repository_are_valid_for_model_and_schema(name):
    path = ROOT / "config" / f"{name}.yaml"
    load_config(path)
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    faults = [f"{list(e.absolute_path)}: {e.message}" for e in Draft202012Validator(schema).iter_errors(yaml.safe_load(path.read_text()))]
    # Short forms (`filter: {dataset: odir}`, `outcomes: [dr]`, `age:`) are the reader's; the schema knows the long ones.
    assert not [f for f in faults if f.startswith(("['quality", "['segmentation", "['biomarkers", "['report"))]


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_a_valid_configuration_that_gives_itself(stage):
    config = load_config(ROOT / "config" / "odir.yaml")
    settings = stage_settings(config, stage)
    assert stage_settings(parse_config(settings), stage) == settings


def test_stage_settings_follow_what_a_stage_reads():
    base = load_config(ROOT / "config" / "odir.yaml")

    def touched(**overrides) -> set[str]:
        other = load_config(ROOT / "config" / "odir.yaml", {k.replace("__", "."): v for k, v in overrides.items()})
        return {stage for stage in STAGES if stage_settings(base, stage) != stage_settings(other, stage)}

    assert touched(quality__reject_above=0.4) == {"grade", "report"}
    assert touched(biomarkers__um_per_dd=1700.0) == {"measure", "report"}
    assert touched(segmentation__flips=True) == {"segment", "report"}
    assert touched(association__multiple={"alpha": 0.01}) == {"associate", "report"}
    assert touched(report__authors=["A"]) == {"report"}
    assert touched(segmentation__batch_size=4, segmentation__device="cpu", biomarkers__workers=3) == set()
    labels = base.cohort.model_dump(mode="json")["labels"] | {"new": {"column": "diagnosis", "positive": ["D"]}}
    assert touched(cohort__labels=labels) == {"ingest", "associate", "report"}


def test_execution_settings_exist_in_the_model():
    assert set(execution_settings(parse_config(MINIMAL))) == set(EXECUTION)


def test_every_command_is_there_and_helps():
    runner = CliRunner()
    listing = runner.invoke(cli, ["--help"])
    assert listing.exit_code == 0
    for name in COMMANDS:
        assert name in listing.output
        result = runner.invoke(cli, [name, "--help"])
        assert result.exit_code == 0, f"{name}: {result.output}"
        assert len(result.output) > 200


def test_a_misspelt_command_is_answered_with_the_nearest():
    result = CliRunner().invoke(cli, ["segmnt"])
    assert result.exit_code == 2 and "did you mean 'segment'?" in result.output


def test_a_key_that_is_no_word_is_told(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("? [a, b]\n: c\n")
    with pytest.raises(ConfigError, match="a key must be a word or a number"):
        read_yaml(path)
