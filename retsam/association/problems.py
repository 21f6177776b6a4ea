"""From the plan to the list of problems: outcomes x covariate sets x subgroups, with the flow of each outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig
from retsam.association.design import Covariates, covariate_matrix, plain, required_columns
from retsam.association.grid import Problem
from retsam.association.outcomes import Coded, code_outcome, text_of
from retsam.association.sample import Sample, join_reasons, worse_eyes


def subgroup_levels(frame: pd.DataFrame, column: str, cuts: Sequence[float] | None) -> list[tuple[str, np.ndarray]]:
    """Levels of a subgroup variable.

    Parameters
    ----------
    frame : DataFrame [n]
    column : str
    cuts : sequence of float or None
        Cut points for numbers: a level is ``low <= x < high``. None: each value is a level.

    Returns
    -------
    list of (label, mask)
        Labels are ``sex=Male``, ``age=<60``, ``age=60-70``, ``age=>=70``. Rows without a value are in none.
    """
    values = plain(frame[column])
    if cuts:
        x = values.to_numpy(dtype=float)
        edges = sorted(cuts)
        text = [f"{e:g}" for e in edges]
        levels = [(f"{column}=<{text[0]}", x < edges[0])]
        levels += [(f"{column}={text[i]}-{text[i + 1]}", (x >= edges[i]) & (x < edges[i + 1])) for i in range(len(edges) - 1)]
        return [*levels, (f"{column}=>={text[-1]}", x >= edges[-1])]
    texts = np.array([None if pd.isna(v) else text_of(v) for v in values], dtype=object)
    return [(f"{column}={level}", texts == level) for level in sorted({t for t in texts if t is not None})]


class Problems:
    """Outcomes coded, covariates coded, and the rows of each combination.

    Parameters
    ----------
    sample : Sample
    config : AssociationConfig

    Attributes
    ----------
    coded : dict of str to Coded
    covariates : dict of str to Covariates
    """

    def __init__(self, sample: Sample, config: AssociationConfig):
        self.sample = sample
        self.config = config
        self.coded: dict[str, Coded] = sample.coded or {o.name: code_outcome(sample.frame, o) for o in config.outcomes}
        self.covariates: dict[str, Covariates] = {
            name: covariate_matrix(sample.frame, terms) for name, terms in config.covariate_sets.items()
        }
        self.eligible: dict[str, np.ndarray] = {}
        for name, coded in self.coded.items():
            rows = coded.labelled
            if config.unit.level == "subject_worse":
                worse = np.zeros(len(rows), dtype=bool)
                worse[worse_eyes(pd.factorize(sample.frame["subject_key"])[0], coded)] = True
                rows = rows & worse
            self.eligible[name] = rows

    def rows(self, outcome: str, covariate_set: str) -> np.ndarray:
        """Mask of the sample's rows with this outcome and these covariates."""
        return self.eligible[outcome] & self.covariates[covariate_set].complete

    def problem(self, outcome: str, covariate_set: str, subgroup: str = "all", mask: np.ndarray | None = None) -> Problem:
        """One problem, on the rows of ``mask`` that have the outcome and the covariates."""
        rows = self.rows(outcome, covariate_set)
        if mask is not None:
            rows = rows & mask
        coded, terms = self.coded[outcome], self.config.covariate_sets[covariate_set]
        own = {coded.outcome.source, coded.outcome.event}.intersection(required_columns(terms, list(self.sample.frame.columns)))
        # Adjusted for itself an outcome has nothing left: estimates of none, with a p that looks like any other's.
        bad = "covariate_is_outcome" if own else ""
        return Problem(coded, covariate_set, subgroup, self.covariates[covariate_set], np.flatnonzero(rows), self.sample.cluster, bad)

    def all(self) -> Iterator[Problem]:
        """Every problem of the plan: everybody first, then subgroups."""
        groups = [level for column, cuts in self.config.subgroups.items() for level in subgroup_levels(self.sample.frame, column, cuts)]
        for outcome in self.coded:
            for covariate_set in self.covariates:
                yield self.problem(outcome, covariate_set)
                for label, mask in groups:
                    yield self.problem(outcome, covariate_set, label, mask)

    def flow(self) -> list[dict]:
        """Steps of each outcome after the shared ones."""
        steps = []
        frame = self.sample.frame
        base = len(self.sample.flow)
        for name, coded in self.coded.items():
            why = coded.why.copy()
            why[coded.labelled & ~self.eligible[name]] = "other_eye"
            out = ~self.eligible[name]
            steps.append(_step(name, None, base, "labelled", frame, self.eligible[name], Counter(why[out])))
            for covariate_set, covariates in self.covariates.items():
                lost = self.eligible[name] & ~covariates.complete
                reasons = Counter(f"{m.replace(';', ' and ')} missing" for m in covariates.missing[lost])
                steps.append(_step(name, covariate_set, base + 1, "covariates_complete", frame, self.rows(name, covariate_set), reasons))
        return steps


def _step(outcome: str, covariate_set: str | None, step: int, stage: str, frame: pd.DataFrame, rows: np.ndarray, reasons: Counter) -> dict:
    return {
        "outcome": outcome,
        "covariate_set": covariate_set,
        "step": step,
        "stage": stage,
        "n_images": int(rows.sum()),
        "n_subjects": int(frame.loc[rows, "subject_key"].nunique()),
        "n_excluded": int(sum(reasons.values())),
        "reasons": join_reasons(reasons),
    }
