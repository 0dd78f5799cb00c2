"""Linear attention: weights that are products of features of one query and one key.

Kernels: `elu1` (Katharopoulos et al. 2020; no division by sqrt(d)); `double_softmax` (Shen et al.
2018) and `cosine`, 1 + cos(q, k), the other two of Su's post (spaces.ac.cn 7546); `exp`, e^q . e^k
(spaces.ac.cn 8338). Where a query does not see all keys, double softmax has two meanings. In
`double_softmax` every feature's softmax runs over the keys that the query sees: the last query of a
causal row then gets what it would get without the restriction. In `double_softmax_shared`, which is
how lucidrains' linear-attention-transformer is causal, e^k is divided by one sum for all features;
as that also cancels any scale of q, it is the function of `exp`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.config import config
from pipeline.models.attention import View
from pipeline.models.features import bounded_exp, elu1, scaled_exp, wide, with_direction
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer
from pipeline.models.state import (
    SumCache,
    guarded,
    mean_of,
    of_newest,
    seen_sums,
    summed,
    sums_with,
    with_ones,
)

Kernel = Literal["elu1", "cosine", "exp", "double_softmax", "double_softmax_shared"]

QUERY_FEATURES: dict[Kernel, Callable[[Tensor], Tensor]] = {
    "elu1": elu1,
    "cosine": with_direction,
    "exp": scaled_exp,
    "double_softmax": partial(torch.softmax, dim=-1),
    "double_softmax_shared": partial(torch.softmax, dim=-1),
}
KEY_FEATURES: dict[Kernel, Callable[[Tensor], Tensor]] = {
    "elu1": elu1,
    "cosine": with_direction,
    "exp": bounded_exp,
    "double_softmax": bounded_exp,
    "double_softmax_shared": bounded_exp,
}


@config
class LinearConfig:
    """Linear attention with one of five `kernel`s; they are explained in the module's docstring."""

    type: Literal["linear"] = "linear"
    kernel: Kernel = "elu1"


class LinearMixer(Mixer):
    """Multi-head linear attention; rotary positions turn queries and keys before their features."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = False
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True
    takes_rotary: ClassVar[bool] = True
    takes_window: ClassVar[bool] = False
    takes_dropout: ClassVar[bool] = False
    needs_max_length: ClassVar[bool] = False

    def __init__(self, config: LinearConfig, heads: Heads) -> None:
        super().__init__()
        self.kernel = config.kernel
        self.heads = heads
        # 1, unless the initial queries are made small in place of a divisor, as T5's are
        self.query_scale = heads.scale * heads.head_size**0.5
        inner = heads.num_heads * heads.head_size
        self.query = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.key = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.value = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.output = nn.Linear(inner, heads.hidden_size, bias=heads.projection_bias)

    @classmethod
    def prepared(cls, view: View) -> View:
        return summed(view)

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        query = self._features_of(x_q, view)
        key, value = None, None
        if cache is None or not cache.filled:
            key, value = self._keys_and_values(x_kv, view)
        if self.kernel == "double_softmax":
            query = query / self._feature_totals(query, key, view, cache)
        mixed = mean_of(sums_with(cache, query, key, value, view))
        return self.output(mixed.to(x_q.dtype).transpose(1, 2).flatten(2)), carry

    def _features_of(self, x_q: Tensor, view: View) -> Tensor:
        query = wide(self._by_head(self.query(x_q)))
        if view.rotary is not None:
            assert view.query_positions is not None
            query = view.rotary.turned(query, view.query_positions)
        return QUERY_FEATURES[self.kernel](query * self.query_scale)

    def _keys_and_values(self, x_kv: Tensor, view: View) -> tuple[Tensor, Tensor]:
        key = wide(self._by_head(self.key(x_kv)))
        if view.rotary is not None:
            assert view.key_positions is not None
            key = view.rotary.turned(key, view.key_positions[:, -key.shape[2] :])
        value = with_ones(wide(self._by_head(self.value(x_kv))))
        return KEY_FEATURES[self.kernel](key), value

    def _feature_totals(
        self, query: Tensor, key: Tensor | None, view: View, cache: SumCache | None
    ) -> Tensor:
        """Sum of each feature over the keys that a query sees, 1 for none. [B, H, Q or 1, d]."""
        if key is None:
            assert cache is not None
            assert cache.sums is not None
            total = cache.sums[..., -1][:, :, None]
        else:
            ones = torch.ones_like
            among = of_newest(view) if cache is not None else view
            total = seen_sums(ones(query[..., :1]), ones(key[..., :1]), key, among)
            if cache is not None and cache.sums is not None:
                total = total + cache.sums[..., -1][:, :, None]
        return guarded(total)

    def new_cache(self) -> SumCache:
        return SumCache(fixed=self.heads.stack == "cross")

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (-1, self.heads.head_size)).transpose(1, 2)
