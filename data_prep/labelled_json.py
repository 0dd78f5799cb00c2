"""Labelled rows in one JSON file: a list of them, SQuAD's articles, or a data set that `datasets` saved.

`save_to_disk` writes a `state.json` into the folder of each split, which names its Arrow files.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.complaints import shown
from pipeline.config import DataError

Records = Iterator[tuple[int, Mapping[str, Any]]]


def json_file_records(path: Path) -> Records:
    """Numbers from 1 and rows of the file; DataError if it holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if isinstance(value, Mapping) and "_data_files" in value:
        rows = _saved(path.parent, value)
    elif isinstance(value, Mapping) and isinstance(value.get("data"), list):
        rows = _questions(value["data"])
    elif isinstance(value, list):
        rows = iter(value)
    else:
        raise DataError(
            f"{path}: needs a list of rows, SQuAD's data, or the state of a saved data set; "
            f"holds {shown(value)}"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}:{number}: needs keys and values, holds {shown(row)}")
        yield number, row


def arrow_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of an Arrow stream, which is what `datasets` writes."""
    with pa.memory_map(str(path)) as file:
        for batch in pa.ipc.open_stream(file):
            yield from batch.to_pylist()


def _saved(folder: Path, state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in state["_data_files"]:
        yield from arrow_rows(folder / entry["filename"])


def _questions(articles: list[Any]) -> Iterator[Mapping[str, Any]]:
    """The questions of SQuAD's articles, each with its context."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {"context": paragraph["context"], **question}
