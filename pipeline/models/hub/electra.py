"""ELECTRA (Clark et al. 2020) in transformers: generator and discriminator, embeddings of their own size."""

from typing import Any

from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector
from pipeline.models.hub import bert
from pipeline.models.hub.family import Family, Names, Settings
from pipeline.tokenizer import Vocabulary


def names(_shape: EncoderConfig) -> Names:
    """Names of all weights of either half."""
    return (
        *bert.encoder_names("electra"),
        (r"^head\.dense", "generator_predictions.dense"),
        (r"^head\.norm", "generator_predictions.LayerNorm"),
        (r"^head\.decoder\.bias", "generator_lm_head.bias"),
        (r"^detector\.dense", "discriminator_predictions.dense"),
        (r"^detector\.score", "discriminator_predictions.dense_prediction"),
    )


def settings(shape: EncoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a model of this shape."""
    size = shape.embedding_size or shape.hidden_size
    return {**bert.settings(shape, vocabulary), "embedding_size": size}


def shape(settings: Settings) -> EncoderConfig:
    """The shape that a `config.json` describes."""
    size = settings["embedding_size"]
    return bert.shape(settings, embedding_size=None if size == settings["hidden_size"] else size)


ELECTRA = Family(
    model_type="electra",
    names=names,
    classes={
        "ElectraForMaskedLM": MaskedLanguageModel,
        "ElectraForPreTraining": ReplacedTokenDetector,
        "ElectraModel": MaskedLanguageModel,
    },
    settings=settings,
    shape=shape,
    read_as={},
)
