"""Losses of whole examples as sums: dividing is the engine's business (see `objective`).

Those of tokens are the output layer's (`pipeline.models.output`), which never holds all logits.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional

from pipeline.data.example import IGNORED


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, *, class_weights: np.ndarray | None = None
) -> Tensor:
    """Sum of -log p(label), in float32. logits [..., classes], labels [...], of which IGNORED ones add nothing.

    `class_weights` [classes] are factors by label.
    """
    flat = logits.float().reshape(-1, logits.shape[-1])
    weights = None if class_weights is None else flat.new_tensor(class_weights.tolist())
    return functional.cross_entropy(
        flat, labels.reshape(-1), weight=weights, ignore_index=IGNORED, reduction="sum"
    )


def correct_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of labels that have the largest logit, as a float32 scalar."""
    return (logits.argmax(dim=-1) == labels).sum().float()
