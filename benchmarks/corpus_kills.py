"""Whether a run that is killed again and again makes what an undisturbed run makes, byte for byte.

    python benchmarks/corpus_kills.py [--pages build/real_pages] [--kills 50] [--megabytes 40] [--seed 0]

Driver, worker and raylet get SIGKILL in turn, at random moments, and the run is started again with another number of
workers until it is finished; then the next trial begins from nothing. The harness is that of the test suite.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from measure import conclude, of_the_tests
from page_archives import write_input
from real_pages import DEFAULT, archive_in

UNIT_BYTES = 2_000_000


def main() -> int:
    """Kill, compare, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harness = of_the_tests("kills")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = folder / "inputs"
        pages = write_input(inputs, archive_in(options.pages), options.megabytes * 10**6)
        run_file = folder / "run.yaml"
        source = {"type": "warc", "name": "pages", "paths": [f"{inputs.as_posix()}/*.warc"]}
        stage = {"kind": "corpus", "inputs": [source], "unit_bytes": UNIT_BYTES, "near": {}}
        run = {"stages": {"corpus": stage}, "tracking": {"enabled": False}}
        run_file.write_text(json.dumps(run))
        whole = harness.undisturbed(folder / "undisturbed", run_file, cpus=2)
        trials = list(harness.disturbed(folder, run_file, kills=options.kills, seed=options.seed))
    killed = Counter(victim for trial in trials for victim in trial.killed)
    same = [trial.outputs == whole.outputs for trial in trials]
    starts = sum(trial.starts for trial in trials)
    rows = [("killed", "times"), *sorted(killed.items())]
    promises = {
        f"{options.kills} kills": killed.total() >= options.kills,
        f"the same {len(whole.outputs)} files from every trial": all(same) and bool(whole.outputs),
        "nothing left behind": not any(trial.leftovers for trial in trials),
    }
    facts = {
        "pages": pages,
        "kills": dict(killed),
        "trials": [{"killed": trial.killed, "starts": trial.starts} for trial in trials],
        "outputs": whole.outputs,
    }
    words = (
        f"{killed.total()} kills in {len(trials)} trials of {pages:,} pages each, started {starts} "
        f"times: {sum(same)} of {len(trials)} trials made the same {len(whole.outputs)} files."
    )
    return conclude("corpus_kills", words, rows, facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
