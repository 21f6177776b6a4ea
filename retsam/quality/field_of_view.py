"""Field of view: the circle, often cut off, inside which a fundus camera records the retina."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from scipy import ndimage

# Working size: the rim is found to about a quarter of a pixel here, 0.1 % of the diameter.
_WORK_SIDE = 384
# Distance in RGB from the colour of the border at which a pixel counts as lit.
_LIT = 10.0
# Mean of R, G and B from which a border is no camera's, but a page's or a cut-out's.
_PAGE = 130.0
# Distance in RGB within which two patches have one colour.
_SAME = 12.0
# Share of a row that a frame or caption fills with its own colour; the rest may be letters.
_PLAIN = 0.6


@dataclass(frozen=True)
class FieldOfView:
    """Circle of the field of view and the box that the lit part fills.

    Parameters
    ----------
    kind : {'circle', 'cut_off', 'none'}
        Whole circle, circle cut by the sensor or the crop, or no circular rim (the photograph is lit to its corners or nowhere).
    x, y, radius : float
        Centre and radius, native px. For ``none``, the circle around the picture.
    coverage : float
        Share of the circle's area inside the lit box, 0-1.
    left, top, right, bottom : float
        Lit box, native px edges (``right`` and ``bottom`` exclusive).
    width, height : int
        Size of the photograph, px.
    outside : float
        Area of the largest lit part outside the circle over the lit area inside it; about 1 where a picture holds two eyes.
    """

    kind: str
    x: float
    y: float
    radius: float
    coverage: float
    left: float
    top: float
    right: float
    bottom: float
    width: int
    height: int
    outside: float = 0.0

    def mask(self) -> np.ndarray:
        """Bool ``[height, width]``: inside the circle and the lit box."""
        ys, xs = np.ogrid[: self.height, : self.width]
        box = (xs >= self.left - 0.5) & (xs < self.right) & (ys >= self.top - 0.5) & (ys < self.bottom)
        return ((xs - self.x) ** 2 + (ys - self.y) ** 2 <= self.radius**2) & box

    def to_columns(self) -> dict[str, object]:
        """Flat ``fov_*`` columns for a table; inverse of :meth:`from_columns`."""
        row = asdict(self)
        size = {"width": row.pop("width"), "height": row.pop("height")}
        return {f"fov_{name}": value for name, value in row.items()} | size

    @classmethod
    def from_columns(cls, row) -> FieldOfView:
        """Rebuild from a table's row (mapping with ``fov_*``, ``width`` and ``height``)."""
        names = ("kind", "x", "y", "radius", "coverage", "left", "top", "right", "bottom", "outside")
        values = {name: row[f"fov_{name}"] for name in names if f"fov_{name}" in row}
        return cls(
            **{k: (str(v) if k == "kind" else float(v)) for k, v in values.items()}, width=int(row["width"]), height=int(row["height"])
        )


def detect_field_of_view(rgb: np.ndarray) -> FieldOfView:
    """Find the field of view of a fundus photograph.

    A frame or a caption around the photograph is left out. The border's colour is read off the corners (black, the grey of a
    scanned slide, the white of a page); the largest part of the picture that differs from it is the lit part; a circle is fitted to
    those of its edge points that do not lie on the sensor's straight edges, by random sampling and least squares on the inliers.

    Parameters
    ----------
    rgb : ndarray of uint8, [H, W, 3]

    Returns
    -------
    FieldOfView
    """
    height, width = rgb.shape[:2]
    shrink = max(1.0, max(height, width) / _WORK_SIDE)
    size = (max(2, round(width / shrink)), max(2, round(height / shrink)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    sx, sy = width / size[0], height / size[1]
    left, top, right, bottom = _without_frame(small)
    found = _circle_and_box(small[top:bottom, left:right])
    if found is None:
        return _whole(width, height)
    (x, y, r), box, outside = found
    x, y, box = x + left, y + top, box + [left, top, left, top]
    # Shrunken pixel centres to native ones.
    scale = (sx + sy) / 2
    native = np.array([box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy])
    cx, cy, radius = (x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5, r * scale
    # The lit box is known to a working pixel: within that of the circle's edge, or of the picture's, it is that edge.
    limits = left * sx, top * sy, width - (size[0] - right) * sx, height - (size[1] - bottom) * sy
    cut = np.array([native[0] - (cx - radius), native[1] - (cy - radius), (cx + radius) - native[2], (cy + radius) - native[3]])
    slack = max(0.015 * 2 * radius, 1.5 * scale)
    for i, limit in enumerate(limits):
        if cut[i] <= slack or abs(native[i] - limit) <= 1.5 * scale:
            native[i] = max(limit, (cx, cy)[i] - radius) if i < 2 else min(limit, (cx, cy)[i - 2] + radius + 1)
    cut_off = bool((cut > slack).any())
    fov = FieldOfView("cut_off" if cut_off else "circle", cx, cy, radius, 1.0, *map(float, native), width, height, outside)
    return FieldOfView(**{**asdict(fov), "coverage": _coverage(fov)})


@dataclass(frozen=True)
class _Fit:
    """Circle (x, y, r), lit box, share of the edge points on the circle, and the threshold that found them; working px."""

    circle: tuple[float, float, float]
    box: np.ndarray
    support: float
    threshold: float


def _circle_and_box(small: np.ndarray) -> tuple[tuple[float, float, float], np.ndarray, float] | None:
    """Circle (x, y, r), lit box and `FieldOfView.outside` at the working size; None where no rim is found.

    A faint glow outside the rim (scanned slides) needs a higher threshold, a dim retina a lower one: thresholds are tried from low
    to high until one gives an edge most of which is one circle.
    """
    distance, noise, bright, page = _distance_to_border(small)
    if distance is None:
        return None
    # A caption lit from edge to edge widens the box: the box's shorter side is asked where its longer one finds nothing.
    for side in (max, min):
        best = None
        for share in (0.06, 0.12, 0.2, 0.3):
            found = _fitted(distance, max(_LIT, 4 * noise, share * bright), side)
            if found is None:
                continue
            if best is None or found.support > best.support + 0.05:
                best = found
            if found.support > 0.75:
                break
        if best is not None and best.support >= 0.35:
            radius = _half_height_radius(distance if page else small.max(2), *best.circle, best.box)
            return (*best.circle[:2], radius), best.box, _lit_outside(distance > best.threshold, best.circle)
    return None


def _fitted(distance: np.ndarray, threshold: float, side: Callable[[float, float], float]) -> _Fit | None:
    """Circle of the part of the picture that is lit above a threshold."""
    lit = _lit_part(distance > threshold)
    if lit is None:
        return None
    rows, cols = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    box = np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], float)
    points = _rim_points(lit)
    circle = _fit_circle(points, min(lit.shape)) if len(points) >= 20 else None
    if circle is None:
        return None
    *xyr, support = circle
    sides = box[2] - box[0], box[3] - box[1]
    # A circle much larger than what is lit, or much smaller, is an accident of the fit.
    return _Fit(tuple(xyr), box, support, threshold) if 0.42 * side(*sides) <= xyr[2] <= max(sides) else None


def _without_frame(small: np.ndarray) -> tuple[int, int, int, int]:
    """Part of the picture (left, top, right, bottom) inside margins of one colour that are brighter than the corners within.

    Frames of screenshots and captions are such margins; a camera's own border has the colour of the corners.
    """
    h, w = small.shape[:2]
    views = (small.swapaxes(0, 1), small, small[:, ::-1].swapaxes(0, 1), small[::-1])
    counts = [_plain_rows(view) for view in views]
    if counts[0] + counts[2] > w / 2 or counts[1] + counts[3] > h / 2:  # too little is left for a photograph in a frame
        return 0, 0, w, h
    k = max(2, min(h, w) // 60)
    kept = []
    for side, view in enumerate(views):
        first, last = (counts[1 - side % 2], counts[3 - side % 2])
        within = view[counts[side] : counts[side] + k, first : view.shape[1] - last]
        corners = np.concatenate([within[:, :k], within[:, -k:]], 1).reshape(-1, 3)
        frame = len(corners) and np.median(corners, 0).mean() < np.median(view[0], 0).mean() - 2 * _SAME
        kept.append(counts[side] if frame else 0)
    return kept[0], kept[1], w - kept[2], h - kept[3]


def _plain_rows(rows: np.ndarray) -> int:
    """How many of the first rows have the first one's colour, letters aside, and the one after them, a mixture; 0 where all have."""
    colour = np.median(rows[0], 0)
    if colour.mean() <= 2 * _SAME:  # as dark as a camera's border
        return 0
    near = np.linalg.norm(rows - colour, axis=2) <= _SAME
    plain = near.mean(1) >= _PLAIN
    # A first row whose ends have another colour is a retina's, cut off.
    k = max(2, rows.shape[1] // 60)
    ends = min(near[0, :k].mean(), near[0, -k:].mean())
    return int(np.argmin(plain)) + 1 if plain[0] and ends > 0.5 and not plain.all() else 0


def _half_height_radius(light: np.ndarray, x: float, y: float, radius: float, box: np.ndarray) -> float:
    """Radius at which the rim falls to half of what it is just inside.

    The low threshold that a dim retina needs lies at the foot of the rim, a pixel or two too far out.
    """
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    steps = np.arange(-7.0, 3.01, 0.5)
    px = (x + np.outer(radius + steps, np.cos(angles))).astype(np.float32)
    py = (y + np.outer(radius + steps, np.sin(angles))).astype(np.float32)
    inside = ((px > max(box[0], 1)) & (px < min(box[2], light.shape[1] - 1) - 1) & (py > max(box[1], 1)) & (py < box[3] - 2)).all(0)
    if inside.sum() < 24:
        return radius
    profile = np.median(cv2.remap(light, px[:, inside], py[:, inside], cv2.INTER_LINEAR), axis=1)
    high, low = profile[:4].mean(), profile[-1]
    below = np.flatnonzero(profile < (high + low) / 2)
    return radius + float(np.clip(steps[below[0]] - 0.25, -3, 1)) if high > low + 5 and len(below) else radius


def _whole(width: int, height: int) -> FieldOfView:
    radius = float(np.hypot(width, height) / 2)
    coverage = width * height / (np.pi * radius**2)
    return FieldOfView("none", (width - 1) / 2, (height - 1) / 2, radius, coverage, 0.0, 0.0, float(width), float(height), width, height)


def _distance_to_border(small: np.ndarray) -> tuple[np.ndarray | None, float, float, bool]:
    """RGB distance of each pixel to the border's colour, that colour's noise, the distance of the bright part, and if a page shows."""
    h, w = small.shape[:2]
    k = max(2, min(h, w) // 60)
    corners = np.stack([small[:k, :k], small[:k, -k:], small[-k:, :k], small[-k:, -k:]]).reshape(4, -1, 3)
    medians = np.median(corners, 1)
    # A timestamp or a notch may sit in one corner: the border is the darkest three of the corners.
    order = np.argsort(medians.sum(1))
    darkest = medians[order[:3]]
    border = np.median(darkest, 0)
    if np.abs(darkest - border).max() > 40:  # corners that disagree are lit, but perhaps not all
        border = medians[order[0]]
    page = bool(border.mean() > _PAGE)
    if page and np.abs(medians - border).max() > _SAME:  # bright corners that differ: the picture is lit to its corners
        return None, 0.0, 0.0, True
    distance = np.linalg.norm(cv2.GaussianBlur(small, (0, 0), 1.0) - border, axis=2)
    noise = float(np.median(np.abs(corners[order[:3]] - border)))
    bright = float(np.percentile(distance, 90))
    return (distance if bright >= 2 * _LIT else None), noise, bright, page


def _opened(lit: np.ndarray) -> np.ndarray:
    """Lit pixels (uint8) without specks, letters and thin lines."""
    return cv2.morphologyEx(lit.astype(np.uint8), cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))


def _lit_part(lit: np.ndarray) -> np.ndarray | None:
    """Largest connected part, holes filled; None where it is too small to be a retina or fills the picture."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_opened(lit), connectivity=4)
    if count < 2:
        return None
    part = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
    return part if 0.05 < part.mean() < 0.995 else None


def _lit_outside(lit: np.ndarray, circle: tuple[float, float, float]) -> float:
    """Area of the largest lit part outside the circle over the lit area inside it."""
    ys, xs = np.ogrid[: lit.shape[0], : lit.shape[1]]
    outside = (xs - circle[0]) ** 2 + (ys - circle[1]) ** 2 > (circle[2] + 3) ** 2
    areas = cv2.connectedComponentsWithStats(_opened(lit & outside), connectivity=4)[2][1:, cv2.CC_STAT_AREA]
    return float(areas.max(initial=0) / max(1, (lit & ~outside).sum()))


def _rim_points(lit: np.ndarray) -> np.ndarray:
    """Edge points ``[n, 2]`` (x, y) of the lit part, without those on the picture's own edges."""
    h, w = lit.shape
    rows, cols = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    left, right = lit[rows].argmax(1), w - 1 - lit[rows, ::-1].argmax(1)
    top, bottom = lit[:, cols].argmax(0), h - 1 - lit[::-1, cols].argmax(0)
    points = np.concatenate(
        [
            np.stack([left - 0.5, rows], 1),
            np.stack([right + 0.5, rows], 1),
            np.stack([cols, top - 0.5], 1),
            np.stack([cols, bottom + 0.5], 1),
        ]
    ).astype(float)
    inside = (points[:, 0] > 1) & (points[:, 0] < w - 2) & (points[:, 1] > 1) & (points[:, 1] < h - 2)
    points = points[inside]
    # Straight horizontal or vertical cuts inside the picture would pull the circle: a coordinate that many points share is a cut.
    keep = np.ones(len(points), bool)
    for axis, limit in ((0, h), (1, w)):
        values, counts = np.unique(np.round(points[:, axis]), return_counts=True)
        straight = values[counts > 0.22 * limit]
        keep &= ~(np.abs(points[:, axis, None] - straight[None]) <= 1.5).any(1)
    return points[keep]


def _fit_circle(points: np.ndarray, span: int) -> tuple[float, float, float, float] | None:
    """Robust circle: ``(x, y, r, share of inliers)``."""
    rng = np.random.default_rng(0)
    picks = np.stack([rng.integers(0, len(points), 400) for _ in range(3)], 1)
    a, b, c = points[picks[:, 0]], points[picks[:, 1]], points[picks[:, 2]]
    # Circumcentres of all triples at once.
    d = 2 * (a[:, 0] * (b[:, 1] - c[:, 1]) + b[:, 0] * (c[:, 1] - a[:, 1]) + c[:, 0] * (a[:, 1] - b[:, 1]))
    good = np.abs(d) > 0.02 * span**2
    if not good.any():
        return None
    a, b, c, d = a[good], b[good], c[good], d[good]
    a2, b2, c2 = (a**2).sum(1), (b**2).sum(1), (c**2).sum(1)
    x = (a2 * (b[:, 1] - c[:, 1]) + b2 * (c[:, 1] - a[:, 1]) + c2 * (a[:, 1] - b[:, 1])) / d
    y = (a2 * (c[:, 0] - b[:, 0]) + b2 * (a[:, 0] - c[:, 0]) + c2 * (b[:, 0] - a[:, 0])) / d
    r = np.hypot(a[:, 0] - x, a[:, 1] - y)
    distance = np.abs(np.hypot(points[None, :, 0] - x[:, None], points[None, :, 1] - y[:, None]) - r[:, None])
    best = int(np.argmax((distance < 1.5).sum(1) - 1e-3 * r))
    inliers = distance[best] < 2.0
    cx, cy, radius = x[best], y[best], r[best]
    for _ in range(4):
        p = points[inliers]
        if len(p) < 8:
            break
        # Algebraic (Kasa) fit: x^2 + y^2 + Dx + Ey + F = 0.
        solution, *_ = np.linalg.lstsq(np.column_stack([p, np.ones(len(p))]), -(p**2).sum(1), rcond=None)
        cx, cy = -solution[0] / 2, -solution[1] / 2
        radius = float(np.sqrt(max(cx**2 + cy**2 - solution[2], 0)))
        inliers = np.abs(np.hypot(points[:, 0] - cx, points[:, 1] - cy) - radius) < 1.5
    return float(cx), float(cy), float(radius), float(inliers.mean())


def _coverage(fov: FieldOfView) -> float:
    """Share of the circle inside the lit box, by integrating its chords."""
    t = (np.arange(512) + 0.5) / 512 * 2 - 1
    ys = fov.y + 0.5 + fov.radius * t
    half = fov.radius * np.sqrt(1 - t**2)
    inside = (ys >= fov.top) & (ys <= fov.bottom)
    chord = np.clip(np.minimum(fov.x + 0.5 + half, fov.right) - np.maximum(fov.x + 0.5 - half, fov.left), 0, None)
    return float(np.clip((chord * inside).sum() / (2 * half).sum(), 0, 1))
