"""Visibility realised as masks, and the fast attention against its definition."""

import dataclasses
import itertools
import math

import pytest
import torch

from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models import kernels
from pipeline.models.attention import View, attend, attend_reference, for_scores
from pipeline.models.masks import mask_of

KINDS = ("all", "causal", "reverse", "prefix", "except_self", "mixed")
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
CPU = torch.device("cpu")


KINDS_OF_ROWS = ("prefix", "reverse")  # in the batch of kind "mixed"


def visibility_of(kind, segments=SEGMENTS, **more):
    kinds = torch.tensor([MIXED_KINDS.index(one) for one in KINDS_OF_ROWS])
    return Visibility(kind, segments, segments, torch.tensor([2, 4]), kinds, **more)


def sees(kind, i, j, prefix, row=0):
    kind = KINDS_OF_ROWS[row] if kind == "mixed" else kind
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
        expected = sees(kind, i, j, (2, 4)[b], b) and own == other and other != 0
        assert mask[b, 0, i, j].item() == expected, (kind, b, i, j)
    near = mask_of(visibility_of(kind, window=2), 6, 6)
    places = torch.arange(6)
    assert torch.equal(near, mask & ((places[:, None] - places).abs() <= 2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_queries_of_a_growing_row_see_what_they_see_in_the_whole(kind):
    whole = mask_of(visibility_of(kind, window=3), 6, 6)
    for first in range(6):
        own = dataclasses.replace(visibility_of(kind, window=3), query_segments=SEGMENTS[:, first:])
        assert torch.equal(mask_of(own, 6 - first, 6, first_query=first), whole[:, :, first:])


def test_a_prefix_may_be_named_token_by_token():
    inside = torch.tensor([[1, 0, 0, 1, 1, 0]], dtype=torch.bool)
    numbers = torch.tensor([[1, 1, 1, 2, 2, 2]])
    mask = mask_of(Visibility("prefix", numbers, numbers, inside), 6, 6)[0, 0]
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


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


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_heads_share_keys_and_values(kind):
    query, key, value, bias = tensors(torch.float64)
    view = View(visibility_of(kind), 6, 6, CPU, bias)
    one_group = attend(query, key[:, :1], value[:, :1], view, scale=0.4)
    repeated = attend(
        query, key[:, :1].expand(query.shape), value[:, :1].expand(query.shape), view, scale=0.4
    )
    assert (one_group - repeated).abs().max() < 1e-14
    slow = attend_reference(query, key[:, :1], value[:, :1], view, scale=0.4)
    assert (one_group - slow).abs().max() < 1e-14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 2])
def test_flex_attention_skips_what_is_hidden_and_nothing_else(kind, window):
    visibility = visibility_of(kind, window=window)
    query, key, value, _ = tensors(torch.float32)
    expected = attend_reference(query, key, value, View(visibility, 6, 6, CPU), scale=0.3)
    blocks = kernels.blocks_of(visibility, 6, 6, 0, CPU)
    with torch.no_grad():
        found = kernels.flex(query, key, value, blocks, 0.3)
        assert (found - expected).abs().max() < 1e-6
        newest = dataclasses.replace(visibility, query_segments=SEGMENTS[:, 4:])
        blocks = kernels.blocks_of(newest, 2, 6, 4, CPU)
        found = kernels.flex(query[:, :, 4:], key, value, blocks, 0.3)
    assert (found - expected[:, :, 4:]).abs().max() < 1e-6


def test_runs_begin_where_segments_change_and_rows_begin():
    assert kernels.runs_of(SEGMENTS).tolist() == [0, 3, 5, 6, 12]
    assert kernels.runs_of(torch.tensor([[1, 1], [1, 1]])).tolist() == [0, 2, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_gpu_are_the_definition_forward_and_backward(kind, window, groups, dtype):
    device = torch.device("cuda")
    segments = torch.tensor([[1] * 100 + [2] * 120 + [3] * 1 + [0] * 35, [1] * 256], device=device)
    kinds = torch.tensor([3, 2], device=device)
    prefix = torch.tensor([50, 60], device=device)
    visibility = Visibility(kind, segments, segments, prefix, kinds, window)
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(2, 4, 256, 64), (2, groups, 256, 64), (2, groups, 256, 64)]
    given = [torch.randn(s, generator=generator, device=device) for s in shapes]
    view = View(visibility, 256, 256, device)
    results = []
    for function, of, used in (
        (attend, dtype, for_scores(view)),
        (attend_reference, torch.float32, view),
    ):
        inputs = [part.to(dtype).to(of).requires_grad_() for part in given]
        out = function(*inputs, used, scale=0.125)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    for fast, slow in zip(*results, strict=True):
        assert fast.isfinite().all()
        limit = 0.03 if dtype == torch.bfloat16 else 2e-3
        assert (fast.float() - slow).abs().max() <= limit * slow.abs().max()
