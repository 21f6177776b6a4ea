"""How well biomarkers of predicted masks agree with those of reference masks of the same photographs.

Overlap does not make a biomarker: a mask with a good Dice coefficient can still have every vessel a pixel too thin. So each biomarker
is measured on both masks, and its bias, correlation and agreement are reported with bootstrap confidence intervals over images.
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


def agreement(predicted: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement of paired measurements along the last axis.

    Parameters
    ----------
    predicted, reference : ndarray, [..., n]

    Returns
    -------
    dict of str to ndarray [...]
        ``bias``: mean of predicted - reference; ``bias_sd``: bias over the standard deviation of the reference; ``r``: Pearson;
        ``icc``: ICC(A,1), two-way, absolute agreement, single measurement (McGraw & Wong 1996); ``loa_low``, ``loa_high``: Bland and
        Altman's limits of agreement, bias -+ 1.96 standard deviations of the difference. NaN where undefined.
    """
    n = predicted.shape[-1]
    difference = predicted - reference
    bias = difference.mean(-1)
    mean_p, mean_r = predicted.mean(-1, keepdims=True), reference.mean(-1, keepdims=True)
    var_p, var_r = predicted.var(-1, ddof=1), reference.var(-1, ddof=1)
    covariance = ((predicted - mean_p) * (reference - mean_r)).sum(-1) / (n - 1)
    spread = difference.std(-1, ddof=1)
    # Mean squares of the two-way layout with two columns.
    rows = (var_p + var_r) / 2 + covariance
    error = (var_p + var_r) / 2 - covariance
    columns = n * bias**2 / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "bias": bias,
            "bias_sd": bias / np.sqrt(var_r),
            "r": covariance / np.sqrt(var_p * var_r),
            "icc": (rows - error) / (rows + error + 2 / n * (columns - error)),
            "loa_low": bias - 1.96 * spread,
            "loa_high": bias + 1.96 * spread,
        }


def _one(predicted: np.ndarray, reference: np.ndarray, draws: int, seed: int) -> dict[str, float]:
    """Statistics of one biomarker with percentile intervals over resampled images."""
    n = len(predicted)
    point = agreement(predicted, reference)
    # The same seed for every biomarker: all see the same resampled cohorts.
    chosen = np.random.default_rng(seed).integers(0, n, (draws, n))
    resampled = agreement(predicted[chosen], reference[chosen])
    out: dict[str, float] = {}
    for name in STATISTICS:
        out[name] = _finite(point[name])
        values = resampled[name][np.isfinite(resampled[name])]
        # Resamples without spread have no correlation; with many of them there is no interval either.
        usable = len(values) >= 0.9 * draws
        low, high = np.quantile(values, [0.025, 0.975]) if usable else (np.nan, np.nan)
        out[f"{name}_ci_low"], out[f"{name}_ci_high"] = float(low), float(high)
    return out


def _finite(value: np.ndarray) -> float:
    return float(value) if np.isfinite(value) else np.nan


def fidelity(
    predicted: pd.DataFrame,
    reference: pd.DataFrame,
    groups: pd.Series | None = None,
    draws: int = 1000,
    seed: int = 0,
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
        Bootstrap resamples of images.
    seed : int

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
                row |= _one(p[pair], r[pair], draws, seed)
            rows.append(row)
    columns = ["group", "biomarker", "family", "unit", "n", "n_predicted", "n_reference"]
    columns += ["mean_predicted", "mean_reference", "sd_reference"]
    columns += [name for statistic in STATISTICS for name in (statistic, f"{statistic}_ci_low", f"{statistic}_ci_high")]
    return pd.DataFrame(rows, columns=columns)


def headline(table: pd.DataFrame, biomarkers: Mapping[str, tuple[str, ...]] = HEADLINE) -> pd.DataFrame:
    """Mean r and mean |bias| over kinds of biomarkers, each kind counting once.

    Parameters
    ----------
    table : DataFrame
        Of :func:`fidelity`.
    biomarkers : dict of str to tuple of str
        Kind (``density``, ``length``, ...) -> its biomarkers; a kind's value is the mean over those that have statistics.

    Returns
    -------
    DataFrame
        One row a group: group, r, bias_sd (mean of absolute values), n_kinds.
    """
    rows = []
    for group, part in table.groupby("group", sort=False):
        part = part.set_index("biomarker")
        kinds = [part.reindex(list(names)) for names in biomarkers.values()]
        r = [kind["r"].mean() for kind in kinds if kind["r"].notna().any()]
        bias = [kind["bias_sd"].abs().mean() for kind in kinds if kind["bias_sd"].notna().any()]
        rows.append(
            {"group": group, "r": np.mean(r) if r else np.nan, "bias_sd": np.mean(bias) if bias else np.nan, "n_kinds": len(r)}
        )
    return pd.DataFrame(rows)
