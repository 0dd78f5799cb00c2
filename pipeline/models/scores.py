"""Means of values weighted by explicit scores: for mixers whose scores are more than one product.

The idea: one fused softmax over scores in which unseen keys hold the least finite number instead of
-inf. Their weights come out exactly zero, and a query that sees nothing gets finite weights and
gradients, which are then left out.
"""

import torch
from torch import Tensor

from pipeline.models.attention import View
from pipeline.models.dropout import dropped
from pipeline.models.precision import own_precision


def mean_by_scores(scores: Tensor, value: Tensor, view: View, dropout: float = 0.0) -> Tensor:
    """`attention.softmax_seen` of `scores` times `value`, with dropout on the weights.

    scores [1 or B, H, Q, K], finite, float32 or float64, and value [B, H, K, d] of the same type
    give [B, H, Q, d]; zeros for a query that sees no key. Float32 under autocast, too.
    """
    with own_precision(scores):
        added, sighted = view.dense().added, None
        least = torch.finfo(scores.dtype).min
        if added is not None and added.dtype == torch.bool:
            sighted = added.any(dim=-1, keepdim=True)
            scores = scores.masked_fill(~added, least)
        elif added is not None:
            sighted = ~added.isneginf().all(dim=-1, keepdim=True)
            scores = scores + added.to(scores.dtype).clamp(min=least)
        weights = scores.softmax(dim=-1)
        if dropout:
            weights = dropped(weights.expand(len(value), -1, -1, -1), dropout)
        mixed = weights @ value
        return mixed if sighted is None else mixed * sighted.to(mixed.dtype)
