"""Random features: their draws, what they estimate and how well (Choromanski et al. 2021)."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.config import ConfigError, build_from
from pipeline.data.example import Visibility
from pipeline.models.attention import View
from pipeline.models.mixers.mixer import Heads
from pipeline.models.mixers.performer import PerformerConfig, PerformerMixer
from pipeline.models.random_features import (
    drawn_rows,
    hyperbolic_exponents,
    positive_exponents,
    relu_features,
)
from pipeline.runtime import rng_of

CPU = torch.device("cpu")
SIZE = 16
HEADS = Heads(
    hidden_size=SIZE, num_heads=1, head_size=SIZE, scale=0.25, projection_bias=False, dropout=0.0
)
EXPONENTS = {"positive": positive_exponents, "hyperbolic": hyperbolic_exponents}


def rows_of(count, *, rows="orthogonal", norms="chi", size=SIZE, draw=0):
    return torch.from_numpy(drawn_rows(rng_of(1, "rows", draw), count, size, rows, norms))


@pytest.mark.parametrize("norms", ["chi", "sqrt_d"])
def test_rows_of_a_block_are_orthogonal_and_as_long_as_asked(norms):
    rows = rows_of(40, norms=norms)
    for start in (0, 16, 32):
        block = rows[start : start + 16]
        products = block @ block.mT
        assert (products - products.diagonal().diag()).abs().max() < 1e-12
    assert (rows[:16] @ rows[16:32].mT).abs().max() > 0.1
    squares = rows_of(8000, norms=norms).square().sum(dim=1)
    if norms == "sqrt_d":
        assert (squares - SIZE).abs().max() < 1e-12
    else:  # chi-square of 16 degrees: mean 16, variance 32
        assert abs(squares.mean() - SIZE) < 4 * math.sqrt(32 / 8000)
        assert abs(squares.var() - 32) < 4


def test_no_direction_is_favoured():
    # signs as QR leaves them would give every first coordinate of a block a mean far from zero
    rows = torch.stack([rows_of(SIZE, draw=draw) for draw in range(2000)])
    assert rows.mean(dim=0).abs().max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("features", EXPONENTS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_kernel_is_unbiased_for_vectors_of_equal_signs(features, sign):
    x = torch.full((SIZE,), sign * 0.5 / math.sqrt(SIZE), dtype=torch.float64)
    estimates = []
    for draw in range(1200):
        f = EXPONENTS[features](x[None], rows_of(SIZE, draw=draw)).exp()
        estimates.append(float(f @ f.mT))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - math.exp(0.25)) < 4 * error
    assert error < 0.015  # signs as QR leaves them are 0.18 off


def squared_error(features, rows, x, y):
    kernel = torch.exp(x @ y)
    both = EXPONENTS[features](torch.stack([x, y])[None], rows).exp()
    return (both[:, 0] * both[:, 1]).sum(dim=-1).sub(kernel).square()


def test_errors_of_independent_rows_are_those_of_the_closed_forms():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, SIZE, generator=generator, dtype=torch.float64)
    x, y = 0.5 * x / x.norm(), 0.4 * y / y.norm()
    m, draws = 8, 20_000
    many = rows_of(m * draws, rows="independent").view(draws, m, SIZE)
    z = float((x + y).square().sum())
    kernel = float(torch.exp(x @ y))
    positive = math.exp(z) * kernel**2 * (1 - math.exp(-z)) / m
    expected = {"positive": positive, "hyperbolic": positive * (1 - math.exp(-z)) / 2}
    for features, error in expected.items():
        reached = many @ x, many @ y
        sides = ([1], [1, -1])[features == "hyperbolic"]
        shift = -float(x.square().sum() + y.square().sum()) / 2
        products = sum((s * (reached[0] + reached[1]) + shift).exp() for s in sides) / len(sides)
        measured = float((products.mean(dim=1) - kernel).square().mean())
        assert abs(measured / error - 1) < 0.06, features
        one = squared_error(features, many[0], x, y)
        assert abs(float(one) - float((products[0].mean() - kernel).square())) < 1e-14


def test_four_times_the_features_quarter_the_error_and_orthogonal_rows_lessen_it():
    generator = torch.Generator().manual_seed(2)
    x, y = 0.2 * torch.randn(2, SIZE, generator=generator, dtype=torch.float64)
    errors = {}
    for rows, count in itertools.product(("orthogonal", "independent"), (16, 64)):
        drawn = [rows_of(count, rows=rows, draw=n) for n in range(500)]
        squares = [squared_error("positive", one, x, y) for one in drawn]
        errors[rows, count] = float(torch.stack(squares).mean())
    for rows in ("orthogonal", "independent"):
        assert 3 < errors[rows, 16] / errors[rows, 64] < 5.3
    for count in (16, 64):
        assert errors["orthogonal", count] < errors["independent", count]


def mixer_of(**settings):
    torch.manual_seed(0)
    return PerformerMixer(PerformerConfig(**settings), HEADS).double()


@pytest.mark.parametrize("features", ["positive", "hyperbolic"])
def test_attention_comes_near_softmax_with_many_features(features):
    mixer = mixer_of(features=features, num_features=16_384)
    x = 0.5 * torch.randn(1, 20, SIZE, dtype=torch.float64)
    view = View(Visibility("causal"), 20, 20, CPU)
    query, key, value = (part(x)[:, None] for part in (mixer.query, mixer.key, mixer.value))
    scores = (query @ key.mT * 0.25).masked_fill(~view.mask(), -math.inf)
    exact = mixer.output((scores.softmax(dim=-1) @ value)[:, 0])
    assert (mixer(x, x, view)[0] - exact).abs().max() < 0.02 * exact.abs().max()


def test_equal_queries_and_keys_give_plain_means():
    mixer = mixer_of(num_features=32)
    x = torch.randn(1, 1, SIZE, dtype=torch.float64).expand(1, 7, SIZE)
    memory = torch.randn(1, 7, SIZE, dtype=torch.float64)
    with torch.no_grad():
        mixer.key.weight.zero_()
    out, _ = mixer(x, memory, View(Visibility("all"), 7, 7, CPU))
    mean = mixer.output(mixer.value(memory.mean(dim=1, keepdim=True)))
    assert (out - mean).abs().max() < 1e-14


def test_relu_features_are_what_they_say_and_never_zero():
    x, rows = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 1.0], [0.0, 1.0]])
    assert relu_features(x, rows).tolist() == (torch.tensor([[1.0, 0.0]]) + 1e-3).tolist()


@pytest.mark.parametrize("features", ["positive", "hyperbolic", "relu"])
def test_far_keys_leave_results_and_gradients_finite(features):
    mixer = mixer_of(features=features, num_features=32).float()
    for size in (1e-3, 10.0, 1e3):
        x = (size * torch.randn(1, 9, SIZE)).requires_grad_()
        out, _ = mixer(x, x, View(Visibility("causal"), 9, 9, CPU))
        (gradient,) = torch.autograd.grad((out / size).sum(), x)
        assert out.isfinite().all()
        assert gradient.isfinite().all()


def test_draws_are_those_of_the_step_on_every_rank_and_after_a_restart():
    mixer, other = (
        mixer_of(redraw_every=10, num_features=20),
        mixer_of(redraw_every=10, num_features=20),
    )
    first = mixer.rows.clone()
    seen = []
    for step in range(35):
        mixer.at_step(step)
        seen.append(mixer.rows.clone())
    assert torch.equal(seen[0], first)
    changes = [step for step in range(1, 35) if not torch.equal(seen[step], seen[step - 1])]
    assert changes == [10, 20, 30]
    assert int(mixer.draw) == 3
    other.at_step(27)  # a rank that begins here
    assert torch.equal(other.rows, seen[27])
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other.rows, seen[34])
    for step in (12, 5):
        other.at_step(step)
        assert torch.equal(other.rows, seen[step])


def test_draws_differ_by_layer_stack_and_seed_and_rest_when_frozen():
    drawn = [
        PerformerMixer(PerformerConfig(seed=seed), Heads(**{**HEADS.__dict__, **place})).rows
        for seed, place in ((0, {}), (1, {}), (0, {"layer": 1}), (0, {"stack": "decoder"}))
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    for mixer in (
        mixer_of(redraw_every=None),
        mixer_of(redraw_every=1).requires_grad_(requires_grad=False),
    ):
        before = mixer.rows.clone()
        mixer.at_step(5)
        assert torch.equal(mixer.rows, before)


def test_rows_stay_float32_in_a_narrow_network():
    mixer = PerformerMixer(PerformerConfig(), HEADS)
    exact = mixer.rows.clone()
    mixer.to(torch.bfloat16)
    assert mixer.query.weight.dtype == torch.bfloat16
    assert torch.equal(mixer.rows, exact)


def test_an_odd_number_of_hyperbolic_features_is_refused():
    with pytest.raises(ConfigError, match="come in pairs; use 8"):
        build_from(PerformerConfig, {"features": "hyperbolic", "num_features": 7})
