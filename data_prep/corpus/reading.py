"""The first pass: a unit of raw input to blocks of cleaned pages, with what duplicates are found by.

A block is a folder that holds a bounded number of pages, however large the unit is, so every pass
needs bounded memory. A block's files are named when they are whole; a unit is done when its note
is there.
"""

import datetime
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.clean import Cleaner, Cleaning, cleaner_of, sentences
from data_prep.corpus.units import Unit
from data_prep.dedup import exact, lines, spans
from data_prep.documents import rows_into, rows_of
from data_prep.extract import ExtractMode, extract
from data_prep.sources.page import FAULT_REASONS, Fault, Page
from data_prep.tally import SAMPLE_CHARACTERS, Samples
from pipeline import files

BLOCK_PAGES = 20_000
BLOCK_CHARACTERS = 40_000_000
FIRST_FAULTS = 3  # of each reason are told when there are too many
NO_ADDRESS, UNREADABLE, GIVEN_UP = "no_address", "undecodable", "worker_died"
FAULTS = frozenset((*FAULT_REASONS, UNREADABLE, GIVEN_UP))
PAGES, NOTE, FAULT_LIST, LINE_SAMPLES = "pages.parquet", "read.json", "faults.jsonl", "lines.json"
PAGE_SCHEMA = pa.schema(
    {
        "url": pa.string(),
        "title": pa.string(),
        "timestamp": pa.string(),
        "file": pa.string(),
        "record": pa.int64(),
        "text": pa.string(),
        "excerpt": pa.string(),
        "reason": pa.string(),
        "characters": pa.int64(),
        "replaced": pa.int64(),
        "lines": pa.int64(),
        "dropped_lines": pa.map_(pa.string(), pa.int64()),
    }
)


@dataclass(frozen=True)
class Reading:
    """A unit to be read, how, and into which folder."""

    scratch: Path
    unit: Unit
    mode: ExtractMode
    cleaning: Cleaning

    @property
    def note(self) -> Path:
        """The file that is there when the unit is done."""
        return self.scratch / "units" / f"{self.unit.number:06d}.json"

    def block(self, number: int) -> Path:
        """Folder of one of its blocks."""
        return block_folder(self.scratch, self.unit.number, number)


def block_folder(scratch: Path, unit: int, block: int) -> Path:
    """Folder of a block."""
    return scratch / "blocks" / f"{unit:06d}-{block:04d}"


def read_unit(reading: Reading) -> dict[str, Any]:
    """Read a unit into blocks unless that is done; returns its note.

    `blocks`, `pages` with text, `records` (pages or not), repeatable `parts` (lines or windows),
    `megabytes`, CPU `seconds`, `faults` by reason and the `first` of each.
    """
    if not reading.note.exists():
        _write(reading, _items(reading.unit))
    return dict(files.read_json(reading.note))


def give_up(reading: Reading) -> dict[str, Any]:
    """Stands for a unit that no worker survives: each of its ranges becomes a fault."""
    note = "reading it took down the worker several times, probably for lack of memory"
    faults = (Fault(GIVEN_UP, one.first, note) for one in reading.unit.ranges)
    paths = (one.path for one in reading.unit.ranges)
    _write(reading, zip(paths, faults, strict=True))
    return dict(files.read_json(reading.note))


def _items(unit: Unit) -> Iterator[tuple[str, Page | Fault]]:
    """(file, page or fault) of all ranges; `!` stands between an archive and a file inside."""
    for one in unit.ranges:
        for item in unit.source.read(one):
            yield f"{one.path}!{item.member}" if item.member else one.path, item


def _write(reading: Reading, items: Iterator[tuple[str, Page | Fault]]) -> None:
    began = time.process_time()
    sums: Counter[str] = Counter()
    first: dict[str, list[dict[str, Any]]] = {}
    reasons: Counter[str] = Counter()
    ahead = next(items, None)
    while ahead is not None or not sums["blocks"]:
        folder, source = reading.block(sums["blocks"]), reading.unit.source.name
        block = _Block(folder, source, cleaner_of(reading.cleaning))
        some = items if ahead is None else itertools.chain([ahead], items)
        sums.update(block.fill(some, reading.mode))
        sums["blocks"] += 1
        for fault in block.faults:
            reasons[fault["reason"]] += 1
            if reasons[fault["reason"]] <= FIRST_FAULTS:
                first.setdefault(fault["reason"], []).append(fault)
        ahead = next(items, None)
    note: dict[str, Any] = {name: sums[name] for name in ("blocks", "records", "pages", "parts")}
    note |= {"megabytes": reading.unit.bytes / 1e6, "seconds": time.process_time() - began}
    files.write_json(reading.note, note | {"faults": dict(reasons), "first": first})


@dataclass
class _Block:
    """A block that is being written."""

    folder: Path
    source: str
    cleaner: Cleaner
    entries: bytearray = field(default_factory=bytearray)
    faults: list[dict[str, Any]] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    with_text: int = 0

    def fill(self, items: Iterator[tuple[str, Page | Fault]], mode: ExtractMode) -> dict[str, int]:
        """Take items until the block is full or they end; returns what it holds."""
        files.fresh_folder(self.folder)
        records = characters = 0
        with rows_into(self.folder / PAGES, PAGE_SCHEMA) as add:
            for file, item in items:
                row = self._row(file, item, mode)
                add(row)
                records += 1
                characters += len(row["text"])
                if records == BLOCK_PAGES or characters >= BLOCK_CHARACTERS:
                    break
        exact.write_pages(self.folder, _entries(self.entries))
        files.write_json_lines(self.folder / FAULT_LIST, self.faults)
        files.write_json(self.folder / LINE_SAMPLES, self.samples.chosen)
        return {"records": records, "pages": self.with_text, "parts": self._index()}

    def _row(self, file: str, item: Page | Fault, mode: ExtractMode) -> dict[str, Any]:
        row: dict[str, Any] = {
            "url": item.url,
            "timestamp": item.timestamp,
            "file": file,
            "record": item.record,
        }
        row |= dict.fromkeys(("title", "text", "excerpt", "reason"), "")
        row |= dict.fromkeys(("characters", "replaced", "lines"), 0)
        row |= {"dropped_lines": {}}
        state, raw = exact.APART, ""
        if isinstance(item, Fault):
            row |= {"excerpt": item.note[:SAMPLE_CHARACTERS], "reason": item.reason}
        else:
            page = extract(item, mode)
            raw = page.text
            row |= {"title": page.title, "characters": len(raw), "replaced": page.replaced}
            row |= {"excerpt": raw[:SAMPLE_CHARACTERS]}
            if not page.is_readable:
                row |= {"reason": UNREADABLE}
            elif not item.url:
                row |= {"reason": NO_ADDRESS}
            else:
                row |= self._cleaned(row, raw)
                state = exact.DROPPED if row["reason"] else exact.CLEAN
        seconds = _seconds(item.timestamp) if state != exact.APART else 0
        self.entries += exact.page_entry(item.url, seconds, raw, row["text"], state)
        self.with_text += row["characters"] > 0
        if row["reason"] in FAULTS:
            self.faults.append(
                {name: row[name] for name in ("file", "record", "reason", "excerpt")}
            )
        return row

    def _cleaned(self, row: Mapping[str, Any], raw: str) -> dict[str, Any]:
        cleaned = self.cleaner.clean(raw)
        key = sample_key(row) if cleaned.examples else ""
        for reason, line in cleaned.examples.items():
            if self.samples.wants(reason, key):
                self.samples.offer(reason, sample_of(row, line, self.source, key))
        facts = {"text": cleaned.text, "reason": cleaned.reason, "lines": cleaned.lines}
        return facts | {"dropped_lines": dict(cleaned.dropped)}

    def _index(self) -> int:
        """Write what repeated lines or spans are found by; returns how many parts there are."""
        rows = enumerate(rows_of(self.folder / PAGES, ("text", "reason")))
        pages = ((row, page["text"]) for row, page in rows if not page["reason"])
        if self.cleaner.repeats == "lines":
            return lines.write_index(self.folder, pages)
        if self.cleaner.repeats == "sentence_spans":
            return spans.write_index(self.folder, pages, sentences)
        return 0


def _entries(packed: bytearray) -> Iterator[bytes]:
    size = len(exact.page_entry("", 0, "", "", exact.APART))
    return (bytes(packed[start : start + size]) for start in range(0, len(packed), size))


def sample_key(row: Mapping[str, Any]) -> str:
    """What decides whether a page is among the samples: a hash of where it is from."""
    return exact.digest_of(f"{row['url']} {row['timestamp']} {row['file']} {row['record']}").hex()


def sample_of(row: Mapping[str, Any], text: str, source: str, key: str) -> dict[str, Any]:
    """A page, or a line of one, to be looked at."""
    facts = {name: row[name] for name in ("url", "title", "file", "record")}
    return facts | {"source": source, "text": text[:SAMPLE_CHARACTERS], "key": key}


def _seconds(timestamp: str) -> int:
    """Seconds since 1970 of a timestamp, 0 (older than any page) where there is none."""
    try:
        return int(datetime.datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0
