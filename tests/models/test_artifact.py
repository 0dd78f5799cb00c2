"""Model folders: what is saved comes back bit for bit, and what was damaged does not come back."""

import json

import pytest
import torch

from pipeline import files
from pipeline.config import DataError
from pipeline.models.artifact import load_model, save_model, ties_of
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import (
    MaskedLanguageModel,
    ReplacedTokenDetector,
    SequenceClassifier,
)
from pipeline.models.mixers import PerformerConfig
from pipeline.models.tta import LanguageAutoencoder, TtaConfig
from pipeline.tokenizer import load_vocabulary

BERT = EncoderConfig(num_layers=2, hidden_size=16, num_heads=2, ffn_size=32, max_length=12)
T5 = EncoderDecoderConfig(num_layers=2, hidden_size=16, num_heads=2, head_size=6, ffn_size=32)
T5_UNTIED = EncoderDecoderConfig(
    num_layers=1, hidden_size=16, num_heads=2, ffn_size=32, feed_forward="geglu", tied_head=False
)
SHAPE = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "max_length": 12}
T5_SHARED = EncoderDecoderConfig(
    **SHAPE, shared_stacks=True, positions="none", mixers=(PerformerConfig(num_features=8),)
)
BUILD = {
    "masked_language_model": lambda vocab: MaskedLanguageModel(BERT, vocab),
    "sequence_classifier": lambda vocab: SequenceClassifier(BERT, vocab, 5),
    "replaced_token_detector": lambda vocab: ReplacedTokenDetector(BERT, vocab),
    "encoder_decoder": lambda vocab: EncoderDecoder(T5, vocab),
    "encoder_decoder, untied": lambda vocab: EncoderDecoder(T5_UNTIED, vocab),
    "encoder_decoder, shared": lambda vocab: EncoderDecoder(T5_SHARED, vocab),
    "language_model": lambda vocab: LanguageModel(DecoderConfig(**SHAPE), vocab),
    "language_autoencoder": lambda vocab: LanguageAutoencoder(TtaConfig(**SHAPE), vocab),
}


def logits_of(network):
    ids = torch.arange(20).view(2, 10)
    ones, positions = torch.ones_like(ids), torch.arange(10).expand(2, 10)
    if isinstance(network, EncoderDecoder):
        return network(ids, ones, ids, ones)
    if not isinstance(network, MaskedLanguageModel):
        return network(ids, ones, positions)
    return network(ids, ones, positions, positions)


@pytest.mark.parametrize("name", BUILD)
def test_a_saved_network_comes_back_bit_for_bit(name, vocabulary, tmp_path):
    network = BUILD[name](vocabulary.size).eval()
    save_model(tmp_path, network, vocabulary, {"labels": ["a", "ü"], "steps": 3})
    state = torch.get_rng_state()
    loaded, facts = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert facts == {"labels": ["a", "ü"], "steps": 3}
    assert type(loaded) is type(network)
    assert loaded.config == network.config
    assert torch.equal(logits_of(loaded), logits_of(network))
    assert load_vocabulary(tmp_path / "tokenizer") == vocabulary
    record = files.read_json(tmp_path / "config.json")
    assert record["network"] == name.split(",")[0]
    assert record["vocab_size"] == vocabulary.size
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", ["masked_language_model", "encoder_decoder"])
def test_tied_weights_are_stored_once_and_are_one_after_loading(name, vocabulary, tmp_path):
    network = BUILD[name](vocabulary.size).eval()
    save_model(tmp_path, network, vocabulary, {})
    (tie,) = files.read_json(tmp_path / "config.json")["ties"]
    loaded, _ = load_model(tmp_path)
    kept, other = map(loaded.get_parameter, tie)
    assert kept is other
    assert ties_of(loaded) == ties_of(network) == [tie]
    before = logits_of(loaded)
    with torch.no_grad():
        kept.mul_(2)
    assert not torch.equal(logits_of(loaded), before)
    stored = sum(parameter.numel() for parameter in network.parameters()) * 4
    assert stored < (tmp_path / "model.safetensors").stat().st_size < stored + 8000


def test_one_flipped_bit_is_refused(vocabulary, tmp_path):
    save_model(tmp_path, BUILD["sequence_classifier"](vocabulary.size), vocabulary, {})
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="SHA-256 differs"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "not a Theseum model of format 1"),
        ({"network": "oracle"}, "'oracle' is unknown"),
        ({"ties": []}, "are not those of this network"),
        ({"vocab_size": 10}, "do not fit the configuration, first encoder.embeddings.word.weight"),
        ({"config": {"type": "encoder", "layers": 2}}, "written by another version"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(change, message, vocabulary, tmp_path):
    save_model(tmp_path, BUILD["masked_language_model"](vocabulary.size), vocabulary, {})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(files.read_json(path) | change))
    with pytest.raises(DataError, match=message):
        load_model(tmp_path)


def test_missing_files_are_named(vocabulary, tmp_path):
    with pytest.raises(DataError, match=r"holds no model \(config.json is missing\)"):
        load_model(tmp_path)
    save_model(tmp_path, BUILD["masked_language_model"](vocabulary.size), vocabulary, {})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model.safetensors: missing"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 1, "net')
    with pytest.raises(DataError, match="is not JSON"):
        load_model(tmp_path)
