"""Texts as networks read them: encoded, checked to fit, and put into batches of like length."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.config import DataError
from pipeline.models.growth import beginning_together, device_of, longest_of
from pipeline.use.model import Model

TOKENS_AT_ONCE = 4096  # of a batch, padding included
Longer = Literal["refuse", "cut"]  # what becomes of a text with more tokens than there is room for


class TextError(DataError):
    """One text cannot be taken: its `number` among those that were given, from 0, and `words` why."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(f"text {number + 1}: {words}")
        self.number = number
        self.words = words


class Rows(NamedTuple):
    """A batch as encoders and decoders read it, padding last. [B, T] each, int64."""

    ids: Tensor
    segments: Tensor  # 1, and 0 at padding
    positions: Tensor


def encoded(
    model: Model, texts: Sequence[str], longer: Longer = "refuse", *, around: int = 0
) -> list[list[int]]:
    """Ids of each text, without marks; `around` places are kept free for those and for what follows.

    TextError for a text that leaves them no room, unless it is to be cut.
    """
    most = room(model, around)
    return [fitting(ids, number, most, longer) for number, ids in enumerate(whole(model, texts))]


def whole(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, however many."""
    return [ids.tolist() for ids in model.vocabulary.encode(texts)]


def room(model: Model, around: int) -> int | None:
    """Tokens of the longest text that fits with `around` places beside it; None: any number."""
    longest = longest_of(model.network)
    return None if longest is None else max(longest - around, 0)


def fitting(ids: list[int], number: int, most: int | None, longer: Longer) -> list[int]:
    """`ids` of text `number`, cut to `most` or refused when there are more."""
    if most is None or len(ids) <= most:
        return ids
    if longer == "cut":
        return ids[:most]
    raise TextError(
        number, f"has {len(ids)} tokens, there is room for {most}; shorten it, or have it cut"
    )


def batches(lengths: Sequence[int], at_once: int = TOKENS_AT_ONCE) -> Iterator[list[int]]:
    """Numbers of texts in groups of like length, the shortest first.

    Padded to its longest a group holds at most `at_once` places, or it is one text.
    """
    group: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[number] > at_once:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def rows_of(model: Model, ids: Sequence[Sequence[int]]) -> Rows:
    """Sequences of ids as one batch on the model's device."""
    padded, segments = beginning_together(ids, device_of(model.network))
    positions = torch.arange(padded.shape[1], device=padded.device).expand_as(padded)
    return Rows(padded, segments, torch.where(segments > 0, positions, 0))
