"""BERT's encoder (Devlin et al. 2018): post-norm blocks on learned positions, exact GELU.

Weights start from a truncated normal (cut at two deviations), as in the original code; biases from
zero. The original deviation, 0.02, belongs to width 768: a width of 128 starts as well from 0.05.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.data.example import Visibility
from pipeline.models.attention import View
from pipeline.models.layers import Embeddings, padded_vocab, truncated_normal_
from pipeline.models.mixers import MixerConfig, check_mixer, prepared
from pipeline.models.mixers.mixer import Heads, Needs
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.transformer import Block, Core, run_blocks

NEEDS = Needs(kinds=frozenset({"all"}))

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


@config
class EncoderConfig:
    """Shape of a BERT encoder. `head_size` is hidden_size / num_heads unless it is given.

    `ffn_size` is the width inside a feed-forward layer, `max_length` the longest input in tokens.
    `initial_std` is that of the normal weights it starts with; `norm_eps` is added to variances.
    """

    type: Literal["encoder"] = "encoder"
    num_layers: Positive
    hidden_size: Positive
    num_heads: Positive
    head_size: Positive | None = None
    ffn_size: Positive
    max_length: Positive = 512
    dropout: Rate = 0.1
    norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    initial_std: Annotated[float, Field(gt=0)] = 0.02
    mixer: MixerConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.head_size is None and self.hidden_size % self.num_heads:
            fitting = [n for n in range(1, 129) if self.hidden_size % n == 0]
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                f"give head_size, or use one of {fitting} heads"
            )
        check_mixer(self.mixer, NEEDS)

    def core(self) -> Core:
        """The blocks of this encoder."""
        head_size = self.head_size or self.hidden_size // self.num_heads
        heads = Heads(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            head_size=head_size,
            scale=head_size**-0.5,
            projection_bias=True,
            dropout=self.dropout,
        )
        return Core(
            heads=heads,
            ffn_size=self.ffn_size,
            activation="gelu",
            norm="layer_norm",
            norm_eps=self.norm_eps,
            normalised="after",
            dropout=self.dropout,
            mixer=self.mixer,
        )


class Encoder(nn.Module):
    """Ids to states. `layers` are the blocks, which `transformer.run_blocks` walks through."""

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(
            padded_vocab(vocab_size),
            config.hidden_size,
            config.max_length,
            norm_eps=config.norm_eps,
            dropout=config.dropout,
        )
        self.layers = nn.ModuleList(Block(config.core()) for _ in range(config.num_layers))
        initialise(self, config.initial_std)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        visibility: Visibility | None = None,
    ) -> Tensor:
        """Ids, segments (0 padding, documents from 1) and positions, [B, T] each, to [B, T, D].

        `visibility` says what attends to what; everything of the same segment unless it is given.
        """
        hidden = self.embeddings(input_ids, position_ids)
        view = prepared(self.config.mixer, view_of(segment_ids, visibility))
        return run_blocks(self.layers, hidden, view)


def view_of(segment_ids: Tensor, visibility: Visibility | None = None) -> View:
    """What a sequence with these segments [B, T] sees of itself."""
    length = segment_ids.shape[1]
    visible = visibility or Visibility("all", segment_ids, segment_ids)
    return View(visible, length, length, segment_ids.device)


@torch.no_grad()
def initialise(module: nn.Module, std: float) -> None:
    """BERT's initial weights for every dense layer and table inside `module`."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            truncated_normal_(part.weight, std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
