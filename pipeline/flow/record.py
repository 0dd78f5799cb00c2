"""What a finished stage says about itself, and the fingerprint that decides whether it must run again.

The fingerprint covers everything that decides the output: kind, version, config, the content of the
files read from outside, and the fingerprints of the stages read. A single reference counts by what it
names, not by its name; in a list of references the names count too, since such a stage writes them.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config import DataError, as_dict
from pipeline.flow.references import references, replaced
from pipeline.flow.stage import Remote

RECORD = "record.json"
SETTLED_SECONDS = 2.0
# Checkpoints are large and have checksums of their own; tracking goes on after a stage is finished.
UNCHECKED = ("checkpoints", "tracking.json")


@dataclass(frozen=True)
class Record:
    """The content of `record.json`. Times are seconds since 1970 (UTC) and seconds."""

    stage: str
    kind: str
    makes: str
    version: int
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, str]
    counts: Mapping[str, Any]
    started: float
    seconds: float
    host: str
    revision: str
    libraries: Mapping[str, str]
    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write `record.json` into `folder`."""
        files.write_json(folder / RECORD, dataclasses.asdict(self))


def read_record(folder: Path) -> Record | None:
    """The record in `folder`, or None when there is none that can be read."""
    try:
        return Record(**files.read_json(folder / RECORD))
    except (OSError, ValueError, TypeError):
        return None


def fingerprint_of(stage: Any, inputs: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """Hex SHA-256 of a stage; `inputs` are the fingerprints of the stages it names."""
    body: Any = as_dict(stage)
    for reference in references(stage):
        prints: Any = [[name, inputs[name]] for name in reference.names]
        if not reference.many:
            prints = [inputs[name] for name in reference.names]
        body = replaced(body, reference.path, prints)
    return files.digest_of(
        {
            "kind": stage.kind,
            "version": stage.version,
            "config": body,
            "sources": dict(sources),
        }
    )


class SourceDigests:
    """SHA-256 of files outside the store, remembered by path, size and time of change."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        try:
            self.known: dict[str, list[Any]] = files.read_json(cache)
        except (OSError, ValueError):
            self.known = {}
        self.new = False

    def of_stage(self, stage: Any) -> dict[str, str]:
        """Digest of each source of a stage, by its path or address as the config gives it."""
        digests: dict[str, str] = {}
        for path in stage.sources():
            if isinstance(path, Remote):
                digests[path.url] = path.mark
                continue
            if not path.exists():
                raise DataError(f"source {path}: no such file or folder")
            inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            digests |= {file.as_posix(): self._digest(file) for file in inside}
        return digests

    def _digest(self, path: Path) -> str:
        try:
            facts = path.stat()
            key, mark = str(path.resolve()), [facts.st_size, facts.st_mtime_ns]
            if self.known.get(key, [])[:2] == mark:
                return str(self.known[key][2])
            digest = files.sha256_of(path)
        except OSError as error:
            raise DataError(f"source {path}: cannot be read: {error.strerror}") from None
        # A file changed just now may change again within one tick of its clock.
        if time.time() - facts.st_mtime > SETTLED_SECONDS:
            self.known[key] = [*mark, digest]
            self.new = True
        return digest

    def save(self) -> None:
        """Remember new digests for the next time, where that can be written."""
        if self.new:
            with contextlib.suppress(OSError):
                files.write_json(self.cache, self.known)
