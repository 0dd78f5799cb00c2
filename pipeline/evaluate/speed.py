"""Latency of several models, measured in turns so that all meet the same disturbances."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Seconds = float


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call over all turns, and speed against the first model.

    `relative_speed` is the median over turns of the first model's time / this model's time.
    """

    median_ms: float
    first_quartile_ms: float
    third_quartile_ms: float
    relative_speed: float


def measure_latency(
    models: Mapping[str, Callable[[int], object]],
    sentences: Sequence[int],
    *,
    rounds: int = 3,
    clock: Callable[[], Seconds] = time.perf_counter,
) -> dict[str, Latency]:
    """Time `models[name](sentence)` for every sentence, `rounds` times.

    A turn is one sentence through all models; who goes first changes from turn to turn. Each
    model is called on a few sentences first, unmeasured.
    """
    names = list(models)
    for name in names:
        for sentence in sentences[:5]:
            models[name](sentence)
    seconds = np.empty((len(names), rounds * len(sentences)))
    for turn in range(rounds * len(sentences)):
        sentence = sentences[turn % len(sentences)]
        for offset in range(len(names)):
            index = (turn + offset) % len(names)
            start = clock()
            models[names[index]](sentence)
            seconds[index, turn] = clock() - start
    return {name: _latency(seconds[index], seconds[0]) for index, name in enumerate(names)}


def _latency(seconds: np.ndarray, first: np.ndarray) -> Latency:
    low, median, high = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)) * 1000)
    return Latency(median, low, high, float(np.median(first / seconds)))
