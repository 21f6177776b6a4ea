"""Settings of the association room: the analysis plan."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_Cell = str | int | float | bool

Transform = Literal["none", "log1p", "log_relative", "rank_inverse_normal"]
Multiplicity = Literal["bonferroni", "holm", "bh", "by", "meff"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(_Section):
    """One outcome: a column of the cohort table, and what kind of variable it is."""

    name: str = Field(..., min_length=1, description="Name of the outcome in every table.")
    column: str | None = Field(
        None, description="Column of the cohort table; the outcome's own name if left out. For `time`: the follow-up time."
    )
    type: Literal["binary", "ordered", "continuous", "count", "time"] = Field(
        "binary",
        description="`binary` (logistic model), `ordered` (proportional odds), `continuous` (linear), `count` (Poisson with robust "
        "errors) or "
        "`time` (Cox model; needs `event`).",
    )
    positive: tuple[_Cell, ...] | None = Field(
        None, description="For `binary`: values that are cases. Without it the column must hold 0/1 or yes/no."
    )
    negative: tuple[_Cell, ...] | None = Field(
        None,
        description="For `binary` with `positive`: values that are controls; others are left out. Without it, every other value is a "
        "control.",
    )
    levels: tuple[_Cell, ...] | None = Field(
        None, description="For `ordered`: the values from lowest to highest; without it, numbers in their order."
    )
    event: str | None = Field(
        None, description="For `time`: column that is 1 where the event happened and 0 where follow-up ended without it."
    )
    entry: str | None = Field(None, description="For `time`: column with the time of entry (left truncation).")

    @model_validator(mode="after")
    def _consistent(self) -> Outcome:
        if self.type == "time" and not self.event:
            raise ValueError(f"outcome {self.name!r}: type `time` needs `event`, the column that says whether the event happened")
        if self.type != "time" and (self.event or self.entry):
            raise ValueError(f"outcome {self.name!r}: `event` and `entry` belong to type `time`, found type `{self.type}`")
        if self.type != "binary" and (self.positive is not None or self.negative is not None):
            raise ValueError(f"outcome {self.name!r}: `positive` and `negative` belong to type `binary`, found type `{self.type}`")
        if self.negative is not None and self.positive is None:
            raise ValueError(f"outcome {self.name!r}: `negative` without `positive`: say which values are cases")
        both = {str(v) for v in self.positive or ()} & {str(v) for v in self.negative or ()}
        if both:
            raise ValueError(f"outcome {self.name!r}: values in both `positive` and `negative`: {', '.join(sorted(both))}")
        if self.levels is not None and self.type != "ordered":
            raise ValueError(f"outcome {self.name!r}: `levels` belongs to type `ordered`, found type `{self.type}`")
        if self.positive is not None and not self.positive:
            raise ValueError(f"outcome {self.name!r}: `positive` is empty, so nobody would be a case; list values, or leave it out")
        if self.negative is not None and not self.negative:
            raise ValueError(f"outcome {self.name!r}: `negative` is empty, so nobody would be a control; list values, or leave it out")
        if self.levels is not None and len({str(v) for v in self.levels}) < max(2, len(self.levels)):
            raise ValueError(f"outcome {self.name!r}: `levels` needs two values or more, each once, found {list(self.levels)}")
        return self

    @property
    def source(self) -> str:
        """Column of the cohort table."""
        return self.column or self.name


class Exposures(_Section):
    """Which biomarkers are tested, and on which scale."""

    families: tuple[str, ...] | None = Field(None, description="Families of biomarkers; all if this and `columns` are left out.")
    columns: tuple[str, ...] | None = Field(
        None, description="Single biomarkers: besides those of `families`, or alone where `families` is left out or empty."
    )
    exclude: tuple[str, ...] = Field((), description="Biomarkers, or shell patterns such as `*_count`, that are left out.")
    standardise: bool = Field(True, description="Divide by the standard deviation within the analysed sample: estimates are per SD.")
    transform: Transform = Field(
        "none",
        description="Transform of every biomarker before standardising, unless `transforms` or `transform_by_kind` says otherwise: "
        "`log1p` is log(1 + x), `log_relative` is log(1 + x/m) with m the median of the values above zero.",
    )
    transforms: dict[str, Transform] = Field(
        default_factory=dict, description="Transform by biomarker name or shell pattern; the first that matches is taken."
    )
    transform_by_kind: bool = Field(
        True,
        description="Where `transforms` is silent and `transform` is `none`: `log1p` of counts, `log_relative` of areas and coverages of "
        "lesions and phenotypes and of squared curvature. The kind is what the dictionary says of family and unit.",
    )
    winsorise: float = Field(
        0.0, ge=0, lt=0.5, description="Share at either end that is pulled in to the quantile there, before the transform; 0 is off."
    )
    presence: bool = Field(
        False, description="Add `<biomarker>__present` (above zero or not) for biomarkers that are zero in more than half of the eyes."
    )


class Unit(_Section):
    """What one row of the analysis is."""

    level: Literal["eye", "subject_mean", "subject_worse", "subject_right", "subject_left"] = Field(
        "eye",
        description="`eye`: every eye, clustered in the subject. `subject_mean`: biomarkers averaged over both eyes, outcome of the "
        "worse eye. "
        "`subject_worse`: the eye with the higher outcome (the first where equal). `subject_right`, `subject_left`: that eye.",
    )
    cluster: str = Field(
        "subject",
        description="Column that says which rows are not independent. Those of one subject never are, whatever another column says: "
        "clusters that share a subject are one.",
    )
    visits: Literal["first", "last", "all"] = Field(
        "first",
        description="Which photograph of an eye counts where there are several: by visit (numbers, ISO dates or names that "
        "end in a number), then by quality, then by image id. `all` keeps all, in the cluster.",
    )


class Models(_Section):
    """How models are estimated."""

    correlation: Literal["exchangeable", "independence"] = Field(
        "independence",
        description="Working correlation between rows of one cluster; errors are cluster-robust under either. `exchangeable` varies less, "
        "but estimates what is asked only where the fellow eye's biomarker tells nothing of this eye's outcome: of a disease of both eyes "
        "it comes out too weak, and gives way to independence (rows say `correlation_matters`). Since these data decide which of the two "
        "is given, its standard error is never less than that of independence.",
    )
    small_sample: Literal["none", "df", "kauermann_carroll", "mancl_derouen"] = Field(
        "kauermann_carroll",
        description="Correction of the sandwich variance for few clusters: none, K/(K-p), Kauermann-Carroll or Mancl-DeRouen (for ordered "
        "outcomes their counterpart by Fay and Graubard; for time to event K/(K-p)). All but `none` use the t distribution.",
    )
    degrees_of_freedom: Literal["pan_wall", "clusters"] = Field(
        "pan_wall",
        description="Degrees of freedom of t: `pan_wall` from the scatter of the clusters' parts in the variance (Pan and Wall), at most "
        "K-p: a variance that rests on twenty cases is no steadier than twenty clusters. `clusters`: K-p. Joint tests of several "
        "coefficients and penalised models always use K-p.",
    )
    level: float = Field(0.95, gt=0.5, lt=1, description="Coverage of confidence intervals.")
    mixed: bool = Field(
        False, description="Also fit mixed models with a random intercept per cluster (rows `mixed_model` of the sensitivity table)."
    )
    firth: bool = Field(True, description="Firth's penalised likelihood where maximum likelihood is separated; off: null with `separated`.")
    min_cases: int = Field(
        10, ge=1, description="Fewest cases, and fewest controls, for a binary, ordered (commonest level against the rest) or time outcome."
    )
    min_cell: int = Field(
        5, ge=1, description="Fewest rows whose biomarker differs from its commonest value, and fewest events in a subgroup's level."
    )
    min_rows: int = Field(30, ge=3, description="Fewest rows of any model.")
    min_clusters: int = Field(15, ge=3, description="Fewest clusters of any model.")


class Multiple(_Section):
    """Families of tests and their correction."""

    method: Multiplicity = Field("bh", description="Method behind the column `q`; the others stand beside it.")
    family: Literal["outcome", "overall"] = Field(
        "outcome", description="A family of tests: every biomarker of one outcome, covariate set and subgroup; or of all outcomes together."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Error rate that thresholds refer to.")


class Robustness(_Section):
    """Which further analyses are run. Each fills its own table."""

    covariate_set: str | None = Field(None, description="Covariate set of these analyses; the last one of the plan if left out.")
    top: int = Field(
        20,
        ge=0,
        description="Biomarkers an outcome that get the costly analyses: those with the smallest p in the primary model. 0 means all.",
    )
    interactions: bool = Field(True, description="Interaction tests for the subgroups.")
    shape: bool = Field(True, description="Quintiles and restricted cubic splines.")
    knots: int = Field(4, ge=3, le=7, description="Knots of the restricted cubic spline (at Harrell's quantiles).")
    gradable_only: bool = Field(True, description="Repeat without photographs graded usable.")
    leave_one_out: tuple[str, ...] = Field(
        (), description="Columns whose levels are left out one by one, for example `site`. At most 50 levels a column: group more of them."
    )
    other_correlation: bool = Field(True, description="Repeat with the other working correlation (`exchangeable` or `independence`).")
    one_eye: bool = Field(True, description="Repeat with one eye a subject (one row a cluster), drawn at random.")
    winsorise: float = Field(0.01, ge=0, lt=0.5, description="Repeat with this share winsorised; 0 is off.")
    rank: bool = Field(True, description="Repeat with rank-inverse-normal biomarkers.")
    imputations: int = Field(0, ge=0, description="Imputed data sets (chained equations) pooled by Rubin's rules; 0 is off.")
    replication: str | None = Field(
        "subject", description="Discovery and replication split: `subject` (at random) or a column such as `site`; null is off."
    )
    discovery_share: float = Field(0.5, gt=0, lt=1, description="Share of subjects (or levels) in the discovery part.")
    discrimination: bool = Field(True, description="Cross-validated AUC and calibration.")
    folds: int = Field(5, ge=2, le=20, description="Folds of the cross-validation, grouped by cluster.")
    measurement_error: bool = Field(True, description="Estimates corrected for the biomarker's reliability.")
    reliability: dict[str, float] = Field(
        default_factory=dict,
        description="Known reliability (0-1) by biomarker name or shell pattern, of the value that is analysed: with `subject_mean` that "
        "of the mean of a subject's eyes.",
    )
    eyes_as_replicates: bool = Field(
        False,
        description="Take the agreement of right and left eye as the reliability where no repeat photographs and no `reliability` "
        "exist. It is a lower bound: "
        "true differences between the eyes count as error.",
    )
    camera: bool = Field(True, description="Check whether image size, source or quality alone predict an outcome.")
    camera_columns: tuple[str, ...] = Field(
        (), description="Further columns that say where a photograph comes from, for example `device`, `site`. At most 100 words a column."
    )
    camera_warning: float = Field(
        0.65, gt=0.5, le=1, description="AUC of camera variables alone from which a warning is printed (lower end of its interval)."
    )


class Circularity(_Section):
    """Which subjects taught the segmentation heads."""

    table: str | None = Field(
        None, description="Table (.csv or .parquet) with columns `head` and `image_id` or `subject`: whose labels each head learned from."
    )
    model_card: str | None = Field(None, description="Model card (.json) whose `training` part names subjects or data sets per head.")
    use: Literal["hold_out", "mark", "exclude"] = Field(
        "hold_out",
        description="`hold_out`: leave those subjects out of the estimates of biomarkers that need the head, and of no others. `mark`: "
        "flag the estimates and repeat them on other subjects (sensitivity table). `exclude`: leave those subjects out of everything. "
        "The list of photographs beside the study's weights (`<weights>.learned.csv`) is always heeded.",
    )


def _or_names(schema: dict) -> None:
    """Let the JSON schema of a list of sections take plain names too, as the model does."""
    schema["items"] = {"anyOf": [schema["items"], {"type": "string"}]}


def _or_list(schema: dict) -> None:
    """Let the JSON schema of a mapping take a plain list of its keys too, as the model does."""
    mapping = {key: schema.pop(key) for key in ("type", "additionalProperties") if key in schema}
    schema["anyOf"] = [mapping, {"type": "array", "items": {"type": "string"}}]


class AssociationConfig(_Section):
    """The analysis plan: outcomes, exposures, covariate sets, clusters, subgroups, exclusions, families of tests."""

    outcomes: tuple[Outcome, ...] = Field(
        (), description="Outcomes. A plain name is a binary column of that name.", json_schema_extra=_or_names
    )
    exposures: Exposures = Field(default_factory=Exposures, description="Biomarkers and their scale.")
    covariate_sets: dict[str, tuple[str, ...]] = Field(
        default_factory=lambda: {"crude": ()},
        description="Covariates by name of the set: columns of the cohort table, of the quality table as `quality_<column>`, `eye`, "
        "or formula terms such as `bs(age, df=4)`. Each level of a column of words is a covariate: at most 100 of them; a column with more "
        "is for `unit.cluster`, or to be grouped.",
    )
    unit: Unit = Field(default_factory=Unit, description="What a row is, and what clusters it.")
    models: Models = Field(default_factory=Models, description="Estimation.")
    multiple: Multiple = Field(default_factory=Multiple, description="Multiplicity.")
    subgroups: dict[str, tuple[float, ...] | None] = Field(
        default_factory=dict,
        description="Columns that split the sample, each with cut points for numbers (`age: [60]`) or null for categories (`sex: null`); "
        "a plain list of columns for categories alone. Numbers with more than 12 values need cut points; a category has at most 50 levels.",
        json_schema_extra=_or_list,
    )
    exclude: dict[str, tuple[_Cell, ...]] = Field(
        default_factory=dict, description="Rows to leave out: column -> values. Counted in the flow table."
    )
    grades: tuple[Literal["gradable", "usable", "reject"], ...] = Field(
        ("gradable", "usable"), min_length=1, description="Quality grades that are analysed."
    )
    robustness: Robustness = Field(default_factory=Robustness, description="Further analyses.")
    circularity: Circularity = Field(default_factory=Circularity, description="Labels that segmentation has already seen.")
    workers: int = Field(
        0, ge=0, description="Threads; 0 means one a CPU core, in the workflow two. The answer is the same for any number."
    )

    @field_validator("outcomes", mode="before")
    @classmethod
    def _plain_names(cls, outcomes):
        """Accept ``[dr, amd]`` for binary columns of these names."""
        if isinstance(outcomes, (list, tuple)):
            return tuple({"name": o} if isinstance(o, str) else o for o in outcomes)
        return outcomes

    @field_validator("subgroups", mode="before")
    @classmethod
    def _list_of_columns(cls, subgroups):
        """Accept ``[sex, site]`` for categories."""
        if isinstance(subgroups, (list, tuple)):
            return dict.fromkeys(subgroups)
        return subgroups

    @model_validator(mode="after")
    def _consistent(self) -> AssociationConfig:
        faults = []
        names = [o.name for o in self.outcomes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            faults.append(f"outcomes named twice: {', '.join(twice)}")
        if not self.covariate_sets:
            faults.append("`covariate_sets` is empty: give at least `crude: []`")
        chosen = self.robustness.covariate_set
        if chosen is not None and chosen not in self.covariate_sets:
            faults.append(f"robustness.covariate_set is {chosen!r}, expected one of {', '.join(self.covariate_sets)}")
        for column, cuts in self.subgroups.items():
            if cuts is not None and (not cuts or list(cuts) != sorted(set(cuts))):
                faults.append(
                    f"subgroups.{column}: expected cut points from low to high, each once, or null for categories, found {list(cuts)}"
                )
        empty = sorted(k for k, v in self.exclude.items() if not v)
        if empty:
            faults.append(f"exclude lists no value of {', '.join(empty)}: list values, or leave the column out")
        bad = sorted(k for k, v in self.robustness.reliability.items() if not 0 < v <= 1)
        if bad:
            faults.append(f"robustness.reliability must be above 0 and at most 1: {', '.join(bad)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def primary_set(self) -> str:
        """Covariate set of the further analyses."""
        return self.robustness.covariate_set or list(self.covariate_sets)[-1]
