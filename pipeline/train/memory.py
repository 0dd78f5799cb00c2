"""Memory of one rank in training, told before anything runs: what lasts, and the most that a step adds.

What lasts is arithmetic on numbers of parameters: how DeepSpeed and plain torch keep weights, float32 copies, gradients
and optimizer state under each ZeRO stage. What a step adds comes from a `Rehearsal`. Parts are told at the moment when
their sum is largest: in the backward of a micro-batch that is not the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from pipeline.objectives.objective import Objective
from pipeline.train.rehearsal import Rehearsal
from pipeline.train.run import DeepSpeedConfig, TrainSettings

FULL_BYTES = 4
MOST_GATHERED = (
    1_000_000_000  # weights that ZeRO 3 lets stand gathered (stage3_max_live_parameters)
)
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Held:
    """How many numbers an objective has: in trained and in frozen weights, and what the optimizer keeps for the
    trained ones, shared out among ranks (`spread`) or not (`whole`).
    """

    trained: int
    frozen: int
    spread: int
    whole: int


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank by what they are for: on its device, and in host memory where that is another place."""

    device: Mapping[str, int]
    host: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.device.values())


def dtype_of(precision: str) -> torch.dtype:
    """What weights are computed with in `precision` (float32, bf16 or fp16)."""
    return NARROW.get(precision, torch.float32)


def held_by(objective: Objective, settings: TrainSettings) -> Held:
    """What there is to keep; `objective` may be one without numbers."""
    spread = whole = 0
    for group in settings.optimizer.build(objective).param_groups:
        for parameter in group["params"]:
            spread += len(group["keeps"]) * parameter.numel()
            whole += sum(parameter.shape) if group.get("keeps_whole") else 0
    trained = [p.numel() for p in objective.parameters() if p.requires_grad]
    others = [p.numel() for p in objective.parameters() if not p.requires_grad]
    buffers = sum(buffer.numel() for buffer in objective.buffers())
    return Held(sum(trained), sum(others) + buffers, spread, whole)


def rank_memory(
    held: Held,
    rehearsal: Rehearsal,
    settings: TrainSettings,
    *,
    ranks: int,
    precision: str,
    batch_bytes: int,
) -> Memory:
    """Memory of one of `ranks`; `batch_bytes` are those of a micro-batch as the loader makes it."""
    engine = settings.engine
    stage = engine.zero_stage if isinstance(engine, DeepSpeedConfig) else 0
    states = _states(held, stage, ranks, precision)
    states |= _in_step(held, stage, ranks, precision, settings)
    states["activations"] = rehearsal.peak - rehearsal.loss
    states["output layer"] = rehearsal.loss
    ahead = (
        settings.batch // (settings.micro_batch * ranks) * 2
    )  # this step's batches and the next's
    loader = {"loader": ahead * batch_bytes}
    host: dict[str, int] = {}
    if isinstance(engine, DeepSpeedConfig):
        if engine.offload_optimizer:
            host |= {
                name: states.pop(name) for name in ("float32 copies", "optimizer") if name in states
            }
        if engine.offload_parameters:
            host["weights"] = states.pop("weights")
    return Memory({name: size for name, size in states.items() if size}, host | loader)


def _states(held: Held, stage: int, ranks: int, precision: str) -> dict[str, int]:
    """What lasts from step to step."""
    width = dtype_of(precision).itemsize
    share = ranks if stage else 1
    weights = width * held.trained // (ranks if stage == 3 else 1) + width * held.frozen
    states = {"weights": weights}
    if stage:
        states["float32 copies"] = FULL_BYTES * held.trained // share
    states["optimizer"] = FULL_BYTES * (held.spread // share + held.whole)
    return states


def _in_step(
    held: Held, stage: int, ranks: int, precision: str, settings: TrainSettings
) -> dict[str, int]:
    """Gradients, the buckets they travel in, and weights that ZeRO 3 has gathered."""
    width = dtype_of(precision).itemsize
    if stage == 0 or not isinstance(settings.engine, DeepSpeedConfig):
        return {"gradients": FULL_BYTES * held.trained}
    bucket = width * min(settings.engine.bucket_elements, held.trained)
    if stage == 1:
        narrow = 0 if precision == "float32" else width
        return {"gradients": (FULL_BYTES + narrow) * held.trained, "buckets": bucket}
    found = {"gradients": FULL_BYTES * held.trained // ranks, "buckets": 2 * bucket}
    if stage == 3:  # those that the backward kept from the forward, and those gathered anew
        found["gathered weights"] = 2 * width * min(held.trained, MOST_GATHERED)
    return found
