"""``docs/biomarkers.md`` and ``docs/biomarkers.json``, generated from the registry."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from retsam.biomarkers.config import DISC_FLOOR_PX, RESOLUTION_FLOORS, BiomarkersConfig
from retsam.biomarkers.eye import ROW_COLUMNS
from retsam.biomarkers.lesions import CLASSES, GROUPS
from retsam.biomarkers.own_masks import EXTRA_COLUMNS
from retsam.biomarkers.registry import FAMILIES, REASONS, Biomarker, registry
from retsam.biomarkers.worth import PROTOCOLS, about, fidelity, in_words, repeatability

_TITLES = {
    "image": "Image",
    "vessels": "Vessels",
    "optic_nerve": "Optic nerve head",
    "macula": "Macula",
    "phenotypes": "Phenotypes",
    "lesions": "Lesions",
}

#: Endings under which one length or area is reported, longest first.
_UNIT_ENDINGS = ("_px2", "_dd2", "_mm2", "_px", "_dd", "_um")

_INTRODUCTION = """# Biomarkers

One row an eye, one column a biomarker; beside each, `<name>__reason` says why it is empty where it is. This page and
`biomarkers.json` are generated from the registry (`retsam measure dictionary --out docs`); a test fails when they differ from it.

Lengths are in native pixels (`_px`), disc diameters (`_dd`) and micrometres (`_um`); areas in their squares (`_px2`, `_dd2`, `_mm2`).
A value outside its possible range is empty with `out_of_range`.

## What a value is worth

*Repeats* says how much a value moves within an eye (coefficient of variation; only of quantities that cannot be negative) and which share
of the variance lies between eyes (one-way ICC), under two protocols (`benchmarks/repeatability.py`): {protocols}.

*Follows* compares masks of the shipped network with drawn ones of the same photographs, never trained on: Pearson's r over the
photographs of a data set, and the bias in standard deviations of the drawn masks' values (`benchmarks/fidelity.py`,
[its page](benchmarks/fidelity.md)). Where a cell is empty, it was not measured: not drawn, too few eyes with a value, or no spread.

## Geometry

- `DD` = 2r; r is the mean semi-axis of the ellipse with the disc's second moments. Where the field of view cuts the disc, the ellipse
  is fitted to the free part of its outline.
- Zones about the disc's centre: B = 2r-3r, C = 2r-5r, peripapillary = 1r-2r. Circles of 1, 3 and 6 mm diameter about the fovea.
- Temporal points from the disc's centre to the fovea; superior is perpendicular to it on the side that the eye's laterality says. So
  quadrants, hemifields, clock hours (12 superior, 3 nasal, in both eyes) and ETDRS fields mean the same in right and left eyes and
  in a rotated photograph. Where the table's eye contradicts the positions of disc and fovea, the entry is wrong, the file mirrored, or
  the photograph upside down: nobody knows which way is up, and all these are empty (`laterality_conflict`; the setting of that name).
- Scale: pixel size from the table or the DICOM header; else 1 DD = 1.8 mm (`scale_source`). The disc's own size in micrometres is
  then empty (`scale_from_disc`).
- A zone that lies inside the field of view by less than half is empty (`zone_outside_fov`); the shares are columns. For CRAE,
  CRVE, their ratio and the number of vessels zone B has to be inside by {calibre:g}: its widest vessels may be in what is cut off.
  A quadrant about the fovea is judged by its part of the circle of 6 mm diameter, a hemifield by half a circle of the field of
  view's diameter.

## Kinds of photographs

- *Macula-centred, 45 degrees*: everything. Zone C is usually cut on the nasal side; its share says by how much.
- *Disc-centred, 30-45 degrees*: disc, zones B and C; the fovea is often outside, and what needs it is empty (`no_fovea`). The eye's
  vertical is then the picture's (`axis_source` = `upright`); quadrants and ETDRS fields stay empty.
- *Wide field*: densities are of the whole field seen and not comparable with those of 45 degrees; compare zones B and C. The retina is
  taken as flat, which holds to about 60 degrees.
- *Low resolution*: each kind of biomarker has a least diameter of the field of view in native pixels, below which it is empty
  (`resolution_too_low`; column `resolution_floor`): {floors}; measures of disc, cup and rim ask
  for a disc of {disc:g} px. An upsampled photograph is judged by the pixels it has. Vessels are measured on one grid in
  parts of the field of view, twice as fine as the coarsest photograph that is accepted.
"""


def _range(biomarker: Biomarker) -> str:
    low, high = biomarker.valid_range
    if math.isinf(low) and math.isinf(high):
        return ""
    return f"{'' if math.isinf(low) else f'{low:g}'} to {'' if math.isinf(high) else f'{high:g}'}".strip()


def _merge(entries: Iterable[Biomarker]) -> list[tuple[str, Biomarker]]:
    """Columns that differ in unit only as one line: (name with ``{px,dd,um}``, the first of them)."""
    merged: dict[tuple[str, str], list[tuple[str, Biomarker]]] = defaultdict(list)
    for entry in entries:
        ending = next((end for end in _UNIT_ENDINGS if entry.name.endswith(end)), "")
        stem = entry.name[: -len(ending)] if ending else entry.name
        text = entry.definition.rsplit(" In ", 1)[0] if ending else entry.definition
        merged[stem, text].append((ending.removeprefix("_"), entry))
    lines = []
    for (stem, text), members in merged.items():
        endings = [ending for ending, _ in members if ending]
        suffix = f"_{{{','.join(endings)}}}" if len(endings) > 1 else f"_{endings[0]}" if endings else ""
        units = ", ".join(dict.fromkeys(entry.unit for _, entry in members))
        lines.append((f"{stem}{suffix}", replace(members[0][1], definition=text, unit=units)))
    return lines


def _table(lines: list[tuple[str, Biomarker]]) -> list[str]:
    out = [
        "| column | definition | unit | needs | range | resolution_floor, px | higher or lower | source | repeats: CV, ICC "
        "| follows: r, bias (SD) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in lines:
        unit = "" if entry.unit == "1" else entry.unit
        needs = ", ".join(entry.needs).replace("|", " or ")
        cells = (f"`{name}`", entry.definition.replace("|", "\\|"), unit, needs, _range(entry))
        floors = [str(entry.resolution_floor)] if entry.resolution else []
        floors += [f"disc {entry.disc_floor:g}"] if entry.least_disc else []
        cells += (", ".join(floors), entry.direction, entry.source)
        cells += in_words(entry.name)
        out.append("| " + " | ".join(cells) + " |")
    return out


def _lesion_lines(entries: list[Biomarker]) -> list[str]:
    """Lesion classes and groups have the same columns: shown once, for a class of each kind."""
    generic = [entry for entry in entries if entry.name.startswith("hemorrhage_")]
    endings = {entry.name.removeprefix("hemorrhage_") for entry in generic}
    named = [entry for entry in entries if entry.name.removeprefix(f"{entry.structure}_") not in endings]
    lines = [
        "Every class and group has the columns below, with its name in place of `hemorrhage`. Classes: "
        + ", ".join(f"`{name}`" for name in CLASSES)
        + ". Groups, counted together: "
        + "; ".join(f"`{name}` ({', '.join(members)})" for name, members in GROUPS.items())
        + ". A class whose head does not exist in the model is empty (`head_not_available`), never zero; a group is the union of its "
        "classes that have a head. Drusen are sized at 63 and 125 um, the others at 0.05 and 0.15 DD.",
        "",
        *_table(_merge(generic)),
        "",
        "Further columns:",
        "",
        *_table(_merge(named)),
    ]
    return lines


def biomarkers_markdown() -> str:
    """Text of ``docs/biomarkers.md``."""
    known = registry(extra=True)
    floors = ", ".join(f"{kind.replace('_', ' ')} {pixels}" for kind, pixels in RESOLUTION_FLOORS.items())
    protocols = "; ".join(f"*{name}*, {text}" for name, text in PROTOCOLS.items())
    share = BiomarkersConfig().min_calibre_zone_share
    lines = [_INTRODUCTION.format(floors=floors, disc=DISC_FLOOR_PX, calibre=share, protocols=protocols)]
    lines += ["## About the row", "", "| column | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in {**ROW_COLUMNS, **EXTRA_COLUMNS}.items()]
    lines += ["", "## Reasons", "", "| code | meaning |", "|---|---|", *(f"| `{code}` | {text} |" for code, text in REASONS.items()), ""]
    for family in FAMILIES:
        entries = [entry for entry in known.values() if entry.family == family]
        lines += [f"## {_TITLES[family]}", "", f"{len(entries)} columns.", ""]
        lines += _lesion_lines(entries) if family == "lesions" else _table(_merge(entries))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def biomarkers_json() -> str:
    """Text of ``docs/biomarkers.json``: ``biomarkers`` (by name), ``reasons``, ``row_columns``, ``protocols`` of repeatability and
    ``evidence``, how repeatability and fidelity were measured."""
    worth = {"repeatability": repeatability(), "fidelity": fidelity()}
    content = {
        "biomarkers": {
            name: entry.to_dict() | {kind: of.get(name) for kind, of in worth.items()} for name, entry in registry(extra=True).items()
        },
        "protocols": PROTOCOLS,
        "evidence": about(),
        "reasons": REASONS,
        "row_columns": {**ROW_COLUMNS, **EXTRA_COLUMNS},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_documentation(folder: Path) -> list[Path]:
    """Write both files; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("biomarkers.md", biomarkers_markdown()), ("biomarkers.json", biomarkers_json())):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written
