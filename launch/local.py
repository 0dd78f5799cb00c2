"""Training jobs on this machine: N ranks, supervised, none of which outlives its supervisor.

A job has succeeded when its completion marker is there, never because a process returned 0. Each rank asks the kernel
to be killed when its supervisor dies; when one rank fails, the others are ended and its last lines are shown.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from pipeline import files
from pipeline.config import LaunchError
from pipeline.runtime import EXIT_PREEMPTED, PARENT_VARIABLE, free_port

POLL_SECONDS = 0.1
SAVE_SECONDS = 7.0
FAREWELL_SECONDS = 3.0


def run_job(job_file: Path, *, processes: int) -> None:
    """Run `python -m pipeline.train job_file` as `processes` ranks until the completion marker is there.

    Raises LaunchError with the reason when a rank fails. When this process is interrupted, the ranks are asked to
    save and leave, and are killed after SAVE_SECONDS.
    """
    out = Path(files.read_json(job_file)["out"])
    if (out / "done.json").exists():
        return
    (out / "failure.json").unlink(missing_ok=True)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    logs = [(out / "logs" / f"rank{rank}.log").open("ab") for rank in range(processes)]
    ranks: list[subprocess.Popen[bytes]] = []
    codes: list[int | None] = []
    try:
        port = free_port()
        for rank, log in enumerate(logs):
            ranks.append(_start(job_file, rank, processes, port, log))
        codes = _wait(ranks)
    finally:
        _end(ranks)
        for log in logs:
            log.close()
    if not (out / "done.json").exists():
        raise _failure(out, codes)


def _start(
    job_file: Path, rank: int, processes: int, port: int, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    cores = len(os.sched_getaffinity(0))
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(cores // processes, 1))),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
    }
    # -P: a folder called pipeline/ where the user stands is not ours.
    command = [sys.executable, "-P", "-m", "pipeline.train", str(job_file)]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait(ranks: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit codes once all ranks have left, or soon after the first has failed (None: still there)."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if all(code is not None for code in codes):
            return list(codes)
        if any(code not in (None, 0) for code in codes):
            # The others notice a lost peer by themselves; give them a moment to say so.
            time.sleep(SAVE_SECONDS if EXIT_PREEMPTED in codes else FAREWELL_SECONDS)
            return list(codes)
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


def _failure(out: Path, codes: list[int | None]) -> LaunchError:
    """Why the job failed, with the exit code of a rank that could say so itself."""
    if not (out / "failure.json").exists():
        return LaunchError(_reason(out, codes))
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
    log = out / "logs" / f"rank{rank}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line and not line.startswith((" ", "frame #"))]
    how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
    last = f": {said[-1][:300]}" if said else ""
    return f"rank {rank} of {len(codes)} {how}{last} (whole log: {log})"
