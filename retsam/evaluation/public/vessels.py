"""Vessels, arteries and veins: DRIVE, STARE, CHASE_DB1, HRF, FIVES, RITE, LES-AV."""

from __future__ import annotations

from retsam.evaluation.public import decode
from retsam.evaluation.public.layout import Entry, Tree


def drive(tree: Tree) -> list[Entry]:
    """Staal et al. 2004. The challenge's archive has no manual segmentation of the test part; older ones do."""
    out = []
    for split, part in (("train", "training"), ("test", "test")):
        images = tree.files(tree.folder(f"{part}/images"))
        manual = tree.folder(f"{part}/1st_manual", required=split == "train")
        fov = tree.folder(f"{part}/mask")
        if manual is None or fov is None:
            continue
        number = {image: image.name.split("_")[0] for image in images}
        pairs = tree.partners(images, lambda i, m=manual, n=number: m / f"{n[i]}_manual1.gif", "a first manual segmentation")
        for image, path in pairs.items():
            masks = {"vessel": decode.binary(path), "fov": decode.binary(fov / f"{image.stem}_mask.gif")}
            out.append(Entry(image, split, number[image], masks))
    return out


def stare(tree: Tree) -> list[Entry]:
    """Hoover et al. 2000; the first observer (ah)."""
    images = tree.one_a_stem(p for p in tree.files(tree.folder("stare-images", "images", "")) if p.name.lower().startswith("im0")).values()
    labels = tree.folder("labels-ah", "labels")
    if labels is None:
        return []
    files = [p for p in tree.files(labels, required=False) if ".vk." not in p.name.lower()]  # those of both observers may lie in one folder
    known = tree.one_a_stem(files)
    stems = {image: image.name.split(".")[0] for image in images}
    pairs = tree.partners(list(images), lambda i: known.get(stems[i].lower(), labels / f"{stems[i]}.ah.ppm"), "a label (ah)")
    return [Entry(image, "all", stems[image], {"vessel": decode.binary(path)}) for image, path in pairs.items()]


def chase_db1(tree: Tree) -> list[Entry]:
    """Fraz et al. 2012; the first observer. Two eyes of a child are one group; children 11 to 14 are the usual test part."""
    folder = tree.folder("CHASEDB1", "CHASE_DB1", "CHASE", "images", "")
    images = [p for p in tree.files(folder) if p.suffix.lower() == ".jpg" and p.name.lower().startswith("image_")]
    if not images:
        tree.fault("no Image_01L.jpg ... Image_14R.jpg")
        return []
    masks = tree.folder("masks", required=False) or folder
    pairs = tree.partners(images, lambda i: masks / f"{i.stem}_1stHO.png", "a mask of the first observer")
    out = []
    for image, path in pairs.items():
        child = image.stem[6:8]
        split = "test" if child.isdigit() and int(child) >= 11 else "train"
        out.append(Entry(image, split, child, {"vessel": decode.binary(path)}, {"eye": image.stem[-1]}))
    return out


def hrf(tree: Tree) -> list[Entry]:
    """Budai et al. 2013. Of each kind (dr, g, h) numbers 1 to 5 are the usual training part (Orlando et al. 2017)."""
    images = tree.files(tree.folder("images"))
    manual, fov = tree.by_stem(tree.folder("manual1")), tree.by_stem(tree.folder("mask"))
    pairs = tree.partners(images, lambda i: manual.get(i.stem.lower(), tree.root / f"manual1/{i.stem}.tif"), "a manual segmentation")
    out = []
    for image, path in pairs.items():
        masks = {"vessel": decode.binary(path)}
        if f"{image.stem}_mask".lower() in fov:
            masks["fov"] = decode.binary(fov[f"{image.stem}_mask".lower()])
        number = image.stem.split("_")[0]
        out.append(Entry(image, "train" if number.isdigit() and int(number) <= 5 else "test", "", masks))
    return out


def fives(tree: Tree) -> list[Entry]:
    """Jin et al. 2022."""
    out = []
    for split in ("train", "test"):
        images = tree.files(tree.folder(f"{split}/Original"))
        truth = tree.folder(f"{split}/Ground truth", f"{split}/GroundTruth")
        if truth is None:
            continue
        pairs = tree.partners(images, lambda i, t=truth: t / i.name, "a ground truth")
        out += [Entry(image, split, f"{split}:{image.stem}", {"vessel": decode.binary(path)}) for image, path in pairs.items()]
    return out


def rite(tree: Tree) -> list[Entry]:
    """Hu et al. 2013: arteries and veins of DRIVE."""
    out = []
    for split, part in (("train", "training"), ("test", "test")):
        images = tree.files(tree.folder(f"{part}/images"))
        av, vessel = tree.folder(f"{part}/av"), tree.folder(f"{part}/vessel")
        if av is None or vessel is None:
            continue
        pairs = tree.partners(images, lambda i, f=av: f / f"{i.stem}.png", "an artery/vein mask")
        for image, path in pairs.items():
            masks = {"av": decode.artery_vein(path), "vessel": decode.binary(vessel / f"{image.stem}.png")}
            out.append(Entry(image, split, image.stem.split("_")[0], masks))
    return out


def les_av(tree: Tree) -> list[Entry]:
    """Orlando et al. 2018."""
    images = tree.files(tree.folder("images"))
    av, vessels, fov = (tree.by_stem(tree.folder(name)) for name in ("arteries-and-veins", "vessel-segmentations", "masks"))
    missing = tree.root / "arteries-and-veins"
    pairs = tree.partners(images, lambda i: av.get(i.stem.lower(), missing / i.name), "an artery/vein mask")
    out = []
    for image, path in pairs.items():
        masks = {"av": decode.artery_vein(path), "vessel": decode.any_vessel(path)}
        key = image.stem.lower()
        masks |= {"vessel": decode.binary(vessels[key])} if key in vessels else {}
        masks |= {"fov": decode.binary(fov[name])} if (name := next((n for n in (key, f"{key}_mask") if n in fov), None)) else {}
        out.append(Entry(image, "all", image.stem, masks))
    return out
