"""What segmentation hands on for one photograph: its masks, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retsam.masks.frame import Frame
from retsam.segmentation.targets import STATUSES, TARGETS


@dataclass
class Masks:
    """Masks of one photograph.

    Parameters
    ----------
    planes : dict of str to ndarray
        Target -> ``bool [side, side]`` (``[native_height, native_width]`` where ``native``). Only heads that exist: a target without
        a plane was not looked for, which is not the same as an empty plane.
    fov : ndarray, bool
        Field of view, same shape.
    frame : Frame
        Where the planes lie in the photograph.
    fovea : tuple of float or None
        ``(x, y)`` in frame px, pixel-centre coordinates; None where it was not found.
    fovea_confidence : float or None
        0 to 1.
    eye : {"R", "L"} or None
    image_id : str
    um_per_px : float or None
        Micrometres per native px, from a samplesheet or DICOM.
    status : dict of str to str
        Every target of the taxonomy -> ``supervised``, ``weak`` or ``not_available``.
    confidence : dict of str to float
        Target -> expected Dice coefficient, where the head gives one.
    native : bool
        True where the planes are at the masks' own resolution and ``frame`` is the identity.
    """

    planes: dict[str, np.ndarray]
    fov: np.ndarray
    frame: Frame
    fovea: tuple[float, float] | None
    fovea_confidence: float | None
    eye: str | None = None
    image_id: str = ""
    um_per_px: float | None = None
    status: dict[str, str] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    native: bool = False

    def faults(self) -> list[str]:
        """Everything that contradicts the contract of this class, one sentence each; empty where sound."""
        shape = (self.frame.native_height, self.frame.native_width) if self.native else (self.frame.side, self.frame.side)
        found = []
        for name, plane in {**self.planes, "fov": self.fov}.items():
            if name != "fov" and (name not in TARGETS or name == "fovea"):
                found.append(f"plane {name!r} is not a target with a mask; expected one of {', '.join(t for t in TARGETS if t != 'fovea')}")
            elif plane.dtype != bool or plane.shape != shape:
                found.append(f"plane {name!r} is {plane.dtype} {plane.shape}; expected bool {shape}")
            if self.status.get(name) == "not_available":
                found.append(f"plane {name!r} exists, but its head is not_available")
        for target, status in self.status.items():
            if target not in TARGETS or status not in STATUSES:
                found.append(f"status {target!r}: {status!r} unknown; statuses are {', '.join(STATUSES)}")
        if self.eye not in ("R", "L", None):
            found.append(f"eye is {self.eye!r}; expected 'R', 'L' or None")
        found += [f"confidence of {target!r}, which is not a target" for target in self.confidence if target not in TARGETS]
        return found


@dataclass(frozen=True)
class Failure:
    """A photograph without masks: a row with a reason.

    Parameters
    ----------
    image_id : str
    reason : str
        Short code, such as ``unreadable`` or ``no_field_of_view``.
    detail : str
        A sentence for people.
    eye : {"R", "L"} or None
    """

    image_id: str
    reason: str
    detail: str = ""
    eye: str | None = None
