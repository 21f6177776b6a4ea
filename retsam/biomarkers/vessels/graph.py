"""The vessel graph: built once for each structure, shared by all its biomarkers.

Mask -> grid -> skeleton -> nodes and paths -> spurs cut, junctions merged, crossings led through, vessels that touch told apart ->
sub-pixel centrelines and widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from retsam.biomarkers.vessels import centreline, profiles, topology
from retsam.biomarkers.vessels.grid import PER_UNIT, harden, soften
from retsam.biomarkers.vessels.kinks import split_corners
from retsam.biomarkers.vessels.pose import Pose, canonical_pose
from retsam.biomarkers.vessels.skeleton import MARGIN, Skeleton, make_skeleton, replication

#: Misfit between spline and measured mid-points, averaged along a quarter wavelength, that is allowed: in units, and in widths. The same
#: in photographs of every size, or the finer one would be the more tortuous.
TOLERANCE = (0.12, 0.004)
#: Shortest undulation that the spline may follow: in units, and in vessel widths; and the one (units) below which it follows only what
#: the tolerance times the square of their ratio does not explain: bends and corners, not pixels.
CUTOFF = (8.0, 1.0, 16.0)

KINDS = {topology.ARTERY: "artery", topology.VEIN: "vein", topology.UNKNOWN: "unknown"}


@dataclass
class VesselGraph:
    """Centreline graph of one structure. Coordinates are (x, y) in grid pixels, pixel-centre.

    Parameters
    ----------
    structure : str
        ``artery``, ``vein`` or ``vessel``.
    points : ndarray [K, 2]
        Centreline samples of all segments, about `pixel` apart.
    width, curvature : ndarray [K]
        Width normal to the centreline (px) and signed curvature (1/px).
    measured : ndarray of bool [K]
        False where a sample is interpolated (inside a junction, under a crossing vessel): its width and curvature do not count.
    offsets : ndarray of int [S + 1]
        Segment i holds the samples ``offsets[i]:offsets[i + 1]``.
    ends : ndarray of int [S, 2]
        Nodes at the start and end of each segment; -1 for a closed loop.
    node_points : ndarray [N, 2]
    node_radius : ndarray [N]
        Radius of the inscribed circle (px); 0 for free ends.
    node_kind : ndarray of str [N]
        ``end``, ``bifurcation`` or ``contact`` (a vessel ends on one of the other kind, or two end on each other: see `kinks`).
    crossings : ndarray [C, 2]
        Where two vessels cross (of the `vessel` structure only).
    segment_kind : ndarray of int [S]
    pixel : float
        Grid px from sample to sample: half a unit, on the grid of `grid`.
    unit : float
        Grid px to the length that constants in px are meant for (see `build_graph`).
    on_grid : ndarray of bool, [h, w], optional
        The mask on the grid of `grid`, in its canonical pose.
    """

    structure: str
    points: np.ndarray
    width: np.ndarray
    curvature: np.ndarray
    measured: np.ndarray
    offsets: np.ndarray
    ends: np.ndarray
    node_points: np.ndarray
    node_radius: np.ndarray
    node_kind: np.ndarray
    crossings: np.ndarray
    segment_kind: np.ndarray
    pixel: float = 1.0
    unit: float = 1.0
    on_grid: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of segments."""
        return len(self.offsets) - 1

    @cached_property
    def segment_of(self) -> np.ndarray:
        """Segment of each sample, int [K]."""
        return np.repeat(np.arange(self.size), np.diff(self.offsets))

    @cached_property
    def step(self) -> np.ndarray:
        """Length from each sample to the next of its segment (px), 0 at a segment's last sample."""
        steps = np.zeros(len(self.points))
        if len(self.points) > 1:
            steps[:-1] = np.hypot(*np.diff(self.points, axis=0).T)
        steps[self.offsets[1:] - 1] = 0.0
        return steps

    @cached_property
    def sample_length(self) -> np.ndarray:
        """Length that each sample stands for (px): half the way to either neighbour."""
        half = 0.5 * self.step
        length = half.copy()
        length[1:] += half[:-1]
        return length

    def incident(self) -> dict[int, list[tuple[int, int]]]:
        """Node -> [(segment, 0 at its start or 1 at its end)]."""
        found: dict[int, list[tuple[int, int]]] = {}
        for segment in range(self.size):
            for side in (0, 1):
                node = int(self.ends[segment, side])
                if node >= 0:
                    found.setdefault(node, []).append((segment, side))
        return found


def _empty(structure: str) -> VesselGraph:
    none = np.zeros(0)
    return VesselGraph(
        structure, np.zeros((0, 2)), none, none, np.zeros(0, bool), np.zeros(1, np.int64), np.zeros((0, 2), np.int32),
        np.zeros((0, 2)), none, np.zeros(0, "U11"), np.zeros((0, 2)), np.zeros(0, np.int64),
    )  # fmt: skip


def join_graphs(structure: str, graphs: list[VesselGraph], crossings: np.ndarray) -> VesselGraph:
    """Several graphs of one eye as one: their nodes and segments side by side.

    Parameters
    ----------
    structure : str
        Name of the whole.
    graphs : list of VesselGraph
    crossings : ndarray [C, 2]
        Where vessels of different graphs cross.
    """
    graphs = [g for g in graphs if g.size]
    if not graphs:
        return _empty(structure)
    nodes = np.cumsum([0, *(len(g.node_points) for g in graphs)])
    samples = np.cumsum([0, *(len(g.points) for g in graphs)])
    joined = {
        name: np.concatenate([getattr(g, name) for g in graphs])
        for name in ("points", "width", "curvature", "measured", "node_points", "node_radius", "node_kind", "segment_kind")
    }
    return VesselGraph(
        structure=structure,
        offsets=np.concatenate([[0], *(g.offsets[1:] + shift for g, shift in zip(graphs, samples[:-1], strict=True))]),
        ends=np.concatenate([np.where(g.ends >= 0, g.ends + shift, -1) for g, shift in zip(graphs, nodes[:-1], strict=True)]),
        crossings=crossings,
        pixel=max(g.pixel for g in graphs),
        unit=max(g.unit for g in graphs),
        **joined,
    )


def enlarge(graph: VesselGraph, factor: float, shift: tuple[int, int]) -> VesselGraph:
    """A graph in a grid of `factor` times as many pixels, whose blocks start at `shift` (x, y)."""
    # The centre of a block's first pixel lies half a block less half a pixel from the block's centre.
    origin = np.array(shift) + (factor - 1) / 2.0
    return replace(
        graph,
        points=graph.points * factor + origin,
        width=graph.width * factor,
        curvature=graph.curvature / factor,
        node_points=graph.node_points * factor + origin,
        node_radius=graph.node_radius * factor,
        crossings=graph.crossings * factor + origin,
        pixel=graph.pixel * factor,
        unit=graph.unit * factor,
    )


def _crop(plane: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Another mask in the frame of a skeleton's crop, uint8."""
    height, width = skeleton.mask.shape
    out = np.zeros((height, width), np.uint8)
    x0, y0 = skeleton.origin[0] + MARGIN, skeleton.origin[1] + MARGIN
    inner = plane[y0 : y0 + height - 2 * MARGIN, x0 : x0 + width - 2 * MARGIN]
    out[MARGIN : MARGIN + inner.shape[0], MARGIN : MARGIN + inner.shape[1]] = inner
    return out


def build_graph(
    structure: str, plane: np.ndarray, artery: np.ndarray | None = None, vein: np.ndarray | None = None, unit: float = 1.0
) -> VesselGraph:
    """Build the graph of a vessel mask.

    Parameters
    ----------
    structure : str
        ``artery``, ``vein`` or ``vessel``.
    plane : ndarray of bool, [H, W]
        The mask, inside the field of view.
    artery, vein : ndarray of bool, [H, W], optional
        For `vessel`: tell crossings from bifurcations. For `artery` or `vein`, the other one bridges the gaps where the other
        kind passes over.
    unit : float
        Mask px to the length that constants in px are meant for: 1 where the pixels are as coarse as may be, more in finer pictures, so
        that the same eye is smoothed and judged alike in both.

    Returns
    -------
    VesselGraph
        Without segments if the mask holds no vessel.
    """
    factor, row, column = replication(plane)
    if factor > 1:
        small = [None if p is None else p[row::factor, column::factor] for p in (plane, artery, vein)]
        graph = enlarge(build_graph(structure, *small, unit=max(1.0, unit / factor)), factor, (column, row))
        return replace(graph, on_grid=None)
    pose = canonical_pose(plane)
    plane, artery, vein = (None if p is None else pose.apply(p) for p in (plane, artery, vein))
    field = soften(plane, unit)
    # A structure does not look at its own kind.
    artery, vein = (None if p is None or name == structure else soften(p, unit) >= 0.5 for name, p in (("artery", artery), ("vein", vein)))
    on_grid = harden(field)
    graph = _build(structure, on_grid, artery, vein, field)
    return replace(_unposed(enlarge(graph, unit / PER_UNIT, (0, 0)), pose), on_grid=on_grid)


def _unposed(graph: VesselGraph, pose: Pose) -> VesselGraph:
    """A graph of a posed mask, in the mask as it was."""
    points = {name: pose.undo(getattr(graph, name)) for name in ("points", "node_points", "crossings")}
    return replace(graph, curvature=graph.curvature * pose.handedness, **points)


def _build(structure: str, plane: np.ndarray, artery: np.ndarray | None, vein: np.ndarray | None, field: np.ndarray) -> VesselGraph:
    skeleton = make_skeleton(plane, field)
    if skeleton is None:
        return _empty(structure)
    graph = topology.build(skeleton)
    if structure == "vessel":
        if artery is not None and vein is not None:
            topology.label_kinds(graph, _crop(artery, skeleton), _crop(vein, skeleton))
        topology.resolve_crossings(graph)
    else:
        kind = topology.ARTERY if structure == "artery" else topology.VEIN
        other = vein if structure == "artery" else artery
        for segment in graph.segments.values():
            segment.kind = kind
        if other is not None:
            topology.bridge_gaps(graph, skeleton.distance, _crop(other, skeleton))
    split_corners(graph, skeleton.distance)
    return _fit(structure, skeleton, graph)


def _fit(structure: str, skeleton: Skeleton, graph: topology.Topology) -> VesselGraph:
    """Sub-pixel centrelines and widths of all segments."""
    unit = PER_UNIT
    segments = [s for s in graph.segments.values() if len(s.path) >= 2]
    if not segments:
        return _empty(structure)
    incident = graph.ends()
    nodes = [n for n in graph.position if n in incident]
    number = {n: i for i, n in enumerate(nodes)}
    ends = np.array([[number.get(s.a, -1), number.get(s.b, -1)] for s in segments], np.int32)
    node_position = np.array([graph.position[n] for n in nodes], float).reshape(-1, 2)
    degree = np.array([len(incident[n]) for n in nodes], int)
    node_radius = np.array([graph.radius[n] if len(incident[n]) > 1 else 0.0 for n in nodes])
    contact = np.array([n in graph.contacts for n in nodes], bool)
    node_kind = np.where(contact, "contact", np.where(degree >= 3, "bifurcation", "end")).astype("U11")

    paths = np.concatenate([s.path for s in segments]).astype(float)
    offsets = np.concatenate([[0], np.cumsum([len(s.path) for s in segments])]).astype(np.int64)
    pixels = paths.astype(np.intp)
    along = skeleton.distance[pixels[:, 0], pixels[:, 1]]
    width0 = np.maximum(2.0 * np.add.reduceat(along, offsets[:-1]) / np.diff(offsets), 1.0).astype(float)

    sample_offsets = np.concatenate([[0], np.cumsum(profiles.count_samples(paths, offsets))]).astype(np.int64)
    total = int(sample_offsets[-1])
    points, normals, widths = np.empty((total, 2)), np.empty((total, 2)), np.empty(total)
    profiles.sample_profiles(skeleton.field, paths, offsets, width0, unit, sample_offsets, points, normals, widths)
    valid, width = np.empty(total, np.uint8), np.empty(len(segments))
    centreline.mark_valid(points, widths, sample_offsets, ends, node_position, node_radius, unit, valid, width)
    lines = np.zeros((len(segments), 2, 5))
    centreline.end_lines(points, sample_offsets, valid, width, unit, lines)
    met = np.empty_like(node_position)
    centreline.meet_lines(lines, ends, node_position, node_radius, met)

    room = total + int(np.ceil(8.0 * (width0.sum() + width.sum()) + 8.0 * node_radius.sum() + 40 * len(segments)))
    tolerance = (TOLERANCE[0] * unit, TOLERANCE[1])
    cutoff = (CUTOFF[0] * unit, CUTOFF[1], CUTOFF[2] * unit)
    while True:
        out, out_width, out_kappa = np.empty((room, 2)), np.empty(room), np.empty(room)
        out_valid, out_offsets = np.empty(room, np.uint8), np.empty(len(segments) + 1, np.int64)
        size = centreline.fit_centrelines(
            skeleton.field, points, normals, widths, valid, sample_offsets, ends, met, node_radius, lines, width, tolerance, cutoff,
            out, out_width, out_kappa, out_valid, out_offsets,
        )  # fmt: skip
        if size >= 0:
            break
        room *= 2  # in masks that are no vessels a segment's ends may lie far from what was measured of it
    # Ends of vessels sit where their centrelines end, not where their skeletons did.
    free = node_radius == 0.0
    for side, index in ((0, out_offsets[:-1]), (1, out_offsets[1:] - 1)):
        has = ends[:, side] >= 0
        at = ends[has, side]
        met[at[free[at]]] = out[index[has][free[at]]]
    shift = np.array(skeleton.origin, float)
    crossings = np.array(graph.crossings, float).reshape(-1, 2)[:, ::-1] + shift
    return VesselGraph(
        structure=structure,
        points=out[:size, ::-1] + shift,
        width=out_width[:size].copy(),
        curvature=out_kappa[:size].copy(),
        measured=out_valid[:size].astype(bool),
        offsets=out_offsets,
        ends=ends,
        node_points=met[:, ::-1] + shift,
        node_radius=node_radius,
        node_kind=node_kind,
        crossings=crossings,
        segment_kind=np.array([s.kind for s in segments]),
        unit=unit,
    )


def segment_table(graph: VesselGraph, metrics: dict[str, np.ndarray], native_scale: float = 1.0) -> pd.DataFrame:
    """One row a segment, for plotting and export (`retsam measure --graphs`).

    Parameters
    ----------
    graph : VesselGraph
    metrics : dict of str to ndarray [S]
        Further columns, one value a segment.
    native_scale : float
        Native px per grid px; lengths and widths are given in native px, coordinates in grid px.

    Returns
    -------
    pandas.DataFrame
        structure, segment, kind, node_a, node_b, node_a_kind, node_b_kind, length_px, width_px, the metrics, x and y (lists).
    """
    kinds = np.array(["", *graph.node_kind], object)
    windows = [slice(a, b) for a, b in zip(graph.offsets[:-1], graph.offsets[1:], strict=True)]
    measured = [graph.width[w][graph.measured[w]] for w in windows]
    # Typed column by column, so that the table of an eye without vessels is of the same types as any other.
    return pd.DataFrame(
        {
            "structure": np.full(graph.size, graph.structure, object),
            "segment": np.arange(graph.size, dtype=np.int64),
            "kind": np.array([KINDS[int(kind)] for kind in graph.segment_kind], object),
            "node_a": graph.ends[:, 0].astype(np.int64),
            "node_b": graph.ends[:, 1].astype(np.int64),
            "node_a_kind": kinds[graph.ends[:, 0] + 1],
            "node_b_kind": kinds[graph.ends[:, 1] + 1],
            "length_px": np.array([graph.step[w].sum() for w in windows], float) * native_scale,
            "width_px": np.array([w.mean() if w.size else np.nan for w in measured], float) * native_scale,
            **{name: np.asarray(values, float) for name, values in metrics.items()},
            "x": pd.Series([np.round(graph.points[w, 0], 2).tolist() for w in windows], dtype=object),
            "y": pd.Series([np.round(graph.points[w, 1], 2).tolist() for w in windows], dtype=object),
        }
    )
