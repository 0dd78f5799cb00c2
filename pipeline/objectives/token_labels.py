"""The objective of labelled words: cross-entropy of the right label at the first piece of each."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from pipeline.data.example import IGNORED
from pipeline.objectives.losses import correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective


class TokenLabels(Objective):
    """Trains `network(input_ids, segment_ids, position_ids, token_types) -> logits [batch, length, labels]`.

    `labels` [batch, length] are IGNORED where nothing is asked. `class_weights` [labels] are factors of
    the loss of each word while training.
    """

    weights: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0}
    rising = frozenset({"accuracy"})

    def __init__(self, network: nn.Module, *, class_weights: np.ndarray | None = None) -> None:
        super().__init__()
        self.network = network
        self.class_weights = class_weights

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Labelled words, and real tokens read."""
        words = int((batch["labels"] != IGNORED).sum())
        tokens = int((batch["segment_ids"] > 0).sum())
        return {"cross_entropy": words, "accuracy": words, "tokens": tokens}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the labelled words: cross-entropy in nats, and words whose first choice is right."""
        logits = self.network(
            batch["input_ids"],
            batch["segment_ids"],
            batch["position_ids"],
            batch.get("token_types"),
        )
        weights = self.class_weights if self.training else None
        return {
            "cross_entropy": cross_entropy_sum(logits, batch["labels"], class_weights=weights),
            "accuracy": correct_sum(logits, batch["labels"]),
        }

    def kept(self) -> nn.Module:
        """The network."""
        return self.network
