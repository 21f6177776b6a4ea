"""At which sizes vessels and lesions of a photograph are looked at.

Vessels are looked at by the detail that a photograph holds: one twice enlarged shows nothing more, one that is shrunk loses twigs. Two
sizes are better than one twice: 1,024 and 896 px give a best Dice of 0.7910 (mean of six data sets' training photographs), 1,024 and
1,152 px 0.7895, 1,024 px alone 0.7880, three sizes 0.7911.
Lesions are looked at where they are as large as in the photographs that teach them, however small the file: in frames of 1,024 and
1,280 px copies of IDRiD with 690 px across the field give microaneurysms an AUPR of 0.47 (training photographs), in frames of 768 and
896 px 0.31. Logits of several looks, one of them mirrored, are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME_SIDE = 1024
"""Side of the frame that photographs are cut to and masks are kept in, px."""
LARGE_SIDE, LARGE_SCALE = 1536, 1.3
"""Side of the frame in which vessels and lesions of large photographs are learned, px, and from how many native px a canonical px on.

Thin vessels and microaneurysms of such photographs are lost at 1,024 px. The answer is kept in the canonical frame."""
LARGEST_SIDE = 1792
"""Side of the frame that large photographs are kept in until they are looked at, px."""
SMALL_SCALE = 0.505
"""Native px per canonical px up to which a photograph is small: the frame enlarges it twofold, one look of each is enough."""
_NARROW_DISC = 200
"""Diameter of the disc in the canonical frame, px, from which on the field is narrow (150 px at 45 degrees, 220 at 30): vessels are as wide
there as in large photographs, and in a frame for those they would be wider than any that the network has met."""


@dataclass(frozen=True)
class Look:
    """One pass of the network over a photograph.

    Parameters
    ----------
    side : int
        Of the frame, px.
    mirrored : bool
    tasks : tuple of str
    pool : int
        Reduction of the local contrast (see :meth:`retsam.segmentation.network.RetinaNetwork.forward`).
    """

    side: int
    mirrored: bool = False
    tasks: tuple[str, ...] = ("vessels", "lesions_dr")
    pool: int = 8


_VESSELS, _LESIONS = ("vessels",), ("lesions_dr",)
_LOOKS = {
    "small": (Look(768, False, _VESSELS, 6), Look(1024, False, _LESIONS)),
    "ordinary": (Look(1024), Look(896, True, _VESSELS, 7), Look(1280, True, _LESIONS, 10)),
    "large": (Look(LARGEST_SIDE, False, _VESSELS, 14), Look(LARGE_SIDE, True, pool=12), Look(1280, False, _LESIONS, 10)),
}


def detail(scale: float) -> str:
    """``small``, ``ordinary`` or ``large``, by the native px per canonical px of a photograph."""
    return "large" if scale >= LARGE_SCALE else "ordinary" if scale > SMALL_SCALE else "small"


def looks(scale: float, disc: float | None) -> tuple[Look, ...]:
    """How to look at a photograph.

    Parameters
    ----------
    scale : float
        Native px per canonical px.
    disc : float or None
        Diameter of the disc in the canonical frame, px; None where none is in sight.

    Returns
    -------
    tuple of Look
    """
    kind = detail(scale)
    return _LOOKS["ordinary" if kind == "large" and disc is not None and disc >= _NARROW_DISC else kind]
