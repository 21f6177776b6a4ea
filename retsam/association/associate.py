"""Associations of biomarkers with outcomes: the analysis plan carried out on the tables of the rooms before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig
from retsam.association.design import select_biomarkers
from retsam.association.grid import Exposure, make_exposures, run_grid
from retsam.association.multiplicity import LABELS, adjust, effective_tests, spearman_matrix
from retsam.association.problems import Problems
from retsam.association.sample import PlanError, Sample, biomarker_columns, build_sample
from retsam.association.tables import Analysis, plan_record, shaped


def dictionary_of_biomarkers() -> dict[str, tuple[str, str]]:
    """Family and unit of every biomarker that retsam measures."""
    from retsam.biomarkers.registry import registry

    return {name: (b.family, b.unit) for name, b in registry().items()}


def correct(table: pd.DataFrame, config: AssociationConfig, correlation: pd.DataFrame) -> pd.DataFrame:
    """Add the corrected p values and the family that each belongs to.

    Parameters
    ----------
    table : DataFrame
        From :func:`retsam.association.grid.run_grid`.
    config : AssociationConfig
    correlation : DataFrame [B, B]
        Spearman correlations between biomarkers, for the effective number of tests.

    Returns
    -------
    DataFrame
    """
    table = table.copy()
    new = ("q", "p_bonferroni", "p_holm", "q_bh", "q_by", "p_meff", "q_overall")
    for column in new:
        table[column] = np.nan
    table["family"], table["n_tests"] = "", 0
    method = config.multiple.method
    by_outcome = ["outcome", "covariate_set", "subgroup"]
    together = ["covariate_set", "subgroup"]
    families = by_outcome if config.multiple.family == "outcome" else together

    def adjusted(rows: pd.DataFrame, how: str) -> np.ndarray:
        p = rows["p"].to_numpy(dtype=float)
        m_eff = None
        if how == "meff":
            names = rows.loc[np.isfinite(p), "biomarker"].unique()
            # tests of different outcomes count as independent of each other
            m_eff = (
                effective_tests(correlation.reindex(index=names, columns=names).to_numpy().copy())
                * rows.loc[np.isfinite(p), "outcome"].nunique()
            )
        return adjust(p, how, m_eff)

    for key, rows in table.groupby(families, sort=False):
        tested = int(np.isfinite(rows["p"].to_numpy(dtype=float)).sum())
        name = dict(zip(families, key, strict=True))
        table.loc[rows.index, "n_tests"] = tested
        table.loc[rows.index, "family"] = (
            f"{name.get('outcome', 'all outcomes')} | {name['covariate_set']} | {name['subgroup']}: {tested} tests, {LABELS[method]}"
        )
        columns = {"p_bonferroni": "bonferroni", "p_holm": "holm", "q_bh": "bh", "q_by": "by", "p_meff": "meff"}
        for column, how in columns.items():
            table.loc[rows.index, column] = adjusted(rows, how)
        table.loc[rows.index, "q"] = table.loc[rows.index, next(c for c, how in columns.items() if how == method)]
    for _, rows in table.groupby(together, sort=False):
        table.loc[rows.index, "q_overall"] = adjusted(rows, method)
    return table


def finish(table: pd.DataFrame, circular: set[str]) -> pd.DataFrame:
    """Add ratios and the mark of circularity, and drop notes on covariates that a subgroup fixes by definition."""
    table = table.copy()
    ratio = table["outcome_type"].ne("continuous")
    for column, source in (("ratio", "estimate"), ("ratio_low", "ci_low"), ("ratio_high", "ci_high")):
        with np.errstate(over="ignore"):
            table[column] = np.where(ratio, np.exp(table[source].astype(float)), np.nan)
    base = table["biomarker"].str.removesuffix("__present")
    table["circular"] = base.isin(circular)
    notes = []
    for note, subgroup, marked in zip(table["note"], table["subgroup"], table["circular"], strict=True):
        own = f"covariate_dropped:{subgroup.split('=')[0]}"
        codes = [c for c in str(note).split(";") if c and not (subgroup != "all" and (c == own or c.startswith(f"{own}[")))]
        notes.append(";".join([*codes, *(["used_by_head"] if marked else [])]))
    table["note"] = [n or None for n in notes]
    return table


def analyse(
    config: AssociationConfig,
    cohort: pd.DataFrame,
    quality: pd.DataFrame,
    biomarkers: pd.DataFrame,
    seed: int = 0,
    dictionary: dict[str, tuple[str, str]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Carry out the whole plan.

    Parameters
    ----------
    config : AssociationConfig
    cohort, quality, biomarkers : DataFrame
        As in ``docs/contracts.md``.
    seed : int
        Of everything random.
    dictionary : dict of str to (family, unit), optional
        Biomarkers by name; retsam's own if left out.
    progress : callable, optional
        Called with a stage's name, the number of steps done and their total.

    Returns
    -------
    Analysis

    Raises
    ------
    PlanError
        If the plan does not fit the tables, with every fault. Thin data are no error: they give rows with a note.
    """
    known = dictionary_of_biomarkers() if dictionary is None else dictionary
    available = biomarker_columns(biomarkers)
    families = {b: known.get(b, ("other", ""))[0] for b in available}
    units = {b: known.get(b, ("other", ""))[1] for b in available}
    names, faults = select_biomarkers(available, families, config.exposures)
    if faults:
        raise PlanError(faults)
    sample = build_sample(config, cohort, quality, biomarkers, names)
    problems = Problems(sample, config)
    exposures = make_exposures(names, sample.values, families, units, config)
    rho = spearman_matrix(np.column_stack([e.values for e in exposures]))[0] if exposures else np.empty((0, 0))
    labels = [e.name for e in exposures]
    correlation = pd.DataFrame(rho, index=labels, columns=labels)
    table = _main_table(config, problems, exposures, progress)
    table = correct(table, config, correlation)
    circular: set[str] = set()
    table = finish(table, circular)
    record = plan_record(config, seed)
    plan = record["sha256"][:12]
    analysis = Analysis(shaped(table, "associations", plan), plan=record)
    analysis.tables["flow"] = shaped(pd.DataFrame([*sample.flow, *problems.flow()]), "flow", plan)
    return analysis


def _main_table(
    config: AssociationConfig, problems: Problems, exposures: list[Exposure], progress: Callable[[str, int, int], None] | None
) -> pd.DataFrame:
    grid = list(problems.all())
    total, done = len(grid) * len(exposures), 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("associations", done, total)

    return run_grid(grid, exposures, config.models, config.exposures.standardise, config.exposures.winsorise, config.workers, step)


def associate(config: AssociationConfig, cohort: pd.DataFrame, quality: pd.DataFrame, biomarkers: pd.DataFrame) -> pd.DataFrame:
    """Associations of every biomarker with every outcome of the plan.

    Parameters
    ----------
    config : AssociationConfig
        The analysis plan.
    cohort, quality, biomarkers : DataFrame
        As in ``docs/contracts.md``.

    Returns
    -------
    DataFrame
        One row a test; the columns are those of ``docs/association-tables.md``.

    Raises
    ------
    PlanError
        If the plan does not fit the tables, with every fault.

    Examples
    --------
    >>> import pandas as pd
    >>> from retsam.association import AssociationConfig, associate
    >>> plan = AssociationConfig(outcomes=["dr"], covariate_sets={"crude": [], "age": ["age"]})
    >>> cohort = pd.DataFrame({"image_id": list("ab"), "subject": ["1", "2"], "status": "ok", "dr": [0, 1], "age": [60, 70]})
    >>> quality = pd.DataFrame({"image_id": list("ab"), "status": "ok", "grade": "gradable"})
    >>> measured = pd.DataFrame({"image_id": list("ab"), "status": "ok", "avr": [0.6, 0.7], "avr__reason": None})
    >>> associate(plan, cohort, quality, measured)[["biomarker", "covariate_set", "n", "note"]].values.tolist()
    [['avr', 'crude', 2, 'too_few_cases'], ['avr', 'age', 2, 'too_few_cases']]
    """
    return analyse(config, cohort, quality, biomarkers).associations


__all__ = ["Analysis", "Sample", "analyse", "associate"]
