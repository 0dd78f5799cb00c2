"""The records of a web archive, plain or compressed, from any byte to any other.

No single length is trusted: a record counts only when what follows it is what should follow, and
behind anything else reading goes on at the next place where a record begins. A part of a file
begins with the first record at or behind its first byte. To know where that is, the records of the
stretch before it are followed, so that an archive inside the payload of a record is not taken for
records (unless it begins more than `LOOK_BACK_BYTES` before).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from data_prep.sources.members import Codec, Member, beginning_of, codec_of
from data_prep.sources.page import MAX_PAGE_BYTES, Fault, Unreadable, utc

LOOK_BACK_BYTES = 4 << 20
MAX_HEAD_BYTES = 64 << 10
SCAN_BYTES = 1 << 20
SCAN_OVERLAP_BYTES = 16
TAIL_BYTES = 64
PAGE_KINDS = ("response", "conversion")
MAGIC = b"WARC/"
RECORD_START = re.compile(rb"WARC/[01]\.\d+\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")
RECORD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Record:
    """A record: the byte it (or the compressed member that holds it) begins at, its head by names
    in small letters, and its block (empty unless it is of a kind that holds a page).
    """

    offset: int
    head: dict[str, str]
    block: bytes

    @property
    def kind(self) -> str:
        """`response`, `conversion`, `request`, ..."""
        return self.head.get("warc-type", "").lower()

    @property
    def url(self) -> str:
        """Target address; wget writes it in angle brackets."""
        return _url_of(self.head)

    @property
    def timestamp(self) -> str:
        """When it was fetched, as `YYYY-MM-DDTHH:MM:SSZ`."""
        return utc(self.head.get("warc-date", ""))


class Archive(Protocol):
    """A file of records as units that stand by themselves: records, or members of several."""

    head: dict[str, str]  # the last one seen

    def read(self, start: int) -> Iterator[Record | Fault]:
        """The records of the unit at `start`; Unreadable when it is damaged."""
        ...

    def behind(self, start: int) -> int:
        """Where the unit at `start` ends; Unreadable when it is damaged."""
        ...

    def next_start(self, position: int) -> int | None:
        """Where the next unit at or behind `position` seems to begin."""
        ...


def records_of(
    file: BinaryIO, size: int, first: int = 0, end: int | None = None
) -> Iterator[Record | Fault]:
    """Records and faults that begin in `first` <= byte < `end`, in order."""
    try:
        codec = codec_of(file)
    except Unreadable as why:
        if first == 0:
            yield why.at(0)
        return
    archive: Archive = _Plain(file, size) if codec is None else _Compressed(file, size, codec)
    found_any = first > 0
    start = _synchronised(archive, first)
    while start is not None and start < min(size, size if end is None else end):
        # The last record of a unit counts only once the unit has ended well.
        held: list[Record | Fault] = []
        try:
            for item in archive.read(start):
                yield from held
                held = [item]
                found_any = True
            start = archive.behind(start)
            yield from held
        except Unreadable as why:
            found_any = True
            following = _following(archive, start)
            yield _fault(why, archive.head, start, following)
            start = following
    if not found_any and start is not None and start >= size:
        yield Fault("empty_file", 0, "no record")


def _synchronised(archive: Archive, first: int) -> int | None:
    """The first unit at or behind `first` that is not inside another one."""
    before = max(0, first - LOOK_BACK_BYTES)
    start = archive.next_start(before) if before else 0
    while start is not None and start < first:
        start = _following(archive, start)
    return start


def _following(archive: Archive, start: int) -> int | None:
    """The unit behind the one at `start`, whether that one is whole or not."""
    try:
        return archive.behind(start)
    except Unreadable:
        return archive.next_start(start + 1)


def _fault(why: Unreadable, head: dict[str, str], start: int, following: int | None) -> Fault:
    reason, place = why.reason, f"from byte {start} to the end"
    if following is not None:
        place = f"from byte {start} up to byte {following}"
        reason = "damaged_stretch" if reason == "truncated_record" else reason
    url, date = _url_of(head), utc(head.get("warc-date", ""))
    return Unreadable(reason, f"{why.note}; {place}").at(start, url, date)


class _Plain:
    """Records one behind the other; a unit is a record."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.head: dict[str, str] = {}
        self.unit = (-1, 0, 0, 0)

    def read(self, start: int) -> Iterator[Record | Fault]:
        _, body, length, _ = self._measured(start)
        if not _holds_page(self.head):
            yield Record(start, self.head, b"")
        elif length > MAX_PAGE_BYTES:
            yield _too_large(start, self.head, length)
        else:
            self.file.seek(body)
            yield Record(start, self.head, self.file.read(length))

    def behind(self, start: int) -> int:
        return self._measured(start)[3]

    def _measured(self, start: int) -> tuple[int, int, int, int]:
        """(start, start of the block, its length, end) of a record, found once."""
        if self.unit[0] == start:
            return self.unit
        self.head = {}
        self.file.seek(start)
        raw = self.file.read(MAX_HEAD_BYTES)
        at_end = start + len(raw) == self.size
        if not RECORD_START.match(raw):
            cut = at_end and MAGIC.startswith(raw[: len(MAGIC)]) and len(raw) < TAIL_BYTES
            reason = "truncated_record" if cut else "damaged_stretch"
            raise Unreadable(reason, f"no record begins with {raw[:20]!r}")
        head_end = HEAD_END.search(raw)
        if head_end is None:
            reason = "truncated_record" if at_end else "damaged_stretch"
            raise Unreadable(reason, "its head does not end")
        self.head, length = _parsed_head(raw[: head_end.start()])
        body = start + head_end.end()
        if body + length > self.size:
            note = f"the file holds {self.size - body} of {length} bytes"
            raise Unreadable("truncated_record", note)
        self.file.seek(body + length)
        tail = self.file.read(TAIL_BYTES)
        _check_tail(tail)
        blank = len(tail) - len(tail.lstrip(b"\r\n"))
        self.unit = (start, body, length, body + length + blank)
        return self.unit

    def next_start(self, position: int) -> int | None:
        for match in _scanned(self.file, position, RECORD_START):
            return match
        return None


class _Compressed:
    """Compressed members, one behind the other; a unit is a member with one record or many."""

    def __init__(self, file: BinaryIO, size: int, codec: Codec) -> None:
        self.file, self.size, self.codec = file, size, codec
        self.head: dict[str, str] = {}
        self.unit = (-1, 0)

    def read(self, start: int) -> Iterator[Record | Fault]:
        self.head = {}
        member = self._member(start)
        feed = _Feed(member.blocks())
        while feed.skip_blank_lines():
            self.head, length = _parsed_head(feed.head())
            wanted = _holds_page(self.head)
            if wanted and length <= MAX_PAGE_BYTES:
                block = feed.take(length)
                item: Record | Fault = Record(start, self.head, block)
            else:
                feed.skip(length)
                item = Record(start, self.head, b"")
                item = _too_large(start, self.head, length) if wanted else item
            _check_tail(feed.peek(TAIL_BYTES))
            yield item
        assert member.end is not None
        self.unit = (start, member.end)

    def behind(self, start: int) -> int:
        if self.unit[0] != start:
            member = self._member(start)
            for _ in member.blocks():
                pass
            assert member.end is not None
            self.unit = (start, member.end)
        return self.unit[1]

    def _member(self, start: int) -> Member:
        self.file.seek(start)
        begun = self.file.read(4)
        if not self.codec.mark.match(begun):
            reason = "truncated_record" if len(begun) < 4 else "damaged_stretch"
            raise Unreadable(reason, f"no compressed member begins with {begun!r}")
        return Member(self.file, start, self.codec)

    def next_start(self, position: int) -> int | None:
        for match in _scanned(self.file, position, self.codec.mark):
            if beginning_of(self.file, match, self.codec, len(MAGIC)) == MAGIC:
                return match
        return None


class _Feed:
    """Blocks of bytes as one stream, of which no more is held than was asked for."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks, self.waiting = blocks, b""

    def _fill(self, size: int) -> int:
        """Hold at least `size` bytes, unless the stream ends; returns how many are held."""
        if len(self.waiting) < size:
            parts, held = [self.waiting], len(self.waiting)
            while held < size and (block := next(self.blocks, b"")):
                parts.append(block)
                held += len(block)
            self.waiting = b"".join(parts)
        return len(self.waiting)

    def peek(self, size: int) -> bytes:
        self._fill(size)
        return self.waiting[:size]

    def skip_blank_lines(self) -> bool:
        """Whether anything else follows."""
        while self._fill(1):
            self.waiting = self.waiting.lstrip(b"\r\n")
            if self.waiting:
                return True
        return False

    def head(self) -> bytes:
        """The head of the record that begins here, without the blank line behind it."""
        beginning = self.peek(MAX_HEAD_BYTES)
        match = HEAD_END.search(beginning)
        if match is None or not RECORD_START.match(beginning):
            raise Unreadable("damaged_stretch", f"no record begins with {beginning[:20]!r}")
        self.waiting = self.waiting[match.end() :]
        return beginning[: match.start()]

    def take(self, size: int) -> bytes:
        held = self._fill(size)
        if held < size:
            raise Unreadable("wrong_length", f"its member holds {held} of {size} bytes")
        taken, self.waiting = self.waiting[:size], self.waiting[size:]
        return taken

    def skip(self, size: int) -> None:
        left = size
        while left > 0:
            if not self._fill(1):
                raise Unreadable("wrong_length", f"its member holds {size - left} of {size} bytes")
            step = min(left, len(self.waiting))
            self.waiting = self.waiting[step:]
            left -= step


def _scanned(file: BinaryIO, position: int, mark: re.Pattern[bytes]) -> Iterator[int]:
    """Places at or behind `position` where `mark` matches."""
    while True:
        file.seek(position)
        data = file.read(SCAN_BYTES)
        last = len(data) < SCAN_BYTES
        limit = len(data) if last else len(data) - SCAN_OVERLAP_BYTES
        for match in mark.finditer(data):
            if match.start() < limit:
                yield position + match.start()
        if last:
            return
        position += limit


def _parsed_head(raw: bytes) -> tuple[dict[str, str], int]:
    """Fields of a head, and the length of the block."""
    lines = raw.decode("utf-8", "replace").split("\n")[1:]
    fields = (line.partition(":") for line in lines)
    head = {name.strip().lower(): value.strip() for name, _, value in fields}
    length = head.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise Unreadable("wrong_length", f"its Content-Length is {length[:40]!r}")
    return head, int(length)


def _check_tail(tail: bytes) -> None:
    """What follows a record is the end, two line ends, or at least another record."""
    rest = tail.lstrip(b"\r\n")
    if rest and not tail.startswith(RECORD_END) and not rest.startswith(MAGIC):
        raise Unreadable("wrong_length", f"it is followed by {tail[:20]!r}")


def _holds_page(head: dict[str, str]) -> bool:
    return head.get("warc-type", "").lower() in PAGE_KINDS


def _url_of(head: dict[str, str]) -> str:
    return head.get("warc-target-uri", "").strip("<>")


def _too_large(offset: int, head: dict[str, str], length: int) -> Fault:
    note = f"{length} bytes; at most {MAX_PAGE_BYTES} are read"
    return Fault("too_large", offset, note, _url_of(head), utc(head.get("warc-date", "")))
