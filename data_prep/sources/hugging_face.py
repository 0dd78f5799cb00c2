"""Data sets of the `datasets` library: a folder that it saved, or a name on the Hugging Face hub.

A folder is read as the Arrow streams it holds, every batch checked first. The library itself is
needed for the hub alone, which it reads as a stream, so that nothing is copied to a cache first.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
import pydantic

from data_prep.sources import places
from data_prep.sources.page import Fault, FileRange, Name, Page, Unreadable, Weight
from data_prep.sources.rows import Row, RowFields, page_of
from data_prep.sources.tables import columns_of, damage_named, rows_of_batch
from pipeline.config import DataError, config

DAMAGE = "damaged_row_group"
STATE, SPLITS = "state.json", "dataset_dict.json"


@config
class DatasetsSource(RowFields):
    """A saved data set (`folder`), or one of the hub (`dataset`, at a `revision`); a row a page.

    `subset` is the name of a configuration of the data set, `split` the part of it that is read,
    `weight` its share where sources are mixed.
    """

    type: Literal["datasets"] = "datasets"
    name: Name
    folder: Name | None = None
    dataset: Name | None = None
    subset: Name | None = None
    revision: Name | None = None
    split: Name = "train"
    weight: Weight = 1.0

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> "DatasetsSource":
        if (self.folder is None) == (self.dataset is None):
            raise ValueError("give either folder (a saved data set) or dataset (a name on the hub)")
        if self.folder is not None and (self.revision or self.subset):
            raise ValueError("revision and subset belong to a dataset of the hub, not to a folder")
        if self.dataset is not None and self.revision is None:
            raise ValueError(
                f"dataset {self.dataset!r} needs its revision (the commit on the hub), "
                "or nobody could tell when its content changes"
            )
        return self

    def files(self) -> list[str]:
        """The Arrow files of a folder; none for the hub, whose content the revision names."""
        if self.folder is None:
            return []
        place = self.folder.removeprefix("file://").rstrip("/")
        splits = _json_at(f"{place}/{SPLITS}")
        if splits is not None:
            names = splits.get("splits", [])
            if self.split not in names:
                listed = ", ".join(map(str, names))
                raise DataError(
                    f"source {self.name!r}: {place!r} has no split {self.split!r}, only {listed}"
                )
            place = f"{place}/{self.split}"
        state = _json_at(f"{place}/{STATE}")
        if state is None:
            raise DataError(
                f"source {self.name!r}: {place!r} is no folder that `save_to_disk` wrote "
                f"(it has no {STATE}); correct the path"
            )
        held = [f"{place}/{entry['filename']}" for entry in state.get("_data_files", [])]
        return places.matches(self.name, held or [f"{place}/*.arrow"])

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Ranges of record batches in the files of a folder; shards of the hub."""
        if self.folder is not None:
            return [part for path in self.files() for part in _ranges_of(path, target_bytes)]
        shards = _stream(self).num_shards
        name = f"{self.dataset}@{self.revision}/{self.split}"
        return [
            FileRange(f"{name}/{shard:05d}-of-{shards:05d}", shard, shard + 1, target_bytes)
            for shard in range(shards)
        ]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Pages of the rows of a part; `record` is the number of a row in its file or shard."""
        if self.folder is None:
            stream = _stream(self)
            rows = stream.shard(num_shards=stream.num_shards, index=part.first)
            for record, values in enumerate(rows):
                yield self._page(part.path, record, values)
        else:
            yield from self._saved(part)

    def _saved(self, part: FileRange) -> Iterator[Page | Fault]:
        record = number = 0
        try:
            for batch in _batches(part.path):
                if part.end is not None and number >= part.end:
                    return
                if number >= part.first:
                    yield from self._pages(part.path, batch, record)
                record += batch.num_rows
                number += 1
            if record == 0 and part.first == 0:
                yield Fault("empty_file", 0, "no row")
        except Unreadable as why:
            if part.first <= number and (part.end is None or number < part.end):
                yield why.at(record)

    def _pages(self, path: str, batch: pa.RecordBatch, record: int) -> Iterator[Page | Fault]:
        try:
            for values in _rows(batch, self.wanted()):
                yield self._page(path, record, values)
                record += 1
        except Unreadable as why:
            yield why.at(record)

    def _page(self, path: str, record: int, values: dict[str, Any]) -> Page | Fault:
        return page_of(Row(values, record, f"{self.name}/{path}#{record}"), self)


@functools.lru_cache(maxsize=1)
def _stream(source: DatasetsSource) -> Any:
    """A split of the hub as the library streams it; DataError when it cannot be reached."""
    # A second and 100 MB, which only those pay who read from the hub.
    import datasets

    try:
        return datasets.load_dataset(
            source.dataset,
            source.subset,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
    except (OSError, ValueError) as error:
        words = str(error).partition("\n")[0]
        raise DataError(
            f"source {source.name!r}: dataset {source.dataset!r} cannot be read: {words}"
        ) from None


def _json_at(path: str) -> dict[str, Any] | None:
    """The object in a JSON file, None if there is no such file."""
    try:
        with places.opened(path) as file:
            value = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object")
    return value


def _ranges_of(path: str, target_bytes: int) -> list[FileRange]:
    size, batches = places.size_of(path), 0
    if size > target_bytes:
        with contextlib.suppress(Unreadable):
            for _ in _batches(path):
                batches += 1
    return places.cut(path, max(1, batches), size, target_bytes)


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """Record batches of an Arrow stream, not yet checked; Unreadable where it is cut."""
    size = places.size_of(path)
    if size == 0:
        raise Unreadable("empty_file", "0 bytes")
    with contextlib.ExitStack() as stack:
        if places.is_remote(path):
            file: Any = stack.enter_context(places.opened(path))
        else:
            file = stack.enter_context(pa.memory_map(path))
        with damage_named("damaged_file"):
            for batch in pa.ipc.open_stream(file):
                if batch.num_rows > size:
                    raise Unreadable("damaged_file", f"a batch of {batch.num_rows} rows")
                yield batch


def _rows(batch: pa.RecordBatch, wanted: dict[str, bool]) -> Iterator[dict[str, Any]]:
    with damage_named(DAMAGE):
        columns = columns_of(batch.schema, wanted)
        held = batch.select(list(dict.fromkeys(name.partition(".")[0] for name in columns)))
        # Offsets of a damaged file may point anywhere.
        held.validate(full=True)
        yield from rows_of_batch(held, columns)
