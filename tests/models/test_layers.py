"""Norms, initial weights, and the size of the vocabulary."""

import pytest
import torch

from pipeline.models.layers import (
    LayerNorm,
    RMSNorm,
    fan_in_normal_,
    padded_vocab,
    truncated_normal_,
)


@pytest.mark.parametrize(
    ("size", "padded"), [(1, 64), (64, 64), (65, 128), (30522, 30528), (32100, 32128)]
)
def test_vocabulary_is_rounded_up_to_a_multiple_of_64(size, padded):
    assert padded_vocab(size) == padded


def test_rms_norm_ignores_scale_and_divides_by_the_root_mean_square():
    norm = RMSNorm(16, 1e-30).double()
    x = torch.randn(5, 16, dtype=torch.float64)
    assert (norm(3 * x) - norm(x)).abs().max() < 1e-14
    expected = x / x.square().mean(dim=-1, keepdim=True).sqrt()
    assert (norm(x) - expected).abs().max() < 1e-14


def test_layer_norm_subtracts_the_mean_and_divides_by_the_deviation():
    norm = LayerNorm(16, 1e-12).double()
    x = torch.randn(5, 16, dtype=torch.float64)
    expected = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    assert (norm(x) - expected).abs().max() < 1e-11


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32])
def test_statistics_stay_float32_under_bfloat16(kind, weights):
    x = (100 + torch.randn(64, 512, generator=torch.Generator().manual_seed(0))).bfloat16()
    norm = kind(512, 1e-6)
    expected = norm(x.float()).bfloat16()
    found = norm.to(weights)(x)
    assert found.dtype == torch.bfloat16
    # one step of bfloat16's rounding; statistics in bfloat16 would be off by far more
    assert ((found - expected).abs() <= expected.abs() * 2**-7).all()


def test_initial_weights_are_cut_at_two_deviations():
    torch.manual_seed(0)
    weight = torch.empty(400, 1000)
    truncated_normal_(weight, 0.02)
    assert weight.abs().max() <= 0.04
    assert abs(weight.std().item() / (0.02 * 0.8796) - 1) < 0.01
    fan_in_normal_(weight)
    assert abs(weight.std().item() * 1000**0.5 - 1) < 0.01
