"""How probable a text is to a model: the logarithm, token by token, by the way that suits the network.

T-TA tells log p(token | all others) for all tokens in one pass (Shin et al. 2020). A masked language
model tells it for one token a pass, the one that is hidden (pseudo-log-likelihood, Wang and Cho 2019;
Salazar et al. 2020). ELECTRIC's energies stand for it (Clark et al. 2020b, section 2.3). Language models
and encoder-decoders give the probability of the text itself, the latter given a source.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import ConfigError
from pipeline.models.decoder import LanguageModel
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.growth import beginning_together, device_of
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector
from pipeline.models.output import CHUNK_LOGITS
from pipeline.models.tta import LanguageAutoencoder
from pipeline.use.model import Model
from pipeline.use.reading import (
    TOKENS_AT_ONCE,
    Longer,
    batches,
    encoded,
    fitting,
    room,
    rows_of,
    whole,
)

MARKS_AROUND = 2  # [CLS] and [SEP]


class Score(NamedTuple):
    """`tokens` that were scored, and the log-probability of `each`, in nats."""

    tokens: tuple[int, ...]
    each: tuple[float, ...]

    @property
    def total(self) -> float:
        """The score of the text: the sum over its tokens."""
        return sum(self.each, 0.0)


class Reading(NamedTuple):
    """What is read in one pass: `wanted` tokens are told by the states from place `first` on."""

    ids: list[int]
    first: int
    wanted: list[int]
    source: Sequence[int] = ()


# States [B, T, D] of a batch of readings.
States = Callable[[Sequence[Reading]], Tensor]


@torch.inference_mode()
def score(
    model: Model,
    texts: Sequence[str],
    sources: Sequence[str] | None = None,
    *,
    longer: Longer = "refuse",
    at_once: int = TOKENS_AT_ONCE,
) -> list[Score]:
    """The score of each text, of each given its source where there are `sources`.

    Marks around a text are not scored; the end mark of what is written for a source is. ConfigError
    for a model that cannot score, or not this way; TextError for a text that is too long.
    """
    if reason := why_not(model, sourced=sources is not None):
        raise ConfigError([f"{model.name}: {reason}"])
    assert sources is None or len(sources) == len(texts), (len(sources), len(texts))
    match model.network:
        case LanguageAutoencoder() as network:
            readings = _framed(model, encoded(model, texts, longer, around=MARKS_AROUND))
            told = partial(_autoencoded, model, network)
            return _told(model, readings, told, network.head, at_once)
        case MaskedLanguageModel() as network:
            own = encoded(model, texts, longer, around=MARKS_AROUND)
            return _one_by_one(model, network, own, at_once)
        case ReplacedTokenDetector() as network:
            own = encoded(model, texts, longer, around=MARKS_AROUND)
            return _energies(model, network, own, at_once)
        case LanguageModel() as network:
            readings = _continuations(model, texts, sources, longer)
            told = partial(_continued, model, network)
            return _told(model, readings, told, network.logits, at_once)
        case EncoderDecoder() as network:
            assert sources is not None
            readings = _answers(model, texts, sources, longer)
            told = partial(_written, network)
            return _told(model, readings, told, network.logits, at_once)
        case other:
            raise AssertionError(other)


def why_not(model: Model, *, sourced: bool) -> str | None:
    """Why a model cannot score texts, given sources or not; None if it can."""
    match model.network:
        case EncoderDecoder():
            needs = True
        case LanguageModel():
            needs = sourced if writes_freely(model) else True
        case LanguageAutoencoder() | MaskedLanguageModel():
            needs = False
        case ReplacedTokenDetector() if model.objective == "electric":
            needs = False
        case ReplacedTokenDetector():
            return "tells replaced tokens, not probabilities; score with ELECTRIC, T-TA or MLM"
        case other:
            return f"a {type(other).__name__} has no probabilities of tokens; use a language model"
    if needs and not sourced:
        return "writes a text for a source; say what each text is to be scored given"
    if sourced and not needs:
        return "scores a text by itself; leave the sources out"
    return None


def writes_freely(model: Model) -> bool:
    """Whether a decoder continues any text, as language modelling teaches, and not inputs of pairs."""
    return model.objective in ("lm", None)


def log_probabilities(
    logits_of: Callable[[Tensor], Tensor], states: Tensor, wanted: Tensor, vocab_size: int
) -> Tensor:
    """log p of `wanted` [N] ids at `states` [N, D], float64 [N], without holding all logits at once."""
    rows = max(1, CHUNK_LOGITS // vocab_size)
    parts = [torch.zeros(0, dtype=torch.float64, device=states.device)]
    for first in range(0, len(states), rows):
        logits = logits_of(states[first : first + rows])[:, :vocab_size]
        there = logits.gather(1, wanted[first : first + rows, None])[:, 0]
        parts.append((there - logits.logsumexp(dim=1)).double())
    return torch.cat(parts)


def _told(
    model: Model,
    readings: Sequence[Reading],
    states_of: States,
    logits_of: Callable[[Tensor], Tensor],
    at_once: int,
) -> list[Score]:
    """Scores of readings, each told by one pass."""
    found: list[Score] = [Score((), ())] * len(readings)
    for group in batches([len(r.ids) + len(r.source) for r in readings], at_once):
        some = [readings[number] for number in group]
        wanted = torch.tensor([token for r in some for token in r.wanted], dtype=torch.int64)
        if not len(wanted):
            continue
        hidden = states_of(some)
        read = [hidden[row, r.first : r.first + len(r.wanted)] for row, r in enumerate(some)]
        each = log_probabilities(
            logits_of, torch.cat(read), wanted.to(hidden.device), model.vocabulary.size
        )
        parts = each.split([len(r.wanted) for r in some])
        for number, r, part in zip(group, some, parts, strict=True):
            found[number] = Score(tuple(r.wanted), tuple(part.tolist()))
    return found


def _autoencoded(model: Model, network: LanguageAutoencoder, some: Sequence[Reading]) -> Tensor:
    return network.states(*rows_of(model, [r.ids for r in some]))


def _framed(model: Model, texts: Sequence[list[int]]) -> list[Reading]:
    cls, sep = model.vocabulary.cls, model.vocabulary.sep
    return [Reading([cls, *ids, sep], 1, ids) for ids in texts]


def _one_by_one(
    model: Model, network: MaskedLanguageModel, texts: Sequence[list[int]], at_once: int
) -> list[Score]:
    """A copy of each text for each of its tokens, which is hidden in it."""
    copies = [(number, place) for number, ids in enumerate(texts) for place in range(len(ids))]
    each: list[list[float]] = [[0.0] * len(ids) for ids in texts]
    framed = _framed(model, texts)
    for group in batches([len(framed[number].ids) for number, _ in copies], at_once):
        some = [copies[index] for index in group]
        rows = rows_of(model, [framed[number].ids for number, _ in some])
        places = torch.tensor([[place + 1] for _, place in some], device=rows.ids.device)
        wanted = rows.ids.gather(1, places)[:, 0]
        hidden = rows.ids.scatter(1, places, model.vocabulary.mask)
        states = network.scored_states(hidden, rows.segments, rows.positions, places)
        told = log_probabilities(network.head, states[:, 0], wanted, model.vocabulary.size)
        for (number, place), value in zip(some, told.tolist(), strict=True):
            each[number][place] = value
    return [Score(tuple(ids), tuple(own)) for ids, own in zip(texts, each, strict=True)]


def _energies(
    model: Model, network: ReplacedTokenDetector, texts: Sequence[list[int]], at_once: int
) -> list[Score]:
    """exp(-energy) stands for p(token | all others)."""
    found: list[Score] = [Score((), ())] * len(texts)
    framed = _framed(model, texts)
    for group in batches([len(r.ids) for r in framed], at_once):
        energies = network(*rows_of(model, [framed[number].ids for number in group])).double()
        for number, row in zip(group, (-energies).tolist(), strict=True):
            ids = texts[number]
            found[number] = Score(tuple(ids), tuple(row[1 : len(ids) + 1]))
    return found


def _continuations(
    model: Model, texts: Sequence[str], sources: Sequence[str] | None, longer: Longer
) -> list[Reading]:
    """`</s> source text` of language modelling, or `source </s> text </s>` of pairs, less the last token."""
    end, freely = model.vocabulary.eos, writes_freely(model)
    asked: list[list[int]] = [[] for _ in texts]
    if sources is not None:
        asked = encoded(model, sources, longer, around=1)
    readings = []
    for number, (ids, source) in enumerate(zip(whole(model, texts), asked, strict=True)):
        own = fitting(ids, number, room(model, len(source) + (0 if freely else 1)), longer)
        wanted = own if freely else [*own, end]
        before = [end, *source] if freely else [*source, end]
        readings.append(Reading([*before, *wanted[:-1]], len(source), wanted))
    return readings


def _continued(model: Model, network: LanguageModel, some: Sequence[Reading]) -> Tensor:
    prefix = None
    if network.config.visibility == "prefix":
        prefix = torch.tensor([r.first + 1 for r in some], device=device_of(network))
    return network.states(*rows_of(model, [r.ids for r in some]), prefix)


def _answers(
    model: Model, texts: Sequence[str], sources: Sequence[str], longer: Longer
) -> list[Reading]:
    """Texts as targets of sources, both with an end mark."""
    start, end = model.vocabulary.pad, model.vocabulary.eos
    own, asked = (encoded(model, side, longer, around=1) for side in (texts, sources))
    return [
        Reading([start, *ids], 0, [*ids, end], [*source, end])
        for ids, source in zip(own, asked, strict=True)
    ]


def _written(network: EncoderDecoder, some: Sequence[Reading]) -> Tensor:
    device = device_of(network)
    ids, segments = beginning_together([r.source for r in some], device)
    own, own_segments = beginning_together([r.ids for r in some], device)
    return network.decode(own, own_segments, network.encode(ids, segments), segments)
