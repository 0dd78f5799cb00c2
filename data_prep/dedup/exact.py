"""Exact duplicates over a whole corpus: addresses, documents and lines, with one winner each.

Every decision is a minimum over content (MD5 of the address, date, MD5 of the text), so it does not
depend on how the pages were spread over files or workers. Source: C4 3.0 (tensorflow_datasets
`c4_utils`): newest page of an address; a line stays only in the page whose MD5(address) sorts
first, and there only once.

Memory: the page decision holds 64 bytes a page, one process. The line decision is cut into
partitions by hash; each holds 48 bytes a line of its partition, so its need is bounded by the
number of partitions.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

SPLIT_BUCKETS = 1000
KEPT_FROM = 0
OWN_REASON, DUPLICATE_URL, DUPLICATE_DOCUMENT = -1, -2, -3
CLEAN, DROPPED, APART = range(3)
PAGE_COLUMNS = 8
_SCHEME = re.compile(r"https?://(www\.)?")
_TRACKING = re.compile(r"\?(utm_|ref|feed).*")


def normalised_url(url: str) -> str:
    """Address as C4 groups pages by: without scheme, `www.`, tracking query and final slashes."""
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def digest_of(text: str) -> bytes:
    """MD5 of a text, 16 bytes; its first bit is the one that counts most when digests are
    ordered.
    """
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def goes_to_validation(url: str, fraction: float) -> bool:
    """Whether a page is held out: MD5(normalised address) modulo 1000 below `fraction` of 1000,
    as C4 splits.
    """
    key = int.from_bytes(digest_of(normalised_url(url)), "big")
    return key % SPLIT_BUCKETS < round(fraction * SPLIT_BUCKETS)


def page_entry(url: str, seconds: int, raw: str, text: str, state: int) -> bytes:
    """What the page decision needs to know of a page: address, date in seconds, text before and
    after cleaning.

    `state` is CLEAN, DROPPED (by cleaning, though its address still takes part), or APART (takes no
    part).
    """
    ranks = ((1 << 63) - seconds).to_bytes(8, "big")
    key = digest_of(normalised_url(url))
    return key + ranks + digest_of(raw) + digest_of(text) + state.to_bytes(8, "big")


def page_table(entries: Iterable[bytes]) -> np.ndarray:
    """uint64 [PAGE_COLUMNS, pages] of the entries of a unit, in the order of its rows."""
    return _halves(b"".join(entries), PAGE_COLUMNS)


def _halves(packed: bytes, columns: int) -> np.ndarray:
    table = np.frombuffer(packed, dtype=">u8").reshape(-1, columns)
    return np.ascontiguousarray(table.T, dtype=np.uint64)


def page_ranks(units: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each unit int64 [pages]: the rank of a page that stays (by MD5(address)), else why it
    goes.

    Ranks are from 0 over all units; OWN_REASON, DUPLICATE_URL and DUPLICATE_DOCUMENT are negative.
    """
    table = np.concatenate(units, axis=1) if units else np.zeros((PAGE_COLUMNS, 0), np.uint64)
    url_high, url_low, age, raw_high, raw_low, text_high, text_low, state = table
    verdict = np.full(table.shape[1], OWN_REASON, dtype=np.int64)
    order = np.lexsort((raw_low, raw_high, age, url_low, url_high))
    order = order[state[order] != APART]
    newest = _first_of_group(url_high[order], url_low[order])
    verdict[order[~newest]] = DUPLICATE_URL
    winners = order[newest]
    winners = winners[state[winners] == CLEAN]
    by_text = winners[
        np.lexsort((url_low[winners], url_high[winners], text_low[winners], text_high[winners]))
    ]
    only = _first_of_group(text_high[by_text], text_low[by_text])
    verdict[by_text[~only]] = DUPLICATE_DOCUMENT
    stay = by_text[only]
    stay = stay[np.lexsort((url_low[stay], url_high[stay]))]
    verdict[stay] = np.arange(KEPT_FROM, KEPT_FROM + len(stay))
    return np.split(verdict, np.cumsum([unit.shape[1] for unit in units])[:-1])


def _first_of_group(*columns: np.ndarray) -> np.ndarray:
    """Mask of the rows that differ from the row before them; equal rows must be neighbours."""
    first = np.ones(len(columns[0]), dtype=bool)
    if len(first):
        first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return first


def line_index(pages: Iterable[tuple[int, str]]) -> np.ndarray:
    """uint64 [3, lines] of (row, cleaned text) pairs: MD5 high and low half, and row << 32 |
    line; sorted by MD5.
    """
    digests, places = bytearray(), array("Q")
    for row, text in pages:
        for number, line in enumerate(text.split("\n")):
            digests += digest_of(line.strip().lower())
            places.append(row << 32 | number)
    high, low = _halves(bytes(digests), 2)
    place = np.frombuffer(places, dtype=np.uint64)
    order = np.lexsort((place, low, high))
    return np.stack((high[order], low[order], place[order]))


def duplicate_lines(
    units: Sequence[tuple[Path, Path]], partition: int, partitions: int
) -> np.ndarray:
    """uint64 [2, repeats] (unit, row << 32 | line) of the lines to remove whose MD5 lies in one of
    the partitions.

    `units` are the saved line index and page ranks of each unit; only the partition's part of them
    is read. The result is sorted by unit, row and line.
    """
    first, end = (_boundary(number, partitions) for number in (partition, partition + 1))
    parts = [
        _stretch(number, index, ranks, first, end) for number, (index, ranks) in enumerate(units)
    ]
    table = np.concatenate(parts, axis=1)
    high, low, rank, unit, place = table
    order = np.lexsort((place, rank, low, high))
    repeated = order[~_first_of_group(high[order], low[order])]
    repeated = repeated[np.lexsort((place[repeated], unit[repeated]))]
    return np.ascontiguousarray(np.stack((unit[repeated], place[repeated])))


def _boundary(partition: int, partitions: int) -> int:
    return -(-(partition << 64) // partitions)


def _stretch(unit: int, index: Path, ranks: Path, first: int, end: int) -> np.ndarray:
    """uint64 [5, lines] of one unit: MD5 high, low, rank of the page, unit, place; pages that
    stay only.
    """
    lines = np.load(index, mmap_mode="r")
    rank_of = np.load(ranks)
    start = np.searchsorted(lines[0], np.uint64(first))
    stop = lines.shape[1] if end >> 64 else np.searchsorted(lines[0], np.uint64(end))
    high, low, place = np.array(lines[:, start:stop])
    rank = rank_of[(place >> np.uint64(32)).astype(np.int64)]
    stay = rank >= KEPT_FROM
    unit_column = np.full(int(stay.sum()), unit, dtype=np.uint64)
    return np.stack((high[stay], low[stay], rank[stay].astype(np.uint64), unit_column, place[stay]))
