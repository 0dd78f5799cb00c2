"""The objective of texts with a number each: the squared error."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.objectives.objective import Objective

MOMENTS = "moments"


class Regression(Objective):
    """Trains `network(input_ids, segment_ids, position_ids, token_types) -> [batch, 1]`.

    Held-out figures also have Pearson's correlation, `pearson`.
    """

    weights: ClassVar[Mapping[str, float]] = {"squared_error": 1.0}
    rising = frozenset({"pearson"})

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Rows, and real tokens read."""
        return {
            "squared_error": len(batch["label"]),
            "tokens": int((batch["segment_ids"] > 0).sum()),
        }

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum over the rows of squared errors."""
        labels = batch["label"]
        found = self.network(
            batch["input_ids"],
            batch["segment_ids"],
            batch["position_ids"],
            batch.get("token_types"),
        )[:, 0]
        sums = {"squared_error": (found - labels).square().sum()}
        if not self.training:
            x, y = found.double(), labels.double()
            parts = (torch.ones_like(x), x, y, x * x, y * y, x * y)
            sums[MOMENTS] = torch.stack([part.sum() for part in parts])
        return sums

    def figures(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Pearson's correlation, 0 where all numbers or all answers are alike."""
        if MOMENTS not in statistics:
            return {}
        n, x, y, xx, yy, xy = statistics[MOMENTS].tolist()
        spread = max(n * xx - x * x, 0.0) * max(n * yy - y * y, 0.0)
        return {"pearson": (n * xy - x * y) / spread**0.5 if spread else 0.0}

    def kept(self) -> nn.Module:
        """The network."""
        return self.network
