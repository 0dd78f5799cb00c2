"""Sums over the keys before, at and after each query, in time linear in the length.

The idea: the row is cut into chunks. Inside a chunk, products of queries and keys are made and
masked; between chunks only sums of key-value products travel. Nothing is ever subtracted, so a key
that a query does not see has no part in its sum, not even in rounding. What flows back through such
a sum is three sums of the same kind, so the gradient needs no stored sums either.
"""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.precision import own_precision

CHUNK = 64  # tokens; benchmarks/attention_scaling.py compares others
Side = Literal["before", "after"]


class Sides(NamedTuple):
    """Which keys of its own document a query sees: those before it, its own, those after it."""

    before: bool
    own: bool
    after: bool

    def turned(self) -> "Sides":
        """Which queries see a key."""
        return Sides(self.after, self.own, self.before)

    def flows(self) -> list[Side]:
        """Where sums come from that reach a chunk from outside."""
        return [side for side in ("before", "after") if getattr(self, side)]


def side_sums(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sides: Sides,
    runs: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Sum of (query_i . key_j) value_j over the j that i sees by `sides` in its own run.

    query [B, H, T, m], key [B, H, T, m] and value [B, H, T, e] give [B, H, T, e]. `runs` [B, T]
    numbers documents, each in one piece; none means one document. Time T (chunk (m + e) + m e),
    memory T (chunk + m + e) + (T / chunk) m e for each head. Float32 or float64, also under
    autocast. Causal form and its gradient: Katharopoulos et al. 2020, 3.3.
    """
    return _SideSums.apply(query, key, value, runs, sides, chunk)


class _SideSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        runs: Tensor | None,
        sides: Sides,
        chunk: int,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, runs)
        ctx.sides, ctx.chunk = sides, min(chunk, query.shape[2])
        length = query.shape[2]
        with own_precision(query):
            q, k, v = (_cut(part, ctx.chunk) for part in (query, key, value))
            runs = _cut_runs(runs, ctx.chunk)
            out = (q @ k.mT).mul_(_mask(sides, runs, ctx.chunk, q)) @ v
            for side in sides.flows():
                _add_inflow(out, q, k, v, runs, side)
        return out.flatten(2, 3)[:, :, :length]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, runs = ctx.saved_tensors
        length = query.shape[2]
        with own_precision(query):
            q, k, v, g = (_cut(part, ctx.chunk) for part in (query, key, value, grad))
            runs = _cut_runs(runs, ctx.chunk)
            mask = _mask(ctx.sides, runs, ctx.chunk, q)
            weights, pulls = (q @ k.mT).mul_(mask), (g @ v.mT).mul_(mask)
            of_query, of_key, of_value = pulls @ k, pulls.mT @ q, weights.mT @ g
            for side in ctx.sides.flows():
                _add_inflow(of_query, g, v, k, runs, side)
            for side in ctx.sides.turned().flows():
                sums = _inflow(q, g, runs, side)
                _add_product(of_key, _reading(v, runs, side), sums.mT)
                _add_product(of_value, _reading(k, runs, side), sums)
        grads = [part.flatten(2, 3)[:, :, :length] for part in (of_query, of_key, of_value)]
        return (*grads, None, None, None)


def _cut(states: Tensor, chunk: int) -> Tensor:
    """[B, H, T, m] as [B, H, chunks, chunk, m], zeros after the end."""
    missing = -states.shape[2] % chunk
    if missing:
        states = F.pad(states, (0, 0, 0, missing))
    return states.contiguous().unflatten(2, (-1, chunk))


def _cut_runs(runs: Tensor | None, chunk: int) -> Tensor | None:
    """[B, T] as [B, 1, chunks, chunk]; what is after the end belongs to the last run."""
    if runs is None:
        return None
    missing = -runs.shape[1] % chunk
    if missing:
        runs = torch.cat([runs, runs[:, -1:].expand(-1, missing)], dim=1)
    return runs.unflatten(1, (-1, chunk))[:, None]


def _mask(sides: Sides, runs: Tensor | None, chunk: int, like: Tensor) -> Tensor:
    """1 where a query sees a key of the same chunk, else 0."""
    mask = like.new_zeros(chunk, chunk)
    ones = torch.ones_like(mask)
    if sides.before:
        mask += ones.tril(-1)
    if sides.own:
        mask += torch.eye(chunk, dtype=like.dtype, device=like.device)
    if sides.after:
        mask += ones.triu(1)
    return mask if runs is None else mask * (runs[..., :, None] == runs[..., None, :])


def _leaving(runs: Tensor, side: Side) -> Tensor:
    """The run at the border over which each chunk hands on its sums. [B, 1, chunks, 1]."""
    return runs[..., -1:] if side == "before" else runs[..., :1]


def _entering(runs: Tensor, side: Side) -> Tensor:
    """The run whose sums reach each chunk from `side`; -1 at the end of the row. As `_leaving`."""
    leaving = _leaving(runs, side)
    nobody = torch.full_like(leaving[:, :, :1], -1)
    if side == "before":
        return torch.cat([nobody, leaving[:, :, :-1]], dim=2)
    return torch.cat([leaving[:, :, 1:], nobody], dim=2)


def _inflow(key: Tensor, value: Tensor, runs: Tensor | None, side: Side) -> Tensor:
    """Sum of key_j value_j over the chunks before (or after) each one. [B, H, chunks, m, e].

    With runs: over the run that reaches across the border.
    """
    if runs is not None:
        key = key * (runs == _leaving(runs, side))[..., None].to(key.dtype)
    own = key.mT @ value
    if runs is None and own.is_cuda:  # one kernel, where a CPU would stride through all sums
        own = own if side == "before" else own.flip(2)
        sums = F.pad(own[:, :, :-1], (0, 0, 0, 0, 1, 0)).cumsum(dim=2)
        return sums if side == "before" else sums.flip(2)
    sums = torch.zeros_like(own)
    order = range(own.shape[2]) if side == "before" else range(own.shape[2] - 1, -1, -1)
    goes_on = None
    if runs is not None:
        goes_on = (_leaving(runs, side) == _entering(runs, side))[..., None].to(key.dtype)
    for last, this in pairwise(order):
        earlier = sums[:, :, last] if goes_on is None else sums[:, :, last] * goes_on[:, :, last]
        torch.add(own[:, :, last], earlier, out=sums[:, :, this])
    return sums


def _reading(query: Tensor, runs: Tensor | None, side: Side) -> Tensor:
    """The queries that belong to the run which enters their chunk from `side`; others are zero."""
    if runs is None:
        return query
    return query * (runs == _entering(runs, side))[..., None].to(query.dtype)


def _add_inflow(
    out: Tensor, query: Tensor, key: Tensor, value: Tensor, runs: Tensor | None, side: Side
) -> None:
    _add_product(out, _reading(query, runs, side), _inflow(key, value, runs, side))


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """out += left @ right, without a tensor in between."""
    out.view(-1, *out.shape[3:]).baddbmm_(left.flatten(0, 2), right.flatten(0, 2))
