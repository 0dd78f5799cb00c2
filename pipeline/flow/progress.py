"""How far a running stage is: one small file in its partial folder, written there, read by the run.

A file reaches across machines and processes without a connection, and costs nothing when nobody reads.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline import files

PROGRESS = "progress.json"
WRITE_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units; `began` is where this attempt started with them. Times are seconds since 1970."""

    done: int
    total: int
    unit: str
    figures: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    began: int = 0
    written: float = 0.0

    @property
    def per_second(self) -> float:
        """Units a second in this attempt; 0 while unknown."""
        seconds = self.written - self.started
        return (self.done - self.began) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this pace, or None while unknown."""
        pace = self.per_second
        return (self.total - self.done) / pace if pace > 0 else None


class ProgressFile:
    """Writes `progress.json` into a folder, at most twice a second."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS
        self._first: tuple[str, float, int] | None = None
        self._written = 0.0

    def update(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Say how far the stage is; calls in between two writes cost next to nothing."""
        now = time.time()
        if self._first is None or self._first[0] != unit:
            self._first = (unit, now, done)
        if now - self._written < WRITE_SECONDS:
            return
        self._written = now
        _, started, began = self._first
        progress = Progress(done, total, unit, figures, started, began, now)
        beside = self.path.with_name(f".{PROGRESS}.{os.getpid()}")
        beside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        beside.replace(self.path)


def read_progress(folder: Path) -> Progress | None:
    """The newest progress in `folder`, or None when there is none."""
    try:
        return Progress(**files.read_json(folder / PROGRESS))
    except (OSError, ValueError, TypeError):
        return None


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
