"""ModernBERT (Warner et al. 2024) in transformers: pre-norm, rotary positions, windows in most layers.

Its dropouts stand in other places than Theseum's, so the rates are carried over but the two train alike only
where they are zero, as in the published models.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.config import DataError
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.models.hub.bert import LAYER
from pipeline.models.hub.family import (
    Family,
    Names,
    Settings,
    attention_dropout,
    expect,
    mixer_with,
)
from pipeline.tokenizer import Vocabulary

FULL, SLIDING = "full_attention", "sliding_attention"
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
DROPOUTS = ("embedding_dropout", "mlp_dropout")


def names(_shape: EncoderConfig) -> Names:
    """Names of all weights; queries, keys and values are one matrix, gates and their inputs another."""
    layer = r"model.layers.\1."
    return (
        (LAYER + r"mixer\.query", layer + "attn.Wqkv<0/3>"),
        (LAYER + r"mixer\.key", layer + "attn.Wqkv<1/3>"),
        (LAYER + r"mixer\.value", layer + "attn.Wqkv<2/3>"),
        (LAYER + r"mixer\.output", layer + "attn.Wo"),
        (LAYER + r"mixer_residual\.norm", layer + "attn_norm"),
        (LAYER + r"feed_forward\.gate", layer + "mlp.Wi<0/2>"),
        (LAYER + r"feed_forward\.up", layer + "mlp.Wi<1/2>"),
        (LAYER + r"feed_forward\.down", layer + "mlp.Wo"),
        (LAYER + r"feed_forward_residual\.norm", layer + "mlp_norm"),
        (r"^encoder\.embeddings\.word", "model.embeddings.tok_embeddings"),
        (r"^encoder\.embeddings\.norm", "model.embeddings.norm"),
        (r"^encoder\.norm", "model.final_norm"),
        (r"^head\.(dense|norm)", r"head.\1"),
        (r"^head\.decoder\.bias", "decoder.bias"),
    )


def settings(shape: EncoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a model of this shape."""
    heads = shape.heads()
    if heads.num_heads * heads.head_size != shape.hidden_size:
        raise DataError(
            f"{heads.num_heads} heads of {heads.head_size} are not hidden_size "
            f"{shape.hidden_size}, which encoders in transformers need; leave head_size out"
        )
    local_base = shape.local_rotary_base or shape.rotary_base
    layers = shape.core().layers
    return {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.ffn_size,
        "hidden_activation": "gelu",
        "max_position_embeddings": shape.max_length,
        "initializer_range": shape.initial_std,
        "norm_eps": shape.norm_eps,
        "layer_types": [FULL if layer.window is None else SLIDING for layer in layers],
        "local_attention": 2 * (shape.window or 1),
        "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": shape.rotary_base},
            SLIDING: {"rope_type": "default", "rope_theta": local_base},
        },
        "attention_dropout": attention_dropout(shape),
        **dict.fromkeys(DROPOUTS, shape.dropout),
        **dict.fromkeys(BIASES, shape.biases),
        "decoder_bias": True,
        "cls_token_id": vocabulary.cls,
        "sep_token_id": vocabulary.sep,
        "tie_word_embeddings": True,
    }


def shape(settings: Settings) -> EncoderConfig:
    """The shape that a `config.json` describes. Where only some parts have biases, all get them."""
    expect(
        settings,
        hidden_activation="gelu",
        classifier_activation="gelu",
        tie_word_embeddings=True,
        embedding_dropout=settings["mlp_dropout"],
    )
    bases = {}
    for kind, rope in settings["rope_parameters"].items():
        expect(rope, rope_type="default")
        bases[kind] = rope["rope_theta"]
    dropout = settings["mlp_dropout"]
    return EncoderConfig(
        num_layers=settings["num_hidden_layers"],
        hidden_size=settings["hidden_size"],
        num_heads=settings["num_attention_heads"],
        ffn_size=settings["intermediate_size"],
        feed_forward="geglu_exact",
        biases=any(settings[key] for key in BIASES),
        normalised="before",
        first_norm=False,
        norm_eps=settings["norm_eps"],
        max_length=settings["max_position_embeddings"],
        positions="rotary",
        rotary_base=bases[FULL],
        token_types=0,
        initial_std=settings["initializer_range"],
        rescaled="by_depth",
        dropout=dropout,
        mixer=mixer_with(settings["attention_dropout"], dropout),
        **windows(settings["layer_types"], settings["local_attention"] // 2, bases[SLIDING]),
    )


def windows(kinds: Sequence[str], window: int, local_base: float) -> dict[str, Any]:
    """Fields for layers of these `kinds`; DataError when they do not alternate regularly."""
    if SLIDING not in kinds:
        return {}
    fields = {"window": window, "local_rotary_base": local_base}
    if FULL not in kinds:
        return fields
    for every in range(1, len(kinds) + 1):
        if all((kind == FULL) == (n % every == 0) for n, kind in enumerate(kinds)):
            return {**fields, "global_every": every}
    raise DataError(
        f"layer_types: {FULL} is not in layer 0 and every n-th layer after it, and nowhere else; "
        "only such models can be imported"
    )


MODERNBERT = Family(
    model_type="modernbert",
    names=names,
    classes={"ModernBertForMaskedLM": MaskedLanguageModel, "ModernBertModel": MaskedLanguageModel},
    settings=settings,
    shape=shape,
    read_as={},
)
