"""Description of the sample: Table 1, quality by outcome, distributions, missing values, agreement of the eyes, correlations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import f as f_distribution
from scipy.stats import kurtosis, skew

from retsam.association.config import AssociationConfig
from retsam.association.design import plain, required_columns
from retsam.association.grid import Exposure
from retsam.association.multiplicity import effective_tests
from retsam.association.outcomes import Coded, code_outcome
from retsam.association.problems import Problems
from retsam.association.sample import Sample

#: Groups of a continuous, count or time outcome are its quartiles, or event and no event.
_QUARTILES = ("Q1", "Q2", "Q3", "Q4")


def outcome_groups(coded: Coded) -> list[tuple[str, np.ndarray]]:
    """Groups that a table compares: controls and cases, levels, event or not, or quartiles.

    Parameters
    ----------
    coded : Coded

    Returns
    -------
    list of (name, mask)
    """
    kind = coded.outcome.type
    if kind == "binary":
        return [("controls", coded.y == 0), ("cases", coded.y == 1)]
    if kind == "ordered":
        return [(str(level), coded.y == i) for i, level in enumerate(coded.levels)]
    if kind == "time":
        return [("no event", coded.labelled & (coded.event == 0)), ("event", coded.labelled & (coded.event == 1))]
    known = coded.y[coded.labelled]
    if len(known) == 0:
        return []
    edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75]))
    place = np.searchsorted(edges, coded.y, side="left")
    return [(_QUARTILES[i], coded.labelled & (place == i)) for i in range(len(edges) + 1) if np.any(coded.labelled & (place == i))]


def _standardised_difference(groups: Sequence[np.ndarray]) -> float:
    """Largest absolute standardised mean difference between two of the groups of numbers (Austin 2009, Stat Med 28:3083)."""
    worst = math.nan
    for i, a in enumerate(groups):
        for b in groups[i + 1 :]:
            if len(a) < 2 or len(b) < 2:
                continue
            pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
            if pooled > 0:
                d = abs(a.mean() - b.mean()) / pooled
                worst = d if math.isnan(worst) else max(worst, d)
    return worst


def _standardised_difference_of_shares(shares: Sequence[np.ndarray]) -> float:
    """The same for a categorical variable, from the multinomial covariance (Yang & Dalton 2012, SAS Global Forum 335)."""
    worst = math.nan
    for i, a in enumerate(shares):
        for b in shares[i + 1 :]:
            difference = (a - b)[1:]
            pooled = 0.5 * sum(np.diag(s[1:]) - np.outer(s[1:], s[1:]) for s in (a, b))
            d = math.sqrt(max(0.0, float(difference @ np.linalg.pinv(pooled) @ difference)))
            worst = d if math.isnan(worst) else max(worst, d)
    return worst


def _coded(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Place of each value among the levels (-1 where missing), and the levels as text, in order."""
    codes, found = pd.factorize(values)
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in found]
    levels = sorted(set(texts))
    place = {level: i for i, level in enumerate(levels)}
    return np.array([*(place[text] for text in texts), -1])[codes], levels


def table1(problems: Problems, config: AssociationConfig) -> pd.DataFrame:
    """Characteristics of the analysed rows by outcome, with standardised mean differences.

    Variables are the covariates of all sets, the subgroup variables and the eye. Rows are counted: eyes, or subjects whose eyes are
    averaged, which have no side.
    """
    frame = problems.sample.frame
    columns = list(frame.columns)
    variables = [c for terms in config.covariate_sets.values() for c in required_columns(terms, columns)]
    averaged = config.unit.level == "subject_mean"
    side = ["eye"] if "eye" in columns and not averaged else []
    counted = "photographs" if config.unit.visits == "all" else "eyes"
    variables = list(dict.fromkeys([*variables, *config.subgroups, *side]))
    rows = []
    for outcome, coded in problems.coded.items():
        eligible = problems.eligible[outcome]
        groups = [(name, mask & eligible) for name, mask in outcome_groups(coded)]
        parts = [("all", eligible), *groups]
        for name, mask in parts:
            if not averaged:
                rows.append(_t1(outcome, counted, "", name, int(mask.sum()), 0, value=int(mask.sum()), text=f"{int(mask.sum())}"))
            subjects = int(frame.loc[mask, "subject_key"].nunique())
            rows.append(_t1(outcome, "subjects", "", name, subjects, 0, value=subjects, text=f"{subjects}"))
        for variable in variables:
            values = plain(frame[variable])
            if values.dtype == float and values.dropna().nunique() > 2:
                x = values.to_numpy()
                smd = _standardised_difference([x[m & np.isfinite(x)] for _, m in groups])
                for name, mask in parts:
                    v = x[mask & np.isfinite(x)]
                    missing = int(mask.sum()) - len(v)
                    if len(v) == 0:
                        rows.append(_t1(outcome, variable, "", name, 0, missing, text=""))
                        continue
                    spread = float(v.std(ddof=1)) if len(v) > 1 else math.nan
                    q1, median, q3 = np.quantile(v, [0.25, 0.5, 0.75])
                    text = f"{v.mean():.3g} ({spread:.2g})" if len(v) > 1 else f"{v.mean():.3g}"
                    row = _t1(outcome, variable, "", name, len(v), missing, v.mean(), spread, median, q1, q3, text=text)
                    rows.append({**row, "smd": smd if name == "all" else math.nan})
            else:
                codes, levels = _coded(values)
                counts = [np.bincount(codes[mask & (codes >= 0)], minlength=len(levels)) for _, mask in parts]
                shares = [c / c.sum() for c in counts[1:] if c.sum()]
                smd = _standardised_difference_of_shares(shares) if len(levels) > 1 else math.nan
                for place, level in enumerate(levels):
                    for (name, mask), within in zip(parts, counts, strict=True):
                        total, count = int(within.sum()), int(within[place])
                        share = count / total if total else math.nan
                        text = f"{count} ({100 * share:.1f} %)" if total else ""
                        row = _t1(outcome, variable, level, name, total, int(mask.sum()) - total, count, share, text=text)
                        rows.append({**row, "smd": smd if name == "all" and level == levels[0] else math.nan})
    return pd.DataFrame(rows)


def _t1(outcome, variable, level, group, n, n_missing, value=math.nan, spread=math.nan, median=math.nan, q1=math.nan, q3=math.nan, text=""):
    names = ("outcome", "variable", "level", "group", "n", "n_missing", "value", "spread", "median", "q1", "q3", "text")
    return dict(zip(names, (outcome, variable, level, group, n, n_missing, value, spread, median, q1, q3, text), strict=True))


def quality_by_outcome(sample: Sample, config: AssociationConfig) -> pd.DataFrame:
    """How the photographs of each group were graded: the exclusion of eyes must not depend on the outcome unseen."""
    frame = sample.every_image
    excluded = frame["excluded"].to_numpy(dtype=object)
    grade = frame["quality_grade"].astype(object).where(frame["quality_grade"].notna(), "").to_numpy(dtype=object)
    grade = np.where([str(e).startswith("readable:") for e in excluded], "failed", grade)
    grade = np.where([str(e).startswith("unique:") for e in excluded], "duplicate", grade)
    rows = []
    for outcome in config.outcomes:
        coded = code_outcome(frame, outcome)
        for name, mask in [*outcome_groups(coded), ("unlabelled", ~coded.labelled)]:
            total = int(mask.sum())
            for g in ("gradable", "usable", "reject", "failed", "duplicate"):
                count = int(np.sum(grade[mask] == g))
                rows.append({"outcome": outcome.name, "group": name, "grade": g, "n": count, "share": count / total if total else math.nan})
    return pd.DataFrame(rows)


def description(exposures: Sequence[Exposure]) -> pd.DataFrame:
    """Distribution of each biomarker over the analysed eyes, in its own unit."""
    rows = []
    for e in exposures:
        x = e.values[np.isfinite(e.values)]
        row = {
            "biomarker": e.name,
            "family": e.family,
            "unit": e.unit,
            "n": len(x),
            "n_missing": len(e.values) - len(x),
            "transform": e.transform,
            "log_unit": e.log_unit,
        }
        if len(x):
            quantiles = np.quantile(x, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
            row.update(zip(("p01", "p05", "p25", "p50", "p75", "p95", "p99"), quantiles, strict=True))
            row.update(mean=x.mean(), min=x.min(), max=x.max(), n_distinct=len(np.unique(x)), share_zero=float(np.mean(x == 0)))
            sd = float(x.std(ddof=1)) if len(x) > 1 else math.nan
            row["sd"] = sd
            if len(x) > 3 and sd > 1e-12 * max(1e-300, float(np.abs(x).max())):
                row.update(skewness=float(skew(x)), kurtosis=float(kurtosis(x)))
        rows.append(row)
    return pd.DataFrame(rows)


def distributions(problems: Problems, exposures: Sequence[Exposure], bins: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Quantiles, and histograms with common bins, of each biomarker in each group of each outcome."""
    summary, histogram = [], []
    for outcome, coded in problems.coded.items():
        groups = [(name, mask & problems.eligible[outcome]) for name, mask in outcome_groups(coded)]
        for e in exposures:
            finite = np.isfinite(e.values)
            known = e.values[finite & problems.eligible[outcome]]
            if len(known) == 0:
                continue
            # a far outlier must not press all others into one bin: the end bins take what lies beyond them
            low, high = np.quantile(known, [0.005, 0.995])
            edges = np.linspace(low, high, bins + 1) if high > low else np.array([low - 0.5, low + 0.5])
            for name, mask in groups:
                x = e.values[mask & finite]
                if len(x) == 0:
                    continue
                q = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
                sd = float(x.std(ddof=1)) if len(x) > 1 else math.nan
                row = {"outcome": outcome, "group": name, "biomarker": e.name, "n": len(x), "mean": x.mean(), "sd": sd}
                summary.append({**row, **dict(zip(("p05", "p25", "p50", "p75", "p95"), q, strict=True))})
                counts = np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0]
                widths = np.diff(edges)
                for b, count in enumerate(counts):
                    histogram.append((outcome, name, e.name, edges[b], edges[b + 1], int(count), count / (len(x) * widths[b])))
    columns = ["outcome", "group", "biomarker", "bin_low", "bin_high", "count", "density"]
    return pd.DataFrame(summary), pd.DataFrame(histogram, columns=columns)


def missingness(sample: Sample) -> pd.DataFrame:
    """Missing values of each biomarker among the analysed eyes, by reason."""
    rows = []
    n = len(sample.frame)
    for j, name in enumerate(sample.names):
        gone = ~np.isfinite(sample.values[:, j])
        if not gone.any():
            continue
        counts = Counter({"not_said": 0})
        for reason, count in sample.reasons[name][gone].value_counts(dropna=False).items():
            counts["not_said" if pd.isna(reason) or reason == "" else str(reason)] += int(count)
        rows += [{"biomarker": name, "reason": r, "n": count, "share": count / n} for r, count in counts.most_common() if count]
    return pd.DataFrame(rows, columns=["biomarker", "reason", "n", "share"])


def icc_oneway(first: np.ndarray, second: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """ICC(1,1) of pairs, with its exact interval under normality (Shrout & Fleiss 1979, Psychol Bull 86:420).

    Parameters
    ----------
    first, second : ndarray [n]
    level : float

    Returns
    -------
    icc, ci_low, ci_high : float
        NaN for fewer than 3 pairs or without variation.
    """
    n = len(first)
    if n < 3:
        return math.nan, math.nan, math.nan
    mean = (first + second) / 2
    between = 2 * float(np.sum((mean - mean.mean()) ** 2)) / (n - 1)
    within = float(np.sum((first - second) ** 2)) / 2 / n
    if between + within <= 0:
        return math.nan, math.nan, math.nan
    if within == 0:
        return 1.0, 1.0, 1.0
    ratio = between / within
    low = ratio / f_distribution.ppf(0.5 + level / 2, n - 1, n)
    high = ratio * f_distribution.ppf(0.5 + level / 2, n, n - 1)
    return (ratio - 1) / (ratio + 1), (low - 1) / (low + 1), (high - 1) / (high + 1)


def eye_pairs(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions of right and left eyes of subjects that have exactly one row of each."""
    if "eye" not in frame:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    rows = pd.DataFrame({"s": frame["subject_key"].to_numpy(), "eye": frame["eye"].astype(object).to_numpy(), "o": np.arange(len(frame))})
    rows = rows[rows["eye"].isin(["R", "L"])]
    once = rows.groupby(["s", "eye"])["o"].agg(["first", "size"])
    wide = once[once["size"] == 1]["first"].unstack("eye").reindex(columns=["R", "L"]).dropna()
    return wide["R"].to_numpy(dtype=int), wide["L"].to_numpy(dtype=int)


def agreement(frame: pd.DataFrame, exposures: Sequence[Exposure], level: float) -> pd.DataFrame:
    """Agreement of right and left eye: ICC, mean difference and limits of agreement (Bland & Altman 1986, Lancet 327:307)."""
    right, left = eye_pairs(frame)
    rows = []
    for e in exposures:
        a, b = e.values[right], e.values[left]
        both = np.isfinite(a) & np.isfinite(b)
        a, b = a[both], b[both]
        icc, low, high = icc_oneway(a, b, level)
        row = {"biomarker": e.name, "n_pairs": len(a), "icc": icc, "ci_low": low, "ci_high": high}
        if len(a) > 1:
            d = a - b
            sd = float(d.std(ddof=1))
            row.update(mean_difference=d.mean(), loa_low=d.mean() - 1.96 * sd, loa_high=d.mean() + 1.96 * sd)
        row["note"] = None if math.isfinite(icc) else ("too_few_rows" if len(a) < 3 else "constant_biomarker")
        rows.append(row)
    return pd.DataFrame(rows)


#: Most biomarkers in the correlation table: pairs grow with the square.
MOST_CORRELATED = 300


def correlations(names: Sequence[str], rho: np.ndarray, n: np.ndarray, families: Sequence[str], alpha: float, most: int = MOST_CORRELATED):
    """Correlation table, the order of its clustered heat map, and the effective number of tests.

    Parameters
    ----------
    names : sequence of str
    rho, n : ndarray [B, B]
        From :func:`retsam.association.multiplicity.spearman_matrix`.
    families : sequence of str
    alpha : float
        Error rate that the thresholds refer to.
    most : int
        Biomarkers whose pairs are listed and ordered: those with the fewest missing values. The effective number of tests counts all.

    Returns
    -------
    pairs, order, effective : DataFrame
    """
    labels = np.array(names, dtype=object)
    # biomarkers that vary at all, the most complete first, then in their own order again
    varying = np.flatnonzero(np.isfinite(np.diag(rho)))
    listed = np.sort(varying[np.argsort(-np.diag(n)[varying], kind="stable")][:most])
    labels, r, shared = labels[listed], rho[np.ix_(listed, listed)], n[np.ix_(listed, listed)]
    upper = np.triu_indices(len(labels), 1)
    pairs = pd.DataFrame({"biomarker_a": labels[upper[0]], "biomarker_b": labels[upper[1]], "rho": r[upper], "n": shared[upper]})
    if len(labels) > 2:
        distance = 1 - np.abs(np.where(np.isfinite(r), r, 0.0))
        np.fill_diagonal(distance, 0.0)
        tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average", optimal_ordering=True)
        leaves, groups = leaves_list(tree), fcluster(tree, 0.5, "distance")
    else:
        leaves, groups = np.arange(len(labels)), np.ones(len(labels), dtype=int)
    order = pd.DataFrame({"biomarker": labels[leaves], "position": np.arange(len(labels)), "cluster": groups[leaves]})
    rows = []
    for scope in ["all", *dict.fromkeys(families)]:
        members = [i for i, f in enumerate(families) if scope in ("all", f) and np.isfinite(rho[i, i])]
        if members:
            m_eff = effective_tests(rho[np.ix_(members, members)].copy())
            rows.append({"scope": scope, "n_biomarkers": len(members), "m_eff": m_eff, "alpha": alpha / m_eff})
    return pairs, order, pd.DataFrame(rows, columns=["scope", "n_biomarkers", "m_eff", "alpha"])
