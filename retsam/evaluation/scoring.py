"""One image's prediction against its reference, at the native size of the stored image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from retsam.evaluation import metrics as m
from retsam.evaluation.histogram import Histogram
from retsam.evaluation.reference import Reference
from retsam.masks.frame import Frame
from retsam.masks.masks import Masks
from retsam.segmentation.postprocess import classes

CENTRELINE_TARGETS = ("vessel", "artery", "vein")
BOUNDARY_TARGETS = ("disc", "cup", "disc_expert2")
# Their outline is the clean-up's, not that of any threshold (:func:`retsam.segmentation.landmarks.as_drawn`).
OUTLINED_TARGETS = ("disc", "cup")


class Prediction(Protocol):
    """What scoring needs of a prediction (:class:`retsam.segmentation.predict.Prediction`)."""

    probabilities: dict[str, np.ndarray]
    frame: Frame
    thresholds: dict[str, float]

    def masks(self, *args, **kwargs) -> Masks: ...


@dataclass
class ImageScore:
    """Scores of one image, and what pooling over images needs.

    Parameters
    ----------
    values : dict of str to dict of str to float
        Target -> metric -> value; NaN where undefined on this image.
    counts : dict of str to dict of str to int
        Target -> pixel counts.
    histograms : dict of str to Histogram
    presence : dict of str to (float, float, bool)
        Target -> mean of the highest probabilities, predicted area as a share of the picture, whether the reference has it.
    columns : dict
        Further columns of the per-image table.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    presence: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    columns: dict[str, object] = field(default_factory=dict)


class _Native:
    """A prediction at native size.

    The network's probabilities are resampled and then cut at the thresholds, and follow the clean-up of the stored masks: nothing
    further than one frame pixel from the stored mask, and what the clean-up added (filled holes, vessels given to the likelier class).
    Masks of the store, resampled, are coarser by up to half a frame pixel at every edge: over vessels of five pixels that alone costs a
    perfect mask 0.07 of Dice at 1.6 native px per frame px.
    """

    def __init__(self, prediction: Prediction):
        self.prediction, self.found = prediction, prediction.masks()
        unwarp, planes = self.found.frame.unwarp, self.found.planes
        self.planes, near = {}, {}
        for name, plane in planes.items():
            if name in OUTLINED_TARGETS:
                self.planes[name] = self.stored(name)
                continue
            threshold = prediction.thresholds.get(name, 0.5)
            near[name] = unwarp(cv2.dilate(plane.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool), 0)
            added = unwarp(plane & ~(np.asarray(prediction.probabilities[name]) >= threshold), 0)
            self.planes[name] = (near[name] & (self.probability(name) >= threshold)) | added
        if {"artery", "vein", "vessel"} <= planes.keys() and not getattr(prediction, "independent_classes", False):
            # Parts of the vessels, here as in the store.
            parts = classes(self.planes["vessel"], self.probability("artery"), self.probability("vein"))
            for name, part in zip(("artery", "vein"), parts, strict=True):
                self.planes[name] = near[name] & part

    def plane(self, target: str) -> np.ndarray:
        return self.planes[target]

    def stored(self, target: str) -> np.ndarray:
        """The mask store's plane, resampled."""
        return self.found.frame.unwarp(self.found.planes[target], 0).astype(bool)

    def probability(self, target: str) -> np.ndarray:
        return np.clip(self.found.frame.unwarp(np.asarray(self.prediction.probabilities[target], np.float32), 1), 0, 1)


def score_image(prediction: Prediction, reference: Reference) -> ImageScore:
    """Score one image.

    Masks are the network's answer at native size; ``dsc_stored`` is the Dice coefficient of the mask that a mask store would hold.
    Scores count inside the given field of view, and everywhere where none is given. Targets without a reference, or without a head,
    have no score.
    """
    out = ImageScore()
    native = _Native(prediction)
    for target in reference.masks:
        head = "disc" if target == "disc_expert2" else target
        if head in native.found.planes and not (reference.class_only and target in ("artery", "vein")):
            _score_mask(out, native, reference, target, head)
    if {"artery", "vein"} <= set(reference.masks) and {"artery", "vein"} <= set(native.found.planes):
        _score_artery_vein(out, native, reference)
    _score_positions(out, native, reference)
    for target, present in reference.presence.items():
        if target in native.found.planes:
            probability, valid = native.probability(target), reference.fov
            predicted = native.plane(target)
            area = predicted[valid].mean() if valid is not None else predicted.mean()
            out.presence[target] = (m.top_mean(probability, valid), float(area), present)
    return out


def _score_mask(out: ImageScore, native: _Native, reference: Reference, target: str, head: str) -> None:
    truth, valid, predicted = reference.masks[target], reference.valid(target), native.plane(head)
    counts = m.overlap_counts(predicted, truth, valid)
    values = m.overlap_scores(**counts)
    stored = m.overlap_counts(native.stored(head), truth, valid)
    values["dsc_stored"] = m.overlap_scores(**stored)["dsc"]
    out.columns |= {f"{target}_reference_px": counts["tp"] + counts["fn"], f"{target}_predicted_px": counts["tp"] + counts["fp"]}
    if target in CENTRELINE_TARGETS:
        centreline = m.centreline_counts(predicted, truth, valid)
        values["cldice"] = m.centreline_dice(**centreline)
        counts |= centreline
    counts |= {f"stored_{name}": n for name, n in stored.items()}
    if target in BOUNDARY_TARGETS:
        values["hd95"] = m.hausdorff95(predicted, truth)
        geometry = m.disc_geometry(reference.masks.get("disc", truth))
        values["hd95_dd"] = values["hd95"] / geometry[1] if geometry else np.nan
    histogram = Histogram.of(native.probability(head), truth, valid)
    values["aupr"] = histogram.average_precision()
    out.values[target], out.counts[target], out.histograms[target] = values, counts, histogram


def _score_artery_vein(out: ImageScore, native: _Native, reference: Reference) -> None:
    found = native.plane("artery") | native.plane("vein")
    if "vessel" in native.found.planes:
        found = found | native.plane("vessel")
    valid = np.ones(found.shape, bool) if reference.fov is None else reference.fov.copy()
    for target in ("artery", "vein"):
        if target in reference.ignored:
            valid &= ~reference.ignored[target]
    probabilities = native.probability("artery"), native.probability("vein")
    counts = m.artery_vein_counts(*probabilities, found, reference.masks["artery"], reference.masks["vein"], valid)

    def ratio(name: str) -> float:
        return counts[f"{name}_right"] / counts[f"{name}_n"] if counts[f"{name}_n"] else np.nan

    out.counts["artery_vein"] = counts
    out.values["artery_vein"] = {
        "accuracy": ratio("av"),
        "accuracy_found": ratio("av_found"),
        "artery_accuracy": ratio("av_artery"),
        "vein_accuracy": ratio("av_vein"),
    }


def _score_positions(out: ImageScore, native: _Native, reference: Reference) -> None:
    """Disc centre, fovea and vertical cup-to-disc ratio. Distances in px here; :func:`in_disc_diameters` divides them."""
    disc = native.plane("disc") if "disc" in native.found.planes else None
    predicted = m.disc_geometry(disc) if disc is not None else None
    drawn = m.disc_geometry(reference.masks["disc"]) if "disc" in reference.masks else None
    wants_disc = disc is not None and (drawn is not None or reference.disc_centre is not None)
    if wants_disc or reference.fovea is not None:
        frame = native.found.frame
        dd, source = (drawn[1], "reference") if drawn else (predicted[1], "predicted") if predicted else (np.nan, None)
        out.columns |= {"dd_px": dd, "dd_source": source, "field_px": frame.side * frame.scale}
    if wants_disc:
        centre = reference.disc_centre if drawn is None else drawn[0]
        values = out.values.setdefault("disc", {})
        values["found"] = float(predicted is not None)
        values["distance_px"] = float(np.hypot(*np.subtract(predicted[0], centre))) if predicted else np.nan
    if reference.fovea is not None and native.found.status.get("fovea") != "not_available":
        position = native.found.fovea
        distance = np.nan if position is None else np.hypot(*(native.found.frame.to_native(position) - reference.fovea))
        out.values["fovea"] = {"found": float(position is not None), "distance_px": float(distance)}
        out.columns["fovea_confidence"] = native.found.fovea_confidence
    if disc is not None and "cup" in native.found.planes:
        _score_cup_disc_ratio(out, disc, native.plane("cup"), reference)


def _score_cup_disc_ratio(out: ImageScore, disc: np.ndarray, cup: np.ndarray, reference: Reference) -> None:
    truths = {}
    # A predicted cup that is not there is a ratio of 0, so that it costs; a reference without one says nothing of the cup.
    if {"disc", "cup"} <= set(reference.masks) and reference.masks["disc"].any() and reference.masks["cup"].any():
        truths[""] = m.vertical_cup_disc_ratio(reference.masks["disc"], reference.masks["cup"])
    if reference.vcdr is not None:
        truths["expert_"] = reference.vcdr
    if not truths:
        return
    ratio = m.vertical_cup_disc_ratio(disc, cup)
    out.columns["vcdr_predicted"] = ratio
    values = out.values.setdefault("vcdr", {})
    for prefix, truth in truths.items():
        out.columns[f"vcdr_{prefix}reference"] = truth
        values[f"{prefix}error"], values[f"{prefix}bias"] = abs(ratio - truth), ratio - truth


def in_disc_diameters(scores: list[ImageScore]) -> None:
    """Distances of a data set in disc diameters, added to ``values`` in place.

    An image's DD is its reference disc's, else its predicted disc's; where neither exists, the median of the other images' DD as a
    share of the field of view times its own (``dd_source`` says ``median``). A fovea or disc that was not found is outside every
    circle (``within_...``) and has no distance.
    """
    shares = [s.columns["dd_px"] / s.columns["field_px"] for s in scores if np.isfinite(s.columns.get("dd_px", np.nan))]
    for score in scores:
        dd = score.columns.get("dd_px")
        if dd is None:
            continue
        if not np.isfinite(dd) and shares:
            dd = float(np.median(shares)) * score.columns["field_px"]
            score.columns |= {"dd_px": dd, "dd_source": "median"}
        for target in ("disc", "fovea"):
            values = score.values.get(target, {})
            if "distance_px" in values:
                distance = values["distance_px"] / dd
                values["distance_dd"] = distance
                if values["found"] and not np.isfinite(dd):
                    continue  # found, but there is no disc to measure with in the whole data set
                for limit in (0.25, 0.5):
                    values[f"within_{limit}_dd"] = float(values["found"] > 0 and distance <= limit)
