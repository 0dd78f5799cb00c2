"""Near duplicates over a whole corpus: of documents that are almost the same, the longest stays.

MinHash signatures, candidates by LSH, every candidate checked on its signatures, clusters by connected
components. The winner of a cluster is its longest document; of equally long ones that whose
MD5(address) sorts first. So the result does not depend on how documents were spread over files, and
the report says how alike the pairs truly are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic

from data_prep.dedup import clusters, exact, lsh, minhash, tables
from data_prep.dedup.alikeness import Alikeness, Document, Texts, report_of
from pipeline.config import config
from pipeline.flow.stage import Work

SIGNATURES, ROWS = "signatures.npy", "rows.npy"
BATCH_DOCUMENTS = 64
PAIRS_AT_ONCE = 1 << 15
MOST_CHARACTERS = (1 << 32) - 1
Reader = Callable[[Path, Sequence[int]], list[Document]]
Count = Annotated[int, pydantic.Field(ge=1)]


@config
class Near:
    """What is a near duplicate: a Jaccard index of at least `threshold` on shingles of
    `shingle_words` words, estimated from `permutations` hashes.

    Candidates share one of `bands` bands of `rows` hashes each; without them they follow from the
    threshold, so that 95 % of the pairs at the threshold are found, and more above it.
    """

    threshold: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.8
    shingle_words: Count = 5
    permutations: Count = 128
    bands: Count | None = None
    rows: Count | None = None
    seed: Annotated[int, pydantic.Field(ge=0)] = 0

    @pydantic.model_validator(mode="after")
    def _bands_fit(self) -> "Near":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows belong together; give both, or neither")
        if self.bands and self.rows and self.bands * self.rows > self.permutations:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows need {self.bands * self.rows} "
                f"permutations, there are {self.permutations}"
            )
        return self

    def banding(self) -> tuple[int, int]:
        """(bands, rows) that are used."""
        if self.bands and self.rows:
            return self.bands, self.rows
        return lsh.bands_for(self.threshold, self.permutations)

    @property
    def least_agreement(self) -> int:
        """How many numbers of two signatures must agree."""
        return int(np.ceil(self.threshold * self.permutations - 1e-9))


@dataclass(frozen=True)
class NearDuplicates:
    """What was found: one file for each partition, for `losers_in`, and the report."""

    found: tuple[Path, ...]
    report: Mapping[str, Any]


def write_signatures(folder: Path, pages: Iterable[tuple[int, str, str]], near: Near) -> int:
    """Save signatures and bands of a unit's documents, given as (row, address, text); returns how
    many.
    """
    settings = {"size": near.shingle_words, "permutations": near.permutations, "seed": near.seed}
    rows, ranks, waiting, parts = [], [], [], []
    for row, url, text in pages:
        rows.append(row)
        ranks.append(rank_of(url, text))
        waiting.append(text)
        if len(waiting) == BATCH_DOCUMENTS:
            parts.append(minhash.signatures(waiting, **settings))
            waiting = []
    signatures = np.concatenate([*parts, minhash.signatures(waiting, **settings)])
    rank = np.array(ranks, dtype=np.uint64)
    tables.save(folder / SIGNATURES, signatures)
    tables.save(folder / ROWS, np.array(rows, dtype=np.uint64))
    lsh.write_bands(folder, lsh.band_keys(signatures, *near.banding()), rank)
    return len(rows)


def rank_of(url: str, text: str) -> int:
    """Place of a document among its near duplicates: longest first, then by MD5(address)."""
    shortness = MOST_CHARACTERS - min(len(text), MOST_CHARACTERS)
    return shortness << 32 | int.from_bytes(exact.digest_of(exact.normalised_url(url))[:4], "big")


def decide(
    work: Work, scratch: Path, units: Sequence[Path], near: Near, read: Reader
) -> NearDuplicates:
    """Find the near duplicates among the documents of all units that have signatures.

    `read` gives (address, text) of some rows of a unit, for a few hundred documents of the report.
    """
    tables.list_units(scratch, units)
    count = tables.partitions_for(tables.rows_in([unit / lsh.BANDS for unit in units]))
    buckets = [lsh.Bucketing(scratch, number, count) for number in range(count)]
    pairs = sum(work.map(lsh.find_candidates, buckets, unit="partitions of bands compared"))
    parts = tables.partitions_for(pairs)
    checks = [_Check(scratch, number, parts, count, near) for number in range(parts)]
    checked = list(work.map(check_candidates, checks, unit="partitions of pairs checked"))
    folder, tips = clusters.stars(work, scratch, scratch / "pairs", parts)
    jobs = [_Losers(scratch, number, tips, folder, near) for number in range(tips)]
    found = tuple(work.map(find_losers, jobs, unit="partitions of clusters decided"))
    documents = sum(len(np.load(unit / ROWS, mmap_mode="r")) for unit in units)
    notes = [path.with_suffix(".json") for path in (*checked, *found)]
    report = report_of(near_settings(near), documents, notes, _texts_of(units, read))
    return NearDuplicates(found, report)


def losers_in(found: Sequence[Path], unit: int, near: Near) -> dict[int, float]:
    """Row of each document of a unit that goes, to its estimated Jaccard index with the document
    that stays.
    """
    return {
        row: agreeing / near.permutations
        for path in found
        for row, agreeing in tables.of_unit(path, unit)[1:].T.tolist()
    }


def _texts_of(units: Sequence[Path], read: Reader) -> Texts:
    """A function from documents to their addresses and texts."""

    def texts(documents: Sequence[int]) -> Mapping[int, Document]:
        found: dict[int, Document] = {}
        for unit in sorted({document >> lsh.PLACE_BITS for document in documents}):
            mine = [document for document in documents if document >> lsh.PLACE_BITS == unit]
            rows = lsh.rows_of(units, ROWS, np.array(mine, dtype=np.uint64)).tolist()
            found |= zip(mine, read(units[unit], rows), strict=True)
        return found

    return texts


def near_settings(near: Near) -> dict[str, Any]:
    """The settings as they stand in the report."""
    bands, rows = near.banding()
    return {
        "threshold": near.threshold,
        "shingle_words": near.shingle_words,
        "permutations": near.permutations,
        "bands": bands,
        "rows": rows,
        "least_agreement": near.least_agreement,
        "found_at_threshold": round(lsh.found_with(near.threshold, bands, rows), 4),
    }


@dataclass(frozen=True)
class _Check:
    """One partition of the candidates, by their first document."""

    scratch: Path
    number: int
    partitions: int
    tables_before: int
    near: Near

    @property
    def path(self) -> Path:
        return tables.numbered(self.scratch / "pairs", self.number)


@dataclass(frozen=True)
class _Losers:
    """One partition of the stars, by their middle."""

    scratch: Path
    number: int
    partitions: int
    stars: Path
    near: Near

    @property
    def path(self) -> Path:
        return tables.numbered(self.scratch / "losers", self.number)


def check_candidates(job: _Check) -> Path:
    """Keep the candidates whose signatures agree enough, in both directions; returns their
    file.
    """
    note = job.path.with_suffix(".json")
    if not note.exists():
        units = tables.units_in(job.scratch)
        folder = job.scratch / "candidates"
        paths = [tables.numbered(folder, number) for number in range(job.tables_before)]
        pairs = lsh.once(tables.stretches(paths, job.number, job.partitions))
        agreeing = agreements(units, pairs[1], pairs[3])
        verified = agreeing >= job.near.least_agreement
        tables.save(job.path, clusters.both_ways(pairs[:, verified]))
        alike = Alikeness()
        alike.add_pairs(pairs, agreeing, verified)
        alike.write(note)
    return job.path


def find_losers(job: _Losers) -> Path:
    """Write uint64 [3, documents] (unit, row, agreement with the winner) of those that go, sorted."""
    note = job.path.with_suffix(".json")
    if not note.exists():
        units = tables.units_in(job.scratch)
        stars = clusters.found_stars(job.stars, job.partitions, job.number, job.partitions)
        _, winner, loser = stars
        agreeing = agreements(units, winner, loser)
        row = lsh.rows_of(units, ROWS, loser)
        unit = loser >> np.uint64(lsh.PLACE_BITS)
        order = np.lexsort((row, unit))
        tables.save(job.path, np.stack((unit, row, agreeing.astype(np.uint64)))[:, order])
        alike = Alikeness()
        alike.add_clusters(stars, agreeing)
        alike.write(note)
    return job.path


def agreements(units: Sequence[Path], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [pairs] how many numbers of the signatures of two documents agree."""
    parts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(first), PAIRS_AT_ONCE):
        one, other = (
            lsh.rows_of(units, SIGNATURES, documents[start : start + PAIRS_AT_ONCE])
            for documents in (first, second)
        )
        parts.append(minhash.agreement(one, other))
    return np.concatenate(parts)
