"""Extractive question answering: the stretch of a context that answers a question, or none (SQuAD 1.1 and 2.0).

Every token is given how well an answer begins and how well it ends there; [CLS] stands for no answer. Long contexts
are always read in windows with the question in front of each. The answer is the best stretch of all windows.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluate.forms.form import Aims, Classifier, EncodedRows, Form, Reading, TaskRow
from pipeline.evaluate.forms.windows import Window, spelled, windows_of
from pipeline.models.heads import TokenClassifier
from pipeline.objectives.span import Span
from pipeline.tokenizer import Vocabulary

LONGEST_ANSWER = 30  # tokens, as in the released code of BERT and ELECTRA
WORD = re.compile(r"\S+")
Stretch = tuple[int, int]  # of letters of a context, end exclusive


class Pieces(NamedTuple):
    """A context as tokens, and the letters that each stands for."""

    ids: np.ndarray
    letters: list[Stretch]


class SpanAnswer(NamedTuple):
    """Text of the best stretch, its letters, its score, and that of there being no answer."""

    text: str
    letters: Stretch
    score: float
    none: float


class EncodedContexts(EncodedRows):
    """Windows of contexts; `letters` has for each window those of its tokens, and the place of the first of them."""

    letters: Sequence[tuple[int, Sequence[Stretch]]]
    contexts: Sequence[str]
    may_be_unanswerable: bool


def _outputs(_labels: Sequence[str]) -> int:
    return 2


def _encoded(rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading) -> EncodedContexts:
    reading = dataclasses.replace(reading, stride=reading.stride or reading.max_length // 2)
    questions = vocabulary.encode([row["question"] for row in rows])
    sequences, owners, letters, labels = [], [], [], []
    for number, (question, row) in enumerate(zip(questions, rows, strict=True)):
        pieces = pieces_of(row["context"], vocabulary)
        right = _tokens_of(row, pieces.letters)
        for window in windows_of(vocabulary, question, pieces.ids, reading):
            sequences.append([window.sequence])
            owners.append(number)
            letters.append((window.at, pieces.letters[window.first : window.end]))
            labels.append(_inside(window, right))
    source = EncodedContexts(
        sequences,
        vocabulary,
        reading.max_length,
        {"span": np.array(labels, dtype=np.int64)},
        owners,
    )
    source.letters, source.contexts = letters, [row["context"] for row in rows]
    source.may_be_unanswerable = any(not row.get("answers", [""]) for row in rows)
    return source


def pieces_of(context: str, vocabulary: Vocabulary) -> Pieces:
    """Tokens of a context, word by word; those of a word they do not spell letter by letter all stand for all of it."""
    words = list(WORD.finditer(context))
    ids, letters = [], []
    for word, own in zip(words, vocabulary.encode([word[0] for word in words]), strict=True):
        found = spelled(word[0], [vocabulary.piece(int(token)) for token in own])
        first, end = word.span()
        ids.append(own)
        letters += (
            [(first, end)] * len(own)
            if found is None
            else [(first + start, first + stop) for start, stop in found]
        )
    joined = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
    return Pieces(joined, letters)


def _tokens_of(row: TaskRow, letters: Sequence[Stretch]) -> Stretch | None:
    """First and last token of the first of the right answers, None if there is none."""
    if not row.get("answers"):
        return None
    answer = row["answers"][0]
    start, end = answer["start"], answer["start"] + len(answer["text"])
    inside = [n for n, (first, stop) in enumerate(letters) if first < end and stop > start]
    return (inside[0], inside[-1]) if inside else None


def _inside(window: Window, right: Stretch | None) -> Stretch:
    """Places of the answer in a window; those of [CLS], 0, where it does not stand whole in it."""
    if right is None or right[0] < window.first or right[1] >= window.end:
        return 0, 0
    return right[0] - window.first + window.at, right[1] - window.first + window.at


def _objective(network: Classifier, _aims: Aims) -> Span:
    return Span(network)


def _answers(outputs: Sequence[np.ndarray], source: EncodedRows) -> list[SpanAnswer]:
    """The best stretch of each row over its windows.

    Where some rows have no answer, "" is answered when the smallest score of [CLS] over the windows is above that of
    the best stretch.
    """
    assert isinstance(source, EncodedContexts)
    found: dict[int, SpanAnswer] = {}
    for output, owner, (at, letters) in zip(outputs, source.owners, source.letters, strict=True):
        here = _best(output.astype(np.float64), at, letters, source.contexts[owner])
        before = found.get(int(owner), here)
        best = max(before, here, key=lambda answer: answer.score)
        found[int(owner)] = best._replace(none=min(before.none, here.none))
    answers = [found[number] for number in range(len(source.contexts))]
    if not source.may_be_unanswerable:
        return answers
    return [
        answer if answer.score >= answer.none else answer._replace(text="", letters=(0, 0))
        for answer in answers
    ]


def _best(logits: np.ndarray, at: int, letters: Sequence[Stretch], context: str) -> SpanAnswer:
    """The best stretch of at most LONGEST_ANSWER tokens in one window; logits [length, 2]."""
    none = float(logits[0].sum())
    if not letters:
        return SpanAnswer("", (0, 0), -np.inf, none)
    own = logits[at : at + len(letters)]
    scores = own[:, None, 0] + own[None, :, 1]
    allowed = np.triu(np.ones(scores.shape, dtype=bool)) & ~np.triu(
        np.ones(scores.shape, dtype=bool), LONGEST_ANSWER
    )
    best = int(np.where(allowed, scores, -np.inf).argmax())
    first, last = divmod(best, len(letters))
    start, end = letters[first][0], letters[last][1]
    return SpanAnswer(context[start:end], (start, end), float(scores[first, last]), none)


def _decided(answer: SpanAnswer) -> str:
    return answer.text


def _golds(rows: Sequence[TaskRow]) -> list[Any]:
    """All right answers of each row; none means that there is no answer."""
    return [[answer["text"] for answer in row["answers"]] for row in rows]


def _told(answer: SpanAnswer, _labels: Sequence[str]) -> Mapping[str, Any]:
    return {
        "answer": answer.text,
        "start": answer.letters[0],
        "end": answer.letters[1],
        "score": answer.score,
        "score_of_none": answer.none,
    }


FORM = Form(
    name="span",
    network=TokenClassifier,
    windows=True,
    outputs=_outputs,
    encoded=_encoded,
    objective=_objective,
    answers=_answers,
    decided=_decided,
    golds=_golds,
    told=_told,
)
