"""How many near duplicates are found, and how many are none, beside datasketch at the same settings.

    python benchmarks/near_duplicates.py [--pages build/real_pages] [--peers build/bench/bin/python]

The documents come from real pages: translations that are partly still in English, mirrors that differ in a line or
two, and copies with some of their words replaced; identical ones are left out. The labels are exact: the Jaccard
index of the sets of five-word runs of every pair that could reach the threshold (all-pairs search with prefixes,
Bayardo et al. 2007). Of a cluster the longest document stays, on both sides. Recall is the share of true pairs that do
not both stay, precision the share of removed documents that have a true partner.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from measure import Peers, conclude, cpu_seconds
from pool import PoolWork
from real_pages import DEFAULT, archive_in, bodies
from xxhash import xxh64_intdigest

from data_prep.dedup.near import Near, decide, losers_in, rank_of, write_signatures
from data_prep.dedup.words import words_of
from data_prep.extract import extract
from data_prep.sources import Page
from pipeline.runtime import rng_of

TRANSLATED = ("debian-handbook", "installation-guide", "harden-doc")
ENGLISH = ("postgresql-doc", "anarchism", "en-US", "python3.11")
LEAST_WORDS, MOST_WORDS = 60, 4000
EDITED, RATES = 600, (0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.1)
MIRRORED = 300
UNITS = 8
CLOSE = 0.01  # how far behind the peer either figure may be


@dataclass(frozen=True)
class Document:
    """A document: what it is a copy of, how it came about, and its words."""

    url: str
    origin: str
    kind: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its words with blanks between them, so that both sides see the same words."""
        return " ".join(self.words)


def documents_of(archive: Path) -> list[Document]:
    """The labelled set: translations, mirrors and edited copies; each text once."""
    wanted = (*TRANSLATED, *ENGLISH)
    found = [
        Document(
            url, url, "translation" if any(part in url for part in TRANSLATED) else "page", words
        )
        for url, _, body in bodies(archive)
        if any(part in url for part in wanted)
        and LEAST_WORDS <= len(words := words_in(url, body)) <= MOST_WORDS
    ]
    english = [one for one in found if any(part in one.url for part in ENGLISH)]
    found += [edited(one, number) for number, one in enumerate(english[::2][:EDITED])]
    found += [mirrored(one, number) for number, one in enumerate(english[1::2][:MIRRORED])]
    return list({one.words: one for one in reversed(found)}.values())


def words_in(url: str, body: bytes) -> tuple[str, ...]:
    """The words of a page, in lower case."""
    text = extract(Page(url, "", 0, body, None, is_html=True)).text
    cut = words_of([text])
    return tuple(
        text[start:end].lower()
        for start, end in zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)
    )


def edited(one: Document, number: int) -> Document:
    """A copy of which some words, here and there, are other words of the same page."""
    rate = RATES[number % len(RATES)]
    rng = rng_of(0, "edited copies", number)
    words = list(one.words)
    for place in np.flatnonzero(rng.random(len(words)) < rate).tolist():
        words[place] = one.words[int(rng.integers(len(words)))]
    return Document(f"{one.url}?edited", one.origin, "edited copy", tuple(words))


def mirrored(one: Document, number: int) -> Document:
    """A copy with a mirror's words above and below."""
    rng = rng_of(0, "mirrors", number)
    above = ["mirror", str(number), *rng.permutation(one.words[:LEAST_WORDS]).tolist()]
    short = above[: int(rng.integers(2, len(above)))]
    words = (*short, *one.words, "last", "mirrored", str(number))
    return Document(f"{one.url}?mirror", one.origin, "mirror", words)


def shingle_sets(documents: Sequence[Document], size: int) -> list[np.ndarray]:
    """Sorted uint64 hashes of the runs of `size` words of each document."""
    return [
        np.unique(
            np.array(
                [
                    xxh64_intdigest(" ".join(one.words[start : start + size]).encode())
                    for start in range(len(one.words) - size + 1)
                ],
                dtype=np.uint64,
            )
        )
        for one in documents
    ]


def true_pairs(sets: Sequence[np.ndarray], threshold: float) -> dict[tuple[int, int], float]:
    """Jaccard index of every pair that reaches the threshold.

    Two sets that do share one of their rarest runs: of n, n - ceil(threshold n) + 1 are enough.
    """
    values, counts = np.unique(np.concatenate(sets), return_counts=True)
    holders: dict[int, list[int]] = {}
    for number, one in enumerate(sets):
        rarity = counts[np.searchsorted(values, one)]
        prefix = len(one) - int(np.ceil(threshold * len(one))) + 1
        for shingle in one[np.lexsort((one, rarity))[:prefix]].tolist():
            holders.setdefault(shingle, []).append(number)
    candidates = {pair for some in holders.values() for pair in combinations(some, 2)}
    found = ((pair, jaccard(sets[pair[0]], sets[pair[1]])) for pair in sorted(candidates))
    return {pair: value for pair, value in found if value >= threshold}


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard index of two sorted sets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def removed_by_us(documents: Sequence[Document], near: Near, folder: Path) -> set[int]:
    """What the near-duplicate pass removes; the documents lie in several units."""
    units = [folder / f"unit-{number}" for number in range(UNITS)]
    shares = [range(number, len(documents), UNITS) for number in range(UNITS)]
    for unit, share in zip(units, shares, strict=True):
        unit.mkdir(parents=True)
        rows = ((row, documents[at].url, documents[at].text) for row, at in enumerate(share))
        write_signatures(unit, rows, near)

    def read(unit: Path, rows: Sequence[int]) -> list[tuple[str, str]]:
        mine = [documents[shares[units.index(unit)][row]] for row in rows]
        return [(one.url, one.text) for one in mine]

    found = decide(PoolWork(folder, {}), folder / "scratch", units, near, read).found
    return {
        share[row] for number, share in enumerate(shares) for row in losers_in(found, number, near)
    }


def removed_of_pairs(documents: Sequence[Document], pairs: Iterable[tuple[int, int]]) -> set[int]:
    """All but the longest document of every connected component."""
    parent = list(range(len(documents)))

    def top(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    ranks = [rank_of(one.url, one.text) for one in documents]
    for one, other in pairs:
        first, second = sorted((top(one), top(other)), key=lambda number: ranks[number])
        parent[second] = first
    return {number for number in range(len(documents)) if top(number) != number}


@dataclass(frozen=True)
class Score:
    """How good a set of removed documents is."""

    removed: int
    precision: float
    recall: float
    recall_by_kind: dict[str, float]

    def row(self, side: str, seconds: float) -> tuple[str, ...]:
        """Its line in the table."""
        kinds = (f"{value:.3f}" for value in self.recall_by_kind.values())
        return (
            side,
            f"{self.removed:,}",
            f"{self.precision:.4f}",
            f"{self.recall:.4f}",
            *kinds,
            f"{seconds:.1f}",
        )


def score_of(
    documents: Sequence[Document], truth: Iterable[tuple[int, int]], removed: set[int]
) -> Score:
    """Precision over documents, recall over pairs and over those of each kind."""
    pairs, found = Counter[str](), Counter[str]()
    partnered: set[int] = set()
    for one, other in truth:
        partnered |= {one, other}
        kind = kind_of(documents[one], documents[other])
        for name in (kind, "all"):
            pairs[name] += 1
            found[name] += one in removed or other in removed
    shares = {name: found[name] / pairs[name] for name in sorted(pairs)}
    right = len(removed & partnered)
    return Score(len(removed), right / max(1, len(removed)), shares.pop("all"), shares)


def kind_of(one: Document, other: Document) -> str:
    """How a pair came about."""
    if one.origin == other.origin:
        kinds = {one.kind, other.kind} & {"edited copy", "mirror"}
        return min(kinds) if kinds else "other"
    return "translation" if {one.kind, other.kind} == {"translation"} else "other"


def sides(
    documents: Sequence[Document], near: Near, peers: Peers, folder: Path
) -> Iterator[tuple[str, set[int], float]]:
    """(name, removed documents, CPU seconds) of ours and of datasketch's two ways."""
    mine: list[set[int]] = []
    seconds = cpu_seconds(lambda: mine.append(removed_by_us(documents, near, folder / "near")))
    yield "Theseum", mine[0], seconds
    texts = folder / "texts.jsonl"
    with texts.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": one.text}) + "\n" for one in documents)
    bands, rows = near.banding()
    answer = peers.ask(
        "near_duplicates",
        texts=texts,
        words=near.shingle_words,
        permutations=near.permutations,
        bands=bands,
        rows=rows,
        threshold=near.threshold,
    )
    pairs = answer["pairs"]
    checked = [(one, other) for one, other, value in pairs if value >= near.threshold]
    every = [(one, other) for one, other, _ in pairs]
    yield "datasketch, pairs checked", removed_of_pairs(documents, checked), answer["cpu_seconds"]
    yield "datasketch, as it answers", removed_of_pairs(documents, every), answer["cpu_seconds"]


def main() -> int:
    """Label, remove, compare, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--peers", type=Path, default=DEFAULT.parent / "bench" / "bin" / "python")
    options = parser.parse_args()
    near = Near()
    documents = documents_of(archive_in(options.pages))
    truth = true_pairs(shingle_sets(documents, near.shingle_words), near.threshold)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Peers(options.peers, folder / "peers.log") as peers:
            versions = peers.ask("versions")
            results = [
                (side, score_of(documents, truth, removed), seconds)
                for side, removed, seconds in sides(documents, near, peers, folder)
            ]
    ours, theirs = results[0][1], results[1][1]
    kinds = [f"recall: {kind}" for kind in ours.recall_by_kind]
    rows: list[tuple[object, ...]] = [
        ("side", "removed", "precision", "recall", *kinds, "CPU seconds"),
        *(score.row(side, seconds) for side, score, seconds in results),
    ]
    pairs = Counter(kind_of(documents[one], documents[other]) for one, other in truth)
    bands, band_rows = near.banding()
    facts = {
        "documents": dict(Counter(one.kind for one in documents)),
        "true_pairs": dict(pairs),
        "threshold": near.threshold,
        "shingle_words": near.shingle_words,
        "permutations": near.permutations,
        "bands": bands,
        "rows": band_rows,
        "peers": versions,
        "scores": {side: vars(score) | {"cpu_seconds": s} for side, score, s in results},
    }
    promises = {
        "precision not below datasketch's": ours.precision >= theirs.precision - CLOSE,
        "recall not below datasketch's": ours.recall >= theirs.recall - CLOSE,
    }
    words = (
        f"{len(documents):,} documents with {len(truth):,} pairs of a Jaccard index of at least "
        f"{near.threshold} ({', '.join(f'{kind} {n:,}' for kind, n in sorted(pairs.items()))}); "
        f"{near.permutations} permutations in {bands} bands of {band_rows} on both sides, "
        f"datasketch {versions['datasketch']}."
    )
    return conclude("near_duplicates", words, rows, facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
