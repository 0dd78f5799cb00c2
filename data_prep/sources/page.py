"""What every source gives: pages, and faults for what could not be read as one.

Bad input never raises. What is damaged, too large or no page becomes a `Fault` with its reason and
place, so that everything a file holds is counted exactly once.
"""

import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import pydantic

MAX_PAGE_BYTES = 32 << 20
NOTE_CHARACTERS = 200
LAST_SECOND = 253_402_300_799  # of the year 9999
# Every reason a source counts under: what is damaged or refused, and what is merely no page.
FAULT_REASONS = (
    "bad_json",
    "compression_bomb",
    "damaged_file",
    "damaged_row_group",
    "damaged_stretch",
    "empty_file",
    "encrypted",
    "missing_field",
    "too_large",
    "truncated_record",
    "undecodable",
    "unsafe_name",
    "unsupported_format",
    "wrong_length",
    "wrong_type",
)
SKIP_REASONS = ("http_status", "not_html")
Name = Annotated[str, pydantic.Field(min_length=1)]
Patterns = Annotated[tuple[Name, ...], pydantic.Field(min_length=1)]
Weight = Annotated[float, pydantic.Field(gt=0)]


@dataclass(frozen=True)
class Page:
    """One raw page: `body` as it was sent, `charset` as it was declared (None: find out), `record`
    its byte offset or row number in the file, `member` the file inside an archive that holds it.
    """

    url: str
    timestamp: str
    record: int
    body: bytes
    charset: str | None
    is_html: bool
    member: str = ""


@dataclass(frozen=True)
class Fault:
    """Something that could not be read as a page: why, where, and what was seen."""

    reason: str
    record: int
    note: str
    url: str = ""
    timestamp: str = ""
    member: str = ""


@dataclass(frozen=True)
class FileRange:
    """A part of a file that can be read by itself: `first` <= place < `end` (None: to the end).

    Places are what the format counts: bytes, row groups, members of an archive, batches. `bytes`
    is about what the part takes on disk, 0 where nobody knows.
    """

    path: str
    first: int
    end: int | None
    bytes: int


class Source(Protocol):
    """What a source config can do."""

    @property
    def name(self) -> str:
        """The name its documents carry."""
        ...

    @property
    def weight(self) -> float:
        """Its share when sources are mixed, relative to the others."""
        ...

    def files(self) -> list[str]:
        """Paths and addresses of the files it reads; DataError names every pattern without one."""
        ...

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Its files, cut into parts of about `target_bytes`, in order."""
        ...

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Pages and faults of one part, in order."""
        ...


class Unreadable(Exception):
    """Something that is no readable page, and the reason it is counted under."""

    def __init__(self, reason: str, note: str) -> None:
        super().__init__(reason, note)
        assert reason in FAULT_REASONS + SKIP_REASONS, reason
        self.reason, self.note = reason, note

    def at(self, record: int, url: str = "", timestamp: str = "", member: str = "") -> Fault:
        """The fault this is, at its place."""
        return Fault(self.reason, record, self.note[:NOTE_CHARACTERS], url, timestamp, member)


def checked_size(size: int) -> int:
    """`size` in bytes; Unreadable when it is none that a page may have."""
    if size > MAX_PAGE_BYTES:
        raise Unreadable("too_large", f"{size} bytes; at most {MAX_PAGE_BYTES} are read")
    if size == 0:
        raise Unreadable("empty_file", "0 bytes")
    return size


def encoded(text: str) -> bytes:
    """UTF-8 of a text; what is no character stays visible as bytes that no decoder accepts.

    Bytes that `surrogateescape` carried through a decoder come back as they were.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def plain(text: str) -> str:
    """A text without lone surrogates, which no file and no table can hold."""
    return text.encode("utf-8", "replace").decode()


def utc(date: object) -> str:
    """A date as `YYYY-MM-DDTHH:MM:SSZ`, "" when it is none: ISO text, a datetime, or seconds since
    1970.
    """
    if isinstance(date, str):
        return _utc_of_text(date)
    if isinstance(date, datetime.datetime):
        return _stamp(date)
    if isinstance(date, datetime.date):
        return _utc_of_text(date.isoformat())
    if isinstance(date, int | float) and 0 < date <= LAST_SECOND:
        return _stamp(datetime.datetime.fromtimestamp(date, datetime.UTC))
    return ""


@functools.lru_cache(maxsize=1024)
def _utc_of_text(date: str) -> str:
    try:
        return _stamp(datetime.datetime.fromisoformat(date.strip()))
    except ValueError:
        return ""


def _stamp(moment: datetime.datetime) -> str:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return ""
