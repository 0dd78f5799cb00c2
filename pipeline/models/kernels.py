"""The fused kernels of softmax attention, and what each can do.

SDPA runs everywhere and takes any mask or bias. Varlen (FlashAttention over runs of documents) and
FlexAttention (which skips hidden blocks) need a GPU: flex has no gradient on CPUs, varlen no kernel.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen as torch_varlen
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from pipeline.data.example import Visibility
from pipeline.models.masks import batch_of, rule_of

Kernel = Literal["sdpa", "varlen", "flex"]
HALF = (torch.bfloat16, torch.float16)
FLASH_HEAD_SIZE = 256  # the widest head of FlashAttention
FLASH_CAPABILITY = (8, 0)  # Ampere
FLEX_HEAD_SIZES = (16, 256)
FLEX_QUERIES = 128  # one block; shorter rows have nothing to skip
HAS_WINDOWS = "window_size" in inspect.signature(torch_varlen.varlen_attn).parameters


def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """PyTorch's own choice of kernel; `added` is a mask (bool) or a bias with -inf where unseen."""
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=added,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def varlen_can(query: Tensor, visibility: Visibility) -> bool:
    """Whether these rows are runs of documents that varlen attention keeps apart by itself."""
    return (
        HAS_WINDOWS
        and query.is_cuda
        and query.dtype in HALF
        and query.shape[-1] <= FLASH_HEAD_SIZE
        and torch.cuda.get_device_capability(query.device) >= FLASH_CAPABILITY
        and visibility.kind in ("all", "causal")
        and visibility.key_segments is not None
        and visibility.query_segments is visibility.key_segments
    )


def runs_of(segments: Tensor) -> Tensor:
    """Places, counted over all rows, where a run of equal `segments` [B, T] begins, and the end.

    int32 [runs + 1]. The number of runs is read back from the device, once for all layers.
    """
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    places = starts.flatten().nonzero()[:, 0]
    return F.pad(places, (0, 1), value=segments.numel()).int()


def varlen(
    query: Tensor, key: Tensor, value: Tensor, runs: Tensor, visibility: Visibility, scale: float
) -> Tensor:
    """Attention inside each of `runs` (`runs_of`); padding, a run of its own, gets zeros."""
    segments = visibility.key_segments
    assert segments is not None
    width = -1 if visibility.window is None else visibility.window
    length = query.shape[2]
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    mixed = torch_varlen.varlen_attn(
        query,
        key,
        value,
        runs,
        runs,
        length,
        length,
        scale=scale,
        window_size=(width, 0 if visibility.kind == "causal" else width),
        enable_gqa=key.shape[1] != query.shape[1],  # heads are the second axis here too
    )
    assert isinstance(mixed, Tensor)
    mixed = mixed.unflatten(0, segments.shape).transpose(1, 2)
    return mixed * (segments > 0)[:, None, :, None]


def flex_can(query: Tensor, visibility: Visibility) -> bool:
    """Whether FlexAttention takes this and could gain by it."""
    narrow, broad = FLEX_HEAD_SIZES
    hides = visibility.kind != "all" or visibility.window or visibility.key_segments is not None
    fits = narrow <= query.shape[-1] <= broad and query.shape[2] >= FLEX_QUERIES
    return query.is_cuda and fits and bool(hides)


def blocks_of(
    visibility: Visibility, queries: int, keys: int, first_query: int, device: torch.device
) -> Any:
    """The block mask of a visibility; None where nothing is hidden."""
    rule = rule_of(visibility, keys, first_query)
    if rule is None:
        return None

    def shifted(b: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return rule(b, i + first_query, j)

    return create_block_mask(shifted, batch_of(visibility), None, queries, keys, device=str(device))


@functools.cache
def _flex_on(device: str) -> Callable[..., Any]:
    run: Any = flex_attention
    return torch.compile(run) if device == "cuda" else run


def flex(query: Tensor, key: Tensor, value: Tensor, blocks: Any, scale: float) -> Tensor:
    """FlexAttention: only what `blocks` (`blocks_of`) shows is computed."""
    mixed: Tensor = _flex_on(query.device.type)(
        query,
        key,
        value,
        block_mask=blocks,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return mixed
