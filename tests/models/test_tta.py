"""T-TA: no token knows of itself, one pass is as good as one pass per token, for every mixer."""

import pytest
import torch

from pipeline.config import build_from
from pipeline.models.mixers import MIXERS
from pipeline.models.transformer import Memory
from pipeline.models.tta import LanguageAutoencoder, TtaConfig
from pipeline.tokenizer import MASK

VOCAB = 40
NAMES = [config().type for config in MIXERS]
SHAPE = {
    "num_layers": 3,
    "hidden_size": 16,
    "num_heads": 2,
    "ffn_size": 24,
    "max_length": 12,
}
SEGMENTS = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0]])
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0]])


def made(dtype=torch.float64, **fields):
    torch.manual_seed(1)
    network = LanguageAutoencoder(build_from(TtaConfig, {**SHAPE, **fields}), VOCAB)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.to(dtype).eval()


def ids_of(*shape):
    return torch.randint(7, VOCAB, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("query", ["positions", "mask"])
@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_knows_every_token_of_its_text_but_its_own(name, query):
    network, ids = made(mixer=name, query=query), ids_of(1, 10)
    before = network(ids, SEGMENTS, POSITIONS)
    for j in range(8):
        other = ids.clone()
        other[0, j] = MASK  # what a masked language model would need a pass of its own for
        moved = (network(other, SEGMENTS, POSITIONS) - before).abs().amax(-1)[0]
        same = SEGMENTS[0] == SEGMENTS[0, j]
        assert moved[j] <= 1e-12
        assert moved[~same].max() <= 1e-12
        assert moved[same & (torch.arange(10) != j)].min() > 1e-9


def test_softmax_hides_each_token_from_itself_to_the_last_bit():
    network, ids = made(torch.float32), ids_of(1, 10)
    before = network(ids, SEGMENTS, POSITIONS)
    for j in range(8):
        other = ids.clone()
        other[0, j] = MASK
        assert torch.equal(network(other, SEGMENTS, POSITIONS)[0, j], before[0, j])


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_a_token_from_its_own_prediction(name):
    network, ids = made(mixer=name), ids_of(1, 10)
    embedded = {}

    def keep(_module, _inputs, output):
        embedded["words"] = output.detach().requires_grad_()
        return embedded["words"]

    network.embeddings.word.register_forward_hook(keep)
    states = network.states(ids, SEGMENTS, POSITIONS)
    for i in range(8):
        (grad,) = torch.autograd.grad(states[0, i].sum(), embedded["words"], retain_graph=True)
        reached = grad[0].abs().amax(-1)
        assert reached[i] <= 1e-13
        assert reached[(SEGMENTS[0] == SEGMENTS[0, i]) & (torch.arange(10) != i)].min() > 1e-12


def test_keys_that_know_of_their_context_would_leak():
    """The control: fed with each other's states, positions do tell a token about itself."""
    network, ids = made(), ids_of(1, 10)

    def leaking(given):
        hidden = network.states(given, SEGMENTS, POSITIONS)
        view = {}

        def see(_module, inputs):
            view.update(inputs[1])

        handle = network.layers[0].register_forward_pre_hook(see)
        network.states(given, SEGMENTS, POSITIONS)
        handle.remove()
        seen, _ = network.layers[0](hidden, view, None, Memory(hidden, None))
        return seen

    before = leaking(ids)
    other = ids.clone()
    other[0, 3] = MASK
    assert (leaking(other) - before)[0, 3].abs().max() > 1e-6


def test_lone_tokens_and_padding_are_finite_and_know_nothing():
    for name in NAMES:
        network, ids = made(mixer=name), ids_of(3, 1)
        one = torch.ones(3, 1, dtype=torch.long)
        logits = network(ids, one, one * 0)
        assert logits.isfinite().all()
        assert (logits - logits[:1]).abs().max() <= 1e-12
        assert network(ids, one * 0, one * 0).isfinite().all()


def test_padding_and_neighbours_in_the_batch_change_nothing():
    network, ids = made(), ids_of(2, 10)
    segments = torch.tensor([[1] * 10, [1] * 6 + [0] * 4])
    places = torch.arange(10).expand(2, 10)
    together = network(ids, segments, places)
    alone = network(ids[1:, :6], segments[1:, :6], places[1:, :6])
    assert (together[1:, :6] - alone).abs().max() < 1e-12


def test_the_start_of_all_queries_learns_where_there_is_one():
    network, ids = made(query="mask"), ids_of(1, 10)
    states = network.states(ids, SEGMENTS, POSITIONS)
    (gradient,) = torch.autograd.grad(states.square().sum(), network.start.weight)
    assert gradient.abs().max() > 0
    assert made(query="positions").start is None


def test_a_first_guess_is_uniform():
    torch.manual_seed(0)
    network = LanguageAutoencoder(build_from(TtaConfig, SHAPE), VOCAB).eval()
    log_p = network(ids_of(1, 10), SEGMENTS, POSITIONS).log_softmax(-1)
    assert abs(-log_p.mean().item() - torch.tensor(64.0).log().item()) < 0.05
