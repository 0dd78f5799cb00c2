"""T5 1.0 and 1.1 (Raffel et al. 2019) in transformers."""

from typing import Any

from pipeline.config import DataError
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.hub.family import Family, Names, Settings, attention_dropout
from pipeline.tokenizer import Vocabulary

LAYER = r"^(encoder|decoder)\.layers\.(\d+)\."
ENCODER = r"^encoder\.layers\.(\d+)\."
DECODER = r"^decoder\.layers\.(\d+)\."
ENCODED = r"encoder.block.\1.layer.1."
DECODED = r"decoder.block.\1.layer.2."
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias"
GATED = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
PLAIN = {"up": "wi", "down": "wo"}
# What transformers calls a feed-forward layer, and how it reads that: gated or not, activation.
ACTIVATIONS = {
    "relu": ("relu", False, "relu"),
    "gelu": ("gelu", False, "gelu"),
    "geglu": ("gated-gelu", True, "gelu_new"),
}


def names(shape: EncoderDecoderConfig) -> Names:
    """Names of all weights."""
    dense = GATED if shape.feed_forward == "geglu" else PLAIN
    return (
        (LAYER + r"mixer\.([qkvo])[a-z]+", r"\1.block.\2.layer.0.SelfAttention.\3"),
        (LAYER + r"mixer_residual\.norm", r"\1.block.\2.layer.0.layer_norm"),
        (LAYER + r"cross_mixer\.([qkvo])[a-z]+", r"\1.block.\2.layer.1.EncDecAttention.\3"),
        (LAYER + r"cross_residual\.norm", r"\1.block.\2.layer.1.layer_norm"),
        *(
            (side + rf"feed_forward\.{own}", f"{block}DenseReluDense.{theirs}")
            for side, block in ((ENCODER, ENCODED), (DECODER, DECODED))
            for own, theirs in dense.items()
        ),
        (ENCODER + r"feed_forward_residual\.norm", ENCODED + "layer_norm"),
        (DECODER + r"feed_forward_residual\.norm", DECODED + "layer_norm"),
        (r"^(encoder|decoder)\.bias\.table", rf"\1.{BIAS}"),
        (r"^(encoder|decoder)\.norm", r"\1.final_layer_norm"),
        (r"^words", "shared"),
        (r"^head", "lm_head"),
    )


def settings(shape: EncoderDecoderConfig, _vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a model of this shape."""
    dropouts = {shape.dropout, attention_dropout(shape)}
    if len(dropouts) > 1:
        raise DataError(
            f"T5 in transformers has one dropout rate, this network has {sorted(dropouts)}; "
            "leave the mixer's dropout out"
        )
    return {
        "d_model": shape.hidden_size,
        "d_kv": shape.head_size,
        "d_ff": shape.ffn_size,
        "num_layers": shape.num_layers,
        "num_decoder_layers": shape.num_decoder_layers or shape.num_layers,
        "num_heads": shape.num_heads,
        "relative_attention_num_buckets": shape.num_buckets,
        "relative_attention_max_distance": shape.max_distance,
        "dropout_rate": shape.dropout,
        "layer_norm_epsilon": shape.norm_eps,
        "feed_forward_proj": ACTIVATIONS.get(shape.feed_forward, ACTIVATIONS["geglu"])[0],
        "is_encoder_decoder": True,
        "tie_word_embeddings": shape.tied_head,
    }


def shape(settings: Settings) -> EncoderDecoderConfig:
    """The shape that a `config.json` describes."""
    found = (settings["is_gated_act"], settings["dense_act_fn"])
    fitting = [own for own, (_, *theirs) in ACTIVATIONS.items() if tuple(theirs) == found]
    if not fitting:
        kind = "gated" if settings["is_gated_act"] else "plain"
        raise DataError(
            f"feed-forward layers are {kind} with {settings['dense_act_fn']}; only models with "
            f"feed_forward_proj {', '.join(name for name, *_ in ACTIVATIONS.values())} can be imported"
        )
    depth, decoder_depth = settings["num_layers"], settings["num_decoder_layers"]
    fields: dict[str, Any] = {
        "num_layers": depth,
        "num_decoder_layers": None if decoder_depth == depth else decoder_depth,
        "hidden_size": settings["d_model"],
        "num_heads": settings["num_heads"],
        "head_size": settings["d_kv"],
        "ffn_size": settings["d_ff"],
        "feed_forward": fitting[0],
        "num_buckets": settings["relative_attention_num_buckets"],
        "max_distance": settings["relative_attention_max_distance"],
        "dropout": settings["dropout_rate"],
        "norm_eps": settings["layer_norm_epsilon"],
        "tied_head": settings["scale_decoder_outputs"],
    }
    return EncoderDecoderConfig(**fields)


T5 = Family(
    model_type="t5",
    names=names,
    classes={"T5ForConditionalGeneration": EncoderDecoder},
    settings=settings,
    shape=shape,
    read_as={"T5WithLMHeadModel": "T5ForConditionalGeneration"},
)
