"""How well written answers match the right ones: by letters, by SQuAD's rules, by ROUGE and by BLEU."""

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b")
BLEU_ORDERS = 4


def exact(golds: Sequence[str], answers: Sequence[str], _labels: Sequence[str]) -> np.ndarray:
    """Whether each answer is the right one letter by letter. [rows, 1]."""
    equal = [gold == answer for gold, answer in zip(golds, answers, strict=True)]
    return np.array(equal, dtype=np.float64)[:, None]


def normalised(text: str) -> str:
    """Lower case without punctuation, articles and superfluous blanks (Rajpurkar et al. 2016, official script).

    >>> normalised("The  Ox, and an  ass!")
    'ox and ass'
    """
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def squad_exact(
    golds: Sequence[Sequence[str]], answers: Sequence[str], _labels: Sequence[str]
) -> np.ndarray:
    """Whether each answer is one of the right ones once both are normalised; no right one: whether it is empty."""
    return _best(golds, answers, lambda gold, answer: float(normalised(gold) == normalised(answer)))


def squad_f1(
    golds: Sequence[Sequence[str]], answers: Sequence[str], _labels: Sequence[str]
) -> np.ndarray:
    """F1 of the words each answer shares with the right one that it shares most with. [rows, 1]."""
    return _best(golds, answers, _word_f1)


def _best(
    golds: Sequence[Sequence[str]], answers: Sequence[str], score: Callable[[str, str], float]
) -> np.ndarray:
    best = []
    for right, answer in zip(golds, answers, strict=True):
        # As the script of SQuAD 2.0: answers of which nothing stays when normalised do not count.
        usable = [gold for gold in right if normalised(gold)] or [""]
        best.append(max(score(gold, answer) for gold in usable))
    return np.array(best, dtype=np.float64)[:, None]


def _word_f1(gold: str, answer: str) -> float:
    right, said = normalised(gold).split(), normalised(answer).split()
    if not right or not said:
        return float(right == said)
    shared = sum((Counter(right) & Counter(said)).values())
    return 2 * shared / (len(right) + len(said))


def rouge(kind: str) -> Callable[[Sequence[str], Sequence[str], Sequence[str]], np.ndarray]:
    """F1 of one kind of ROUGE for each row, as `rouge-score` has it with stemming. [rows, 1]."""

    def rows(golds: Sequence[str], answers: Sequence[str], _labels: Sequence[str]) -> np.ndarray:
        scorer = _rouge_scorer(kind)
        pairs = zip(golds, answers, strict=True)
        return np.array([[scorer.score(gold, answer)[kind].fmeasure] for gold, answer in pairs])

    return rows


@functools.cache
def _rouge_scorer(kind: str) -> Any:
    # Two seconds, which only those pay who ask for ROUGE.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=True)


def bleu_counts(golds: Sequence[str], answers: Sequence[str], _labels: Sequence[str]) -> np.ndarray:
    """For each row the n-grams that are right, and all, of one to four words, and both lengths. [rows, 10]."""
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)  # which says nothing about counts, and warns less
    found = [
        scorer.corpus_score([answer], [[gold]]) for gold, answer in zip(golds, answers, strict=True)
    ]
    rows = [[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found]
    return np.array(rows, dtype=np.float64)


def bleu(rows: np.ndarray) -> float:
    """BLEU of a corpus from 0 to 1, as `sacrebleu` has it by default (13a, exponential smoothing)."""
    from sacrebleu.metrics.bleu import BLEU

    totals = [round(total) for total in rows.sum(axis=0)]
    found = BLEU.compute_bleu(
        correct=totals[:BLEU_ORDERS],
        total=totals[BLEU_ORDERS : 2 * BLEU_ORDERS],
        sys_len=totals[-2],
        ref_len=totals[-1],
        smooth_method="exp",
    )
    return float(found.score) / 100
