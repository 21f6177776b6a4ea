"""Where a network shows lesions on photographs that have none: what is left to teach it is there, and seldom in a crop drawn by chance."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from retsam.segmentation.predict import Segmenter
from retsam.segmentation.weights import file_sha256
from retsam.training.frames import Frames
from retsam.training.labels import FOV_BIT

_POINTS = 400
"""Places kept of each photograph."""
_LEAST = 0.02
"""Probability of a lesion under which a place teaches nothing."""


def false_alarms(frames: Frames, weights: Path, cache: Path) -> dict[int, np.ndarray]:
    """Places on the healthy photographs where a network shows a lesion, each as often as its probability says.

    Parameters
    ----------
    frames : Frames
        Of ``lesions_dr``.
    weights : Path
        A weights file with its card, as shipped.
    cache : Path
        Folder in which the answer is kept.

    Returns
    -------
    dict of int to ndarray of int, [points, 2]
        Index of the frame -> ``(x, y)``, px; photographs without a false alarm are left out.
    """
    negative = np.flatnonzero(frames.table["negative"].to_numpy(bool))
    side = frames.rgb.shape[1]
    key = hashlib.sha256("\n".join([file_sha256(weights), str(side), *frames.table["image"].iloc[negative]]).encode()).hexdigest()[:12]
    path = cache / f"alarms-{key}.npz"
    if not path.exists():
        segmenter = Segmenter(weights, flips=False, tasks=["lesions_dr"])
        rng, found = np.random.default_rng(0), {}
        for index in tqdm(negative, desc=f"false alarms at {side} px", mininterval=10):
            inside = frames.label[index] & FOV_BIT > 0
            shown = _shown(segmenter, frames.rgb[index], inside).ravel()
            shown[shown < _LEAST] = 0
            if shown.sum() > 0:
                ys, xs = np.unravel_index(rng.choice(shown.size, _POINTS, p=shown / shown.sum()), (side, side))
                found[str(index)] = np.stack([xs, ys], 1)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **found)
        os.replace(temporary, path)  # a killed run leaves no half of it
    with np.load(path) as stored:
        return {int(name): stored[name] for name in stored.files}


@torch.inference_mode()
def _shown(segmenter: Segmenter, rgb: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Highest probability of any lesion, float64 ``[H, W]``, zero outside the field of view."""
    logits = segmenter.logits("fine", rgb[None], fov[None], ["lesions_dr"], len(rgb) // 128)["lesions_dr"]
    return torch.sigmoid(logits[0]).amax(0).cpu().numpy().astype(float) * fov
