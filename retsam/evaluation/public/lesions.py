"""Lesions of diabetic retinopathy, and myopic maculopathy: IDRiD, DDR, e-ophtha, FGADR, MMAC."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from retsam.evaluation.public import decode
from retsam.evaluation.public.discs import check_names, read_points, read_table
from retsam.evaluation.public.layout import Entry, Tree
from retsam.training.labels import LESION_BITS

MA, HE, EX, SE = (LESION_BITS[name] for name in ("microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot"))


def idrid(tree: Tree) -> list[Entry]:
    """Porwal et al. 2018: part A, lesions and disc; part C, centres of disc and fovea. A lesion without a file is absent."""
    has_a, has_c = (tree.folder(name, required=False) for name in ("2. All Segmentation Groundtruths", "C. Localization"))
    if has_a is None and has_c is None:
        tree.fault("no folder 'A. Segmentation/' (with '2. All Segmentation Groundtruths/') or 'C. Localization/'")
        return []
    return (_idrid_segmentation(tree) if has_a else []) + (_idrid_localization(tree) if has_c else [])


CODES = {"MA": MA, "HE": HE, "EX": EX, "SE": SE}
IDRID_FOLDERS = {"MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates"}


def _idrid_segmentation(tree: Tree) -> list[Entry]:
    out = []
    for split, part in (("train", "a. Training Set"), ("test", "b. Testing Set")):
        images = tree.files(tree.folder(f"A. Segmentation/1. Original Images/{part}", f"1. Original Images/{part}"))
        truth = f"2. All Segmentation Groundtruths/{part}"
        # A lesion without a file is absent, so a folder that is elsewhere would make it absent everywhere.
        known = {code: _idrid_masks(tree, images, f"{truth}/{name}", code) for code, name in IDRID_FOLDERS.items()}
        discs = tree.by_stem(tree.folder(f"{truth}/5. Optic Disc", required=False))
        for image in images:
            key = image.stem.lower()
            found = {CODES[code]: files.get(f"{key}_{code.lower()}") for code, files in known.items()}
            masks = {"lesions": decode.lesions({path: bit for bit, path in found.items() if path is not None})}
            masks |= {"disc": decode.binary(discs[f"{key}_od"])} if f"{key}_od" in discs else {}
            out.append(Entry(image, split, f"A:{image.stem}", masks))
    return out


def _idrid_masks(tree: Tree, images: list[Path], name: str, code: str) -> dict[str, Path]:
    folder = tree.folder(name)
    if folder is None:
        return {}
    files = tree.by_stem(folder)
    tree.partners(images, lambda i: files.get(f"{i.stem}_{code}".lower(), folder / f"{i.stem}_{code}.tif"), f"a mask in {folder.name}/")
    return files


def _idrid_localization(tree: Tree) -> list[Entry]:
    out = []
    for split, part, letter in (("train", "Training Set", "a"), ("test", "Testing Set", "b")):
        images = tree.files(tree.folder(f"C. Localization/1. Original Images/{letter}. {part}"))
        points: dict[str, dict[str, float]] = {}
        for x, y, file in (
            ("od_x", "od_y", f"{letter}. IDRiD_OD_Center_{part}_Markups.csv"),
            ("fovea_x", "fovea_y", f"IDRiD_Fovea_Center_{part}_Markups.csv"),
        ):
            for name, point in read_points(tree, tree.file(file), "Image No, X- Coordinate, Y - Coordinate", images).items():
                points.setdefault(name, {}).update(zip((x, y), point, strict=True))
        # Names start anew in the test part.
        out += [Entry(i, split, f"C:{split}:{i.stem}", {}, points.get(i.stem.lower(), {})) for i in images]
    return out


def ddr(tree: Tree) -> list[Entry]:
    """Li et al. 2019. Every image has a file for every lesion; an absent lesion's is black, so a missing file is a fault of its image."""
    out = []
    for split, part, truths in (
        ("train", "train", ("lesion_segmentation/train/label",)),
        ("validation", "valid", ("lesion_segmentation/valid/segmentation label", "lesion_segmentation/valid/label")),
        ("test", "test", ("lesion_segmentation/test/label",)),
    ):
        images = tree.files(tree.folder(f"lesion_segmentation/{part}/image"))
        folders = {code: tree.folder(*(f"{truth}/{code}" for truth in truths)) for code in CODES}
        pairs: dict[Path, dict[Path, int]] = {image: {} for image in images}
        for code, folder in folders.items():
            files = tree.by_stem(folder)
            if folder is None:
                continue
            expected = {image: files.get(image.stem.lower(), folder / f"{image.stem}.tif") for image in images}
            for image, path in tree.partners(images, expected.get, f"a mask in {code}/").items():
                pairs[image][path] = CODES[code]
        out += [Entry(image, split, image.stem, {"lesions": decode.lesions(parts)}) for image, parts in pairs.items()]
    return out


def e_ophtha(tree: Tree) -> list[Entry]:
    """Decencière et al. 2013: exudates (EX) and microaneurysms (MA) of partly the same photographs, folders a patient (E...).

    A patient is one group, whichever part a photograph lies in.
    """
    out: list[Entry] = []
    for code, bit in (("EX", EX), ("MA", MA)):
        base = tree.folder(f"e_optha_{code}", f"e_ophtha_{code}", required=False)
        if base is None:
            continue
        images = tree.files(tree.folder(f"{base.name}/{code}"), deep=True)
        truth = tree.folder(f"{base.name}/Annotation_{code}")
        if truth is None:
            continue
        files = {(p.parent.name, p.stem.lower().removesuffix(f"_{code.lower()}")): p for p in sorted(truth.rglob("*.png"))}
        missing = truth / "E0000000"
        pairs = tree.partners(
            images, lambda i, f=files, m=missing: f.get((i.parent.name, i.stem.lower()), m / f"{i.stem}.png"), f"an annotation ({code})"
        )
        values = {"lesions_labelled": bit}
        for image, path in pairs.items():
            out.append(Entry(image, "all", image.parent.name, {"lesions": decode.lesions({path: bit})}, values))
        healthy = tree.folder(f"{base.name}/healthy", required=False)
        for image in tree.files(healthy, required=False, deep=True):
            out.append(Entry(image, "all", image.parent.name, {"lesions": decode.lesions({})}, values))
    if not out and not tree.faults:
        tree.fault("no folder e_optha_EX/ or e_optha_MA/")
    return out


FGADR_FOLDERS = {"Microaneurysms_Masks": MA, "Hemohedge_Masks": HE, "HardExudate_Masks": EX, "SoftExudate_Masks": SE}


def fgadr(tree: Tree) -> list[Entry]:
    """Zhou et al. 2021, Seg-set. The first part of a file's name is the patient."""
    images = tree.files(tree.folder("Original_Images"))
    folders = {tree.folder(name): bit for name, bit in FGADR_FOLDERS.items()}
    if None in folders:
        return []
    known = {folder: tree.by_stem(folder) for folder in folders}
    first = next(iter(folders))
    tree.partners(images, lambda i: known[first].get(i.stem.lower(), first / i.name), "a mask of microaneurysms")
    out = []
    for image in images:
        parts = {known[folder][image.stem.lower()]: bit for folder, bit in folders.items() if image.stem.lower() in known[folder]}
        out.append(Entry(image, "all", image.stem.split("_")[0], {"lesions": decode.lesions(parts)}))
    return out


# Grade of myopic maculopathy (META-PM) from which a sign is there. A higher grade does not deny the signs of the lower ones.
MMAC_GRADES = {"tessellation": 1, "diffuse_atrophy": 2, "patchy_atrophy": 3}


def mmac(tree: Tree) -> list[Entry]:
    """Qian et al. 2024, task 1: grades of myopic maculopathy. They say whether a sign is in the image, not where.

    Tessellation is scored against grade 0, diffuse and patchy atrophy against all lower grades.
    """
    base = tree.folder("1. Classification of Myopic Maculopathy", "1.Classification")
    if base is None:
        return []
    out = []
    for split, number, word in (("train", "1", "Training"), ("validation", "2", "Validation")):
        alternatives = f"{base.name}/1. Images/{number}. {word} Set", f"{base.name}/1.Images/{number}.{word}"
        folder = tree.folder(*alternatives, required=split == "train")
        tables = [p for p in sorted(base.rglob("*.csv")) if word.lower() in p.name.lower()]
        if folder is None:
            continue
        if not tables:
            tree.fault(f"no table of {word.lower()} labels (.csv) below {base.relative_to(tree.root)}/")
            continue
        grades = _mmac_grades(tree, tables[0])
        images = tree.files(folder)
        check_names(tree, tables[0], grades, images)
        for image in images:
            grade = grades.get(image.stem.lower())
            signs = {} if grade is None else {f"has_{sign}": int(grade >= low) for sign, low in MMAC_GRADES.items()}
            out.append(Entry(image, split, image.stem, {}, signs))
    return out


def _mmac_grades(tree: Tree, path: Path) -> dict[str, int]:
    table = read_table(tree, path)
    if table is None:
        return {}
    place = path.relative_to(tree.root)
    if not {"image", "myopic_maculopathy_grade"} <= set(table.columns):
        tree.fault(f"{place} has no columns image, myopic_maculopathy_grade; found {', '.join(table.columns)}")
        return {}
    grades = pd.to_numeric(table["myopic_maculopathy_grade"], errors="coerce")
    known = grades.isin(range(5))
    for i, name, found in table.loc[~known, ["image", "myopic_maculopathy_grade"]].dropna().itertuples(name=None):
        tree.fault(f"{place}, row {i + 2} ({name}): expected a grade from 0 to 4, found {found!r}")
    return {str(name).split(".")[0].lower(): int(grade) for name, grade in zip(table.loc[known, "image"], grades[known], strict=True)}
