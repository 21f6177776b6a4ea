"""Fit the quality model and score it on what it did not see: ``python -m retsam.quality.fit --data $RETSAM_DATA``.

Data: EyeQ grades (good / usable / reject) of EyePACS photographs and the grades of DRIMDB (good / reject / not a fundus), from a manifest
with columns dataset, image, group and quality. Photographs of other sets of the manifest, all of them retinas, join the fit of the
not-a-fundus head as negatives; pictures of other things that come with scikit-image, and noise, join as positives. The heads for reject and
gradable see EyeQ and DRIMDB only, so that other cameras test them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import rankdata
from tqdm import tqdm

from retsam.quality.model import sigmoid
from retsam.quality.table import as_table, measure_file

FOLDS, REPEATS, SEED = 5, 5, 20
PENALTY = 10.0
CLIP = 4.0
# Photographs after which metrics are written to the cache.
_KEEP_EVERY = 200
#: Weight that pictures of other things carry in the not-a-fundus head: they are few here, and their share in a cohort is unknown.
NOT_FUNDUS_SHARE = 0.2

#: Direction in which a metric may speak for a reject (+1, -1), or 0 where either is possible. Blur cannot make a photograph better,
#: so coefficients are kept from saying so by accident of a small sample.
DIRECTION: dict[str, int] = {
    "sharpness": -1,
    "sharpness_fine": -1,
    "sharpness_medium": -1,
    "sharpness_coarse": -1,
    "sharpness_low": 0,
    "noise": 0,
    "illumination": -1,
    "shadow": 1,
    "glare": 1,
    "brightness": 0,
    "brightness_red": 0,
    "darkness": 1,
    "saturation": 1,
    "saturation_red": 0,
    "contrast": -1,
    "contrast_weak": -1,
    "vessel": -1,
    "vessel_coverage": -1,
    "vessel_weak": -1,
    "vessel_linearity": -1,
    "line_balance": -1,
    "red_share": 0,
    "blue_share": 0,
    "colour_spread": 1,
    "not_red": 0,
    "edge_strength": 0,
    "disc": 0,
}

SOURCES = {
    "eyepacs400": "EyePACS photographs (Kaggle Diabetic Retinopathy Detection terms) with quality grades of EyeQ (Fu et al., MICCAI 2019)",
    "drimdb": "DRIMDB (Sevik et al., J Biomed Opt 2014), research use",
}


def fit_logistic(
    x: np.ndarray, y: np.ndarray, penalty: float, sign: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Ridge logistic regression with signs: minimise sum w log loss + penalty/2 |b|^2, b_j of the given sign.

    Parameters
    ----------
    x : ndarray [n, p]
        Standardised metrics.
    y : ndarray of 0/1, [n]
    penalty : float
        The intercept is not penalised.
    sign : ndarray [p]
        +1, -1, or 0 for free.
    weight : ndarray [n], optional

    Returns
    -------
    coefficients : ndarray [p]
    intercept : float
    """
    w = np.ones(len(y)) if weight is None else weight

    def loss(b):
        z = x @ b[1:] + b[0]
        residual = w * (sigmoid(z) - y)
        value = (w * (np.logaddexp(0, z) - y * z)).sum() + penalty / 2 * (b[1:] @ b[1:])
        return value, np.r_[residual.sum(), x.T @ residual + penalty * b[1:]]

    bounds = [(None, None), *[{1: (0, None), -1: (None, 0), 0: (None, None)}[int(s)] for s in sign]]
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    if not found.success:
        raise RuntimeError(f"logistic regression did not converge: {found.message}")
    return found.x[1:], float(found.x[0])


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney, ties by half)."""
    ranks, positive = rankdata(score), y == 1
    n1, n0 = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if n1 and n0 else float("nan")


def interval(y: np.ndarray, score: np.ndarray, groups: np.ndarray, statistic, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic, whole groups drawn."""
    rng = np.random.default_rng(SEED)
    names, inverse = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        values.append(statistic(y[rows], score[rows]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


class Fit:
    """One head: which metrics, which signs, how rows are weighted."""

    def __init__(self, name: str, share: float | None = None):
        self.name, self.share = name, share
        self.features = list(DIRECTION)
        direction = np.array(list(DIRECTION.values()))
        self.sign = {"reject": direction, "gradable": -direction, "not_fundus": np.zeros_like(direction)}[name]

    def weights(self, y: np.ndarray) -> np.ndarray | None:
        if self.share is None:
            return None
        positive = y.sum()
        return np.where(y == 1, self.share / (1 - self.share) * (len(y) - positive) / max(positive, 1), 1.0)

    def fit(self, table: pd.DataFrame, y: np.ndarray) -> dict:
        values = table[self.features].to_numpy(float)
        mean, scale = values.mean(0), np.maximum(values.std(0), 1e-6)
        z = np.clip((values - mean) / scale, -CLIP, CLIP)
        weight, penalty = self.weights(y), PENALTY
        coefficients, intercept = fit_logistic(z, y, penalty, self.sign, weight)
        return {"mean": mean, "scale": scale, "weight": coefficients, "intercept": intercept}

    def score(self, model: dict, table: pd.DataFrame) -> np.ndarray:
        z = np.clip((table[self.features].to_numpy(float) - model["mean"]) / model["scale"], -CLIP, CLIP)
        return sigmoid(z @ model["weight"] + model["intercept"])

    def held_out(self, table: pd.DataFrame, y: np.ndarray) -> np.ndarray:
        """Probability of each row from models that saw no row of its group; mean over repeats."""
        groups = table["group"].to_numpy(str)
        names = np.unique(groups)
        total = np.zeros(len(y))
        for repeat in range(REPEATS):
            # Groups with a positive are dealt out separately, so that every fold has its share of the rare class.
            rng = np.random.default_rng(SEED + repeat)
            rare = np.isin(names, groups[y == 1])
            order = np.concatenate([rng.permutation(names[rare]), rng.permutation(names[~rare])])
            fold_of = {name: i % FOLDS for i, name in enumerate(order)}
            fold = np.array([fold_of[g] for g in groups])
            for k in range(FOLDS):
                test = fold == k
                total[test] += self.score(self.fit(table[~test], y[~test]), table[test])
        return total / REPEATS


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds, probabilities held within one in a million of 0 and 1."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def calibration(y: np.ndarray, p: np.ndarray, bins: int = 5) -> dict:
    """Brier score, expected calibration error, slope and intercept of the logit, and the reliability table."""
    slope, intercept = fit_logistic(logit(p)[:, None], y, 0.0, np.zeros(1))
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(p, edges) - 1, 0, bins - 1)
    table = [
        {
            "from": round(edges[k], 2),
            "to": round(edges[k + 1], 2),
            "n": int((which == k).sum()),
            "predicted": _r(p[which == k].mean()),
            "seen": _r(y[which == k].mean()),
        }
        for k in range(bins)
        if (which == k).any()
    ]
    error = sum(row["n"] * abs(row["predicted"] - row["seen"]) for row in table) / len(y)
    return {
        "brier": _r(((p - y) ** 2).mean()),
        "expected_calibration_error": _r(error),
        "slope": _r(slope[0]),
        "intercept": _r(intercept),
        "bins": table,
    }


def _r(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


# ---- data --------------------------------------------------------------------------------------------------------------


def other_pictures(folder: Path) -> list[tuple[str, str]]:
    """Pictures of other things: those that come with scikit-image (its retina left out), and noise and gradients written to `folder`."""
    import skimage
    from PIL import Image

    retinas = {"retina.jpg", "microaneurysms.png"}
    found = [
        (f"skimage:{p.stem}", str(p))
        for p in sorted((Path(skimage.__file__).parent / "data").iterdir())
        if p.suffix in (".png", ".jpg") and p.name not in retinas
    ]
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for k in range(12):
        noise = rng.normal(0, 1, (64 * 2 ** (k % 4), 64 * 2 ** (k % 4), 3))
        picture = np.asarray(
            Image.fromarray(np.uint8(np.clip(rng.uniform(60, 200, 3) + 40 * noise, 0, 255))).resize((512, 512), Image.Resampling.BICUBIC)
        )
        ys, xs = np.mgrid[:512, :512] / 511.0
        ramp = rng.uniform(0, 255, 3) * xs[..., None] + rng.uniform(0, 120, 3) * ys[..., None]
        for kind, values in (("noise", picture), ("ramp", ramp)):
            path = folder / f"{kind}_{k}.png"
            Image.fromarray(np.uint8(np.clip(values, 0, 255))).save(path)
            found.append((f"made:{kind}_{k}", str(path)))
    return found


def _measure(task: tuple[str, str]) -> dict:
    return measure_file(*task)


def load_metrics(data: Path, cache: Path, jobs: int, sample: int | None = None) -> pd.DataFrame:
    """Metrics of all photographs of the manifest (crops left out) and of pictures of other things; kept in `cache` between runs.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.csv``.
    cache : Path
        Folder for ``metrics.parquet`` and the made pictures.
    jobs : int
    sample : int, optional
        Most photographs of a set without quality grades.
    """
    manifest = pd.read_csv(data / "manifest.csv", low_memory=False)
    # refuge_roi holds crops around the disc: no field of view to judge. Ungraded EyePACS photographs may be anything.
    manifest = manifest[(manifest["dataset"] != "refuge_roi") & ~((manifest["dataset"] == "eyepacs400") & manifest["quality"].isna())]
    if sample is not None:
        graded = manifest["quality"].notna()
        rest = (
            manifest[~graded]
            .groupby("dataset", group_keys=False)[manifest.columns.tolist()]
            .apply(lambda g: g.sample(min(sample, len(g)), random_state=SEED))
        )
        manifest = pd.concat([manifest[graded], rest])
    known = manifest[["image", "dataset", "group", "quality"]].rename(columns={"image": "image_id"})
    tasks = [(i, str(data / i)) for i in known["image_id"]]
    others = other_pictures(cache / "pictures")
    tasks = others + tasks
    extra = pd.DataFrame([{"image_id": i, "dataset": i.split(":")[0], "group": i, "quality": "not_fundus"} for i, _ in others])
    known = pd.concat([known, extra], ignore_index=True)
    kept = cache / "metrics.parquet"
    done = pd.read_parquet(kept) if kept.exists() else as_table([])
    have = set(done["image_id"])
    todo = [t for t in tasks if t[0] not in have]
    cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool, tqdm(total=len(todo), unit="image") as bar:
        for start in range(0, len(todo), _KEEP_EVERY):
            rows = as_table(list(pool.map(_measure, todo[start : start + _KEEP_EVERY], chunksize=8)))
            done = pd.concat([done, rows], ignore_index=True) if len(done) else rows
            done.to_parquet(kept, index=False)
            bar.update(len(rows))
    table = done.merge(known, on="image_id")
    failed = table[table["status"] != "ok"]
    for row in failed.itertuples():
        print(f"left out: {row.image_id}: {row.reason}, {row.detail}")
    return table[table["status"] == "ok"].reset_index(drop=True)


# ---- the three heads ---------------------------------------------------------------------------------------------------


def fit_all(table: pd.DataFrame) -> dict:
    """Fit the heads on all graded photographs and score them held out; the content of ``model.json``."""
    graded = table[table["dataset"].isin(SOURCES) & table["quality"].notna()]
    retina = graded[graded["quality"] != "not_fundus"].reset_index(drop=True)
    everything = table.assign(quality=table["quality"].fillna("retina")).reset_index(drop=True)
    card: dict = {
        "description": "Three logistic regressions on the metrics of retsam.quality.metrics, standardised and clipped.",
        "command": "python -m retsam.quality.fit --data $RETSAM_DATA",
        "data": {
            name: {"source": SOURCES[name], "photographs": graded.loc[graded["dataset"] == name, "quality"].value_counts().to_dict()}
            for name in SOURCES
        },
        "other_pictures": "not-a-fundus head only: pictures that come with scikit-image, noise and ramps (positives); "
        "all photographs of other sets (negatives)",
        "split": f"{FOLDS}-fold cross-validation by group, repeated {REPEATS} times; the shipped coefficients are fitted on all",
        "penalty": PENALTY,
        "heads": {},
        "held_out": {},
    }
    reference = retina[retina["quality"] == "good"]
    for name, rows, target in (
        ("reject", retina, retina["quality"] == "reject"),
        ("gradable", retina, retina["quality"] == "good"),
        ("not_fundus", everything, everything["quality"] == "not_fundus"),
    ):
        head = Fit(name, NOT_FUNDUS_SHARE if name == "not_fundus" else None)
        y = target.to_numpy().astype(float)
        model = head.fit(rows, y)
        raw = head.held_out(rows, y)
        slope, intercept = recalibrate(y, raw, head.weights(y))
        model["weight"], model["intercept"] = slope * model["weight"], slope * model["intercept"] + intercept
        mean_good = np.clip((reference[head.features].to_numpy(float) - model["mean"]) / model["scale"], -CLIP, CLIP).mean(0)
        card["heads"][name] = {
            "intercept": _r(model["intercept"], 5),
            "clip": CLIP,
            "features": {
                f: {
                    "mean": _r(model["mean"][k], 5),
                    "scale": _r(model["scale"][k], 5),
                    "weight": _r(model["weight"][k], 5),
                    "reference": _r(mean_good[k], 4),
                }
                for k, f in enumerate(head.features)
            },
        }
        card["held_out"][name] = _scores(head, rows, y, raw)
    card["held_out"]["reject"]["across_sets"] = _across_sets(retina)
    return card


def recalibrate(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None) -> tuple[float, float]:
    """Slope and intercept that make held-out probabilities honest (Platt): the penalty shrinks coefficients, so they come out too timid."""
    slope, intercept = fit_logistic(logit(p)[:, None], y, 1e-3, np.ones(1), weight)
    return float(slope[0]), intercept


def recalibrated(y: np.ndarray, p: np.ndarray, groups: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Held-out probabilities, each recalibrated by slope and intercept that come from other groups."""
    names = np.unique(groups)
    half_of = dict(zip(np.random.default_rng(SEED).permutation(names), np.arange(len(names)) % 2, strict=True))
    half = np.array([half_of[g] for g in groups])
    out = np.empty_like(p)
    for k in (0, 1):
        slope, intercept = recalibrate(y[half != k], p[half != k], None if weight is None else weight[half != k])
        out[half == k] = sigmoid(slope * logit(p[half == k]) + intercept)
    return out


def _scores(head: Fit, rows: pd.DataFrame, y: np.ndarray, raw: np.ndarray) -> dict:
    """Scores of held-out probabilities `raw`, recalibrated across groups."""
    groups = rows["group"].to_numpy(str)
    p = recalibrated(y, raw, groups, head.weights(y))
    low, high = interval(y, p, groups, auc)
    out: dict = {"n": len(y), "positives": int(y.sum()), "auc": {"value": _r(auc(y, p)), "ci_low": _r(low), "ci_high": _r(high)}}
    if head.name != "not_fundus":
        out["calibration"] = calibration(y, p)
        out["by_set"] = {}
        for name in SOURCES:
            part = (rows["dataset"] == name).to_numpy()
            low, high = interval(y[part], p[part], groups[part], auc)
            out["by_set"][name] = {
                "n": int(part.sum()),
                "auc": {"value": _r(auc(y[part], p[part])), "ci_low": _r(low), "ci_high": _r(high)},
            }
        return out
    drimdb = (rows["dataset"] == "drimdb").to_numpy() & (y == 1)
    retina = y == 0
    out["recall_drimdb"] = {"value": _r((p[drimdb] >= 0.5).mean()), "n": int(drimdb.sum()), "lowest_probability": _r(p[drimdb].min())}
    out["recall_other_pictures"] = {"value": _r((p[(y == 1) & ~drimdb] >= 0.5).mean()), "n": int(((y == 1) & ~drimdb).sum())}
    quality = rows["quality"].to_numpy(str)
    out["called_not_fundus"] = {
        f"{name} {q}" if q != "retina" else name: {"n": int(part.sum()), "share": _r((p[part] >= 0.5).mean())}
        for name in sorted(set(rows["dataset"]))
        for q in ("good", "usable", "reject", "retina")
        if (part := retina & (rows["dataset"] == name).to_numpy() & (quality == q)).any()
    }
    return out


def _across_sets(retina: pd.DataFrame) -> dict:
    """AUC on one set of a model that saw the other only: another camera and other graders."""
    out = {}
    for test in SOURCES:
        head, part = Fit("reject"), (retina["dataset"] == test).to_numpy()
        y = (retina["quality"] == "reject").to_numpy().astype(float)
        p = head.score(head.fit(retina[~part], y[~part]), retina[part])
        low, high = interval(y[part], p, retina.loc[part, "group"].to_numpy(str), auc)
        out[f"tested on {test}"] = {"value": _r(auc(y[part], p)), "ci_low": _r(low), "ci_high": _r(high)}
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m retsam.quality.fit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RETSAM_DATA", "../shared/data")), help="folder with manifest.csv")
    parser.add_argument("--cache", type=Path, default=Path("build/quality"), help="folder for metrics between runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model.json"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, help="most photographs of each set without quality grades")
    options = parser.parse_args(arguments)
    card = fit_all(load_metrics(options.data, options.cache, options.jobs, options.sample))
    options.out.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card["held_out"], indent=1))


if __name__ == "__main__":
    main()
