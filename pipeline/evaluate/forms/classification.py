"""Classification: one of several labels for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.forms.form import Aims, Classifier, EncodedRows, Form, Reading, TaskRow
from pipeline.evaluate.forms.texts import encoded_texts, probabilities, together
from pipeline.models.heads import SequenceClassifier
from pipeline.objectives.classification import Classification
from pipeline.tokenizer import Vocabulary


def _encoded(rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading) -> EncodedRows:
    return encoded_texts(rows, vocabulary, reading, np.int64)


def _objective(network: Classifier, aims: Aims) -> Classification:
    return Classification(network, metric=aims.metric, class_weights=aims.class_weights)


def _answers(outputs: Sequence[np.ndarray], source: EncodedRows) -> list[np.ndarray]:
    """Probabilities of the labels, the mean over windows."""
    return together(outputs, source, probabilities)


def _decided(answer: np.ndarray) -> int:
    return int(answer.argmax())


def _golds(rows: Sequence[TaskRow]) -> list[Any]:
    return [row["label"] for row in rows]


def _told(answer: np.ndarray, labels: Sequence[str]) -> Mapping[str, Any]:
    shares = {label: float(share) for label, share in zip(labels, answer, strict=True)}
    return {"label": labels[_decided(answer)], "probabilities": shares}


FORM = Form(
    name="classification",
    network=SequenceClassifier,
    windows=True,
    outputs=len,
    encoded=_encoded,
    objective=_objective,
    answers=_answers,
    decided=_decided,
    golds=_golds,
    told=_told,
)
