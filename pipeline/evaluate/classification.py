"""What a classifier says of labelled rows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.evaluate.task import LabelledSource
from pipeline.runtime import rng_of

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs_of(source: LabelledSource, rows: Sequence[int]) -> Inputs:
    """input_ids, segment_ids, position_ids of these rows in one batch [rows, length], int64."""
    batch = source.collate([source.example(row, rng_of(0, "evaluate", row)) for row in rows])
    ids, segments, positions = (
        torch.from_numpy(batch[name]) for name in ("input_ids", "segment_ids", "position_ids")
    )
    return ids, segments, positions


def predictions(network: nn.Module, source: LabelledSource, *, batch: int = 32) -> np.ndarray:
    """The label each row gets from `network` in evaluation mode. [rows], int64.

    Rows are computed in order of their length, so that little padding is computed, and
    answered in their own order.
    """
    network.eval()
    order = np.argsort(source.lengths, kind="stable")
    labels = np.empty(len(source), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            labels[rows] = network(*inputs_of(source, rows.tolist())).argmax(dim=-1).numpy()
    return labels
