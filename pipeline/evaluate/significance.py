"""Whether one model is better than another on the same rows: a paired comparison under any metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluate.metrics import RESAMPLES, metric_of, percentiles
from pipeline.runtime import rng_of


@dataclass(frozen=True)
class Difference:
    """How much more the first model scores, the bounds of the 95 % interval of that, and how likely by chance.

    `p_value` is the share of exchanges of the two models' answers, row by row at random, that lead to a
    difference as large in either direction (approximate randomisation, Noreen 1989).
    """

    value: float
    low: float
    high: float
    p_value: float


def difference(
    name: str,
    golds: Sequence[Any],
    answers: tuple[Sequence[Any], Sequence[Any]],
    labels: Sequence[str] = (),
    *,
    resamples: int = RESAMPLES,
) -> Difference:
    """The first of two models against the second by metric `name`, from their answers for the same rows.

    The interval is a paired bootstrap: the same rows are drawn for both. Draws are keyed by the number of rows.
    """
    metric = metric_of(name)
    first, second = (metric.rows(golds, said, labels) for said in answers)
    found = metric.value(first) - metric.value(second)
    rng = rng_of(0, "significance", len(first))
    drawn, as_large = [], 0
    for _ in range(resamples):
        rows = rng.integers(len(first), size=len(first))
        drawn.append(metric.value(first[rows]) - metric.value(second[rows]))
        swapped = rng.random(len(first)) < 0.5
        one = np.where(swapped[:, None], second, first)
        other = np.where(swapped[:, None], first, second)
        # Equal differences may come out unequal by rounding.
        as_large += abs(metric.value(one) - metric.value(other)) >= abs(found) - 1e-12
    low, high = percentiles(drawn)
    return Difference(found, low, high, (1 + as_large) / (1 + resamples))
