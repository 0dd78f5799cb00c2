"""The report as one HTML page that needs nothing but itself."""

import datetime
from collections.abc import Sequence

from pipeline.evaluate.report import sections
from pipeline.evaluate.report.corpus import corpus
from pipeline.evaluate.report.graph import graph_of
from pipeline.evaluate.report.markup import Markup, joined, tag
from pipeline.evaluate.report.outputs import TRAINING_KINDS, Output, of_kind
from pipeline.evaluate.report.style import STYLE
from pipeline.evaluate.report.wording import duration


def page_of(outputs: Sequence[Output]) -> str:
    """The whole page. It says nothing of when it was written, so the same outputs give it again."""
    body = tag(
        "main",
        _title(outputs),
        sections.cards(outputs),
        tag("h2", "Stages"),
        tag("p", _about_graph(outputs), class_="soft"),
        tag("div", graph_of(outputs), class_="panel"),
        *(corpus(output) for output in of_kind(outputs, "corpus")),
        sections.text_units(outputs),
        sections.curves(of_kind(outputs, *TRAINING_KINDS)),
        *(sections.results(output) for output in of_kind(outputs, "evaluate")),
        sections.exports(of_kind(outputs, "export")),
        sections.stages(outputs),
        sections.versions(outputs),
    )
    head = joined(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", "Theseum report"),
        Markup(f"<style>{STYLE}</style>"),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _title(outputs: Sequence[Output]) -> Markup:
    ends = [output.record.get("started", 0.0) + output.seconds for output in outputs]
    end = datetime.datetime.fromtimestamp(max(ends, default=0.0), tz=datetime.UTC)
    revisions = sorted({str(output.record.get("revision", "unknown")) for output in outputs})
    return joined(
        tag("h1", "From raw pages to a small model"),
        tag(
            "p",
            f"{len(outputs)} stages, finished {end:%d %B %Y, %H:%M} UTC, "
            f"code revision {', '.join(revisions)}",
            class_="subtitle",
        ),
    )


def _about_graph(outputs: Sequence[Output]) -> str:
    names = {output.name: output for output in outputs}
    slowest = max(names.values(), key=lambda output: output.seconds)
    total = sum(output.seconds for output in outputs)
    return (
        f"An arrow leads from a stage to what reads its output; indirect ones are left out. "
        f"All stages together took {duration(total)}, the longest, {slowest.name}, "
        f"{duration(slowest.seconds)}. The bar in a stage is its time relative to that."
    )
