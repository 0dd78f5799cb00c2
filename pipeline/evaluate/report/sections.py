"""The sections of the report page, each from the outputs it is about."""

import datetime
from collections.abc import Sequence

from pipeline.evaluate.report.curves import charts_of, drawn
from pipeline.evaluate.report.markup import Child, Markup, joined, tag
from pipeline.evaluate.report.outputs import (
    LOCAL_UI,
    NOT_A_LOSS,
    Classified,
    Output,
    account_of,
    classified_of,
    of_kind,
    training_of,
)
from pipeline.evaluate.report.wording import (
    duration,
    number,
    share,
    short,
    size,
    test_rows,
    words,
)

LOCAL_RUNS = "The links to runs work while `theseum ui` serves the store of this run."
HEADLINES = {"corpus": "Corpus", "evaluate": "Results"}


def table(head: Sequence[str], rows: Sequence[Sequence[Child]], *, numeric: int = 1) -> Markup:
    """A table whose columns from `numeric` on hold numbers."""

    def cell(name: str, column: int, content: Child) -> Markup:
        return tag(name, content, class_="n" if column >= numeric else None)

    top = tag("tr", *(cell("th", column, text) for column, text in enumerate(head)))
    lines = (tag("tr", *(cell("td", c, text) for c, text in enumerate(row))) for row in rows)
    return tag("table", tag("thead", top), tag("tbody", *lines))


def panel(*children: Child) -> Markup:
    """A framed part of the page."""
    return tag("div", *children, class_="panel")


def headline(output: Output) -> str:
    """The kind of stage, with the stage's name where that says more."""
    kind = HEADLINES.get(output.kind, output.kind)
    return kind if output.name == output.kind else f"{kind}: {output.name}"


def cards(outputs: Sequence[Output]) -> Markup:
    """The figures to look at first."""
    found = [card for output in outputs for card in _cards_of(output)]
    differences = [o.counts["max_abs_difference"] for o in of_kind(outputs, "export")]
    if differences:
        found.append(
            _card("Export check", f"{max(differences):.1e}", "largest difference of logits")
        )
    return tag("div", *found, class_="cards")


def _card(label: str, value: str, note: str) -> Markup:
    return tag(
        "div",
        tag("div", label, class_="label"),
        tag("div", value, class_="value"),
        tag("div", note, class_="note"),
        class_="card",
    )


def _cards_of(output: Output) -> list[Markup]:
    match output.kind:
        case "corpus":
            pages = account_of(output.counts["pages"])
            note = f"of {number(pages.came)}, {share(pages.kept / max(pages.came, 1))}"
            return [_card("Pages kept", number(pages.kept), note)]
        case "tokens":
            train = output.counts["train"]
            return [
                _card("Training tokens", short(train["tokens"]), f"{number(train['rows'])} rows")
            ]
        case "pretrain":
            return [
                _card("Held-out loss", f"{first:.2f} → {last:.2f}", f"{words(name)}, {output.name}")
                for name, first, last in training_of(output).held_out
                if name not in NOT_A_LOSS
            ]
        case "evaluate":
            return _result_cards(output)
    return []


def _result_cards(output: Output) -> list[Markup]:
    results = output.facts("results.json")
    models = [line for line in classified_of(results) if line.layers is not None]
    if not models:
        return []
    metric, first, last = words(results["task"]["metric"]).capitalize(), models[0], models[-1]
    if len(models) == 1:
        return [_card(metric, share(first.value), first.name)]
    change = f"{100 * first.value:.1f} → {100 * last.value:.1f}"
    return [
        _card(f"{metric}, %", change, f"{first.name} → {last.name}"),
        _card(
            "Speed",
            f"{last.relative_speed or 0:.2f}×",
            f"{short(first.parameters or 0)} → {short(last.parameters or 0)} parameters",
        ),
    ]


def text_units(outputs: Sequence[Output]) -> Markup | None:
    """Vocabularies and tokens."""
    vocabularies, tokens = of_kind(outputs, "vocab"), of_kind(outputs, "tokens")
    if not vocabularies and not tokens:
        return None
    return joined(
        tag("h2", "Vocabulary and tokens"),
        tag("div", *map(_vocabulary, vocabularies), *map(_tokens, tokens), class_="columns"),
    )


def _vocabulary(output: Output) -> Markup:
    counts = output.counts
    held_out = counts.get("validation", {})
    rows = [
        ("ids, sentinels included", number(counts["size"])),
        (f"pieces ({counts['algorithm']})", number(counts["pieces"])),
        (
            "characters per token, validation text",
            f"{held_out.get('characters_per_token') or 0:.2f}",
        ),
        ("unknown tokens, validation text", f"{100 * (held_out.get('unknown_rate') or 0):.3f} %"),
    ]
    return panel(tag("h3", output.name), table(("", ""), rows))


def _tokens(output: Output) -> Markup:
    rows = [
        (
            split,
            number(facts["documents"]),
            number(facts["rows"]),
            number(facts["tokens"]),
            share(facts["pack_efficiency"] or 0.0),
        )
        for split, facts in output.counts.items()
    ]
    return panel(
        tag("h3", output.name), table(("", "documents", "rows", "tokens", "places filled"), rows)
    )


def curves(outputs: Sequence[Output]) -> Markup | None:
    """The curves of every training stage."""
    return joined(tag("h2", "Training"), *map(_training, outputs)) if outputs else None


def _training(output: Output) -> Markup:
    training = training_of(output)
    speed = training.tokens_per_second
    charts = [
        panel(drawn(chart, f"{output.name}-{chart.title}")) for chart in charts_of(output.series())
    ]
    return joined(
        tag("h3", output.name),
        tag(
            "p",
            f"{training.kind}, {number(training.steps)} steps in {duration(training.seconds)}",
            f", in {training.setting}" if training.setting else None,
            f", {short(speed)} tokens per second" if speed else None,
            class_="soft",
        ),
        tag("div", *charts, class_="columns"),
    )


def results(output: Output) -> Markup:
    """How good, how large and how fast the models are."""
    found = output.facts("results.json")
    metric, task = words(found["task"]["metric"]), found["task"]
    losses = [
        (name, words(term), f"{value:.4f}", f"{model['after'][term]:.4f}")
        for name, model in found["language_models"].items()
        for term, value in model["before"].items()
        if term in model["after"]
    ]
    head = (
        metric,
        "",
        "95 % interval",
        "to the first",
        "layers",
        "parameters",
        "file",
        "ms per sentence",
        "speed",
    )
    return joined(
        tag("h2", headline(output)),
        tag(
            "p",
            f"{metric.capitalize()} on {test_rows(task)}; differences to the first model with "
            "the probability that chance makes one as large. Speed is the latency of single sentences on "
            f"{found['threads']} CPU thread{'s' if found['threads'] > 1 else ''}, the models measured in turns.",
            class_="soft",
        ),
        panel(table(("model", *head), [_result(line) for line in classified_of(found)], numeric=3)),
        joined(
            tag("h3", "Held-out figures of language models"),
            panel(table(("model", "", "random weights", "trained"), losses, numeric=2)),
        )
        if losses
        else None,
    )


def _result(line: Classified) -> tuple[Child, ...]:
    scale = tag(
        "span",
        tag("i", style=f"left: {100 * line.low:.1f}%; width: {100 * (line.high - line.low):.1f}%"),
        tag("b", style=f"left: {100 * line.value:.1f}%"),
        class_="score",
    )
    return (
        line.title,
        tag("strong", share(line.value)),
        scale,
        f"{100 * line.low:.1f} – {100 * line.high:.1f}",
        None
        if line.difference is None
        else f"{100 * line.difference:+.1f} (p = {line.p_value or 0:.3f})",
        None if line.layers is None else str(line.layers),
        None if line.parameters is None else short(line.parameters),
        None if line.num_bytes is None else size(line.num_bytes),
        None if line.milliseconds is None else f"{line.milliseconds:.2f}",
        None if line.relative_speed is None else f"{line.relative_speed:.2f}×",
    )


def exports(outputs: Sequence[Output]) -> Markup | None:
    """Whether exported models compute what ours compute."""
    if not outputs:
        return None
    rows = [
        (
            output.name,
            tag("code", output.counts["architecture"]),
            f"{output.counts['max_abs_difference']:.2e}",
            f"{output.counts['texts_with_equal_ids']} of {output.counts['texts']}",
        )
        for output in outputs
    ]
    head = ("stage", "loads as", "largest difference of logits", "texts with equal ids")
    return joined(tag("h2", "Export"), panel(table(head, rows, numeric=2)))


def stages(outputs: Sequence[Output]) -> Markup:
    """Every stage with its folder and, where there is one, its run in MLflow."""
    rows = []
    for output in outputs:
        started = datetime.datetime.fromtimestamp(output.record.get("started", 0), tz=datetime.UTC)
        cells = (
            tag("td", tag("strong", output.name)),
            tag("td", output.kind),
            tag("td", ", ".join(output.reads)),
            tag("td", tag("code", output.folder.name)),
            tag("td", tag("a", "MLflow run", href=output.run_url) if output.run_url else None),
            tag("td", f"{started:%H:%M:%S}", class_="n"),
            tag("td", duration(output.seconds), class_="n"),
        )
        rows.append(tag("tr", *cells, id=f"stage-{output.name}"))
    local = any((output.run_url or "").startswith(LOCAL_UI) for output in outputs)
    head = ("stage", "kind", "reads", "folder", "run", "started", "time")
    top = tag("tr", *(tag("th", t, class_="n" if i > 4 else None) for i, t in enumerate(head)))
    return joined(
        tag("h2", "Provenance"),
        tag("p", LOCAL_RUNS, class_="soft") if local else None,
        panel(tag("table", tag("thead", top), tag("tbody", *rows))),
    )


def versions(outputs: Sequence[Output]) -> Markup:
    """Libraries the stages ran with; several versions where stages differ."""
    found: dict[str, set[str]] = {}
    for output in outputs:
        for name, version in output.record.get("libraries", {}).items():
            found.setdefault(name, set()).add(str(version))
    listed = ", ".join(f"{name} {' / '.join(sorted(v))}" for name, v in sorted(found.items()))
    return tag(
        "p", f"Made with {listed}." if listed else None, class_="soft", style="margin-top:14px"
    )
