"""What a stage would train, before there is any data: its objective without numbers, and micro-batches of its shapes.

A vocabulary without pieces and rows without text take the places of those that earlier stages have not made yet.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from pipeline.data.example import Row, Source
from pipeline.objectives.objective import Objective
from pipeline.runtime import rng_of
from pipeline.tokenizer import SPECIAL_PIECES, Engine, Vocabulary
from pipeline.train.rehearsal import without_numbers
from pipeline.train.run import Trainable, TrainSettings
from pipeline.train.until import Until


@dataclasses.dataclass(frozen=True)
class Sketch:
    """An `objective` without numbers, examples of the shapes that it will read, and how long it is trained.

    `rows` says how many rows an epoch has, where that is known.
    """

    objective: Objective
    source: Source
    settings: TrainSettings
    steps: int | None
    until: Until | None = None
    rows: int | None = None

    def batch(self, rows: int) -> Mapping[str, np.ndarray]:
        """A micro-batch of `rows`."""
        numbers = range(min(rows, len(self.source)))
        return self.source.collate(
            [self.source.example(n, rng_of(0, "sketch", n)) for n in numbers]
        )


def sketch_of(trainable: Trainable) -> Sketch:
    """The sketch of a job whose inputs are all there."""
    return Sketch(
        without_numbers(trainable.objective),
        trainable.source,
        trainable.settings,
        trainable.steps,
        trainable.until,
        len(trainable.source),
    )


class BlankEngine:
    """`num_pieces` pieces, the special ones first; every other one is a word."""

    unknown = ""
    reserved: frozenset[int] = frozenset()
    unspellable: frozenset[int] = frozenset()

    def __init__(self, num_pieces: int) -> None:
        self.num_pieces = num_pieces

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One piece for each text."""
        return [np.full(1, len(SPECIAL_PIECES), np.int32) for _ in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The numbers."""
        return " ".join(map(str, ids))

    def piece(self, token: int) -> str:
        """A special piece, or the number."""
        return SPECIAL_PIECES[token] if token < len(SPECIAL_PIECES) else f"w{token}"

    def id_of(self, piece: str) -> int | None:
        """The id of a special piece."""
        return SPECIAL_PIECES.index(piece) if piece in SPECIAL_PIECES else None

    def starts_word(self, piece: str) -> bool:
        """Every piece that is not special."""
        return piece not in SPECIAL_PIECES


@dataclasses.dataclass(frozen=True)
class BlankVocabulary(Vocabulary):
    """`pieces` pieces and `num_sentinels` sentinels, as a vocabulary of this size will have."""

    pieces: int = 0

    @cached_property
    def _engine(self) -> Engine:
        return BlankEngine(self.pieces)


def blank_vocabulary(pieces: int, num_sentinels: int) -> BlankVocabulary:
    """A vocabulary of this size."""
    return BlankVocabulary(b"", num_sentinels, pieces=pieces)


class BlankRows:
    """As many full rows of one document as a micro-batch can ask for."""

    def __init__(self, row_length: int) -> None:
        self.row_length = row_length

    def __len__(self) -> int:
        return 1 << 20

    def row(self, index: int) -> Row:
        """Row number `index`: ordinary pieces."""
        ids = np.full(self.row_length, len(SPECIAL_PIECES) + index % 2, np.int32)
        return Row(ids, np.array([self.row_length]))
