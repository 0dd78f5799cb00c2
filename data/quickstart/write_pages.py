"""Writes `pages.warc.gz` and `LICENCES.md`: real manual pages, as a small crawl.

The pages are the HTML manuals of PostgreSQL, Python, SQLite and Rust as Debian 12 packages them.
The archive is the same byte for byte for the same package versions: dates are those of the files,
record ids follow from the addresses. What is mostly prose comes first, until the size limit; one
page in twenty is taken whatever it holds, so that cleaning has real work.

Needs `apt-get`, `dpkg`, `warcio` and this package; run as `python data/quickstart/write_pages.py`.
"""

import datetime
import hashlib
import io
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_prep.clean import Cleaning, cleaner_of
from data_prep.dedup.exact import digest_of
from data_prep.extract import extract
from data_prep.sources import Page

HERE = Path(__file__).resolve().parent

MAX_BYTES = 3_990_000
MAX_BYTES_A_PAGE = 20_000
BYTES_OF_HEADERS = 450
ONE_IN = 20
ONE_IN_TWICE = 60
SECONDS_PER_DAY = 86_400
HEADING = """\
# Sources and licences of `pages.warc.gz`

The archive holds unchanged HTML pages of the manuals below. `write_pages.py` made it from Debian
12 packages; the licence texts are those of each package's `copyright` file.

SHA-256 of the archive: `{digest}`
"""
NOT_PAGES = ("genindex", "bookindex", "search.html", "print.html", "toc.html")


@dataclass(frozen=True)
class Manual:
    """One packaged manual: which files, under which public address, and where its licence text
    stands.
    """

    package: str
    version: str
    title: str
    folder: str
    patterns: tuple[str, ...]
    address: str
    copyright: str
    licence: str
    begin: str
    end: str


MANUALS = (
    Manual(
        package="postgresql-doc-15",
        version="15.20-0+deb12u1",
        title="PostgreSQL 15 documentation",
        folder="usr/share/doc/postgresql-doc-15/html",
        patterns=("*.html",),
        address="https://www.postgresql.org/docs/15/",
        copyright=(
            "Portions Copyright (c) 1996-2019, PostgreSQL Global Development Group\n"
            "Portions Copyright (c) 1994, The Regents of the University of California"
        ),
        licence="PostgreSQL licence",
        begin="License: PostgreSQL\n Permission",
        end="\nLicense: ",
    ),
    Manual(
        package="python3.11-doc",
        version="3.11.2-6+deb12u9",
        title="Python 3.11 documentation (tutorial, how-tos, questions, library, usage)",
        folder="usr/share/doc/python3.11/html",
        patterns=(
            "[a-z]*.html",
            "_sources/tutorial/in*.txt",
            *(
                f"{part}/*.html"
                for part in (
                    "tutorial",
                    "howto",
                    "faq",
                    "library",
                    "using",
                    "extending",
                    "reference",
                )
            ),
        ),
        address="https://docs.python.org/3.11/",
        copyright="Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved",
        licence="Python Software Foundation License Version 2",
        begin="\nB. TERMS AND CONDITIONS FOR ACCESSING",
        end="\nLicenses and Acknowledgements",
    ),
    Manual(
        package="sqlite3-doc",
        version="3.40.1-2+deb12u2",
        title="SQLite documentation",
        folder="usr/share/doc/sqlite3",
        patterns=("*.html",),
        address="https://www.sqlite.org/",
        copyright="D. Richard Hipp <drh@hwaci.com>",
        licence="public domain",
        begin="License: public-domain\n The files",
        end="\nLicense: ",
    ),
    Manual(
        package="rust-doc",
        version="1.63.0+dfsg1-2",
        title="The Rust Programming Language (book)",
        folder="usr/share/doc/rust-doc/html/book",
        patterns=("*.html", "second-edition/*.html"),
        address="https://doc.rust-lang.org/1.63.0/book/",
        copyright=(
            "2006-2009 Graydon Hoare\n2009-2012 Mozilla Foundation\n"
            "2012-2017 The Rust Project Developers (see AUTHORS.txt)"
        ),
        licence="MIT (the package offers MIT or Apache-2.0)",
        begin="License: MIT\n Permission",
        end="\nLicense: ",
    ),
)


@dataclass(frozen=True)
class Candidate:
    """One file that may go into the archive."""

    url: str
    path: Path
    weight: int
    prose: float


def main() -> None:
    """Fetch, choose, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        roots = {manual.package: fetched(manual, folder) for manual in MANUALS}
        candidates = [
            candidate
            for manual in MANUALS
            for candidate in candidates_of(manual, roots[manual.package])
        ]
        archive = archive_of(chosen(candidates))
        licences = licences_of(roots, hashlib.sha256(archive).hexdigest())
    (HERE / "pages.warc.gz").write_bytes(archive)
    (HERE / "LICENCES.md").write_text(licences, encoding="utf-8")
    print(f"pages.warc.gz: {len(archive)} bytes, sha256 {hashlib.sha256(archive).hexdigest()}")


def fetched(manual: Manual, folder: Path) -> Path:
    """The unpacked package."""
    target = folder / manual.package
    target.mkdir()
    wanted = f"{manual.package}={manual.version}"
    subprocess.run(["apt-get", "download", "-q", wanted], cwd=target, check=True)
    (package,) = target.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(target / "root")], check=True)
    return target / "root"


def candidates_of(manual: Manual, root: Path) -> Iterator[Candidate]:
    """Pages of a manual with their compressed size and how much cleaned text each byte of it
    gives.
    """
    base = root / manual.folder
    for path in sorted({path for pattern in manual.patterns for path in base.glob(pattern)}):
        if path.name.startswith(NOT_PAGES) or path.is_symlink():
            continue
        body = path.read_bytes()
        weight = len(zlib.compress(body, 9)) + BYTES_OF_HEADERS
        url = manual.address + path.relative_to(base).as_posix()
        text = extract(Page(url, "", 0, body, None, is_html=True)).text
        yield Candidate(url, path, weight, len(cleaner_of(Cleaning()).clean(text).text) / weight)


def chosen(candidates: list[Candidate]) -> list[Candidate]:
    """A sample of everything, then the pages with most prose for their size; ordered by address."""
    sampled = {
        c.url for c in candidates if digest_of(c.url)[0] % ONE_IN == 0 or c.path.suffix != ".html"
    }
    eligible = [c for c in candidates if c.url in sampled or c.weight <= MAX_BYTES_A_PAGE]
    wanted = sorted(eligible, key=lambda c: (c.url not in sampled, -c.prose, c.url))
    taken, room = [], MAX_BYTES
    for candidate in wanted:
        if candidate.weight <= room:
            taken.append(candidate)
            room -= candidate.weight
    return sorted(taken, key=lambda c: c.url)


def archive_of(pages: list[Candidate]) -> bytes:
    """A WARC of responses, one gzip member each.

    As in any crawl, a few pages were also met a day earlier under `http:`, and some files are no
    pages (the sources of Python's tutorial, plain text).
    """
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    for number, page in enumerate(pages):
        moment = int(page.path.stat().st_mtime)
        if number % ONE_IN_TWICE == 0:
            insecure = page.url.replace("https:", "http:")
            add_response(writer, insecure, page.path, moment - SECONDS_PER_DAY, "text/html")
        content_type = "text/html" if page.path.suffix == ".html" else "text/plain"
        add_response(writer, page.url, page.path, moment, content_type)
    return buffer.getvalue()


def add_response(writer: WARCWriter, url: str, path: Path, moment: int, content_type: str) -> None:
    """Write one response record with a date and an id that depend on nothing else."""
    date = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    http = StatusAndHeaders("200 OK", [("Content-Type", content_type)], protocol="HTTP/1.1")
    headers = {
        "WARC-Date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
    }
    payload = io.BytesIO(path.read_bytes())
    record = writer.create_warc_record(
        url, "response", payload, http_headers=http, warc_headers_dict=headers
    )
    writer.write_record(record)


def licences_of(roots: Mapping[str, Path], digest: str) -> str:
    """`LICENCES.md`: source, version, copyright and licence text of each manual."""
    parts = [HEADING.format(digest=digest)]
    for manual in MANUALS:
        path = roots[manual.package] / f"usr/share/doc/{manual.package}/copyright"
        whole = path.read_text(encoding="utf-8")
        first = whole.index(manual.begin)
        first = whole.index("\n", first) + 1
        end = whole.find(manual.end, first)
        lines = whole[first:end].splitlines() if end > 0 else whole[first:].splitlines()
        text = "\n".join(line.removeprefix(" ") if line != " ." else "" for line in lines)
        parts.append(
            f"## {manual.title}\n\n* Public address: <{manual.address}>\n"
            f"* Package: `{manual.package}` {manual.version}\n* Licence: {manual.licence}\n\n"
            f"```text\n{manual.copyright}\n\n{text.strip()}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
