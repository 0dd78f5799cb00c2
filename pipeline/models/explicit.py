"""Softmax attention with its weights written down: what a CPU does faster than by SDPA.

SDPA has no fused kernel for dropout or for a bias that learns on a CPU: it falls back to single
operations that keep four copies of the scores, in float32. Here one copy of the weights is kept, in
the type of the states, and gradients are computed in that type; scores and softmax are float32.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.dropout import inverse_kept, kept
from pipeline.models.kernels import HALF
from pipeline.models.precision import own_precision

SHORT = 512  # keys up to which bfloat16 gains by it; beyond, weights are too large to keep


def gains(query: Tensor, key: Tensor, added: Tensor | None, dropout: float) -> bool:
    """Whether `explicit` is faster here than SDPA, and takes these heads."""
    if query.is_cuda or not torch.is_grad_enabled() or query.shape[1] != key.shape[1]:
        return False
    learned = added is not None and added.requires_grad
    short = query.dtype in HALF and key.shape[2] <= SHORT and query.requires_grad
    return bool(dropout) or learned or short


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    sighted: Tensor | None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """query [B, H, Q, d], key and value [B, H, K, d] to [B, H, Q, d], with gradients for all.

    `added` is a mask (bool) or a bias with -inf where unseen, broadcast to [B, H, Q, K]; `sighted`
    [.., Q, 1] says which queries see anything (None: all), the others get zeros.
    """
    with own_precision(query):
        out: Tensor = _Explicit.apply(query, key, value, added, sighted, scale, dropout)
    return out


def _flat(states: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, H, T, d] as contiguous [B H, T, d] in `dtype`."""
    return states.to(dtype, memory_format=torch.contiguous_format).flatten(0, 1)


class _Explicit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        added: Tensor | None,
        sighted: Tensor | None,
        scale: float,
        rate: float,
    ) -> Tensor:
        """Scores are turned into weights in place."""
        wide = torch.promote_types(query.dtype, torch.float32)
        scores = torch.bmm(_flat(query, wide).mul(scale), _flat(key, wide).mT)
        scores = scores.unflatten(0, query.shape[:2])
        if added is not None and added.dtype == torch.bool:
            scores.masked_fill_(~added, -math.inf)
        elif added is not None:
            scores.add_(added)
        weights = scores.softmax(dim=-1)
        if sighted is not None:
            weights.masked_fill_(~sighted, 0.0)
        weights = weights.to(query.dtype).flatten(0, 1)
        mask = kept(weights.shape, rate) if rate else None
        ctx.scale, ctx.factor = scale, inverse_kept(rate)
        ctx.bias_shape = added.shape if added is not None and added.requires_grad else None
        ctx.bias_type = None if added is None else added.dtype
        seen = weights if mask is None else weights * mask
        mixed = torch.bmm(seen, _flat(value, value.dtype))
        if mask is not None:
            mixed.mul_(ctx.factor)
        ctx.save_for_backward(query, key, value, weights, mask, mixed)
        return mixed.unflatten(0, query.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key, value and, where it learns, of the bias."""
        query, key, value, weights, mask, mixed = ctx.saved_tensors
        heads, dtype = query.shape[:2], query.dtype
        grad = _flat(grad, dtype)
        centre = (grad * mixed).sum(
            dim=-1, keepdim=True
        )  # the mean of what reaches a query's weights
        if mask is not None:
            grad = grad * ctx.factor
        seen = weights if mask is None else weights * mask
        of_value = torch.bmm(seen.mT, grad)
        of_weights = torch.bmm(grad, _flat(value, dtype).mT)
        if mask is not None:
            of_weights.mul_(mask)
        of_scores = of_weights.sub_(centre).mul_(weights)
        of_query = torch.bmm(of_scores, _flat(key, dtype)).mul_(ctx.scale)
        of_key = torch.bmm(of_scores.mT, _flat(query, dtype)).mul_(ctx.scale)
        of_bias = None
        if ctx.bias_shape is not None:
            of_bias = of_scores.unflatten(0, heads).sum_to_size(ctx.bias_shape).to(ctx.bias_type)
        parts = (part.unflatten(0, heads) for part in (of_query, of_key, of_value))
        return (*parts, of_bias, None, None, None)
