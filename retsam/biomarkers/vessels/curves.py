"""What a stretch of centreline is like: length, chord, curvature, turns, width. One compiled pass over all stretches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from retsam.biomarkers.vessels.graph import VesselGraph

#: A stretch of one curvature sign is a turn when it turns by this much (radians) and bows out by this much (px)...
TURN_ANGLE = 0.15
TURN_BOW = 0.4
#: ...and tortuosity is measured on stretches at least this long: in widths, and px.
MIN_LENGTH_WIDTHS = 3.0
MIN_LENGTH_PX = 8.0
#: A centreline whose curvature times width is larger (a radius under 1.4 widths) does not bend but kinks, where vessels that touch were
#: followed as one: that counts no more than the inside of a junction.
SHARPEST = 0.7
#: A turn that comes back towards its start counts as one whose arc is twice its chord: without a chord it would outvote all others.
MOST_EXCESS = 1.0
#: Widths count up to this: across a sharper bend a profile meets both its arms.
SHARPEST_WIDTH = 0.3


@njit(cache=True)
def _stretches(points, step, sample_length, kappa, measured, width, starts, stops, turn_angle, turn_bow, sharpest, sharpest_width, out):
    """Metrics of stretches [start, stop) of samples into out [R, 12]; see `Stretches`."""
    for r in range(len(starts)):
        a, b = starts[r], stops[r]
        length = 0.0
        for i in range(a, b - 1):
            length += step[i]
        chord = math.hypot(points[b - 1, 0] - points[a, 0], points[b - 1, 1] - points[a, 1])
        total_measured = 0.0
        k1 = 0.0
        k2 = 0.0
        w1 = 0.0
        w2 = 0.0
        count = 0
        for i in range(a, b):
            if measured[i]:
                if abs(kappa[i]) * width[i] <= sharpest:
                    ds = sample_length[i]
                    total_measured += ds
                    k1 += abs(kappa[i]) * ds
                    k2 += kappa[i] * kappa[i] * ds
                if abs(kappa[i]) * width[i] <= sharpest_width:
                    w1 += width[i]
                    w2 += width[i] * width[i]
                    count += 1
        if count == 0:
            for i in range(a, b):
                if measured[i]:
                    w1 += width[i]
                    w2 += width[i] * width[i]
                    count += 1
        # Arc, chord and turns are those of the measured course: inside a junction a centreline is drawn, not measured.
        while a < b - 1 and not measured[a]:
            a += 1
        while b > a + 1 and not measured[b - 1]:
            b -= 1
        course = 0.0
        for i in range(a, b - 1):
            course += step[i]
        course_chord = math.hypot(points[b - 1, 0] - points[a, 0], points[b - 1, 1] - points[a, 1])
        # Turn curves. First pass: runs of one curvature sign that are turns; runs that are not (straight stretches, pixel
        # noise) go half to either neighbour, and turns of one sign with nothing but such runs between them are one turn.
        turns = 0
        excess = 0.0
        last_sign = 0
        turn_start = a
        turn_end = a
        i = a
        while i < b:
            sign = 1 if kappa[i] > 0.0 else -1
            j = i
            angle = 0.0
            run = 0.0
            while j < b and (1 if kappa[j] > 0.0 else -1) == sign:
                if measured[j]:
                    angle += kappa[j] * sample_length[j]
                    run += sample_length[j]
                j += 1
            if abs(angle) >= turn_angle and abs(angle) * run / 8.0 >= turn_bow:
                if last_sign == 0:
                    turns = 1
                elif sign != last_sign:
                    cut = (turn_end + i) // 2
                    excess += _excess(points, step, turn_start, cut)
                    turn_start = cut
                    turns += 1
                last_sign = sign
                turn_end = j
            i = j
        density = 0.0
        if turns > 1:
            excess += _excess(points, step, turn_start, b - 1)
            density = (turns - 1) / turns * excess / max(course, 1e-9)
        out[r, 0] = length
        out[r, 1] = chord
        out[r, 2] = total_measured
        out[r, 3] = k1
        out[r, 4] = k2
        out[r, 5] = turns
        out[r, 6] = density
        out[r, 7] = w1 / count if count else 0.0
        out[r, 8] = math.sqrt(max(w2 / count - (w1 / count) ** 2, 0.0)) if count else 0.0
        out[r, 9] = count
        out[r, 10] = course
        out[r, 11] = course_chord


@njit(cache=True)
def _excess(points, step, a, b):
    """Arc over chord, less one, between samples a and b."""
    length = 0.0
    for i in range(a, b):
        length += step[i]
    chord = math.hypot(points[b, 0] - points[a, 0], points[b, 1] - points[a, 1])
    return min(length / chord - 1.0, MOST_EXCESS) if chord > 0.0 else 0.0


@dataclass(frozen=True)
class Stretches:
    """Stretches of segments inside a region, one row each; lengths in grid px.

    Parameters
    ----------
    graph : VesselGraph
    segment, start, stop : ndarray of int [R]
        Segment, and its samples [start, stop) of the graph's arrays.
    length, chord : ndarray [R]
    measured_length : ndarray [R]
        Length over which curvature was measured (outside junctions and kinks).
    curvature, curvature_squared : ndarray [R]
        Integrals of |curvature| and of its square over the measured length.
    turns : ndarray [R]
        Turn curves (stretches of one sense of bending).
    turn_density : ndarray [R]
        Grisan's tortuosity density, 1/px.
    width, width_sd : ndarray [R]
        Mean and SD over the measured samples.
    samples : ndarray [R]
        Number of samples whose width counts.
    course, course_chord : ndarray [R]
        Arc length and chord from the first to the last measured sample.
    """

    graph: VesselGraph
    segment: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    length: np.ndarray
    chord: np.ndarray
    measured_length: np.ndarray
    curvature: np.ndarray
    curvature_squared: np.ndarray
    turns: np.ndarray
    turn_density: np.ndarray
    width: np.ndarray
    width_sd: np.ndarray
    samples: np.ndarray
    course: np.ndarray
    course_chord: np.ndarray

    def __len__(self) -> int:
        return len(self.segment)

    @property
    def long_enough(self) -> np.ndarray:
        """Stretches on which a tortuosity means something, bool [R]; one that comes back to its start has no chord."""
        least = np.maximum(MIN_LENGTH_PX * self.graph.unit, MIN_LENGTH_WIDTHS * self.width)
        return (self.measured_length >= least) & (self.course_chord >= 0.1 * self.course)


def stretches(graph: VesselGraph, inside: np.ndarray | None = None) -> Stretches:
    """Cut the segments of a graph to a region and measure the pieces.

    Parameters
    ----------
    graph : VesselGraph
    inside : ndarray of bool [K], optional
        Which samples lie in the region; all if None.

    Returns
    -------
    Stretches
    """
    if inside is None:
        starts, stops = graph.offsets[:-1].astype(np.int64), graph.offsets[1:].astype(np.int64)
    else:
        edge = np.zeros(len(inside) + 1, bool)
        edge[graph.offsets] = True
        flags = np.concatenate([[False], inside, [False]])
        starts = np.flatnonzero(flags[1:-1] & (~flags[:-2] | edge[:-1]))
        stops = np.flatnonzero(flags[1:-1] & (~flags[2:] | edge[1:])) + 1
    keep = stops - starts >= 2
    starts, stops = starts[keep], stops[keep]
    out = np.zeros((len(starts), 12))
    _stretches(
        graph.points, graph.step, graph.sample_length, graph.curvature, graph.measured, graph.width, starts, stops,
        TURN_ANGLE, TURN_BOW * graph.unit, SHARPEST, SHARPEST_WIDTH, out,
    )  # fmt: skip
    segment = np.searchsorted(graph.offsets, starts, side="right") - 1
    return Stretches(graph, segment, starts, stops, *out.T)
