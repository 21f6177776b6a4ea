"""Photographs of a bare folder: which files they are, and what their names tell of eye and subject."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from retsam.cohort.reading import SUFFIXES
from retsam.eyes import EYES


@dataclass
class Found:
    """Files below a folder.

    Parameters
    ----------
    photographs : list of str
        Paths relative to the folder, in natural order.
    others : Counter of str
        Files that are none, by ending.
    again : list of str
        Linked folders that were read under another name.
    closed : list of str
        Folders that cannot be opened.
    """

    photographs: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was left out, one sentence each."""
        notes = []
        if self.others:
            kinds = ", ".join(f"{ending} {count:,}" for ending, count in sorted(self.others.items(), key=lambda kind: (-kind[1], kind[0])))
            notes.append(f"{self.others.total():,} other files left out: {kinds}")
        if self.again:
            notes.append(f"linked folders left out, since they are read under another name: {', '.join(self.again)}")
        if self.closed:
            notes.append(f"folders left out, since they cannot be opened: {', '.join(self.closed)}")
        return notes


def find_photographs(folder: Path) -> Found:
    """Find the photographs below a folder: files with the ending of one, and DICOM files without an ending.

    Hidden files and folders are left out. Links are followed, each folder once, a link that leads nowhere counts as a photograph.
    """
    found, root = Found(), os.path.realpath(folder)
    seen = {root}

    def shown(path: str) -> str:
        return os.path.relpath(path, folder)

    for base, folders, names in os.walk(folder, followlinks=True, onerror=lambda error: found.closed.append(shown(error.filename))):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in list(folders):
            path = os.path.join(base, name)
            real = os.path.realpath(path)
            if real in seen or (os.path.islink(path) and not _elsewhere(real, root)):
                folders.remove(name)
                found.again.append(shown(path))
            else:
                seen.add(real)
        for name in sorted(n for n in names if not n.startswith(".")):
            path = os.path.join(base, name)
            if name.lower().endswith(SUFFIXES) or _is_unnamed_dicom(path):
                found.photographs.append(shown(path))
            else:
                found.others[os.path.splitext(name)[1].lower() or "without ending"] += 1
    found.photographs.sort(key=_natural)
    return found


def _elsewhere(real: str, root: str) -> bool:
    """Whether a folder is outside `root` or hidden in it, and so is read through links only."""
    return any(part.startswith(".") for part in os.path.relpath(real, root).split(os.sep) if part != os.curdir)


def _is_unnamed_dicom(path: str) -> bool:
    """Whether a file without an ending, or with a number as archives name objects, is DICOM by its content."""
    if not re.fullmatch(r"(\.\d+)?", os.path.splitext(path)[1]):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _natural(path: str) -> tuple:
    """Sort key that puts ``img_2`` before ``img_10``."""
    return tuple((0, int(t), "") if t.isdecimal() else (1, 0, t) for t in re.split(r"(\d+)", path) if t)


_EYE_WORD = re.compile(r"(?<![a-z0-9])(od|os|right|left|r|l)(?![a-z0-9])", re.IGNORECASE)


def guess_from_names(relative: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Eye and subject of photographs in a bare folder, where file names leave no doubt.

    The eye is taken from a word of the name (``od``, ``os``, ``right``, ``left``, ``r``, ``l``) if every name, or none, has exactly
    one such word and both eyes occur; the subject is then what is left of the path. Otherwise both are left unknown.

    Parameters
    ----------
    relative : list of str
        Paths relative to the folder.

    Returns
    -------
    guess : DataFrame
        ``subject`` and ``eye``, NA where not known.
    notes : list of str
    """
    stems = [os.path.splitext(p)[0] for p in relative]
    words = [[m for m in _EYE_WORD.finditer(s)] for s in stems]
    nothing = pd.DataFrame(
        {
            "subject": pd.Series(pd.NA, index=range(len(stems)), dtype="string"),
            "eye": pd.Series(pd.NA, index=range(len(stems)), dtype="string"),
        }
    )
    named = sum(len(w) == 1 for w in words)
    if named < len(stems):
        how = "none names" if named == 0 else f"only {named} of {len(stems)} name"
        return nothing, [f"eye and subject are not guessed: {how} exactly one eye (od/os, right/left, r/l) in the file name"]
    eyes = [EYES[w[0].group().lower()] for w in words]
    if len(set(eyes)) < 2:
        return nothing, [f"eye and subject are not guessed: every file name says {words[0][0].group()!r}"]
    named = zip(stems, words, strict=True)
    if any(re.search(r"\w", s[: w[0].start()]) and re.fullmatch(r"[^a-zA-Z0-9]*\d{1,2}", s[w[0].end() :]) for s, w in named):
        return nothing, [f"eye and subject are not guessed: a number behind the eye may count photographs of one subject ({relative[0]})"]
    subjects = [re.sub(r"[^\w]+", "-", s[: w[0].start()] + s[w[0].end() :]).strip("-_") for s, w in zip(stems, words, strict=True)]
    if len(set(zip(subjects, eyes, strict=True))) < len(stems) or not all(subjects):
        return nothing, ["eye and subject are not guessed: the names without the eye do not tell subjects apart"]
    pairs = pd.Series(subjects).duplicated().sum()
    guess = pd.DataFrame({"subject": pd.array(subjects, "string"), "eye": pd.array(eyes, "string")})
    said = f"eye and subject guessed from file names: {relative[0]} is the {eyes[0]} eye of {subjects[0]!r}"
    return guess, [f"{said}; {len(set(subjects)):,} subjects, {pairs:,} with both eyes"]
