"""A segmenter that knows the truth, or a stated distortion of it, for tests of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retsam.masks import Frame, Masks
from retsam.segmentation.targets import TARGETS

HEADS = ("artery", "vein", "vessel", "disc", "cup", "microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")
STATUS = {t: "supervised" if t in (*HEADS, "fovea", "tessellation") else "not_available" for t in TARGETS}


@dataclass
class FakePrediction:
    probabilities: dict[str, np.ndarray]
    fov: np.ndarray
    frame: Frame
    fovea: tuple[float, float] | None
    fovea_confidence: float = 0.9
    thresholds: dict[str, float] = field(default_factory=dict)

    def masks(self, image_id="", eye=None, um_per_px=None) -> Masks:
        planes = {name: p >= 0.5 for name, p in self.probabilities.items()}
        return Masks(planes, self.fov, self.frame, self.fovea, self.fovea_confidence, eye, image_id, um_per_px, STATUS)


class FakeSegmenter:
    """Predicts what ``answers`` holds for the image whose first pixel has that red value; raises for those in ``broken``."""

    weights_sha256 = "0" * 64
    target_status = STATUS
    pens: dict = {"vessels": ["drive"]}
    pen = None

    def __init__(self, answers=None, broken=(), batch_size=3, **options):
        self.answers, self.broken, self.batch_size, self.options = answers or {}, set(broken), batch_size, options
        self.batches: list[int] = []
        self.drawn_in: list[str | None] = []

    def use_pen(self, pen):
        self.pen = pen

    def predict(self, images, fovs=None):
        self.batches.append(len(images))
        self.drawn_in.append(self.pen)
        out = []
        for image in images:
            key = int(image[0, 0, 0])
            if key in self.broken:
                raise RuntimeError(f"image {key} is beyond me")
            planes, fovea = self.answers.get(key, ({}, None))
            height, width = image.shape[:2]
            side = max(height, width)
            frame = Frame.from_square(0, 0, side, side, width, height)
            probabilities = {}
            for name in (*HEADS, *[n for n in planes if n not in HEADS]):
                full = np.zeros((side, side), np.float16)
                if name in planes:
                    full[:height, :width] = planes[name]
                probabilities[name] = full
            out.append(FakePrediction(probabilities, np.ones((side, side), bool), frame, fovea))
        return out


def ellipse(shape, x, y, a, b) -> np.ndarray:
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2 <= 1
