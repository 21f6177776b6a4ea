"""Associations of biomarkers with outcomes: the analysis plan carried out on the tables of the rooms before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from retsam.association.circularity import circularity, training_subjects, without_learned
from retsam.association.config import AssociationConfig
from retsam.association.describe import agreement, correlations, description, distributions, missingness, quality_by_outcome, table1
from retsam.association.design import select_biomarkers
from retsam.association.discrimination import camera_check, discrimination
from retsam.association.grid import Exposure, make_exposures, run_grid
from retsam.association.measurement_error import measurement_error
from retsam.association.methods import methods_text
from retsam.association.multiplicity import LABELS, adjust, effective_tests, spearman_matrix
from retsam.association.problems import Problems
from retsam.association.robustness import interactions, replication, sensitivity, sensitivity_variants
from retsam.association.sample import PlanError, Sample, biomarker_columns, build_sample
from retsam.association.shape import shape_of, shape_tables
from retsam.association.tables import Analysis, plan_record, shaped


class Known(NamedTuple):
    """What the dictionary of biomarkers says of one: its family, its unit, and the masks that it needs."""

    family: str = "other"
    unit: str = ""
    needs: tuple[str, ...] | None = None


def dictionary_of_biomarkers() -> dict[str, Known]:
    """Every biomarker that retsam measures."""
    from retsam.biomarkers.registry import registry

    return {name: Known(b.family, b.unit, tuple(b.needs)) for name, b in registry().items()}


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


def finish(table: pd.DataFrame, circular: set[str], held_out: set[str]) -> pd.DataFrame:
    """Add ratios and the marks of circularity, and drop notes on covariates that a subgroup fixes by definition."""
    table = table.copy()
    ratio = table["outcome_type"].ne("continuous")
    for column, source in (("ratio", "estimate"), ("ratio_low", "ci_low"), ("ratio_high", "ci_high")):
        with np.errstate(over="ignore"):
            table[column] = np.where(ratio, np.exp(table[source].astype(float)), np.nan)
    base = table["biomarker"].str.removesuffix("__present")
    table["circular"] = base.isin(circular)
    notes = []
    for note, subgroup, marked, apart in zip(table["note"], table["subgroup"], table["circular"], base.isin(held_out), strict=True):
        own = f"covariate_dropped:{subgroup.split('=')[0]}"
        codes = [c for c in str(note).split(";") if c and not (subgroup != "all" and (c == own or c.startswith(f"{own}[")))]
        notes.append(";".join([*codes, *(["used_by_head"] if marked else []), *(["learned_from_subjects_left_out"] if apart else [])]))
    table["note"] = [n or None for n in notes]
    return table


def analyse(
    config: AssociationConfig,
    cohort: pd.DataFrame,
    quality: pd.DataFrame,
    biomarkers: pd.DataFrame,
    seed: int = 0,
    dictionary: Mapping[str, Known] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    further: bool = True,
    learned: pd.DataFrame | None = None,
) -> Analysis:
    """Carry out the whole plan.

    Parameters
    ----------
    config : AssociationConfig
    cohort, quality, biomarkers : DataFrame
        As in ``docs/contracts.md``.
    seed : int
        Of everything random.
    dictionary : mapping of str to Known, optional
        Biomarkers by name; retsam's own if left out.
    progress : callable, optional
        Called with a stage's name, the number of steps done and their total.
    further : bool
        Also describe the sample and run the further analyses; off, the result has the main table and the flow only.
    learned : DataFrame, optional
        Photographs whose labels taught segmentation heads (:func:`retsam.association.circularity.learned_photographs`).

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
    families = {b: known.get(b, Known()).family for b in available}
    units = {b: known.get(b, Known()).unit for b in available}
    names, faults = select_biomarkers(available, families, config.exposures)
    if faults:
        raise PlanError(faults)
    needs = {b: known[b].needs for b in names if b in known and known[b].needs is not None}
    trained = training_subjects(config.circularity, cohort, quality, learned)
    held_out = config.circularity.use == "hold_out"
    if trained and held_out:
        biomarkers = without_learned(biomarkers, cohort, needs, trained)
    taught = frozenset().union(*trained.values()) if trained and config.circularity.use == "exclude" else frozenset()
    sample = build_sample(config, cohort, quality, biomarkers, names, taught)
    problems = Problems(sample, config)
    exposures = make_exposures(names, sample.values, families, units, config)
    rho, shared = spearman_matrix([e.values for e in exposures])
    labels = [e.name for e in exposures]
    circles, untrained = circularity(sample, needs, trained, held_out)
    circular = set(circles.loc[circles["circular"].astype(bool), "biomarker"]) if len(circles) else set()

    table = correct(_main_table(config, problems, exposures, progress), config, pd.DataFrame(rho, index=labels, columns=labels))
    left_out = set(circles.loc[circles["note"].eq("learned_from_subjects_left_out"), "biomarker"]) if len(circles) else set()
    table = finish(table, circular, left_out)
    record = plan_record(config, seed, exposures)
    plan = record["sha256"][:12]
    analysis = Analysis(shaped(table, "associations", plan), plan=record, methods=methods_text(config, sample, exposures, seed, circles))

    def add(name: str, part: pd.DataFrame, note: str = "") -> None:
        analysis.tables[name] = shaped(part, name, plan)
        if part.empty:
            analysis.notes[name] = note or "nothing to show: no outcome or no biomarker of the plan has enough data"

    add("flow", pd.DataFrame([*sample.flow, *problems.flow()]))
    add("circularity", circles)
    if not further:
        return analysis
    _describe(add, config, problems, exposures, (rho, shared))
    _deepen(add, config, problems, exposures, table, biomarkers, untrained if circular else None, seed, progress)
    return analysis


def _describe(
    add, config: AssociationConfig, problems: Problems, exposures: list[Exposure], correlation: tuple[np.ndarray, np.ndarray]
) -> None:
    """Tables that describe the sample."""
    sample = problems.sample
    add("quality_by_outcome", quality_by_outcome(sample, config))
    add("table1", table1(problems, config))
    add("description", description(exposures))
    summary, histogram = distributions(problems, exposures)
    add("distribution", summary)
    add("density", histogram)
    add("missingness", missingness(sample), "no value is missing")
    one_row = config.unit.level != "eye"
    pairs = pd.DataFrame() if one_row else agreement(sample.frame, exposures, config.models.level)
    add("agreement", pairs, "the analysis has one row a subject" if one_row else "")
    listed, order, effective = correlations([e.name for e in exposures], *correlation, [e.family for e in exposures], config.multiple.alpha)
    add("correlation", listed, "fewer than two biomarkers")
    add("correlation_order", order)
    add("effective_tests", effective)


def _deepen(add, config, problems: Problems, exposures: list[Exposure], table, biomarkers, untrained, seed: int, progress) -> None:
    """Tables of the further analyses, each on the biomarkers that the plan allows it."""
    plan = config.robustness
    off = "not asked for in the plan"
    chosen = leading(table, exposures, config)
    repeats = len(sensitivity_variants(problems, config, untrained)) * sum(bool(some) for some in chosen.values())
    done, total = 0, 6 + repeats  # shape, interactions, repeats, replication, measurement error, discrimination, camera

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("further analyses", done, total)

    step()
    shapes = []
    if plan.shape:
        for outcome, some in chosen.items():
            problem = problems.problem(outcome, config.primary_set)
            shapes += [shape_of(problem, e, config.models, plan.knots, config.exposures.winsorise) for e in some]
    quintiles, spline, tests = shape_tables(shapes)
    if len(tests):
        for _, part in tests.groupby("outcome"):
            p = part["p_nonlinear"].to_numpy(dtype=float) if "p_nonlinear" in part else np.full(len(part), np.nan)
            tests.loc[part.index, "q_nonlinear"] = adjust(p, "bonferroni" if config.multiple.method == "meff" else config.multiple.method)
    for name, part in (("shape_quintiles", quintiles), ("shape_spline", spline), ("shape_tests", tests)):
        add(name, part, "" if plan.shape else off)
    step()
    wanted = plan.interactions and config.subgroups
    add(
        "interactions",
        interactions(problems, exposures, config) if wanted else pd.DataFrame(),
        "" if wanted else "the plan has no subgroups",
    )
    add("sensitivity", sensitivity(problems, chosen, config, seed, untrained, step))
    step()
    if plan.replication:
        add("replication", *replication(problems, exposures, config, seed))
    else:
        add("replication", pd.DataFrame(), off)
    step()
    corrected = pd.DataFrame()
    if plan.measurement_error:
        corrected = measurement_error(problems, chosen, config, biomarkers, seed)
    add("measurement_error", corrected, "" if plan.measurement_error else off)
    step()
    parts = (pd.DataFrame(),) * 3
    if plan.discrimination:
        parts = discrimination(problems, chosen, exposures, config, seed)
    for name, part in zip(("discrimination", "calibration", "roc"), parts, strict=True):
        add(name, part, "no binary outcome has enough data" if plan.discrimination else off)
    step()
    add(
        "camera",
        camera_check(problems, config, seed) if plan.camera else pd.DataFrame(),
        "no binary or ordered outcome" if plan.camera else off,
    )


def leading(table: pd.DataFrame, exposures: list[Exposure], config: AssociationConfig) -> dict[str, list[Exposure]]:
    """Biomarkers of each outcome with the smallest p in the primary models, as many as the plan allows the costly analyses."""
    by_name = {e.name: e for e in exposures}
    out: dict[str, list[Exposure]] = {o.name: [] for o in config.outcomes}
    rows = table[(table["covariate_set"] == config.primary_set) & (table["subgroup"] == "all") & table["converged"].astype(bool)]
    for outcome, part in rows.groupby("outcome", sort=False):
        ordered = part.sort_values("neg_log10_p", ascending=False, kind="stable")["biomarker"]
        out[outcome] = [by_name[b] for b in (ordered if config.robustness.top == 0 else ordered.head(config.robustness.top))]
    return out


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
    """Associations of every biomarker with every outcome of the plan, without the further analyses (see :func:`analyse`).

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
    return analyse(config, cohort, quality, biomarkers, further=False).associations


__all__ = ["Analysis", "Sample", "analyse", "associate"]
