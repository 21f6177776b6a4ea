"""One fit: the model that an outcome's type asks for, what it does where the data are too thin for it, and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri, stdtr, stdtrit
from scipy.stats import chi2, f, t

from retsam.association.config import Models
from retsam.association.cox import fit_cox
from retsam.association.fellow import disagreement
from retsam.association.firth import fit_firth, one_sided, separated
from retsam.association.fit import DIVERGED, NOT_CONVERGED, OK, SINGULAR, Fit
from retsam.association.gee import fit_gee
from retsam.association.ordinal import fit_ordinal

MODEL_OF = {"binary": "gee_logit", "continuous": "gee_linear", "count": "gee_poisson", "ordered": "ordered_logit", "time": "cox"}
_FAMILY = {"binary": "logit", "continuous": "linear", "count": "poisson"}
_CODES = {NOT_CONVERGED: "not_converged", SINGULAR: "ill_conditioned", DIVERGED: "not_converged"}

#: Log odds (log rate, log hazard) per SD beyond which no ratio is given: of two normal groups so far apart, 99.98 % of pairs are told apart
#: (AUC = Phi(5 / sqrt(2))), so that either the biomarker tells cases from controls outright or its SD is no unit of it. A logistic fit
#: beyond it is tested for separation and penalised first. Also the largest standard error of an estimate that says anything.
UNBOUNDED = 5.0

#: Standard errors by which an exchangeable estimate may differ from that of working independence before it gives way to it: a bias so
#: large takes an interval of 95 % to 94.3 %.
DISAGREE = 0.25

#: Working correlation from which two eyes count by little but their difference (its weight is 1 / (1 - alpha)).
HIGH_CORRELATION = 0.9

#: Rows that differ from the exposure's commonest value, below which separation is looked for with an independence fit, which diverges then.
SPARSE = 20


@dataclass(frozen=True)
class Answer:
    """A fit with its name and what the reader must know.

    Attributes
    ----------
    model : str
        Empty where nothing was estimated.
    fit : Fit or None
        None where nothing was estimated.
    notes : tuple of str
        Codes of ``docs/association-tables.md``.
    joint_df : float
        Denominator degrees of freedom of joint tests of several coefficients; infinite for chi-squared.
    dfs : tuple of float
        Degrees of freedom of t of each exposure's coefficient; empty where they are ``joint_df``.
    """

    model: str
    fit: Fit | None
    notes: tuple[str, ...] = ()
    joint_df: float = math.inf
    dfs: tuple[float, ...] = ()

    def df_of(self, exposure: int) -> float:
        """Degrees of freedom of t of one exposure's coefficient; infinite for the normal distribution."""
        return self.dfs[exposure] if self.dfs else self.joint_df

    @property
    def df(self) -> float:
        """Those of the first exposure."""
        return self.df_of(0)

    def interval(self, level: float, exposure: int = 0) -> tuple[dict[str, float], tuple[str, ...]]:
        """Estimate, error, interval and p of one exposure's coefficient (see :func:`interval`), and notes on them.

        Of a penalised model the interval and p are those of the profile of its likelihood, its ratio divided by how far the cluster-robust
        variance passes that of independent rows. Where an end of the profile is not found they are those of the standard error, and the
        note ``wald_interval`` says so.
        """
        df = self.df_of(exposure)
        beta, se = float(self.fit.beta[exposure]), math.sqrt(float(self.fit.cov[exposure, exposure]))
        out = interval(beta, se, df, level)
        profile = self.fit.profile
        if profile is None or not math.isfinite(out["se"]):
            return out, ()
        wider = se / math.sqrt(float(self.fit.naive[exposure, exposure]))
        target = _quantile(df, level) * wider
        low, high = profile.bound(exposure, -target), profile.bound(exposure, target)
        root = profile.root(exposure) / wider
        if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(root)):
            return out, ("wald_interval",)
        return {**out, "ci_low": low, "ci_high": high, "p": _two_sided(root, df), "neg_log10_p": log10_p(root, df)}, ()


def fit_model(
    kind: str,
    exposures: np.ndarray,
    covariates: np.ndarray,
    y: np.ndarray,
    starts: np.ndarray,
    models: Models,
    event: np.ndarray | None = None,
    entry: np.ndarray | None = None,
    start: np.ndarray | None = None,
    start_alpha: float = 0.0,
    separated_covariates: bool = False,
) -> Answer:
    """Fit the model of an outcome's type.

    Parameters
    ----------
    kind : {'binary', 'ordered', 'continuous', 'count', 'time'}
    exposures : ndarray [n, k]
        Columns of interest, finite.
    covariates : ndarray [n, q]
        Intercept first, linearly independent, unit size.
    y, event, entry : ndarray [n]
        Outcome; for ``time`` also 1 where it happened, and the time of entry or None.
    starts : ndarray [K + 1]
        Row at which each cluster begins, and n.
    models : Models
    start, start_alpha
        See :func:`retsam.association.gee.fit_gee`.
    separated_covariates : bool
        The covariates alone separate the sample of a logistic model: it is penalised at once.

    Returns
    -------
    Answer
        Never an exception and never a wild number for data that have no answer.
    """
    exposures = exposures[:, None] if exposures.ndim == 1 else exposures
    if kind in _FAMILY:
        answer = _fit_gee(kind, exposures, covariates, y, starts, models, start, start_alpha, separated_covariates)
    elif kind == "ordered":
        fit = fit_ordinal(exposures, covariates[:, 1:], y, starts, start, models.small_sample)
        answer = Answer("ordered_logit", fit, (), *_df(fit, models)) if fit.code == OK else Answer("", None, (_CODES[fit.code],))
    elif kind == "time":
        answer = _fit_cox(exposures, covariates, y, event, entry, starts, models)
    else:
        raise ValueError(f"unknown type of outcome {kind!r}")
    if answer.fit is None:
        return answer
    beta, spread = answer.fit.beta, np.diag(answer.fit.cov)[: exposures.shape[1]]
    if not (np.all(np.isfinite(beta)) and np.all(np.isfinite(spread)) and np.all(spread > 0)):
        return Answer("", None, (*answer.notes, "ill_conditioned"))
    if kind != "continuous":
        if effect_size(exposures, beta) > UNBOUNDED:
            return Answer("", None, (*answer.notes, "estimate_unbounded"))
        if exposures.shape[1] == 1 and math.sqrt(spread[0]) * exposures.std() > UNBOUNDED:
            return Answer("", None, (*answer.notes, "ill_conditioned"))
    return answer


def effect_size(exposures: np.ndarray, beta: np.ndarray) -> float:
    """Standard deviation, over the rows, of what the exposures add to the linear predictor: of one exposure, its coefficient per SD."""
    return float(np.std(exposures @ beta[: exposures.shape[1]]))


def _fit_gee(kind, exposures, covariates, y, starts, models, start, start_alpha, separated_covariates) -> Answer:
    if kind == "binary" and separated_covariates:
        return _penalised(exposures, covariates, y, starts, models, "separated_by_covariates")
    family = _FAMILY[kind]
    fit = fit_gee(exposures, covariates, y, starts, family, models.correlation, models.small_sample, start, start_alpha)
    if fit.code != OK and start is not None:
        fit = fit_gee(exposures, covariates, y, starts, family, models.correlation, models.small_sample)
    notes = []
    if kind == "binary":
        size = np.concatenate([exposures.std(axis=0), np.ones(covariates.shape[1])])
        size[exposures.shape[1]] = 0.0  # the intercept of a rare outcome is large in every sample
        odd = fit.code != OK or bool(np.any(np.abs(fit.beta) * size > UNBOUNDED))
        odd = odd or any(_separates(column, covariates, y, starts) for column in exposures.T)
        if odd and separated(np.column_stack([exposures, covariates]), y):
            return _penalised(exposures, covariates, y, starts, models, "separated")
    if models.correlation == "exchangeable":
        if fit.code != OK or fit.bounded or fit.alpha > HIGH_CORRELATION:
            # A correlation that wanders (few pairs, all discordant) must not cost the estimate: independence is as valid, only wider. Nor
            # may one that is near its bound: two eyes count by their difference alone there, and a log odds ratio of 2 came out as 0.1.
            if fit.code == OK:
                notes.append("correlation_bounded")
            fit = fit_gee(exposures, covariates, y, starts, family, "independence", models.small_sample)
            if fit.code == OK:
                notes.append("independence")
        else:
            other = disagreement(exposures, covariates, y, starts, family, fit)
            if abs(other.score) > DISAGREE:
                # The fellow eye's biomarker tells of this eye's outcome: the exchangeable estimate is of something else. What is given so
                # never lies further than DISAGREE from working independence, whose intervals hold.
                notes.append("correlation_matters")
                fit = fit_gee(exposures, covariates, y, starts, family, "independence", models.small_sample)
            else:
                # Which of the two is given was decided by these data. Where independence was left behind, samples that lie far from it were
                # picked out and given up: with the narrower error for those that stay, the two together covered 93 to 94 %.
                wider = np.concatenate([other.wider, np.ones(covariates.shape[1])])
                fit = replace(fit, cov=fit.cov * np.outer(wider, wider))
    if kind == "binary" and models.firth and (fit.code in (NOT_CONVERGED, DIVERGED) or effect_size(exposures, fit.beta) > UNBOUNDED):
        # A row or two keep the sample from separation. Maximum likelihood exaggerates there, and its sandwich error is far too small.
        return _penalised(exposures, covariates, y, starts, models, "nearly_separated")
    if fit.code != OK:
        return Answer("", None, (_CODES[fit.code],))
    if fit.high_leverage:
        notes.append("high_leverage")
    return Answer(f"gee_{family}", fit, tuple(notes), *_df(fit, models))


def _penalised(exposures, covariates, y, starts, models: Models, why: str) -> Answer:
    if not models.firth:
        return Answer("", None, (why,))
    fit = fit_firth(exposures, covariates, y, starts)
    return Answer("firth_logit", fit, (why,), *_df(fit, models)) if fit.code == OK else Answer("", None, (why, _CODES[fit.code]))


def _separates(column: np.ndarray, covariates: np.ndarray, y: np.ndarray, starts: np.ndarray) -> bool:
    """Whether a column may separate the sample, alone or, if it is sparse, with the covariates."""
    if one_sided(column, y):
        return True
    middle = np.median(column)
    if np.count_nonzero(column != middle) >= SPARSE:
        return False
    fit = fit_gee(column, covariates, y, starts, "logit", "independence", "none")
    return fit.code != OK or abs(fit.beta[0]) * float(np.ptp(column)) > 2 * UNBOUNDED


def _df(fit: Fit, models: Models) -> tuple[float, tuple[float, ...]]:
    """Degrees of freedom of joint tests, and of each exposure."""
    if models.small_sample == "none":
        return math.inf, ()
    most = float(max(fit.df, 1))
    if models.degrees_of_freedom == "clusters" or fit.steady is None:
        return most, ()
    return most, tuple(min(float(v), most) for v in fit.steady)


def _fit_cox(exposures, covariates, time, event, entry, starts, models: Models) -> Answer:
    fit = fit_cox(np.column_stack([exposures, covariates[:, 1:]]), time, event, starts, entry)
    if fit.code != OK:
        return Answer("", None, (_CODES[fit.code],))
    if models.small_sample != "none" and fit.df > 0:
        # 60 subjects' robust errors alone covered 92.5 %
        fit = replace(fit, cov=fit.cov * (fit.n_clusters / fit.df))
    return Answer("cox", fit, (), *_df(fit, models))


def log10_p(statistic: float, df: float) -> float:
    """-log10 of the two-sided p of a t (or z) statistic, also where p itself is below the smallest number.

    Parameters
    ----------
    statistic : float
    df : float
        Infinite for the normal distribution.

    Returns
    -------
    float
    """
    a = abs(statistic)
    if not math.isfinite(df):
        tail = float(log_ndtr(-a))
    else:
        p = float(stdtr(df, -a))
        # far out, the tail is the density over its own decay rate
        tail = math.log(p) if p > 1e-290 else float(t.logpdf(a, df)) + math.log((df + a * a) / ((df + 1) * a))
    return max(0.0, -(tail + math.log(2.0)) / math.log(10.0))


def interval(estimate: float, se: float, df: float, level: float) -> dict[str, float]:
    """``estimate``, ``se``, ``ci_low``, ``ci_high``, ``p``, ``neg_log10_p`` of one coefficient."""
    if not (math.isfinite(estimate) and math.isfinite(se) and se > 0):
        return dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "p", "neg_log10_p"), math.nan)
    width = se * _quantile(df, level)
    return {
        "estimate": estimate,
        "se": se,
        "ci_low": estimate - width,
        "ci_high": estimate + width,
        "p": _two_sided(estimate / se, df),
        "neg_log10_p": log10_p(estimate / se, df),
    }


def _quantile(df: float, level: float) -> float:
    """Standard errors from the estimate to the end of an interval."""
    return float(stdtrit(df, 0.5 + level / 2) if math.isfinite(df) else ndtri(0.5 + level / 2))


def _two_sided(statistic: float, df: float) -> float:
    """Two-sided p of a t (or z) statistic."""
    return min(1.0, 2.0 * float(stdtr(df, -abs(statistic)) if math.isfinite(df) else ndtr(-abs(statistic))))


def wald(beta: np.ndarray, cov: np.ndarray, df: float) -> tuple[float, int, float]:
    """Joint Wald test that all of ``beta`` are zero.

    Returns
    -------
    chi2 : float
    rank : int
    p : float
        F with ``df`` denominator degrees of freedom where ``df`` is finite, else chi-squared.
    """
    rank = len(beta)
    if rank == 0 or not np.all(np.isfinite(cov)):
        return math.nan, 0, math.nan
    d = np.sqrt(np.diag(cov))
    if np.any(d <= 0):
        return math.nan, 0, math.nan
    scaled = cov / np.outer(d, d)
    values, vectors = np.linalg.eigh(scaled)
    good = values > 1e-10
    projected = vectors[:, good].T @ (beta / d)
    statistic, rank = float(np.sum(projected**2 / values[good])), int(good.sum())
    if math.isfinite(df):
        # Hotelling's scaling keeps the size when the clusters are few
        denominator = max(df - rank + 1, 1.0)
        return statistic, rank, float(f.sf(statistic * denominator / (df * rank), rank, denominator))
    return statistic, rank, float(chi2.sf(statistic, rank))
