"""Real pages for the corpus benchmarks: manuals in 26 languages from Debian packages, crawled into a WARC.

    python benchmarks/real_pages.py [folder]        (default build/real_pages; a minute, 80 MB of downloads)

The packages are fetched with `apt-get download` and unpacked with `dpkg -x`, so nothing is installed and no root is
needed. A server on the loopback serves the trees, and `wget` crawls them through it as a proxy: the addresses in the
archive are those of a site, not of the server, and the same every time. Links between trees are followed, so some
pages have two addresses, as mirrors do. Without `wget` the archive is written by warcio from the same answers.
`pages.json` beside it holds the versions and the SHA-256 of all bodies.
"""

import functools
import getpass
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

DEFAULT = Path(__file__).resolve().parent.parent / "build" / "real_pages"
ARCHIVE, FACTS = "pages.warc.gz", "pages.json"
SITE = "http://manuals.example/"
DOCUMENTS = Path("usr/share/doc")
PAGES_AT_LEAST = 5000
DATE = "2026-01-01T00:00:00Z"  # of the fallback; wget writes its own
PACKAGES = (
    "anarchism",
    "debian-faq",
    "debian-faq-de",
    "debian-faq-fr",
    "debian-faq-ja",
    "debian-faq-ru",
    "debian-faq-zh-cn",
    "debian-handbook",
    "git-doc",
    "harden-doc",
    "installation-guide-amd64",
    "postgresql-doc-15",
    "python3.11-doc",
)


def archive_in(folder: Path) -> Path:
    """The archive in `folder`, fetched and crawled first when it is not there."""
    archive = folder / ARCHIVE
    if not (folder / FACTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        root = unpacked(folder)
        pages = pages_below(root / DOCUMENTS)
        (folder / "urls.txt").write_text("".join(f"{SITE}{page}\n" for page in pages))
        if shutil.which("wget"):
            crawl(folder, root / DOCUMENTS)
        else:
            write_archive(archive, root / DOCUMENTS, pages)
        facts = facts_of(archive) | {"packages": versions_of(folder)}
        if facts["pages"] < PAGES_AT_LEAST:
            raise SystemExit(f"{archive}: only {facts['pages']} pages; {PAGES_AT_LEAST} are needed")
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return archive


def unpacked(folder: Path) -> Path:
    """The packages of PACKAGES, fetched and unpacked into one tree."""
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise SystemExit(
                f"{program} is not here, and the pages come from packages of Debian 12; make them "
                f"on such a system (a container will do) and copy {folder / ARCHIVE} and {FACTS}"
            )
    packages = folder / "packages"
    packages.mkdir(exist_ok=True)
    command = ["apt-get", "download", "-qq", "-o", f"APT::Sandbox::User={getpass.getuser()}"]
    left = subprocess.run([*command, *PACKAGES], cwd=packages, check=False)
    if left.returncode:
        raise SystemExit("apt-get could not download all packages; try `apt-get update` first")
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "tree")], check=True)
    return folder / "tree"


def versions_of(folder: Path) -> dict[str, str]:
    """Version of each package, from the names of the files."""
    names = [path.name.split("_") for path in (folder / "packages").glob("*.deb")]
    return dict(sorted((name, urllib.parse.unquote(version)) for name, version, _ in names))


def pages_below(root: Path) -> list[str]:
    """Quoted paths of all HTML files below `root`, in order; links to folders are followed."""
    found: list[str] = []
    waiting = [root]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_dir():
                waiting.append(path)
            elif path.suffix in (".html", ".htm", ".xhtml") and path.is_file():
                found.append(urllib.parse.quote(path.relative_to(root).as_posix()))
    return sorted(found)


class _Site(http.server.SimpleHTTPRequestHandler):
    """Serves a tree to a client that takes it for a proxy of SITE."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each page waits 40 ms for the client's acknowledgement

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(SITE))

    def log_message(self, *_: object) -> None:
        """Nothing: there are thousands of requests."""


def crawl(folder: Path, root: Path) -> None:
    """Let wget fetch every address of `urls.txt` into the archive."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Site, directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = ARCHIVE.removesuffix(".warc.gz")
    command = ["wget", "--no-verbose", "--input-file=urls.txt", "--output-document=/dev/null"]
    command += [f"--warc-file={name}", "--no-warc-keep-log", "--output-file=wget.log"]
    command += ["-e", "use_proxy=yes", "-e", f"http_proxy=127.0.0.1:{server.server_port}"]
    left = subprocess.run(command, cwd=folder, check=False)
    server.shutdown()
    if left.returncode:
        raise SystemExit(f"wget left with {left.returncode}; see {folder / 'wget.log'}")


def write_archive(archive: Path, root: Path, pages: Sequence[str]) -> None:
    """The archive without a crawl: the same responses, written by warcio."""
    with archive.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for page in pages:
            body = (root / urllib.parse.unquote(page)).read_bytes()
            head = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                SITE + page,
                "response",
                io.BytesIO(body),
                http_headers=head,
                warc_headers_dict={"WARC-Date": DATE},
            )
            writer.write_record(record)


def bodies(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    """(address, date, body) of every response; wget writes addresses in angle brackets."""
    with archive.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            url = record.headers["WARC-Target-URI"].strip("<>")
            yield url, record.headers["WARC-Date"], record.reader.read()


def facts_of(archive: Path) -> dict[str, object]:
    """How much there is in an archive; the digest is that of addresses and bodies in order."""
    pages = html_bytes = 0
    digest = hashlib.sha256()
    for url, _, body in bodies(archive):
        pages += 1
        html_bytes += len(body)
        digest.update(hashlib.sha256(url.encode() + b"\n" + body).digest())
    return {
        "pages": pages,
        "html_bytes": html_bytes,
        "archive_bytes": archive.stat().st_size,
        "sha256": digest.hexdigest(),
    }


def main() -> None:
    """Make the archive, say what is in it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    archive = archive_in(folder)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    print(
        f"{archive}: {facts['pages']:,} pages, {facts['html_bytes'] / 1e6:.0f} MB of HTML, "
        f"{facts['archive_bytes'] / 1e6:.0f} MB compressed"
    )


if __name__ == "__main__":
    main()
