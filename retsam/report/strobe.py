"""The STROBE checklist (cross-sectional and cohort studies), each item with its place in the report or what the authors must add."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item of the checklist.

    Parameters
    ----------
    number : str
    topic : str
    recommendation : str
        Shortened from von Elm et al. 2007.
    sections : tuple of str
        Keys of the report's sections that speak to it, or ``section:part`` where only a figure, table or paragraph of one does.
    authors : str
        What remains for the authors; empty where the report covers the item.
    """

    number: str
    topic: str
    recommendation: str
    sections: tuple[str, ...] = ()
    authors: str = ""


ITEMS: tuple[Item, ...] = (
    Item(
        "1",
        "Title and abstract",
        "Study design in the title; informative abstract.",
        ("summary",),
        "Name the design in the title; write the abstract.",
    ),
    Item("2", "Background", "Scientific background and rationale.", (), "Write it."),
    Item(
        "3",
        "Objectives",
        "Specific objectives, including prespecified hypotheses.",
        (),
        "State which outcome and biomarker were prespecified.",
    ),
    Item(
        "4",
        "Study design",
        "Key elements of study design, early in the paper.",
        ("methods",),
        "State the design (cross-sectional, cohort).",
    ),
    Item("5", "Setting", "Setting, locations, dates of recruitment and data collection.", (), "Give places, dates and cameras."),
    Item(
        "6",
        "Participants",
        "Eligibility criteria, sources and methods of selection.",
        ("flow", "provenance"),
        "Give the source population and how subjects were invited.",
    ),
    Item(
        "7",
        "Variables",
        "Define outcomes, exposures, predictors, confounders, effect modifiers.",
        ("biomarkers", "provenance"),
        "Give the diagnostic criteria of each outcome.",
    ),
    Item(
        "8",
        "Data sources",
        "Sources of data and methods of assessment for each variable.",
        ("heads", "methods"),
        "Say who graded the outcomes, and whether masked.",
    ),
    Item("9", "Bias", "Efforts to address potential sources of bias.", ("camera:camera", "quality:quality", "error:error")),
    Item("10", "Study size", "How the study size was arrived at.", ("flow",), "Say why the study has this size."),
    Item("11", "Quantitative variables", "How quantitative variables were handled, groupings and why.", ("methods:statistics", "shape")),
    Item("12a", "Statistical methods", "All statistical methods, including control of confounding.", ("methods:statistics", "provenance")),
    Item("12b", "Subgroups", "Methods for subgroups and interactions.", ("robustness:subgroups",)),
    Item("12c", "Missing data", "How missing data were addressed.", ("biomarkers:missingness", "methods:statistics")),
    Item(
        "12d",
        "Clustering",
        "Methods taking account of the sampling strategy: two eyes of a subject, loss to follow-up.",
        ("methods:statistics",),
        "Give loss to follow-up of a cohort.",
    ),
    Item("12e", "Sensitivity", "Sensitivity analyses.", ("robustness:sensitivity",)),
    Item("13", "Participants", "Numbers at each stage, reasons for non-participation, flow diagram.", ("flow",)),
    Item(
        "14", "Descriptive data", "Characteristics of participants; number missing for each variable.", ("table1", "biomarkers:description")
    ),
    Item("15", "Outcome data", "Numbers of outcome events or summary measures.", ("flow:flow_outcomes", "table1")),
    Item(
        "16",
        "Main results",
        "Unadjusted and adjusted estimates with intervals; which confounders and why.",
        ("associations",),
        "Say why these confounders were chosen.",
    ),
    Item(
        "17",
        "Other analyses",
        "Subgroups, interactions, sensitivity analyses.",
        ("robustness:subgroups", "robustness:sensitivity", "shape"),
    ),
    Item("18", "Key results", "Key results with reference to objectives.", ("summary",), "Discuss them."),
    Item(
        "19",
        "Limitations",
        "Limitations, sources of bias and imprecision, their direction and size.",
        ("camera", "error", "heads"),
        "Discuss them.",
    ),
    Item("20", "Interpretation", "Cautious overall interpretation.", (), "Write it; association is not effect."),
    Item("21", "Generalisability", "External validity.", ("heads",), "Discuss population and cameras."),
    Item("22", "Funding", "Source of funding and role of funders.", (), "State it."),
)


#: Parts of sections as the checklist names them.
PARTS = {
    "camera": "camera check",
    "quality": "grades by outcome",
    "error": "corrected estimates",
    "statistics": "statistical methods",
    "subgroups": "subgroups",
    "sensitivity": "sensitivity analyses",
    "missingness": "missing values by reason",
    "description": "distribution of each biomarker",
    "flow_outcomes": "eyes behind each outcome",
}


def absent(item: Item, shown: Collection[str]) -> list[str]:
    """Parts that would speak to an item and are not in this report, in words."""
    return [PARTS[s.partition(":")[2]] for s in item.sections if ":" in s and s not in shown]


def state(item: Item, shown: Collection[str]) -> str:
    """``reported``, ``in part`` (authors must add to it, or a part is not in the report), or ``to be written``."""
    there = [s for s in item.sections if s in shown]
    if not there:
        return "to be written"
    return "in part" if item.authors or len(there) < len(item.sections) else "reported"
