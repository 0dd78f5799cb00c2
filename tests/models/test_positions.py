"""Positions: buckets, slopes, turns, waves, and where packed documents begin."""

import math

import pytest
import torch

from pipeline.data.example import Visibility
from pipeline.models.attention import View, attend, attend_reference
from pipeline.models.positions import (
    AlibiBias,
    RelativeBias,
    Rotary,
    alibi_slopes,
    positions_in_segments,
    relative_bucket,
    sinusoids,
)

CPU = torch.device("cpu")

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


def test_the_bias_of_the_newest_queries_is_that_of_the_whole():
    for bias in (RelativeBias(3, both_sides=True, num_buckets=8, max_distance=20), AlibiBias(3)):
        whole = bias(10, 10, 0, CPU)
        assert torch.equal(bias(3, 10, 7, CPU), whole[:, :, 7:])


def test_positions_restart_with_each_document():
    segments = torch.tensor([[1, 1, 2, 2, 2, 0, 0], [3, 4, 4, 4, 4, 4, 4]])
    assert positions_in_segments(segments, 7, CPU).tolist() == [
        [0, 1, 0, 1, 2, 0, 1],
        [0, 0, 1, 2, 3, 4, 5],
    ]
    assert positions_in_segments(None, 3, CPU).tolist() == [[0, 1, 2]]
    newest = View(Visibility("causal", segments[:, 4:], segments), 3, 7, CPU, first_query=4)
    assert newest.located().query_positions.tolist() == [[2, 0, 1], [3, 4, 5]]


def test_rotary_products_depend_on_differences_of_positions():
    rotary = Rotary(8, 10_000.0)
    query, key = torch.randn(2, 1, 2, 5, 8, dtype=torch.float64)
    places = torch.tensor([[0, 1, 5, 9, 30]])
    products = rotary.turned(query, places) @ rotary.turned(key, places).mT
    moved = rotary.turned(query, places + 17) @ rotary.turned(key, places + 17).mT
    assert (products - moved).abs().max() < 1e-13
    assert torch.equal(rotary.turned(query, places * 0), query)
    turned = rotary.turned(query, places)
    assert (turned.norm(dim=-1) - query.norm(dim=-1)).abs().max() < 1e-14


def test_rotary_turns_each_pair_by_its_own_angle():
    rotary = Rotary(4, 100.0)
    state = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]], dtype=torch.float64)
    turned = rotary.turned(state, torch.tensor([[3]]))[0, 0, 0]
    for pair, angle in ((0, 3.0), (1, 0.3)):  # 3 / 100^(2 pair / 4)
        x, y = state[0, 0, 0, pair], state[0, 0, 0, pair + 2]
        cos, sin = math.cos(angle), math.sin(angle)
        assert abs(turned[pair] - (x * cos - y * sin)) < 1e-14
        assert abs(turned[pair + 2] - (y * cos + x * sin)) < 1e-14


def test_rotary_angles_of_far_positions_are_exact_under_bfloat16():
    rotary, places = Rotary(64, 10_000.0), torch.tensor([[8001]])
    state = torch.randn(1, 1, 1, 64).bfloat16()
    exact = rotary.turned(state.double(), places)
    assert (rotary.turned(state, places).double() - exact).abs().max() < 0.02


def test_alibi_slopes_are_those_of_the_paper():
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(12) == [2.0**-h for h in range(1, 9)] + [
        2 ** -(h / 2) for h in (1, 3, 5, 7)
    ]
    bias = AlibiBias(8)(4, 4, 0, CPU)
    assert bias[0, 2, 3].tolist() == [-3 / 8, -2 / 8, -1 / 8, 0]
    assert bias[0, 2, 0].tolist() == [0, -1 / 8, -2 / 8, -3 / 8]


def test_sinusoids_are_the_papers_formula():
    table = sinusoids(torch.arange(50), 6)
    for position in (0, 1, 49):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert abs(table[position, 2 * pair] - math.sin(angle)) < 1e-5
            assert abs(table[position, 2 * pair + 1] - math.cos(angle)) < 1e-5


@pytest.mark.parametrize("both_sides", [True, False])
def test_the_table_of_relative_bias_learns_through_fused_attention(both_sides):
    bias = RelativeBias(2, both_sides=both_sides, num_buckets=8, max_distance=20).double()
    query, key, value = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)
    grads = []
    for function in (attend, attend_reference):
        view = View(Visibility("causal"), 9, 9, CPU, bias(9, 9))
        out = function(query, key, value, view, scale=0.5)
        grads.append(torch.autograd.grad(out.square().sum(), bias.table.weight)[0])
    assert (grads[0] - grads[1]).abs().max() < 1e-13
    assert grads[0].abs().amax(dim=1).count_nonzero() >= 4
