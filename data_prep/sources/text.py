"""Plain text: a document a file, a paragraph (between blank lines) or a line."""

from collections.abc import Iterator
from typing import Literal

import pydantic

from data_prep.sources import places
from data_prep.sources.lines import Line, line_ranges, lines_of
from data_prep.sources.members import content_of
from data_prep.sources.page import (
    MAX_PAGE_BYTES,
    Fault,
    FileRange,
    Name,
    Page,
    Patterns,
    Unreadable,
    Weight,
    checked_size,
)
from pipeline.config import config

LOOK_BACK_BYTES = 64 << 10
DETECT = "detect"


@config
class TextSource:
    """Plain text, `.gz` or `.zst` or neither. `documents` says what one document is; `charset` is
    that of all files, or `detect`; `weight` its share where sources are mixed.
    """

    type: Literal["text"] = "text"
    name: Name
    paths: Patterns
    weight: Weight = 1.0
    documents: Literal["file", "paragraph", "line"] = "file"
    charset: str = "utf-8"

    @pydantic.field_validator("charset")
    @classmethod
    def _known(cls, charset: str) -> str:
        try:
            "a".encode("utf-8" if charset == DETECT else charset)
        except (LookupError, UnicodeError):
            words = f"{charset!r} is no character set; give one like 'utf-8', or {DETECT!r}"
            raise ValueError(words) from None
        return charset

    def files(self) -> list[str]:
        """Paths and addresses of the files."""
        return places.matches(self.name, self.paths)

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Whole files, or byte ranges where a file holds several documents."""
        if self.documents == "file":
            return [FileRange(path, 0, None, places.size_of(path)) for path in self.files()]
        return [part for path in self.files() for part in line_ranges(path, target_bytes)]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Documents that begin in a range; addresses are `<source name>/<path>`, with the place of
        a document inside its file behind `#`.
        """
        if self.documents == "file":
            yield self._whole(part.path)
            return
        cut = _lines if self.documents == "line" else _paragraphs
        for item in cut(part):
            yield item if isinstance(item, Fault) else self._page(part.path, *item)

    def _whole(self, path: str) -> Page | Fault:
        try:
            with places.opened(path) as file:
                body = content_of(file, places.size_of(path), MAX_PAGE_BYTES)
            checked_size(len(body))
        except Unreadable as why:
            return why.at(0)
        return self._page(path, 0, body)

    def _page(self, path: str, record: int, body: bytes) -> Page:
        place = "" if self.documents == "file" else f"#{record}"
        charset = None if self.charset == DETECT else self.charset
        return Page(f"{self.name}/{path}{place}", "", record, body, charset, is_html=False)


def _lines(part: FileRange) -> Iterator[Line | Fault]:
    for item in lines_of(part.path, part.first, part.end, MAX_PAGE_BYTES):
        if isinstance(item, Fault) or item[1].strip():
            yield item


def _paragraphs(part: FileRange) -> Iterator[Line | Fault]:
    """Runs of lines that are not blank, by the place of the first; a run is read to its end."""
    before = max(0, part.first - LOOK_BACK_BYTES)
    # What the first line found continues is not known, so it begins no paragraph of this range.
    run = _Run(before) if before else None
    for item in lines_of(part.path, before, None, MAX_PAGE_BYTES):
        place, line = (item.record, b"?") if isinstance(item, Fault) else item
        if isinstance(item, Fault) and item.reason != "too_large":
            run = None
            yield item
        elif line.strip():
            if run is None and part.end is not None and place >= part.end:
                return
            run = run or _Run(place)
            run.add(item)
        elif run is not None:
            if run.start >= part.first:
                yield run.whole()
            run = None
    if run is not None and run.start >= part.first:
        yield run.whole()


class _Run:
    """A paragraph that grows; above the limit only its size is kept."""

    def __init__(self, start: int) -> None:
        self.start, self.size, self.text = start, 0, bytearray()

    def add(self, item: Line | Fault) -> None:
        if isinstance(item, Fault):
            self.size = MAX_PAGE_BYTES + 1
        else:
            self.size += len(item[1]) + 1
            self.text += item[1] + b"\n"
        if self.size > MAX_PAGE_BYTES:
            self.text.clear()

    def whole(self) -> Line | Fault:
        if self.size <= MAX_PAGE_BYTES:
            return self.start, bytes(self.text[:-1])
        note = f"a paragraph of more than {MAX_PAGE_BYTES} bytes"
        return Fault("too_large", self.start, note)
