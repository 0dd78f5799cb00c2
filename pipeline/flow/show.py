"""A run as it was understood: every key with its value, and where it differs from the default."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import as_dict
from pipeline.flow.run_file import RunFile

_REQUIRED = object()


def run_as_dict(run_file: RunFile) -> dict[str, Any]:
    """The run as plain data, every stage with all its keys."""
    head = as_dict(run_file.head)
    stages = {name: as_dict(entry.config) for name, entry in run_file.stages.items()}
    return {**head, "name": run_file.name, "stages": stages}


def run_as_lines(run_file: RunFile) -> Iterator[str]:
    """The run as YAML that could be run again; values that are not the default say what that is."""
    yield f"name: {_scalar(run_file.name)}"
    for field in dataclasses.fields(run_file.head):
        if field.name not in ("name", "stages"):
            value, default = getattr(run_file.head, field.name), _default(field)
            yield from _lines(field.name, value, default, 0)
    yield "stages:"
    for name, entry in run_file.stages.items():
        yield from _lines(name, entry.config, _REQUIRED, 1)


def _lines(key: str, value: Any, default: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if not dataclasses.is_dataclass(value):
        told = (
            "" if default is _REQUIRED or default == value else f"  # default: {_scalar(default)}"
        )
        yield f"{indent}{key}: {_scalar(value)}{told}"
        return
    yield f"{indent}{key}:"
    same = type(default) is type(value)
    for field in dataclasses.fields(value):
        inner = getattr(default, field.name) if same else _default(field)
        yield from _lines(field.name, getattr(value, field.name), inner, depth + 1)


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a config field, however it was given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    given = field.default
    if given is dataclasses.MISSING:
        return _REQUIRED
    # A pydantic Field stands in for the value it describes.
    if hasattr(given, "get_default"):
        return _REQUIRED if given.is_required() else given.get_default(call_default_factory=True)
    return given


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else as_dict(value)
