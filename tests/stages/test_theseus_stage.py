"""The theseus stage on a small world."""

import pytest
import torch
from small_world import LABELS, TRAIN, finetune_of, make_world, theseus_of, train

from pipeline import files
from pipeline.config import ConfigError, DataError
from pipeline.evaluate.held_out import held_out_means
from pipeline.models.artifact import load_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    made = make_world(folder)
    finetuned = finetune_of().trainable(made)
    train(finetuned, 60)
    finetuned.objective.eval()
    finetuned.save(folder / "finetune" / "model")
    return {**made, "finetune": folder / "finetune"}


def test_epochs_become_steps_of_the_schedule(inputs):
    schedule = {"type": "linear", "base_rate": 0.5, "replacing_epochs": 3}
    stage = theseus_of(schedule=schedule, successor_epochs=2)
    assert stage.steps(64) == (12, 20)
    trainable = stage.trainable(inputs)
    assert trainable.steps == 20
    rates = [trainable.objective.rate(step) for step in range(20)]
    assert rates[0] == 0.5
    assert rates[6] == 0.75
    assert set(rates[12:]) == {1.0}
    assert max(rates[:12]) < 1.0


def test_it_learns_only_successors_and_hands_on_a_shallow_classifier(inputs, tmp_path):
    trainable = theseus_of().trainable(inputs)
    before = held_out_means(trainable.objective, trainable.held_out, rows=64, seed=0)
    train(trainable, 30)
    after = held_out_means(trainable.objective, trainable.held_out, rows=64, seed=0)
    assert after["cross_entropy"] < before["cross_entropy"]
    trainable.objective.eval()
    trainable.save(tmp_path / "model")
    small, facts = load_model(tmp_path / "model")
    large, _ = load_model(inputs["finetune"] / "model")
    assert facts["labels"] == list(LABELS)
    assert len(small.encoder.layers) == small.config.num_layers == 2
    for part in ("encoder.embeddings", "pooler", "classifier"):
        old, new = large.get_submodule(part).state_dict(), small.get_submodule(part).state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old)
    old, new = large.encoder.layers[0].state_dict(), small.encoder.layers[0].state_dict()
    assert not any(torch.equal(old[name], new[name]) for name in old if "weight" in name)


def test_a_fresh_objective_takes_the_trained_weights_by_name(inputs, tmp_path):
    trained = theseus_of().trainable(inputs)
    train(trained, 3)
    weights = dict(trained.objective.named_parameters())
    fresh = theseus_of().trainable(inputs)
    with torch.no_grad():
        for name, parameter in fresh.objective.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
    for one, other in zip(
        trained.objective.kept().parameters(), fresh.objective.kept().parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_mistakes_are_refused_in_words(inputs, tmp_path):
    with pytest.raises(ConfigError, match="use 1 or 2"):
        theseus_of(num_layers=3).trainable(inputs)
    with pytest.raises(ConfigError, match=r"zero_stage 0, 1 or 2"):
        theseus_of(train={**TRAIN, "engine": {"type": "deepspeed", "zero_stage": 3}})
    with pytest.raises(DataError, match="needs a classifier"):
        theseus_of(model="pretrain").trainable(inputs)
    for split in ("train", "validation", "test"):
        files.write_json_lines(tmp_path / f"{split}.jsonl", [{"text": "a", "label": 0}])
    files.write_json(tmp_path / "task.json", {"labels": ["x", "y"], "metric": "accuracy"})
    with pytest.raises(DataError, match="labels are not those"):
        theseus_of().trainable({**inputs, "task": tmp_path})
