"""The finetune stage on a small world."""

import pytest
import torch
from small_world import LABELS, TRAIN, finetune_of, make_world, train

from pipeline.config import ConfigError
from pipeline.models.artifact import load_model
from pipeline.runtime import rng_of


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
