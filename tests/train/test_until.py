"""Runs that end by what they spend: the last step, the schedule on the way, and going on where one was stopped."""

import math

import pytest
from small_job import losses_of, write_job

from launch.local import run_job
from pipeline import files
from pipeline.config import ConfigError, build_from
from pipeline.train.schedule import Linear
from pipeline.train.until import Budget, Until


def budgeted(out, tokens, until, **train):
    """A job that ends by `until` instead of after 20 steps."""
    path = write_job(out, tokens, engine={"type": "torch"}, micro_batch=8, **train)
    job = files.read_json(path)
    job["stage"] |= {"steps": None, "until": until}
    files.write_json(path, job)
    return path


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_the_last_step_is_the_first_that_reaches_the_amount(unit):
    budget, schedule, shares = Budget(unit, 1000.0, warmup_steps=2), Linear(warmup_steps=2), []
    while not budget.over(len(shares)):
        shares.append(schedule.at(budget.place(len(shares))))
        budget.add(tokens=300.0 if unit == "tokens" else 1.0, flops=300.0)
    # Two steps of rise spend 600; the remaining 400 are what the line falls over.
    assert shares == [0.5, 1.0, 1.0, 1.0 - 300.0 / 400.0]


def test_hours_fall_to_zero_with_the_clock():
    budget, schedule = Budget("hours", 2.0), Linear()
    budget.seconds = 5400.0
    assert math.isclose(schedule.at(budget.place(7)), 0.25)
    assert not budget.over(7)
    budget.seconds = 7200.0
    assert budget.over(7)


def test_exactly_one_measure_is_given():
    with pytest.raises(ConfigError, match="give one of them"):
        build_from(Until, {"tokens": 5.0, "hours": 1.0}, "until")


@pytest.mark.slow
def test_a_job_of_so_many_tokens_goes_on_with_the_same_bits(token_folder, tmp_path):
    plain = tmp_path / "plain"
    run_job(budgeted(plain, token_folder, {"tokens": 3000.0}), processes=1)
    steps = files.read_json(plain / "done.json")["steps"]
    assert steps > 5
    half = tmp_path / "half"
    path = budgeted(half, token_folder, {"tokens": 3000.0})
    run_job(path, processes=1)
    # As if it had been killed right after an earlier checkpoint.
    (half / "done.json").unlink()
    kept = sorted((half / "checkpoints").glob("step-*"))
    newest, earlier = kept[-1], kept[-2]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    (half / "checkpoints" / "latest").write_text(earlier.name)
    run_job(path, processes=1)
    assert files.read_json(half / "done.json")["steps"] == steps
    assert losses_of(half) == losses_of(plain)


@pytest.mark.slow
def test_offloaded_state_changes_losses_by_rounding_alone(trained):
    # Gradients are summed in another order on their way to the host.
    zero = {"type": "deepspeed", "bucket_elements": 200_000}
    kept = trained(processes=2, engine=zero | {"zero_stage": 3})
    host = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    found = trained(processes=2, engine=zero | {"zero_stage": 3} | host)
    assert found.keys() == kept.keys()
    for step, values in kept.items():
        assert found[step] == pytest.approx(values, rel=1e-4)
