"""The next token: filters by their definitions, draws by their frequencies, repeats by hand."""

import math

import numpy as np
import pytest
import torch

from pipeline.config import ConfigError, build_from
from pipeline.models.choice import drawn, hidden, probabilities, repeating
from pipeline.models.decoding import Marks, Sampling

LOGITS = torch.tensor([[0.3, 2.0, -1.0, 1.5, 0.3, -2.5, 1.9]], dtype=torch.float64)
CHI_SQUARED = (0, 10.8, 13.8, 16.3, 18.5, 20.5, 22.5)  # exceeded once in 1000, by freedoms
WAYS = [
    {},
    {"temperature": 0.4},
    {"temperature": 3.0, "top_k": 3},
    {"top_p": 0.7},
    {"top_k": 4, "top_p": 0.9},
    {"top_k": 1},
    {"top_p": 1e-9},
]


def by_definition(temperature=1.0, top_k=None, top_p=1.0):
    """What the named tokens share, in plain numbers."""
    weights = {n: math.exp(float(x) / temperature) for n, x in enumerate(LOGITS[0])}
    order = sorted(weights, key=lambda n: (-weights[n], n))[:top_k]
    whole, kept = sum(weights[n] for n in order), []
    for n in order:
        if sum(weights[m] for m in kept) >= top_p * whole:
            break
        kept.append(n)
    return [weights[n] / sum(weights[m] for m in kept) if n in kept else 0.0 for n in weights]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_probabilities_are_those_of_the_definition(way):
    found = probabilities(LOGITS, Sampling(**way))[0]
    assert (found - torch.tensor(by_definition(**way), dtype=torch.float64)).abs().max() < 1e-15
    assert (found > 0).sum() == np.count_nonzero(by_definition(**way))


def test_ties_go_to_smaller_ids_and_a_share_is_reached_exactly():
    even = torch.zeros(1, 4)
    assert probabilities(even, Sampling(top_p=0.5)).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert probabilities(even, Sampling(top_k=1)).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("way", WAYS[:5], ids=str)
def test_tokens_come_as_often_as_their_probability_says(way):
    texts = 6000
    shares = probabilities(LOGITS, Sampling(**way)).expand(texts, -1)
    ids = drawn(shares, [(text, 0, 5) for text in range(texts)], seed=3)
    counts = torch.bincount(ids, minlength=LOGITS.shape[1]).numpy()
    expected = np.array(by_definition(**way)) * texts
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARED[len(counts) - 1]


def test_a_draw_depends_on_its_names_alone():
    shares = torch.rand(5, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = [(text, sample, 2) for text, sample in ((0, 0), (0, 1), (1, 0), (8, 3), (9, 3))]
    together = drawn(shares, names, seed=1).tolist()
    for row, name in enumerate(names):
        assert drawn(shares[row : row + 1], [name], seed=1).tolist() == together[row : row + 1]
    same = drawn(shares[:1].expand(200, -1), [(0, 0, step) for step in range(200)], seed=1)
    assert same.unique().numel() > 20
    assert drawn(shares, names, seed=2).tolist() != together


def test_tokens_without_a_share_are_never_drawn():
    """Also when a level rounds up to the whole sum: the last of the tokens with a share is taken."""
    shares = torch.tensor([[0.0, 0.5, 0.5, 0.0]], dtype=torch.float64).expand(2000, -1)
    ids = drawn(shares, [(text,) for text in range(2000)], seed=0)
    assert set(ids.tolist()) == {1, 2}
    tiny = torch.tensor([[5e-324, 0.0]], dtype=torch.float64).expand(50, -1)
    assert set(drawn(tiny, [(text,) for text in range(50)], seed=0).tolist()) == {0}


@pytest.mark.parametrize(
    ("tokens", "length", "barred"),
    [
        ([4, 2, 4], 1, {2, 4}),
        ([4, 2, 4], 2, {2}),
        ([4, 2, 3, 4, 2, 5, 4, 2], 3, {3, 5}),
        ([4, 2, 3, 4, 2], 4, set()),
        ([2, 2, 2], 2, {2}),
        ([2, 2], 3, set()),
        ([2, 2, 2], 3, {2}),
        ([], 1, set()),
        ([1], 2, set()),
    ],
)
def test_what_would_repeat_is_known(tokens, length, barred):
    rows = torch.tensor([tokens, [6] * len(tokens)], dtype=torch.long)
    found = repeating(rows, length, 7)
    assert set(found[0].nonzero().flatten().tolist()) == barred
    assert set(found[1].nonzero().flatten().tolist()) <= {6}


def test_the_end_may_always_come_and_some_tokens_never():
    scores, tokens = torch.zeros(1, 6), torch.tensor([[2, 1, 3]])
    found = hidden(scores, tokens, 1, Marks(end=1, never=(0, 4)))
    assert found.isfinite()[0].tolist() == [False, True, False, False, False, True]
    assert hidden(scores, tokens, None, Marks(end=1)).isfinite().all()


@pytest.mark.parametrize(
    "fields", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": 0}]
)
def test_settings_without_a_meaning_are_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        build_from(Sampling, fields)
