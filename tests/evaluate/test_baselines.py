"""The baselines that a trained classifier is compared with."""

import pytest

from pipeline.evaluate.baselines import linear, majority, mean, ridge


def rows(texts, labels):
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


def test_what_is_always_said_is_the_commonest_label_or_the_mean():
    train = rows("abcde", [2, 1, 2, 1, 0])
    assert majority(train, rows("xy", [0, 0])).tolist() == [1, 1]
    assert mean(train, rows("xy", [0, 0])).tolist() == [1.2, 1.2]


def test_linear_learns_words_and_word_pairs():
    texts = tuple(f"{a} {b}" for a, b in (("not", "good"), ("good", "not")) for _ in range(10))
    train = rows(texts, [0] * 10 + [1] * 10)
    assert linear(train, rows(("not good", "good not"), [0, 0])).tolist() == [0, 1]
    words = rows(("a red fox", "a blue whale") * 5, [0, 1] * 5)
    assert linear(words, rows(("the fox", "the whale"), [0, 0])).tolist() == [0, 1]
    second = [{**row, "text": "a", "second": row["text"]} for row in words]
    assert linear(second, second).tolist() == [0, 1] * 5


def test_ridge_tells_high_from_low():
    train = rows(("a red fox", "a blue whale") * 5, [0.0, 4.0] * 5)
    low, high = ridge(train, rows(("the fox", "the whale"), [0, 0])).tolist()
    assert low < 1.5 < 2.5 < high
    assert (low + high) / 2 == pytest.approx(2.0, abs=0.3)
