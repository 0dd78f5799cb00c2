"""WARC and WET archives: responses with status 200 that are HTML, and conversions.

A page is what the server meant to send: without transfer and content encoding, with the character
set it named.
"""

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from fastwarc.stream_io import BrotliReader, ChunkedReader

from data_prep.sources import places
from data_prep.sources.members import GZIP_MAGIC
from data_prep.sources.page import (
    MAX_PAGE_BYTES,
    Fault,
    FileRange,
    Name,
    Page,
    Patterns,
    Unreadable,
    Weight,
)
from data_prep.sources.records import HEAD_END, Record, records_of
from pipeline.config import config

PROBE_BYTES = 1024
MAX_ENCODINGS = 4
HTML_TYPES = ("text/html", "application/xhtml+xml")
STATUS = re.compile(r"HTTP/\d[\d.]*\s+(\d{3})\b")
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]+)", re.IGNORECASE)


@config
class WarcSource:
    """WARC or WET archives, plain, `.gz` or `.zst`. `weight` is its share where sources are mixed."""

    type: Literal["warc"] = "warc"
    name: Name
    paths: Patterns
    weight: Weight = 1.0

    def files(self) -> list[str]:
        """Paths and addresses of the archives."""
        return places.matches(self.name, self.paths)

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Byte ranges; a record belongs to the one it begins in."""
        return [part for path in self.files() for part in places.byte_ranges(path, target_bytes)]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """Pages and faults of the records that begin in a range."""
        return read_archive(part.path, part.first, part.end)


def read_archive(
    path: str | Path, first: int = 0, end: int | None = None
) -> Iterator[Page | Fault]:
    """Pages and faults of the records that begin in `first` <= byte < `end`."""
    with places.opened(str(path)) as file:
        for item in records_of(file, places.size_of(str(path)), first, end):
            if isinstance(item, Fault):
                yield item
            elif item.kind == "conversion":
                yield Page(
                    item.url, item.timestamp, item.offset, item.block, "utf-8", is_html=False
                )
            elif item.kind == "response":
                yield _response(item)


def _response(record: Record) -> Page | Fault:
    try:
        body, charset = _body_of(record)
    except Unreadable as why:
        return why.at(record.offset, record.url, record.timestamp)
    return Page(record.url, record.timestamp, record.offset, body, charset, is_html=True)


def _body_of(record: Record) -> tuple[bytes, str | None]:
    """Decoded body and declared character set of a response."""
    match = HEAD_END.search(record.block)
    lines = record.block[: match.start() if match else None].decode("latin-1").split("\n")
    status = STATUS.match(lines[0])
    if status is None or status[1] != "200":
        raise Unreadable("http_status", f"status {status[1] if status else None}")
    http = _fields(lines[1:])
    declared, _, parameters = http.get("content-type", "").partition(";")
    declared = declared.strip().lower()
    if declared and declared not in HTML_TYPES:
        raise Unreadable("not_html", declared)
    body = _decoded(record.block[match.end() :] if match else b"", http)
    if not declared and not _looks_like_html(body):
        raise Unreadable("not_html", "no Content-Type, and no html tag at its beginning")
    charset = CHARSET.search(parameters)
    return body, charset[1] if charset else None


def _fields(lines: list[str]) -> dict[str, str]:
    """Header fields by their names in small letters; of two with one name the last."""
    fields = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in fields}


def _looks_like_html(body: bytes) -> bool:
    beginning = body[:PROBE_BYTES].lower()
    return b"<html" in beginning or b"<!doctype html" in beginning


def _decoded(body: bytes, http: Mapping[str, str]) -> bytes:
    """Body without transfer and content encoding; at most MAX_PAGE_BYTES of it."""
    encodings = f"{http.get('content-encoding', '')},{http.get('transfer-encoding', '')}"
    names = [name.strip().lower() for name in encodings.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > MAX_ENCODINGS:
        raise Unreadable("undecodable", f"{len(names)} encodings, one around the other")
    for name in reversed(names):
        try:
            body = _without(name, body)
        except (OSError, ValueError, zlib.error) as error:
            raise Unreadable("undecodable", f"{name}: {error}") from None
        if len(body) > MAX_PAGE_BYTES:
            raise Unreadable("too_large", f"more than {MAX_PAGE_BYTES} bytes once decoded")
    return body


def _without(name: str, body: bytes) -> bytes:
    most = MAX_PAGE_BYTES + 1
    if name == "chunked":
        return bytes(ChunkedReader(io.BytesIO(body)).read(most))
    if name == "br":
        return bytes(BrotliReader(io.BytesIO(body)).read(most))
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable("undecodable", f"unknown encoding {name!r}")
    # Archives that store decoded bodies often leave the header as it was sent.
    if name != "deflate" and not body.startswith(GZIP_MAGIC):
        return body
    member = zlib.decompressobj(zlib.MAX_WBITS | 32)
    decoded = member.decompress(body, most)
    if not member.eof and len(decoded) < most:
        raise Unreadable("undecodable", f"{name}: the body ends too early")
    return decoded
