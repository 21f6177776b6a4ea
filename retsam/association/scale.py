"""Scales of biomarkers: what is done to one before it is standardised, by what kind of quantity it is.

The scale is settled by the dictionary (family, unit, name) and by the plan, never by a p value. A standard deviation describes a roughly
symmetric quantity. Amounts of something that most eyes lack are zero or spread over orders of magnitude; one SD of the raw amount is set
by the few sickest eyes, and a slope per raw SD says little of all others (Box & Cox 1964, JRSS B 26:211; Bland & Altman 1996, BMJ
312:700, on logs before standardising).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from scipy.stats import norm, rankdata

from retsam.association.config import Exposures

#: Transforms of the form log(1 + x / m): m is 1 for ``log1p``, the median of the values above zero for ``log_relative``.
LOGS = ("log1p", "log_relative")


@dataclass(frozen=True)
class Rule:
    """The transform of a kind of biomarker.

    Attributes
    ----------
    transform : str
    units : tuple of str
        Of the dictionary.
    families : tuple of str
        Of the dictionary; empty for all.
    pattern : str
        Shell pattern of the name.
    why : str
    """

    transform: str
    units: tuple[str, ...]
    families: tuple[str, ...]
    pattern: str
    why: str


#: The first rule that fits is taken; one that none fits keeps its scale (calibres, ratios, angles, densities, sizes of the disc).
RULES = (
    Rule("log1p", ("count",), (), "*", "counts: the spread grows with the mean, and zero is common"),
    Rule(
        "log_relative",
        ("px2", "DD2", "mm2"),
        ("lesions", "phenotypes"),
        "*",
        "areas of what can be absent, over orders of magnitude",
    ),
    Rule("log_relative", ("1",), ("lesions", "phenotypes"), "*_coverage*", "shares of a region covered by what can be absent"),
    Rule("log_relative", ("DD^-2",), ("vessels",), "*", "squared curvature: positive, over orders of magnitude"),
)


def winsorise(values: np.ndarray, share: float) -> np.ndarray:
    """Pull values beyond the ``share`` and ``1 - share`` quantiles in to them."""
    if share <= 0 or len(values) == 0:
        return values
    low, high = np.quantile(values, [share, 1 - share])
    return np.clip(values, low, high)


def rank_inverse_normal(values: np.ndarray) -> np.ndarray:
    """Blom's normal scores of the ranks, ties sharing their mean rank: ``Phi^-1((r - 3/8) / (n + 1/4))``."""
    return norm.ppf((rankdata(values) - 0.375) / (len(values) + 0.25))


def log_unit(values: np.ndarray, transform: str) -> float:
    """The ``m`` of ``log(1 + x / m)``.

    Parameters
    ----------
    values : ndarray [n]
        Of the whole sample, NaN where not measured: every outcome and subgroup gets the same ``m``.
    transform : str

    Returns
    -------
    float
        1 for ``log1p``; the median of the values above zero for ``log_relative`` (1 where there is none), which makes the transform the
        same in any unit; NaN for other transforms.
    """
    if transform not in LOGS:
        return math.nan
    if transform == "log1p":
        return 1.0
    positive = values[np.isfinite(values) & (values > 0)]
    return float(np.median(positive)) if len(positive) else 1.0


def transformed(values: np.ndarray, transform: str, share: float, unit: float = 1.0) -> tuple[np.ndarray | None, str]:
    """A biomarker of the analysed rows on its analysis scale.

    Parameters
    ----------
    values : ndarray [n]
        Finite.
    transform : {'none', 'log1p', 'log_relative', 'rank_inverse_normal'}
    share : float
        Winsorised share at either end.
    unit : float
        From :func:`log_unit`.

    Returns
    -------
    ndarray [n] or None
        None where the transform is not defined.
    note : str
    """
    values = winsorise(values, share)
    if transform in LOGS:
        if len(values) and values.min() <= -unit:
            return None, "log_of_negative"
        return np.log1p(values / unit), ""
    if transform == "rank_inverse_normal":
        return rank_inverse_normal(values), ""
    return values, ""


def choose_transform(name: str, family: str, unit: str, exposures: Exposures) -> str:
    """Transform of one biomarker under the plan.

    Parameters
    ----------
    name, family, unit : str
        As in the dictionary; ``other`` and empty where it does not know the biomarker.
    exposures : Exposures

    Returns
    -------
    {'none', 'log1p', 'log_relative', 'rank_inverse_normal'}
        What ``transforms`` says of the name, else what the kind of biomarker calls for (``transform_by_kind``), else ``transform``.
    """
    for pattern, transform in exposures.transforms.items():
        if fnmatchcase(name, pattern):
            return transform
    if exposures.transform_by_kind and exposures.transform == "none":
        for rule in RULES:
            if unit in rule.units and (not rule.families or family in rule.families) and fnmatchcase(name, rule.pattern):
                return rule.transform
    return exposures.transform
