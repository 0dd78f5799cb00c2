"""Whether a worker's memory stays the same however large the input is.

    python benchmarks/corpus_memory.py [--pages build/real_pages] [--megabytes 100 500 1000 2000]

Runs the `corpus` stage with two workers over inputs of these sizes and takes the largest resident set that any of
Ray's processes for tasks reached (the kernel's high-water mark, shared libraries included).
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measure import PeakMemory, conclude, corpus_run
from page_archives import write_input
from real_pages import DEFAULT, archive_in

FLAT, MOST_BYTES = 0.10, 1.5e9
TASKS = "ray::"


def measured(folder: Path, archive: Path, megabytes: int) -> dict[str, Any]:
    """One run over an input of this size."""
    pages = write_input(folder / "inputs", archive, megabytes * 10**6)
    with PeakMemory(TASKS) as memory:
        run = corpus_run(folder, folder / "inputs", cpus=2)
    return {
        "megabytes": megabytes,
        "pages": pages,
        "documents": run["counts"]["pages"]["kept"],
        "seconds": run["seconds"],
        "peak_bytes": max(memory.peaks.values()),
    }


def main() -> int:
    """Run all sizes, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 500, 1000, 2000])
    options = parser.parse_args()
    archive = archive_in(options.pages)
    runs = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory() as name:
            runs.append(measured(Path(name), archive, megabytes))
    peaks = [run["peak_bytes"] for run in runs]
    growth = max(peaks) / peaks[0] - 1
    promises = {
        f"within {FLAT:.0%} of the smallest input": growth <= FLAT,
        f"under {MOST_BYTES / 1e9} GB": max(peaks) < MOST_BYTES,
    }
    rows = [("input, MB", "pages", "documents kept", "seconds", "peak of a worker, MB")]
    rows += [
        (
            run["megabytes"],
            f"{run['pages']:,}",
            f"{run['documents']:,}",
            f"{run['seconds']:.0f}",
            f"{run['peak_bytes'] / 1e6:.0f}",
        )
        for run in runs
    ]
    words = (
        f"Peak memory of a worker of the corpus stage: {max(peaks) / 1e6:.0f} MB, {growth:+.1%}."
    )
    return conclude("corpus_memory", words, rows, {"growth": growth, "runs": runs}, promises)


if __name__ == "__main__":
    raise SystemExit(main())
