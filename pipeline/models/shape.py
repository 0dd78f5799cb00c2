"""The shape of a stack of blocks, as a configuration: what every kind of model has in common.

A model's own config adds its fields and says what it asks of its mixers; whatever cannot work is
refused here, when the configuration is loaded.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.config import config
from pipeline.models.layers import Activation, NormKind
from pipeline.models.mixers import MixerConfig, check_mixer
from pipeline.models.mixers.mixer import Heads, Needs
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.positions import Rotary
from pipeline.models.transformer import Core, Layer, ScoreBias

Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"]
ON_SCORES: Mapping[str, ScoreBias] = {"alibi": "alibi", "relative": "relative"}


@config
class Shape:
    """Widths, depth and rules of a stack. `head_size` is hidden_size / num_heads unless given.

    `ffn_size` is the width inside a feed-forward layer, `max_length` the longest input in tokens.
    `feed_forward`: relu; gelu; geglu (T5 1.1: gated, tanh form of GELU); geglu_exact (gated). Dense
    layers and layer norms have `biases` or not. A `norm` stands, `normalised`, before each
    sub-layer or after it; `norm_eps` is added to variances. `positions`: learned and sinusoidal are
    added to embeddings, rotary turns queries and keys by position / rotary_base^(2i/size), alibi
    and relative (T5: `num_buckets` up to `max_distance`) are added to scores. With a `window`
    tokens see at most so far to each side, except in every `global_every`-th layer, the first one
    included; `local_rotary_base` is for windowed layers. `mixer` is that of all layers; `mixers`
    lists one per layer or a pattern that repeats.
    """

    KINDS: ClassVar[frozenset[str]] = frozenset({"all"})  # visibilities the model always needs

    type: str
    num_layers: Positive
    hidden_size: Positive
    num_heads: Positive
    head_size: Positive | None = None
    ffn_size: Positive
    feed_forward: Activation = "gelu"
    biases: bool = True
    norm: NormKind = "layer_norm"
    normalised: Literal["before", "after"] = "after"
    norm_eps: Above0 = 1e-12
    max_length: Positive | None = None
    positions: Positions = "learned"
    rotary_base: Above0 = 10_000.0
    local_rotary_base: Above0 | None = None
    num_buckets: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    max_distance: Positive = 128
    window: Positive | None = None
    global_every: Positive | None = None
    dropout: Rate = 0.1
    mixer: MixerConfig = SoftmaxConfig()
    mixers: tuple[MixerConfig, ...] = ()

    def __post_init__(self) -> None:
        self.check_widths()
        self.check_positions()
        for layer in self.core().layers:
            needs = Needs(
                kinds=self.KINDS,
                bias=self.positions in ON_SCORES,
                rotary=layer.rotary is not None,
                window=layer.window is not None,
            )
            check_mixer(layer.mixer, needs, self.heads())

    def check_widths(self) -> None:
        """ValueError for widths and lists that do not fit each other."""
        if self.head_size is None and self.hidden_size % self.num_heads:
            fitting = [n for n in range(1, 129) if self.hidden_size % n == 0]
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                f"give head_size, or use one of {fitting} heads"
            )
        if self.mixers and self.mixer != SoftmaxConfig():
            raise ValueError("mixer and mixers are both given; keep one of them")
        repeated(self.mixers or (self.mixer,), self.num_layers)

    def check_positions(self) -> None:
        """ValueError for position settings that contradict each other."""
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance {self.max_distance} leaves nothing for the wide buckets; "
                f"use more than {self.num_buckets // 2}, or fewer num_buckets"
            )
        if self.positions == "learned" and self.max_length is None:
            raise ValueError("learned positions are a table of max_length rows; give max_length")
        size = self.heads().head_size if self.positions == "rotary" else self.hidden_size
        if self.positions in ("rotary", "sinusoidal") and size % 2:
            what = "head_size" if self.positions == "rotary" else "hidden_size"
            raise ValueError(f"{self.positions} positions need an even {what}, not {size}")
        if self.window is None and (self.global_every or self.local_rotary_base):
            raise ValueError("global_every and local_rotary_base are for layers with a window")
        if self.local_rotary_base and self.positions != "rotary":
            raise ValueError("local_rotary_base needs positions: rotary")

    def heads(self) -> Heads:
        """What mixers are told; BERT's scores are divided by sqrt(head_size)."""
        head_size = self.head_size or self.hidden_size // self.num_heads
        return Heads(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            head_size=head_size,
            scale=head_size**-0.5,
            projection_bias=self.biases,
            dropout=self.dropout,
            max_length=self.max_length,
        )

    def core(self) -> Core:
        """The blocks of the (first) stack."""
        return self.core_of(self.mixers or (self.mixer,), self.num_layers)

    def core_of(self, mixers: Sequence[MixerConfig], num_layers: int) -> Core:
        """A stack of `num_layers` blocks with this repeated pattern of mixers."""
        return Core(
            heads=self.heads(),
            layers=tuple(
                self._layer(number, mixer)
                for number, mixer in enumerate(repeated(mixers, num_layers))
            ),
            ffn_size=self.ffn_size,
            activation=self.feed_forward,
            norm=self.norm,
            norm_eps=self.norm_eps,
            normalised=self.normalised,
            dropout=self.dropout,
            bias=ON_SCORES.get(self.positions),
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )

    def _layer(self, number: int, mixer: MixerConfig) -> Layer:
        is_global = self.global_every is not None and number % self.global_every == 0
        window = None if is_global else self.window
        base = self.rotary_base if window is None else self.local_rotary_base or self.rotary_base
        rotary = Rotary(self.heads().head_size, base) if self.positions == "rotary" else None
        return Layer(mixer=mixer, window=window, rotary=rotary)


def repeated(mixers: Sequence[MixerConfig], num_layers: int) -> tuple[MixerConfig, ...]:
    """One mixer per layer: `mixers` as a pattern that fills the stack; ValueError if it cannot."""
    if num_layers % len(mixers):
        fitting = [n for n in range(1, num_layers + 1) if num_layers % n == 0]
        raise ValueError(
            f"mixers: a pattern of {len(mixers)} does not fill {num_layers} layers; "
            f"give one of {fitting} mixers"
        )
    return tuple(mixers) * (num_layers // len(mixers))
