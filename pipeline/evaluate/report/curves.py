"""Curves of a training journal as SVG, drawn by matplotlib and coloured by the page's style."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluate.report.markup import Markup
from pipeline.evaluate.report.outputs import HELD_OUT, NOT_A_LOSS
from pipeline.evaluate.report.wording import words

POINTS = 300  # more cannot be told apart at the size of a chart
FEW_POINTS = 12  # each is marked when there are so few
INCHES = (4.4, 2.5)
# Colours that occur nowhere else in the drawing, and what the page's style calls them.
INKS = {"#010203": "var(--ink)", "#040506": "var(--faint)"}
SERIES_INKS = ("#0a0b01", "#0a0b02", "#0a0b03")
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": "#040506",
    "axes.labelcolor": "#010203",
    "text.color": "#010203",
    "xtick.color": "#040506",
    "ytick.color": "#040506",
    "xtick.labelcolor": "#010203",
    "ytick.labelcolor": "#010203",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#040506",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Chart:
    """A title and the lines below it, by their names."""

    title: str
    lines: Mapping[str, Points]


def charts_of(series: Mapping[str, Points]) -> list[Chart]:
    """The charts a journal is worth: loss, accuracy, and the share of replaced modules."""
    losses = {"training": series.get("loss", ())}
    for name, points in series.items():
        if name.startswith(HELD_OUT) and name.removeprefix(HELD_OUT) not in NOT_A_LOSS:
            losses[f"held out: {words(name.removeprefix(HELD_OUT))}"] = points
    accuracy = {
        "training": series.get("accuracy", ()),
        "held out": series.get(HELD_OUT + "accuracy", ()),
    }
    replaced = {"replaced modules": series.get("modules_replaced", ())}
    found = []
    for title, lines in (("Loss", losses), ("Accuracy", accuracy), ("Replaced", replaced)):
        drawn = {name: points for name, points in lines.items() if points}
        if drawn:
            found.append(Chart(title, drawn))
    return found


def thinned(points: Points, most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of equal stretches of neighbours."""
    size = -(-len(points) // most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(step for step, _ in group) / len(group), sum(v for _, v in group) / len(group))
        for group in groups
    ]


def drawn(chart: Chart, key: str) -> Markup:
    """`chart` as inline SVG; `key` keeps its inner names apart from those of other charts."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        for (name, points), ink in zip(chart.lines.items(), SERIES_INKS, strict=False):
            marker = "o" if len(points) <= FEW_POINTS else ""
            line = zip(*thinned(points), strict=True)
            axes.plot(*line, color=ink, label=name, lw=1.6, marker=marker, markersize=3.0)
        axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("step")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.legend(frameon=False, fontsize=8)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_in_page_colours(out.getvalue()))


def _in_page_colours(svg: str) -> str:
    """The drawing without XML head, metadata and names of groups, with the page's colours in place of the stand-ins."""
    svg = re.sub(r'<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', "", svg, flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace("<svg ", '<svg class="chart" role="img" ', 1)
    series = {ink: f"var(--series-{n})" for n, ink in enumerate(SERIES_INKS, start=1)}
    for ink, name in {**INKS, **series}.items():
        svg = svg.replace(ink, name)
    return svg
