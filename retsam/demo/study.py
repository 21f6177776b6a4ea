"""Writes the rendered cohort: photographs, samplesheet, the truth beside it, and the configuration of a study of it."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from dask.system import CPU_COUNT
from tqdm import tqdm

from retsam.demo.parameters import CAMERAS, EyeParameters
from retsam.demo.population import effects_table, simulate
from retsam.demo.render import RenderedEye, render_eye

__all__ = ["demo_config", "write_demo"]

#: Bits of the lesion masks, as in the public data sets' manifest.
LESION_BITS = {"microaneurysm": 1, "hemorrhage": 2, "hard_exudate": 4, "cotton_wool_spot": 8}

#: What is wrong with the photographs that are bad on purpose, and what quality control should say.
DEFECTS = {
    "unreadable": "status failed, reason unreadable",
    "truncated": "status failed, reason truncated or unreadable",
    "not_a_fundus": "rejected as not_a_fundus or no_field_of_view",
    "too_dark": "reject",
    "blurred": "reject or usable",
    "duplicate": "duplicate_of the photograph it was copied from",
}


def demo_config(folder: str | Path) -> dict[str, Any]:
    """Settings of the study of a rendered cohort.

    Parameters
    ----------
    folder : str or Path
        Where `write_demo` wrote the cohort.

    Returns
    -------
    dict
        Valid for `retsam.config.StudyConfig`.
    """
    return {
        "study": "demo",
        "cohort": {
            "samplesheet": (Path(folder) / "samplesheet.csv").as_posix(),
            "columns": {"image": "image", "subject": "subject", "eye": "eye", "visit": "visit"},
            "labels": {
                "dr": {"column": "dr_grade", "positive": [1, 2, 3, 4], "negative": [0]},
                "dr_grade": {"column": "dr_grade", "type": "ordinal", "levels": [0, 1, 2, 3, 4]},
                "amd": {"column": "amd", "type": "binary"},
                "glaucoma": {"column": "glaucoma", "type": "binary"},
                "myopia": {"column": "pathological_myopia", "type": "binary"},
            },
            "covariates": {
                "age": {"column": "age", "type": "continuous"},
                "sex": {"column": "sex", "type": "categorical", "levels": ["female", "male"]},
                "hypertension": {"column": "hypertension", "type": "binary"},
                "site": {"column": "site", "type": "categorical"},
                "device": {"column": "device", "type": "categorical"},
            },
            "shard_size": 32,
        },
        # Each photograph is looked at once: so the demo ends within ten minutes on a processor without bfloat16 arithmetic too.
        "segmentation": {"flips": False},
        "association": {
            "outcomes": ["dr", "amd", "glaucoma", "myopia"],
            "covariate_sets": {"crude": [], "age_sex": ["age", "sex"], "full": ["age", "sex", "hypertension", "site"]},
            "robustness": {"covariate_set": "age_sex", "camera_columns": ["site", "device"]},
        },
    }


def _write_masks(eye: RenderedEye, name: str, folder: Path) -> dict[str, object]:
    """Masks as PNG in the encodings of `retsam measure --masks` and of `retsam evaluate --manifest`; returns their columns."""
    masks = eye.masks
    index = {
        "av": np.zeros(eye.fov.shape, np.uint8),
        "disc_cup": np.zeros(eye.fov.shape, np.uint8),
        "lesions": np.zeros(eye.fov.shape, np.uint8),
    }
    index["av"][masks["artery"]] = 1
    index["av"][masks["vein"]] = 2
    index["av"][masks["artery"] & masks["vein"]] = 3
    index["disc_cup"][masks["disc"]] = 1
    index["disc_cup"][masks["cup"]] = 2
    for lesion, bit in LESION_BITS.items():
        if lesion in masks:
            index["lesions"] |= masks[lesion].astype(np.uint8) * bit
    binary = {key: masks[key] for key in ("artery", "vein", "vessel", "disc", "peripapillary_atrophy", "drusen") if key in masks}
    binary["fov"] = eye.fov
    row: dict[str, object] = {}
    for key, plane in [*index.items(), *((key, plane.astype(np.uint8) * 255) for key, plane in binary.items())]:
        target = folder / f"{name}_{key}.png"
        if not cv2.imwrite(str(target), plane, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
            raise OSError(f"{target}: could not be written")
        row[key] = target.name
    row.update({"fovea_x": eye.fovea[0], "fovea_y": eye.fovea[1], "um_per_px": eye.truth["um_per_px"]})
    return row


def _write_jpeg(rgb: np.ndarray, path: Path, quality: int) -> None:
    if not cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise OSError(f"{path}: could not be written")


def _one(job: tuple[str, EyeParameters, int, str]) -> tuple[str, dict, dict, dict]:
    """Render and write one eye; runs in a worker process."""
    name, parameters, seed, out = job
    cv2.setNumThreads(1)
    eye = render_eye(parameters, seed)
    folder = Path(out)
    _write_jpeg(eye.rgb, folder / "photographs" / f"{name}.jpg", parameters.camera.jpeg_quality)
    masks = _write_masks(eye, name, folder / "truth" / "masks")
    truth = {key: value for key, value in eye.truth.items() if not isinstance(value, list)}
    return name, truth, masks, parameters.flat()


def _landscape(size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture that is no fundus: sky, hills and a tree."""
    y, x = np.mgrid[0:size, 0:size] / size
    picture = np.stack([0.55 + 0.3 * y, 0.7 + 0.2 * y, 0.95 - 0.1 * y], -1)
    for level, colour in ((0.62, (0.35, 0.5, 0.35)), (0.78, (0.25, 0.42, 0.2))):
        ridge = level + sum(0.05 / k * np.sin(2 * np.pi * k * x + rng.uniform(0, 6)) for k in (1, 2, 5))
        picture[y > ridge] = colour
    picture[(np.abs(x - 0.7) < 0.015) & (y > 0.55) & (y < 0.85)] = (0.3, 0.2, 0.1)
    picture[np.hypot(x - 0.7, y - 0.48) < 0.11] = (0.12, 0.33, 0.12)
    return np.clip((picture + rng.normal(0, 0.02, picture.shape)) * 255, 0, 255).astype(np.uint8)


def _bad_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the samplesheet for photographs that are bad on purpose (index: the row each is made from), and what is wrong with them."""
    sources = [(7 * number + 2) % len(table) for number in range(len(DEFECTS))]
    rows = table.iloc[sources].copy()
    rows["subject"] = [f"X{number + 1:04d}" for number in range(len(rows))]
    rows["image"] = [f"photographs/{subject}_{eye}.jpg" for subject, eye in zip(rows["subject"], rows["eye"], strict=True)]
    listed = pd.DataFrame({"image": rows["image"].to_numpy(), "defect": [*DEFECTS], "expected": [*DEFECTS.values()]})
    listed["made_from"] = table["image"].iloc[sources].to_numpy()
    return rows, listed


def _write_bad(listed: pd.DataFrame, sources: pd.Index, parameters: list[EyeParameters], out: Path, size: int, seed: int) -> None:
    """The photographs that are bad on purpose; `sources` are the numbers of the eyes that they are made from."""
    rng = np.random.default_rng([int(seed), 0xBAD])
    for source, row in zip(sources, listed.itertuples(), strict=True):
        path, good = out / row.image, parameters[source]
        if row.defect == "unreadable":
            path.write_bytes(b"this is no photograph\n" * 40)
        elif row.defect == "truncated":
            whole = (out / row.made_from).read_bytes()
            path.write_bytes(whole[: len(whole) * 2 // 5])
        elif row.defect == "not_a_fundus":
            _write_jpeg(_landscape(size, rng), path, 92)
        elif row.defect == "duplicate":
            path.write_bytes((out / row.made_from).read_bytes())
        else:
            change = {"brightness": 0.12} if row.defect == "too_dark" else {"defocus_um": 260.0}
            camera = replace(CAMERAS["handheld"], tint=good.camera.tint)
            _write_jpeg(render_eye(replace(good, camera=camera, **change), int(rng.integers(2**31))).rgb, path, 90)


def _refuse_another_cohort(out: Path, sheet: pd.DataFrame) -> None:
    """Files of another cohort would stay among those of this one: whoever reads the folder would take them for its own."""
    written, photographs = out / "samplesheet.csv", out / "photographs"
    mend = "choose another folder, or remove this one first"
    if written.is_file() and written.read_text(encoding="utf-8") != sheet.to_csv(index=False):
        raise FileExistsError(f"{written}: the samplesheet of another cohort lies there (other subjects, seed or defects); {mend}")
    named = {Path(image).name for image in sheet["image"]}
    others = sorted(path.name for path in photographs.iterdir() if path.name not in named) if photographs.is_dir() else []
    if others:
        raise FileExistsError(f"{photographs}: holds {len(others)} files that are not of this cohort, {others[0]} among them; {mend}")


def write_demo(
    out: str | Path,
    subjects: int = 64,
    size: int = 768,
    seed: int = 0,
    workers: int | None = None,
    defects: bool = True,
    progress: bool = True,
) -> Path:
    """Render the cohort into a folder.

    Parameters
    ----------
    out : str or Path
        Receives ``photographs/``, ``samplesheet.csv``, ``config.yaml`` and ``truth/``.
    subjects : int
        Two eyes each.
    size : int
        Width of the photographs, pixels, 512 to 2000.
    seed : int
    workers : int, optional
        Processes; one a core by default.
    defects : bool
        Add photographs that are bad on purpose.
    progress : bool

    Returns
    -------
    Path
        Of the configuration, in `out` as it was given; the path of the samplesheet in it is absolute.

    Raises
    ------
    ValueError
        Size or number of subjects out of range.
    FileExistsError
        The folder holds another cohort.
    """
    if not 512 <= size <= 2000:
        raise ValueError(f"size: expected 512 to 2000 pixels, found {size}")
    out = Path(out)
    table, parameters = simulate(subjects, size, seed)
    table["image"] = [f"photographs/{row.subject}_{row.eye}.jpg" for row in table.itertuples()]
    sheet = table[["image", *(column for column in table.columns if column != "image")]]
    bad, listed = _bad_rows(sheet)
    if defects:
        sheet = pd.concat([sheet, bad], ignore_index=True)
    _refuse_another_cohort(out, sheet)
    for folder in (out / "photographs", out / "truth" / "masks"):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = np.random.default_rng([int(seed), 0x5EED]).integers(2**62, size=len(table))
    jobs = [(Path(image).stem, eye, int(own), str(out)) for image, eye, own in zip(table["image"], parameters, seeds, strict=True)]
    workers = min(len(jobs), workers or CPU_COUNT)
    bar = tqdm(total=len(jobs), desc="rendering eyes", unit="eye", disable=not progress)
    results = []
    if workers == 1:
        for job in jobs:
            results.append(_one(job))
            bar.update()
    else:
        with ProcessPoolExecutor(workers) as pool:
            for result in pool.map(_one, jobs, chunksize=2):
                results.append(result)
                bar.update()
    bar.close()

    truth = out / "truth"
    if defects:
        _write_bad(listed, bad.index, parameters, out, size, seed)
        listed.to_csv(truth / "defects.csv", index=False)
    sheet.to_csv(out / "samplesheet.csv", index=False)
    keys = table[["image", "subject", "eye"]].reset_index(drop=True)
    pd.concat([keys, pd.DataFrame([made for _, made, _, _ in results])], axis=1).to_csv(truth / "biomarkers.csv", index=False)
    flat = pd.DataFrame([flat for *_, flat in results]).drop(columns="eye")
    pd.concat([keys, flat], axis=1).to_csv(truth / "parameters.csv", index=False)
    effects_table().to_csv(truth / "effects.csv", index=False)
    _write_mask_tables(table, results, out)
    config = out / "config.yaml"
    heading = "# Study of the rendered cohort beside this file (written by `retsam demo`).\n"
    config.write_text(heading + yaml.safe_dump(demo_config(out.absolute()), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return config


def _write_mask_tables(table: pd.DataFrame, results: list[tuple[str, dict, dict, dict]], out: Path) -> None:
    """``truth/masks.csv`` for `retsam measure --masks` and ``truth/manifest.csv`` for `retsam evaluate --manifest --root OUT`."""
    brought, manifest = [], []
    for row, (name, truth, masks, _) in zip(table.itertuples(), results, strict=True):
        png = {key: value for key, value in masks.items() if isinstance(value, str)}
        point = {key: masks[key] for key in ("fovea_x", "fovea_y")}
        columns = ("artery", "vein", "vessel", "disc_cup", "lesions", "fov")
        brought.append(
            {
                "image_id": name,
                "eye": row.eye,
                **{key: f"masks/{png[key]}" for key in columns},
                **point,
                "um_per_px": masks["um_per_px"],
            }
        )
        height, width = cv2.imread(str(out / "truth" / "masks" / png["fov"]), cv2.IMREAD_GRAYSCALE).shape
        manifest.append(
            {
                "dataset": "demo",
                "image": row.image,
                "split": "test",
                "group": f"demo:{row.subject}",
                "width": width,
                "height": height,
                "scale": 1.0,
                **{key: f"truth/masks/{png[key]}" for key in ("vessel", "av", "fov", "disc", "disc_cup", "lesions")},
                **point,
                "od_x": truth["disc_x"],
                "od_y": truth["disc_y"],
                "subject_id": row.subject,
                "eye": row.eye,
                "age": row.age,
                "sex": row.sex,
                "dr_grade": row.dr_grade,
                "expert_vcdr": truth["cdr_vertical"],
            }
        )
    pd.DataFrame(brought).to_csv(out / "truth" / "masks.csv", index=False)
    pd.DataFrame(manifest).to_csv(out / "truth" / "manifest.csv", index=False)
