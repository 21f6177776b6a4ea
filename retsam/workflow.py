"""What the Snakemake workflow asks the library before it plans: is the study valid, which shards has it, what decides each stage."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from retsam.config import ConfigError, StudyConfig, parse_config
from retsam.plan import plan_faults
from retsam.provenance import check_pen, file_sha256, weights_file, weights_sha256
from retsam.stages import STAGES, execution_settings, stage_settings

#: Tables that a frozen study takes as they are.
FROZEN_TABLES = ("cohort.parquet", "quality.parquet", "biomarkers.parquet")

#: Columns of the cohort that jobs on images depend on: no labels, no covariates.
INDEX_COLUMNS = ("image_id", "path", "subject", "eye", "visit", "um_per_px")

#: Where the workflow keeps one file or store a shard, under the results folder.
SHARD_FILES = ("masks/s*.zarr", "parts/*/s*.parquet", "parts/*/s*.csv", "logs/*/s*.log", "benchmarks/*/s*.tsv")


@dataclass(frozen=True)
class StudyPlan:
    """A validated study as the workflow sees it.

    Parameters
    ----------
    config : StudyConfig
    shards : dict of str to str
        Shard id to digest of its photographs; empty for a frozen study.
    index_digest : str
        Digest of photographs, subjects, eyes and visits.
    cohort_digest : str
        Digest of these with labels and covariates.
    model_digests : dict of str to str
        Stage to digest of the trained model that decides its result: network and model card, quality model, and for associations the
        list of photographs that taught the network.
    """

    config: StudyConfig
    shards: dict[str, str] = field(default_factory=dict)
    index_digest: str = ""
    cohort_digest: str = ""
    model_digests: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> str:
        """The results folder."""
        return self.config.results

    @property
    def frozen(self) -> bool:
        """Whether the study starts from tables that are there."""
        return self.config.frozen

    @property
    def stages(self) -> list[str]:
        """Stages that have settings of their own."""
        return list(STAGES)

    @property
    def gpus(self) -> int:
        """GPUs that a segmentation job asks of a cluster."""
        return 0 if self.config.segmentation.device == "cpu" else 1

    @property
    def segment_threads(self) -> int:
        """Threads of a segmentation job: the network's, one unless the study says more, because more shards at a time are faster than more
        threads a shard; beside a GPU also those that read and resample ahead of it."""
        settings = self.config.segmentation
        cpu = settings.device == "cpu" or (settings.device == "auto" and shutil.which("nvidia-smi") is None)
        return (settings.threads or 1) + (0 if cpu else settings.workers)

    @property
    def measure_threads(self) -> int:
        """Threads of a measuring job, each a worker: one unless the study says more; one where a Dask cluster elsewhere does the work."""
        settings = self.config.biomarkers
        return settings.workers or 1 if settings.scheduler in ("threads", "processes") else 1

    @property
    def associate_threads(self) -> int:
        """Threads of the job of associations: two unless the study says otherwise."""
        return self.config.association.workers or 2

    @property
    def segment_environment(self) -> str:
        """Conda environment of the segmentation rule."""
        return "gpu" if self.gpus else "cpu"

    def stage_text(self, stage: str) -> str:
        """Settings of a stage as JSON text; an edit elsewhere does not change it."""
        return json.dumps(stage_settings(self.config, stage), ensure_ascii=False)


def plan_study(settings: Mapping[str, Any], photographs: bool = True) -> StudyPlan:
    """Validate a study and plan it.

    Parameters
    ----------
    settings : mapping
        Snakemake's ``config``.
    photographs : bool
        Read the samplesheet and plan shards; off for linting, which must not need them.

    Raises
    ------
    ValueError
        Every fault of the configuration, of the samplesheet, and of the plan against both; a fault in one hides only what cannot be
        known without it.
    """
    from retsam.cohort.faults import SamplesheetError
    from retsam.cohort.ingest import plan_shards
    from retsam.cohort.samplesheet import load_cohort

    try:
        config = parse_config(settings)
    except ConfigError as error:
        if photographs and error.cohort is not None and not settings.get("frozen"):
            try:
                load_cohort(error.cohort)
            except SamplesheetError as also:
                raise ValueError(f"{error}\n{also}") from error
        raise
    if not photographs:
        return StudyPlan(config)
    if config.frozen:
        missing = [name for name in FROZEN_TABLES if not (Path(config.results) / name).is_file()]
        if missing:
            what = ", ".join(missing)
            raise ValueError(f"{config.results}: the study is frozen, but {what} is missing there; copy it there or set `frozen: false`")
        return StudyPlan(config, model_digests={"associate": learned_digest(config)})
    try:
        cohort = load_cohort(config.cohort)
    except SamplesheetError as error:
        faults = _listed("the configuration", plan_faults(config) + _model_faults(config))
        hint = ""
        if all((Path(config.results) / name).is_file() for name in FROZEN_TABLES):
            hint = (
                f"\n  {config.results} holds the tables of an earlier run. To analyse them as they are, without the photographs, "
                "add `--config frozen=true` to this command"
            )
        raise ValueError("\n".join([f"{error}{hint}", *faults])) from error
    faults = _listed(config.cohort.samplesheet, plan_faults(config, cohort.table) + _model_faults(config))
    if faults:
        raise ValueError("\n".join(faults))
    empty = (cohort.files["size"] == 0).to_numpy()
    return StudyPlan(
        config,
        shards=plan_shards(config.cohort, cohort),
        # Both tables say which files have no bytes, and such photographs are left out: an empty file that is replaced changes them.
        index_digest=table_digest(cohort.table[list(INDEX_COLUMNS)].assign(empty=empty)),
        cohort_digest=table_digest(cohort.table.assign(**{"\x1fempty": empty})),
        model_digests={
            "segment": weights_sha256(weights_file(config.segmentation)),
            "grade": file_sha256(Path(__file__).parent / "quality" / "model.json"),
            "associate": learned_digest(config),
        },
    )


def _model_faults(config: StudyConfig) -> list[str]:
    """What is wrong with weights, card, list and pen: told before any work, not at the first shard's segmentation."""
    from retsam.association.circularity import learned_photographs
    from retsam.association.faults import PlanError

    try:
        weights_sha256(weights_file(config.segmentation))
        check_pen(config.segmentation)
        learned_photographs(weights_file(config.segmentation))
    except PlanError as error:
        return error.faults
    except ValueError as error:
        return [str(error)]
    return []


def _listed(source: str, faults: list[str]) -> list[str]:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return [f"{source}: {count} of what the study asks for", *(f"  {fault}" for fault in faults)] if faults else []


def learned_digest(config: StudyConfig) -> str:
    """SHA-256 of the list of photographs that taught a study's weights (``<weights>.learned.csv``); empty where they have none."""
    listed = weights_file(config.segmentation).with_suffix(".learned.csv")
    return file_sha256(listed) if listed.is_file() else ""


def drop_shards(plan: StudyPlan) -> list[str]:
    """Remove what an earlier, larger cohort left of shards that the study no longer has.

    Mask stores are opened by their folder, so a store left there would keep the photographs of withdrawn participants in the study; and
    provenance counts jobs by their logs and benchmarks. Only files and stores that are named like a shard, where this workflow writes
    shards, are touched; a folder that is a link out of the results folder is left as it is, and told.

    Parameters
    ----------
    plan : StudyPlan
        A plan without shards (a frozen study) removes nothing.

    Returns
    -------
    list of str
        What went and what stayed, one line each; none if nothing was left over.
    """
    if not plan.shards:
        return []
    results = Path(plan.results)
    gone: set[str] = set()
    left: set[str] = set()
    for pattern in SHARD_FILES:
        for path in sorted(results.glob(pattern)):
            shard = path.name.removesuffix(path.suffix)
            if shard in plan.shards or not re.fullmatch(r"s[0-9]{4,}", shard):
                continue
            if not path.parent.resolve().is_relative_to(results.resolve()):
                left.add(str(path))
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            gone.add(shard)
    said = []
    if gone:
        names = ", ".join(sorted(gone)[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        said.append(f"{plan.results}: the cohort has no shard {names} any more; what an earlier cohort left of it is removed.")
    if left:
        names = ", ".join(sorted(left))
        said.append(f"{plan.results}: a link leads out of this folder to shards that the cohort no longer has; remove {names}")
    return said


def table_digest(table: pd.DataFrame) -> str:
    """Digest of a table's columns and cells, 16 hexadecimal digits; order of rows counts."""
    state = hashlib.blake2b("\x1f".join(map(str, table.columns)).encode(), digest_size=8)
    state.update(pd.util.hash_pandas_object(table.astype("string").fillna("\x00"), index=False).to_numpy().tobytes())
    return state.hexdigest()


def prepare_environment(plan: StudyPlan) -> None:
    """Set what jobs inherit: the path of the command, the run's id, and settings that decide how but not what is computed.

    The latter (device, batch size, workers) travel in the environment and not in the stages' settings, so that changing them
    recomputes nothing. How many threads a job has is the rule's affair: Snakemake reserves them and sets ``OMP_NUM_THREADS``, which torch
    heeds, so ``--set-threads`` and the cores of the machine have the last word.
    """
    beside = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != beside:
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", "")])
    os.environ.setdefault("RETSAM_RUN_ID", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}")
    os.environ.setdefault("RETSAM_SOURCE", str(Path(__file__).resolve().parent.parent))
    settings = execution_settings(plan.config)
    os.environ["RETSAM_EXECUTION"] = json.dumps({key: value for key, value in settings.items() if key != "segmentation.threads"})
