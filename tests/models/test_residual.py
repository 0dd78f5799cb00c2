"""RealFormer's identities (He et al. 2020): chains, concatenation, means, and the plain transformer."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pipeline.data.example import Visibility
from pipeline.models.attention import View, attend_reference, softmax_seen
from pipeline.models.mixers.mixer import Heads
from pipeline.models.mixers.residual import FactorChain, ResidualConfig, ResidualMixer, ScoreChain
from pipeline.models.mixers.softmax import SoftmaxConfig, SoftmaxMixer

HEADS = Heads(
    hidden_size=12, num_heads=2, head_size=6, scale=6**-0.5, projection_bias=True, dropout=0.0
)
CPU = torch.device("cpu")
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
LAYERS = 4


def layers(**settings):
    torch.manual_seed(0)
    return [ResidualMixer(ResidualConfig(**settings), HEADS).double() for _ in range(LAYERS)]


def view_of(kind="causal", bias=None):
    return View(Visibility(kind, SEGMENTS, SEGMENTS), 6, 6, CPU, bias).dense()


def inputs():
    torch.manual_seed(1)
    return [torch.randn(2, 6, 12, dtype=torch.float64) for _ in range(LAYERS)]


def through(mixers, view, states):
    """Outputs and chains of `mixers`, each given states of its own."""
    carry, outs, chains = None, [], []
    for mixer, x in zip(mixers, states, strict=True):
        out, carry = mixer(x, x, view, carry)
        outs.append(out)
        chains.append(carry)
    return outs, chains


def by_head(states):
    return states.unflatten(-1, (2, 6)).transpose(1, 2)


def test_one_layer_has_the_parameters_and_the_function_of_softmax_attention():
    mixer, plain = layers()[0], SoftmaxMixer(SoftmaxConfig(), HEADS).double()
    plain.load_state_dict(mixer.state_dict())
    (x, *_), view = inputs(), view_of()
    out, _ = mixer(x, x, view)
    assert (out - plain(x, x, view)[0]).abs().max() < 1e-14
    values = by_head(mixer.value(x))
    queries, keys = by_head(mixer.query(x)), by_head(mixer.key(x))
    exact = attend_reference(queries, keys, values, view, 6**-0.5)
    assert (mixer.output(exact.transpose(1, 2).flatten(2)) - out).abs().max() < 1e-15


@pytest.mark.parametrize("total", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["all", "causal", "except_self"])
def test_chains_are_attention_over_concatenated_queries_and_keys(total, kind):
    bias = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    view, states = view_of(kind, bias), inputs()
    outs, chains = through(layers(total=total), view, states)
    others, factors = through(layers(total=total, form="concatenated"), view, states)
    assert isinstance(factors[-1], FactorChain)
    for out, other, chain, factor in zip(outs, others, chains, factors, strict=True):
        assert (out - other).abs().max() < 1e-13
        products = factor.query @ factor.key.mT * 6**-0.5
        assert (chain.scores - products).abs().max() < 1e-13
    mixers = layers(total=total)
    mixers[-1].config = ResidualConfig(total=total, form="concatenated")
    assert (through(mixers, view, states)[0][-1] - outs[-1]).abs().max() < 1e-13


def test_what_is_passed_on_is_raw():
    states = inputs()
    bias = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    raw = through(layers(), View(Visibility(), 6, 6, CPU).dense(), states)[1]
    masked = through(layers(), view_of("causal", bias), states)[1]
    mean = through(layers(total="mean"), view_of("causal", bias), states)[1]
    for number, mixer in enumerate(layers()):
        x = states[number]
        own = by_head(mixer.query(x)) @ by_head(mixer.key(x)).mT * 6**-0.5
        before = raw[number - 1].scores if number else 0
        assert (raw[number].scores - before - own).abs().max() < 1e-14
        assert torch.equal(masked[number].scores, raw[number].scores)
        assert torch.equal(mean[number].scores, raw[number].scores)


def test_layers_without_scores_keep_the_weights_of_the_one_that_has_some():
    mixers, view, states = layers(), view_of(), inputs()
    for mixer in (mixers[0], *mixers[2:]):
        with torch.no_grad():
            mixer.query.weight.zero_()
            mixer.query.bias.zero_()
    _, chains = through(mixers, view, states)
    weights = [softmax_seen(chain.scores, view) for chain in chains]
    assert torch.equal(weights[2], weights[1])
    assert torch.equal(weights[3], weights[1])
    assert not torch.equal(weights[1], weights[0])


@pytest.mark.parametrize("total", ["sum", "mean"])
def test_equal_scores_add_up_or_stay(total):
    x, view = inputs()[0], view_of("all")
    mixers = layers(total=total)
    for mixer in mixers:
        mixer.load_state_dict(mixers[0].state_dict())
    outs, chains = through(mixers, view, [x] * LAYERS)
    factor = 3 if total == "sum" else 1
    weights = softmax_seen(chains[0].scores * factor, view)
    value = by_head(mixers[0].value(x))
    expected = mixers[0].output((weights @ value).transpose(1, 2).flatten(2))
    assert (outs[2] - expected).abs().max() < 1e-14


def test_the_gradient_of_the_first_scores_is_the_sum_of_all_softmax_inputs():
    view, states = view_of(), inputs()
    torch.manual_seed(2)
    start = torch.zeros(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    loose = [torch.zeros_like(start, requires_grad=True) for _ in range(LAYERS)]
    mixers = layers()
    chain, total, apart = ScoreChain(start, 0), 0, 0
    for mixer, x, extra in zip(mixers, states, loose, strict=True):
        out, following = mixer(x, x, view, chain)
        total = total + out.sin().sum()
        alone, _ = mixer(x, x, view, ScoreChain(chain.scores.detach() + extra, 0))
        apart = apart + alone.sin().sum()
        chain = following
    (together,) = torch.autograd.grad(total, start)
    each = torch.autograd.grad(apart, loose)
    assert (together - sum(each)).abs().max() < 1e-14


@pytest.mark.parametrize("form", ["scores", "concatenated"])
def test_recomputed_gradients_are_the_same_bits(form):
    view, states = view_of(), inputs()

    def gradients(run):
        mixers = layers(form=form)
        carry, x = None, states[0].clone().requires_grad_()
        hidden = x
        for mixer in mixers:
            change, carry = run(mixer, hidden, carry)
            hidden = hidden + change
        weights = [parameter for mixer in mixers for parameter in mixer.parameters()]
        return torch.autograd.grad(hidden.sin().sum(), [x, *weights])

    plain = gradients(lambda mixer, x, carry: mixer(x, x, view, carry))
    again = gradients(
        lambda mixer, x, carry: checkpoint(mixer, x, x, view, carry, use_reentrant=False)
    )
    assert all(map(torch.equal, plain, again))


def test_the_chain_is_float32_in_narrow_networks():
    mixers = [mixer.to(torch.bfloat16) for mixer in layers()]
    outs, chains = through(mixers, view_of(), [x.bfloat16() for x in inputs()])
    assert chains[-1].scores.dtype == torch.float32
    assert outs[-1].dtype == torch.bfloat16
