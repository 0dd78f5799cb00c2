"""Fine-tuning UniLM to generate: it learns to write targets for sources, and other models are refused."""

import pytest
import torch
from small_world import LABELS, TRAIN, InThisProcess, make_world, write_pairs

from pipeline import files
from pipeline.config import ConfigError, build_from
from pipeline.data.shards import TokenRows
from pipeline.models.artifact import load_model, save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.stages.finetune_cloze import FinetuneCloze

SHAPE = EncoderConfig(
    num_layers=1,
    hidden_size=32,
    num_heads=2,
    ffn_size=64,
    max_length=48,
    dropout=0.0,
    token_types=6,
    initial_std=0.1,
)
MASKING = {"source_length": 36, "target_length": 9}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A small world with an untrained UniLM, and a task over its sentences."""
    folder = tmp_path_factory.mktemp("world")
    inputs = make_world(folder)
    vocabulary = TokenRows(inputs["tokens"], "train").vocabulary()
    torch.manual_seed(2)
    network = MaskedLanguageModel(SHAPE, vocabulary.size)
    save_model(folder / "unilm" / "model", network, vocabulary, {})
    pairs = write_pairs(folder, inputs, {"animal": {"inputs": "{text}", "targets": "one {label}"}})
    return inputs | {"unilm": folder / "unilm", "pairs": pairs}


def stage_of(**changes):
    values = {"kind": "finetune_cloze", "model": "unilm", "tasks": "pairs", "masking": MASKING}
    return build_from(FinetuneCloze, {**values, "train": TRAIN, **changes}, "t")


@pytest.mark.slow
def test_it_learns_to_write_and_to_stop(inputs, tmp_path):
    counts = stage_of(epochs=90).run(InThisProcess(tmp_path, inputs))
    found = files.read_json(tmp_path / "answers.json")["animal"]
    assert found["exact_match"] == counts["animal"] > 0.9, "a third is right by chance"
    assert {example["target"] for example in found["examples"]} <= {f"one {w}" for w in LABELS}


def test_the_network_is_the_pretrained_one_with_its_own_dropout(inputs):
    pretrained, _ = load_model(inputs["unilm"] / "model")
    network = stage_of(dropout=0.25).trainable(inputs).objective.kept()
    assert network.config.dropout == 0.25
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, pretrained.state_dict()[name])


def test_models_that_are_too_short_or_no_unilm_are_refused(inputs):
    with pytest.raises(ConfigError, match="need 49 positions, the model of stage 'unilm' has 48"):
        stage_of(masking={"source_length": 37, "target_length": 9}).trainable(inputs)
    with pytest.raises(ConfigError, match="makes no UniLM"):
        stage_of(model="pretrain").trainable(inputs)
