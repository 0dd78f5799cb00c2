"""The `corpus` stage: raw pages to clean, deduplicated documents, split into train and validation.

Three passes. Each file is read, extracted and cleaned by itself (in parallel); then addresses,
documents and lines that occur more than once are found over the whole corpus; then each file's
remaining text is written (in parallel) and put together into parts. What lies between the passes
are files in a scratch folder inside the output, so a killed stage goes on with the units that are
missing, and its output is the same byte for byte.
"""

import dataclasses
import datetime
import io
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pydantic

from data_prep.clean import Positive, Rules, clean, sentences_reach
from data_prep.dedup import exact
from data_prep.documents import DOCUMENT_SCHEMA, rows_into, rows_of, write_parts
from data_prep.extract import extract
from data_prep.parts import SPLITS
from data_prep.sources import Fault, InputSource, Page, all_files
from data_prep.tally import KEPT, SAMPLE_CHARACTERS, Samples, Tally, tally_of
from pipeline import files
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Work

SCRATCH, DISCARD = ".scratch", ".discard"
LINES_PER_PARTITION = 4_000_000
MAX_FAULTS_NAMED = 100
NAMED_FAULTS = ("damaged_stretch", "truncated_record", "too_large", "undecodable", "empty_file")
DUPLICATE_REASONS = {
    exact.DUPLICATE_URL: "duplicate_url",
    exact.DUPLICATE_DOCUMENT: "duplicate_document",
}
PAGE_SCHEMA = pa.schema(
    {
        "url": pa.string(),
        "title": pa.string(),
        "timestamp": pa.string(),
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


@config
class Corpus:
    """Clean documents of every source in `inputs`.

    `validation_fraction` is taken in thousandths, by MD5 of the address; `shard_documents` is how
    many documents a part holds.
    """

    makes: ClassVar[Artifact] = "corpus"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 1

    kind: Literal["corpus"] = "corpus"
    inputs: Annotated[tuple[InputSource, ...], pydantic.Field(min_length=1)]
    rules: Rules = dataclasses.field(default_factory=Rules)
    validation_fraction: Annotated[float, pydantic.Field(ge=0.001, le=0.5)] = 0.001
    shard_documents: Positive = 50_000

    @pydantic.field_validator("inputs")
    @classmethod
    def _names_differ(cls, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [source.name for source in inputs]
        for name, times in Counter(names).items():
            if times > 1:
                raise ValueError(f"source name {name!r} is given twice; each source needs its own")
        return inputs

    def sources(self) -> Sequence[Path]:
        """Every input file once."""
        return sorted({path for _, path in all_files(self.inputs)})

    def run(self, work: Work) -> Mapping[str, Any]:
        """Read, remove duplicates, write; returns the account that is in `counts.json`."""
        if (work.out / DISCARD).exists():
            shutil.rmtree(work.out / DISCARD)
            return files.read_json(work.out / "counts.json")
        scratch = work.out / SCRATCH
        units = [
            _Unit(scratch, number, self.inputs[source], path, self.rules, self.validation_fraction)
            for number, (source, path) in enumerate(all_files(self.inputs))
        ]
        sizes = list(work.map(read_unit, units, unit="files read"))
        self._refuse_empty(units, [pages for pages, _ in sizes])
        ranks = exact.page_ranks([np.load(unit.at("pages.npy")) for unit in units])
        for unit, rank in zip(units, ranks, strict=True):
            _save(unit.at("ranks.npy"), rank)
        partitions = 1 + sum(lines for _, lines in sizes) // LINES_PER_PARTITION
        parts = [_Partition(scratch, len(units), part, partitions) for part in range(partitions)]
        repeats = tuple(work.map(find_repeats, parts, unit="partitions compared"))
        finals = [_Final(unit, repeats) for unit in units]
        accounts = list(work.map(finish_unit, finals, unit="files written"))
        counts = self._put_together(units, accounts, files.fresh_folder(scratch / "final"))
        _hand_over(scratch, work.out)
        return counts

    def _refuse_empty(self, units: "Sequence[_Unit]", pages: Sequence[int]) -> None:
        for source in self.inputs:
            mine = [index for index, unit in enumerate(units) if unit.source.name == source.name]
            if sum(pages[index] for index in mine) == 0:
                raise DataError(
                    f"source {source.name!r}: no page with text in {len(mine)} file(s), "
                    f"{units[mine[0]].path} the first; check that they are of type {source.type!r}"
                )

    def _put_together(
        self, units: "Sequence[_Unit]", accounts: Sequence[Path], folder: Path
    ) -> dict[str, Any]:
        """Parts of each split, `counts.json` and `samples.json`; returns the counts."""
        whole, samples, faults = Tally(), Samples(), []
        by_source = {source.name: Tally() for source in self.inputs}
        for unit, path in zip(units, accounts, strict=True):
            account = files.read_json(path)
            for tally in (whole, by_source[unit.source.name]):
                tally.add(tally_of(account["counts"]))
            samples.add(Samples(account["samples"]))
            faults += account["faults"]
        if not whole.pages[KEPT]:
            raise DataError(
                "no page is left after cleaning and removal of duplicates; pages by reason: "
                + ", ".join(f"{reason} {number}" for reason, number in sorted(whole.pages.items()))
            )
        for split in SPLITS:
            tables = [unit.at(f"{split}.parquet") for unit in units]
            write_parts(folder / split, tables, self.shard_documents)
        counts = whole.as_json() | {
            "sources": {name: tally.as_json() for name, tally in by_source.items()},
            "faults": faults[:MAX_FAULTS_NAMED],
        }
        files.write_json(folder / "counts.json", counts)
        files.write_json(folder / "samples.json", samples.as_json())
        return counts


@dataclasses.dataclass(frozen=True)
class _Unit:
    """One input file, and where its results are kept between the passes."""

    scratch: Path
    number: int
    source: InputSource
    path: Path
    rules: Rules
    validation_fraction: float

    def at(self, name: str) -> Path:
        return _unit_folder(self.scratch, self.number) / name


@dataclasses.dataclass(frozen=True)
class _Partition:
    scratch: Path
    units: int
    number: int
    partitions: int


@dataclasses.dataclass(frozen=True)
class _Final:
    unit: _Unit
    repeats: tuple[Path, ...]


def _unit_folder(scratch: Path, number: int) -> Path:
    return scratch / "units" / f"{number:06d}"


def read_unit(unit: _Unit) -> tuple[int, int]:
    """First pass over one file: (pages with text, kept lines); writes its pages, page table and
    line index.
    """
    done = unit.at("read.json")
    if not done.exists():
        entries: list[bytes] = []
        pages = 0
        with rows_into(unit.at("pages.parquet"), PAGE_SCHEMA) as add:
            for item in unit.source.read(unit.path):
                row, entry = _read(item, unit.rules)
                entries.append(entry)
                pages += row["characters"] > 0
                add(row)
        _save(unit.at("pages.npy"), exact.page_table(entries))
        rows = enumerate(rows_of(unit.at("pages.parquet"), ("text", "reason")))
        lines = exact.line_index((row, page["text"]) for row, page in rows if not page["reason"])
        _save(unit.at("lines.npy"), lines)
        files.write_json(done, {"pages": pages, "lines": lines.shape[1]})
    sizes = files.read_json(done)
    return sizes["pages"], sizes["lines"]


def _read(item: Page | Fault, rules: Rules) -> tuple[dict[str, Any], bytes]:
    """The row of a page in its unit's table, and its entry for the page decision."""
    row: dict[str, Any] = {"url": item.url, "timestamp": item.timestamp, "record": item.record}
    row |= {
        "title": "",
        "text": "",
        "characters": 0,
        "replaced": 0,
        "lines": 0,
        "dropped_lines": {},
    }
    apart = exact.page_entry(item.url, 0, "", "", exact.APART)
    if isinstance(item, Fault):
        return row | {"excerpt": item.note, "reason": item.reason}, apart
    page = extract(item)
    row |= {"title": page.title, "characters": len(page.text), "replaced": page.replaced}
    row |= {"excerpt": page.text[:SAMPLE_CHARACTERS]}
    if not page.is_readable:
        return row | {"reason": "undecodable"}, apart
    if len(page.text) > rules.max_characters:
        return row | {"reason": "too_long"}, apart
    cleaned = clean(page.text, rules)
    state = exact.DROPPED if cleaned.reason else exact.CLEAN
    seconds = _seconds(item.timestamp)
    row |= {"text": cleaned.text, "reason": cleaned.reason, "lines": cleaned.lines}
    row |= {"dropped_lines": dict(cleaned.dropped)}
    return row, exact.page_entry(item.url, seconds, page.text, cleaned.text, state)


def find_repeats(part: _Partition) -> Path:
    """Second pass over one partition of all lines: those that go, as a file."""
    path = part.scratch / "repeats" / f"{part.number:06d}.npy"
    if not path.exists():
        folders = [_unit_folder(part.scratch, number) for number in range(part.units)]
        units = [(folder / "lines.npy", folder / "ranks.npy") for folder in folders]
        _save(path, exact.duplicate_lines(units, part.number, part.partitions))
    return path


def finish_unit(final: _Final) -> Path:
    """Last pass over one file: its remaining documents for each split; returns its account."""
    unit, done = final.unit, final.unit.at("account.json")
    if done.exists():
        return done
    tally, samples, faults = Tally(), Samples(), []
    ranks, gone = np.load(unit.at("ranks.npy")), _repeats_of(final)
    with (
        rows_into(unit.at("train.parquet"), DOCUMENT_SCHEMA) as train,
        rows_into(unit.at("validation.parquet"), DOCUMENT_SCHEMA) as validation,
    ):
        for number, row in enumerate(rows_of(unit.at("pages.parquet"))):
            row |= {"source": unit.source.name, "file": unit.path.as_posix()}
            row |= _settled(row, int(ranks[number]), gone.get(number, set()), unit.rules)
            held_out = exact.goes_to_validation(row["url"], unit.validation_fraction)
            tally.add(_tally_of_page(row, len(gone.get(number, set())), SPLITS[held_out]))
            samples.offer(row["reason"], _sample(row))
            if row["reason"] in NAMED_FAULTS:
                faults.append({key: row[key] for key in ("file", "record", "reason", "excerpt")})
            if row["reason"] == KEPT:
                add = validation if held_out else train
                add({name: row[name] for name in DOCUMENT_SCHEMA.names})
    named = faults[:MAX_FAULTS_NAMED]
    counts = tally.as_json()
    files.write_json(done, {"counts": counts, "samples": samples.chosen, "faults": named})
    return done


def _settled(row: Mapping[str, Any], rank: int, gone: set[int], rules: Rules) -> dict[str, str]:
    """Text and reason of a page now that duplicates are known; the sentences of the whole text
    count here.
    """
    if rank < exact.KEPT_FROM:
        return {"text": "", "reason": DUPLICATE_REASONS.get(rank, row["reason"])}
    lines = row["text"].split("\n")
    text = "\n".join(line for number, line in enumerate(lines) if number not in gone).strip()
    if text and sentences_reach([text], rules.min_sentences):
        return {"text": text, "reason": KEPT}
    return {"text": "", "reason": "emptied_by_line_dedup" if gone else "too_few_sentences"}


def _repeats_of(final: _Final) -> dict[int, set[int]]:
    """Row to the numbers of its lines that go."""
    gone: dict[int, set[int]] = {}
    for path in final.repeats:
        unit, place = np.load(path, mmap_mode="r")
        bounds = np.array([final.unit.number, final.unit.number + 1], dtype=np.uint64)
        first, end = np.searchsorted(unit, bounds).tolist()
        for key in place[first:end].tolist():
            gone.setdefault(key >> 32, set()).add(key & 0xFFFFFFFF)
    return gone


def _tally_of_page(row: Mapping[str, Any], repeated: int, split: str) -> Tally:
    """One page's share of the account; lines that no rule dropped, of a page that goes, are
    `page_dropped`.
    """
    reason, kept = row["reason"], row["reason"] == KEPT
    duplicate = reason in DUPLICATE_REASONS.values()
    lines = Counter({} if duplicate else dict(row["dropped_lines"]))
    lines["duplicate_line"] = repeated
    lines[KEPT if kept else "page_dropped"] += row["lines"] - lines.total()
    characters = {"in": row["characters"], "kept": len(row["text"]), "replaced": row["replaced"]}
    splits = Counter({split: 1} if kept else {})
    return Tally(Counter({reason: 1}), lines, Counter(characters), splits)


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    sample = {name: row[name] for name in ("url", "title", "source", "file", "record")}
    key = exact.digest_of(f"{row['url']} {row['timestamp']} {row['record']}").hex()
    return sample | {"text": (row["text"] or row["excerpt"])[:SAMPLE_CHARACTERS], "key": key}


def _hand_over(scratch: Path, out: Path) -> None:
    """Move the results out of the scratch folder, then remove it; repeatable after a kill at any
    point.
    """
    for path in sorted((scratch / "final").iterdir()):
        target = out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    files.sync_folder(out)
    scratch.rename(out / DISCARD)
    shutil.rmtree(out / DISCARD)


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())


def _seconds(timestamp: str) -> int:
    """Seconds since 1970 of a timestamp, 0 (older than any page) for "" ."""
    if not timestamp:
        return 0
    return int(datetime.datetime.fromisoformat(timestamp).timestamp())
