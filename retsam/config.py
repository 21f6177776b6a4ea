"""The configuration of a study: one typed model for every room, read from YAML.

The model is the only source of the default ``config/config.yaml``, of ``workflow/schemas/config.schema.json`` and of
``config/README.md``; ``python -m retsam.config`` (or ``retsam config write``) writes the three again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retsam.association.config import AssociationConfig
from retsam.biomarkers.config import BiomarkersConfig
from retsam.cohort.config import CohortConfig
from retsam.plan import name_faults
from retsam.quality.config import QualityConfig
from retsam.report.config import ReportConfig
from retsam.segmentation.config import SegmentationConfig

#: Folder of the development photographs where ``$RETSAM_DATA`` is not set, relative to the working directory.
DEFAULT_DATA = "../shared/data"

#: Settings in which ``$VARS`` and ``~`` are expanded. Elsewhere a dollar is a dollar (regular expressions end in one).
PATH_SETTINGS = ("results", "cohort.samplesheet", "cohort.root", "segmentation.weights")


class ConfigError(ValueError):
    """A study's configuration is wrong; the message lists every fault with its key.

    Attributes
    ----------
    source : str
    faults : list of str
    cohort : CohortConfig, optional
        That section, where it is valid by itself: its samplesheet can be looked at all the same.
    """

    def __init__(self, source: str, faults: list[str], cohort: CohortConfig | None = None):
        self.source = source
        self.faults = faults
        self.cohort = cohort
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{source}: {count} in the configuration", *(f"  {fault}" for fault in faults)]))


class StudyConfig(BaseModel):
    """A study: its name, where its results go, and one section a room."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str = Field(
        "demo",
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$",
        description="Name of the study; letters, digits, `_`, `.`, `-`, starting with a letter.",
    )
    results: str = Field("", description="Folder that the study writes to. Left out or empty: `results/<study>`.")
    seed: int = Field(0, ge=0, description="Seed of everything random (cross-validation folds, bootstrap, galleries).")
    frozen: bool = Field(
        False,
        description="Take `cohort.parquet`, `quality.parquet` and `biomarkers.parquet` in the results folder as they are, and compute "
        "associations and report only: neither samplesheet, photographs nor masks are needed.",
    )
    cohort: CohortConfig = Field(description="Photographs, subjects, eyes, labels and covariates.")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Where gradable, usable and reject begin.")
    segmentation: SegmentationConfig = Field(default_factory=SegmentationConfig, description="The network and how it runs.")
    biomarkers: BiomarkersConfig = Field(default_factory=BiomarkersConfig, description="What is measured, and on what.")
    association: AssociationConfig = Field(default_factory=AssociationConfig, description="Outcomes, covariate sets and models.")
    report: ReportConfig = Field(default_factory=ReportConfig, description="What the report shows.")

    @model_validator(mode="before")
    @classmethod
    def _default_results(cls, values):
        if isinstance(values, Mapping) and not values.get("results"):
            values = {**values, "results": f"results/{values.get('study', cls.model_fields['study'].default)}"}
        return values

    @model_validator(mode="after")
    def _outcomes_and_covariates_exist(self) -> StudyConfig:
        """What the association names must be a variable of the cohort or a column that every study has."""
        if faults := name_faults(self.association, self.cohort):
            raise ValueError("\n".join(faults))
        return self

    def digest(self) -> str:
        """SHA-256 of all settings, 64 hexadecimal digits."""
        return digest(self.model_dump(mode="json"))


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice (plain YAML keeps the last one without a word)."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict:
    keys: dict[Any, yaml.Mark] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"a key must be a word or a number, found {key!r}", key_node.start_mark)
        if key in keys:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice, first in line {keys[key].line + 1}", key_node.start_mark
            )
        keys[key] = key_node.start_mark
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda loader, node: _mapping(loader, node, deep=True))


def read_yaml(path: str | Path) -> tuple[dict, dict[tuple, int]]:
    """Read a YAML mapping.

    Returns
    -------
    settings : dict
    lines : dict
        Key path, for example ``("cohort", "columns", "image")``, to line number, from 1.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, is no mapping, or has a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
    try:
        settings = yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of SafeLoader)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(str(path), [f"not valid YAML: {where}{getattr(error, 'problem', None) or error}"]) from error
    if settings is None:
        return {}, {}
    if not isinstance(settings, dict):
        raise ConfigError(str(path), [f"expected keys and values at the top, found {type(settings).__name__}"])
    lines: dict[tuple, int] = {}
    _note_lines(tree, (), lines)
    return settings, lines


def _note_lines(node: yaml.Node, where: tuple, lines: dict[tuple, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*where, key.value)
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*where, i)] = value.start_mark.line + 1
            _note_lines(value, (*where, i), lines)


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read and validate a study's configuration.

    Parameters
    ----------
    path : str or Path
        A YAML file; what it leaves out has the default of the model.
    overrides : mapping, optional
        Dotted key to value, for example ``{"segmentation.device": "cpu"}``, put over the file's.

    Returns
    -------
    StudyConfig
        With ``$VARS`` in paths expanded; ``$RETSAM_DATA`` is ``../shared/data`` where the variable is unset.

    Raises
    ------
    ConfigError
        Lists all faults at once: key path (and line), expected, found, nearest known key.
    """
    settings, lines = read_yaml(path)
    for key, value in {**execution_overrides(), **(overrides or {})}.items():
        section = settings
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(str(path), [f"override {key}: {parent} is not a section"])
        section[last] = value
    return parse_config(settings, source=str(path), lines=lines)


def execution_overrides() -> dict[str, Any]:
    """Settings that decide how a stage runs (device, batch size, workers), from ``$RETSAM_EXECUTION``, a JSON object of dotted keys.

    The workflow sets the variable for its jobs (see `retsam.stages.EXECUTION`); it may not hold anything else.
    """
    text = os.environ.get("RETSAM_EXECUTION")
    if not text:
        return {}
    from retsam.stages import EXECUTION

    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError("$RETSAM_EXECUTION", [f"expected a JSON object, found {_short(text)}: {error}"]) from error
    unknown = sorted(set(settings) - set(EXECUTION))
    if unknown:
        raise ConfigError("$RETSAM_EXECUTION", [f"{key}: expected one of {', '.join(EXECUTION)}" for key in unknown])
    return settings


def parse_config(settings: Mapping[str, Any], source: str = "configuration", lines: Mapping[tuple, int] | None = None) -> StudyConfig:
    """Validate settings that are already in memory (Snakemake's ``config``); see `load_config`."""
    settings, faults = _expand_paths(dict(settings))
    cohort = None
    try:
        config = StudyConfig.model_validate(settings)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            # What sections ask of each other is told of the whole: its faults, one a line, name their keys themselves.
            whole = item["type"] == "value_error" and not item["loc"]
            faults += str(item["ctx"]["error"]).splitlines() if whole else [_fault(item, lines or {})]
        cohort, association = _valid_section(settings, "cohort"), _valid_section(settings, "association")
        if cohort is not None and association is not None:
            # Pydantic compares sections only where all are valid; a slip in another shall not hide these.
            faults = list(dict.fromkeys([*faults, *name_faults(association, cohort)]))
    if faults:
        raise ConfigError(source, faults, cohort)
    return config


def _valid_section(settings: Mapping[str, Any], name: str) -> Any:
    """A section by itself where it is valid, whatever the others are; else None."""
    try:
        return StudyConfig.model_fields[name].annotation.model_validate(settings.get(name, {}))
    except ValidationError:
        return None


def expand_path(text: str) -> str:
    """Expand ``~``, ``$NAME`` and ``${NAME}``; raises `ValueError` for a variable that is not set."""

    def value(match: re.Match) -> str:
        name = match.group(1) or match.group(2)
        found = os.environ.get(name) or (DEFAULT_DATA if name == "RETSAM_DATA" else None)
        if found is None:
            raise ValueError(f"environment variable {name} is not set")
        return found

    return os.path.expanduser(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text))


def _expand_paths(settings: dict) -> tuple[dict, list[str]]:
    faults = []
    for key in PATH_SETTINGS:
        *parents, last = key.split(".")
        section = settings
        for parent in parents:
            inner = section.get(parent)
            if not isinstance(inner, Mapping):
                break
            section[parent] = inner = dict(inner)
            section = inner
        else:
            if isinstance(section.get(last), str):
                try:
                    section[last] = expand_path(section[last])
                except ValueError as error:
                    faults.append(f"{key}: {error}, found {section[last]!r}; set it, or write the path itself")
    return settings, faults


# ---- faults ----------------------------------------------------------------------------------------------------------


def _fault(error: Mapping[str, Any], lines: Mapping[tuple, int]) -> str:
    """One line for one of pydantic's errors: where, what was expected, what was found, and what may have been meant."""
    where = tuple(part for part in error["loc"] if not _is_union_arm(part))
    line = lines.get(where) or lines.get(tuple(str(p) if not isinstance(p, int) else p for p in where))
    prefix = (f"line {line}: " if line else "") + (_dotted(where) or "(top)")
    kind, found = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        hint = f"nearest: {near[0]}" if near else f"expected one of {', '.join(known)}"
        return f"{prefix}: unknown key; {hint}"
    if kind == "missing":
        return f"{prefix}: missing, and it has no default"
    message = error["msg"]
    if kind == "value_error":
        return f"{prefix}: {message.removeprefix('Value error, ')}"
    expected = message[0].lower() + message[1:]
    hint = ""
    if kind == "literal_error" and isinstance(found, str):
        choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        near = difflib.get_close_matches(found, choices, n=1, cutoff=0.5)
        hint = f"; nearest: {near[0]}" if near else ""
    return f"{prefix}: {expected}, found {_short(found)}{hint}"


def _is_union_arm(part: Any) -> bool:
    """Whether pydantic put this into the path to tell members of a union apart (it is then no key of the file)."""
    return isinstance(part, str) and (part in {"str", "int", "float", "bool", "none"} or "[" in part or part.startswith("function-"))


def _dotted(where: Iterable[Any]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _known_keys(where: tuple) -> list[str]:
    """Keys that the model knows at a key path."""
    models: list[type[BaseModel]] = [StudyConfig]
    skip_key = False
    for part in where:
        if skip_key:  # a free key (name of a label) or an index: the models below it stay the candidates
            skip_key = False
            continue
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = [m for annotation in annotations for m in models_in(annotation)]
        skip_key = any(_is_container(annotation) for annotation in annotations)
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _is_container(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (dict, list, tuple, Mapping):
        return True
    return origin is not None and any(_is_container(a) for a in get_args(annotation)) and _is_union(origin)


def _is_union(origin: Any) -> bool:
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Models that an annotation such as ``dict[str, Variable] | None`` mentions, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [m for inner in get_args(annotation) for m in models_in(inner)]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    from retsam.config_pages import main

    main()
