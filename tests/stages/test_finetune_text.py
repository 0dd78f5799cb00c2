"""Fine-tuning on pairs: two tasks by one network, scored by what it writes; and tasks in pretraining."""

import numpy as np
import pytest
import torch
from small_world import LABELS, TRAIN, InThisProcess, make_world, write_pairs

from pipeline import files
from pipeline.config import ConfigError, build_from
from pipeline.data.example import IGNORED
from pipeline.data.loader import Loader
from pipeline.data.shards import TokenRows
from pipeline.models.artifact import load_model, save_model
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.stages.finetune_text import FinetuneText
from pipeline.stages.pretrain import Pretrain

SHAPE = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "head_size": 16, "ffn_size": 64}
MODEL = {"type": "encoder_decoder", **SHAPE, "dropout": 0.0, "max_length": 40}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A small world with an untrained encoder-decoder, and two tasks over the same sentences."""
    folder = tmp_path_factory.mktemp("world")
    inputs = make_world(folder)
    vocabulary = TokenRows(inputs["tokens"], "train").vocabulary()
    torch.manual_seed(2)
    network = EncoderDecoder(build_from(EncoderDecoderConfig, MODEL), vocabulary.size)
    save_model(folder / "t5" / "model", network, vocabulary, {})
    tasks = {
        "animal": {"inputs": "eats {text}", "metrics": ["accuracy", "bleu"]},
        "first": {"inputs": "runs {text}", "targets": "one {label}"},
    }
    return inputs | {"t5": folder / "t5", "pairs": write_pairs(folder, inputs, tasks)}


def stage_of(**changes):
    values = {"kind": "finetune_text", "model": "t5", "tasks": "pairs", "input_length": 36}
    return build_from(FinetuneText, {**values, "target_length": 12, "train": TRAIN, **changes}, "t")


def test_one_network_learns_to_answer_both_tasks(inputs, tmp_path):
    counts = stage_of(epochs=25, mixture={"type": "equal"}).run(InThisProcess(tmp_path, inputs))
    answers = files.read_json(tmp_path / "answers.json")
    assert counts["steps"] == 25 * 128 / 16
    for task, begins in (("animal", ""), ("first", "one ")):
        found = answers[task]
        assert found["rows"] == 64
        assert found["exact_match"] == counts[task]
        assert found["low"] > 0.45, "a third of the answers are right by chance"
        assert found["low"] < found["exact_match"] <= found["high"]
        assert {e["target"] for e in found["examples"]} <= {begins + label for label in LABELS}
    accuracy = answers["animal"]["scores"]["accuracy"]
    assert accuracy["value"] == answers["animal"]["exact_match"]
    assert answers["animal"]["scores"].keys() == {"accuracy", "bleu"}


def test_the_network_is_the_pretrained_one_with_its_own_dropout(inputs):
    pretrained, _ = load_model(inputs["t5"] / "model")
    network = stage_of(dropout=0.25).trainable(inputs).objective.kept()
    assert network.config.dropout == 0.25
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, pretrained.state_dict()[name])


def test_models_that_are_too_short_or_write_no_text_are_refused(inputs):
    with pytest.raises(ConfigError, match="need 41 positions, the model of stage 't5' has 40"):
        stage_of(input_length=41).trainable(inputs)
    with pytest.raises(ConfigError, match="makes no model that writes text"):
        stage_of(model="pretrain").trainable(inputs)


def test_tasks_are_mixed_into_pretraining(inputs):
    values = {
        "kind": "pretrain",
        "tokens": "tokens",
        "tasks": "pairs",
        "model": MODEL,
        "objective": {"type": "text_to_text", "input_length": 36, "target_length": 12},
        "steps": 4,
        "mixture": {"type": "shares", "shares": {"world": 2, "animal": 1, "first": 1}, "cycle": 16},
        "train": TRAIN,
    }
    trainable = build_from(Pretrain, values, "test").trainable(inputs)
    loader = Loader(trainable.source, seed=0, batch=16, micro_batch=16, order=trainable.order)
    vocabulary = TokenRows(inputs["tokens"], "train").vocabulary()
    for step in range(4):
        [batch] = loader.micro_batches(step)
        denoised = batch["labels"][:, 0] == vocabulary.sentinel(0)
        assert denoised.sum() == 8, "exactly the share of every cycle"
        for labels in batch["labels"][~denoised]:
            written = vocabulary.decode(labels[labels != IGNORED][:-1]).removeprefix("one ")
            assert written in LABELS
    loader.close()
    assert np.isfinite(
        trainable.held_out.example(len(trainable.held_out) - 1, None)["labels"]
    ).all()
    encoder = {"type": "encoder", "num_layers": 1, "hidden_size": 8, "num_heads": 1, "ffn_size": 8}
    changed = {"objective": {"type": "mlm"}, "model": encoder}
    with pytest.raises(ConfigError, match="objective mlm knows no tasks"):
        build_from(Pretrain, {**values, **changed}, "test")
