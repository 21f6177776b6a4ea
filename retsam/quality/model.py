"""The quality model: logistic regressions on image metrics, their coefficients in a reviewed file of the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

#: Heads of the model and what each gives the probability of.
HEADS = {
    "reject": "a reject, among photographs of the retina",
    "gradable": "gradable, among photographs of the retina",
    "not_fundus_eye": "the front of an eye, skin or a chart before the camera",
    "not_fundus_drawn_eye": "the front of an eye, as drawn for training: slit lamp and lit eye in the dark",
    "not_fundus_blurred_eye": "the same out of focus",
    "not_fundus_scene": "a dark room",
    "not_fundus_picture": "some other picture",
}


@dataclass(frozen=True)
class Head:
    """Logistic regression on standardised, clipped metrics.

    Parameters
    ----------
    features : tuple of str
    mean, scale, weights : ndarray of float, [n_features]
    bends : ndarray of float, [n_features]
        Weights of the distance from the mean, ``|z|``: what is unlike a retina may be too much or too little of something. 0 in the heads
        for reject and gradable.
    intercept : float
    reference : ndarray of float, [n_features]
        Mean standardised metrics of gradable photographs: reasons are told against these.
    clip : float
        Standardised metrics are held within +-clip, so that a camera unlike all seen before cannot run away with the answer.
    """

    features: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bends: np.ndarray
    intercept: float
    reference: np.ndarray
    clip: float

    def standardise(self, metrics: pd.DataFrame) -> np.ndarray:
        """Standardised metrics ``[n, n_features]``."""
        values = metrics[list(self.features)].to_numpy(float)
        return np.clip((values - self.mean) / self.scale, -self.clip, self.clip)

    def probability(self, metrics: pd.DataFrame) -> np.ndarray:
        """Probability ``[n]``; NaN where a metric is missing."""
        z = self.standardise(metrics)
        return sigmoid(z @ self.weights + np.abs(z) @ self.bends + self.intercept)

    def contributions(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Log odds that each metric adds, compared with the average gradable photograph; ``[n, n_features]``."""
        values = (self.standardise(metrics) - self.reference) * self.weights
        return pd.DataFrame(values, columns=list(self.features), index=metrics.index)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function without overflow."""
    x = np.asarray(x, float)
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


@cache
def load_model() -> dict[str, Head]:
    """The shipped heads, by name."""
    return {name: _head(part) for name, part in model_card()["heads"].items()}


def not_fundus_probability(metrics: pd.DataFrame) -> np.ndarray:
    """Probability ``[n]`` of not showing a retina: that of the likeliest kind of other picture."""
    return np.max([head.probability(metrics) for name, head in load_model().items() if name.startswith("not_fundus")], axis=0)


def model_card() -> dict:
    """The whole file: coefficients, data and their licences, split, held-out scores."""
    return json.loads(files("retsam.quality").joinpath("model.json").read_text(encoding="utf-8"))


def _head(part: dict) -> Head:
    names = tuple(part["features"])
    columns = {
        key: np.array([part["features"][n].get(key, 0.0) for n in names], float) for key in ("mean", "scale", "weight", "bend", "reference")
    }
    return Head(
        features=names, mean=columns["mean"], scale=columns["scale"], weights=columns["weight"], bends=columns["bend"],
        intercept=float(part["intercept"]), reference=columns["reference"], clip=float(part["clip"]),
    )  # fmt: skip
