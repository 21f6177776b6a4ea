"""Disc, cup and fovea: REFUGE, DRISHTI-GS, RIM-ONE DL, ORIGA, G1020, PAPILA, PALM, ADAM."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from retsam.evaluation.public import decode
from retsam.evaluation.public.layout import Entry, Tree


def read_table(tree: Tree, path: Path | None) -> pd.DataFrame | None:
    """An ``.xlsx`` or ``.csv`` table with lower-case column names; None where there is none to read, for which a fault is told."""
    if path is None:
        return None
    try:
        with decode.reading(path.relative_to(tree.root), "a table"):
            table = pd.read_excel(path) if path.suffix.lower() in (".xlsx", ".xls") else pd.read_csv(path)
    except decode.DamagedFile as error:
        tree.fault(str(error))
        return None
    return table.rename(columns=lambda c: str(c).strip().lower().replace(" ", "").replace("-", "_"))


def check_names(tree: Tree, path: Path, named: Iterable[str], images: list[Path]) -> None:
    """A table that names none of the photographs is another part's, or names them otherwise: a fault."""
    named = list(named)
    if named and images and not {image.stem.lower() for image in images} & set(named):
        place = path.relative_to(tree.root)
        tree.fault(f"{place} names none of {len(images)} photographs: expected {images[0].stem} or the like, found {named[0]}")


def read_points(tree: Tree, path: Path | None, columns: str, images: list[Path]) -> dict[str, tuple[float, float]]:
    """Image's stem in lower case -> a point, from a table's columns: name, x, y (``columns`` as their owners write them).

    Images without a point are left out. A word in place of a number is a fault with its row; so are missing columns and a table that
    names none of the photographs.
    """
    table = read_table(tree, path)
    if table is None:
        return {}
    wanted = [c.strip().lower().replace(" ", "").replace("-", "_") for c in columns.split(",")]
    if wanted[0] not in table.columns:
        table = table.rename(columns=dict.fromkeys(("imagename", "image", "filename"), wanted[0]))
    place = path.relative_to(tree.root)
    if not set(wanted) <= set(table.columns):
        tree.fault(f"{place} has no columns {columns}; found {', '.join(table.columns)}")
        return {}
    named = table.loc[table[wanted[0]].notna(), wanted]
    numbers = named[wanted[1:]].apply(pd.to_numeric, errors="coerce")
    for row, column in zip(*np.nonzero((numbers.isna() & named[wanted[1:]].notna()).to_numpy()), strict=True):
        told = named.iloc[row]
        tree.fault(f"{place}, row {named.index[row] + 2} ({told.iloc[0]}): expected a number, found {told.iloc[column + 1]!r}")
    names = named[wanted[0]].astype(str).str.strip().str.split(".").str[0].str.lower()
    check_names(tree, path, names, images)
    return {name: point for name, point in zip(names, numbers.itertuples(index=False, name=None), strict=True) if not np.isnan(point).any()}


def with_foveas(tree: Tree, entries: list[Entry], path: Path | None) -> list[Entry]:
    """Entries with the foveas of an iChallenge table (columns ImgName, Fovea_X, Fovea_Y). (0, 0) means: not visible."""
    known = read_points(tree, path, "ImgName, Fovea_X, Fovea_Y", [entry.image for entry in entries])
    for entry in entries:
        if (point := known.get(entry.image.stem.lower(), (0, 0))) != (0, 0):
            entry.values["fovea_x"], entry.values["fovea_y"] = point
    return entries


def refuge(tree: Tree) -> list[Entry]:
    """Orlando et al. 2020."""
    parts = (
        ("train", ("REFUGE-Training400/Training400", "Training400"), "Annotation-Training400/Disc_Cup_Masks", "Fovea_location.xlsx"),
        ("validation", ("REFUGE-Validation400",), "REFUGE-Validation400-GT/Disc_Cup_Masks", "Fovea_locations.xlsx"),
        ("test", ("Test400", "REFUGE-Test400"), "REFUGE-Test-GT/Disc_Cup_Masks", "Glaucoma_label_and_Fovea_location.xlsx"),
    )
    out = []
    for split, image_folders, mask_folder, table in parts:
        folder = tree.folder(*image_folders, required=False)
        if folder is None:
            continue
        masks, place = tree.by_stem(tree.folder(mask_folder), deep=True), tree.root / mask_folder
        images = [i for i in tree.files(folder, deep=True) if i.suffix.lower() != ".bmp"]
        pairs = tree.partners(images, lambda i, m=masks, f=place: m.get(i.stem.lower(), f / f"{i.stem}.bmp"), "a disc and cup mask")
        greys = decode.REFUGE_GREYS
        entries = [Entry(image, split, image.stem, {"disc_cup": decode.index(path, greys)}) for image, path in pairs.items()]
        out += with_foveas(tree, entries, tree.file(table, required=False))
    if not out and not tree.faults:
        tree.fault("no folder Training400/, REFUGE-Validation400/ or Test400/")
    return out


def drishti_gs(tree: Tree) -> list[Entry]:
    """Sivaswamy et al. 2014; disc and cup on which at least half of the experts agree, and the experts' vertical CDR where given."""
    out = []
    for split, part, truths in (("train", "Training", ("Training/GT",)), ("test", "Test", ("Test/Test_GT", "Test/GT"))):
        folder = tree.folder(f"{part}/Images", required=split == "train")
        truth = tree.folder(*truths, required=folder is not None)
        if folder is None or truth is None:
            continue
        images = tree.files(folder, deep=True)
        pairs = tree.partners(images, lambda i, t=truth: t / i.stem / "SoftMap" / f"{i.stem}_ODsegSoftmap.png", "a soft map of the disc")
        for image, disc in pairs.items():
            cup = disc.with_name(f"{image.stem}_cupsegSoftmap.png")
            values = {}
            if (ratios := truth / image.stem / f"{image.stem}_cdrValues.txt").is_file():
                values["expert_vcdr"] = _mean_of_numbers(tree, ratios)
            out.append(Entry(image, split, image.stem, {"disc_cup": decode.disc_and_cup(disc, cup, 0.45)}, values))
    return out


def _mean_of_numbers(tree: Tree, path: Path) -> float | None:
    what = "the experts' cup-to-disc ratios, one a line"
    try:
        with decode.reading(path.relative_to(tree.root), what), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is told below
            ratios = np.loadtxt(path, ndmin=1)
    except decode.DamagedFile as error:
        tree.fault(str(error))
        return None
    if not ratios.size or not ((ratios >= 0) & (ratios <= 1)).all():
        tree.fault(f"{path.relative_to(tree.root)}: expected {what}, found {', '.join(f'{r:g}' for r in ratios.ravel()[:8]) or 'none'}")
        return None
    return float(ratios.mean())


def rim_one_dl(tree: Tree) -> list[Entry]:
    """Fumero et al. 2020: crops around the disc, split by hospital."""
    folder = tree.folder("RIM-ONE_DL_reference_segmentations")
    place = folder or tree.root
    truth = {(p.parent.name.lower(), p.stem.lower()): p for p in tree.files(folder, required=False, deep=True)}

    def disc_of(image: Path) -> Path:
        kind = image.parent.name  # glaucoma or normal
        return truth.get((kind.lower(), f"{image.stem}-1-disc-t".lower()), place / kind / f"{image.stem}-1-Disc-T.png")

    out = []
    for split, part in (("train", "training_set"), ("test", "test_set")):
        images = tree.files(tree.folder(f"partitioned_by_hospital/{part}"), deep=True)
        pairs = tree.partners(images, disc_of, "a reference disc")
        for image, disc in pairs.items():
            cup = disc.with_name(disc.name.replace("-Disc-", "-Cup-"))
            out.append(Entry(image, split, image.stem, {"disc_cup": decode.disc_and_cup(disc, cup)}))
    return out


def origa(tree: Tree) -> list[Entry]:
    """Zhang et al. 2010. Set A of OrigaList.csv is the usual training part, set B the test part."""
    images = tree.files(tree.folder("Images"))
    masks, mats = (tree.by_stem(tree.folder(name, required=False)) for name in ("Masks", "Semi-automatic-annotations"))
    if not masks and not mats:
        tree.fault("no folder Masks/ or Semi-automatic-annotations/")
    table = read_table(tree, tree.file("OrigaList.csv", required=False))
    sets = {}
    if table is not None and {"filename", "set"} <= set(table.columns):
        strip = " '\""
        rows = zip(table["filename"].astype(str), table["set"].astype(str), strict=True)
        sets = {name.strip(strip).split(".")[0].lower(): value.strip(strip) for name, value in rows}
    place = tree.root / "Masks"
    pairs = tree.partners(images, lambda i: masks.get(i.stem.lower()) or mats.get(i.stem.lower()) or place / f"{i.stem}.png", "a mask")
    out = []
    for image, path in pairs.items():
        split = {"A": "train", "B": "test"}.get(sets.get(image.stem.lower(), ""), "all")
        decoder = decode.mat(path) if path.suffix.lower() == ".mat" else decode.index(path, decode.DISC_AND_CUP)
        out.append(Entry(image, split, image.stem, {"disc_cup": decoder}))
    return out


def g1020(tree: Tree) -> list[Entry]:
    """Bajwa et al. 2020. Images without a visible cup have a disc only."""
    images = tree.files(tree.folder("Images"))
    folder = tree.folder("Masks")
    masks = tree.by_stem(folder)
    pairs = tree.partners(images, lambda i: masks.get(i.stem.lower(), (folder or tree.root) / f"{i.stem}.png"), "a mask")
    out = []
    for image, path in pairs.items():
        disc = decode.index(path, {0: 0, 1: 255, 2: 255})
        out.append(Entry(image, "all", image.stem, {"disc": disc, "disc_cup": decode.with_cup(decode.index(path, decode.DISC_AND_CUP))}))
    return out


def papila(tree: Tree) -> list[Entry]:
    """Kovalyk et al. 2022; disc and cup of the first expert, and the second expert's disc. Both eyes of a patient are one group."""
    images = tree.files(tree.folder("FundusImages"))
    folder = tree.folder("ExpertsSegmentations/Contours")
    if folder is None:
        return []
    pairs = tree.partners(images, lambda i: folder / f"{i.stem}_disc_exp1.txt", "a contour of the disc")
    out = []
    for image, disc in pairs.items():
        masks = {"disc_cup": decode.contours(disc, folder / f"{image.stem}_cup_exp1.txt")}
        second = folder / f"{image.stem}_disc_exp2.txt"
        if second.is_file():
            masks["disc_expert2"] = decode.contours(second)
        eye = {"OD": "R", "OS": "L"}.get(image.stem[-2:].upper())
        out.append(Entry(image, "all", image.stem[:-2] if eye else image.stem, masks, {"eye": eye}))
    return out


PALM_TABLES = ("Fovea_Location.xlsx", "Fovea Localization.xlsx")


def palm(tree: Tree) -> list[Entry]:
    """Fang et al. 2024. An image without a disc mask shows no disc."""
    out = []
    parts = (
        ("train", ("PALM-Training400/PALM-Training400", "PALM-Training400", "Training/Images"),
         ("PALM-Training400-Annotation-D&F/Disc_Masks", "Training/Disc Masks", "Disc_Masks")),
        ("validation", ("PALM-Validation400", "Validation/Images"), ("PALM-Validation-GT/Disc_Masks", "Validation/Disc Masks")),
        ("test", ("PALM-Testing400-Images", "Testing/Images"), ("PALM-Testing400-GT/Disc_Masks", "Testing/Disc Masks")),
    )  # fmt: skip
    tables = {"train": "Fovea_Location_train.xlsx", "validation": "PM_Label_and_Fovea_Location.xlsx", "test": "Fovea_Location_test.xlsx"}
    for split, folders, truths in parts:
        folder = tree.folder(*folders, required=split == "train")
        truth = tree.folder(*truths, required=split == "train")
        # Every part's table may have the same name, so it must lie in the part's own folder; only names of one part are sought elsewhere.
        own = [part.parent for part in (truth, folder) if part is not None]
        within = (tree.file(tables[split], *PALM_TABLES, required=False, within=place) for place in own)
        table = next((path for path in within if path is not None), None) or tree.file(tables[split], required=False)
        if folder is None or (truth is None and table is None):
            continue
        masks = tree.by_stem(truth)
        images = tree.files(folder)
        if truth is not None:
            tree.partners(images, lambda i, m=masks, t=truth: m.get(i.stem.lower(), t / f"{i.stem}.bmp"), "a disc mask")
        entries = []
        for image in images:
            decoders = {"disc": decode.against_border(masks[image.stem.lower()])} if image.stem.lower() in masks else {}
            entries.append(Entry(image, split, image.stem, decoders))
        out += with_foveas(tree, entries, table)
    return out


# Folder of ADAM's lesion masks -> target of the taxonomy. `others` has no target.
ADAM_LESIONS = {"drusen": "drusen", "exudate": "hard_exudate", "hemorrhage": "patchy_hemorrhage", "scar": "retinal_scar"}


def adam(tree: Tree) -> list[Entry]:
    """Fang et al. 2022. A lesion without a mask file is absent; images without AMD have no lesion files at all."""
    folders = [tree.folder("Training400/AMD"), tree.folder("Training400/Non-AMD")]
    images = [image for folder in folders for image in tree.files(folder)]
    discs = tree.by_stem(tree.folder("Disc_Masks"))
    place = tree.root / "Disc_Masks"
    tree.partners(images, lambda i: discs.get(i.stem.lower(), place / f"{i.stem}.bmp"), "a disc mask")
    lesions = {target: tree.by_stem(tree.folder(f"Lesion_Masks/{name}", required=False)) for name, target in ADAM_LESIONS.items()}
    entries = []
    for image in images:
        key = image.stem.lower()
        masks = {"disc": decode.against_border(discs[key])} if key in discs else {}
        values = {}
        for target, files in lesions.items():
            if files:
                values[f"has_{target}"] = int(key in files)
                masks[target] = decode.against_border(files[key]) if key in files else decode.lesions({})
        entries.append(Entry(image, "train", image.stem, masks, values))
    return with_foveas(tree, entries, tree.file("Fovea_location.xlsx", required=False))
