"""Words of a corpus and how often each occurs: all that BPE learns from, counted in bounded memory.

A word is what SentencePiece's trainer would cut out of a normalised line, so training on the counts gives the pieces
that training on the lines gives. Parts are counted anywhere; a hash of the word sends its counts to one of some
partitions, and each partition is added up by itself.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from sentencepiece import SentencePieceNormalizer

from data_prep.part_columns import texts_of
from pipeline import files
from pipeline.flow.stage import Work

SPACE = "\u2581"  # SentencePiece's mark where a word begins
RESERVED = "\u2585"  # its trainer leaves out lines that hold this one
LONGEST_LINE_BYTES = 1 << 16
WORDS_AT_ONCE = 2_000_000
BYTES_PER_PARTITION = 1 << 30  # of Parquet, which holds about three times as much text
RULES = "nmt_nfkc"
SCHEMA = pa.schema({"word": pa.string(), "count": pa.int64()})


@dataclass(frozen=True)
class Lines:
    """Lines of a corpus: all that are not blank, and those of them that are left out."""

    total: int = 0
    too_long: int = 0
    reserved: int = 0

    def __add__(self, other: "Lines") -> "Lines":
        return Lines(
            self.total + other.total,
            self.too_long + other.too_long,
            self.reserved + other.reserved,
        )


@dataclass(frozen=True)
class CountUnit:
    """One part to be counted, its files beginning with `stem`."""

    part: Path
    stem: Path
    partitions: int


@dataclass(frozen=True)
class MergeUnit:
    """One partition of the words of all parts, to be added up into `path`."""

    number: int
    counted: tuple[Path, ...]
    path: Path


def counted_words(work: Work, parts: Sequence[Path], scratch: Path) -> tuple[Lines, list[Path]]:
    """Count the words of all `parts`: the lines they come from, and a table for each partition."""
    partitions = 1 + sum(part.stat().st_size for part in parts) // BYTES_PER_PARTITION
    units = [
        CountUnit(part, scratch / f"words-{number:05d}", partitions)
        for number, part in enumerate(parts)
    ]
    lines, counted = Lines(), []
    for facts in work.map(count_part, units, unit="parts counted"):
        lines += Lines(**facts["lines"])
        counted += [scratch / name for name in facts["files"]]
    merges = [
        MergeUnit(number, tuple(counted), scratch / f"merged-{number:05d}.parquet")
        for number in range(partitions)
    ]
    return lines, list(work.map(merge_partition, merges, unit="partitions merged"))


def count_part(unit: CountUnit) -> dict[str, Any]:
    """Count one part unless that is done; returns its lines and the files of its counts."""
    done = unit.stem.with_suffix(".json")
    if not done.exists():
        lines = Lines()
        written: list[Path] = []
        counts: Counter[str] = Counter()
        for texts in texts_of(unit.part):
            kept, seen = usable_lines(texts)
            lines += seen
            counts.update(words_of(kept))
            if len(counts) >= WORDS_AT_ONCE:
                written.append(_write_counts(unit, len(written), counts))
                counts.clear()
        written.append(_write_counts(unit, len(written), counts))
        facts = {"lines": vars(lines), "files": [path.name for path in written]}
        files.write_json(done, facts)
    return files.read_json(done)


def usable_lines(texts: Sequence[str]) -> tuple[list[str], Lines]:
    """Lines that SentencePiece's trainer would use, and how many there are of all."""
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    short = [line for line in lines if len(line.encode()) <= LONGEST_LINE_BYTES]
    kept = [line for line in short if RESERVED not in line]
    return kept, Lines(len(lines), len(lines) - len(short), len(short) - len(kept))


def words_of(lines: Sequence[str]) -> list[str]:
    """Words of these lines, each without the mark at its beginning.

    A normalised line that is not empty begins with the mark, so the lines may be laid end to end.
    """
    return "".join(_normalizer().normalize(list(lines))).split(SPACE)[1:]


@lru_cache(maxsize=1)
def _normalizer() -> Any:
    return SentencePieceNormalizer(
        rule_name=RULES,
        add_dummy_prefix=True,
        escape_whitespaces=True,
        remove_extra_whitespaces=True,
    )


def normalizer_spec() -> bytes:
    """The rules of `words_of`, as they stand in a model (serialised NormalizerSpec)."""
    return bytes(_normalizer().serialized_normalizer_spec())


def _write_counts(unit: CountUnit, number: int, counts: Counter[str]) -> Path:
    """One table with a row group for each partition."""
    path = unit.stem.with_name(f"{unit.stem.name}-{number:03d}.parquet")
    words = np.array(list(counts), dtype=object)
    numbers = np.fromiter(counts.values(), np.int64, len(counts))
    homes = np.array(
        [xxhash.xxh3_64_intdigest(word.encode()) % unit.partitions for word in counts], int
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA) as writer:
        for partition in range(unit.partitions):
            here = homes == partition
            columns = [pa.array(words[here], pa.string()), pa.array(numbers[here])]
            table = pa.table(columns, schema=SCHEMA)
            writer.write_table(table, row_group_size=max(1, len(table)))
    files.write_bytes(path, sink.getvalue().to_pybytes())
    return path


def merge_partition(unit: MergeUnit) -> Path:
    """Add up one partition unless that is done; returns its table, the commonest words first."""
    if not unit.path.exists():
        tables = [pq.ParquetFile(path).read_row_group(unit.number) for path in unit.counted]
        whole = pa.concat_tables(tables).group_by("word", use_threads=False)
        summed = whole.aggregate([("count", "sum")]).rename_columns(["word", "count"])
        ordered = summed.sort_by([("count", "descending"), ("word", "ascending")])
        sink = pa.BufferOutputStream()
        pq.write_table(ordered, sink, compression="zstd")
        files.write_bytes(unit.path, sink.getvalue().to_pybytes())
    return unit.path


def least_count(tables: Sequence[Path], max_words: int) -> int:
    """The least count that leaves at most `max_words` words, or the highest there is; 1 when all fit."""
    words_with: Counter[int] = Counter()
    for batch in _batches(tables, "count"):
        values, numbers = np.unique(batch.column(0).to_numpy(), return_counts=True)
        words_with.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    least, words = max(words_with, default=1), 0
    for count in sorted(words_with, reverse=True):
        words += words_with[count]
        if words > max_words:
            return least
        least = count
    return 1


def word_lines(tables: Sequence[Path], least: int) -> Iterator[str]:
    """What the trainer reads as TSV: each word with its count, from `least` on."""
    for batch in _batches(tables, "word", "count"):
        words, counts = (column.to_pylist() for column in batch.columns)
        pairs = itertools.takewhile(lambda pair: pair[1] >= least, zip(words, counts, strict=True))
        yield from (f"{SPACE}{word}\t{count}" for word, count in pairs)


def _batches(tables: Sequence[Path], *columns: str) -> Iterator[pa.RecordBatch]:
    for path in tables:
        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(columns=list(columns))
