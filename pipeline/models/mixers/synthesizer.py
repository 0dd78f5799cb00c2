"""Synthesizer (Tay et al. 2020): attention whose scores need no pairs of tokens, and mixtures.

A mixture adds the scores of its parts before the one softmax. Its weights are a learned softmax
over the parts (paper), a sigmoid gate between dot products and one other part, which starts at one
half (the released code's `plus_alpha`), or all one (its `plus`). `dense` follows the paper's
formula, `dense_shared` the released code: no biases, the projection of queries as first layer, and
one table for all heads. The code's random forms take keys from the projection of values:
`key_projection: value`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from pipeline.config import DataError, config
from pipeline.data.example import Visibility
from pipeline.models.attention import DenseView, View
from pipeline.models.cache import KeyValueCache
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer
from pipeline.models.precision import own_precision
from pipeline.models.scores import mean_by_scores
from pipeline.models.state import mean_of, with_ones
from pipeline.models.synthetic_scores import (
    DenseScores,
    FactorisedDenseScores,
    FactorisedRandomScores,
    FixedRandomScores,
    Placing,
    RandomScores,
    SharedDenseScores,
)
from pipeline.runtime import rng_of

Part = Literal[
    "random",
    "fixed_random",
    "factorised_random",
    "dense",
    "dense_shared",
    "factorised_dense",
    "dot_product",
]
OF_POSITIONS: frozenset[Part] = frozenset({"random", "fixed_random", "factorised_random"})
SLICED: frozenset[Part] = frozenset({"dense", "factorised_dense"})  # read each head's slice
FROM_QUERIES: frozenset[Part] = frozenset({"dense_shared", "dot_product"})


def as_tuple(value: Any) -> Any:
    """A list read from a file as the tuple it stands for."""
    return tuple(value) if isinstance(value, list) else value


@config
class SynthesizerConfig:
    """Scores that are the mixture of `parts`, by `mixture` ("softmax", "gate" or "sum").

    random: a trained table by positions; fixed_random: the same, drawn from `seed` and never
    trained; factorised_random: of `rank`; dense, dense_shared, factorised_dense: from the query's
    token; dot_product: ordinary. Tables start with deviation `initial_std`. `key_projection` "value"
    makes dot products use the values as keys. `dropout` falls on attention weights; none means the
    model's own rate.
    """

    type: Literal["synthesizer"] = "synthesizer"
    parts: Annotated[tuple[Part, ...], Field(min_length=1), BeforeValidator(as_tuple)] = ("random",)
    mixture: Literal["softmax", "gate", "sum"] = "softmax"
    rank: Annotated[int, Field(ge=1)] = 8
    initial_std: Annotated[float, Field(gt=0)] = 1.0
    key_projection: Literal["own", "value"] = "own"
    seed: int = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts {list(self.parts)}: each part can be given once")
        if self.mixture == "gate" and (len(self.parts) != 2 or "dot_product" not in self.parts):
            raise ValueError(
                "mixture gate is between dot_product and one other part; "
                "give these two as parts, or use mixture softmax"
            )


@dataclass(frozen=True, kw_only=True)
class PlacedView(DenseView):
    """A dense view that knows which rows and columns of tables its places are.

    `one_for_all`: every row is one document and of one kind, so that rows differ in padding only.
    """

    placing: Placing
    one_for_all: bool


def placed(view: View) -> PlacedView:
    """`view` with its mask and placing made, once for all layers of a stack."""
    if isinstance(view, PlacedView):
        return view
    view = view.located().dense()
    seen = view.visibility
    queries = _places(view.query_positions, seen.query_segments, view.first_query)
    keys = _places(view.key_positions, seen.key_segments, 0)
    longest: int | None = view.keys
    if keys is not None:
        longest = int(keys.max()) + 1 if keys.device.type == "cpu" else None
    placing = Placing(queries, keys, view.queries, view.keys, view.first_query, longest)
    alone = seen.query_segments is None or seen.query_segments is seen.key_segments
    one_for_all = (
        alone and keys is None and queries is None and seen.kind not in ("prefix", "mixed")
    )
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(DenseView)}
    return PlacedView(**fields, placing=placing, one_for_all=one_for_all)


def _places(positions: Tensor | None, segments: Tensor | None, first: int) -> Tensor | None:
    """Positions, 0 for padding; None where every token's position is known to be its place.

    To find that out would stop a GPU: there, rows with segments count as packed.
    """
    assert positions is not None
    real = None if segments is None else segments > 0
    in_order = segments is None
    if positions.device.type == "cpu":
        held = positions == torch.arange(first, first + positions.shape[1])
        in_order = bool((held if real is None else held | ~real).all())
    if in_order:
        return None
    return positions if real is None else positions * real


class SynthesizerMixer(Mixer):
    """Multi-head attention with synthetic scores; without dot products it has no keys."""

    honours: ClassVar[frozenset[str]] = EVERY_KIND
    takes_bias: ClassVar[bool] = True
    takes_segments: ClassVar[bool] = True
    takes_cross: ClassVar[bool] = True
    takes_rotary: ClassVar[bool] = False
    takes_window: ClassVar[bool] = True
    takes_dropout: ClassVar[bool] = True
    needs_max_length: ClassVar[bool] = True

    def __init__(self, config: SynthesizerConfig, heads: Heads) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        self.dropout = heads.dropout if config.dropout is None else config.dropout
        inner = heads.num_heads * heads.head_size
        if FROM_QUERIES & set(config.parts):
            self.query = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        if "dot_product" in config.parts and config.key_projection == "own":
            self.key = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.value = nn.Linear(heads.hidden_size, inner, bias=heads.projection_bias)
        self.output = nn.Linear(inner, heads.hidden_size, bias=heads.projection_bias)
        synthetic = [part for part in config.parts if part != "dot_product"]
        self.scores = nn.ModuleDict({part: self._scores_of(part) for part in synthetic})
        if len(config.parts) > 1 and config.mixture == "softmax":
            self.mixing = nn.Parameter(torch.zeros(len(config.parts)))
        if config.mixture == "gate":
            self.mixing = nn.Parameter(torch.zeros(1))

    @classmethod
    def why_not(cls, config: SynthesizerConfig, heads: Heads) -> list[str]:
        sliced = sorted(SLICED & set(config.parts))
        if sliced and heads.hidden_size % heads.num_heads:
            slices = (
                f"a slice of hidden_size {heads.hidden_size} to each of {heads.num_heads} heads"
            )
            return [f"part {sliced[0]} gives {slices}, which does not divide; use dense_shared"]
        return []

    @classmethod
    def prepared(cls, view: View) -> View:
        return placed(view)

    def _scores_of(self, part: Part) -> nn.Module:
        heads, std, length = self.heads, self.config.initial_std, self.heads.max_length
        assert length is not None
        sliced = (heads.num_heads, heads.hidden_size // heads.num_heads, heads.head_size, length)
        match part:
            case "random":
                return RandomScores(heads.num_heads, length, std)
            case "fixed_random":
                purpose = f"synthesizer table {heads.stack}"
                rng = rng_of(self.config.seed, purpose, heads.layer)
                return FixedRandomScores(heads.num_heads, length, std, rng)
            case "factorised_random":
                return FactorisedRandomScores(heads.num_heads, length, std, self.config.rank)
            case "dense":
                return DenseScores(*sliced)
            case "factorised_dense":
                return FactorisedDenseScores(*sliced)
            case "dense_shared":
                return SharedDenseScores(heads.head_size, length)
            case "dot_product":
                raise AssertionError("made of queries and keys")

    def forward(
        self, x_q: Tensor, x_kv: Tensor, view: View, carry: Any = None, cache: Any = None
    ) -> tuple[Tensor, Any]:
        view = placed(view)
        key, value = self._keys_and_values(x_kv, cache)
        scores = self.mixed_scores(x_q, key, view.placing)
        dropout = self.dropout if self.training else 0.0
        value = value.to(scores.dtype)
        if len(scores) == 1 and view.one_for_all and not dropout:
            mixed = _shared(scores, value, view)
        else:
            mixed = mean_by_scores(scores, value, view, dropout)
        return self.output(mixed.to(x_q.dtype).transpose(1, 2).flatten(2)), carry

    def mixed_scores(self, x_q: Tensor, key: Tensor, placing: Placing) -> Tensor:
        """Scores before bias, mask and softmax. [1 or B, H, Q, K]; float32 at least."""
        longest = self.heads.max_length
        assert longest is not None
        if placing.longest is not None and placing.longest > longest:
            raise DataError(
                f"synthesizer: a document of {placing.longest} tokens, but its tables hold "
                f"max_length {longest}; give shorter documents or a larger max_length"
            )
        query = self._by_head(self.query(x_q)) if hasattr(self, "query") else None
        wide = torch.promote_types(x_q.dtype, torch.float32)
        weights = self.weights()
        total: Tensor | None = None
        for number, part in enumerate(self.config.parts):
            if part in OF_POSITIONS:
                scores = self.scores[part](placing).to(wide)
            elif part == "dot_product":
                assert query is not None
                with own_precision(x_q):
                    scores = query.to(wide) @ key.to(wide).mT * self.heads.scale
            else:
                source = query if part == "dense_shared" else x_q
                scores = self.scores[part](source, placing).to(wide)
            if weights is not None:
                scores = scores * weights[number].to(wide)
            total = scores if total is None else total + scores
        assert total is not None
        return total

    def weights(self) -> Tensor | None:
        """The weight of each part, in their order; None: all one."""
        if not hasattr(self, "mixing"):
            return None
        if self.config.mixture == "softmax":
            return self.mixing.softmax(dim=0)
        gate = self.mixing.sigmoid()
        parts = [1 - gate if part == "dot_product" else gate for part in self.config.parts]
        return torch.cat(parts)

    def _keys_and_values(self, x_kv: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        if cache is not None and cache.fixed and cache.key is not None:
            return cache.key, cache.value
        value = self._by_head(self.value(x_kv))
        if "dot_product" not in self.config.parts:
            key = value[..., :0]  # nothing reads keys
        elif self.config.key_projection == "value":
            key = value
        else:
            key = self._by_head(self.key(x_kv))
        return (key, value) if cache is None else cache.grown(key, value)

    def new_cache(self) -> KeyValueCache:
        return KeyValueCache(fixed=self.heads.stack == "cross")

    def _by_head(self, states: Tensor) -> Tensor:
        """[B, T, H*d] as [B, H, T, d]."""
        return states.unflatten(-1, (-1, self.heads.head_size)).transpose(1, 2)


def _shared(scores: Tensor, value: Tensor, view: View) -> Tensor:
    """softmax(scores) value for rows that share scores and differ in padding only.

    scores [1, H, Q, K] and value [B, H, K, d] give [B, H, Q, d]. One exponential and one large
    product serve the whole batch, as padding can be left out of sums of values and of weights.
    """
    seen = view.visibility
    if view.bias is not None:
        scores = scores + view.bias
    mask = View(
        Visibility(seen.kind, window=seen.window),
        view.queries,
        view.keys,
        view.device,
        first_query=view.first_query,
    ).mask()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    highest = scores.detach().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    value = with_ones(value)
    if seen.key_segments is not None:
        value = value * (seen.key_segments > 0)[:, None, :, None].to(value.dtype)
    with own_precision(value):
        sums = (scores - highest).exp()[0] @ value.permute(1, 2, 0, 3).flatten(2)
    mixed = mean_of(sums.unflatten(-1, (len(value), -1)).permute(2, 0, 1, 3))
    if seen.query_segments is not None:
        mixed = mixed * (seen.query_segments > 0)[:, None, :, None].to(mixed.dtype)
    return mixed
