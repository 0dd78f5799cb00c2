"""Sources: what raw pages are read from, and how nothing of it is lost silently.

A source yields `Page`s and `Fault`s. Bad input never raises: a truncated or damaged archive, an
absurd size or a status other than 200 becomes a `Fault` with its reason and byte offset, and
reading goes on behind it.
"""

import datetime
import functools
import glob
import io
import mmap
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import pydantic
from fastwarc.stream_io import BrotliReader, ChunkedReader
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipeline.config import DataError, config

GZIP_START = b"\x1f\x8b\x08"
MAX_RECORD_BYTES = 32 << 20
PROBE_BYTES = 1024
MAX_HEAD_BYTES = 32 << 10
CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)")
HTML_TYPES = ("text/html", "application/xhtml+xml")
PAGE_TYPES = WarcRecordType.response | WarcRecordType.conversion
Name = Annotated[str, pydantic.Field(min_length=1)]
Globs = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]


@config
class WarcSource:
    """WARC or WET archives (`.warc`, `.warc.gz`, `.wet.gz`): responses with status 200, and
    conversions.
    """

    type: Literal["warc"] = "warc"
    name: Name
    paths: Globs

    def read(self, path: Path) -> "Iterator[Page | Fault]":
        """Pages and faults of one archive."""
        return read_archive(path)


@config
class TextSource:
    """Plain text, UTF-8, one document a file."""

    type: Literal["text"] = "text"
    name: Name
    paths: Globs

    def read(self, path: Path) -> "Iterator[Page | Fault]":
        """The one document of a file; its address is `<source name>/<path>`."""
        size = path.stat().st_size
        if size > MAX_RECORD_BYTES:
            yield Fault("too_large", 0, f"{size} bytes; at most {MAX_RECORD_BYTES} are read")
        elif size == 0:
            yield Fault("empty_file", 0, "0 bytes")
        else:
            yield Page(
                f"{self.name}/{path.as_posix()}", "", 0, path.read_bytes(), "utf-8", is_html=False
            )


InputSource = Annotated[WarcSource | TextSource, pydantic.Field(discriminator="type")]


@dataclass(frozen=True)
class Page:
    """One raw page: `body` as it was sent, `charset` as it was declared, `record` its byte
    offset in the file.
    """

    url: str
    timestamp: str
    record: int
    body: bytes
    charset: str | None
    is_html: bool


@dataclass(frozen=True)
class Fault:
    """Something that could not be read as a page: why, where (byte offset), and what was seen."""

    reason: str
    record: int
    note: str
    url: str = ""
    timestamp: str = ""


class _Unreadable(Exception):
    """A record that is no readable page, and the reason it is counted under."""

    def __init__(self, reason: str, note: str) -> None:
        super().__init__(note)
        self.reason, self.note = reason, note


def files_of(source: WarcSource | TextSource) -> list[Path]:
    """Files of a source in order of their names; DataError names every glob that matches none."""
    found: set[Path] = set()
    problems: list[str] = []
    for pattern in source.paths:
        matched = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - may be absolute
        if not any(path.is_file() for path in matched):
            words = f"no file matches {pattern!r} (looked from {Path.cwd()})"
            advice = "correct the path or make the file"
            if matched:
                words = f"{pattern!r} is a folder"
                advice = f"name its files, for example {(matched[0] / '*').as_posix()!r}"
            problems.append(f"source {source.name!r}: {words}; {advice}")
        found.update(path for path in matched if path.is_file())
    if problems:
        raise DataError("\n".join(problems))
    return sorted(found)


def read_archive(path: Path) -> Iterator[Page | Fault]:
    """Pages and faults of a WARC or WET archive, in the order of the file."""
    any_record = False
    with path.open("rb") as file:
        for item in _records(file, path.stat().st_size):
            any_record = True
            if isinstance(item, Fault):
                yield item
            elif item.kind & PAGE_TYPES:
                yield _page_of(item)
    if not any_record:
        yield Fault("empty_file", 0, "no record")


@dataclass(frozen=True)
class _Record:
    offset: int
    kind: WarcRecordType
    headers: Mapping[str, str]
    status: int | None
    http: Mapping[str, str]
    charset: str | None
    block: bytes

    @property
    def url(self) -> str:
        """Target address; wget writes it in angle brackets."""
        return self.headers.get("warc-target-uri", "").strip().removeprefix("<").removesuffix(">")

    @property
    def timestamp(self) -> str:
        return _utc(self.headers.get("warc-date", ""))


def _records(file: BinaryIO, size: int) -> Iterator[_Record | Fault]:
    """Records of every type. Behind damage, reading goes on at the next start of a record."""
    start: int | None = 0
    whole, damaged, cut = 0, None, False
    while start is not None and start < size:
        file.seek(start)
        reached, reading = start, False
        try:
            for record in ArchiveIterator(file, strict_mode=False):
                reached, reading = record.stream_pos, True
                item = _taken(record)
                if damaged is not None:
                    yield _damage(damaged, reached)
                    damaged = None
                whole, reading = reached, False
                cut = isinstance(item, Fault) and item.reason == "truncated_record"
                yield item
            start = None
        except OSError as error:
            if error.errno is not None:
                raise
            if damaged is None:
                damaged = reached if reading else whole
            start = _next_start(file, reached + 1)
    if damaged is not None:
        yield _damage(damaged, size)
    elif size and not cut and (note := _unfinished(file, whole)):
        yield Fault("truncated_record", whole, note)


def _damage(first: int, end: int) -> Fault:
    return Fault("damaged_stretch", first, f"nothing readable behind byte {first} up to byte {end}")


def _taken(record: Any) -> _Record | Fault:
    """The record with its block read; a Fault when it is too large or ends too early."""
    offset, length = record.stream_pos, record.content_length
    headers = {key.lower(): value for key, value in record.headers.items()}
    if record.record_type & PAGE_TYPES and length > MAX_RECORD_BYTES:
        url = headers.get("warc-target-uri", "").strip("<>")
        return Fault(
            "too_large", offset, f"{length} bytes; at most {MAX_RECORD_BYTES} are read", url
        )
    if not headers.get("content-length", "").strip().isdigit():
        return Fault("truncated_record", offset, "its head names no Content-Length")
    wanted = bool(record.record_type & PAGE_TYPES)
    block = record.reader.read() if wanted else b""
    got = len(block) if wanted else record.reader.consume()
    if got < length:
        note = f"the file holds {got} of {length} bytes"
        return Fault(
            "truncated_record", offset, note, headers.get("warc-target-uri", "").strip("<>")
        )
    http = record.http_headers if record.is_http_parsed else None
    return _Record(
        offset=offset,
        kind=record.record_type,
        headers=headers,
        status=http.status_code if http is not None else None,
        http={k.lower(): v for k, v in http.items()} if http is not None else {},
        charset=record.http_charset if http is not None else None,
        block=block,
    )


def _next_start(file: BinaryIO, position: int) -> int | None:
    """Offset at or behind `position` where a record begins: a gzip member or a plain `WARC/`
    line.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        mark = GZIP_START if data[: len(GZIP_START)] == GZIP_START else b"WARC/1."
        while (position := data.find(mark, position)) >= 0:
            if mark != GZIP_START or _member_begins_record(data[position : position + PROBE_BYTES]):
                return position
            position += 1
    return None


def _member_begins_record(probe: bytes) -> bool:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(probe, 5) == b"WARC/"
    except zlib.error:
        return False


def _unfinished(file: BinaryIO, last: int) -> str:
    """What is wrong with the end of a file whose last record begins at `last`, "" if nothing.

    The readers take a cut inside a member's head or checksum, or inside the first line of a plain
    record, for the end of the file.
    """
    file.seek(0)
    if file.read(len(GZIP_START)) != GZIP_START:
        return _unfinished_plain(file, last)
    file.seek(last)
    return _unfinished_gzip(file, last if file.read(len(GZIP_START)) == GZIP_START else 0)


def _unfinished_plain(file: BinaryIO, last: int) -> str:
    file.seek(last)
    head = file.read(MAX_HEAD_BYTES).partition(b"\r\n\r\n")[0]
    length = CONTENT_LENGTH.search(head)
    if length is None:
        return ""
    file.seek(last + len(head) + 4 + int(length[1]))
    rest = file.read(PROBE_BYTES).strip(b"\r\n")
    return f"the file ends inside the head of a record: {rest!r}" if rest else ""


def _unfinished_gzip(file: BinaryIO, first: int) -> str:
    """Reads the members from `first` (where records share one, the first byte) to their end."""
    file.seek(first)
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    rest, fresh = b"", True
    while data := rest or file.read(1 << 16):
        fresh = False
        try:
            member.decompress(data)
        except zlib.error as error:
            return f"the last gzip member is damaged ({error})"
        rest = b""
        if member.eof:
            rest, fresh = member.unused_data, True
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    return "" if fresh else "the file ends inside a gzip member"


def _page_of(record: _Record) -> Page | Fault:
    try:
        is_html = not record.kind & WarcRecordType.conversion
        body = _response_body(record) if is_html else record.block
        charset = record.charset if is_html else "utf-8"
    except _Unreadable as why:
        return Fault(why.reason, record.offset, why.note, record.url, record.timestamp)
    return Page(record.url, record.timestamp, record.offset, body, charset, is_html)


def _response_body(record: _Record) -> bytes:
    if record.status != 200:
        raise _Unreadable("http_status", f"status {record.status}")
    declared = record.http.get("content-type", "").partition(";")[0].strip().lower()
    if declared and declared not in HTML_TYPES:
        raise _Unreadable("not_html", declared)
    body = _decoded(record.block, record.http)
    if not declared and not _looks_like_html(body):
        raise _Unreadable("not_html", "no Content-Type, and no html tag at its beginning")
    return body


def _looks_like_html(body: bytes) -> bool:
    beginning = body[:PROBE_BYTES].lower()
    return b"<html" in beginning or b"<!doctype html" in beginning


def _decoded(body: bytes, http: Mapping[str, str]) -> bytes:
    """Body without transfer and content encoding; at most MAX_RECORD_BYTES of it."""
    encodings = [http.get("content-encoding", ""), http.get("transfer-encoding", "")]
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    for name in reversed([name for name in names if name not in ("", "identity")]):
        try:
            body = _without(name, body)
        except (OSError, zlib.error) as error:
            raise _Unreadable("undecodable", f"{name}: {error}") from None
        if len(body) > MAX_RECORD_BYTES:
            raise _Unreadable("too_large", f"more than {MAX_RECORD_BYTES} bytes once decoded")
    return body


def _without(name: str, body: bytes) -> bytes:
    most = MAX_RECORD_BYTES + 1
    if name == "chunked":
        return bytes(ChunkedReader(io.BytesIO(body)).read(most))
    if name == "br":
        return bytes(BrotliReader(io.BytesIO(body)).read(most))
    if name not in ("gzip", "x-gzip", "deflate"):
        raise _Unreadable("undecodable", f"unknown encoding {name!r}")
    # Archives that store decoded bodies often leave the header as it was sent.
    if name != "deflate" and not body.startswith(GZIP_START):
        return body
    member = zlib.decompressobj(zlib.MAX_WBITS | 32)
    decoded = member.decompress(body, most)
    if not member.eof and len(decoded) < most:
        raise _Unreadable("undecodable", f"{name}: the body ends too early")
    return decoded


@functools.lru_cache(maxsize=1024)
def _utc(date: str) -> str:
    """A WARC-Date as `YYYY-MM-DDTHH:MM:SSZ`, "" when it is none."""
    try:
        moment = datetime.datetime.fromisoformat(date)
    except ValueError:
        return ""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def all_files(sources: Sequence[WarcSource | TextSource]) -> list[tuple[int, Path]]:
    """(index of the source, file) for every file of every source, in a fixed order."""
    return [(index, path) for index, source in enumerate(sources) for path in files_of(source)]
