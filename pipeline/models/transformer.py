"""The one core all models are made of: a block, and a walk through blocks.

A block is up to three sub-layers (mixing, cross attention, feed-forward), each inside a residual
connection that is normalised before (T5) or after (BERT) the sub-layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from pipeline.models.attention import View
from pipeline.models.layers import NORMS, Activation, FeedForward, GatedFeedForward, NormKind
from pipeline.models.mixers import MixerConfig, mixer_of
from pipeline.models.mixers.mixer import Heads


@dataclass(frozen=True)
class Core:
    """What the blocks of one stack have in common."""

    heads: Heads
    ffn_size: int
    activation: Activation
    norm: NormKind
    norm_eps: float
    normalised: Literal["before", "after"]  # pre-norm or post-norm
    dropout: float
    mixer: MixerConfig


class Memory(NamedTuple):
    """What a decoder attends to: encoded states [B, K, D] and which of them each position sees."""

    states: Tensor
    view: View


class PreNorm(nn.Module):
    """x + dropout(f(norm(x)))."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.norm = NORMS[core.norm](core.heads.hidden_size, core.norm_eps)
        self.dropout = nn.Dropout(core.dropout)

    def enter(self, x: Tensor) -> Tensor:
        """What the sub-layer is given."""
        return self.norm(x)

    def leave(self, x: Tensor, change: Tensor) -> Tensor:
        """`x` with the sub-layer's `change`."""
        return x + self.dropout(change)


class PostNorm(PreNorm):
    """norm(x + dropout(f(x)))."""

    def enter(self, x: Tensor) -> Tensor:
        return x

    def leave(self, x: Tensor, change: Tensor) -> Tensor:
        return self.norm(x + self.dropout(change))


RESIDUALS = {"before": PreNorm, "after": PostNorm}


def feed_forward_of(core: Core) -> nn.Module:
    """The feed-forward sub-layer that `core` asks for."""
    bias, dropout = core.heads.projection_bias, core.dropout
    if core.activation == "gated_gelu":
        return GatedFeedForward(core.heads.hidden_size, core.ffn_size, bias=bias, dropout=dropout)
    return FeedForward(
        core.heads.hidden_size, core.ffn_size, core.activation, bias=bias, dropout=dropout
    )


class Block(nn.Module):
    """Mixing and feed-forward."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        residual = RESIDUALS[core.normalised]
        self.mixer = mixer_of(core.mixer, core.heads)
        self.mixer_residual = residual(core)
        self.feed_forward = feed_forward_of(core)
        self.feed_forward_residual = residual(core)

    def forward(
        self, hidden: Tensor, view: View, carry: Any = None, memory: Memory | None = None
    ) -> tuple[Tensor, Any]:
        """hidden [B, T, D] to [B, T, D], and what the mixer carries to the next block."""
        x = self.mixer_residual.enter(hidden)
        change, carry = self.mixer(x, x, view, carry)
        hidden = self.mixer_residual.leave(hidden, change)
        hidden = self.look_at(hidden, memory)
        change = self.feed_forward(self.feed_forward_residual.enter(hidden))
        return self.feed_forward_residual.leave(hidden, change), carry

    def look_at(self, hidden: Tensor, memory: Memory | None) -> Tensor:
        """Nothing is attended to outside the sequence; `CrossBlock` does."""
        assert memory is None, "this block has no cross attention"
        return hidden


class CrossBlock(Block):
    """A block that attends to an encoder's states between mixing and feed-forward."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.cross_mixer = mixer_of(core.mixer, core.heads)
        self.cross_residual = RESIDUALS[core.normalised](core)

    def look_at(self, hidden: Tensor, memory: Memory | None) -> Tensor:
        assert memory is not None, "a decoder block needs encoded states"
        x = self.cross_residual.enter(hidden)
        change, _ = self.cross_mixer(x, memory.states, memory.view)
        return self.cross_residual.leave(hidden, change)


def run_blocks(
    blocks: Iterable[nn.Module], hidden: Tensor, view: View, memory: Memory | None = None
) -> Tensor:
    """`hidden` [B, T, D] through `blocks`, one after the other."""
    carry = None
    for block in blocks:
        hidden, carry = block(hidden, view, carry, memory)
    return hidden
