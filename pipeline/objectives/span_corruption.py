"""T5's span corruption (Raffel et al. 2020, sections 3.1.4 and 3.3): write the hidden spans, each after its sentinel.

Inputs `c1 S1 c2 S2 ... </s>`, targets `S1 n1 S2 n2 ... </s>`. As in T5's released code a row starts with a clean
token, ends with a noise span, and the targets end without a further sentinel; the documents of a row are glued
together and read as one text.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import ConfigError, config
from pipeline.data.example import Example, Row, stack
from pipeline.objectives import noise
from pipeline.objectives.losses import IGNORED, correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective
from pipeline.tokenizer import Vocabulary


@config
class SpanCorruptionConfig:
    """T5's span corruption: a share of `noise_density` of the tokens is hidden, in spans.

    Spans have `mean_span_length` tokens on average; `z_loss` is the weight of the squared log of
    the softmax's normaliser.
    """

    NETWORK: ClassVar[str] = "encoder_decoder"

    type: Literal["span_corruption"] = "span_corruption"
    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    mean_span_length: Annotated[float, Field(ge=1)] = 3.0
    z_loss: Annotated[float, Field(ge=0)] = 1e-4

    def sequence_length(self, row_length: int) -> int:
        """Longest of inputs and targets for rows of `row_length` raw tokens."""
        return max(noise.corrupted_lengths(row_length, self.noise_density, self.mean_span_length))

    def corruption(self, vocabulary: Vocabulary, row_length: int) -> "SpanCorruption":
        """The data half: rows to examples."""
        return SpanCorruption(self, row_length, vocabulary)

    def objective(self, network: nn.Module) -> "TextToText":
        """The model half, on an EncoderDecoder."""
        return TextToText(network, z_loss=self.z_loss)


class SpanCorruption:
    """Rows to examples of static shape: input_ids, input_segments [I]; decoder_input_ids, labels, ... [T]."""

    def __init__(
        self, settings: SpanCorruptionConfig, row_length: int, vocabulary: Vocabulary
    ) -> None:
        self.density, self.mean_span = settings.noise_density, settings.mean_span_length
        self.input_length, self.target_length = noise.corrupted_lengths(
            row_length, self.density, self.mean_span
        )
        _, spans = noise.noise_counts(row_length, self.density, self.mean_span)
        if spans > vocabulary.num_sentinels:
            raise ConfigError(
                [
                    (
                        f"rows of {row_length} tokens have {spans} noise spans, but the vocabulary has only "
                        f"{vocabulary.num_sentinels} sentinels: raise num_sentinels of the vocab stage, shorten "
                        "row_length of the tokens stage, or raise mean_span_length"
                    )
                ]
            )
        self.eos, self.pad = vocabulary.eos, vocabulary.pad
        self.sentinels = np.array([vocabulary.sentinel(i) for i in range(vocabulary.num_sentinels)])

    def corrupt(self, row: Row, rng: np.random.Generator) -> Example:
        """Hide spans of `row`; the decoder reads the targets shifted right, `<pad>` first."""
        tokens = row.ids.astype(np.int64)
        mask = noise.random_spans(len(tokens), self.density, self.mean_span, rng)
        inputs = np.append(noise.spans_to_sentinels(tokens, mask, self.sentinels), self.eos)
        # A row of one token has no noise; its only target is the end.
        hidden = noise.spans_to_sentinels(tokens, ~mask, self.sentinels) if mask.any() else ()
        targets = np.append(hidden, self.eos).astype(np.int64)
        segment = np.ones(len(targets), dtype=np.int64)
        return {
            "input_ids": noise.padded(inputs, self.input_length, self.pad),
            "input_segments": noise.padded(np.ones(len(inputs)), self.input_length, 0),
            "decoder_input_ids": noise.padded(
                np.append(self.pad, targets[:-1]), self.target_length, self.pad
            ),
            "decoder_segments": noise.padded(segment, self.target_length, 0),
            "labels": noise.padded(targets, self.target_length, IGNORED),
        }

    def collate(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """One batch."""
        return stack(examples)


class TextToText(Objective):
    """Cross-entropy of the target tokens of an encoder-decoder."""

    weights: ClassVar[Mapping[str, float]] = {"span_corruption": 1.0}

    def __init__(self, network: nn.Module, *, z_loss: float) -> None:
        super().__init__()
        self.network = network
        self.z_loss = z_loss

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Target tokens, and real tokens read by encoder and decoder."""
        targets = int((batch["labels"] != IGNORED).sum())
        read = int((batch["input_segments"] > 0).sum())
        return {"span_corruption": targets, "accuracy": targets, "tokens": read + targets}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the target tokens; z-loss only while training, so that held-out figures are plain."""
        logits = self.network(
            batch["input_ids"],
            batch["input_segments"],
            batch["decoder_input_ids"],
            batch["decoder_segments"],
        )
        z_loss = self.z_loss if self.training else 0.0
        return {
            "span_corruption": cross_entropy_sum(logits, batch["labels"], z_loss=z_loss),
            "accuracy": correct_sum(logits, batch["labels"]),
        }

    def kept(self) -> nn.Module:
        """The encoder-decoder."""
        return self.network
