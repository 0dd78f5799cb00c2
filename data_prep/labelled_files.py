"""Labelled files: JSON lines, CSV or TSV with a header, each possibly gzipped, Parquet, Arrow and JSON, as records."""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from data_prep.labelled_json import arrow_rows, json_file_records
from pipeline.complaints import nearest, shown
from pipeline.config import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMS = (".jsonl", *DELIMITERS, ".parquet", ".arrow", ".json")
PACKED = FORMS[:3]  # may be compressed with gzip
ENCODING = "utf-8-sig"  # spreadsheets begin their files with a mark, which is no part of the text
Records = Iterator[tuple[int, Mapping[str, Any]]]


def form_of(path: Path) -> str:
    """The suffix that says how a file is read, `.gz` left out."""
    return Path(path.name.removesuffix(".gz")).suffix


def _of_known_form(path: Path) -> Path:
    if form_of(path) not in (PACKED if path.suffix == ".gz" else FORMS):
        raise ValueError(
            f"got {shown(str(path))}; allowed: a file {', '.join(FORMS)}; "
            f"{', '.join(PACKED)} may end in .gz"
        )
    return path


LabelledFile = Annotated[Path, pydantic.AfterValidator(_of_known_form)]


def records(path: Path) -> Records:
    """Line (of Parquet: row) numbers and records of a file, read according to its name; DataError if it cannot be."""
    suffix = form_of(path)
    try:
        if suffix == ".parquet":
            yield from _parquet_records(path)
            return
        if suffix == ".arrow":
            yield from enumerate(arrow_rows(path), start=1)
            return
        if suffix == ".json":
            yield from json_file_records(path)
            return
        with _opened(path) as file:
            if suffix == ".jsonl":
                yield from _json_records(path, file)
            else:
                reader = csv.DictReader(file, delimiter=DELIMITERS[suffix])
                yield from ((reader.line_num, row) for row in reader)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def value_of(record: Mapping[str, Any], field: str, place: str) -> Any:
    """The value of a field that must be there; DataError with the nearest name if it is not."""
    if record.get(field) is None:
        names = [str(name) for name in record]
        raise DataError(
            f"{place}: no field {field!r}{nearest(field, names)}; the row has: {', '.join(names)}"
        )
    return record[field]


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=ENCODING, newline="")
    return path.open(encoding=ENCODING, newline="")


def _json_records(path: Path, file: IO[str]) -> Records:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: needs keys and values, holds {shown(row)}")
        yield number, row


def _parquet_records(path: Path) -> Records:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
