"""Optimizers, and which parameters they decay."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@config
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019). Biases and norms are not decayed.

    `lr` is the peak of the schedule, `betas` the decay of both moments, `eps` the denominator's.
    Without `bias_correction` the first steps are longer, up to 6.6 times with betas (0.9, 0.999):
    the released codes of BERT, ELECTRA, UniLM and T-TA train like that.
    """

    type: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bias_correction: bool = True

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """An optimizer over the parameters of `network` that require gradients."""
        make = torch.optim.AdamW if self.bias_correction else UncorrectedAdamW
        groups = parameter_groups(network, self.weight_decay)
        return make(groups, lr=self.lr, betas=self.betas, eps=self.eps)


class UncorrectedAdamW(torch.optim.Optimizer):
    """AdamW whose moments start at zero and are taken as they are."""

    def __init__(self, params: Any, *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-group["lr"])


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices, decayed; vectors (biases, norms), not decayed."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = (
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
