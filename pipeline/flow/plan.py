"""The plan: for each stage of a run whether it is done, missing or stale, and why.

Stale means that this stage was made before, from something else; the newest record of the same name
says which key, input or source file changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.complaints import shown
from pipeline.config import DataError, as_dict
from pipeline.flow.record import RECORD, Record, fingerprint_of, read_record
from pipeline.flow.references import references
from pipeline.flow.run_file import RunFile
from pipeline.flow.store import Holder, Store

State = Literal["done", "missing", "stale"]


@dataclass(frozen=True)
class Step:
    """One stage of the plan. `inputs` are the steps it reads; `sources` digests by path."""

    name: str
    stage: Any
    inputs: Mapping[str, "Step"]
    sources: Mapping[str, str]
    fingerprint: str
    folder: Path
    partial: Path
    state: State
    reasons: tuple[str, ...]
    holder: Holder | None

    @property
    def label(self) -> str:
        """Name of the output folder."""
        return self.folder.name


def make_plan(run_file: RunFile, store: Store) -> list[Step]:
    """The steps of a run in order; raise DataError naming every source that is missing."""
    digests = store.digests()
    steps: dict[str, Step] = {}
    problems: list[str] = []
    for name, entry in run_file.stages.items():
        try:
            sources = digests.of_stage(entry.config)
        except DataError as error:
            problems += [f"{entry.place}: stages.{name}: {line}" for line in str(error).split("\n")]
            sources = {}
        inputs = {need: steps[need] for need in entry.needs}
        steps[name] = _step(name, entry.config, inputs, sources, store)
    if problems:
        raise DataError("\n".join(problems))
    digests.save()
    return list(steps.values())


def _step(
    name: str, stage: Any, inputs: Mapping[str, Step], sources: Mapping[str, str], store: Store
) -> Step:
    prints = {need: step.fingerprint for need, step in inputs.items()}
    fingerprint = fingerprint_of(stage, prints, sources)
    folder = store.folder(name, fingerprint)
    state, reasons = _judged(name, stage, prints, sources, folder, fingerprint, store)
    return Step(
        name,
        stage,
        inputs,
        sources,
        fingerprint,
        folder,
        store.partial(name, fingerprint),
        state,
        reasons,
        store.lock(name, fingerprint).holder(),
    )


def is_done(folder: Path, fingerprint: str) -> bool:
    """Whether `folder` holds the finished output with this fingerprint."""
    record = read_record(folder)
    if record is None and folder.exists():
        raise DataError(
            f"{folder}: has no readable {RECORD}, so it was not finished by a run; move it away"
        )
    return record is not None and record.fingerprint == fingerprint


def _judged(
    name: str,
    stage: Any,
    prints: Mapping[str, str],
    sources: Mapping[str, str],
    folder: Path,
    fingerprint: str,
    store: Store,
) -> tuple[State, tuple[str, ...]]:
    if is_done(folder, fingerprint):
        return "done", ()
    earlier = store.records(name)
    if not earlier:
        return "missing", ()
    return "stale", tuple(_changes(earlier[0], stage, prints, sources))


def _changes(
    old: Record, stage: Any, prints: Mapping[str, str], sources: Mapping[str, str]
) -> Iterator[str]:
    """What differs from an earlier record, one line each."""
    if old.kind != stage.kind:
        yield f"kind: {old.kind} -> {stage.kind}"
        return
    if old.version != stage.version:
        yield f"what kind {old.kind} makes changed: version {old.version} -> {stage.version}"
    named = {reference.keys for reference in references(stage)}
    before, after = _flat(old.config), _flat(as_dict(stage))
    for keys in [*after, *(keys for keys in before if keys not in after)]:
        if before.get(keys, _ABSENT) != after.get(keys, _ABSENT) and not _within(keys, named):
            yield f"{'.'.join(keys)}: {_told(before, keys)} -> {_told(after, keys)}"
    for reference in references(stage):
        yield from _input_changes(old, reference.names, prints, before, reference.keys)
    for path in sorted(set(old.sources) | set(sources)):
        if old.sources.get(path) != sources.get(path):
            how = "is new" if path not in old.sources else "changed"
            yield f"source {path} {how if path in sources else 'is gone'}"


_ABSENT = object()


def _told(flat: Mapping[tuple[str, ...], Any], keys: tuple[str, ...]) -> str:
    return shown(flat[keys]) if keys in flat else "(absent)"


def _within(keys: tuple[str, ...], named: set[tuple[str, ...]]) -> bool:
    return any(keys[: len(path)] == path for path in named)


def _input_changes(
    old: Record,
    names: tuple[str, ...],
    prints: Mapping[str, str],
    before: Mapping[tuple[str, ...], Any],
    keys: tuple[str, ...],
) -> Iterator[str]:
    """Changes of what one reference names; a stage that only has another name now is no change."""
    held = before.get(keys, ())
    earlier = [held] if isinstance(held, str) else list(held or ())
    was = [old.inputs[name]["fingerprint"] for name in earlier if name in old.inputs]
    if was == [prints[name] for name in names]:
        return
    groups = {
        "now reads": [name for name in names if name not in earlier],
        "no longer reads": [name for name in earlier if name not in names],
        "changed:": [
            name
            for name in names
            if name in earlier and old.inputs[name]["fingerprint"] != prints[name]
        ],
    }
    for words, group in groups.items():
        if group:
            yield f"{'.'.join(keys)}: {words} {', '.join(group)}"


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Leaves of nested mappings by their keys; lists are leaves."""
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[tuple[str, ...], Any] = {}
    for key, inside in value.items():
        flat |= _flat(inside, (*path, str(key)))
    return flat
