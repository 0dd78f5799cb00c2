"""Archives made of the real pages: a sample of them, or any amount of input by repetition.

Were repeated pages plain copies, removal of duplicates would leave one of each and later passes would have nothing to
do. So each copy has an address of its own and begins every block of text with a word of its own, which changes every
line and no verdict of a rule. Repeated pages are not compressed: the size of an archive is the size of its pages.
"""

import gzip
import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from real_pages import SITE, bodies

BLOCK = re.compile(rb"<(?:p|li|dd|dt|td|th|pre|blockquote|h[1-6]|caption)\b[^>]*>", re.IGNORECASE)
ARCHIVE_BYTES = 100_000_000
DATE = "2026-01-01T00:00:00Z"


def draw_of(url: str) -> str:
    """What decides which pages are taken: a hash of the address."""
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def sample_archive(archive: Path, target: Path, documents: int) -> Path:
    """An archive of `documents` pages of another (or all, if it has fewer), one gzip member each."""
    urls = {url for url, _, _ in bodies(archive)}
    chosen = set(sorted(urls, key=draw_of)[:documents])
    with target.open("wb") as file:
        for url, _, body in bodies(archive):
            if url in chosen:
                file.write(gzip.compress(record(url, body), mtime=0))
    return target


def write_input(folder: Path, archive: Path, total_bytes: int) -> int:
    """Write `pages-000.warc`, ... of `total_bytes` in all (the last page may end behind); returns the pages."""
    folder.mkdir(parents=True)
    records = records_of(archive)
    pages = written = 0
    for number in itertools.count():
        if written >= total_bytes:
            return pages
        with (folder / f"pages-{number:03d}.warc").open("wb") as file:
            end = min(total_bytes, (number + 1) * ARCHIVE_BYTES)
            while written < end:
                written += file.write(next(records))
                pages += 1
    raise AssertionError


def records_of(archive: Path) -> Iterator[bytes]:
    """WARC records of the pages, over and over, each time salted anew; every stretch has all kinds of pages."""
    pages = [(url, body) for url, _, body in bodies(archive)]
    pages.sort(key=lambda page: draw_of(page[0]))
    for copy in itertools.count():
        for url, body in pages:
            address = url.replace(SITE, f"{SITE}copy-{copy}/", 1)
            yield record(address, salted(body, copy) if copy else body)


def salted(body: bytes, copy: int) -> bytes:
    """A page whose every block begins with a word that only this copy has."""
    return BLOCK.sub(lambda start: start[0] + b"Version%d " % copy, body)


def record(url: str, body: bytes) -> bytes:
    """A response record, with the type that some readers want to be told."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: {DATE}\r\n"
        "WARC-Identified-Payload-Type: text/html\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http) + len(body)}\r\n\r\n"
    )
    return head.encode() + http + body + b"\r\n\r\n"
