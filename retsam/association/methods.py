"""The statistical paragraphs of a methods section, written from the plan as it was carried out."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from retsam.association.config import AssociationConfig, Outcome
from retsam.association.grid import Exposure
from retsam.association.models import DISAGREE, HIGH_CORRELATION, UNBOUNDED
from retsam.association.multiplicity import LABELS
from retsam.association.robustness import CORRELATED
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
    "fay": "Fay MP, Graubard BI. Small-sample adjustments for Wald-type tests using sandwich estimators. Biometrics 2001;57:1198-1206.",
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
#: Units of which the sample holds no second eye.
_ONE_SIDED = ("subject_mean", "subject_right", "subject_left")
_VISITS = {
    "first": "Of several photographs of an eye that of the first visit was taken, and of one visit the best graded one.",
    "last": "Of several photographs of an eye that of the last visit was taken, and of one visit the best graded one.",
    "all": "All photographs of an eye were taken, as rows of its cluster.",
}
_SMALL = {
    "none": "robust (sandwich) standard errors",
    "df": "robust (sandwich) standard errors multiplied by the square root of K/(K-p)",
    "kauermann_carroll": "robust (sandwich) standard errors with the Kauermann-Carroll correction",
    "mancl_derouen": "robust (sandwich) standard errors with the Mancl-DeRouen correction",
}
_HELD = {
    "hold_out": "left out of the estimates of biomarkers that need that head",
    "mark": "kept; estimates of biomarkers that need that head are marked",
    "exclude": "left out of everything (flow table)",
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


def methods_text(
    config: AssociationConfig, sample: Sample, exposures: Sequence[Exposure], seed: int, circles: pd.DataFrame | None = None
) -> str:
    """Markdown paragraphs with numbered references.

    Parameters
    ----------
    config : AssociationConfig
    sample : Sample
    exposures : sequence of Exposure
    seed : int
    circles : DataFrame, optional
        Which heads learned from analysed subjects, from :func:`retsam.association.circularity.circularity`.

    Returns
    -------
    str
    """
    cite = _Citations()
    kinds: dict[str, list[str]] = {}
    for o in config.outcomes:
        kinds.setdefault(o.type, []).append(o.name)
    analysed = sample.frame.drop_duplicates("subject_key") if config.unit.level == "subject_worse" else sample.frame
    several = analysed["cluster"].nunique() < len(analysed)
    circular = circles is not None and len(circles) > 0 and bool(circles["circular"].astype(bool).any())
    paragraphs = [
        [*_rows(config, sample, circles), *_biomarkers(config, exposures)],
        [*_models(config, kinds, cite), *_multiplicity(config, cite)],
        _sensitivity(config, sample, kinds, several, circular),
        _further(config, kinds, cite),
        [_software(seed, cite)],
    ]
    return "\n".join(
        [
            "## Statistical analysis",
            "",
            *["\n".join(p) + "\n" for p in paragraphs if p],
            "## References of the statistical analysis",
            "",
            *[f"{i}. {_REFERENCES[key]}" for i, key in enumerate(cite.order, 1)],
            "",
        ]
    )


def _values(values: Iterable) -> str:
    return " or ".join(map(str, values))


def _defined(o: Outcome) -> str:
    """An outcome with what the plan says of its column and values."""
    said = {
        "column": o.column if o.column != o.name else None,
        "cases": None if o.positive is None else _values(o.positive),
        "controls": None if o.negative is None else _values(o.negative),
        "levels from lowest to highest": None if o.levels is None else ", ".join(map(str, o.levels)),
        "event": o.event,
        "time of entry": o.entry,
    }
    listed = "; ".join(f"{what} {value}" for what, value in said.items() if value is not None)
    return f"{o.name} ({listed})" if listed else o.name


def _rows(config: AssociationConfig, sample: Sample, circles: pd.DataFrame | None) -> list[str]:
    """What a row is, and which were left out."""
    same = config.unit.cluster if config.unit.cluster == "subject" else f"{config.unit.cluster}, or of the same subject,"
    out = [
        f"The unit of analysis was {_UNIT[config.unit.level]}; rows of the same {same} were treated as a cluster. "
        f"{len(sample.frame)} rows of {sample.frame['subject_key'].nunique()} subjects passed the exclusions (flow table).",
        f"Photographs graded {_values(config.grades)} were analysed.",
        _VISITS[config.unit.visits],
    ]
    if config.exclude:
        out.append(f"Left out were rows with {'; '.join(f'{c} = {_values(v)}' for c, v in config.exclude.items())}.")
    if circles is not None and len(circles):
        touched = circles["circular"].astype(bool) | circles["note"].eq("learned_from_subjects_left_out")
        concerned = f"; this concerns {int(touched.sum())} biomarkers" if touched.any() else "; none of them was left among these rows"
        out.append(f"Subjects whose labels taught a segmentation head were {_HELD[config.circularity.use]}{concerned}.")
    defined = [_defined(o) for o in config.outcomes]
    if any(d != o.name for d, o in zip(defined, config.outcomes, strict=True)):
        out.append(f"Outcomes were {_join(defined)}.")
    return out


def _biomarkers(config: AssociationConfig, exposures: Sequence[Exposure]) -> list[str]:
    """Which biomarkers, and on which scale."""
    plan, total = config.exposures, len(exposures)
    tested = sum(bool(np.isfinite(e.values).any()) for e in exposures)
    text = f"{total} biomarkers were tested"
    if tested < total:
        text = f"Of the plan's {total} biomarkers, {tested} had a value in an analysed row and were tested"
    if plan.families is not None or plan.columns is not None:
        chosen = [f"the {'family' if len(plan.families) == 1 else 'families'} {_join(plan.families)}"] if plan.families else []
        if plan.columns:
            chosen.append(_join(plan.columns) if len(plan.columns) <= 12 else f"{len(plan.columns)} by name")
        text += f" (chosen by the plan: {' and '.join(chosen) or 'none'})"
    if plan.exclude:
        text += f", without {_join(plan.exclude)}"
    if plan.presence:
        present = sum(e.name.endswith("__present") for e in exposures)
        text += f", {present} of them whether another one is above zero (__present)"
    text += (
        ", each divided by its standard deviation within the analysed rows, so that estimates are per SD"
        if plan.standardise
        else ", in their own units, so that estimates are per unit"
    )
    transforms = Counter(e.transform for e in exposures)
    named = plan.transform != "none" or bool(plan.transforms)
    why = {
        "log1p": ("as the plan names them" if named else "counts, by their unit", "transformed by log(1 + x) first"),
        "log_relative": (
            "as the plan names them" if named else "areas and coverages of lesions and phenotypes, squared curvature",
            "transformed by log(1 + x/m) first, m being the median of the values above zero",
        ),
        "rank_inverse_normal": ("as the plan names them", "replaced by rank-based inverse normal scores"),
    }
    done = [f"{transforms[t]} of the {total} ({which}) were {what}" for t, (which, what) in why.items() if transforms[t]]
    text += f"; {'; '.join(done)}" if done else "; none was transformed"
    if plan.winsorise:
        text += f"; {_pulled_in(plan.winsorise)} before that"
    return [text + "."]


def _pulled_in(share: float) -> str:
    return f"values beyond the {100 * share:g} and {100 - 100 * share:g} percent quantiles were pulled in to them"


def _models(config: AssociationConfig, kinds: dict[str, list[str]], cite: _Citations) -> list[str]:
    """Models, their errors, and when there is no estimate."""
    m, out, parts = config.models, [], []
    for kind, names in kinds.items():
        key = {"ordered": ("ordered",), "time": ("cox", "efron")}.get(kind, ("gee",))
        parts.append(f"{_join(names)} by {_MODEL[kind]} {cite(*key)}")
    if parts:
        out.append("Associations were estimated for " + "; ".join(parts) + ".")
    if set(CORRELATED) & set(kinds):
        if m.correlation == "independence":
            working = f"independence within a cluster, which asks nothing of the fellow eye's biomarker {cite('pepe')}"
        else:
            working = "exchangeable correlation within a cluster"
        small = _SMALL[m.small_sample] + (f" {cite(m.small_sample)}" if m.small_sample in _REFERENCES else "")
        out.append(f"Estimating equations assumed working {working}; inference used {small}.")
        if m.correlation == "exchangeable":
            out.append(
                f"The exchangeable correlation gave way to working independence, and the row says so, where the two estimates lay more "
                f"than {DISAGREE:g} standard errors apart (the fellow eye's biomarker then tells of this eye's outcome {cite('pepe')}), "
                f"and where the correlation could not be estimated, was out of bounds or above {HIGH_CORRELATION:g}; elsewhere its "
                "standard errors were taken no smaller than those of independence."
            )
    if "ordered" in kinds:
        powers = {"kauermann_carroll": "-1/2", "mancl_derouen": "-1"}
        errors = (
            f"with each cluster's score multiplied by the power {powers[m.small_sample]} of one less its leverage {cite('fay')}"
            if m.small_sample in powers
            else {"df": "multiplied by the square root of K/(K-p)", "none": "without a correction for few clusters"}[m.small_sample]
        )
        out.append(f"Errors of proportional-odds models were those of the sandwich of scores summed over clusters, {errors}.")
    if "time" in kinds:
        errors = "without a correction for few clusters" if m.small_sample == "none" else "multiplied by the square root of K/(K-p)"
        out.append(f"Errors of Cox models were those of the robust variance, {errors}.")
    if m.small_sample == "none":
        of = "the normal distribution"
    elif m.degrees_of_freedom == "pan_wall":
        of = (
            f"the t distribution with degrees of freedom estimated from the clusters' parts in the variance {cite('pan_wall')}, at most K-p"
        )
    else:
        of = "the t distribution with K-p degrees of freedom"
    known = "" if m.small_sample == "none" else " (K clusters, p coefficients)"
    out.append(f"{100 * m.level:g} % confidence intervals and p values are of {of}{known}.")
    sets = "; ".join(f"{name} ({', '.join(terms) if terms else 'no covariates'})" for name, terms in config.covariate_sets.items())
    out.append(f"Each model was fitted with these covariate sets: {sets}. Rows that lack a covariate of a set were left out of it.")
    if config.subgroups:
        out.append(f"Models were also fitted within the levels of {_subgroups(config)}.")
    out.append(
        f"No estimate is reported from fewer than {m.min_cases} cases or controls, {m.min_rows} rows, {m.min_clusters} clusters or "
        f"{m.min_cell} rows that differ from the biomarker's commonest value."
    )
    if "binary" in kinds and m.firth:
        out.append(
            f"Separated logistic models, found by linear programming, and those with more than {UNBOUNDED:g} log odds per SD were refitted "
            f"with Firth's penalised likelihood {cite('firth', 'heinze')}, with the larger of the model-based and the cluster-robust "
            "standard error; intervals and p values are those of the profile of that likelihood, its ratio divided by how far the robust "
            f"variance passes the model-based one {cite('chandler')}."
        )
    elif "binary" in kinds:
        out.append("Separated logistic models, found by linear programming, gave no estimate.")
    if set(kinds) - {"continuous"}:
        out.append(f"No ratio is reported where its logarithm, or the standard error of that, passed {UNBOUNDED:g} per SD.")
    return out


def _subgroups(config: AssociationConfig) -> str:
    return _join([c if not cuts else f"{c} (cut at {_join([f'{v:g}' for v in cuts])})" for c, cuts in config.subgroups.items()])


def _multiplicity(config: AssociationConfig, cite: _Citations) -> list[str]:
    method = config.multiple.method
    scope = (
        "of each outcome, covariate set and subgroup"
        if config.multiple.family == "outcome"
        else "of each covariate set and subgroup over all outcomes"
    )
    extra = f" {cite(method)}" if method in _REFERENCES else ""
    return [
        f"p values are two-sided. They were corrected over the biomarkers {scope} by {LABELS[method]}{extra} at "
        f"{config.multiple.alpha:g}; other corrections stand beside it, among them by the effective number of tests {cite('meff')}."
    ]


def _top(config: AssociationConfig) -> str:
    top = config.robustness.top
    return "every biomarker" if top == 0 else f"the {top} biomarkers of each outcome with the smallest p"


def _sensitivity(config: AssociationConfig, sample: Sample, kinds: dict[str, list[str]], several: bool, circular: bool) -> list[str]:
    """The analyses of the sensitivity table that this sample allows."""
    r, frame = config.robustness, sample.frame
    done = []
    if r.gradable_only and "quality_grade" in frame and (frame["quality_grade"] == "usable").any():
        done.append("with photographs graded gradable alone")
    done += [f"without each level of {column} in turn" for column in r.leave_one_out]
    correlated = [name for kind in CORRELATED for name in kinds.get(kind, ())]
    if r.other_correlation and several and correlated:
        other = "independence" if config.models.correlation == "exchangeable" else "exchangeable correlation"
        gave_way = "" if other == "independence" else ", which gives way to independence where the fellow eye tells of this one"
        done.append(f"under working {other} ({_join(correlated)}){gave_way}")
    if r.one_eye and several:
        done.append("with one row a cluster, drawn at random")
    if r.winsorise and r.winsorise != config.exposures.winsorise:
        done.append(f"with biomarkers whose {_pulled_in(r.winsorise)}")
    if r.rank:
        done.append("with rank-based inverse normal scores of the biomarker")
    mixed = [name for kind in ("binary", "continuous") for name in kinds.get(kind, ())]
    if config.models.mixed and mixed:
        done.append(f"by mixed models with a random intercept a cluster ({_join(mixed)}; of odds, conditional on the cluster)")
    if circular:
        done.append("with subjects whose labels taught no head")
    if not done:
        return []
    return [
        f"As sensitivity analyses, estimates of {_top(config)} were repeated, in the covariate set {config.primary_set}: {'; '.join(done)}."
    ]


def _reliability(config: AssociationConfig) -> str:
    """Where the reliability of a biomarker comes from."""
    r = config.robustness
    sources = [f"as given for {_join([f'{k} ({v:g})' for k, v in r.reliability.items()])}"] if r.reliability else []
    sources.append("from repeat photographs")
    if r.eyes_as_replicates and config.unit.level not in _ONE_SIDED:
        sources.append("else from the agreement of both eyes, a lower bound")
    text = f"where a reliability was known ({'; '.join(sources)})"
    if r.eyes_as_replicates and config.unit.level in _ONE_SIDED:
        text += "; the agreement of both eyes, which the plan asks for, does not exist with one row a subject"
    return text


def _further(config: AssociationConfig, kinds: dict[str, list[str]], cite: _Citations) -> list[str]:
    r, further = config.robustness, []
    if r.shape:
        further.append(
            f"the shape was examined in quintiles and by restricted cubic splines with {r.knots} knots {cite('spline')}, with a Wald "
            f"test of the non-linear terms"
        )
    if config.subgroups and r.interactions:
        further.append(f"differences between subgroups ({_subgroups(config)}) were tested by the products of biomarker and subgroup")
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
            f"estimates were corrected for measurement error by regression calibration {cite('rc')} and SIMEX {cite('simex')} "
            + _reliability(config)
        )
    if r.discrimination and "binary" in kinds:
        further.append(
            f"discrimination was assessed by {r.folds}-fold cross-validation grouped by cluster, with AUC intervals for clustered "
            f"data {cite('auc')}, cases compared with controls of the same fold {cite('folds')}"
            + ("" if r.top == 0 else "; single biomarkers were chosen by p on the same data, so that their AUC is too high")
        )
    if r.camera and {"binary", "ordered"} & set(kinds):
        source = f"source ({', '.join(r.camera_columns)})" if r.camera_columns else "source (no column given)"
        further.append(
            f"image size, {source} and quality alone were tested as predictors of each outcome by {r.folds}-fold cross-validation, as a "
            f"check of confounding by the camera, with a warning where the lower end of the AUC's interval passed {r.camera_warning:g}"
        )
    if not further:
        return []
    which = _top(config) + ("" if r.top == 0 else " (interactions and replication: all)")
    return [f"Further analyses, in the covariate set {config.primary_set}, of {which}: {'; '.join(further)}."]


def _software(seed: int, cite: _Citations) -> str:
    from retsam._version import __version__

    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("numpy", "scipy", "numba", "formulaic"))
    return (
        f"Analyses were run with retsam {__version__} ({versions}), seed {seed}. Association is not effect: estimates describe "
        f"differences between eyes, not what would follow from changing them. Reporting follows STROBE {cite('strobe')}."
    )
