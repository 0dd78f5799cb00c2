"""What a network of any kind is asked by a batch, and what it answers: logits, and the labels that are right.

A student and its teacher answer the same batch, so whatever is drawn for it, such as replaced tokens, is drawn once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.example import IGNORED
from pipeline.models.decoder import LanguageModel
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.heads import (
    MaskedLanguageModel,
    ReplacedTokenDetector,
    SequenceClassifier,
    TokenClassifier,
)
from pipeline.models.tta import LanguageAutoencoder
from pipeline.objectives.pairs import joined
from pipeline.objectives.replacement import Draw, drawn, replaced

Asked = dict[str, Any]

# What the loss of the right labels is called, as the objectives of such networks call it.
TERMS: Mapping[type, str] = {
    SequenceClassifier: "cross_entropy",
    TokenClassifier: "cross_entropy",
    MaskedLanguageModel: "mlm",
    ReplacedTokenDetector: "detect",
    LanguageAutoencoder: "lae",
    LanguageModel: "lm",
    EncoderDecoder: "denoising",
}
OF_ENCODERS = ("input_ids", "segment_ids", "position_ids")
INPUTS: Mapping[type, tuple[str, ...]] = {
    SequenceClassifier: (*OF_ENCODERS, "token_types"),
    TokenClassifier: (*OF_ENCODERS, "token_types"),
    MaskedLanguageModel: (*OF_ENCODERS, "scored_positions"),
    ReplacedTokenDetector: OF_ENCODERS,
    LanguageAutoencoder: OF_ENCODERS,
    LanguageModel: (*OF_ENCODERS, "prefix"),
    EncoderDecoder: ("input_ids", "input_segments", "decoder_input_ids", "decoder_segments"),
}


def asked(network: Any, batch: Mapping[str, Tensor], generator: Any) -> Asked:
    """`batch` as `network` reads it, with its `labels`, IGNORED where nothing is asked.

    Classifiers are asked for a label or a number, for one of several choices (of sequences
    [B, choices, T]), for both ends of a span, or for labels of tokens. A detector reads a text with
    tokens drawn from `generator`, or from all tokens alike without one; it is asked of every real token
    whether it was replaced. A decoder reads pairs end to end.
    """
    match network:
        case SequenceClassifier() | TokenClassifier():
            read = {"token_types": None, **batch}
            if "choices" in batch:
                inputs = INPUTS[type(network)]
                read |= {name: batch[name].flatten(0, 1) for name in inputs}
            label = "span" if "span" in batch else "label"
            return {**read, "labels": batch[label]} if label in batch else read
        case ReplacedTokenDetector():
            return _with_replaced(network, batch, generator)
        case LanguageModel() if "decoder_input_ids" in batch:
            row = joined(batch)._asdict()
            return row if network.config.visibility == "prefix" else {**row, "prefix": None}
        case LanguageModel() if network.config.visibility == "prefix":
            return {**batch, "labels": batch["labels"].masked_fill(~batch["continued"], IGNORED)}
        case LanguageModel():
            return {**batch, "prefix": None}
    return dict(batch)


def logits_of(network: Any, read: Asked) -> Tensor:
    """Logits [..., C] at the places [...] of the labels of an `asked` batch; a number is a logit of its own.

    A detector's single logit x is the second of two classes, (0, x). Choices that a row has not, and
    places of a span that are padding, are at -inf.
    """
    logits: Tensor = network(*(read[name] for name in INPUTS[type(network)]))
    if isinstance(network, ReplacedTokenDetector):
        return torch.stack([torch.zeros_like(logits), logits], dim=-1)
    if "choices" in read:
        scores = logits.reshape(len(read["choices"]), -1)
        beyond = torch.arange(scores.shape[1], device=scores.device) >= read["choices"][:, None]
        return scores.masked_fill(beyond, -torch.inf)
    if "span" in read:
        return logits.masked_fill((read["segment_ids"] == 0)[..., None], -torch.inf).mT
    return logits


def counts_of(network: Any, batch: Mapping[str, Any]) -> dict[str, int]:
    """Of a host batch as it comes from the data: `answers` that are asked for, `rows`, and real `tokens` read."""
    if "decoder_input_ids" in batch:
        answers = int((batch["labels"] != IGNORED).sum())
        tokens = int((batch["input_segments"] > 0).sum()) + answers
        if isinstance(network, LanguageModel):
            tokens -= len(batch["labels"])  # it reads no start of the targets
        return {"answers": answers, "rows": len(batch["labels"]), "tokens": tokens}
    rows, tokens = len(batch["segment_ids"]), int((batch["segment_ids"] > 0).sum())
    if isinstance(network, ReplacedTokenDetector):
        answers = tokens
    elif "label" in batch:
        answers = rows
    elif "span" in batch:
        answers = batch["span"].size
    else:
        scored = np.asarray(batch["labels"]) != IGNORED
        if isinstance(network, LanguageModel) and network.config.visibility == "prefix":
            scored &= batch["continued"]
        answers = int(scored.sum())
    return {"answers": answers, "rows": rows, "tokens": tokens}


@torch.no_grad()
def _with_replaced(
    network: ReplacedTokenDetector, batch: Mapping[str, Tensor], generator: Any
) -> Asked:
    places, labels = batch["scored_positions"], batch["labels"]
    if generator is None:
        tokens = (batch["uniforms"] * network.vocab_size).long()
    else:
        read = generator.head.transformed(
            generator.scored_states(
                batch["input_ids"], batch["segment_ids"], batch["position_ids"], places
            )
        )
        how = Draw(network.vocab_size)
        tokens, _ = drawn(generator.head.decoder, read, batch["uniforms"], labels, how)
    text = replaced(batch["input_ids"], places, labels, tokens)
    told = text.differs.long().masked_fill(batch["segment_ids"] == 0, IGNORED)
    return {**batch, "input_ids": text.input_ids, "labels": told}
