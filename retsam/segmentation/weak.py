"""Heads that learned without pixel masks: from words about whole photographs, and from lesions painted on healthy ones.

They read the features of the frozen trunk in the whole-frame view, which prediction computes anyway for disc and fovea, so that the
supervised heads keep their answers to the bit and a photograph costs little more. A shared neck ends at stride 4, and each task of the
taxonomy has a branch of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retsam.segmentation.postprocess import drop_specks

STRIDE = 4
"""Of the logits, in pixels of the whole-frame view."""

OFF_DISC = (
    "tessellation",
    "peripapillary_atrophy",
    "diffuse_atrophy",
    "patchy_atrophy",
    "drusen",
    "laser_spot",
    "epiretinal_membrane",
    "myelinated_nerve_fiber",
)
"""Targets that spare the disc, or that nothing there tells from its own white tissue (myelinated fibres)."""

SMALLEST = 64
"""Smallest component that is kept: one cell of the logits, in pixels of the canonical frame."""

# Peripapillary atrophy lies at the disc: components further from its edge than this many disc diameters are something else. It is less
# strict than the anatomy, because masks begin a little off the edge: on training photographs 0.12 emptied a quarter of the true ones.
_RIM_GAP = 0.45
# ... and reaches this many disc diameters outwards (the largest crescents of PALM reach 1.3).
_RIM_REACH = 1.5


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class WeakHeads(nn.Module):
    """Logits of all weak heads at stride 4.

    Parameters
    ----------
    branches : mapping of str to sequence of str
        Task -> its targets; one branch a task.
    """

    def __init__(self, branches: Mapping[str, list[str] | tuple[str, ...]]) -> None:
        super().__init__()
        self.targets = tuple(target for targets in branches.values() for target in targets)
        self.neck16 = _conv(112, 48, 1)
        self.neck8 = _conv(48 + 40, 48, 3)
        self.thin = nn.Conv2d(48, 16, 1)
        self.neck4 = _conv(16 + 24 + 6, 32, 3)
        self.branches = nn.ModuleDict(
            {task: nn.Sequential(_conv(32, 12, 3), nn.Conv2d(12, len(targets), 1)) for task, targets in branches.items()}
        )
        for branch in self.branches.values():  # most pixels are background (Lin et al. 2017, the prior of the last layer)
            nn.init.constant_(branch[1].bias, -3.0)

    def forward(self, x: Tensor, features: list[Tensor]) -> Tensor:
        """Logits ``[B, targets, H / 4, W / 4]`` from the network's input ``[B, 6, H, W]`` and the encoder's features."""
        return self.from_pyramid(F.avg_pool2d(x, STRIDE), *features[2:5])

    def from_pyramid(self, raw: Tensor, s4: Tensor, s8: Tensor, s16: Tensor) -> Tensor:
        """Logits from pixels averaged over ``4 x 4`` (RGB and local contrast) and the trunk's features at strides 4, 8 and 16."""
        y = F.interpolate(self.neck16(s16), size=s8.shape[-2:], mode="bilinear", align_corners=False)
        y = self.thin(self.neck8(torch.cat([y, s8], 1)))
        y = F.interpolate(y, size=s4.shape[-2:], mode="bilinear", align_corners=False)
        y = self.neck4(torch.cat([y, s4, raw], 1))
        return torch.cat([branch(y) for branch in self.branches.values()], 1)


def enlarge(probability: np.ndarray, side: int) -> np.ndarray:
    """Probabilities ``[h, w]`` at stride 4 of the whole-frame view to the canonical frame ``[side, side]``."""
    return cv2.resize(probability, (side, side), interpolation=cv2.INTER_LINEAR)


def tidy(planes: dict[str, np.ndarray], weak: tuple[str, ...]) -> None:
    """Bring what is known of each lesion's place into the weak planes, in place.

    Retinal lesions spare the disc, peripapillary atrophy lies at it from outside, and single cells are noise. Where no disc was found,
    peripapillary atrophy cannot be told from other atrophy: its plane is left as the head gave it.

    Parameters
    ----------
    planes : dict of str to ndarray of bool, [side, side]
        With ``disc`` where the model has it.
    weak : tuple of str
        Which of them are of weak heads.
    """
    disc = planes.get("disc")
    for name in weak:
        plane = planes[name]
        if not plane.any():
            continue
        if disc is not None and name in OFF_DISC:
            plane = plane & ~disc
        if name == "peripapillary_atrophy" and disc is not None and disc.any():
            plane = at_rim(plane, disc)
        planes[name] = drop_specks(plane, SMALLEST)


def at_rim(plane: np.ndarray, disc: np.ndarray) -> np.ndarray:
    """What of a mask is peripapillary: its components at the disc, up to a reach.

    Parameters
    ----------
    plane, disc : ndarray of bool, [side, side]
        Of any resolution; the disc is not empty.

    Returns
    -------
    ndarray of bool, [side, side]
    """
    diameter = 2 * np.sqrt(np.count_nonzero(disc) / np.pi)
    distance = cv2.distanceTransform((~disc).view(np.uint8), cv2.DIST_L2, 3)
    plane = plane & (distance <= _RIM_REACH * diameter)
    _, labels = cv2.connectedComponents(plane.view(np.uint8), connectivity=8)
    touching = np.unique(labels[plane & (distance <= _RIM_GAP * diameter)])
    return np.isin(labels, touching[touching > 0])
