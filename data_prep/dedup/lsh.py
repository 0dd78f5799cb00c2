"""Candidates for near duplicates: documents whose signatures agree in a whole band.

Signatures are cut into bands; documents with the same hash of a band share a bucket. Source:
Indyk and Motwani 1998; Leskovec, Rajaraman, Ullman, "Mining of massive datasets", section 3.4. The
work of a bucket is bounded: all pairs of a small one; in a large one each document is paired with
the one that would win and with its neighbour. A partition is a range of the hash of the band.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dedup import tables

BANDS = "bands.npy"
LEAST_FOUND = 0.95
ALL_PAIRS_UP_TO = 8
PLACE_BITS = 32


def found_with(jaccard: float, bands: int, rows: int) -> float:
    """Probability that a pair of this Jaccard index shares a bucket."""
    return 1 - (1 - jaccard**rows) ** bands


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows): the longest bands with which a pair at the threshold is still found with a
    probability of 0.95; one row each if none has it.
    """
    for rows in range(permutations, 1, -1):
        if found_with(threshold, permutations // rows, rows) >= LEAST_FOUND:
            return permutations // rows, rows
    return permutations, 1


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands] hashes of the bands of uint32 [documents, permutations]."""
    numbers = np.arange(bands, dtype=np.uint64)
    keys = np.broadcast_to(tables.mixed(numbers + np.uint64(1)), (len(signatures), bands)).copy()
    for row in range(rows):
        keys = tables.mixed(keys ^ signatures[:, row : bands * rows : rows].astype(np.uint64))
    return keys


def write_bands(folder: Path, keys: np.ndarray, ranks: np.ndarray) -> None:
    """Save uint64 [3, entries] (key, rank, place) of a unit, sorted; keys are [documents, bands]."""
    bands = keys.shape[1]
    places = np.repeat(np.arange(len(keys), dtype=np.uint64), bands)
    flat, rank = keys.ravel(), np.repeat(ranks, bands)
    order = np.lexsort((places, rank, flat))
    tables.save(folder / BANDS, np.stack((flat[order], rank[order], places[order])))


@dataclass(frozen=True)
class Bucketing:
    """One partition of all bands, by the hash of the band."""

    scratch: Path
    number: int
    partitions: int

    @property
    def path(self) -> Path:
        return tables.numbered(self.scratch / "candidates", self.number)


def find_candidates(job: Bucketing) -> int:
    """Write uint64 [5, pairs] (hash, rank, document, rank, document) of one partition, sorted by
    the hash of the first document; returns how many.

    A document is unit << 32 | place; the first of a pair is the one of smaller rank.
    """
    if not job.path.exists():
        units = tables.units_in(job.scratch)
        paths = [unit / BANDS for unit in units]
        again = tables.repeated_values(paths, job.number, job.partitions)
        parts = [_entries(path, unit, job, again) for unit, path in enumerate(paths)]
        key, rank, document = np.concatenate(parts, axis=1)
        order = np.lexsort((document, rank, key))
        first, second = _pairs(key[order])
        first, second = order[first], order[second]
        pairs = np.stack((rank[first], document[first], rank[second], document[second]))
        tables.save(job.path, keyed(pairs))
    return tables.rows_in([job.path])


def _entries(path: Path, unit: int, job: Bucketing, again: np.ndarray) -> np.ndarray:
    """uint64 [3, entries] (key, rank, document) of one unit whose key occurs again."""
    bands = tables.stretch(path, job.number, job.partitions)
    key, rank, place = np.array(bands[:, tables.is_among(bands[0], again)])
    return np.stack((key, rank, place + np.uint64(unit << PLACE_BITS)))


def _pairs(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pairs to compare of sorted bucket keys."""
    begin = np.flatnonzero(tables.first_of_group(key))
    sizes = np.diff(np.append(begin, len(key)))
    begins, size = np.repeat(begin, sizes), np.repeat(sizes, sizes)
    places = np.arange(len(key))
    left = begins + size - places - 1
    starred = (size > ALL_PAIRS_UP_TO) & (places > begins + 1)
    firsts, seconds = [begins[starred]], [places[starred]]
    for step in range(1, ALL_PAIRS_UP_TO):
        near = (left >= step) & ((step == 1) | (size <= ALL_PAIRS_UP_TO))
        firsts.append(places[near])
        seconds.append(places[near] + step)
    return np.concatenate(firsts), np.concatenate(seconds)


def keyed(pairs: np.ndarray) -> np.ndarray:
    """uint64 [5, pairs] of uint64 [4, pairs] (rank, document, rank, document): each pair once,
    with the hash of its first document before it, sorted.
    """
    key = tables.mixed(pairs[1])
    order = np.lexsort((pairs[3], pairs[2], pairs[1], key))
    order = order[tables.first_of_group(key[order], pairs[3][order])]
    return np.concatenate((key[None, order], pairs[:, order]))


def once(table: np.ndarray) -> np.ndarray:
    """uint64 [4, pairs] of the keyed rows of several files, each pair once, sorted by first
    document, then by rank and document of the second.
    """
    order = np.lexsort((table[4], table[3], table[2], table[0]))
    order = order[tables.first_of_group(table[2][order], table[4][order])]
    return np.ascontiguousarray(table[1:, order])


def rows_of(units: Sequence[Path], name: str, documents: np.ndarray) -> np.ndarray:
    """[documents, ...] the rows of a file of the units, whose first axis is the place, for each
    document.
    """
    distinct, back = np.unique(documents, return_inverse=True)
    owners, places = distinct >> np.uint64(PLACE_BITS), distinct & np.uint64((1 << PLACE_BITS) - 1)
    begin = np.flatnonzero(tables.first_of_group(owners))
    parts = [np.load(units[0] / name, mmap_mode="r")[:0]]
    parts += [
        np.load(units[int(owners[first])] / name, mmap_mode="r")[places[first:end].astype(np.int64)]
        for first, end in zip(begin, np.append(begin, len(owners))[1:], strict=True)
    ]
    return np.concatenate(parts)[back]
