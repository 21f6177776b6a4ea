"""A results folder made up for the report's tests: tables by the contracts, photographs and mask stores by the masks room."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

from retsam.masks.frame import Frame
from retsam.masks.masks import Failure, Masks
from retsam.masks.store import write_store
from retsam.segmentation.targets import TARGETS

NASTY = "<img src=x onerror=\"window.hacked=1\">"
SCRIPT = "</script><script>window.hacked=2</script>"
FORMULA = "=HYPERLINK(\"http://x.invalid\")"

SETS = {"crude": [], "age_sex": ["age", "sex"]}
OUTCOMES = [{"name": "dr", "type": "binary"}, {"name": "glaucoma", "type": "binary"}, {"name": "sbp", "type": "continuous"}]

SETTINGS = {
    "study": "made_up",
    "quality": {"reject_above": 0.5, "duplicates": "content"},
    "association": {
        "outcomes": OUTCOMES, "covariate_sets": SETS, "multiple": {"method": "bh", "alpha": 0.05, "family": "outcome"}, "models": {"level": 0.95, "correlation": "exchangeable", "small_sample": "kauermann_carroll", "firth": True},
        "exposures": {"standardise": True, "log1p_counts": True}, "unit": {"level": "eye"}, "robustness": {"covariate_set": "age_sex"},
    },
}  # fmt: skip


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
    for name, table in _tables(data, cohort, quality, values, main, names, rng).items():
        table.assign(plan="0123456789ab").to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / "tables" / "plan.json").write_text(json.dumps({"plan_sha256": "0123456789ab"}))
    return folder


def _cohort(folder: Path, n: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for s in range(n):
        age, sex = round(float(rng.normal(60, 10)), 1), rng.choice(["F", "M"])
        for eye in "RL":
            rows.append({"image_id": f"{s:04d}_{eye}", "path": str(folder / "photos" / f"{s:04d}_{eye}.png"), "subject": f"p{s:04d}", "eye": eye, "visit": "1", "shard": f"s{s % 2:04d}", "status": "ok", "reason": None, "detail": None,
                         "age": age, "sex": sex, "dr": int(rng.random() < 0.3), "glaucoma": int(rng.random() < 0.15), "sbp": float(rng.normal(130, 15)), "keyword": "normal fundus"})  # fmt: skip
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
    table = pd.DataFrame({"image_id": cohort["image_id"], "status": np.where(ok, "ok", "failed"), "reason": cohort["reason"], "detail": cohort["detail"], "grade": np.where(ok, grade, None), "probability": rng.random(len(cohort)),
                          "reasons": np.where(grade == "gradable", "", rng.choice(["blur", "dark;blur", "cut_off"], len(cohort))), "duplicate_of": None, "width": 160, "height": 160})  # fmt: skip
    return table


def _biomarkers(cohort: pd.DataFrame, quality: pd.DataFrame, names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    reject, failed = (quality["grade"] == "reject").to_numpy(), (cohort["status"] != "ok").to_numpy()
    status = np.where(failed | reject, "failed", "ok")
    reason = np.where(failed, cohort["reason"], np.where(reject, "quality_reject", None))
    table = pd.DataFrame({"image_id": cohort["image_id"], "subject": cohort["subject"], "eye": cohort["eye"], "status": status, "reason": reason})
    subject = pd.Series(cohort["subject"]).map({s: v for s, v in zip(cohort["subject"].unique(), rng.normal(size=(cohort["subject"].nunique(), 3)), strict=True)})
    shared = np.vstack(subject.to_numpy())
    columns = {}
    for i, name in enumerate(names):
        load = rng.normal(size=3)
        v = shared @ load + rng.normal(size=len(table)) + (0.9 * cohort["dr"] if i % 6 == 2 else 0) + (0.8 * cohort["glaucoma"] if i % 9 == 4 else 0)
        missing = (rng.random(len(table)) < 0.08) | (status == "failed")
        columns[name] = np.where(missing, np.nan, 5 + v)
        columns[f"{name}__reason"] = np.where(status == "failed", "quality_reject", np.where(missing, rng.choice(["no_disc", "too_few_vessels"], len(table)), None))
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
    return {"outcome": outcome["name"], "biomarker": name, "covariate_set": covariates, "subgroup": subgroup, "model": "gee_linear" if cases is None else "gee_logit", "n": n, "n_cases": cases, "n_clusters": data["subject"].nunique(),
            "estimate": estimate, "se": se, "ci_low": estimate - 1.96 * se, "ci_high": estimate + 1.96 * se, "p": 10**-nlp, "neg_log10_p": nlp, "q": np.nan, "family": "biomarkers of one outcome, BH", "converged": True,
            "note": None, "outcome_type": outcome["type"], "scale": "per_sd", "circular": False}  # fmt: skip


def _main(data: pd.DataFrame, names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for outcome in OUTCOMES:
        for covariates in SETS:
            mine = [_row(data, outcome, name, covariates, shift=0.02 if covariates == "crude" else 0) for name in names]
            q = stats.false_discovery_control([r["p"] for r in mine])
            rows += [{**r, "q": v, "n_tests": len(mine), "p_bonferroni": min(1.0, r["p"] * len(mine))} for r, v in zip(mine, q, strict=True)]
        for level in ("F", "M"):
            rows += [_row(data[data["sex"] == level], outcome, name, "age_sex", f"sex={level}") for name in names[:5]]
    for covariates in SETS:
        rows.append({**rows[0], "covariate_set": covariates, "biomarker": "made_up_" + NASTY, "estimate": np.nan, "se": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "neg_log10_p": np.nan, "q": np.nan, "model": None, "note": "too_few_cases"})
    return pd.DataFrame(rows)


def _tables(data, cohort, quality, values, main, names, rng) -> dict[str, pd.DataFrame]:
    found, read = len(cohort), int((cohort["status"] == "ok").sum())
    good = int(((quality["grade"] != "reject") & (quality["status"] == "ok")).sum())
    flow = [("all", None, 0, "found", found, 0, ""), ("all", None, 1, "readable", read, found - read, "unreadable: 1; truncated: 1"), ("all", None, 2, "unique", read, 0, ""),
            ("all", None, 3, "gradable", good, read - good, f"blur: {read - good}"), ("all", None, 4, "segmented", good, 0, ""), ("all", None, 5, "measured", good, 0, "")]  # fmt: skip
    for o in OUTCOMES:
        flow += [(o["name"], None, 6, "labelled", good - 3, 3, "outcome_missing: 3"), (o["name"], "age_sex", 7, "covariates_complete", good - 5, 2, "age: 2")]
    flow = pd.DataFrame(flow, columns=["outcome", "covariate_set", "step", "stage", "n_images", "n_excluded", "reasons"])
    flow["n_subjects"] = (flow["n_images"] / 2).round().astype(int)
    tables = {"flow": flow}
    groups = {o["name"]: ({"controls": 0, "cases": 1} if o["type"] == "binary" else {"all": None}) for o in OUTCOMES}
    one, distribution, density, byq = [], [], [], []
    joined = cohort.merge(quality[["image_id", "grade"]], on="image_id")
    for o, levels in groups.items():
        for g, v in {"all": None, **levels}.items():
            part = data if v is None else data[data[o] == v]
            one.append(dict(outcome=o, variable="age", level=None, group=g, n=len(part), n_missing=1, value=part["age"].mean(), spread=part["age"].std(), median=part["age"].median(), q1=part["age"].quantile(0.25), q3=part["age"].quantile(0.75), smd=0.21 if g == "all" else None, text=""))
            for level in ("F", "M", "=X()"):
                k = int((part["sex"] == level).sum()) if level != "=X()" else min(2, len(part))
                one.append(dict(outcome=o, variable="sex", level="'" + level if level[0] == "=" else level, group=g, n=len(part), n_missing=0, value=k, spread=k / max(1, len(part)), smd=0.05 if g == "all" else None, text=""))
        for g, v in levels.items():
            part = data if v is None else data[data[o] == v]
            whole = joined if v is None else joined[joined[o] == v]
            for grade in ("gradable", "usable", "reject"):
                byq.append(dict(outcome=o, group=g, grade=grade, n=int((whole["grade"] == grade).sum()), share=float((whole["grade"] == grade).mean())))
            for name in names:
                x = part[name].dropna()
                distribution.append(dict(outcome=o, group=g, biomarker=name, n=len(x), mean=x.mean(), sd=x.std(), p05=x.quantile(0.05), p25=x.quantile(0.25), p50=x.median(), p75=x.quantile(0.75), p95=x.quantile(0.95)))
                edges = np.linspace(data[name].min(), data[name].max(), 21)
                counts, _ = np.histogram(x, edges)
                density += [dict(outcome=o, group=g, biomarker=name, bin_low=a, bin_high=b, count=int(c), density=c / max(1, len(x)) / (b - a)) for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)]
    tables |= {"table1": pd.DataFrame(one), "distribution": pd.DataFrame(distribution), "density": pd.DataFrame(density), "quality_by_outcome": pd.DataFrame(byq)}
    x = data[names]
    tables["description"] = pd.DataFrame([dict(biomarker=n, n=int(x[n].notna().sum()), n_missing=int(x[n].isna().sum()), mean=x[n].mean(), sd=x[n].std(), min=x[n].min(), p05=x[n].quantile(0.05), p50=x[n].median(), p95=x[n].quantile(0.95), max=x[n].max()) for n in names])
    reasons = [dict(biomarker=n, reason=r, n=int(k), share=k / len(data)) for n in names for r, k in data.loc[data[n].isna(), f"{n}__reason"].value_counts().items()]
    tables["missingness"] = pd.DataFrame(reasons)
    tables["agreement"] = pd.DataFrame([dict(biomarker=n, n_pairs=50, icc=v, ci_low=v - 0.1, ci_high=min(1, v + 0.1), mean_difference=0.01, loa_low=-1.0, loa_high=1.0, note=None) for n, v in zip(names, rng.uniform(0.2, 0.9, len(names)), strict=True)])
    rho = x.corr("spearman").to_numpy()
    tables["correlation"] = pd.DataFrame([dict(biomarker_a=names[i], biomarker_b=names[j], rho=rho[i, j], n=len(x)) for i in range(len(names)) for j in range(i)])
    tables["effective_tests"] = pd.DataFrame([dict(scope="all", n_biomarkers=len(names), m_eff=len(names) * 0.6, alpha=0.05)])
    tables |= _shape(data, names)
    key = main[(main["subgroup"] == "all") & (main["covariate_set"] == "age_sex") & main["biomarker"].isin(names[:5])]
    tables["interactions"] = pd.DataFrame([dict(outcome=r.outcome, biomarker=r.biomarker, covariate_set="age_sex", subgroup_variable="sex", levels="F;M", df=1, chi2=1.2, p=0.27, q=0.6, n=r.n, note=None) for r in key.itertuples()])
    analyses = ("primary", "gradable_only", "independence", "one_eye", "winsorised", "without:site=A")
    tables["sensitivity"] = pd.concat([key.assign(analysis=a, estimate=key["estimate"] * f, ci_low=key["ci_low"] * f, ci_high=key["ci_high"] * f) for a, f in zip(analyses, (1, 0.95, 1.02, 0.9, 0.99, 1.05), strict=True)])
    tables["replication"] = pd.DataFrame([dict(outcome=r.outcome, biomarker=r.biomarker, covariate_set="age_sex", split="subject", n_discovery=50, estimate_discovery=r.estimate * 1.1, q_discovery=0.03, n_replication=50, estimate_replication=r.estimate * 0.8, p_replication=0.04, same_direction=True, replicated=i % 2 == 0, i2=0.1) for i, r in enumerate(key.itertuples())])
    tables["measurement_error"] = pd.DataFrame([dict(outcome=r.outcome, biomarker=r.biomarker, covariate_set="age_sex", reliability=0.7, reliability_low=0.6, reliability_high=0.8, reliability_source="both_eyes", estimate=r.estimate, ci_low=r.ci_low, ci_high=r.ci_high, estimate_rc=r.estimate / 0.7, ci_low_rc=r.ci_low / 0.7, ci_high_rc=r.ci_high / 0.7, estimate_simex=r.estimate / 0.75, ci_low_simex=r.ci_low / 0.75, ci_high_simex=r.ci_high / 0.75, note=None) for r in key.itertuples()])
    binary = [o["name"] for o in OUTCOMES if o["type"] == "binary"]
    tables["discrimination"] = pd.DataFrame([dict(outcome=o, covariate_set="age_sex", predictors=p, biomarker=b, n=100, n_cases=30, folds=5, auc=a, ci_low=a - 0.06, ci_high=a + 0.06, delta_auc=d, delta_low=None if d is None else d - 0.02, delta_high=None if d is None else d + 0.02, delta_p=None if d is None else 0.01, brier=0.2) for o in binary for p, b, a, d in (("covariates", None, 0.6, None), ("covariates+biomarker", names[2], 0.68, 0.08), ("covariates+set", None, 0.72, 0.12))])
    t = np.linspace(0, 1, 30)
    tables["roc"] = pd.DataFrame([dict(outcome=o, covariate_set="age_sex", predictors=p, fpr=a, tpr=a**k) for o in binary for p, k in (("covariates", 0.7), ("covariates+set", 0.4)) for a in t])
    tables["calibration"] = pd.DataFrame([dict(outcome=o, covariate_set="age_sex", predictors="covariates+set", bin=b, n=20, predicted=0.1 * b, observed=0.1 * b + 0.02, ci_low=0.1 * b - 0.05, ci_high=0.1 * b + 0.1) for o in binary for b in range(1, 6)])
    tables["camera"] = pd.DataFrame([dict(outcome=o, predictors=p, columns="width;height", n=100, n_cases=30, auc=a, ci_low=a - 0.05, ci_high=a + 0.05, warning=a > 0.7, note=None) for o in binary for p, a in (("image_size", 0.52), ("quality", 0.55), ("camera", 0.74 if o == "dr" else 0.56))])
    tables["circularity"] = pd.DataFrame([dict(biomarker=n, heads="disc", n_training_subjects=10, n_analysed_subjects=60, n_overlap=6 if i == 0 else 0, share=0.1 if i == 0 else 0.0, circular=i == 0, note=None) for i, n in enumerate(names)])
    return tables


def _shape(data: pd.DataFrame, names: list[str]) -> dict[str, pd.DataFrame]:
    quintiles, spline, tests = [], [], []
    for o in OUTCOMES:
        for name in names[:4]:
            x = data[name].dropna()
            edges = x.quantile(np.linspace(0, 1, 6)).to_numpy()
            who = dict(outcome=o["name"], biomarker=name, covariate_set="age_sex")
            for k in range(5):
                mid = (edges[k] + edges[k + 1]) / 2
                e = 0.3 * k
                quintiles.append({**who, "quintile": k + 1, "low": edges[k], "high": edges[k + 1], "median": mid, "n": len(x) // 5, "n_cases": 4 if k == 0 else 8, "estimate": e, "se": 0.2, "ci_low": e - 0.4, "ci_high": e + 0.4, "p": 0.1, "note": None})
            for v in np.linspace(edges[0], edges[-1], 40):
                e = 0.4 * (v - x.median())
                spline.append({**who, "x": v, "estimate": e, "ci_low": e - 0.3, "ci_high": e + 0.3})
            tests.append({**who, "n": len(x), "n_cases": 40, "p_overall": 0.001, "p_nonlinear": 0.3, "p_trend": 0.002, "q_nonlinear": 0.5, "note": None})
    return {"shape_quintiles": pd.DataFrame(quintiles), "shape_spline": pd.DataFrame(spline), "shape_tests": pd.DataFrame(tests)}
