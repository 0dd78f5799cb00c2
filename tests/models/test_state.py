"""Sums over visible keys: every kind, chunk and packing against explicit masks, to the last bit
where a key has no part."""

import dataclasses

import pytest
import torch

from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models.attention import View
from pipeline.models.prefix_sums import Sides, side_sums
from pipeline.models.state import SumCache, mean_of, seen_sums, summed, sums_with, with_ones

KINDS = ("all", "causal", "reverse", "prefix", "except_self", "mixed")
CPU = torch.device("cpu")
LENGTH = 11
# One document; several, with padding between and behind; padding in front
SEGMENTS = torch.tensor(
    [[1] * 11, [1, 1, 0, 2, 3, 3, 3, 3, 3, 0, 0], [0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 7]]
)


def view_of(kind, segments=SEGMENTS):
    batch = len(SEGMENTS)
    kinds = torch.arange(batch) + 1
    prefix = torch.tensor([2, 5, 4])
    visible = Visibility(kind, segments, segments, prefix, kinds if kind == "mixed" else None)
    return View(visible, LENGTH, LENGTH, CPU)


def parts(*, batch=3, length=LENGTH, grad=False):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, 2, length, 4), (batch, 2, length, 4), (batch, 2, length, 3)]
    drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [part.requires_grad_(grad) for part in drawn]


def written_out(query, key, value, view):
    weights = query @ key.mT
    mask = view.mask()
    return (weights if mask is None else weights * mask) @ value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segments", [SEGMENTS, None], ids=["packed", "one document"])
def test_sums_and_their_gradients_are_those_of_the_mask(kind, segments):
    inputs = parts(grad=True)
    view = view_of(kind, segments)
    results = []
    for function in (seen_sums, written_out):
        out = function(*inputs, view)
        results.append([out, *torch.autograd.grad(out.sin().sum(), inputs)])
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() < 1e-12


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 11, 64])
@pytest.mark.parametrize("code", range(1, 8))
@pytest.mark.parametrize("runs", [torch.tensor([[1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]]), None])
def test_any_chunk_gives_the_sums_of_its_sides(chunk, code, runs):
    sides = Sides(bool(code & 1), bool(code & 2), bool(code & 4))
    inputs = parts(batch=1, grad=True)
    i, j = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    mask = (j < i) & sides.before | (j == i) & sides.own | (j > i) & sides.after
    if runs is not None:
        mask = mask & (runs[0, :, None] == runs[0])
    query, key, value = inputs
    outs = (side_sums(*inputs, sides, runs, chunk), (query @ key.mT * mask) @ value)
    results = [[out, *torch.autograd.grad(out.sin().sum(), inputs)] for out in outs]
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() < 1e-12


def test_the_written_gradient_is_the_numerical_one():
    inputs = [part[:1, :1] for part in parts(grad=True)]
    runs = SEGMENTS[1:2]
    sides = Sides(before=True, own=False, after=True)
    assert torch.autograd.gradcheck(lambda *x: side_sums(*x, sides, runs, 3), inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_not_seen_has_no_part_in_any_bit(kind):
    query, key, value = (part.float() for part in parts())
    view = view_of(kind)
    mask = view.mask().expand(3, 1, -1, -1)[:, 0]
    before = seen_sums(query, key, value, view)
    for j in range(LENGTH):
        other_key, other_value = key.clone(), value.clone()
        other_key[:, :, j] *= 1e6
        other_value[:, :, j] -= 1e6
        changed = (seen_sums(query, other_key, other_value, view) != before).any(dim=-1).any(dim=1)
        assert torch.equal(changed, mask[:, :, j])


@pytest.mark.parametrize("documents", [None, 1, 3])
def test_from_one_sequence_to_another_by_number_of_document(documents):
    query, key, value = parts()
    own = torch.tensor([[1, 1, 3, 3, 2], [2, 2, 2, 1, 0], [3, 1, 0, 0, 1]]).clamp(
        max=documents or 9
    )
    other = SEGMENTS.clamp(max=documents or 9)
    view = summed(View(Visibility("all", own, other), 5, LENGTH, CPU))
    view = dataclasses.replace(view, documents=documents)
    out = seen_sums(query[:, :, :5], key, value, view)
    assert (out - written_out(query[:, :, :5], key, value, view)).abs().max() < 1e-12
    alone = View(Visibility("all", None, other), 5, LENGTH, CPU)
    out = seen_sums(query[:, :, :5], key, value, alone)
    assert (out - written_out(query[:, :, :5], key, value, alone)).abs().max() < 1e-12


def newest(view, first, last):
    """`view` as generation gives it for places `first` to `last`."""
    seen = view.visibility
    own, other = seen.query_segments[:, first:last], seen.key_segments[:, :last]
    visible = dataclasses.replace(seen, query_segments=own, key_segments=other)
    return View(visible, last - first, last, CPU, first_query=first)


@pytest.mark.parametrize("kind", ["causal", "prefix"])
def test_cached_sums_are_those_of_the_whole_row(kind):
    inputs = parts()
    segments = torch.tensor([[1] * 11, [1] * 9 + [0] * 2, [1] * 5 + [0] * 2 + [1] * 4])
    view = view_of(kind, segments)
    whole = seen_sums(*inputs, view)
    cache = SumCache(fixed=False)
    for first, last in ((0, 6), (6, 7), (7, 9), (9, 11)):
        new = [part[:, :, first:last] for part in inputs]
        sums_with(cache, *[part + 1 for part in new], newest(view, first, last))
        cache.forget(last - first)
        together = sums_with(cache, *new, newest(view, first, last))
        assert (together - whole[:, :, first:last]).abs().max() < 1e-12


def test_a_cache_goes_on_with_chosen_rows_and_without_its_newest_places():
    inputs = parts()
    cache = SumCache(fixed=False)
    for new in (slice(0, 4), slice(4, 7)):
        query, key, value = (part[:, :, new] for part in inputs)
        sums_with(cache, query, key, value, View(Visibility("causal"), 3, new.stop, CPU))
    rows = torch.tensor([2, 2, 0, 1])
    cache.select(rows)
    cache.forget(2)
    _, key, value = (part[rows, :, :5] for part in inputs)
    assert (cache.sums - key.mT @ value).abs().max() < 1e-14


def test_means_of_constant_values_are_constant_and_of_nothing_zero():
    query, key, value = parts()
    sums = seen_sums(query, key, with_ones(torch.full_like(value, 2.5)), view_of("except_self"))
    means = mean_of(sums)
    seen = view_of("except_self").mask().any(dim=-1)[:, 0]
    for head in range(2):
        assert (means[:, head][seen] - 2.5).abs().max() < 1e-14
        assert (means[:, head][~seen] == 0).all()


def test_sums_are_float32_under_autocast():
    inputs = [part.float() for part in parts()]
    exact = seen_sums(*inputs, view_of("causal"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(seen_sums(*inputs, view_of("causal")), exact)
        assert torch.equal(
            seen_sums(*inputs, view_of("all", None)), seen_sums(*inputs, view_of("all", None))
        )


def test_mixed_kinds_are_those_of_each_example():
    inputs = parts()
    together = seen_sums(*inputs, view_of("mixed"))
    for row in range(3):
        alone = seen_sums(*inputs, view_of(MIXED_KINDS[row + 1]))
        assert (together[row] - alone[row]).abs().max() < 1e-12
