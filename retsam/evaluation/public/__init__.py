"""Public data sets as their owners publish them: each becomes a manifest that evaluation and training read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import pandas as pd
from tqdm import tqdm

from retsam.evaluation.public import decode, discs, lesions, vessels
from retsam.evaluation.public.layout import Entry, LayoutError, Tree
from retsam.evaluation.reference import FAULT, MASK_COLUMNS

__all__ = ["DATASETS", "Entry", "LayoutError", "describe", "find", "prepare"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicDataset:
    """How to find a data set and what is in it."""

    title: str
    labels: str
    layout: str
    find: Callable[[Tree], list[Entry]]


DATASETS: dict[str, PublicDataset] = {
    "drive": PublicDataset("DRIVE", "vessel", """\
  training/images/21_training.tif   training/1st_manual/21_manual1.gif   training/mask/21_training_mask.gif
  test/images/01_test.tif           [test/1st_manual/01_manual1.gif]     test/mask/01_test_mask.gif""", vessels.drive),
    "stare": PublicDataset("STARE", "vessel", """\
  stare-images/im0001.ppm[.gz]   labels-ah/im0001.ah.ppm[.gz]""", vessels.stare),
    "chase_db1": PublicDataset("CHASE_DB1", "vessel", """\
  Image_01L.jpg   Image_01L_1stHO.png""", vessels.chase_db1),
    "hrf": PublicDataset("HRF", "vessel", """\
  images/01_dr.JPG   manual1/01_dr.tif   mask/01_dr_mask.tif""", vessels.hrf),
    "fives": PublicDataset("FIVES", "vessel", """\
  train/Original/1_A.png   train/Ground truth/1_A.png
  test/Original/1_A.png    test/Ground truth/1_A.png""", vessels.fives),
    "rite": PublicDataset("RITE", "vessel, artery, vein", """\
  training/images/21_training.tif   training/av/21_training.png   training/vessel/21_training.png
  test/images/01_test.tif           test/av/01_test.png           test/vessel/01_test.png""", vessels.rite),
    "les_av": PublicDataset("LES-AV", "vessel, artery, vein", """\
  images/1.png   arteries-and-veins/1.png   vessel-segmentations/1.png   masks/1.png""", vessels.les_av),
    "idrid": PublicDataset("IDRiD", "lesions, disc; disc and fovea centres", """\
  A. Segmentation/1. Original Images/a. Training Set/IDRiD_01.jpg
  A. Segmentation/2. All Segmentation Groundtruths/a. Training Set/3. Hard Exudates/IDRiD_01_EX.tif  (and the other four)
  C. Localization/1. Original Images/a. Training Set/IDRiD_001.jpg
  C. Localization/2. Groundtruths/1. Optic Disc Center Location/a. IDRiD_OD_Center_Training Set_Markups.csv
  C. Localization/2. Groundtruths/2. Fovea Center Location/IDRiD_Fovea_Center_Training Set_Markups.csv
  (and b. Testing Set; A or C may be missing)""", lesions.idrid),
    "ddr": PublicDataset("DDR", "lesions", """\
  lesion_segmentation/train/image/*.jpg   lesion_segmentation/train/label/{MA,HE,EX,SE}/*.tif
  lesion_segmentation/valid/image/*.jpg   lesion_segmentation/valid/segmentation label/{MA,HE,EX,SE}/*.tif
  lesion_segmentation/test/image/*.jpg    lesion_segmentation/test/label/{MA,HE,EX,SE}/*.tif""", lesions.ddr),
    "e_ophtha": PublicDataset("e-ophtha", "hard exudate, microaneurysm", """\
  e_optha_EX/EX/E0000404/C0001885.jpg   e_optha_EX/Annotation_EX/E0000404/C0001885_EX.png   e_optha_EX/healthy/
  e_optha_MA/MA/E0000043/C0000886.jpg   e_optha_MA/Annotation_MA/E0000043/C0000886.png      e_optha_MA/healthy/""", lesions.e_ophtha),
    "fgadr": PublicDataset("FGADR", "lesions", """\
  Seg-set/Original_Images/0000_1.png
  Seg-set/{Microaneurysms,Hemohedge,HardExudate,SoftExudate}_Masks/0000_1.png""", lesions.fgadr),
    "refuge": PublicDataset("REFUGE", "disc, cup, fovea", """\
  Training400/{Glaucoma,Non-Glaucoma}/g0001.jpg   Annotation-Training400/Disc_Cup_Masks/{Glaucoma,Non-Glaucoma}/g0001.bmp
  REFUGE-Validation400/V0001.jpg                  REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp
  Test400/T0001.jpg                               REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/T0001.bmp
  (with their Fovea_location tables; any of the three parts)""", discs.refuge),
    "drishti_gs": PublicDataset("DRISHTI-GS", "disc, cup", """\
  Drishti-GS1_files/Training/Images/drishtiGS_002.png
  Drishti-GS1_files/Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_{ODsegSoftmap,cupsegSoftmap}.png
  Drishti-GS1_files/Test/Images/drishtiGS_001.png
  Drishti-GS1_files/Test/Test_GT/drishtiGS_001/SoftMap/...""", discs.drishti_gs),
    "rim_one": PublicDataset("RIM-ONE DL", "disc, cup (crops)", """\
  RIM-ONE_DL_images/partitioned_by_hospital/{training_set,test_set}/{glaucoma,normal}/r1_Im001.png
  RIM-ONE_DL_reference_segmentations/{glaucoma,normal}/r1_Im001-1-{Disc,Cup}-T.png""", discs.rim_one_dl),
    "origa": PublicDataset("ORIGA", "disc, cup", """\
  Images/001.jpg   Masks/001.png or Semi-automatic-annotations/001.mat   [OrigaList.csv]""", discs.origa),
    "g1020": PublicDataset("G1020", "disc, cup", """\
  Images/image_0.jpg   Masks/image_0.png""", discs.g1020),
    "papila": PublicDataset("PAPILA", "disc (two experts), cup", """\
  FundusImages/RET002OD.jpg   ExpertsSegmentations/Contours/RET002OD_{disc,cup}_exp{1,2}.txt""", discs.papila),
    "palm": PublicDataset("PALM", "disc, fovea", """\
  PALM-Training400/H0001.jpg   PALM-Training400-Annotation-D&F/Disc_Masks/H0001.bmp   [Fovea_Location.xlsx]
  [PALM-Validation400/V0001.jpg   PALM-Validation-GT/Disc_Masks/V0001.bmp   PALM-Validation-GT/PM_Label_and_Fovea_Location.xlsx]
  or {Training,Validation,Testing}/{Images/, Disc Masks/, [Fovea Localization.xlsx]}""", discs.palm),
    "adam": PublicDataset("ADAM", "disc, fovea, drusen and other lesions of AMD", """\
  Training400/{AMD,Non-AMD}/A0001.jpg   Disc_Masks/A0001.bmp   [Fovea_location.xlsx]
  [Training400-Lesion/Lesion_Masks/{drusen,exudate,hemorrhage,scar}/A0001.bmp]""", discs.adam),
    "mmac": PublicDataset("MMAC", "presence of tessellation, diffuse and patchy atrophy", """\
  1. Classification of Myopic Maculopathy/1. Images/1. Training Set/mmac_task_1_train_0001.png
  1. Classification of Myopic Maculopathy/2. Groundtruths/1. MMAC2023_Myopic_Maculopathy_Classification_Training_Labels.csv
  [.../2. Validation Set/, .../2. MMAC2023_Myopic_Maculopathy_Classification_Validation_Labels.csv]""", lesions.mmac),
}  # fmt: skip
"""Name on the command line -> data set."""

_OTHER_NAMES = {"chasedb1": "chase_db1", "chase": "chase_db1", "lesav": "les_av", "eophtha": "e_ophtha", "drishti": "drishti_gs"}
_OTHER_NAMES |= {"drishti_gs1": "drishti_gs", "drishtigs": "drishti_gs", "rim_one_dl": "rim_one", "rimone": "rim_one"}


def describe() -> str:
    """Every known data set with its labels and layout, for people."""
    return "\n".join(f"{name}  ({d.title}: {d.labels})\n{d.layout}" for name, d in DATASETS.items())


def find(dataset: str, root: str | Path) -> tuple[str, list[Entry]]:
    """Images of a public data set and how to decode their masks.

    Parameters
    ----------
    dataset : str
        Name, in any case, with ``-`` or ``_``.
    root : path
        Folder that the owners' archives were unpacked into.

    Returns
    -------
    name : str
    entries : list of Entry

    Raises
    ------
    LayoutError
        Unknown name, or a folder that is laid out otherwise: expected and found stand in the message.
    """
    key = dataset.lower().replace("-", "_").replace(" ", "_")
    key = _OTHER_NAMES.get(key, key)
    if key not in DATASETS:
        raise LayoutError(f"no public data set {dataset!r} is known; known are {', '.join(DATASETS)}")
    known = DATASETS[key]
    tree = Tree(root, known.title, known.layout)
    tree.check()
    entries = known.find(tree)
    if not entries and not tree.faults:
        tree.fault("no labelled image")
    tree.check()
    return key, entries


def prepare(dataset: str, root: str | Path, folder: str | Path, progress: bool = True) -> Path:
    """Write a public data set's manifest, with its masks decoded beside it.

    Parameters
    ----------
    dataset, root
        As for :func:`find`.
    folder : path
        Gets ``manifest.csv`` (paths of photographs absolute, of masks relative to the folder) and ``masks/``.

    Returns
    -------
    Path
        The manifest. A mask or a packed photograph that cannot be read is named in it and missing, and ``<column>__fault`` says why, so
        that evaluation reports it in that image's row.

    Raises
    ------
    LayoutError
    """
    key, entries = find(dataset, root)
    folder = Path(folder)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, entry in enumerate(tqdm(entries, unit="image", desc=f"read {key}", disable=not progress)):
        stem = f"{i:05d}_{entry.image.name.split('.')[0]}"
        image, faults = _readable(entry.image, folder, stem)
        row = {"dataset": key, "image": str(image), "split": entry.split, "group": f"{key}:{entry.group or entry.image.stem}"}
        row |= entry.values
        for column, decoder in entry.masks.items() if not faults else ():
            path = folder / f"masks/{stem}_{column}.png"
            fault, told = _write_mask(decoder, image, path)
            if told:
                row[column] = str(path.relative_to(folder))
            if fault:
                faults[column] = fault
        for column, fault in faults.items():
            log.warning("%s: no %s (%s)", entry.image.name, "photograph" if column == "image" else f"{column} mask", fault)
            row[f"{column}{FAULT}"] = fault
        rows.append(row)
    table = pd.DataFrame(rows)
    front = ["dataset", "image", "split", "group", *MASK_COLUMNS]
    table = table.reindex(columns=[*front, *(c for c in table.columns if c not in front)])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def _readable(image: Path, folder: Path, stem: str) -> tuple[Path, dict[str, str]]:
    """The photograph itself, or an unpacked copy of a gzipped one; and why there is none."""
    if image.suffix.lower() != ".gz":
        return image.absolute(), {}
    copy = (folder / "images" / f"{stem}{Path(image.stem).suffix}").absolute()
    copy.parent.mkdir(exist_ok=True)
    copy.unlink(missing_ok=True)
    try:
        copy.write_bytes(decode.unpacked(image))
    except decode.DamagedFile as error:
        return copy, {"image": f"unreadable: {error}"}
    return copy, {}


def _write_mask(decoder: decode.Decoder, image: Path, path: Path) -> tuple[str | None, bool]:
    """Decode one mask: why it cannot be, as ``reason: detail``, and whether its owner says anything."""
    path.unlink(missing_ok=True)
    try:
        mask = decoder(decode.picture_size(image))
    except FileNotFoundError as error:
        return f"missing_mask: no file {error.filename}", True
    except (OSError, ValueError) as error:
        return f"unusable_mask: {error}", True
    if mask is None:
        return None, False
    cv2.imwrite(str(path), mask)
    return None, True
