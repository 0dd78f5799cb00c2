"""Cleans up after a run, however it ended: a process that outlives it by a moment.

Started with the run's temporary folder as its argument and a pipe from the run as its standard input.
When the pipe closes the run is over or dead; what still has files of that folder open is killed, and
the folder is removed. Ray's own agents outlive a killed driver by about a minute otherwise. Runs as a
script of its own, so it needs nothing but Python.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.05


def start_keeper(folder: Path) -> subprocess.Popen[bytes]:
    """Watch this process from another one; closing the keeper's `stdin` makes it clean up."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(Path(__file__).resolve()), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def users_of(folder: Path) -> list[int]:
    """Processes that have a file below `folder` open."""
    prefix = f"{folder}/"
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if any(target.startswith(prefix) for target in _open_files(entry / "fd"))
    ]


def _open_files(handles: Path) -> list[str]:
    targets = []
    with contextlib.suppress(OSError):
        for handle in handles.iterdir():
            with contextlib.suppress(OSError):
                targets.append(str(handle.readlink()))
    return targets


def clean(folder: Path, *spared: int) -> None:
    """Kill the users of `folder`, except those spared, until there are none, and remove it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while users := set(users_of(folder)) - set(spared):
        for pid in users:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def keep(folder: Path, pipe: IO[bytes], *spared: int) -> None:
    """Wait for the end of `pipe`, then clean up."""
    pipe.read()
    clean(folder, *spared)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.stdin.buffer, os.getpid(), os.getppid())
