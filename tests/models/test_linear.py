"""Linear attention's kernels against their written definitions (Su 7546 and 8338, Katharopoulos)."""

import typing

import pytest
import torch

from pipeline.data.example import Visibility
from pipeline.models.attention import View
from pipeline.models.features import bounded_exp, elu1, with_direction
from pipeline.models.mixers.linear import Kernel, LinearConfig, LinearMixer
from pipeline.models.mixers.mixer import Heads

KERNELS = typing.get_args(Kernel)
CPU = torch.device("cpu")
HEADS = Heads(
    hidden_size=6, num_heads=1, head_size=6, scale=6**-0.5, projection_bias=False, dropout=0.0
)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def mixer_of(kernel):
    """A mixer of one head that hands queries, keys and values through as they are."""
    mixer = LinearMixer(LinearConfig(kernel=kernel), HEADS).double()
    with torch.no_grad():
        for part in (mixer.query, mixer.key, mixer.value, mixer.output):
            part.weight.copy_(torch.eye(6))
    return mixer


def tokens():
    return torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def weight(kernel, q, k):
    """What one key weighs for one query, before division by the sum."""
    if kernel == "elu1":
        return float((torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1))
    if kernel == "cosine":
        return 1 + float(q @ k / q.norm() / k.norm())
    if kernel == "exp":
        return float(q.exp() @ k.exp())
    return float(q.softmax(0) @ k.exp())


def written_out(kernel, x, visible):
    out = torch.zeros_like(x)
    for i in range(9):
        seen = [j for j in range(9) if visible(i, j)]
        if kernel == "double_softmax":
            over_keys = x[0, seen].softmax(dim=0)
            out[0, i] = x[0, i].softmax(0) @ over_keys.mT @ x[0, seen]
        else:
            weights = torch.tensor(
                [weight(kernel, x[0, i], x[0, j]) for j in seen], dtype=torch.float64
            )
            out[0, i] = weights @ x[0, seen] / weights.sum()
    return out


@every_kernel
@pytest.mark.parametrize(
    ("kind", "visible"),
    [
        ("all", lambda i, j: True),
        ("causal", lambda i, j: j <= i),
        ("except_self", lambda i, j: j != i),
        ("prefix", lambda i, j: j < 4 or j <= i),
    ],
)
def test_every_kernel_is_its_definition(kernel, kind, visible):
    x = tokens()
    view = View(Visibility(kind, prefix=torch.tensor([4])), 9, 9, CPU)
    out, _ = mixer_of(kernel)(x, x, view)
    assert (out - written_out(kernel, x, visible)).abs().max() < 1e-13


@every_kernel
def test_weights_sum_to_one_and_order_of_keys_is_nothing(kernel):
    mixer, x = mixer_of(kernel), tokens()
    view = View(Visibility("all"), 9, 9, CPU)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert (mixer(x, x[:, order], view)[0] - mixer(x, x, view)[0]).abs().max() < 1e-14
    with torch.no_grad():
        mixer.value.weight.zero_()
    mixer.value.bias = torch.nn.Parameter(torch.arange(6.0).double())
    for kind in ("all", "causal", "reverse"):
        out, _ = mixer(x, x, View(Visibility(kind), 9, 9, CPU))
        assert (out - torch.arange(6.0)).abs().max() < 1e-14


def test_two_meanings_of_causal_double_softmax():
    x = tokens()
    causal, everything = (View(Visibility(kind), 9, 9, CPU) for kind in ("causal", "all"))
    own, shared, exponential = (
        mixer_of(kernel)(x, x, causal)[0]
        for kernel in ("double_softmax", "double_softmax_shared", "exp")
    )
    last = mixer_of("double_softmax")(x, x, everything)[0][:, -1]
    assert (own[:, -1] - last).abs().max() < 1e-14
    assert (shared[:, -1] - last).abs().max() > 1e-2
    assert (shared - exponential).abs().max() < 1e-14


def test_features_are_positive_and_finite_at_both_ends():
    far = torch.tensor([-100.0, -80.0, -20.0, 0.0, 80.0, 1e4])
    assert (elu1(far[1:]) > 0).all()
    assert torch.equal(elu1(far[3:]), far[3:] + 1)
    assert bounded_exp(far).isfinite().all()
    assert torch.equal(bounded_exp(far)[:4], far[:4].exp())
    assert (with_direction(torch.zeros(2, 3)) == torch.tensor([1.0, 0, 0, 0])).all()
    near = with_direction(torch.randn(50, 4, dtype=torch.float64))
    low, high = (near @ near.mT).aminmax()
    assert low > -1e-15
    assert high < 2 + 1e-15


@every_kernel
def test_keys_far_out_give_finite_means_and_gradients(kernel):
    mixer = mixer_of(kernel).float()
    for size in (1e-3, 30.0, 1e4):
        x = (tokens().float() * size).requires_grad_()
        out, _ = mixer(x, x, View(Visibility("causal"), 9, 9, CPU))
        (gradient,) = torch.autograd.grad(out.sum() / size, x)
        assert out.isfinite().all()
        assert gradient.isfinite().all()


def test_t5_queries_without_a_divisor_come_out_as_large_as_others():
    # T5 starts queries smaller by d^-1/2 where BERT divides by d^1/2: the function is the same
    x, view = tokens(), View(Visibility("causal"), 9, 9, CPU)
    bert = mixer_of("elu1")
    t5 = LinearMixer(LinearConfig(), Heads(**{**HEADS.__dict__, "scale": 1.0})).double()
    t5.load_state_dict(bert.state_dict())
    with torch.no_grad():
        t5.query.weight.mul_(6**-0.5)
    assert (t5(x, x, view)[0] - bert(x, x, view)[0]).abs().max() < 1e-14
