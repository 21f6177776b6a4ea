"""Retinal arteries and veins grown as trees from the optic disc, with a known width for every segment.

Coordinates are millimetres in the eye's own frame: origin at the centre of the disc, x temporal, y inferior. Eight or nine
trunks of each kind leave the disc (temporal arcades, nasal, macular and vertical ones), follow a wandering course, and
bifurcate by Murray's law: ``d0**x = d1**x + d2**x``, with the daughters' angles those of least volume (Murray 1926; Zamir 1976).
Vessels of one kind never cross each other; arteries and veins do. A width changes only at a bifurcation, and no vessel
bifurcates inside zone B, so that the six widest vessels crossing it are known without a convention.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from retsam.demo.geometry import cup_centre
from retsam.demo.parameters import EyeParameters

__all__ = ["Segment", "grow_vessels"]

_STEP = 0.15  # mm between growth steps
_CELL = 0.06  # mm, cells of the crowding maps
_ORIGIN = (-11.0, -11.0)
_SHAPE = (368, 434)  # rows (y), columns (x): 22 x 26 mm
_REACH = 8  # cells, radius of a vessel's own space
_GRID = np.hypot(*np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1]) * _CELL
_STAMP = np.exp(-0.5 * (_GRID / 0.19) ** 2).astype(np.float32)
_TURNS = (0.0, -0.2, 0.2, -0.45, 0.45)


@dataclass
class Segment:
    """A vessel between two bifurcations.

    Attributes
    ----------
    kind : {'artery', 'vein'}
    width : float
        Millimetres, constant along the segment.
    points : ndarray [n, 2]
        Smooth centreline, millimetres in the eye's frame, about 0.03 mm apart.
    parent : int or None
        Index of the parent segment in the list of all segments.
    children : list of int
    """

    kind: str
    width: float
    points: np.ndarray
    parent: int | None
    children: list[int] = field(default_factory=list)


@dataclass
class _Tip:
    kind: str
    width: float
    x: float
    y: float
    heading: float
    parent: int | None
    course: np.ndarray | None = None
    progress: int = 0
    drift: float = 0.0  # curvature of the wandering, rad per mm
    nodes: list[tuple[float, float, float]] = field(default_factory=list)
    travelled: float = 0.0  # mm since the last bifurcation
    side: float = 1.0  # side of the last branch
    hemifield: float = 0.0  # -1 superior, 1 inferior trunk
    outside_zone: bool = False


class _Space:
    """Where vessels of each kind already run."""

    def __init__(self) -> None:
        self.crowd = {kind: np.zeros(_SHAPE, np.float32) for kind in ("artery", "vein")}

    def stamp(self, kind: str, nodes: list[tuple[float, float, float]]) -> None:
        crowd = self.crowd[kind]
        for x, y, _ in nodes:
            column, row = int((x - _ORIGIN[0]) / _CELL), int((y - _ORIGIN[1]) / _CELL)
            if _REACH <= row < _SHAPE[0] - _REACH and _REACH <= column < _SHAPE[1] - _REACH:
                window = crowd[row - _REACH : row + _REACH + 1, column - _REACH : column + _REACH + 1]
                np.maximum(window, _STAMP, out=window)

    def at(self, kind: str, x: float, y: float) -> float:
        column, row = int((x - _ORIGIN[0]) / _CELL), int((y - _ORIGIN[1]) / _CELL)
        if 0 <= row < _SHAPE[0] and 0 <= column < _SHAPE[1]:
            return float(self.crowd[kind][row, column])
        return 0.0


def _spline(controls: np.ndarray, spacing: float = 0.2) -> np.ndarray:
    """Catmull-Rom curve through the control points, sampled about every `spacing` mm."""
    padded = np.vstack([2 * controls[0] - controls[1], controls, 2 * controls[-1] - controls[-2]])
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        t = np.linspace(0, 1, max(2, int(np.hypot(*(c - b)) / spacing)), endpoint=False)[:, None]
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.vstack([*pieces, controls[-1:]])


def _hub(parameters: EyeParameters) -> tuple[float, float]:
    """Where vessels come up, millimetres: a little nasal in the cup."""
    x, y = cup_centre(parameters)
    return x - 0.05 * parameters.disc_width_mm * parameters.cdr_horizontal, y


def _courses(parameters: EyeParameters, rng: np.random.Generator) -> list[tuple[str, float, np.ndarray]]:
    """Kind, relative width and course of every trunk, superior ones first."""
    h, reach = parameters.arcade_height_mm, parameters.fovea_distance_mm / 4.55

    def jitter(scale: float) -> float:
        return float(rng.normal(0, scale))

    # Vessels come up through the nasal half of the cup, the central artery nasal of the central vein.
    hub, depth = _hub(parameters)
    roots = {"artery": hub - 0.07 + jitter(0.03), "vein": hub + 0.07 + jitter(0.03)}
    trunks = []
    for side in (-1.0, 1.0):
        outer = "vein" if rng.random() < 0.7 else "artery"
        for kind in ("artery", "vein"):
            root = roots[kind] + jitter(0.02)
            rise = h * (1.05 if kind == outer else 0.88) * (1 + jitter(0.05))
            shift = 0.16 if kind == outer else -0.1
            trunks.append(
                (
                    kind,
                    1.0 + jitter(0.05),
                    np.array(
                        [
                            (root, depth + side * 0.03),
                            (root + 0.04, side * 0.5),
                            (0.12 - shift + jitter(0.06), side * 0.98),
                            ((0.85 + jitter(0.12) - shift) * reach, side * 0.62 * rise),
                            ((2.3 + jitter(0.2)) * reach, side * (0.92 * rise + jitter(0.12))),
                            ((4.6 + jitter(0.3)) * reach, side * (rise + jitter(0.2))),
                            ((7.2 + jitter(0.3)) * reach, side * (0.82 * rise + jitter(0.4))),
                            (10.5 * reach, side * (0.5 * rise + jitter(0.6))),
                        ]
                    ),
                )
            )
            swing = 0.5 if kind == outer else 0.0
            trunks.append(
                (
                    kind,
                    0.72 + jitter(0.05),
                    np.array(
                        [
                            (root, depth + side * 0.03),
                            (root - 0.08, side * 0.42),
                            (-0.5 + 0.2 * swing + jitter(0.06), side * (0.82 + 0.2 * swing)),
                            (-1.5 + 0.7 * swing + jitter(0.2), side * (2.0 + swing + jitter(0.2))),
                            (-3.2 + swing + jitter(0.4), side * (3.7 + swing + jitter(0.4))),
                            (-6.0 + swing, side * (6.4 + swing + jitter(0.7))),
                        ]
                    ),
                )
            )
            low = 0.2 if kind == outer else 0.42
            trunks.append(
                (
                    kind,
                    0.46 + jitter(0.05),
                    np.array(
                        [
                            (root, depth + side * 0.03),
                            (root - 0.05, depth + side * 0.3),
                            (-0.9, side * (low + jitter(0.05))),
                            (-2.4, side * (2.2 * low + jitter(0.15))),
                            (-5.0, side * (4 * low + jitter(0.4))),
                        ]
                    ),
                )
            )
            near = 0.3 if kind == outer else 0.55
            trunks.append(
                (
                    kind,
                    0.42 + jitter(0.05),
                    np.array(
                        [
                            (root, depth + side * 0.03),
                            (root + 0.06, depth + side * 0.4),
                            (0.8, side * (near + jitter(0.05))),
                            (1.9 * reach, side * (1.9 * near + 0.15 + jitter(0.1))),
                            (3.3 * reach, side * (1.05 + 0.6 * near + jitter(0.12))),
                        ]
                    ),
                )
            )
        if rng.random() < 0.6:
            kind = "vein" if rng.random() < 0.5 else "artery"
            root = roots[kind]
            trunks.append(
                (
                    kind,
                    0.5 + jitter(0.05),
                    np.array(
                        [
                            (root, depth + side * 0.03),
                            (root - 0.02, side * 0.5),
                            (-0.2, side * 1.0),
                            (-0.1 + jitter(0.15), side * 2.4),
                            (0.5 + jitter(0.5), side * 4.3),
                            (1.2 + jitter(0.8), side * 7.5),
                        ]
                    ),
                )
            )
    tilt = math.radians(parameters.fovea_angle)
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    return [(kind, width, _spline(controls @ turn.T)) for kind, width, controls in trunks]


def murray_daughters(width: float, ratio: float, exponent: float) -> tuple[float, float, float, float]:
    """Widths and deflections (radians) of the larger and the smaller daughter.

    Parameters
    ----------
    width : float
        Parent's width d0.
    ratio : float
        d2 / d1, at most 1.
    exponent : float
        x of ``d0**x = d1**x + d2**x``.
    """
    major = width / (1 + ratio**exponent) ** (1 / exponent)
    minor = ratio * major

    def angle(d: float, other: float) -> float:
        return math.acos(min(1.0, max(-1.0, (width**4 + d**4 - other**4) / (2 * width**2 * d**2))))

    return major, minor, angle(major, minor), angle(minor, major)


class _Growth:
    def __init__(
        self, parameters: EyeParameters, rng: np.random.Generator, fovea: np.ndarray, view: tuple[float, float, float], thinnest: float
    ):
        self.parameters, self.rng, self.fovea, self.view, self.thinnest = parameters, rng, fovea, view, thinnest
        self.radius = 0.25 * (parameters.disc_height_mm + parameters.disc_width_mm)
        self.space = _Space()
        self.segments: list[tuple[_Tip, list[int]]] = []

    def _goal(self, tip: _Tip) -> float:
        """Heading that the tip would like to take."""
        if tip.course is not None:
            while tip.progress < len(tip.course) - 1 and (
                math.hypot(tip.course[tip.progress][0] - tip.x, tip.course[tip.progress][1] - tip.y) < 0.75
            ):
                tip.progress += 1
            if tip.progress < len(tip.course) - 1:
                target = tip.course[tip.progress]
                return math.atan2(target[1] - tip.y, target[0] - tip.x)
            tip.course = None
        fx, fy = self.fovea[0] - tip.x, self.fovea[1] - tip.y
        away = math.hypot(tip.x, tip.y) + 1e-9
        gx, gy = tip.x / away, tip.y / away
        far = math.hypot(fx, fy) + 1e-9
        if far < 0.95 * self.parameters.arcade_height_mm:  # between the arcades vessels turn to the fovea
            gx, gy = 0.3 * gx + 1.1 * fx / far, 0.3 * gy + 1.1 * fy / far
        hx, hy = math.cos(tip.heading), math.sin(tip.heading)
        return math.atan2(0.4 * gy + hy, 0.4 * gx + hx)

    def _cost(self, tip: _Tip, heading: float, goal: float) -> float:
        other = "vein" if tip.kind == "artery" else "artery"
        turn = (heading - goal + math.pi) % (2 * math.pi) - math.pi
        cost = 1.1 * turn * turn
        near_disc = tip.x * tip.x + tip.y * tip.y < (1.25 * self.radius) ** 2
        for ahead in (0.32, 0.6):
            x, y = tip.x + ahead * math.cos(heading), tip.y + ahead * math.sin(heading)
            if not near_disc:
                cost += 1.6 * self.space.at(tip.kind, x, y) + 0.6 * self.space.at(other, x, y)
            distance = math.hypot(x - self.fovea[0], y - self.fovea[1])
            free = 0.32 + 14 * max(0.0, tip.width - 0.02)
            if distance < free:
                cost += 3 * (free - distance)
        return cost

    def step(self, tip: _Tip) -> bool:
        """Advance by one step; False where the vessel ends."""
        goal = self._goal(tip)
        best = min(_TURNS, key=lambda turn: self._cost(tip, tip.heading + turn, goal))
        steer = (goal - tip.heading + math.pi) % (2 * math.pi) - math.pi
        thin = 1.5 - min(0.8, tip.width / 0.15)
        tip.drift += -tip.drift * _STEP / 0.45 + self.rng.normal() * 0.8 * self.parameters.tortuosity * thin * math.sqrt(_STEP)
        turn = 0.3 * best + (0.28 if tip.course is not None else 0.12) * steer + tip.drift * _STEP
        tip.heading += max(-0.3, min(0.3, turn))
        x, y = tip.x + _STEP * math.cos(tip.heading), tip.y + _STEP * math.sin(tip.heading)
        if math.hypot(x - self.view[0], y - self.view[1]) > self.view[2] + 0.5:
            return False
        from_disc = math.hypot(x, y)
        if from_disc > 3.4 * self.radius:
            tip.outside_zone = True
        elif tip.outside_zone and from_disc < 3.25 * self.radius:
            return False
        if tip.course is None and self._strays(tip, x, y):
            return False
        if from_disc > 1.4 * self.radius and tip.travelled > 0.5:
            crowd = self.space.at(tip.kind, x, y)
            if crowd > 0.86 or (tip.width < 0.05 and crowd > 0.35 and tip.travelled > 0.8):
                return False
            other = "vein" if tip.kind == "artery" else "artery"
            if tip.width < 0.05 and self._alongside(tip, other):
                return False
        tip.x, tip.y = x, y
        tip.travelled += _STEP
        tip.nodes.append((x, y, tip.heading))
        return True

    def _strays(self, tip: _Tip, x: float, y: float) -> bool:
        """Whether a branch enters the avascular zone, runs past the fovea, or crosses the horizontal raphe."""
        fx, fy = self.fovea[0] - x, self.fovea[1] - y
        far = math.hypot(fx, fy)
        if far < 0.27:
            return True
        towards = (fx * math.cos(tip.heading) + fy * math.sin(tip.heading)) / far
        if far < 2.2 and towards < -0.15 and tip.travelled > 0.6:
            return True
        reach = math.hypot(*self.fovea)
        across = (self.fovea[0] * y - self.fovea[1] * x) / reach  # height below the line through disc and fovea
        return x > 0.45 * reach and across * tip.hemifield < -0.2

    def _alongside(self, tip: _Tip, other: str) -> bool:
        """Whether a thin vessel has run on top of one of the other kind for some way, which none does."""
        return len(tip.nodes) > 3 and all(self.space.at(other, x, y) > 0.75 for x, y, _ in tip.nodes[-3:])

    def _may_branch(self, tip: _Tip) -> bool:
        from_disc = math.hypot(tip.x, tip.y)
        return from_disc > 3.2 * self.radius or 1.15 * self.radius < from_disc < 1.55 * self.radius

    def _daughter(self, tip: _Tip, width: float, turn: float, course: bool) -> _Tip:
        return _Tip(
            tip.kind,
            width,
            tip.x,
            tip.y,
            tip.heading + turn,
            len(self.segments),
            tip.course if course else None,
            tip.progress,
            nodes=[(tip.x, tip.y, tip.heading + turn)],
            side=math.copysign(1.0, -turn if course else turn),
            hemifield=tip.hemifield,
            outside_zone=tip.outside_zone,
        )

    def close(self, tip: _Tip) -> int:
        index = len(self.segments)
        self.segments.append((tip, []))
        if tip.parent is not None:
            self.segments[tip.parent][1].append(index)
        self.space.stamp(tip.kind, tip.nodes)
        return index

    def run(self, tip: _Tip, queue: list, tie: list[int]) -> None:
        """Grow one vessel to its next bifurcation or its end."""
        rng = self.rng
        # Thick trunks give off branches about every millimetre, thin ones sooner (and then end below the thinnest width drawn).
        interval = (0.55 + 0.8 * rng.random()) * (1.25 + 3.0 * tip.width) / self.parameters.branching
        in_macula = math.hypot(tip.x - self.fovea[0], tip.y - self.fovea[1]) < 0.8 * self.parameters.arcade_height_mm
        if in_macula and tip.course is None and tip.width > 0.035:
            interval *= 0.5  # so that no thick vessel reaches the avascular zone or the raphe
        side = -tip.side if rng.random() < 0.75 else tip.side
        life = 1.2 + 3.0 * rng.random() if tip.width < 1.4 * self.thinnest else math.inf
        while True:
            if not self.step(tip) or tip.travelled > life:
                break
            if tip.travelled < interval or not self._may_branch(tip):
                continue
            ratio = rng.uniform(0.38, 0.8) if tip.width > 0.06 else rng.uniform(0.55, 0.95)
            ratio = max(ratio, min(0.98, self.thinnest / tip.width * 1.1))
            major, minor, bend_major, bend_minor = murray_daughters(tip.width, ratio, self.parameters.murray_exponent)
            if minor < self.thinnest or major < self.thinnest:
                continue
            for direction in (side, -side):
                branch = self._daughter(tip, minor, direction * bend_minor * rng.uniform(0.85, 1.1), False)
                probe_ok = all(self.step(branch) for _ in range(5))
                if probe_ok and self.space.at(tip.kind, branch.x, branch.y) < 0.7:
                    trunk = self._daughter(tip, major, -direction * bend_major * rng.uniform(0.7, 1.0), True)
                    # Both daughters must get away from the bifurcation, else it is none.
                    trunk_ok = all(self.step(trunk) for _ in range(3))
                    if trunk_ok:
                        self.close(tip)
                        for child in (trunk, branch):
                            heapq.heappush(queue, (-child.width, tie[0], child))
                            tie[0] += 1
                        return
            interval = tip.travelled + 0.3
        if len(tip.nodes) >= 3:
            self.close(tip)


def _smooth(nodes: list[tuple[float, float, float]], parts: int = 5) -> np.ndarray:
    """Cubic Hermite curve through growth nodes with their headings."""
    table = np.asarray(nodes)
    points, tangent = table[:, :2], np.column_stack([np.cos(table[:, 2]), np.sin(table[:, 2])])
    length = np.hypot(*np.diff(points, axis=0).T)[:, None, None]
    # The heading stored with a node is that of the step that led to it; the curve's tangent there is midway to the next step's.
    middle = tangent.copy()
    middle[:-1] += tangent[1:]
    middle[0] = tangent[1]
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    t = (np.arange(parts) / parts)[None, :, None]
    a, b = points[:-1, None], points[1:, None]
    ta, tb = middle[:-1, None] * length, middle[1:, None] * length
    curve = (2 * t**3 - 3 * t**2 + 1) * a + (t**3 - 2 * t**2 + t) * ta + (3 * t**2 - 2 * t**3) * b + (t**3 - t**2) * tb
    return np.vstack([curve.reshape(-1, 2), points[-1:]])


def grow_vessels(
    parameters: EyeParameters, rng: np.random.Generator, fovea: np.ndarray, view: tuple[float, float, float], thinnest: float
) -> list[Segment]:
    """Grow both trees.

    Parameters
    ----------
    parameters : EyeParameters
    rng : numpy.random.Generator
    fovea : ndarray [2]
        Millimetres in the eye's frame.
    view : tuple of float
        Centre x, y and radius of the field of view, millimetres; vessels end just outside it.
    thinnest : float
        Vessels are not drawn below this width, millimetres.

    Returns
    -------
    list of Segment
    """
    growth = _Growth(parameters, rng, fovea, view, thinnest)
    queue: list = []
    tie = [0]
    for kind, relative, course in _courses(parameters, rng):
        widest = parameters.artery_width_um if kind == "artery" else parameters.vein_width_um
        first = course[0]
        heading = math.atan2(course[2][1] - first[1], course[2][0] - first[0])
        tip = _Tip(
            kind,
            max(thinnest, relative * widest / 1000),
            first[0],
            first[1],
            heading,
            None,
            course,
            nodes=[(first[0], first[1], heading)],
            side=1.0 if rng.random() < 0.5 else -1.0,
            hemifield=math.copysign(1.0, course[4][1]),
        )
        heapq.heappush(queue, (-tip.width, tie[0], tip))
        tie[0] += 1
    while queue:
        growth.run(heapq.heappop(queue)[2], queue, tie)
    # A parent whose daughter died at once would carry a bifurcation that nobody can see: daughters shorter than
    # three steps are dropped, which leaves their parent with one child (drawn as a plain continuation).
    return [
        Segment(tip.kind, tip.width, _on_disc(_smooth(tip.nodes), parameters), tip.parent, children) for tip, children in growth.segments
    ]


def _on_disc(points: np.ndarray, parameters: EyeParameters) -> np.ndarray:
    """The course of vessels on the disc, from that of straight spokes.

    In the cup they run up and down together, and part at its edge. What lies deep is seen shifted nasally against the rim, so that they
    kink where they cross that edge (bayoneting).
    """
    if parameters.cdr_vertical == 0:
        return points
    angle = math.radians(parameters.disc_tilt)
    c, s = math.cos(angle), math.sin(angle)
    centre, root = cup_centre(parameters), _hub(parameters)[0]
    u = (c * points[:, 0] + s * points[:, 1] - centre[0]) / (0.5 * parameters.disc_width_mm * parameters.cdr_horizontal)
    v = (-s * points[:, 0] + c * points[:, 1] - centre[1]) / (0.5 * parameters.disc_height_mm * parameters.cdr_vertical)
    out = np.hypot(u, v)
    inside = np.clip((1.06 - out) / 0.16, 0, 1)
    shift = 0.22 * parameters.cdr_vertical * inside**2 * (3 - 2 * inside)
    return np.column_stack([root + (points[:, 0] - root) * np.minimum(out, 1) - shift, points[:, 1]])
