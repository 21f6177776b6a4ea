"""Fit the quality model and score it on what it did not see: ``python -m retsam.quality.fit --data $RETSAM_DATA``.

Data: EyeQ grades (good / usable / reject) of EyePACS photographs and the grades of DRIMDB (good / reject / not a fundus), from a
manifest with columns dataset, image, group and quality. Two things keep the reject head honest about other cameras and diseases:
photographs of curated sets, on which experts drew vessels, discs or lesions, join as no rejects at reduced weight; and photographs of ODIR
and PALM with the project's own grades by eye join as what these grades are worth in EyeQ's terms (`retsam.quality.project_grades`), half
of the subjects kept back to judge the result. All photographs of retinas join the not-a-fundus head as negatives; pictures of other things
(`retsam.quality.other_pictures`) as positives.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from retsam.quality.config import QualityConfig
from retsam.quality.fit_data import CURATED, HALVED, load_metrics
from retsam.quality.model import sigmoid
from retsam.quality.profile import PROFILE
from retsam.quality.scoring import auc, calibration, fit_logistic, interval, rounded

FOLDS, REPEATS, SEED = 5, 5, 20
#: Ridge penalty by question. That of the not-a-fundus head, its kinds and its variants were chosen in the cross-validation that scores it.
PENALTY = {"reject": 10.0, "gradable": 10.0, "not_fundus": 1.0}
CLIP = 4.0
#: Weight that pictures of other things carry in the not-a-fundus head: they are few here, and their share in a cohort is unknown.
NOT_FUNDUS_SHARE = 0.2
#: Median green below which a picture of something else is a dark scene (the room behind a missing patient), a kind of its own.
DARK_SCENE = 0.06
#: How the names of the drawn fronts of eyes begin.
DRAWN_EYES = ("made:slit_lamp", "made:lit_eye")
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

CURATED_WEIGHT = 0.75

SOURCES = {
    "eyepacs400": "EyePACS photographs (Kaggle Diabetic Retinopathy Detection terms) with quality grades of EyeQ (Fu et al., MICCAI 2019)",
    "drimdb": "DRIMDB (Sevik et al., J Biomed Opt 2014), research use",
}


class Fit:
    """One question: which metrics, which signs, how rows are weighted. Not-a-fundus is asked once a kind; the likeliest kind counts.

    Labels ``y`` are probabilities: 0 or 1 where a source graded, between them for grades by eye.
    """

    def __init__(self, name: str):
        self.name = name
        direction = np.array(list(DIRECTION.values()))
        self.strange = name == "not_fundus"
        self.features = [*DIRECTION, "rim", "fov_coverage", *PROFILE] if self.strange else list(DIRECTION)
        # What is unlike a retina may be too much or too little of something: each metric enters that head as |z| also.
        columns = 2 * len(self.features)
        self.sign = np.zeros(columns) if self.strange else {"reject": direction, "gradable": -direction}[name]

    def kinds(self, table: pd.DataFrame, y: np.ndarray) -> dict[str, np.ndarray]:
        """Positives by kind, each a bool ``[n]``; heads that know no kinds have one."""
        if not self.strange:
            return {self.name: y > 0.5}
        drimdb, dark = (table["dataset"] == "drimdb").to_numpy(), (table["brightness"] < DARK_SCENE).to_numpy()
        blurred = (table["sharpness"] < BLURRED_EYE).to_numpy()
        drawn = table["group"].astype("string").str.startswith(DRAWN_EYES).to_numpy(bool)
        kinds = {
            "scene": drimdb & dark,
            "eye": drimdb & ~dark & ~blurred,
            "blurred_eye": drimdb & ~dark & blurred,
            "drawn_eye": drawn,
            "picture": ~drimdb & ~drawn,
        }
        return {f"not_fundus_{kind}": (y == 1) & rows for kind, rows in kinds.items() if ((y == 1) & rows).any()}

    def weights(self, table: pd.DataFrame, positive: np.ndarray) -> np.ndarray:
        """Weight of each row: less for photographs whose label is an inference, and a fixed share in all for rare positives."""
        weight = table["weight"].to_numpy(float).copy()
        if self.strange:
            share = NOT_FUNDUS_SHARE / (1 - NOT_FUNDUS_SHARE)
            weight[positive] *= share * weight[~positive].sum() / max(weight[positive].sum(), 1e-9)
        return weight

    def fit(self, table: pd.DataFrame, y: np.ndarray) -> dict[str, dict]:
        """Coefficients of each kind against the negatives."""
        values = table[self.features].to_numpy(float)
        # Other things than retinas must not widen the scale on which retinas are compared with them.
        basis = values[y == 0] if self.strange else values
        mean, scale = basis.mean(0), np.maximum(basis.std(0), 1e-6)
        x = self._design(values, mean, scale)
        models, n = {}, len(self.features)
        for kind, positive in self.kinds(table, y).items():
            rows = positive | (y == 0) if self.strange else np.ones(len(y), bool)
            weight = self.weights(table[rows], positive[rows])
            coefficients, intercept = fit_logistic(x[rows], y[rows], PENALTY[self.name], self.sign, weight)
            bend = coefficients[n:] if self.strange else np.zeros(n)
            models[kind] = {"mean": mean, "scale": scale, "weight": coefficients[:n], "bend": bend, "intercept": intercept}
        return models

    def _design(self, values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        z = np.clip((values - mean) / scale, -CLIP, CLIP)
        return np.hstack([z, np.abs(z)]) if self.strange else z

    def score(self, models: dict[str, dict], table: pd.DataFrame) -> np.ndarray:
        """Log odds ``[n]`` of the likeliest kind."""
        values, found = table[self.features].to_numpy(float), []
        for model in models.values():
            x = self._design(values, model["mean"], model["scale"])
            found.append(x @ np.r_[model["weight"], model["bend"]][: x.shape[1]] + model["intercept"])
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


# ---- the three heads ---------------------------------------------------------------------------------------------------


def fit_all(table: pd.DataFrame) -> dict:
    """Fit the heads and score them held out; the content of ``model.json``."""
    kept_back = table["held_back"].to_numpy(bool)
    learned = table[~kept_back].reset_index(drop=True)
    graded = learned[learned["dataset"].isin(SOURCES) & learned["quality"].notna() & (learned["weight"] == 1.0)]
    retina = graded[graded["quality"] != "not_fundus"]
    by_eye = learned[learned["project_grade"].notna()]
    drawn = learned[learned["dataset"].isin(CURATED) & learned["project_grade"].isna() & (learned["weight"] == 1.0)]
    card: dict = {
        "description": "Logistic regressions on the metrics of retsam.quality.metrics, standardised and clipped; "
        "not a fundus is the likeliest of five kinds.",
        "command": "python -m retsam.quality.fit --data $RETSAM_DATA",
        "data": {
            name: {"source": SOURCES[name], "photographs": graded.loc[graded["dataset"] == name, "quality"].value_counts().to_dict()}
            for name in SOURCES
        },
        "by_eye": {
            "use": "reject and gradable heads: the project's grades by eye (one grader, no clinician, blind to disease), as the "
            "probabilities of EyeQ's grades that they had on EyePACS photographs among them",
            "photographs": by_eye["dataset"].value_counts().to_dict(),
            "kept_back": f"half of the subjects of {' and '.join(HALVED)}, by hash: neither fitted nor calibrated on, in any head",
        },
        "curated": {
            "use": f"reject head: no rejects, at weight {CURATED_WEIGHT}, since experts drew or measured on them",
            "photographs": drawn["dataset"].value_counts().to_dict(),
        },
        "other_pictures": "not-a-fundus head only: pictures that come with scikit-image and drawn ones (retsam.quality.other_pictures), "
        "altered versions of these and of DRIMDB's outliers (positives); all photographs of other sets, some of them altered in the same "
        "ways (negatives). Altered versions are kept with their original and not scored",
        "split": f"{FOLDS}-fold cross-validation by group, repeated {REPEATS} times; shipped coefficients are fitted on all not kept back",
        "penalty": PENALTY,
        "chosen_in_cross_validation": "penalty, kinds, variants and threshold of the not-a-fundus head",
        "heads": {},
        "held_out": {},
    }
    good = retina[retina["quality"] == "good"]
    for name, positive, label, inferred in (
        ("reject", "reject", "p_reject_label", drawn),
        ("gradable", "good", "p_gradable_label", drawn[:0]),
    ):
        # Probabilities are made honest for photographs as they come: EyeQ's and those graded by eye, which stand for their strata, count
        # half each. DRIMDB's mix of good and bad is its makers'.
        share = by_eye["stands_for"] / by_eye["stands_for"].sum() * (retina["dataset"] == "eyepacs400").sum()
        parts = [
            retina.assign(y=(retina["quality"] == positive).astype(float), calibrates=(retina["dataset"] == "eyepacs400").astype(float)),
            by_eye.assign(y=by_eye[label], calibrates=share),
            inferred.assign(y=0.0, weight=CURATED_WEIGHT, calibrates=0.0),
        ]
        rows = pd.concat([p for p in parts if len(p)], ignore_index=True)
        head, y = Fit(name), rows["y"].to_numpy(float)
        raw = head.held_out(rows, y)
        # Labels that are inferred neither score nor calibrate a head.
        known = ~rows["dataset"].isin(CURATED).to_numpy() | rows["project_grade"].notna().to_numpy()
        weight = rows.loc[known, "calibrates"].to_numpy(float)
        slope, intercept = recalibrate(y[known], raw[known], weight)
        for kind, model in head.fit(rows, y).items():
            model["weight"], model["intercept"] = slope * model["weight"], slope * model["intercept"] + intercept
            card["heads"][kind] = _coefficients(head, model, good)
            judged = sigmoid(head.score({kind: model}, table[kept_back]))
        held_out = recalibrated(y[known], raw[known], rows.loc[known, "group"].to_numpy(str), weight)
        sources = rows.loc[known, "dataset"].isin(SOURCES).to_numpy()
        part = rows[known][sources].reset_index(drop=True)
        card["held_out"][name] = _scores(part, y[known][sources], held_out[sources])
        card["held_out"][name]["kept_back"] = _kept_back(table[kept_back], label, judged)
    card["held_out"]["reject"]["across_sets"] = _across_sets(retina)
    card["held_out"]["reject"]["curated_called_reject"] = _curated_called_reject(retina, drawn)

    everything = learned.assign(quality=learned["quality"].fillna("retina"))
    head, y = Fit("not_fundus"), (everything["quality"] == "not_fundus").to_numpy().astype(float)
    # How common other pictures are in a cohort is not known, so there is nothing to calibrate the not-a-fundus head to.
    known = (everything["weight"] == 1.0).to_numpy()
    held_out = sigmoid(head.held_out(everything, y))
    models = head.fit(everything, y)
    card["heads"] |= {kind: _coefficients(head, model, good) for kind, model in models.items()}
    card["held_out"]["not_fundus"] = _not_fundus_scores(everything[known].reset_index(drop=True), y[known], held_out[known])
    called = sigmoid(head.score(models, table[kept_back])) >= QualityConfig().not_fundus_above
    card["held_out"]["not_fundus"]["kept_back_called_not_fundus"] = {
        name: {"n": int(k.sum()), "called": int(called[k].sum()), "share": rounded(called[k].mean())}
        for name in HALVED
        if (k := (table.loc[kept_back, "dataset"] == name).to_numpy()).any()
    }
    return card


def _kept_back(rows: pd.DataFrame, label: str, p: np.ndarray) -> dict:
    """Scores on ODIR and PALM photographs kept back: ranking and calibration where graded by eye, shares called among all."""
    out: dict = {}
    for name in HALVED:
        k = (rows["dataset"] == name).to_numpy()
        seen = k & rows["project_grade"].notna().to_numpy()
        if not seen.any():
            continue
        y, weight = rows.loc[seen, label].to_numpy(float), rows.loc[seen, "stands_for"].to_numpy(float)
        grade = rows.loc[seen, "project_grade"].to_numpy(str)
        # Ranking: the clear ends of the scale, unweighted.
        ends = {"p_reject_label": (["reject"], ["gradable", "usable"]), "p_gradable_label": (["gradable"], ["usable", "reject"])}[label]
        clear = np.isin(grade, ends[0] + ends[1])
        out[name] = {
            "graded_by_eye": int(seen.sum()),
            "auc_clear_grades": rounded(auc(np.isin(grade[clear], ends[0]).astype(float), p[seen][clear])),
            "expected_share": rounded(np.average(y, weights=weight)),
            "mean_probability": rounded(np.average(p[seen], weights=weight)),
            "called_share_weighted": rounded(np.average(p[seen] >= 0.5, weights=weight)),
            "called_by_grade": {g: f"{int((p[seen][grade == g] >= 0.5).sum())} of {int((grade == g).sum())}" for g in np.unique(grade)},
            "n": int(k.sum()),
            "called_share": rounded((p[k] >= 0.5).mean()),
        }
        letters = rows.loc[k, "diagnosis"].fillna("?").to_numpy(str)
        out[name]["called_share_by_diagnosis"] = {d: rounded((p[k][letters == d] >= 0.5).mean()) for d in np.unique(letters)}
    return out


def _coefficients(head: Fit, model: dict, good: pd.DataFrame) -> dict:
    reference = np.clip((good[head.features].to_numpy(float) - model["mean"]) / model["scale"], -CLIP, CLIP).mean(0)
    columns = {"mean": model["mean"], "scale": model["scale"], "weight": model["weight"], "reference": reference}
    if model["bend"].any():
        columns["bend"] = model["bend"]
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
    drawn = rows["image_id"].str.extract(r"^made:(.*)_\d+$")[0].fillna("").to_numpy(str)
    out["recall_drawn"] = {k: f"{int(called[drawn == k].sum())} of {int((drawn == k).sum())}" for k in np.unique(drawn) if k}
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


def _curated_called_reject(retina: pd.DataFrame, drawn: pd.DataFrame) -> dict:
    """Share of each curated set that a model which saw nothing of it, nor of its camera, nor grades by eye, would reject."""
    rows, head, out = pd.concat([retina, drawn.assign(weight=CURATED_WEIGHT)], ignore_index=True), Fit("reject"), {}
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
    parser.add_argument("--sample-odir", type=int, default=4000, help="most photographs of the ODIR cohort")
    options = parser.parse_args(arguments)
    card = fit_all(load_metrics(options.data, options.cache, options.jobs, options.sample, options.sample_odir))
    options.out.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card["held_out"], indent=1))


if __name__ == "__main__":
    main()
