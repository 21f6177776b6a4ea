"""Pictures that are no photographs of a retina, for fitting and scoring the not-a-fundus head.

Some come with scikit-image; the others are drawn here: pages of text, OCT-like strips, slit lamp and face-like shapes, noise and ramps.
Each of `KINDS` is drawn in several versions, the odd ones behind a circular aperture like a fundus camera's, so that a round picture
alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from retsam.cohort.reading import read_photograph

SEED = 20
SIDE = 512
#: Drawn versions of each kind; of the fronts of eyes, the commonest strangers in a cohort of fundus photographs, four times as many.
VERSIONS = 8
_EYES = ("slit_lamp", "lit_eye")
# Pictures of retinas among those of scikit-image.
_RETINAS = {"retina.jpg", "microaneurysms.png"}
#: Longest side to which natural pictures are reduced before they are altered, px.
_LONGEST = 800


def _grid() -> tuple[np.ndarray, np.ndarray]:
    ys, xs = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return xs, ys


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Noise of mean 0 and standard deviation near 1 whose grain is ``SIDE / cells`` px."""
    grain = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grain, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def text_page(rng: np.random.Generator) -> np.ndarray:
    """A printed page or a screen: rows of characters, light on dark in a quarter of the versions."""
    paper, ink = rng.uniform(180, 255, 3), rng.uniform(0, 90, 3)
    if rng.random() < 0.25:
        paper, ink = ink, paper
    page = np.full((SIDE, SIDE, 3), paper, np.uint8)
    size = rng.uniform(0.35, 1.1)
    step = int(34 * size) + 6
    letters = "abcdefghiklmnoprstuvwxyz 0123456789 .,:-"
    for y in range(step, SIDE, step):
        row = "".join(rng.choice(list(letters), rng.integers(12, 90)))
        at, thick = (int(rng.uniform(5, 40)), y), max(1, round(2 * size))
        cv2.putText(page, row, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink.tolist(), thick, cv2.LINE_AA)
    return page.astype(np.float32)


def oct_strip(rng: np.random.Generator) -> np.ndarray:
    """An optical coherence tomogram: bright wavy layers with speckle on a dark ground, grey or in false colours."""
    xs, ys = _grid()
    middle = SIDE * rng.uniform(0.4, 0.6) + 25 * np.sin(2 * np.pi * xs / SIDE * rng.uniform(0.5, 1.5) + rng.uniform(0, 6))
    pit = rng.uniform(10, 40) * np.exp(-(((xs - SIDE / 2) / (SIDE / 10)) ** 2))
    layers = np.zeros((SIDE, SIDE), np.float32)
    for offset, thick, bright in zip(np.cumsum(rng.uniform(10, 26, 6)), rng.uniform(3, 12, 6), rng.uniform(60, 220, 6), strict=True):
        layers += bright * np.exp(-(((ys - middle - offset + pit) / thick) ** 2))
    grey = np.clip(layers * rng.gamma(4, 0.25, layers.shape) + rng.gamma(2, 6, layers.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        return cv2.applyColorMap(grey, int(rng.choice([cv2.COLORMAP_JET, cv2.COLORMAP_HOT]))).astype(np.float32)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB).astype(np.float32)


def slit_lamp(rng: np.random.Generator) -> np.ndarray:
    """The front of an eye: iris with radial fibres round a dark pupil, white sclera, the bright slit and its reflex."""
    xs, ys = _grid()
    cx, cy = SIDE * rng.uniform(0.4, 0.6, 2)
    distance, angle = np.hypot(xs - cx, ys - cy), np.arctan2(ys - cy, xs - cx)
    iris, pupil = SIDE * rng.uniform(0.22, 0.34), SIDE * rng.uniform(0.06, 0.13)
    picture = np.array([215, 190, 175], np.float32) * (0.8 + 0.05 * _smooth_noise(rng, 24)[..., None])
    for k in range(12):  # conjunctival vessels
        path = np.cumsum(rng.normal([rng.choice([-9, 9]), 0], 5, (30, 2)), 0) + [rng.uniform(0, SIDE), rng.uniform(0, SIDE)]
        cv2.polylines(picture, [path.astype(np.int32)], False, (190, 90, 80), 1 + k % 2, cv2.LINE_AA)
    colour = np.array([[120, 80, 40], [80, 110, 130], [60, 40, 25]], np.float32)[rng.integers(3)]
    fibres = 1 + 0.25 * np.sin(angle * rng.integers(30, 60) + 3 * _smooth_noise(rng, 12))
    picture = np.where((distance < iris)[..., None], colour * fibres[..., None], picture)
    picture = np.where((distance < pupil)[..., None], np.array([25, 18, 15], np.float32), picture)
    slit = np.exp(-(((xs - cx - rng.uniform(-60, 60)) / rng.uniform(8, 30)) ** 2))
    picture += 150 * slit[..., None] * np.array([1, 0.95, 0.8], np.float32)
    cv2.circle(picture, (int(cx + 20), int(cy - 15)), int(rng.integers(5, 14)), (255, 255, 255), -1, cv2.LINE_AA)
    lid = ys < cy - iris * rng.uniform(0.7, 1.0) + 0.001 * (xs - cx) ** 2
    return np.where(lid[..., None], np.array([200, 150, 125], np.float32) * (0.9 + 0.05 * _smooth_noise(rng, 60)[..., None]), picture)


def lit_eye(rng: np.random.Generator) -> np.ndarray:
    """The front of an eye caught by the camera's own lamp in a dark room: a round glow on black, reflexes, lashes, a grey pupil."""
    xs, ys = _grid()
    cx, cy = SIDE * rng.uniform(0.42, 0.58, 2)
    distance, angle = np.hypot(xs - cx, (ys - cy) * rng.uniform(0.8, 1.1)), np.arctan2(ys - cy, xs - cx)
    reach, iris = SIDE * rng.uniform(0.3, 0.46), SIDE * rng.uniform(0.17, 0.32)
    pupil = iris * rng.uniform(0.3, 0.6)
    # The lamp lights one side more, and its edge is soft where it falls on skin.
    light = 1 / (1 + np.exp((distance - reach) / (reach * rng.uniform(0.02, 0.12))))
    light *= np.clip(1 + rng.uniform(0.2, 0.8) * ((xs - cx) * np.cos(t := rng.uniform(0, 6.3)) + (ys - cy) * np.sin(t)) / reach, 0, 2)
    white = np.array([[205, 160, 110], [200, 190, 140], [190, 90, 50]], np.float32)[rng.integers(3)]
    brown = np.array([[170, 85, 35], [110, 75, 35], [95, 90, 60]], np.float32)[rng.integers(3)]
    fibres = 1 + rng.uniform(0.05, 0.3) * np.sin(angle * rng.integers(20, 50) + 4 * _smooth_noise(rng, 10))
    picture = np.where((distance < iris)[..., None], brown * fibres[..., None], white * (1 + 0.08 * _smooth_noise(rng, 40)[..., None]))
    picture = np.where((distance < pupil)[..., None], rng.uniform(25, 110) * np.array([1, 0.95, 0.7], np.float32), picture)
    # Stray light of the lamp in a cloudy cornea or lens lies over everything.
    picture = (picture + rng.exponential(25) * np.array([1, 0.9, 0.6], np.float32)) * rng.uniform(0.4, 1.1) * light[..., None]
    # The lamp's arc on the cornea and its round reflexes with their halo.
    arc = np.exp(-(((distance - iris * rng.uniform(0.8, 1.05)) / rng.uniform(3, 12)) ** 2))
    arc *= np.cos(angle - rng.uniform(0, 6.3)) > rng.uniform(0.3, 0.8)
    picture += rng.uniform(80, 220) * cv2.GaussianBlur(arc.astype(np.float32), (0, 0), 2)[..., None]
    for _ in range(rng.integers(1, 4)):
        x, y = cx + rng.uniform(-1, 1) * iris, cy + rng.uniform(-1, 1) * iris
        away = np.hypot(xs - x, ys - y) / rng.uniform(4, 40)
        picture += (255 * np.exp(-(away**4)) + rng.uniform(0, 160) * np.exp(-away / 3))[..., None]
    for _ in range(rng.integers(0, 25)):  # lashes
        a = rng.uniform(0.6, 2.5) + rng.choice([0, np.pi])
        start = np.array([cx, cy]) + reach * rng.uniform(0.85, 1.0) * np.array([np.cos(a), np.sin(a)])
        bend = start + reach * rng.uniform(0.1, 0.3) * np.array([np.cos(a + 0.5), -np.sin(a + 0.5)])
        cv2.line(picture, start.astype(int).tolist(), bend.astype(int).tolist(), (12, 8, 5), 2, cv2.LINE_AA)
    return cv2.GaussianBlur(picture.astype(np.float32), (0, 0), rng.uniform(0.6, 6))


def face(rng: np.random.Generator) -> np.ndarray:
    """A face-like shape: an oval of skin with hair, eyes, nose and mouth before a plain wall."""
    picture = np.full((SIDE, SIDE, 3), rng.uniform(40, 230, 3), np.float32)
    skin = np.array([[225, 180, 150], [180, 125, 90], [110, 70, 50]], np.float32)[rng.integers(3)]
    cx, cy = (int(SIDE * v) for v in rng.uniform(0.42, 0.58, 2))
    wide, high = int(SIDE * rng.uniform(0.2, 0.3)), int(SIDE * rng.uniform(0.28, 0.4))
    cv2.ellipse(picture, (cx, cy - high // 4), (int(1.2 * wide), high), 0, 0, 360, rng.uniform(10, 90, 3).tolist(), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (cx, cy), (wide, high), 0, 0, 360, skin.tolist(), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (cx + side * wide // 2, cy - high // 5)
        cv2.ellipse(picture, eye, (wide // 5, wide // 9), 0, 0, 360, (240, 240, 235), -1, cv2.LINE_AA)
        cv2.circle(picture, eye, wide // 10, (50, 35, 25), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (eye[0], eye[1] - wide // 5), (wide // 4, wide // 16), 0, 180, 360, (60, 40, 30), 3, cv2.LINE_AA)
    cv2.line(picture, (cx, cy - high // 8), (cx - wide // 8, cy + high // 5), (0.8 * skin).tolist(), 3, cv2.LINE_AA)
    cv2.ellipse(picture, (cx, cy + high // 2), (wide // 3, wide // 10), 0, 0, 360, (170, 70, 70), -1, cv2.LINE_AA)
    light = 1 + 0.25 * (_grid()[0] / SIDE - 0.5) * rng.choice([-1, 1]) + 0.03 * _smooth_noise(rng, 100)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 3)) * light[..., None]


def clouds(rng: np.random.Generator) -> np.ndarray:
    """A natural texture (bark, cloud, cloth): noise whose power falls with frequency, coloured between two colours."""
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    spectrum = np.fft.rfft2(rng.normal(0, 1, (SIDE, SIDE))) / np.maximum(f, 1 / SIDE) ** rng.uniform(0.7, 1.8)
    plane = np.fft.irfft2(spectrum, (SIDE, SIDE))
    share = 1 / (1 + np.exp(-(plane - plane.mean()) / plane.std()))[..., None]
    first, second = rng.uniform(20, 235, (2, 3))
    return share * first + (1 - share) * second


def uniform(rng: np.random.Generator) -> np.ndarray:
    """A plain colour with the grain of a sensor: the lens cap, a wall."""
    return rng.uniform(15, 240, 3) + rng.normal(0, rng.uniform(0.5, 4), (SIDE, SIDE, 3))


def noise(rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of one grain."""
    grain = int(2 ** rng.integers(4, 10))
    return rng.uniform(60, 200, 3) + 40 * np.stack([_smooth_noise(rng, min(grain, SIDE)) for _ in range(3)], -1)


def ramp(rng: np.random.Generator) -> np.ndarray:
    """A gradient of two colours."""
    xs, ys = _grid()
    return rng.uniform(0, 255, 3) * xs[..., None] / SIDE + rng.uniform(0, 120, 3) * ys[..., None] / SIDE


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    k.__name__: k for k in (text_page, oct_strip, slit_lamp, lit_eye, face, clouds, uniform, noise, ramp)
}


def behind_aperture(picture: np.ndarray) -> np.ndarray:
    """The picture through a round opening: everything outside the largest circle is black."""
    h, w = picture.shape[:2]
    ys, xs = np.mgrid[:h, :w]
    inside = np.hypot(xs - (w - 1) / 2, ys - (h - 1) / 2) < 0.48 * min(h, w)
    return picture * inside[..., None]


def drawn(versions: int = VERSIONS, seed: int = SEED) -> Iterator[tuple[str, np.ndarray]]:
    """Drawn pictures: ``(name, uint8 [512, 512, 3] RGB)``; odd versions are seen through a round aperture.

    Parameters
    ----------
    versions : int
        Of each kind (fronts of eyes: four times as many).
    seed : int
        The same seed draws the same pictures.
    """
    for kind, draw in KINDS.items():
        for version in range(versions * (4 if kind in _EYES else 1)):
            rng = np.random.default_rng([seed, version, *kind.encode()])
            picture = draw(rng)
            picture = behind_aperture(picture) if version % 2 else picture
            yield f"{kind}_{version}", np.clip(picture, 0, 255).astype(np.uint8)


def write_other_pictures(folder: Path) -> list[tuple[str, Path]]:
    """Write the drawn pictures to `folder`; name and path of these and of the pictures that come with scikit-image.

    Returns
    -------
    list of (str, Path)
        Names are ``made:<kind>_<version>`` and ``skimage:<file>``.
    """
    import skimage

    data = Path(skimage.__file__).parent / "data"
    found = [(f"skimage:{p.stem}", p) for p in sorted(data.iterdir()) if p.suffix in (".png", ".jpg") and p.name not in _RETINAS]
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn():
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), picture[..., ::-1])
        found.append((f"made:{name}", path))
    return found


def write_variants(image_id: str, path: Path, folder: Path, only: tuple[str, ...] | None = None) -> list[tuple[str, Path]]:
    """Altered versions of a picture, written to `folder`: blurred, darker, brighter, closer, vivid, framed, seen through an aperture.

    Pictures of something else are few, and each kind of them occurs out of focus and ill-lit too. `only` names the alterations that are
    wanted; all by default.
    """
    rgb = read_photograph(path).rgb.astype(np.float32)
    shrink = max(rgb.shape[:2]) / _LONGEST
    if shrink > 1:
        rgb = cv2.resize(rgb, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    h, w = rgb.shape[:2]
    closer = rgb[h // 5 : h - h // 5, w // 5 : w - w // 5]
    soft = cv2.GaussianBlur(rgb, (0, 0), 0.02 * w)
    made = {
        "blurred": cv2.GaussianBlur(rgb, (0, 0), 0.008 * w),
        "very_blurred": cv2.GaussianBlur(rgb, (0, 0), 0.025 * w),
        "brighter_blurred": 1.5 * cv2.GaussianBlur(rgb, (0, 0), 0.015 * w),
        "darker": 0.5 * rgb,
        "closer_blurred": cv2.GaussianBlur(cv2.resize(closer, (w, h)), (0, 0), 0.015 * w),
        "aperture": behind_aperture(rgb),
        # Sharpened and saturated, as some cameras' software does.
        "vivid": np.clip(1.6 * (rgb + 1.2 * (rgb - soft)) - 0.6 * rgb.mean(2, keepdims=True), 0, 255),
        # On the page or screen that it was cut from.
        "framed": cv2.copyMakeBorder(rgb, h // 12, h // 12, w // 20, w // 20, cv2.BORDER_CONSTANT, value=(250, 250, 250)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, picture in made.items():
        if only is not None and name not in only:
            continue
        target = folder / f"{Path(image_id.replace(':', '_').replace('/', '_')).stem}_{name}.png"
        cv2.imwrite(str(target), np.clip(picture, 0, 255).astype(np.uint8)[..., ::-1])
        found.append((f"{image_id}#{name}", target))
    return found
