"""The `tokens` stage: documents to packed rows of token ids, one shard for each part of the corpus.

A shard is made by one task from one part and the vocabulary, so shards are made anywhere, in any
order, and a finished one is never made again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_prep.parts import SPLITS, num_documents, parts_of, text_batches
from pipeline.config import DataError, config
from pipeline.data.shards import dtype_for, shard_facts, write_manifest, write_shard
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import Vocabulary, load_vocabulary


@config
class Tokens:
    """Encode `corpus` with `vocab` and pack it into rows of `row_length` raw tokens.

    No special id is added: objectives add their own around and inside a row.
    """

    makes: ClassVar[Artifact] = "tokens"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 1

    kind: Literal["tokens"] = "tokens"
    corpus: Annotated[str, Reads("corpus")]
    vocab: Annotated[str, Reads("vocab")]
    row_length: Annotated[int, Field(ge=8, le=1 << 20)]

    def sources(self) -> Sequence[Path]:
        """None: everything comes from other stages."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the shards, the manifest and a copy of the vocabulary."""
        corpus, vocab = work.inputs[self.corpus], work.inputs[self.vocab]
        units = [
            ShardUnit(split, number, part, vocab, work.out, self.row_length)
            for split in SPLITS
            for number, part in enumerate(parts_of(corpus, split))
        ]
        shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for unit, facts in zip(units, work.map(write_unit, units, unit="shards"), strict=True):
            shards[unit.split].append(facts)
        for leftover in work.out.rglob(".shard-*"):  # of a process that was killed
            leftover.unlink()
        manifest = write_manifest(
            work.out, vocabulary=load_vocabulary(vocab), row_length=self.row_length, shards=shards
        )
        if not manifest["splits"]["train"]["tokens"]:
            raise DataError(f"{corpus}: its train split has no text; nothing can be trained on it")
        documents = {
            split: sum(num_documents(part) for part in parts_of(corpus, split)) for split in SPLITS
        }
        return {split: _counts(manifest, split, documents[split]) for split in SPLITS}


@dataclass(frozen=True)
class ShardUnit:
    """One shard to be made: which part of the corpus goes into which file."""

    split: str
    number: int
    part: Path
    vocab: Path
    out: Path
    row_length: int


def write_unit(unit: ShardUnit) -> dict[str, Any]:
    """Write one shard unless it is there; what the manifest says of it is read from the file."""
    path = unit.out / unit.split / f"shard-{unit.number:05d}.arrow"
    if not path.exists():
        vocabulary = _vocabulary(unit.vocab)
        write_shard(
            path,
            encoded_documents(unit.part, vocabulary),
            row_length=unit.row_length,
            dtype=dtype_for(vocabulary.size),
        )
    return shard_facts(path)


def encoded_documents(part: Path, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """Ids of each document of a part, in order."""
    for texts in text_batches(part):
        yield from vocabulary.encode(texts)


@lru_cache(maxsize=1)
def _vocabulary(folder: Path) -> Vocabulary:
    return load_vocabulary(folder)


def _counts(manifest: Mapping[str, Any], split: str, documents: int) -> dict[str, Any]:
    """Figures of one split; pack efficiency is the share of token places that hold a token."""
    facts = manifest["splits"][split]
    places = facts["rows"] * manifest["row_length"]
    return {
        "documents": documents,
        "rows": facts["rows"],
        "tokens": facts["tokens"],
        "shards": len(facts["shards"]),
        "pack_efficiency": round(facts["tokens"] / places, 6) if places else None,
    }
