"""Does the answer hold: interactions, sensitivity analyses, discovery and replication."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig, Models
from retsam.association.design import Covariates, independent_columns, plain, required_columns
from retsam.association.fit import OK, cluster_starts
from retsam.association.grid import Exposure, Problem, count_cases, make_batch, prepare_exposure, refusal, run_grid
from retsam.association.impute import chained_equations, pool
from retsam.association.meta import combine, two_sided
from retsam.association.mixed import fit_mixed_linear, fit_mixed_logit
from retsam.association.models import UNBOUNDED, fit_model, interval, wald
from retsam.association.multiplicity import adjust
from retsam.association.problems import Problems, subgroup_levels

_KEPT = (
    "outcome",
    "biomarker",
    "covariate_set",
    "model",
    "n",
    "n_cases",
    "n_clusters",
    "estimate",
    "se",
    "ci_low",
    "ci_high",
    "p",
    "neg_log10_p",
)


#: Types of outcome whose model has a working correlation.
CORRELATED = ("binary", "continuous", "count")


# ---- interactions ----------------------------------------------------------------------------------------------------


def interaction(
    problem: Problem, exposure: Exposure, variable: str, levels: list[tuple[str, np.ndarray]], models: Models, winsor: float
) -> dict:
    """Test whether an association differs between the levels of a subgroup variable.

    Parameters
    ----------
    problem : Problem
    exposure : Exposure
    variable : str
    levels : list of (label, mask over the sample)
    models : Models
    winsor : float

    Returns
    -------
    dict
        A row of ``interactions.csv`` (without ``q``): joint Wald test of the products of biomarker and level. ``levels`` are those that
        are compared; of those with fewer than ``min_cell`` eyes the note says ``level_dropped:site=C``.
    """
    row = {
        "outcome": problem.coded.outcome.name,
        "biomarker": exposure.name,
        "covariate_set": problem.covariate_set,
        "subgroup_variable": variable,
        "levels": ";".join(label.split("=", 1)[1] for label, _ in levels),
        "n": 0,
        "note": None,
    }
    inside = np.any([mask for _, mask in levels], axis=0) if levels else np.zeros(len(exposure.values), dtype=bool)
    rows = problem.rows[np.isfinite(exposure.values[problem.rows]) & inside[problem.rows]]
    present = [(label, mask) for label, mask in levels if mask[rows].sum() >= models.min_cell]
    dropped = [f"level_dropped:{label}" for label, mask in levels if not mask[rows].sum() >= models.min_cell]
    row["levels"] = ";".join(label.split("=", 1)[1] for label, _ in present)
    row["n"] = len(rows)
    if len(present) < 2:
        return {**row, "note": ";".join([*dropped, "too_few_levels"])}
    for label, mask in present:
        part = rows[mask[rows]]
        event = problem.coded.event[part] if problem.coded.event is not None else None
        few = replace_minimum(models)
        bad = refusal(problem.kind, problem.coded.y[part], event, len(cluster_starts(problem.cluster[part])) - 1, few)
        if bad:
            return {**row, "note": ";".join([*dropped, f"{bad}:{label}"])}
    rows = rows[np.any([mask[rows] for _, mask in present], axis=0)]
    indicator = np.column_stack([mask.astype(float) for _, mask in present[1:]])
    matrix = np.column_stack([problem.covariates.matrix, indicator])
    names = (*problem.covariates.names, *(label for label, _ in present[1:]))
    widened = replace(problem, covariates=Covariates(matrix, names, problem.covariates.complete, problem.covariates.missing))
    batch = make_batch(widened, rows, models, warm=False)
    if batch.refusal:
        return {**row, "note": ";".join([*dropped, batch.refusal])}
    x, _, _, note = prepare_exposure(exposure, batch, models, True, winsor)
    if x is None:
        return {**row, "note": ";".join([*dropped, note])}
    products = np.column_stack([x, *(x * indicator[rows, j] for j in range(indicator.shape[1]))])
    if len(independent_columns(np.column_stack([batch.z, products]))) < batch.z.shape[1] + products.shape[1]:
        return {**row, "note": ";".join([*dropped, "collinear_with_covariates"])}
    answer = fit_model(
        problem.kind, products, batch.z, batch.y, batch.starts, models, batch.event, batch.entry, separated_covariates=batch.separated
    )
    if answer.fit is None:
        return {**row, "note": ";".join([*dropped, *answer.notes])}
    k = products.shape[1]
    statistic, df, p = wald(answer.fit.beta[1:k], answer.fit.cov[1:k, 1:k], answer.df_of(1) if k == 2 else answer.joint_df)
    return {**row, "n": len(rows), "chi2": statistic, "df": df, "p": p, "note": ";".join([*dropped, *answer.notes]) or None}


def replace_minimum(models: Models) -> Models:
    """The plan's minima with those of a level of a subgroup: ``min_cell`` cases and controls, no minimum of rows and clusters."""
    return models.model_copy(update={"min_cases": models.min_cell, "min_rows": 3, "min_clusters": 3})


def interactions(problems: Problems, exposures: Sequence[Exposure], config: AssociationConfig) -> pd.DataFrame:
    """Interaction tests of every biomarker with every subgroup variable, in the primary covariate set."""
    rows = []
    for variable, cuts in config.subgroups.items():
        levels = subgroup_levels(problems.sample.frame, variable, cuts)
        for outcome in problems.coded:
            problem = problems.problem(outcome, config.primary_set)
            part = [interaction(problem, e, variable, levels, config.models, config.exposures.winsorise) for e in exposures]
            q = adjust(np.array([r.get("p", math.nan) for r in part], dtype=float), _simple(config.multiple.method))
            rows += [{**r, "q": v} for r, v in zip(part, q, strict=True)]
    return pd.DataFrame(rows)


def _simple(method: str) -> str:
    """Corrections by effective tests need a correlation matrix; tests of another kind than the main ones use Bonferroni instead."""
    return "bonferroni" if method == "meff" else method


# ---- sensitivity -----------------------------------------------------------------------------------------------------


def sensitivity_variants(
    problems: Problems, config: AssociationConfig, untrained: np.ndarray | None = None
) -> list[tuple[str, np.ndarray | None, Models, dict]]:
    """Choices under which :func:`sensitivity` repeats the primary models: name, rows (None: all), models, and what else differs."""
    plan, models = config.robustness, config.models
    frame = problems.sample.frame
    variants: list[tuple[str, np.ndarray | None, Models, dict]] = [("primary", None, models, {})]
    if plan.gradable_only and "quality_grade" in frame and (frame["quality_grade"] == "usable").any():
        variants.append(("gradable_only", (frame["quality_grade"] == "gradable").to_numpy(), models, {}))
    for column in plan.leave_one_out:
        for label, mask in subgroup_levels(frame, column, None):
            variants.append((f"without:{label}", ~mask, models, {}))
    if plan.other_correlation:
        other = "independence" if models.correlation == "exchangeable" else "exchangeable"
        variants.append((other, None, models.model_copy(update={"correlation": other}), {"correlation": True}))
    if plan.one_eye:
        variants.append(("one_eye", None, models, {"one_eye": True}))
    if plan.winsorise > 0 and config.exposures.winsorise != plan.winsorise:
        variants.append(("winsorised", None, models, {"winsor": plan.winsorise}))
    if plan.rank:
        variants.append(("rank_inverse_normal", None, models, {"rank": True}))
    if untrained is not None:
        variants.append(("untrained_subjects", untrained, models, {}))
    return variants


def sensitivity(
    problems: Problems,
    exposures: dict[str, list[Exposure]],
    config: AssociationConfig,
    seed: int,
    untrained: np.ndarray | None = None,
    progress: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Repeat the primary models under other choices.

    Parameters
    ----------
    problems : Problems
    exposures : dict of str to list of Exposure
        Biomarkers of each outcome.
    config : AssociationConfig
    seed : int
    untrained : ndarray of bool [n], optional
        Rows of subjects whose labels taught no head.
    progress : callable, optional
        Called before each of :func:`sensitivity_variants` of each outcome that has biomarkers.

    Returns
    -------
    DataFrame
        Columns of ``sensitivity.csv`` without ``plan``.
    """
    models = config.models
    variants = sensitivity_variants(problems, config, untrained)
    parts = []
    for outcome, chosen in exposures.items():
        if not chosen:
            continue
        whole = problems.problem(outcome, config.primary_set)
        several = len(np.unique(whole.cluster[whole.rows])) < len(whole.rows)
        for name, mask, used, options in variants:
            if progress is not None:
                progress()
            # without a second row of a cluster, or a working correlation in the model, these would be the primary fit once more
            again = not several or ("correlation" in options and whole.kind not in CORRELATED)
            if again and options.keys() & {"one_eye", "correlation"}:
                continue
            if options.get("one_eye"):
                mask = one_row_a_cluster(problems, outcome, config.primary_set, seed)
            problem = problems.problem(outcome, config.primary_set, "all", mask)
            tested = [replace(e, transform="rank_inverse_normal") for e in chosen] if options.get("rank") else chosen
            winsor = options.get("winsor", config.exposures.winsorise)
            table = run_grid([problem], tested, used, config.exposures.standardise, winsor, config.workers)
            parts.append(table.assign(analysis=name))
        if config.robustness.imputations > 1:
            parts.append(imputed(problems, outcome, chosen, config, seed))
        if models.mixed and problems.coded[outcome].outcome.type in ("binary", "continuous"):
            parts.append(mixed(problems, outcome, chosen, config))
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    table["note"] = table["note"].where(table["note"].astype(str) != "", None)
    return table[[*_KEPT, "analysis", "scale", "note"]]


def one_row_a_cluster(problems: Problems, outcome: str, covariate_set: str, seed: int) -> np.ndarray:
    """Mask of one row, drawn at random, of each cluster that has the outcome and the covariates."""
    rows = np.flatnonzero(problems.rows(outcome, covariate_set))
    shuffled = np.random.default_rng([seed, 1]).permutation(rows)
    first = np.unique(problems.sample.cluster[shuffled], return_index=True)[1]
    mask = np.zeros(len(problems.sample.frame), dtype=bool)
    mask[shuffled[first]] = True
    return mask


def mixed(problems: Problems, outcome: str, exposures: Sequence[Exposure], config: AssociationConfig) -> pd.DataFrame:
    """Random-intercept models of the primary covariate set."""
    problem = problems.problem(outcome, config.primary_set)
    out = []
    for e in exposures:
        rows = problem.rows[np.isfinite(e.values[problem.rows])]
        batch = make_batch(problem, rows, config.models, warm=False)
        row = _row(problem, e, "mixed_model", batch, config)
        x, _, _, note = (None, 0, 0, batch.refusal) if batch.refusal else prepare_exposure(
            e, batch, config.models, config.exposures.standardise, config.exposures.winsorise
        )  # fmt: skip
        if x is None:
            out.append({**row, "note": note})
            continue
        size = x.std()
        design = np.column_stack([x / size, batch.z])
        fit = (
            fit_mixed_linear(design, batch.y, batch.starts)
            if problem.kind == "continuous"
            else fit_mixed_logit(design, batch.y, batch.starts)
        )
        if fit.code != OK:
            out.append({**row, "note": "not_converged"})
            continue
        # conditional on the subject, log odds are larger than the marginal ones that the bound is about (Zeger, Liang & Albert 1988)
        marginal = 1.0 if problem.kind == "continuous" else math.sqrt(1 + 0.346 * fit.scale**2)
        if problem.kind != "continuous" and abs(fit.beta[0]) / marginal > UNBOUNDED:
            out.append({**row, "note": "estimate_unbounded"})
            continue
        values = interval(float(fit.beta[0] / size), math.sqrt(float(fit.cov[0, 0])) / size, math.inf, config.models.level)
        out.append({**row, **values, "model": "mixed_linear" if problem.kind == "continuous" else "mixed_logit"})
    return pd.DataFrame(out)


def _row(problem: Problem, exposure: Exposure, analysis: str, batch, config: AssociationConfig) -> dict:
    return {
        "outcome": problem.coded.outcome.name,
        "biomarker": exposure.name,
        "covariate_set": problem.covariate_set,
        "model": "",
        "n": len(batch.rows),
        "n_cases": batch.n_cases,
        "n_clusters": len(batch.starts) - 1,
        **dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "p", "neg_log10_p"), math.nan),
        "analysis": analysis,
        "scale": "per_sd" if config.exposures.standardise else "per_unit",
        "note": None,
    }


def imputed(problems: Problems, outcome: str, exposures: Sequence[Exposure], config: AssociationConfig, seed: int) -> pd.DataFrame:
    """Primary models after multiple imputation of biomarker and covariates, on every eye that has the outcome.

    Times to an event are refused: an imputation model in which the outcome is a censored time (or, after White & Royston 2009, Stat Med
    28:1982, the event and the cumulative hazard) pulls a strong association towards none.
    """
    from retsam.association.design import covariate_matrix

    frame = problems.sample.frame
    terms = config.covariate_sets[config.primary_set]
    columns = required_columns(terms, list(frame.columns))
    rows = np.flatnonzero(problems.eligible[outcome])
    coded = problems.coded[outcome]
    base = pd.DataFrame({c: plain(frame[c]).to_numpy()[rows] for c in columns})
    base["__y"] = coded.y[rows]
    out = []
    for place, e in enumerate(exposures):
        problem = problems.problem(outcome, config.primary_set)
        blank = make_batch(problem, problem.rows[:0], config.models, warm=False)
        row = {**_row(problem, e, "imputed", blank, config), "n": len(rows)}
        x = e.values[rows]
        if coded.event is not None:
            out.append({**row, "note": "imputation_not_for_times"})
            continue
        if np.isfinite(x).mean() < 0.5 or any(base[c].notna().mean() < 0.5 for c in columns):
            out.append({**row, "note": "mostly_missing"})
            continue
        if np.isfinite(x).all() and not base.isna().any().any():
            out.append({**row, "note": "nothing_missing"})
            continue
        rng = np.random.default_rng([seed, 2, place])
        estimates, errors, df, note, used = [], [], math.inf, "", None
        for filled in chained_equations(base.assign(__x=x), config.robustness.imputations, rng, cluster=problems.sample.cluster[rows]):
            full = np.full(len(frame), np.nan)
            full[rows] = filled["__x"].to_numpy(dtype=float)
            small = covariate_matrix(filled, terms)
            matrix = np.full((len(frame), small.matrix.shape[1]), np.nan)
            matrix[rows] = small.matrix
            complete = np.zeros(len(frame), dtype=bool)
            complete[rows] = True
            covariates = Covariates(matrix, small.names, complete, np.full(len(frame), "", dtype=object))
            whole = Problem(coded, config.primary_set, "all", covariates, rows, problems.sample.cluster, problem.refusal)
            batch = make_batch(whole, rows, config.models)
            note = batch.refusal
            if note:
                break
            unit, _, _, note = prepare_exposure(
                replace(e, values=full), batch, config.models, config.exposures.standardise, config.exposures.winsorise
            )
            if unit is None:
                break
            answer = fit_model(
                whole.kind,
                unit,
                batch.z,
                batch.y,
                batch.starts,
                config.models,
                batch.event,
                batch.entry,
                batch.start,
                batch.start_alpha,
                batch.separated,
            )
            if answer.fit is None:
                note = ";".join(answer.notes)
                break
            estimates.append(float(answer.fit.beta[0]))
            errors.append(math.sqrt(float(answer.fit.cov[0, 0])))
            df, used = answer.df, (answer.model, batch)
        if len(estimates) < config.robustness.imputations:
            out.append({**row, "note": note or "not_converged"})
            continue
        pooled = pool(np.array(estimates), np.array(errors), df)
        model, batch = used
        row.update(model=model, n_cases=count_cases(coded.outcome.type, coded.y[rows], batch.event), n_clusters=len(batch.starts) - 1)
        out.append({**row, "estimate": pooled.estimate, "se": pooled.se, **pooled.interval(config.models.level)})
    return pd.DataFrame(out)


# ---- discovery and replication ---------------------------------------------------------------------------------------


def replication(problems: Problems, exposures: Sequence[Exposure], config: AssociationConfig, seed: int) -> tuple[pd.DataFrame, str]:
    """Discovery in one part of the subjects (or levels of a column), replication in the other.

    Returns
    -------
    table : DataFrame
        Columns of ``replication.csv`` without ``plan``.
    note : str
        Why it is empty.
    """
    split = config.robustness.replication
    frame = problems.sample.frame
    units = (
        problems.sample.cluster
        if split == "subject"
        else plain(frame[split]).astype(object).where(frame[split].notna(), None).to_numpy(dtype=object)
    )
    levels = sorted({u for u in units if u is not None}, key=str)
    if len(levels) < 2:
        return pd.DataFrame(), f"{split} has fewer than two levels"
    shuffled = [levels[i] for i in np.random.default_rng([seed, 3]).permutation(len(levels))]
    cut = min(max(1, round(config.robustness.discovery_share * len(levels))), len(levels) - 1)
    first, second = set(shuffled[:cut]), set(shuffled[cut:])
    masks = [np.array([u in part for u in units]) for part in (first, second)]
    rows = []
    for outcome in problems.coded:
        pair = [
            run_grid(
                [problems.problem(outcome, config.primary_set, "all", mask)],
                exposures,
                config.models,
                config.exposures.standardise,
                config.exposures.winsorise,
                config.workers,
            )
            for mask in masks
        ]
        q = adjust(pair[0]["p"].to_numpy(dtype=float), _simple(config.multiple.method))
        found = int(np.sum(q < config.multiple.alpha))
        for i in range(len(exposures)):
            a, b = pair[0].iloc[i], pair[1].iloc[i]
            row = {
                "outcome": outcome,
                "biomarker": a["biomarker"],
                "covariate_set": config.primary_set,
                "split": split,
                "q_discovery": q[i],
            }
            for part, r in (("discovery", a), ("replication", b)):
                row.update({f"{c}_{part}": r[c] for c in ("n", "estimate", "se", "p")})
            notes = [f"{part}:{r['note']}" for part, r in (("discovery", a), ("replication", b)) if r["note"]]
            if a["converged"] and b["converged"]:
                same = bool(np.sign(a["estimate"]) == np.sign(b["estimate"]))
                c = combine([a["estimate"], b["estimate"]], [a["se"], b["se"]])
                row.update(
                    same_direction=same,
                    replicated=bool(q[i] < config.multiple.alpha and same and b["p"] < config.multiple.alpha / max(found, 1)),
                    estimate_fixed=c.fixed,
                    se_fixed=c.se_fixed,
                    p_fixed=two_sided(c.fixed / c.se_fixed),
                    estimate_random=c.random,
                    se_random=c.se_random,
                    p_random=two_sided(c.random / c.se_random),
                    i2=c.i2,
                    p_heterogeneity=c.p_heterogeneity,
                )
            rows.append({**row, "note": ";".join(notes) or None})
    return pd.DataFrame(rows), ""
