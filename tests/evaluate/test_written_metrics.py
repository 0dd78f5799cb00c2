"""Metrics of words, names, numbers and texts, against scikit-learn, sacrebleu, rouge-score, scipy or by hand."""

import dataclasses

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score, matthews_corrcoef

from pipeline.evaluate.entities import entities_of
from pipeline.evaluate.metrics import METRICS, measure
from pipeline.evaluate.significance import difference

GOLDS = ["the cat sat on the mat", "a dog runs far away from here", "one"]
SAID = ["the cat sat on a mat", "dogs ran far away", "two"]


def test_scores_of_labels_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    for size, labels in ((40, 2), (40, 5), (1, 2)):
        golds, said = rng.integers(labels, size=(2, size))
        found = METRICS["matthews"].value(np.stack((golds, said), axis=1))
        assert found == pytest.approx(matthews_corrcoef(golds, said), abs=1e-12)
    golds, said = rng.integers(2, size=(2, 40))
    found = METRICS["f1"].value(np.stack((golds, said), axis=1))
    assert found == pytest.approx(f1_score(golds, said), abs=1e-12)


def test_correlations_agree_with_scipy():
    rows = np.random.default_rng(2).integers(5, size=(30, 2)).astype(float)
    assert METRICS["pearson"].value(rows) == pytest.approx(scipy.stats.pearsonr(*rows.T)[0])
    assert METRICS["spearman"].value(rows) == pytest.approx(scipy.stats.spearmanr(*rows.T)[0])
    assert METRICS["pearson"].value(np.array([[1.0, 2.0], [1.0, 3.0]])) == 0.0


def test_rouge_and_bleu_are_those_of_their_libraries():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for kind in ("rouge1", "rouge2", "rougeL"):
        expected = np.mean(
            [scorer.score(g, s)[kind].fmeasure for g, s in zip(GOLDS, SAID, strict=True)]
        )
        assert measure(kind, GOLDS, SAID).value == pytest.approx(expected, abs=1e-12)
    found = measure("bleu", GOLDS, SAID)
    assert found.value == pytest.approx(sacrebleu.corpus_bleu(SAID, [GOLDS]).score / 100, abs=1e-12)
    assert found.low < found.value < found.high


def test_squad_scores_by_hand():
    golds = [["the Cat", "a dog"], [], ["$ 5 million"], []]
    said = ["Cat!", "", "5 thousand", "anything"]
    assert METRICS["squad_exact"].rows(golds, said, ()).tolist() == [[1.0], [1.0], [0.0], [0.0]]
    assert METRICS["squad_f1"].rows(golds, said, ()).tolist() == [[1.0], [1.0], [0.5], [0.0]]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O O", []),
        ("B-A I-A", [("A", 0, 2)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("I-A I-B O I-B", [("A", 0, 1), ("B", 1, 2), ("B", 3, 4)]),
    ],
)
def test_entities_are_those_of_conlleval(tags, entities):
    assert list(entities_of(tags.split())) == entities


def test_entity_f1_counts_whole_entities_of_all_texts():
    labels = ("B-A", "I-A", "O")
    golds, said = [[0, 1, 2, 0], [2, 0]], [[0, 1, 2, 2], [2, 2]]
    assert measure("entity_f1", golds, said, labels).value == pytest.approx(2 * 1 / (1 + 3))
    assert measure("word_accuracy", golds, said, labels).value == pytest.approx(4 / 6)


def test_a_difference_is_significant_when_it_is_large_and_not_when_answers_are_alike():
    golds = np.array([0, 1] * 50)
    worse = np.where(np.arange(100) < 40, 1 - golds, golds)
    found = difference("accuracy", golds, (golds, worse))
    assert found.value == pytest.approx(0.4)
    assert 0.3 < found.low < 0.4 < found.high < 0.51
    assert found.p_value == 1 / 1001
    same = difference("macro_f1", golds, (worse, worse))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_p_value_of_few_rows_is_that_of_all_exchanges():
    """With three rows on which only the first model is right, 2 of the 8 exchanges are as large."""
    found = difference("accuracy", [1, 1, 1], ([1, 1, 1], [0, 0, 0]), resamples=4000)
    assert found.p_value == pytest.approx(2 / 8, abs=0.03)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_the_scale_of_numbers_does_not_decide_whether_correlations_differ(name):
    rng = np.random.default_rng(5)
    golds = rng.normal(size=60)
    good, bad = golds + 0.5 * rng.normal(size=60), golds + 1.5 * rng.normal(size=60)
    found = difference(name, golds, (good, bad))
    moved = difference(name, golds, (good, 10 * bad + 3))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(moved))
    assert found.low > 0
    assert found.p_value < 0.05
    assert difference(name, golds, (good, 10 * good + 3)).value == pytest.approx(0.0, abs=1e-12)
