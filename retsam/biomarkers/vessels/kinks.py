"""Where a segment turns a corner that no vessel turns: two vessels whose tips touch, which a skeleton follows as one.

Twigs end where they meet others, tip to tip or just past each other; what sticks out of such a corner is cut as a spur. Followed as one
vessel, the two come back on themselves, and one such hairpin has an arc over chord that outvotes all other vessels of an eye.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from retsam.biomarkers.vessels.grid import PER_UNIT

if TYPE_CHECKING:
    from retsam.biomarkers.vessels.topology import Topology

#: A corner turns by this many degrees from the chord before it to the chord after it...
CORNER = 75.0
#: ...which are this long (units), but no less than this many widths: a bend of about that radius turns by less.
CHORD = 6.0
CHORD_WIDTHS = 1.5
#: A vessel that turns the other way by `BEND` degrees within `COMPANY` units before and after a corner winds to and fro: one tortuous
#: vessel. One that ends within them need do so on the other side only.
BEND = 45.0
COMPANY = 32.0


@njit(cache=True)
def find_corners(paths, offsets, chords, corner, bend, company):
    """Where paths turn a lone corner: bool [P].

    Parameters
    ----------
    paths : float64 [P, 2]
        All paths, one after the other, pixel by pixel.
    offsets : int64 [S + 1]
    chords : int64 [S]
        Pixels of path to a chord.
    corner, bend : float
        Cosines.
    company : int
        Pixels of path.
    """
    found = np.zeros(len(paths), np.bool_)
    for s in range(len(offsets) - 1):
        first, n, chord = offsets[s], offsets[s + 1] - offsets[s], chords[s]
        if n < 2 * chord + 1:
            continue
        cosine = np.ones(n)
        left = np.zeros(n, np.bool_)
        for i in range(chord, n - chord):
            k = first + i
            by, bx = paths[k, 0] - paths[k - chord, 0], paths[k, 1] - paths[k - chord, 1]
            ay, ax = paths[k + chord, 0] - paths[k, 0], paths[k + chord, 1] - paths[k, 1]
            cosine[i] = (by * ay + bx * ax) / max(math.hypot(by, bx) * math.hypot(ay, ax), 1e-9)
            left[i] = by * ax - bx * ay > 0.0
        i = chord
        while i < n - chord:
            if cosine[i] > corner:
                i += 1
                continue
            # The sharpest place of a corner, which may turn past its threshold and back again.
            best = i
            j = i
            while j < min(n - chord, best + chord):
                if cosine[j] < cosine[best]:
                    best = j
                j += 1
            before = after = False
            for j in range(max(chord, best - company), min(n - chord, best + company + 1)):
                if cosine[j] <= bend and left[j] != left[best]:
                    before = before or j < best - 3 * chord // 2
                    after = after or j > best + 3 * chord // 2
            ends = best < company or best >= n - company
            if not (before and after or ends and (before or after)):
                found[first + best] = True
            i = best + chord
    return found


def split_corners(graph: Topology, distance: np.ndarray) -> None:
    """Cut segments at their lone corners, in place; the two parts end on each other in a contact.

    Parameters
    ----------
    graph : Topology
    distance : ndarray [h, w]
        Distance to the edge of the mask.
    """
    keys = [key for key, segment in graph.segments.items() if segment.a >= 0]
    if not keys:
        return
    paths = np.concatenate([graph.segments[key].path for key in keys]).astype(float)
    offsets = np.concatenate([[0], np.cumsum([len(graph.segments[key].path) for key in keys])]).astype(np.int64)
    pixels = paths.astype(np.intp)
    widths = 2.0 * np.add.reduceat(distance[pixels[:, 0], pixels[:, 1]], offsets[:-1]) / np.diff(offsets)
    chords = np.rint(np.maximum(CHORD * PER_UNIT, CHORD_WIDTHS * widths)).astype(np.int64)
    limits = math.cos(math.radians(CORNER)), math.cos(math.radians(BEND))
    corners = np.flatnonzero(find_corners(paths, offsets, chords, *limits, round(COMPANY * PER_UNIT)))
    for index in corners[::-1]:
        number = int(np.searchsorted(offsets, index, side="right")) - 1
        segment = graph.segments[keys[number]]
        at = int(index - offsets[number])
        node = graph.new_id()
        graph.position[node] = segment.path[at].astype(float)
        graph.radius[node] = float(distance[tuple(pixels[index])])
        graph.contacts.add(node)
        graph.segments[graph.new_id()] = type(segment)(node, segment.b, segment.path[at:], segment.kind)
        segment.b, segment.path = node, segment.path[: at + 1]
