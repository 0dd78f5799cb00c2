"""What every mixer of the union owes, whatever it computes: no leaks, packing, finite edges, caches."""

import itertools

import pytest
import torch

from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models.attention import View
from pipeline.models.masks import mask_of
from pipeline.models.mixers import MIXERS, mixer_of
from pipeline.models.mixers.mixer import EVERY_KIND, Heads, Mixer
from pipeline.models.positions import Rotary

CPU = torch.device("cpu")
HEADS = Heads(
    hidden_size=12,
    num_heads=2,
    head_size=6,
    scale=6**-0.5,
    projection_bias=True,
    dropout=0.0,
    max_length=12,
)
CONFIGS = {config().type: config() for config in MIXERS}
KINDS = sorted(EVERY_KIND)
SEGMENTS = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
LENGTH = SEGMENTS.shape[1]


def built(name, dtype=torch.float64, **heads) -> Mixer:
    torch.manual_seed(0)
    return mixer_of(CONFIGS[name], Heads(**{**vars(HEADS), **heads})).to(dtype).eval()


def states_of(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def visibility_of(kind, segments, **more):
    batch = segments.shape[0]
    kinds = torch.arange(batch) % len(MIXED_KINDS) if kind == "mixed" else None
    prefix = torch.arange(batch) % 3 + 2 if kind in ("prefix", "mixed") else None
    return Visibility(kind, segments, segments, prefix, kinds, **more)


def mixed_by(mixer, x_q, x_kv, visibility, **more):
    view = View(visibility, x_q.shape[1], x_kv.shape[1], CPU, **more).located()
    return mixer(x_q, x_kv, type(mixer).prepared(view))[0]


def allowed(name, kind):
    if kind not in MIXERS[type(CONFIGS[name])].honours:
        pytest.skip("refused when a configuration is loaded")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_exactly_what_is_visible_has_influence(name, kind):
    allowed(name, kind)
    mixer = built(name)
    segments = SEGMENTS.repeat(2, 1)
    queries, memory = states_of(4, LENGTH, 12), states_of(4, LENGTH, 12, seed=2)
    visibility = visibility_of(kind, segments)
    seen = mask_of(visibility, LENGTH, LENGTH).expand(4, 1, LENGTH, LENGTH)[:, 0]
    before = mixed_by(mixer, queries, memory, visibility)
    for j in range(LENGTH):
        other = memory.clone()
        other[:, j] += 1.5
        moved = (mixed_by(mixer, queries, other, visibility) - before).abs().amax(dim=-1)
        assert moved[~seen[:, :, j]].max() <= 1e-13, (j, moved)
        assert moved[seen[:, :, j]].min() > 1e-7, (j, moved)


@pytest.mark.parametrize("kind", ["causal", "reverse", "prefix"])
@pytest.mark.parametrize("name", CONFIGS)
def test_later_tokens_and_other_documents_change_no_bit(name, kind):
    allowed(name, kind)
    mixer, x = built(name, torch.float32), states_of(2, LENGTH, 12, dtype=torch.float32)
    visibility = visibility_of(kind, SEGMENTS)
    seen = mask_of(visibility, LENGTH, LENGTH).expand(2, 1, LENGTH, LENGTH)[:, 0]
    before = mixed_by(mixer, x, x, visibility)
    for j in range(LENGTH):
        other = x.clone()
        other[:, j] = other[:, j] * 6 + 1
        after = mixed_by(mixer, x, other, visibility)
        assert torch.equal(after[~seen[:, :, j]], before[~seen[:, :, j]]), j


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_documents_are_mixed_as_if_alone(name, kind):
    allowed(name, kind)
    mixer, x = built(name), states_of(1, 9, 12)
    lengths = (4, 1, 3, 1)
    numbers = torch.tensor([[1] * 4 + [2] + [3] * 3 + [0]])
    inside = torch.tensor([[1, 1, 0, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    visibility = Visibility(kind, numbers, numbers, inside if kind == "prefix" else None)
    together = mixed_by(mixer, x, x, visibility)
    start = 0
    for length in lengths[:-1]:
        own = slice(start, start + length)
        prefix = inside[:, own] if kind == "prefix" else None
        ones = torch.ones(1, length, dtype=torch.long)
        alone = mixed_by(mixer, x[:, own], x[:, own], Visibility(kind, ones, ones, prefix))
        assert (together[:, own] - alone).abs().max() < 1e-12
        start += length


def test_a_mixed_batch_is_its_examples_apart():
    segments = SEGMENTS.repeat(2, 1)
    for name in CONFIGS:
        if "mixed" in MIXERS[type(CONFIGS[name])].honours:
            mixer, x = built(name), states_of(4, LENGTH, 12)
            visibility = visibility_of("mixed", segments)
            together = mixed_by(mixer, x, x, visibility)
            for row, kind in enumerate(MIXED_KINDS):
                own = segments[row : row + 1]
                alone = Visibility(kind, own, own, visibility.prefix[row : row + 1])
                apart = mixed_by(mixer, x[row : row + 1], x[row : row + 1], alone)
                assert (together[row : row + 1] - apart).abs().max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_edges_are_finite_forward_and_backward(name, dtype):
    """Empty rows, rows of padding alone, length 1, huge and tiny states."""
    cases = [
        (torch.zeros(2, 5, dtype=torch.long), 1.0),
        (torch.ones(2, 1, dtype=torch.long), 1.0),
        (torch.tensor([[1, 2, 2, 0, 0], [0, 0, 0, 0, 0]]), 30.0),
        (torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]), 1e-4),
    ]
    for (segments, size), kind in itertools.product(cases, KINDS):
        if kind not in MIXERS[type(CONFIGS[name])].honours:
            continue
        mixer = built(name, dtype)
        x = (states_of(*segments.shape, 12) * size).to(dtype).requires_grad_()
        y = mixed_by(mixer, x, x, visibility_of(kind, segments))
        assert y.dtype == dtype
        assert y.isfinite().all(), (kind, size)
        y.float().square().mean().backward()
        assert x.grad.isfinite().all(), (kind, size)
        assert all(p.grad is None or p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_query_that_sees_nothing_gets_the_projection_of_zeros(name):
    mixer = built(name)
    segments = torch.tensor([[1, 0, 2]])
    x = states_of(1, 3, 12)
    for kind in {"all", "except_self"} & MIXERS[type(CONFIGS[name])].honours:
        y = mixed_by(mixer, x, x, Visibility(kind, segments, segments))
        blind = [1] if kind == "all" else [0, 1, 2]
        assert (y[0, blind] - mixer.output.bias).abs().max() < 1e-13


@pytest.mark.parametrize("kind", ["causal", "prefix"])
@pytest.mark.parametrize("rotary", [None, Rotary(6, 100.0)], ids=["", "rotary"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_cache_gives_what_the_whole_row_gives(name, kind, rotary):
    allowed(name, kind)
    if rotary and not MIXERS[type(CONFIGS[name])].takes_rotary:
        pytest.skip("refused when a configuration is loaded")
    mixer, x = built(name, stack="decoder"), states_of(2, LENGTH, 12)
    ones = torch.ones(2, LENGTH, dtype=torch.long)
    prefix = torch.tensor([3, 4]) if kind == "prefix" else None
    whole = mixed_by(mixer, x, x, Visibility(kind, ones, ones, prefix), rotary=rotary)
    cache = mixer.new_cache()
    cuts = [0, 4, 5, 7, LENGTH]  # a prompt that holds the prefix, then pieces
    for start, end in itertools.pairwise(cuts):
        visibility = Visibility(kind, ones[:, start:end], ones[:, :end], prefix)
        view = View(visibility, end - start, end, CPU, first_query=start, rotary=rotary).located()
        piece = x[:, start:end]
        y, _ = mixer(piece, piece, type(mixer).prepared(view), None, cache)
        assert (y - whole[:, start:end]).abs().max() < 1e-12, (start, end)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cache_forgets_and_follows_the_rows_it_is_told(name):
    allowed(name, "causal")
    mixer, x = built(name, stack="decoder"), states_of(2, 6, 12)
    rows = torch.tensor([1, 1, 0])
    ones = torch.ones(3, 6, dtype=torch.long)
    whole = mixed_by(mixer, x[rows], x[rows], Visibility("causal", ones, ones))
    cache = mixer.new_cache()

    def fed(start, end, piece):
        own = ones[: len(piece)]
        visibility = Visibility("causal", own[:, start:end], own[:, :end])
        view = View(visibility, end - start, end, CPU, first_query=start).located()
        return mixer(piece, piece, type(mixer).prepared(view), None, cache)[0]

    fed(0, 4, x[:, :4])
    fed(4, 6, torch.cat([x[:, 4:5], states_of(2, 1, 12, seed=9)], dim=1))
    cache.forget(1)
    cache.select(rows)
    assert (fed(5, 6, x[rows, 5:]) - whole[:, 5:]).abs().max() < 1e-12


@pytest.mark.parametrize("name", [n for n in CONFIGS if MIXERS[type(CONFIGS[n])].takes_cross])
def test_a_cache_of_another_sequence_is_filled_once(name):
    mixer = built(name, stack="cross")
    queries, memory = states_of(2, 5, 12), states_of(2, 7, 12, seed=3)
    own, other = torch.ones(2, 5, dtype=torch.long), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    whole = mixed_by(mixer, queries, memory, Visibility("all", own, other))
    cache = mixer.new_cache()
    for step in range(5):
        here = slice(step, step + 1)
        given = memory if step == 0 else torch.full_like(memory, torch.nan)
        positions = torch.full((1, 1), step)
        view = View(
            Visibility("all", own[:, here], other), 1, 7, CPU, query_positions=positions
        ).located()
        y, _ = mixer(queries[:, here], given, type(mixer).prepared(view), None, cache)
        assert (y - whole[:, here]).abs().max() < 1e-12


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mixer_without_storage_takes_the_weights_of_another(name):
    with torch.device("meta"):
        empty = mixer_of(CONFIGS[name], HEADS)
    full = built(name, torch.float32)
    empty.load_state_dict(full.state_dict(), assign=True)
    x, visibility = states_of(2, LENGTH, 12, dtype=torch.float32), visibility_of("all", SEGMENTS)
    assert torch.equal(mixed_by(empty.eval(), x, x, visibility), mixed_by(full, x, x, visibility))
