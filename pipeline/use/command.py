"""What the commands of the verbs do: read records, answer them a window at a time, write what was found."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.config import DataError, build_from
from pipeline.models.decoding import Beam, Decoding, Greedy, Sampling
from pipeline.use.blanks import fill
from pipeline.use.embeddings import embed
from pipeline.use.generation import generate
from pipeline.use.model import Model, load
from pipeline.use.predictions import predict
from pipeline.use.ranking import Hypothesis, rerank
from pipeline.use.reading import TextError
from pipeline.use.scores import score
from pipeline.use.stream import (
    Record,
    as_line,
    plain_line,
    records,
    results,
    shape_of,
    vectors,
    windows,
)
from pipeline.verbs import DECODING

WINDOW = 1024  # records
DECODINGS: Mapping[str, type[Greedy | Sampling | Beam]] = {
    "greedy": Greedy,
    "sampling": Sampling,
    "beam": Beam,
}


class Answer(NamedTuple):
    """What was found for a record: fields beside its own, and the best of it as one line."""

    fields: dict[str, Any]
    plain: str


Verb = Callable[[Model, Sequence[Record], argparse.Namespace], list[Answer]]


def perform(options: argparse.Namespace) -> int:
    """Use a model as `options` say; nothing is read before it is there. The exit code."""
    model = load(options.model, options.device)
    shape = options.form or shape_of(options.given)
    if options.verb == "rerank":
        shape = "jsonl"
    live = options.given is None and sys.stdin.isatty()
    given = windows(
        records(options.given, shape, options.field), options.window or (1 if live else WINDOW)
    )
    if options.verb == "embed" and options.out is not None and options.out.suffix == ".npy":
        with vectors(options.out) as array:
            for window in given:
                array.add(_answered(_embedded, model, window, options))
        return 0
    with results(options.out) as out:
        for window in given:
            found = _answered(VERBS[options.verb], model, window, options)
            for record, answer in zip(window, found, strict=True):
                only = "plain" in options and options.plain
                out.write(
                    plain_line(answer.plain) if only else as_line(record.fields | answer.fields)
                )
            out.flush()
    return 0


def _answered(
    verb: Callable[[Model, Sequence[Record], argparse.Namespace], Any],
    model: Model,
    window: Sequence[Record],
    options: argparse.Namespace,
) -> Any:
    """What `verb` finds for a window; a text that cannot be taken is named by its place."""
    try:
        return verb(model, window, options)
    except TextError as error:
        raise DataError(f"{window[error.number].place}: {error.words}") from None


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"longer": options.longer, "at_once": options.at_once}


def _texts(window: Sequence[Record], name: str) -> list[str]:
    return [record.text(name) for record in window]


def _sources(window: Sequence[Record], options: argparse.Namespace) -> list[str] | None:
    return None if options.source is None else _texts(window, options.source)


def decoding_of(options: argparse.Namespace) -> Decoding:
    """The options of `generate` as a configuration; ConfigError for one that another way to choose has."""
    given = {name: getattr(options, name) for name in DECODING if name in options}
    return build_from(DECODINGS[options.how], given, f"--how {options.how}")


def _generate(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    numbers = [record.number for record in window]
    texts = _texts(window, options.field)
    found = generate(model, texts, decoding_of(options), numbers=numbers, **_settings(options))
    return [
        Answer({"hypotheses": [one._asdict() for one in own]}, own[0].text if own else "")
        for own in found
    ]


def _fill(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    found = fill(
        model,
        _texts(window, options.field),
        top=options.top,
        mark=options.mark,
        **_settings(options),
    )
    return [
        Answer(
            {"filled": one.text, "blanks": [[c._asdict() for c in blank] for blank in one.blanks]},
            one.text,
        )
        for one in found
    ]


def _score(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    texts, sources = _texts(window, options.field), _sources(window, options)
    answers = []
    for one in score(model, texts, sources, **_settings(options)):
        fields: dict[str, Any] = {"score": one.total, "tokens": len(one.tokens)}
        if options.each:
            pieces = map(model.vocabulary.piece, one.tokens)
            fields["each"] = [list(both) for both in zip(pieces, one.each, strict=True)]
        answers.append(Answer(fields, str(one.total)))
    return answers


def _rerank(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    lists = [_hypotheses(record, options.field) for record in window]
    sources = _sources(window, options)
    found = rerank(model, lists, options.weight, sources, **_settings(options))
    return [
        Answer({"hypotheses": [one._asdict() for one in own]}, own[0].text if own else "")
        for own in found
    ]


def _hypotheses(record: Record, field: str) -> list[Hypothesis]:
    """The n-best list of a record; DataError when it is not one."""
    given = record.fields.get("hypotheses")
    if not isinstance(given, list):
        raise DataError(
            f'{record.place}: needs "hypotheses": [{{"{field}": ..., "score": ...}}, ...]'
        )
    found = []
    for number, one in enumerate(given):
        text, value = (one.get(field), one.get("score")) if isinstance(one, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(value, int | float):
            raise DataError(
                f'{record.place}: hypothesis {number + 1} needs a "{field}" and a "score", a number'
            )
        found.append((text, float(value)))
    return found


def _embedded(model: Model, window: Sequence[Record], options: argparse.Namespace) -> np.ndarray:
    return embed(model, _texts(window, options.field), options.pooling, **_settings(options))


def _embed(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    vectors_of = _embedded(model, window, options)
    return [Answer({"embedding": row}, "") for row in vectors_of.tolist()]


def _predict(model: Model, window: Sequence[Record], options: argparse.Namespace) -> list[Answer]:
    rows = []
    for record in window:
        renamed = {"text": record.fields[options.field]} if options.field in record.fields else {}
        rows.append(record.fields | renamed)
    return [
        Answer(dict(told), _first_of(told))
        for told in predict(model, rows, at_once=options.at_once)
    ]


def _first_of(told: Mapping[str, Any]) -> str:
    """What is said first of a row: its label, number, choice, words' labels or answer."""
    first = next(iter(told.values()))
    return " ".join(first) if isinstance(first, list) else str(first)


VERBS: Mapping[str, Verb] = {
    "generate": _generate,
    "fill": _fill,
    "score": _score,
    "rerank": _rerank,
    "embed": _embed,
    "predict": _predict,
}
