"""Token shards: packed rows of token ids in Arrow stream files, described by a manifest.

A folder of shards holds `<split>/shard-00000.arrow`, ..., `manifest.json` and `tokenizer/`.
Documents are laid end to end and cut into rows of exactly `row_length` tokens; `lengths` keeps
where one document ends and the next begins. Arrow's stream format is what
`datasets.Dataset.from_file` opens, and its columns map into numpy without a copy.
"""

import bisect
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline import files
from pipeline.config import DataError
from pipeline.data.example import Row
from pipeline.tokenizer import PAD, Vocabulary, load_vocabulary

Split = Literal["train", "validation"]
FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
ROWS_PER_BATCH = 1024


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id: uint16 or uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def schema_for(row_length: int, dtype: np.dtype[Any]) -> pa.Schema:
    """Columns of a shard: `input_ids` of fixed length, `lengths` of their document pieces."""
    ids = pa.list_(pa.from_numpy_dtype(dtype), row_length)
    return pa.schema([("input_ids", ids), ("lengths", pa.list_(pa.int32()))])


def write_shard(
    path: Path, documents: Iterable[np.ndarray], *, row_length: int, dtype: np.dtype[Any]
) -> None:
    """Pack `documents` (ids, in order) into rows and write them as one shard, atomically.

    Only the last row may be shorter than `row_length`; it is filled up with the pad id. Memory is
    bounded by one record batch and the longest document.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    schema = schema_for(row_length, dtype)
    with beside.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for pieces in _filled(documents, row_length * ROWS_PER_BATCH):
                writer.write_batch(_record_batch(pieces, row_length, schema, dtype))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _filled(documents: Iterable[np.ndarray], capacity: int) -> Iterator[list[np.ndarray]]:
    """Documents, cut where needed, in groups of `capacity` tokens; only the last has fewer."""
    group: list[np.ndarray] = []
    room = capacity
    for document in documents:
        rest = document
        while len(rest) >= room:
            yield [*group, rest[:room]]
            group, rest, room = [], rest[room:], capacity
        if len(rest):
            group.append(rest)
            room -= len(rest)
    if group:
        yield group


def _record_batch(
    pieces: Sequence[np.ndarray], row_length: int, schema: pa.Schema, dtype: np.dtype[Any]
) -> pa.RecordBatch:
    """Rows of `row_length` from the laid-out `pieces`."""
    total = sum(map(len, pieces))
    num_rows = -(-total // row_length)
    ids = np.full(num_rows * row_length, PAD, dtype)
    ids[:total] = np.concatenate(pieces)
    document_ends = np.cumsum([len(piece) for piece in pieces])
    row_ends = np.minimum(np.arange(1, num_rows + 1) * row_length, total)
    ends = np.union1d(document_ends, row_ends)
    lengths = np.diff(ends, prepend=0).astype(np.int32)
    offsets = np.concatenate([[0], np.searchsorted(ends, row_ends, side="right")]).astype(np.int32)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(ids), row_length),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(lengths)),
    ]
    return pa.record_batch(columns, schema=schema)


def shard_facts(path: Path) -> dict[str, Any]:
    """What the manifest says of one finished shard, read from the file itself."""
    shard = _Shard(path)
    return {
        "file": f"{path.parent.name}/{path.name}",
        "rows": shard.num_rows,
        "tokens": sum(int(batch.lengths.sum()) for batch in shard.batches),
        "bytes": path.stat().st_size,
        "sha256": files.sha256_of(path),
    }


def write_manifest(
    folder: Path,
    *,
    vocabulary: Vocabulary,
    row_length: int,
    shards: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Write `tokenizer/`, then `manifest.json` for the `shards` (facts by split); return it."""
    vocabulary.save(folder / TOKENIZER)
    manifest = {
        "format": FORMAT,
        "row_length": row_length,
        "dtype": str(dtype_for(vocabulary.size)),
        "vocabulary": vocabulary.digest,
        "vocab_size": vocabulary.size,
        "splits": {
            split: {
                "rows": sum(fact["rows"] for fact in facts),
                "tokens": sum(fact["tokens"] for fact in facts),
                "shards": facts,
            }
            for split, facts in shards.items()
        },
    }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


@dataclass(frozen=True)
class _Batch:
    """One record batch as views of the mapped file; row i: lengths[offsets[i]:offsets[i + 1]]."""

    ids: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray


class _Shard:
    """One memory-mapped shard file."""

    def __init__(self, path: Path) -> None:
        try:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                self.schema = stream.schema
                self.batches = [_views(batch) for batch in stream]
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path}: not a readable token shard ({error}); make the tokens again"
            ) from None
        self.starts = [0]
        for batch in self.batches:
            self.starts.append(self.starts[-1] + len(batch.ids))
        self.num_rows = self.starts.pop()

    def row(self, index: int) -> Row:
        """Row `index` of this shard, ids as int64 and without padding."""
        number = bisect.bisect_right(self.starts, index) - 1
        batch, place = self.batches[number], index - self.starts[number]
        lengths = batch.lengths[batch.offsets[place] : batch.offsets[place + 1]]
        return Row(batch.ids[place, : lengths.sum()].astype(np.int64), lengths)


def _views(batch: pa.RecordBatch) -> _Batch:
    ids, lengths = batch.column("input_ids"), batch.column("lengths")
    return _Batch(
        ids=ids.flatten().to_numpy(zero_copy_only=True).reshape(len(ids), ids.type.list_size),
        offsets=lengths.offsets.to_numpy(zero_copy_only=True),
        lengths=lengths.values.to_numpy(zero_copy_only=True),
    )


class TokenRows:
    """The packed rows of one split of a `tokens` folder, by number.

    Opening checks the manifest against the vocabulary and the sizes of the files; each shard is
    mapped, and checked against the manifest, when it is first read. `verify` reads everything.
    Raises DataError in words.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder = folder
        self._manifest = _read_manifest(folder)
        if split not in self._manifest["splits"]:
            raise DataError(f"{folder}: has no split {split!r}")
        self._facts = [
            fact for fact in self._manifest["splits"][split]["shards"] if fact["rows"] > 0
        ]
        if not self._facts:
            raise DataError(f"{folder}: split {split!r} has no rows; give the corpus more pages")
        self._check_sizes()
        if self.vocabulary().digest != self._manifest["vocabulary"]:
            raise DataError(
                f"{folder}: {TOKENIZER}/ is not the vocabulary these tokens were made with; "
                "make the tokens again"
            )
        self._starts = [0]
        for fact in self._facts:
            self._starts.append(self._starts[-1] + fact["rows"])
        self._num_rows = self._starts.pop()
        self._shards: list[_Shard | None] = [None] * len(self._facts)

    def __len__(self) -> int:
        return self._num_rows

    @property
    def row_length(self) -> int:
        """Tokens of a full row."""
        return int(self._manifest["row_length"])

    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the ids belong to."""
        return load_vocabulary(self.folder / TOKENIZER)

    def row(self, index: int) -> Row:
        """Row number `index`, 0 <= index < len(self)."""
        if not 0 <= index < self._num_rows:
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        shard = self._shards[number] or self._open(number)
        return shard.row(index - self._starts[number])

    def verify(self) -> None:
        """Compare the SHA-256 of every shard with the manifest."""
        for fact in self._facts:
            path = self.folder / fact["file"]
            if files.sha256_of(path) != fact["sha256"]:
                raise DataError(
                    f"{path}: content differs from {MANIFEST} (SHA-256); make the tokens again"
                )

    def _check_sizes(self) -> None:
        for fact in self._facts:
            path = self.folder / fact["file"]
            size = path.stat().st_size if path.exists() else None
            if size != fact["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise DataError(
                    f"{path}: {found}, {MANIFEST} says {fact['bytes']} bytes; make the tokens again"
                )

    def _open(self, number: int) -> _Shard:
        fact = self._facts[number]
        shard = _Shard(self.folder / fact["file"])
        expected = schema_for(self.row_length, np.dtype(self._manifest["dtype"]))
        if not shard.schema.equals(expected) or shard.num_rows != fact["rows"]:
            raise DataError(
                f"{self.folder / fact['file']}: holds {shard.num_rows} rows of "
                f"{shard.schema.field(0).type}, {MANIFEST} says {fact['rows']} rows of "
                f"{expected.field(0).type}; make the tokens again"
            )
        self._shards[number] = shard
        return shard


def _read_manifest(folder: Path) -> Any:
    try:
        manifest = files.read_json(folder / MANIFEST)
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no tokens ({MANIFEST} is missing)") from None
    except ValueError as error:
        raise DataError(f"{folder / MANIFEST}: not valid JSON ({error})") from None
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{folder}: tokens of format {manifest.get('format')}, this version reads {FORMAT}; "
            "make the tokens again"
        )
    return manifest
