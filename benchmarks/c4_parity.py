"""Whether the fast cleaning says of every real page what the slow, literal reference says: same text, same reason.

    python benchmarks/c4_parity.py [--pages build/real_pages] [--documents N] [--settled 1000]

Three comparisons. Every preset cleans every page. The C4 presets also judge a sample of the cleaned pages as whole
documents (sentences, language, bad words). And the `corpus` stage makes C4's newest generation of the whole archive,
beside the same done in one process with dictionaries: the newest page of an address, the reference's cleaning, each
line only in the page whose MD5 sorts first, at least three sentences in what is left.
"""

import argparse
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from measure import conclude, of_the_tests
from page_archives import draw_of, sample_archive
from pool import PoolWork
from real_pages import DEFAULT, archive_in

from data_prep.clean import PRESETS, Cleaning, cleaner_of
from data_prep.corpus import Corpus
from data_prep.dedup.exact import normalised_url
from data_prep.documents import SPLITS, parts_of, rows_of
from data_prep.extract import extract
from data_prep.sources import Page, WarcSource

C4 = of_the_tests("c4_reference")
PAGES_AT_LEAST = 5000
PAGES_A_TASK = 100
SHOWN = 5
RAW, SETTLED = "cleaned", "judged as documents"


@dataclass(frozen=True)
class RealPage:
    """One page as it comes out of extraction."""

    url: str
    timestamp: str
    text: str


@dataclass
class Agreement:
    """How many pages were compared, what the reference said of them, and where the other differs."""

    reasons: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    def add(self, url: str, wanted: tuple[str, str], got: tuple[str, str]) -> None:
        """Compare (text, reason) of a page."""
        self.reasons[wanted[1]] += 1
        if wanted != got:
            self.different.append(f"{url}: {got[1] or 'kept'}, not {wanted[1] or 'kept'}")

    def merge(self, other: "Agreement") -> None:
        """Add the pages of `other` to these."""
        self.reasons.update(other.reasons)
        self.different += other.different


def pages_of(archive: Path) -> list[RealPage]:
    """Every readable page of the archive."""
    source = source_of(archive)
    return [
        RealPage(item.url, item.timestamp, page.text)
        for part in source.ranges(archive.stat().st_size + 1)
        for item in source.read(part)
        if isinstance(item, Page) and (page := extract(item)).is_readable
    ]


def source_of(archive: Path) -> WarcSource:
    """The archive as a source."""
    return WarcSource(name="pages", paths=(archive.as_posix(),))


def compare_cleaning(preset: str, pages: Sequence[RealPage]) -> Agreement:
    """The first judgement of each page, on its raw text."""
    cleaner, found = cleaner_of(Cleaning(preset=preset)), Agreement()
    for page in pages:
        cleaned = cleaner.clean(page.text)
        found.add(page.url, C4.reference(preset, page.text), (cleaned.text, cleaned.reason))
    return found


def compare_settling(preset: str, pages: Sequence[RealPage]) -> Agreement:
    """The second judgement, on what the first one left."""
    cleaner, found = cleaner_of(Cleaning(preset=preset)), Agreement()
    for page in pages:
        text, reason = C4.reference(preset, page.text)
        if not reason:
            settled = cleaner.settle(text, page.url)
            # 2019 and the paper count sentences line by line; both sides are given the number.
            spans = cleaner.repeats == "sentence_spans"
            left = sum(len(C4.tokenize(line)) for line in text.splitlines()) if spans else None
            wanted = C4.settled_reference(preset, text, page.url, left)
            found.add(page.url, wanted, (settled.text, settled.reason))
    return found


def literal_corpus(pages: Sequence[RealPage]) -> dict[str, str]:
    """Address to text of C4's newest generation without its language and its bad words."""
    newest: dict[str, RealPage] = {}
    for page in pages:
        key = normalised_url(page.url)
        if key not in newest or page.timestamp > newest[key].timestamp:
            newest[key] = page
    cleaned = {}
    for key, page in newest.items():
        text, reason = C4.reference("c4-code", page.text)
        if not reason:
            cleaned[key] = (page.url, text.split("\n"))
    corpus = {}
    for url, text in without_repeats(cleaned):
        text, reason = C4.settled_reference("c4-code", text, url)
        if not reason:
            corpus[url] = text
    return corpus


def without_repeats(cleaned: dict[str, tuple[str, list[str]]]) -> Iterator[tuple[str, str]]:
    """(address, text) of pages given as (address, lines) by normalised address; each line stays once."""
    owners: dict[str, str] = {}
    for key in sorted(cleaned, key=lambda key: hashlib.md5(key.encode()).digest()):
        for line in cleaned[key][1]:
            owners.setdefault(line.strip().lower(), key)
    for key, (url, lines) in cleaned.items():
        left, seen = [], set()
        for line in lines:
            same = line.strip().lower()
            if owners[same] == key and same not in seen:
                left.append(line)
            seen.add(same)
        yield url, "\n".join(left)


def corpus_by_stage(archive: Path, folder: Path) -> dict[str, str]:
    """Address to text of every document the `corpus` stage makes."""
    stage = Corpus(inputs=(source_of(archive),), unique=("urls",), unit_bytes=4_000_000)
    with PoolWork(folder, {}, processes=len(os.sched_getaffinity(0))) as work:
        stage.run(work)
    parts = [part for split in SPLITS for part in parts_of(folder, split)]
    return {row["url"]: row["text"] for part in parts for row in rows_of(part, ("url", "text"))}


def compared(pages: Sequence[RealPage], settled: int) -> Iterator[tuple[str, str, Agreement]]:
    """(preset, what, agreement) for all presets, on all cores."""
    sample = sorted(pages, key=lambda page: draw_of(page.url))[:settled]
    work = [(preset, RAW, compare_cleaning, pages) for preset in PRESETS]
    work += [(preset, SETTLED, compare_settling, sample) for preset in C4.GENERATIONS]
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=get_context("spawn")
    ) as executor:
        for preset, what, compare, some in work:
            starts = range(0, len(some), PAGES_A_TASK)
            tasks = [some[start : start + PAGES_A_TASK] for start in starts]
            whole = Agreement()
            for agreement in executor.map(partial(compare, preset), tasks):
                whole.merge(agreement)
            yield preset, what, whole


def main() -> int:
    """Compare, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--documents", type=int, help="only so many pages, for a quick look")
    parser.add_argument("--settled", type=int, default=1000)
    options = parser.parse_args()
    archive = archive_in(options.pages)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.documents:
            archive = sample_archive(archive, folder / "sample.warc.gz", options.documents)
        pages = pages_of(archive)
        results = list(compared(pages, options.settled))
        wanted = literal_corpus(pages)
        made = corpus_by_stage(archive, folder / "corpus")
    whole = Agreement()
    for url in sorted({*wanted, *made}):
        there = [(one[url], "") if url in one else ("", "dropped") for one in (wanted, made)]
        whole.add(url, *there)
    results.append(("c4-code", "whole corpus", whole))
    rows: list[tuple[object, ...]] = [("preset", "pages are", "pages", "kept", "different")]
    facts = []
    for preset, what, found in results:
        total = found.reasons.total()
        rows.append((preset, what, f"{total:,}", f"{found.reasons['']:,}", len(found.different)))
        facts.append(
            {
                "preset": preset,
                "pages_are": what,
                "pages": total,
                "reasons": {reason or "kept": n for reason, n in sorted(found.reasons.items())},
                "different": len(found.different),
                "first_different": found.different[:SHOWN],
            }
        )
    promises = {
        f"at least {PAGES_AT_LEAST:,} real pages": len(pages) >= PAGES_AT_LEAST,
        "the reference's text and reason for every page": not any(
            found.different for _, _, found in results
        ),
    }
    words = (
        f"{len(pages):,} real pages through the fast cleaning and through its literal reference."
    )
    return conclude("c4_parity", words, rows, facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
