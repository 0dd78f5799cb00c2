"""Texts as vectors: means of a network's last states, or the state of [CLS]."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ConfigError
from pipeline.models.decoder import LanguageModel
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.tta import LanguageAutoencoder
from pipeline.use.model import Model
from pipeline.use.reading import TOKENS_AT_ONCE, Longer, Rows, batches, encoded, rows_of
from pipeline.use.scores import writes_freely

Pooling = Literal["mean", "mean_with_marks", "cls"]
POOLINGS: tuple[Pooling, ...] = ("mean", "mean_with_marks", "cls")


@torch.inference_mode()
def embed(
    model: Model,
    texts: Sequence[str],
    pooling: Pooling = "mean",
    *,
    longer: Longer = "refuse",
    at_once: int = TOKENS_AT_ONCE,
) -> np.ndarray:
    """A vector for each text, float32 [texts, hidden size].

    mean: of the states of its tokens (T-TA's released code), mean_with_marks: of those of its marks too
    (sentence-transformers), cls: the state of [CLS]. Of an encoder-decoder the encoder's states; a prefix model reads
    the text as a prefix. A text without tokens has the mean of its marks. ConfigError where there is no [CLS],
    TextError for a text that is too long.
    """
    before, after = _marks(model)
    if pooling == "cls" and before != [model.vocabulary.cls]:
        raise ConfigError(
            [f"{model.name}: a {type(model.network).__name__} reads no [CLS]; use a mean"]
        )
    own = encoded(model, texts, longer, around=len(before) + len(after))
    framed = [[*before, *ids, *after] for ids in own]
    found = np.zeros((len(texts), model.network.config.hidden_size), dtype=np.float32)
    for group in batches([len(ids) for ids in framed], at_once):
        rows = rows_of(model, [framed[number] for number in group])
        states = _states(model, rows)
        counted = rows.segments > 0
        if pooling == "mean":
            ends = rows.segments.sum(dim=1, keepdim=True) - len(after)
            inner = counted & (rows.positions >= len(before)) & (rows.positions < ends)
            counted = torch.where(inner.any(dim=1, keepdim=True), inner, counted)
        elif pooling == "cls":
            counted = counted & (torch.arange(counted.shape[1], device=counted.device) == 0)
        kept = counted.to(states.dtype)[:, :, None]
        vectors = (states * kept).sum(dim=1) / kept.sum(dim=1)
        found[group] = vectors.float().cpu().numpy()
    return found


def _marks(model: Model) -> tuple[list[int], list[int]]:
    """What stands before and behind a text where this network reads it."""
    ids = model.vocabulary
    match model.network:
        case EncoderDecoder():
            return [], [ids.eos]
        case LanguageModel():
            return ([ids.eos], []) if writes_freely(model) else ([], [ids.eos])
        case _:
            return [ids.cls], [ids.sep]


def _states(model: Model, rows: Rows) -> Tensor:
    """Last states [B, T, D]."""
    match model.network:
        case EncoderDecoder() as network:
            return network.encode(rows.ids, rows.segments)
        case LanguageModel() as network:
            both_ways = network.config.visibility == "prefix"
            return network.states(*rows, rows.segments > 0 if both_ways else None)
        case LanguageAutoencoder() as network:
            return network.states(*rows)
        case network:
            states: Tensor = network.encoder(*rows)
            return states
