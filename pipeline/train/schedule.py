"""Learning-rate schedules: pure functions of a place in the run, so there is no state to save.

Each gives the share of the peak learning rate at an update. Warm-up rises in a straight line; counted in steps, its
first update already moves: with 10 steps it runs at 1/10 of the peak, the tenth at the peak. What follows warm-up goes
by what ends the run, be it steps, tokens, hours or FLOPs, so that every run reaches the end of its schedule.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import config

Fraction = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Place:
    """Where a run is before update `step` (0-based): it has `spent` so much of its `budget`.

    `risen` of it was spent when a warm-up in steps was over.
    """

    step: int
    spent: float
    budget: float
    risen: float = 0.0

    @property
    def gone(self) -> float:
        """Share of the budget that is spent, from 0 to 1."""
        return min(1.0, self.spent / self.budget)


@config
class Schedule:
    """What all schedules have: a rise to the peak, within `warmup_steps` or a share of the run, `warmup_share`."""

    warmup_steps: Steps = 0
    warmup_share: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps and self.warmup_share:
            raise ValueError(
                "warm-up lasts warmup_steps or a warmup_share of the run; give one of them"
            )

    def share(self, step: int, steps: int) -> float:
        """Share of the peak for update `step` of a run of `steps`."""
        return self.at(Place(step, step, steps, self.warmup_steps))

    def at(self, place: Place) -> float:
        """Share of the peak for the update at `place`."""
        rise = self.rise(place)
        return rise if rise < 1.0 else self.after_warmup(place)

    def rise(self, place: Place) -> float:
        """Share of the peak that warm-up has reached; 1 once it is over."""
        if self.warmup_share:
            return min(1.0, place.gone / self.warmup_share)
        return min(1.0, (place.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0

    def after_warmup(self, place: Place) -> float:
        """Share of the peak once warm-up is over."""
        raise NotImplementedError

    def done(self, place: Place) -> float:
        """How much of what follows warm-up is over, from 0 to 1."""
        risen = self.warmup_share * place.budget if self.warmup_share else place.risen
        if place.budget <= risen:
            return 0.0
        return min(max(place.spent - risen, 0.0) / (place.budget - risen), 1.0)

    def why_not(self, steps: int | None) -> str:
        """Why this schedule does not fit a run of `steps` (None: not known beforehand), "" if it does."""
        if steps is None or self.warmup_steps < steps:
            return ""
        return (
            f"warmup_steps {self.warmup_steps} is not less than the {steps} steps of the run, so the "
            f"peak is never left; use fewer, about {max(steps // 10, 1)}"
        )


@config
class Linear(Schedule):
    """In a straight line to `final`.

    `decay_from: start` lets decay begin with the first step and multiplies warm-up with it, as the
    released code of ELECTRA does; the true peak is then a little below the learning rate.
    """

    type: Literal["linear"] = "linear"
    final: Fraction = 0.0
    decay_from: Literal["peak", "start"] = "peak"

    def at(self, place: Place) -> float:
        if self.decay_from == "peak":
            return super().at(place)
        return self.rise(place) * self._line(place.gone)

    def after_warmup(self, place: Place) -> float:
        return self._line(self.done(place))

    def _line(self, done: float) -> float:
        return 1.0 - (1.0 - self.final) * done


@config
class Cosine(Schedule):
    """To `final` along a half cosine."""

    type: Literal["cosine"] = "cosine"
    final: Fraction = 0.0

    def after_warmup(self, place: Place) -> float:
        falling = 0.5 * (1.0 + math.cos(math.pi * self.done(place)))
        return self.final + (1.0 - self.final) * falling


@config
class Constant(Schedule):
    """Stay at the peak."""

    type: Literal["constant"] = "constant"

    def after_warmup(self, _place: Place) -> float:
        return 1.0


@config
class InverseSquareRoot(Schedule):
    """Fall as 1 / sqrt(step), from the peak after warm-up (Vaswani et al. 2017, 5.3), whatever ends the run.

    `warmup: flat` stays at the peak instead of rising to it, as T5 does with 10,000 steps and a peak of 0.01.
    """

    type: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup: Literal["linear", "flat"] = "linear"

    def __post_init__(self) -> None:
        if self.warmup_share:
            raise ValueError("inverse_sqrt counts steps; allowed: warmup_steps, not warmup_share")

    def rise(self, place: Place) -> float:
        return 1.0 if self.warmup == "flat" else super().rise(place)

    def why_not(self, steps: int | None) -> str:
        return "" if self.warmup == "flat" else super().why_not(steps)  # it begins at the peak

    def after_warmup(self, place: Place) -> float:
        least = max(self.warmup_steps, 1)
        return math.sqrt(least / max(place.step + 1, least))


@config
class WarmupStableDecay(Schedule):
    """Stay at the peak until the last part of the run, its share `decay`, which goes to `final` in a straight line.

    A run can be prolonged from any checkpoint of its stable part (Hu et al. 2024, MiniCPM, 4: a tenth is enough).
    """

    type: Literal["wsd"] = "wsd"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    final: Fraction = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_share + self.decay > 1:
            raise ValueError(
                f"warmup_share {self.warmup_share} and decay {self.decay} are more than the run; shorten them"
            )

    def after_warmup(self, place: Place) -> float:
        left = min(1.0, max(place.budget - place.spent, 0.0) / (self.decay * place.budget))
        return self.final + (1.0 - self.final) * left

    def why_not(self, steps: int | None) -> str:
        if steps is None or self.warmup_steps + self.decay * steps <= steps:
            return super().why_not(steps)
        return (
            f"warmup_steps {self.warmup_steps} and the last {self.decay:g} of the run, which decay, are more "
            f"than its {steps} steps; shorten them, or train longer"
        )


ScheduleConfig = Annotated[
    Linear | Cosine | Constant | InverseSquareRoot | WarmupStableDecay,
    Field(discriminator="type"),
]
