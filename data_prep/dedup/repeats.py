"""Pieces of text that occur in more than one place of a corpus, lines or spans of sentences.

An index holds MD5 and place of every piece of a unit; a partition compares the pieces of its range
of MD5. The winner is the page whose MD5(address) sorts first; what else is left of it is a matter
of the two C4 rules (`lines`, `spans`), which differ in one point. A partition holds 48 bytes for
each piece that a unit has and that occurs again, and 16 for each place that goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.dedup import exact, tables
from pipeline.flow.stage import Work

Pieces = Literal["lines", "spans"]
INDEX = "index.npy"
ROW_BITS = 32
NUMBER_MASK = (1 << ROW_BITS) - 1


def write(folder: Path, digests: bytes | bytearray, places: np.ndarray) -> int:
    """Save a unit's index of pieces, MD5 and place (row << 32 | number); returns how many.

    `index.npy` is uint64 [3, pieces]: MD5 high and low half, and place; sorted.
    """
    high, low = exact.halves(digests, 2)
    order = np.lexsort((places, low, high))
    tables.save(folder / INDEX, np.stack((high[order], low[order], places[order])))
    return len(places)


@dataclass(frozen=True)
class _Partition:
    scratch: Path
    number: int
    partitions: int
    pieces: Pieces


def find(work: Work, scratch: Path, units: Sequence[Path], pieces: Pieces) -> tuple[Path, ...]:
    """Pieces that go, of pages that stay, as one file for each partition; `gone_in` reads them."""
    tables.list_units(scratch, units)
    count = tables.partitions_for(tables.rows_in([unit / INDEX for unit in units]))
    jobs = [_Partition(scratch, number, count, pieces) for number in range(count)]
    return tuple(work.map(compare_pieces, jobs, unit=f"partitions of {pieces} compared"))


def gone_in(found: Sequence[Path], unit: int) -> dict[int, set[int]]:
    """Row of a unit to the numbers of its pieces that go."""
    gone: dict[int, set[int]] = {}
    for path in found:
        for key in tables.of_unit(path, unit)[1].tolist():
            gone.setdefault(key >> ROW_BITS, set()).add(key & NUMBER_MASK)
    return gone


def compare_pieces(job: _Partition) -> Path:
    """The pieces of one partition that go: uint64 [2, pieces] (unit, place), sorted."""
    path = tables.numbered(job.scratch / "repeats", job.number)
    if not path.exists():
        units = tables.units_in(job.scratch)
        indices = [unit / INDEX for unit in units]
        again = tables.repeated_values(indices, job.number, job.partitions)
        rivals, gone = [np.zeros((6, 0), np.uint64)], [np.zeros((2, 0), np.uint64)]
        for number, unit in enumerate(units) if len(again) else ():
            table = _sorted(_rivals(unit, number, job, again))
            hopeful = _hopeful(table)
            rivals.append(table[:, hopeful])
            gone.append(table[4:, ~hopeful])
        table = _sorted(np.concatenate(rivals, axis=1))
        losers = np.concatenate([*gone, table[4:, RULES[job.pieces](table)]], axis=1)
        tables.save(path, losers[:, np.lexsort((losers[1], losers[0]))])
    return path


def _rivals(folder: Path, unit: int, job: _Partition, again: np.ndarray) -> np.ndarray:
    """uint64 [6, pieces] of one unit: MD5 of piece, MD5 of address, unit, place; pieces that may
    occur again, of pages that stay.
    """
    index = tables.stretch(folder / INDEX, job.number, job.partitions)
    high, low, place = np.array(index[:, tables.is_among(index[0], again)])
    row = (place >> np.uint64(ROW_BITS)).astype(np.int64)
    stay = exact.verdict_of(folder)[row] == exact.STAYS
    url_high, url_low = np.load(folder / exact.ADDRESSES, mmap_mode="r")[:, row[stay]]
    owner = np.full(len(url_high), unit, dtype=np.uint64)
    return np.stack((high[stay], low[stay], url_high, url_low, owner, place[stay]))


def _sorted(table: np.ndarray) -> np.ndarray:
    """The rivals by piece; those of one piece by MD5 of their address, then by place."""
    high, low, url_high, url_low, unit, place = table
    return table[:, np.lexsort((place, unit, url_low, url_high, low, high))]


def _hopeful(table: np.ndarray) -> np.ndarray:
    """Mask of the rivals of one unit that decide over others: the first of each piece, and the
    second if it is on the same page. The rest goes by either rule, so that a piece which is
    everywhere weighs no more than its units.
    """
    first = tables.first_of_group(table[0], table[1])
    second = np.zeros(len(first), dtype=bool)
    second[1:] = first[:-1] & in_page_again(table)[1:]
    return first | second


def in_page_again(table: np.ndarray) -> np.ndarray:
    """Mask of the rivals whose page holds the same piece before them."""
    high, low, _, _, unit, place = table
    return ~tables.first_of_group(high, low, unit, place >> np.uint64(ROW_BITS))


def lines_that_go(table: np.ndarray) -> np.ndarray:
    """Mask of the lines of a sorted table that go: all but the first place of the winner."""
    return ~tables.first_of_group(table[0], table[1])


def spans_that_go(table: np.ndarray) -> np.ndarray:
    """Mask of the spans of a sorted table that go: all but that of the winner, and that too if
    its page holds it twice.

    C4 of 2019 lists a page once for each time it holds the span, spares the first of the list, and
    takes the span out of every page still on it.
    """
    first = tables.first_of_group(table[0], table[1])
    first[:-1] &= ~in_page_again(table)[1:]
    return ~first


RULES: dict[Pieces, Callable[[np.ndarray], np.ndarray]] = {
    "lines": lines_that_go,
    "spans": spans_that_go,
}
