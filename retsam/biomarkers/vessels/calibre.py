"""Central retinal artery and vein equivalents, and their ratio, from the vessels that cross zone B."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from retsam.biomarkers.registry import Biomarker, Null
from retsam.biomarkers.vessels.analysis import Analysis, Value, column, length_columns, length_entries

#: Vessels that the equivalents combine (Knudtson 2003).
VESSELS = 6
KNUDTSON = {"artery": 0.88, "vein": 0.95}
#: A vessel crosses zone B when it covers at least this share of the zone's depth (r).
LEAST_CROSSING = 0.4
#: A branch that ends sooner (r) beyond its fork is a stub, unless it leaves the zone.
LEAST_STUB = 0.2
_RIM = 2.95
# Why `BiomarkersConfig.min_calibre_zone_share` is 0.85: cutting the nasal side off whole zones of 23 eyes (GAVE, HRF) made the equivalents
# 1 to 2 % too narrow at a share of 0.86, 4 to 7 % at 0.72 and 7 to 12 % at 0.63, where a third to two thirds have no six vessels left.

_ROWS = {"artery": "crae", "vein": "crve"}


def _combine(widths: Sequence[float], pair: Callable[[float, float], float]) -> float:
    """Pair the widest with the narrowest until one is left; the middle one of an odd number waits for the next round."""
    remaining = sorted(float(w) for w in widths)
    while len(remaining) > 1:
        half = len(remaining) // 2
        paired = [pair(remaining[-1 - i], remaining[i]) for i in range(half)]
        if len(remaining) % 2:
            paired.append(remaining[half])
        remaining = sorted(paired)
    return remaining[0]


def knudtson(widths: Sequence[float], structure: str) -> float:
    """Central retinal equivalent of Knudtson's revision.

    Parameters
    ----------
    widths : sequence of float
        Widths of the vessels, in any unit; the answer has the same unit. The six widest are used.
    structure : str
        ``artery`` (CRAE) or ``vein`` (CRVE).

    Returns
    -------
    float
        Pairs are combined by k sqrt(w1^2 + w2^2), k = 0.88 for arteries and 0.95 for veins (Knudtson et al., Curr Eye Res 2003).

    Raises
    ------
    ValueError
        Without any width.
    """
    if not len(widths):
        raise ValueError("expected at least one width, found none")
    factor = KNUDTSON[structure]
    return _combine(sorted(widths)[-VESSELS:], lambda a, b: factor * math.hypot(a, b))


def hubbard(widths_um: Sequence[float], structure: str) -> float:
    """Central retinal equivalent of Parr and Hubbard, whose constants are micrometres.

    Parameters
    ----------
    widths_um : sequence of float
        Widths of the vessels in micrometres. The six widest are used, paired as in Knudtson's revision.
    structure : str

    Returns
    -------
    float
        Micrometres. Artery: sqrt(0.87 w1^2 + 1.01 w2^2 - 0.22 w1 w2 - 10.76), vein: sqrt(0.72 w1^2 + 0.91 w2^2 + 450.05) (Hubbard et
        al., Ophthalmology 1999), w1 the narrower and w2 the wider of a pair.

    Raises
    ------
    ValueError
        With fewer than two widths: the formula combines pairs.
    """
    if len(widths_um) < 2:
        raise ValueError(f"expected at least two widths, found {len(widths_um)}")

    def pair(wide: float, narrow: float) -> float:
        if structure == "artery":
            squared = 0.87 * narrow**2 + 1.01 * wide**2 - 0.22 * narrow * wide - 10.76
        else:
            squared = 0.72 * narrow**2 + 0.91 * wide**2 + 450.05
        return math.sqrt(max(squared, 0.0))

    return _combine(sorted(widths_um)[-VESSELS:], pair)


def zone_b_widths(analysis: Analysis, structure: str) -> np.ndarray:
    """Widths (grid px) of the vessels that cross zone B, each vessel once.

    A vessel that branches inside the zone goes on in its widest branch; the others are vessels of their own. Those that cover less than
    `LEAST_CROSSING` of the zone's depth do not count.

    Returns
    -------
    ndarray [n]
        Mean widths over the vessels' courses through the zone.
    """
    pieces = analysis.stretches(structure, "zone_b")
    graph, disc = analysis.graph(structure), analysis.context.disc
    radial = np.hypot(graph.points[:, 0] - disc.x, graph.points[:, 1] - disc.y) / disc.r
    spans = [radial[a:b] for a, b in zip(pieces.start, pieces.stop, strict=True)]
    low, high = np.array([span.min() for span in spans]), np.array([span.max() for span in spans])
    widths: list[float] = []
    for course in _courses(analysis, structure, spans):
        samples = pieces.samples[course]
        if samples.any() and high[course].max() - low[course].min() >= LEAST_CROSSING:
            known = samples > 0
            widths.append(float(np.average(pieces.width[course][known], weights=samples[known])))
    return np.array(widths)


def _courses(analysis: Analysis, structure: str, spans: Sequence[np.ndarray]) -> list[list[int]]:
    """Pieces of the structure's segments in zone B, put together to vessels through the forks inside it.

    Which side of a fork a piece lies on is told by its mean distance from the disc, which grows along a course, so that none runs in a
    circle.
    """
    pieces, graph = analysis.stretches(structure, "zone_b"), analysis.graph(structure)
    # Between two forks close together no width is measured: what the sides of the vessel there say is enough to tell a trunk from a twig.
    width = np.array([np.median(graph.width[a:b]) for a, b in zip(pieces.start, pieces.stop, strict=True)])
    mean = np.array([span.mean() for span in spans])
    reach = np.array([span.max() for span in spans])
    forks: dict[int, list[tuple[int, float]]] = {}
    for i, segment in enumerate(pieces.segment):
        at_start, at_stop = pieces.start[i] == graph.offsets[segment], pieces.stop[i] == graph.offsets[segment + 1]
        for side, here, sample in ((0, at_start, 0), (1, at_stop, -1)):
            node = int(graph.ends[segment, side])
            if here and node >= 0 and graph.node_kind[node] == "bifurcation":
                forks.setdefault(node, []).append((i, float(spans[i][sample])))

    onward: dict[int, int] = {}
    # From the outermost fork inwards, so that how far a branch reaches is known before it is chosen.
    for radius, members in sorted(((float(np.mean([r for _, r in m])), sorted({i for i, _ in m})) for m in forks.values()), reverse=True):
        inner = [i for i in members if mean[i] < radius]
        outer = [i for i in members if mean[i] >= radius]
        if not inner or not outer:
            continue
        # A stub may be drawn wider than the vessel that it hangs on.
        going_on = [i for i in outer if reach[i] - radius >= LEAST_STUB or reach[i] >= _RIM] or outer
        trunk, branch = max(inner, key=lambda i: width[i]), max(going_on, key=lambda i: width[i])
        onward[trunk] = branch
        reach[trunk] = max(reach[trunk], reach[branch])

    courses = []
    for i in sorted(set(range(len(spans))) - set(onward.values())):
        course = [i]
        while course[-1] in onward:
            course.append(onward[course[-1]])
        courses.append(course)
    return courses


DICTIONARY: list[Biomarker] = []
for _structure, _name in _ROWS.items():
    _word = {"artery": "arteriolar", "vein": "venular"}[_structure]
    DICTIONARY += [
        *length_entries(
            length_columns(_name), _structure, "zone_b",
            f"Central retinal {_structure} equivalent: the six widest {_structure} vessels crossing zone B (2-3 disc radii from its "
            "centre), each once and followed through its forks along the widest branch, widest paired with narrowest, "
            f"w = {KNUDTSON[_structure]} sqrt(w1^2 + w2^2), until one is left.",
            source="Knudtson 2003", direction=f"wider {_word} tree", needs=(_structure, "disc", "fov"), resolution="calibre",
        ),
        Biomarker(
            f"{_name}_hubbard_um", "vessels",
            f"Central retinal {_structure} equivalent of Parr and Hubbard from the six widest vessels crossing zone B, in micrometres.",
            unit="um", source="Hubbard 1999", needs=(_structure, "disc", "fov", "scale"), valid_range=(0.0, 1e4),
            direction=f"wider {_word} tree", structure=_structure, region="zone_b", resolution="calibre",
        ),
        Biomarker(
            column("vessel_count", _structure, "zone_b"), "vessels",
            f"Number of {_structure} vessels that cross at least {LEAST_CROSSING} of zone B's depth; one that branches there goes on in "
            "its widest branch. The equivalents need six. Empty where the eye shows none at all, which no retina does.",
            unit="count", needs=(_structure, "disc", "fov"), valid_range=(0.0, 200.0), direction="more vessels leave the disc",
            structure=_structure, region="zone_b", resolution="density",
        ),
    ]  # fmt: skip
DICTIONARY += [
    Biomarker(
        name, "vessels", definition, source=source, needs=("artery", "vein", "disc", "fov", *extra), valid_range=(0.05, 5.0),
        direction="wider arteries relative to veins", structure="vessel", region="zone_b", resolution="calibre",
    )
    for name, definition, source, extra in (
        ("avr", "Artery-vein ratio: crae / crve.", "Knudtson 2003", ()),
        ("avr_hubbard", "Artery-vein ratio of the Parr-Hubbard equivalents.", "Hubbard 1999", ("scale",)),
    )
]  # fmt: skip


def measure(analysis: Analysis) -> dict[str, Value]:
    """Values of `DICTIONARY`."""
    values: dict[str, Value] = {}
    equivalents: dict[str, Value] = {}
    hubbards: dict[str, Value] = {}
    for structure, name in _ROWS.items():
        null = analysis.null(structure, "zone_b", "density")
        if null is None:
            zone = analysis.context.zone("zone_b")
            if not isinstance(zone, Null) and zone.share < analysis.context.config.min_calibre_zone_share:
                null = Null("zone_outside_fov")
        widths = zone_b_widths(analysis, structure) if null is None else np.zeros(0)
        values[column("vessel_count", structure, "zone_b")] = null if null is not None else float(len(widths))
        null = null or analysis.missing(structure, "calibre")
        if null is None and len(widths) < VESSELS:
            null = Null("too_few_vessels")
        equivalents[structure] = null if null is not None else knudtson(widths, structure)
        values |= analysis.lengths(length_columns(name), equivalents[structure])
        um = analysis.context.um_per_grid_px
        if null is None and um is None:
            null = Null("no_scale")
        hubbards[structure] = null if null is not None else hubbard(widths * um, structure)
        values[f"{name}_hubbard_um"] = hubbards[structure]
    for name, pair in (("avr", equivalents), ("avr_hubbard", hubbards)):
        nulls = [v for v in pair.values() if isinstance(v, Null)]
        values[name] = nulls[0] if nulls else pair["artery"] / pair["vein"]
    return values
