"""n-grams of words that stand in a text twice or more, as numbers.

A longer n-gram can repeat only where the two shorter ones in it do. So the n-grams of n words are looked
for among pairs of neighbouring repeated ones of n - 1, and the work shrinks as n grows. Numbers are given
in order, never by hashing: equal numbers are equal n-grams, always.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
ONCE = -1


@dataclass(frozen=True)
class Grams:
    """All n-grams of one n: the `number` of each [places], or ONCE; `first` place and `times` of each
    number [numbers], both in no order.
    """

    number: Numbers
    first: Numbers
    times: Numbers


class Ngrams:
    """The n-grams of `words`."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._known: list[Grams] = []

    def of(self, size: int) -> Grams:
        """The n-grams of `size` words; the text has at least so many."""
        assert 1 <= size <= len(self._words)
        while len(self._known) < size:
            self._known.append(_longer(self._known[-1]) if self._known else _single(self._words))
        return self._known[size - 1]


def _single(words: Sequence[str]) -> Grams:
    counted = Counter(words)
    times = {word: number for word, number in counted.items() if number > 1}
    names = dict.fromkeys(counted, ONCE) | dict(zip(times, range(len(times)), strict=True))
    number = np.fromiter(map(names.__getitem__, words), np.int64, len(words))
    # The first places of words are not asked for.
    nowhere = np.zeros(0, dtype=np.int64)
    return Grams(number, nowhere, np.fromiter(times.values(), np.int64, len(times)))


def _longer(grams: Grams) -> Grams:
    """The n-grams with one word more."""
    left, right = grams.number[:-1], grams.number[1:]
    places = np.flatnonzero((left != ONCE) & (right != ONCE))
    keys = left[places] * len(grams.times) + right[places]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]
    times = np.diff(starts, append=len(ordered))
    twice = times > 1
    number = np.full(len(left), ONCE, dtype=np.int64)
    names = np.where(twice, np.cumsum(twice) - 1, ONCE)
    number[places[order]] = np.repeat(names, times)
    return Grams(number, places[order[starts[twice]]], times[twice])
