"""Regression: a number for a text or a pair of texts, such as how similar they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.forms.form import Aims, Classifier, EncodedRows, Form, Reading, TaskRow
from pipeline.evaluate.forms.texts import encoded_texts, together
from pipeline.models.heads import SequenceClassifier
from pipeline.objectives.regression import Regression
from pipeline.tokenizer import Vocabulary


def _outputs(_labels: Sequence[str]) -> int:
    return 1


def _encoded(rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading) -> EncodedRows:
    return encoded_texts(rows, vocabulary, reading, np.float32)


def _objective(network: Classifier, _aims: Aims) -> Regression:
    return Regression(network)


def _answers(outputs: Sequence[np.ndarray], source: EncodedRows) -> list[float]:
    """The number for each row, the mean over windows."""
    means = together(outputs, source, lambda output: output.astype(np.float64))
    return [float(mean[0]) for mean in means]


def _decided(answer: float) -> float:
    return answer


def _golds(rows: Sequence[TaskRow]) -> list[Any]:
    return [row["label"] for row in rows]


def _told(answer: float, _labels: Sequence[str]) -> Mapping[str, Any]:
    return {"value": answer}


FORM = Form(
    name="regression",
    network=SequenceClassifier,
    windows=True,
    outputs=_outputs,
    encoded=_encoded,
    objective=_objective,
    answers=_answers,
    decided=_decided,
    golds=_golds,
    told=_told,
)
