"""Parquet files: a row a page, read by row groups, a few rows in memory at a time.

A row group that is damaged, lacks the column or claims to swell beyond reason is one fault; the
others are read.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow.parquet as pq

from data_prep.sources import places
from data_prep.sources.members import BOMB_BYTES, BOMB_RATIO
from data_prep.sources.page import Fault, FileRange, Name, Page, Patterns, Unreadable, Weight
from data_prep.sources.rows import Row, RowFields, page_of
from data_prep.sources.tables import columns_of, damage_named, rows_of_batch
from pipeline.config import config

BATCH_BYTES = 32 << 20
MAX_BATCH_ROWS = 64
BOMB_ROWS = 100_000
DAMAGE = "damaged_row_group"


@config
class ParquetSource(RowFields):
    """Parquet files with a row a page. `weight` is its share where sources are mixed."""

    type: Literal["parquet"] = "parquet"
    name: Name
    paths: Patterns
    weight: Weight = 1.0

    def files(self) -> list[str]:
        """Paths and addresses of the files."""
        return places.matches(self.name, self.paths)

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Ranges of row groups; the whole of a file whose footer cannot be read."""
        return [part for path in self.files() for part in _ranges_of(path, target_bytes)]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Pages of the rows of some row groups; `record` is the number of a row in its file."""
        try:
            with _table_at(part.path) as table:
                groups = range(table.metadata.num_row_groups)
                record = sum(_num_rows(table, group) for group in groups[: part.first])
                if not groups or (part.first == 0 and table.metadata.num_rows == 0):
                    yield Fault("empty_file", 0, "no row")
                for group in groups[part.first : part.end]:
                    yield from self._pages(part.path, table, group, record)
                    record += _num_rows(table, group)
        except Unreadable as why:
            if part.first == 0:
                yield why.at(0)

    def _pages(
        self, path: str, table: pq.ParquetFile, group: int, first: int
    ) -> Iterator[Page | Fault]:
        record, end = first, first + _num_rows(table, group)
        try:
            for values in _rows(table, group, self.wanted(), places.size_of(path)):
                if record == end:
                    raise Unreadable(DAMAGE, "more rows than the footer says")
                yield page_of(Row(values, record, f"{self.name}/{path}#{record}"), self)
                record += 1
            if record < end:
                raise Unreadable(DAMAGE, f"{end - record} rows fewer than the footer says")
        except Unreadable as why:
            yield why.at(record)


def _ranges_of(path: str, target_bytes: int) -> list[FileRange]:
    size, groups = places.size_of(path), 1
    if size > target_bytes:
        with contextlib.suppress(Unreadable), _table_at(path) as table:
            groups = max(1, table.metadata.num_row_groups)
    return places.cut(path, groups, size, target_bytes)


@contextlib.contextmanager
def _table_at(path: str) -> Iterator[pq.ParquetFile]:
    """The table in a file; Unreadable when its footer is broken."""
    if places.size_of(path) == 0:
        raise Unreadable("empty_file", "0 bytes")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(places.opened(path)) if places.is_remote(path) else path
        with damage_named("damaged_file"):
            table = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            stack.enter_context(table)
        yield table


def _num_rows(table: pq.ParquetFile, group: int) -> int:
    return max(0, int(table.metadata.row_group(group).num_rows))


def _rows(
    table: pq.ParquetFile, group: int, wanted: dict[str, bool], file_bytes: int
) -> Iterator[dict[str, Any]]:
    """Values of the rows of a group; Unreadable where it is damaged."""
    with damage_named(DAMAGE):
        columns = columns_of(table.schema_arrow, wanted)
        together = _rows_together(table, group, file_bytes)
        batches = table.iter_batches(
            together, row_groups=[group], columns=columns, use_threads=False
        )
        for batch in batches:
            yield from rows_of_batch(batch, columns)


def _rows_together(table: pq.ParquetFile, group: int, file_bytes: int) -> int:
    """How many rows may be in memory at once; Unreadable when the group swells beyond reason.

    What the footer says of single columns is not asked for: where that is damaged, pyarrow ends the
    whole process.
    """
    facts = table.metadata.row_group(group)
    whole = int(facts.total_byte_size)
    if whole > max(BOMB_BYTES, BOMB_RATIO * file_bytes):
        raise Unreadable("compression_bomb", f"{file_bytes} bytes inflate to {whole}")
    if facts.num_rows > max(BOMB_ROWS, BOMB_RATIO * file_bytes):
        raise Unreadable("compression_bomb", f"{file_bytes} bytes hold {facts.num_rows} rows")
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(1, whole)))
