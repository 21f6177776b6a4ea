"""Join the sections to one page and write it, with figures and tables beside it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from retsam.quality.grading import mixed_depths
from retsam.report.config import ReportConfig
from retsam.report.gallery import Picture, choose, render
from retsam.report.heads import heads, model_card, store_attributes
from retsam.report.html import csv_text, json_block
from retsam.report.page import Page, Section
from retsam.report.sections.associations import associations
from retsam.report.sections.biomarkers import biomarkers
from retsam.report.sections.common import reader
from retsam.report.sections.eyes import failures, gallery
from retsam.report.sections.participants import characteristics, participants, quality
from retsam.report.sections.prediction import camera, discrimination
from retsam.report.sections.record import heads_section, methods_section, provenance_section, strobe_section, summary
from retsam.report.sections.robustness import measurement_error, shape, subgroups
from retsam.report.study import Problem, Study

SCRIPTS = ("core.js", "xy.js", "forest.js", "heatmap.js", "tables.js", "page.js", "associations.js", "robustness.js")


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    bytes: int
    figures: int
    tables: int
    pictures: int
    problems: tuple[Problem, ...]


def build_report(
    results: str | Path, out: str | Path, config: ReportConfig | None = None, settings: Mapping[str, Any] | None = None
) -> Report:
    """Write the report of a study.

    Parameters
    ----------
    results : path
        ``results/<study>``, with whatever the other rooms wrote there; tables that do not exist are named in the report.
    out : path
        The HTML file. ``figures/`` and ``tables/report/`` are written in its folder.
    config : ReportConfig, optional
    settings : mapping, optional
        The whole configuration as plain values; its ``association`` section gives outcomes, covariate sets and their order.

    Returns
    -------
    Report

    Raises
    ------
    FileNotFoundError
        If the results folder does not exist. Nothing else that is missing or broken stops the report.
    """
    config, settings, out = config or ReportConfig(), dict(settings or {}), Path(out)
    study = Study(Path(results), settings)
    study.problems += _plan_problems(study)
    attributes = store_attributes(study)
    all_heads = heads(attributes, model_card(study, attributes))
    picks = choose(study, config) if config.gallery else []
    when = datetime.now(UTC).isoformat(timespec="seconds")
    statics: dict[str, str] = {}
    if config.figures:
        from retsam.report.figures import stills, write_figures

        # Before the page, which carries them for readers without scripts; what they note, the sections note as well, and is told once.
        statics = stills(write_figures(study, config, out.parent / "figures"))
    pictures, note = render(study, picks, config.gallery_side_px, config.jpeg_quality), ""
    while True:
        # Sections note problems as they are made, so each attempt starts from the ones known before it.
        attempt = replace(study, problems=list(study.problems))
        page, sections = _sections(attempt, config, attributes, all_heads, statics, pictures, note, settings, when)
        text = _html(attempt, config, settings, page, sections, when)
        if len(text.encode()) <= config.max_mb * 1e6 or not pictures:
            break
        pictures, note = _fewer(study, config, pictures, len(text.encode()))
    if len(text.encode()) > config.max_mb * 1e6:
        attempt.problems.append(
            Problem(
                "warning",
                f"This page has {len(text.encode()) / 1e6:.1f} MB, more than the {config.max_mb:g} MB of report.max_mb, although no "
                "photograph is embedded.",
            )
        )
        text = _html(attempt, config, settings, page, sections, when)
    _write_tables(out.parent / "tables" / "report", page)
    _write(out, text)
    return Report(out, len(text.encode()), page.figures, page.tables, len(pictures), tuple(dict.fromkeys(attempt.problems)))


def _plan_problems(study: Study) -> list[Problem]:
    """That the configuration was changed after the associations were estimated, and where."""
    changed = study.changed_plan()
    if not changed:
        return []
    more = f"; and {len(changed) - 8} more" if len(changed) > 8 else ""
    return [
        Problem(
            "fault",
            "The configuration is not the plan that the associations were estimated with (tables/plan.json): "
            f"{'; '.join(changed[:8])}{more}. This report tells of what was used; run the associations again to follow the configuration.",
        )
    ]


def _fewer(study: Study, config: ReportConfig, pictures: list[Picture], size: int) -> tuple[list[Picture], str]:
    """Smaller pictures, then fewer, so that the page fits its limit; and the sentence that says so."""
    budget = config.max_mb * 1e6 - (size - sum(_embedded(p) for p in pictures))
    smaller = render(
        replace(study, problems=[]), [p.pick for p in pictures], min(240, config.gallery_side_px), min(70, config.jpeg_quality)
    )
    kept: list[Picture] = []
    for picture in smaller:
        budget -= _embedded(picture) + 600
        if budget < 0:
            break
        kept.append(picture)
    if len(kept) == len(pictures) and sum(map(_embedded, kept)) >= sum(map(_embedded, pictures)):
        kept = kept[: len(kept) // 2]
    return kept, f"To keep this page under {config.max_mb:g} MB, pictures are smaller than configured" + (
        f" and {len(pictures) - len(kept)} are left out." if len(kept) < len(pictures) else "."
    )


def _embedded(picture: Picture) -> int:
    return (len(picture.photograph) + len(picture.masks)) * 4 // 3


def _sections(
    study: Study, config: ReportConfig, attributes, all_heads, statics, pictures, note, settings, when
) -> tuple[Page, list[Section]]:
    page, minimum = Page(statics=statics), config.min_cell
    available = [h.target for h in all_heads if h.status != "not_available"]
    weak = {h.target for h in all_heads if h.status == "weak"}
    body = [
        participants(study, page, minimum),
        characteristics(study, page, minimum),
        quality(study, page, minimum),
        gallery(study, page, config, pictures, available, note),
        biomarkers(study, page, minimum, config.correlation_biomarkers),
        associations(study, page, minimum, weak),
        shape(study, page, minimum),
        subgroups(study, page, minimum),
        discrimination(study, page, minimum),
        camera(study, page, minimum),
        measurement_error(study, page, minimum),
        heads_section(page, all_heads, bool(attributes)),
        methods_section(study, attributes),
    ]
    first = summary(study, minimum)
    provenance = provenance_section(study, page, attributes, settings, when)
    everything = [first, *body, provenance]
    titles = {s.key: s.title for s in everything}
    # A section whose every part is "not shown" does not count as reporting its STROBE items.
    shown = {part for s in everything if _says_something(s) for part in (s.key, *_parts(s))}
    return page, [first, *body, strobe_section(page, titles, shown), provenance]


def _parts(section: Section) -> list[str]:
    """``section:part`` of the figures, tables and marked paragraphs of a section."""
    return [f"{section.key}:{part}" for part in re.findall(r' id="(?:fig|tab|methods)-([\w-]+)"', str(section.body))]


def _says_something(section: Section) -> bool:
    rest = re.sub(r'<p class="absent">.*?</p>', "", str(section.body), flags=re.DOTALL)
    return any(mark in rest for mark in ("<figure", "<table", "<ol", "<dl", "<ul", 'class="methods"'))


def _notes(study: Study) -> list[Problem]:
    """What goes to the top of the page: failed photographs and outcomes first, then what was noted on the way."""
    notes = []
    failed = failures(study)
    if failed is not None and len(failed):
        notes.append(Problem("warning", f"{len(failed)} photographs failed; the gallery section lists them with their reasons."))
    graded = study.main("quality")
    if graded is not None and {"notes", "bits"} <= set(graded) and (depths := mixed_depths(graded)):
        notes.append(Problem("warning", f"{depths[0].upper()}{depths[1:]}."))
    table = study.primary
    for outcome in study.outcomes:
        mine = None if table is None else table[table["outcome"] == outcome]
        if mine is None:
            continue
        first = mine[mine["covariate_set"] == study.primary_set]
        for rows, where in ((mine, ""), (first, f" with the covariate set {study.primary_set}, the primary one")):
            if rows.empty or rows["estimate"].isna().all():
                why = "; ".join(reader(n) for n in rows["note"].dropna().astype(str).unique()[:3])
                text = f"No association could be estimated for the outcome {outcome}{where}" + (f" ({why})." if why else ".")
                notes.append(Problem("fault", text))
                break
    return notes + list(dict.fromkeys(study.problems))


def _html(study: Study, config: ReportConfig, settings: Mapping[str, Any], page: Page, sections: list[Section], when: str) -> str:
    assets = files("retsam.report") / "assets"
    script = "(() => {\n'use strict';\n" + "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS) + "\n})();\n"
    # Only this very script may run, and nothing may be fetched: markup smuggled in by a table could do nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((assets / "page.html.j2").read_text(encoding="utf-8"))
    notes = _notes(study)
    return template.render(
        title=config.title or f"Retinal biomarkers: {settings.get('study', study.results.name)}",
        authors=", ".join(config.authors),
        abstract=config.abstract,
        when=when[:10],
        faults=[n.text for n in notes if n.level == "fault"],
        warnings=[n.text for n in notes if n.level != "fault"],
        sections=sections,
        blocks={key: json_block(value) for key, value in page.blocks.items()},
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own files)
        policy=f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    )


def _write_tables(folder: Path, page: Page) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = dict(zip(_file_names(page.files), page.files.values(), strict=True))
    for old in folder.glob("*.csv"):
        if old.name not in names:
            old.unlink()
    for name, frame in names.items():
        _write(folder / name, csv_text(frame))


def _file_names(keys: Iterable[str]) -> list[str]:
    """Tables' keys as file names, each its own: outcomes may have any name, in any script, that a file may not have."""
    taken: set[str] = set()
    names = []
    for key in keys:
        # 70 characters of four bytes fit any file system
        stem = name = re.sub(r"[^\w.-]+", "_", key)[:70]
        number = 1
        while name.casefold() in taken:  # some file systems tell no case apart
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(f"{name}.csv")
    return names


def _write(path: Path, text: str) -> None:
    """Write whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(text.encode("utf-8"))
    os.replace(temporary, path)
