"""A cohort of two-eyed subjects with known effects, as the three tables that the association room reads."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retsam.association import AssociationConfig, associate

REASONS = ("no_disc", "zone_outside_fov")


def simulated_tables(n_subjects: int = 400, n_biomarkers: int = 6, seed: int = 0, effect: float = 0.8, both_eyes: float = 0.9):
    """Cohort, quality and biomarker tables.

    Biomarker ``b0`` has the log odds ratio ``effect`` per SD on ``dr`` (given age and sex), ``b1`` half of it on ``grade``;
    ``lesion_count`` is mostly zero and follows ``dr``; the others are noise that the two eyes of a subject share.
    """
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, n_subjects)
    sex = rng.choice(["Female", "Male"], n_subjects)
    site = rng.choice(["A", "B", "C"], n_subjects)
    rows = []
    for s in range(n_subjects):
        eyes = ["R", "L"] if rng.random() < both_eyes else [str(rng.choice(["R", "L"]))]
        shared = rng.normal(size=n_biomarkers)
        frailty = rng.normal(0, 0.7)
        for eye in eyes:
            b = np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.normal(size=n_biomarkers)
            eta = -1.0 + effect * b[0] + 0.03 * (age[s] - 60) + 0.3 * (sex[s] == "Male") + frailty
            dr = float(rng.random() < 1 / (1 + np.exp(-eta)))
            latent = effect / 2 * b[1] + 0.02 * (age[s] - 60) + frailty + rng.logistic()
            lesions = float(rng.poisson(3.0) if dr and rng.random() < 0.6 else rng.random() < 0.05)
            rows.append((f"i{len(rows):05d}", f"s{s}", eye, age[s], sex[s], site[s], dr, latent, lesions, *b))
    names = [f"b{j}" for j in range(n_biomarkers)]
    data = pd.DataFrame(rows, columns=["image_id", "subject", "eye", "age", "sex", "site", "dr", "latent", "lesion_count", *names])
    n = len(data)
    data["grade"] = np.searchsorted([0.0, 1.5, 3.0], data["latent"])
    data["iop"] = 15 + 2 * data["b2"] + 0.5 * data["latent"] + rng.normal(size=n)
    data["visits_n"] = rng.poisson(np.exp(0.2 + 0.3 * data["b3"]))
    data["years"] = np.minimum(rng.exponential(5 * np.exp(-0.5 * data["b0"])), 8.0) + 0.01
    data["died"] = (data["years"] < 8.0).astype(int)
    cohort = data[["image_id", "subject", "eye", "age", "sex", "site", "dr", "grade", "iop", "visits_n", "years", "died"]].copy()
    cohort.insert(1, "path", [f"/photographs/{i}.jpg" for i in cohort["image_id"]])
    cohort["visit"], cohort["shard"], cohort["status"], cohort["reason"], cohort["detail"] = None, "s0000", "ok", None, None
    cohort.loc[cohort.index[:3], "dr"] = np.nan
    cohort.loc[cohort.index[3:5], "age"] = np.nan
    quality = pd.DataFrame({"image_id": data["image_id"], "status": "ok", "reason": None, "detail": None})
    quality["grade"] = rng.choice(["gradable", "usable", "reject"], n, p=[0.8, 0.15, 0.05])
    quality["probability"] = rng.uniform(0.3, 1, n)
    quality["reasons"] = np.where(quality["grade"] == "reject", "blurred", "")
    quality["width"], quality["height"] = rng.choice([512, 1024], n), 512
    quality["sharpness"], quality["illumination"], quality["contrast"] = rng.uniform(size=(3, n))
    quality["duplicate_of"] = None
    quality.loc[quality.index[5:8], ["status", "reason", "grade"]] = ["failed", "unreadable", None]
    quality.loc[quality.index[9:10], ["status", "reason", "grade", "duplicate_of"]] = ["failed", "duplicate", None, data["image_id"][8]]
    biomarkers = data[["image_id", "subject", "eye"]].copy()
    bad = quality["status"] != "ok"
    biomarkers["status"] = np.where(bad, "failed", "ok")
    biomarkers["reason"] = np.where(bad, quality["reason"].fillna("unreadable"), None)
    for name in [*names, "lesion_count"]:
        biomarkers[name] = data[name].where(~bad)
        biomarkers[f"{name}__reason"] = np.where(bad, "image_failed", None)
    gone = rng.random(n) < 0.15
    biomarkers.loc[gone, "b4"] = np.nan
    biomarkers.loc[gone, "b4__reason"] = rng.choice(REASONS, int(gone.sum()))
    return cohort, quality, biomarkers


def plan(**changes) -> AssociationConfig:
    """A plan with one outcome and two covariate sets, changed."""
    settings = {"outcomes": ["dr"], "covariate_sets": {"crude": [], "age_sex": ["age", "sex"]}}
    return AssociationConfig(**{**settings, **changes})


def run(tables, biomarker_changes=None, cohort_changes=None, quality_changes=None, **changes):
    """Associations of changed tables under a changed plan."""
    cohort, quality, biomarkers = (t.copy() for t in tables)
    for table, change in ((cohort, cohort_changes), (quality, quality_changes), (biomarkers, biomarker_changes)):
        for column, value in (change or {}).items():
            table[column] = value
    return associate(plan(**changes), cohort, quality, biomarkers)
