"""Beam search beside all texts there are, and beside a search written in plain lists."""

import itertools
import math

import pytest
import torch

from pipeline.config import ConfigError, build_from
from pipeline.models.decoding import Beam, Marks
from pipeline.models.search import beam_search

V, END, LONGEST = 4, 1, 4
MARKS = Marks(end=END)


class Chances:
    """Texts whose next token has logits drawn for the prompt and all tokens so far."""

    def __init__(self, prompts, spread=2.0):
        self.texts = [(prompt,) for prompt in prompts]
        self.spread = spread
        self.steps = 0

    def after(self, text):
        numbers = [sum((t + 2) * 31**n for n, t in enumerate(text))]
        generator = torch.Generator().manual_seed(numbers[0])
        return self.spread * torch.randn(V, generator=generator, dtype=torch.float64)

    def begin(self):
        return torch.stack([self.after(text) for text in self.texts])

    def extend(self, tokens):
        self.steps += 1
        self.texts = [
            (*text, token) for text, token in zip(self.texts, tokens.tolist(), strict=True)
        ]
        return self.begin()

    def select(self, rows):
        self.texts = [self.texts[row] for row in rows.tolist()]


def repeats(tokens, n):
    runs = list(itertools.pairwise(tokens)) if n == 2 else list(tokens)
    return len(set(runs)) < len(runs)


def all_texts(chances, prompt, how, never=()):
    """(score, tokens, ended) of every text there is, best first."""
    found = []
    for length in range(1, LONGEST + 1):
        for text in itertools.product(range(V), repeat=length):
            body = text[:-1] if text[-1] == END else text
            if END in body or (text[-1] != END and length < LONGEST):
                continue
            if set(body) & set(never) or (how.no_repeated and repeats(body, how.no_repeated)):
                continue
            total = 0.0
            for n, token in enumerate(text):
                total += float(chances.after((prompt, *text[:n])).log_softmax(0)[token])
            score = total / ((5 + length) / 6) ** how.length_penalty
            found.append((score, body, text[-1] == END))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("no_repeated", [None, 1, 2])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_with_beams_enough_the_best_of_all_texts_are_found(penalty, no_repeated):
    how = Beam(
        beams=V**LONGEST,
        num_returned=7,
        length_penalty=penalty,
        max_new_tokens=LONGEST,
        no_repeated=no_repeated,
    )
    prompts = [3, 8, 5]
    for texts, prompt in zip(beam_search(Chances(prompts), how, MARKS), prompts, strict=True):
        expected = all_texts(Chances([]), prompt, how)[:7]
        assert [(text.tokens, text.ended) for text in texts] == [e[1:] for e in expected]
        for text, (score, _, _) in zip(texts, expected, strict=True):
            assert text.score == pytest.approx(score, abs=1e-12)


def searched_in_lists(chances, prompt, how):
    """The search by its definition, without stopping early."""
    open_texts, ended = [(0.0, ())], []
    for length in range(1, how.max_new_tokens + 1):
        longer = []
        for total, text in open_texts:
            for token, share in enumerate(chances.after((prompt, *text)).log_softmax(0).tolist()):
                if token == END:
                    ended.append(((total + share) / how.penalty(length), text, True))
                else:
                    longer.append((total + share, (*text, token)))
        open_texts = sorted(longer, reverse=True)[: how.beams]
    ended += [(total / how.penalty(how.max_new_tokens), text, False) for total, text in open_texts]
    return sorted(ended, reverse=True)[: how.num_returned]


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_few_beams_find_what_the_definition_finds(beams, penalty):
    how = Beam(beams=beams, num_returned=beams, length_penalty=penalty, max_new_tokens=7)
    prompts = list(range(12))
    for texts, prompt in zip(beam_search(Chances(prompts), how, MARKS), prompts, strict=True):
        expected = searched_in_lists(Chances([]), prompt, how)
        assert [(text.tokens, text.ended) for text in texts] == [e[1:] for e in expected]
        assert [text.score for text in texts] == pytest.approx([e[0] for e in expected], abs=1e-12)


def test_prompts_do_not_depend_on_each_other_and_leave_when_done():
    how = Beam(beams=2, max_new_tokens=30, length_penalty=0.0)
    together, alone = Chances(range(6)), [Chances([prompt]) for prompt in range(6)]
    found = beam_search(together, how, MARKS)
    assert found == [beam_search(chances, how, MARKS)[0] for chances in alone]
    steps = [chances.steps for chances in alone]
    assert together.steps == max(steps)
    assert min(steps) < max(steps) < 29


@pytest.mark.parametrize(
    ("penalty", "tokens", "total"), [(0.0, (), 0.6), (2.0, (), 0.6), (2.1, (2, 3), 0.4)]
)
def test_the_penalty_of_length_decides_between_two_texts(penalty, tokens, total):
    """log(0.6) / (6/6)^a against log(0.4) / (8/6)^a: equal at a = 2.03."""

    class Two(Chances):
        def after(self, text):
            shares = {1: [0.0, 0.6, 0.4, 0.0], 2: [0.0, 0.0, 0.0, 1.0], 3: [0.0, 1.0, 0.0, 0.0]}
            return torch.tensor(shares[len(text)], dtype=torch.float64).log()

    how = Beam(beams=2, num_returned=2, max_new_tokens=3, length_penalty=penalty)
    texts = beam_search(Two([0]), how, MARKS)[0]
    assert {text.tokens for text in texts} == {(), (2, 3)}
    assert texts[0].tokens == tokens
    alone = Beam(
        beams=2, max_new_tokens=3, length_penalty=penalty
    )  # may stop as soon as one is sure
    assert beam_search(Two([0]), alone, MARKS)[0] == texts[:1]
    length = len(tokens) + 1
    assert texts[0].score == pytest.approx(
        math.log(total) / ((5 + length) / 6) ** penalty, abs=1e-15
    )


def test_tokens_that_must_not_come_do_not():
    how = Beam(beams=64, num_returned=64, max_new_tokens=LONGEST, length_penalty=0.0)
    texts = beam_search(Chances([2]), how, Marks(end=END, never=(0,)))[0]
    expected = all_texts(Chances([]), 2, how, never=(0,))
    assert [text.tokens for text in texts] == [body for _, body, _ in expected]
    assert len(texts) == 1 + 2 + 4 + 8 + 16  # fewer than asked for: these are all


def test_more_texts_than_beams_are_not_promised():
    with pytest.raises(ConfigError, match="give as many beams"):
        build_from(Beam, {"beams": 2, "num_returned": 3})
