"""Schedules are pure functions with known values, and refuse a run they do not fit."""

import itertools

import pytest
from pydantic import ValidationError

from pipeline.train.schedule import (
    Constant,
    Cosine,
    InverseSquareRoot,
    Linear,
    Place,
    WarmupStableDecay,
)


def shares(schedule, steps=10):
    return [schedule.share(step, steps) for step in range(steps)]


def test_warm_up_reaches_the_peak_at_its_last_step():
    assert shares(Constant(warmup_steps=4))[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_falls_in_a_straight_line():
    values = shares(Linear(warmup_steps=2))
    assert values[2] == 1.0
    assert values[6] == pytest.approx(0.5)
    drops = [a - b for a, b in itertools.pairwise(values[2:])]
    assert drops == pytest.approx([1 / 8] * 7)


def test_decay_from_the_start_multiplies_warm_up_and_decay():
    schedule = Linear(warmup_steps=10_000, decay_from="start")
    peak = max(schedule.share(step, 1_000_000) for step in (9_998, 9_999, 10_000))
    assert peak == pytest.approx(0.99, abs=1e-5), "1 - W / T, as for ELECTRA-small"
    assert schedule.share(4_999, 1_000_000) == pytest.approx(0.5 * (1 - 4_999 / 1_000_000))


def test_cosine_is_halfway_at_the_middle_and_ends_at_final():
    schedule = Cosine(final=0.2)
    assert schedule.share(0, 10) == 1.0
    assert schedule.share(5, 10) == pytest.approx(0.6)
    assert schedule.share(10, 10) == pytest.approx(0.2)


def test_inverse_square_root_rises_or_stays_and_then_falls():
    t5 = InverseSquareRoot(warmup_steps=10_000, warmup="flat")
    assert t5.share(0, 1) == t5.share(9_999, 1) == 1.0
    assert t5.share(39_999, 1) == pytest.approx(0.5)
    assert t5.why_not(5_000) == "", "a shorter run stays at the peak it began with"
    risen = InverseSquareRoot(warmup_steps=100)
    assert "about 10" in risen.why_not(100)
    assert risen.share(49, 1) == 0.5
    assert risen.share(99, 1) == 1.0
    assert risen.share(399, 1) == pytest.approx(0.5)


def test_warm_up_stable_decay_has_its_three_parts():
    schedule = WarmupStableDecay(warmup_steps=2, decay=0.4, final=0.0)
    assert shares(schedule) == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert shares(schedule, steps=20)[:12] == [0.5] + [1] * 11, (
        "a longer run has the same beginning"
    )


def test_a_schedule_that_does_not_fit_the_run_is_refused():
    assert "about 10" in Linear(warmup_steps=100).why_not(100)
    assert Linear(warmup_steps=99).why_not(100) == Linear(warmup_steps=99).why_not(None) == ""
    assert "than its 100 steps" in WarmupStableDecay(decay=0.9, warmup_steps=11).why_not(100)


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_another_measure_gives_the_same_curve_by_what_is_spent(schedule):
    """Where every step spends as much, a budget in any measure is one in steps."""
    made = schedule(warmup_steps=3, final=0.1)
    places = [Place(step, 0.7 * step, 7.0, 0.7 * min(step, 3)) for step in range(10)]
    assert [made.at(place) for place in places] == pytest.approx(shares(made))


def test_what_follows_warm_up_starts_at_the_peak_and_ends_with_the_budget():
    made = Linear(warmup_steps=5)
    assert made.at(Place(4, 3.0, 10.0, 3.0)) == 1.0
    assert made.at(Place(5, 4.0, 10.0, 4.0)) == 1.0
    assert made.at(Place(6, 7.0, 10.0, 4.0)) == 0.5
    assert made.at(Place(7, 11.0, 10.0, 4.0)) == 0.0, "a clock that has gone past the end"
    assert WarmupStableDecay(decay=0.5).at(Place(7, 11.0, 10.0)) == 0.0


def test_warm_up_may_last_a_share_of_the_run():
    triangle = Linear(warmup_share=0.5)
    assert shares(triangle, 8) == [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]
    assert [triangle.at(Place(0, hours, 24.0)) for hours in (6.0, 12.0, 24.0)] == [0.5, 1.0, 0.0]
    with pytest.raises(ValidationError, match="give one of them"):
        Linear(warmup_share=0.5, warmup_steps=2)
    with pytest.raises(ValidationError, match="counts steps"):
        InverseSquareRoot(warmup_share=0.5)
