"""Finding the folders of a public data set as its owners publish it, and saying what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp", ".gz")
DEPTH = 6
"""Levels below the root that are searched: archives are often unpacked into a folder of their own name, twice."""


class LayoutError(ValueError):
    """A folder is not laid out as the data set is published; the message says what was expected and what was found."""


@dataclass
class Entry:
    """One image of a public data set.

    Parameters
    ----------
    image : Path
    split : str
        As the owners split it; ``all`` where they did not.
    group : str
        Subject, or what else must not be torn apart; the file's stem where not given.
    masks : dict of str to callable
        Column of the manifest -> function of the image's ``(height, width)`` that decodes its mask as ``uint8 [H, W]``.
    values : dict
        Further columns of the manifest.
    """

    image: Path
    split: str
    group: str = ""
    masks: dict[str, Callable[[tuple[int, int]], np.ndarray]] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)


class Tree:
    """Folders and files below a root, found whatever the case of their names and the folders they were unpacked into.

    Faults are collected; :meth:`check` raises them together.
    """

    def __init__(self, root: str | Path, dataset: str, layout: str):
        self.root, self.dataset, self.layout = Path(root), dataset, layout
        self.faults: list[str] = []
        self._folders: dict[str, Path] = {}
        if not self.root.is_dir():
            self.fault(f"{self.root} is not a folder")
            return
        for folder, below, _ in os.walk(self.root):
            relative = Path(folder).relative_to(self.root)
            self._folders["/" + relative.as_posix().lower().removeprefix(".")] = Path(folder)
            below[:] = sorted(b for b in below if not b.startswith((".", "__MACOSX"))) if len(relative.parts) < DEPTH else []

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def check(self) -> None:
        """Raise every fault found so far.

        Raises
        ------
        LayoutError
        """
        if not self.faults:
            return
        shown = sorted((p for p in self._folders if p != "/"), key=lambda p: (p.count("/"), p))[:12]
        found = ", ".join(p[1:] + "/" for p in shown) or ("no folder" if self.root.is_dir() else "nothing")
        faults = "\n  ".join(self.faults)
        raise LayoutError(
            f"{self.root} is not laid out as {self.dataset} is published:\n  {faults}\nexpected:\n{self.layout}\nfound: {found}\n"
            "Unpack the owners' archives without renaming, and give the folder that holds them as --root."
        )

    def folder(self, *alternatives: str, required: bool = True) -> Path | None:
        """The shallowest folder whose path ends in one of the alternatives; a fault where none does and one is required."""
        for alternative in alternatives:
            tail = "/" + alternative.lower().strip("/")
            hits = sorted((p for p in self._folders if p.endswith(tail)), key=lambda p: (p.count("/"), p))
            if hits:
                return self._folders[hits[0]]
        if required:
            self.fault(f"no folder {' or '.join(f'{a}/' for a in alternatives)}")
        return None

    def files(self, folder: Path | None, suffixes: Iterable[str] = PHOTOGRAPHS, required: bool = True, deep: bool = False) -> list[Path]:
        """Files of a folder in the order of their names; a fault where there is none and some are required."""
        if folder is None:
            return []
        suffixes = tuple(suffixes)
        every = folder.rglob("*") if deep else folder.iterdir()
        found = sorted(p for p in every if p.suffix.lower() in suffixes and not p.name.startswith("."))
        if not found and required:
            self.fault(f"no {'/'.join(suffixes)} in {folder.relative_to(self.root)}/")
        return found

    def file(self, *alternatives: str, required: bool = True, within: Path | None = None) -> Path | None:
        """The first file that bears one of the names, anywhere below the root or in one folder only."""
        wanted = {a.lower() for a in alternatives}
        folders = self._folders.values() if within is None else [within]
        for folder in sorted(folders, key=lambda p: (len(p.parts), str(p))):
            for path in sorted(folder.iterdir()):
                if path.name.lower() in wanted:
                    return path
        if required:
            self.fault(f"no file {' or '.join(alternatives)}")
        return None

    def partners(self, images: list[Path], name: Callable[[Path], Path | None], what: str) -> dict[Path, Path]:
        """Image -> its mask's path; a fault where not one exists, for then names differ from what is published."""
        pairs = {image: path for image in images if (path := name(image)) is not None}
        if images and not any(path.is_file() for path in pairs.values()):
            example = pairs.get(images[0])
            place = example.relative_to(self.root) if example is not None else "nothing of its name"
            self.fault(f"none of {len(images)} images has {what}: for {images[0].name} expected {place}")
        return pairs

    def by_stem(self, folder: Path | None, suffixes: Iterable[str] = (*PHOTOGRAPHS, ".mat"), deep: bool = False) -> dict[str, Path]:
        """Stem in lower case -> file of a folder; a fault where two files share one, for only one of them can be meant."""
        return self.one_a_stem(self.files(folder, suffixes, required=False, deep=deep))

    def one_a_stem(self, files: Iterable[Path]) -> dict[str, Path]:
        """Stem in lower case -> file, as :meth:`by_stem`."""
        out: dict[str, Path] = {}
        for path in files:
            first = out.setdefault(path.name.split(".")[0].lower(), path)
            if first != path:
                names = " and ".join(str(p.relative_to(self.root)) for p in (first, path))
                self.fault(f"two files of one name, {names}: leave the one that is meant")
        return out
