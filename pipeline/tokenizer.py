"""The vocabulary: a SentencePiece model, the special ids every objective needs, and T5's sentinels above it.

Ids 0 to 5 are `<pad>`, `</s>`, `<unk>`, `[CLS]`, `[SEP]`, `[MASK]` (T5's own first three, then BERT's). The
sentinels `<extra_id_0>`, `<extra_id_1>`, ... are not pieces: they are the ids above the pieces and count down from
the last one, as in T5 (`<extra_id_0>` is `size - 1`).
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece

from pipeline import files
from pipeline.config import DataError

PAD, EOS, UNK, CLS, SEP, MASK = range(6)
SPECIAL_PIECES = ("<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
MODEL_FILE = "spiece.model"
FACTS_FILE = "vocabulary.json"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model with `num_sentinels` ids above its pieces."""

    model: bytes
    num_sentinels: int

    @cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @property
    def num_pieces(self) -> int:
        """Pieces of the SentencePiece model, special ones included."""
        return int(self._processor.get_piece_size())

    @property
    def size(self) -> int:
        """All ids: pieces and sentinels."""
        return self.num_pieces + self.num_sentinels

    @property
    def first_ordinary_id(self) -> int:
        """The special ids are those below this one, and the sentinels."""
        return len(SPECIAL_PIECES)

    @property
    def digest(self) -> str:
        """Hex SHA-256 that changes when any id changes its meaning."""
        return hashlib.sha256(self.model + self.num_sentinels.to_bytes(4, "little")).hexdigest()

    def sentinel(self, index: int) -> int:
        """Id of `<extra_id_{index}>`."""
        if not 0 <= index < self.num_sentinels:
            raise DataError(
                f"sentinel {index} was asked for, but the vocabulary has {self.num_sentinels}; "
                "raise num_sentinels of the vocab stage or shorten the rows"
            )
        return self.size - 1 - index

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32, without any special id added."""
        return [np.asarray(ids, dtype=np.int32) for ids in self._processor.encode(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; sentinels are written by their names."""
        parts: list[str] = []
        run: list[int] = []
        for token in (*map(int, ids), None):
            if token is not None and token < self.num_pieces:
                run.append(token)
                continue
            if run:
                parts.append(self._processor.decode(run))
                run = []
            if token is not None:
                parts.append(f"<extra_id_{self.size - 1 - token}>")
        return " ".join(part for part in parts if part)

    def piece(self, token: int) -> str:
        """The piece written for one id."""
        if token >= self.num_pieces:
            return f"<extra_id_{self.size - 1 - token}>"
        return str(self._processor.id_to_piece(int(token)))

    def save(self, folder: Path) -> None:
        """Write the vocabulary into `folder` (two files)."""
        files.write_bytes(folder / MODEL_FILE, self.model)
        facts = {
            "num_pieces": self.num_pieces,
            "num_sentinels": self.num_sentinels,
            "special": {name: index for index, name in enumerate(SPECIAL_PIECES)},
            "digest": self.digest,
        }
        files.write_json(folder / FACTS_FILE, facts)


def load_vocabulary(folder: Path) -> Vocabulary:
    """Read a vocabulary written by `Vocabulary.save` and check its special ids."""
    try:
        facts = files.read_json(folder / FACTS_FILE)
        model = (folder / MODEL_FILE).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{folder}: holds no vocabulary ({error.filename} is missing)") from None
    vocabulary = Vocabulary(model, facts["num_sentinels"])
    for index, name in enumerate(SPECIAL_PIECES):
        if vocabulary.piece(index) != name:
            raise DataError(f"{folder}: id {index} is {vocabulary.piece(index)!r}, needs {name!r}")
    if vocabulary.digest != facts["digest"]:
        raise DataError(f"{folder}: {MODEL_FILE} is not the one that {FACTS_FILE} describes")
    return vocabulary
