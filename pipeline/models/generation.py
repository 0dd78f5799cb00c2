"""Text from a network: greedy, sampled or searched for, the same three ways for every kind of network."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.models.choice import drawn, hidden, probabilities
from pipeline.models.decoding import Beam, Decoding, Greedy, Hypothesis, Marks, Sampling
from pipeline.models.growth import ClozeKind, Growing, Prompts, growing
from pipeline.models.search import beam_search

# The next token of each row [N] from its logits [N, V], the texts' numbers and the step.
Choice = Callable[[Tensor, list[int], int], Tensor]


@torch.inference_mode()
def generate(
    network: nn.Module,
    prompts: Prompts,
    how: Decoding,
    marks: Marks,
    *,
    numbers: Sequence[int] | None = None,
    cloze: ClozeKind = "prefix",
) -> list[list[Hypothesis]]:
    """Texts for every prompt, best first or in the order of the samples.

    Prompts are what an encoder-decoder reads and what other networks continue; UniLM's hold their
    own [CLS] and [SEP], and `cloze` says how it continues them (`GrowingCloze`). `network` is in
    evaluation mode. Draws are keyed by the `numbers` of the prompts (from 0 unless given), so a text
    does not depend on its batch. Raises what `growing` raises.
    """
    if not len(prompts):
        return []
    growth = growing(network, prompts, marks, how.max_new_tokens, cloze)
    return decoded(growth, how, marks, numbers)


def decoded(
    growth: Growing, how: Decoding, marks: Marks, numbers: Sequence[int] | None = None
) -> list[list[Hypothesis]]:
    """`generate` for texts that are under way already."""
    match how:
        case Beam():
            return beam_search(growth, how, marks)
        case Greedy():
            texts = stepwise(growth, most_probable, how, marks)
            return [[text] for text in texts]
        case Sampling():
            count = how.num_samples

            def choose(logits: Tensor, texts: list[int], step: int) -> Tensor:
                owners = [text // count for text in texts]
                named = owners if numbers is None else [numbers[owner] for owner in owners]
                names = [
                    (name, text % count, step) for name, text in zip(named, texts, strict=True)
                ]
                return drawn(probabilities(logits, how), names, how.seed)

            texts = stepwise(growth, choose, how, marks, count)
            return [texts[first : first + count] for first in range(0, len(texts), count)]


def most_probable(logits: Tensor, _texts: list[int], _step: int) -> Tensor:
    """The token with the greatest logit."""
    return logits.argmax(dim=-1)


def stepwise(
    growth: Growing, choose: Choice, how: Greedy | Sampling, marks: Marks, copies: int = 1
) -> list[Hypothesis]:
    """`copies` texts for every prompt, a token at a time until all have ended.

    A text that has ended leaves the batch.
    """
    logits = growth.begin()
    rows = torch.arange(len(logits), device=logits.device).repeat_interleave(copies)
    if copies > 1:
        growth.select(rows)
        logits = logits[rows]
    under_way = list(range(len(rows)))
    tokens = torch.zeros(len(rows), 0, dtype=torch.int64, device=logits.device)
    scores = torch.zeros(len(rows), dtype=torch.float64, device=logits.device)
    finished: dict[int, Hypothesis] = {}
    for step in range(how.max_new_tokens):
        allowed = hidden(logits, tokens, how.no_repeated, marks)
        newest = choose(allowed, under_way, step)[:, None]
        scores = scores + logits.log_softmax(dim=-1).gather(1, newest)[:, 0]
        tokens = torch.cat([tokens, newest], dim=1)
        going = (newest[:, 0] != marks.end).tolist()
        last = step + 1 == how.max_new_tokens
        for text, row, score, more in zip(under_way, tokens, scores.tolist(), going, strict=True):
            if last or not more:
                finished[text] = Hypothesis(_without_end(row, more), score, not more)
        if last or not any(going):
            break
        if not all(going):
            kept = torch.tensor([n for n, more in enumerate(going) if more], device=logits.device)
            under_way = [text for text, more in zip(under_way, going, strict=True) if more]
            tokens, scores = tokens[kept], scores[kept]
            growth.select(kept)
        logits = growth.extend(tokens[:, -1])
    return [finished[text] for text in sorted(finished)]


def _without_end(row: Tensor, more: bool) -> tuple[int, ...]:
    return tuple((row if more else row[:-1]).tolist())
