"""The methods paragraph, ready to paste: what was done, with versions, settings and citations, all from the study's own record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from retsam._version import __version__
from retsam.report.flow import analysed_grades, flow_table, shared_steps, stage_row
from retsam.report.sections.common import CORRECTIONS
from retsam.report.study import Study

REFERENCES: dict[str, str] = {
    "retsam": "Wang et al. A General Model for Retinal Segmentation and Quantification. arXiv:2602.07012, 2026.",
    "knudtson": (
        "Knudtson MD, Lee KE, Hubbard LD, et al. Revised formulas for summarizing retinal vessel diameters. Curr Eye Res 2003;27:143-149."
    ),
    "gee": "Liang KY, Zeger SL. Longitudinal data analysis using generalized linear models. Biometrika 1986;73:13-22.",
    "kauermann": (
        "Kauermann G, Carroll RJ. A note on the efficiency of sandwich covariance matrix estimation. J Am Stat Assoc 2001;96:1387-1396."
    ),
    "mancl": "Mancl LA, DeRouen TA. A covariance estimator for GEE with improved small-sample properties. Biometrics 2001;57:126-134.",
    "firth": "Firth D. Bias reduction of maximum likelihood estimates. Biometrika 1993;80:27-38.",
    "heinze": "Heinze G, Schemper M. A solution to the problem of separation in logistic regression. Stat Med 2002;21:2409-2419.",
    "bh": "Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 1995;57:289-300.",
    "by": (
        "Benjamini Y, Yekutieli D. The control of the false discovery rate in multiple testing under dependency. Ann Stat "
        "2001;29:1165-1188."
    ),
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "meff": (
        "Li J, Ji L. Adjusting multiple testing in multilocus analyses using the eigenvalues of a correlation matrix. Heredity "
        "2005;95:221-227."
    ),
    "strobe": (
        "von Elm E, Altman DG, Egger M, et al. The Strengthening the Reporting of Observational Studies in Epidemiology (STROBE) "
        "statement. Lancet 2007;370:1453-1457."
    ),
    "snakemake": "M\u00f6lder F, Jablonski KP, Letcher B, et al. Sustainable data analysis with Snakemake. F1000Research 2021;10:33.",
}

_DUPLICATES = {"content": "photographs with identical content", "near": "near duplicates"}

_MODELS = {
    "binary": "logistic regression",
    "ordered": "proportional-odds regression with cluster-robust standard errors",
    "continuous": "linear regression",
    "count": "Poisson regression with robust errors",
    "time": "Cox regression with cluster-robust standard errors",
}


def package_versions(study: Study) -> dict[str, str]:
    """Versions from the provenance, else of what is installed here."""
    recorded = (study.provenance or {}).get("packages")
    if isinstance(recorded, Mapping):
        return {str(k): str(v) for k, v in recorded.items() if v}
    found = {}
    for name in ("torch", "numpy", "scipy", "pandas", "scikit-image", "zarr", "dask"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Citations:
    """References in the order of their first citation, each once however its text is shortened (year, volume and pages tell them apart)."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def text(self, reference: str) -> int:
        """Number of a reference given in full."""
        mark = _mark(reference)
        for i, known in enumerate(self.texts):
            if _mark(known) == mark:
                return i + 1
        self.texts.append(reference)
        return len(self.texts)

    def __call__(self, *keys: str) -> str:
        return "[" + ",".join(str(self.text(REFERENCES[k])) for k in keys) + "]"


def _mark(reference: str) -> str:
    found = re.search(r"\d{4};\d+.*", reference)
    return found.group(0).rstrip(". ") if found else reference


def sentences(study: Study, attributes: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The paragraphs of the methods, and the references that they cite, in order."""
    cite = Citations()
    return [_images(study, attributes, cite), *_statistics(study, cite), _software(study, cite)], cite.texts


def merge(markdown: str, cite: Citations) -> list[str]:
    """Paragraphs of a methods text with a numbered reference list of its own, its citations renumbered to go on from ``cite``."""
    body, _, references = markdown.partition("\n## References")
    own = dict(re.findall(r"^(\d+)\. (.+)$", references, flags=re.MULTILINE))

    def renumber(match: re.Match) -> str:
        numbers = match.group(1).split(",")
        if any(n.strip() not in own for n in numbers):
            return match.group(0)
        return "[" + ",".join(str(cite.text(own[n.strip()])) for n in numbers) + "]"

    text = re.sub(r"\[(\d+(?:, ?\d+)*)\]", renumber, body)
    paragraphs = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text)]
    return [p for p in paragraphs if p and not p.startswith("#")]


def _images(study: Study, attributes: Mapping[str, Any], cite: Citations) -> str:
    flow = flow_table(study)
    text = (
        "Colour fundus photographs were processed with retsam "
        f"{(study.provenance or {}).get('retsam', {}).get('version') or __version__} {cite('retsam')}. "
    )
    if flow is not None and len(shared := shared_steps(flow)):
        first, last = shared.iloc[0], stage_row(flow, "measured")
        whole = f"{int(first['n_images'])} photographs" + (
            f" of {int(first['n_subjects'])} subjects" if first["n_subjects"] == first["n_subjects"] else ""
        )
        judged = "" if _rejects_analysed(study) else ", of sufficient quality"
        text += f"There were {whole}. " if last is None else f"Of {whole}, {int(last['n_images'])} were readable{judged} and measured. "
    text += _grading(study)
    if attributes:
        available = [t for t, s in (attributes.get("target_status") or {}).items() if s != "not_available"]
        weights = str(attributes.get("weights_sha256") or "")[:12]
        text += (
            f"Structures were segmented in the square of the field of view at {attributes.get('frame_side')} px by the model "
            f"{attributes.get('model')} (weights SHA-256 {weights}; heads: "
            f"{', '.join(t.replace('_', ' ') for t in available)}). "
        )
    if study.biomarker_names:
        text += (
            f"{len(study.biomarker_names)} biomarkers were computed from the masks; central retinal artery and vein equivalents follow "
            f"{cite('knudtson')}. Values that could not be measured were left missing, "
            "with a reason."
        )
    return text


def _grading(study: Study) -> str:
    """Which photographs quality kept out; empty where none was graded."""
    # the settings of the run that graded them, where it left a record
    recorded = (((study.provenance or {}).get("config") or {}).get("settings") or {}).get("quality")
    quality = recorded or study.settings.get("quality") or {}
    if not quality or study.main("quality") is None:
        return ""
    grades = analysed_grades(study)
    kept = "and analysed like the others" if _rejects_analysed(study) else "and not measured"
    analysed = kept if "reject" in grades else "and excluded"
    out = [g for g in ("gradable", "usable") if g not in grades]
    more = f"; those graded {_and(out)} were not analysed either" if out else ""
    copies = _DUPLICATES.get(quality.get("duplicates"))
    also = f"Of {copies}, one was kept. " if copies else "Duplicates were not looked for. "
    return (
        f"Photographs whose predicted probability of being a reject was {quality.get('reject_above')} or more were graded reject "
        f"{analysed}{more}. {also}"
    )


def _rejects_analysed(study: Study) -> bool:
    """Whether the plan analyses rejected photographs, and they were measured: `measure gather` leaves them without values."""
    quality, biomarkers = study.main("quality"), study.main("biomarkers")
    if "reject" not in analysed_grades(study) or quality is None or biomarkers is None:
        return False
    rejected = biomarkers["image_id"].isin(quality.loc[quality["grade"] == "reject", "image_id"])
    return bool((biomarkers.loc[rejected, "reason"].astype("string").fillna("") != "quality_reject").any())


def _statistics(study: Study, cite: Citations) -> list[str]:
    own = study.results / "tables" / "methods.md"
    if own.is_file():
        return merge(own.read_text(encoding="utf-8"), cite)
    plan = study.plan
    table = study.main("associations")
    if not plan or not study.outcomes or table is None or table.empty:
        return []
    models, multiple, unit = plan.get("models") or {}, plan.get("multiple") or {}, plan.get("unit") or {}
    kinds = list(dict.fromkeys(_MODELS[study.outcome_type(o)] for o in study.outcomes))
    text = f"Associations of each biomarker with {_and(study.outcomes)} were estimated by {_and(kinds)}"
    if unit.get("level", "eye") == "eye":
        text += (
            f", with generalised estimating equations for the two eyes of a subject ({models.get('correlation', 'independence')} "
            f"working correlation, robust sandwich variance) {cite('gee')}"
        )
        correction = models.get("small_sample")
        if correction == "kauermann_carroll":
            text += f" and the small-sample correction of Kauermann and Carroll {cite('kauermann')}"
        elif correction == "mancl_derouen":
            text += f" and the small-sample correction of Mancl and DeRouen {cite('mancl')}"
    else:
        text += f", with one row a subject ({unit.get('level')})"
    text += ". "
    exposures = plan.get("exposures") or {}
    if exposures.get("standardise", True):
        text += "Biomarkers were divided by their standard deviation in the analysed sample"
        text += (
            ", after log(1 + x) of counts and log(1 + x/m) of areas and coverages of lesions, m being the median of the values above zero. "
            if exposures.get("transform_by_kind")
            else ". "
        )
    sets = plan.get("covariate_sets") or {}
    named = [f"{name} ({', '.join(map(str, terms)) or 'unadjusted'})" for name, terms in sets.items()]
    if named:
        text += f"Models were fitted with the covariate sets {_and(named)}; {study.primary_set} is the primary one. "
    if models.get("firth"):
        text += f"Where the data were separated, Firth's penalised likelihood was used {cite('firth', 'heinze')}. "
    method = multiple.get("method", "bh")
    references = {"bh": "bh", "by": "by", "holm": "holm", "meff": "meff"}
    text += f"p values were corrected by the method of {CORRECTIONS.get(method, method)}" + (
        f" {cite(references[method])}" if method in references else ""
    )
    within = multiple.get("family", "outcome") == "outcome"
    text += f" over {'all biomarkers of one outcome, covariate set and subgroup' if within else 'all outcomes and biomarkers together'}. "
    text += f"Intervals are {100 * float(models.get('level', 0.95)):g} % confidence intervals."
    return [text]


def _software(study: Study, cite: Citations) -> str:
    versions = package_versions(study)
    python = (study.provenance or {}).get("python")
    listed = ", ".join(f"{name} {v}" for name, v in versions.items())
    run = f"The workflow was run by Snakemake {cite('snakemake')}; the" if study.provenance else "The"
    return (
        f"Software: retsam {__version__}"
        + (f", Python {python}" if python else "")
        + f", {listed}. {run} report follows the STROBE statement {cite('strobe')}."
    )


def _and(items: list[str]) -> str:
    items = [str(i) for i in items]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else ""
