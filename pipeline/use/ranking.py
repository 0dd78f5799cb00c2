"""n-best lists put in order by what a model makes of their texts and by the scores they came with."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.use.model import Model
from pipeline.use.reading import TOKENS_AT_ONCE, Longer, TextError
from pipeline.use.scores import score

Hypothesis = tuple[str, float]  # a text, and the score it was found with


class Ranked(NamedTuple):
    """A text with the score it came with, the model's, and both together."""

    text: str
    given: float
    model: float
    total: float


def rerank(
    model: Model,
    lists: Sequence[Sequence[Hypothesis]],
    weight: float = 0.5,
    sources: Sequence[str] | None = None,
    *,
    longer: Longer = "refuse",
    at_once: int = TOKENS_AT_ONCE,
) -> list[list[Ranked]]:
    """Each list, best first by (1 - `weight`) given + `weight` model; of equal ones the earlier stays first.

    The model's scores are those of `score`, given the source of a list where there are `sources`; all lists are scored
    together. TextError names the number of a list.
    """
    assert 0 <= weight <= 1, weight
    owners = [number for number, own in enumerate(lists) for _ in own]
    texts = [text for own in lists for text, _ in own]
    asked = None if sources is None else [sources[number] for number in owners]
    try:
        scores = iter(score(model, texts, asked, longer=longer, at_once=at_once))
    except TextError as error:
        raise TextError(owners[error.number], f"one of its texts {error.words}") from None
    ranked = []
    for own in lists:
        both = [(text, given, next(scores).total) for text, given in own]
        totals = [Ranked(*one, (1 - weight) * one[1] + weight * one[2]) for one in both]
        ranked.append(sorted(totals, key=lambda one: -one.total))
    return ranked
