"""Documents on disk: parquet tables (zstd), written row by row and named only when they are
whole.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ZSTD_LEVEL = 3
ROWS_PER_GROUP = 1000
DOCUMENT_SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "url": pa.string(),
        "source": pa.string(),
        "file": pa.string(),
        "record": pa.int64(),
        "timestamp": pa.string(),
    }
)


@contextlib.contextmanager
def rows_into(path: Path, schema: pa.Schema) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a row to the table at `path`, which gets its name when the block ends
    well.
    """
    waiting: list[Mapping[str, Any]] = []
    with _table_at(path, schema) as writer:

        def add(row: Mapping[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting.clear()

        yield add
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))


@contextlib.contextmanager
def _table_at(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with pq.ParquetWriter(
        partial, schema, compression="zstd", compression_level=ZSTD_LEVEL
    ) as writer:
        yield writer
    partial.replace(path)


def rows_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a table, a few of them in memory at a time."""
    for batch in batches_of(path, columns):
        yield from batch.to_pylist()


def batches_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Record batches of a table."""
    with pq.ParquetFile(path) as table:
        yield from table.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns)


def write_parts(folder: Path, tables: Sequence[Path], documents_per_part: int) -> int:
    """Put `tables` together, in order, into `part-00000.parquet`, ...; returns the number of
    parts, at least 1.
    """
    parts = 0
    batches = (batch for table in tables for batch in batches_of(table))
    batch = next(batches, None)
    while batch is not None or parts == 0:
        with _table_at(folder / f"part-{parts:05d}.parquet", DOCUMENT_SCHEMA) as writer:
            room = documents_per_part
            while batch is not None and room:
                head, batch = batch.slice(0, room), batch.slice(room)
                writer.write_batch(head)
                room -= head.num_rows
                if batch.num_rows == 0:
                    batch = next(batches, None)
        parts += 1
    return parts
