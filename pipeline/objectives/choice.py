"""The objective of multiple choice: cross-entropy of the right one among the choices of a row."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.objectives.losses import correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective


class Choice(Objective):
    """Trains `network(input_ids, segment_ids, position_ids, token_types) -> [rows, 1]`, one row a choice.

    Sequences of a batch are [batch, choices, length]; of each row the first `choices` count.
    """

    weights: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0}
    rising = frozenset({"accuracy"})

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Rows, and real tokens read."""
        rows = len(batch["label"])
        tokens = int((batch["segment_ids"] > 0).sum())
        return {"cross_entropy": rows, "accuracy": rows, "tokens": tokens}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the rows: cross-entropy in nats, and rows whose first choice is right."""
        ids = batch["input_ids"]
        rows, most = ids.shape[:2]
        scores = self.network(
            ids.flatten(0, 1),
            batch["segment_ids"].flatten(0, 1),
            batch["position_ids"].flatten(0, 1),
            batch["token_types"].flatten(0, 1),
        ).reshape(rows, most)
        beyond = torch.arange(most, device=ids.device) >= batch["choices"][:, None]
        logits = scores.masked_fill(beyond, -torch.inf)
        return {
            "cross_entropy": cross_entropy_sum(logits, batch["label"]),
            "accuracy": correct_sum(logits, batch["label"]),
        }

    def kept(self) -> nn.Module:
        """The network."""
        return self.network
