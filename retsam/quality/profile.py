"""Colour profile of the field of view: how brightness and hue are spread from its centre to its rim.

A retina is lit evenly and its disc lies aside; the front of an eye has a dark pupil in a ring of iris in a bright ring of sclera. So the
profile tells retinas with large white atrophies from fronts of eyes, which sharpness, vessels and colour as a whole do not.
"""

from __future__ import annotations

import cv2
import numpy as np

#: Side of the thumbnail on which the profile is taken, px.
_SIDE = 48
#: Outer radii of the rings, in radii of the field.
_RINGS = (0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
# Dark current and quantisation put a floor under logarithms: 3 % of full scale.
_FLOOR = 8 / 255
#: All channels above this share of full scale: a reflex, paper, a lamp.
_WHITE = 235 / 255
_PLANES = {"green": "log green", "red_green": "log red over green", "blue_green": "log blue over green"}
_PAIRS = (("green", "red_green"), ("green", "blue_green"), ("red_green", "blue_green"))

#: Metrics and what they are.
PROFILE: dict[str, str] = {
    **{
        f"ring{k}_{plane}{end}": f"{what} of {says} between {inner:g} and {outer:g} radii from the centre{against}."
        for plane, says in _PLANES.items()
        for k, (inner, outer) in enumerate(zip((0.0, *_RINGS), _RINGS, strict=False), 1)
        for end, what, against in (("", "Mean", ", minus the median of the field"), ("_spread", "Standard deviation", ""))
    },
    **{f"{a}_{b}_correlation": f"Correlation over the field of {_PLANES[a]} with {_PLANES[b]}." for a, b in _PAIRS},
    **{f"{a}_{b}_slope": f"Slope over the field of {_PLANES[b]} on {_PLANES[a]}, shrunk where that varies little." for a, b in _PAIRS},
    "white": "Share of the field where all channels are above 92 % of full scale, at a 48th of its width.",
}

_centre = (_SIDE - 1) / 2
_distance = np.hypot(*np.meshgrid(np.arange(_SIDE) - _centre, np.arange(_SIDE) - _centre)) / (_SIDE / 2)
_RING_OF = np.searchsorted(_RINGS, _distance, side="right")


def colour_profile(work: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """The metrics of `PROFILE`.

    Parameters
    ----------
    work : ndarray of uint8, [S, S, 3]
        Field of view in the working frame, RGB.
    inside : ndarray of bool, [S, S]
        Field of view without its rim.

    Returns
    -------
    dict
        A ring that lies outside the picture counts as the median of the field with no spread.
    """
    mask = inside.astype(np.uint8) * 255
    share = cv2.resize(mask, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    small = cv2.resize(cv2.bitwise_and(work, work, mask=mask), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    known = share > 0.5
    if not known.any():
        return dict.fromkeys(PROFILE, 0.0)
    rgb = small[known] / share[known][:, None]
    red, green, blue = np.log(rgb + _FLOOR).T
    planes = {"green": green, "red_green": red - green, "blue_green": blue - green}
    ring = _RING_OF[known]
    count = np.bincount(ring, minlength=len(_RINGS) + 1)[: len(_RINGS)]
    row: dict[str, float] = {}
    for name, plane in planes.items():
        plane = plane - np.median(plane)
        total, squares = (np.bincount(ring, v, len(_RINGS) + 1)[: len(_RINGS)] for v in (plane, plane**2))
        mean = total / np.maximum(count, 1)
        spread = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        for k in range(len(_RINGS)):
            row[f"ring{k + 1}_{name}"], row[f"ring{k + 1}_{name}_spread"] = float(mean[k]), float(spread[k])
    for first, second in _PAIRS:
        a, b = (planes[n] - planes[n].mean() for n in (first, second))
        joint = float((a * b).mean())
        row[f"{first}_{second}_correlation"] = joint / float(np.sqrt((a**2).mean() * (b**2).mean()) + 1e-6)
        row[f"{first}_{second}_slope"] = joint / (float((a**2).mean()) + 0.05)
    row["white"] = float((rgb.min(1) > _WHITE).mean())
    return row
