"""Hugging Face folders: the one door to transformers. Every export can be loaded back and compared.

The weights are renamed, not recomputed; that both sides compute the same is measured by
`verify_folder` and not assumed.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers
from tokenizers import processors
from torch import Tensor
from transformers.convert_slow_tokenizer import import_protobuf

from pipeline import files
from pipeline.config import DataError
from pipeline.models.artifact import Network, ties_of
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.tokenizer_json import extended, tokenizer_of
from pipeline.runtime import rng_of
from pipeline.tokenizer import ROLES, Vocabulary

RANDOM_ROWS, RANDOM_LENGTH = 4, 24
TEXT_ROWS, TEXT_LENGTH = 8, 128  # as many texts, and ids of each, have their logits compared

BERT_LAYER = r"^encoder\.layers\.(\d+)\."
BERT_NAMES = (
    (BERT_LAYER + r"mixer\.(query|key|value)", r"bert.encoder.layer.\1.attention.self.\2"),
    (BERT_LAYER + r"mixer\.output", r"bert.encoder.layer.\1.attention.output.dense"),
    (BERT_LAYER + r"mixer_residual\.norm", r"bert.encoder.layer.\1.attention.output.LayerNorm"),
    (BERT_LAYER + r"feed_forward\.up", r"bert.encoder.layer.\1.intermediate.dense"),
    (BERT_LAYER + r"feed_forward\.down", r"bert.encoder.layer.\1.output.dense"),
    (BERT_LAYER + r"feed_forward_residual\.norm", r"bert.encoder.layer.\1.output.LayerNorm"),
    (r"^encoder\.embeddings\.norm", "bert.embeddings.LayerNorm"),
    (r"^encoder\.embeddings\.(word|position|token_type)", r"bert.embeddings.\1_embeddings"),
    (r"^head\.(dense)", r"cls.predictions.transform.\1"),
    (r"^head\.norm", "cls.predictions.transform.LayerNorm"),
    (r"^head\.decoder\.bias", "cls.predictions.bias"),
    (r"^pooler", "bert.pooler"),
    (r"^classifier", "classifier"),
)
T5_LAYER = r"^(encoder|decoder)\.layers\.(\d+)\."
T5_ENCODER = r"^encoder\.layers\.(\d+)\."
T5_DECODER = r"^decoder\.layers\.(\d+)\."
T5_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias"
T5_NAMES = (
    (T5_LAYER + r"mixer\.([qkvo])[a-z]+", r"\1.block.\2.layer.0.SelfAttention.\3"),
    (T5_LAYER + r"mixer_residual\.norm", r"\1.block.\2.layer.0.layer_norm"),
    (T5_LAYER + r"cross_mixer\.([qkvo])[a-z]+", r"\1.block.\2.layer.1.EncDecAttention.\3"),
    (T5_LAYER + r"cross_residual\.norm", r"\1.block.\2.layer.1.layer_norm"),
    (T5_ENCODER + r"feed_forward\.", r"encoder.block.\1.layer.1.DenseReluDense."),
    (T5_DECODER + r"feed_forward\.", r"decoder.block.\1.layer.2.DenseReluDense."),
    (T5_ENCODER + r"feed_forward_residual\.norm", r"encoder.block.\1.layer.1.layer_norm"),
    (T5_DECODER + r"feed_forward_residual\.norm", r"decoder.block.\1.layer.2.layer_norm"),
    (r"^(encoder|decoder)\.bias\.table", rf"\1.{T5_BIAS}"),
    (r"^(encoder|decoder)\.norm", r"\1.final_layer_norm"),
    (r"^words", "shared"),
    (r"^head", "lm_head"),
)
T5_DENSE = {
    "relu": {"up": "wi", "down": "wo"},
    "geglu": {"gate": "wi_0", "up": "wi_1", "down": "wo"},
}


def export_folder(
    network: Network, vocabulary: Vocabulary, folder: Path, labels: Sequence[str] = ()
) -> None:
    """Write `network` and its tokenizer into `folder`, for AutoModel and AutoTokenizer.

    `labels` names the classes of a classifier. Raises DataError for a network that transformers
    has no class for.
    """
    settings = hub_config(network, labels) | token_ids(vocabulary, network)
    weights = {name: tensor.contiguous() for name, tensor in hub_weights(network).items()}
    files.write_bytes(
        folder / "model.safetensors", safetensors.torch.save(weights, {"format": "pt"})
    )
    tokenizer = hub_tokenizer(vocabulary, network)
    tokenizer.save_pretrained(folder)
    files.write_json(folder / "config.json", settings)


def hub_config(network: Network, labels: Sequence[str] = ()) -> dict[str, Any]:
    """The `config.json` of `network`, as transformers reads it."""
    if not isinstance(network.config.mixer, SoftmaxConfig):
        raise DataError(
            f"mixer {network.config.mixer.type!r} has no class in transformers; "
            "only networks with softmax attention can be exported"
        )
    if isinstance(network, EncoderDecoder):
        return _t5_config(network)
    return _bert_config(network, labels)


def token_ids(vocabulary: Vocabulary, network: Network) -> dict[str, int]:
    """What `config.json` says of special ids."""
    if isinstance(network, EncoderDecoder):
        ends = {"eos_token_id": vocabulary.eos, "decoder_start_token_id": vocabulary.pad}
    else:
        ends = {"bos_token_id": vocabulary.cls, "eos_token_id": vocabulary.sep}
    return {"pad_token_id": vocabulary.pad, **ends}


def _bert_config(
    network: MaskedLanguageModel | SequenceClassifier, labels: Sequence[str]
) -> dict[str, Any]:
    shape, heads = network.config, network.config.core().heads
    if heads.num_heads * heads.head_size != shape.hidden_size:
        raise DataError(
            f"{heads.num_heads} heads of {heads.head_size} are not hidden_size "
            f"{shape.hidden_size}, which BERT in transformers needs; leave head_size out"
        )
    settings = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": network.padded_vocab,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.ffn_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": _attention_dropout(network),
        "max_position_embeddings": shape.max_length,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": shape.norm_eps,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if isinstance(network, SequenceClassifier):
        names = list(labels) or [f"LABEL_{index}" for index in range(network.num_labels)]
        assert len(names) == network.num_labels, (names, network.num_labels)
        settings["architectures"] = ["BertForSequenceClassification"]
        settings["id2label"] = {str(index): name for index, name in enumerate(names)}
        settings["label2id"] = {name: index for index, name in enumerate(names)}
    return settings


def _t5_config(network: EncoderDecoder) -> dict[str, Any]:
    shape = network.config
    dropouts = {shape.dropout, _attention_dropout(network)}
    if len(dropouts) > 1:
        raise DataError(
            f"T5 in transformers has one dropout rate, this network has {sorted(dropouts)}; "
            "leave the mixer's dropout out"
        )
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": network.padded_vocab,
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
        "feed_forward_proj": "relu" if shape.feed_forward == "relu" else "gated-gelu",
        "is_encoder_decoder": True,
        "tie_word_embeddings": shape.tied_head,
        "dtype": "float32",
    }


def _attention_dropout(network: Network) -> float:
    own = network.config.mixer.dropout
    return network.config.dropout if own is None else own


def hub_weights(network: Network) -> dict[str, Tensor]:
    """The network's weights, float32, under the names of transformers; tied ones once."""
    repeated = {other for _, other in ties_of(network)}
    return {
        hub_name(name, network): tensor.detach().float().cpu()
        for name, tensor in network.state_dict().items()
        if name not in repeated
    }


def hub_name(name: str, network: Network) -> str:
    """What transformers calls the weight `name` of `network`."""
    is_t5 = isinstance(network, EncoderDecoder)
    for pattern, replacement in T5_NAMES if is_t5 else BERT_NAMES:
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            break
    assert found, f"no name for {name}"
    head, dense, rest = renamed.partition(".DenseReluDense.")
    if not dense or not isinstance(network, EncoderDecoder):
        return renamed
    layer, _, kind = rest.partition(".")
    return f"{head}{dense}{T5_DENSE[network.config.feed_forward][layer]}.{kind}"


def hub_tokenizer(vocabulary: Vocabulary, network: Network) -> Any:
    """The vocabulary as a tokenizer of transformers: `[CLS] x [SEP]` for BERT, `x </s>` for T5."""
    backend = _backend_of(vocabulary)
    names = dict(zip(ROLES, vocabulary.special, strict=True))
    pieces = {f"{role}_token": names[role] for role in ("pad", "unk", "eos")}
    shape: dict[str, Any] = {"model_input_names": ["input_ids", "attention_mask"]}
    if isinstance(network, EncoderDecoder):
        end = names["eos"]
        backend.post_processor = processors.TemplateProcessing(
            single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, vocabulary.eos)]
        )
        shape["extra_special_tokens"] = [
            vocabulary.piece(vocabulary.sentinel(index))
            for index in range(vocabulary.num_sentinels)
        ]
    else:
        start, end = names["cls"], names["sep"]
        backend.post_processor = processors.TemplateProcessing(
            single=[start, "$A", end],
            pair=[start, "$A", end, "$B", end],
            special_tokens=[(start, vocabulary.cls), (end, vocabulary.sep)],
        )
        pieces |= {f"{role}_token": names[role] for role in ("cls", "sep", "mask")}
        pieces["eos_token"] = end
        shape["model_max_length"] = network.config.max_length
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **pieces, **shape
    )


def _backend_of(vocabulary: Vocabulary) -> Any:
    """The vocabulary as a pipeline of the tokenizers library."""
    if vocabulary.engine == "tokenizers":
        return extended(vocabulary)
    description = import_protobuf().ModelProto()
    description.ParseFromString(vocabulary.model)
    return tokenizer_of(vocabulary, description)


def verify_folder(
    network: Network, vocabulary: Vocabulary, folder: Path, texts: Sequence[str]
) -> dict[str, Any]:
    """Load `folder` as a user would and compare it with `network` in float32.

    Compares logits on random rows and on the first of `texts`, padded to a common length, at every
    position that is not padding, and the ids of each text. `max_abs_difference` is over all of
    these logits.
    """
    network = copy.deepcopy(network).float().eval()
    theirs = loaded_model(network, folder)
    with _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    own_ids = [_framed(ids, network, vocabulary) for ids in vocabulary.encode(texts)]
    equal = sum(
        list(tokenizer(text)["input_ids"]) == ids.tolist()
        for text, ids in zip(texts, own_ids, strict=True)
    )
    limit = min(TEXT_LENGTH, getattr(network.config, "max_length", TEXT_LENGTH))
    text_rows = [ids[:limit] for ids in own_ids[:TEXT_ROWS]]
    samples = [rows for rows in (_random_rows(network), text_rows) if rows]
    compared = np.array([compare_logits(network, theirs, rows) for rows in samples])
    return {
        "architecture": type(theirs).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "max_abs_difference": float(compared[:, 0].max()),  # NaN if any is
        "largest_abs_logit": float(compared[:, 1].max()),
        "texts": len(texts),
        "texts_with_equal_ids": equal,
    }


def loaded_model(network: Network, folder: Path) -> Any:
    """The model in `folder`, float32, evaluation mode; DataError if a weight found no place."""
    loader = {
        MaskedLanguageModel: transformers.AutoModelForMaskedLM,
        SequenceClassifier: transformers.AutoModelForSequenceClassification,
        EncoderDecoder: transformers.AutoModelForSeq2SeqLM,
    }[type(network)]
    with _quiet():
        model, report = loader.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    left = sorted(map(str, (*report["missing_keys"], *report["unexpected_keys"])))
    if left:
        raise DataError(f"{folder}: {len(left)} weights do not fit, first {left[0]}")
    return model.eval()


def _framed(ids: np.ndarray, network: Network, vocabulary: Vocabulary) -> np.ndarray:
    if isinstance(network, EncoderDecoder):
        return np.concatenate([ids, [vocabulary.eos]])
    return np.concatenate([[vocabulary.cls], ids, [vocabulary.sep]])


def _random_rows(network: Network) -> list[np.ndarray]:
    """Rows of random ids with different lengths, so that all but one are padded."""
    rng = rng_of(0, "export check")
    longest = min(RANDOM_LENGTH, getattr(network.config, "max_length", RANDOM_LENGTH))
    lengths = [max(1, longest - 5 * row) for row in range(RANDOM_ROWS)]
    return [rng.integers(1, network.vocab_size, length) for length in lengths]


@torch.no_grad()
def compare_logits(
    network: Network, theirs: Any, rows: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Largest difference between the logits of both for these rows of ids, and largest logit."""
    length = max(map(len, rows))
    ids = torch.tensor(np.stack([np.pad(row, (0, length - len(row))) for row in rows]))
    real = torch.tensor([[column < len(row) for column in range(length)] for row in rows])
    given = {"input_ids": ids, "attention_mask": real.long()}
    positions = torch.arange(length).expand_as(ids)
    if isinstance(network, EncoderDecoder):
        ours = network(ids, real.long(), ids, real.long())
        found = theirs(**given, decoder_input_ids=ids).logits
    elif isinstance(network, SequenceClassifier):
        ours, found = network(ids, real.long(), positions), theirs(**given).logits
        real = torch.ones(len(rows), dtype=torch.bool)
    else:
        ours, found = network(ids, real.long(), positions, positions), theirs(**given).logits
    ours, found = ours[real], found[real]
    return (ours - found).abs().max().item(), found.abs().max().item()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no remarks of transformers inside."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()
