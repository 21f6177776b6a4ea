"""Subjects whose age, sex and diseases change their eyes by known amounts.

Everything that a disease does to an eye stands in `EFFECTS`; the simulation reads it from there, and ``truth/effects.csv`` is
that table, so that what a study of the demo should find is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from retsam.demo.parameters import CAMERAS, LESIONS, Camera, EyeParameters

__all__ = ["EFFECTS", "Effect", "SITES", "effects_table", "simulate"]

#: Where photographs were taken, and by which camera.
SITES = {"north": "clinic", "south": "screening", "east": "hospital"}

#: Share of subjects with each disease in at least one eye. High, so that a small cohort has cases.
PREVALENCE = {"dr": 0.42, "amd": 0.24, "glaucoma": 0.24, "pathological_myopia": 0.2}
_GRADES = {1: 0.22, 2: 0.36, 3: 0.26, 4: 0.16}


@dataclass(frozen=True)
class Effect:
    """One thing that a cause does to an eye.

    Attributes
    ----------
    cause : str
        Column of the samplesheet.
    level : str
        ``per unit`` for numbers (from `over` on) and yes/no, or the level of an ordinal cause.
    parameter : str
        Field of `EyeParameters`, or a lesion.
    change : float
        Added to the parameter (lesions: the expected number).
    unit : str
    biomarkers : tuple of str
        Quantities in ``truth/biomarkers.csv`` in which it shows.
    direction : int
        Sign of the association between cause and biomarker.
    over : float
        Value of the cause at which the effect is nil. Below it a parameter changes the other way; a lesion does not, since none can be
        fewer than none.
    """

    cause: str
    level: str
    parameter: str
    change: float
    unit: str
    biomarkers: tuple[str, ...]
    direction: int
    over: float = 0.0

    def on(self, eye: Mapping[str, object]) -> float:
        """What it adds to the parameter of one eye, a row of the samplesheet."""
        cause = float(eye[self.cause])
        if self.level != "per unit":
            return self.change * (cause == float(self.level))
        cause -= self.over
        return self.change * (max(0.0, cause) if self.parameter in LESIONS else cause)


def _dr(lesion: str, means: tuple[float, ...], biomarker: str) -> list[Effect]:
    return [Effect("dr_grade", str(grade), lesion, mean, "lesions expected", (biomarker,), 1) for grade, mean in enumerate(means) if mean]


EFFECTS: tuple[Effect, ...] = (
    Effect("age", "per unit", "artery_width_um", -0.30, "um per year over 60", ("crae_um",), -1, over=60),
    Effect("age", "per unit", "drusen", 1 / 12, "lesions expected per year over 50", ("drusen_count",), 1, over=50),
    Effect("hypertension", "per unit", "artery_width_um", -9.0, "um", ("crae_um",), -1),
    Effect("hypertension", "per unit", "tortuosity", 0.35, "relative", ("artery_tortuosity_distance", "vein_tortuosity_distance"), 1),
    Effect("dr_grade", "per unit", "vein_width_um", 4.5, "um per grade", ("crve_um",), 1),
    *_dr("microaneurysm", (0.0, 5.0, 13.0, 22.0, 24.0), "microaneurysm_count"),
    *_dr("hemorrhage", (0.0, 0.6, 8.0, 17.0, 20.0), "hemorrhage_count"),
    *_dr("hard_exudate", (0.0, 3.0, 20.0, 38.0, 42.0), "hard_exudate_count"),
    *_dr("cotton_wool_spot", (0.0, 0.0, 1.2, 3.0, 3.5), "cotton_wool_spot_count"),
    Effect("amd", "per unit", "drusen", 55.0, "lesions expected", ("drusen_count",), 1),
    Effect("glaucoma", "per unit", "cdr_vertical", 0.24, "ratio", ("cdr_vertical",), 1),
    Effect("glaucoma", "per unit", "cdr_horizontal", 0.17, "ratio", ("cdr_horizontal",), 1),
    Effect("glaucoma", "per unit", "artery_width_um", -4.0, "um", ("crae_um",), -1),
    Effect("pathological_myopia", "per unit", "tessellation", 0.55, "0..1", (), 1),
    Effect("pathological_myopia", "per unit", "ppa_mm", 0.50, "mm", ("peripapillary_atrophy_area_px2",), 1),
    Effect("pathological_myopia", "per unit", "artery_width_um", -14.0, "um", ("crae_um",), -1),
    Effect("pathological_myopia", "per unit", "vein_width_um", -17.0, "um", ("crve_um",), -1),
    Effect("pathological_myopia", "per unit", "disc_tilt", 14.0, "degrees", ("disc_ovality",), 0),
    Effect("pathological_myopia", "per unit", "disc_width_mm", -0.20, "mm", ("disc_ovality",), -1),
)


def effects_table() -> pd.DataFrame:
    """`EFFECTS` as a table, one row an effect and biomarker."""
    return pd.DataFrame([asdict(effect) for effect in EFFECTS]).explode("biomarkers").rename(columns={"biomarkers": "biomarker"})


# Parameter: mean, SD between subjects, SD between the eyes of a subject.
_VARIATION = {
    "disc_height_mm": (1.84, 0.11, 0.04),
    "disc_width_mm": (1.69, 0.10, 0.04),
    "disc_tilt": (0.0, 5.0, 3.0),
    "cdr_vertical": (0.42, 0.075, 0.03),
    "cdr_horizontal": (0.44, 0.075, 0.03),
    "fovea_distance_mm": (4.55, 0.18, 0.07),
    "fovea_angle": (6.5, 2.2, 1.2),
    "artery_width_um": (116.0, 5.5, 2.5),
    "vein_width_um": (138.0, 6.5, 3.0),
    "murray_exponent": (2.7, 0.12, 0.08),
    "branching": (1.0, 0.10, 0.06),
    "tortuosity": (0.9, 0.20, 0.10),
    "arcade_height_mm": (3.75, 0.28, 0.15),
    "tessellation": (0.16, 0.10, 0.03),
    "pigmentation": (0.42, 0.16, 0.02),
    "centre": (0.74, 0.05, 0.10),
    "rotation": (0.0, 1.0, 2.5),
}
_BOUNDS = {
    "cdr_vertical": (0.12, 0.9), "cdr_horizontal": (0.12, 0.9), "tessellation": (0.0, 1.0), "pigmentation": (0.05, 0.95),
    "artery_width_um": (70.0, 160.0), "vein_width_um": (80.0, 190.0), "tortuosity": (0.3, 2.5), "centre": (0.45, 0.95),
    "ppa_mm": (0.0, 1.0), "media_opacity": (0.0, 0.8), "disc_width_mm": (1.2, 2.2), "disc_height_mm": (1.4, 2.3),
    "branching": (0.6, 1.5), "arcade_height_mm": (3.0, 4.8), "murray_exponent": (2.3, 3.2),
}  # fmt: skip


def _cases(liability: np.ndarray, share: float) -> np.ndarray:
    """The subjects with the highest liability, in exactly the given share (rounded, at least one)."""
    count = min(len(liability), max(1, round(share * len(liability))))
    chosen = np.zeros(len(liability), bool)
    chosen[np.argsort(-liability, kind="stable")[:count]] = True
    return chosen


def _subjects(count: int, rng: np.random.Generator) -> pd.DataFrame:
    age = np.clip(rng.normal(61, 10.5, count), 35, 88).round(1)
    sex = rng.permutation(np.resize(np.array(["female", "male"]), count))
    table = pd.DataFrame({"subject": [f"S{i + 1:04d}" for i in range(count)], "age": age, "sex": sex})
    years = (age - 61) / 10.5
    table["hypertension"] = _cases(0.6 * years + rng.standard_normal(count), 0.4).astype(int)
    table["_dr"] = _cases(0.25 * years + 0.4 * table["hypertension"] + rng.standard_normal(count), PREVALENCE["dr"])
    table["_amd"] = _cases(0.9 * years + rng.standard_normal(count), PREVALENCE["amd"])
    table["_glaucoma"] = _cases(0.5 * years + rng.standard_normal(count), PREVALENCE["glaucoma"])
    table["_pathological_myopia"] = _cases(-0.2 * years + rng.standard_normal(count), PREVALENCE["pathological_myopia"])
    table["site"] = _sites(table[[f"_{disease}" for disease in PREVALENCE]].to_numpy(float), rng)
    return table


def _sites(ill: np.ndarray, rng: np.random.Generator, draws: int = 400) -> np.ndarray:
    """Sites at random, among `draws` allocations the one whose sites have the most equal numbers of each disease.

    In a cohort this small, chance alone would give one camera most of the cases of some disease, and a study of it would find cameras.
    """
    places = np.resize(np.array(list(SITES)), len(ill))
    drawn = [rng.permutation(places) for _ in range(draws)]
    return min(drawn, key=lambda site: sum(np.ptp([ill[site == name, k].sum() for name in SITES]) ** 2 for k in range(ill.shape[1])))


def _diseases(subject: pd.Series, rng: np.random.Generator) -> list[dict[str, int]]:
    """Diseases of the right and the left eye: a diseased subject has both eyes affected three times in four."""
    eyes: list[dict[str, int]] = [{}, {}]
    for disease in PREVALENCE:
        name = "dr_grade" if disease == "dr" else disease
        affected = [False, False]
        if subject[f"_{disease}"]:
            affected = [True, True]
            if rng.random() < 0.25:
                affected[rng.integers(2)] = False
        grade = int(rng.choice(list(_GRADES), p=list(_GRADES.values())))
        for eye, ill in zip(eyes, affected, strict=True):
            if disease == "dr":
                step = int(rng.choice([-1, 0, 0, 0, 1]))
                eye[name] = int(np.clip(grade + step, 1, 4)) if ill else 0
            else:
                eye[name] = int(ill)
    return eyes


def _eye(row: dict[str, object], base: dict[str, float], camera: Camera, size: int, rng: np.random.Generator) -> EyeParameters:
    values = {name: base[name] + rng.normal(0, own) for name, (_, _, own) in _VARIATION.items()}
    values.update({"ppa_mm": max(0.0, rng.normal(-0.05, 0.06)), "media_opacity": 0.0})
    expected = dict.fromkeys(LESIONS, 0.0)
    expected["microaneurysm"] = 0.12  # as elderly people without diabetes have
    for effect in EFFECTS:
        (expected if effect.parameter in LESIONS else values)[effect.parameter] += effect.on(row)
    if float(row["age"]) > 65 and rng.random() < 0.14:
        values["media_opacity"] = float(rng.uniform(0.15, 0.55))
    for name, (low, high) in _BOUNDS.items():
        values[name] = float(np.clip(values[name], low, high))
    if values["ppa_mm"] < 0.08:  # narrower crescents are not seen
        values["ppa_mm"] = 0.0
    # Disease varies between eyes of one grade: gamma-mixed Poisson.
    lesions = {kind: int(min(90, rng.poisson(mean * rng.gamma(4, 1 / 4)))) for kind, mean in expected.items()}
    return EyeParameters(
        eye=str(row["eye"]), size=size, camera=camera, cup_shift=(float(rng.uniform(0.0, 0.5)), float(rng.normal(0, 0.15))),
        centre_offset_mm=(0.0, float(rng.normal(0, 0.3))), brightness=float(rng.uniform(0.85, 1.12)),
        defocus_um=float(abs(rng.normal(0, 9))), lesions={k: v for k, v in lesions.items() if v},
        **{name: float(value) for name, value in values.items()},
    )  # fmt: skip


def _camera(site: str, rng: np.random.Generator) -> Camera:
    """The camera of a site with this subject's colouring; some of the screening site's pictures are taken with a hand-held one."""
    camera = CAMERAS[SITES[site]]
    if camera.name == "screening" and rng.random() < 0.2:
        camera = CAMERAS["handheld"]
    tint = np.array(camera.tint) * np.exp(rng.normal(0, 1, 3) * (0.03, 0.05, 0.06))
    return replace(
        camera, tint=tuple(float(part) for part in np.clip(tint, 0.1, 0.95)), vignette=camera.vignette * float(rng.uniform(0.7, 1.2))
    )


def simulate(subjects: int, size: int, seed: int) -> tuple[pd.DataFrame, list[EyeParameters]]:
    """Draw a cohort.

    Parameters
    ----------
    subjects : int
        At least 4; two eyes each.
    size : int
        Width of the photographs, pixels.
    seed : int

    Returns
    -------
    table : DataFrame
        One row an eye: subject, eye, visit, age, sex, site, device, hypertension, dr_grade, amd, glaucoma, pathological_myopia.
    parameters : list of EyeParameters
        In the order of the rows.
    """
    if subjects < 4:
        raise ValueError(f"subjects: expected at least 4, found {subjects}")
    rng = np.random.default_rng([int(seed), 0xC0407])
    people = _subjects(subjects, rng)
    rows, parameters = [], []
    for _, person in people.iterrows():
        base = {name: mean + rng.normal(0, between) for name, (mean, between, _) in _VARIATION.items()}
        # Cups are as wide as they are high, more or less; veins follow arteries.
        base["cdr_horizontal"] = 0.02 + base["cdr_vertical"] + rng.normal(0, 0.025)
        base["vein_width_um"] += 0.6 * (base["artery_width_um"] - _VARIATION["artery_width_um"][0])
        camera = _camera(str(person["site"]), rng)
        for eye, diseases in zip("RL", _diseases(person, rng), strict=True):
            row = {
                "subject": person["subject"], "eye": eye, "visit": 1, "age": person["age"], "sex": person["sex"], "site": person["site"],
                "hypertension": int(person["hypertension"]), **diseases,
            }  # fmt: skip
            made = _eye(row, base, camera, size, rng)
            row["device"] = made.camera.name
            rows.append(row)
            parameters.append(made)
    columns = [
        "subject",
        "eye",
        "visit",
        "age",
        "sex",
        "site",
        "device",
        "hypertension",
        "dr_grade",
        "amd",
        "glaucoma",
        "pathological_myopia",
    ]
    return pd.DataFrame(rows)[columns], parameters
