"""Held-out loss of a trained language model, through the objective it was trained with."""

from collections import Counter

import numpy as np
import torch

from pipeline.data.example import Source
from pipeline.data.loader import held_out
from pipeline.objectives.objective import Objective


def held_out_means(
    objective: Objective, source: Source, *, rows: int, seed: int, micro_batch: int = 8
) -> dict[str, float]:
    """Mean of every loss term and metric over `rows` rows of `source`, chosen by `seed`.

    The rows and their noise are those that training evaluates on with the same `rows` and `seed`.
    """
    objective.eval()
    sums: dict[str, float] = {}
    counts: Counter[str] = Counter()
    with torch.inference_mode():
        for batch in held_out(source, rows, seed=seed, micro_batch=micro_batch):
            counts.update(objective.counts(batch))
            tensors = {name: torch.from_numpy(np.asarray(a)) for name, a in batch.items()}
            for name, value in objective(tensors).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: sums[name] / counts[name] for name in sums if counts[name]}
