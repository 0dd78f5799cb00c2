"""The end of the corpus stage: blocks put together into parts, accounts into one, and handed over."""

import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.corpus.finishing import ACCOUNT
from data_prep.corpus.reading import FAULT_LIST
from data_prep.corpus.settling import Block
from data_prep.documents import SPLITS, write_part
from data_prep.tally import Samples, Tally, sum_of, tally_of
from pipeline import files

SCRATCH, DISCARD = ".scratch", ".discard"
RESULTS, COMPLETE = "results", "complete.json"  # in the scratch folder
MAX_FAULTS_NAMED = 100
COUNTS, SAMPLES, FAULTS = "counts.json", "samples.json", "faults.jsonl"


@dataclass(frozen=True)
class Part:
    """One part file to be made: documents [first, end) of tables, in order."""

    path: Path
    tables: tuple[tuple[Path, int, int], ...]


def make_part(part: Part) -> int:
    """Write a part unless it is there; returns 1."""
    if not part.path.exists():
        write_part(part.path, part.tables)
    return 1


def parts_of_split(
    folder: Path, split: str, tables: Sequence[tuple[Path, int]], documents_per_part: int
) -> list[Part]:
    """The parts of one split: `tables` hold so many documents each; there is at least one part."""
    bounds = [0, *itertools.accumulate(number for _, number in tables)]
    parts: list[Part] = []
    for first in range(0, max(bounds[-1], 1), documents_per_part):
        end = first + documents_per_part
        inside = tuple(
            (path, max(first - start, 0), min(end - start, number))
            for (path, number), start in zip(tables, bounds[:-1], strict=True)
            if start < end and first < start + number
        )
        parts.append(Part(folder / split / f"part-{len(parts):05d}.parquet", inside))
    return parts


def planned_parts(
    folder: Path, blocks: Sequence[Block], documents: Sequence[Mapping[str, int]], per_part: int
) -> list[Part]:
    """The parts of both splits; `documents` says how many each block has in each split."""
    return [
        part
        for split in SPLITS
        for part in parts_of_split(
            folder,
            split,
            [
                (block.folder / f"{split}.parquet", number[split])
                for block, number in zip(blocks, documents, strict=True)
            ],
            per_part,
        )
    ]


def whole_account(
    blocks: Sequence[Block], weights: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """(counts, samples, CPU seconds) of all blocks together."""
    pages, lines, seconds = Samples(), Samples(), 0.0
    sources: dict[str, dict[str, Tally]] = {name: {} for name in weights}
    languages: dict[str, Tally] = {}
    for block in blocks:
        account = files.read_json(block.folder / ACCOUNT)
        seconds += account["seconds"]
        for language, counts in account["languages"].items():
            for tallies in (sources[block.source], languages):
                tallies.setdefault(language, Tally()).add(tally_of(counts))
        pages.add(Samples(account["samples"]))
        lines.add(Samples(account["lines"]))
    counts = sum_of(languages).as_json() | {
        "sources": {
            name: {"weight": weights[name], **sum_of(tallies).as_json()}
            | {"languages": _by_language(tallies)}
            for name, tallies in sources.items()
        },
        "languages": _by_language(languages),
        "faults": list(itertools.islice(_faults(blocks), MAX_FAULTS_NAMED)),
    }
    shown = pages.as_json()
    samples = {"kept": shown.pop("", []), "dropped": shown, "lines": lines.as_json()}
    return counts, samples, seconds


def _by_language(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    return {name: tally.as_json() for name, tally in sorted(tallies.items())}


def _faults(blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        yield from files.read_json_lines(block.folder / FAULT_LIST)


def write_account(
    folder: Path, blocks: Sequence[Block], counts: Mapping[str, Any], samples: Mapping[str, Any]
) -> None:
    """`counts.json`, `samples.json`, and every fault in `faults.jsonl`."""
    files.write_json(folder / COUNTS, counts)
    files.write_json(folder / SAMPLES, samples)
    beside = folder / f".{FAULTS}"
    with beside.open("wb") as whole:
        for block in blocks:
            with (block.folder / FAULT_LIST).open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    beside.replace(folder / FAULTS)


def hand_over(out: Path) -> dict[str, Any] | None:
    """Move the results out of the scratch folder, if they are complete, then remove it; returns
    what was counted, or None if there is more to do. Repeatable after a kill at any point.
    """
    scratch, discard = out / SCRATCH, out / DISCARD
    if (scratch / COMPLETE).exists():
        for leftover in (scratch / RESULTS).rglob(".*"):  # of a worker that was killed
            leftover.unlink()
        for path in sorted((scratch / RESULTS).iterdir()):
            path.replace(out / path.name)
        files.sync_folder(out)
        scratch.rename(discard)
    if scratch.exists() or not (out / COUNTS).exists():
        return None
    if discard.exists():
        shutil.rmtree(discard)
    return dict(files.read_json(out / COUNTS))
