"""Performer (Choromanski et al. 2021): softmax attention estimated by random features, or ReLU ones.

Where this differs from the authors' code: no maximum over keys is subtracted (it shows causal
queries what comes later) and nothing is added to exponential features; orthogonal rows have uniform
signs; redraws are keyed by the training step, not seeded by the data.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.models.attention import View
from pipeline.models.features import bounded_exp, scaled_exp, wide
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer
from pipeline.models.precision import own_precision
from pipeline.models.random_features import (
    RowNorms,
    Rows,
    drawn_rows,
    hyperbolic_exponents,
    positive_exponents,
    relu_features,
)
from pipeline.models.state import SumCache, mean_of, summed, sums_with, with_ones
from pipeline.runtime import rng_of

# Added to exponents of all keys, which no weighted mean shows: they are negative where keys are long
LIFT = 20.0
EXPONENTS = {"positive": positive_exponents, "hyperbolic": hyperbolic_exponents}


@config
class PerformerConfig:
    """Performer attention with `num_features` features a head.

    `features`: "positive" e^(w.x), "hyperbolic" e^(w.x) and e^(-w.x) for half as many w, "relu"
    max(w.x, 0) + 0.001. `rows` w are orthogonal in blocks of the head's size, or independent;
    `row_norms` those of normal vectors ("chi") or all sqrt(d) (the paper's SMREG). New rows are drawn
    at every `redraw_every`-th training step; none: the first stay. `seed` keys the draws.
    """

    type: Literal["performer"] = "performer"
    features: Literal["positive", "hyperbolic", "relu"] = "positive"
    num_features: Annotated[int, Field(ge=2)] = 256
    rows: Rows = "orthogonal"
    row_norms: RowNorms = "chi"
    redraw_every: Annotated[int, Field(ge=1)] | None = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features == "hyperbolic" and self.num_features % 2:
            raise ValueError(
                f"num_features {self.num_features}: hyperbolic features come in pairs; "
                f"use {self.num_features + 1}"
            )


class PerformerMixer(Mixer):
    """Multi-head attention through random features; rows, their draw and seed are saved with it."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = False
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True
    takes_rotary: ClassVar[bool] = True
    takes_window: ClassVar[bool] = False
    takes_dropout: ClassVar[bool] = False
    needs_max_length: ClassVar[bool] = False

    rows: Tensor
    draw: Tensor
    seed: Tensor

    def __init__(self, config: PerformerConfig, heads: Heads) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        inner = heads.num_heads * heads.head_size
        self.query = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.key = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.value = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.output = nn.Linear(inner, heads.hidden_size, bias=heads.projection_bias)
        count = config.num_features // (2 if config.features == "hyperbolic" else 1)
        self.register_buffer("rows", torch.empty(count, heads.head_size))
        self.register_buffer("draw", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.tensor(config.seed))
        self._redraw(0)
        self._drawn: int | None = None  # by this process: what was loaded may be another

    def at_step(self, step: int) -> None:
        """Redraw if it is time; the same rows for a step on every rank and after every restart.

        Frozen networks keep their rows.
        """
        if self.config.redraw_every is None or not self.query.weight.requires_grad:
            return
        number = step // self.config.redraw_every
        if number != self._drawn:
            self._redraw(number)
            self._drawn = number

    @torch.no_grad()
    def _redraw(self, number: int) -> None:
        if self.rows.is_meta:
            return
        own, heads = self.config, self.heads
        purpose = f"performer features {heads.stack}"
        rng = rng_of(own.seed, purpose, heads.layer, number)
        drawn = drawn_rows(rng, len(self.rows), heads.head_size, own.rows, own.row_norms)
        self.rows.copy_(torch.from_numpy(drawn).float())  # the same in a wider network
        self.draw.fill_(number)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PerformerMixer":
        """Rows stay float32 in a network of a narrower type: features are computed in float32."""
        wider = self.rows
        super()._apply(fn, recurse)
        if self.rows.dtype in (torch.bfloat16, torch.float16):
            self.rows = wider.to(self.rows.device)
        return self

    @classmethod
    def prepared(cls, view: View) -> View:
        return summed(view)

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        query = self._features_of_queries(x_q, view)
        key, value = None, None
        if cache is None or not cache.filled:
            key = self._features_of_keys(x_kv, view)
            value = with_ones(wide(self._by_head(self.value(x_kv))))
        mixed = mean_of(sums_with(cache, query, key, value, view))
        return self.output(mixed.to(x_q.dtype).transpose(1, 2).flatten(2)), carry

    def _features_of_queries(self, x_q: Tensor, view: View) -> Tensor:
        query = wide(self._by_head(self.query(x_q)))
        if view.rotary is not None:
            assert view.query_positions is not None
            query = view.rotary.turned(query, view.query_positions)
        # the scale is shared out so that a core's initial queries and keys come out equally long
        query = query * (self.heads.scale * self.heads.head_size**0.25)
        with own_precision(query):
            if self.config.features == "relu":
                return relu_features(query, self.rows)
            return scaled_exp(EXPONENTS[self.config.features](query, self.rows))

    def _features_of_keys(self, x_kv: Tensor, view: View) -> Tensor:
        key = wide(self._by_head(self.key(x_kv)))
        if view.rotary is not None:
            assert view.key_positions is not None
            key = view.rotary.turned(key, view.key_positions[:, -key.shape[2] :])
        key = key * self.heads.head_size**-0.25
        with own_precision(key):
            if self.config.features == "relu":
                return relu_features(key, self.rows)
            return bounded_exp(EXPONENTS[self.config.features](key, self.rows) + LIFT)

    def new_cache(self) -> SumCache:
        return SumCache(fixed=self.heads.stack == "cross")

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (-1, self.heads.head_size)).transpose(1, 2)
