"""HTML pages as files: trees of `.html`, `.htm` and `.xhtml`, and zip archives of them.

A page is known by its path. What it says itself about its address is taken on request only, since
many sites name their front page there on every page.
"""

import contextlib
import html
import re
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, Literal

from data_prep.sources import places
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
    utc,
)
from data_prep.sources.zips import content_of_member, is_zip, members_of, opened_zip, overlapping
from pipeline.config import config

SUFFIXES = (".html", ".htm", ".xhtml")
HEAD_BYTES = 64 << 10
MAX_URL_CHARACTERS = 4096
TAG = re.compile(rb"<(?:link|meta)\b[^>]{1,4096}>", re.IGNORECASE)
ATTRIBUTE = re.compile(rb"""([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
DATES = ("article:modified_time", "article:published_time", "dcterms.modified", "dcterms.date")


@config
class HtmlSource:
    """Files, folders (all pages below them) and zip archives of HTML pages.

    Addresses are `base_url` and the path (the member, in a zip), or with `url: canonical` what a
    page names as its own, if it does. Dates are those a page states as its own, if it does.
    `weight` is its share where sources are mixed.
    """

    type: Literal["html"] = "html"
    name: Name
    paths: Patterns
    weight: Weight = 1.0
    url: Literal["path", "canonical"] = "path"
    base_url: str | None = None

    def files(self) -> list[str]:
        """Paths and addresses of the pages and archives."""
        return places.matches(self.name, self.paths, (*SUFFIXES, ".zip"))

    def ranges(self, target_bytes: int) -> list[FileRange]:
        """Whole pages; ranges of members of an archive."""
        return [part for path in self.files() for part in _ranges_of(path, target_bytes)]

    def read(self, part: FileRange) -> Iterator[Page | Fault]:
        """The page in a file, or those of some members of an archive."""
        with places.opened(part.path) as file:
            if is_zip(file):
                yield from self._members(file, part)
                return
            try:
                body = content_of(file, places.size_of(part.path), MAX_PAGE_BYTES)
                checked_size(len(body))
            except Unreadable as why:
                yield why.at(0)
                return
        yield self._page(body, part.path, 0, "")

    def _members(self, file: BinaryIO, part: FileRange) -> Iterator[Page | Fault]:
        try:
            with opened_zip(file, places.size_of(part.path)) as archive:
                infos = members_of(archive, SUFFIXES)
                if not infos and part.first == 0:
                    yield Fault("empty_file", 0, f"no member that ends in {', '.join(SUFFIXES)}")
                shared = overlapping(infos)
                for info in infos[part.first : part.end]:
                    yield self._member(archive, info, part.path, shared)
        except Unreadable as why:
            if part.first == 0:
                yield why.at(0)

    def _member(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, shared: set[int]
    ) -> Page | Fault:
        place, member = info.header_offset, info.filename.encode("utf-8", "replace").decode()
        try:
            if place in shared:
                raise Unreadable("compression_bomb", "members of a zip that share their bytes")
            body = content_of_member(archive, info)
        except Unreadable as why:
            return why.at(place, member=member)
        return self._page(body, path, place, member)

    def _page(self, body: bytes, path: str, place: int, member: str) -> Page:
        base = f"{self.name}/" if self.base_url is None else self.base_url
        inside = f"{path}!{member}" if member and self.base_url is None else member or path
        url, date = _own_words(body)
        if self.url == "path" or not url:
            url = base + inside
        return Page(url, date, place, body, None, is_html=True, member=member)


def _ranges_of(path: str, target_bytes: int) -> list[FileRange]:
    size, members = places.size_of(path), 1
    if path.lower().endswith(".zip") and size > target_bytes:
        with places.opened(path) as file, contextlib.suppress(Unreadable):
            with opened_zip(file, size) as archive:
                members = max(1, len(members_of(archive, SUFFIXES)))
    return places.cut(path, members, size, target_bytes)


def _own_words(body: bytes) -> tuple[str, str]:
    """Address and date that a page states as its own, "" for what it does not."""
    url, dates = "", dict.fromkeys(DATES, "")
    for tag in TAG.findall(body[:HEAD_BYTES]):
        said = {
            name.lower().decode(): html.unescape(b"".join(values).decode("utf-8", "replace"))
            for name, *values in ATTRIBUTE.findall(tag)
        }
        what = said.get("property") or said.get("name") or ""
        if "canonical" in said.get("rel", "").lower().split():
            url = url or _absolute(said.get("href", ""))
        elif what.lower() in dates:
            dates[what.lower()] = dates[what.lower()] or utc(said.get("content", ""))
    return url, next((date for date in dates.values() if date), "")


def _absolute(url: str) -> str:
    """The address if it is a whole one of the web, else ""."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url.strip())
        if parts.scheme in ("http", "https") and parts.netloc and len(url) <= MAX_URL_CHARACTERS:
            return url.strip()
    return ""
