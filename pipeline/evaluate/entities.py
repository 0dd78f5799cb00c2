"""Named entities in labelled words: the stretches that BIO tags stand for, and how many were found.

The stretches are those of the `conlleval` script: `B-X` begins one, `I-X` goes on, and begins one where none of its
kind is open.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Entity = tuple[str, int, int]  # kind, first word, end


def entities_of(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of one text. A tag without `B-` or `I-` in front (such as O) is outside of all.

    >>> list(entities_of(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    kind, first = "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, dash, own = tag.partition("-")
        inside = bool(dash) and prefix in ("B", "I")
        if kind and (not inside or prefix == "B" or own != kind):
            yield kind, first, place
            kind = ""
        if inside and not kind:
            kind, first = own, place


def counted(golds: Sequence[Any], answers: Sequence[Any], labels: Sequence[str]) -> np.ndarray:
    """For each text the entities that are found whole and of the right kind, answered, and there. [texts, 3]."""
    rows = []
    for gold, answer in zip(golds, answers, strict=True):
        there, said = (set(entities_of([labels[n] for n in tags])) for tags in (gold, answer))
        rows.append((len(there & said), len(said), len(there)))
    return np.array(rows, dtype=np.float64)


def f1(rows: np.ndarray) -> float:
    """F1 over the entities of all texts; 0 where none is there and none answered."""
    right, said, there = rows.sum(axis=0)
    return float(2 * right / (said + there)) if said + there else 0.0


def right_words(golds: Sequence[Any], answers: Sequence[Any], _labels: Sequence[str]) -> np.ndarray:
    """For each text its words with the right label, and its words. [texts, 2]."""
    pairs = zip(golds, answers, strict=True)
    rows = [(sum(a == b for a, b in zip(g, s, strict=True)), len(g)) for g, s in pairs]
    return np.array(rows, dtype=np.float64)
