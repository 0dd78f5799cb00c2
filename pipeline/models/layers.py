"""Parts that look at one position at a time: norms, feed-forward, embeddings, initial weights.

Norms keep their statistics in float32 under bfloat16: PyTorch's own kernels do, and a test holds
them to it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "relu", "geglu", "geglu_exact"]
NormKind = Literal["layer_norm", "rms_norm"]

TRUNCATED_AT = 2.0  # standard deviations, as in TensorFlow's truncated normal
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a unit normal cut at +-2

VOCAB_MULTIPLE = 64


def padded_vocab(vocab_size: int) -> int:
    """`vocab_size` rounded up to a multiple of 64, for fast matrix products.

    >>> padded_vocab(32100)
    32128
    """
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) over the last axis."""

    def __init__(self, size: int, eps: float, *, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019): no mean, no bias, as in T5."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        return F.rms_norm(x, weight.shape, weight, self.eps).to(x.dtype)


def norm_of(kind: NormKind, size: int, eps: float, *, bias: bool) -> nn.Module:
    """The norm that `kind` names; only layer norms can have a `bias`."""
    return LayerNorm(size, eps, bias=bias) if kind == "layer_norm" else RMSNorm(size, eps)


class FeedForward(nn.Module):
    """Two dense layers with an activation and dropout between them."""

    def __init__(
        self, hidden_size: int, ffn_size: int, activation: Activation, *, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        assert activation in ("gelu", "relu"), activation
        self.up = nn.Linear(hidden_size, ffn_size, bias=bias)
        self.down = nn.Linear(ffn_size, hidden_size, bias=bias)
        self.activation: Callable[[Tensor], Tensor] = F.gelu if activation == "gelu" else F.relu
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020): a second dense layer gated by GELU, whose tanh form is T5 1.1's."""

    def __init__(
        self, hidden_size: int, ffn_size: int, activation: Activation, *, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        assert activation in ("geglu", "geglu_exact"), activation
        self.gate = nn.Linear(hidden_size, ffn_size, bias=bias)
        self.up = nn.Linear(hidden_size, ffn_size, bias=bias)
        self.down = nn.Linear(ffn_size, hidden_size, bias=bias)
        form = "tanh" if activation == "geglu" else "none"
        self.activation = partial(F.gelu, approximate=form)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.gate(x)) * self.up(x)))


def feed_forward_of(
    activation: Activation, hidden_size: int, ffn_size: int, *, bias: bool, dropout: float
) -> nn.Module:
    """The feed-forward sub-layer with this activation."""
    kind = FeedForward if activation in ("gelu", "relu") else GatedFeedForward
    return kind(hidden_size, ffn_size, activation, bias=bias, dropout=dropout)


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float) -> None:
    """Fill with a normal cut at two of its `std`, as BERT does; 0.88 `std` is what remains."""
    nn.init.trunc_normal_(weight, 0.0, std, -TRUNCATED_AT * std, TRUNCATED_AT * std)


@torch.no_grad()
def fan_in_normal_(weight: Tensor) -> None:
    """Fill a [out, in] weight with a cut normal of standard deviation in^-1/2 (T5's dense)."""
    truncated_normal_(weight, weight.shape[1] ** -0.5 / TRUNCATED_STD)
