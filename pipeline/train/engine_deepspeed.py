"""DeepSpeed behind the engine protocol: the only file that knows it.

Every value that matters is written explicitly, since the defaults have moved between releases. DeepSpeed averages
gradients over ranks and divides the loss by the accumulation steps; Theseum has divided by the global count
already, so it undoes the first by the world size and asks for the second to be left out.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.objectives.objective import Objective
from pipeline.train.engine import (
    EngineState,
    HostBatch,
    Refuses,
    StepResult,
    accumulate,
    global_loss,
    load_buffers,
    on_device,
    saved_buffers,
    seed_dropout,
    total_loss,
    world_size,
)
from pipeline.train.gate import Gate
from pipeline.train.guard import Outcome
from pipeline.train.optimizers.groups import set_learning_rate
from pipeline.train.optimizers.pieces import Buffer, Piece, TensorwiseOptimizer, whole_buffers
from pipeline.train.optimizers.state import gathered, scattered, steps_taken
from pipeline.train.run import DeepSpeedConfig, TrainSettings

FP16_LOSS_SCALE = {
    "loss_scale": 0,  # that is, a dynamic one
    "initial_scale_power": 16,
    "loss_scale_window": 1000,
    "hysteresis": 2,
    "consecutive_hysteresis": False,
    "min_loss_scale": 1,
}
HOST_MEMORY = {"device": "cpu", "pin_memory": True}
SCALER_STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def start_distributed(device: torch.device) -> None:
    """Join the job's process group, through gloo on CPUs and NCCL on GPUs.

    On CPUs DeepSpeed would compile a shared-memory all-reduce at first use, for minutes; gloo needs no compiler.
    """
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo" if device.type == "cpu" else "nccl"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def deepspeed_config(
    settings: TrainSettings, engine: DeepSpeedConfig, *, ranks: int, precision: str
) -> dict[str, Any]:
    """The DeepSpeed JSON of a job: generated values with the native block laid over them."""
    generated: dict[str, Any] = {
        "train_batch_size": settings.batch,
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch // (settings.micro_batch * ranks),
        "gradient_clipping": settings.clip_norm,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": {
            "stage": engine.zero_stage,
            "reduce_bucket_size": engine.bucket_elements,
            "allgather_bucket_size": engine.bucket_elements,
            "stage3_prefetch_bucket_size": engine.bucket_elements,
            "stage3_param_persistence_threshold": 1000,
            "overlap_comm": False,
            "contiguous_gradients": True,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }
    if engine.offload_optimizer:
        generated["zero_optimization"]["offload_optimizer"] = dict(HOST_MEMORY)
    if engine.offload_parameters:
        generated["zero_optimization"]["offload_param"] = dict(HOST_MEMORY)
    if precision == "fp16":
        generated["fp16"] |= FP16_LOSS_SCALE
    if precision != "float32":
        generated["data_types"] = {"grad_accum_dtype": "fp32"}
    return _laid_over(generated, engine.native)


def _laid_over(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, Mapping)
        merged[key] = _laid_over(inner, value) if both and inner is not None else value
    return merged


class DeepSpeedEngine:
    """A DeepSpeed engine with ZeRO 0 to 3."""

    def __init__(
        self,
        objective: Objective,
        settings: TrainSettings,
        *,
        rank: int,
        device: torch.device,
        precision: str,
    ) -> None:
        assert isinstance(settings.engine, DeepSpeedConfig)
        os.environ.setdefault("DS_ACCELERATOR", device.type)
        self.rank, self.device, self.precision = rank, device, precision
        self.parameters = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.config = deepspeed_config(
            settings, settings.engine, ranks=world_size(), precision=precision
        )
        self.engine, *_ = deepspeed.initialize(
            model=objective,
            optimizer=settings.optimizer.build(objective),
            config=self.config,
            dist_init_required=False,
        )
        self.objective = objective
        outer = self.engine.optimizer
        self.base_optimizer: torch.optim.Optimizer = getattr(outer, "optimizer", outer)
        self.buffers = list(self._buffers())
        if isinstance(self.base_optimizer, TensorwiseOptimizer):
            self.base_optimizer.lay_out(self.buffers)
        self.gate = Gate(self.base_optimizer)
        # Without float16 there is a scaler that does nothing, or none.
        self.scaler = outer.loss_scaler if precision == "fp16" else None
        if self.scaler is not None:
            self.scaler.raise_error_at_min_scale = False  # the loop counts what is refused

    def step(
        self,
        micro_batches: Sequence[HostBatch],
        counts: Mapping[str, float],
        lr: float,
        key: int,
        refuses: Refuses | None = None,
    ) -> StepResult:
        """One update; DeepSpeed applies it at the last micro-batch."""
        self.engine.train()
        scale = 1.0 if self.scaler is None else self.scaler.cur_scale
        set_learning_rate(self.engine.optimizer.param_groups, lr)
        sums: dict[str, Tensor] = {}
        for micro_step, batch in enumerate(micro_batches):
            last = micro_step == len(micro_batches) - 1
            self.engine.set_gradient_accumulation_boundary(last)
            seed_dropout(key, micro_step, self.rank)
            new = self.engine(on_device(batch, self.device))
            loss = total_loss(new, self.objective.weights, counts) * world_size()
            self.engine.backward(loss, scale_wrt_gas=False)
            accumulate(sums, new)
            if not last:
                self.engine.step()
        result = StepResult(sums, counts, torch.tensor(torch.nan))
        if refuses is not None:
            result.loss = global_loss(sums, self.objective.weights, counts)
        self._apply(result, refuses)
        if result.outcome is Outcome.NOT_FINITE and scale > 1.0:
            result.outcome = Outcome.SCALE_LOWERED
        return result

    def _apply(self, result: StepResult, refuses: Refuses | None) -> None:
        """Have DeepSpeed update, unless the gradient is not finite or `refuses` says so.

        ZeRO and the optimizers with float32 copies look at the gradient by themselves, a plain one in float32 does not.
        """
        outer = self.engine.optimizer
        if outer is self.base_optimizer:
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            result.grad_norm = torch.nn.utils.get_total_norm(gradients)

        def judged() -> bool:
            if outer is not self.base_optimizer:
                # The engine's own is set only after the update.
                norm = getattr(outer, "_global_grad_norm", torch.nan)
                result.grad_norm = torch.as_tensor(norm)
            if not result.grad_norm.isfinite():
                result.outcome = Outcome.NOT_FINITE
            elif refuses is not None and refuses(result.loss, float(result.grad_norm)):
                result.outcome = Outcome.SPIKE
            return result.outcome is Outcome.APPLIED

        with self.gate.asking(judged):
            self.engine.step()
        if getattr(outer, "overflow", False):
            result.outcome = Outcome.NOT_FINITE

    @torch.no_grad()
    def evaluate(self, batch: HostBatch, objective: Objective | None = None) -> dict[str, Tensor]:
        """Sums of one batch. Another objective is run as it is: ZeRO 3 gathers weights for its network."""
        self.engine.eval()
        if objective is None:
            return dict(self.engine(on_device(batch, self.device)))
        return dict(objective.eval()(on_device(batch, self.device)))

    def state(self) -> EngineState:
        """Gather weights and moments by name; a state before the first step has zero moments."""
        tensors = saved_buffers(self.objective) | gathered(self.base_optimizer, self.buffers)
        if self.scaler is not None:
            for name in SCALER_STATE:
                value = float(getattr(self.scaler, name))
                tensors[f"scaler/{name}"] = torch.tensor(value, dtype=torch.float64)
        return EngineState(tensors, steps_taken(self.base_optimizer))

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """Scatter weights and moments to where this world size and ZeRO stage keep them."""
        load_buffers(self.objective, state.tensors)
        scattered(self.base_optimizer, self.buffers, state.tensors, state.optimizer_step)
        for name, parameter in self.parameters.items():
            # The network computes with copies: in the narrow type, and partitioned under ZeRO 3.
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(state.tensors[f"weight/{name}"])
        for name in SCALER_STATE if self.scaler is not None else ():
            # A checkpoint written in another precision has none: the search for a scale begins anew.
            if (value := state.tensors.get(f"scaler/{name}")) is not None:
                setattr(self.scaler, name, value.item() if name == "cur_scale" else int(value))

    def _buffers(self) -> Iterator[Buffer]:
        """What the optimizer updates: the parameters, or this rank's flat stretch of each group of them."""
        groups = self.base_optimizer.param_groups
        if hasattr(self.engine.optimizer, "fp32_partitioned_groups_flat"):
            yield from self._sub_groups()
        elif any(hasattr(parameter, "_hp_mapping") for parameter in self.parameters.values()):
            for group in groups:
                pieces = [_flattened(name, self.parameters[name]) for name in group["names"]]
                yield Buffer(group["params"][0], group, tuple(pieces), spread=True)
        else:
            yield from whole_buffers(groups)

    def _sub_groups(self) -> Iterator[Buffer]:
        """ZeRO 3: each rank has an equal share of every parameter, the last one filled up with zeros."""
        outer = self.engine.optimizer
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for number, parameters in enumerate(outer.fp16_groups):
            pieces, offset = [], 0
            for parameter in parameters:
                share = parameter.partition_numel()
                start = min(self.rank * share, parameter.ds_numel)
                numel = min(share, parameter.ds_numel - start)
                pieces.append(Piece(names[id(parameter)], parameter.ds_shape, start, offset, numel))
                offset += share
            group = self.base_optimizer.param_groups[outer.sub_group_to_group_id[number]]
            flat = outer.fp32_partitioned_groups_flat[number]
            yield Buffer(flat, group, tuple(pieces), spread=True)


def _flattened(name: str, parameter: nn.Parameter) -> Piece:
    """This rank's stretch of a parameter under ZeRO 1, 2 and the bf16 optimizer, which may be empty."""
    mapping = getattr(parameter, "_hp_mapping", None)  # DeepSpeed's only handle on its partitions
    if mapping is None:
        return Piece(name, parameter.shape, 0, 0, 0)
    part = mapping.lp_fragment_address
    return Piece(name, parameter.shape, part.start, mapping.hp_fragment_address.start, part.numel)


def leave_distributed() -> None:
    """Close the process group, so that no rank is left waiting."""
    if dist.is_initialized():
        dist.destroy_process_group()
