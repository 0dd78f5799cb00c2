"""The model folder that stages hand on: `config.json`, `model.safetensors`, `tokenizer/`.

No pickle anywhere. A weight that the network uses under two names is stored once; the pairs are
listed as `ties` and made one tensor again when the folder is read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.config import ConfigError, DataError, as_dict, build_from
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import (
    MaskedLanguageModel,
    ReplacedTokenDetector,
    SequenceClassifier,
    TokenClassifier,
)
from pipeline.models.tta import LanguageAutoencoder, TtaConfig
from pipeline.tokenizer import Vocabulary

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"

LanguageNetwork = MaskedLanguageModel | EncoderDecoder | LanguageModel | LanguageAutoencoder
Classifier = SequenceClassifier | TokenClassifier
Network = LanguageNetwork | ReplacedTokenDetector | Classifier
# Those with a language head are described by their config and the size of the vocabulary.
LANGUAGE_NETWORKS: dict[type, type[LanguageNetwork]] = {
    EncoderConfig: MaskedLanguageModel,
    EncoderDecoderConfig: EncoderDecoder,
    DecoderConfig: LanguageModel,
    TtaConfig: LanguageAutoencoder,
}
NAMES: dict[str, tuple[type, type[Network]]] = {
    "masked_language_model": (EncoderConfig, MaskedLanguageModel),
    "encoder_decoder": (EncoderDecoderConfig, EncoderDecoder),
    "language_model": (DecoderConfig, LanguageModel),
    "language_autoencoder": (TtaConfig, LanguageAutoencoder),
    "replaced_token_detector": (EncoderConfig, ReplacedTokenDetector),
    "sequence_classifier": (EncoderConfig, SequenceClassifier),
    "token_classifier": (EncoderConfig, TokenClassifier),
}


def language_network(model: Any, vocab_size: int) -> LanguageNetwork:
    """The network that a model config describes, with its language head."""
    return LANGUAGE_NETWORKS[type(model)](model, vocab_size)


def save_model(
    folder: Path, network: Network, vocabulary: Vocabulary, facts: Mapping[str, Any]
) -> None:
    """Write `network`, its vocabulary and `facts` (JSON, such as labels) into `folder`.

    The configuration is written last, so a folder with one is whole.
    """
    assert network.vocab_size == vocabulary.size, (network.vocab_size, vocabulary.size)
    ties = ties_of(network)
    repeated = {other for _, other in ties}
    weights = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in network.state_dict().items()
        if name not in repeated
    }
    files.write_bytes(folder / WEIGHTS_FILE, safetensors.torch.save(weights, {"format": "pt"}))
    vocabulary.save(folder / TOKENIZER_FOLDER)
    record = {
        "format": FORMAT,
        "network": next(name for name, (_, kind) in NAMES.items() if kind is type(network)),
        "config": as_dict(network.config),
        "vocab_size": network.vocab_size,
        "padded_vocab": network.padded_vocab,
        **({"num_labels": network.num_labels} if isinstance(network, Classifier) else {}),
        "facts": dict(facts),
        "ties": ties,
        "weights_sha256": files.sha256_of(folder / WEIGHTS_FILE),
    }
    files.write_json(folder / CONFIG_FILE, record)


def load_model(folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network in `folder`, float32, on the CPU, in evaluation mode, and its facts.

    Raises DataError when a file is missing, was changed since it was written, or does not fit its
    configuration. Draws no random numbers.
    """
    record = read_record(folder)
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise DataError(f"{path}: missing; make the model again")
    if files.sha256_of(path) != record["weights_sha256"]:
        raise DataError(
            f"{path}: is not the file that {CONFIG_FILE} describes (SHA-256 differs); "
            "copy it again or make the model again"
        )
    with torch.device("meta"):
        network = _network_of(record, folder)
    ties = ties_of(network)
    if ties != record["ties"]:
        raise DataError(
            f"{folder / CONFIG_FILE}: ties {record['ties']} are not those of this network, {ties}"
        )
    _fill(network, safetensors.torch.load_file(path), ties, path)
    return network.float().eval(), record["facts"]


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a model folder's `config.json`, checked to be one this version can read."""
    path = folder / CONFIG_FILE
    try:
        record = files.read_json(path)
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no model ({CONFIG_FILE} is missing)") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}); make the model again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{path}: is not a Theseum model of format {FORMAT}")
    if record["network"] not in NAMES:
        raise DataError(f"{path}: network {record['network']!r} is unknown")
    return record


def ties_of(network: nn.Module) -> list[list[str]]:
    """Pairs of names of one and the same parameter or buffer, the stored name first."""
    first: dict[int, str] = {}
    ties = []
    for name, tensor in network.state_dict(keep_vars=True).items():
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            ties.append([kept, name])
    return ties


def _network_of(record: Mapping[str, Any], folder: Path) -> Network:
    shape_class, kind = NAMES[record["network"]]
    try:
        shape: Any = build_from(shape_class, record["config"], str(folder / CONFIG_FILE))
    except ConfigError as error:
        raise DataError(f"{error}; the model was written by another version") from None
    if issubclass(kind, Classifier):
        return kind(shape, record["vocab_size"], record["num_labels"])
    return kind(shape, record["vocab_size"])


def _fill(
    network: nn.Module, weights: dict[str, Tensor], ties: list[list[str]], path: Path
) -> None:
    """Give `network`, built without storage, its weights, and share those that are tied."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for _, other in ties:
        del shapes[other]
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in shapes | found if shapes.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise DataError(
            f"{path}: {len(wrong)} weights do not fit the configuration, first {name}: "
            f"needs {shapes.get(name)}, found {found.get(name)}"
        )
    network.load_state_dict(weights | {other: weights[kept] for kept, other in ties}, assign=True)
    for kept, other in ties:
        module, _, attribute = other.rpartition(".")
        owner, _, own = kept.rpartition(".")
        tensor = getattr(network.get_submodule(owner), own)
        setattr(network.get_submodule(module), attribute, tensor)
