"""Schedules are pure functions with known values; decay spares vectors."""

import itertools

import pytest
import torch

from pipeline.train.optim import AdamWConfig, ScheduleConfig


def shares(kind, steps=10, **settings):
    schedule = ScheduleConfig(type=kind, **settings)
    return [schedule.share(step, steps) for step in range(steps)]


def test_warm_up_reaches_the_peak_at_its_last_step():
    assert shares("constant", warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_falls_in_a_straight_line():
    values = shares("linear", warmup_steps=2)
    assert values[2] == 1.0
    assert values[6] == pytest.approx(0.5)
    drops = [a - b for a, b in itertools.pairwise(values[2:])]
    assert drops == pytest.approx([1 / 8] * 7)


def test_cosine_is_halfway_at_the_middle_and_ends_at_final():
    schedule = ScheduleConfig(type="cosine", final=0.2)
    assert schedule.share(0, 10) == 1.0
    assert schedule.share(5, 10) == pytest.approx(0.6)
    assert schedule.share(10, 10) == pytest.approx(0.2)


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)
    )
    network[2].requires_grad_(requires_grad=False)
    optimizer = AdamWConfig(weight_decay=0.1).build(network)
    decayed, spared = optimizer.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(spared["params"]) == 3
