"""How alike near duplicates are: what the report on near duplicates says, and the counts behind it.

Signatures only estimate the Jaccard index, so a sample of pairs, chosen by hash, is read again and
compared shingle by shingle: that gives the rate of pairs that were joined though they are less
alike than the threshold, and of candidates that were wrongly let go.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.dedup import minhash, tables
from pipeline import files

SAMPLE_PAIRS = 200
LARGEST_CLUSTERS = 10
MEMBERS_SHOWN = 3
SHOWN_CHARACTERS = 300
BINS = 20
Document = tuple[str, str]
Texts = Callable[[Sequence[int]], Mapping[int, Document]]


@dataclass
class Alikeness:
    """Counts of one partition: candidate pairs and removed documents by the numbers of their
    signatures that agree; clusters by size; and a few of each to look at.
    """

    joined: Counter[int] = field(default_factory=Counter)
    let_go: Counter[int] = field(default_factory=Counter)
    removed: Counter[int] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    joined_sample: list[list[int]] = field(default_factory=list)
    let_go_sample: list[list[int]] = field(default_factory=list)
    largest: list[list[Any]] = field(default_factory=list)

    def add_pairs(self, pairs: np.ndarray, agreeing: np.ndarray, joined: np.ndarray) -> None:
        """Count candidates, uint64 [4, pairs] (rank, document, rank, document)."""
        # Ranks come from content, so the sample does too.
        key = tables.mixed(pairs[0] ^ tables.mixed(pairs[2]))
        self.joined.update(agreeing[joined].tolist())
        self.let_go.update(agreeing[~joined].tolist())
        for mask, sample in ((joined, self.joined_sample), (~joined, self.let_go_sample)):
            which = np.flatnonzero(mask)
            which = which[np.argsort(key[which], kind="stable")[:SAMPLE_PAIRS]]
            columns = (key, pairs[1], pairs[3], agreeing)
            sample += (list(row) for row in zip(*(c[which].tolist() for c in columns), strict=True))

    def add_clusters(self, stars: np.ndarray, agreeing: np.ndarray) -> None:
        """Count clusters, uint64 [3, losers] (rank of the winner, winner, loser), by winner."""
        rank, winner, loser = stars
        self.removed.update(agreeing.tolist())
        begin = np.flatnonzero(tables.first_of_group(winner))
        sizes = np.diff(np.append(begin, len(winner))) + 1
        self.sizes.update(sizes.tolist())
        for place in np.lexsort((winner[begin], rank[begin], -sizes))[:LARGEST_CLUSTERS]:
            first, size = int(begin[place]), int(sizes[place])
            members = range(first, first + min(size - 1, MEMBERS_SHOWN))
            shown = [[int(loser[member]), int(agreeing[member])] for member in members]
            self.largest.append([-size, int(rank[first]), int(winner[first]), shown])

    def add(self, other: "Alikeness") -> None:
        """Add the counts of `other` to these."""
        for name in ("joined", "let_go", "removed", "sizes"):
            getattr(self, name).update(getattr(other, name))
        for name in ("joined_sample", "let_go_sample"):
            both = [*getattr(self, name), *getattr(other, name)]
            setattr(self, name, sorted(both)[:SAMPLE_PAIRS])
        self.largest = sorted([*self.largest, *other.largest])[:LARGEST_CLUSTERS]

    def write(self, path: Path) -> None:
        """Save the counts."""
        value = {
            name: sorted(counts.items()) if isinstance(counts, Counter) else counts
            for name, counts in vars(self).items()
        }
        files.write_json(path, value)


def read_alikeness(path: Path) -> Alikeness:
    """The counts that `write` saved."""
    value = files.read_json(path)
    names = ("joined", "let_go", "removed", "sizes")
    return Alikeness(**(value | {name: Counter(dict(value[name])) for name in names}))


def report_of(
    settings: Mapping[str, Any], documents: int, parts: Sequence[Path], texts: Texts
) -> dict[str, Any]:
    """The report on near duplicates, from the counts of every partition and the texts of some
    documents.
    """
    whole = Alikeness()
    for path in parts:
        whole.add(read_alikeness(path))
    permutations, least = settings["permutations"], settings["least_agreement"]
    below = sum(count for agreeing, count in whole.removed.items() if agreeing < least)
    return {
        "settings": dict(settings),
        "documents": {"in": documents, "removed": whole.removed.total()},
        "pairs": {
            "candidates": whole.joined.total() + whole.let_go.total(),
            "joined": whole.joined.total(),
            "candidates_by_jaccard": by_jaccard(whole.joined + whole.let_go, permutations),
            "joined_truly": _truth(whole.joined_sample, settings, texts),
            "let_go_truly": _truth(whole.let_go_sample, settings, texts),
        },
        "removed_by_jaccard_with_the_kept": by_jaccard(whole.removed, permutations),
        "removed_though_less_alike_than_threshold": below,
        "clusters": {
            "count": whole.sizes.total(),
            "by_size": {str(size): count for size, count in sorted(whole.sizes.items())},
            "largest": [_shown(cluster, permutations, texts) for cluster in whole.largest],
        },
    }


def by_jaccard(agreeing: Counter[int], permutations: int) -> dict[str, int]:
    """Counts by estimated Jaccard index in steps of 0.05, from the lower bound of each step."""
    steps: Counter[int] = Counter()
    for number, count in agreeing.items():
        steps[min(number * BINS // permutations, BINS - 1)] += count
    return {f"{step / BINS:.2f}": steps[step] for step in range(BINS)}


def _truth(
    sample: Sequence[Sequence[int]], settings: Mapping[str, Any], texts: Texts
) -> dict[str, Any]:
    """What a sample of pairs (key, document, document, agreement) is when compared shingle by
    shingle.
    """
    found = texts(sorted({document for pair in sample for document in pair[1:3]}))
    size, threshold = settings["shingle_words"], settings["threshold"]
    true = [minhash.jaccard(found[one][1], found[other][1], size) for _, one, other, _ in sample]
    errors = [
        abs(value - pair[3] / settings["permutations"])
        for value, pair in zip(true, sample, strict=True)
    ]
    below = sum(value < threshold for value in true)
    return {
        "sampled": len(true),
        "below_threshold": below,
        "share_below_threshold": round(below / len(true), 4) if true else None,
        "mean_jaccard": round(sum(true) / len(true), 4) if true else None,
        "mean_error_of_estimate": round(sum(errors) / len(errors), 4) if true else None,
        "lowest_jaccard": round(min(true), 4) if true else None,
    }


def _shown(cluster: Sequence[Any], permutations: int, texts: Texts) -> dict[str, Any]:
    smallness, _, winner, losers = cluster
    found = texts([winner, *(loser for loser, _ in losers)])
    removed = [
        _document(found[loser]) | {"jaccard": round(agreeing / permutations, 3)}
        for loser, agreeing in losers
    ]
    return {"size": -smallness, "kept": _document(found[winner]), "removed": removed}


def _document(document: Document) -> dict[str, Any]:
    url, text = document
    return {"url": url, "text": text[:SHOWN_CHARACTERS]}
