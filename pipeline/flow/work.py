"""A stage at work, in whatever process runs it: its folder, its record, its errors.

This is what a worker executes. It knows no cluster: how units are spread is handed in.
"""

import contextlib
import re
import shutil
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from launch.job import Launcher, TrainingJob
from launch.local import LocalLaunch
from pipeline import files
from pipeline.config import UserError, as_dict
from pipeline.flow.progress import PROGRESS, ProgressFile
from pipeline.flow.record import UNCHECKED, Record
from pipeline.flow.store import ERROR, ERROR_LOG, TASK, Presence
from pipeline.runtime import code_revision, library_versions

Item = TypeVar("Item")
Result = TypeVar("Result")
LEFTOVER = re.compile(r"\..+\.[0-9]+")
JOB = "job.json"


@dataclass(frozen=True)
class Task:
    """All that a worker needs to run one stage."""

    name: str
    stage: Any
    fingerprint: str
    inputs: Mapping[str, Path]
    input_prints: Mapping[str, str]
    sources: Mapping[str, str]
    partial: Path
    presence: Path
    processes: int
    threads: int
    launch: Launcher = field(default_factory=LocalLaunch)


class Spread(Protocol):
    """Computes a function for each item anywhere; results in order, `finished(n, result)` as they
    complete, `lost(item)` for one that cannot be computed because its worker dies every time.
    """

    def __call__(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        presence: Path,
        finished: Callable[[int, Result], None],
        lost: Callable[[Item], Result] | None,
    ) -> Iterator[Result]:
        """Yield the results in the order of `items`."""
        ...


class StageWork:
    """The `Work` that a stage is given."""

    def __init__(self, task: Task, spread: Spread) -> None:
        self.out, self.inputs = task.partial, task.inputs
        self._task, self._spread = task, spread
        self._progress = ProgressFile(self.out)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        unit: str,
        amounts: Callable[[Result], Mapping[str, float]] | None = None,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:
        """Results of `function` for each item, in order, computed anywhere."""
        started, sums = time.monotonic(), Counter[str]()

        def finished(done: int, result: Result) -> None:
            sums.update(amounts(result) if amounts is not None else {})
            seconds = max(time.monotonic() - started, 1e-9)
            paces = {f"{name}_per_second": amount / seconds for name, amount in sums.items()}
            self.progress(done, len(items), unit, **paces)

        self.progress(0, len(items), unit)
        return self._spread(function, items, self._task.presence, finished, lost)

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Say how far this stage is."""
        self._progress.update(done, total, unit, **figures)

    def train(self, stage: Any) -> None:
        """Run `stage` as a training job and return when its completion marker is there."""
        job = {
            "name": self._task.name,
            "fingerprint": self._task.fingerprint,
            "stage": as_dict(stage),
            "inputs": {name: str(folder) for name, folder in self.inputs.items()},
            "out": str(self.out),
        }
        files.write_json(self.out / JOB, job)
        task = self._task
        task.launch.run(TrainingJob(self.out / JOB, task.processes, task.threads))


def perform(task: Task, spread: Spread) -> None:
    """Run a stage into its partial folder and write its record there.

    A failure leaves `error.log` (traceback) and `error.json` (message and exit code) and is raised again.
    """
    with Presence(task.presence):
        task.partial.mkdir(parents=True, exist_ok=True)
        for name in (ERROR, ERROR_LOG, PROGRESS):
            (task.partial / name).unlink(missing_ok=True)
        about = {"stage": task.name, "kind": task.stage.kind, "fingerprint": task.fingerprint}
        files.write_json(task.partial / TASK, about)
        try:
            started = time.time()
            counts = task.stage.run(StageWork(task, spread))
            _record(task, dict(counts or {}), started)
        except (Exception, SystemExit) as error:
            _note(task.partial, error)
            raise


def _record(task: Task, counts: dict[str, Any], started: float) -> None:
    folder = task.partial
    (folder / TASK).unlink()
    (folder / PROGRESS).unlink(missing_ok=True)
    for path in list(folder.rglob(".*")):
        if LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    inputs = {
        name: {"folder": path.name, "fingerprint": task.input_prints[name]}
        for name, path in task.inputs.items()
    }
    Record(
        stage=task.name,
        kind=task.stage.kind,
        makes=task.stage.makes,
        version=task.stage.version,
        fingerprint=task.fingerprint,
        config=as_dict(task.stage),
        inputs=inputs,
        sources=task.sources,
        counts=counts,
        started=started,
        seconds=round(time.time() - started, 3),
        host=socket.gethostname(),
        revision=code_revision(),
        libraries=library_versions(),
        files=files.checksums_of(folder, without=UNCHECKED),
    ).write(folder)


def _note(folder: Path, error: BaseException) -> None:
    """Leave word of a failure; when not even that can be written, the error itself still goes up."""
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    code = error.exit_code if isinstance(error, UserError) else 1
    with contextlib.suppress(OSError):
        text = "".join(traceback.format_exception(error))
        files.write_text(folder / ERROR_LOG, text)
        files.write_json(folder / ERROR, {"message": message, "exit_code": code})
