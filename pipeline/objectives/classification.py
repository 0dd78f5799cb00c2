"""The objective of labelled text: cross-entropy of the right label."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.objectives.losses import correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective

CONFUSION = "confusion"


class Classification(Objective):
    """Trains `network(input_ids, segment_ids, position_ids, token_types) -> logits [batch, labels]`.

    `class_weights` [labels] are factors of the loss of each row while training, by its label. Held-out
    figures are plain; `metric` is one more of them, if it can be had from which labels were mistaken for which.
    """

    weights: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0}

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: str = "accuracy",
        class_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.metric = metric
        self.rising = frozenset({"accuracy", *({metric} & FROM_CONFUSION.keys())})
        self.class_weights = class_weights

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Rows, and real tokens read."""
        rows = len(batch["label"])
        tokens = int((batch["segment_ids"] > 0).sum())
        return {"cross_entropy": rows, "accuracy": rows, "tokens": tokens}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the rows: cross-entropy in nats, and rows whose first choice is right."""
        labels = batch["label"]
        logits = self.network(
            batch["input_ids"],
            batch["segment_ids"],
            batch["position_ids"],
            batch.get("token_types"),
        )
        weights = self.class_weights if self.training else None
        sums = {
            "cross_entropy": cross_entropy_sum(logits, labels, class_weights=weights),
            "accuracy": correct_sum(logits, labels),
        }
        if not self.training and self.metric in FROM_CONFUSION:
            size = logits.shape[-1]
            cells = labels * size + logits.argmax(dim=-1)
            sums[CONFUSION] = torch.bincount(cells, minlength=size * size).reshape(size, size)
        return sums

    def figures(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """The metric, from how often each label [rows] was given which [columns]."""
        if CONFUSION not in statistics:
            return {}
        return {self.metric: FROM_CONFUSION[self.metric](statistics[CONFUSION].numpy())}

    def kept(self) -> nn.Module:
        """The classifier."""
        return self.network


def macro_f1_of(confusion: np.ndarray) -> float:
    """Mean of F1 over the labels that occur or are answered."""
    seen = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * np.diag(confusion)[seen > 0] / seen[seen > 0]))


def f1_of(confusion: np.ndarray) -> float:
    """F1 of label 1; 0 if it neither occurs nor is answered."""
    seen = confusion[1].sum() + confusion[:, 1].sum()
    return float(2 * confusion[1, 1] / seen) if seen else 0.0


def matthews_of(confusion: np.ndarray) -> float:
    """Matthews' correlation, of any number of labels (Gorodkin 2004); 0 where all labels or all answers are alike."""
    cells = confusion.astype(np.float64)
    total, given, said = cells.sum(), cells.sum(axis=1), cells.sum(axis=0)
    together = np.trace(cells) * total - given @ said
    apart = np.sqrt((total**2 - given @ given) * (total**2 - said @ said))
    return float(together / apart) if apart else 0.0


FROM_CONFUSION = {"macro_f1": macro_f1_of, "f1": f1_of, "matthews": matthews_of}
