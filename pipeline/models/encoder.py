"""The encoder: BERT's by default (Devlin et al. 2018), pre-norm and modern forms by its fields.

Weights start from a truncated normal (cut at two deviations), as in the original code; biases from
zero. The original deviation, 0.02, belongs to width 768: a width of 128 starts as well from 0.05.
"""

import dataclasses
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import config
from pipeline.data.example import Visibility
from pipeline.models.attention import View
from pipeline.models.embeddings import Embeddings
from pipeline.models.layers import FeedForward, GatedFeedForward, truncated_normal_
from pipeline.models.shape import Above0, Positive, Shape
from pipeline.models.transformer import Block, Caches, Core, Stack

Rescaled = Literal["none", "by_depth", "by_layer"]


@config
class EncoderConfig(Shape):
    """An encoder with a language head, for inputs of up to `max_length` tokens.

    `embedding_size` is hidden_size unless given (ELECTRA). `token_types` embeddings tell sentences
    or objectives apart (BERT 2, UniLM 6). Without `first_norm` the first block of a pre-norm stack
    reads the normalised embeddings as they are. `initial_std` is that of the normal weights it
    starts with; the output matrices of layer l (from 0) of L are `rescaled` by_depth, divided by
    sqrt(2 L) as in GPT-2, or by_layer, by sqrt(2 (l + 1)) as in UniLM's code.
    """

    KINDS: ClassVar[frozenset[str]] = frozenset({"all"})

    type: Literal["encoder"] = "encoder"
    max_length: Positive = 512
    embedding_size: Positive | None = None
    token_types: Annotated[int, Field(ge=0)] = 2
    first_norm: bool = True
    initial_std: Above0 = 0.02
    rescaled: Rescaled = "none"

    def core(self) -> Core:
        """The blocks of this encoder."""
        return dataclasses.replace(super().core(), first_norm=self.first_norm)


class Encoder(Stack):
    """Ids to states. `layers` are the blocks, which `transformer.run_blocks` walks through."""

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(
            config,
            vocab_size,
            size=config.embedding_size or config.hidden_size,
            token_types=config.token_types,
        )
        self.add_blocks(config.core(), Block, "encoder", both_sides=True)
        initialise(self, config.initial_std)
        rescale(self.layers, config.rescaled)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        visibility: Visibility | None = None,
        token_types: Tensor | None = None,
        caches: Caches | None = None,
    ) -> Tensor:
        """Ids, segments (0 padding, documents from 1) and positions, [B, T] each, to [B, T, D].

        `visibility` says what attends to what; everything of the same segment unless it is given.
        With `caches` ids, positions and types are those of the newest places only, while segments
        (and those of `visibility`'s keys) are of all places so far.
        """
        hidden = self.embeddings(input_ids, position_ids, token_types)
        first = caches.length if caches else 0
        view = view_of(segment_ids, visibility, position_ids, first_query=first)
        return self.run(hidden, view, caches=caches)


def view_of(
    segment_ids: Tensor,
    visibility: Visibility | None = None,
    position_ids: Tensor | None = None,
    *,
    first_query: int = 0,
) -> View:
    """What a sequence with these segments [B, K] sees of itself, from place `first_query` on.

    `position_ids` [B, K - first_query] are those of the queries.
    """
    keys = segment_ids.shape[1]
    visible = visibility or Visibility("all", segment_ids[:, first_query:], segment_ids)
    return View(
        visible,
        keys - first_query,
        keys,
        segment_ids.device,
        first_query=first_query,
        query_positions=position_ids,
        key_positions=None if first_query else position_ids,
    )


@torch.no_grad()
def initialise(module: nn.Module, std: float) -> None:
    """BERT's initial weights for every dense layer and table inside `module`."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            truncated_normal_(part.weight, std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()


@torch.no_grad()
def rescale(layers: nn.ModuleList, how: Rescaled) -> None:
    """Divide the output matrices of the sub-layers, so that deep sums start no larger."""
    for number, block in enumerate(layers):
        assert isinstance(block, Block)
        parts = {"none": 0, "by_depth": 2 * len(layers), "by_layer": 2 * (number + 1)}[how]
        if parts:
            assert isinstance(block.feed_forward, FeedForward | GatedFeedForward)
            block.feed_forward.down.weight.div_(parts**0.5)
            block.mixer.get_parameter("output.weight").div_(parts**0.5)
