"""Beam search: the best texts that a few open ones at a time lead to.

A prompt is done when nothing open can still beat what has ended: log-probabilities only fall, so
the score of an open text is at most what it has, divided by the penalty of the greatest length.
"""

import heapq
import math

import torch
from torch import Tensor

from pipeline.models.choice import hidden
from pipeline.models.decoding import Beam, Hypothesis, Marks
from pipeline.models.growth import Growing


class Ended:
    """The best `size` ended texts of one prompt."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[float, int, Hypothesis]] = []
        self._count = 0

    @property
    def worst(self) -> float:
        """What a score has to be above to get in."""
        return self._heap[0][0] if len(self._heap) == self.size else -math.inf

    def offer(self, score: float, tokens: Tensor, *, by_mark: bool) -> None:
        """Take a text in if it is good enough; of equal ones the first stays."""
        if score > self.worst:
            text = Hypothesis(tuple(tokens.tolist()), score, by_mark)
            self._count -= 1
            heapq.heappush(self._heap, (score, self._count, text))
            if len(self._heap) > self.size:
                heapq.heappop(self._heap)

    def best_first(self) -> list[Hypothesis]:
        """What got in."""
        return [text for _, _, text in sorted(self._heap, key=lambda entry: entry[:2])][::-1]


def beam_search(growth: Growing, how: Beam, marks: Marks) -> list[list[Hypothesis]]:
    """The `how.num_returned` best texts of each prompt, best first.

    At every step each open text may end; of its other continuations the `how.beams` most probable
    ones of a prompt stay open. With as many beams as there are texts the search is complete.
    """
    logits = growth.begin()
    ended = [Ended(how.num_returned) for _ in logits]
    open_rows = list(range(len(logits)))  # prompts still searched
    tokens = torch.zeros(len(logits), 1, 0, dtype=torch.int64, device=logits.device)
    scores = torch.zeros_like(logits[:, :1])  # [prompts, open texts]
    for length in range(1, how.max_new_tokens + 1):
        total = _continued(logits, tokens, scores, how, marks)
        _offer_all([ended[row] for row in open_rows], total[..., marks.end], tokens, how, length)
        total[..., marks.end] = -math.inf
        scores, tokens, sources = _best_of(total, tokens, how.beams)
        if length == how.max_new_tokens:
            _offer_open([ended[row] for row in open_rows], scores, tokens, how)
            break
        bounds = (scores[:, 0] / how.penalty(how.max_new_tokens)).tolist()
        kept = [n for n, row in enumerate(open_rows) if bounds[n] > ended[row].worst]
        if not kept:
            break
        open_rows = [open_rows[n] for n in kept]
        chosen = torch.tensor(kept, device=logits.device)
        width = total.shape[1]
        scores, tokens, sources = scores[chosen], tokens[chosen], sources[chosen]
        growth.select((chosen[:, None] * width + sources).flatten())
        logits = growth.extend(tokens[..., -1].flatten())
    return [texts.best_first() for texts in ended]


def _continued(logits: Tensor, tokens: Tensor, scores: Tensor, how: Beam, marks: Marks) -> Tensor:
    """Log-probabilities of all texts one token longer. [prompts, open texts, V]."""
    shares = logits.log_softmax(dim=-1)
    shares = hidden(shares, tokens.flatten(0, 1), how.no_repeated, marks)
    return scores[..., None] + shares.unflatten(0, scores.shape)


def _best_of(total: Tensor, tokens: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and tokens of the best continuations of each prompt, and which text each continues."""
    size = total.shape[-1]
    scores, places = total.flatten(1).topk(min(beams, total[0].numel()), dim=1)
    sources, newest = places // size, places % size
    earlier = torch.take_along_dim(tokens, sources[..., None], dim=1)
    return scores, torch.cat([earlier, newest[..., None]], dim=2), sources


def _offer_all(ended: list[Ended], totals: Tensor, tokens: Tensor, how: Beam, length: int) -> None:
    """Offer every open text with an end mark after it."""
    for texts, row, own in zip(ended, (totals / how.penalty(length)).tolist(), tokens, strict=True):
        for score, text in zip(row, own, strict=True):
            texts.offer(score, text, by_mark=True)


def _offer_open(ended: list[Ended], scores: Tensor, tokens: Tensor, how: Beam) -> None:
    """Offer what reached the greatest length without an end mark."""
    reached = (scores / how.penalty(how.max_new_tokens)).tolist()
    for texts, row, own in zip(ended, reached, tokens, strict=True):
        for score, text in zip(row, own, strict=True):
            texts.offer(score, text, by_mark=False)
