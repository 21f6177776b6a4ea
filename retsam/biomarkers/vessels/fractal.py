"""Fractal dimensions by box counting, on the skeleton and on the mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import STRUCTURES, Analysis, Value, column
from retsam.biomarkers.vessels.grid import PER_UNIT, harden, sampled, soften
from retsam.biomarkers.vessels.pose import canonical_pose

#: Smallest box on the skeleton, px; and on the mask, in mean widths (smaller boxes measure the vessels' area, not their course).
SMALLEST_SKELETON_BOX = 2.0
SMALLEST_MASK_BOX = 0.75
#: Sizes that need about this many boxes weigh a quarter as much as those of many.
FEW_BOXES = 8.0
#: Box sides per octave.
PER_OCTAVE = 3
#: Highest moment of the singularity spectrum; moments below 0 hang on the emptiest boxes at the field's edge, so it starts at 0.
HIGHEST_MOMENT = 5


def box_sizes(smallest: float, largest: float) -> np.ndarray:
    """Box sides on a log scale, int64."""
    largest = max(largest, 4.0 * smallest)
    count = max(3, int(round(PER_OCTAVE * np.log2(largest / smallest))) + 1)
    return np.unique(np.rint(np.geomspace(smallest, largest, count)).astype(np.int64))


@njit(cache=True)
def _box(integral, top, left, bottom, right):
    return integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]


@njit(cache=True)
def _box_moments(mass, domain, sizes, highest, cover, entropy, sums):
    """Box statistics at each size, from integral images.

    A box counts by the share f of it that lies in the domain, and a measure p in it as the density p/f over that share: so boxes that
    the field's edge cuts neither add boxes nor thin the measure. Of the grids of a size, the one that needs the fewest boxes (of
    equals, the one whose boxes lie in the domain most) gives the cover (sum of f over occupied boxes), the entropy (-sum p log(p/f))
    and the moments (sum f (p/f)^q): worse grids cut the set's ends and edges into boxes that scale as nothing in the set does.
    """
    height = mass.shape[0] - 1
    width = mass.shape[1] - 1
    total = float(mass[height, width])
    powers = highest + 1
    moments = np.empty(powers)
    for s in range(len(sizes)):
        size = sizes[s]
        # Small boxes are so many that their grids do not matter; large ones are so few that many grids cost nothing.
        grids = 1 if size < 6 else 2 if size < 16 else 4 if size < 32 else 8 if size < 64 else 12
        area = float(size * size)
        fewest = np.inf
        for oy in range(grids):
            dy = (oy * size) // grids
            for ox in range(grids):
                dx = (ox * size) // grids
                count = 0
                boxes = 0.0
                information = 0.0
                for m in range(powers):
                    moments[m] = 0.0
                top = -dy
                while top < height:
                    y0 = max(top, 0)
                    y1 = min(top + size, height)
                    left = -dx
                    while left < width:
                        x0 = max(left, 0)
                        x1 = min(left + size, width)
                        inside = _box(mass, y0, x0, y1, x1)
                        if inside > 0:
                            f = _box(domain, y0, x0, y1, x1) / area
                            p = inside / total
                            count += 1
                            boxes += f
                            ratio = p / f
                            information -= p * math.log(ratio)
                            value = f
                            for q in range(powers):
                                moments[q] += value
                                value *= ratio
                        left += size
                    top += size
                if count < fewest or (count == fewest and boxes > cover[s]):
                    fewest = count
                    cover[s] = boxes
                    entropy[s] = information
                    for m in range(powers):
                        sums[s, m] = moments[m]


def dimensions(pixels: np.ndarray, domain: np.ndarray, smallest: float, largest: float) -> dict[str, float]:
    """Generalised dimensions of a set of pixels.

    Parameters
    ----------
    pixels : ndarray of bool or uint8, [H, W]
        The set.
    domain : ndarray of bool or uint8, [H, W]
        Where the set could have been seen: the field of view. It must contain the set.
    smallest, largest : float
        Sides of the smallest and largest box, px.

    Returns
    -------
    dict
        d0 (capacity: slope of log N over -log side, N the boxes of the best cover), d1 (information), d2 (correlation), r2 of the fit
        of d0, low and high (fit range, px) and singularity_length (range of Lipschitz-Hoelder exponents for moments 0 to 5).
    """
    sizes = box_sizes(smallest, largest)
    mass = cv2.integral(np.ascontiguousarray(pixels).view(np.uint8))
    field = cv2.integral(np.ascontiguousarray(domain).view(np.uint8))
    count = len(sizes)
    cover, entropy, sums = np.zeros(count), np.zeros(count), np.zeros((count, HIGHEST_MOMENT + 1))
    _box_moments(mass, field, sizes, HIGHEST_MOMENT, cover, entropy, sums)
    log_size = np.log(sizes)
    # A number of boxes is uncertain by about one, so sizes that need few of them weigh less in the fit.
    weights = (cover / (cover + FEW_BOXES)) ** 2
    weights /= weights.sum()
    centred = log_size - weights @ log_size
    slopes = weights * centred / (weights @ centred**2)
    log_cover = np.log(cover)
    d0 = -float(slopes @ log_cover)
    spread = log_cover - weights @ log_cover
    residual = spread + d0 * centred
    tau = slopes @ np.log(sums)
    exponents = np.diff(tau)
    return {
        "d0": d0,
        "d1": -float(slopes @ entropy),
        "d2": float(tau[2]),
        "r2": 1.0 - float(weights @ residual**2) / max(float(weights @ spread**2), 1e-12),
        "low": float(sizes[0]),
        "high": float(sizes[-1]),
        "singularity_length": float(exponents[0] - exponents[-1]),
    }


_DIMENSIONS = {
    "d0": ("capacity dimension: slope of log(boxes) over -log(box side), by the best of the grids", "Mandelbrot 1982; Liew 2008"),
    "d1": ("information dimension: slope of the entropy of the boxes' shares over -log(box side)", "Stosic 2006"),
    "d2": ("correlation dimension: slope of log(sum of squared shares) over log(box side)", "Stosic 2006"),
}
_SUBJECTS = {"fractal_dimension": "the skeleton", "fractal_dimension_mask": "the vessel mask on the grid of the vessel graph"}

DICTIONARY: list[Biomarker] = []
for _structure in STRUCTURES:
    for _prefix, _subject in _SUBJECTS.items():
        for _key, (_definition, _source) in _DIMENSIONS.items():
            DICTIONARY.append(
                Biomarker(
                    column(f"{_prefix}_{_key}", _structure), "vessels",
                    f"Box-counting {_definition}; on {_subject}, box sides on a log scale up to a quarter of the field, 1 to 144 grids a "
                    "side, boxes at the field's edge counted by their share in it.",
                    source=_source, needs=(_structure, "fov"), valid_range=(0.0, 2.0), direction="more complex vessels",
                    structure=_structure, resolution="density",
                )
            )  # fmt: skip
    DICTIONARY += [
        Biomarker(
            column(name, _structure), "vessels", definition, unit=unit, source=source, needs=(_structure, "fov"),
            valid_range=valid, direction=direction, structure=_structure, resolution="density",
        )
        for name, definition, unit, source, valid, direction in (
            ("fractal_fit_r2", "R^2 of the fit of the skeleton's capacity dimension.", "1", "", (0.0, 1.0), "more self-similar"),
            ("fractal_fit_low", "Smallest box side of the fits.", "px", "", (1.0, 1e5), ""),
            ("fractal_fit_high", "Largest box side of the fits.", "px", "", (1.0, 1e5), ""),
            ("singularity_length",
             "Range of the Lipschitz-Hoelder exponents, moments 0 to 5, of the mask's multifractal spectrum on the vessel graph's grid.",
             "1", "Stosic 2006", (-2.0, 10.0), "more heterogeneous vessels"),
        )
    ]  # fmt: skip


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    for structure in STRUCTURES:
        names = [column(f"{prefix}_{key}", structure) for prefix in _SUBJECTS for key in _DIMENSIONS]
        extra = [column(name, structure) for name in ("fractal_fit_r2", "fractal_fit_low", "fractal_fit_high", "singularity_length")]
        null = analysis.missing(structure, "density")
        if null is not None:
            values |= dict.fromkeys(names + extra, null)
            continue
        graph = analysis.graph(structure)
        largest = analysis.context.fov_diameter / 4.0
        # The pixels under the pruned centrelines: the raw skeleton's spurs are no vessels.
        on_line = np.zeros(analysis.context.shape, np.uint8)
        columns, rows = np.rint(graph.points).astype(np.intp).T
        fov = analysis.context.fov
        keep = (columns >= 0) & (rows >= 0) & (rows < fov.shape[0]) & (columns < fov.shape[1])
        on_line[rows[keep], columns[keep]] = fov[rows[keep], columns[keep]]
        if np.count_nonzero(on_line) < 16:
            values |= dict.fromkeys(names + extra, Null("too_few_vessels"))
            continue
        # The grids start at the picture's corner: in one pose a turned or mirrored mask meets the same boxes.
        plane = analysis.context.plane(structure)
        pose = canonical_pose(plane)
        on_line, plane, fov = pose.apply(on_line), pose.apply(plane), pose.apply(fov)
        on_skeleton = dimensions(on_line, fov, SMALLEST_SKELETON_BOX * graph.unit, largest)
        width = graph.width[graph.measured].mean() if graph.measured.any() else 2.0
        # The mask counts on the grid that its graph was built on, one point a unit: a coarse picture's pixels are boxes of their own.
        on_grid = graph.on_grid if graph.on_grid is not None else harden(soften(plane, graph.unit))
        on_grid = np.ascontiguousarray(on_grid[:: int(PER_UNIT), :: int(PER_UNIT)])
        field = sampled(fov, PER_UNIT * graph.unit, on_grid.shape)
        on_mask = dimensions(on_grid & field, field, max(2.0, SMALLEST_MASK_BOX * width / graph.unit), largest / graph.unit)
        for found, part in ((on_skeleton, names[:3]), (on_mask, names[3:])):
            values |= {name: found[key] for name, key in zip(part, _DIMENSIONS, strict=True)}
        fits = (
            on_skeleton["r2"],
            on_skeleton["low"] * analysis.native,
            on_skeleton["high"] * analysis.native,
            on_mask["singularity_length"],
        )
        values |= dict(zip(extra, fits, strict=True))
    return values
