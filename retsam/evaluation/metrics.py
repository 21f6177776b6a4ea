"""Metrics of one image: overlap, centrelines, boundaries, artery/vein classes, positions, cup-to-disc ratio."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.morphology import skeletonize


def overlap_counts(predicted: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> dict[str, int]:
    """True positive, false positive and false negative pixels.

    Parameters
    ----------
    predicted, reference : ndarray of bool, [H, W]
    valid : ndarray of bool, [H, W], optional
        Pixels that count (field of view, certain pixels).
    """
    if valid is not None:
        predicted, reference = predicted & valid, reference & valid
    true = int(np.count_nonzero(predicted & reference))
    return {"tp": true, "fp": int(np.count_nonzero(predicted)) - true, "fn": int(np.count_nonzero(reference)) - true}


def overlap_scores(tp: float, fp: float, fn: float) -> dict[str, float]:
    """Dice (``dsc``), Jaccard (``jac``), sensitivity and precision of counts.

    NaN where undefined: all but precision without reference pixels, precision without predicted pixels. An image without reference
    pixels thus has no Dice coefficient; its false positives count in the pooled scores.
    """
    reference, predicted = tp + fn, tp + fp
    return {
        "dsc": 2 * tp / (reference + predicted) if reference else np.nan,
        "jac": tp / (tp + fp + fn) if reference else np.nan,
        "sensitivity": tp / reference if reference else np.nan,
        "precision": tp / predicted if predicted else np.nan,
    }


def centreline_counts(predicted: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> dict[str, int]:
    """Counts behind clDice (Shit et al. 2021, CVPR, "clDice - a novel topology-preserving loss function").

    Returns
    -------
    dict
        ``skeleton_predicted`` and those of its pixels inside the reference, ``skeleton_predicted_in``; the same of the reference.
    """
    if valid is not None:
        predicted, reference = predicted & valid, reference & valid
    thin_predicted, thin_reference = skeletonize(predicted), skeletonize(reference)
    return {
        "skeleton_predicted": int(np.count_nonzero(thin_predicted)),
        "skeleton_predicted_in": int(np.count_nonzero(thin_predicted & reference)),
        "skeleton_reference": int(np.count_nonzero(thin_reference)),
        "skeleton_reference_in": int(np.count_nonzero(thin_reference & predicted)),
    }


def centreline_dice(skeleton_predicted, skeleton_predicted_in, skeleton_reference, skeleton_reference_in) -> float:
    """clDice of counts: harmonic mean of topology precision and sensitivity; NaN without a reference, 0 without a prediction."""
    if not skeleton_reference:
        return np.nan
    precision = skeleton_predicted_in / skeleton_predicted if skeleton_predicted else 0.0
    sensitivity = skeleton_reference_in / skeleton_reference
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def hausdorff95(predicted: np.ndarray, reference: np.ndarray) -> float:
    """95th percentile of the boundary distance in px, the larger of both directions.

    Returns
    -------
    float
        NaN without a reference; the picture's diagonal, the largest distance there is, where nothing was predicted.
    """
    if not reference.any():
        return np.nan
    if not predicted.any():
        return float(np.hypot(*reference.shape))
    rows, cols = np.nonzero(predicted.any(1) | reference.any(1))[0], np.nonzero(predicted.any(0) | reference.any(0))[0]
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)  # holds both boundaries, so the distances in it are whole
    a, b = _boundary(predicted)[box], _boundary(reference)[box]
    to_b = cv2.distanceTransform((~b).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_a = cv2.distanceTransform((~a).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(max(np.percentile(to_b[a], 95), np.percentile(to_a[b], 95)))


def artery_vein_counts(
    artery_probability: np.ndarray, vein_probability: np.ndarray, found: np.ndarray, artery: np.ndarray, vein: np.ndarray, valid: np.ndarray
) -> dict[str, int]:
    """Pixels of known class that were given it.

    Parameters
    ----------
    artery_probability, vein_probability : ndarray of float, [H, W]
        The larger decides the class of a pixel.
    found : ndarray of bool
        Predicted vessel (artery, vein or vessel).
    artery, vein : ndarray of bool
        Reference. Pixels of both (crossings) have no one class and do not count.
    valid : ndarray of bool
        Pixels that count.

    Returns
    -------
    dict
        ``av_n`` and ``av_right`` over all reference vessel pixels of one class; ``av_found_n`` and ``av_found_right`` over those that
        were also found as vessel; ``av_artery_n``, ``av_artery_right`` and the same of veins.
    """
    known = (artery ^ vein) & valid
    says_artery = artery_probability[known] >= vein_probability[known]
    is_artery, is_found = artery[known], found[known]
    right = says_artery == is_artery
    return {
        "av_n": int(known.sum()),
        "av_right": int(right.sum()),
        "av_found_n": int(is_found.sum()),
        "av_found_right": int((right & is_found).sum()),
        "av_artery_n": int(is_artery.sum()),
        "av_artery_right": int((right & is_artery).sum()),
        "av_vein_n": int((~is_artery).sum()),
        "av_vein_right": int((right & ~is_artery).sum()),
    }


def disc_geometry(mask: np.ndarray) -> tuple[tuple[float, float], float] | None:
    """Centre and diameter (DD) of a disc mask.

    Returns
    -------
    centre : (x, y), px, and diameter : float, px
        DD is twice the mean semi-axis of the ellipse with the mask's second moments; None for an empty mask.
    """
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return None
    covariance = np.cov(np.stack([xs, ys]), bias=True) + np.eye(2) / 12  # a pixel is a square, not a point
    semi_axes = 2 * np.sqrt(np.linalg.eigvalsh(np.atleast_2d(covariance)))
    return (float(xs.mean()), float(ys.mean())), float(semi_axes.sum())


def vertical_cup_disc_ratio(disc: np.ndarray, cup: np.ndarray) -> float:
    """Height of the cup over height of the disc, in rows; NaN without a disc, 0 without a cup."""
    disc_rows, cup_rows = np.nonzero(disc.any(1))[0], np.nonzero(cup.any(1))[0]
    if not len(disc_rows):
        return np.nan
    return (cup_rows[-1] - cup_rows[0] + 1) / (disc_rows[-1] - disc_rows[0] + 1) if len(cup_rows) else 0.0


def roc_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN without both classes.

    Parameters
    ----------
    scores : ndarray of float, [n]
    labels : ndarray of bool, [n]
    weights : ndarray of float, [n], optional
        How often each image counts (bootstrap).
    """
    weights = np.ones(len(scores)) if weights is None else weights
    _, codes = np.unique(scores, return_inverse=True)
    positive = np.bincount(codes, weights * labels)
    negative = np.bincount(codes, weights * ~np.asarray(labels, bool))
    total = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total) if total else np.nan


def top_mean(probability: np.ndarray, valid: np.ndarray | None = None, share: float = 1e-3) -> float:
    """Mean of the highest probabilities, a ``share`` of the valid pixels: an image's score for the presence of a lesion."""
    values = probability[valid] if valid is not None else probability.ravel()
    k = max(1, round(share * values.size)) if values.size else 0
    return float(np.partition(values, values.size - k)[values.size - k :].mean()) if k else np.nan
