"""The statistical paragraphs of a methods section, written from the plan as it was carried out."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence

from retsam.association.config import AssociationConfig
from retsam.association.grid import Exposure
from retsam.association.models import UNBOUNDED
from retsam.association.multiplicity import LABELS
from retsam.association.sample import Sample

_REFERENCES = {
    "gee": "Liang KY, Zeger SL. Longitudinal data analysis using generalized linear models. Biometrika 1986;73:13-22.",
    "pepe": "Pepe MS, Anderson GL. A cautionary note on inference for marginal regression models with longitudinal data and general "
    "correlated response data. Commun Stat Simul Comput 1994;23:939-951.",
    "mancl_derouen": "Mancl LA, DeRouen TA. A covariance estimator for GEE with improved small-sample properties. Biometrics "
    "2001;57:126-134.",
    "kauermann_carroll": "Kauermann G, Carroll RJ. A note on the efficiency of sandwich covariance matrix estimation. J Am Stat Assoc "
    "2001;96:1387-1396.",
    "pan_wall": "Pan W, Wall MM. Small-sample adjustments in using the sandwich variance estimator in generalized estimating equations. "
    "Stat Med 2002;21:1429-1441.",
    "firth": "Firth D. Bias reduction of maximum likelihood estimates. Biometrika 1993;80:27-38.",
    "heinze": "Heinze G, Schemper M. A solution to the problem of separation in logistic regression. Stat Med 2002;21:2409-2419.",
    "chandler": "Chandler RE, Bate S. Inference for clustered data using the independence loglikelihood. Biometrika 2007;94:167-183.",
    "ordered": "McCullagh P. Regression models for ordinal data. J R Stat Soc B 1980;42:109-142.",
    "cox": "Lin DY, Wei LJ. The robust inference for the Cox proportional hazards model. J Am Stat Assoc 1989;84:1074-1078.",
    "efron": "Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat Assoc 1977;72:557-565.",
    "bh": "Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 1995;57:289-300.",
    "by": "Benjamini Y, Yekutieli D. The control of the false discovery rate in multiple testing under dependency. Ann Stat "
    "2001;29:1165-1188.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "meff": "Li J, Ji L. Adjusting multiple testing in multilocus analyses using the eigenvalues of a correlation matrix. Heredity "
    "2005;95:221-227.",
    "spline": "Harrell FE. Regression Modeling Strategies. 2nd ed. Springer; 2015.",
    "mice": "van Buuren S, Groothuis-Oudshoorn K. mice: multivariate imputation by chained equations in R. J Stat Softw 2011;45(3).",
    "rubin": "Barnard J, Rubin DB. Small-sample degrees of freedom with multiple imputation. Biometrika 1999;86:948-955.",
    "dl": "DerSimonian R, Laird N. Meta-analysis in clinical trials. Control Clin Trials 1986;7:177-188.",
    "rc": "Rosner B, Spiegelman D, Willett WC. Correction of logistic regression relative risk estimates and confidence intervals for "
    "measurement "
    "error. Am J Epidemiol 1990;132:734-745.",
    "simex": "Cook JR, Stefanski LA. Simulation-extrapolation estimation in parametric measurement error models. J Am Stat Assoc "
    "1994;89:1314-1328.",
    "folds": "Airola A, Pahikkala T, Waegeman W, De Baets B, Salakoski T. An experimental comparison of cross-validation techniques for "
    "estimating the area under the ROC curve. Comput Stat Data Anal 2011;55:1828-1844.",
    "auc": "Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567-578.",
    "strobe": "von Elm E, et al. The STROBE statement. Lancet 2007;370:1453-1457.",
}

_MODEL = {
    "binary": "logistic regression by generalised estimating equations",
    "ordered": "proportional-odds regression with cluster-robust errors",
    "continuous": "linear regression by generalised estimating equations",
    "count": "log-linear (Poisson) regression by generalised estimating equations",
    "time": "Cox regression with cluster-robust errors",
}
_UNIT = {
    "eye": "the eye",
    "subject_mean": "the subject (biomarkers averaged over both eyes, outcome of the worse eye)",
    "subject_worse": "the subject's eye with the higher outcome",
    "subject_right": "the right eye",
    "subject_left": "the left eye",
}
_SMALL = {
    "none": "robust (sandwich) standard errors and the normal distribution",
    "df": "robust (sandwich) standard errors multiplied by the square root of K/(K-p)",
    "kauermann_carroll": "robust (sandwich) standard errors with the Kauermann-Carroll correction",
    "mancl_derouen": "robust (sandwich) standard errors with the Mancl-DeRouen correction",
}


class _Citations:
    def __init__(self):
        self.order: list[str] = []

    def __call__(self, *keys: str) -> str:
        for key in keys:
            if key not in self.order:
                self.order.append(key)
        return "[" + ",".join(str(self.order.index(key) + 1) for key in keys) + "]"


def _join(words: Sequence[str]) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def methods_text(config: AssociationConfig, sample: Sample, exposures: Sequence[Exposure], seed: int) -> str:
    """Markdown paragraphs with numbered references.

    Parameters
    ----------
    config : AssociationConfig
    sample : Sample
    exposures : sequence of Exposure
    seed : int

    Returns
    -------
    str
    """
    cite = _Citations()
    m, r = config.models, config.robustness
    kinds = {}
    for o in config.outcomes:
        kinds.setdefault(o.type, []).append(o.name)
    transforms = Counter(e.transform for e in exposures)
    out = ["## Statistical analysis", ""]
    text = (
        f"The unit of analysis was {_UNIT[config.unit.level]}; rows of the same {config.unit.cluster} were treated as a cluster. "
        f"{len(sample.frame)} rows of {sample.frame['subject_key'].nunique()} subjects passed the exclusions (flow table). "
        f"{len(exposures)} biomarkers were tested"
    )
    if config.exposures.standardise:
        text += ", each divided by its standard deviation within the analysed rows, so that estimates are per SD"
    if transforms["log1p"]:
        text += f"; {transforms['log1p']} of them (counts, by their unit) were transformed by log(1 + x) first"
    if transforms["log_relative"]:
        text += (
            f"; {transforms['log_relative']} of them (areas and coverages of lesions and phenotypes, squared curvature) were transformed "
            "by log(1 + x/m) first, m being the median of the values above zero"
        )
    if transforms["rank_inverse_normal"]:
        text += f"; {transforms['rank_inverse_normal']} were replaced by rank-based inverse normal scores"
    if config.exposures.winsorise:
        low = 100 * config.exposures.winsorise
        text += f"; values beyond the {low:g} and {100 - low:g} percent quantiles were pulled in to them"
    out += [text + ".", ""]
    parts = []
    for kind, names in kinds.items():
        key = {"ordered": ("ordered",), "time": ("cox", "efron")}.get(kind, ("gee",))
        parts.append(f"{_join(names)} by {_MODEL[kind]} {cite(*key)}")
    if parts:
        out.append("Associations were estimated for " + "; ".join(parts) + ".")
    if {"binary", "continuous", "count"} & set(kinds):
        small = _SMALL[m.small_sample]
        extra = f" {cite(m.small_sample)}" if m.small_sample in _REFERENCES else ""
        working = "independence" if m.correlation == "independence" else "exchangeable correlation"
        why = f", which asks nothing of the fellow eye's biomarker {cite('pepe')}" if m.correlation == "independence" else ""
        out.append(f"Estimating equations assumed working {working} within a cluster{why}; inference used {small}{extra}.")
    if m.small_sample != "none":
        freedom = (
            f"degrees of freedom estimated from the clusters' parts in the variance {cite('pan_wall')}, at most K-p"
            if m.degrees_of_freedom == "pan_wall"
            else "K-p degrees of freedom"
        )
        out.append(f"Intervals and p values are of the t distribution with {freedom} (K clusters, p coefficients).")
    sets = "; ".join(f"{name} ({', '.join(terms) if terms else 'no covariates'})" for name, terms in config.covariate_sets.items())
    out.append(f"Each model was fitted with these covariate sets: {sets}. Rows that lack a covariate of a set were left out of it.")
    out.append(
        f"No estimate is reported from fewer than {m.min_cases} cases or controls, {m.min_rows} rows, {m.min_clusters} clusters or "
        f"{m.min_cell} rows that differ "
        "from the biomarker's commonest value."
    )
    if "binary" in kinds and m.firth:
        out.append(
            f"Separated logistic models, found by linear programming, and those with more than {UNBOUNDED:g} log odds per SD were refitted "
            f"with Firth's penalised likelihood {cite('firth', 'heinze')}, with the larger of the model-based and the cluster-robust "
            "standard error; intervals and p values are those of the profile of that likelihood, its ratio divided by how far the robust "
            f"variance passes the model-based one {cite('chandler')}."
        )
    if set(kinds) - {"continuous"}:
        out.append(f"No ratio is reported where its logarithm, or the standard error of that, passed {UNBOUNDED:g} per SD.")
    scope = (
        "of each outcome, covariate set and subgroup"
        if config.multiple.family == "outcome"
        else "of each covariate set and subgroup over all outcomes"
    )
    method = config.multiple.method
    extra = f" {cite(method)}" if method in _REFERENCES else ""
    out.append(
        f"p values are two-sided. They were corrected over the biomarkers {scope} by {LABELS[method]}{extra} at "
        f"{config.multiple.alpha:g}; other corrections "
        f"stand beside it, among them by the effective number of tests {cite('meff')}."
    )
    out.append("")
    further = []
    if r.shape:
        further.append(
            f"the shape was examined in quintiles and by restricted cubic splines with {r.knots} knots {cite('spline')}, with a Wald "
            f"test of the non-linear terms"
        )
    if config.subgroups and r.interactions:
        further.append(
            f"differences between subgroups ({', '.join(config.subgroups)}) were tested by the products of biomarker and subgroup"
        )
    if r.imputations > 1:
        further.append(
            f"missing biomarkers and covariates were imputed {r.imputations} times by chained equations with predictive mean matching "
            f"{cite('mice')} and pooled by Rubin's rules "
            f"{cite('rubin')}; the fellow eye's values were among the predictors and clusters were resampled whole"
            + ("; times to an event were not imputed for" if "time" in kinds else "")
        )
    if r.replication:
        further.append(
            f"a discovery part ({100 * r.discovery_share:g} % by {r.replication}) was replicated in the rest and both were pooled by "
            f"fixed and random effects {cite('dl')}"
        )
    if r.measurement_error:
        further.append(
            f"estimates were corrected for measurement error by regression calibration {cite('rc')} and SIMEX {cite('simex')} where a "
            f"reliability was known"
        )
    if r.discrimination and "binary" in kinds:
        further.append(
            f"discrimination was assessed by {r.folds}-fold cross-validation grouped by cluster, with AUC intervals for clustered "
            f"data {cite('auc')}, cases compared with controls of the same fold {cite('folds')}"
            + ("" if r.top == 0 else "; single biomarkers were chosen by p on the same data, so that their AUC is too high")
        )
    if r.camera:
        further.append(
            "image size, source and quality alone were tested as predictors of each outcome, as a check of confounding by the camera"
        )
    if further:
        top = (
            "every biomarker"
            if r.top == 0
            else f"the {r.top} biomarkers of each outcome with the smallest p (interactions and replication: all)"
        )
        out += [f"Further analyses, in the covariate set {config.primary_set}, of {top}: " + "; ".join(further) + ".", ""]
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("numpy", "scipy", "numba", "formulaic"))
    from retsam._version import __version__

    out += [
        f"Analyses were run with retsam {__version__} ({versions}), seed {seed}. Association is not effect: estimates describe "
        f"differences between eyes, not what would "
        f"follow from changing them. Reporting follows STROBE {cite('strobe')}.",
        "",
        "## References of the statistical analysis",
        "",
        *[f"{i}. {_REFERENCES[key]}" for i, key in enumerate(cite.order, 1)],
        "",
    ]
    return "\n".join(out)
