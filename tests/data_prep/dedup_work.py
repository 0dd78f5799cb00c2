"""Work for the passes of deduplication in one process, over documents spread as a test likes."""

import itertools
from pathlib import Path


class Worker:
    """Maps in this process, last item first, so that nothing can lean on the order."""

    def __init__(self, out: Path) -> None:
        self.out, self.inputs = out, {}

    def map(self, function, items, *, unit):
        results = [function(item) for item in reversed(items)]
        return iter(results[::-1])

    def progress(self, done, total, unit, **figures):
        pass

    def train(self, stage):
        raise AssertionError("deduplication trains nothing")


def spread(folder, items, cuts):
    """Unit folders, and for each its items: `items` cut at the places `cuts`."""
    bounds = [0, *sorted(cut % (len(items) + 1) for cut in cuts), len(items)]
    stretches = [items[first:end] for first, end in itertools.pairwise(bounds)]
    return [(folder / f"units/{n}", part) for n, part in enumerate(stretches)]
