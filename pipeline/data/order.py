"""The order of rows: which row stands at which position of an endless, keyed, epoch-wise shuffle.

A position counts the rows consumed since step 0. Every epoch is another permutation of all rows,
and the row at a position is computed, not looked up: seeking is free, nothing is stored, and
neither workers, ranks nor restarts can change it. The permutation is a Feistel network on the next
power of four at or above the number of rows; results outside the rows are sent through it again
until they land inside (cycle walking), which keeps it one to one.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipeline.runtime import key_of

ROUNDS = 12
_LOW_64_BITS = (1 << 64) - 1


class Order(Protocol):
    """Which row stands at which position: a function of the position and a seed."""

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and rows, both int64, at `positions`; no epoch has a row twice."""
        ...


@dataclass(frozen=True)
class KeyedOrder:
    """All rows in every epoch, in a keyed permutation."""

    num_rows: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and rows at `positions`."""
        return rows_at(positions, num_rows=self.num_rows, seed=self.seed)


def row_at(position: int, *, num_rows: int, seed: int) -> tuple[int, int]:
    """Epoch and row at one position.

    >>> sorted(row_at(position, num_rows=3, seed=1)[1] for position in range(3, 6))
    [0, 1, 2]
    """
    epochs, rows = rows_at(np.array([position]), num_rows=num_rows, seed=seed)
    return int(epochs[0]), int(rows[0])


def rows_at(positions: np.ndarray, *, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and rows, both int64, at `positions` (any 1-D array of integers from 0)."""
    assert num_rows > 0, "an empty source has no order"
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), num_rows)
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = _permuted(places[here], num_rows, round_keys(seed, int(epoch)))
    return epochs, rows


@lru_cache(maxsize=64)
def round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """The 64-bit keys of one epoch's Feistel rounds."""
    return tuple(key_of(seed, "order", epoch, number) & _LOW_64_BITS for number in range(ROUNDS))


def half_bits(num_rows: int) -> int:
    """Bits of each half: the network permutes 4 ** half_bits numbers, at least `num_rows`."""
    return max(1, ((num_rows - 1).bit_length() + 1) // 2)


def _permuted(places: np.ndarray, num_rows: int, keys: tuple[int, ...]) -> np.ndarray:
    """Where each place of an epoch (0 <= place < num_rows) is sent; one to one."""
    bits = half_bits(num_rows)
    rows = _feistel(places.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(rows >= num_rows)
    while outside.size:
        rows[outside] = _feistel(rows[outside], bits, keys)
        outside = outside[rows[outside] >= num_rows]
    return rows.astype(np.int64)


def _feistel(values: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """One pass through the network: a permutation of 0 .. 4 ** bits - 1. uint64 in and out."""
    shift, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ np.uint64(key)) >> np.uint64(64 - bits))
    return (left << shift) | right


def _mixed(words: np.ndarray) -> np.ndarray:
    """A 64-bit finalizer (constants of SplitMix64): every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
