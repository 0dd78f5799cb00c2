"""The `tokens` stage: documents to packed rows of token ids, one shard for each part of the corpus.

A shard is made by one task from one part and the vocabulary, so shards are made anywhere, in any
order, and a finished one is never made again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_prep.documents import SPLITS, parts_of
from data_prep.part_columns import sources_in, texts_of
from pipeline import files
from pipeline.config import DataError, config
from pipeline.data.packing import Packing
from pipeline.data.shard_file import layout_for, shard_facts, write_shard
from pipeline.data.shards import write_manifest
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import Vocabulary, load_vocabulary


@config
class Tokens:
    """Encode `corpus` with `vocab` and pack it into rows of `row_length` raw tokens.

    `packing` says how documents are laid into rows: `concatenate` lays them end to end and cuts
    where a row is full; `best_fit` cuts only documents longer than a row; `one_document` starts a
    row for each. No special id is added: objectives add their own around and inside a row.
    """

    makes: ClassVar[Artifact] = "tokens"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 2

    kind: Literal["tokens"] = "tokens"
    corpus: Annotated[str, Reads("corpus")]
    vocab: Annotated[str, Reads("vocab")]
    row_length: Annotated[int, Field(ge=8, le=1 << 20)]
    packing: Packing = "concatenate"

    def sources(self) -> Sequence[Path]:
        """None: everything comes from other stages."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the shards, the manifest and a copy of the vocabulary."""
        corpus, vocab = work.inputs[self.corpus], work.inputs[self.vocab]
        parts = [(split, part) for split in SPLITS for part in parts_of(corpus, split)]
        documents = list(work.map(sources_in, [part for _, part in parts], unit="parts listed"))
        names = tuple(sorted({name for counts in documents for name in counts}))
        units = [
            ShardUnit(
                split, part, tuple(counts), names, vocab, work.out, self.row_length, self.packing
            )
            for (split, part), counts in zip(parts, documents, strict=True)
        ]
        shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        written = work.map(write_unit, units, unit="shards", amounts=_amounts)
        for unit, facts in zip(units, written, strict=True):
            shards[unit.split].append(facts)
        for leftover in work.out.rglob(".shard-*"):  # of a process that was killed
            leftover.unlink()
        vocabulary = load_vocabulary(vocab)
        manifest = write_manifest(
            work.out,
            vocabulary=vocabulary,
            layout=layout_for(vocabulary, self.row_length, self.packing),
            sources=_weights(corpus, names),
            shards=shards,
        )
        if not manifest["splits"]["train"]["tokens"]:
            raise DataError(f"{corpus}: its train split has no text; nothing can be trained on it")
        totals = {split: Counter[str]() for split in SPLITS}
        for (split, _), counts in zip(parts, documents, strict=True):
            totals[split].update(counts)
        return {split: _counts(manifest, split, totals[split]) for split in SPLITS}


def _amounts(facts: Mapping[str, Any]) -> dict[str, float]:
    """What a shard adds to the figures a second."""
    return {"tokens": facts["tokens"]}


def _weights(corpus: Path, names: Sequence[str]) -> dict[str, float]:
    """The weight each source has in the corpus, 1 where none is said."""
    path = corpus / "counts.json"
    said = files.read_json(path).get("sources", {}) if path.exists() else {}
    return {name: float(said.get(name, {}).get("weight", 1.0)) for name in names}


@dataclass(frozen=True)
class ShardUnit:
    """One shard to be made: which part of the corpus goes into which file.

    `sources` are those of the part, in the order of its rows; their numbers are places in `names`.
    """

    split: str
    part: Path
    sources: tuple[str, ...]
    names: tuple[str, ...]
    vocab: Path
    out: Path
    row_length: int
    packing: Packing


def write_unit(unit: ShardUnit) -> dict[str, Any]:
    """Write one shard unless it is there; what the manifest says of it is read from the file."""
    number = unit.part.stem.removeprefix("part-")
    path = unit.out / unit.split / f"shard-{number}.arrow"
    if not path.exists():
        vocabulary = _vocabulary(unit.vocab)
        documents = (
            (unit.names.index(source), encoded_documents(unit.part, source, vocabulary))
            for source in unit.sources
        )
        write_shard(path, documents, layout_for(vocabulary, unit.row_length, unit.packing))
    return shard_facts(path)


def encoded_documents(part: Path, source: str, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """Ids of each document of one source of a part, in order."""
    for texts in texts_of(part, source):
        yield from vocabulary.encode(texts)


@lru_cache(maxsize=1)
def _vocabulary(folder: Path) -> Vocabulary:
    return load_vocabulary(folder)


def _counts(
    manifest: Mapping[str, Any], split: str, documents: Mapping[str, int]
) -> dict[str, Any]:
    """Figures of one split; pack efficiency is the share of token places that hold a token."""
    facts = manifest["splits"][split]
    return {
        "documents": sum(documents.values()),
        **_figures(facts, manifest["row_length"]),
        "shards": len(facts["shards"]),
        "sources": {
            name: {"documents": documents.get(name, 0), **_figures(own, manifest["row_length"])}
            for name, own in facts["sources"].items()
        },
    }


def _figures(facts: Mapping[str, int], row_length: int) -> dict[str, Any]:
    places = facts["rows"] * row_length
    efficiency = round(facts["tokens"] / places, 6) if places else None
    return {"rows": facts["rows"], "tokens": facts["tokens"], "pack_efficiency": efficiency}
