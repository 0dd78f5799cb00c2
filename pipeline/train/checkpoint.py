"""Checkpoints that are whole or absent, verified when read, and free of pickle.

`checkpoints/step-00000120/` holds `state.safetensors` (float32 tensors by parameter name, see `engine`) and
`manifest.json` (step, sizes, SHA-256 of every file, settings). It is written beside its name, fsynced, renamed, and
only then is `latest` switched. Reading takes the newest folder whose manifest and hashes hold, and says so when
that is not the newest one. The manifest is the truth; `latest` is for people.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from pipeline import files
from pipeline.train.engine import EngineState

STATE_FILE = "state.safetensors"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    folder: Path
    step: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the `newest` so many, every step divisible by `every`, and the best.

    `best` names the held-out figure, a fact of checkpoints, whose smallest value stays, or the largest with a `sign`
    of -1.
    """

    newest: int
    every: int | None = None
    best: str | None = None
    sign: int = 1


def save(
    root: Path, step: int, state: EngineState, *, facts: Mapping[str, Any], keep: Keep
) -> Path:
    """Write the checkpoint of `step` finished steps and remove those that `keep` does not name."""
    final = root / name_of(step)
    beside = files.fresh_folder(root / f"{final.name}.partial")
    path = beside / STATE_FILE
    _write(path, state)
    _sync_file(path)
    manifest = {
        "step": step,
        "optimizer_step": state.optimizer_step,
        "files": {STATE_FILE: {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}},
        "facts": dict(facts),
    }
    files.write_json(beside / MANIFEST_FILE, {**manifest, "sha256": files.digest_of(manifest)})
    if final.exists():
        shutil.rmtree(final)
    files.publish(beside, final)
    files.write_text(root / "latest", final.name + "\n")
    _tidy(root, final.name, keep)
    return final


def _write(path: Path, state: EngineState) -> None:
    """The tensors as one file; OSError where the disk refuses them, which safetensors calls by a name of its own."""
    try:
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.tensors.items()}, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from None


def remove_unfinished(root: Path) -> None:
    """Remove what killed processes and full disks left half done."""
    for leftover in root.glob("step-*.*"):
        shutil.rmtree(leftover, ignore_errors=True)  # a disk that refuses files may refuse this too


def name_of(step: int) -> str:
    """Folder of the checkpoint of `step` finished steps."""
    return f"step-{step:08d}"


def best_of(root: Path, name: str, sign: int = 1) -> Path | None:
    """The checkpoint with the smallest held-out `name` (times `sign`), the earliest of several."""
    found = held_out_of(root, name)
    return min(found, key=lambda folder: (sign * found[folder], folder), default=None)


def best_value(root: Path, name: str, sign: int = 1) -> float:
    """The smallest held-out `name` (times `sign`) among the checkpoints; inf if there is none."""
    return min((sign * value for value in held_out_of(root, name).values()), default=math.inf)


def held_out_of(root: Path, name: str) -> dict[Path, float]:
    """The held-out `name` of the checkpoints that have it, as their manifests say."""
    figures = {folder: facts_of(folder).get("held_out", {}) for folder in folders_of(root)}
    return {folder: found[name] for folder, found in figures.items() if name in found}


def newest_intact(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and one line for each newer one that does not."""
    complaints: list[str] = []
    for folder in folders_of(root):
        reason = damage_of(folder)
        if reason is None:
            manifest = files.read_json(folder / MANIFEST_FILE)
            return Checkpoint(folder, manifest["step"], manifest["facts"]), complaints
        complaints.append(f"{folder}: not used: {reason}")
    return None, complaints


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every byte is as its manifest says."""
    try:
        manifest = files.read_json(folder / MANIFEST_FILE)
        listed = manifest["files"]
        if manifest.pop("sha256") != files.digest_of(manifest):
            return f"{MANIFEST_FILE} does not match its own SHA-256"
        if manifest["step"] != int(folder.name.removeprefix("step-")):
            return f"its manifest is of step {manifest['step']}"
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return f"{MANIFEST_FILE} is missing or unreadable"
    for name, facts in listed.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != facts["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, needs {facts['bytes']}"
        if files.sha256_of(path) != facts["sha256"]:
            return f"{name} does not match its SHA-256"
    return None


def read_state(checkpoint: Checkpoint) -> EngineState:
    """The engine state of a verified checkpoint."""
    manifest = files.read_json(checkpoint.folder / MANIFEST_FILE)
    tensors = safetensors.torch.load_file(checkpoint.folder / STATE_FILE)
    return EngineState(tensors, manifest["optimizer_step"])


def folders_of(root: Path) -> list[Path]:
    """Checkpoint folders, newest first; half-written ones have another ending and do not count."""
    if not root.exists():
        return []
    found = [p for p in root.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(found, reverse=True)


def _tidy(root: Path, newest: str, keep: Keep) -> None:
    """Remove the checkpoints up to `newest` that nothing keeps, and what killed processes left half done.

    A later one does not count: it was found damaged, or `newest` would not be made again.
    """
    remove_unfinished(root)
    best = best_of(root, keep.best, keep.sign) if keep.best else None
    for old in [folder for folder in folders_of(root) if folder.name <= newest][keep.newest :]:
        step = int(old.name.removeprefix("step-"))
        if old != best and not (keep.every and step % keep.every == 0):
            _remove(old)


def facts_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says of the job, {} if it cannot be read."""
    try:
        facts: dict[str, Any] = files.read_json(folder / MANIFEST_FILE)["facts"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    return facts


def _remove(folder: Path) -> None:
    # Renamed first, so that a reader never meets a folder that is half deleted.
    doomed = folder.with_name(f"{folder.name}.removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
