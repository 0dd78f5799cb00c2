"""Token losses as sums: dividing is the engine's business (see `objective`)."""

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -1


def cross_entropy_sum(logits: Tensor, labels: Tensor, *, z_loss: float = 0.0) -> Tensor:
    """Sum of -log p(label) over the labels that are not IGNORED, in float32.

    logits [..., classes], labels [...]. `z_loss` adds z_loss * log(Z)^2 per label (T5; keeps the normaliser near 1).
    """
    flat = logits.float().reshape(-1, logits.shape[-1])
    target = labels.reshape(-1)
    total = functional.cross_entropy(flat, target, ignore_index=IGNORED, reduction="sum")
    if z_loss:
        log_z = torch.logsumexp(flat, dim=-1)
        total = total + z_loss * (log_z.square() * (target != IGNORED)).sum()
    return total


def correct_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of labels that are not IGNORED and have the largest logit, as a float32 scalar."""
    return ((logits.argmax(dim=-1) == labels) & (labels != IGNORED)).sum().float()
