"""The contract of every mixer: how tokens exchange information inside a block.

A mixer owns its projections, realises a `View` in its own way, and declares what it can honour, so
that a combination that cannot work is refused when a configuration is loaded.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from torch import Tensor, nn

from pipeline.data.example import VisibilityKind
from pipeline.models.attention import View

EVERY_KIND: frozenset[str] = frozenset(get_args(VisibilityKind))
StackName = Literal["encoder", "decoder", "cross"]


@dataclass(frozen=True)
class Heads:
    """The widths and rules that a core gives to its mixers.

    `num_heads` x `head_size` need not be `hidden_size`. `scale` multiplies query-key products.
    `dropout` is the core's rate, for mixers that set none of their own. `max_length` is the longest
    document in tokens, if the model has a limit. `layer` (from 0) is the mixer's place in its
    `stack`, so that keyed draws differ between layers; cross-attention is a stack of its own.
    """

    hidden_size: int
    num_heads: int
    head_size: int
    scale: float
    projection_bias: bool
    dropout: float
    max_length: int | None = None
    layer: int = 0
    stack: StackName = "encoder"


class Cache(Protocol):
    """What one mixer remembers of the tokens it has seen, while a sequence grows."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch ([new batch], int64); one may be taken twice."""
        ...

    def forget(self, count: int) -> None:
        """Take back the newest `count` places, all of which came with the last call."""
        ...


class Mixer(nn.Module):
    """Base of all mixers: states of queries and of keys/values in, states of queries out."""

    honours: ClassVar[frozenset[str]]  # kinds of visibility
    takes_bias: ClassVar[bool]  # whether `view.bias` is used
    takes_segments: ClassVar[bool]  # whether packed documents and padding are kept apart
    takes_cross: ClassVar[bool]  # whether keys may come from other states than queries
    takes_rotary: ClassVar[bool]  # whether `view.rotary` is used
    takes_window: ClassVar[bool]  # whether `visibility.window` is honoured
    takes_dropout: ClassVar[bool]  # whether attention weights exist that could be dropped
    needs_max_length: ClassVar[bool]  # whether `heads.max_length` must be known

    @classmethod
    def why_not(cls, _config: Any, _heads: Heads) -> list[str]:
        """Why a config does not fit these heads, in words; empty when it does."""
        return []

    @classmethod
    def prepared(cls, view: View) -> View:
        """What a stack gives to all of its layers in place of `view`; dense where scores are.

        `view` has its positions (`View.located`).
        """
        return view

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        """x_q [B, Q, D] and x_kv [B, K, D] give [B, Q, D] and what is carried to the next layer.

        A mixer that carries nothing hands `carry` on as it came. Queries that see nothing get the
        projection of zeros, never NaN. With a `cache` x_q and x_kv hold the new places only, while
        `view` spans new queries x all keys so far; a cache of cross-attention is filled by the
        first call, and later ones read it in place of x_kv.
        """
        raise NotImplementedError

    def new_cache(self) -> Cache:
        """An empty cache for `forward`."""
        raise NotImplementedError

    def at_step(self, step: int) -> None:
        """Told before each optimizer step (from 0); keyed draws that change the graph go here."""


@dataclass(frozen=True)
class Needs:
    """What a model asks of its mixers."""

    kinds: frozenset[str]  # of visibility
    bias: bool = False
    segments: bool = True
    cross: bool = False
    rotary: bool = False
    window: bool = False


def refusals(mixer: type[Mixer], needs: Needs) -> list[str]:
    """Why `mixer` cannot serve a model with these needs; empty when it can."""
    missing = sorted(needs.kinds - mixer.honours)
    reasons = [f"cannot honour {kind!r} visibility" for kind in missing]
    wanted = (
        (needs.bias, mixer.takes_bias, "has no place for a position bias on scores"),
        (needs.segments, mixer.takes_segments, "cannot keep padding and packed documents apart"),
        (needs.cross, mixer.takes_cross, "cannot attend from one sequence to another"),
        (needs.rotary, mixer.takes_rotary, "has no queries and keys that rotary positions turn"),
        (needs.window, mixer.takes_window, "cannot be limited to a window"),
    )
    return reasons + [words for asked, can, words in wanted if asked and not can]
