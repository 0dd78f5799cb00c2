"""Units of reading: every input cut or grouped into pieces of about the same size.

What the units are depends on the inputs alone, so any number of workers does the same work.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from data_prep.sources import FileRange, InputSource, all_ranges


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time: ranges of files of one source, in order."""

    number: int
    source: InputSource
    ranges: tuple[FileRange, ...]

    @property
    def bytes(self) -> int:
        """Size of its input."""
        return sum(one.bytes for one in self.ranges)


def planned(sources: Sequence[InputSource], unit_bytes: int) -> list[Unit]:
    """The units of all sources, in the order of the sources and of their files.

    Errors: DataError that names every pattern of every source that finds nothing.
    """
    units: list[Unit] = []
    for index, found in itertools.groupby(all_ranges(sources, unit_bytes), lambda pair: pair[0]):
        for group in grouped((one for _, one in found), unit_bytes):
            units.append(Unit(len(units), sources[index], group))
    return units


def grouped(ranges: Iterable[FileRange], unit_bytes: int) -> Iterator[tuple[FileRange, ...]]:
    """Neighbours together up to `unit_bytes`; a range that is larger stands alone."""
    group: list[FileRange] = []
    size = 0
    for one in ranges:
        if group and size + one.bytes > unit_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(one)
        size += one.bytes
    if group:
        yield tuple(group)
