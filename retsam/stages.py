"""What each stage of a study depends on, so that an edit recomputes what it touches and nothing else.

The workflow writes one small configuration a stage (``configs/<stage>.yaml`` in the results folder) that holds only what this
stage reads. A stage is rerun when its own file changes: editing a threshold of quality leaves the masks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from retsam.config import StudyConfig, digest

#: Settings a stage reads, as dotted keys of `StudyConfig`. ``study``, ``results`` and ``seed`` are added where they count.
STAGES: dict[str, tuple[str, ...]] = {
    # Which photographs, whose eyes, in which shards: everything of the cohort but labels and covariates.
    "index": (
        "cohort.samplesheet",
        "cohort.root",
        "cohort.columns",
        "cohort.filter",
        "cohort.unique",
        "cohort.missing_values",
        "cohort.shard_size",
        "cohort.max_pixels",
    ),
    "ingest": ("cohort",),
    "metrics": ("cohort.max_pixels",),
    "grade": ("quality",),
    "segment": ("cohort.max_pixels", "segmentation"),
    "measure": ("biomarkers",),
    # The weights name the list of photographs that taught them (``<weights>.learned.csv``), whose subjects are left out.
    "associate": ("study", "seed", "cohort.labels", "cohort.covariates", "segmentation.weights", "association"),
    "report": (
        "study",
        "results",
        "seed",
        "frozen",
        "cohort",
        "quality",
        "segmentation",
        "biomarkers",
        "association",
        "report",
    ),
}

#: Settings that decide how a stage runs and not what it finds. They are left out of the stages' files and travel in the environment
#: (``RETSAM_EXECUTION``), so that another batch size or device recomputes nothing.
EXECUTION = (
    "segmentation.device",
    "segmentation.batch_size",
    "segmentation.threads",
    "segmentation.workers",
    "biomarkers.scheduler",
    "biomarkers.workers",
    "biomarkers.images_per_task",
    "association.workers",
)

#: Stands for the samplesheet in the configuration of stages that never open it (the key has no default).
NOT_READ = "not read by this stage"


def stage_settings(config: StudyConfig, stage: str) -> dict[str, Any]:
    """Settings of one stage as plain data; a valid configuration of its own, every other setting at its default."""
    everything = config.model_dump(mode="json", exclude_defaults=False)
    settings: dict[str, Any] = {}
    for key in STAGES[stage]:
        source, target = everything, settings
        *parents, last = key.split(".")
        for parent in parents:
            source, target = source[parent], target.setdefault(parent, {})
        target[last] = source[last]
    for key in EXECUTION:
        section, name = key.split(".")
        settings.get(section, {}).pop(name, None)
    settings.setdefault("study", config.study)
    settings.setdefault("cohort", {}).setdefault("samplesheet", NOT_READ)
    return settings


def execution_settings(config: StudyConfig) -> dict[str, Any]:
    """Settings of `EXECUTION` that a study has, by dotted key."""
    everything = config.model_dump(mode="json")
    found = {}
    for key in EXECUTION:
        section, name = key.split(".")
        if name in everything[section]:
            found[key] = everything[section][name]
    return found


def stage_yaml(config: StudyConfig, stage: str) -> str:
    """`stage_settings` as the text of a YAML file."""
    return yaml.safe_dump(stage_settings(config, stage), sort_keys=False, allow_unicode=True, width=120)


def stage_digest(config: StudyConfig, stage: str, extra: Mapping[str, Any] | None = None) -> str:
    """Short digest of what a stage reads, with anything else that decides its result (the weights' hash, say)."""
    return digest([stage_settings(config, stage), dict(extra or {})])[:16]
