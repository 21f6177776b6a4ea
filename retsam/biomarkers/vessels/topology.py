"""The graph's meaning: which branches are spurs, which junctions are one, what is a crossing and what a bifurcation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from retsam.biomarkers.vessels.skeleton import Skeleton
from retsam.biomarkers.vessels.tracing import path_length, trace_skeleton

#: A terminal branch is a spur of the skeleton when it sticks out of the vessel it leaves by less than this many of its widths...
SPUR_WIDTHS = 1.25
#: ...or by less than this many radii of that vessel.
SPUR_RADII = 0.5
#: ...or by less than this (grid px).
SPUR_LEAST = 10.0
#: Junctions closer than this many radii of the larger one are one junction.
MERGE_RADII = 1.0
#: Two vessels that cross share their course for at most this many times the sum of their radii.
SHARED_COURSE_RADII = 2.5
#: Largest kink (degrees) at which two branches are one vessel passing a crossing: by shape alone, and where artery and vein
#: masks say that the two pairs are of different kinds.
STRAIGHT_BY_SHAPE = 30.0
STRAIGHT_BY_CLASS = 60.0
#: A gap in an artery where a vein passes over it (or the reverse) is bridged up to this many widths of its ends.
BRIDGE_WIDTHS = 4.0
BRIDGE_COSINE = math.cos(math.radians(35.0))

ARTERY, VEIN, UNKNOWN = 1, 2, 0


@dataclass
class Segment:
    """A vessel between two nodes.

    Parameters
    ----------
    a, b : int
        Nodes at start and end; -1 for a closed loop.
    path : ndarray of float32, [n, 2]
        (y, x) skeleton pixels in the crop, from `a` to `b`.
    kind : int
        ARTERY, VEIN or UNKNOWN.
    """

    a: int
    b: int
    path: np.ndarray
    kind: int = UNKNOWN

    def reversed(self) -> Segment:
        return Segment(self.b, self.a, self.path[::-1], self.kind)


@dataclass
class Topology:
    """Nodes and segments.

    Parameters
    ----------
    position : dict of int to ndarray [2]
        (y, x) of each node.
    radius : dict of int to float
        Distance to the vessel's edge at each node, px.
    segments : dict of int to Segment
    crossings : list of ndarray [2]
        (y, x) where two vessels cross; they are no nodes.
    contacts : set of int
        Nodes at which a vessel ends on (under, over) a vessel of the other kind, or two vessels end on each other: neither free ends
        nor bifurcations.
    """

    position: dict[int, np.ndarray]
    radius: dict[int, float]
    segments: dict[int, Segment]
    crossings: list[np.ndarray] = field(default_factory=list)
    contacts: set[int] = field(default_factory=set)
    _next: int = 0

    def new_id(self) -> int:
        self._next += 1
        return self._next - 1

    def ends(self) -> dict[int, list[tuple[int, int]]]:
        """Node -> [(segment, 0 at its start or 1 at its end)]."""
        found: dict[int, list[tuple[int, int]]] = {}
        for key, segment in self.segments.items():
            if segment.a >= 0:
                found.setdefault(segment.a, []).append((key, 0))
                found.setdefault(segment.b, []).append((key, 1))
        return found


def _at(image: np.ndarray, point: np.ndarray) -> float:
    return float(image[round(float(point[0])), round(float(point[1]))])


def build(skeleton: Skeleton) -> Topology:
    """Trace a skeleton, cut its spurs and merge its junction clusters."""
    node_y, node_x, path_y, path_x, offsets, ends = trace_skeleton(skeleton.pixels)
    paths = np.column_stack([path_y, path_x]).astype(np.float32)
    position = {n: np.array([node_y[n], node_x[n]]) for n in range(len(node_y))}
    segments = {s: Segment(int(ends[s, 0]), int(ends[s, 1]), paths[offsets[s] : offsets[s + 1]]) for s in range(len(ends))}
    graph = Topology(position, {}, segments)
    graph._next = max(len(position), len(segments))
    for segment in segments.values():
        if segment.a >= 0:
            for node, pixel in ((segment.a, segment.path[0]), (segment.b, segment.path[-1])):
                graph.radius[node] = max(graph.radius.get(node, 0.0), _at(skeleton.distance, pixel))
    for node in [n for n in position if n not in graph.radius]:
        del position[node]
    for _ in range(4):
        changed = _merge_junctions(graph)
        changed |= _prune(graph, skeleton.distance)
        if not changed:
            break
    _drop_specks(graph, skeleton)
    return graph


def _prune(graph: Topology, distance: np.ndarray) -> bool:
    """Cut the spurs of one round; all at once, so that the answer does not depend on the order."""
    ends = graph.ends()
    spurs = []
    for key, segment in graph.segments.items():
        if segment.a < 0 or segment.a == segment.b:
            continue
        free_a, free_b = len(ends[segment.a]) == 1, len(ends[segment.b]) == 1
        if free_a == free_b:
            continue
        path = segment.path[::-1] if free_a else segment.path
        root = graph.radius[segment.b if free_a else segment.a]
        sticks_out = path_length(path) + _at(distance, path[-1]) - root
        tail = path[len(path) // 2 :].astype(np.intp)
        spur_width = max(2.0, 2.0 * float(np.median(distance[tail[:, 0], tail[:, 1]])))
        if sticks_out < max(SPUR_WIDTHS * spur_width, SPUR_RADII * root, SPUR_LEAST):
            spurs.append(key)
    if not spurs:
        return False
    for key in spurs:
        del graph.segments[key]
    _join_through_nodes_of_degree_two(graph)
    return True


def _join_through_nodes_of_degree_two(graph: Topology) -> None:
    """Segments that meet two at a node become one segment; nodes that nothing reaches any more are dropped."""
    partner: dict[tuple[int, int], tuple[int, int]] = {}
    for incident in graph.ends().values():
        if len(incident) == 2:
            partner[incident[0]], partner[incident[1]] = incident[1], incident[0]
    if partner:
        merged: dict[int, Segment] = {}
        visited: set[int] = set()
        # Chains with an outer end first; what is left afterwards are closed rings.
        for closed in (False, True):
            for key in graph.segments:
                if key in visited:
                    continue
                for side in (0, 1):
                    if key not in visited and (closed or (key, side) not in partner):
                        merged[key] = _walk_chain(graph, partner, key, side, visited)
        graph.segments = merged
    alive = {n for s in graph.segments.values() for n in (s.a, s.b)}
    for node in [n for n in graph.position if n not in alive]:
        del graph.position[node]
        graph.radius.pop(node, None)


def _walk_chain(graph: Topology, partner: dict, key: int, side: int, visited: set[int]) -> Segment:
    """The segment made of all that follow each other from `side` of segment `key` on."""
    pieces: list[Segment] = []
    closed = False
    while True:
        visited.add(key)
        segment = graph.segments[key]
        pieces.append(segment if side == 0 else segment.reversed())
        following = partner.get((key, 1 - side))
        if following is None:
            break
        if following[0] in visited:
            closed = True
            break
        key, side = following
    if len(pieces) == 1 and not closed:
        return pieces[0]
    kind = max(pieces, key=lambda piece: len(piece.path) if piece.kind != UNKNOWN else 0).kind
    path = np.concatenate([piece.path for piece in pieces])
    return Segment(-1, -1, path, kind) if closed else Segment(pieces[0].a, pieces[-1].b, path, kind)


def _merge_junctions(graph: Topology) -> bool:
    """Contract links between junctions whose inscribed circles overlap, and drop the tiny rings that remain."""
    ends = graph.ends()
    parent = {n: n for n in graph.position}

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    changed = False
    for key, segment in list(graph.segments.items()):
        if segment.a < 0 or segment.a == segment.b:
            continue
        if len(ends[segment.a]) < 3 or len(ends[segment.b]) < 3:
            continue
        reach = MERGE_RADII * max(graph.radius[segment.a], graph.radius[segment.b]) + 1.0
        if len(segment.path) <= 1.5 * reach + 2 and path_length(segment.path) <= reach:
            parent[root(segment.a)] = root(segment.b)
            del graph.segments[key]
            changed = True
    if not changed:
        return False
    members: dict[int, list[int]] = {}
    for n in graph.position:
        members.setdefault(root(n), []).append(n)
    for head, group in members.items():
        if len(group) > 1:
            weights = np.array([graph.radius[n] for n in group])
            graph.position[head] = np.average([graph.position[n] for n in group], axis=0, weights=weights)
            graph.radius[head] = float(weights.max())
    for key, segment in list(graph.segments.items()):
        if segment.a < 0:
            continue
        segment.a, segment.b = root(segment.a), root(segment.b)
        if segment.a == segment.b and path_length(segment.path) <= 4.0 * graph.radius[segment.a] + 4.0:
            del graph.segments[key]
    _join_through_nodes_of_degree_two(graph)
    return True


def _drop_specks(graph: Topology, skeleton: Skeleton) -> None:
    """Remove lone segments that are shorter than twice their width: blobs, not vessels."""
    ends = graph.ends()
    for key, segment in list(graph.segments.items()):
        lone = segment.a >= 0 and len(ends[segment.a]) == 1 and len(ends[segment.b]) == 1
        if not lone:
            continue
        pixels = segment.path.astype(np.intp)
        radius = float(np.median(skeleton.distance[pixels[:, 0], pixels[:, 1]]))
        if path_length(segment.path) + 2.0 * radius < 4.0 * radius:
            del graph.segments[key]
            for node in (segment.a, segment.b):
                graph.position.pop(node, None)
                graph.radius.pop(node, None)


# ---- artery and vein ---------------------------------------------------------------------------------------------------


def label_kinds(graph: Topology, artery: np.ndarray, vein: np.ndarray) -> None:
    """Name each segment by the mask (uint8 crops) that holds most of its pixels; pixels of both decide nothing."""
    segments = list(graph.segments.values())
    if not segments:
        return
    trims = [min(len(s.path) // 4, 6) for s in segments]
    inner = [s.path[t : len(s.path) - t] for s, t in zip(segments, trims, strict=True)]
    pixels = np.concatenate(inner).astype(np.intp)
    difference = artery[pixels[:, 0], pixels[:, 1]].astype(np.int8) - vein[pixels[:, 0], pixels[:, 1]].astype(np.int8)
    counts = np.array([len(p) for p in inner])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    only_artery = np.add.reduceat((difference > 0).astype(int), starts)
    only_vein = np.add.reduceat((difference < 0).astype(int), starts)
    for segment, a, v, n in zip(segments, only_artery, only_vein, counts, strict=True):
        segment.kind = UNKNOWN if max(a, v) < 0.3 * n else (ARTERY if a > v else VEIN)


def _outward(segment: Segment, side: int, radius: float) -> np.ndarray:
    """Unit vector (y, x) in which a segment leaves the node at its start (0) or end (1)."""
    path = segment.path if side == 0 else segment.path[::-1]
    first = min(int(radius), max(len(path) - 3, 0))
    last = min(first + max(6, int(3 * radius)), len(path) - 1)
    vector = (path[last] - path[first]).astype(float)
    length = math.hypot(*vector)
    return vector / length if length > 0 else np.array([0.0, 0.0])


def _kink(u: np.ndarray, v: np.ndarray) -> float:
    """Degrees by which a vessel bends that arrives along -u and leaves along v: 0 is straight on."""
    return math.degrees(math.acos(max(-1.0, min(1.0, -float(u @ v)))))


def _pairing(graph: Topology, branches: list[tuple[int, int, float]]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The two vessels that four branches make at a crossing, as pairs of indices, or None if it is no crossing."""
    vectors = [_outward(graph.segments[s], side, radius) for s, side, radius in branches]
    kinds = [graph.segments[s].kind for s, _, _ in branches]
    best = None
    for one, two in (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))):
        kinks = [_kink(vectors[i], vectors[j]) for i, j in (one, two)]
        by_class = [{kinds[i], kinds[j]} - {UNKNOWN} for i, j in (one, two)]
        if any(len(c) > 1 for c in by_class):
            continue
        different = len(by_class[0] | by_class[1]) == 2
        same = len(by_class[0]) == 1 and by_class[0] == by_class[1]
        # Vessels of one kind do not cross each other.
        if same or max(kinks) > (STRAIGHT_BY_CLASS if different else STRAIGHT_BY_SHAPE):
            continue
        score = max(kinks) - (90.0 if different else 0.0)
        if best is None or score < best[0]:
            best = (score, one, two)
    return None if best is None else (best[1], best[2])


def resolve_crossings(graph: Topology) -> None:
    """Tell crossings from bifurcations, and lead each vessel through the crossing as one segment.

    A crossing is a node of four branches, or two nodes of three branches joined by a short shared course, whose branches pair
    into two vessels that pass straight on; with artery and vein labels the two must not be of one kind. Where a vessel of one
    kind ends on a vessel of the other, the latter passes through and the former ends in a contact.
    """
    ends = graph.ends()
    done: set[int] = set()
    for key, link in list(graph.segments.items()):
        a, b = link.a, link.b
        if a == b or a in done or b in done or len(ends.get(a, ())) != 3 or len(ends.get(b, ())) != 3:
            continue
        length = path_length(link.path)
        if length > SHARED_COURSE_RADII * (graph.radius[a] + graph.radius[b]) + 2:
            continue
        at_a = [(s, e) for s, e in ends[a] if s != key]
        at_b = [(s, e) for s, e in ends[b] if s != key]
        if len({s for s, _ in at_a + at_b}) != 4:
            continue
        branches = [(s, e, graph.radius[a]) for s, e in at_a] + [(s, e, graph.radius[b]) for s, e in at_b]
        pairs = _pairing(graph, branches)
        # Each vessel must lead from one end of the shared course to the other.
        if pairs is None or any((i < 2) == (j < 2) for i, j in pairs):
            continue
        done |= {a, b}
        graph.crossings.append((graph.position[a] + graph.position[b]) / 2)
        del graph.segments[key]
        for i, j in pairs:
            i, j = (i, j) if i < 2 else (j, i)
            _splice(graph, branches[i][:2], branches[j][:2], link.path)
    for node in list(graph.position):
        incident = ends.get(node, [])
        if node in done or len({s for s, _ in incident}) != len(incident):
            continue
        if len(incident) == 4:
            pairs = _pairing(graph, [(s, e, graph.radius[node]) for s, e in incident])
            if pairs is not None:
                graph.crossings.append(graph.position[node].copy())
                for i, j in pairs:
                    _splice(graph, incident[i], incident[j], None)
        elif len(incident) == 3:
            _split_contact(graph, node, incident)
        elif len(incident) > 4:
            _lead_through_fork(graph, node, incident)
    _join_through_nodes_of_degree_two(graph)


def _lead_through_fork(graph: Topology, node: int, incident: list[tuple[int, int]]) -> None:
    """At a node of five branches or more, a vessel of one kind may cross where one of the other kind forks: lead it through."""
    kinds = [graph.segments[s].kind for s, _ in incident]
    for kind in (ARTERY, VEIN):
        pair = [i for i, k in enumerate(kinds) if k == kind]
        others = [i for i, k in enumerate(kinds) if k == ARTERY + VEIN - kind]
        if len(pair) != 2 or len(others) < 3:
            continue
        one, two = (_outward(graph.segments[s], side, graph.radius[node]) for s, side in (incident[i] for i in pair))
        if _kink(one, two) <= STRAIGHT_BY_CLASS:
            graph.crossings.append(graph.position[node].copy())
            _splice(graph, incident[pair[0]], incident[pair[1]], None)
            return


def _splice(graph: Topology, one: tuple[int, int], two: tuple[int, int], between: np.ndarray | None) -> None:
    """Move the given ends of two segments to a fresh node of their own, by way of the path `between`."""
    node = graph.new_id()
    first, second = graph.segments[one[0]], graph.segments[two[0]]
    if between is not None:
        first.path = np.concatenate([first.path, between] if one[1] == 1 else [between[::-1], first.path])
    graph.position[node] = np.asarray(second.path[0 if two[1] == 0 else -1], dtype=float)
    graph.radius[node] = 0.0
    for segment, side in ((first, one[1]), (second, two[1])):
        if side == 0:
            segment.a = node
        else:
            segment.b = node


def _split_contact(graph: Topology, node: int, incident: list[tuple[int, int]]) -> None:
    """At a node of three branches, two of one kind and the third of the other: the two are one vessel, the third ends."""
    kinds = [graph.segments[s].kind for s, _ in incident]
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        if kinds[j] != kinds[k] or UNKNOWN in kinds or kinds[i] == kinds[j]:
            continue
        vectors = [_outward(graph.segments[s], side, graph.radius[node]) for s, side in incident]
        if _kink(vectors[j], vectors[k]) > STRAIGHT_BY_CLASS:
            return
        _splice(graph, incident[j], incident[k], None)
        graph.contacts.add(node)
        return


def bridge_gaps(graph: Topology, distance: np.ndarray, other: np.ndarray) -> None:
    """Join free ends of one kind across a vessel of the other kind that interrupts them.

    Parameters
    ----------
    graph : Topology
        Changed in place.
    distance : ndarray [h, w]
        Distance to the edge in this kind's mask.
    other : ndarray of uint8 [h, w]
        Mask of the other kind, same crop.
    """
    free = [(node, *incident[0]) for node, incident in graph.ends().items() if len(incident) == 1]
    if len(free) < 2:
        return
    tips, bases, headings, widths = [], [], [], []
    for _, key, side in free:
        segment = graph.segments[key]
        path = segment.path if side == 0 else segment.path[::-1]
        inner = path[: max(4, len(path) // 2)].astype(np.intp)
        width = max(2.0 * float(np.median(distance[inner[:, 0], inner[:, 1]])), 2.0)
        tips.append(path[0].astype(float))
        # A slanting cut draws the skeleton's tip into its corner: directions are judged one width inside.
        bases.append(path[min(round(width), len(path) - 1)].astype(float))
        widths.append(width)
        headings.append(-_outward(segment, side, width))
    at, inside = np.array(tips), np.array(bases)
    reach = BRIDGE_WIDTHS * max(widths) + 4.0
    candidates = []
    for i in range(len(free)):
        lengths = np.hypot(*(at[i + 1 :] - at[i]).T)
        for j in np.flatnonzero(lengths <= reach) + i + 1:
            length = float(lengths[j - i - 1])
            if length > BRIDGE_WIDTHS * max(widths[i], widths[j]) + 4.0 or free[i][1] == free[j][1]:
                continue
            across = inside[j] - inside[i]
            direction = across / max(math.hypot(*across), 1e-9)
            straight = min(float(headings[i] @ direction), -float(headings[j] @ direction))
            if straight < BRIDGE_COSINE:
                continue
            steps = np.linspace(0.0, 1.0, int(length) + 2)[:, None]
            line = np.rint(at[i] + steps * (at[j] - at[i])).astype(np.intp)
            if other[line[:, 0], line[:, 1]].mean() >= 0.4:
                candidates.append((length * (2.0 - straight), i, int(j)))
    used: set[int] = set()
    for _, i, j in sorted(candidates):
        if i in used or j in used:
            continue
        used |= {i, j}
        starts = []
        for k in (i, j):
            _, key, side = free[k]
            segment = graph.segments[key]
            cut = min(round(widths[k] / 2.0), (len(segment.path) - 1) // 2)
            segment.path = segment.path[cut:] if side == 0 else segment.path[: len(segment.path) - cut]
            starts.append(segment.path[0 if side == 0 else -1].astype(float))
        count = max(2, round(float(math.hypot(*(starts[1] - starts[0])))))
        line = starts[0] + np.linspace(0.0, 1.0, count + 1)[:, None] * (starts[1] - starts[0])
        graph.segments[graph.new_id()] = Segment(free[i][0], free[j][0], line.astype(np.float32))
    if used:
        _join_through_nodes_of_degree_two(graph)
