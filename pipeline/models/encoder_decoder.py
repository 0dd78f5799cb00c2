"""T5 (Raffel et al. 2019): pre-norm encoder and decoder, relative position bias, no dense biases.

1.0 is `feed_forward: relu, tied_head: true`; 1.1 is `feed_forward: geglu, tied_head: false`. Scores
are not divided by sqrt(head_size): the queries' initial weights are that much smaller instead.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.data.example import Visibility
from pipeline.models.attention import RelativeBias, View
from pipeline.models.layers import (
    FeedForward,
    GatedFeedForward,
    RMSNorm,
    fan_in_normal_,
    padded_vocab,
)
from pipeline.models.mixers import MixerConfig, check_mixer, prepared
from pipeline.models.mixers.mixer import Heads, Mixer, Needs
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.transformer import Block, Core, CrossBlock, Memory, run_blocks

NEEDS = Needs(kinds=frozenset({"all", "causal"}), bias=True, cross=True)

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


@config
class EncoderDecoderConfig:
    """Shape of a T5 model. `num_heads` x `head_size` need not be `hidden_size`.

    `num_layers` is the encoder's depth, and the decoder's unless `num_decoder_layers` is given.
    `feed_forward` layers are `ffn_size` wide inside; `tied_head` makes the word embeddings the head.
    Relative positions fall into `num_buckets`; those beyond `max_distance` tokens share the last.
    `norm_eps` is added to mean squares.
    """

    type: Literal["encoder_decoder"] = "encoder_decoder"
    num_layers: Positive
    num_decoder_layers: Positive | None = None
    hidden_size: Positive
    num_heads: Positive
    head_size: Positive = 64
    ffn_size: Positive
    feed_forward: Literal["relu", "geglu"] = "relu"
    tied_head: bool = True
    num_buckets: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    max_distance: Positive = 128
    dropout: Rate = 0.1
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    mixer: MixerConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance {self.max_distance} leaves nothing for the wide buckets; "
                f"use more than {self.num_buckets // 2}, or fewer num_buckets"
            )
        check_mixer(self.mixer, NEEDS)

    def core(self) -> Core:
        """The blocks of both stacks."""
        heads = Heads(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            head_size=self.head_size,
            scale=1.0,
            projection_bias=False,
            dropout=self.dropout,
        )
        return Core(
            heads=heads,
            ffn_size=self.ffn_size,
            activation="relu" if self.feed_forward == "relu" else "gated_gelu",
            norm="rms_norm",
            norm_eps=self.norm_eps,
            normalised="before",
            dropout=self.dropout,
            mixer=self.mixer,
        )


class T5Stack(nn.Module):
    """Blocks with one relative bias for all of them, a final norm, and dropout at both ends."""

    def __init__(
        self, config: EncoderDecoderConfig, block: type[Block], num_layers: int, *, both_sides: bool
    ) -> None:
        super().__init__()
        self.mixer = config.mixer
        self.layers = nn.ModuleList(block(config.core()) for _ in range(num_layers))
        self.bias = RelativeBias(
            config.num_heads,
            both_sides=both_sides,
            num_buckets=config.num_buckets,
            max_distance=config.max_distance,
        )
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, visibility: Visibility, memory: Memory | None = None
    ) -> Tensor:
        """Embedded tokens [B, T, D] to states [B, T, D]."""
        length = hidden.shape[1]
        view = View(visibility, length, length, hidden.device, self.bias(length, length))
        view = prepared(self.mixer, view)
        hidden = run_blocks(self.layers, self.dropout(hidden), view, memory)
        return self.dropout(self.norm(hidden))


class EncoderDecoder(nn.Module):
    """T5: one table of word embeddings for encoder, decoder and, in 1.0, the head."""

    def __init__(self, config: EncoderDecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.words = nn.Embedding(self.padded_vocab, config.hidden_size)
        self.encoder = T5Stack(config, Block, config.num_layers, both_sides=True)
        decoder_layers = config.num_decoder_layers or config.num_layers
        self.decoder = T5Stack(config, CrossBlock, decoder_layers, both_sides=False)
        self.head = nn.Linear(config.hidden_size, self.padded_vocab, bias=False)
        initialise(self)
        if config.tied_head:
            self.head.weight = self.words.weight

    def forward(
        self,
        input_ids: Tensor,
        input_segments: Tensor,
        decoder_input_ids: Tensor,
        decoder_segments: Tensor,
    ) -> Tensor:
        """Logits [B, T, V] of `decoder_input_ids` [B, T] given `input_ids` [B, S]."""
        encoded = self.encode(input_ids, input_segments)
        hidden = self.decode(decoder_input_ids, decoder_segments, encoded, input_segments)
        return self.logits(hidden)

    def encode(self, input_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """Ids and segments (0 = padding, documents from 1) [B, S] to states [B, S, D]."""
        visible = Visibility("all", segment_ids, segment_ids)
        return self.encoder(self.words(input_ids), visible)

    def decode(
        self,
        decoder_input_ids: Tensor,
        decoder_segments: Tensor,
        encoded: Tensor,
        encoded_segments: Tensor,
    ) -> Tensor:
        """Targets shifted right [B, T] to states [B, T, D]; segments see that of their number."""
        queries, keys = decoder_input_ids.shape[1], encoded.shape[1]
        across = Visibility("all", decoder_segments, encoded_segments)
        view = prepared(self.config.mixer, View(across, queries, keys, encoded.device))
        visible = Visibility("causal", decoder_segments, decoder_segments)
        return self.decoder(self.words(decoder_input_ids), visible, Memory(encoded, view))

    def logits(self, hidden: Tensor) -> Tensor:
        """Decoder states [..., D] to logits [..., V], at least float32; tied: scaled by D^-1/2."""
        if self.config.tied_head:
            hidden = hidden * self.config.hidden_size**-0.5
        logits: Tensor = self.head(hidden)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def initialise(network: EncoderDecoder) -> None:
    """T5's initial weights, D the hidden size, d that of a head, H heads.

    Queries N(0, 1/(D d)), keys and values N(0, 1/D), attention output N(0, 1/(H d)), embeddings
    N(0, 1), relative bias N(0, 1/D); feed-forward and an untied head: cut normal of variance
    1/fan-in.
    """
    config = network.config
    fan_in_normal_(network.head.weight)
    nn.init.normal_(network.words.weight)
    for part in network.modules():
        if isinstance(part, Mixer):
            for name, child in part.named_children():
                assert isinstance(child, nn.Linear), name
                narrow = config.head_size if name == "query" else 1
                nn.init.normal_(child.weight, std=(child.in_features * narrow) ** -0.5)
        elif isinstance(part, FeedForward | GatedFeedForward):
            for child in part.children():
                if isinstance(child, nn.Linear):
                    fan_in_normal_(child.weight)
        elif isinstance(part, RelativeBias):
            nn.init.normal_(part.table.weight, std=config.hidden_size**-0.5)
