"""The contract of every mixer: how tokens exchange information inside a block.

A mixer owns its projections, realises a `View` in its own way, and declares what it can honour, so
that a combination that cannot work is refused when a configuration is loaded.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor, nn

from pipeline.data.example import VisibilityKind
from pipeline.models.attention import View

EVERY_KIND: frozenset[str] = frozenset(get_args(VisibilityKind))


@dataclass(frozen=True)
class Heads:
    """The widths and rules that a core gives to its mixers.

    `num_heads` x `head_size` need not be `hidden_size`. `scale` multiplies query-key products.
    `dropout` is the core's rate, for mixers that set none of their own.
    """

    hidden_size: int
    num_heads: int
    head_size: int
    scale: float
    projection_bias: bool
    dropout: float


class Mixer(nn.Module):
    """Base of all mixers: states of queries and of keys/values in, states of queries out."""

    honours: ClassVar[frozenset[str]]  # kinds of visibility
    takes_bias: ClassVar[bool]  # whether `view.bias` is used
    takes_segments: ClassVar[bool]  # whether packed documents and padding are kept apart
    takes_cross: ClassVar[bool]  # whether keys may come from other states than queries

    @classmethod
    def prepared(cls, view: View) -> View:
        """What a stack gives to all of its layers in place of `view`; dense where scores are."""
        return view

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None
    ) -> tuple[Tensor, Any]:
        """x_q [B, Q, D] and x_kv [B, K, D] give [B, Q, D] and what is carried to the next layer.

        Queries that see nothing get the projection of zeros, never NaN.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Needs:
    """What a model asks of its mixers."""

    kinds: frozenset[str]  # of visibility
    bias: bool = False
    segments: bool = True
    cross: bool = False


def refusals(mixer: type[Mixer], needs: Needs) -> list[str]:
    """Why `mixer` cannot serve a model with these needs; empty when it can."""
    missing = sorted(needs.kinds - mixer.honours)
    reasons = [f"cannot honour {kind!r} visibility" for kind in missing]
    if needs.bias and not mixer.takes_bias:
        reasons.append("has no place for a position bias on scores")
    if needs.segments and not mixer.takes_segments:
        reasons.append("cannot keep padding and packed documents apart")
    if needs.cross and not mixer.takes_cross:
        reasons.append("cannot attend from one sequence to another")
    return reasons
