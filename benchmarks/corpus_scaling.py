"""Whether two workers do twice the work of one, and what Ray costs over a plain pool of processes.

    python benchmarks/corpus_scaling.py [--pages build/real_pages] [--megabytes 1000]

The whole `corpus` stage over the same input: a pool of one process, a pool of two, and Ray with two CPUs, the latter
two in turns. Times are those of the stage: a pool starts its processes inside them, Ray's cluster is started before
and shown beside. What all of them write must be the same, byte for byte.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import busy_cores, conclude, corpus_run, median
from page_archives import write_input
from pool import PoolWork
from real_pages import DEFAULT, archive_in

from data_prep.corpus import Corpus
from data_prep.sources import WarcSource
from pipeline.files import checksums_of

ROUNDS = 2
SPEEDUP, OVERHEAD = 1.8, 0.10


def pool_run(folder: Path, inputs: Path, *, processes: int) -> dict[str, Any]:
    """The stage over a pool: seconds and checksums."""
    stage = Corpus(inputs=(WarcSource(name="pages", paths=(f"{inputs.as_posix()}/*.warc",)),))
    began = time.monotonic()
    with PoolWork(folder, {}, processes=processes) as work:
        stage.run(work)
    return {"seconds": time.monotonic() - began, "checksums": checksums_of(folder)}


def main() -> int:
    """Run all sides, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    others = busy_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = folder / "inputs"
        pages = write_input(inputs, archive_in(options.pages), options.megabytes * 10**6)
        one = pool_run(folder / "one", inputs, processes=1)
        pools, rays = [], []
        for turn in range(ROUNDS):
            pools.append(pool_run(folder / f"pool-{turn}", inputs, processes=2))
            rays.append(corpus_run(folder / f"ray-{turn}", inputs, cpus=2))
    runs = {"one process": [one], "two processes": pools, "Ray, two CPUs": rays}
    seconds = {side: median([run["seconds"] for run in some]) for side, some in runs.items()}
    start = median([run["whole_seconds"] - run["seconds"] for run in rays])
    speedup = seconds["one process"] / seconds["two processes"]
    overhead = seconds["Ray, two CPUs"] / seconds["two processes"] - 1
    digests = {str(run["checksums"]) for some in runs.values() for run in some}
    rows = [("side", "seconds", "pages/s", "speed"), *_rows(seconds, pages)]
    promises = {
        f"two processes at least {SPEEDUP} times as fast as one": speedup >= SPEEDUP,
        f"Ray at most {OVERHEAD:.0%} slower than a pool": overhead <= OVERHEAD,
        "the same bytes from all": len(digests) == 1,
    }
    facts = {
        "megabytes": options.megabytes,
        "pages": pages,
        "speedup": speedup,
        "ray_overhead": overhead,
        "cores_busy_at_the_start": others,
        "ray_start_and_stop_seconds": start,
        "seconds": {side: [run["seconds"] for run in some] for side, some in runs.items()},
    }
    words = (
        f"The corpus stage over {options.megabytes} MB of archives, {pages:,} pages: two processes "
        f"{speedup:.2f} times as fast as one, Ray {overhead:+.1%} on a pool; starting and stopping "
        f"a cluster takes {start:.1f} s more. Other processes kept {others:.1f} cores busy at the start."
    )
    return conclude("corpus_scaling", words, rows, facts, promises)


def _rows(seconds: dict[str, float], pages: int) -> list[tuple[object, ...]]:
    first = seconds["one process"]
    return [
        (side, f"{taken:.1f}", f"{pages / taken:,.0f}", f"{first / taken:.2f}")
        for side, taken in seconds.items()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
