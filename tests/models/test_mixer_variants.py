"""What `test_every_mixer` holds the defaults to, for every kernel, feature map and kind of score."""

import dataclasses
import typing

import pytest
import torch

from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models.attention import View
from pipeline.models.mixers import (
    LinearConfig,
    PerformerConfig,
    ResidualConfig,
    SynthesizerConfig,
    mixer_of,
    prepared,
)
from pipeline.models.mixers.linear import Kernel
from pipeline.models.mixers.mixer import EVERY_KIND, Heads
from pipeline.models.mixers.synthesizer import Part

HEADS = Heads(24, 3, 8, 8**-0.5, projection_bias=True, dropout=0.0, max_length=11)
CPU = torch.device("cpu")
LENGTH = 11
PACKED = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3, 0, 0], [1] * 11, [1] * 5 + [2] * 6])
PADDED = torch.tensor([[1] * 9 + [0] * 2, [1] * 11, [1] * 5 + [0] * 6])
CONFIGS = {
    "residual concatenated": ResidualConfig(form="concatenated", total="mean"),
    **{f"linear {kernel}": LinearConfig(kernel=kernel) for kernel in typing.get_args(Kernel)},
    "performer hyperbolic": PerformerConfig(features="hyperbolic", num_features=16),
    "performer relu": PerformerConfig(features="relu", num_features=16),
    **{part: SynthesizerConfig(parts=(part,)) for part in typing.get_args(Part)},
    "mixture": SynthesizerConfig(parts=("factorised_dense", "random", "dot_product")),
    "gate": SynthesizerConfig(
        parts=("dot_product", "dense_shared"), mixture="gate", key_projection="value"
    ),
}
every_variant = pytest.mark.parametrize("name", CONFIGS)


def layer(name, dtype=torch.float64, **heads):
    torch.manual_seed(3)
    mixer = mixer_of(CONFIGS[name], dataclasses.replace(HEADS, **heads))
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return mixer.to(dtype).eval()


def visibility_of(kind, segments):
    kinds = torch.arange(3) % len(MIXED_KINDS) if kind == "mixed" else None
    prefix = torch.arange(LENGTH)[None] % 4 < torch.tensor([[2], [3], [1]])
    return Visibility(kind, segments, segments, prefix, kinds)


def part_of(visibility, places):
    """A document cut out of packed rows, without segments."""
    prefix = visibility.prefix[:, places]
    return dataclasses.replace(visibility, prefix=prefix, query_segments=None, key_segments=None)


def mixed(mixer, name, x_q, x_kv, visibility, cache=None, **more):
    first = more.get("first_query", 0)
    keys = first + x_kv.shape[1] if first else x_kv.shape[1]
    view = prepared(CONFIGS[name], View(visibility, x_q.shape[1], keys, CPU, **more))
    return mixer(x_q, x_kv, view, None, cache)[0]


def states(dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, LENGTH, 24, generator=generator, dtype=torch.float64).to(dtype)


@every_variant
@pytest.mark.parametrize("segments", [PACKED, PADDED, None], ids=["packed", "padded", "bare"])
def test_what_is_not_seen_changes_no_bit_and_what_is_seen_some(name, segments):
    mixer, (x_q, x_kv) = layer(name, torch.float32), states(torch.float32)
    for kind in sorted(EVERY_KIND):
        visibility = visibility_of(kind, segments)
        mask = View(visibility, LENGTH, LENGTH, CPU).mask()
        seen = torch.ones(3, LENGTH, LENGTH, dtype=torch.bool)
        seen = seen if mask is None else seen & mask[:, 0]
        before = mixed(mixer, name, x_q, x_kv, visibility)
        for j in (0, 4, 10):
            other = x_kv.clone()
            other[:, j] *= -6
            changed = (mixed(mixer, name, x_q, other, visibility) != before).any(dim=-1)
            assert torch.equal(changed, seen[:, :, j]), (kind, j)


@every_variant
def test_packed_documents_are_separate_ones(name):
    mixer, (x_q, x_kv) = layer(name), states()
    for kind in sorted(EVERY_KIND):
        visibility = visibility_of(kind, PACKED)
        together = mixed(mixer, name, x_q, x_kv, visibility)
        for row, first, last in ((0, 3, 7), (0, 7, 9), (2, 5, 11)):
            own = slice(first, last)
            apart = mixed(mixer, name, x_q[:, own], x_kv[:, own], part_of(visibility, own))
            assert (together[row, own] - apart[row]).abs().max() < 1e-12


@every_variant
def test_a_growing_row_is_the_whole_row(name):
    mixer, (x_q, x_kv) = layer(name, stack="decoder"), states()
    for kind in ("causal", "prefix"):
        visible = Visibility(kind, PADDED, PADDED, torch.tensor([2, 4, 3]))
        whole, cache = mixed(mixer, name, x_q, x_kv, visible), mixer.new_cache()
        for first, last in ((0, 5), (5, 6), (6, 8), (8, 11)):
            new, own = slice(first, last), PADDED[:, first:last]
            seen = dataclasses.replace(visible, query_segments=own, key_segments=PADDED[:, :last])
            more = {"cache": cache, "first_query": first}
            mixed(mixer, name, x_q[:, new] + 1, x_kv[:, new] - 1, seen, **more)
            cache.forget(last - first)
            out = mixed(mixer, name, x_q[:, new], x_kv[:, new], seen, **more)
            assert (out - whole[:, new])[own > 0].abs().max() < 1e-12


@every_variant
def test_another_sequence_is_read_once(name):
    mixer, (x_q, x_kv) = layer(name, stack="cross"), states()
    other, rows = (PADDED > 0).long(), torch.tensor([2, 2, 0])
    visible = Visibility("all", torch.ones(3, 1).long(), other)
    whole, cache = mixed(mixer, name, x_q[:, :1], x_kv, visible), mixer.new_cache()
    for row in range(3):
        real = int(other[row].sum())
        alone = mixed(mixer, name, x_q[row, None, :1], x_kv[row, None, :real], Visibility("all"))
        assert (whole[row] - alone[0]).abs().max() < 1e-12
    mixed(mixer, name, x_q[:, :1], x_kv, visible, cache)
    cache.select(rows)
    chosen = dataclasses.replace(visible, key_segments=other[rows])
    out = mixed(mixer, name, x_q[rows, :1], torch.full_like(x_kv, torch.nan), chosen, cache)
    assert (out - whole[rows]).abs().max() < 1e-12


@every_variant
def test_bfloat16_stays_near_float32_and_edges_stay_finite(name):
    (x_q, x_kv), visible = states(torch.float32), visibility_of("causal", PACKED)
    exact = mixed(layer(name, torch.float32), name, x_q, x_kv, visible)
    narrow = mixed(layer(name, torch.bfloat16), name, x_q.bfloat16(), x_kv.bfloat16(), visible)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mixed(layer(name, torch.float32), name, x_q, x_kv, visible)
    for rounded in (narrow.float(), cast.float()):
        assert 0 < (rounded - exact).abs().max() < 0.06 * exact.abs().max()
    mixer = layer(name, torch.float16)
    for size in (1e-4, 30.0):
        x = (x_q * size).half().requires_grad_()
        for segments in (PACKED, torch.zeros_like(PACKED)):
            out = mixed(mixer, name, x, x, visibility_of("except_self", segments))
            (gradient,) = torch.autograd.grad(out.float().sum(), x)
            assert out.isfinite().all()
            assert gradient.isfinite().all()
        assert torch.equal(out, mixer.output.bias.expand_as(out))
