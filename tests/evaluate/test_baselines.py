"""The baselines that a trained classifier is compared with."""

import numpy as np

from pipeline.evaluate.baselines import linear, majority
from pipeline.evaluate.task import LabelledTexts


def test_majority_is_the_commonest_training_label():
    train = LabelledTexts(("a", "b", "c", "d", "e"), np.array([2, 1, 2, 1, 0]))
    assert majority(train, ("x", "y")).tolist() == [1, 1]


def test_linear_learns_words_and_word_pairs():
    texts = tuple(f"{a} {b}" for a, b in (("not", "good"), ("good", "not")) for _ in range(10))
    train = LabelledTexts(texts, np.array([0] * 10 + [1] * 10))
    assert linear(train, ("not good", "good not")).tolist() == [0, 1]
    words = LabelledTexts(("a red fox", "a blue whale") * 5, np.array([0, 1] * 5))
    assert linear(words, ("the fox", "the whale")).tolist() == [0, 1]
