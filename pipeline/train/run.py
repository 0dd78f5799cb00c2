"""What a training job is: its settings, the Trainable a stage hands over, and the checks made before it starts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.complaints import shown
from pipeline.config import config
from pipeline.data.batches import Batches, BatchWarmup
from pipeline.data.example import Source
from pipeline.data.loader import why_not_shared
from pipeline.data.order import Order
from pipeline.flow.stage import Conflict
from pipeline.objectives.objective import Objective
from pipeline.train.guard import SpikeConfig
from pipeline.train.optimizers import OptimizerConfig
from pipeline.train.optimizers.adamw import AdamWConfig
from pipeline.train.patience import Patience
from pipeline.train.schedule import Linear, ScheduleConfig
from pipeline.train.until import Budget, Until
from pipeline.train.variance import VarianceConfig

AtLeastOne = Annotated[int, Field(ge=1)]
Seed = Annotated[
    int, Field(ge=-(1 << 31), lt=1 << 31)
]  # keys of draws add steps to multiples of it
Precision = Literal["auto", "bf16", "float32", "fp16", "fp16_for_t5"]

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
# The same inside its zero_optimization.
OFFLOADS = {"offload_optimizer": "offload_optimizer", "offload_param": "offload_parameters"}


@config
class DeepSpeedConfig:
    """DeepSpeed with `zero_stage`, and a `native` block that is laid over what Theseum generates.

    Gradients and weights travel in buckets of `bucket_elements` numbers. `offload_optimizer` keeps the
    optimizer's state and float32 weights in host memory and has the CPU make the updates, by the same torch
    optimizer; `offload_parameters`, for stage 3, keeps weights there that are not at work.
    """

    type: Literal["deepspeed"] = "deepspeed"
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    bucket_elements: AtLeastOne = 5_000_000
    offload_optimizer: Literal["cpu"] | None = None
    offload_parameters: Literal["cpu"] | None = None
    native: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, owner in DERIVED_DEEPSPEED_KEYS.items():
            if key in self.native:
                raise ValueError(
                    f"native block: {key} is derived from {owner}; set that instead, so both cannot disagree"
                )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError(
                "offload_optimizer needs an optimizer that is shared out; allowed: zero_stage 1, 2 or 3"
            )
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters needs zero_stage 3, where weights are shared out; got {self.zero_stage}"
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
        for key, owner in OFFLOADS.items():
            if key in zero:
                raise ValueError(
                    f"native block: zero_optimization.{key} is derived from {owner}; set that instead; other "
                    "places than host memory are not offered, since checkpoints would miss what is there"
                )


@config
class TorchConfig:
    """Plain torch in float32: the reference the DeepSpeed engine is tested against."""

    type: Literal["torch"] = "torch"


@config
class TrainSettings:
    """How a job trains, whatever it trains. Batches are counted in rows.

    A step takes `batch` rows over all ranks, `micro_batch` at a time on each; `batch_warmup` lets the first
    steps take fewer. `clip_norm` bounds the
    norm of the gradient. `precision` auto is bf16 where the hardware has it; `fp16` has a dynamic loss scale, needs a
    GPU, and is refused for encoder-decoders, whose activations outgrow it, unless it is called
    `fp16_for_t5`. Updates whose loss or gradient is not finite are skipped, and so are those of a
    `spike` if that is set; after more than `max_skipped` in a row the job gives up. `log_every`,
    `evaluate_every` and `checkpoint_every` are steps; `evaluate_rows` is how many held-out rows are
    used. With `checkpoint_minutes` there is a checkpoint after so many minutes without one, too.
    `keep_checkpoints` of the newest stay, those of every `keep_every` steps, and the one with the
    best held-out `keep_best`, such as mlm. With `patience` the run ends when that has not become better in so
    many evaluations, and the best checkpoint is what is handed on. `recompute_blocks` saves memory:
    only every so many blocks keep their activations, the rest are computed again for the gradient.
    `variance` has the variance of gradients measured now and then.
    """

    batch: AtLeastOne = 32
    batch_warmup: BatchWarmup | None = None
    micro_batch: AtLeastOne = 8
    seed: Seed = 0
    optimizer: OptimizerConfig = Field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = Field(default_factory=Linear)
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "auto"
    max_skipped: AtLeastOne = 8
    spike: SpikeConfig | None = None
    engine: Annotated[DeepSpeedConfig | TorchConfig, Field(discriminator="type")] = Field(
        default_factory=DeepSpeedConfig
    )
    log_every: AtLeastOne = 1
    evaluate_every: AtLeastOne = 1000
    evaluate_rows: AtLeastOne = 256
    checkpoint_every: AtLeastOne = 500
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = None
    keep_checkpoints: AtLeastOne = 2
    keep_every: AtLeastOne | None = None
    keep_best: str | None = None
    patience: AtLeastOne | None = None
    recompute_blocks: AtLeastOne | None = None
    variance: VarianceConfig | None = None

    def __post_init__(self) -> None:
        if self.batch % self.micro_batch:
            raise ValueError(
                f"batch {self.batch} does not divide into micro_batch {self.micro_batch}; "
                f"allowed: a divisor of {self.batch}"
            )
        if self.patience and self.keep_best is None:
            raise ValueError(
                "patience needs keep_best: the held-out figure that is to become better, such as cross_entropy"
            )
        if self.batch_warmup and (words := self.batch_warmup.why_not(self.batch)):
            raise ValueError(f"batch_warmup: {words}")
        if self.engine.type == "torch" and self.precision not in ("auto", "float32"):
            raise ValueError(
                "engine torch trains in float32 only; allowed: precision float32 or auto, or engine deepspeed"
            )

        narrow = self.precision not in ("auto", "float32")
        if narrow and getattr(self.engine, "zero_stage", 1) == 0:
            raise ValueError(
                f"precision {self.precision} needs the float32 copies of ZeRO; "
                "allowed: engine.zero_stage 1, 2 or 3, or precision float32"
            )

    def conflicts(self, processes: int) -> Iterator[Conflict]:
        """What keeps a job of `processes` from sharing out its batches."""
        sizes: dict[tuple[str, ...], int] = {("train", "batch"): self.batch}
        if rising := self.batch_warmup:
            sizes["train", "batch_warmup", "start"] = rising.start
            sizes["train", "batch_warmup", "increment"] = rising.increment
        for keys, size in sizes.items():
            if words := why_not_shared(
                batch=size, micro_batch=self.micro_batch, world_size=processes
            ):
                yield keys, words

    def patience_for(self, rising: frozenset[str]) -> Patience:
        """How long to wait for `keep_best` to become better; `rising` names figures of which more is better."""
        return Patience(self.keep_best, self.patience, -1 if self.keep_best in rising else 1)

    def batches(self) -> Batches:
        """The rows of every step."""
        return Batches(self.batch, self.batch_warmup)


@dataclass(frozen=True)
class Measure:
    """A held-out figure beside the objective's own: the mean loss of another one, around the same network."""

    name: str
    objective: Objective
    source: Source


@dataclass(frozen=True)
class Trainable:
    """What a training stage hands to the loop."""

    objective: Objective
    source: Source
    held_out: Source | None
    steps: int | None  # None: `until` ends it
    settings: TrainSettings
    save: Callable[[Path], None]
    order: Order | None = None  # of the rows of `source`; None: all of them in every epoch
    yardstick: Measure | None = None
    until: Until | None = None

    def budget(self) -> Budget:
        """What the job may spend, nothing of it spent."""
        warmup = self.settings.schedule.warmup_steps
        if self.until is not None:
            return Budget(self.until.unit, self.until.amount, warmup_steps=warmup)
        assert self.steps is not None, "a job without steps has something else that ends it"
        return Budget("steps", self.steps, warmup_steps=warmup)
