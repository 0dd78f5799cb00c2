"""The last pass: a block's remaining documents by split, and the account of all that it held."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.clean import cleaner_of
from data_prep.corpus.reading import LINE_SAMPLES, sample_key, sample_of
from data_prep.corpus.settling import (
    REPEAT_REASONS,
    SETTLED_SCHEMA,
    Settling,
    settled_rows,
)
from data_prep.dedup import exact
from data_prep.dedup.contamination import Exposure
from data_prep.dedup.near import Near, losers_in, write_signatures
from data_prep.documents import DOCUMENT_SCHEMA, SPLITS, rows_into, rows_of
from data_prep.tally import KEPT, UNKNOWN, Samples, Tally
from pipeline import files

NEAR_DUPLICATE, PAGE_DROPPED, MERGED_LINE = "near_duplicate", "page_dropped", "merged_line"
SETTLED, SETTLED_NOTE, ACCOUNT, EXPOSURE = (
    "settled.parquet",
    "settled.json",
    "account.json",
    "exposure.json",
)


@dataclass(frozen=True)
class Finishing:
    """A block to be finished; `losers` are the files that name near duplicates, where `near` says
    what those are.
    """

    settling: Settling
    near: Near | None
    losers: tuple[Path, ...]
    validation_fraction: float

    @property
    def folder(self) -> Path:
        """The folder of the block."""
        return self.settling.block.folder


def settle_block(task: tuple[Settling, Near]) -> dict[str, float]:
    """Settle a block and sign what stays, for the search for near duplicates; its CPU seconds."""
    settling, how = task
    folder = settling.block.folder
    note = folder / SETTLED_NOTE
    if not note.exists():
        began = time.process_time()
        with rows_into(folder / SETTLED, SETTLED_SCHEMA) as add:
            exposure = Exposure()
            for row in settled_rows(settling, exposure):
                add(row)
        rows = rows_of(folder / SETTLED, ("row", "url", "text", "reason"))
        stay = ((row["row"], row["url"], row["text"]) for row in rows if row["reason"] == KEPT)
        write_signatures(folder, stay, how)
        files.write_json(folder / EXPOSURE, vars(exposure))
        files.write_json(note, {"seconds": time.process_time() - began})
    return dict(files.read_json(note))


def settled_documents(folder: Path, rows: Sequence[int]) -> list[tuple[str, str]]:
    """(address, text) of these rows of a settled block, in their order."""
    wanted = set(rows)
    columns = rows_of(folder / SETTLED, ("row", "url", "text"))
    found = {row["row"]: (row["url"], row["text"]) for row in columns if row["row"] in wanted}
    return [found[row] for row in rows]


def finish_block(task: Finishing) -> dict[str, Any]:
    """Write the block's documents and its account; returns how many are in each split."""
    account = task.folder / ACCOUNT
    if not account.exists():
        began = time.process_time()
        book = _Book(task)
        with (
            rows_into(task.folder / "train.parquet", DOCUMENT_SCHEMA) as train,
            rows_into(task.folder / "validation.parquet", DOCUMENT_SCHEMA) as validation,
        ):
            for row in _final_rows(task):
                held_out = exact.goes_to_validation(row["url"], task.validation_fraction)
                book.enter(row, SPLITS[held_out])
                if row["reason"] == KEPT:
                    row["source"] = task.settling.block.source
                    add = validation if held_out else train
                    add({name: row[name] for name in DOCUMENT_SCHEMA.names})
        facts = book.as_json() | {"seconds": time.process_time() - began}
        files.write_json(account, facts)
    return dict(files.read_json(account)["documents"])


def _final_rows(task: Finishing) -> Iterator[dict[str, Any]]:
    if task.near is None:
        exposure = Exposure()
        yield from settled_rows(task.settling, exposure)
        files.write_json(task.folder / EXPOSURE, vars(exposure))
        return
    lost = losers_in(task.losers, task.settling.block.number, task.near)
    for row in rows_of(task.folder / SETTLED):
        if row["reason"] == KEPT and row["row"] in lost:
            row |= {"excerpt": row["text"], "text": "", "reason": NEAR_DUPLICATE, "masked": {}}
        yield row


class _Book:
    """The account of one block, by language."""

    def __init__(self, task: Finishing) -> None:
        self.source = task.settling.block.source
        self.repeat = REPEAT_REASONS[cleaner_of(task.settling.cleaning).repeats]
        self.tallies: dict[str, Tally] = {}
        self.pages = Samples()
        self.lines = Samples()
        self.lines.add(Samples(files.read_json(task.folder / LINE_SAMPLES)))

    def enter(self, row: Mapping[str, Any], split: str) -> None:
        """Count one page under one reason, each of its lines too, and offer it as a sample."""
        reason = row["reason"]
        tally = self.tallies.setdefault(row["language"] or UNKNOWN, Tally())
        tally.pages[reason] += 1
        tally.lines.update(self._lines(row))
        kept = len(row["text"])
        amounts = {"in": row["characters"], "kept": kept, "replaced": row["replaced"]}
        tally.characters.update(amounts)
        tally.masked.update(dict(row["masked"]))
        if reason == KEPT:
            tally.documents[split] += 1
        key = sample_key(row)
        if self.pages.wants(reason, key):
            self.pages.offer(
                reason, sample_of(row, row["text"] or row["excerpt"], self.source, key)
            )
        if row["repeated"] and self.lines.wants(self.repeat, key):
            self.lines.offer(self.repeat, sample_of(row, row["repeated"], self.source, key))

    def _lines(self, row: Mapping[str, Any]) -> Counter[str]:
        """Lines by reason; those that no rule dropped, of a page that goes, are `page_dropped`."""
        if row["reason"] in exact.REASONS.values():
            return Counter({PAGE_DROPPED: row["lines"]})
        lines = Counter(dict(row["dropped_lines"]))
        if row["reason"] != KEPT:
            lines.update({self.repeat: row["gone_lines"]} if row["gone_lines"] else {})
            lines[PAGE_DROPPED] += row["lines"] - lines.total()
            return lines
        lines[KEPT] = sum(1 for line in row["text"].split("\n") if line.strip())
        if repeated := row["lines"] - lines.total():
            lines[self.repeat or MERGED_LINE] += repeated
        return lines

    def as_json(self) -> dict[str, Any]:
        """The account as it lies beside the block."""
        documents: Counter[str] = Counter()
        for tally in self.tallies.values():
            documents.update(tally.documents)
        return {
            "documents": {split: documents[split] for split in SPLITS},
            "languages": {name: tally.as_json() for name, tally in sorted(self.tallies.items())},
            "samples": self.pages.chosen,
            "lines": self.lines.chosen,
        }
