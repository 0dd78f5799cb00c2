"""Rows of one text or two, `text` and perhaps `second`, as examples with labels of the whole row."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.evaluate.forms.form import EncodedRows, Reading, Sequenced, TaskRow
from pipeline.evaluate.forms.windows import windows_of
from pipeline.tokenizer import Vocabulary


def encoded_texts(
    rows: Sequence[TaskRow], vocabulary: Vocabulary, reading: Reading, kind: type
) -> EncodedRows:
    """The windows of every row, each with the label (of type `kind`) of its row; rows without one get 0."""
    firsts = vocabulary.encode([row["text"] for row in rows])
    given = [number for number, row in enumerate(rows) if row.get("second") is not None]
    others = vocabulary.encode([rows[number]["second"] for number in given])
    seconds = dict(zip(given, others, strict=True))
    sequences: list[list[Sequenced]] = []
    owners: list[int] = []
    for number, first in enumerate(firsts):
        for window in windows_of(vocabulary, first, seconds.get(number), reading):
            sequences.append([window.sequence])
            owners.append(number)
    labels: np.ndarray = np.array([rows[owner].get("label", 0) for owner in owners], dtype=kind)
    return EncodedRows(sequences, vocabulary, reading.max_length, {"label": labels}, owners)


def together(
    outputs: Sequence[np.ndarray],
    source: EncodedRows,
    share: Callable[[np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """The mean of `share(output)` over the windows of each row."""
    rows = int(source.owners[-1]) + 1
    totals = np.zeros((rows, *outputs[0].shape))
    np.add.at(totals, source.owners, np.stack([share(output) for output in outputs]))
    counts = np.bincount(source.owners, minlength=rows)
    return list(totals / counts.reshape(-1, *[1] * outputs[0].ndim))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
