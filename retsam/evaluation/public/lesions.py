"""Lesions of diabetic retinopathy, and myopic maculopathy: IDRiD, DDR, e-ophtha, FGADR, MMAC."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from retsam.evaluation.public import decode
from retsam.evaluation.public.discs import read_table
from retsam.evaluation.public.layout import Entry, Tree, by_stem
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
        truth = tree.folder(f"2. All Segmentation Groundtruths/{part}")
        if truth is None:
            continue
        tree.partners(images, lambda i, t=truth: t / "3. Hard Exudates" / f"{i.stem}_EX.tif", "hard exudates")
        for image in images:
            paths = {truth / folder / f"{image.stem}_{code}.tif": CODES[code] for code, folder in IDRID_FOLDERS.items()}
            masks = {"lesions": decode.lesions({path: bit for path, bit in paths.items() if path.is_file()})}
            disc = truth / "5. Optic Disc" / f"{image.stem}_OD.tif"
            masks |= {"disc": decode.binary(disc)} if disc.is_file() else {}
            out.append(Entry(image, split, f"A:{image.stem}", masks))
    return out


def _idrid_localization(tree: Tree) -> list[Entry]:
    out = []
    for split, part, letter in (("train", "Training Set", "a"), ("test", "Testing Set", "b")):
        images = tree.files(tree.folder(f"C. Localization/1. Original Images/{letter}. {part}"))
        points: dict[str, dict[str, float]] = {}
        for x, y, names in (
            ("od_x", "od_y", (f"{letter}. IDRiD_OD_Center_{part}_Markups.csv",)),
            ("fovea_x", "fovea_y", (f"IDRiD_Fovea_Center_{part}_Markups.csv",)),
        ):
            table = read_table(tree, tree.file(*names))
            if table.empty:
                continue
            if not {"imageno", "x_coordinate", "y_coordinate"} <= set(table.columns):
                tree.fault(f"{names[0]} has no columns Image No, X- Coordinate, Y - Coordinate; found {', '.join(table.columns)}")
                continue
            for name, px, py in table[["imageno", "x_coordinate", "y_coordinate"]].dropna().itertuples(index=False):
                points.setdefault(str(name).strip().lower(), {}).update({x: float(px), y: float(py)})
        out += [Entry(i, split, f"C:{i.stem}", {}, points[i.stem.lower()]) for i in images if i.stem.lower() in points]
    return out


def ddr(tree: Tree) -> list[Entry]:
    """Li et al. 2019. Every image has a file for every lesion; an absent lesion's is black."""
    out = []
    for split, part, truths in (
        ("train", "train", ("lesion_segmentation/train/label",)),
        ("validation", "valid", ("lesion_segmentation/valid/segmentation label", "lesion_segmentation/valid/label")),
        ("test", "test", ("lesion_segmentation/test/label",)),
    ):
        images = tree.files(tree.folder(f"lesion_segmentation/{part}/image"))
        truth = tree.folder(*truths)
        if truth is None:
            continue
        known = {bit: by_stem(truth / code) if (truth / code).is_dir() else {} for code, bit in CODES.items()}
        tree.partners(images, lambda i, t=truth, k=known: k[EX].get(i.stem.lower(), t / "EX" / f"{i.stem}.tif"), "hard exudates (EX)")
        for image in images:
            parts = {files[image.stem.lower()]: bit for bit, files in known.items() if image.stem.lower() in files}
            out.append(Entry(image, split, image.stem, {"lesions": decode.lesions(parts)}))
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
    known = {folder: by_stem(folder) for folder in folders}
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
        for image in tree.files(folder):
            grade = grades.get(image.name.lower())
            if grade is not None:
                out.append(Entry(image, split, image.stem, {}, {f"has_{sign}": int(grade >= low) for sign, low in MMAC_GRADES.items()}))
    return out


def _mmac_grades(tree: Tree, path: Path) -> dict[str, int]:
    table = read_table(tree, path)
    if not {"image", "myopic_maculopathy_grade"} <= set(table.columns):
        tree.fault(f"{path.name} has no columns image, myopic_maculopathy_grade; found {', '.join(table.columns)}")
        return {}
    grades = pd.to_numeric(table["myopic_maculopathy_grade"], errors="coerce")
    return {str(name).lower(): int(grade) for name, grade in zip(table["image"], grades, strict=True) if pd.notna(grade)}
