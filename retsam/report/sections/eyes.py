"""The gallery of overlays, and the list of photographs that failed."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from retsam.masks.overlay import COLOURS, OTHER
from retsam.report.config import ReportConfig
from retsam.report.gallery import Picture, data_uri
from retsam.report.html import count, join, number, paragraph, tag
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.common import higher, reader
from retsam.report.study import Study


def gallery(study: Study, page: Page, config: ReportConfig, pictures: list[Picture], available: list[str], note: str) -> Section:
    """Typical and extreme eyes, photograph and masks."""
    title = "Gallery: biology or artefact?"
    if not config.gallery:
        return Section(
            "gallery",
            title,
            join([not_shown("Gallery", "it is switched off in the configuration (`report.gallery`)."), _failed(study, page, config)]),
        )
    if not pictures:
        return Section(
            "gallery",
            title,
            join(
                [
                    not_shown("Gallery", "no eye has both masks and a readable photograph; the top of this page says why."),
                    _failed(study, page, config),
                ]
            ),
        )
    text = paragraph(
        "Before an association is believed, look at the eyes that carry it. Each biomarker below is shown at both of its ends; a "
        "lowest or highest value that comes from a wrong mask, a reflex or a blurred photograph is an artefact. Only the masks that a "
        "biomarker is made from are drawn, and the disc; lesions a little larger than they are. Pictures are cut to the field of view and "
        "made smaller; click one to enlarge it. ",
        note,
    )
    switch = tag(
        "label",
        join([Markup('<input type="checkbox" id="gallery-masks" checked>'), " show the masks beside each photograph"]),
        class_="switch",
    )
    legend = tag("ul", join(_swatch(t) for t in available), class_="swatches", aria_label="Colours of the masks")
    groups = []
    for name in dict.fromkeys(p.pick.group for p in pictures):
        mine = [p for p in pictures if p.pick.group == name]
        entry = study.dictionary.get(name)
        about = paragraph(f"{entry.definition} {higher(entry.direction)}", class_="about") if entry else ""
        rows = []
        for end in dict.fromkeys(p.pick.end for p in mine):
            cards = join(_card(study, config, p, i) for i, p in enumerate(q for q in mine if q.pick.end == end))
            rows.append(join([tag("h4", end.capitalize()) if end else "", tag("div", cards, class_="eyes")]))
        groups.append(join([tag("h3", name), about, *rows]))
    viewer = Markup(
        '<dialog id="viewer" aria-label="Enlarged eye"><button type="button" class="close" aria-label="Close">\u2715</button><div '
        'class="viewer-body"></div></dialog>'
    )
    return Section(
        "gallery", title, join([text, switch, legend, tag("div", join(groups), id="eyes"), viewer, _failed(study, page, config)])
    )


def _swatch(target: str) -> Markup:
    red, green, blue = COLOURS.get(target, OTHER)
    mark = "+" if target == "fovea" else ""
    return tag("li", join([tag("span", mark, class_="swatch", style=f"background:rgb({red},{green},{blue})"), reader(target)]))


def _card(study: Study, config: ReportConfig, picture: Picture, index: int) -> Markup:
    pick = picture.pick
    name = pick.image_id if config.show_image_ids else f"eye {index + 1}"
    facts = []
    if pick.value is not None:
        unit = study.unit_of(pick.biomarker)
        facts.append(count(pick.value) if unit == "count" else f"{number(pick.value)} {unit}".strip())
    facts += _labels(study, pick.image_id)
    photo = Markup('<img src="{}" alt="{}" decoding="async">').format(data_uri(picture.photograph), f"Photograph of {name}")
    masks = Markup('<img src="{}" alt="{}" decoding="async" class="masks">').format(
        data_uri(picture.masks), f"Masks of {name} on the photograph"
    )
    text = tag("span", join([tag("b", name), " ", "; ".join(facts)]), class_="eye-text")
    return tag("button", join([photo, masks, text]), type="button", class_="eye")


def _labels(study: Study, image_id: str) -> list[str]:
    """Quality grade, and the outcomes that the eye has (single eyes are shown only where the configuration allows a gallery)."""
    facts = []
    quality, cohort = study.main("quality"), study.main("cohort")
    if quality is not None:
        grade = quality.loc[quality["image_id"] == image_id, "grade"].dropna()
        facts += [str(g) for g in grade.head(1)]
    if cohort is not None:
        row = cohort[cohort["image_id"] == image_id].head(1)
        groups: dict[str, list[str]] = {"case of": [], "control of": []}
        for o in study.plan.get("outcomes") or ():
            column = o.get("column") or o["name"]
            if not len(row) or column not in row or pd.isna(row[column].iloc[0]):
                continue
            value = row[column].iloc[0]
            if str(o.get("type", "binary")) == "binary" and value in (0, 1):
                groups["case of" if value == 1 else "control of"].append(str(o["name"]))
            else:
                facts.append(f"{o['name']} {number(float(value)) if isinstance(value, (int, float)) else value}")
        facts += [f"{word} {', '.join(names)}" for word, names in groups.items() if names]
    return facts


def failures(study: Study) -> pd.DataFrame | None:
    """Photographs without biomarkers: id, where it stopped, reason, detail. Rejected photographs are not among them."""
    pieces = []
    for name in ("cohort", "quality", "biomarkers"):
        table = study.main(name)
        if table is None or not {"status", "reason"} <= set(table.columns):
            continue
        bad = table[(table["status"] == "failed") & (table["reason"].astype("string") != "duplicate")]
        detail = bad["detail"].astype("string") if "detail" in bad else pd.Series(pd.NA, index=bad.index, dtype="string")
        pieces.append(
            pd.DataFrame(
                {"image_id": bad["image_id"].astype("string"), "stage": name, "reason": bad["reason"].astype("string"), "detail": detail}
            )
        )
    if not pieces:
        return None
    found = pd.concat(pieces, ignore_index=True)
    return found[~found["reason"].isin(["quality_reject"])].drop_duplicates("image_id").reset_index(drop=True)


def _failed(study: Study, page: Page, config: ReportConfig) -> Markup:
    found = failures(study)
    if found is None:
        return not_shown("Failed photographs", "no table says which photographs failed.")
    if found.empty:
        return paragraph(tag("b", "Failed photographs. "), "None.")
    if not config.show_image_ids:
        found = found.assign(image_id=[f"photograph {i + 1}" for i in range(len(found))], detail=pd.NA)
    shown = found.head(config.failed_listed)
    rows = [(r.image_id, r.stage, reader(str(r.reason)), r.detail if pd.notna(r.detail) else "") for r in shown.itertuples()]
    more = "" if len(shown) == len(found) else f" The first {len(shown)} of {len(found)} are listed; tables/report/failed.csv has all."
    table = page.table(
        "failed",
        "Failed photographs.",
        f"Each is a row of the tables with its reason, and is counted in the flow.{more}",
        ("Photograph", "Stage", "Reason", "Detail"),
        rows,
        frame=found,
    )
    return table if len(rows) <= 12 else tag("details", tag("summary", f"List of {len(rows)} failed photographs") + table)
