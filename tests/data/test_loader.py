"""What a step holds depends on (source, seed, batch, step) alone."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.config import ConfigError
from pipeline.data.example import Example, stack
from pipeline.data.loader import Loader, held_out
from pipeline.data.order import row_at, rows_at
from pipeline.runtime import Ranks, rng_of


class Numbered:
    """A source whose examples hold their own number and one keyed draw."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def example(self, index: int, rng: np.random.Generator) -> Example:
        return {"row": np.array([index]), "draw": rng.integers(0, 1 << 62, size=3)}

    def collate(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        return stack(examples)


class Failing(Numbered):
    def example(self, index: int, rng: np.random.Generator) -> Example:
        raise ValueError(f"row {index}")


def global_batch(
    step: int, *, micro_batch: int, world_size: int, workers: int = 1
) -> dict[str, np.ndarray]:
    """The whole batch of one step, put together from all ranks."""
    parts = []
    for rank in range(world_size):
        loader = Loader(
            Numbered(50),
            seed=3,
            batch=24,
            micro_batch=micro_batch,
            ranks=Ranks(rank, world_size),
            workers=workers,
        )
        parts += loader.micro_batches(step)
        loader.close()
    assert all(len(part["row"]) == micro_batch for part in parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_step_holds_its_rows_of_the_order_with_their_own_draws() -> None:
    batch = global_batch(4, micro_batch=24, world_size=1)
    for place in range(24):
        epoch, row = row_at(4 * 24 + place, num_rows=50, seed=3)
        assert batch["row"][place] == row
        expected = rng_of(3, "example", epoch, row).integers(0, 1 << 62, size=3)
        assert np.array_equal(batch["draw"][place], expected)


@pytest.mark.parametrize(
    ("micro_batch", "world_size", "workers"),
    [(1, 1, 1), (4, 1, 3), (4, 2, 1), (2, 3, 2), (1, 24, 1), (12, 2, 4)],
)
def test_cutting_the_batch_differently_does_not_change_it(
    micro_batch: int, world_size: int, workers: int
) -> None:
    # Step 2 is rows 48 to 71 of 50: the end of one epoch and the start of the next.
    for step in (0, 2):
        whole = global_batch(step, micro_batch=24, world_size=1)
        cut = global_batch(step, micro_batch=micro_batch, world_size=world_size, workers=workers)
        for name, values in whole.items():
            assert np.array_equal(values, cut[name])


def test_steps_may_be_asked_in_any_order() -> None:
    loader = Loader(Numbered(50), seed=3, batch=8, micro_batch=4, workers=2)
    forward = [loader.micro_batches(step) for step in range(6)]
    for step in (5, 0, 3, 3, 4, 1):
        for again, before in zip(loader.micro_batches(step), forward[step], strict=True):
            assert np.array_equal(again["draw"], before["draw"])
    loader.close()


def test_the_next_step_is_made_ahead() -> None:
    made = threading.Event()

    class Watched(Numbered):
        def example(self, index: int, rng: np.random.Generator) -> Example:
            if index == row_at(4, num_rows=50, seed=3)[1]:
                made.set()
            return super().example(index, rng)

    loader = Loader(Watched(50), seed=3, batch=4, micro_batch=4)
    loader.micro_batches(0)
    assert made.wait(timeout=10)
    loader.close()


def test_a_mistake_in_the_source_reaches_the_caller() -> None:
    loader = Loader(Failing(50), seed=3, batch=4, micro_batch=4)
    with pytest.raises(ValueError, match="row "):
        loader.micro_batches(0)
    loader.close()


@pytest.mark.parametrize(("batch", "micro_batch", "world_size"), [(10, 4, 1), (8, 4, 3), (2, 4, 1)])
def test_a_batch_that_cannot_be_shared_is_refused(
    batch: int, micro_batch: int, world_size: int
) -> None:
    ranks = Ranks(0, world_size)
    with pytest.raises(ConfigError, match=f"multiple of {micro_batch * world_size}, for example"):
        Loader(Numbered(9), seed=1, batch=batch, micro_batch=micro_batch, ranks=ranks)


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 100), (1, 4), (3, 4), (4, 1), (20, 2)])
def test_held_out_rows_are_the_same_for_every_cut(world_size: int, micro_batch: int) -> None:
    batches = [
        batch
        for rank in range(world_size)
        for batch in held_out(
            Numbered(50), 13, seed=3, micro_batch=micro_batch, rank=rank, world_size=world_size
        )
    ]
    rows = np.concatenate([b["row"] for b in batches]).ravel()
    assert np.array_equal(rows, rows_at(np.arange(13), num_rows=50, seed=3)[1])
    assert rows.max() >= 13, "drawn from the whole source, not from its beginning"
    draws = np.concatenate([batch["draw"] for batch in batches])
    for draw, row in zip(draws, rows.tolist(), strict=True):
        assert np.array_equal(draw, rng_of(3, "held_out", row).integers(0, 1 << 62, size=3))


def test_held_out_stops_at_the_end_of_the_source() -> None:
    batches = list(held_out(Numbered(5), 100, seed=3, micro_batch=2))
    assert [len(batch["row"]) for batch in batches] == [2, 2, 1]
