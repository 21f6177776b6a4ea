"""How well biomarkers of predicted masks agree with those of reference masks of the same photographs.

Overlap does not make a biomarker: a mask with a good Dice coefficient can still have every vessel a pixel too thin. So each biomarker
is measured on both masks, and its bias, correlation and agreement are reported with bootstrap confidence intervals over images, or over
subjects where several images are of one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from retsam.biomarkers.registry import registry

#: Statistics of one biomarker, in this order, from paired values [..., n] (predicted, reference).
STATISTICS = ("bias", "bias_sd", "r", "icc", "loa_low", "loa_high")

_STRUCTURES = ("artery", "vein", "vessel")

#: The five kinds of vessel biomarkers that the headline figure averages.
HEADLINE: dict[str, tuple[str, ...]] = {
    "density": tuple(f"area_density_{name}" for name in _STRUCTURES),
    "length": tuple(f"length_density_{name}" for name in _STRUCTURES),
    "fractal_dimension": tuple(f"fractal_dimension_d0_{name}" for name in _STRUCTURES),
    "crae": ("crae",),
    "crve": ("crve",),
}

#: Fewer pairs give no statistics.
MIN_PAIRS = 5


def agreement(predicted: np.ndarray, reference: np.ndarray, counted: np.ndarray | bool = True) -> dict[str, np.ndarray]:
    """Agreement of paired measurements along the last axis.

    Parameters
    ----------
    predicted, reference : ndarray, [..., n]
    counted : ndarray of bool, [..., n], optional
        Pairs that count; all where not given.

    Returns
    -------
    dict of str to ndarray [...]
        ``bias``: mean of predicted - reference; ``bias_sd``: bias over the standard deviation of the reference; ``r``: Pearson;
        ``icc``: ICC(A,1), two-way, absolute agreement, single measurement (McGraw & Wong 1996); ``loa_low``, ``loa_high``: Bland and
        Altman's limits of agreement, bias -+ 1.96 standard deviations of the difference. NaN where undefined.
    """
    n = np.broadcast_to(counted, predicted.shape).sum(-1)
    difference = predicted - reference
    bias = difference.mean(-1, where=counted)
    mean_p, mean_r = (values.mean(-1, keepdims=True, where=counted) for values in (predicted, reference))
    var_p, var_r = (values.var(-1, ddof=1, where=counted) for values in (predicted, reference))
    flat_p, flat_r = _constant(predicted, counted), _constant(reference, counted)
    covariance = ((predicted - mean_p) * (reference - mean_r)).sum(-1, where=counted) / (n - 1)
    spread = difference.std(-1, ddof=1, where=counted)
    # Mean squares of the two-way layout with two columns.
    rows = (var_p + var_r) / 2 + covariance
    error = (var_p + var_r) / 2 - covariance
    columns = n * bias**2 / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "bias": bias,
            "bias_sd": np.where(flat_r, np.nan, bias / np.sqrt(var_r)),
            "r": np.where(flat_p | flat_r, np.nan, covariance / np.sqrt(var_p * var_r)),
            "icc": (rows - error) / (rows + error + 2 / n * (columns - error)),
            "loa_low": bias - 1.96 * spread,
            "loa_high": bias + 1.96 * spread,
        }


def _constant(values: np.ndarray, counted: np.ndarray | bool) -> np.ndarray:
    """Whether all that counts is one number, whose variance rounding may leave a little above 0."""
    return values.max(-1, where=counted, initial=-np.inf) == values.min(-1, where=counted, initial=np.inf)


def _subjects(subjects: pd.Series | None, ids: pd.Index) -> np.ndarray:
    """Whose each photograph is; its own where nobody is named."""
    own = ids.to_series()
    return (own if subjects is None else subjects.rename(index=str).reindex(ids).astype(object).fillna(own)).to_numpy()


def _resamples(subjects: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Images of resampled subjects, ``[draws, m]``; -1 where a resample has fewer than the largest can have.

    All images of a subject are drawn together. Where each is its own subject, every resample has as many as there are.
    """
    codes, names = pd.factorize(subjects)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=len(names))
    members = np.full((len(names), sizes.max()), -1)
    members[codes[order], np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = order
    drawn = rng.integers(0, len(names), (draws, len(names)))
    return members[drawn].reshape(draws, -1)


def _interval(values: np.ndarray, subjects: np.ndarray) -> tuple[float, float]:
    """Percentile interval, 95 %, of resampled values; NaN of a single subject, and where many resamples are without spread."""
    usable = values[np.isfinite(values)]
    if len(set(subjects)) < 2 or len(usable) < 0.9 * len(values):
        return np.nan, np.nan
    low, high = np.quantile(usable, [0.025, 0.975])
    return float(low), float(high)


def _one(predicted: np.ndarray, reference: np.ndarray, subjects: np.ndarray, draws: int, seed: int) -> dict[str, float]:
    """Statistics of one biomarker with percentile intervals over resampled subjects."""
    point = agreement(predicted, reference)
    # The same seed for every biomarker: all see the same resampled cohorts.
    chosen = _resamples(subjects, draws, np.random.default_rng(seed))
    counted = chosen >= 0
    resampled = agreement(predicted[chosen], reference[chosen], True if counted.all() else counted)
    out: dict[str, float] = {}
    for name in STATISTICS:
        out[name] = _finite(point[name])
        out[f"{name}_ci_low"], out[f"{name}_ci_high"] = _interval(resampled[name], subjects)
    return out


def _finite(value: np.ndarray) -> float:
    return float(value) if np.isfinite(value) else np.nan


def fidelity(
    predicted: pd.DataFrame,
    reference: pd.DataFrame,
    groups: pd.Series | None = None,
    draws: int = 1000,
    seed: int = 0,
    subjects: pd.Series | None = None,
) -> pd.DataFrame:
    """Agreement of each biomarker between two biomarker tables of the same photographs.

    Parameters
    ----------
    predicted, reference : DataFrame
        Biomarker tables (of :func:`retsam.measure` or of the commands) with ``image_id``. Pairs are formed by it; images that are in
        one table only are left out.
    groups : Series, optional
        Data set or camera by image id; statistics are then given for each group, and for ``all`` together.
    draws : int
        Bootstrap resamples.
    seed : int
    subjects : Series, optional
        Whose each photograph is, by image id: what is resampled. Each photograph is its own subject where not given.

    Returns
    -------
    DataFrame
        One row a group and biomarker that both tables have: group, biomarker, family, unit, n (pairs), n_predicted, n_reference
        (measured on one of the two masks alone), mean_predicted, mean_reference, sd_reference, then each of :data:`STATISTICS` with
        ``_ci_low`` and ``_ci_high`` (95 %); NaN with fewer than 5 pairs or without spread.

    Raises
    ------
    ValueError
        If the tables share no image, or an image is in a table twice.
    """
    tables = []
    for name, table in (("predicted", predicted), ("reference", reference)):
        table = table.set_index(table["image_id"].astype(str))
        if table.index.has_duplicates:
            raise ValueError(f"the {name} table has image {table.index[table.index.duplicated()][0]!r} more than once")
        tables.append(table)
    shared = tables[0].index.intersection(tables[1].index)
    if not len(shared):
        raise ValueError("the predicted and the reference table have no image in common")
    left, right = tables[0].loc[shared], tables[1].loc[shared]
    memberships = {"all": np.ones(len(shared), bool)}
    if groups is not None:
        label = groups.rename(index=str).reindex(shared)
        memberships |= {str(value): (label == value).to_numpy() for value in sorted(label.dropna().unique())}
    whose = _subjects(subjects, shared)
    known = registry()
    rows = []
    for biomarker in (name for name in known if name in left and name in right):
        both_p = pd.to_numeric(left[biomarker]).to_numpy(float, na_value=np.nan)
        both_r = pd.to_numeric(right[biomarker]).to_numpy(float, na_value=np.nan)
        for group, member in memberships.items():
            p, r = both_p[member], both_r[member]
            pair = np.isfinite(p) & np.isfinite(r)
            row = {
                "group": group,
                "biomarker": biomarker,
                "family": known[biomarker].family,
                "unit": known[biomarker].unit,
                "n": int(pair.sum()),
                "n_predicted": int((np.isfinite(p) & ~pair).sum()),
                "n_reference": int((np.isfinite(r) & ~pair).sum()),
            }
            if pair.sum() >= MIN_PAIRS:
                row |= {"mean_predicted": p[pair].mean(), "mean_reference": r[pair].mean(), "sd_reference": r[pair].std(ddof=1)}
                row |= _one(p[pair], r[pair], whose[member][pair], draws, seed)
            rows.append(row)
    columns = ["group", "biomarker", "family", "unit", "n", "n_predicted", "n_reference"]
    columns += ["mean_predicted", "mean_reference", "sd_reference"]
    columns += [name for statistic in STATISTICS for name in (statistic, f"{statistic}_ci_low", f"{statistic}_ci_high")]
    return pd.DataFrame(rows, columns=columns)


def headline(
    predicted: pd.DataFrame,
    reference: pd.DataFrame,
    groups: pd.Series,
    draws: int = 1000,
    seed: int = 0,
    biomarkers: Mapping[str, tuple[str, ...]] = HEADLINE,
    subjects: pd.Series | None = None,
) -> pd.DataFrame:
    """Mean r and mean |bias| over kinds of biomarkers, each kind counting once.

    Parameters
    ----------
    predicted, reference : DataFrame
        As of :func:`fidelity`.
    groups : Series
        Data set or camera by image id.
    draws : int
        Bootstrap resamples, the same ones for all biomarkers.
    seed : int
    biomarkers : dict of str to tuple of str
        Kind (``density``, ``length``, ...) -> its biomarkers; a kind's value is the mean over those with at least 5 pairs.
    subjects : Series, optional
        As of :func:`fidelity`.

    Returns
    -------
    DataFrame
        One row a group and kind, then one a group with kind ``mean``: group, kind, n (most pairs of its biomarkers), n_kinds, r and
        bias_sd (mean of absolute values, in SD of the reference), each with ``_ci_low`` and ``_ci_high`` (95 %). Where a resample has
        too few pairs of a kind, its mean is over the others.
    """
    left = predicted.set_index(predicted["image_id"].astype(str))
    right = reference.set_index(reference["image_id"].astype(str)).reindex(left.index)
    label = groups.rename(index=str).reindex(left.index)
    whose = _subjects(subjects, left.index)
    rng = np.random.default_rng(seed)
    rows = []
    for group in sorted(label.dropna().unique()):
        member = (label == group).to_numpy()
        resamples = _resamples(whose[member], draws, rng)
        everyone = np.full(resamples.shape[1], -1)
        everyone[: member.sum()] = np.arange(member.sum())
        chosen = np.vstack([everyone, resamples])
        kinds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        pairs: dict[str, int] = {}
        for kind, names in biomarkers.items():
            columns = [(_numbers(left, name)[member], _numbers(right, name)[member]) for name in names if name in left and name in right]
            found = [_resampled(np.append(p, np.nan)[chosen], np.append(r, np.nan)[chosen]) for p, r in columns]  # the NaN is -1's
            counts = [int((np.isfinite(p) & np.isfinite(r)).sum()) for p, r in columns]
            if max(counts, default=0) < MIN_PAIRS:
                continue
            kinds[kind] = _mean([r for r, _ in found]), _mean([np.abs(bias) for _, bias in found])
            pairs[kind] = max(counts)
        if not kinds:
            continue
        kinds["mean"] = _mean([r for r, _ in kinds.values()]), _mean([bias for _, bias in kinds.values()])
        pairs["mean"] = max(pairs.values())
        for kind, values in kinds.items():
            row: dict[str, object] = {"group": group, "kind": kind, "n": pairs[kind], "n_kinds": len(kinds) - 1 if kind == "mean" else 1}
            for name, value in zip(("r", "bias_sd"), values, strict=True):
                low, high = _interval(value[1:], whose[member])
                row |= {name: float(value[0]), f"{name}_ci_low": low, f"{name}_ci_high": high}
            rows.append(row)
    columns = ["group", "kind", "n", "n_kinds", "r", "r_ci_low", "r_ci_high", "bias_sd", "bias_sd_ci_low", "bias_sd_ci_high"]
    return pd.DataFrame(rows, columns=columns)


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    return pd.to_numeric(table[name]).to_numpy(float, na_value=np.nan)


def _resampled(predicted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and bias in SD of the reference along the last axis, over the pairs that are complete; NaN under 5 of them."""
    pair = np.isfinite(predicted) & np.isfinite(reference)
    n = pair.sum(-1)
    p, r = np.where(pair, predicted, 0.0), np.where(pair, reference, 0.0)
    flat_p, flat_r = _constant(predicted, pair), _constant(reference, pair)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_p, mean_r = p.sum(-1) / n, r.sum(-1) / n
        dp, dr = (np.where(pair, x - mean[..., None], 0.0) for x, mean in ((predicted, mean_p), (reference, mean_r)))
        square_p, square_r = np.where(flat_p, np.nan, (dp**2).sum(-1)), np.where(flat_r, np.nan, (dr**2).sum(-1))
        correlation, bias = (dp * dr).sum(-1) / np.sqrt(square_p * square_r), (mean_p - mean_r) / np.sqrt(square_r / (n - 1))
    short = n < MIN_PAIRS
    return tuple(np.where(short | ~np.isfinite(x), np.nan, x) for x in (correlation, bias))  # type: ignore[return-value]


def _mean(values: list[np.ndarray]) -> np.ndarray:
    """Mean over those that are not NaN."""
    stacked = np.stack(values)
    count = np.isfinite(stacked).sum(0)
    return np.divide(np.nansum(stacked, 0), count, out=np.full(count.shape, np.nan), where=count > 0)


def summary(figures: pd.DataFrame, own_pen: bool = False) -> dict[str, dict]:
    """Figures of :func:`headline` by data set and kind, for a model card; ``pen``: in whose way of drawing the vessels were predicted."""
    out: dict[str, dict] = {}
    for row in figures.to_dict("records"):
        entry = out.setdefault(row["group"], {"pen": "own" if own_pen else "none"})
        entry[row["kind"]] = {key: _plain(value) for key, value in row.items() if key not in ("group", "kind")}
    return out


def _plain(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return round(float(value), 4) if np.isfinite(value) else None
