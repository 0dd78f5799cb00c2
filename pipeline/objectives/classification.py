"""The objective of labelled text: cross-entropy of the right label."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from pipeline.objectives.losses import correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective


class Classification(Objective):
    """Trains `network(input_ids, segment_ids, position_ids) -> logits [batch, labels]`."""

    weights: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0}

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
        logits = self.network(batch["input_ids"], batch["segment_ids"], batch["position_ids"])
        return {
            "cross_entropy": cross_entropy_sum(logits, batch["label"]),
            "accuracy": correct_sum(logits, batch["label"]),
        }

    def kept(self) -> nn.Module:
        """The classifier."""
        return self.network
