"""Softmax attention (Vaswani et al. 2017, 3.2) on PyTorch's fused kernels."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.models.attention import View, attend, for_scores
from pipeline.models.cache import KeyValueCache
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer


@config
class SoftmaxConfig:
    """Softmax attention. `dropout` falls on attention weights; none means the model's own rate.

    Groups of heads share `num_kv_heads` keys and values (Ainslie et al. 2023); none: every head has
    its own.
    """

    type: Literal["softmax"] = "softmax"
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    num_kv_heads: Annotated[int, Field(ge=1)] | None = None


class SoftmaxMixer(Mixer):
    """Multi-head softmax attention; carries nothing."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = True
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True
    takes_rotary: ClassVar[bool] = True
    takes_window: ClassVar[bool] = True
    takes_dropout: ClassVar[bool] = True
    needs_max_length: ClassVar[bool] = False

    def __init__(self, config: SoftmaxConfig, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = heads.dropout if config.dropout is None else config.dropout
        inner = heads.num_heads * heads.head_size
        outer = (config.num_kv_heads or heads.num_heads) * heads.head_size
        self.query = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.key = nn.Linear(heads.hidden_size, outer, bias=heads.projection_bias)
        self.value = nn.Linear(heads.hidden_size, outer, bias=heads.projection_bias)
        self.output = nn.Linear(inner, heads.hidden_size, bias=heads.projection_bias)

    @classmethod
    def why_not(cls, config: SoftmaxConfig, heads: Heads) -> list[str]:
        groups = config.num_kv_heads
        if groups is None or heads.num_heads % groups == 0:
            return []
        fitting = [n for n in range(1, heads.num_heads + 1) if heads.num_heads % n == 0]
        return [
            f"num_kv_heads {groups} does not divide num_heads {heads.num_heads}; use one of {fitting}"
        ]

    @classmethod
    def prepared(cls, view: View) -> View:
        return for_scores(view)

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        query = self._by_head(self.query(x_q))
        if cache is not None and cache.fixed and cache.key is not None:
            key, value = cache.key, cache.value
        else:
            key, value = self._by_head(self.key(x_kv)), self._by_head(self.value(x_kv))
            if view.rotary is not None:
                assert view.key_positions is not None
                key = view.rotary.turned(key, view.key_positions[:, -key.shape[2] :])
            if cache is not None:
                key, value = cache.grown(key, value)
        if view.rotary is not None:
            assert view.query_positions is not None
            query = view.rotary.turned(query, view.query_positions)
        mixed = attend(
            query,
            key,
            value,
            view,
            scale=self.heads.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2)), carry

    def new_cache(self) -> KeyValueCache:
        return KeyValueCache(fixed=self.heads.stack == "cross")

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (-1, self.heads.head_size)).transpose(1, 2)
