"""A mixture keeps to its shares in every cycle, reads each source epoch by epoch, and seeks freely."""

import math

import numpy as np
import pytest

from pipeline.config import ConfigError, build_from
from pipeline.data.loader import Loader
from pipeline.data.mixture import MixedOrder, Proportional, Shares, SourceRows, apportioned


def source(name: str, *stretches: tuple[int, int], weight: float = 1.0) -> SourceRows:
    return SourceRows(name, weight, *np.array(stretches).T)


# Rows 0-9 and 30-39 are of a, 10-29 of b, 40 of c.
A, B, C = source("a", (0, 10), (30, 10)), source("b", (10, 20)), source("c", (40, 1))
OWNER = np.repeat([0, 1, 0, 2], [10, 20, 10, 1])


def rates(mixture: Proportional | Shares, *rows: int, weight: float = 1.0) -> list[float]:
    return mixture.rates([source(f"s{n}", (0, r), weight=weight) for n, r in enumerate(rows)])


def test_t5s_limit_and_temperature() -> None:
    found = rates(Proportional(cap=2000, temperature=2.0), 1000, 4000)
    assert math.isclose(found[0] / found[1], math.sqrt(1000) / math.sqrt(2000))
    assert rates(Proportional(), 1000, 4000) == [0.2, 0.8]
    assert rates(Proportional(weights={"s0": 2.0}), 1000, 4000) == [1 / 3, 2 / 3]
    # The factor comes before the limit.
    assert rates(Proportional(weights={"s0": 8.0}, cap=4000), 1000, 4000) == [0.5, 0.5]


def test_the_weight_of_the_corpus_counts_unless_another_is_named() -> None:
    sources = [source("a", (0, 10), weight=3.0), source("b", (10, 10), weight=1.0)]
    assert Proportional().rates(sources) == [0.75, 0.25]
    assert Proportional(weights={"a": 1.0}).rates(sources) == [0.5, 0.5]
    assert Shares(shares={"a": 1, "b": 4}).rates(sources) == [0.2, 0.8]
    assert Shares(shares={"b": 4}).rates(sources) == [0.0, 1.0]


@pytest.mark.parametrize("cycle", [8, 50, 1000])
def test_every_cycle_holds_the_shares_exactly(cycle: int) -> None:
    order = MixedOrder(Shares(shares={"a": 5, "b": 2, "c": 1}, cycle=cycle), [A, B, C], seed=3)
    places = apportioned([5 / 8, 2 / 8, 1 / 8], cycle)
    _, rows = order.at(np.arange(3 * cycle))
    for one in OWNER[rows].reshape(3, cycle):
        assert np.bincount(one, minlength=3).tolist() == places


def test_each_source_is_read_epoch_by_epoch() -> None:
    order = MixedOrder(Shares(shares={"a": 5, "b": 2, "c": 1}, cycle=8), [A, B, C], seed=3)
    epochs, rows = order.at(np.arange(8 * 60))
    pairs = list(zip(epochs.tolist(), rows.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for number, one in enumerate((A, B, C)):
        mine = OWNER[rows] == number
        read = np.bincount(epochs[mine])
        assert (read[:-1] == one.num_rows).all(), (
            "an epoch ends before the next has more than begun"
        )


def test_a_position_can_be_asked_alone() -> None:
    order = MixedOrder(Proportional(temperature=2.0), [A, B, C], seed=-5)
    epochs, rows = order.at(np.arange(200))
    far_epochs, far_rows = order.at(np.array([10**12, 199, 7]))
    assert (far_epochs[1:].tolist(), far_rows[1:].tolist()) == (
        epochs[[199, 7]].tolist(),
        rows[[199, 7]].tolist(),
    )
    again = MixedOrder(Proportional(temperature=2.0), [A, B, C], seed=-5).at(np.array([10**12]))
    assert (again[0][0], again[1][0]) == (far_epochs[0], far_rows[0])


def test_by_size_alone_a_cycle_is_an_epoch() -> None:
    _, rows = MixedOrder(Proportional(), [A, B, C], seed=1).at(np.arange(2 * 41))
    for epoch in rows.reshape(2, 41):
        assert sorted(epoch.tolist()) == list(range(41))


def test_the_order_of_a_mixture_never_changes() -> None:
    """A change here changes what every run with a mixture has been trained on."""
    _, rows = MixedOrder(Shares(shares={"a": 1, "b": 1}, cycle=4), [A, B], seed=1).at(np.arange(12))
    assert rows.tolist() == [4, 3, 22, 13, 7, 20, 28, 1, 35, 32, 17, 12]


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        (Shares(shares={"z": 1}), "source 'z'; allowed: 'a', 'b', 'c'"),
        (Proportional(weights={"z": 1}), "source 'z'; allowed: 'a'"),
        (Proportional(cycle=20), "'c' has a share of 0.024, which is no row in a cycle of 20"),
    ],
)
def test_what_cannot_be_kept_is_refused(mixture: Proportional | Shares, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MixedOrder(mixture, [A, B, C], seed=1)


def test_a_negative_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shares\.a"):
        build_from(Shares, {"type": "shares", "shares": {"a": -1}})


def test_a_loader_follows_the_order_it_is_given() -> None:
    class Numbers:
        def __len__(self) -> int:
            return 41

        def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"row": np.array(index)}

        def collate(self, examples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
            return {"row": np.array([example["row"] for example in examples])}

    order = MixedOrder(Shares(shares={"c": 1, "b": 3}, cycle=4), [A, B, C], seed=9)
    loader = Loader(Numbers(), seed=9, batch=8, micro_batch=4, order=order)
    found = np.concatenate([batch["row"] for batch in loader.micro_batches(5)])
    loader.close()
    assert found.tolist() == order.at(np.arange(40, 48))[1].tolist()
    assert (found == 40).sum() == 2
