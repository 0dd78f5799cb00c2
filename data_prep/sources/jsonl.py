"""JSON lines, plain, `.gz` or `.zst`: one object a line, its text or page in a field."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from data_prep.sources import places
from data_prep.sources.lines import line_ranges, lines_of
from data_prep.sources.page import (
    Fault,
    FileRange,
    Name,
    Page,
    Patterns,
    Unreadable,
    Weight,
)
from data_prep.sources.rows import Row, RowFields, page_of
from pipeline.config import config

# Small values take up to 25 times the bytes they are written in once they are parsed.
MAX_LINE_BYTES = 12 << 20


@config
class JsonlSource(RowFields):
    """JSON lines, as C4 and most text corpora are published. `weight` is its share where sources
    are mixed.
    """

    type: Literal["jsonl"] = "jsonl"
    name: Name
    paths: Patterns
    weight: Weight = 1.0

    def files(self) -> list[str]:
        """Paths and addresses of the files."""
        return places.matches(self.name, self.paths)

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Byte ranges of plain files, compressed ones whole."""
        return [part for path in self.files() for part in line_ranges(path, target_bytes)]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Pages of the lines that begin in a range; blank lines are none."""
        for item in lines_of(part.path, part.first, part.end, MAX_LINE_BYTES):
            if isinstance(item, Fault):
                yield item
            elif item[1].strip():
                yield self._page(part.path, *item)

    def _page(self, path: str, place: int, line: bytes) -> Page | Fault:
        try:
            values = _parsed(line)
        except Unreadable as why:
            return why.at(place)
        return page_of(Row(values, place, f"{self.name}/{path}#{place}"), self)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        # Bytes that are no UTF-8 are carried through, to be counted when the text is decoded.
        value = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise Unreadable("bad_json", str(error).partition(": line 1")[0]) from None
    except RecursionError:
        raise Unreadable("bad_json", "values nested too deeply") from None
    if not isinstance(value, dict):
        raise Unreadable("bad_json", f"not an object but of type {type(value).__name__}")
    return value
