"""Tables between the passes of deduplication: columns sorted by a hash, read one stretch at a time.

The one idea: a partition is a range of the first column, which is a hash. A job reads its stretch of
each file and nothing else, so what it holds is bounded by the number of partitions, and that number
follows from the input alone, never from the workers.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import files

ROWS_PER_PARTITION = 1_000_000
UNITS = "units.json"


def save(path: Path, table: np.ndarray) -> None:
    """Write an array to `path`, which is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        np.save(file, table, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def list_units(scratch: Path, units: Sequence[Path]) -> None:
    """Leave the folders of all units in `scratch`, where jobs read them with `units_in`."""
    files.write_json(scratch / UNITS, [path.as_posix() for path in units])


def units_in(scratch: Path) -> list[Path]:
    """The folders that `list_units` left."""
    return [Path(name) for name in json.loads((scratch / UNITS).read_text(encoding="utf-8"))]


def numbered(folder: Path, number: int) -> Path:
    """Where partition `number` of a pass writes its table."""
    return folder / f"{number:06d}.npy"


def rows_in(paths: Sequence[Path]) -> int:
    """Rows of all tables together, from their heads."""
    return sum(np.load(path, mmap_mode="r").shape[1] for path in paths)


def partitions_for(rows: int) -> int:
    """How many partitions keep each at about ROWS_PER_PARTITION rows."""
    return 1 + rows // ROWS_PER_PARTITION


def stretch(path: Path, partition: int, partitions: int) -> np.ndarray:
    """[columns, rows] of the rows of a table whose first column lies in one of the partitions, as
    a view of the file.
    """
    table = np.load(path, mmap_mode="r")
    first, end = (-(-(number << 64) // partitions) for number in (partition, partition + 1))
    start = np.searchsorted(table[0], np.uint64(first))
    stop = table.shape[1] if end >> 64 else np.searchsorted(table[0], np.uint64(end))
    return table[:, start:stop]


def stretches(paths: Sequence[Path], partition: int, partitions: int) -> np.ndarray:
    """[columns, rows] of one partition of several tables of one shape, one after the other."""
    return np.concatenate([stretch(path, partition, partitions) for path in paths], axis=1)


def of_unit(path: Path, unit: int) -> np.ndarray:
    """[columns, rows] of the rows of a table sorted by unit, its first column, for one unit."""
    table = np.load(path, mmap_mode="r")
    bounds = np.array([unit, unit + 1], dtype=np.uint64)
    first, end = np.searchsorted(table[0], bounds).tolist()
    return np.array(table[:, first:end])


def first_of_group(*columns: np.ndarray) -> np.ndarray:
    """Mask of the rows that differ from the row before them; equal rows must be neighbours."""
    first = np.ones(len(columns[0]), dtype=bool)
    if len(first):
        first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return first


def repeated_values(paths: Sequence[Path], partition: int, partitions: int) -> np.ndarray:
    """Sorted values of the first column that occur more than once in one partition of `paths`."""
    parts = []
    for path in paths:
        values = np.array(stretch(path, partition, partitions)[0])
        first = first_of_group(values)
        again = values[~first]
        # However often a file has a value, two of it tell that it is repeated.
        parts += [values[first], again[first_of_group(again)]]
    values = np.sort(np.concatenate(parts))
    again = values[1:][values[1:] == values[:-1]]
    return again[first_of_group(again)]


def is_among(values: np.ndarray, sorted_values: np.ndarray) -> np.ndarray:
    """Mask of the `values` that occur in `sorted_values`."""
    if not len(sorted_values):
        return np.zeros(len(values), dtype=bool)
    places = np.searchsorted(sorted_values, values)
    return sorted_values[np.minimum(places, len(sorted_values) - 1)] == values


def mixed(values: np.ndarray) -> np.ndarray:
    """A one-to-one scrambling of uint64 values, so that near values lie far apart.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
    number generators").
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
