"""Masks drawn on their photograph, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike

import cv2
import numpy as np

from retsam.masks.masks import Masks
from retsam.segmentation.targets import TARGETS

COLOURS: dict[str, tuple[int, int, int]] = {
    "artery": (255, 92, 92),
    "vein": (74, 150, 255),
    "vessel": (120, 235, 235),
    "disc": (255, 255, 255),
    "cup": (0, 230, 170),
    "fovea": (255, 255, 255),
    "microaneurysm": (255, 0, 220),
    "hemorrhage": (120, 0, 200),
    "hard_exudate": (255, 235, 0),
    "cotton_wool_spot": (170, 255, 255),
    "laser_spot": (230, 159, 0),
    "fibrous_proliferation": (150, 60, 140),
    "venous_beading": (0, 114, 178),
    "drusen": (255, 255, 150),
    "patchy_hemorrhage": (150, 60, 255),
    "pigmentary_change": (30, 30, 30),
    "geographic_atrophy": (30, 120, 140),
    "tessellation": (213, 94, 0),
    "peripapillary_atrophy": (240, 228, 66),
    "diffuse_atrophy": (86, 180, 233),
    "patchy_atrophy": (204, 121, 167),
    "epiretinal_membrane": (190, 190, 255),
    "macular_hole": (130, 0, 60),
    "retinal_scar": (120, 80, 40),
    "myelinated_nerve_fiber": (0, 158, 115),
    "edema": (60, 110, 40),
    "arteriovenous_nicking": (255, 0, 110),
    "vascular_sheathing": (225, 255, 225),
    "vitreous_degeneration": (255, 185, 150),
    "choroidal_atrophy": (200, 200, 110),
    "artifact": (128, 128, 128),
    "other_lesion": (90, 90, 200),
}
"""RGB of each target. Red and blue of the vessels differ in the channel that protan and deutan readers keep; structures that lie
on each other differ in lightness as well. Only disc and fovea share one: a contour and a cross."""

OTHER = COLOURS["other_lesion"]
"""Of a mask that is no target of the taxonomy."""

OUTLINED = ("disc", "cup", "peripapillary_atrophy", "diffuse_atrophy", "patchy_atrophy", "tessellation", "geographic_atrophy")
"""Targets drawn as a contour: what lies inside them must stay visible."""

_ORDER = ("tessellation", "diffuse_atrophy", "patchy_atrophy", "peripapillary_atrophy", "geographic_atrophy", "vessel", "vein", "artery")


def overlay(
    image: np.ndarray | str | PathLike, masks: Masks, targets: Iterable[str] | None = None, opacity: float = 0.62, legend: bool = False
) -> np.ndarray:
    """Draw masks on a photograph.

    Vessels and lesions are tinted, lesions also outlined; disc, cup and atrophies are contours; the fovea is a cross. The vessel
    mask is drawn only where there is no artery and vein.

    Parameters
    ----------
    image : ndarray, uint8 [H, W, 3], or path
        The photograph in its native size, or already warped into ``masks.frame`` (``[side, side, 3]``).
    masks : Masks
        What :func:`retsam.segment` returns for it.
    targets : iterable of str, optional
        Targets to draw; every mask that exists (and the fovea) if left out.
    opacity : float
        Of tinted targets, 0 to 1.
    legend : bool
        Add a strip with the colours below the picture.

    Returns
    -------
    ndarray, uint8
        RGB of the size of ``image`` (taller by the strip with ``legend``).

    Raises
    ------
    ValueError
        If the image has neither the photograph's nor the frame's size, or a target is unknown.
    """
    if not isinstance(image, np.ndarray):
        from retsam.cohort.reading import read_photograph

        image = read_photograph(image).rgb
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [height, width, 3], RGB")
    wanted = _wanted(masks, targets)
    in_frame = _is_in_frame(image, masks)
    out = image.copy()
    side = min(image.shape[:2])
    width = max(1, round(side / 420))
    drawn = []
    for name in wanted:
        if name == "fovea":
            continue
        plane = masks.planes[name] if in_frame else masks.frame.unwarp(masks.planes[name])
        if not plane.any():
            continue
        drawn.append(name)
        colour = np.array(COLOURS.get(name, OTHER), float)
        if name in OUTLINED:
            _contour(out, plane, colour, width)
            continue
        out[plane] = np.round((1 - opacity) * out[plane] + opacity * colour).astype(np.uint8)
        if name not in ("artery", "vein", "vessel"):
            _contour(out, plane, colour, max(1, width - 1))
    if "fovea" in wanted and masks.fovea is not None:
        x, y = masks.fovea if in_frame else masks.frame.to_native(masks.fovea)
        _cross(out, float(x), float(y), side, width)
        drawn.append("fovea")
    return np.vstack([out, _strip(drawn, out.shape[1])]) if legend else out


def _wanted(masks: Masks, targets: Iterable[str] | None) -> list[str]:
    if targets is None:
        names = [n for n in masks.planes if not (n == "vessel" and {"artery", "vein"} <= set(masks.planes))] + ["fovea"]
    else:
        names = list(dict.fromkeys(targets))
        unknown = [n for n in names if n not in TARGETS]
        if unknown:
            raise ValueError(f"unknown targets {', '.join(unknown)}; expected some of {', '.join(TARGETS)}")
        absent = [n for n in names if n != "fovea" and n not in masks.planes]
        if absent:
            raise ValueError(f"these masks have no plane of {', '.join(absent)}; they have {', '.join(masks.planes)}")
    # Areas lie below, vessels on them, then lesions, then the contours of disc and cup.
    rank = {name: i for i, name in enumerate(_ORDER)}
    return sorted(names, key=lambda n: (2 if n in ("disc", "cup") else 0 if n in rank else 1, rank.get(n, 0)))


def _is_in_frame(image: np.ndarray, masks: Masks) -> bool:
    frame, shape = masks.frame, image.shape[:2]
    if masks.native:
        if shape != masks.fov.shape:
            raise ValueError(f"image is {shape[1]}x{shape[0]} px, its masks are {masks.fov.shape[1]}x{masks.fov.shape[0]} px")
        return True
    if shape == (frame.native_height, frame.native_width):
        return False
    if shape == (frame.side, frame.side):
        return True
    raise ValueError(
        f"image is {shape[1]}x{shape[0]} px; expected the photograph's {frame.native_width}x{frame.native_height} px or the frame's "
        f"{frame.side}x{frame.side} px"
    )


def _contour(out: np.ndarray, plane: np.ndarray, colour: np.ndarray, width: int) -> None:
    outlines, _ = cv2.findContours(plane.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, tuple(int(c) for c in colour), width, cv2.LINE_AA)


def _cross(out: np.ndarray, x: float, y: float, side: int, width: int) -> None:
    # Black under white stays visible on a bright exudate as on a dark fovea. Coordinates in 1/16 px: the cross sits where it was found.
    arm, scale = side / 55, 16
    for thick, colour in ((width + 2, (0, 0, 0)), (width, COLOURS["fovea"])):
        for dx, dy in ((arm, 0), (0, arm)):
            a = (round((x - dx) * scale), round((y - dy) * scale))
            b = (round((x + dx) * scale), round((y + dy) * scale))
            cv2.line(out, a, b, colour, thick, cv2.LINE_AA, shift=4)


def _strip(names: list[str], width: int) -> np.ndarray:
    size = max(0.35, width / 1500)
    step, box = round(44 * size), round(22 * size)
    rows: list[list[tuple[int, str]]] = [[]]
    at = box
    for name in names:
        text = cv2.getTextSize(name.replace("_", " "), cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
        if rows[-1] and at + box * 2 + text > width:
            rows.append([])
            at = box
        rows[-1].append((at, name))
        at += box * 3 + text
    strip = np.full((step * len(rows) + box // 2, width, 3), 24, np.uint8)
    for i, row in enumerate(rows):
        y = i * step + box // 2
        for x, name in row:
            cv2.rectangle(strip, (x, y), (x + box, y + box), COLOURS.get(name, OTHER), -1)
            cv2.putText(
                strip,
                name.replace("_", " "),
                (x + box + box // 2, y + box),
                cv2.FONT_HERSHEY_SIMPLEX,
                size,
                (240, 240, 240),
                1,
                cv2.LINE_AA,
            )
    return strip
