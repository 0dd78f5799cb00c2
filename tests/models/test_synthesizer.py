"""Synthesizer's invariants (Tay et al. 2020): what scores depend on, mixtures, tables and sizes."""

import dataclasses

import pytest
import torch

from pipeline.config import ConfigError, DataError, build_from
from pipeline.data.example import Visibility
from pipeline.models.attention import View, softmax_seen
from pipeline.models.encoder import EncoderConfig
from pipeline.models.mixers.mixer import Heads
from pipeline.models.mixers.softmax import SoftmaxConfig, SoftmaxMixer
from pipeline.models.mixers.synthesizer import SynthesizerConfig, SynthesizerMixer, placed
from pipeline.models.synthetic_scores import factors_of

HEADS = Heads(
    hidden_size=12,
    num_heads=2,
    head_size=6,
    scale=6**-0.5,
    projection_bias=False,
    dropout=0.0,
    max_length=12,
)
CPU = torch.device("cpu")
DENSE = ("dense", "dense_shared", "factorised_dense")
OF_POSITIONS = ("random", "fixed_random", "factorised_random")


def mixer_of(*parts, heads=HEADS, **settings):
    torch.manual_seed(0)
    return SynthesizerMixer(SynthesizerConfig(parts=parts, **settings), heads).double()


def tokens(length=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, 12, generator=generator, dtype=torch.float64)


def view_of(length=7, kind="all"):
    return placed(View(Visibility(kind), length, length, CPU))


def scores_of(mixer, x):
    key = mixer.key(x).unflatten(-1, (2, 6)).transpose(1, 2) if hasattr(mixer, "key") else x
    return mixer.mixed_scores(x, key, view_of(x.shape[1]).placing)


@pytest.mark.parametrize("part", OF_POSITIONS)
def test_scores_of_positions_know_nothing_of_tokens(part):
    mixer, x = mixer_of(part), tokens().requires_grad_()
    assert torch.equal(scores_of(mixer, x), scores_of(mixer, x + 1))
    assert scores_of(mixer, x).shape == (1, 2, 7, 7)
    one, _ = mixer(x, x, view_of())
    two, _ = mixer(x, 2 * x, view_of())
    assert (two - 2 * one).abs().max() < 1e-14  # linear in what values are made of


@pytest.mark.parametrize("part", DENSE)
def test_dense_scores_of_a_query_come_from_its_token_alone(part):
    mixer, x = mixer_of(part), tokens()
    other = x.clone()
    other[:, 3] += 1
    changed = (scores_of(mixer, other) != scores_of(mixer, x)).any(dim=-1)
    assert changed.any(dim=1)[:, 3].all()
    assert not changed[:, :, [0, 1, 2, 4, 5, 6]].any()


def test_dense_scores_are_the_written_formula():
    mixer, x = mixer_of("dense"), tokens()
    own, scores = mixer.scores["dense"], scores_of(mixer, x)
    for head in range(2):
        hidden = (
            x[1, 4, 6 * head : 6 * head + 6] @ own.hidden.weight[head] + own.hidden.bias[head, 0]
        )
        expected = hidden.relu() @ own.readout.weight[head] + own.readout.bias[head, 0]
        assert (scores[1, head, 4] - expected[:7]).abs().max() < 1e-14
    shared = mixer_of("dense_shared")
    query = shared.query(x).unflatten(-1, (2, 6))
    expected = query[1, 4].relu() @ shared.scores["dense_shared"].table
    assert (scores_of(shared, x)[1, :, 4] - expected[:, :7]).abs().max() < 1e-14


def test_factorised_random_scores_have_the_rank_and_are_the_product():
    mixer = mixer_of("factorised_random", rank=3)
    scores = scores_of(mixer, tokens(12))
    assert torch.linalg.matrix_rank(scores).max() == 3
    table = mixer_of("random")
    own = mixer.scores["factorised_random"]
    with torch.no_grad():
        table.scores["random"].table.copy_(own.of_queries @ own.of_keys.mT)
    assert (scores_of(table, tokens(12)) - scores).abs().max() < 1e-15
    assert torch.linalg.matrix_rank(scores.softmax(dim=-1)).min() > 3


@pytest.mark.parametrize("length", [12, 13])
def test_factorised_dense_scores_are_all_products_of_two_short_vectors(length):
    heads = dataclasses.replace(HEADS, max_length=length)
    a, b = factors_of(length)
    assert a * b >= length
    scores = scores_of(mixer_of("factorised_dense", heads=heads), tokens(length))
    if a * b == length:
        assert torch.linalg.matrix_rank(scores.unflatten(-1, (a, b))).max() == 1
        assert all(len(set(row.tolist())) == length for row in scores.flatten(0, 2))
    mixer = mixer_of("factorised_dense", heads=heads)
    own, x = mixer.scores["factorised_dense"], tokens(length)
    hidden = own.hidden(x.unflatten(-1, (2, 6)).transpose(1, 2)).relu()
    first, second = own.first(hidden), own.second(hidden)
    for j in range(length):
        expected = first[..., j // b] * second[..., j % b]
        assert (scores[..., j] - expected).abs().max() < 1e-14


def test_mixtures_begin_even_sum_to_one_and_contain_their_parts():
    mixer, x = mixer_of("random", "dot_product", "dense"), tokens()
    assert (mixer.weights() - 1 / 3).abs().max() < 1e-15
    with torch.no_grad():
        mixer.mixing.copy_(torch.tensor([0.3, -2.0, 5.0]))
        assert abs(mixer.weights().sum() - 1) < 1e-15
        plain = SoftmaxMixer(SoftmaxConfig(), HEADS).double()
        plain.load_state_dict(mixer.state_dict(), strict=False)
        mixer.mixing.copy_(torch.tensor([-1e3, 1e3, -1e3]))
        out, _ = mixer(x, x, view_of(kind="causal"))
        assert (out - plain(x, x, view_of(kind="causal"))[0]).abs().max() < 1e-14
        mixer.mixing.copy_(torch.tensor([1e3, -1e3, -1e3]))
        alone = mixer_of("random")
        alone.load_state_dict(mixer.state_dict(), strict=False)
        out, _ = mixer(x, x, view_of(kind="causal"))
        assert (out - alone(x, x, view_of(kind="causal"))[0]).abs().max() < 1e-14


def test_a_gate_begins_at_one_half_and_closes_to_dot_products():
    mixer, x = mixer_of("random", "dot_product", mixture="gate"), tokens()
    plus = mixer_of("random", "dot_product", mixture="sum")
    plus.load_state_dict(mixer.state_dict(), strict=False)
    assert mixer.weights().tolist() == [0.5, 0.5]
    assert (2 * scores_of(mixer, x) - scores_of(plus, x)).abs().max() < 1e-14
    with torch.no_grad():
        mixer.mixing.fill_(-1e3)
    dots = mixer_of("dot_product")
    dots.load_state_dict(mixer.state_dict(), strict=False)
    assert torch.equal(scores_of(mixer, x), scores_of(dots, x))


def test_a_fixed_table_is_drawn_once_saved_and_not_trained():
    mixer = mixer_of("fixed_random")
    names = {name for name, _ in mixer.named_parameters()}
    assert names == {"value.weight", "output.weight"}
    assert "scores.fixed_random.table" in mixer.state_dict()
    table = mixer.scores["fixed_random"].table
    assert torch.equal(mixer_of("fixed_random").scores["fixed_random"].table, table)
    others = ({"layer": 1}, {"stack": "decoder"})
    for heads in (dataclasses.replace(HEADS, **other) for other in others):
        drawn = mixer_of("fixed_random", heads=heads).scores["fixed_random"].table
        assert not torch.equal(drawn, table)
    assert abs(table.std() - 1) < 0.2


def test_equal_scores_give_the_mean_of_the_values():
    mixer, x = mixer_of("random"), tokens()
    with torch.no_grad():
        mixer.scores["random"].table.fill_(0.7)
    out, _ = mixer(x, x, view_of())
    mean = mixer.output(mixer.value(x.mean(dim=1, keepdim=True)))
    assert (out - mean).abs().max() < 1e-15


@pytest.mark.parametrize("kind", ["all", "causal", "reverse", "except_self"])
def test_one_softmax_for_the_whole_batch_is_that_of_each_row(kind):
    mixer, x = mixer_of("random").train(), tokens().requires_grad_()
    real = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    bias = torch.randn(1, 2, 7, 7, dtype=torch.float64)
    view = placed(View(Visibility(kind, real, real), 7, 7, CPU, bias))
    assert view.one_for_all
    results = []
    for one_for_all in (True, False):
        out, _ = mixer(x, x, dataclasses.replace(view, one_for_all=one_for_all))
        wanted = [x, mixer.scores["random"].table]
        results.append([out, *torch.autograd.grad(out.sin().sum(), wanted)])
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() < 1e-14
    weights = softmax_seen(scores_of(mixer, x).expand(2, -1, -1, -1), view)
    assert (weights.sum(dim=-1)[0] - 1).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        # T5-base, 512 tokens, a layer, in place of queries and keys (1.18 M)
        (("random",), 12 * 512 * 512),
        (("fixed_random",), 0),
        (("factorised_random",), 12 * 2 * 512 * 8),
        (("dense",), 12 * (64 * 64 + 64 + 64 * 512 + 512)),
        (("factorised_dense",), 12 * (64 * 64 + 64 + 64 * 48 + 48)),
        (("dense_shared",), 768 * 768 + 64 * 512),
        (("random", "dot_product"), 2 * 768 * 768 + 12 * 512 * 512 + 2),
    ],
)
def test_sizes_are_those_of_the_table(parts, count):
    heads = Heads(768, 12, 64, 1.0, projection_bias=False, dropout=0.0, max_length=512)
    with torch.device("meta"):
        mixer = SynthesizerMixer(SynthesizerConfig(parts=parts), heads)
    assert sum(p.numel() for p in mixer.parameters()) == count + 2 * 768 * 768


def test_documents_longer_than_the_tables_and_odd_settings_are_refused():
    mixer, x = mixer_of("random"), tokens(13)
    with pytest.raises(DataError, match="13 tokens, but its tables hold max_length 12"):
        mixer(x, x, view_of(13))
    two = torch.tensor([[1] * 7 + [2] * 6] * 2)
    packed = placed(View(Visibility("all", two, two), 13, 13, CPU))
    assert mixer(x, x, packed)[0].isfinite().all()
    with pytest.raises(ConfigError, match="each part can be given once"):
        build_from(SynthesizerConfig, {"parts": ["random", "random"]})
    with pytest.raises(ConfigError, match="gate is between dot_product and one other"):
        build_from(SynthesizerConfig, {"parts": ["random"], "mixture": "gate"})
    shape = {"num_layers": 1, "hidden_size": 8, "num_heads": 3, "head_size": 4, "ffn_size": 8}
    dense = {"type": "synthesizer", "parts": ["dense"]}
    with pytest.raises(ConfigError, match="which does not divide; use dense_shared"):
        build_from(EncoderConfig, {**shape, "max_length": 8, "mixer": dense})


def test_values_serve_as_keys_where_asked():
    mixer, x = mixer_of("random", "dot_product", key_projection="value"), tokens()
    assert not hasattr(mixer, "key")
    own = mixer_of("random", "dot_product")
    own.load_state_dict(mixer.state_dict(), strict=False)
    with torch.no_grad():
        own.key.weight.copy_(own.value.weight)
    assert (mixer(x, x, view_of())[0] - own(x, x, view_of())[0]).abs().max() < 1e-15
