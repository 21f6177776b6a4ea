"""What the analysis plan asks of tables that are still to come, told before any photograph is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retsam.association.config import AssociationConfig
from retsam.association.faults import JOINED, cell_faults, column_faults
from retsam.cohort.config import RESERVED_COLUMNS, CohortConfig

if TYPE_CHECKING:
    import pandas as pd

    from retsam.config import StudyConfig


def name_faults(plan: AssociationConfig, cohort: CohortConfig) -> list[str]:
    """Names in the association section that are no column of the cohort table, each with the nearest that exists.

    Those of the quality table are known where that is retsam's own, which a configuration alone does not say (`plan_faults` does).
    """
    # A study's own variables first: they are the likelier meant.
    faults = column_faults(plan, [*cohort.variables(), *RESERVED_COLUMNS], lambda name: name.startswith(JOINED))
    return [f"association.{fault}" for fault in faults]


def plan_faults(config: StudyConfig, cohort: pd.DataFrame | None = None) -> list[str]:
    """What the analysis plan asks of the samplesheet's cells, of files and of tables to come, and cannot have.

    Parameters
    ----------
    config : StudyConfig
    cohort : DataFrame, optional
        Photographs, with labels and covariates; where they are not known, only names and files are looked at.

    Returns
    -------
    list of str
    """
    import pandas as pd

    plan = config.association
    if cohort is None:
        cohort = pd.DataFrame({c: pd.Series(dtype="object") for c in (*RESERVED_COLUMNS, *config.cohort.variables())})
    later = later_columns()
    columns = list(dict.fromkeys([*cohort.columns, *RESERVED_COLUMNS, *later]))
    # Of later tables only the kind of a column is known; it matters where numbers are cut.
    cut = later[[column for column in plan.subgroups if column in later]]
    frame = cohort.reset_index(drop=True).join(cut.reindex(range(len(cohort))))
    faults = [*column_faults(plan, columns), *cell_faults(plan, frame), *_biomarker_faults(config), *_learned_faults(config, cohort)]
    return [f"association.{fault}" for fault in dict.fromkeys(faults)]


def later_columns() -> pd.DataFrame:
    """What associations join to the cohort, without rows: columns of the quality table and states of the biomarker table."""
    import pandas as pd

    from retsam.quality.grading import GRADE_COLUMNS
    from retsam.quality.table import as_table

    kinds = {c: "float64" if c.startswith("p") else "string" for c in GRADE_COLUMNS}
    graded = as_table([]).drop(columns="image_id").assign(**{c: pd.Series(dtype=kind) for c, kind in kinds.items()})
    state = pd.DataFrame({c: pd.Series(dtype="string") for c in ("status", "reason", "detail")})
    return graded.add_prefix("quality_").join(state.add_prefix("measured_"))


def _biomarker_faults(config: StudyConfig) -> list[str]:
    """Families and biomarkers that this study does not measure, and patterns that match none."""
    from retsam.association.design import idle_patterns, select_biomarkers
    from retsam.biomarkers.registry import FAMILIES, registry

    plan, settings = config.association, config.biomarkers
    measured = registry(tuple(family for family in FAMILIES if family in settings.families), settings.extra_tortuosity)
    _, faults = select_biomarkers(list(measured), {name: b.family for name, b in measured.items()}, plan.exposures)
    return [*faults, *idle_patterns(plan, registry(extra=True))]


def _learned_faults(config: StudyConfig, cohort: pd.DataFrame) -> list[str]:
    """What is wrong with the files that say whose labels taught the heads."""
    from retsam.association.circularity import training_subjects
    from retsam.association.faults import PlanError

    named, faults = config.association.circularity, []
    for key in ("table", "model_card"):
        try:
            # One at a time, so that the faults of both are told.
            training_subjects(named.model_copy(update={"table": None, "model_card": None, key: getattr(named, key)}), cohort)
        except PlanError as error:
            faults += error.faults
        except ValueError as error:
            faults.append(f"circularity.{key} {getattr(named, key)}: cannot be read: {error}")
    return faults
