"""Circularity: a biomarker whose segmentation head learned from labels of the subjects whose association is now tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from retsam.association.config import Circularity
from retsam.association.sample import PlanError, Sample
from retsam.cohort.variables import id_text


def learned_photographs(weights: Path) -> pd.DataFrame | None:
    """List beside a weights file of the photographs whose labels its heads learned from; None where it has none.

    Parameters
    ----------
    weights : Path
        ``.safetensors``; the list is ``<stem>.learned.csv`` with ``content_hash`` and ``heads`` (joined by ``;``).

    Returns
    -------
    DataFrame or None

    Raises
    ------
    PlanError
        If the list lacks its columns, or the model card names one that is not there.
    """
    path = Path(weights).with_suffix(".learned.csv")
    if not path.is_file():
        card = Path(weights).with_suffix(".json")
        if card.is_file() and "learned_from" in json.loads(card.read_text()).get("weak", {}):
            fault = f"{path}: expected the list of photographs that taught the weak heads, which {card.name} names, and found no file"
            raise PlanError([f"{fault}; without it their subjects cannot be left out: copy it from where the weights came from"])
        return None
    table = pd.read_csv(path, dtype=str)
    if not {"content_hash", "heads"} <= set(table.columns):
        raise PlanError([f"{path}: expected the columns content_hash and heads, found {', '.join(table.columns)}"])
    return table


def training_subjects(
    config: Circularity, cohort: pd.DataFrame, quality: pd.DataFrame | None = None, learned: pd.DataFrame | None = None
) -> dict[str, set[str]]:
    """Subjects of the cohort whose labels each head learned from.

    Parameters
    ----------
    config : Circularity
        ``table`` has the columns ``head`` and ``image_id`` or ``subject``. ``model_card`` has, under ``heads.<head>``, lists
        ``training_images`` or ``training_subjects``.
    cohort : DataFrame
        With ``image_id`` and ``subject``.
    quality : DataFrame, optional
        With ``image_id`` and ``content_hash``, by which photographs are recognised whatever they are named here.
    learned : DataFrame, optional
        From :func:`learned_photographs`.

    Returns
    -------
    dict of str to set of str
        Subjects by head; heads that learned from nobody in this cohort are left out.

    Raises
    ------
    PlanError
        If a file does not exist or lacks its columns.
    """
    pairs: list[tuple[str, str, str]] = []
    if config.table:
        path = Path(config.table)
        if not path.is_file():
            raise PlanError([f"circularity.table: no such file: {path}"])
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
        if "head" not in table or not {"image_id", "subject"} & set(table.columns):
            raise PlanError(
                [f"circularity.table {path}: expected the columns head and image_id or subject, found {', '.join(table.columns)}"]
            )
        for kind in ("image_id", "subject"):
            if kind in table:
                known = table[table[kind].notna()]
                pairs += [(str(h), kind, id_text(v)) for h, v in zip(known["head"], known[kind], strict=True)]
    if config.model_card:
        path = Path(config.model_card)
        if not path.is_file():
            raise PlanError([f"circularity.model_card: no such file: {path}"])
        card = json.loads(path.read_text(encoding="utf-8"))
        for head, entry in (card.get("heads") or {}).items():
            for key, kind in (("training_images", "image_id"), ("training_subjects", "subject")):
                pairs += [(head, kind, id_text(v)) for v in (entry or {}).get(key, ())]
    if learned is not None and quality is not None and "content_hash" in quality:
        seen = quality[["image_id", "content_hash"]].merge(learned, on="content_hash")
        pairs += [(h, "image_id", id_text(i)) for i, heads in zip(seen["image_id"], seen["heads"], strict=True) for h in heads.split(";")]
    subject_of = {id_text(i): id_text(s) for i, s in zip(cohort["image_id"], cohort["subject"], strict=True) if not pd.isna(s)}
    here = set(subject_of.values())
    out: dict[str, set[str]] = {}
    for head, kind, value in pairs:
        subject = subject_of.get(value) if kind == "image_id" else value
        if subject in here:
            out.setdefault(head, set()).add(subject)
    return out


HELD_OUT = "head_learned_from_subject"
"""Reason of a value that is left out because its head learned from the subject's labels."""


def _taught(needs: tuple[str, ...], trained: dict[str, set[str]]) -> tuple[list[str], set[str]]:
    heads = sorted({h for need in needs for h in need.split("|")})
    return heads, set().union(*(trained.get(h, set()) for h in heads)) if heads else set()


def without_learned(
    biomarkers: pd.DataFrame, cohort: pd.DataFrame, needs: dict[str, tuple[str, ...]], trained: dict[str, set[str]]
) -> pd.DataFrame:
    """Biomarkers with the values of those subjects left out whose labels taught a head that the biomarker needs.

    Parameters
    ----------
    biomarkers, cohort : DataFrame
        As in ``docs/contracts.md``.
    needs, trained : dict
        As in :func:`circularity`.

    Returns
    -------
    DataFrame
        A copy; the values are null with the reason :data:`HELD_OUT`. All other columns and rows stay.
    """
    subject_of = {id_text(i): id_text(s) for i, s in zip(cohort["image_id"], cohort["subject"], strict=True) if not pd.isna(s)}
    subjects = pd.Series([subject_of.get(id_text(i)) for i in biomarkers["image_id"]], index=biomarkers.index)
    changed: dict[str, pd.Series] = {}
    rows_of: dict[frozenset[str], pd.Series] = {}
    for name, own in needs.items():
        taught = frozenset(_taught(own, trained)[1])
        if not taught:
            continue
        if taught not in rows_of:
            rows_of[taught] = subjects.isin(taught)
        out = rows_of[taught] & biomarkers[name].notna()
        changed[name] = biomarkers[name].mask(out)
        words = pd.Categorical(biomarkers[f"{name}__reason"])
        words = words if HELD_OUT in words.categories else words.add_categories(HELD_OUT)
        words[out.to_numpy()] = HELD_OUT
        changed[f"{name}__reason"] = words
    return biomarkers.assign(**changed)


def circularity(
    sample: Sample, needs: dict[str, tuple[str, ...]], trained: dict[str, set[str]], held_out: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """Which biomarkers rest on heads that learned from analysed subjects.

    Parameters
    ----------
    sample : Sample
    needs : dict of str to tuple of str
        Heads that each biomarker needs (``"artery|vessel"`` for alternatives); unknown biomarkers are left out.
    trained : dict of str to set of str
        From :func:`training_subjects`.
    held_out : bool
        Whether the values of those subjects were left out (:func:`without_learned`), so that no estimate is circular.

    Returns
    -------
    table : DataFrame
        Columns of ``circularity.csv`` without ``plan``.
    untrained : ndarray of bool [n]
        Rows of subjects whose labels taught no head at all.
    """
    subjects = np.array([None if pd.isna(s) else id_text(s) for s in sample.frame["subject"]], dtype=object)
    analysed = {s for s in subjects if s is not None}
    rows = []
    for name in sample.names:
        if name not in needs:
            rows.append(
                {"biomarker": name, "heads": None, "n_analysed_subjects": len(analysed), "circular": False, "note": "heads_unknown"}
            )
            continue
        heads, taught = _taught(needs[name], trained)
        overlap = len(taught & analysed)
        rows.append(
            {
                "biomarker": name,
                "heads": ";".join(heads),
                "n_training_subjects": len(taught),
                "n_analysed_subjects": len(analysed),
                "n_overlap": overlap,
                "share": overlap / len(analysed) if analysed else np.nan,
                "circular": overlap > 0 and not held_out,
                "note": "learned_from_subjects_left_out" if overlap and held_out else None,
            }
        )
    everyone = set().union(*trained.values()) if trained else set()
    return pd.DataFrame(rows), np.array([s not in everyone for s in subjects])
