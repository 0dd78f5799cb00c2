"""Multiple choice: which of several second texts belongs to a first one.

Every choice is read with the text in a sequence of its own and given one number; the largest is the answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.forms.form import (
    Aims,
    Classifier,
    EncodedRows,
    Form,
    Reading,
    TaskRow,
)
from pipeline.evaluate.forms.texts import probabilities
from pipeline.evaluate.forms.windows import cut, sequenced
from pipeline.models.heads import SequenceClassifier
from pipeline.objectives.choice import Choice
from pipeline.tokenizer import Vocabulary


def _outputs(_labels: Sequence[str]) -> int:
    return 1


def _encoded(rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading) -> EncodedRows:
    """As many sequences a row as the row with most choices has; those beyond its own repeat its first and never win."""
    texts = vocabulary.encode([row["text"] for row in rows])
    choices = iter(vocabulary.encode([one for row in rows for one in row["choices"]]))
    most = max(len(row["choices"]) for row in rows)
    sequences = []
    for text, row in zip(texts, rows, strict=True):
        own = [
            sequenced(vocabulary, *cut(text, next(choices), reading.max_length - 3))
            for _ in row["choices"]
        ]
        sequences.append(own + own[:1] * (most - len(own)))
    labels = {
        "label": np.array([row.get("label", 0) for row in rows], dtype=np.int64),
        "choices": np.array([len(row["choices"]) for row in rows], dtype=np.int64),
    }
    return EncodedRows(sequences, vocabulary, reading.max_length, labels)


def _objective(network: Classifier, _aims: Aims) -> Choice:
    return Choice(network)


def _answers(outputs: Sequence[np.ndarray], source: EncodedRows) -> list[np.ndarray]:
    """Probabilities of the choices of each row."""
    counts = source.labels["choices"].tolist()
    return [
        probabilities(output.reshape(-1)[:count])
        for output, count in zip(outputs, counts, strict=True)
    ]


def _decided(answer: np.ndarray) -> int:
    return int(answer.argmax())


def _golds(rows: Sequence[TaskRow]) -> list[Any]:
    return [row["label"] for row in rows]


def _told(answer: np.ndarray, _labels: Sequence[str]) -> Mapping[str, Any]:
    return {"choice": _decided(answer), "probabilities": answer.tolist()}


FORM = Form(
    name="choice",
    network=SequenceClassifier,
    windows=False,
    outputs=_outputs,
    encoded=_encoded,
    objective=_objective,
    answers=_answers,
    decided=_decided,
    golds=_golds,
    told=_told,
)
