"""Files that are whole or absent: atomic writes, JSON lines, content hashes.

Everything Theseum hands from one process to another is a file; a reader must never see half of one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically: a reader sees the old file or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically and durably (fsync before the rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json_lines(path: Path, rows: Iterator[Mapping[str, Any]] | list[Any]) -> None:
    """Write one JSON document a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the documents of a JSON-lines file; a torn last line (no newline) is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and line.strip():
                yield json.loads(line)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def checksums_of(folder: Path, *, without: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of the files below `folder` by relative path, in order; not of what is in `without`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in files]
    return {
        name.as_posix(): sha256_of(folder / name) for name in names if name.parts[0] not in without
    }


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(partial: Path, final: Path) -> None:
    """Give a finished folder its final name; `final` must not exist yet."""
    final.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(final)
    sync_folder(final.parent)


def fresh_folder(folder: Path) -> Path:
    """An empty folder at `folder`, whatever was there before."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def bytes_of(folder: Path) -> int:
    """Total size in bytes of the files below `folder`; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
