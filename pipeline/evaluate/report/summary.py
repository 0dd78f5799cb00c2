"""The report as a terminal table: what a person needs to judge a run, in one screen."""

import textwrap
from collections.abc import Iterator, Sequence

from pipeline.evaluate.report.outputs import (
    TRAINING_KINDS,
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

LINE_WIDTH = 100
NARROWEST_LABELS = 12

Entry = tuple[str | None, str]  # label and text to be wrapped beside it; or None and a whole line


def summary_of(outputs: Sequence[Output]) -> str:
    """Plain text, at most 100 characters a line unless a single word is longer."""
    entries = [entry for output in outputs for entry in _entries_of(output)]
    entries += _where_to_look(outputs)
    width = max(NARROWEST_LABELS, *(len(label or "") for label, _ in entries)) + 1
    lines = (text if label is None else _beside(label, text, width) for label, text in entries)
    return "\n".join(lines) + "\n"


def _beside(label: str, text: str, width: int) -> str:
    """`label` in its own column, `text` wrapped beside it."""
    wrapped = textwrap.wrap(
        text, LINE_WIDTH - width, break_long_words=False, break_on_hyphens=False
    )
    return label.ljust(width) + ("\n" + " " * width).join(wrapped)


def _entries_of(output: Output) -> list[Entry]:
    match output.kind:
        case "corpus":
            return list(_corpus(output))
        case "vocab":
            return list(_vocabulary(output))
        case "tokens":
            return list(_tokens(output))
        case "evaluate":
            return list(_results(output))
        case "export":
            return list(_export(output))
        case kind if kind in TRAINING_KINDS:
            return list(_training(output))
    return []


def _reasons(dropped: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{words(reason)} {number(count)}" for reason, count in dropped)


def _corpus(output: Output) -> Iterator[Entry]:
    for unit in ("pages", "lines"):
        account = account_of(output.counts[unit])
        gone = account.came - account.kept
        text = (
            f"{number(account.came)} {unit} in, {number(account.kept)} kept, {number(gone)} dropped"
        )
        reasons = f": {_reasons(account.dropped)}" if account.dropped else ""
        yield (output.name if unit == "pages" else "", text + reasons)


def _vocabulary(output: Output) -> Iterator[Entry]:
    held_out = output.counts.get("validation", {})
    yield (
        output.name,
        (
            f"{number(output.counts['size'])} ids ({number(output.counts['pieces'])} pieces, "
            f"{output.counts['algorithm']}); on validation text "
            f"{held_out.get('characters_per_token') or 0:.2f} characters per token, "
            f"{100 * (held_out.get('unknown_rate') or 0):.3f} % unknown"
        ),
    )


def _tokens(output: Output) -> Iterator[Entry]:
    splits = [
        f"{number(facts['tokens'])} {split} tokens in {number(facts['rows'])} rows"
        for split, facts in output.counts.items()
    ]
    yield (output.name, "; ".join(splits))


def _training(output: Output) -> Iterator[Entry]:
    training = training_of(output)
    speed = training.tokens_per_second
    held_out = [
        f"{words(name)} {share(first)} → {share(last)}"
        if name == "accuracy"
        else f"{words(name)} {first:.3f} → {last:.3f}"
        for name, first, last in training.held_out
    ]
    parts = [f"{training.kind}, {number(training.steps)} steps in {duration(training.seconds)}"]
    parts += [training.setting] if training.setting else []
    parts += [f"{short(speed)} tokens/s"] if speed else []
    parts += [f"held out: {', '.join(held_out)}"] if held_out else []
    yield (output.name, "; ".join(parts))


def _results(output: Output) -> Iterator[Entry]:
    found = output.facts("results.json")
    task, lines = found["task"], classified_of(found)
    yield (
        output.name,
        (
            f"{words(task['metric'])} on {test_rows(task)}, 95 % intervals; speed on single sentences"
        ),
    )
    width = max(len(line.title) for line in lines)
    yield from ((None, "  " + _result(line, width)) for line in lines)


def _result(line: Classified, width: int) -> str:
    score = f"{100 * line.value:5.1f} % [{100 * line.low:.1f}, {100 * line.high:.1f}]"
    if line.layers is None:
        return f"{line.title:<{width}}  {score}"
    return (
        f"{line.title:<{width}}  {score}  {line.layers:>2} layers  {short(line.parameters or 0):>7} "
        f"{size(line.num_bytes or 0):>8}  {line.milliseconds or 0:6.2f} ms  {line.relative_speed:.2f}x"
    )


def _export(output: Output) -> Iterator[Entry]:
    counts = output.counts
    yield (
        output.name,
        (
            f"loads as {counts['architecture']}; logits differ by at most "
            f"{counts['max_abs_difference']:.1e}; "
            f"{counts['texts_with_equal_ids']} of {counts['texts']} texts get the same ids"
        ),
    )


def _where_to_look(outputs: Sequence[Output]) -> Iterator[Entry]:
    for output in of_kind(outputs, "export"):
        yield ("look at", f"{output.folder / 'huggingface'} (for transformers)")
    if not of_kind(outputs, "export"):
        for output in of_kind(outputs, *TRAINING_KINDS):
            yield ("look at", f"{output.folder / 'model'}")
    yield ("", "report.html in the folder of this report; `theseum ui` shows every curve")
