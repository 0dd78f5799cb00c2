"""The journal: what a job reports, appended to a local file and nowhere else.

Training never talks to a tracking server. It appends lines to `journal.jsonl`; whoever runs the job
ships them to MLflow (see `mlflow`), now or later, from this machine or another. A step is reported
once: after a restart, steps that are already in the journal are not written again.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files

SYNC_SECONDS = 1.0


class Journal:
    """An append-only JSON-lines file with numbered entries; safe against kill -9 at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.sequence, self._reported = _recover(path)
        self._file = path.open("a", encoding="utf-8")
        self._synced = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Report values measured after `step` finished steps; names already reported for it are left out."""
        new = {k: v for k, v in values.items() if step > self._reported.get(k, -1)}
        if new:
            self._reported.update(dict.fromkeys(new, step))
            self._append({"type": "metrics", "step": step, "values": new})

    def note(self, **facts: Any) -> None:
        """Report facts about this attempt, such as what precision was chosen."""
        self._append({"type": "note", **facts})

    def _append(self, entry: dict[str, Any]) -> None:
        line = {"seq": self.sequence, "time": round(time.time(), 3), **entry}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        self.sequence += 1
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Make everything durable."""
        os.fsync(self._file.fileno())
        self._file.close()


def _recover(path: Path) -> tuple[int, dict[str, int]]:
    """Cut off a torn last line; return the next number and the last step reported for each name."""
    if not path.exists():
        return 0, {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    sequence, reported = 0, {}
    for entry in files.read_json_lines(path):
        sequence = entry["seq"] + 1
        if entry["type"] == "metrics":
            reported.update(dict.fromkeys(entry["values"], entry["step"]))
    return sequence, reported
