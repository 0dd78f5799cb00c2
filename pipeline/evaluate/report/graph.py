"""The stages of a run as an SVG graph: from left to right, each with its time and share of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluate.report.markup import Markup, joined, tag
from pipeline.evaluate.report.outputs import Output
from pipeline.evaluate.report.wording import duration

NODE_HEIGHT, ROW_HEIGHT = 54, 74
NARROWEST, WIDEST = 126, 240
CHARACTER_WIDTH = 7.7  # of a name, generously
GAP = 32  # between columns
MARGIN = 4
SMALLEST_SCALE = 0.72  # below it the text could not be read; the page scrolls instead


@dataclass(frozen=True)
class Place:
    """Upper left corner of a node."""

    x: float
    y: float


def graph_of(outputs: Sequence[Output]) -> Markup:
    """The whole graph; a link leads from each node to `#stage-NAME`."""
    edges = shortest_edges(outputs)
    wide = node_width(outputs)
    places = places_of(outputs, edges)
    longest = max((output.seconds for output in outputs), default=0.0) or 1.0
    width = max(place.x for place in places.values()) + wide + MARGIN
    height = max(place.y for place in places.values()) + NODE_HEIGHT + MARGIN
    arrows = [
        _arrow(places[one], places[other], wide) for other, ones in edges.items() for one in ones
    ]
    nodes = [
        _node(output, places[output.name], output.seconds / longest, wide) for output in outputs
    ]
    return tag(
        "svg",
        joined(*arrows, *nodes),
        class_="graph",
        role="img",
        aria_label="Stages and what they read",
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        style=f"min-width: {SMALLEST_SCALE * width:.0f}px",
    )


def node_width(outputs: Sequence[Output]) -> int:
    """Width of every node: room for the longest name, within bounds."""
    longest = max((len(output.name) for output in outputs), default=0)
    return min(max(NARROWEST, round(20 + CHARACTER_WIDTH * longest)), WIDEST)


def shortest_edges(outputs: Sequence[Output]) -> dict[str, tuple[str, ...]]:
    """What each stage reads, without what it also gets to know through another of its inputs."""
    known = {output.name for output in outputs}
    reads = {o.name: tuple(name for name in o.reads if name in known) for o in outputs}
    behind: dict[str, set[str]] = {}
    for output in outputs:  # in order, so what an input reads is known already
        behind[output.name] = set().union(
            *(behind[name] | {name} for name in reads[output.name]), set()
        )
    return {
        name: tuple(one for one in ones if not any(one in behind[other] for other in ones))
        for name, ones in reads.items()
    }


def places_of(outputs: Sequence[Output], edges: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """Columns by the longest way from a start; a start stands just before what first reads it."""
    column: dict[str, int] = {}
    for output in outputs:
        column[output.name] = 1 + max((column[one] for one in edges[output.name]), default=-1)
    for output in outputs:
        readers = [column[other] for other, ones in edges.items() if output.name in ones]
        if not edges[output.name] and readers:
            column[output.name] = min(readers) - 1
    stride = node_width(outputs) + GAP
    rows: dict[str, float] = {}
    for number in range(max(column.values(), default=0) + 1):
        inside = [output.name for output in outputs if column[output.name] == number]
        wanted = {
            name: sum(rows.get(one, 0.0) for one in edges[name]) / max(len(edges[name]), 1)
            for name in inside
        }
        free = 0.0
        for name in sorted(inside, key=lambda one: (not edges[one], wanted[one])):
            rows[name] = max(free, wanted[name])
            free = rows[name] + 1
    return {
        name: Place(MARGIN + column[name] * stride, MARGIN + rows[name] * ROW_HEIGHT)
        for name in rows
    }


def _arrow(start: Place, end: Place, wide: float) -> Markup:
    x1, y1 = start.x + wide, start.y + NODE_HEIGHT / 2
    x2, y2 = end.x, end.y + NODE_HEIGHT / 2
    bend = (x2 - x1) / 2 if x2 - x1 <= GAP else GAP
    curve = f"M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 5:g} {y2:g}"
    head = f"M{x2 - 7:g} {y2 - 4:g} L{x2 - 1:g} {y2:g} L{x2 - 7:g} {y2 + 4:g} Z"
    return joined(tag("path", class_="edge", d=curve), tag("path", class_="head", d=head))


def _node(output: Output, place: Place, share: float, wide: float) -> Markup:
    name = output.name
    room = int((wide - 20) / CHARACTER_WIDTH)
    shown = name if len(name) <= room else name[: room - 1] + "…"
    below = duration(output.seconds)
    if output.kind not in name:
        below = f"{output.kind}, {below}"
    bar = max(2.0, share * (wide - 20))
    inside = joined(
        tag("title", f"{name}: {output.kind}, {duration(output.seconds)}"),
        tag("rect", class_="node", width=wide, height=NODE_HEIGHT, rx=8),
        tag("text", shown, class_="name", x=10, y=21),
        tag("text", below, class_="note", x=10, y=37),
        tag("rect", class_="rail", x=10, y=44, width=wide - 20, height=3, rx=1.5),
        tag("rect", class_="time", x=10, y=44, width=f"{bar:.1f}", height=3, rx=1.5),
    )
    group = tag("g", inside, transform=f"translate({place.x:g} {place.y:g})")
    return tag("a", group, href=f"#stage-{name}")
