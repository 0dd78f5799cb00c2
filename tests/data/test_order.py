"""The order of rows is a permutation per epoch, uniform, and a function of the position alone."""

import itertools

import numpy as np
import pytest

from pipeline.data import order

SIZES = [*range(1, 70), 100, 255, 256, 257, 1000, 1023, 1024, 1025, 4097, 65_537]


def reference_row(place: int, num_rows: int, keys: tuple[int, ...]) -> int:
    """The same permutation in plain Python integers."""
    bits = next(bits for bits in itertools.count(1) if 4**bits >= num_rows)
    full, mask = (1 << 64) - 1, (1 << bits) - 1
    while True:
        left, right = place >> bits, place & mask
        for key in keys:
            word = right ^ key
            word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & full
            word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & full
            word ^= word >> 31
            left, right = right, left ^ (word >> (64 - bits))
        place = (left << bits) | right
        if place < num_rows:
            return place


@pytest.mark.parametrize("num_rows", SIZES)
def test_every_epoch_is_a_permutation(num_rows: int) -> None:
    epochs, rows = order.rows_at(np.arange(3 * num_rows), num_rows=num_rows, seed=5)
    assert np.array_equal(epochs, np.repeat([0, 1, 2], num_rows))
    for epoch in range(3):
        assert np.array_equal(np.sort(rows[epochs == epoch]), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_vectorised_equals_plain_integers_and_single_positions(num_rows: int) -> None:
    positions = np.arange(2 * num_rows)
    epochs, rows = order.rows_at(positions, num_rows=num_rows, seed=-7)
    for position in positions[:200].tolist():
        epoch, place = divmod(position, num_rows)
        expected = (epoch, reference_row(place, num_rows, order.round_keys(-7, epoch)))
        assert (epochs[position], rows[position]) == expected
        assert order.row_at(position, num_rows=num_rows, seed=-7) == expected


def test_rows_do_not_depend_on_which_positions_are_asked_together() -> None:
    _, whole = order.rows_at(np.arange(500), num_rows=77, seed=1)
    pieces = [order.rows_at(part, num_rows=77, seed=1)[1] for part in np.split(np.arange(500), 20)]
    assert np.array_equal(whole, np.concatenate(pieces))
    backwards = order.rows_at(np.arange(500)[::-1], num_rows=77, seed=1)[1]
    assert np.array_equal(whole, backwards[::-1])


def test_epochs_and_seeds_differ() -> None:
    first = order.rows_at(np.arange(2000), num_rows=1000, seed=1)[1].reshape(2, 1000)
    other = order.rows_at(np.arange(1000), num_rows=1000, seed=2)[1]
    # Two unrelated permutations agree at one place on average.
    assert np.count_nonzero(first[0] == first[1]) < 10
    assert np.count_nonzero(first[0] == other) < 10


@pytest.mark.parametrize("num_rows", [3, 4, 5])
def test_all_permutations_are_equally_likely(num_rows: int) -> None:
    """Chi-square over the n! permutations of 2400 epochs; 5 standard deviations."""
    permutations = {p: i for i, p in enumerate(itertools.permutations(range(num_rows)))}
    cells, epochs = len(permutations), 2400
    per_cell = epochs / cells
    positions = np.arange(num_rows)
    seen = np.zeros(cells)
    for epoch in range(epochs):
        rows = order._permuted(positions, num_rows, order.round_keys(11, epoch))
        seen[permutations[tuple(rows.tolist())]] += 1
    chi_square = ((seen - per_cell) ** 2 / per_cell).sum()
    assert chi_square < cells - 1 + 5 * np.sqrt(2 * (cells - 1))


def test_places_are_uniform_over_seeds() -> None:
    """Chi-square of (place, row) pairs for 10 rows over 500 seeds; 5 standard deviations."""
    seen = np.zeros((10, 10))
    for seed in range(500):
        seen[np.arange(10), order.rows_at(np.arange(10), num_rows=10, seed=seed)[1]] += 1
    chi_square = ((seen - 50) ** 2 / 50).sum()
    assert chi_square < 81 + 5 * np.sqrt(2 * 81)


def test_the_order_of_a_seed_never_changes() -> None:
    """A change here changes what every run has been trained on."""
    rows = order.rows_at(np.arange(20), num_rows=10, seed=1)[1]
    assert rows.tolist() == [2, 8, 7, 9, 6, 4, 3, 0, 1, 5, 9, 0, 8, 4, 1, 6, 2, 3, 5, 7]
