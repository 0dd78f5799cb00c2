"""BERT (Devlin et al. 2018) in transformers; RoBERTa and ELECTRA are made of its parts."""

from typing import Any

from pipeline.config import DataError
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.models.hub.family import (
    Family,
    Names,
    Settings,
    attention_dropout,
    expect,
    mixer_with,
)
from pipeline.tokenizer import Vocabulary

LAYER = r"^encoder\.layers\.(\d+)\."


def encoder_names(model: str) -> Names:
    """Names of embeddings and layers, in transformers inside `model`."""
    layer = model + r".encoder.layer.\1."
    return (
        (LAYER + r"mixer\.(query|key|value)", layer + r"attention.self.\2"),
        (LAYER + r"mixer\.output", layer + "attention.output.dense"),
        (LAYER + r"mixer_residual\.norm", layer + "attention.output.LayerNorm"),
        (LAYER + r"feed_forward\.up", layer + "intermediate.dense"),
        (LAYER + r"feed_forward\.down", layer + "output.dense"),
        (LAYER + r"feed_forward_residual\.norm", layer + "output.LayerNorm"),
        (r"^encoder\.embeddings\.norm", model + ".embeddings.LayerNorm"),
        (r"^encoder\.embeddings\.project", model + ".embeddings_project"),
        (
            r"^encoder\.embeddings\.(word|position|token_type)",
            model + r".embeddings.\1_embeddings",
        ),
    )


def names(_shape: EncoderConfig) -> Names:
    """Names of all weights."""
    return (
        *encoder_names("bert"),
        (r"^head\.dense", "cls.predictions.transform.dense"),
        (r"^head\.norm", "cls.predictions.transform.LayerNorm"),
        (r"^head\.decoder\.bias", "cls.predictions.bias"),
        (r"^pooler", "bert.pooler"),
        (r"^classifier", "classifier"),
    )


def settings(shape: EncoderConfig, _vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a model of this shape."""
    heads = shape.heads()
    if heads.num_heads * heads.head_size != shape.hidden_size:
        raise DataError(
            f"{heads.num_heads} heads of {heads.head_size} are not hidden_size "
            f"{shape.hidden_size}, which encoders in transformers need; leave head_size out"
        )
    return {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.ffn_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": attention_dropout(shape),
        "max_position_embeddings": shape.max_length,
        "type_vocab_size": max(shape.token_types, 1),  # there is no model without
        "initializer_range": shape.initial_std,
        "layer_norm_eps": shape.norm_eps,
        "tie_word_embeddings": True,
    }


def shape(settings: Settings, **changes: Any) -> EncoderConfig:
    """The shape that a `config.json` describes, with `changes` for what a relative does its own way."""
    expect(
        settings,
        hidden_act="gelu",
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    dropout = settings["hidden_dropout_prob"]
    fields: dict[str, Any] = {
        "num_layers": settings["num_hidden_layers"],
        "hidden_size": settings["hidden_size"],
        "num_heads": settings["num_attention_heads"],
        "ffn_size": settings["intermediate_size"],
        "max_length": settings["max_position_embeddings"],
        "token_types": settings["type_vocab_size"],
        "norm_eps": settings["layer_norm_eps"],
        "initial_std": settings["initializer_range"],
        "dropout": dropout,
        "mixer": mixer_with(settings["attention_probs_dropout_prob"], dropout),
    }
    return EncoderConfig(**fields | changes)


BERT = Family(
    model_type="bert",
    names=names,
    classes={
        "BertForMaskedLM": MaskedLanguageModel,
        "BertForSequenceClassification": SequenceClassifier,
        "BertModel": MaskedLanguageModel,
    },
    settings=settings,
    shape=shape,
    read_as={"BertForPreTraining": "BertForMaskedLM"},
    unused=(r"^bert\.pooler\.", r"^cls\.seq_relationship\."),
)
