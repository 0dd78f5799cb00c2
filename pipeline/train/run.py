"""What a training job is: its settings, the Trainable a stage hands over, and the checks made before it starts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.complaints import shown
from pipeline.config import config
from pipeline.data.example import Source
from pipeline.data.loader import why_not_shared
from pipeline.data.order import Order
from pipeline.flow.stage import Conflict
from pipeline.objectives.objective import Objective
from pipeline.train.optim import AdamWConfig
from pipeline.train.schedule import Linear, ScheduleConfig

AtLeastOne = Annotated[int, Field(ge=1)]
Seed = Annotated[
    int, Field(ge=-(1 << 31), lt=1 << 31)
]  # keys of draws add steps to multiples of it
Precision = Literal["auto", "bf16", "float32"]

# Written by Theseum from its own settings; in a native block they would say the same thing twice.
DERIVED_DEEPSPEED_KEYS = {
    "train_batch_size": "batch",
    "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "batch and micro_batch",
    "gradient_clipping": "clip_norm",
    "bf16": "precision",
    "fp16": "precision",
    "optimizer": "optimizer",
    "scheduler": "schedule",
}


@config
class DeepSpeedConfig:
    """DeepSpeed with `zero_stage`, and a `native` block that is laid over what Theseum generates.

    Gradients and weights travel in buckets of `bucket_elements` numbers.
    """

    type: Literal["deepspeed"] = "deepspeed"
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    bucket_elements: AtLeastOne = 5_000_000
    native: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, owner in DERIVED_DEEPSPEED_KEYS.items():
            if key in self.native:
                raise ValueError(
                    f"native block: {key} is derived from {owner}; set that instead, so both cannot disagree"
                )
        zero = self.native.get("zero_optimization", {})
        if not isinstance(zero, dict):
            raise ValueError(
                f"native block: zero_optimization: got {shown(zero)}; allowed: keys and values"
            )
        if zero.get("stage", self.zero_stage) != self.zero_stage:
            raise ValueError(
                f"native block: zero_optimization.stage {zero['stage']} contradicts zero_stage {self.zero_stage}"
            )


@config
class TorchConfig:
    """Plain torch in float32: the reference the DeepSpeed engine is tested against."""

    type: Literal["torch"] = "torch"


@config
class TrainSettings:
    """How a job trains, whatever it trains. Batches are counted in rows.

    A step takes `batch` rows over all ranks, `micro_batch` at a time on each. `clip_norm` bounds the
    norm of the gradient. `precision` auto is bf16 where the hardware has it. `log_every`,
    `evaluate_every` and `checkpoint_every` are steps; `evaluate_rows` is how many held-out rows are
    used, `keep_checkpoints` how many of the newest checkpoints stay. `recompute_blocks` saves memory:
    only every so many blocks keep their activations, the rest are computed again for the gradient.
    """

    batch: AtLeastOne = 32
    micro_batch: AtLeastOne = 8
    seed: Seed = 0
    optimizer: AdamWConfig = Field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = Field(default_factory=Linear)
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "auto"
    engine: Annotated[DeepSpeedConfig | TorchConfig, Field(discriminator="type")] = Field(
        default_factory=DeepSpeedConfig
    )
    log_every: AtLeastOne = 1
    evaluate_every: AtLeastOne = 1000
    evaluate_rows: AtLeastOne = 256
    checkpoint_every: AtLeastOne = 500
    keep_checkpoints: AtLeastOne = 2
    recompute_blocks: AtLeastOne | None = None

    def __post_init__(self) -> None:
        if self.batch % self.micro_batch:
            raise ValueError(
                f"batch {self.batch} does not divide into micro_batch {self.micro_batch}; "
                f"allowed: a divisor of {self.batch}"
            )
        if self.engine.type == "torch" and self.precision == "bf16":
            raise ValueError(
                "engine torch trains in float32 only; allowed: precision float32 or auto, or engine deepspeed"
            )

    def conflicts(self, processes: int) -> Iterator[Conflict]:
        """What keeps a job of `processes` from sharing out its batches."""
        if words := why_not_shared(
            batch=self.batch, micro_batch=self.micro_batch, world_size=processes
        ):
            yield ("train", "batch"), words


@dataclass(frozen=True)
class Trainable:
    """What a training stage hands to the loop."""

    objective: Objective
    source: Source
    held_out: Source | None
    steps: int
    settings: TrainSettings
    save: Callable[[Path], None]
    order: Order | None = None  # of the rows of `source`; None: all of them in every epoch
