"""What several sections share: names of measures, and tables packed for the scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from retsam.report.disclosure import near_others, near_whole
from retsam.report.flow import outcome_steps
from retsam.report.html import neg_log10, pack
from retsam.report.study import Study

#: Outcome type -> (measure, short name, whether it is a ratio given as its log, whether it has cases).
MEASURES: dict[str, tuple[str, str, bool, bool]] = {
    "binary": ("Odds ratio", "OR", True, True),
    "ordered": ("Odds ratio", "OR", True, True),
    "time": ("Hazard ratio", "HR", True, True),
    "count": ("Rate ratio", "RR", True, False),
    "continuous": ("Slope", "Slope", False, False),
}

#: Correction behind `q` -> how it is called in print.
CORRECTIONS = {
    "bh": "Benjamini-Hochberg",
    "by": "Benjamini-Yekutieli",
    "bonferroni": "Bonferroni",
    "holm": "Holm",
    "meff": "effective number of tests (Li-Ji)",
}


#: What scripts call the columns of a fit.
FIT = {
    "outcome": "outcome",
    "biomarker": "biomarker",
    "set": "covariate_set",
    "n": "n",
    "cases": "n_cases",
    "est": "estimate",
    "lo": "ci_low",
    "hi": "ci_high",
    "nlp": "neg_log10_p",
    "note": "note",
}


def method_name(study: Study) -> str:
    """Name of the correction behind the column ``q``."""
    method = str((study.plan.get("multiple") or {}).get("method", "bh"))
    return CORRECTIONS.get(method, method)


def alpha(study: Study) -> float:
    """Error rate of the plan."""
    return float((study.plan.get("multiple") or {}).get("alpha", 0.05))


def level(study: Study) -> str:
    """Coverage of the intervals in percent, as text."""
    return f"{100 * float((study.plan.get('models') or {}).get('level', 0.95)):g}"


def per(study: Study) -> str:
    """What estimates are per."""
    table = study.main("associations")
    if (
        table is not None
        and "scale" in table
        and len(table)
        and (table["scale"].dropna() == "per_unit").all()
        and table["scale"].notna().any()
    ):
        return "per unit"
    return "per SD"


def outcome_meta(study: Study) -> list[dict[str, Any]]:
    """Outcomes for the scripts: name, type and measure."""
    out = []
    for name in study.outcomes:
        measure, short, ratio, cases = MEASURES[study.outcome_type(name)]
        out.append(
            {
                "name": name,
                "type": study.outcome_type(name),
                "measure": measure,
                "short": short,
                "ratio": ratio,
                "cases": cases,
                "per": per(study),
            }
        )
    return out


def is_ratio(study: Study, outcome: str) -> bool:
    """Whether an outcome's estimates are logs of ratios."""
    return MEASURES[study.outcome_type(outcome)][2]


def cases_note(study: Study) -> str:
    """What a case is where an outcome is no yes or no; empty where all are."""
    kinds = {o: study.outcome_type(o) for o in study.outcomes}
    said = [f"of {o} the {study.rows} above its lowest level" for o, kind in kinds.items() if kind == "ordered"]
    said += [f"of {o} the events" for o, kind in kinds.items() if kind == "time"]
    return f" Counted as cases are {', '.join(said)}." if said else ""


def meta(study: Study, **more: Any) -> dict[str, Any]:
    """What every robustness figure needs to print an estimate."""
    return {"outcomes": outcome_meta(study), "level": level(study), "alpha": alpha(study), "primary": study.primary_set, **more}


def set_label(study: Study, name: str) -> str:
    """``age_sex (age, sex)``."""
    covariates = (study.plan.get("covariate_sets") or {}).get(name)
    if covariates is None:
        return name
    return f"{name} ({', '.join(map(str, covariates))})" if covariates else f"{name} (nothing)"


def logs(p: pd.Series) -> pd.Series:
    """-log10 of p or q values; zero (an underflow) becomes 300, so that it can be drawn."""
    return p.map(lambda v: neg_log10(v)).astype(float).replace(np.inf, 300.0)


def select(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Columns under new names; one that the table lacks is all missing."""
    return pd.DataFrame({new: table[old] if old in table else pd.Series(np.nan, index=table.index) for new, old in names.items()})


def packed(table: pd.DataFrame, names: Mapping[str, str], p: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A table for the scripts, p values (new name -> column) as -log10."""
    out = select(table, names)
    for new, old in (p or {}).items():
        out[new] = logs(table[old]) if old in table else np.nan
    return pack(out)


def family_order(study: Study, found: Iterable[str]) -> list[str]:
    """Families that occur, in the order of the dictionary, so that colours stay the same from study to study and from page to print."""
    known, there = list(dict.fromkeys(e.family for e in study.dictionary.values())), {str(f) for f in found}
    return [f for f in known if f in there] + sorted(there - set(known))


def higher(direction: str) -> str:
    """What a higher value means, as a sentence; empty where the dictionary does not say."""
    word, colon, rest = direction.strip().partition(":")
    if not colon or word.lower() not in ("higher", "lower"):
        word, rest = "Higher", direction
    text = rest.strip().rstrip(".")
    return f"{word.capitalize()}: {text}." if text else ""


def reader(reason: str) -> str:
    """A code as words: ``too_few_vessels`` -> ``too few vessels``."""
    return reason.replace("_", " ")


def whole_samples(study: Study, outcomes: pd.Series) -> pd.DataFrame:
    """Eyes, cases and subjects with the outcome, as Table 1 and the flow tell them, for each of some rows (NaN: unknown)."""
    flow = study.table("flow", "outcome", "stage", "n_images")
    first = study.table("table1", "outcome", "group", "n", "n_missing")
    sizes = {}
    for outcome in outcomes.dropna().unique():
        n, cases, people = [], [], []
        if flow is not None:
            steps = outcome_steps(flow, outcome)
            labelled = steps[steps["stage"] == "labelled"]
            n += labelled["n_images"].astype(float).tolist()
            people += labelled["n_subjects"].astype(float).tolist() if study.cluster == "subject" and "n_subjects" in labelled else []
        if first is not None:
            mine = first[first["outcome"] == outcome]
            total = mine["n"].astype(float) + mine["n_missing"].fillna(0).astype(float)
            n += total[mine["group"] == "all"].tolist()
            cases += total[mine["group"] == "cases"].tolist()
        sizes[outcome] = [max((v for v in counts if v == v), default=np.nan) for counts in (n, cases, people)]
    known = [sizes.get(o, [np.nan] * 3) for o in outcomes]
    return pd.DataFrame(known, columns=["n", "n_cases", "n_clusters"], index=outcomes.index, dtype=float)


def counts_told(study: Study, table: pd.DataFrame, minimum: int) -> pd.Series:
    """Rows of fits to everybody whose counts would tell how few eyes lack a biomarker or a covariate, of all or of another set's."""
    told = near_whole(table, minimum, ["outcome"], whole_samples(study, table["outcome"]))
    if not {"biomarker", "covariate_set"} <= set(table):
        return told
    return told | near_others(table, minimum, ["outcome", "biomarker"], told, set_order(study, table["covariate_set"]))


def set_order(study: Study, sets: pd.Series) -> pd.Series:
    """Place of each covariate set: the primary one first, then as in the plan."""
    place = {name: i for i, name in enumerate(dict.fromkeys([study.primary_set, *study.covariate_sets]))}
    return sets.map(place).fillna(len(place))


def told_keys(study: Study, table: pd.DataFrame, minimum: int) -> pd.Series:
    """Rows of a table by outcome, biomarker and covariate set whose parts add up to a sample of which :func:`counts_told` speaks."""
    key = ["outcome", "biomarker", "covariate_set"]
    primary = study.primary
    if primary is None or primary.empty:
        return pd.Series(False, index=table.index)
    told = primary.loc[counts_told(study, primary, minimum), key].astype(str)
    return pd.Series(pd.MultiIndex.from_frame(table[key].astype(str)).isin(pd.MultiIndex.from_frame(told)), index=table.index)
