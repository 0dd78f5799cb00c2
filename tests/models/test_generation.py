"""Generated texts: cached or not, alone or in a batch, they are the same."""

import itertools

import pytest
import torch

from pipeline.config import build_from
from pipeline.data.example import Visibility
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.decoding import Beam, Greedy, Marks, Sampling
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.generation import decoded, generate
from pipeline.models.heads import MaskedLanguageModel

VOCAB = 12
SHAPE = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "head_size": 8,
    "ffn_size": 24,
    "max_length": 24,
}
CORES = {
    "decoder": (DecoderConfig, LanguageModel, {}),
    "prefix": (DecoderConfig, LanguageModel, {"visibility": "prefix", "positions": "relative"}),
    "encoder_decoder": (EncoderDecoderConfig, EncoderDecoder, {}),
    "unilm": (EncoderConfig, MaskedLanguageModel, {"token_types": 6}),
}
MARKS = Marks(start=0, end=1, mask=5, never=(0, 5))
PROMPTS = [[7, 9, 8, 6, 11], [10, 3], [4, 4, 2, 3]]
WAYS = {
    "greedy": Greedy(max_new_tokens=12),
    "sampling": Sampling(max_new_tokens=12, num_samples=3, top_k=8, top_p=0.95, seed=4),
    "beam": Beam(max_new_tokens=12, beams=3, num_returned=2, no_repeated=2),
}


def made(core, **fields):
    torch.manual_seed(3)
    cls, build, own = CORES[core]
    network = build(build_from(cls, {**SHAPE, **own, **fields}), VOCAB)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network.double().eval()


class Anew:
    """Texts that are read from their first token again at every step, each by itself."""

    def __init__(self, network, prompts):
        self.network = network
        self.texts = [(prompt, []) for prompt in prompts]

    def begin(self):
        return torch.stack([self._logits(*text) for text in self.texts])

    def extend(self, tokens):
        self.texts = [
            (prompt, [*new, token])
            for (prompt, new), token in zip(self.texts, tokens.tolist(), strict=True)
        ]
        return self.begin()

    def select(self, rows):
        self.texts = [self.texts[row] for row in rows.tolist()]

    def _logits(self, prompt, new):
        text = torch.tensor([[*prompt, *new]])
        places = torch.arange(text.shape[1])[None]
        match self.network:
            case EncoderDecoder():
                ids, own = torch.tensor([prompt]), torch.tensor([[MARKS.start, *new]])
                logits = self.network(ids, torch.ones_like(ids), own, torch.ones_like(own))
            case LanguageModel():
                prefix = torch.tensor([len(prompt)])
                given = prefix if self.network.config.visibility == "prefix" else None
                logits = self.network(text, torch.ones_like(text), places, given)
        return logits[0, -1, :VOCAB]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("core", ["decoder", "prefix", "encoder_decoder"])
def test_texts_are_those_of_a_network_that_remembers_nothing(core, way):
    network = made(core)
    found = generate(network, PROMPTS, WAYS[way], MARKS)
    with torch.no_grad():
        expected = decoded(Anew(network, PROMPTS), WAYS[way], MARKS)
    for texts, others in zip(found, expected, strict=True):
        assert [(t.tokens, t.ended) for t in texts] == [(t.tokens, t.ended) for t in others]
        assert [t.score for t in texts] == pytest.approx([t.score for t in others], abs=1e-11)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("core", CORES)
def test_a_text_does_not_depend_on_its_batch(core, way):
    network = made(core)
    together = generate(network, PROMPTS, WAYS[way], MARKS)
    for number, texts in enumerate(together):
        (alone,) = generate(
            network, PROMPTS[number : number + 1], WAYS[way], MARKS, numbers=[number]
        )
        assert [text.tokens for text in alone] == [text.tokens for text in texts]
        assert [t.score for t in alone] == pytest.approx([t.score for t in texts], abs=1e-11)
    texts = [text for texts in together for text in texts]
    assert all(len(text.tokens) == 12 or text.ended for text in texts)
    assert all(not {0, 1, 5} & set(text.tokens) for text in texts)


def test_scores_are_log_probabilities_and_a_text_ends_at_its_mark():
    network = made("decoder")
    texts = generate(network, PROMPTS, Sampling(num_samples=40, max_new_tokens=6, seed=2), MARKS)
    assert {text.ended for text in itertools.chain(*texts)} == {True, False}
    for prompt, own in zip(PROMPTS, texts, strict=True):
        for text in own:
            ids = [*prompt, *text.tokens, *([1] if text.ended else [])]
            row, places = torch.tensor([ids]), torch.arange(len(ids))[None]
            shares = (
                network(row, torch.ones_like(row), places)[0, :, :VOCAB].log_softmax(-1).detach()
            )
            steps = range(len(prompt), len(ids))
            score = sum(float(shares[n - 1, ids[n]]) for n in steps)
            assert text.score == pytest.approx(score, abs=1e-11)


def test_samples_of_a_prompt_differ_and_are_the_same_again():
    network = made("encoder_decoder")
    how = Sampling(num_samples=8, max_new_tokens=10, seed=1)
    first, second = (generate(network, PROMPTS, how, MARKS) for _ in range(2))
    assert first == second
    assert all(len({text.tokens for text in texts}) > 4 for texts in first)
    other = generate(network, PROMPTS, Sampling(num_samples=8, max_new_tokens=10, seed=2), MARKS)
    assert other != first


def test_the_best_of_all_short_texts_of_a_network_is_found():
    network = made("unilm")
    how = Beam(beams=VOCAB**2, max_new_tokens=2, length_penalty=0.6, num_returned=20)
    found = generate(network, PROMPTS[:1], how, MARKS)[0]
    after = {}
    allowed = [token for token in range(VOCAB) if token not in MARKS.never]
    with torch.no_grad():
        for first in allowed:
            after[first] = step_of(network, PROMPTS[0], [first])
        start = step_of(network, PROMPTS[0], [])
    expected = [(float(start[1]) / how.penalty(1), ())]
    for first, second in itertools.product(allowed, allowed):
        if first != 1:
            total = float(start[first] + after[first][second]) / how.penalty(2)
            expected.append((total, (first,) if second == 1 else (first, second)))
    expected.sort(reverse=True)
    assert [text.tokens for text in found] == [tokens for _, tokens in expected[:20]]


def step_of(network, prompt, new):
    """Log-probabilities at a mask after prompt and new tokens, UniLM's way, of one row."""
    ids = torch.tensor([[*prompt, *new, MARKS.mask]])
    ones, places = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
    types = torch.tensor([[4] * len(prompt) + [5] * (len(new) + 1)])
    seen = Visibility("prefix", ones, ones, torch.tensor([len(prompt)]))
    return network(ids, ones, places, places[:, -1:], seen, types)[0, 0, :VOCAB].log_softmax(-1)


def test_no_prompts_make_no_texts():
    assert generate(made("decoder"), [], Greedy(), MARKS) == []
