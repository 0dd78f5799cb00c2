"""Scores and their intervals against their definitions."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipeline.config import DataError
from pipeline.evaluate.metrics import (
    NORMAL_QUANTILE,
    accuracy,
    bootstrap_interval,
    macro_f1,
    measure,
    wilson_interval,
)


def test_wilson_bounds_solve_their_equation():
    for successes, trials in ((0, 7), (3, 7), (7, 7), (812, 1000)):
        share = successes / trials
        for bound in wilson_interval(successes, trials):
            variance = bound * (1 - bound) / trials
            assert (share - bound) ** 2 == pytest.approx(NORMAL_QUANTILE**2 * variance, abs=1e-15)
    assert wilson_interval(0, 7)[0] == pytest.approx(0.0, abs=1e-15)
    assert wilson_interval(7, 7)[1] == pytest.approx(1.0, abs=1e-15)


def test_macro_f1_is_the_mean_of_the_labels_own_f1():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 0])
    by_hand = [Fraction(2 * 2, 2 * 2 + 2 + 1), Fraction(2, 2 + 1 + 1), Fraction(0)]
    assert macro_f1(labels, predicted) == pytest.approx(float(sum(by_hand) / 3), abs=1e-15)


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(4)
    for size in (1, 2, 30):
        labels, predicted = rng.integers(5, size=(2, size))
        assert accuracy(labels, predicted) == accuracy_score(labels, predicted)
        expected = f1_score(labels, predicted, average="macro", zero_division=0)
        assert macro_f1(labels, predicted) == pytest.approx(expected, abs=1e-15)


def test_the_interval_holds_the_value_and_the_draws_are_keyed():
    rng = np.random.default_rng(3)
    labels = rng.integers(4, size=200)
    predicted = np.where(rng.random(200) < 0.7, labels, rng.integers(4, size=200))
    for name in ("accuracy", "macro_f1"):
        measured = measure(name, labels, predicted)
        assert measured.low < measured.value < measured.high
        assert measured == measure(name, labels, predicted)
    share = float((labels == predicted).mean())
    rows = np.stack((labels, predicted), axis=1)
    low, high = bootstrap_interval(lambda rows: float((rows[:, 0] == rows[:, 1]).mean()), rows)
    wilson = wilson_interval(int((labels == predicted).sum()), 200)
    assert (low, high) == pytest.approx(wilson, abs=0.02)
    assert measure("accuracy", labels, predicted).value == share


def test_an_unknown_metric_is_refused():
    with pytest.raises(DataError, match="did you mean 'accuracy'"):
        measure("acuracy", np.array([0]), np.array([0]))
