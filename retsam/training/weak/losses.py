"""Losses without pixel masks: multiple-instance learning from words, and pixels of painted lesions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from retsam.training.weak.config import Word
from retsam.training.weak.features import ZONE_BITS

# A zone of fewer cells than this, as around a disc that was not found, teaches nothing.
_FEWEST = 40


def word_loss(logits: Tensor, zone: Tensor, fov: Tensor, present: float, word: Word) -> Tensor:
    """Loss of one photograph and word.

    Where the word is present, the likeliest ``least`` of the zone's cells are lesion and those past the likeliest ``most`` are not (the
    instances of Andrews et al. 2003, with a known range of their share); where it is absent, no cell is, the likeliest ones counting most.

    Parameters
    ----------
    logits : Tensor, [targets, h, w]
        Of the word's targets; a cell shows the word if any of them is there.
    zone, fov : Tensor of bool, [h, w]
    present : float
        1 or 0.
    word : Word

    Returns
    -------
    Tensor
        Zero where the zone is too small.
    """
    any_of = logits.amax(0)
    inside = any_of[zone]
    count = inside.numel()
    if count < _FEWEST:
        return logits.sum() * 0
    order = inside.sort(descending=True).values
    top, rest = max(1, round(word.least * count)), max(1, round(word.most * count))
    if present:
        loss = F.softplus(-order[:top]).mean() + 0.5 * F.softplus(order[rest:]).mean()
        return loss + F.softplus(any_of[fov & ~zone]).mean() if word.zone == "rim" else loss
    return F.softplus(order[:top]).mean() + F.softplus(logits[:, fov]).mean()


def painted_loss(logits: Tensor, mask: Tensor, fov: Tensor, channel: int) -> Tensor:
    """Loss of one painted photograph: cross-entropy and Dice of the painted target; no other target is there.

    Parameters
    ----------
    logits : Tensor, [targets, h, w]
    mask : Tensor, [h, w]
        Share of each cell that is painted.
    fov : Tensor of bool, [h, w]
    channel : int
        Of the painted target.
    """
    z, truth = logits[channel][fov], mask[fov]
    probability = torch.sigmoid(z)
    weight = 1 + 4 * truth
    cross = (F.binary_cross_entropy_with_logits(z, truth, reduction="none") * weight).sum() / weight.sum()
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    others = [i for i in range(len(logits)) if i != channel]
    return 2 * cross + dice + 0.3 * F.softplus(logits[others][:, fov]).mean() * len(others)


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
        1, 0 or NaN.
    channels : list of int or None
        Painted target of each photograph.
    names : dict of str to (Word, list of int)
        Each word, in the order of ``words``, and the channels of its targets.
    """
    fov = (zones & ZONE_BITS["fov"]) > 0
    terms: dict[str, list[Tensor]] = {}
    for row, channel in enumerate(channels):
        if channel is not None:
            if fov[row].any():
                terms.setdefault("painted", []).append(painted_loss(logits[row], masks[row], fov[row], channel))
            continue
        for column, (name, (word, own)) in enumerate(names.items()):
            present = float(words[row, column])
            if present == present:  # known
                zone = (zones[row] & ZONE_BITS[word.zone]) > 0
                kind = f"{name}.{'present' if present else 'absent'}"
                terms.setdefault(kind, []).append(word.weight * word_loss(logits[row, own], zone, fov[row], present, word))
    return {name: torch.stack(values).mean() for name, values in terms.items()}
