"""Stages without Ray: the `Work` of a stage over plain processes, or in the process that asks.

What Ray costs is measured against this; what a core does is measured in the one process.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class PoolWork:
    """A `Work` whose units are computed by `processes` processes; none means this one."""

    def __init__(self, out: Path, inputs: Mapping[str, Path], *, processes: int = 0) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.inputs = out, inputs
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            fresh = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, mp_context=fresh)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        unit: str,
        amounts: Callable[[Result], Mapping[str, float]] | None = None,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:
        """Results in the order of `items`; nobody is told of progress and no unit is given up."""
        del unit, amounts, lost
        return map(function, items) if self._pool is None else self._pool.map(function, items)

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Nobody is told."""

    def train(self, stage: Any) -> None:
        """A pool trains nothing."""
        raise AssertionError(f"{stage} is no stage of data preparation")

    def __enter__(self) -> "PoolWork":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
