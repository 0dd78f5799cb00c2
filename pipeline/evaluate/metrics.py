"""What a task counts as good, with an interval that says how far the figure can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.complaints import nearest
from pipeline.config import DataError
from pipeline.runtime import rng_of

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054  # of (1 + CONFIDENCE) / 2
RESAMPLES = 1000

Score = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Measured:
    """A score in [0, 1] and the bounds of its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose predicted label is right."""
    return float(np.mean(labels == predicted))


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of F1 over the labels that occur or are predicted."""
    size = int(max(labels.max(), predicted.max())) + 1
    right = np.bincount(labels[labels == predicted], minlength=size)
    seen = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    return float(np.mean(2 * right[seen > 0] / seen[seen > 0]))


SCORES: dict[str, Score] = {"accuracy": accuracy, "macro_f1": macro_f1}


def measure(name: str, labels: np.ndarray, predicted: np.ndarray) -> Measured:
    """The metric `name` over the rows; its interval is Wilson's for accuracy, else a bootstrap."""
    if name not in SCORES:
        raise DataError(
            f"metric {name!r} is not known; one of {', '.join(SCORES)}{nearest(name, SCORES)}"
        )
    value = SCORES[name](labels, predicted)
    if name == "accuracy":
        low, high = wilson_interval(int((labels == predicted).sum()), len(labels))
    else:
        low, high = bootstrap_interval(SCORES[name], labels, predicted)
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
    score: Score, labels: np.ndarray, predicted: np.ndarray, *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of `score` over rows drawn with replacement by keyed draws."""
    rng = rng_of(0, "bootstrap", len(labels))
    scores = np.empty(resamples)
    for number in range(resamples):
        rows = rng.integers(len(labels), size=len(labels))
        scores[number] = score(labels[rows], predicted[rows])
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(scores, tail)), float(np.quantile(scores, 1 - tail))
