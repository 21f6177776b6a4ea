"""Disc, cup and fovea: REFUGE, DRISHTI-GS, RIM-ONE DL, ORIGA, G1020, PAPILA, PALM, ADAM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from retsam.evaluation.public import decode
from retsam.evaluation.public.layout import Entry, Tree, by_stem


def read_table(tree: Tree, path: Path | None) -> pd.DataFrame:
    """An ``.xlsx`` or ``.csv`` table with lower-case column names; empty where there is none."""
    if path is None:
        return pd.DataFrame()
    try:
        table = pd.read_excel(path) if path.suffix.lower() in (".xlsx", ".xls") else pd.read_csv(path)
    except (ValueError, OSError) as error:
        tree.fault(f"{path.relative_to(tree.root)} cannot be read as a table ({error})")
        return pd.DataFrame()
    return table.rename(columns=lambda c: str(c).strip().lower().replace(" ", "").replace("-", "_"))


def foveas(tree: Tree, paths: list[Path | None]) -> dict[str, tuple[float, float]]:
    """Image stem in lower case -> fovea, from the iChallenge tables (columns ImgName, Fovea_X, Fovea_Y). (0, 0) means: not visible."""
    out = {}
    for path in paths:
        table = read_table(tree, path)
        name = next((c for c in table.columns if c in ("imgname", "imagename", "image", "filename")), None)
        if name is None or not {"fovea_x", "fovea_y"} <= set(table.columns):
            if path is not None:
                tree.fault(f"{path.name} has no columns ImgName, Fovea_X, Fovea_Y; found {', '.join(table.columns)}")
            continue
        for image, x, y in table[[name, "fovea_x", "fovea_y"]].itertuples(index=False):
            if pd.notna(x) and pd.notna(y) and (x, y) != (0, 0):
                out[str(image).split(".")[0].lower()] = (float(x), float(y))
    return out


def _with_fovea(entry: Entry, known: dict[str, tuple[float, float]]) -> Entry:
    if entry.image.stem.lower() in known:
        entry.values["fovea_x"], entry.values["fovea_y"] = known[entry.image.stem.lower()]
    return entry


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
        masks, place = by_stem(tree.folder(mask_folder), deep=True), tree.root / mask_folder
        images = [i for i in tree.files(folder, deep=True) if i.suffix.lower() != ".bmp"]
        pairs = tree.partners(images, lambda i, m=masks, f=place: m.get(i.stem.lower(), f / f"{i.stem}.bmp"), "a disc and cup mask")
        known = foveas(tree, [tree.file(table, required=False)])
        entries = [Entry(image, split, image.stem, {"disc_cup": decode.grey_disc_cup(path)}) for image, path in pairs.items()]
        out += [_with_fovea(entry, known) for entry in entries]
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
    try:
        return float(np.loadtxt(path).mean())
    except ValueError as error:
        tree.fault(f"{path.relative_to(tree.root)}: expected the experts' cup-to-disc ratios, one a line ({error})")
        return None


def rim_one_dl(tree: Tree) -> list[Entry]:
    """Fumero et al. 2020: crops around the disc, split by hospital."""
    truth = by_stem(tree.folder("RIM-ONE_DL_reference_segmentations"), deep=True)
    place = tree.root / "RIM-ONE_DL_reference_segmentations"

    def disc_of(image: Path) -> Path:
        return truth.get(f"{image.stem}-1-disc-t".lower(), place / image.parent.name / f"{image.stem}-1-Disc-T.png")

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
    masks, mats = by_stem(tree.folder("Masks", required=False)), by_stem(tree.folder("Semi-automatic-annotations", required=False))
    if not masks and not mats:
        tree.fault("no folder Masks/ or Semi-automatic-annotations/")
    table = read_table(tree, tree.file("OrigaList.csv", required=False))
    sets = {}
    if {"filename", "set"} <= set(table.columns):
        strip = " '\""
        rows = zip(table["filename"].astype(str), table["set"].astype(str), strict=True)
        sets = {name.strip(strip).split(".")[0].lower(): value.strip(strip) for name, value in rows}
    place = tree.root / "Masks"
    pairs = tree.partners(images, lambda i: masks.get(i.stem.lower()) or mats.get(i.stem.lower()) or place / f"{i.stem}.png", "a mask")
    out = []
    for image, path in pairs.items():
        split = {"A": "train", "B": "test"}.get(sets.get(image.stem.lower(), ""), "all")
        decoder = decode.mat(path) if path.suffix.lower() == ".mat" else decode.index(path, {1: 1, 2: 2})
        out.append(Entry(image, split, image.stem, {"disc_cup": decoder}))
    return out


def g1020(tree: Tree) -> list[Entry]:
    """Bajwa et al. 2020. Images without a visible cup have a disc only."""
    images = tree.files(tree.folder("Images"))
    folder = tree.folder("Masks")
    masks = by_stem(folder)
    pairs = tree.partners(images, lambda i: masks.get(i.stem.lower(), (folder or tree.root) / f"{i.stem}.png"), "a mask")
    return [Entry(image, "all", image.stem, {"disc_cup": decode.index(path, {1: 1, 2: 2})}) for image, path in pairs.items()]


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
        names = [tables[split], *(["Fovea_Location.xlsx", "Fovea Localization.xlsx"] if split == "train" else [])]
        known = foveas(tree, [tree.file(*names, required=False)])
        if folder is None or (truth is None and not known):
            continue
        masks = by_stem(truth)
        images = tree.files(folder)
        if truth is not None:
            tree.partners(images, lambda i, m=masks, t=truth: m.get(i.stem.lower(), t / f"{i.stem}.bmp"), "a disc mask")
        for image in images:
            decoders = {"disc": decode.against_border(masks[image.stem.lower()])} if image.stem.lower() in masks else {}
            out.append(_with_fovea(Entry(image, split, image.stem, decoders), known))
    return out


# Folder of ADAM's lesion masks -> target of the taxonomy. `others` has no target.
ADAM_LESIONS = {"drusen": "drusen", "exudate": "hard_exudate", "hemorrhage": "patchy_hemorrhage", "scar": "retinal_scar"}


def adam(tree: Tree) -> list[Entry]:
    """Fang et al. 2022. A lesion without a mask file is absent; images without AMD have no lesion files at all."""
    folders = [tree.folder("Training400/AMD"), tree.folder("Training400/Non-AMD")]
    images = [image for folder in folders for image in tree.files(folder)]
    discs = by_stem(tree.folder("Disc_Masks"))
    place = tree.root / "Disc_Masks"
    tree.partners(images, lambda i: discs.get(i.stem.lower(), place / f"{i.stem}.bmp"), "a disc mask")
    lesions = {target: by_stem(tree.folder(f"Lesion_Masks/{name}", required=False)) for name, target in ADAM_LESIONS.items()}
    known = foveas(tree, [tree.file("Fovea_location.xlsx", required=False)])
    out = []
    for image in images:
        key = image.stem.lower()
        masks = {"disc": decode.against_border(discs[key])} if key in discs else {}
        values = {}
        for target, files in lesions.items():
            if files:
                values[f"has_{target}"] = int(key in files)
                masks[target] = decode.against_border(files[key]) if key in files else decode.lesions({})
        out.append(_with_fovea(Entry(image, "train", image.stem, masks, values), known))
    return out
