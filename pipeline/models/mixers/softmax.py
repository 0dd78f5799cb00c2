"""Softmax attention (Vaswani et al. 2017, 3.2) on PyTorch's fused kernels."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.models.attention import View, attend
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer


@config
class SoftmaxConfig:
    """Softmax attention. `dropout` falls on attention weights; none means the model's own rate."""

    type: Literal["softmax"] = "softmax"
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class SoftmaxMixer(Mixer):
    """Multi-head softmax attention; carries nothing."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = True
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True

    def __init__(self, config: SoftmaxConfig, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = heads.dropout if config.dropout is None else config.dropout
        inner = heads.num_heads * heads.head_size
        self.query = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.key = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.value = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.output = nn.Linear(inner, heads.hidden_size, bias=heads.projection_bias)

    @classmethod
    def prepared(cls, view: View) -> View:
        return view.dense()

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None
    ) -> tuple[Tensor, Any]:
        mixed = attend(
            self._by_head(self.query(x_q)),
            self._by_head(self.key(x_kv)),
            self._by_head(self.value(x_kv)),
            view,
            scale=self.heads.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2)), carry

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (self.heads.num_heads, self.heads.head_size)).transpose(1, 2)
