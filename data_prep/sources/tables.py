"""Arrow tables: record batches to the values of rows, whatever their bytes.

Text comes out as Python strings in which bytes that are no UTF-8 are carried along
(`surrogateescape`), so that one bad row costs nothing but itself.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from data_prep.sources.page import Unreadable

ROWS_AT_ONCE = 16


@contextlib.contextmanager
def damage_named(reason: str) -> Iterator[None]:
    """What the library says about bad bytes, under `reason`; errors of the disk go on as they are."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Unreadable(reason, str(error).partition("\n")[0]) from None


def columns_of(schema: pa.Schema, wanted: dict[str, bool]) -> list[str]:
    """Names of the columns to read: those `wanted` and there; Unreadable for a missing one whose
    value in `wanted` is true.
    """
    found = [name for name in wanted if _top(name) in schema.names]
    for name, is_needed in wanted.items():
        if is_needed and name not in found:
            names = ", ".join(schema.names[:8])
            raise Unreadable("missing_field", f"no column {name!r}, only {names}")
    return found


def rows_of_batch(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Values of each row in the outermost fields of `columns`."""
    names = list(dict.fromkeys(map(_top, columns)))
    for start in range(0, batch.num_rows, ROWS_AT_ONCE):
        part = batch.slice(start, ROWS_AT_ONCE)
        values = [_values(part.column(name)) for name in names]
        for row in zip(*values, strict=True):
            yield dict(zip(names, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column.to_pylist()
    packed = column.cast(pa.large_binary()).to_pylist()
    return [None if one is None else one.decode("utf-8", "surrogateescape") for one in packed]


def _top(name: str) -> str:
    return name.partition(".")[0]
