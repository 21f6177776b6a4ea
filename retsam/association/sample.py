"""The analysis sample: three tables joined, every exclusion counted, outcomes coded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from retsam.association.config import AssociationConfig
from retsam.association.faults import PlanError, check_plan
from retsam.association.outcomes import Coded, cell_text, code_outcome, text_of
from retsam.cohort.variables import id_text, listed
from retsam.cohort.visits import visit_order

GRADE_ORDER = {"gradable": 0, "usable": 1, "reject": 2}


@dataclass
class Sample:
    """Rows that may be analysed, sorted by the cluster's key, then by image id: the same for any order of the tables' rows.

    Attributes
    ----------
    frame : DataFrame [n]
        Cohort columns, quality columns as ``quality_<column>``, and ``cluster`` (int code); rows of a cluster lie together.
    values : ndarray [n, B]
        Biomarkers, NaN where not measured; columns lie together in memory, so that one of them is a view and no copy.
    reasons : DataFrame [n, B]
        Why a value is missing (null where measured), as categories.
    names : list of str
        Biomarkers.
    flow : list of dict
        Steps that all outcomes share.
    every_image : DataFrame, optional
        Every photograph of the cohort, with why it was left out.
    coded : dict of str to Coded, optional
        Outcomes of the rows, where they are not simply those of the frame's columns.
    """

    frame: pd.DataFrame
    values: np.ndarray
    reasons: pd.DataFrame
    names: list[str]
    flow: list[dict] = field(default_factory=list)
    every_image: pd.DataFrame | None = None
    coded: dict[str, Coded] | None = None

    @property
    def cluster(self) -> np.ndarray:
        """Cluster code of each row, non-decreasing."""
        return self.frame["cluster"].to_numpy()

    def take(self, rows: np.ndarray) -> Sample:
        """The sample of some rows (a mask or increasing positions)."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        return Sample(
            self.frame.iloc[rows].reset_index(drop=True),
            self.values[rows],
            self.reasons.iloc[rows].reset_index(drop=True),
            self.names,
            self.flow,
            self.every_image,
            self.coded and {name: coded.take(rows) for name, coded in self.coded.items()},
        )


def biomarker_columns(biomarkers: pd.DataFrame) -> list[str]:
    """Biomarkers of a biomarker table: columns that have a ``<name>__reason`` beside them, and hold numbers."""
    return [
        c
        for c in biomarkers.columns
        if f"{c}__reason" in biomarkers.columns and (pd.api.types.is_numeric_dtype(biomarkers[c].dtype) or biomarkers[c].isna().all())
    ]


def join_tables(cohort: pd.DataFrame, quality: pd.DataFrame, biomarkers: pd.DataFrame) -> pd.DataFrame:
    """One row an image of the cohort, by image id, with ``quality_*`` and ``measured_*`` columns.

    Raises
    ------
    PlanError
        If a table lacks its key columns, repeats an image, or names images that the cohort does not have.
    """
    faults = []
    needs = {
        "cohort": (cohort, ("image_id", "subject", "status")),
        "quality": (quality, ("image_id", "status", "grade")),
        "biomarkers": (biomarkers, ("image_id", "status")),
    }
    for name, (table, columns) in needs.items():
        missing = [c for c in columns if c not in table.columns]
        if missing:
            faults.append(f"the {name} table lacks {', '.join(missing)}")
            continue
        twice = table["image_id"][table["image_id"].duplicated()].astype(str).unique()
        if len(twice):
            faults.append(f"the {name} table repeats {len(twice)} images (first: {twice[0]})")
    if not faults:
        known = set(cohort["image_id"].astype(str))
        for name in ("quality", "biomarkers"):
            strangers = sorted(set(needs[name][0]["image_id"].astype(str)) - known)
            if strangers:
                faults.append(
                    f"the {name} table has {len(strangers)} images that the cohort has not (first: {strangers[0]}): it is of another study"
                )
    if faults:
        raise PlanError(faults)
    # By image, whatever the order of the samplesheet: all that is random draws by position, and must not hang on how a table was sorted.
    joined = cohort.assign(image_id=cohort["image_id"].astype(str)).sort_values("image_id", kind="stable").reset_index(drop=True)
    q = (
        quality.assign(image_id=quality["image_id"].astype(str))
        .drop(columns=["path"], errors="ignore")
        .set_index("image_id")
        .add_prefix("quality_")
    )
    state = biomarkers.assign(image_id=biomarkers["image_id"].astype(str)).set_index("image_id")
    extra = [c for c in ("status", "reason", "detail") if c in state.columns]
    joined = joined.join(q, on="image_id").join(state[extra].add_prefix("measured_"), on="image_id")
    joined["order"] = np.arange(len(joined))
    return joined


class _Flow:
    """Steps of the flow table; every step accounts for what it took out."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self.alive = np.ones(len(frame), dtype=bool)
        self.rows: list[dict] = []
        self.final = np.full(len(frame), "", dtype=object)
        self._add("found", Counter())

    def _add(self, stage: str, reasons: Counter) -> None:
        self.rows.append(
            {
                "outcome": "all",
                "covariate_set": None,
                "step": len(self.rows),
                "stage": stage,
                "n_images": int(self.alive.sum()),
                "n_subjects": int(self.frame.loc[self.alive, "subject_key"].nunique()),
                "n_excluded": int(sum(reasons.values())),
                "reasons": join_reasons(reasons),
            }
        )

    def exclude(self, stage: str, out: np.ndarray, reason: np.ndarray | str) -> None:
        """Take out rows of the mask ``out`` for ``reason``; rows that are out already are not counted again."""
        out = self.alive & out
        why = np.full(len(out), reason, dtype=object) if isinstance(reason, str) else reason
        self.final[out] = [f"{stage}:{r}" for r in why[out]]
        self.alive = self.alive & ~out
        self._add(stage, Counter(why[out]))


def join_reasons(reasons: Counter) -> str:
    """``code: n; code: n``, most frequent first."""
    return "; ".join(f"{code}: {count}" for code, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])) if count)


def build_sample(
    config: AssociationConfig,
    cohort: pd.DataFrame,
    quality: pd.DataFrame,
    biomarkers: pd.DataFrame,
    names: list[str],
    exclude_subjects: frozenset[str] = frozenset(),
) -> Sample:
    """Join the tables, leave out what the plan leaves out, and count it.

    Parameters
    ----------
    config : AssociationConfig
    cohort, quality, biomarkers : DataFrame
        As in ``docs/contracts.md``.
    names : list of str
        Biomarkers to analyse.
    exclude_subjects : frozenset of str
        Subjects to leave out because their labels taught a segmentation head.

    Returns
    -------
    Sample

    Raises
    ------
    PlanError
        With every fault of the plan against the tables.
    """
    frame = join_tables(cohort, quality, biomarkers)
    n = len(frame)
    check_plan(config, frame)
    subject = frame["subject"].astype(object).where(frame["subject"].notna(), None) if "subject" in frame else pd.Series([None] * n)
    # a photograph without a subject is a cluster of its own, and shows as one
    frame["subject_key"] = [f"image:{i}" if s is None else f"subject:{id_text(s)}" for s, i in zip(subject, frame["image_id"], strict=True)]
    flow = _Flow(frame)

    status, reason = cell_text(frame["status"], n), cell_text(frame.get("reason"), n)
    q_status, q_reason = cell_text(frame.get("quality_status"), n), cell_text(frame.get("quality_reason"), n)
    duplicate = (reason == "duplicate") | (q_reason == "duplicate")
    unread = ((status != "ok") | (q_status != "ok")) & ~duplicate
    why = np.where(
        status != "ok",
        np.where(reason == "", "unreadable", reason),
        np.where(q_status == "", "no_quality_row", np.where(q_reason == "", "unreadable", q_reason)),
    )
    flow.exclude("readable", unread, why)
    flow.exclude("unique", duplicate, "duplicate")
    grade = cell_text(frame.get("quality_grade"), n)
    flow.exclude("gradable", ~np.isin(grade, config.grades), np.where(grade == "", "no_grade", grade))
    m_status, m_reason = cell_text(frame.get("measured_status"), n), cell_text(frame.get("measured_reason"), n)
    flow.exclude("segmented", m_status != "ok", np.where(m_status == "", "no_biomarker_row", np.where(m_reason == "", "failed", m_reason)))

    # row of each image in the biomarker table, -1 where it has none; columns are read one by one, so that no second table is ever built
    place = pd.Index(biomarkers["image_id"].astype(str)).get_indexer(frame["image_id"])
    measured = np.zeros(n, dtype=bool)
    for b in names:
        measured |= np.isfinite(numbers(biomarkers[b], place))
    flow.exclude("measured", ~measured, "no_biomarker_measured")

    out = np.zeros(n, dtype=bool)
    why = np.full(n, "", dtype=object)
    for column, bad in config.exclude.items():
        texts = np.array([text_of(v) if v != "" else "" for v in cell_text(frame[column], n)], dtype=object)
        hit = np.isin(texts, list(listed(bad))) & ~out
        why[hit] = [f"{column}={t}" for t in texts[hit]]
        out |= hit
    if exclude_subjects:
        hit = np.array([s is not None and id_text(s) in exclude_subjects for s in subject]) & ~out
        why[hit] = "label_used_in_training"
        out |= hit
    flow.exclude("eligible", out, why)

    eye = cell_text(frame.get("eye"), n)
    out = np.zeros(n, dtype=bool)
    why = np.full(n, "another_photograph_of_the_eye", dtype=object)
    if config.unit.level in ("subject_right", "subject_left"):
        wanted = "R" if config.unit.level == "subject_right" else "L"
        out |= eye != wanted
        why[eye != wanted] = "other_eye"
    if config.unit.visits != "all":
        out |= flow.alive & ~out & ~_chosen_photograph(frame, eye, flow.alive & ~out, config.unit.visits)
    flow.exclude("one_per_eye", out, why)

    frame["excluded"] = flow.final
    alive = np.flatnonzero(flow.alive)
    keys = frame["subject_key"].to_numpy(dtype=object)[alive]
    if config.unit.cluster != "subject":
        keys = whole_subjects(cell_text(frame[config.unit.cluster], n)[alive], keys)
    codes, _ = pd.factorize(keys, sort=True)
    order = np.lexsort((alive, codes))
    rows = alive[order]
    kept = frame.iloc[rows].reset_index(drop=True)
    kept["cluster"] = codes[order]
    values = np.empty((len(rows), len(names)), order="F")
    for j, b in enumerate(names):
        values[:, j] = numbers(biomarkers[b], place[rows])
    reasons = pd.DataFrame({b: _codes(biomarkers[f"{b}__reason"], place[rows]) for b in names}, index=range(len(rows)))
    sample = Sample(kept, values, reasons, list(names), flow.rows, frame)
    return average_eyes(sample, config) if config.unit.level == "subject_mean" else sample


def whole_subjects(cluster: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Key of each row's cluster: rows that share a cell or a subject are together, however many others lie between.

    A column that is empty for one eye, or that differs between the eyes, would else count the eyes of a subject as independent.

    Parameters
    ----------
    cluster : ndarray of str [n]
        Cells of the plan's column, empty where missing.
    subject : ndarray of str [n]

    Returns
    -------
    ndarray of str [n]
        The first, in order, of the cells that lie together; the subject where all are empty.
    """
    names, cell = np.unique(np.where(cluster == "", subject, cluster).astype(str), return_inverse=True)
    people, person = np.unique(subject.astype(str), return_inverse=True)
    links = coo_matrix((np.ones(len(cell)), (cell, len(names) + person)), shape=(len(names) + len(people),) * 2)
    group = connected_components(links, directed=False)[1][: len(names)]
    first = np.unique(group, return_index=True)[1]
    return names[first[group[cell]]].astype(object)


def numbers(column: pd.Series, place: np.ndarray) -> np.ndarray:
    """A column at some positions (-1: no row), NaN where it holds no finite number."""
    if len(column) == 0:
        return np.full(len(place), np.nan)
    x = pd.to_numeric(column, errors="coerce").astype("Float64").to_numpy(dtype=float, na_value=np.nan)[place]
    x[(place < 0) | ~np.isfinite(x)] = np.nan
    return x


def _codes(column: pd.Series, place: np.ndarray) -> pd.Categorical:
    """Words at some positions (-1: no row) as categories: a byte a cell, of which there are as many as numbers."""
    words = pd.Categorical(column)
    codes = np.where(place < 0, -1, words.codes[place]) if len(column) else np.full(len(place), -1)
    return pd.Categorical.from_codes(codes, words.categories)


def _chosen_photograph(frame: pd.DataFrame, eye: np.ndarray, alive: np.ndarray, visits: str) -> np.ndarray:
    """Mask of the photographs that stand for their eye; where the eye is not known every photograph stands for itself."""
    rows = frame.loc[alive, ["subject_key"]].copy()
    rows["eye"] = eye[alive]
    texts = cell_text(frame.get("visit"), len(frame))
    try:
        order = visit_order(texts)
    except ValueError:  # no eye has two of them (`check_plan`): known ones come before unknown ones, and that is all
        order = np.where(texts == "", np.nan, 0.0)
    rows["visit"] = order[alive] * (-1.0 if visits == "last" else 1.0)
    rows["grade"] = frame.loc[alive, "quality_grade"].map(GRADE_ORDER).astype("Float64").fillna(9).astype(float)
    rows["order"] = frame.loc[alive, "order"]
    rows = rows.sort_values(["visit", "grade", "order"], kind="stable", na_position="last")
    first = ~rows.duplicated(["subject_key", "eye"]) | (rows["eye"] == "")
    keep = np.zeros(len(frame), dtype=bool)
    keep[first.index[first.to_numpy()]] = True
    return keep


def average_eyes(sample: Sample, config: AssociationConfig) -> Sample:
    """One row a subject: biomarkers averaged over the eyes that have them, outcomes of the worse eye, other columns of the first eye."""
    subject, _ = pd.factorize(sample.frame["subject_key"].to_numpy())
    first = np.unique(subject, return_index=True)[1]
    n = len(first)
    finite = np.isfinite(sample.values)
    total = np.zeros((n, sample.values.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, subject, np.where(finite, sample.values, 0.0))
    np.add.at(count, subject, finite)
    with np.errstate(invalid="ignore"):
        values = np.where(count > 0, total / count, np.nan)
    frame = sample.frame.iloc[first].reset_index(drop=True)
    order = np.argsort(frame["cluster"].to_numpy(), kind="stable")
    # Coded before eyes are merged: two outcomes may read one column, and the worse eye for one is not the worse for the other.
    coded = {outcome.name: code_outcome(sample.frame, outcome) for outcome in config.outcomes}
    reasons = sample.reasons.iloc[first].reset_index(drop=True)
    step = {
        **sample.flow[-1],
        "step": len(sample.flow),
        "stage": "one_per_subject",
        "n_images": n,
        "n_excluded": len(subject) - n,
        "reasons": join_reasons(Counter({"averaged_with_the_other_eye": len(subject) - n})),
    }
    return Sample(
        frame.iloc[order].reset_index(drop=True),
        np.asfortranarray(values[order]),
        reasons.iloc[order].reset_index(drop=True),
        sample.names,
        [*sample.flow, step],
        sample.every_image,
        {name: of_eyes.take(worse_eyes(subject, of_eyes)[order]) for name, of_eyes in coded.items()},
    )


def worse_eyes(subject: np.ndarray, coded: Coded) -> np.ndarray:
    """Row of each subject's worse eye, by one outcome.

    Parameters
    ----------
    subject : ndarray of int [n]
        Code of each row's subject, 0 ... S-1.
    coded : Coded

    Returns
    -------
    ndarray of int [S]
        That of the highest value; of times, of the first event, or where there is none the longest follow-up. Where equal the first row,
        and one without an outcome only where none has one.
    """
    rows = pd.DataFrame({"s": subject, "unknown": ~coded.labelled, "spared": False, "y": -coded.y, "o": np.arange(len(subject))})
    if coded.event is not None:
        happened = coded.event == 1
        rows["spared"], rows["y"] = ~happened, np.where(happened, coded.y, -coded.y)
    return rows.sort_values(["s", "unknown", "spared", "y", "o"], na_position="last").drop_duplicates("s")["o"].to_numpy()
