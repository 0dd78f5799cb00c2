"""Whether a Hugging Face folder and a network here are the same: measured, not assumed.

The same check serves both directions: a folder just exported, and a folder just imported.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.artifact import Network
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector, SequenceClassifier
from pipeline.models.hub.catalogue import kind_of
from pipeline.models.hub.folder import loaded_model
from pipeline.models.hub.tokenizer import loaded_tokenizer
from pipeline.runtime import rng_of
from pipeline.tokenizer import Vocabulary

RANDOM_ROWS, RANDOM_LENGTH = 4, 24
TEXT_ROWS, TEXT_LENGTH = 8, 128  # as many texts, and ids of each, have their logits compared


def verify_folder(
    network: Network, vocabulary: Vocabulary, folder: Path, texts: Sequence[str]
) -> dict[str, Any]:
    """Load `folder` as a user would and compare it with `network` in float32.

    Compares logits (of a model without a head its states) on random rows and on the first of
    `texts`, padded to a common length, at every position that is not padding, and the ids of each
    text. `max_abs_difference` is over all of these numbers.
    """
    network = copy.deepcopy(network).float().eval()
    theirs, tokenizer = loaded_model(folder), loaded_tokenizer(folder)
    own_ids = [_framed(ids, network, vocabulary) for ids in vocabulary.encode(texts)]
    equal = sum(
        list(tokenizer(text)["input_ids"]) == ids.tolist()
        for text, ids in zip(texts, own_ids, strict=True)
    )
    limit = min(TEXT_LENGTH, network.config.max_length or TEXT_LENGTH)
    ids_there = min(network.vocab_size, theirs.config.vocab_size)
    text_rows = [np.where(ids < ids_there, ids, vocabulary.unk)[:limit] for ids in own_ids]
    random_rows = _random_rows(network, ids_there, vocabulary.pad)
    samples = [rows for rows in (random_rows, text_rows[:TEXT_ROWS]) if rows]
    bare = kind_of(folder).bare
    compared = np.array(
        [compare_outputs(network, theirs, rows, vocabulary.pad, bare=bare) for rows in samples]
    )
    return {
        "architecture": type(theirs).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "max_abs_difference": float(compared[:, 0].max()),  # NaN if any is
        "largest_abs_logit": float(compared[:, 1].max()),
        "texts": len(texts),
        "texts_with_equal_ids": equal,
    }


def _framed(ids: np.ndarray, network: Network, vocabulary: Vocabulary) -> np.ndarray:
    if isinstance(network, EncoderDecoder):
        return np.concatenate([ids, [vocabulary.eos]])
    return np.concatenate([[vocabulary.cls], ids, [vocabulary.sep]])


def _random_rows(network: Network, num_ids: int, pad: int) -> list[np.ndarray]:
    """Rows of random ids, none of them padding, with different lengths, so that all but one are padded."""
    rng = rng_of(0, "export check")
    longest = min(RANDOM_LENGTH, network.config.max_length or RANDOM_LENGTH)
    lengths = [max(1, longest - 5 * row) for row in range(RANDOM_ROWS)]
    return [(pad + rng.integers(1, num_ids, length)) % num_ids for length in lengths]


@torch.no_grad()
def compare_outputs(
    network: Network, theirs: Any, rows: Sequence[np.ndarray], pad: int, *, bare: bool = False
) -> tuple[float, float]:
    """Largest difference between the outputs of both for these rows of ids, and largest output.

    Columns for ids that only one of them has are left out. Encoders are also given token types.
    """
    length = max(map(len, rows))
    ids = torch.tensor(
        np.stack([np.pad(row, (0, length - len(row)), constant_values=pad) for row in rows])
    )
    real = torch.tensor([[column < len(row) for column in range(length)] for row in rows])
    given = {"input_ids": ids, "attention_mask": real.long()}
    if isinstance(network, EncoderDecoder):
        ours = network(ids, real.long(), ids, real.long())
        given["decoder_input_ids"] = ids
    else:
        types = _token_types(network, ids)
        ours = _encoded(network, ids, real.long(), types, bare=bare)
        if types is not None:
            given["token_type_ids"] = types
    found = theirs(**given)
    found = found.last_hidden_state if bare else found.logits
    if isinstance(network, ReplacedTokenDetector):
        ours, found = ours[..., None], found[..., None]
    columns = min(ours.shape[-1], found.shape[-1])
    ours, found = ours[..., :columns], found[..., :columns]
    if not isinstance(network, SequenceClassifier):
        ours, found = ours[real], found[real]
    return (ours - found).abs().max().item(), found.abs().max().item()


def _token_types(network: Network, ids: Tensor) -> Tensor | None:
    """Types of the tokens, each type in turn; None for models that tell none apart."""
    kinds = getattr(network.config, "token_types", 0)
    if not kinds or isinstance(network, SequenceClassifier):
        return None
    return (torch.arange(ids.shape[1]) % kinds).expand_as(ids)


def _encoded(
    network: Network, ids: Tensor, segments: Tensor, types: Tensor | None, *, bare: bool
) -> Tensor:
    """Logits, or states [B, T, D] where the model without a head is meant."""
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    if bare:
        assert isinstance(network, MaskedLanguageModel)
        logits: Tensor = network.encoder(ids, segments, positions, None, types)
    elif isinstance(network, MaskedLanguageModel):
        logits = network(ids, segments, positions, positions, None, types)
    elif isinstance(network, ReplacedTokenDetector):
        logits = network(ids, segments, positions, None, types)
    else:
        logits = network(ids, segments, positions)
    return logits
