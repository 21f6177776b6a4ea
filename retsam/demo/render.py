"""A colour fundus photograph rendered from parameters, with the truth of every mask and of what it was generated from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retsam.demo.geometry import Projection, fovea_position
from retsam.demo.lesions import Lesion, place_lesions
from retsam.demo.paint import paint_background, paint_disc, paint_lesions, paint_vessels
from retsam.demo.parameters import EyeParameters
from retsam.demo.photograph import field_of_view, photograph
from retsam.demo.raster import draw_vessel
from retsam.demo.truth import eye_truth
from retsam.demo.vessels import Segment, grow_vessels

if TYPE_CHECKING:
    from retsam.masks.masks import Masks

__all__ = ["RenderedEye", "render_eye"]


@dataclass
class RenderedEye:
    """A photograph and its truth.

    Attributes
    ----------
    rgb : ndarray uint8 [H, W, 3]
    coverage : dict of str to ndarray float32 [H, W]
        Share of each pixel that a target covers (anti-aliased), per canonical target name.
    fov : ndarray bool [H, W]
    fovea : tuple of float
        Pixels (x, y).
    truth : dict
        Biomarkers known from the generating geometry (`retsam.demo.truth.eye_truth`).
    parameters : EyeParameters
    segments : list of Segment
        Vessels in the eye's frame, millimetres.
    lesions : list of Lesion
    projection : Projection
        From the eye's frame to pixels.
    """

    rgb: np.ndarray
    coverage: dict[str, np.ndarray]
    fov: np.ndarray
    fovea: tuple[float, float]
    truth: dict[str, Any]
    parameters: EyeParameters
    segments: list[Segment]
    lesions: list[Lesion]
    projection: Projection

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Bool [H, W] planes: pixels covered by half or more, inside the field of view."""
        return {name: (plane >= 0.5) & self.fov for name, plane in self.coverage.items()}

    def to_masks(self, image_id: str = "") -> Masks:
        """The truth as `retsam.masks.Masks` at native size, ready for `retsam.measure`."""
        from retsam.masks import Frame, Masks
        from retsam.segmentation.targets import TARGETS

        planes = self.masks
        height, width = self.fov.shape
        return Masks(
            planes=planes,
            fov=self.fov,
            frame=Frame.identity(width, height),
            fovea=self.fovea,
            fovea_confidence=1.0,
            eye=self.parameters.eye,
            image_id=image_id,
            um_per_px=1000 / self.projection.px_per_mm,
            # Drawn, as the masks are that a supervised head learns from; a store knows no other word for what is there.
            status={target: "supervised" if target in planes or target == "fovea" else "not_available" for target in TARGETS},
            confidence={target: 1.0 for target in planes},
            native=True,
        )


def _draw_trees(segments: list[Segment], projection: Projection) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Coverage, offset from the centreline and local width (mm) of each kind."""
    shape, unit = (projection.height, projection.width), projection.px_per_mm
    fields = {}
    for kind in ("artery", "vein"):
        coverage, offset, width = np.zeros(shape, np.float32), np.full(shape, 9.0, np.float32), np.zeros(shape, np.float32)
        for segment in segments:
            if segment.kind == kind:
                draw_vessel(projection.to_pixels(segment.points), segment.width * unit, coverage, offset, width, segment.width)
        fields[kind] = (coverage, offset, width)
    return fields


def _stable_seed(parameters: EyeParameters, seed: int) -> np.random.SeedSequence:
    """Same seed, other eye of a pair: other vessels; the same parameters and seed: the same picture."""
    text = json.dumps({"eye": parameters.eye}, sort_keys=True)
    return np.random.SeedSequence([int(seed) & 0xFFFFFFFFFFFFFFFF, int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")])


def render_eye(parameters: EyeParameters, seed: int) -> RenderedEye:
    """Render one photograph.

    Parameters
    ----------
    parameters : EyeParameters
    seed : int
        Fixes the vessels, lesions, texture and noise. They draw from separate streams: an eye that gains lesions keeps its vessels.

    Returns
    -------
    RenderedEye

    Raises
    ------
    ValueError
        Where the requested lesions do not fit in the field of view.

    Examples
    --------
    >>> eye = render_eye(EyeParameters(size=512, cdr_vertical=0.6), seed=7)
    >>> eye.rgb.shape
    (512, 512, 3)
    >>> round(eye.truth["cdr_vertical"], 3)
    0.6
    """
    projection = Projection.of(parameters)
    streams = [np.random.default_rng(part) for part in _stable_seed(parameters, seed).spawn(6)]
    fovea = fovea_position(parameters)
    view = (*projection.view, projection.radius / projection.px_per_mm)
    thinnest = max(0.022, 1.6 / projection.px_per_mm)
    segments = grow_vessels(parameters, streams[0], fovea, view, thinnest)
    fields = _draw_trees(segments, projection)
    vessel = np.maximum(fields["artery"][0], fields["vein"][0])

    def busy(x: float, y: float) -> bool:
        column, row = projection.to_pixels(np.array([x, y])).round().astype(int)
        return bool(vessel[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].max(initial=0) > 0)

    lesions = place_lesions(parameters, streams[1], fovea, view, 1 / projection.px_per_mm, projection.inside, busy)
    grid = projection.grid()
    scene = paint_background(parameters, projection, grid, streams[2])
    coverage = paint_disc(scene, parameters, projection, grid, streams[3])
    # Exudates, drusen and cotton wool lie in or under the retina that vessels cross; blood lies on it.
    bright = [lesion for lesion in lesions if lesion.kind in ("hard_exudate", "drusen")]
    other = [lesion for lesion in lesions if lesion.kind not in ("hard_exudate", "drusen")]
    lesion_masks = paint_lesions(scene, bright, parameters, projection, streams[4])
    paint_vessels(scene, fields, coverage["disc"], coverage["cup"], projection.px_per_mm, streams[2])
    for name, plane in paint_lesions(scene, other, parameters, projection, streams[4]).items():
        lesion_masks[name] = np.maximum(lesion_masks[name], plane)
    rgb = photograph(scene, parameters, projection, streams[5])
    coverage = {"artery": fields["artery"][0], "vein": fields["vein"][0], "vessel": vessel, **coverage, **lesion_masks}
    fov = field_of_view(projection) >= 0.5
    x, y = projection.to_pixels(fovea)
    return RenderedEye(
        rgb,
        coverage,
        fov,
        (float(x), float(y)),
        eye_truth(parameters, projection, segments, lesions, fov),
        parameters,
        segments,
        lesions,
        projection,
    )
