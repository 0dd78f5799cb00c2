"""What ends a run: so many steps, tokens, hours or FLOPs, and how much of them is spent.

Steps, tokens and FLOPs are counted from global figures, so every rank knows the sum without being told. The clock is
that of rank 0, which tells the others with the counts of each step. What was spent is in every checkpoint: a resumed
run is where an undisturbed one would be, exactly where steps, tokens or FLOPs are counted, and by the clock of all its
attempts together where hours are.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config import config
from pipeline.train.schedule import Place

Unit = Literal["steps", "tokens", "hours", "flops"]
Positive = Annotated[float, Field(gt=0)]
SECONDS_PER_HOUR = 3600.0
FLOPS_SCALES = {"EFLOP": 1e18, "PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9}


@config
class Until:
    """What a run may spend, in one of three measures; it ends with the update in which that is reached.

    `tokens` are those that are read, padding left out. `hours` pass on the clock while the job trains,
    evaluates and saves, over all its restarts. `flops` are those of the matrix products of all networks,
    forward and backward.
    """

    tokens: Positive | None = None
    hours: Positive | None = None
    flops: Positive | None = None

    def __post_init__(self) -> None:
        if len(self._given()) != 1:
            raise ValueError("a run ends by tokens, by hours or by flops; give one of them")

    @property
    def unit(self) -> Unit:
        """The measure."""
        [unit] = self._given()
        return unit

    @property
    def amount(self) -> float:
        """How much of it."""
        [amount] = self._given().values()
        return amount

    def _given(self) -> dict[Unit, float]:
        given: dict[Unit, float | None] = {
            "tokens": self.tokens,
            "hours": self.hours,
            "flops": self.flops,
        }
        return {unit: amount for unit, amount in given.items() if amount is not None}


class Budget:
    """How much of what it may spend a run has spent, before the update that comes next. The same on all ranks."""

    def __init__(self, unit: Unit, amount: float, *, warmup_steps: int = 0) -> None:
        self.unit, self.amount, self.warmup_steps = unit, amount, warmup_steps
        self.tokens = self.flops = self.seconds = self.risen = 0.0
        self.began = time.monotonic()

    def spent(self, step: int) -> float:
        """What is spent after `step` updates, in the measure of the budget."""
        if self.unit == "hours":
            return self.seconds / SECONDS_PER_HOUR
        return float({"steps": step, "tokens": self.tokens, "flops": self.flops}[self.unit])

    def over(self, step: int) -> bool:
        """Whether a run of `step` updates is at its end."""
        return self.spent(step) >= self.amount

    def place(self, step: int) -> Place:
        """Where the schedule stands before update `step`."""
        if step <= self.warmup_steps or self.unit == "steps":
            self.risen = self.spent(min(step, self.warmup_steps))
        return Place(step, self.spent(step), self.amount, self.risen)

    def add(self, *, tokens: float, flops: float) -> None:
        """An update was made or refused, after reading this in all ranks together."""
        self.tokens += tokens
        self.flops += flops

    def clock(self) -> float:
        """Seconds of this job until now, those of earlier attempts included, by this process's clock."""
        return time.monotonic() - self.began

    def progress(self, step: int) -> tuple[int, int, str]:
        """Done, in all, and in what unit, for people."""
        done, total = self.spent(step), self.amount
        if self.unit == "hours":
            return int(done * SECONDS_PER_HOUR), int(total * SECONDS_PER_HOUR), "seconds"
        if self.unit != "flops":
            return int(done), int(total), self.unit
        fitting = (name for name, one in FLOPS_SCALES.items() if total >= 100 * one)
        name = next(fitting, "GFLOP")
        return int(done / FLOPS_SCALES[name]), int(total / FLOPS_SCALES[name]), name

    def state(self) -> dict[str, float]:
        """What `load` needs, as plain data; floats survive JSON exactly."""
        return {name: getattr(self, name) for name in ("tokens", "flops", "seconds", "risen")}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; an empty one is that of a new run."""
        for name in ("tokens", "flops", "seconds", "risen"):
            setattr(self, name, float(state.get(name, 0.0)))

    def start_clock(self) -> None:
        """The clock goes on from the seconds that are known."""
        self.began = time.monotonic() - self.seconds
