"""What every form of task has in common: rows encoded once, and the outputs of a network for them.

A row is read in one sequence, or in several windows where it is too long; a `Form` says how, and what the outputs
for the windows of a row mean together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.example import Example, stack
from pipeline.models.heads import SequenceClassifier, TokenClassifier
from pipeline.objectives.objective import Objective
from pipeline.runtime import rng_of
from pipeline.tokenizer import Vocabulary

COLLATE_MULTIPLE = 8  # lengths of batches are multiples of this, so few distinct shapes occur
SEQUENCES = ("input_ids", "segment_ids", "position_ids", "token_types")

TaskRow = Mapping[str, Any]
Classifier = SequenceClassifier | TokenClassifier


@dataclass(frozen=True)
class Reading:
    """How many tokens are read at once, and how far apart windows of longer texts begin (None: their end is lost)."""

    max_length: int
    stride: int | None = None


@dataclass(frozen=True)
class Aims:
    """What training is to reach: the task's metric, and the weight of each label in the loss (None: all alike)."""

    metric: str
    class_weights: np.ndarray | None = None


class EncodedRows:
    """Rows as examples of at most `max_length` tokens, in the order of the rows, windows of a row side by side.

    An example holds input_ids, segment_ids (1, and 0 at padding), position_ids and token_types
    [max_length], all int64, and what is in `labels`. Those of rows with choices have a leading axis for
    them. A batch is trimmed to its longest sequence, rounded up to a multiple of 8, and so are the labels named in
    `per_token`.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence["Sequenced"]],
        vocabulary: Vocabulary,
        max_length: int,
        labels: Mapping[str, np.ndarray],
        owners: Sequence[int] | None = None,
        per_token: Sequence[str] = (),
    ) -> None:
        shape = (len(sequences), len(sequences[0]), max_length)
        self.input_ids = np.full(shape, vocabulary.pad, dtype=np.int32)
        self.token_types = np.zeros(shape, dtype=np.int8)
        self.lengths = np.zeros(shape[:2], dtype=np.int64)
        for number, row in enumerate(sequences):
            for place, one in enumerate(row):
                self.input_ids[number, place, : len(one.ids)] = one.ids
                self.token_types[number, place, one.second : len(one.ids)] = 1
                self.lengths[number, place] = len(one.ids)
        if shape[1] == 1:
            self.input_ids, self.token_types = self.input_ids[:, 0], self.token_types[:, 0]
            self.lengths = self.lengths[:, 0]
        self.labels = dict(labels)
        self.per_token = (*SEQUENCES, *per_token)
        self.owners = np.arange(len(sequences)) if owners is None else np.asarray(owners)
        self.positions = np.arange(max_length, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.input_ids)

    def example(self, index: int, rng: np.random.Generator) -> Example:  # noqa: ARG002 - Source's signature
        """Example `index`; nothing is drawn."""
        lengths = self.lengths[index]
        ids = self.input_ids[index].astype(np.int64)
        return {
            "input_ids": ids,
            "segment_ids": (self.positions < lengths[..., None]).astype(np.int64),
            "position_ids": np.broadcast_to(self.positions, ids.shape),
            "token_types": self.token_types[index].astype(np.int64),
            **{name: values[index] for name, values in self.labels.items()},
        }

    def collate(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """One batch, without the columns that are padding in every row."""
        batch = stack(examples)
        longest = int(batch["segment_ids"].sum(axis=-1).max())
        length = -(-longest // COLLATE_MULTIPLE) * COLLATE_MULTIPLE
        return {
            name: np.ascontiguousarray(values[..., :length]) if name in self.per_token else values
            for name, values in batch.items()
        }

    def batch_of(self, rows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """These examples as one batch."""
        return self.collate([self.example(row, rng_of(0, "evaluate", row)) for row in rows])


@dataclass(frozen=True)
class Sequenced:
    """`[CLS] text [SEP]` or `[CLS] first [SEP] second [SEP]` as ids, and where the second text begins."""

    ids: np.ndarray
    second: int


@dataclass(frozen=True)
class Form:
    """One form of task. `windows` says whether long rows can be read in windows.

    `outputs` is the size of the head for these labels. `answers` gives one answer a row from the
    outputs for all its windows; `decided` is what of it counts when it is compared with one of `golds`, and
    `told` is an answer as JSON.
    """

    name: str
    network: type[SequenceClassifier] | type[TokenClassifier]
    windows: bool
    outputs: Callable[[Sequence[str]], int]
    encoded: Callable[[Sequence[TaskRow], Vocabulary, Reading], EncodedRows]
    objective: Callable[[Classifier, Aims], Objective]
    answers: Callable[[Sequence[np.ndarray], EncodedRows], list[Any]]
    decided: Callable[[Any], Any]
    golds: Callable[[Sequence[TaskRow]], list[Any]]
    told: Callable[[Any, Sequence[str]], Mapping[str, Any]]

    def answered(self, network: Classifier, source: EncodedRows) -> list[Any]:
        """What `network` answers to every row, decided."""
        answers = self.answers(outputs_of(network, source), source)
        return [self.decided(answer) for answer in answers]


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs_of(source: EncodedRows, rows: Sequence[int]) -> Inputs:
    """What a network reads of these examples: ids, segments, positions, token types, [rows, length] each, int64.

    Choices stand as rows of their own, one after the other.
    """
    batch = source.batch_of(rows)
    ids, segments, positions, types = (
        torch.from_numpy(batch[name]).flatten(0, -2) for name in SEQUENCES
    )
    return ids, segments, positions, types


def outputs_of(network: Classifier, source: EncodedRows, *, batch: int = 32) -> list[np.ndarray]:
    """What `network` gives in evaluation mode for each example: [outputs], or [length, outputs] for tokens.

    Examples are computed in order of their length, so that little padding is computed, and given in
    their own order. Examples with choices give [choices, outputs].
    """
    network.eval()
    device = next(network.parameters()).device
    lengths = source.lengths if source.lengths.ndim == 1 else source.lengths.max(axis=1)
    order = np.argsort(lengths, kind="stable")
    found: list[np.ndarray] = [np.empty(0)] * len(source)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch].tolist()
            inputs = (part.to(device) for part in inputs_of(source, rows))
            outputs = network(*inputs).cpu().numpy()
            if source.lengths.ndim == 2:
                outputs = outputs.reshape(len(rows), -1, outputs.shape[-1])
            for row, output in zip(rows, outputs, strict=True):
                found[row] = output
    return found
