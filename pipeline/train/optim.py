"""Optimizers and learning-rate schedules. A schedule is a pure function of the step, so it has no state to save."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from pipeline.config import config

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@config
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019). Biases and norms are not decayed.

    `lr` is the peak of the schedule, `betas` the decay of both moments, `eps` the denominator's.
    """

    type: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """An optimizer over the parameters of `network` that require gradients."""
        return torch.optim.AdamW(
            parameter_groups(network, self.weight_decay), lr=self.lr, betas=self.betas, eps=self.eps
        )


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices, decayed; vectors (biases, norms), not decayed."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = (
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


@config
class ScheduleConfig:
    """Learning rate over the run as a share of the peak: `warmup_steps` up, then as `type` says.

    linear: to `final` in a straight line; cosine: to `final` along a half cosine; constant: stay at 1.
    """

    type: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final: Fraction = 0.0

    def share(self, step: int, steps: int) -> float:
        """Share of the peak learning rate for the update number `step` (0-based) of `steps`.

        The first update already moves: with 10 warm-up steps it runs at 1/10 of the peak, the tenth at the peak.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        match self.type:
            case "constant":
                return 1.0
            case "linear":
                return 1.0 - (1.0 - self.final) * done
            case "cosine":
                return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))
