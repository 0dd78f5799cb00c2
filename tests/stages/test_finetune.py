"""The finetune stage on a small world."""

import shutil

import numpy as np
import pytest
import torch
from small_world import LABELS, TRAIN, finetune_of, make_world, train

from pipeline import files
from pipeline.config import ConfigError
from pipeline.evaluate.held_out import held_out_means
from pipeline.evaluate.metrics import measure
from pipeline.evaluate.task import load_task
from pipeline.models.artifact import load_model
from pipeline.runtime import rng_of
from pipeline.stages.finetune import label_weights


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_the_encoder_is_the_pretrained_one_and_the_head_is_keyed(inputs):
    pretrained, _ = load_model(inputs["pretrain"] / "model")
    torch.manual_seed(99)
    one = finetune_of().trainable(inputs).objective.kept()
    torch.manual_seed(1)
    other = finetune_of().trainable(inputs).objective.kept()
    for name, weight in one.encoder.state_dict().items():
        assert torch.equal(weight, pretrained.encoder.state_dict()[name])
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])
    seeded = finetune_of(train={**TRAIN, "seed": 1}).trainable(inputs).objective.kept()
    assert not torch.equal(seeded.classifier.weight, one.classifier.weight)


def test_epochs_become_steps_and_dropout_may_be_set(inputs):
    trainable = finetune_of(epochs=2.5, dropout=0.25).trainable(inputs)
    assert trainable.steps == 10  # 64 rows in batches of 16
    network = trainable.objective.kept()
    rates = {part.p for part in network.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.25}
    assert network.config.dropout == 0.25


def test_it_learns_and_hands_on_what_it_has_learnt(inputs, tmp_path):
    trainable = finetune_of().trainable(inputs)
    losses = train(trainable, 60)
    assert sum(losses[-5:]) / 5 < losses[0] / 2
    trainable.objective.eval()
    trainable.save(tmp_path / "model")
    network, facts = load_model(tmp_path / "model")
    assert facts["labels"] == list(LABELS)
    rows = [trainable.held_out.example(row, rng_of(0, "any")) for row in range(8)]
    batch = {k: torch.from_numpy(v) for k, v in trainable.held_out.collate(rows).items()}
    inside = (batch["input_ids"], batch["segment_ids"], batch["position_ids"])
    assert torch.equal(network(*inside), trainable.objective.kept()(*inside))


def test_texts_longer_than_the_model_are_refused(inputs):
    with pytest.raises(ConfigError, match="has only 32 positions"):
        finetune_of(max_length=33).trainable(inputs)


def test_labels_count_alike_when_weights_are_balanced(inputs):
    task = load_task(inputs["task"])
    counts = np.bincount([row["label"] for row in task.rows("train")])
    for given in ({}, {"cat": 3.0}):
        weights = label_weights(task, given)
        assert weights @ counts == pytest.approx(counts.sum()), "the mean weight is 1"
    np.testing.assert_allclose(label_weights(task, {}) * counts, counts.sum() / 3)
    assert weights[0] == pytest.approx(3 * weights[1])
    objective = finetune_of(class_weights="balanced").trainable(inputs).objective
    np.testing.assert_allclose(objective.class_weights, label_weights(task, {}))
    with pytest.raises(ConfigError, match="got label 'cats'; allowed: cat, cow, dog; did you"):
        finetune_of(class_weights={"cats": 2}).trainable(inputs)


def test_weights_are_factors_of_the_loss_and_held_out_figures_are_plain(inputs):
    trainable = finetune_of(class_weights={"cat": 4}).trainable(inputs)
    objective, source = trainable.objective, trainable.source
    plain, weighted = 0.0, 0.0
    for row in range(8):
        batch = {k: torch.from_numpy(v) for k, v in source.batch_of([row]).items()}
        objective.eval()
        loss = objective(batch)["cross_entropy"].item()
        plain += loss
        weighted += loss * objective.class_weights[batch["label"].item()]
    whole = {k: torch.from_numpy(v) for k, v in source.batch_of(range(8)).items()}
    assert objective(whole)["cross_entropy"].item() == pytest.approx(plain, rel=1e-5)
    assert objective.train()(whole)["cross_entropy"].item() == pytest.approx(weighted, rel=1e-5)


def test_a_metric_that_no_mean_gives_is_that_of_all_held_out_rows(inputs, tmp_path):
    facts = files.read_json(inputs["task"] / "task.json")
    shutil.copytree(inputs["task"], tmp_path / "task")
    files.write_json(tmp_path / "task" / "task.json", {**facts, "metric": "matthews"})
    trainable = finetune_of().trainable({**inputs, "task": tmp_path / "task"})
    means = held_out_means(trainable.objective, trainable.held_out, rows=64, seed=0, micro_batch=7)
    task = load_task(tmp_path / "task")
    said = task.form.answered(trainable.objective.kept(), trainable.held_out)
    expected = measure("matthews", task.form.golds(task.rows("validation")), said)
    assert means["matthews"] == pytest.approx(expected.value)
    assert trainable.objective.rising == {"accuracy", "matthews"}
