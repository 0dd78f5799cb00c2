"""The objective of extractive question answering: cross-entropy of where the answer begins and where it ends."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.objectives.losses import cross_entropy_sum
from pipeline.objectives.objective import Objective


class Span(Objective):
    """Trains `network(input_ids, segment_ids, position_ids, token_types) -> logits [batch, length, 2]`.

    `span` [batch, 2] are the places of the first and the last token of the answer, 0 and 0 ([CLS]) for
    none. The loss of a row is the mean of both cross-entropies (Devlin et al. 2018, 4.2).
    """

    weights: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0}
    rising = frozenset({"accuracy"})

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Rows, and real tokens read."""
        rows = len(batch["span"])
        tokens = int((batch["segment_ids"] > 0).sum())
        return {"cross_entropy": rows, "accuracy": rows, "tokens": tokens}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the rows: cross-entropy in nats, and rows whose both ends are right."""
        segments = batch["segment_ids"]
        logits = self.network(
            batch["input_ids"], segments, batch["position_ids"], batch.get("token_types")
        )
        places = logits.masked_fill((segments == 0)[..., None], -torch.inf).transpose(1, 2)
        right = (places.argmax(dim=-1) == batch["span"]).all(dim=-1)
        return {
            "cross_entropy": cross_entropy_sum(places, batch["span"]) / 2,
            "accuracy": right.sum().float(),
        }

    def kept(self) -> nn.Module:
        """The network."""
        return self.network
