"""How likely a module is replaced by its successor at each step (Xu et al. 2020, section 3).

A rate is a pure function of the step: it has no state to save. After `replacing_epochs` it is 1,
and what remains of the run is the paper's successor fine-tuning.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import config

Share = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(gt=0)]


@config
class LinearRate:
    """min(1, base_rate + k step), with k such that 1 is reached after `replacing_epochs`."""

    type: Literal["linear"] = "linear"
    base_rate: Share = 0.3
    replacing_epochs: Epochs = 2.0

    def at(self, step: int, replacing_steps: int) -> float:
        """The rate of the 0-based `step`, when replacing lasts `replacing_steps`."""
        if step >= replacing_steps:
            return 1.0
        return self.base_rate + (1.0 - self.base_rate) * step / replacing_steps


@config
class ConstantRate:
    """`rate` for `replacing_epochs`, then 1."""

    type: Literal["constant"] = "constant"
    rate: Share = 0.5
    replacing_epochs: Epochs = 2.0

    def at(self, step: int, replacing_steps: int) -> float:
        """The rate of the 0-based `step`, when replacing lasts `replacing_steps`."""
        return 1.0 if step >= replacing_steps else self.rate


@config
class AntiCurriculumRate:
    """1 less the linear rate: from 1 - base_rate down to 0 within `replacing_epochs`, then 1.

    The control of the paper: a curriculum upside down.
    """

    type: Literal["anti_curriculum"] = "anti_curriculum"
    base_rate: Share = 0.3
    replacing_epochs: Epochs = 2.0

    def at(self, step: int, replacing_steps: int) -> float:
        """The rate of the 0-based `step`, when replacing lasts `replacing_steps`."""
        if step >= replacing_steps:
            return 1.0
        return 1.0 - LinearRate(base_rate=self.base_rate).at(step, replacing_steps)


RateConfig = Annotated[LinearRate | ConstantRate | AntiCurriculumRate, Field(discriminator="type")]
