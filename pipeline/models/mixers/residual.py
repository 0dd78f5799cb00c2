"""RealFormer (He et al. 2020): every layer adds its scores to those of the layers before.

What is carried is the raw running sum, as in the authors' code: neither masked, nor biased, nor
divided. It equals scores of the concatenated queries and keys of all layers so far, which is the
other form: no scores are kept, so memory grows with the length and not with its square, while the
work of layer l's scores grows l times.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.models.attention import View, attend
from pipeline.models.cache import KeyValueCache
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer
from pipeline.models.precision import own_precision
from pipeline.models.scores import mean_by_scores


@config
class ResidualConfig:
    """Softmax attention over scores that are summed over layers.

    `total` "mean" divides the sum by its number of layers before the softmax (for 30 layers or more,
    and in the paper's translation models). `form` "concatenated" computes the same from the queries
    and keys of all layers, without keeping scores. `dropout` falls on attention weights; none means
    the model's own rate.
    """

    type: Literal["residual"] = "residual"
    total: Literal["sum", "mean"] = "sum"
    form: Literal["scores", "concatenated"] = "scores"
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


@dataclass(frozen=True)
class ScoreChain:
    """Running sum of the scores of `layers` layers, float32 [B, H, Q, K]."""

    scores: Tensor
    layers: int


@dataclass(frozen=True)
class FactorChain:
    """Queries [B, H, Q, layers * d] and keys [B, H, K, layers * d] whose products are that sum."""

    query: Tensor
    key: Tensor
    layers: int


class ResidualMixer(Mixer):
    """Multi-head attention with residual scores; parameters are those of softmax attention."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = True
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True
    takes_rotary: ClassVar[bool] = True
    takes_window: ClassVar[bool] = True
    takes_dropout: ClassVar[bool] = True
    needs_max_length: ClassVar[bool] = False

    def __init__(self, config: ResidualConfig, heads: Heads) -> None:
        super().__init__()
        self.config = config
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
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        query = self._by_head(self.query(x_q))
        if view.rotary is not None:
            assert view.query_positions is not None
            query = view.rotary.turned(query, view.query_positions)
        key, value = self._keys_and_values(x_kv, view, cache)
        if self.config.form == "concatenated" and not isinstance(carry, ScoreChain):
            mixed, carry = self._by_factors(query, key, value, view, carry)
        else:
            mixed, carry = self._by_scores(query, key, value, view, carry)
        return self.output(mixed.to(x_q.dtype).transpose(1, 2).flatten(2)), carry

    def _keys_and_values(self, x_kv: Tensor, view: View, cache: Any) -> tuple[Tensor, Tensor]:
        if cache is not None and cache.fixed and cache.key is not None:
            return cache.key, cache.value
        key, value = self._by_head(self.key(x_kv)), self._by_head(self.value(x_kv))
        if view.rotary is not None:
            assert view.key_positions is not None
            key = view.rotary.turned(key, view.key_positions[:, -key.shape[2] :])
        return (key, value) if cache is None else cache.grown(key, value)

    def _by_scores(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        view: View,
        chain: ScoreChain | FactorChain | None,
    ) -> tuple[Tensor, ScoreChain]:
        wide = torch.promote_types(query.dtype, torch.float32)
        with own_precision(query):
            scaled, keys = query.to(wide) * self.heads.scale, key.to(wide).mT
            match chain:
                case None:
                    scores = scaled @ keys
                case FactorChain():
                    earlier = chain.query.to(wide) * self.heads.scale @ chain.key.to(wide).mT
                    scores = earlier + scaled @ keys
                case ScoreChain():
                    before = chain.scores.flatten(0, 1)
                    scores = torch.baddbmm(before, scaled.flatten(0, 1), keys.flatten(0, 1))
                    scores = scores.unflatten(0, query.shape[:2])
            layers = 1 if chain is None else chain.layers + 1
            used = scores / layers if self.config.total == "mean" and layers > 1 else scores
        dropout = self.dropout if self.training else 0.0
        return mean_by_scores(used, value.to(wide), view, dropout), ScoreChain(scores, layers)

    def _by_factors(
        self, query: Tensor, key: Tensor, value: Tensor, view: View, chain: FactorChain | None
    ) -> tuple[Tensor, FactorChain]:
        if chain is not None:
            query = torch.cat([chain.query, query], dim=-1)
            key = torch.cat([chain.key, key], dim=-1)
        layers = 1 if chain is None else chain.layers + 1
        own = self.heads.head_size
        mixed = attend(
            query,
            key,
            F.pad(value, (0, query.shape[-1] - own)),  # fused kernels want one width for all three
            view,
            scale=self.heads.scale / (layers if self.config.total == "mean" else 1),
            dropout=self.dropout if self.training else 0.0,
        )
        return mixed[..., :own], FactorChain(query, key, layers)

    def new_cache(self) -> KeyValueCache:
        return KeyValueCache(fixed=self.heads.stack == "cross")

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (-1, self.heads.head_size)).transpose(1, 2)
