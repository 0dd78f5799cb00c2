"""Texts that a model writes: answers of encoder-decoders and UniLM, continuations of language models."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.config import ConfigError
from pipeline.models import generation
from pipeline.models.decoder import LanguageModel
from pipeline.models.decoding import Beam, Decoding, Greedy, Marks, Sampling
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.growth import why_not
from pipeline.models.heads import MaskedLanguageModel
from pipeline.use.model import Model
from pipeline.use.reading import TOKENS_AT_ONCE, Longer, batches, encoded, room
from pipeline.use.scores import writes_freely


class Written(NamedTuple):
    """A text, its `score` (see `decoding.Hypothesis`), its tokens, and whether it came to its end."""

    text: str
    score: float
    tokens: int
    ended: bool


def generate(
    model: Model,
    texts: Sequence[str],
    how: Decoding | None = None,
    *,
    numbers: Sequence[int] | None = None,
    longer: Longer = "refuse",
    at_once: int = TOKENS_AT_ONCE,
) -> list[list[Written]]:
    """What the model writes for each text, best first or in the order of the samples; greedy unless `how` is given.

    Draws are keyed by the `numbers` of the texts, from 0 unless given, and by nothing else. ConfigError for a model
    that writes no text; TextError for a text that is too long.
    """
    how = how or Greedy()
    if reason := why_not(model.network):
        raise ConfigError([f"{model.name}: {reason}"])
    prompts = _prompts(model, texts, how.max_new_tokens, longer)
    named = range(len(texts)) if numbers is None else numbers
    marks = _marks(model)
    found: list[list[Written]] = [[] for _ in texts]
    copies = _copies(how)
    for group in batches([copies * (len(p) + how.max_new_tokens) for p in prompts], at_once):
        own = [prompts[index] for index in group]
        keys = [named[index] for index in group]
        made = generation.generate(model.network, own, how, marks, numbers=keys)
        for index, hypotheses in zip(group, made, strict=True):
            found[index] = [
                Written(model.vocabulary.decode(h.tokens), h.score, len(h.tokens), h.ended)
                for h in hypotheses
            ]
    return found


def _prompts(model: Model, texts: Sequence[str], new: int, longer: Longer) -> list[list[int]]:
    """What the network reads of each text, as it did in training."""
    ids = model.vocabulary
    if isinstance(model.network, MaskedLanguageModel):
        before, after, joined = [ids.cls], [ids.sep], new
    elif isinstance(model.network, LanguageModel) and writes_freely(model):
        before, after, joined = [ids.eos], [], new - 1
    else:
        before, after = [], [ids.eos]
        joined = 0 if isinstance(model.network, EncoderDecoder) else new - 1
    around = len(before) + len(after) + joined
    free = room(model, around)
    if free == 0 or room(model, new - 1) == 0:
        raise ConfigError(
            [
                f"max_new_tokens: got {new}, which leave no room for a text in {model.name}; give fewer"
            ]
        )
    return [[*before, *own, *after] for own in encoded(model, texts, longer, around=around)]


def _marks(model: Model) -> Marks:
    """What begins and ends texts of this network; other marks are never written."""
    ids = model.vocabulary
    end = ids.sep if isinstance(model.network, MaskedLanguageModel) else ids.eos
    never = {ids.pad, ids.cls, ids.mask} - {end}
    return Marks(start=ids.pad, end=end, mask=ids.mask, never=tuple(sorted(never)))


def _copies(how: Decoding) -> int:
    """Texts under way for one prompt."""
    match how:
        case Beam():
            return how.beams
        case Sampling():
            return how.num_samples
        case Greedy():
            return 1
