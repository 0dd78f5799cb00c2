"""The store: one folder a finished stage, beside it what is unfinished and who works on it.

`<store>/<stage>-<8>` is finished and never changes. `<store>/.partial/<stage>-<8>` is being made, or
waits for a run to continue it. `<store>/.locks/<stage>-<8>` is locked by the run that makes it; the
kernel lets go of the lock when that process dies, however it dies.
"""

import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import files
from pipeline.flow.record import Record, SourceDigests, read_record

SHORT = 8
# In a partial folder: what is being made, and how it failed.
TASK, ERROR, ERROR_LOG = "running.json", "error.json", "error.log"
State = Literal["done", "running", "interrupted", "failed"]


@dataclass(frozen=True)
class Holder:
    """The run that holds a lock."""

    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class Lock:
    """An exclusive lock on a file, held by this process until released or dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write who holds it; False when another process has it."""
        assert self._handle is None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        holder = Holder(os.getpid(), socket.gethostname(), round(time.time(), 3))
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(dataclasses.asdict(holder)).encode(), 0)
        self._handle = handle
        return True

    def release(self) -> None:
        """Let go."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def holder(self) -> Holder | None:
        """Who holds the lock now, or None when nobody does."""
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(handle, 4096, 0)
            return Holder(**json.loads(text)) if text else Holder(0, "unknown", 0.0)
        finally:
            os.close(handle)
        return None


class Presence:
    """A shared lock that every worker on a partial folder holds while it may write there.

    A run that was killed leaves workers for a moment; the next run waits until they are gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Presence":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_SH)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def alone(self) -> bool:
        """Whether no worker is left."""
        lock = Lock(self.path)
        free = lock.acquire()
        lock.release()
        return free


@dataclass(frozen=True)
class Output:
    """One folder of the store, as `theseum ls` shows it."""

    name: str
    kind: str
    state: State
    detail: str
    size_bytes: int
    changed: float


class Store:
    """Paths and records of a store folder; nothing is created before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where the finished output is."""
        return self.root / f"{stage}-{fingerprint[:SHORT]}"

    def partial(self, stage: str, fingerprint: str) -> Path:
        """Where the output is made."""
        return self.root / ".partial" / f"{stage}-{fingerprint[:SHORT]}"

    def lock(self, stage: str, fingerprint: str) -> Lock:
        """The lock of the run that makes it."""
        return Lock(self.root / ".locks" / f"{stage}-{fingerprint[:SHORT]}")

    def presence(self, stage: str, fingerprint: str) -> Presence:
        """The shared lock of the workers that make it."""
        return Presence(self.root / ".locks" / f"{stage}-{fingerprint[:SHORT]}.workers")

    def digests(self) -> SourceDigests:
        """Digests of source files known from earlier."""
        return SourceDigests(self.root / ".cache" / "digests.json")

    def records(self, stage: str) -> list[Record]:
        """Records of finished outputs of a stage, newest first."""
        found = [read_record(folder) for folder in self.root.glob(f"{stage}-*")]
        mine = [record for record in found if record is not None and record.stage == stage]
        return sorted(mine, key=lambda record: record.started + record.seconds, reverse=True)

    def outputs(self) -> Iterator[Output]:
        """Everything in the store, finished or not, by name."""
        for folder in sorted(self.root.glob("*/record.json")):
            if (record := read_record(folder.parent)) is not None:
                changed = record.started + record.seconds
                size = files.bytes_of(folder.parent)
                yield Output(folder.parent.name, record.kind, "done", "", size, changed)
        for folder in sorted((self.root / ".partial").glob("*")):
            yield self._unfinished(folder)

    def _unfinished(self, folder: Path) -> Output:
        holder = Lock(self.root / ".locks" / folder.name).holder()
        state: State = "interrupted"
        detail = "run again to continue"
        if holder is not None:
            state, detail = "running", str(holder)
        elif (folder / ERROR).exists():
            state, detail = "failed", str(folder / ERROR_LOG)
        job: dict[str, Any] = {}
        if (folder / TASK).exists():
            job = files.read_json(folder / TASK)
        return Output(
            folder.name,
            str(job.get("kind", "")),
            state,
            detail,
            files.bytes_of(folder),
            folder.stat().st_mtime,
        )
