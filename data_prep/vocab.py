"""The `vocab` stage: train a SentencePiece model on the train split of a corpus.

The result is a function of the corpus and the config: which lines are used is decided by a hash of
each line, and the number of threads is part of the config because unigram scores depend on it.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import sentencepiece
import xxhash
from pydantic import Field

from data_prep.parts import parts_of, text_batches
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import EOS, PAD, SPECIAL_PIECES, UNK, Vocabulary

LONGEST_LINE_BYTES = 1 << 16
QUIET = 2  # SentencePiece's log level: errors only


@config
class Vocab:
    """A vocabulary of `size` pieces, special and byte pieces included, and sentinels above them.

    `num_sentinels` is how many marks of hidden spans there are. `character_coverage` is the share
    of the corpus's characters that get a piece of their own; with `byte_fallback` the others are
    spelt in bytes. `split_digits` makes every digit a piece. `algorithm` and `num_threads` are
    SentencePiece's.
    `max_sentences` is about how many lines are used when the corpus has more. Lines of more than
    64 KiB are left out and counted.
    """

    makes: ClassVar[Artifact] = "vocab"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 1

    kind: Literal["vocab"] = "vocab"
    corpus: Annotated[str, Reads("corpus")]
    size: Annotated[int, Field(ge=64, le=1 << 20)]
    algorithm: Literal["unigram", "bpe"] = "unigram"
    num_sentinels: Annotated[int, Field(ge=0, le=1000)] = 100
    max_sentences: Annotated[int, Field(ge=1)] = 1_000_000
    character_coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 0.9995
    byte_fallback: bool = True
    split_digits: bool = True
    num_threads: Annotated[int, Field(ge=1, le=256)] = 4

    def sources(self) -> Sequence[Path]:
        """None: everything comes from another stage."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the vocabulary; report its size and how it does on validation text."""
        corpus = work.inputs[self.corpus]
        lines = CorpusLines(corpus, self.max_sentences)
        vocabulary = Vocabulary(self.trained(lines), self.num_sentinels)
        vocabulary.save(work.out)
        return {
            "size": vocabulary.size,
            "pieces": vocabulary.num_pieces,
            "algorithm": self.algorithm,
            "num_threads": self.num_threads,
            "lines": lines.total,
            "lines_used": lines.used,
            "lines_too_long": lines.too_long,
            "validation": fit(vocabulary, corpus),
        }

    def trained(self, lines: "CorpusLines") -> bytes:
        """The SentencePiece model of these lines; DataError when they are too few for `size`."""
        if not lines.total:
            raise DataError(f"{lines.corpus}: its train split has no text to make a vocabulary of")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=self.algorithm,
                vocab_size=self.size,
                character_coverage=self.character_coverage,
                byte_fallback=self.byte_fallback,
                split_digits=self.split_digits,
                num_threads=self.num_threads,
                max_sentence_length=LONGEST_LINE_BYTES,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNK,
                bos_id=-1,
                pad_piece=SPECIAL_PIECES[PAD],
                eos_piece=SPECIAL_PIECES[EOS],
                unk_piece=SPECIAL_PIECES[UNK],
                control_symbols=list(SPECIAL_PIECES[UNK + 1 :]),
                minloglevel=QUIET,
            )
        except RuntimeError as error:
            raise DataError(self._refusal(lines, str(error))) from None
        return model.getvalue()

    def _refusal(self, lines: "CorpusLines", message: str) -> str:
        """SentencePiece's message in our words."""
        place = f"{lines.corpus}: a vocabulary of size {self.size} cannot be made"
        if most := re.search(r"value <= (\d+)", message):
            return (
                f"{place}: its {lines.total} lines give at most {most[1]} pieces; "
                f"set size to {most[1]} or less, or give the corpus more pages"
            )
        if least := re.search(r"required_chars\D*\d+ vs (\d+)", message):
            return (
                f"{place}: single characters and special pieces alone are {least[1]}; "
                f"set size above {least[1]} or lower character_coverage"
            )
        return f"{place}: {' '.join(message.split())}"


@dataclass
class CorpusLines:
    """The lines a vocabulary is made of: each time it is run through, the same ones in order.

    A line is used when its hash lies below the share that is wanted, so which lines are used does
    not depend on how the corpus is cut into parts, and copies of a line are used together.
    """

    corpus: Path
    max_sentences: int

    def __post_init__(self) -> None:
        self.total = self.too_long = self.used = 0
        for line in self._all():
            self.total += 1
            self.too_long += len(line.encode()) > LONGEST_LINE_BYTES
        share = min(1.0, self.max_sentences / max(1, self.total))
        self._below = int(share * (1 << 64))

    def __iter__(self) -> Iterator[str]:
        self.used = 0
        for line in self._all():
            encoded = line.encode()
            if len(encoded) <= LONGEST_LINE_BYTES and xxhash.xxh64_intdigest(encoded) < self._below:
                self.used += 1
                yield line

    def _all(self) -> Iterator[str]:
        for part in parts_of(self.corpus, "train"):
            for texts in text_batches(part):
                for text in texts:
                    yield from (line for line in text.splitlines() if line.strip())


def fit(vocabulary: Vocabulary, corpus: Path) -> dict[str, Any]:
    """On the validation split: characters for each token, and the share of unknown tokens."""
    characters = tokens = unknown = 0
    for part in parts_of(corpus, "validation"):
        for texts in text_batches(part):
            characters += sum(map(len, texts))
            for ids in vocabulary.encode(texts):
                tokens += len(ids)
                unknown += int((ids == UNK).sum())
    return {
        "characters": characters,
        "tokens": tokens,
        "characters_per_token": round(characters / tokens, 4) if tokens else None,
        "unknown_rate": round(unknown / tokens, 6) if tokens else None,
    }
