"""Losses without pixel masks: multiple-instance learning from words, and pixels of painted lesions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from retsam.training.weak.config import Word
from retsam.training.weak.features import ZONE_BITS

# A zone of fewer cells than this, as around a disc that was not found, teaches nothing.
_FEWEST = 40


def present_loss(logits: Tensor, zone: Tensor, fov: Tensor, word: Word) -> Tensor | None:
    """Loss of one photograph that carries a word.

    The likeliest ``least`` of the zone's cells are lesion and those past the likeliest ``most`` are not: multiple-instance learning
    (Andrews et al. 2003) with a known range of the instances' share.

    Parameters
    ----------
    logits : Tensor, [h, w]
        Log-odds that any of the word's targets is there, up to the sum of their probabilities.
    zone, fov : Tensor of bool, [h, w]
    word : Word

    Returns
    -------
    Tensor or None
        None where the zone is too small.
    """
    inside = logits[zone]
    count = inside.numel()
    if count < _FEWEST:
        return None
    order = inside.sort(descending=True).values
    top, rest = max(1, round(word.least * count)), max(1, round(word.most * count))
    loss = F.softplus(-order[:top]).mean() + 0.5 * F.softplus(order[rest:]).mean()
    return loss + F.softplus(logits[fov & ~zone]).mean() if word.zone == "rim" else loss


def absent_loss(logits: Tensor, dense: Tensor, zones: Tensor, word: Word) -> Tensor:
    """Mean loss of photographs without a word: no cell is lesion, the likeliest ones of the zone counting as much as all others.

    Parameters
    ----------
    logits : Tensor, [B, h, w]
        As in :func:`present_loss`.
    dense : Tensor, [B]
        Mean loss over all cells and targets.
    zones : Tensor of bool, [B, h, w]
    word : Word
    """
    top = max(1, round(word.least * float(zones.flatten(1).sum(1).float().mean())))
    hardest = logits.masked_fill(~zones, -20.0).flatten(1).topk(top, 1).values
    return (F.softplus(hardest).mean(1) + dense).mean()


def painted_loss(logits: Tensor, dense: Tensor, mask: Tensor, fov: Tensor, channel: int) -> Tensor:
    """Loss of one painted photograph: cross-entropy and Dice of the painted target; no other target is there.

    Parameters
    ----------
    logits : Tensor, [h, w]
        Of the painted target.
    dense : Tensor, [targets]
        Mean loss of each target if none of it is there.
    mask : Tensor, [h, w]
        Share of each cell that is painted.
    fov : Tensor of bool, [h, w]
    channel : int
        Of the painted target.
    """
    z, truth = logits[fov], mask[fov]
    probability = torch.sigmoid(z)
    weight = 1 + 4 * truth
    cross = (F.binary_cross_entropy_with_logits(z, truth, reduction="none") * weight).sum() / weight.sum()
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return 2 * cross + dice + 0.3 * (dense.sum() - dense[channel])


def batch_loss(
    logits: Tensor, zones: Tensor, masks: Tensor, words: Tensor, channels: list[int | None], names: dict[str, tuple[Word, list[int]]]
) -> dict[str, Tensor]:
    """Mean loss of each word, and of painted lesions, over the photographs of a batch.

    Parameters
    ----------
    logits : Tensor, [B, targets, h, w]
    zones : Tensor of uint8, [B, h, w]
    masks : Tensor, [B, h, w]
    words : Tensor, [B, words]
        1, 0 or NaN; NaN for painted photographs.
    channels : list of int or None
        Painted target of each photograph.
    names : dict of str to (Word, list of int)
        Each word, in the order of ``words``, and the channels of its targets.
    """
    fov = (zones & ZONE_BITS["fov"]) > 0
    inside = fov[:, None].to(logits.dtype)
    dense = (F.softplus(logits) * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1)
    terms: dict[str, list[Tensor]] = {}
    for row, channel in enumerate(channels):
        if channel is not None and fov[row].any():
            terms.setdefault("painted", []).append(painted_loss(logits[row, channel], dense[row], masks[row], fov[row], channel))
    for column, (name, (word, own)) in enumerate(names.items()):
        # Each target takes its share of the gradient: with the maximum, the one that is ahead would take all.
        any_of = logits[:, own].logsumexp(1)
        zone = (zones & ZONE_BITS[word.zone]) > 0
        for row in torch.nonzero(words[:, column] == 1).flatten().tolist():
            loss = present_loss(any_of[row], zone[row], fov[row], word)
            if loss is not None:
                terms.setdefault(f"{name}.present", []).append(word.weight * loss)
        absent = words[:, column] == 0
        if absent.any():
            loss = absent_loss(any_of[absent], dense[absent][:, own].sum(1), zone[absent], word)
            terms[f"{name}.absent"] = [word.weight * loss]
    return {name: torch.stack(values).mean() for name, values in terms.items()}
