"""Image metrics of a fundus photograph, all measured at one working scale of the field of view, so that cameras compare.

The field of view is resampled so that its diameter is `WORK_SIDE` pixels (about 34 micrometres a pixel for a 45-degree camera). Resolution
therefore enters as a metric of its own (`fov_diameter_px`), not as blur. Intensities are fractions of full scale.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from retsam.masks.frame import Frame
from retsam.quality.field_of_view import FieldOfView, detect_field_of_view
from retsam.quality.profile import PROFILE, colour_profile

#: Diameter of the field of view at which metrics are measured, px.
WORK_SIDE = 384
# Cells a side of the grid over which weak spots are looked for.
_GRID = 8
#: Standard deviations (working px) between which detail is measured: capillaries and grain, small, middle and large vessels, disc.
_BANDS = ((0.6, 1.2), (1.2, 2.4), (2.4, 4.8), (4.8, 9.6), (9.6, 19.2))
# Dark current and quantisation put a floor under ratios; 2 % of full scale keeps them finite in black pictures.
_FLOOR = 0.02

#: Metrics and what they are, in the order of the table.
METRICS: dict[str, str] = {
    "fov_diameter_px": "Diameter of the field of view, native px.",
    "sharpness": "Log10 of the RMS local contrast of fine detail (standard deviations 1.2 to 2.4 working px) above noise.",
    "sharpness_fine": "The same for the finest detail (0.6 to 1.2 working px).",
    "sharpness_medium": "The same for middle vessels (2.4 to 4.8 working px).",
    "sharpness_coarse": "The same for large vessels (4.8 to 9.6 working px).",
    "sharpness_low": "The same for the disc and macula (9.6 to 19.2 working px).",
    "sharpness_weak": "25th percentile over an 8 x 8 grid of the contrast of small vessels (1.2 to 4.8 working px), log10.",
    "sharpness_best": "90th percentile over the grid of the same.",
    "native_sharpness": "Share of the finest detail's contrast at native resolution, log10; compares photographs of one camera only.",
    "noise": "Log10 of the standard deviation of pixel noise relative to local brightness.",
    "illumination": "Evenness of light: 5th over 95th percentile of the green background (0 uneven to 1 even).",
    "shadow": "Share of the field whose background is below 40 % of the median background.",
    "glare": "Share of the field whose background is above 1.8 times the median background.",
    "brightness": "Median of the green channel.",
    "brightness_red": "Median of the red channel.",
    "darkness": "Share of the field where the brightest channel is below 12 %.",
    "saturation": "Share of the field where green is at full scale (above 98 %).",
    "saturation_red": "Share of the field where red is at full scale.",
    "contrast": "Standard deviation of log green about its background.",
    "contrast_weak": "20th percentile over an 8 x 8 grid of the local standard deviation of log green.",
    "vessel": "Log10 of the 97th percentile of the response to dark lines (largest eigenvalue of the Hessian of log green).",
    "vessel_coverage": "Share of grid cells in which dark lines stand out from noise and from bright lines.",
    "vessel_weak": "Log10 of the 25th percentile over grid cells of each cell's 95th percentile of the response to dark lines.",
    "vessel_linearity": "How much dark lines look like lines rather than spots (1 - ratio of Hessian eigenvalues), at the strongest 5 %.",
    "line_redness": "How much more dark lines darken green than red (0 for shadows, ink and lashes, near 1 for blood).",
    "vessel_tree": "Length of connected dark lines, in diameters of the field, log10 of 0.1 + sum of the longer components' extents.",
    "line_balance": "Log10 of the response to dark lines over that to bright lines.",
    "red_share": "Red over the sum of channels, median.",
    "blue_share": "Blue over the sum of channels, median.",
    "colour_spread": "Spread of the chromaticity over the field (interquartile range of red share plus that of blue share).",
    "not_red": "Share of the field that is not redder than green and blue, as no retina is.",
    "edge_strength": "Log10 of the 99th percentile of the gradient of log green: hard edges that no retina has.",
    "disc": "Contrast of the brightest round patch of the disc's size against its surroundings, in log green.",
    "rim": "Share of the circle's rim that is a step from light to dark.",
    **PROFILE,
}


def content_hash(rgb: np.ndarray) -> str:
    """Hash of decoded pixels: the same for copies, renamed files and other lossless formats.

    Parameters
    ----------
    rgb : ndarray of uint8, [H, W, 3]

    Returns
    -------
    str
        32 hexadecimal digits (half of the SHA-256 of shape and pixels).
    """
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]};".encode(), usedforsecurity=False)
    digest.update(np.ascontiguousarray(rgb))
    return digest.hexdigest()[:32]


def perceptual_hash(frame: np.ndarray) -> str:
    """256-bit hash of the field of view that survives resizing and recompression.

    Signs of 256 low frequencies of the discrete cosine transform of the green channel of the frame, about their median
    (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, with a finer grid).

    Parameters
    ----------
    frame : ndarray of uint8, [S, S, 3]
        Field of view in the working frame.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    small = cv2.resize(frame[..., 1], (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The lowest frequency is brightness; the next ones the circle that all photographs share. 1..16 in both directions are used.
    block = cv2.dct(small)[1:17, 1:17]
    return np.packbits(block > np.median(block)).tobytes().hex()


def measure_quality(rgb: np.ndarray, fov: FieldOfView | None = None) -> dict[str, object]:
    """Metrics of one photograph.

    Parameters
    ----------
    rgb : ndarray of uint8, [H, W, 3]
    fov : FieldOfView, optional
        Found if left out.

    Returns
    -------
    dict
        The columns of `METRICS`, the field of view's, ``content_hash`` and ``perceptual_hash``.
    """
    fov = detect_field_of_view(rgb) if fov is None else fov
    work, inside = working_picture(rgb, fov)
    row: dict[str, object] = dict(fov.to_columns())
    row["fov_diameter_px"] = 2 * fov.radius
    row |= working_metrics(work, inside)
    row |= colour_profile(work, inside)
    row["native_sharpness"] = _native_sharpness(rgb, fov)
    row["rim"] = _rim(rgb, fov)
    row["content_hash"] = content_hash(rgb)
    row["perceptual_hash"] = perceptual_hash(work)
    return row


def working_picture(rgb: np.ndarray, fov: FieldOfView) -> tuple[np.ndarray, np.ndarray]:
    """Field of view at the working scale, uint8 ``[S, S, 3]``, and where it is measured, bool ``[S, S]``."""
    shrink = int(2 * fov.radius / (2 * WORK_SIDE))
    if shrink > 1:
        # Averaging whole blocks first is several times faster than one step and gives the same up to rounding.
        small = cv2.resize(rgb, (max(1, fov.width // shrink), max(1, fov.height // shrink)), interpolation=cv2.INTER_AREA)
        sx, sy = small.shape[1] / fov.width, small.shape[0] / fov.height
        s = (sx + sy) / 2
        small_fov = FieldOfView(
            fov.kind, (fov.x + 0.5) * sx - 0.5, (fov.y + 0.5) * sy - 0.5, fov.radius * s, fov.coverage,
            fov.left * sx, fov.top * sy, fov.right * sx, fov.bottom * sy, small.shape[1], small.shape[0],
        )  # fmt: skip
        rgb, fov = small, small_fov
    frame = Frame.from_field_of_view(fov, WORK_SIDE)
    inside = _inside(fov, frame)
    # A circle that lies almost wholly outside its picture is an accident of detection: measure the picture as it is.
    return frame.warp(rgb), inside if inside.mean() > 0.02 else np.ones_like(inside)


def _inside(fov: FieldOfView, frame: Frame) -> np.ndarray:
    """Bool ``[S, S]``: the field of view without its outermost 4 %, where optics shade and the rim would count as detail."""
    ys, xs = np.mgrid[: frame.side, : frame.side].astype(np.float32)
    native = frame.to_native(np.stack([xs, ys], -1))
    margin = 0.04 * 2 * fov.radius
    circle = (native[..., 0] - fov.x) ** 2 + (native[..., 1] - fov.y) ** 2 <= (fov.radius - (margin if fov.kind != "none" else 0)) ** 2
    x, y = native[..., 0] + 0.5, native[..., 1] + 0.5
    return circle & (x >= fov.left + margin) & (x <= fov.right - margin) & (y >= fov.top + margin) & (y <= fov.bottom - margin)


def _blur(plane: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the pixels inside the field only (normalised convolution)."""
    size = (0, 0)
    # Large blurs are taken at a quarter of the size: they hold nothing finer.
    if sigma >= 8:
        small = (plane.shape[1] // 4, plane.shape[0] // 4)
        top = cv2.GaussianBlur(cv2.resize(plane * weight, small, interpolation=cv2.INTER_AREA), size, sigma / 4)
        bottom = cv2.GaussianBlur(cv2.resize(weight, small, interpolation=cv2.INTER_AREA), size, sigma / 4)
        return cv2.resize(top / np.maximum(bottom, 1e-3), plane.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(plane * weight, size, sigma) / np.maximum(cv2.GaussianBlur(weight, size, sigma), 1e-3)


def working_metrics(work: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Metrics of a field of view in the working frame.

    Parameters
    ----------
    work : ndarray of uint8, [S, S, 3]
    inside : ndarray of bool, [S, S]
        Field of view without its rim.

    Returns
    -------
    dict
        Those of `METRICS` that need no native pixels.
    """
    green = work[..., 1].astype(np.float32) / 255.0
    weight = inside.astype(np.float32)
    pixels = work[inside].astype(np.float32) / 255.0
    r, g, b = pixels.T
    total = np.maximum(pixels.sum(1), 3 * _FLOOR)
    background = _blur(green, weight, WORK_SIDE / 16)
    light = background[inside]
    low, middle, high = np.percentile(light, [5, 50, 95])
    middle = max(float(middle), _FLOOR)
    log_green = np.log(np.maximum(green, 0) + _FLOOR)
    detail = (log_green - np.log(np.maximum(background, 0) + _FLOOR)) * weight

    red_quartiles, blue_quartiles = (np.percentile(c / total, [25, 50, 75]) for c in (r, b))
    row = {
        "illumination": float((low + _FLOOR) / (high + _FLOOR)),
        "shadow": float((light < 0.4 * middle).mean()),
        "glare": float((light > 1.8 * middle).mean()),
        "brightness": float(np.median(g)),
        "brightness_red": float(np.median(r)),
        "darkness": float((pixels.max(1) < 0.12).mean()),
        "saturation": float((g > 0.98).mean()),
        "saturation_red": float((r > 0.98).mean()),
        "contrast": float(detail[inside].std()),
        "red_share": float(red_quartiles[1]),
        "blue_share": float(blue_quartiles[1]),
        "not_red": float(((r < 1.05 * g) | (r < 1.05 * b)).mean()),
    }
    row["colour_spread"] = float(red_quartiles[2] - red_quartiles[0] + blue_quartiles[2] - blue_quartiles[0])
    row |= _detail_bands(log_green, weight, inside)
    red = work[..., 0].astype(np.float32) / 255.0
    red_background = _blur(red, weight, WORK_SIDE / 16)
    row |= _lines(detail, (np.log(red + _FLOOR) - np.log(np.maximum(red_background, 0) + _FLOOR)) * weight, inside)
    row["contrast_weak"] = float(np.percentile(_cell_means(detail**2, inside), 20) ** 0.5)
    row["disc"] = _disc(detail, weight, inside)
    return row


def _log10(value: float, floor: float = 1e-5) -> float:
    return float(np.log10(max(float(value), floor)))


def _detail_bands(log_green: np.ndarray, weight: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """RMS local contrast in octaves, with the variance that white noise alone would put there taken off."""
    # Immerkaer's estimate: a difference of Laplacians is blind to anything that varies slowly ("Fast noise variance estimation", 1996).
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6.0
    noise = 1.4826 * float(np.median(np.abs(cv2.filter2D(log_green, -1, kernel)[inside])))
    row = {"noise": _log10(noise)}
    names = ("sharpness_fine", "sharpness", "sharpness_medium", "sharpness_coarse", "sharpness_low")
    blurred = {s: _blur(log_green, weight, s) for s in sorted({s for band in _BANDS for s in band})}
    for name, (fine, coarse) in zip(names, _BANDS, strict=True):
        # A third of the pixels tells as much: neighbours in a band are not independent.
        band = (blurred[fine] - blurred[coarse])[inside][::3]
        # Variance of a difference of Gaussians of unit white noise, continuous approximation.
        gain = (1 / fine**2 + 1 / coarse**2) / (4 * np.pi) - 1 / (np.pi * (fine**2 + coarse**2))
        # Outliers (specks, the time stamp) must not make a blurred photograph sharp: the middle 98 % count.
        limits = np.percentile(band, [1, 99])
        variance = float(np.clip(band, *limits).var()) - gain * noise**2
        row[name] = _log10(max(variance, 0.0) ** 0.5, 1e-4)
    cells = np.sqrt(_cell_means((blurred[1.2] - blurred[4.8]) ** 2, inside))
    row["sharpness_weak"], row["sharpness_best"] = (_log10(v, 1e-4) for v in np.percentile(cells, [25, 90]))
    return row


def _lines(detail: np.ndarray, red_detail: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Visibility of dark lines (vessels), how it is spread over the field, and whether they have the colour of blood."""
    core = cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    if not core.any():
        core = inside
    dark, bright, line = np.zeros_like(detail), np.zeros_like(detail), np.zeros_like(detail)
    for sigma in (1.5, 3.0):
        smooth = cv2.GaussianBlur(detail, (0, 0), sigma)
        # OpenCV's 3 x 3 Sobel derivatives carry a gain: 4 for second derivatives along an axis, 4 for the mixed one.
        xx = cv2.Sobel(smooth, cv2.CV_32F, 2, 0, ksize=3) * (sigma**2 / 4)
        yy = cv2.Sobel(smooth, cv2.CV_32F, 0, 2, ksize=3) * (sigma**2 / 4)
        xy = cv2.Sobel(smooth, cv2.CV_32F, 1, 1, ksize=3) * (sigma**2 / 4)
        mean, root = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        high, low = mean + root, mean - root
        # A dark line curves up across it and not along it.
        response = np.maximum(high - np.abs(low), 0)
        better = response > dark
        line[better] = (1 - np.abs(low) / np.maximum(np.abs(high), 1e-6))[better]
        dark = np.maximum(dark, response)
        bright = np.maximum(bright, np.maximum(-low - np.abs(high), 0))
    strong = float(np.percentile(dark[core], 97))
    strong_bright = float(np.percentile(bright[core], 97))
    cells_dark = _cell_quantiles(dark, core, 0.95)
    cells_bright = _cell_quantiles(bright, core, 0.95)
    # 0.02: a tenth of a typical vessel's response; a vein over healthy retina is 10 to 30 % darker than its surroundings.
    visible = (cells_dark > 0.02) & (cells_dark > 1.15 * cells_bright)
    top = dark[core] >= np.percentile(dark[core], 95)
    # At the strongest dark lines: what of the darkening in green is not found in red. Blood absorbs green ten times as much as red;
    # shadows, ink and lashes darken both.
    in_green, in_red = (cv2.GaussianBlur(d, (0, 0), 1.5)[core][top] for d in (detail, red_detail))
    redness = 1 - float((in_green * in_red).sum()) / max(float((in_green**2).sum()), 1e-6)
    return {
        "vessel": _log10(strong, 1e-4),
        "vessel_coverage": float(visible.mean()),
        "vessel_weak": _log10(np.percentile(cells_dark, 25), 1e-4),
        "vessel_linearity": float(line[core][top].mean()) if top.any() else 0.0,
        "line_redness": float(np.clip(redness, -1, 2)),
        "vessel_tree": _tree((dark > 0.02) & (dark > bright) & core),
        "line_balance": float(np.log10((strong + 1e-3) / (strong_bright + 1e-3))),
        "edge_strength": _log10(
            np.percentile(np.hypot(cv2.Sobel(detail, cv2.CV_32F, 1, 0), cv2.Sobel(detail, cv2.CV_32F, 0, 1))[core] / 8, 99)
        ),
    }


def _tree(lines: np.ndarray) -> float:
    """Log10 of the summed extents of connected lines longer than a tenth of the field."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(lines.astype(np.uint8), connectivity=8)
    extents = np.hypot(stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT]) / WORK_SIDE
    return _log10(0.1 + extents[extents > 0.1].sum())


def _blocks(plane: np.ndarray) -> np.ndarray:
    """Pixels by grid cell, ``[cells, pixels]``."""
    side = plane.shape[0] // _GRID
    cut = plane[: side * _GRID, : side * _GRID].reshape(_GRID, side, _GRID, side)
    return cut.transpose(0, 2, 1, 3).reshape(_GRID * _GRID, side * side)


def _cell_quantiles(plane: np.ndarray, inside: np.ndarray, q: float) -> np.ndarray:
    """A quantile of the pixels of each grid cell of which at least half lies inside; ``[n_cells]``."""
    known = _blocks(inside)
    counts = known.sum(1)
    enough = counts >= known.shape[1] / 2
    if not enough.any():
        return np.quantile(plane[inside], [q]) if inside.any() else np.zeros(1)
    # Pixels outside sort to the front, where no quantile of the others can fall.
    values = np.sort(np.where(known, _blocks(plane), -np.inf)[enough], axis=1)
    index = known.shape[1] - counts[enough] + np.floor(q * (counts[enough] - 1)).astype(int)
    return np.take_along_axis(values, index[:, None], 1)[:, 0]


def _cell_means(plane: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean of the pixels of each grid cell of which at least half lies inside; ``[n_cells]``."""
    known = _blocks(inside)
    enough = known.mean(1) >= 0.5
    if not enough.any():
        return np.array([plane[inside].mean() if inside.any() else 0.0])
    return (_blocks(plane) * known)[enough].sum(1) / known[enough].sum(1)


def _disc(detail: np.ndarray, weight: np.ndarray, inside: np.ndarray) -> float:
    """Best match of a bright disc on darker surroundings; the disc is about a seventh of a 45-degree field across."""
    radius = WORK_SIDE / 14
    patch = _blur(detail, weight, radius / 2)
    around = _blur(detail, weight, radius * 2)
    return float((patch - around)[inside].max())


def _native_sharpness(rgb: np.ndarray, fov: FieldOfView) -> float:
    """Contrast at the pixel scale over contrast at four times that scale, in the middle of the field."""
    half = int(min(fov.radius * 0.5, 400))
    x, y = int(round(fov.x)), int(round(fov.y))
    x0, y0 = max(x - half, 0), max(y - half, 0)
    green = rgb[y0 : y + half, x0 : x + half, 1].astype(np.float32)
    if min(green.shape) < 16:
        return float("nan")
    fine = green - cv2.GaussianBlur(green, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(green, (0, 0), 2.0) - cv2.GaussianBlur(green, (0, 0), 4.0)
    return _log10((fine.std() + 1e-3) / (coarse.std() + 1e-2))


def _rim(rgb: np.ndarray, fov: FieldOfView) -> float:
    """Share of directions, of those where the circle lies inside the picture, in which light falls to dark across the rim."""
    if fov.kind == "none":
        return 0.0
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    samples = []
    for factor in (0.94, 1.04):
        x = np.round(fov.x + factor * fov.radius * np.cos(angle)).astype(int)
        y = np.round(fov.y + factor * fov.radius * np.sin(angle)).astype(int)
        valid = (x >= 0) & (x < fov.width) & (y >= 0) & (y < fov.height)
        value = np.full(len(angle), np.nan)
        value[valid] = rgb[y[valid], x[valid]].max(1)
        samples.append(value)
    known = ~np.isnan(samples[0]) & ~np.isnan(samples[1])
    return float((samples[0][known] - samples[1][known] > 8).mean()) if known.any() else 0.0
