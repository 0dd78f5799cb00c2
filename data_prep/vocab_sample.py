"""A stated sample of a corpus's lines: what a unigram vocabulary is made of.

A line is used when its hash lies below the share that is wanted, so which lines are used does not depend on how the
corpus is cut into parts, and copies of a line are used together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from data_prep.part_columns import texts_of
from data_prep.vocab_words import Lines, usable_lines
from pipeline import files
from pipeline.flow.stage import Work

ALL = 1 << 64  # one more than the largest hash


@dataclass(frozen=True)
class SampleUnit:
    """The lines of one part whose hash is below `below`, to be written into `path`."""

    part: Path
    below: int
    path: Path


def sampled_lines(
    work: Work, parts: Sequence[Path], max_lines: int, scratch: Path
) -> tuple[Lines, list[Path]]:
    """About `max_lines` lines of `parts`, or all: how many there are, and files of those used."""
    lines = sum(work.map(count_lines, parts, unit="parts counted"), Lines())
    below = int(min(1.0, max_lines / max(1, lines.total)) * ALL)
    units = [
        SampleUnit(part, below, scratch / f"lines-{number:05d}.txt")
        for number, part in enumerate(parts)
    ]
    return lines, list(work.map(sample_part, units, unit="parts sampled"))


def count_lines(part: Path) -> Lines:
    """Lines of one part."""
    return sum((usable_lines(texts)[1] for texts in texts_of(part)), Lines())


def sample_part(unit: SampleUnit) -> Path:
    """Write the chosen lines of one part unless that is done."""
    if not unit.path.exists():
        chosen = [
            line.encode()
            for texts in texts_of(unit.part)
            for line in usable_lines(texts)[0]
            if xxhash.xxh64_intdigest(line.encode()) < unit.below
        ]
        files.write_bytes(unit.path, b"".join(line + b"\n" for line in chosen))
    return unit.path


def text_lines(paths: Sequence[Path]) -> Iterator[str]:
    """The sampled lines, in the order of the parts."""
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from (line.removesuffix("\n") for line in file)
