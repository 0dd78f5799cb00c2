"""Latency is measured fairly: models take turns."""

from itertools import pairwise

from pipeline.evaluate.speed import measure_latency


class Stopwatch:
    """A clock that models advance themselves, so that a call takes exactly as long as it says."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def model(self, name, seconds):
        def call(sentence):
            self.calls.append((name, sentence))
            self.now += seconds * (sentence + 1)

        return call


def test_medians_quartiles_and_ratio_of_known_times():
    watch = Stopwatch()
    models = {"large": watch.model("large", 0.008), "small": watch.model("small", 0.002)}
    measured = measure_latency(models, (0, 1, 2), rounds=4, clock=lambda: watch.now)
    large, small = measured["large"], measured["small"]
    assert round(large.median_ms, 9) == 16.0
    assert round(small.median_ms, 9) == 4.0
    assert (round(large.first_quartile_ms, 9), round(large.third_quartile_ms, 9)) == (8.0, 24.0)
    assert large.relative_speed == 1.0
    assert round(small.relative_speed, 9) == 4.0


def test_models_take_turns_and_neither_is_always_first():
    watch = Stopwatch()
    models = {name: watch.model(name, 1.0) for name in ("a", "b")}
    measure_latency(models, (5, 6), rounds=2, clock=lambda: watch.now)
    measured = watch.calls[4:]
    turns = [measured[i : i + 2] for i in range(0, len(measured), 2)]
    assert [[sentence for _, sentence in turn] for turn in turns] == [
        [5, 5],
        [6, 6],
        [5, 5],
        [6, 6],
    ]
    assert all({name for name, _ in turn} == {"a", "b"} for turn in turns)
    assert all(one[0][0] != two[0][0] for one, two in pairwise(turns))
