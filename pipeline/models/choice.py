"""The next token: which ones may come, and one of them drawn by its probability.

Draws are keyed, so a text depends on its own number and not on the others of its batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.models.decoding import Marks, Sampling
from pipeline.runtime import rng_of


def repeating(tokens: Tensor, length: int, vocab_size: int) -> Tensor:
    """Whether a token would complete `length` tokens in a row that are in the text already.

    tokens [N, T] int64 give bool [N, vocab_size].
    """
    found = torch.zeros(len(tokens), vocab_size, dtype=torch.bool, device=tokens.device)
    if tokens.shape[1] < length:
        return found
    runs = tokens.unfold(1, length, 1)
    newest = tokens[:, tokens.shape[1] - length + 1 :]
    rows, places = (runs[..., :-1] == newest[:, None]).all(dim=-1).nonzero(as_tuple=True)
    found[rows, runs[rows, places, -1]] = True
    return found


def hidden(scores: Tensor, tokens: Tensor, no_repeated: int | None, marks: Marks) -> Tensor:
    """`scores` [N, V] with -inf for tokens that may not come after `tokens` [N, T].

    The end mark may always come.
    """
    barred = torch.zeros_like(scores, dtype=torch.bool)
    if no_repeated is not None:
        barred = repeating(tokens, no_repeated, scores.shape[1])
    barred[:, list(marks.never)] = True
    barred[:, marks.end] = False
    return scores.masked_fill(barred, -math.inf)


def probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """What `how` draws from: temperature, then top-k, then top-p. [N, V], float64.

    Of equally probable tokens the ones with smaller ids are kept.
    """
    shares = (logits.double() / how.temperature).softmax(dim=-1)
    ordered, ids = shares.sort(dim=-1, descending=True, stable=True)
    if how.top_k is not None:
        ordered[:, how.top_k :] = 0.0
    if how.top_p < 1:
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered * (before < how.top_p * ordered.sum(dim=-1, keepdim=True))
    kept = torch.zeros_like(shares).scatter(1, ids, ordered)
    return kept / kept.sum(dim=-1, keepdim=True)


def drawn(shares: Tensor, numbers: Sequence[Sequence[int]], seed: int) -> Tensor:
    """One id per row of probabilities [N, V]; `numbers` name each row's draw. [N], int64."""
    given = [rng_of(seed, "generated token", *names).random() for names in numbers]
    levels = torch.tensor(given, dtype=torch.float64, device=shares.device)[:, None]
    sums = shares.cumsum(dim=-1)
    found = torch.searchsorted(sums, levels * sums[:, -1:], right=True)[:, 0]
    ids = torch.arange(shares.shape[1], device=shares.device)
    return torch.minimum(
        found, (ids * (shares > 0)).amax(dim=-1)
    )  # a level may round up to the sum
