"""A study's configuration proposed from a folder or a samplesheet, and what was understood said aloud."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import pandas as pd
import yaml

from retsam.cohort.config import RESERVED_COLUMNS, CohortConfig
from retsam.cohort.faults import Fault, SamplesheetError
from retsam.cohort.folder import find_photographs, guess_from_names
from retsam.cohort.reading import SUFFIXES
from retsam.cohort.samplesheet import no_photographs, read_sheet
from retsam.cohort.variables import NO, YES, plain
from retsam.eyes import EYES

# Names that a column may have, as words of its name in lower case; first match wins, left to right.
_NAMES = {
    "image": r"(image|img|file|filename|filepath|path|photo|photograph|picture|fundus)",
    "image_id": r"(image_?id|img_?id|photo_?id)",
    "subject": r"(subject|patient|person|participant|individual|eid|pid|mrn|subject_?id|patient_?id)",
    "eye": r"(eye|side|laterality|lateral|od_?os)",
    "visit": r"(visit|session|wave|exam|examination|exam_?date|visit_?date|date)",
    "um_per_px": r"(um_?per_?px|pixel_?size(_um)?|microns?_?per_?pixel)",
}
_COVARIATES = (
    r"(age|sex|gender|bmi|smok\w*|sbp|dbp|systolic\w*|diastolic\w*|hba1c|iop|axial\w*|ethnic\w*|race|camera|site|centre|center|"
    r"diabetes_?duration)"
)
_OUTCOMES = (
    r"(diagnos\w*|disease\w*|label|class|dr|dr_?grade|retinopathy\w*|amd|glaucoma|myopia|dme\w*|grade|keywords|outcome|status|"
    r"cataract|hypertension)"
)
# Covariates whose numbers are codes.
_CODED = r"(sex|gender|smok\w*|ethnic\w*|race|camera|site|centre|center)"
# Dates that are of no visit.
_NO_VISIT = r"(birth|dob|death|onset|diagnos\w*)"
# Values that usually mean a healthy eye.
_NORMAL = {"n", "normal", "healthy", "none", "no", "0", "normal fundus", "control"}
# Photographs with a value from which on it is proposed as an outcome.
_FEWEST = 20
# Most different values that an outcome by value lists may have.
_MOST_VALUES = 25


@dataclass
class _Proposal:
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict] = field(default_factory=dict)
    covariates: dict[str, dict] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def propose(source: Path, study: str | None = None, root: Path | None = None) -> tuple[str, list[str]]:
    """Propose a study's configuration.

    Parameters
    ----------
    source : Path
        Folder of photographs, or samplesheet.
    study : str, optional
        Name; made from that of `source` if left out.
    root : Path, optional
        Folder that relative image paths start from.

    Returns
    -------
    text : str
        YAML that `retsam.config.load_config` accepts.
    said : list of str
        What was understood and what was not.

    Raises
    ------
    SamplesheetError
        If `source` has no photographs or no column of paths.
    """
    name = _study_name(study or source.resolve().stem)
    if source.is_dir():
        return _folder(source, name)
    defaults = CohortConfig(samplesheet=str(source))
    sheet, _ = read_sheet(source, defaults.missing_values)
    base = root or source.parent
    proposal = _Proposal()
    _roles(sheet, base, source, proposal)
    _covariates(sheet, proposal)
    _labels(sheet, proposal)
    unused = [c for c in sheet.columns if c not in _used(proposal)]
    if unused:
        proposal.said.append(f"not used: {', '.join(unused[:20])}" + (", ..." if len(unused) > 20 else ""))
    cohort: dict[str, object] = {"samplesheet": str(source)}
    if root is not None:
        cohort["root"] = str(root)
    cohort["columns"] = proposal.columns
    for section in ("labels", "covariates"):
        if getattr(proposal, section):
            cohort[section] = getattr(proposal, section)
    return _write(name, cohort, proposal), proposal.said


def _study_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "study"
    return name if name[0].isalpha() else f"study_{name}"


def _folder(source: Path, name: str) -> tuple[str, list[str]]:
    found = find_photographs(source)
    if not found.photographs:
        raise SamplesheetError(str(source), [no_photographs(source, found, "give another folder, or a samplesheet")])
    _, notes = guess_from_names(found.photographs)
    proposal = _Proposal(said=[f"{len(found.photographs):,} photographs in {source}", *found.notes(), *notes])
    proposal.said.append("a folder has no labels: biomarkers and their distributions are reported, associations need a samplesheet")
    return _write(name, {"samplesheet": str(source)}, proposal), proposal.said


def _matching(sheet: pd.DataFrame, pattern: str, taken: set[str]) -> list[str]:
    """Columns whose whole name matches, then those of which one word does."""

    def words(column: str) -> list[str]:
        spread = re.sub(r"([a-z])([A-Z])", r"\1_\2", column).lower()
        return [w for w in re.split(r"[^a-z0-9]+", spread) if w]

    free = [c for c in sheet.columns if c not in taken]
    whole = [c for c in free if re.fullmatch(pattern, "_".join(words(c)))]
    return whole + [c for c in free if c not in whole and any(re.fullmatch(pattern, w) for w in words(c))]


def _used(proposal: _Proposal) -> set[str]:
    variables = {**proposal.labels, **proposal.covariates}
    return set(proposal.columns.values()) | {v.get("column") or n for n, v in variables.items()}


def _roles(sheet: pd.DataFrame, base: Path, source: Path, proposal: _Proposal) -> None:
    # What is in a column counts more than its name: paths end like photographs and exist.
    looks = {c: sheet[c].dropna().head(200).str.lower().str.endswith(SUFFIXES).mean() for c in sheet.columns if sheet[c].notna().any()}
    paths = [c for c in _matching(sheet, _NAMES["image"], set()) if looks.get(c, 0) > 0.9]
    paths += [c for c, share in looks.items() if share > 0.9 and c not in paths]
    if not paths:
        columns = ", ".join(list(sheet.columns)[:30])
        mend = "add a column with the path of each photograph, ending included"
        raise SamplesheetError(str(source), [Fault(None, "-", "a column of paths of photographs", f"none among {columns}", mend)])
    proposal.columns["image"] = paths[0]
    cells = sheet[paths[0]].dropna().head(100)
    there = sum((base / c).exists() for c in cells)
    mend = "let cohort.root (or --root) be the folder that they start from" if there == 0 else "`retsam ingest` names them"
    note = "" if there == len(cells) else f"; {len(cells) - there} of the first {len(cells)} are not found from {base}: {mend}"
    proposal.said.append(f"photographs: column {paths[0]!r}{note}")
    for role in ("image_id", "subject", "eye", "visit", "um_per_px"):
        candidates = _matching(sheet, _NAMES[role], set(proposal.columns.values()))
        fitting = [c for c in candidates if _fits(role, sheet[c]) and not (role == "visit" and re.search(_NO_VISIT, c, re.IGNORECASE))]
        if fitting:
            proposal.columns[role] = fitting[0]
            more = f"; {sheet[fitting[0]].nunique():,} different" if role == "subject" else ""
            proposal.said.append(f"{role}: column {fitting[0]!r}{more}{_odd(~_good(role, sheet[fitting[0]]), sheet[fitting[0]])}")
        elif role in ("subject", "eye"):
            what = {"subject": "every photograph counts as its own subject", "eye": "the eye is unknown"}[role]
            proposal.said.append(f"{role}: no column recognised, {what}; set cohort.columns.{role} if there is one")


# A column is what most of its cells are; the others are faults of theirs, which `retsam ingest` tells row by row.
_MOST = 0.75


def _good(role: str, cells: pd.Series) -> pd.Series:
    """Cells that suit a role."""
    if role == "image_id":
        return cells.notna() & ~cells.duplicated(keep=False)
    if role == "eye":
        return cells.isna() | cells.str.lower().isin(EYES)
    if role == "subject":
        return cells.notna()
    if role == "um_per_px":
        return cells.isna() | pd.to_numeric(cells, errors="coerce").notna()
    return pd.Series(True, index=cells.index)


def _fits(role: str, cells: pd.Series) -> bool:
    if cells.isna().all():
        return False
    good = _good(role, cells)
    # An id must be one: where some are not, they are made from the paths.
    return bool(good.all()) if role == "image_id" else bool(good[cells.notna() | (role == "subject")].mean() >= _MOST)


def _odd(wrong: pd.Series, cells: pd.Series) -> str:
    """What a person must mend in a column that is otherwise understood."""
    if not wrong.any():
        return ""
    some = ", ".join("empty" if pd.isna(c) else repr(c) for c in cells[wrong].drop_duplicates().head(3))
    return f"; {int(wrong.sum()):,} cells do not fit ({some}): mend them, `retsam ingest` names each"


def _numeric(cells: pd.Series) -> bool:
    """Whether a column is one of numbers, be it with decimal commas or a few cells that are none."""
    known = cells.dropna()
    return len(known) > 0 and bool(_number(known).notna().mean() >= _MOST)


def _number(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells.str.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True), errors="coerce")


def _variable_name(column: str, taken: Collection[str]) -> str:
    """Name of a variable of a column that no other has, nor the cohort table itself."""
    name = re.sub(r"\W+", "_", column.strip()).strip("_").lower() or "variable"
    name = f"v_{name}" if name[0].isdigit() else name
    taken = {*taken, *RESERVED_COLUMNS}
    return next(n for n in chain([name], (f"{name}_{k}" for k in count(2))) if n not in taken)


def _taken(proposal: _Proposal) -> set[str]:
    return {*proposal.labels, *proposal.covariates}


def _add(section: dict[str, dict], name: str, column: str, **settings) -> None:
    section[name] = ({"column": column} if column != name else {}) | settings


def _covariates(sheet: pd.DataFrame, proposal: _Proposal) -> None:
    for column in _matching(sheet, _COVARIATES, set(proposal.columns.values())):
        known = sheet[column].dropna()
        if known.nunique() < 2:
            continue
        coded = bool(_matching(sheet[[column]], _CODED, set())) and known.nunique() <= _MOST_VALUES
        kind = "continuous" if _numeric(known) and known.nunique() > 2 and not coded else "categorical"
        if kind == "categorical" and known.nunique() > _MOST_VALUES:
            continue
        # Age and sex go by these names in the standard covariate sets.
        common = {r"age(_?(years?|yrs?|y))?": "age", r"(sex|gender)": "sex"}
        plain_name = _variable_name(column, ())
        name = next((n for pattern, n in common.items() if re.fullmatch(pattern, plain_name) and n not in proposal.covariates), None)
        name = name or _variable_name(column, proposal.covariates)
        _add(proposal.covariates, name, column, type=kind)
        missing = f", missing in {len(sheet) - len(known):,}" if len(known) < len(sheet) else ""
        wrong = pd.to_numeric(known, errors="coerce").isna() if kind == "continuous" else known.isna()
        proposal.said.append(f"covariate {name}: column {column!r}, {kind}{missing}{_odd(wrong, known)}")


def _labels(sheet: pd.DataFrame, proposal: _Proposal) -> None:
    for column in _matching(sheet, _OUTCOMES, _used(proposal)):
        known = sheet[column].dropna()
        values = known.value_counts()
        if len(values) < 2:
            continue
        numbers = pd.to_numeric(known, errors="coerce")
        whole = bool(numbers.notna().all())
        words = known.map(lambda cell: plain(cell).lower())
        if words.isin(YES | NO).all():
            kind, n_yes = "0/1" if whole else "yes/no", int(words.isin(YES).sum())
            _outcome(proposal, _variable_name(column, _taken(proposal)), column, {"type": "binary"}, f"{kind}, {n_yes:,} yes")
        elif whole and len(values) <= 10:
            name = _variable_name(column, _taken(proposal))
            _add(proposal.labels, name, column, type="ordinal")
            proposal.said.append(f"label {name}: column {column!r}, grades {', '.join(sorted(map(plain, values.index)))}")
            lowest, *above = sorted(float(v) for v in values.index)
            positive = [int(v) if v.is_integer() else v for v in above]
            n_yes = int((numbers > lowest).sum())
            any_of = _variable_name(f"{name}_any", _taken(proposal))
            _outcome(proposal, any_of, column, {"positive": positive}, f"{name} above {lowest:g}, {n_yes:,} yes")
        elif not whole and len(values) <= _MOST_VALUES:
            normal = [v for v in values.index if v.lower() in _NORMAL]
            label = _variable_name(column, _taken(proposal))
            _add(proposal.labels, label, column, type="categorical")
            common = [v for v in values.index if v not in normal and values[v] >= _FEWEST]
            few = "" if common else f"; none but a normal one in {_FEWEST} photographs: list what means yes in `positive` for an outcome"
            proposal.said.append(f"label {label}: column {column!r}, categorical: {', '.join(map(str, values.index[:8]))}{few}")
            for value in common:
                name = _variable_name(f"{column}_{value}", _taken(proposal))
                against = f"against {', '.join(map(repr, normal))}" if normal else "against all others"
                settings = {"positive": [value]} | ({"negative": normal} if normal else {})
                _outcome(proposal, name, column, settings, f"{value!r} {against}, {values[value]:,} yes")
        else:
            proposal.said.append(f"column {column!r} has {len(values):,} different values: make labels of it with `positive_pattern`")


def _outcome(proposal: _Proposal, name: str, column: str, settings: dict, how: str) -> None:
    _add(proposal.labels, name, column, **settings)
    proposal.outcomes.append(name)
    proposal.said.append(f"outcome {name}: column {column!r}, {how}")


def _write(name: str, cohort: dict, proposal: _Proposal) -> str:
    settings: dict[str, object] = {"study": name, "cohort": cohort}
    if proposal.outcomes:
        basic = [c for c in ("age", "sex") if c in proposal.covariates]
        sets: dict[str, list[str]] = {"crude": []}
        if basic:
            sets["_".join(basic)] = basic
        if set(proposal.covariates) > set(basic):
            sets["full"] = list(proposal.covariates)
        settings["association"] = {"outcomes": proposal.outcomes, "covariate_sets": sets}
        proposal.said.append("covariate sets: " + "; ".join(f"{k} ({', '.join(v) or 'none'})" for k, v in sets.items()))
    elif "columns" in cohort:
        proposal.said.append("no outcome recognised: declare labels under cohort.labels and name them in association.outcomes")
    head = (
        f"# Study {name}, proposed by `retsam init`. Every key is explained in config/README.md; what is left out has its default.\n"
        "# Check what means yes and no in cohort.labels before you trust an association.\n"
    )
    return head + yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Lists of plain values on one line, and no anchors, as a person would write them."""

    def ignore_aliases(self, data):
        return True


def _short_list(dumper: yaml.SafeDumper, values: list) -> yaml.Node:
    plain_values = all(not isinstance(v, (dict, list)) for v in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain_values)


_Dumper.add_representer(list, _short_list)
