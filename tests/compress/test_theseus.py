"""Theseus: what runs, what is trained and what is handed on, for every draw."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.compress.rate import AntiCurriculumRate, ConstantRate, LinearRate
from pipeline.compress.theseus import TheseusObjective
from pipeline.models.encoder import EncoderConfig, view_of
from pipeline.models.heads import SequenceClassifier
from pipeline.objectives.classification import Classification

SHAPE = EncoderConfig(
    num_layers=6, hidden_size=16, num_heads=2, ffn_size=32, max_length=12, dropout=0.0
)
LABELS = 3


def predecessor_of(shape=SHAPE):
    torch.manual_seed(5)
    return SequenceClassifier(shape, 64, LABELS)


def objective_of(predecessor, *, rate=0.5, split=(2, 2, 2), seed=1, **how):
    inner = Classification(copy.deepcopy(predecessor))
    return TheseusObjective(inner, {"encoder": split}, rate=lambda step: rate, seed=seed, **how)


@pytest.fixture
def predecessor():
    return predecessor_of()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    segments = np.ones((4, 10), dtype=np.int64)
    segments[1, 6:] = 0
    values = {
        "input_ids": rng.integers(6, 64, size=(4, 10)),
        "segment_ids": segments,
        "position_ids": np.tile(np.arange(10), (4, 1)),
        "label": rng.integers(LABELS, size=4),
    }
    return {name: torch.from_numpy(value) for name, value in values.items()}


def logits_of(network, batch):
    return network(batch["input_ids"], batch["segment_ids"], batch["position_ids"])


def draw(objective, replaced):
    for module, value in zip(objective.replaceable, replaced, strict=True):
        module.replaced = bool(value)


def scramble(objective):
    """Give the successors weights of their own, so that a wrong module shows."""
    torch.manual_seed(9)
    with torch.no_grad():
        for module in objective.replaceable:
            for parameter in module.successor.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_nothing_replaced_is_the_predecessor_bit_for_bit(predecessor, batch):
    objective = objective_of(predecessor, rate=0.0).train()
    scramble(objective)
    objective.at_step(0)
    assert torch.equal(logits_of(objective.inner.network, batch), logits_of(predecessor, batch))


def test_all_replaced_is_the_successor_bit_for_bit(predecessor, batch):
    objective = objective_of(predecessor, rate=1.0).train()
    scramble(objective)
    objective.at_step(0)
    trained = logits_of(objective.inner.network, batch)
    assert torch.equal(trained, logits_of(objective.kept(), batch))
    assert not torch.equal(trained, logits_of(predecessor, batch))


def test_evaluation_runs_the_successor_whatever_was_drawn(predecessor, batch):
    objective = objective_of(predecessor, rate=0.0)
    scramble(objective)
    objective.at_step(0)
    kept = objective.eval().kept()
    assert not kept.training
    assert torch.equal(logits_of(objective.inner.network, batch), logits_of(kept, batch))


@pytest.mark.parametrize("split", [(2, 2, 2), (3, 1, 2), (1, 1, 4)])
def test_every_draw_is_the_chain_composed_by_hand(predecessor, batch, split):
    objective = objective_of(predecessor, split=split).train()
    scramble(objective)
    encoder = predecessor.encoder
    views = encoder.core.views(view_of(batch["segment_ids"]))
    ends = np.cumsum(split)
    for replaced in itertools.product((False, True), repeat=3):
        draw(objective, replaced)
        hidden = encoder.embeddings(batch["input_ids"], batch["position_ids"])
        executed = 0
        for index, choice in enumerate(replaced):
            successor = objective.replaceable[index].successor
            chain = (
                [successor] if choice else encoder.layers[ends[index] - split[index] : ends[index]]
            )
            for block in chain:
                hidden, _ = block(hidden, views)
                executed += 1
        expected = predecessor.classifier(predecessor.pooler(hidden))
        assert torch.equal(logits_of(objective.inner.network, batch), expected)
        assert executed == sum(
            1 if choice else size for choice, size in zip(replaced, split, strict=True)
        )


def test_successors_start_as_the_first_layers_of_the_predecessor(predecessor):
    kept = objective_of(predecessor).kept()
    old, new = predecessor.state_dict(), kept.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in new)
    assert {name.split(".")[2] for name in new if "layers" in name} == {"0", "1", "2"}


def test_only_successors_are_trained(predecessor):
    objective = objective_of(predecessor)
    trainable = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in objective.named_parameters() if ".successor." in name}
    block = sum(p.numel() for p in predecessor.encoder.layers[0].parameters())
    assert sum(p.numel() for p in objective.parameters() if p.requires_grad) == 3 * block
    whole = sum(p.numel() for p in predecessor.parameters())
    assert sum(p.numel() for p in objective.parameters()) == whole + 3 * block
    assert sum(p.numel() for p in objective.kept().parameters()) == whole - 3 * block


def test_frozen_parameters_have_no_gradient_and_do_not_change(predecessor, batch):
    objective = objective_of(predecessor, rate=0.5).train()
    before = copy.deepcopy(objective.state_dict())
    trainable = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.01)
    for step in range(4):
        objective.at_step(step)
        objective(batch)["cross_entropy"].backward()
        optimizer.step()
    for name, parameter in objective.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == (".successor." in name), name
        assert (parameter.grad is not None) == (".successor." in name), name


def test_unused_successors_have_a_zero_gradient_and_used_ones_do_not(predecessor, batch):
    for replaced in itertools.product((False, True), repeat=3):
        objective = objective_of(predecessor).train()
        draw(objective, replaced)
        objective(batch)["cross_entropy"].backward()
        for choice, module in zip(replaced, objective.replaceable, strict=True):
            gradients = [p.grad for p in module.successor.parameters()]
            assert any(bool(g.any()) for g in gradients) == choice


def test_the_gradient_is_that_of_the_whole_chain_through_frozen_layers(predecessor, batch):
    objective = objective_of(predecessor).double().train()
    scramble(objective)
    draw(objective, (1, 0, 0))

    def loss():
        logits = logits_of(objective.inner.network, batch)
        return torch.nn.functional.cross_entropy(logits, batch["label"], reduction="sum")

    loss().backward()
    weight = objective.replaceable[0].successor.feed_forward.up.weight
    step = 1e-4
    with torch.no_grad():
        losses = []
        for sign in (1, -2):
            weight[3, 2] += sign * step
            losses.append(loss().item())
    slope = (losses[0] - losses[1]) / (2 * step)
    assert slope == pytest.approx(weight.grad[3, 2].item(), rel=1e-5)
    assert slope != 0.0


def test_the_loss_is_that_of_the_task(predecessor, batch):
    objective = objective_of(predecessor, rate=0.0).train()
    objective.at_step(0)
    sums, counts = objective(batch), objective.counts(batch)
    expected = torch.nn.functional.cross_entropy(
        logits_of(predecessor, batch), batch["label"], reduction="sum"
    )
    assert torch.equal(sums["cross_entropy"], expected)
    assert (sums["modules_replaced"].item(), counts["modules_replaced"]) == (0.0, 4)
    draw(objective, (1, 0, 1))
    assert objective(batch)["modules_replaced"].item() == pytest.approx(4 * 2 / 3)
    assert set(sums) == set(counts) - {"tokens"}


def test_predecessors_have_no_dropout_while_successors_train(batch):
    wet = dataclasses.replace(SHAPE, dropout=0.5)
    objective = objective_of(predecessor_of(wet)).train()
    for module in objective.replaceable:
        assert not any(part.training for part in module.predecessors.modules())
        assert all(part.training for part in module.successor.modules())
    as_released = objective_of(predecessor_of(wet), mode="training").train()
    assert all(part.training for part in as_released.modules())
    for made in (objective, as_released):
        made.eval()
        assert not any(part.training for part in made.modules())


def test_the_anti_curriculum_mirrors_the_curriculum_until_both_are_at_one():
    rate, mirrored = LinearRate(base_rate=0.2), AntiCurriculumRate(base_rate=0.2)
    for step in range(10):
        assert mirrored.at(step, 10) == 1.0 - rate.at(step, 10)
    assert mirrored.at(0, 10) == 0.8
    assert {mirrored.at(step, 10) for step in range(10, 15)} == {1.0}


def test_linear_rate_climbs_in_equal_steps_and_stays_at_one():
    rate = LinearRate(base_rate=0.3, replacing_epochs=1.0)
    rates = [rate.at(step, 1000) for step in range(1200)]
    assert rates[0] == 0.3
    assert rates[500] == pytest.approx(0.3 + 7e-4 * 500, abs=1e-15)
    assert rates[999] < 1.0
    assert set(rates[1000:]) == {1.0}
    assert rates == sorted(rates)
    assert np.diff(rates[:1001]) == pytest.approx(np.full(1000, 7e-4), abs=1e-12)


def test_constant_rate_switches_exactly_at_its_step():
    rate = ConstantRate(rate=0.5, replacing_epochs=1.0)
    assert {rate.at(step, 10) for step in range(10)} == {0.5}
    assert {rate.at(step, 10) for step in range(10, 20)} == {1.0}


def draws_of(objective, steps):
    drawn = []
    for step in steps:
        objective.at_step(step)
        drawn.append([module.replaced for module in objective.replaceable])
    return drawn


def test_draws_are_a_function_of_seed_and_step(predecessor):
    one, other = objective_of(predecessor), objective_of(predecessor)
    drawn = draws_of(one, range(50))
    torch.manual_seed(1)
    np.random.seed(2)
    assert draws_of(other, range(30, 50)) == drawn[30:]
    assert draws_of(objective_of(predecessor, seed=2), range(50)) != drawn


def test_modules_are_replaced_as_often_as_the_rate_says(predecessor):
    steps = 3000
    for rate in (0.1, 0.5, 0.9):
        drawn = np.array(draws_of(objective_of(predecessor, rate=rate), range(steps)))
        bound = 4.5 * math.sqrt(rate * (1 - rate) / steps)
        assert np.abs(drawn.mean(axis=0) - rate).max() < bound
        together = (drawn[:, 0] & drawn[:, 1]).mean()
        assert abs(together - rate**2) < 4.5 * math.sqrt(rate**2 * (1 - rate**2) / steps)


def test_in_evaluation_there_is_nothing_to_say_about_replacing(predecessor, batch):
    objective = objective_of(predecessor).eval()
    assert set(objective(batch)) == {"cross_entropy", "accuracy"}
