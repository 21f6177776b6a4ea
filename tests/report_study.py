"""A results folder made up for the report's tests: tables by the contracts, photographs and mask stores by the masks room."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from report_tables import OUTCOMES, SETS, all_tables
from scipy import stats

from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks
from retsam.masks.store import write_store
from retsam.segmentation.targets import TARGETS

NASTY = '<img src=x onerror="window.hacked=1">'
SCRIPT = "</script><script>window.hacked=2</script>"
FORMULA = '=HYPERLINK("http://x.invalid")'


SETTINGS = {
    "study": "made_up",
    "quality": {"reject_above": 0.5, "duplicates": "content"},
    "association": {
        "outcomes": OUTCOMES,
        "covariate_sets": SETS,
        "multiple": {"method": "bh", "alpha": 0.05, "family": "outcome"},
        "models": {"level": 0.95, "correlation": "exchangeable", "small_sample": "kauermann_carroll", "firth": True},
        "exposures": {"standardise": True, "transform_by_kind": True},
        "unit": {"level": "eye"},
        "robustness": {"covariate_set": "age_sex"},
    },
}


def biomarker_names(n: int) -> list[str]:
    from retsam.biomarkers.registry import registry

    everything = list(registry())
    return [everything[i] for i in np.unique(np.linspace(0, len(everything) - 1, n).round().astype(int))]


def photograph(rng: np.random.Generator, side: int = 160) -> tuple[np.ndarray, Masks]:
    """A round, reddish picture with a disc, two vessels and a bright lesion, and its masks."""
    yy, xx = np.mgrid[:side, :side]
    c = (side - 1) / 2
    fov = (xx - c) ** 2 + (yy - c) ** 2 <= (side / 2) ** 2
    rgb = np.zeros((side, side, 3), np.uint8)
    rgb[fov] = (180, 80, 40)
    dx = side * rng.uniform(0.25, 0.32)
    disc = (xx - c - dx) ** 2 + (yy - c) ** 2 <= (side * 0.07) ** 2
    cup = (xx - c - dx) ** 2 + (yy - c) ** 2 <= (side * rng.uniform(0.02, 0.05)) ** 2
    rgb[disc] = (240, 200, 130)
    planes = {"disc": disc, "cup": cup}
    for name, sign in (("artery", -1), ("vein", 1)):
        line = np.zeros((side, side), np.uint8)
        bend = int(side * rng.uniform(0.15, 0.3)) * sign
        points = np.array([[c + dx, c], [c, c + bend], [c - side * 0.4, c + bend * 0.6]], np.int32)
        cv2.polylines(line, [points], False, 1, 2 if name == "artery" else 3)
        planes[name] = (line > 0) & fov
        rgb[planes[name]] = (120, 30, 25) if name == "vein" else (160, 50, 35)
    planes["vessel"] = planes["artery"] | planes["vein"]
    spot = (xx - c + side * 0.1) ** 2 + (yy - c + side * 0.12) ** 2 <= (side * 0.025) ** 2
    planes["hard_exudate"] = spot
    rgb[spot] = (250, 240, 150)
    available = {**dict.fromkeys(("disc", "cup", "artery", "vein", "vessel", "fovea"), "supervised"), "hard_exudate": "weak"}
    status = {t: available.get(t, "not_available") for t in TARGETS}
    frame = Frame.from_square(0, 0, side, side, side, side)
    return rgb, Masks(planes, fov, frame, (c - side * 0.08, c), 0.9, status=status)


def make_study(folder: Path, n_subjects: int = 60, n_biomarkers: int = 24, seed: int = 0, pictures: bool = True) -> Path:
    """Write ``folder`` with every table that the association room names, and return it."""
    rng = np.random.default_rng(seed)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    names = biomarker_names(n_biomarkers)
    cohort = _cohort(folder, n_subjects, rng)
    quality = _quality(cohort, rng)
    values = _biomarkers(cohort, quality, names, rng)
    if pictures:
        _stores(folder, cohort, rng)
    cohort.to_parquet(folder / "cohort.parquet")
    quality.to_parquet(folder / "quality.parquet")
    values.to_parquet(folder / "biomarkers.parquet")
    data = values.merge(cohort.drop(columns=["status", "reason", "detail", "eye", "subject"]), on="image_id")
    data = data[data["status"] == "ok"]
    main = _main(data, names, rng)
    main.to_parquet(folder / "associations.parquet")
    for name, table in all_tables(data, cohort, quality, values, main, names, rng).items():
        table.assign(plan="0123456789ab").to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / "tables" / "plan.json").write_text(json.dumps({"plan_sha256": "0123456789ab"}))
    return folder


def _cohort(folder: Path, n: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for s in range(n):
        age, sex = round(float(rng.normal(60, 10)), 1), rng.choice(["F", "M"])
        for eye in "RL":
            rows.append(
                {
                    "image_id": f"{s:04d}_{eye}",
                    "path": str(folder / "photos" / f"{s:04d}_{eye}.png"),
                    "subject": f"p{s:04d}",
                    "eye": eye,
                    "visit": "1",
                    "shard": f"s{s % 2:04d}",
                    "status": "ok",
                    "reason": None,
                    "detail": None,
                    "age": age,
                    "sex": sex,
                    "dr": int(rng.random() < 0.3),
                    "glaucoma": int(rng.random() < 0.15),
                    "sbp": float(rng.normal(130, 15)),
                    "keyword": "normal fundus",
                }
            )
    table = pd.DataFrame(rows)
    table.loc[1, ["image_id", "subject", "keyword"]] = [NASTY, NASTY, SCRIPT]
    table.loc[2, ["image_id", "subject"]] = [FORMULA, "../../etc/passwd"]
    table.loc[[5, 7], "status"] = "failed"
    table.loc[[5, 7], "reason"] = ["unreadable", "truncated"]
    table.loc[[5, 7], "detail"] = [f"cannot be read {NASTY}", "file ends early"]
    table.loc[5, "image_id"] = FORMULA + "+1"
    return table


def _quality(cohort: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    ok = cohort["status"] == "ok"
    grade = rng.choice(["gradable", "usable", "reject"], len(cohort), p=[0.75, 0.17, 0.08])
    table = pd.DataFrame(
        {
            "image_id": cohort["image_id"],
            "status": np.where(ok, "ok", "failed"),
            "reason": cohort["reason"],
            "detail": cohort["detail"],
            "grade": np.where(ok, grade, None),
            "probability": rng.random(len(cohort)),
            "reasons": np.where(grade == "gradable", "", rng.choice(["blur", "dark;blur", "cut_off"], len(cohort))),
            "duplicate_of": None,
            "width": 160,
            "height": 160,
        }
    )
    return table


def _biomarkers(cohort: pd.DataFrame, quality: pd.DataFrame, names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    reject, failed = (quality["grade"] == "reject").to_numpy(), (cohort["status"] != "ok").to_numpy()
    status = np.where(failed | reject, "failed", "ok")
    reason = np.where(failed, cohort["reason"], np.where(reject, "quality_reject", None))
    table = pd.DataFrame(
        {"image_id": cohort["image_id"], "subject": cohort["subject"], "eye": cohort["eye"], "status": status, "reason": reason}
    )
    subject = pd.Series(cohort["subject"]).map(
        {s: v for s, v in zip(cohort["subject"].unique(), rng.normal(size=(cohort["subject"].nunique(), 3)), strict=True)}
    )
    shared = np.vstack(subject.to_numpy())
    columns = {}
    for i, name in enumerate(names):
        load = rng.normal(size=3)
        v = (
            shared @ load
            + rng.normal(size=len(table))
            + (0.9 * cohort["dr"] if i % 6 == 2 else 0)
            + (0.8 * cohort["glaucoma"] if i % 9 == 4 else 0)
        )
        missing = (rng.random(len(table)) < 0.08) | (status == "failed")
        columns[name] = np.where(missing, np.nan, 5 + v)
        columns[f"{name}__reason"] = np.where(
            status == "failed", "quality_reject", np.where(missing, rng.choice(["no_disc", "too_few_vessels"], len(table)), None)
        )
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def _stores(folder: Path, cohort: pd.DataFrame, rng: np.random.Generator) -> None:
    (folder / "photos").mkdir(exist_ok=True)
    for shard, rows in cohort.groupby("shard"):
        items: list[Masks | Failure] = []
        for row in rows.itertuples():
            if row.status != "ok":
                items.append(Failure(row.image_id, row.reason, "made up"))
                continue
            rgb, masks = photograph(rng)
            Image.fromarray(rgb).save(row.path)
            masks.image_id, masks.eye = row.image_id, row.eye
            items.append(masks)
        write_store(folder / "masks" / f"{shard}.zarr", items, {"model": "made-up", "weights_sha256": "ab" * 32})


def _fit(x: pd.Series, y: pd.Series, kind: str) -> tuple[float, float, int, float | None]:
    keep = x.notna() & y.notna()
    x, y = x[keep], y[keep].astype(float)
    z = (x - x.mean()) / x.std()
    if kind == "continuous":
        r = stats.linregress(z, y)
        return float(r.slope), float(r.stderr), len(z), None
    # A score-test-like log odds ratio: enough for a report that only prints what it is given.
    p = y.mean()
    beta = float((z * (y - p)).sum() / (p * (1 - p) * (z**2).sum()))
    return beta, float(1 / np.sqrt(p * (1 - p) * (z**2).sum())), len(z), float(y.sum())


def _row(data, outcome, name, covariates, subgroup="all", shift=0.0) -> dict:
    estimate, se, n, cases = _fit(data[name], data[outcome["name"]], outcome["type"])
    estimate += shift
    z = abs(estimate / se)
    nlp = -(stats.norm.logsf(z) + np.log(2)) / np.log(10)
    return {
        "outcome": outcome["name"],
        "biomarker": name,
        "covariate_set": covariates,
        "subgroup": subgroup,
        "model": "gee_linear" if cases is None else "gee_logit",
        "n": n,
        "n_cases": cases,
        "n_clusters": data["subject"].nunique(),
        "estimate": estimate,
        "se": se,
        "ci_low": estimate - 1.96 * se,
        "ci_high": estimate + 1.96 * se,
        "p": 10**-nlp,
        "neg_log10_p": nlp,
        "q": np.nan,
        "family": "biomarkers of one outcome, BH",
        "converged": True,
        "note": None,
        "outcome_type": outcome["type"],
        "scale": "per_sd",
        "circular": False,
    }


def _main(data: pd.DataFrame, names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for outcome in OUTCOMES:
        for covariates in SETS:
            mine = [_row(data, outcome, name, covariates, shift=0.02 if covariates == "crude" else 0) for name in names]
            q = stats.false_discovery_control([r["p"] for r in mine])
            rows += [
                {**r, "q": v, "n_tests": len(mine), "p_bonferroni": min(1.0, r["p"] * len(mine))} for r, v in zip(mine, q, strict=True)
            ]
        for level in ("F", "M"):
            rows += [_row(data[data["sex"] == level], outcome, name, "age_sex", f"sex={level}") for name in names[:5]]
    # A nearly separated model, as they come: its estimate must not spoil the axes of the others.
    wild = next(r for r in rows if r["outcome"] == "dr" and r["covariate_set"] == "age_sex" and r["biomarker"] == names[7])
    wild.update(estimate=45.0, se=20.0, ci_low=5.8, ci_high=84.2)
    for covariates in SETS:
        rows.append(
            {
                **rows[0],
                "covariate_set": covariates,
                "biomarker": "made_up_" + NASTY,
                "estimate": np.nan,
                "se": np.nan,
                "ci_low": np.nan,
                "ci_high": np.nan,
                "p": np.nan,
                "neg_log10_p": np.nan,
                "q": np.nan,
                "model": None,
                "note": "too_few_cases",
            }
        )
    return pd.DataFrame(rows)
