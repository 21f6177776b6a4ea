"""Losses of each task; pixels whose answer is not known do not count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from retsam.training.labels import FOV_BIT, LESION_BITS, NERVE_BITS, VESSEL_BITS


def _bit(label: Tensor, bit: int) -> Tensor:
    return (label & bit) > 0


def masked_bce(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy, mean over known pixels."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def soft_dice(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 - Dice of the probabilities, over the known pixels of the whole batch; zero where nothing is there to find.

    Source: Milletari et al. 2016 (V-Net).
    """
    probability = torch.sigmoid(logits) * known
    target = target * known
    total = target.sum()
    if total == 0:
        return logits.sum() * 0
    return 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + total + 1)


def skeleton_recall(logits: Tensor, skeleton: Tensor) -> Tensor:
    """Share of the centreline pixels that the probabilities miss; zero where there is none.

    Source: Kirchhoff et al. 2024 (Skeleton Recall Loss).
    """
    skeleton = skeleton.float()
    return 1 - ((torch.sigmoid(logits) * skeleton).sum() + 1) / (skeleton.sum() + 1)


def vessel_loss(logits: Tensor, label: Tensor, skeleton: float = 0.0) -> dict[str, Tensor]:
    """Artery, vein and vessel, and the class on vessel pixels. ``logits [B, 3, H, W]``, ``label [B, H, W]``; ``skeleton`` weighs
    :func:`skeleton_recall` of the vessel."""
    bits, fov = VESSEL_BITS, _bit(label, FOV_BIT)
    artery, vein = _bit(label, bits["artery"]), _bit(label, bits["vein"])
    known_av = (_bit(label, bits["known_av"]) & fov).float()
    known_vessel = (_bit(label, bits["known_vessel"]) & fov).float()
    terms = {}
    channels = ((artery, known_av), (vein, known_av), (_bit(label, bits["vessel"]), known_vessel))
    terms["bce"] = sum(masked_bce(logits[:, i], target.float(), known) for i, (target, known) in enumerate(channels))
    terms["dice"] = sum(soft_dice(logits[:, i], target.float(), known) for i, (target, known) in enumerate(channels))
    one = (artery ^ vein) & fov & (_bit(label, bits["known_av"]) | _bit(label, bits["class_only"]))
    terms["av"] = masked_bce(logits[:, 0] - logits[:, 1], artery.float(), one.float())
    if skeleton:
        terms["skeleton"] = skeleton * skeleton_recall(logits[:, 2], _bit(label, bits["skeleton"]) & (known_vessel > 0))
    return terms


def nerve_loss(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Disc and cup. Outside the field of view there is neither: those pixels are known."""
    bits = NERVE_BITS
    terms = {"bce": logits.sum() * 0, "dice": logits.sum() * 0}
    for i, name in enumerate(("disc", "cup")):
        known = (_bit(label, bits[f"known_{name}"]) & _bit(label, FOV_BIT)).float()
        target = _bit(label, bits[name]).float()
        terms["bce"] = terms["bce"] + 2 * masked_bce(logits[:, i], target, known)
        terms["dice"] = terms["dice"] + soft_dice(logits[:, i], target, known)
    return terms


def lesion_loss(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Microaneurysm, hemorrhage, hard exudate, cotton-wool spot."""
    known = (_bit(label, LESION_BITS["known"]) & _bit(label, FOV_BIT)).float()
    terms = {"bce": logits.sum() * 0, "dice": logits.sum() * 0}
    for i, name in enumerate(list(LESION_BITS)[:4]):
        target = _bit(label, LESION_BITS[name]).float()
        terms["bce"] = terms["bce"] + 4 * masked_bce(logits[:, i], target, known)
        terms["dice"] = terms["dice"] + 0.5 * soft_dice(logits[:, i], target, known)
    return terms


def macula_loss(logits: Tensor, heat: Tensor) -> dict[str, Tensor]:
    """Cross-entropy over positions between a heatmap ``[B, 1, h, w]`` and the fovea's Gaussian ``[B, h, w]``."""
    log_p = F.log_softmax(logits.flatten(1), 1)
    return {"position": -(heat.flatten(1) * log_p).sum(1).mean()}
