"""How long the quickstart takes, how much memory it needs, and what it ends with.

    python benchmarks/quickstart.py

Runs `theseum run configs/runs/quickstart.yaml` in an empty store, samples the resident memory of the process and all
its descendants, and writes `benchmarks/results/quickstart.txt` (machine and figures, then the printed summary) and
`quickstart.json`. Fails when one of the promises of the README does not hold.
"""

import datetime
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from measure import RESULTS, ROOT, machine, unique_bytes

from pipeline.runtime import code_revision, library_versions

RUN_FILE = "configs/runs/quickstart.yaml"
SAMPLE_SECONDS = 0.5
SECONDS, BYTES, KEPT, SPEEDUP = 300.0, 4e9, 0.95, 1.5


def watched(command: list[str]) -> tuple[str, float, int]:
    """Output, seconds and peak memory in bytes of a command."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, unique_bytes(psutil.Process(process.pid)))
            time.sleep(SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    watcher.join()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} left with {process.returncode}")
    return "".join(lines), time.monotonic() - began, peak


def main() -> int:
    """Run, measure, write, judge."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        command = [sys.executable, "-m", "pipeline", "run", RUN_FILE, f"store={store}"]
        output, seconds, peak = watched(command)
        _, again, _ = watched(command)
        results = json.loads(next(store.glob("evaluate-*/results.json")).read_text())
    summary = output[output.index("\ncorpus ") :].strip().replace(str(store), "store")
    versions = library_versions()
    words = (
        f"Measured on {datetime.datetime.now(datetime.UTC).date()}: {seconds:.0f} seconds after installation, at most "
        f"{peak / 1e9:.1f} GB of memory, {again:.0f} seconds when run again, on {machine()}; Python "
        f"{versions['python']}, torch {versions['torch']}, deepspeed {versions['deepspeed']}, ray {versions['ray']} "
        "(`benchmarks/quickstart.py`)."
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quickstart.txt").write_text(f"{words}\n\n{summary}\n", encoding="utf-8")
    facts = {
        "seconds": seconds,
        "seconds_again": again,
        "peak_bytes": peak,
        "machine": machine(),
        "revision": code_revision(),
        "versions": versions,
        "results": results,
    }
    (RESULTS / "quickstart.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(words)
    tuned, small = results["classifiers"]["finetune"], results["classifiers"]["compress"]
    scores = [model["score"]["value"] for model in (tuned, small)]
    promises = {
        f"under {SECONDS:.0f} s": seconds < SECONDS,
        f"under {BYTES / 1e9:.0f} GB": peak < BYTES,
        "compressed keeps 95 %": scores[1] >= KEPT * scores[0],
        "compressed is 1.5x as fast": small["latency"]["relative_speed"] >= SPEEDUP,
    }
    for promise, kept in promises.items():
        print(f"{'kept' if kept else 'BROKEN':6} {promise}")
    return int(not all(promises.values()))


if __name__ == "__main__":
    raise SystemExit(main())
