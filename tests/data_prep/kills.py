"""Kills runs at random moments, and says what they left: the harness of the test and of the benchmark.

A trial is one output made from nothing. It is run, something of it is killed with SIGKILL (the
driver, a worker, or the raylet), it is run again with another number of workers, and so on until it
is finished. What every trial made must be what an undisturbed run makes, byte for byte.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files
from pipeline.flow.keeper import users_of

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = ("driver", "worker", "raylet")
PATIENCE_SECONDS = 120.0
# The record says when and how long; progress is gone when a stage is finished.
NOT_COMPARED = ("record.json",)


@dataclass
class Trial:
    """What was killed in one trial, how often it was started, and the SHA-256 of what it made."""

    killed: list[str] = field(default_factory=list)
    starts: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)


def undisturbed(folder: Path, run_file: Path, *, cpus: int) -> Trial:
    """A run that nothing happens to."""
    return _trial(folder, run_file, [], random.Random(0), (cpus,))


def disturbed(
    folder: Path, run_file: Path, *, kills: int, seed: int, cpus: Sequence[int] = (2, 1, 3)
) -> Iterator[Trial]:
    """Trials until `kills` processes have been killed, each kind of victim in turn."""
    chance, number = random.Random(seed), 0
    victims = [VICTIMS[turn % len(VICTIMS)] for turn in range(kills)]
    while victims:
        trial = _trial(folder / f"trial-{number}", run_file, victims, chance, cpus)
        del victims[: len(trial.killed)]
        number += 1
        yield trial


def _trial(
    folder: Path,
    run_file: Path,
    victims: Sequence[str],
    chance: random.Random,
    cpus: Sequence[int],
) -> Trial:
    """Run until finished; at most two of `victims` are killed in each attempt."""
    trial, waiting = Trial(), list(victims)
    while True:
        workers = cpus[trial.starts % len(cpus)]
        trial.starts += 1
        with _theseum(folder, run_file, workers) as process:
            for _ in range(2):
                if waiting and _kill(folder, process, waiting[0], chance):
                    trial.killed.append(waiting.pop(0))
            code = process.wait(PATIENCE_SECONDS)
            said = process.stdout.read() if process.stdout is not None else ""
        _wait_for(lambda pid=process.pid: not users_of(Path(f"/tmp/theseum-{pid}")))
        if code == 0:
            break
        if not trial.killed:
            raise AssertionError(f"failed without a kill: {said}")
    for output in (folder / "store").glob("[!.]*-????????"):
        sums = files.checksums_of(output, without=NOT_COMPARED)
        trial.outputs |= {f"{output.name}/{name}": digest for name, digest in sums.items()}
        trial.leftovers += [str(path) for path in output.rglob(".*")]
    trial.leftovers += [str(path) for path in (folder / "store" / ".partial").glob("*")]
    return trial


@contextlib.contextmanager
def _theseum(folder: Path, run_file: Path, cpus: int) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipeline", "run", str(run_file)]
    store = f"store={folder / 'store'}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, store, f"ray.cpus={cpus}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process


def _kill(folder: Path, process: subprocess.Popen[str], victim: str, chance: random.Random) -> bool:
    """Kill a victim at a random moment while a stage is being made; False if it came too late."""
    _wait_for(
        lambda: process.poll() is not None or any(folder.glob("store/.partial/*/*/*")),
    )
    time.sleep(chance.uniform(0.0, 2.0))
    if process.poll() is not None or not any(folder.glob("store/.partial/*/*/*")):
        return False
    found = [process.pid]
    if victim != "driver":
        mark = b"ray::" if victim == "worker" else b"/raylet/raylet"
        users = users_of(Path(f"/tmp/theseum-{process.pid}"))
        found = sorted(pid for pid in users if mark in _command_of(pid))
    if not found:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(found), signal.SIGKILL)
    return True


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited too long")
        time.sleep(0.02)
