"""Clusters of near duplicates: connected components of pairs, without any process that knows all.

Two operations alternate, each over partitions by document: every document's larger neighbours are
tied to its smallest one (large star), then its smaller neighbours are (small star). When each
cluster has become a star around its smallest document, nothing is left to do; the number of rounds
grows with the logarithm of the size of a cluster. Documents are ordered by rank, so the middle of
the star is the winner. Source: Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii 2014, "Connected
components in MapReduce and beyond".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dedup import tables
from data_prep.dedup.lsh import keyed, once
from pipeline import files
from pipeline.flow.stage import Work

MOST_ROUNDS = 100


@dataclass(frozen=True)
class _Round:
    """One partition of one round: the tables before it are those of `before`, `count` of them."""

    folder: Path
    before: Path
    count: int
    number: int
    partitions: int

    @property
    def path(self) -> Path:
        return tables.numbered(self.folder, self.number)

    def pairs(self) -> np.ndarray:
        """uint64 [4, pairs], each once, by first document."""
        paths = [tables.numbered(self.before, number) for number in range(self.count)]
        return once(tables.stretches(paths, self.number, self.partitions))


def stars(work: Work, scratch: Path, pairs: Path, count: int) -> tuple[Path, int]:
    """Clusters as stars: a folder of tables of `tables.numbered`, and how many there are.

    `pairs` is such a folder of `count` keyed tables that hold each pair in both directions, and so
    do the tables that come back; there the smaller document of every pair is a winner.
    """
    paths = [tables.numbered(pairs, number) for number in range(count)]
    partitions = tables.partitions_for(tables.rows_in(paths))
    for number in range(MOST_ROUNDS):
        for name, operation in (("large", large_star), ("small", small_star)):
            folder = scratch / f"round-{number:02d}-{name}"
            jobs = [_Round(folder, pairs, count, part, partitions) for part in range(partitions)]
            unsettled = sum(work.map(operation, jobs, unit="partitions of clusters joined"))
            if name == "large" and unsettled == 0:
                return pairs, count
            pairs, count = folder, partitions
    raise AssertionError(f"pairs that are no stars after {MOST_ROUNDS} rounds")


def large_star(job: _Round) -> int:
    """Tie larger neighbours to the smallest one, in one direction; returns how many documents are
    not yet middle or tip of a star.
    """
    note = job.path.with_suffix(".json")
    if not note.exists():
        table = job.pairs()
        rank, document, other_rank, other = table
        begin = np.flatnonzero(tables.first_of_group(document))
        sizes = np.diff(np.append(begin, len(document)))
        larger = _before(rank, document, other_rank, other)
        smaller = np.add.reduceat(~larger, begin, dtype=np.int64) if len(begin) else sizes
        least = np.repeat(begin, sizes)
        # Neighbours are sorted, so the first is the smallest; the document itself may be smaller.
        itself = larger[least]
        least_rank = np.where(itself, rank, other_rank[least])
        least_document = np.where(itself, document, other[least])
        tied = np.stack((other_rank, other, least_rank, least_document))
        tables.save(job.path, keyed(tied[:, larger]))
        unsettled = (smaller >= 2) | ((smaller == 1) & (sizes > 1))
        files.write_json(note, {"unsettled": int(unsettled.sum())})
    return int(files.read_json(note)["unsettled"])


def small_star(job: _Round) -> int:
    """Tie smaller neighbours and the document itself to the smallest one, in both directions."""
    if not job.path.exists():
        rank, document, other_rank, other = job.pairs()
        begin = tables.first_of_group(document)
        least = np.flatnonzero(begin)[np.cumsum(begin) - 1]
        # The smallest neighbour is tied to by the document, every other one by itself.
        tip_rank, tip = np.where(begin, rank, other_rank), np.where(begin, document, other)
        tied = np.stack((tip_rank, tip, other_rank[least], other[least]))
        tables.save(job.path, both_ways(tied))
    return 0


def both_ways(pairs: np.ndarray) -> np.ndarray:
    """The keyed table of pairs and their reverses, from uint64 [4, pairs]."""
    return keyed(np.concatenate((pairs, pairs[[2, 3, 0, 1]]), axis=1))


def _before(
    rank: np.ndarray, document: np.ndarray, other_rank: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Mask of the rows whose first document comes before the second."""
    return (rank < other_rank) | ((rank == other_rank) & (document < other))


def found_stars(folder: Path, count: int, number: int, partitions: int) -> np.ndarray:
    """uint64 [3, tips] (rank of the winner, winner, loser) of one partition of all stars, by
    winner; the losers of each by rank.
    """
    paths: Sequence[Path] = [tables.numbered(folder, part) for part in range(count)]
    rank, document, other_rank, other = once(tables.stretches(paths, number, partitions))
    first = _before(rank, document, other_rank, other)
    return np.stack((rank[first], document[first], other[first]))
