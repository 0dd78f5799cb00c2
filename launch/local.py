"""Training jobs on this machine: N ranks, supervised, none of which outlives its supervisor.

A job has succeeded when its completion marker is there, never because a process returned 0. Each rank asks the kernel
to be killed when its supervisor dies; when one rank fails or is stuck, the others are ended and its last lines are
shown. A job that crashed is started again as long as that brings newer checkpoints.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field

from launch.job import Machine, TrainingJob
from pipeline import files
from pipeline.config import GivenUp, LaunchError, config
from pipeline.heartbeat import last_beat, place_of
from pipeline.runtime import EXIT_PREEMPTED, PARENT_VARIABLE, free_port

POLL_SECONDS = 0.1
SAVE_SECONDS = 7.0
FAREWELL_SECONDS = 3.0
STACKS_SECONDS = 1.0
HANG_SECONDS = 900.0


@config
class LocalLaunch:
    """Training jobs as `processes` supervised processes on one machine, at most one on each GPU.

    A job none of whose ranks may be stuck for more than `hang_seconds` is ended when one is. One that crashes is
    started again from its last checkpoint, up to `restarts` times without a newer one.
    """

    type: Literal["local"] = "local"
    processes: Annotated[int, Field(ge=1)] = 1
    hang_seconds: Annotated[float, Field(gt=0)] = HANG_SECONDS
    restarts: Annotated[int, Field(ge=0)] = 3

    def ranks(self, machine: Machine) -> int:
        """Those asked for, or fewer where GPUs are, since a GPU serves one; a divisor, to share batches out."""
        if not machine.gpus:
            return self.processes
        most = min(self.processes, machine.gpus)
        return max(n for n in range(1, most + 1) if self.processes % n == 0)

    def claim(self, job_processes: int, threads: int, machine: Machine) -> Machine:
        """The threads of all ranks, and a GPU each."""
        cpus = min(job_processes * threads, machine.cpus)
        return Machine(cpus, min(job_processes, machine.gpus))

    def run(self, job: TrainingJob) -> None:
        """Run a job on this machine."""
        run_job(
            job.file,
            processes=job.processes,
            threads=job.threads,
            hang_seconds=self.hang_seconds,
            restarts=self.restarts,
        )


def run_job(
    job_file: Path,
    *,
    processes: int,
    threads: int | None = None,
    hang_seconds: float = HANG_SECONDS,
    restarts: int = 0,
) -> None:
    """Run `python -m pipeline.train job_file` as `processes` ranks until the completion marker is there.

    A rank that shows no sign of life for `hang_seconds` ends the attempt, at most SAVE_SECONDS and STACKS_SECONDS
    later. After a crash or a hang the job is started again, unless `restarts` in a row brought no newer checkpoint.
    Raises LaunchError with the reason when a rank fails, GivenUp when starting again is of no use. When this
    process is interrupted, the ranks are asked to save and leave, and are killed after SAVE_SECONDS.
    """
    out = Path(files.read_json(job_file)["out"])
    if threads is None:
        told = os.environ.get("OMP_NUM_THREADS")
        threads = int(told or max(len(os.sched_getaffinity(0)) // processes, 1))
    job = TrainingJob(job_file, processes, threads)
    reached, failures = _newest_step(out), 0
    while not (out / "done.json").exists():
        try:
            _attempt(job, out, hang_seconds)
        except _Crash as crash:
            newest = _newest_step(out)
            failures = 1 if newest > reached else failures + 1
            reached = newest
            if restarts == 0:
                raise LaunchError(str(crash)) from None
            if failures > restarts:
                raise GivenUp(
                    f"{crash}; given up, since {restarts} restarts brought no checkpoint newer than step {reached}"
                ) from None


class _Crash(Exception):
    """The job ended in a way that another attempt may not meet again."""


def _newest_step(out: Path) -> int:
    """Steps of the newest checkpoint, intact or not; 0 if there is none."""
    names = [path.name.removeprefix("step-") for path in (out / "checkpoints").glob("step-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _attempt(job: TrainingJob, out: Path, hang_seconds: float) -> None:
    """Run all ranks once."""
    (out / "failure.json").unlink(missing_ok=True)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    logs = [(out / "logs" / f"rank{rank}.log").open("ab") for rank in range(job.processes)]
    ranks: list[subprocess.Popen[bytes]] = []
    codes: list[int | None] = []
    stuck: int | None = None
    for rank in range(job.processes):
        place_of(out, rank).unlink(missing_ok=True)
    try:
        port = free_port()
        for rank, log in enumerate(logs):
            ranks.append(_start(job, rank, port, log))
        codes, stuck = _wait(ranks, _Silence(out, ranks, hang_seconds))
    finally:
        _end(ranks)
        for log in logs:
            log.close()
    if not (out / "done.json").exists():
        raise _failure(out, codes, stuck)


def _start(job: TrainingJob, rank: int, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.processes),
        "LOCAL_WORLD_SIZE": str(job.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(job.threads),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
    }
    # -P: a folder called pipeline/ where the user stands is not ours.
    command = [sys.executable, "-P", "-m", "pipeline.train", str(job.file)]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class _Silence:
    """How long each rank has shown no sign of life, by this process's clock, whatever becomes of the other one."""

    def __init__(
        self, out: Path, ranks: list[subprocess.Popen[bytes]], most_seconds: float
    ) -> None:
        self._out, self._ranks, self._most = out, ranks, most_seconds
        self._heard = [(0, time.monotonic()) for _ in ranks]

    def stuck(self) -> int | None:
        """The rank that holds up the job, if it has been silent for too long: others only wait for it."""
        now, silent = time.monotonic(), []
        for rank, process in enumerate(self._ranks):
            if (beat := last_beat(self._out, rank)) != self._heard[rank][0]:
                self._heard[rank] = beat, now
            if process.poll() is None and now - self._heard[rank][1] > self._most:
                silent.append(rank)
        if not silent:
            return None
        return min(
            silent, key=lambda rank: (not _stopped(self._ranks[rank].pid), self._heard[rank])
        )


def _stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal or a debugger (Linux)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(") ")[2][:1] in ("T", "t")


def _wait(
    ranks: list[subprocess.Popen[bytes]], silence: _Silence
) -> tuple[list[int | None], int | None]:
    """Exit codes once all ranks have left, or soon after the first has failed (None: still there).

    Also the rank that was stuck, if one was; all have then been asked where they stand.
    """
    while True:
        codes = [rank.poll() for rank in ranks]
        if all(code is not None for code in codes):
            return list(codes), None
        if (stuck := silence.stuck()) is not None:
            for rank in ranks:
                rank.send_signal(signal.SIGUSR2)
            time.sleep(STACKS_SECONDS)
            for rank in ranks:
                os.killpg(rank.pid, signal.SIGKILL)  # waiting for each other, they cannot save
            return list(codes), stuck
        if any(code not in (None, 0) for code in codes):
            # The others notice a lost peer by themselves; give them a moment to say so.
            time.sleep(SAVE_SECONDS if EXIT_PREEMPTED in codes else FAREWELL_SECONDS)
            return list(codes), None
        time.sleep(POLL_SECONDS)


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Ask every rank to save and leave, then kill what is left of its process group."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + SAVE_SECONDS
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for rank in ranks:
        if rank.poll() is None:
            os.killpg(rank.pid, signal.SIGKILL)
        rank.wait()


def _failure(out: Path, codes: list[int | None], stuck: int | None) -> Exception:
    """Why the job failed, with the exit code of a rank that could say so itself."""
    if stuck is not None:
        return _Crash(_told(out, stuck, len(codes), "made no progress"))
    if not (out / "failure.json").exists():
        reason = _reason(out, codes)
        return LaunchError(reason) if EXIT_PREEMPTED in codes else _Crash(reason)
    told = files.read_json(out / "failure.json")
    error = LaunchError(told["message"])
    error.exit_code = told.get("exit_code", LaunchError.exit_code)
    return error


def _reason(out: Path, codes: list[int | None]) -> str:
    """One message that names the rank that failed first and what it said last."""
    if EXIT_PREEMPTED in codes:
        return "stopped on request with its state saved; run again to continue"
    failed = {rank: code for rank, code in enumerate(codes) if code not in (None, 0)}
    if not failed:
        return f"all ranks left, but {out / 'done.json'} is not there; see {out / 'logs'}"
    # Of two that failed at once, the one that was killed took the other with it.
    rank = min(failed, key=lambda rank: (failed[rank] >= 0, rank))
    code = failed[rank]
    how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
    return _told(out, rank, len(codes), how)


def _told(out: Path, rank: int, processes: int, how: str) -> str:
    """What happened to a rank and what it said last."""
    log = out / "logs" / f"rank{rank}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line and not line.startswith((" ", "frame #"))]
    last = f": {said[-1][:300]}" if said else ""
    return f"rank {rank} of {processes} {how}{last} (whole log: {log})"
