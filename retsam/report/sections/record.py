"""Status of the heads, STROBE, methods and provenance; and the summary at the top."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from retsam._version import __version__
from retsam.report import strobe
from retsam.report.disclosure import show_count
from retsam.report.flow import flow_table, shared_steps, stage_row
from retsam.report.heads import Head
from retsam.report.html import count, estimate_text, join, listing, p_text, paragraph, q_text, table_html, tag
from retsam.report.methods import package_versions, sentences
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.associations import note_text, summary_counts
from retsam.report.sections.common import MEASURES, alpha, cases_note, is_ratio, level, method_name, per, reader, set_label
from retsam.report.study import Study


def summary(study: Study, minimum: int) -> Section:
    """What the reader should know first."""
    parts = []
    flow = flow_table(study)
    if flow is not None and len(shared := shared_steps(flow)):
        first = shared.iloc[0]
        facts = [("photographs", count(first["n_images"])), ("subjects", count(first["n_subjects"]))]
        for name, stages in (("measured", ("measured",)), ("eligible", ("eligible", "one_per_eye"))):
            row = stage_row(flow, *stages)
            if row is not None:
                facts.append((f"photographs {name}", count(row["n_images"])))
        if study.biomarker_names:
            facts.append((f"of {count(len(study.biomarker_names))} biomarkers have values", count(study.measured_biomarkers)))
        parts.append(tag("dl", join(tag("div", tag("dt", k) + tag("dd", v)) for k, v in facts), class_="facts"))
    counts = summary_counts(study, minimum)
    lines, named = [_outcome_line(study, row, minimum) for row in counts], any(row.get("best") is not None for row in counts)
    if lines and study.primary is not None:
        parts.append(listing(lines))
        parts.append(
            paragraph(
                f"Counts of tests refer to the covariate set {set_label(study, study.primary_set) if study.primary_set else '–'}. "
                + ("The strongest association is named because its p is smallest, not because it matters most." if named else "")
                + cases_note(study)
            )
        )
    return Section("summary", "Summary", join(parts) if parts else not_shown("Summary", "the tables that it is made from are missing."))


def _outcome_line(study: Study, row: Mapping[str, Any], minimum: int) -> Markup:
    outcome = row["outcome"]
    if not row["tests"]:
        return join([tag("b", outcome), ": no test in the table of associations."])
    text = f": {count(row['estimated'])} of {count(row['tests'])} tests gave an estimate"
    # where every sample is within a few eyes of the whole, none of their sizes is shown
    cases = (
        f" (up to {count(row['n'])} {study.rows}" + (f", {show_count(row['cases'], minimum)} cases" if pd.notna(row["cases"]) else "") + ")"
        if row["estimated"] and pd.notna(row["n"])
        else ""
    )
    if row["best"] is None:
        reasons = ", ".join(f"{note_text(str(k))} {v}" for k, v in list(row["reasons"].items())[:4])
        return join([tag("b", outcome), text, cases, f"; reasons: {reasons}."])
    best = row["best"]
    short = MEASURES[study.outcome_type(outcome)][1]
    said = estimate_text(float(best["estimate"]), _number(best["ci_low"]), _number(best["ci_high"]), is_ratio(study, outcome))
    return join(
        [
            tag("b", outcome),
            text,
            cases,
            f"; {count(row['bonferroni'])} pass Bonferroni at {alpha(study):g}, {count(row['q'])} have q \u2264 {alpha(study):g} "
            f"({method_name(study)}). Smallest p: ",
            tag("code", best["biomarker"]),
            f", {short} {per(study)} {said} ({level(study)} % CI), p = {p_text(best['neg_log10_p'])}, q = {q_text(best['q'])}.",
        ]
    )


def _number(value: Any) -> float:
    return float("nan") if pd.isna(value) else float(value)


def heads_section(page: Page, heads: list[Head], known: bool) -> Section:
    """Status of every head."""
    title = "Status of the segmentation heads"
    there = [h for h in heads if h.status != "not_available"]
    absent = [reader(h.target) for h in heads if h.status == "not_available"]
    rows = [
        (
            reader(h.target),
            h.category,
            tag("span", h.status, class_=f"status {h.status}"),
            ", ".join(h.trained_on) or "\u2013",
            listing(lines) if (lines := h.lines()) else "not scored",
        )
        for h in there
    ]
    page.files["heads"] = pd.DataFrame(
        [
            {"target": h.target, "category": h.category, "task": h.task, "status": h.status, "trained_on": "; ".join(h.trained_on)}
            for h in heads
        ]
    )
    columns = ("target", "status", "dataset", "metric", "value", "ci_low", "ci_high", "n")
    page.files["head_scores"] = pd.DataFrame(
        [(h.target, h.status, s.dataset, s.metric, s.value, s.ci_low, s.ci_high, s.n) for h in heads for s in h.scores], columns=columns
    )
    n = pd.Series([h.status for h in heads]).value_counts()
    text = paragraph(
        f"{n.get('supervised', 0)} targets were learned from pixel masks (supervised), {n.get('weak', 0)} from image-level labels or "
        f"synthetic masks (weak), and {n.get('not_available', 0)} are in the taxonomy "
        "but not in these weights (not available): nothing is known of them here, which is not the same as none being there. "
        "Estimates that rest on a weak head are marked \u2021 in the tables of associations.",
        "" if known else " The study has no readable mask store, so the status is that of the model card.",
    )
    table = page.table(
        "heads",
        "Heads and their scores.",
        "Means over photographs with 95 % confidence intervals, from the model card, with the data they were measured on; on "
        "another camera they may be lower. All metrics: tables/report/head_scores.csv.",
        ("Target", "Category", "Status", "Trained on", "Scores"),
        rows,
        frame=page.files["heads"],
    )
    missing = paragraph(tag("b", "Not available: "), ", ".join(absent), ".") if absent else ""
    return Section("heads", title, join([text, table, missing]))


def methods_section(study: Study, attributes: Mapping[str, Any]) -> Section:
    """The methods paragraph."""
    texts, cited = sentences(study, attributes)
    statistics = tag("div", join(paragraph(t) for t in texts[1:-1]), id="methods-statistics") if texts[1:-1] else ""
    body = tag(
        "div",
        join([paragraph(texts[0]), statistics, paragraph(texts[-1]), listing(cited, ordered=True)]),
        id="methods-text",
        class_="methods",
    )
    button = tag("button", "Copy the text", type="button", data_copy="methods-text")
    return Section(
        "methods", "Methods", join([paragraph("Made from the settings and versions of this study, to be pasted and edited."), body, button])
    )


def strobe_section(page: Page, titles: Mapping[str, str], shown: Collection[str]) -> Section:
    """The checklist with links."""
    rows, plain = [], []
    for item in strobe.ITEMS:
        places = {s.partition(":")[0]: s for s in item.sections if s.partition(":")[0] in titles}
        links = [tag("a", titles[s], href=f"#{s}") for s in places]
        missing = strobe.absent(item, shown)
        left = " ".join(filter(None, [item.authors, f"Not in this report: {', '.join(missing)}." if missing else ""]))
        where = Markup(", ").join(links) if links else "\u2013"
        rows.append((item.number, item.topic, item.recommendation, strobe.state(item, shown), where, left))
        plain.append(
            (
                item.number,
                item.topic,
                item.recommendation,
                strobe.state(item, shown),
                ", ".join(titles[s] for s in places),
                left,
            )
        )
    header = ("Item", "Topic", "Recommendation", "State", "Where", "Left to the authors")
    body = page.table(
        "strobe",
        "STROBE checklist.",
        "Recommendations are shortened. A report made by a program can fill in numbers, not reasons.",
        header,
        rows,
        frame=pd.DataFrame(plain, columns=header),
        sortable=False,
    )
    return Section("strobe", "STROBE checklist", body)


def provenance_section(study: Study, page: Page, attributes: Mapping[str, Any], settings: Mapping[str, Any], when: str) -> Section:
    """Versions, hashes, times and the settings of the study."""
    record = study.provenance
    parts = []
    revision = ((record or {}).get("retsam") or {}).get("commit")
    facts = [
        ("Report made", when),
        ("retsam", __version__ + (f" ({revision[:12]})" if revision else "")),
        ("Study", str(settings.get("study", ""))),
        ("Settings (SHA-256)", str(((record or {}).get("config") or {}).get("sha256", "\u2013"))),
        ("Analysis plan", str(study.results_plan.get("plan_sha256") or study.results_plan.get("sha256") or _plan_hash(study))),
        ("Model", f"{attributes.get('model', '–')}, weights SHA-256 {attributes.get('weights_sha256', '–')}"),
        ("Mask stores", count(len(study.stores))),
        ("Python and platform", f"{(record or {}).get('python', '–')}, {(record or {}).get('platform', '–')}"),
    ]
    parts.append(
        tag("div", table_html(("", ""), facts, sortable=False), class_="scroll", tabindex="0", role="region", aria_label="Provenance")
    )
    if record is None:
        parts.append(
            not_shown(
                "Record of the run",
                "provenance.json does not exist: the report was made outside the workflow, and versions are those installed when it "
                "was made.",
            )
        )
    stages = (record or {}).get("stages")
    if isinstance(stages, Mapping) and stages:
        rows = [
            (
                k,
                count(v.get("jobs")),
                f"{v.get('seconds') or 0:.1f}",
                f"{v.get('longest_job_seconds') or 0:.1f}",
                "\u2013" if v.get("peak_rss_mb") is None else f"{v['peak_rss_mb']:.0f}",
            )
            for k, v in stages.items()
        ]
        parts.append(
            page.table(
                "stages",
                "Jobs of the run.",
                "Wall-clock seconds and peak memory, from the workflow's benchmarks.",
                ("Stage", "Jobs", "Seconds", "Longest job", "Peak MB"),
                rows,
                numeric=(1, 2, 3, 4),
            )
        )
    packages = table_html(("Package", "Version"), list(package_versions(study).items()), sortable=False)
    parts.append(tag("details", tag("summary", "Versions of packages") + packages))
    parts.append(
        tag(
            "details",
            tag("summary", "Settings of this study, the analysis plan included")
            + tag("pre", json.dumps(settings, indent=1, ensure_ascii=False, default=str)),
        )
    )
    if study.changed_plan():
        parts.append(
            tag(
                "details",
                tag("summary", "Analysis plan that the associations were estimated with")
                + tag("pre", json.dumps(study.plan, indent=1, ensure_ascii=False, default=str)),
            )
        )
    parts.append(
        paragraph(
            "The tables beside this report in tables/ are complete and have no small cells suppressed; those in tables/report/ are the "
            "ones shown here and may travel with it."
        )
    )
    return Section("provenance", "Provenance", join(parts))


def _plan_hash(study: Study) -> str:
    table = study.main("associations")
    if table is not None and "plan" in table and table["plan"].notna().any():
        return str(table["plan"].dropna().iloc[0])
    return "\u2013"
