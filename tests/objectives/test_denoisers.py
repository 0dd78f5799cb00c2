"""Every way of rewriting a text in T5's study: what is kept, what is written out, and how long it gets."""

import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.objectives import noise
from pipeline.objectives.denoisers import (
    FIRST_RANDOM_ID,
    BertStyle,
    DenoiserConfig,
    Deshuffling,
    DroppedTokens,
    MassStyle,
    PrefixLanguageModel,
    ReplacedRuns,
    Spans,
)
from pipeline.runtime import rng_of

SENTINELS = np.arange(9999, 8999, -1)
EVERY = [cls() for cls in typing.get_args(typing.get_args(DenoiserConfig)[0])] + [
    Spans(roll=True),
    Spans(final_sentinel=True),
    Spans(roll=True, final_sentinel=True, mean_span_length=1.0),
]


RANDOM = (ReplacedRuns, DroppedTokens)  # whose lengths are random


def text(length):
    return np.arange(100, 100 + length)


def rebuilt(inputs, targets):
    """The text, from inputs and targets in which sentinels stand for what the other has."""
    parts = {}
    for side in (inputs, targets):
        current = parts.setdefault((id(side), None), [])
        for token in side.tolist():
            if token > 8999:
                current = parts.setdefault((id(side), token), [])
            else:
                current.append(token)
    out = parts[(id(targets), None)] + parts[(id(inputs), None)]
    for sentinel in SENTINELS.tolist():
        first, second = (parts.get((id(side), sentinel), []) for side in (targets, inputs))
        # A sentinel in the inputs stands before the clean tokens that follow the hidden ones.
        out += first + second
    return out


@pytest.mark.parametrize("denoiser", [d for d in EVERY if not isinstance(d, RANDOM)], ids=repr)
@given(length=st.integers(1, 400), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_lengths_and_sentinels_stay_within_what_is_announced(denoiser, length, seed):
    inputs, targets = denoiser.rewrite(text(length), SENTINELS, rng_of(seed, "d", length))
    most_inputs, most_targets = denoiser.lengths(length)
    assert len(inputs) + 1 <= most_inputs
    assert len(targets) + 1 <= most_targets
    if isinstance(denoiser, BertStyle):
        return  # its random tokens may be sentinels
    used = {token for side in (inputs, targets) for token in side.tolist() if token > 8999}
    assert len(used) <= denoiser.most_spans(length)
    assert used <= set(SENTINELS[: len(used)].tolist())


@pytest.mark.parametrize("denoiser", [d() for d in RANDOM], ids=repr)
def test_random_lengths_exceed_their_room_hardly_ever(denoiser):
    inputs_room, targets_room = denoiser.lengths(200)
    over = 0
    for seed in range(2000):
        inputs, targets = denoiser.rewrite(text(200), SENTINELS, rng_of(seed, "room"))
        over += len(inputs) + 1 > inputs_room or len(targets) + 1 > targets_room
        assert (inputs > 8999).sum() <= denoiser.most_spans(200)
    assert over <= 2


@pytest.mark.parametrize(
    "denoiser", [Spans(), Spans(roll=True), ReplacedRuns(), ReplacedRuns(density=0.5)], ids=repr
)
def test_inputs_and_targets_together_are_the_text(denoiser):
    for seed in range(60):
        inputs, targets = denoiser.rewrite(text(50), SENTINELS, rng_of(seed, "r"))
        assert sorted(rebuilt(inputs, targets)) == text(50).tolist()
        for side in (inputs, targets):
            marks = side[side > 8999]
            assert np.array_equal(marks, SENTINELS[: len(marks)]), "sentinels count down by one"


def test_random_spans_rebuild_the_text_in_its_order():
    for seed in range(40):
        inputs, targets = Spans().rewrite(text(60), SENTINELS, rng_of(seed, "r"))
        spans = np.split(targets, np.flatnonzero(targets > 8999))[1:]
        hidden = {int(span[0]): span[1:].tolist() for span in spans}
        whole = [t for token in inputs.tolist() for t in hidden.get(token, [token])]
        assert whole == text(60).tolist()


def test_the_final_sentinel_is_one_more_than_the_spans():
    plain = Spans().rewrite(text(60), SENTINELS, rng_of(4, "f"))
    marked = Spans(final_sentinel=True).rewrite(text(60), SENTINELS, rng_of(4, "f"))
    spans = noise.noise_counts(60, 0.15, 3.0)[1]
    assert np.array_equal(plain[0], marked[0])
    assert np.array_equal(marked[1], np.append(plain[1], SENTINELS[spans]))


def test_a_turned_mask_hides_every_position_equally_often():
    length, draws = 20, 6000
    hidden = np.zeros(length)
    for index in range(draws):
        inputs, _ = Spans(roll=True).rewrite(text(length), SENTINELS, rng_of(2, "roll", index))
        hidden[list(set(range(length)) - {int(t) - 100 for t in inputs if t < 9000})] += 1
    noise_tokens = noise.noise_counts(length, 0.15, 3.0)[0]
    assert hidden.sum() == draws * noise_tokens
    expected = draws * noise_tokens / length
    chi_square = ((hidden - expected) ** 2 / expected).sum()
    assert chi_square < 43.8, "99.9 % point for 19 degrees of freedom"


@pytest.mark.parametrize("style", [BertStyle(), MassStyle()], ids=repr)
def test_bert_and_mass_style_change_hidden_tokens_only_and_write_everything_out(style):
    changed = marked = 0
    for seed in range(200):
        inputs, targets = style.rewrite(text(100), SENTINELS, rng_of(seed, "b"))
        assert np.array_equal(targets, text(100))
        differs = inputs != targets
        changed += differs.sum()
        marked += (inputs == SENTINELS[0]).sum()
        assert (inputs[differs] >= FIRST_RANDOM_ID).all()
        assert (inputs[differs] <= SENTINELS[0]).all()
    assert changed == pytest.approx(20_000 * 0.15, rel=0.06)
    share = 1.0 if isinstance(style, MassStyle) else 0.9
    assert marked / changed == pytest.approx(share, abs=0.02)


def test_dropped_tokens_and_what_stays_are_the_text_in_order():
    inputs, targets = DroppedTokens().rewrite(text(200), SENTINELS, rng_of(0, "d"))
    assert len(inputs) + len(targets) == 200
    assert sorted([*inputs, *targets]) == text(200).tolist()
    assert (np.diff(inputs) > 0).all()
    assert (np.diff(targets) > 0).all()


def test_deshuffling_permutes_and_a_prefix_goes_on():
    inputs, targets = Deshuffling().rewrite(text(30), SENTINELS, rng_of(0, "s"))
    assert sorted(inputs) == targets.tolist() == text(30).tolist()
    assert inputs.tolist() != targets.tolist()
    splits = set()
    for seed in range(300):
        inputs, targets = PrefixLanguageModel().rewrite(text(6), SENTINELS, rng_of(seed, "p"))
        assert [*inputs, *targets] == text(6).tolist()
        splits.add(len(inputs))
    assert splits == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("density", "budget"), [(0.10, 103), (0.15, 192), (0.25, 256), (0.50, 512)]
)
def test_the_mean_target_fits_the_published_budget(density, budget):
    lengths = [
        len(ReplacedRuns(density=density).rewrite(text(511), SENTINELS, rng_of(i, "l"))[1]) + 1
        for i in range(100)
    ]
    assert np.mean(lengths) < budget
    assert max(lengths) <= ReplacedRuns(density=density).lengths(511)[1]


def test_i_i_d_masks_overflow_a_hundred_sentinels_as_measured_on_the_published_formulas():
    spans = [noise.runs(noise.iid(511, 0.25, rng_of(i, "overflow"))) for i in range(3000)]
    assert np.mean(np.array(spans) > 100) == pytest.approx(0.23, abs=0.04)
    assert ReplacedRuns(density=0.25).most_spans(511) > 100
