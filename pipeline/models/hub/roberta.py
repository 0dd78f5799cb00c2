"""RoBERTa (Liu et al. 2019) in transformers: a BERT whose positions count from above the padding id.

Positions there are pad + 1, pad + 2, ..., so the first rows of its table are no positions of text. Here they are left
out, and the longest text is shorter than the table by as many.
"""

from typing import Any

from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.models.hub import bert
from pipeline.models.hub.family import Family, Names, Settings
from pipeline.tokenizer import Vocabulary


def names(_shape: EncoderConfig) -> Names:
    """Names of all weights."""
    return (
        *bert.encoder_names("roberta"),
        (r"^head\.dense", "lm_head.dense"),
        (r"^head\.norm", "lm_head.layer_norm"),
        (r"^head\.decoder\.bias", "lm_head.bias"),
        (r"^pooler\.dense", "classifier.dense"),
        (r"^classifier", "classifier.out_proj"),
    )


def settings(shape: EncoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a model of this shape."""
    longest = shape.max_length + vocabulary.pad + 1
    return {**bert.settings(shape, vocabulary), "max_position_embeddings": longest}


def shape(settings: Settings) -> EncoderConfig:
    """The shape that a `config.json` describes."""
    longest = settings["max_position_embeddings"] - rows_before(settings)
    return bert.shape(settings, max_length=longest)


def rows_before(settings: Settings) -> int:
    """Rows of the table of positions that no text uses."""
    return int(settings["pad_token_id"]) + 1


ROBERTA = Family(
    model_type="roberta",
    names=names,
    classes={
        "RobertaForMaskedLM": MaskedLanguageModel,
        "RobertaForSequenceClassification": SequenceClassifier,
        "RobertaModel": MaskedLanguageModel,
    },
    settings=settings,
    shape=shape,
    read_as={},
    unused=(r"^roberta\.pooler\.",),
    rows_before=rows_before,
    separators=2,
)
