"""Blanks in a text, marked by `[MASK]`, and the tokens that a model would put there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import ConfigError
from pipeline.models.heads import MaskedLanguageModel
from pipeline.models.tta import LanguageAutoencoder
from pipeline.tokenizer import Vocabulary
from pipeline.use.model import Model
from pipeline.use.reading import (
    TOKENS_AT_ONCE,
    Longer,
    TextError,
    batches,
    fitting,
    room,
    rows_of,
)

MARK = "[MASK]"
ANCHOR = "a"  # a word before what follows a blank without a space, and taken away again


class Candidate(NamedTuple):
    """A token for a blank: as text, as the vocabulary's piece, and its probability there."""

    word: str
    piece: str
    probability: float


class Filled(NamedTuple):
    """`blanks` of one text in order, each with its candidates, best first; `text` has the best ones in it."""

    text: str
    blanks: tuple[tuple[Candidate, ...], ...]


@torch.inference_mode()
def fill(
    model: Model,
    texts: Sequence[str],
    *,
    top: int = 5,
    mark: str = MARK,
    longer: Longer = "refuse",
    at_once: int = TOKENS_AT_ONCE,
) -> list[Filled]:
    """The `top` most probable tokens for each `mark` in each text, all blanks of a text at once.

    T-TA reads no masks: it is asked for one blank a text, and for several each time with masks it has never seen in the
    other places, so it takes only one. ConfigError for a model that fills no blanks, TextError for a text without one.
    """
    network = model.network
    if not isinstance(network, MaskedLanguageModel | LanguageAutoencoder):
        raise ConfigError(
            [f"{model.name}: a {type(network).__name__} fills no blanks; use an MLM, UniLM or T-TA"]
        )
    read = [_read(model, text, number, mark, longer) for number, text in enumerate(texts)]
    barred = _no_words(model.vocabulary)
    found: list[Filled] = [Filled("", ())] * len(texts)
    for group in batches([len(ids) for ids in read], at_once):
        rows = rows_of(model, [read[number] for number in group])
        owners, places = (rows.ids == model.vocabulary.mask).nonzero(as_tuple=True)
        states = _states(network, *rows)[owners, places]
        shares = network.head(states)[:, : model.vocabulary.size].double().softmax(dim=1)
        shares[:, barred] = -1.0
        best = shares.topk(min(top, shares.shape[1] - len(barred)), dim=1)
        rows.ids[owners, places] = best.indices[:, 0]
        for row, number in enumerate(group):
            own = (owners == row).nonzero()[:, 0]
            ids = rows.ids[row, 1 : len(read[number]) - 1].tolist()
            blanks = (
                _candidates(model.vocabulary, best.values[one], best.indices[one])
                for one in own.tolist()
            )
            found[number] = Filled(model.vocabulary.decode(ids), tuple(blanks))
    return found


def around_blanks(vocabulary: Vocabulary, parts: Sequence[str]) -> list[int]:
    """Ids of the parts of a text with a mask between them, cut as they would be within words around it.

    A part that begins without a space would be cut as a new word; it is read behind another word instead, whose
    tokens are then left out, unless the two cannot be told apart.
    """
    ids: list[int] = []
    anchor = vocabulary.encode([ANCHOR])[0].tolist()
    for number, part in enumerate(parts):
        own = vocabulary.encode([part.rstrip() if number < len(parts) - 1 else part])[0].tolist()
        if number:
            ids.append(vocabulary.mask)
            joined = vocabulary.encode([ANCHOR + part.rstrip()])[0].tolist()
            if part[:1].strip() and joined[: len(anchor)] == anchor:
                own = joined[len(anchor) :]
        ids += own
    return ids


def _read(model: Model, text: str, number: int, mark: str, longer: Longer) -> list[int]:
    parts = text.split(mark)
    if len(parts) == 1:
        raise TextError(number, f"has no {mark}")
    if len(parts) > 2 and isinstance(model.network, LanguageAutoencoder):
        raise TextError(
            number, f"has {len(parts) - 1} times {mark}, and T-TA, which reads no masks, fills one"
        )
    ids = fitting(around_blanks(model.vocabulary, parts), number, room(model, 2), longer)
    if model.vocabulary.mask not in ids:
        raise TextError(number, f"has no {mark} left after it was cut")
    return [model.vocabulary.cls, *ids, model.vocabulary.sep]


def _states(
    network: MaskedLanguageModel | LanguageAutoencoder, ids: Tensor, segments: Tensor, at: Tensor
) -> Tensor:
    if isinstance(network, LanguageAutoencoder):
        return network.states(ids, segments, at)
    states: Tensor = network.encoder(ids, segments, at)
    return states


def _no_words(vocabulary: Vocabulary) -> list[int]:
    """Ids that stand for no text."""
    sentinels = map(vocabulary.sentinel, range(vocabulary.num_sentinels))
    return sorted({*vocabulary.special_ids.values(), *sentinels})


def _candidates(vocabulary: Vocabulary, shares: Tensor, ids: Tensor) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(vocabulary.decode([token]).strip(), vocabulary.piece(token), share)
        for share, token in zip(shares.tolist(), ids.tolist(), strict=True)
    )
