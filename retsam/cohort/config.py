"""Settings of the cohort room: where the photographs are, and what is known of them."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from retsam.eyes import UM_PER_PX, UM_PER_PX_WORDS

#: Columns that every cohort table has; labels and covariates may not take their names.
RESERVED_COLUMNS = ("image_id", "path", "subject", "eye", "visit", "um_per_px", "shard", "status", "reason", "detail")

#: Ranges that hold wherever nothing else is said, by name of the variable.
DEFAULT_RANGES: dict[str, tuple[float, float]] = {"age": (0.0, 120.0)}

_Cell = str | int | float | bool


class Columns(BaseModel):
    """Names that the samplesheet uses for what every cohort needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: str = Field("image", description="Column with the path of the photograph, relative to `root` or absolute.")
    image_id: str | None = Field(
        None, description="Column with a unique id of the photograph. Without it, ids are made from the paths relative to `root`."
    )
    subject: str | None = Field(
        None, description="Column that says whose eye it is. Without it, every photograph counts as its own subject."
    )
    eye: str | None = Field(None, description="Column with the eye: R, L, OD, OS, right or left. Empty cells are unknown.")
    visit: str | None = Field(None, description="Column with the visit (date or number), kept as text.")
    um_per_px: float | str | None = Field(
        None,
        description="Column with the size of a pixel on the retina in micrometres, or one number for all photographs (0.2 to 300).",
    )

    @field_validator("um_per_px", mode="before")
    @classmethod
    def _possible_spacing(cls, spacing):
        """One number for all must be as possible as a cell of the column."""
        low, high = UM_PER_PX
        if isinstance(spacing, bool) or (isinstance(spacing, (int, float)) and not low <= spacing <= high):
            raise ValueError(f"expected the name of a column or {UM_PER_PX_WORDS}, found {spacing!r}; leave it out if not known")
        return spacing


class Variable(BaseModel):
    """A label or covariate: a column of the samplesheet, checked and typed, or a yes/no made from one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    column: str | None = Field(None, description="Column of the samplesheet; the variable's own name if left out.")
    type: Literal["continuous", "categorical", "ordinal", "binary"] | None = Field(
        None,
        description="`continuous` (a number), `categorical` (words), `ordinal` (ordered numbers or `levels`) or `binary` (0/1, yes/no, "
        "true/false, or made by `positive` and `negative`). Left out: `binary` where `positive` is given, `ordinal` where `levels` "
        "is given, `continuous` where `range` is given or every cell is a number, else `categorical`.",
    )
    range: tuple[float, float] | None = Field(
        None, description="Lowest and highest value that can be true; others are faults. `age` has 0 to 120 unless told otherwise."
    )
    levels: tuple[_Cell, ...] | None = Field(
        None, description="Allowed values, in order for `ordinal` (coded 0, 1, 2, ...); the first is the reference of a `categorical`."
    )
    positive: tuple[_Cell, ...] | None = Field(None, description="Values that mean yes.")
    negative: tuple[_Cell, ...] | None = Field(
        None,
        description="Values that mean no; what is in neither list is missing. Without it and without `negative_pattern`, every other "
        "value that is not empty means no.",
    )
    positive_pattern: str | None = Field(
        None, description="Regular expression (searched, letter case ignored) that means yes, besides `positive`."
    )
    negative_pattern: str | None = Field(None, description="Regular expression that means no, besides `negative`. Yes goes before no.")
    separator: str | None = Field(
        None, description="Character between several values of one cell, for example `;`: yes if any of them means yes."
    )

    @property
    def derived(self) -> bool:
        """Whether the variable is a yes/no made from values or patterns."""
        return self.positive is not None or self.positive_pattern is not None

    @field_validator("positive", "negative", "levels", "positive_pattern", "negative_pattern", "separator")
    @classmethod
    def _says_something(cls, value):
        """An empty pattern is found in every cell, an empty list in none: either makes one and the same of everybody."""
        if value is not None and not value:
            raise ValueError(f"empty ({value!r}): write what it means, or leave it out")
        return value

    @field_validator("positive_pattern", "negative_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r} ({error})") from error
        return pattern

    @field_validator("positive_pattern")
    @classmethod
    def _tells_cells_apart(cls, pattern: str | None) -> str | None:
        if pattern and re.search(pattern, "", re.IGNORECASE):
            raise ValueError(f"{pattern!r} is found in any text, an empty one too, so every cell would mean yes")
        return pattern

    @model_validator(mode="after")
    def _consistent(self) -> Variable:
        if self.derived and self.type not in (None, "binary"):
            raise ValueError(f"`positive` makes a yes/no, so `type` must be binary or left out, found {self.type}")
        if not self.derived and (self.negative is not None or self.negative_pattern is not None):
            raise ValueError("`negative` without `positive` or `positive_pattern`: say what means yes")
        both = {str(v) for v in self.positive or ()} & {str(v) for v in self.negative or ()}
        if both:
            raise ValueError(f"values in both `positive` and `negative`: {', '.join(sorted(both))}")
        if self.levels is not None and len({str(v) for v in self.levels}) < len(self.levels):
            raise ValueError(f"`levels` has a value twice: {list(self.levels)}")
        if self.separator is not None and not self.derived:
            raise ValueError("`separator` without `positive` or `positive_pattern`: say which of the values means yes")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"`range` must go from low to high, found {list(self.range)}")
        if self.range is not None and self.type in ("categorical", "binary"):
            raise ValueError(f"`range` is for continuous and ordinal variables, not {self.type}")
        return self


class Unique(BaseModel):
    """One row of several that show the same photograph at different sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    by: str = Field(..., description="Column that is the same in rows of the same photograph. Rows with an empty cell are all kept.")
    keep_largest: str = Field(
        ..., description="Column of numbers; of rows that share `by`, the one with the largest is kept, the first of them where equal."
    )


class CohortConfig(BaseModel):
    """Photographs, subjects, eyes, labels and covariates of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    samplesheet: str = Field(
        ...,
        description="Table of the photographs (.csv, .tsv or .parquet; the first row names the columns), or a folder of photographs.",
    )
    root: str | None = Field(None, description="Folder that relative image paths start from; the samplesheet's own folder if left out.")
    columns: Columns = Field(default_factory=Columns, description="Column names of the samplesheet.")
    filter: dict[str, tuple[_Cell, ...]] = Field(
        default_factory=dict, description="Rows to keep: column -> accepted values. A row must pass all of them."
    )
    unique: Unique | None = Field(
        None, description="Keep one row of each photograph that the samplesheet lists at several sizes; applied after `filter`."
    )
    labels: dict[str, Variable] = Field(
        default_factory=dict, description="What is known of an eye and may be an outcome: name -> column, type, values."
    )
    covariates: dict[str, Variable] = Field(
        default_factory=dict, description="What associations are adjusted for: name -> column, type, range."
    )
    missing_values: tuple[str, ...] = Field(
        ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>", "#N/A"), description="Cells that mean: not known."
    )
    shard_size: int = Field(
        250, ge=1, description="Photographs a shard: one job and one mask store each. Rows are taken in the order of the samplesheet."
    )
    max_pixels: int = Field(
        80_000_000,
        ge=4096,
        le=178_956_970,
        description="Photographs with more pixels (width x height) are refused before they are decoded (`too_large`).",
    )

    @field_validator("labels", "covariates", mode="before")
    @classmethod
    def _short_forms(cls, variables):
        """Accept ``[age, sex]`` and ``age:`` for variables that need no more than their name, ``age: column`` for a renamed one."""
        if isinstance(variables, (list, tuple)):
            variables = {name: None for name in variables}
        if isinstance(variables, dict):
            return {k: {} if v is None else {"column": v} if isinstance(v, str) else v for k, v in variables.items()}
        return variables

    @field_validator("filter", mode="before")
    @classmethod
    def _single_value(cls, filters):
        """Accept ``dataset: odir`` for ``dataset: [odir]``."""
        if isinstance(filters, dict):
            return {k: v if isinstance(v, (list, tuple)) else (v,) for k, v in filters.items()}
        return filters

    @model_validator(mode="after")
    def _names(self) -> CohortConfig:
        taken = sorted((set(self.labels) | set(self.covariates)) & set(RESERVED_COLUMNS))
        if taken:
            raise ValueError(
                f"names of labels or covariates that the cohort table needs itself: {', '.join(taken)}; choose others and set `column`"
            )
        twice = sorted(set(self.labels) & set(self.covariates))
        if twice:
            raise ValueError(f"both label and covariate: {', '.join(twice)}; name them once (a label may be adjusted for too)")
        return self

    def variables(self) -> dict[str, Variable]:
        """Labels, then covariates, by the name that they have in the cohort table."""
        return {**self.labels, **self.covariates}
