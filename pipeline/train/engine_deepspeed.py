"""DeepSpeed behind the engine protocol: the only file that knows it.

Every value that matters is written explicitly, since the defaults have moved between releases. DeepSpeed averages
gradients over ranks and divides the loss by the accumulation steps; Theseum has divided by the global count
already, so it undoes the first by the world size and asks for the second to be left out.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor

from pipeline.objectives.objective import Objective
from pipeline.train.engine import (
    EngineState,
    HostBatch,
    StepResult,
    accumulate,
    load_buffers,
    on_device,
    reduce_sum,
    saved_buffers,
    seed_dropout,
    total_loss,
    world_size,
)
from pipeline.train.engine_torch import moments_of
from pipeline.train.run import DeepSpeedConfig, TrainSettings

MOMENTS = ("exp_avg", "exp_avg_sq")


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
        "fp16": {"enabled": False},
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
    if precision == "bf16":
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
        self.names = [n for n, p in objective.named_parameters() if p.requires_grad]
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
        self.parameters = {n: p for n, p in objective.named_parameters() if n in set(self.names)}
        outer = self.engine.optimizer
        self.base_optimizer: torch.optim.Optimizer = getattr(outer, "optimizer", outer)

    def step(
        self, micro_batches: Sequence[HostBatch], counts: Mapping[str, float], lr: float, key: int
    ) -> StepResult:
        """One update; DeepSpeed applies it at the last micro-batch."""
        self.engine.train()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        sums: dict[str, Tensor] = {}
        for micro_step, batch in enumerate(micro_batches):
            seed_dropout(key, micro_step, self.rank)
            new = self.engine(on_device(batch, self.device))
            loss = total_loss(new, self.objective.weights, counts) * world_size()
            self.engine.backward(loss, scale_wrt_gas=False)
            self.engine.step()
            accumulate(sums, new)
        norm = self.engine.get_global_grad_norm()
        return StepResult(sums, counts, torch.as_tensor(float("nan") if norm is None else norm))

    @torch.no_grad()
    def evaluate(self, batch: HostBatch) -> dict[str, Tensor]:
        """Sums of one batch."""
        self.engine.eval()
        return dict(self.engine(on_device(batch, self.device)))

    def state(self) -> EngineState:
        """Gather weights and moments by name; a state before the first step has zero moments."""
        tensors = saved_buffers(self.objective)
        for name, parameter in self.parameters.items():
            tensors[f"weight/{name}"] = self._whole(parameter, None)
            for key in MOMENTS:
                tensors[f"{key}/{name}"] = self._whole(parameter, key)
        steps = [int(s["step"]) for s in self.base_optimizer.state.values() if "step" in s]
        return EngineState(tensors, max(steps, default=0))

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """Scatter weights and moments to where this world size and ZeRO stage keep them."""
        load_buffers(self.objective, state.tensors)
        self._create_moments(state.optimizer_step)
        for name, parameter in self.parameters.items():
            weight = state.tensors[f"weight/{name}"].to(self.device)
            moments = moments_of(state, name)
            if hasattr(parameter, "ds_id"):
                safe_set_full_fp32_param(parameter, weight)
                for key, value in moments.items():
                    safe_set_full_optimizer_state(parameter, value.to(self.device), key)
                continue
            parameter.copy_(weight)
            for key, value in (("", weight), *moments.items()):
                target, source = self._fragment(parameter, key or None, value.to(self.device))
                if target is not None:
                    target.copy_(source)

    def _create_moments(self, optimizer_step: int) -> None:
        for group in self.base_optimizer.param_groups:
            for parameter in group["params"]:
                kept = self.base_optimizer.state[parameter]
                for key in MOMENTS:
                    kept.setdefault(key, torch.zeros_like(parameter))
                kept["step"] = torch.tensor(float(optimizer_step))

    def _whole(self, parameter: Tensor, key: str | None) -> Tensor:
        """One float32 tensor of the parameter's shape on the CPU, gathered from all ranks."""
        if hasattr(parameter, "ds_id"):
            value = (
                safe_get_full_fp32_param(parameter)
                if key is None
                else safe_get_full_optimizer_state(parameter, key)
            )
            return value.detach().float().cpu().clone()
        buffer = torch.zeros(parameter.shape, dtype=torch.float32, device=self.device)
        target, source = self._fragment(parameter, key, buffer)
        if target is not None:
            source.copy_(target)
        if hasattr(parameter, "_hp_mapping"):
            reduce_sum(buffer)
        return buffer.cpu()

    def _fragment(
        self, parameter: Tensor, key: str | None, whole: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """This rank's part of a parameter (or moment) and the same part of `whole`, both flat views.

        ZeRO 1, 2 and the bf16 optimizer flatten a parameter group and give each rank a stretch of it; without them
        the optimizer holds the parameter itself.
        """
        if not hasattr(parameter, "_hp_mapping"):
            held = parameter if key is None else self.base_optimizer.state[parameter].get(key)
            return (None if held is None else held.detach().view(-1)), whole.view(-1)
        mapping = parameter._hp_mapping  # noqa: SLF001 - DeepSpeed's only handle on its partitions
        if mapping is None:
            return None, whole
        part = mapping.lp_fragment_address
        source = whole.view(-1).narrow(0, part.start, part.numel)
        if key is None:
            return mapping.hp_fragment.detach(), source
        flat = self.base_optimizer.param_groups[mapping.param_group_index]["params"][0]
        held = self.base_optimizer.state[flat].get(key)
        address = mapping.hp_fragment_address
        return (None if held is None else held.narrow(0, address.start, address.numel)), source


def leave_distributed() -> None:
    """Close the process group, so that no rank is left waiting."""
    if dist.is_initialized():
        dist.destroy_process_group()
