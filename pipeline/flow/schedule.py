"""The loop of a run: start what is ready, publish what is finished, stop when asked.

A failed stage stops only what depends on it. A stage that another run is making is waited for and
then found done. The lock of a stage is held from before its first byte until its output has its name.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.job import Machine
from pipeline import files
from pipeline.flow.display import Display
from pipeline.flow.interruption import Interruption
from pipeline.flow.plan import Step, is_done
from pipeline.flow.progress import Progress, read_progress
from pipeline.flow.record import read_record
from pipeline.flow.run_file import RunFile
from pipeline.flow.runner import Cluster
from pipeline.flow.store import ERROR, ERROR_LOG, Lock, Store
from pipeline.flow.tracking import Tracking
from pipeline.flow.work import Task

POLL_SECONDS = 0.2
GRACE_SECONDS = 2.0
JOB_GRACE_SECONDS = 8.0  # a job saves its state first
State = Literal["pending", "waiting", "running", "done", "there", "failed", "skipped", "stopped"]
ENDED = ("done", "there", "failed", "skipped", "stopped")


@dataclass
class Outcome:
    """What became of one step. `seconds` of this run; `exit_code` of its failure."""

    step: Step
    state: State = "pending"
    began: float = 0.0
    seconds: float = 0.0
    message: str = ""
    exit_code: int = 0


class Run:
    """One run of a plan."""

    def __init__(
        self, run_file: RunFile, steps: Sequence[Step], store: Store, tracking: Tracking
    ) -> None:
        self.run_file, self.store, self.tracking = run_file, store, tracking
        self.outcomes = {step.name: Outcome(step) for step in steps}
        for outcome in self.outcomes.values():
            if outcome.step.state == "done":
                outcome.state = "there"
        self._locks: dict[str, Lock] = {}
        self._cluster: Cluster | None = None

    def execute(self, display: Display) -> int:
        """Run until every stage has ended or the user interrupts; return the exit code."""
        with Interruption() as interruption, display:
            try:
                while not interruption.asked and not self._ended():
                    self._turn(interruption, display)
                    display.show(self._progress())
                if interruption.asked:
                    self._halt(display)
            finally:
                self._close()
        code = interruption.exit_code if interruption.asked else self._exit_code()
        status = "KILLED" if interruption.asked else "FAILED" if code else "FINISHED"
        self.tracking.run_finished(status)
        return code

    def _ended(self) -> bool:
        return all(outcome.state in ENDED for outcome in self.outcomes.values())

    def _exit_code(self) -> int:
        return next((o.exit_code for o in self.outcomes.values() if o.exit_code), 0)

    def _turn(self, interruption: Interruption, display: Display) -> None:
        for outcome in self.outcomes.values():
            if outcome.state in ("pending", "waiting"):
                self._consider(outcome, interruption, display)
        if self._cluster is None or not self._cluster.busy:
            if not self._ended():
                time.sleep(POLL_SECONDS)
            return
        for name, message in self._cluster.finished(POLL_SECONDS):
            self._conclude(self.outcomes[name], message, display)

    def _consider(self, outcome: Outcome, interruption: Interruption, display: Display) -> None:
        """Start a stage, or say why it does not start."""
        step = outcome.step
        inputs = [self.outcomes[name] for name in step.inputs]
        if lost := [one.step.name for one in inputs if one.state in ("failed", "skipped")]:
            outcome.state, outcome.message = "skipped", f"needs {', '.join(lost)}"
            display.event(step.name, "skipped", outcome.message)
        if outcome.state == "skipped" or any(o.state not in ("done", "there") for o in inputs):
            return
        lock = self.store.lock(step.name, step.fingerprint)
        if not lock.acquire():
            holder = lock.holder()
            if outcome.state == "pending" and holder is not None:
                outcome.state = "waiting"
                display.event(step.name, "waiting", f"for the run {holder} to finish it")
            return
        if is_done(step.folder, step.fingerprint):
            lock.release()
            outcome.state = "there"
            display.event(step.name, "there", "another run has finished it")
        elif not self.store.presence(step.name, step.fingerprint).alone():
            lock.release()
        else:
            self._locks[step.name] = lock
            self._start(outcome, interruption, display)

    def _start(self, outcome: Outcome, interruption: Interruption, display: Display) -> None:
        step = outcome.step
        outcome.state, outcome.began = "running", time.time()
        record = read_record(step.partial)
        if record is not None and record.fingerprint == step.fingerprint:
            self._conclude(outcome, None, display)
            return
        if self._cluster is None:
            self._cluster = Cluster(Path.cwd())
            self._start_cluster(self._cluster, interruption)
        outcome.began = time.time()
        again = step.partial.exists()
        display.event(step.name, "running", "continues where it was stopped" if again else "")
        self.tracking.stage_started(step.name, step.partial)
        task, cpus, gpus = self._task(step, self._cluster.capacity)
        self._cluster.submit(task, cpus=cpus, gpus=gpus)

    def _start_cluster(self, cluster: Cluster, interruption: Interruption) -> None:
        """Start Ray, which takes seconds, takes signals for itself and bears no interruption."""
        interruption.at_once = True
        try:
            cluster.start(self.run_file.head.ray)
        except SystemExit:
            interruption.leave()
        interruption.listen()
        interruption.at_once = False

    def _task(self, step: Step, capacity: Machine) -> tuple[Task, int, int]:
        """The task of a step, and the CPUs and GPUs it claims."""
        launch = self.run_file.head.launch
        processes = launch.ranks(capacity)
        # Threads decide how sums are rounded, so their number may not depend on what else runs.
        threads = int(os.environ.get("OMP_NUM_THREADS") or max(capacity.cpus // processes, 1))
        task = Task(
            name=step.name,
            stage=step.stage,
            fingerprint=step.fingerprint,
            inputs={name: one.folder for name, one in step.inputs.items()},
            input_prints={name: one.fingerprint for name, one in step.inputs.items()},
            sources=step.sources,
            partial=step.partial,
            presence=self.store.presence(step.name, step.fingerprint).path,
            processes=processes,
            threads=threads,
            launch=launch,
        )
        if step.stage.claims == "job":
            claim = launch.claim(processes, threads, capacity)
            return task, claim.cpus, claim.gpus
        return task, int(step.stage.claims == "cpu"), 0

    def _conclude(self, outcome: Outcome, message: str | None, display: Display) -> None:
        """Publish what a stage made, or say how it failed."""
        step = outcome.step
        outcome.seconds = time.time() - outcome.began
        record = read_record(step.partial)
        if message is None and record is not None:
            files.publish(step.partial, step.folder)
            outcome.state = "done"
            self.tracking.stage_finished(step.name, step.folder)
            display.event(step.name, "done", "", outcome.seconds)
        else:
            outcome.state, outcome.exit_code = "failed", 1
            outcome.message = message or "left no record"
            self._blame(outcome)
            self.tracking.stage_failed(step.name)
            display.event(step.name, "failed", outcome.message, outcome.seconds)
        self._locks.pop(step.name).release()

    def _blame(self, outcome: Outcome) -> None:
        """Prefer what the worker wrote about its failure to what Ray makes of it."""
        partial = outcome.step.partial
        if (partial / ERROR).exists():
            told = files.read_json(partial / ERROR)
            outcome.message, outcome.exit_code = told["message"], told["exit_code"]
        else:
            partial.mkdir(parents=True, exist_ok=True)
            files.write_text(partial / ERROR_LOG, outcome.message + "\n")
        outcome.message += f" (log: {partial / ERROR_LOG})"

    def _halt(self, display: Display) -> None:
        """Interrupt what runs and give it time to save; what does not leave is killed by `_close`."""
        running = [o for o in self.outcomes.values() if o.state == "running"]
        display.halting(len(running))
        if self._cluster is not None and self._cluster.busy:
            self._cluster.cancel()
            jobs = any(o.step.stage.claims == "job" for o in running)
            deadline = time.monotonic() + (JOB_GRACE_SECONDS if jobs else GRACE_SECONDS)
            while self._cluster.busy and time.monotonic() < deadline:
                self._cluster.finished(POLL_SECONDS)
        for outcome in self.outcomes.values():
            if outcome.state not in ENDED:
                if outcome.state == "running":
                    outcome.seconds = time.time() - outcome.began
                    self.tracking.stage_failed(outcome.step.name)
                outcome.state = "stopped"

    def _close(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()
        for lock in self._locks.values():
            lock.release()

    def _progress(self) -> Mapping[str, Progress | None]:
        return {
            name: read_progress(outcome.step.partial)
            for name, outcome in self.outcomes.items()
            if outcome.state == "running"
        }
