"""Texts to sequences of a bounded length: cut, or read in windows that overlap."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluate.forms.form import Reading, Sequenced
from pipeline.tokenizer import Vocabulary

Ids = np.ndarray


@dataclass(frozen=True)
class Window:
    """One sequence, and the stretch of the long text in it: tokens `first` to `end`, from place `at` on."""

    sequence: Sequenced
    first: int
    end: int
    at: int


def sequenced(vocabulary: Vocabulary, first: Ids, second: Ids | None) -> Sequenced:
    """Marks around one text or two."""
    cls, sep = [vocabulary.cls], [vocabulary.sep]
    one = np.concatenate((cls, first, sep)).astype(np.int32)
    if second is None:
        return Sequenced(one, len(one))
    return Sequenced(np.concatenate((one, second, sep)).astype(np.int32), len(one))


def cut(first: Ids, second: Ids | None, room: int) -> tuple[Ids, Ids | None]:
    """Both texts in `room` tokens: whichever is longer loses its end, as in BERT's code.

    >>> one, two = cut(np.arange(2), np.arange(9), 6)
    >>> len(one), len(two)
    (2, 4)
    """
    if second is None:
        return first[:room], None
    of_second = min(len(second), max(room - len(first), room // 2))
    return first[: room - of_second], second[:of_second]


def windows_of(
    vocabulary: Vocabulary, first: Ids, second: Ids | None, reading: Reading
) -> list[Window]:
    """The sequences in which one text or two are read, at least one.

    Without a stride there is one, and it is cut. With one, the windows move over the text, or the second of two; the
    first of two stands in each and has at most half of the room.
    """
    marks = 2 if second is None else 3
    room = reading.max_length - marks
    assert room >= 2, "the marks need room beside the text"
    if reading.stride is None:
        kept, other = cut(first, second, room)
        moving = kept if other is None else other
        sequence = sequenced(vocabulary, kept, other)
        return [Window(sequence, 0, len(moving), len(sequence.ids) - 1 - len(moving))]
    fixed = None if second is None else first[: room // 2]
    moving = first if second is None else second
    width = room - (0 if fixed is None else len(fixed))
    found = []
    for start in starts_of(len(moving), width, min(reading.stride, width)):
        part = moving[start : start + width]
        sequence = (
            sequenced(vocabulary, part, None)
            if fixed is None
            else sequenced(vocabulary, fixed, part)
        )
        at = len(sequence.ids) - 1 - len(part)
        found.append(Window(sequence, start, start + len(part), at))
    return found


def starts_of(length: int, width: int, stride: int) -> range:
    """Where windows begin: every `stride`, until one reaches the end.

    >>> list(starts_of(10, 4, 3)), list(starts_of(4, 4, 3)), list(starts_of(5, 4, 3))
    ([0, 3, 6], [0], [0, 3])
    """
    return range(0, max(length - width + stride, stride), stride)


def centrality(window: Window, token: int) -> tuple[int, int]:
    """How well a window sees a token of the long text: what it has on the poorer side, then how long it is.

    A side on which the text itself ends counts the tokens that are there, as in BERT's code.
    """
    assert window.first <= token < window.end, (window, token)
    return min(token - window.first, window.end - 1 - token), window.end - window.first


def spelled(word: str, pieces: Any) -> list[tuple[int, int]] | None:
    """Stretches of letters of `word` that its pieces spell, None where they do not spell it letter by letter.

    >>> spelled("Cats!", ["▁cat", "##s", "!"])
    [(0, 3), (3, 4), (4, 5)]
    """
    bare = [piece.removeprefix("▁").removeprefix("Ġ").removeprefix("##") for piece in pieces]
    if "".join(bare).casefold() != word.casefold():
        return None
    ends = np.cumsum([len(piece) for piece in bare]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))
