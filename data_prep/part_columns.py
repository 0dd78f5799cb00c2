"""Texts of a part with whom they belong to: read a row group at a time, columns by name.

Parts made by other means may lack the columns that only describe a document; those are read as "".
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import DataError

DOCUMENTS_PER_BATCH = 1024


def columns_of(part: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The columns `names` of a part, strings, at most 1024 documents at a time.

    DataError when the part cannot be read or has no text.
    """
    try:
        with pq.ParquetFile(part) as file:
            there = file.schema_arrow.names
            if "text" not in there:
                raise DataError(f"{part}: has no column 'text', only {', '.join(there)}")
            read = [name for name in names if name in there]
            for group in range(file.num_row_groups):  # one by one, since their size is bounded
                for batch in file.iter_batches(DOCUMENTS_PER_BATCH, [group], read or ["text"]):
                    yield pa.record_batch({name: _column(batch, name) for name in names})
    except pa.ArrowException as error:
        raise DataError(f"{part}: cannot be read as Parquet ({error})") from None


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name in batch.schema.names:
        return pc.fill_null(batch.column(name).cast(pa.string()), "")
    return pa.repeat("", batch.num_rows)


def texts_of(part: Path, source: str | None = None) -> Iterator[list[str]]:
    """The documents of a part, in order, in lists; only those of `source` when it is given."""
    if source is None:
        for batch in columns_of(part, ("text",)):
            yield batch.column("text").to_pylist()
        return
    for batch in columns_of(part, ("text", "source")):
        own = batch.filter(pc.equal(batch.column("source"), source))
        if own.num_rows:
            yield own.column("text").to_pylist()


def sources_in(part: Path) -> dict[str, int]:
    """Documents of each source of a part, in the order in which they first come."""
    documents: Counter[str] = Counter()
    for batch in columns_of(part, ("source",)):
        documents.update(batch.column("source").to_pylist())
    return dict(documents)


def texts_by_kind(part: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Source, language, and documents of that kind, some at a time."""
    for batch in columns_of(part, ("text", "source", "language")):
        kinds = dict.fromkeys(
            zip(
                batch.column("source").to_pylist(),
                batch.column("language").to_pylist(),
                strict=True,
            )
        )
        for source, language in kinds:
            mine = pc.and_(
                pc.equal(batch.column("source"), source),
                pc.equal(batch.column("language"), language),
            )
            yield source, language, batch.filter(mine).column("text").to_pylist()
