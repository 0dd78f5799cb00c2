"""FLOPs of training: what micro-batches cost, so that steps, speed and budgets can be told in operations.

Counted are the matrix products of all networks of an objective, forward and backward, with a multiply-add as two
operations: dense layers, attention (all queries with all keys, where a mixer compares them), output layers where they
score. What is computed a second time to save memory does not count, nor do norms, softmax and looked-up embeddings.
That is the numerator of model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.models.transformer import recompute
from pipeline.objectives.objective import Objective
from pipeline.train.rehearsal import rehearsed


class StepFlops:
    """FLOPs of micro-batches, counted once for every shape.

    `objective` is one `without_numbers`, made before an engine cut its parameters up; without any, nothing is
    counted.
    """

    def __init__(self, objective: Objective | None) -> None:
        self._objective = objective
        if objective is not None:
            recompute(objective, None)
        self._known: dict[tuple[Any, ...], int] = {}

    def of(self, batch: Mapping[str, np.ndarray]) -> int:
        """Forward and backward of one micro-batch on one rank."""
        if self._objective is None:
            return 0
        shapes = tuple((name, batch[name].shape) for name in sorted(batch))
        if shapes not in self._known:
            self._known[shapes] = rehearsed(self._objective, batch).flops
        return self._known[shapes]
