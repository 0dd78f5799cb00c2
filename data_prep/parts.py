"""The parts of a corpus folder: Parquet files of documents, read in batches of bounded size."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import DataError

SPLITS = ("train", "validation")
DOCUMENTS_PER_BATCH = 1024


def parts_of(corpus: Path, split: str) -> list[Path]:
    """The part files of one split, in order; there may be none of a small split."""
    return sorted((corpus / split).glob("part-*.parquet"))


def text_batches(part: Path) -> Iterator[list[str]]:
    """The documents of one part, in order, in lists of at most 1024."""
    try:
        with pq.ParquetFile(part) as file:
            if "text" not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise DataError(f"{part}: has no column 'text', only {names}")
            for batch in file.iter_batches(DOCUMENTS_PER_BATCH, columns=["text"]):
                yield batch.column(0).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{part}: cannot be read as Parquet ({error})") from None


def num_documents(part: Path) -> int:
    """Documents of one part, from its footer."""
    return int(pq.read_metadata(part).num_rows)
