"""Visibility realised as masks, and the fast attention against its definition."""

import itertools
import math

import pytest
import torch

from pipeline.data.example import Visibility
from pipeline.models.attention import (
    RelativeBias,
    View,
    attend,
    attend_reference,
    mask_of,
    relative_bucket,
)

KINDS = ("all", "causal", "reverse", "prefix", "except_self")
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
CPU = torch.device("cpu")


def visibility_of(kind, segments=SEGMENTS):
    return Visibility(kind, segments, segments, torch.tensor([2, 4]))


def sees(kind, i, j, prefix):
    return {
        "all": True,
        "causal": j <= i,
        "reverse": j >= i,
        "prefix": j < prefix or j <= i,
        "except_self": i != j,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_mask_is_the_written_rule_for_every_pair(kind):
    mask = mask_of(visibility_of(kind), 6, 6)
    for b, i, j in itertools.product(range(2), range(6), range(6)):
        own, other = SEGMENTS[b, i].item(), SEGMENTS[b, j].item()
        expected = sees(kind, i, j, (2, 4)[b]) and own == other and other != 0
        assert mask[b, 0, i, j].item() == expected, (kind, b, i, j)


def test_nothing_hidden_needs_no_mask():
    assert mask_of(Visibility("all"), 3, 5) is None
    assert mask_of(Visibility("causal"), 3, 5).shape == (1, 1, 3, 5)


def test_keys_of_another_sequence_are_seen_by_number_of_segment():
    queries, keys = torch.tensor([[1, 2, 2]]), torch.tensor([[1, 1, 2, 0]])
    mask = mask_of(Visibility("all", queries, keys), 3, 4)
    assert mask[0, 0].tolist() == [
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, False],
    ]


def tensors(dtype, *, grad=False):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 6, 8)] * 3 + [(1, 3, 6, 6)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)
        for shape in shapes
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biased", ["bias", "no bias"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_fast_attention_is_its_definition(kind, biased, dtype, tolerance):
    query, key, value, bias = tensors(dtype, grad=True)
    results = []
    for function in (attend, attend_reference):
        view = View(visibility_of(kind), 6, 6, CPU, bias if biased == "bias" else None)
        out = function(query, key, value, view, scale=0.3)
        wanted = [query, key, value, *([bias] if biased == "bias" else [])]
        results.append([out, *torch.autograd.grad(out.square().sum(), wanted)])
    for fast, slow in zip(*results, strict=True):
        assert fast.isfinite().all()
        assert (fast - slow).abs().max() <= tolerance * 10


def test_definition_is_a_weighted_mean():
    query, key, value, _ = tensors(torch.float64)
    view = View(Visibility("causal"), 6, 6, CPU)
    out = attend_reference(query, key, value, view, scale=0.5)
    for i in range(6):
        weights = [math.exp(0.5 * query[1, 2, i] @ key[1, 2, j]) for j in range(i + 1)]
        mean = sum(w * value[1, 2, j] for j, w in enumerate(weights)) / sum(weights)
        assert (out[1, 2, i] - mean).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", ["bias", "no bias"])
def test_a_query_that_sees_nothing_gets_zeros_and_finite_gradients(dtype, biased):
    query, key, value, bias = tensors(dtype, grad=True)
    view = View(visibility_of("all"), 6, 6, CPU, bias if biased == "bias" else None)
    out = attend(query, key, value, view, scale=1.0)
    assert out[0, :, 5].abs().max() == 0
    assert (out[1, :, 5].abs().max() > 0).item()
    grads = torch.autograd.grad(out.sum(), [query, key, value])
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[0][0, :, 5].abs().max() == 0


def test_bfloat16_attention_keeps_its_softmax_in_float32():
    # 64 equal scores: weights summed in bfloat16 would stick at 1/64 of rounding; float32 gives 1
    query = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16)
    key = torch.zeros(1, 1, 1000, 8, dtype=torch.bfloat16)
    value = torch.ones(1, 1, 1000, 8, dtype=torch.bfloat16)
    out = attend(query, key, value, View(Visibility(), 1, 1000, CPU), scale=1.0)
    assert (out == 1).all()


# First distance of each bucket of 32, from the formula of Raffel et al. for max_distance 128
ONE_SIDE = [*range(17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
BOTH_SIDES = [*range(9), 12, 16, 23, 32, 46, 64, 91]


@pytest.mark.parametrize(("both_sides", "starts"), [(True, BOTH_SIDES), (False, ONE_SIDE)])
def test_relative_buckets_begin_where_t5_begins_them(both_sides, starts):
    distance = torch.arange(0, 300)
    buckets = relative_bucket(-distance, both_sides=both_sides, num_buckets=32, max_distance=128)
    first = {bucket: buckets.tolist().index(bucket) for bucket in set(buckets.tolist())}
    assert [first[bucket] for bucket in sorted(first)] == starts
    after = relative_bucket(distance[1:], both_sides=both_sides, num_buckets=32, max_distance=128)
    assert after.tolist() == (buckets[1:] + 16 if both_sides else torch.zeros(299)).tolist()


def test_relative_bias_depends_on_the_distance_alone():
    bias = RelativeBias(3, both_sides=True, num_buckets=32, max_distance=128)(40, 50)
    assert bias.shape == (1, 3, 40, 50)
    assert torch.equal(bias[:, :, 1:, 1:], bias[:, :, :-1, :-1])
