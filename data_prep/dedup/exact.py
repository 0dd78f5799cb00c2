"""Exact duplicates of pages over a whole corpus: addresses and documents, with one winner each.

Every decision is a minimum over content (MD5 of the address, date, MD5 of the text), so it does not
depend on how the pages were spread over files or workers; only pages equal in all of that are told
apart by their place. Source: C4 3.0 (tensorflow_datasets `c4_utils`): the newest page of an address.

Three passes: partitions by address, partitions by text, and a verdict for each unit.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.dedup import tables
from pipeline.flow.stage import Work

Compared = Literal["urls", "documents"]
SPLIT_BUCKETS = 1000
STAYS, OWN_REASON, DUPLICATE_URL, DUPLICATE_DOCUMENT = 0, -1, -2, -3
REASONS = {DUPLICATE_URL: "duplicate_url", DUPLICATE_DOCUMENT: "duplicate_document"}
CLEAN, DROPPED, APART = range(3)
ENTRY_COLUMNS = 8
PAGES, ADDRESSES, VERDICT = "pages.npy", "addresses.npy", "verdict.npy"
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


def halves(packed: bytes | bytearray, columns: int) -> np.ndarray:
    """uint64 [columns, rows] of big-endian numbers packed row by row."""
    table = np.frombuffer(packed, dtype=">u8").reshape(-1, columns)
    return np.ascontiguousarray(table.T, dtype=np.uint64)


def write_pages(folder: Path, entries: Iterable[bytes]) -> int:
    """Save the entries of a unit's pages, given in the order of its rows; returns how many.

    `pages.npy` is uint64 [9, pages]: the eight numbers of an entry and the row, sorted by MD5 of
    the address.
    """
    table = halves(b"".join(entries), ENTRY_COLUMNS)
    rows = np.arange(table.shape[1], dtype=np.uint64)
    order = np.lexsort((rows, table[1], table[0]))
    tables.save(folder / PAGES, np.concatenate((table[:, order], rows[None, order])))
    return len(rows)


def verdict_of(folder: Path) -> np.ndarray:
    """int8 [pages] of a unit, once decided: STAYS, or why the page goes."""
    return np.load(folder / VERDICT)


def decide_pages(
    work: Work, scratch: Path, units: Sequence[Path], compared: Sequence[Compared]
) -> None:
    """Write the verdict on every page of every unit, comparing what `compared` names.

    `urls`: of the pages of one address the newest goes on, clean or not. `documents`: of the clean
    pages of one text, that whose MD5(address) sorts first.
    """
    tables.list_units(scratch, units)
    count = tables.partitions_for(tables.rows_in([unit / PAGES for unit in units]))
    by_address = [_Addresses(scratch, number, count, "urls" in compared) for number in range(count)]
    clean = sum(work.map(compare_addresses, by_address, unit="partitions of addresses compared"))
    parts = tables.partitions_for(clean) if "documents" in compared else 0
    by_text = [_Documents(scratch, number, parts, count) for number in range(parts)]
    for _ in work.map(compare_documents, by_text, unit="partitions of documents compared"):
        pass
    finals = [_Unit(scratch, number, count, parts) for number in range(len(units))]
    for _ in work.map(decide_unit, finals, unit="files decided"):
        pass


@dataclass(frozen=True)
class _Addresses:
    """One partition of the pages by MD5 of their address."""

    scratch: Path
    number: int
    partitions: int
    grouped: bool

    @property
    def gone(self) -> Path:
        return tables.numbered(self.scratch / "addresses_gone", self.number)

    @property
    def clean(self) -> Path:
        return tables.numbered(self.scratch / "addresses_clean", self.number)


@dataclass(frozen=True)
class _Documents:
    """One partition of the clean pages that remain, by MD5 of their text."""

    scratch: Path
    number: int
    partitions: int
    tables_before: int

    @property
    def gone(self) -> Path:
        return tables.numbered(self.scratch / "documents_gone", self.number)


@dataclass(frozen=True)
class _Unit:
    scratch: Path
    number: int
    address_partitions: int
    document_partitions: int


def compare_addresses(job: _Addresses) -> int:
    """First pass: pages of an address that is newer elsewhere go; returns how many clean ones
    go on.
    """
    if not job.clean.exists():
        units = tables.units_in(job.scratch)
        paths = [unit / PAGES for unit in units]
        parts = [tables.stretch(path, job.number, job.partitions) for path in paths]
        owners = np.repeat(
            np.arange(len(units), dtype=np.uint64), [part.shape[1] for part in parts]
        )
        table = np.concatenate(parts, axis=1)
        url_high, url_low, age, raw_high, raw_low, text_high, text_low, state, row = table
        order = np.lexsort((raw_low, raw_high, age, url_low, url_high))
        order = order[state[order] != APART]
        newest = np.ones(len(order), dtype=bool)
        if job.grouped:
            newest = tables.first_of_group(url_high[order], url_low[order])
        tables.save(job.gone, _losers(owners, row, order[~newest]))
        clean = order[newest]
        clean = clean[state[clean] == CLEAN]
        clean = clean[np.lexsort((text_low[clean], text_high[clean]))]
        columns = (text_high, text_low, url_high, url_low, owners, row)
        tables.save(job.clean, np.stack([column[clean] for column in columns]))
    return tables.rows_in([job.clean])


def compare_documents(job: _Documents) -> None:
    """Second pass: of the pages with the same clean text all but one go."""
    if job.gone.exists():
        return
    folder = job.scratch / "addresses_clean"
    paths = [tables.numbered(folder, number) for number in range(job.tables_before)]
    table = tables.stretches(paths, job.number, job.partitions)
    text_high, text_low, url_high, url_low, unit, row = table
    order = np.lexsort((row, unit, url_low, url_high, text_low, text_high))
    only = tables.first_of_group(text_high[order], text_low[order])
    tables.save(job.gone, _losers(unit, row, order[~only]))


def _losers(unit: np.ndarray, row: np.ndarray, which: np.ndarray) -> np.ndarray:
    """uint64 [2, pages] (unit, row) of some of the pages, sorted."""
    which = which[np.lexsort((row[which], unit[which]))]
    return np.stack((unit[which], row[which]))


def decide_unit(job: _Unit) -> None:
    """Last pass: the verdict on each page of a unit, and its MD5(address) by row, for what follows.

    `addresses.npy` is uint64 [2, pages].
    """
    folder = tables.units_in(job.scratch)[job.number]
    if (folder / VERDICT).exists():
        return
    pages = np.load(folder / PAGES)
    row = pages[-1].astype(np.int64)
    addresses, state = np.empty((2, len(row)), dtype=np.uint64), np.empty(len(row), dtype=np.uint64)
    addresses[:, row], state[row] = pages[:2], pages[7]
    verdict = np.where(state == CLEAN, STAYS, OWN_REASON).astype(np.int8)
    for reason, name, partitions in (
        (DUPLICATE_URL, "addresses_gone", job.address_partitions),
        (DUPLICATE_DOCUMENT, "documents_gone", job.document_partitions),
    ):
        for number in range(partitions):
            gone = tables.of_unit(tables.numbered(job.scratch / name, number), job.number)
            verdict[gone[1].astype(np.int64)] = reason
    tables.save(folder / ADDRESSES, addresses)
    tables.save(folder / VERDICT, verdict)
