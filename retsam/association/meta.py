"""Meta-analysis: estimates of several studies compared and pooled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import chi2, norm

from retsam.association.multiplicity import adjust


@dataclass(frozen=True)
class Combined:
    """Pooled estimate.

    Attributes
    ----------
    fixed, se_fixed : float
        Inverse-variance weighted (common effect).
    random, se_random : float
        DerSimonian-Laird.
    tau2, q, i2, p_heterogeneity : float
        Between-study variance, Cochran's Q, I squared (0-1), p of Q.
    k : int
        Studies.
    """

    fixed: float
    se_fixed: float
    random: float
    se_random: float
    tau2: float
    q: float
    i2: float
    p_heterogeneity: float
    k: int


def combine(estimates: np.ndarray, errors: np.ndarray) -> Combined:
    """Pool estimates of the same quantity.

    Parameters
    ----------
    estimates, errors : ndarray [k]
        k >= 1; errors positive.

    Returns
    -------
    Combined
        With one study, that study: heterogeneity is NaN.

    Notes
    -----
    Random effects after DerSimonian & Laird (1986, Control Clin Trials 7:177); I squared after Higgins & Thompson (2002, Stat Med 21:1539).
    """
    b, s = np.asarray(estimates, dtype=float), np.asarray(errors, dtype=float)
    k = len(b)
    w = 1 / s**2
    fixed = float(np.sum(w * b) / np.sum(w))
    se_fixed = float(1 / math.sqrt(np.sum(w)))
    if k == 1:
        return Combined(fixed, se_fixed, fixed, se_fixed, math.nan, math.nan, math.nan, math.nan, 1)
    q = float(np.sum(w * (b - fixed) ** 2))
    tau2 = max(0.0, (q - (k - 1)) / float(np.sum(w) - np.sum(w**2) / np.sum(w)))
    v = 1 / (s**2 + tau2)
    random = float(np.sum(v * b) / np.sum(v))
    i2 = max(0.0, (q - (k - 1)) / q) if q > 0 else 0.0
    return Combined(fixed, se_fixed, random, float(1 / math.sqrt(np.sum(v))), tau2, q, i2, float(chi2.sf(q, k - 1)), k)


def two_sided(z: float) -> float:
    """Two-sided p of a standard normal statistic."""
    return float(2 * norm.sf(abs(z)))


#: Ratio of two studies' SDs of a biomarker from which estimates per SD are no estimates of one quantity.
SD_RATIO = 1.25


def _units(rows: Iterable[pd.Series]) -> list[str]:
    """What the reader of a pooled estimate must know of its unit.

    An estimate per SD is one per the study's own SD, and log(1 + x/m) has the study's own median m: pooled, they answer how much one SD
    is worth on average, and their heterogeneity is that of the units, too.
    """
    notes = []
    for column, code, when in (("sd", "different_sd", "per_sd"), ("log_unit", "different_log_unit", None)):
        values = [
            float(r[column])
            for r in rows
            if column in r and pd.notna(r[column]) and float(r[column]) > 0 and (when is None or str(r["scale"]) == when)
        ]
        if len(values) > 1 and max(values) > SD_RATIO * min(values):
            notes.append(code)
    return notes


def meta_analysis(studies: Mapping[str, pd.DataFrame], level: float = 0.95, method: str = "bh") -> pd.DataFrame:
    """Pool the association tables of several studies.

    Parameters
    ----------
    studies : mapping of str to DataFrame
        Association tables (``associations.parquet``) by name of the study.
    level : float
        Of the intervals.
    method : str
        Correction of ``q_fixed`` and ``q_random`` within outcome, covariate set and subgroup.

    Returns
    -------
    DataFrame
        One row an outcome x biomarker x covariate set x subgroup of any study; studies without an estimate are named in ``note``, and so
        are units that differ: estimates per SD are each per the study's own SD.

    Raises
    ------
    ValueError
        If a table lacks a column, or repeats a test.
    """
    key = ["outcome", "biomarker", "covariate_set", "subgroup"]
    faults = []
    for name, table in studies.items():
        missing = [c for c in (*key, "estimate", "se", "n", "scale", "outcome_type", "transform") if c not in table.columns]
        if missing:
            faults.append(f"study {name!r}: the table lacks {', '.join(missing)}")
        elif table.duplicated(key).any():
            faults.append(f"study {name!r}: tests that occur twice, first {tuple(table.loc[table.duplicated(key), key].iloc[0])}")
    if faults:
        raise ValueError("; ".join(faults))
    z = float(ndtri(0.5 + level / 2))
    tables = {name: table.set_index(key) for name, table in studies.items()}
    index = pd.MultiIndex.from_tuples(dict.fromkeys(k for t in tables.values() for k in t.index), names=key)
    rows = []
    for test in index:
        found = {name: table.loc[test] for name, table in tables.items() if test in table.index}
        usable = {n: r for n, r in found.items() if np.isfinite(r["estimate"]) and np.isfinite(r["se"]) and r["se"] > 0}
        notes = [f"no_estimate:{n}" for n in studies if n not in usable]
        row = dict(zip(key, test, strict=True))
        for name in studies:
            row[f"estimate_{name}"] = float(found[name]["estimate"]) if name in found else math.nan
            row[f"se_{name}"] = float(found[name]["se"]) if name in found else math.nan
        row.update(n_studies=len(usable), studies=";".join(usable), n=int(sum(r["n"] for r in usable.values())))
        for column, code in (
            ("outcome_type", "different_outcome_types"),
            ("scale", "different_scales"),
            ("transform", "different_transforms"),
        ):
            if len({str(r[column]) for r in usable.values()}) > 1:
                notes.append(code)
        pooled_at_all = not any(n.startswith("different_") for n in notes)
        notes += _units(usable.values())
        if usable and pooled_at_all:
            c = combine([r["estimate"] for r in usable.values()], [r["se"] for r in usable.values()])
            for kind, b, s in (("fixed", c.fixed, c.se_fixed), ("random", c.random, c.se_random)):
                row.update({f"estimate_{kind}": b, f"se_{kind}": s, f"ci_low_{kind}": b - z * s, f"ci_high_{kind}": b + z * s})
                row[f"p_{kind}"] = two_sided(b / s)
            row.update(tau2=c.tau2, i2=c.i2, q_statistic=c.q, p_heterogeneity=c.p_heterogeneity)
        row["note"] = ";".join(notes) or None
        rows.append(row)
    names = [f"{c}_{n}" for n in studies for c in ("estimate", "se")]
    pooled = [f"{c}_{k}" for k in ("fixed", "random") for c in ("estimate", "se", "ci_low", "ci_high", "p")]
    columns = [
        *key,
        "n_studies",
        "studies",
        "n",
        *names,
        *pooled,
        "tau2",
        "i2",
        "q_statistic",
        "p_heterogeneity",
        "q_fixed",
        "q_random",
        "note",
    ]
    out = pd.DataFrame(rows, columns=columns)
    for kind in ("fixed", "random"):
        for _, part in out.groupby(["outcome", "covariate_set", "subgroup"], sort=False):
            out.loc[part.index, f"q_{kind}"] = adjust(part[f"p_{kind}"].to_numpy(dtype=float), method)
    return out
