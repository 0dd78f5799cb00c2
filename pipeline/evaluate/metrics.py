"""What a task counts as good, with an interval that says how far the figure can be trusted.

A metric is two functions: what is to be known of each row, as numbers, and the figure from any rows of these. So
resampling, which intervals and comparisons of models are made of, looks at each answer once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.complaints import nearest
from pipeline.config import DataError
from pipeline.evaluate import entities, written
from pipeline.objectives.classification import f1_of, macro_f1_of, matthews_of
from pipeline.runtime import rng_of

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054  # of (1 + CONFIDENCE) / 2
RESAMPLES = 1000

Value = Callable[[np.ndarray], float]
Answers = Sequence[Any] | np.ndarray
Rows = Callable[[Any, Any, Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """`rows(golds, answers, labels)` is [rows, numbers], `value` the figure of such rows.

    Answers of two models that mean the same make the same numbers, so that rows can be exchanged between them.
    """

    rows: Rows
    value: Value


@dataclass(frozen=True)
class Measured:
    """A score, mostly in [0, 1] (correlations in [-1, 1]), and the bounds of its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose predicted label is right."""
    return float(np.mean(labels == predicted))


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of F1 over the labels that occur or are predicted."""
    return macro_f1_of(confusion_of(np.stack((labels, predicted), axis=1)))


def confusion_of(rows: np.ndarray) -> np.ndarray:
    """How often each label [rows] was answered by each [columns]; at least two labels. rows [n, 2]."""
    size = max(int(rows.max()) + 1, 2)
    cells = rows[:, 0].astype(np.int64) * size + rows[:, 1].astype(np.int64)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def pearson(rows: np.ndarray) -> float:
    """Pearson's correlation of two columns; 0 where one is constant."""
    apart = rows - rows.mean(axis=0)
    spread = float(np.sqrt(np.prod((apart**2).sum(axis=0))))
    return float((apart[:, 0] * apart[:, 1]).sum() / spread) if spread else 0.0


def spearman(rows: np.ndarray) -> float:
    """Spearman's rank correlation of two columns; equals share their mean rank."""
    return pearson(np.stack([ranks_of(column) for column in rows.T], axis=1))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equals share their mean rank.

    >>> ranks_of(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])


def _both(golds: Answers, answers: Answers, _labels: Sequence[str]) -> np.ndarray:
    return np.stack((np.asarray(golds), np.asarray(answers)), axis=1)


def _standardised(
    golds: Sequence[Any], answers: Sequence[Any], _labels: Sequence[str]
) -> np.ndarray:
    # A correlation is blind to scale, and answers of two models are only alike on the same one.
    said = np.asarray(answers, dtype=np.float64)
    return _both(golds, (said - said.mean()) / (said.std() or 1.0), ())


def _ranked(golds: Sequence[Any], answers: Sequence[Any], _labels: Sequence[str]) -> np.ndarray:
    return _both(golds, ranks_of(np.asarray(answers)), ())


def _share_equal(rows: np.ndarray) -> float:
    return float(np.mean(rows[:, 0] == rows[:, 1]))


def _mean(rows: np.ndarray) -> float:
    return float(rows.mean())


def _ratio(rows: np.ndarray) -> float:
    right, asked = rows.sum(axis=0)
    return float(right / asked) if asked else 0.0


def _from_confusion(value: Value) -> Metric:
    return Metric(_both, lambda rows: value(confusion_of(rows)))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_both, _share_equal),
    "macro_f1": _from_confusion(macro_f1_of),
    "f1": _from_confusion(f1_of),
    "matthews": _from_confusion(matthews_of),
    "pearson": Metric(_standardised, pearson),
    "spearman": Metric(_ranked, spearman),
    "word_accuracy": Metric(entities.right_words, _ratio),
    "entity_f1": Metric(entities.counted, entities.f1),
    "squad_exact": Metric(written.squad_exact, _mean),
    "squad_f1": Metric(written.squad_f1, _mean),
    "exact_match": Metric(written.exact, _mean),
    "rouge1": Metric(written.rouge("rouge1"), _mean),
    "rouge2": Metric(written.rouge("rouge2"), _mean),
    "rougeL": Metric(written.rouge("rougeL"), _mean),
    "rougeLsum": Metric(written.rouge("rougeLsum"), _mean),
    "bleu": Metric(written.bleu_counts, written.bleu),
}


def metric_of(name: str) -> Metric:
    """The metric of this name; DataError with the nearest name if there is none."""
    if name not in METRICS:
        raise DataError(
            f"metric {name!r} is not known; one of {', '.join(METRICS)}{nearest(name, METRICS)}"
        )
    return METRICS[name]


def measure(name: str, golds: Answers, answers: Answers, labels: Sequence[str] = ()) -> Measured:
    """The metric `name` over the rows; its interval is Wilson's where rows are right or wrong, else a bootstrap."""
    metric = metric_of(name)
    rows = metric.rows(golds, answers, labels)
    value = metric.value(rows)
    if name in ("accuracy", "exact_match", "squad_exact"):
        low, high = wilson_interval(round(value * len(rows)), len(rows))
    else:
        low, high = bootstrap_interval(metric.value, rows)
    return Measured(name, value, low, high)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927).

    All p with |share - p| <= z sqrt(p (1 - p) / trials).
    """
    share, squared = successes / trials, NORMAL_QUANTILE**2
    centre = (share + squared / (2 * trials)) / (1 + squared / trials)
    variance = share * (1 - share) / trials + squared / (4 * trials**2)
    half = NORMAL_QUANTILE * float(np.sqrt(variance)) / (1 + squared / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    value: Value, rows: np.ndarray, *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of `value` over rows [n, numbers] drawn with replacement by keyed draws."""
    rng = rng_of(0, "bootstrap", len(rows))
    found = [value(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(resamples)]
    return percentiles(found)


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The bounds that hold the middle 95 %."""
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))
