"""Fit the quality model and score it on what it did not see: ``python -m retsam.quality.fit --data $RETSAM_DATA``.

Data: EyeQ grades (good / usable / reject) of EyePACS photographs and the grades of DRIMDB (good / reject / not a fundus), from a
manifest with columns dataset, image, group and quality. Photographs of curated sets, on which experts drew vessels, discs or lesions,
join the reject head as no rejects at reduced weight: myopic, tessellated and atrophic eyes are not bad photographs. All photographs of
retinas join the not-a-fundus head as negatives; pictures of other things that come with scikit-image, noise and ramps as positives.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from retsam.cohort.reading import read_photograph
from retsam.quality.config import QualityConfig
from retsam.quality.model import sigmoid
from retsam.quality.scoring import auc, calibration, fit_logistic, interval, rounded
from retsam.quality.table import as_table, measure_file

FOLDS, REPEATS, SEED = 5, 5, 20
#: Ridge penalty by question. That of the not-a-fundus head, its kinds and its variants were chosen in the cross-validation that scores it.
PENALTY = {"reject": 10.0, "gradable": 10.0, "not_fundus": 3.0}
CLIP = 4.0
# Photographs after which metrics are written to the cache.
_KEEP_EVERY = 200
#: Weight that pictures of other things carry in the not-a-fundus head: they are few here, and their share in a cohort is unknown.
NOT_FUNDUS_SHARE = 0.2
#: Median green below which a picture of something else is a dark scene (the room behind a missing patient), a kind of its own.
DARK_SCENE = 0.06
#: Metric `sharpness` below which the front of an eye is out of focus, a kind of its own.
BLURRED_EYE = -1.7

#: Direction in which a metric may speak for a reject (+1, -1), or 0 where either is possible. Blur cannot make a photograph better,
#: so coefficients are kept from saying so by accident of a small sample.
DIRECTION: dict[str, int] = {
    "sharpness": -1,
    "sharpness_fine": -1,
    "sharpness_medium": -1,
    "sharpness_coarse": -1,
    "sharpness_low": 0,
    "sharpness_weak": -1,
    "sharpness_best": -1,
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
    "line_redness": 0,
    "vessel_tree": -1,
    "line_balance": -1,
    "red_share": 0,
    "blue_share": 0,
    "colour_spread": 1,
    "not_red": 0,
    "edge_strength": 0,
    "disc": 0,
}

#: Sets on whose photographs experts drew or measured.
CURATED = (
    "aria",
    "avrdb",
    "drive",
    "drishti",
    "fives",
    "gave",
    "hei_med",
    "hrf",
    "idrid_grading",
    "idrid_native",
    "idrid_seg",
    "ords",
    "orvs",
    "palm",
    "stare",
)
CURATED_WEIGHT = 0.75
#: Weight of the altered versions of pictures of other things; they neither score nor calibrate.
VARIANT_WEIGHT = 0.3

SOURCES = {
    "eyepacs400": "EyePACS photographs (Kaggle Diabetic Retinopathy Detection terms) with quality grades of EyeQ (Fu et al., MICCAI 2019)",
    "drimdb": "DRIMDB (Sevik et al., J Biomed Opt 2014), research use",
}


class Fit:
    """One question: which metrics, which signs, how rows are weighted. Not-a-fundus is asked once a kind; the likeliest kind counts."""

    def __init__(self, name: str):
        self.name = name
        self.features = list(DIRECTION)
        direction = np.array(list(DIRECTION.values()))
        self.sign = {"reject": direction, "gradable": -direction, "not_fundus": np.zeros_like(direction)}[name]

    def kinds(self, table: pd.DataFrame, y: np.ndarray) -> dict[str, np.ndarray]:
        """Positives by kind, each a bool ``[n]``; heads that know no kinds have one."""
        if self.name != "not_fundus":
            return {self.name: y == 1}
        drimdb, dark = (table["dataset"] == "drimdb").to_numpy(), (table["brightness"] < DARK_SCENE).to_numpy()
        blurred = (table["sharpness"] < BLURRED_EYE).to_numpy()
        kinds = {"scene": drimdb & dark, "eye": drimdb & ~dark & ~blurred, "blurred_eye": drimdb & ~dark & blurred, "picture": ~drimdb}
        return {f"not_fundus_{kind}": (y == 1) & rows for kind, rows in kinds.items() if ((y == 1) & rows).any()}

    def weights(self, table: pd.DataFrame, positive: np.ndarray) -> np.ndarray:
        """Weight of each row: less for photographs whose label is an inference, and a fixed share in all for rare positives."""
        weight = table["weight"].to_numpy(float).copy()
        if self.name == "not_fundus":
            share = NOT_FUNDUS_SHARE / (1 - NOT_FUNDUS_SHARE)
            weight[positive] *= share * weight[~positive].sum() / max(weight[positive].sum(), 1e-9)
        return weight

    def fit(self, table: pd.DataFrame, y: np.ndarray) -> dict[str, dict]:
        """Coefficients of each kind against the negatives."""
        values = table[self.features].to_numpy(float)
        # Other things than retinas must not widen the scale on which retinas are compared with them.
        basis = values[y == 0] if self.name == "not_fundus" else values
        mean, scale = basis.mean(0), np.maximum(basis.std(0), 1e-6)
        z = np.clip((values - mean) / scale, -CLIP, CLIP)
        models = {}
        for kind, positive in self.kinds(table, y).items():
            rows = positive | (y == 0)
            weight = self.weights(table[rows], positive[rows])
            coefficients, intercept = fit_logistic(z[rows], positive[rows].astype(float), PENALTY[self.name], self.sign, weight)
            models[kind] = {"mean": mean, "scale": scale, "weight": coefficients, "intercept": intercept}
        return models

    def score(self, models: dict[str, dict], table: pd.DataFrame) -> np.ndarray:
        """Log odds ``[n]`` of the likeliest kind."""
        values, found = table[self.features].to_numpy(float), []
        for model in models.values():
            found.append(np.clip((values - model["mean"]) / model["scale"], -CLIP, CLIP) @ model["weight"] + model["intercept"])
        return np.max(found, axis=0)

    def held_out(self, table: pd.DataFrame, y: np.ndarray) -> np.ndarray:
        """Log odds of each row from models that saw no row of its group; mean over repeats."""
        groups = table["group"].to_numpy(str)
        names = np.unique(groups)
        total = np.zeros(len(y))
        for repeat in range(REPEATS):
            # Groups with a positive are dealt out kind by kind, so that every fold has its share of the rare ones.
            rng = np.random.default_rng(SEED + repeat)
            rare = [np.unique(groups[positive]) for positive in self.kinds(table, y).values()]
            order = [rng.permutation(part) for part in (*rare, np.setdiff1d(names, np.concatenate(rare)))]
            fold_of = {name: i % FOLDS for i, name in enumerate(dict.fromkeys(np.concatenate(order)))}
            fold = np.array([fold_of[g] for g in groups])
            for k in range(FOLDS):
                test = fold == k
                total[test] += self.score(self.fit(table[~test], y[~test]), table[test])
        return total / REPEATS


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


def variants(image_id: str, path: Path, folder: Path) -> list[tuple[str, str]]:
    """Blurred, darker, brighter and closer versions of a picture of something else, written to `folder`.

    There are few such pictures, and each kind of them occurs out of focus and ill-lit too.
    """
    rgb = read_photograph(path).rgb.astype(np.float32)
    shrink = max(rgb.shape[:2]) / 800
    if shrink > 1:
        rgb = cv2.resize(rgb, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    h, w = rgb.shape[:2]
    closer = rgb[h // 5 : h - h // 5, w // 5 : w - w // 5]
    made = {
        "blurred": cv2.GaussianBlur(rgb, (0, 0), 0.008 * w),
        "very_blurred": cv2.GaussianBlur(rgb, (0, 0), 0.025 * w),
        "brighter_blurred": 1.5 * cv2.GaussianBlur(rgb, (0, 0), 0.015 * w),
        "darker": 0.5 * rgb,
        "closer_blurred": cv2.GaussianBlur(cv2.resize(closer, (w, h)), (0, 0), 0.015 * w),
    }
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, picture in made.items():
        target = folder / f"{Path(image_id.replace(':', '_')).stem}_{name}.png"
        cv2.imwrite(str(target), np.clip(picture, 0, 255).astype(np.uint8)[..., ::-1])
        found.append((f"{image_id}#{name}", str(target)))
    return found


def _measure(task: tuple[str, str]) -> dict:
    return measure_file(*task)


def load_metrics(data: Path, cache: Path, jobs: int, sample: int = 45, sample_odir: int = 200) -> pd.DataFrame:
    """Metrics of all photographs of the manifest (crops left out) and of pictures of other things; kept in `cache` between runs.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.csv``.
    cache : Path
        Folder for ``metrics.parquet`` and the made pictures.
    jobs : int
    sample : int
        Most photographs of a set without quality grades.
    sample_odir : int
        Most photographs of the ODIR cohort, which count in the not-a-fundus head only.
    """
    manifest = pd.read_csv(data / "manifest.csv", low_memory=False)
    # refuge_roi holds crops around the disc: no field of view to judge. Ungraded EyePACS photographs may be anything.
    manifest = manifest[(manifest["dataset"] != "refuge_roi") & ~((manifest["dataset"] == "eyepacs400") & manifest["quality"].isna())]
    graded, odir = manifest["quality"].notna(), manifest["dataset"] == "odir"
    curated = [g.sample(min(sample, len(g)), random_state=1) for _, g in manifest[~graded & ~odir].groupby("dataset")]
    cohort = manifest[odir].sample(min(sample_odir, int(odir.sum())), random_state=7)
    manifest = pd.concat([manifest[graded], *curated, cohort])
    known = manifest[["image", "dataset", "group", "quality"]].rename(columns={"image": "image_id"})
    tasks = [(i, str(data / i)) for i in known["image_id"]]
    others = other_pictures(cache / "pictures")
    tasks = others + tasks
    extra = pd.DataFrame([{"image_id": i, "dataset": i.split(":")[0], "group": i, "quality": "not_fundus"} for i, _ in others])
    known = pd.concat([known, extra], ignore_index=True).assign(weight=1.0)
    strange = known[(known["quality"] == "not_fundus") & (known["dataset"] != "made")]
    where = dict(tasks)
    more = {row.image_id: variants(row.image_id, Path(where[row.image_id]), cache / "variants") for row in strange.itertuples()}
    tasks += [task for made in more.values() for task in made]
    origin = {i: original for original, made in more.items() for i, _ in made}
    copies = strange.set_index("image_id").loc[list(origin.values())].assign(weight=VARIANT_WEIGHT, image_id=list(origin))
    known = pd.concat([known, copies], ignore_index=True)
    kept = cache / "metrics.parquet"
    done = pd.read_parquet(kept) if kept.exists() else as_table([])
    have = set(done["image_id"])
    wanted = [t for t in tasks if t[0] not in have]
    cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool, tqdm(total=len(wanted), unit="image") as bar:
        for start in range(0, len(wanted), _KEEP_EVERY):
            rows = as_table(list(pool.map(_measure, wanted[start : start + _KEEP_EVERY], chunksize=8)))
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
    """Fit the heads and score them held out; the content of ``model.json``."""
    graded = table[table["dataset"].isin(SOURCES) & table["quality"].notna() & (table["weight"] == 1.0)]
    retina = graded[graded["quality"] != "not_fundus"].assign(weight=1.0).reset_index(drop=True)
    drawn = table[table["dataset"].isin(CURATED)].assign(weight=CURATED_WEIGHT)
    with_drawn = pd.concat([retina, drawn], ignore_index=True)
    everything = table.assign(quality=table["quality"].fillna("retina")).reset_index(drop=True)
    card: dict = {
        "description": "Logistic regressions on the metrics of retsam.quality.metrics, standardised and clipped; "
        "not a fundus is the likeliest of three kinds.",
        "command": "python -m retsam.quality.fit --data $RETSAM_DATA",
        "data": {
            name: {"source": SOURCES[name], "photographs": graded.loc[graded["dataset"] == name, "quality"].value_counts().to_dict()}
            for name in SOURCES
        },
        "curated": {
            "use": f"reject head: no rejects, at weight {CURATED_WEIGHT}, since experts drew or measured on them",
            "photographs": drawn["dataset"].value_counts().to_dict(),
        },
        "other_pictures": "not-a-fundus head only: pictures that come with scikit-image, noise and ramps, blurred and "
        "dimmed versions of these and of DRIMDB's outliers (positives, the versions kept with their original and not scored); "
        "all photographs of other sets (negatives)",
        "split": f"{FOLDS}-fold cross-validation by group, repeated {REPEATS} times; the shipped coefficients are fitted on all",
        "penalty": PENALTY,
        "chosen_in_cross_validation": "penalty, kinds, variants and threshold of the not-a-fundus head",
        "heads": {},
        "held_out": {},
    }
    good = retina[retina["quality"] == "good"]
    for name, rows, positive in (
        ("reject", with_drawn, "reject"),
        ("gradable", retina, "good"),
        ("not_fundus", everything, "not_fundus"),
    ):
        head = Fit(name)
        y = (rows["quality"] == positive).to_numpy().astype(float)
        raw = head.held_out(rows, y)
        # Labels that are inferred neither score nor calibrate a head.
        known = (rows["weight"] == 1.0).to_numpy()
        part = rows[known].reset_index(drop=True)
        weight = head.weights(part, y[known] == 1)
        # How common other pictures are in a cohort is not known, so there is nothing to calibrate the not-a-fundus head to.
        assumed = name == "not_fundus"
        slope, intercept = (1.0, 0.0) if assumed else recalibrate(y[known], raw[known], weight)
        for kind, model in head.fit(rows, y).items():
            model["weight"], model["intercept"] = slope * model["weight"], slope * model["intercept"] + intercept
            card["heads"][kind] = _coefficients(head, model, good)
        held_out = sigmoid(raw[known]) if assumed else recalibrated(y[known], raw[known], part["group"].to_numpy(str), weight)
        scores = _not_fundus_scores if name == "not_fundus" else _scores
        card["held_out"][name] = scores(part, y[known], held_out)
    card["held_out"]["reject"]["across_sets"] = _across_sets(retina)
    card["held_out"]["reject"]["curated_called_reject"] = _curated_called_reject(with_drawn)
    return card


def _coefficients(head: Fit, model: dict, good: pd.DataFrame) -> dict:
    reference = np.clip((good[head.features].to_numpy(float) - model["mean"]) / model["scale"], -CLIP, CLIP).mean(0)
    columns = {"mean": model["mean"], "scale": model["scale"], "weight": model["weight"], "reference": reference}
    features = {f: {key: rounded(values[k], 5) for key, values in columns.items()} for k, f in enumerate(head.features)}
    return {"intercept": rounded(model["intercept"], 5), "clip": CLIP, "features": features}


def recalibrate(y: np.ndarray, score: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that make held-out log odds honest (Platt): the penalty shrinks coefficients, so they come out too timid."""
    slope, intercept = fit_logistic(score[:, None], y, 1e-3, np.ones(1), weight)
    return float(slope[0]), intercept


def recalibrated(y: np.ndarray, score: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Probabilities from held-out log odds, slope and intercept coming from other groups."""
    names = np.unique(groups)
    half_of = dict(zip(np.random.default_rng(SEED).permutation(names), np.arange(len(names)) % 2, strict=True))
    half = np.array([half_of[g] for g in groups])
    out = np.empty_like(score)
    for k in (0, 1):
        slope, intercept = recalibrate(y[half != k], score[half != k], weight[half != k])
        out[half == k] = sigmoid(slope * score[half == k] + intercept)
    return out


def _auc_with_interval(y: np.ndarray, p: np.ndarray, groups: np.ndarray) -> dict:
    low, high = interval(y, p, groups, auc)
    return {"value": rounded(auc(y, p)), "ci_low": rounded(low), "ci_high": rounded(high)}


def _scores(rows: pd.DataFrame, y: np.ndarray, p: np.ndarray) -> dict:
    groups = rows["group"].to_numpy(str)
    out: dict = {"n": len(y), "positives": int(y.sum()), "auc": _auc_with_interval(y, p, groups), "calibration": calibration(y, p)}
    parts = {name: (rows["dataset"] == name).to_numpy() for name in SOURCES}
    out["by_set"] = {name: {"n": int(k.sum()), "auc": _auc_with_interval(y[k], p[k], groups[k])} for name, k in parts.items()}
    return out


def _not_fundus_scores(rows: pd.DataFrame, y: np.ndarray, p: np.ndarray) -> dict:
    threshold = QualityConfig().not_fundus_above
    called, quality, dataset = p >= threshold, rows["quality"].to_numpy(str), rows["dataset"].to_numpy(str)
    outliers, others = (y == 1) & (dataset == "drimdb"), (y == 1) & (dataset != "drimdb")
    low, high = interval(y[outliers], p[outliers], rows.loc[outliers, "group"].to_numpy(str), lambda _, p: (p >= threshold).mean())
    out: dict = {
        "n": len(y),
        "positives": int(y.sum()),
        "auc": _auc_with_interval(y, p, rows["group"].to_numpy(str)),
        "threshold": threshold,
    }
    out["recall_drimdb"] = {
        "value": rounded(called[outliers].mean()),
        "ci_low": rounded(low),
        "ci_high": rounded(high),
        "n": int(outliers.sum()),
    }
    out["recall_drimdb"]["lowest_probability"] = rounded(p[outliers].min())
    if others.any():
        out["recall_other_pictures"] = {"value": rounded(called[others].mean()), "n": int(others.sum())}
    kinds = np.char.strip(np.char.add(np.char.add(dataset, " "), np.where(quality == "retina", "", quality)))
    out["called_not_fundus"] = {
        str(kind): {"n": int(part.sum()), "share": rounded(called[part].mean())}
        for kind in np.unique(kinds[y == 0])
        if (part := (kinds == kind) & (y == 0)).any()
    }
    return out


def _across_sets(retina: pd.DataFrame) -> dict:
    """AUC on one set of a model that saw the other only: another camera and other graders."""
    out = {}
    for test in SOURCES:
        head, part = Fit("reject"), (retina["dataset"] == test).to_numpy()
        y = (retina["quality"] == "reject").to_numpy().astype(float)
        p = sigmoid(head.score(head.fit(retina[~part], y[~part]), retina[part]))
        out[f"tested on {test}"] = _auc_with_interval(y[part], p, retina.loc[part, "group"].to_numpy(str))
    return out


def _curated_called_reject(rows: pd.DataFrame) -> dict:
    """Share of each curated set that a model which saw nothing of it, nor of its camera, would reject."""
    out, head = {}, Fit("reject")
    y = (rows["quality"] == "reject").to_numpy().astype(float)
    family = (
        rows["dataset"].replace({"idrid_grading": "idrid", "idrid_seg": "idrid", "idrid_native": "idrid", "orvs": "ords"}).to_numpy(str)
    )
    for name in sorted(set(family) - set(SOURCES)):
        test = family == name
        p = sigmoid(head.score(head.fit(rows[~test], y[~test]), rows[test]))
        out[name] = {"n": int(test.sum()), "share": rounded((p >= QualityConfig().reject_above).mean())}
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m retsam.quality.fit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RETSAM_DATA", "../shared/data")), help="folder with manifest.csv")
    parser.add_argument("--cache", type=Path, default=Path("build/quality"), help="folder for metrics between runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model.json"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, default=45, help="most photographs of each curated set")
    parser.add_argument("--sample-odir", type=int, default=200, help="most photographs of the ODIR cohort")
    options = parser.parse_args(arguments)
    card = fit_all(load_metrics(options.data, options.cache, options.jobs, options.sample, options.sample_odir))
    options.out.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card["held_out"], indent=1))


if __name__ == "__main__":
    main()
