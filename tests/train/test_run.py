"""Settings that contradict each other are refused, with what would do."""

import pytest

from pipeline.config import ConfigError, build_from
from pipeline.runtime import key_of
from pipeline.train.engine_deepspeed import deepspeed_config
from pipeline.train.run import TrainSettings


def refused(**settings):
    with pytest.raises(ConfigError) as caught:
        build_from(TrainSettings, settings)
    return str(caught.value)


def test_micro_batch_must_divide_the_batch():
    assert "a divisor of 10" in refused(batch=10, micro_batch=4)


def test_native_block_may_not_repeat_what_theseum_derives():
    words = refused(engine={"type": "deepspeed", "native": {"train_batch_size": 8}})
    assert "derived from batch" in words
    assert "contradicts zero_stage 1" in refused(
        engine={"type": "deepspeed", "native": {"zero_optimization": {"stage": 3}}}
    )


def test_native_block_of_another_shape_is_refused_in_words():
    words = refused(engine={"type": "deepspeed", "native": {"zero_optimization": 3}})
    assert words.endswith("zero_optimization: got 3; allowed: keys and values")


@pytest.mark.parametrize("seed", [-(1 << 31), (1 << 31) - 1])
def test_draws_of_late_steps_are_keyed_by_the_largest_seeds_too(seed):
    settings = build_from(TrainSettings, {"seed": seed})
    assert key_of(settings.seed * 1_000_003 + 10**12, "dropout", 0, 0) > 0
    assert "2147483648" in refused(seed=seed * 2 + 2 if seed > 0 else seed - 1)


def test_batches_that_the_processes_cannot_share_out_are_told_beforehand():
    settings = build_from(TrainSettings, {"batch": 32, "micro_batch": 8})
    assert list(settings.conflicts(4)) == []
    [(keys, words)] = settings.conflicts(3)
    assert keys == ("train", "batch")
    assert words.endswith("need a multiple of 24, for example 24 or 48")


def test_torch_engine_has_no_bf16():
    assert "float32" in refused(engine={"type": "torch"}, precision="bf16")


def test_native_block_lies_over_generated_values():
    settings = build_from(
        TrainSettings,
        {"engine": {"type": "deepspeed", "native": {"zero_optimization": {"overlap_comm": True}}}},
    )
    made = deepspeed_config(settings, settings.engine, ranks=2, precision="bf16")
    assert made["zero_optimization"]["overlap_comm"] is True
    assert made["zero_optimization"]["stage"] == 1
    assert made["gradient_accumulation_steps"] * made["train_micro_batch_size_per_gpu"] * 2 == 32
    assert made["bf16"] == {"enabled": True}
