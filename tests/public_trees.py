"""Tiny trees of public data sets, laid out as their owners publish them, for tests."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pandas as pd
from evaluation_fakes import ellipse
from PIL import Image
from scipy.io import savemat

SHAPE = (60, 80)
VESSEL = np.zeros(SHAPE, bool)
VESSEL[20:24, 5:70] = True
FOV = ellipse(SHAPE, 40, 30, 35, 28)
DISC, CUP = ellipse(SHAPE, 50, 30, 12, 12), ellipse(SHAPE, 50, 30, 5, 6)
BLOB = ellipse(SHAPE, 20, 40, 4, 4)


def save(path, values, mode=None):
    """Write bool (0/255), uint8 or RGB values in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = values.astype(np.uint8) * 255 if values.dtype == bool else values.astype(np.uint8)
    image = Image.fromarray(values)
    image = image.convert(mode) if mode else image
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        image.save(buffer, "PPM")
        path.write_bytes(gzip.compress(buffer.getvalue()))
    else:
        image.save(path)


def photo(path):
    save(path, np.random.default_rng(abs(hash(path.name)) % 1000).integers(20, 200, (*SHAPE, 3)))


def av_colours():
    rgb = np.zeros((*SHAPE, 3), np.uint8)
    rgb[10, :, 0], rgb[20, :, 2], rgb[30, :, 1], rgb[40] = 255, 255, 255, 255
    return rgb


AV_INDEX = np.zeros(SHAPE, np.uint8)
AV_INDEX[10], AV_INDEX[20], AV_INDEX[30], AV_INDEX[40] = 1, 2, 3, 4


def drive(root):
    for part, names in (("training", ("21", "22")), ("test", ("01",))):
        for n in names:
            stem = f"{n}_{'training' if part == 'training' else 'test'}"
            photo(root / f"DRIVE/{part}/images/{stem}.tif")
            save(root / f"DRIVE/{part}/mask/{stem}_mask.gif", FOV)
            save(root / f"DRIVE/{part}/1st_manual/{n}_manual1.gif", VESSEL)


def stare(root):
    photo(root / "stare-images/im0001.ppm.gz")
    photo(root / "stare-images/im0002.ppm")
    save(root / "labels-ah/im0001.ah.ppm.gz", VESSEL, "RGB")
    save(root / "labels-ah/im0002.ah.ppm", VESSEL, "RGB")


def chase_db1(root):
    for name in ("01L", "01R", "12L"):
        photo(root / f"CHASEDB1/Image_{name}.jpg")
        save(root / f"CHASEDB1/Image_{name}_1stHO.png", VESSEL, "1")
        save(root / f"CHASEDB1/Image_{name}_2ndHO.png", VESSEL, "1")


def hrf(root):
    for name, ending in (("01_dr", "JPG"), ("09_h", "jpg")):
        photo(root / f"images/{name}.{ending}".replace("JPG", "jpeg"))
        save(root / f"manual1/{name}.tif", VESSEL)
        save(root / f"mask/{name}_mask.tif", FOV, "RGB")


def fives(root):
    top = root / "FIVES A Fundus Image Dataset for AI-based Vessel Segmentation"
    for part in ("train", "test"):
        photo(top / f"{part}/Original/1_A.png")
        save(top / f"{part}/Ground truth/1_A.png", VESSEL, "RGB")


def rite(root):
    for part, stem in (("training", "21_training"), ("test", "01_test")):
        photo(root / f"AV_groundTruth/{part}/images/{stem}.tif")
        save(root / f"AV_groundTruth/{part}/av/{stem}.png", av_colours())
        save(root / f"AV_groundTruth/{part}/vessel/{stem}.png", VESSEL)


def les_av(root):
    photo(root / "LES-AV/images/7.png")
    save(root / "LES-AV/arteries-and-veins/7.png", av_colours())
    save(root / "LES-AV/vessel-segmentations/7.png", VESSEL)
    save(root / "LES-AV/masks/7_mask.png", FOV)


def idrid(root):
    a = root / "A. Segmentation/A. Segmentation"
    folders = {"MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates"}
    for part, name, codes in (
        ("a. Training Set", "IDRiD_01", ("MA", "EX")),
        ("a. Training Set", "IDRiD_02", tuple(folders)),
        ("b. Testing Set", "IDRiD_55", tuple(folders)),
    ):
        photo(a / f"1. Original Images/{part}/{name}.jpg")
        for code in codes:
            mask = np.roll(BLOB, 2, 0) if code == "MA" else BLOB
            save(a / f"2. All Segmentation Groundtruths/{part}/{folders[code]}/{name}_{code}.tif", mask)
        save(a / f"2. All Segmentation Groundtruths/{part}/5. Optic Disc/{name}_OD.tif", DISC)
    c = root / "C. Localization"
    for letter, word, name in (("a", "Training Set", "IDRiD_001"), ("b", "Testing Set", "IDRiD_001")):
        photo(c / f"1. Original Images/{letter}. {word}/{name}.jpg")
        for folder, file, x in (
            ("1. Optic Disc Center Location", f"{letter}. IDRiD_OD_Center_{word}_Markups.csv", 50),
            ("2. Fovea Center Location", f"IDRiD_Fovea_Center_{word}_Markups.csv", 30),
        ):
            path = c / "2. Groundtruths" / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"Image No,X- Coordinate,Y - Coordinate,,\n{name},{x},33,,\n,,,,\n")


def ddr(root):
    for part, label in (("train", "label"), ("valid", "segmentation label"), ("test", "label")):
        photo(root / f"DDR-dataset/lesion_segmentation/{part}/image/007-1.jpg")
        for code in ("MA", "HE", "EX", "SE"):
            save(root / f"DDR-dataset/lesion_segmentation/{part}/{label}/{code}/007-1.tif", BLOB & (code in ("HE", "EX")))


def e_ophtha(root):
    photo(root / "e_optha_EX/EX/E0000404/C0001885.jpg")
    save(root / "e_optha_EX/Annotation_EX/E0000404/C0001885_EX.png", BLOB)
    photo(root / "e_optha_EX/healthy/E0000001/C0000001.jpg")
    photo(root / "e_optha_MA/MA/E0000043/C0000886.jpg")
    save(root / "e_optha_MA/Annotation_MA/E0000043/C0000886.png", BLOB)


def fgadr(root):
    photo(root / "FGADR/Seg-set/Original_Images/0003_2.png")
    for folder in ("Microaneurysms_Masks", "Hemohedge_Masks", "HardExudate_Masks", "SoftExudate_Masks", "IRMA_Masks"):
        save(root / f"FGADR/Seg-set/{folder}/0003_2.png", BLOB & (folder != "HardExudate_Masks"))


def fovea_table(path, stem="g0001", column="ImgName"):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"ID": [1, 2], column: [f"{stem}.jpg", "other.jpg"], "Fovea_X": [22.5, 0], "Fovea_Y": [31.5, 0]}
    pd.DataFrame(table).to_excel(path, index=False)


def refuge(root):
    grey = np.where(CUP, 0, np.where(DISC, 128, 255))
    photo(root / "REFUGE-Training400/Training400/Glaucoma/g0001.jpg")
    save(root / "Annotation-Training400/Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp", grey)
    fovea_table(root / "Annotation-Training400/Annotation-Training400/Fovea_location.xlsx")
    photo(root / "REFUGE-Validation400/REFUGE-Validation400/V0001.jpg")
    save(root / "REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp", grey)
    photo(root / "REFUGE-Test400/Test400/T0001.jpg")
    save(root / "REFUGE-Test-GT/Disc_Cup_Masks/G/T0001.bmp", grey)


def drishti_gs(root):
    top = root / "Drishti-GS1_files/Drishti-GS1_files"
    for part, truth, name in (("Training", "Training/GT", "drishtiGS_002"), ("Test", "Test/Test_GT", "drishtiGS_001")):
        photo(top / f"{part}/Images/{name}.png")
        one_expert, all_experts = np.roll(DISC, 9, 1), ellipse(SHAPE, 50, 30, 2, 2)
        save(top / f"{truth}/{name}/SoftMap/{name}_ODsegSoftmap.png", np.where(DISC, 255, np.where(one_expert, 64, 0)))
        save(top / f"{truth}/{name}/SoftMap/{name}_cupsegSoftmap.png", np.where(CUP, 127, 0) + np.where(all_experts, 128, 0))
    (top / "Training/GT/drishtiGS_002/drishtiGS_002_cdrValues.txt").write_text("0.7\n0.6\n0.8\n0.7\n")


def rim_one(root):
    for part, kind, name in (("training_set", "glaucoma", "r1_Im001"), ("test_set", "normal", "r2_Im003")):
        photo(root / f"RIM-ONE_DL_images/partitioned_by_hospital/{part}/{kind}/{name}.png")
        photo(root / f"RIM-ONE_DL_images/partitioned_randomly/{part}/{kind}/{name}.png")
        for what, mask in (("Disc", DISC), ("Cup", CUP)):
            save(root / f"RIM-ONE_DL_reference_segmentations/{kind}/{name}-1-{what}-T.png", mask)


def origa(root):
    photo(root / "ORIGA/Images/001.jpg")
    photo(root / "ORIGA/Images/002.jpg")
    save(root / "ORIGA/Masks/001.png", DISC * 1 + CUP * 1)
    (root / "ORIGA/Semi-automatic-annotations").mkdir()
    savemat(root / "ORIGA/Semi-automatic-annotations/002.mat", {"mask": (DISC * 1 + CUP * 1).astype(np.uint8)})
    (root / "ORIGA/OrigaList.csv").write_text("Eye,Filename,ExpCDR,Set,Glaucoma\nOD,001.jpg,0.5,A,0\nOS,'002.jpg',0.5,'B',0\n")


def g1020(root):
    photo(root / "G1020/Images/image_0.jpg")
    (root / "G1020/Images/image_0.json").write_text("{}")
    save(root / "G1020/Masks/image_0.png", DISC * 1 + CUP * 1)


def circle_points(mask):
    ys, xs = np.nonzero(mask)
    t = np.linspace(0, 2 * np.pi, 80)
    a, b = (xs.max() - xs.min()) / 2, (ys.max() - ys.min()) / 2
    return "\n".join(f"{x:.2f} {y:.2f}" for x, y in zip(xs.mean() + a * np.cos(t), ys.mean() + b * np.sin(t), strict=True))


def papila(root):
    base = root / "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"
    (base / "ExpertsSegmentations/Contours").mkdir(parents=True)
    for eye in ("OD", "OS"):
        photo(base / f"FundusImages/RET002{eye}.jpg")
        for what, mask in (("disc", DISC), ("cup", CUP)):
            for expert in (1, 2):
                (base / f"ExpertsSegmentations/Contours/RET002{eye}_{what}_exp{expert}.txt").write_text(circle_points(mask))


def palm(root):
    top = root / "PALM-Training400"
    for name in ("H0001", "P0002"):
        photo(top / f"PALM-Training400/{name}.jpg")
    save(top / "PALM-Training400-Annotation-D&F/Disc_Masks/H0001.bmp", ~DISC)
    fovea_table(top / "PALM-Training400-Annotation-D&F/Fovea_Location.xlsx", "P0002", "imgName")


def adam(root):
    photo(root / "Training400/AMD/A0001.jpg")
    photo(root / "Training400/Non-AMD/N0001.jpg")
    for name in ("A0001", "N0001"):
        save(root / f"Training400/Disc_Masks/{name}.bmp", ~DISC)
    fovea_table(root / "Training400/Fovea_location.xlsx", "A0001")
    save(root / "Training400-Lesion/Lesion_Masks/drusen/A0001.bmp", ~BLOB)


def mmac(root):
    base = root / "1. Classification of Myopic Maculopathy"
    rows = ["image,myopic_maculopathy_grade,age"]
    for i, grade in enumerate((0, 1, 3)):
        photo(base / f"1. Images/1. Training Set/mmac_task_1_train_{i:04d}.png")
        rows.append(f"mmac_task_1_train_{i:04d}.png,{grade},40")
    labels = base / "2. Groundtruths/1. MMAC2023_Myopic_Maculopathy_Classification_Training_Labels.csv"
    labels.parent.mkdir()
    labels.write_text("\n".join(rows) + "\n")


def palm_by_part(root):
    """PALM as deposited on figshare: folders a part, each with a table of the same name."""
    for part in ("Training", "Validation", "Testing"):
        photo(root / f"PALM/{part}/Images/{part[0]}0001.jpg")
        save(root / f"PALM/{part}/Disc Masks/{part[0]}0001.bmp", ~DISC)
        fovea_table(root / f"PALM/{part}/Fovea Localization.xlsx", f"{part[0]}0001", "imgName")
