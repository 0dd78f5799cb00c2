"""Token labels: a label for every word of a text, such as the kind of name it belongs to.

A word is labelled at its first piece, as in BERT's paper (section 5.3). Long texts are always read in windows; a word
is answered by the window in which it stands most centrally.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.data.example import IGNORED
from pipeline.evaluate.forms.form import Aims, Classifier, EncodedRows, Form, Reading, TaskRow
from pipeline.evaluate.forms.windows import Window, centrality, windows_of
from pipeline.models.heads import TokenClassifier
from pipeline.objectives.token_labels import TokenLabels
from pipeline.tokenizer import Vocabulary


class EncodedWords(EncodedRows):
    """Windows of words: `places` has, for each row, the window and the place in it at which each word is answered."""

    places: Sequence[Sequence[tuple[int, int]]]


def _encoded(rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading) -> EncodedWords:
    reading = dataclasses.replace(reading, stride=reading.stride or reading.max_length // 2)
    words = iter(vocabulary.encode([word for row in rows for word in row["words"]]))
    unknown = np.array([vocabulary.unk], dtype=np.int32)  # a word without pieces still has a label
    windows: list[Window] = []
    owners: list[int] = []
    labels: list[np.ndarray] = []
    places = []
    for number, row in enumerate(rows):
        pieces = [ids if len(ids) else unknown for ids in (next(words) for _ in row["words"])]
        starts = np.cumsum([0, *map(len, pieces)])[:-1].tolist()
        own = windows_of(vocabulary, np.concatenate(pieces), None, reading)
        given = row.get("labels", [0] * len(starts))
        places.append([_place(own, start, len(windows)) for start in starts])
        labels += [_labels(window, starts, given, reading.max_length) for window in own]
        windows += own
        owners += [number] * len(own)
    source = EncodedWords(
        [[window.sequence] for window in windows],
        vocabulary,
        reading.max_length,
        {"labels": np.stack(labels)},
        owners,
        per_token=("labels",),
    )
    source.places = places
    return source


def _place(windows: Sequence[Window], token: int, before: int) -> tuple[int, int]:
    """The window (its number, after `before` others) and the place where a token is answered."""
    holding = [n for n, window in enumerate(windows) if window.first <= token < window.end]
    best = max(holding, key=lambda n: centrality(windows[n], token))
    return before + best, windows[best].at + token - windows[best].first


def _labels(
    window: Window, starts: Sequence[int], given: Sequence[int], max_length: int
) -> np.ndarray:
    labels = np.full(max_length, IGNORED, dtype=np.int64)
    for start, label in zip(starts, given, strict=True):
        if window.first <= start < window.end:
            labels[window.at + start - window.first] = label
    return labels


def _objective(network: Classifier, aims: Aims) -> TokenLabels:
    return TokenLabels(network, class_weights=aims.class_weights)


def _answers(outputs: Sequence[np.ndarray], source: EncodedRows) -> list[list[int]]:
    """The numbers of the labels of the words of each row."""
    assert isinstance(source, EncodedWords)
    return [
        [int(outputs[window][place].argmax()) for window, place in row] for row in source.places
    ]


def _decided(answer: list[int]) -> list[int]:
    return answer


def _golds(rows: Sequence[TaskRow]) -> list[Any]:
    return [row["labels"] for row in rows]


def _told(answer: list[int], labels: Sequence[str]) -> Mapping[str, Any]:
    return {"labels": [labels[number] for number in answer]}


FORM = Form(
    name="token_labels",
    network=TokenClassifier,
    windows=True,
    outputs=len,
    encoded=_encoded,
    objective=_objective,
    answers=_answers,
    decided=_decided,
    golds=_golds,
    told=_told,
)
