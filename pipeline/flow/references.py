"""Which stages a stage config names: the edges of the graph, found in the types.

A field marked with `Reads` holds a stage's name, or several. Such fields may sit anywhere inside the
config, for example in a variant of an objective, so values and their declared types are walked
together.
"""

import dataclasses
import functools
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pipeline.flow.stage import Reads

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Reference:
    """One marked field: where it is, what it may name, and the names it holds now."""

    path: KeyPath
    reads: Reads
    names: tuple[str, ...]
    many: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """The path as keys of a document."""
        return tuple(map(str, self.path))


def references(value: Any) -> list[Reference]:
    """Every reference in a config, in the order of its fields."""
    return list(_walk(value, ()))


def _walk(value: Any, path: KeyPath) -> Iterator[Reference]:
    if dataclasses.is_dataclass(value):
        owner: Any = type(value)
        for name, (hint, reads) in _fields(owner).items():
            inside = getattr(value, name)
            if reads is None:
                yield from _walk(inside, (*path, name))
            else:
                many = "tuple" in str(hint)
                names = inside if many else (inside,)
                yield Reference(
                    (*path, name), reads, tuple(n for n in names or () if n is not None), many
                )
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, key))


@functools.cache
def _fields(owner: Hashable) -> Mapping[str, tuple[Any, Reads | None]]:
    """Declared type and mark of each field of a config class."""
    hints = typing.get_type_hints(owner, include_extras=True)
    plain = typing.get_type_hints(owner)
    return {
        field.name: (plain[field.name], _mark(hints[field.name]))
        for field in dataclasses.fields(cast(Any, owner))
    }


def _mark(hint: Any) -> Reads | None:
    if typing.get_origin(hint) is Annotated:
        for extra in typing.get_args(hint)[1:]:
            if isinstance(extra, Reads):
                return extra
    for inner in typing.get_args(hint):
        if (found := _mark(inner)) is not None:
            return found
    return None


def replaced(data: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy of plain `data` with the value at `path` replaced; the rest is shared."""
    if not path:
        return value
    copy = dict(data or {}) if not isinstance(data, list) else list(data)
    key: Any = path[0]
    inside = copy.get(key) if isinstance(copy, dict) else copy[key]
    copy[key] = replaced(inside, path[1:], value)
    return copy


def cycle_in(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """The names along one cycle, first name repeated at the end; empty when there is none."""
    finished: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in finished:
            return []
        for other in graph.get(name, ()):
            if found := visit(other, [*trail, name]):
                return found
        finished.add(name)
        return []

    for name in graph:
        if found := visit(name, []):
            return found
    return []


def in_order(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Names so that each comes after those it needs, otherwise as they were given."""
    assert not cycle_in(graph)
    order: dict[str, None] = {}

    def place(name: str) -> None:
        if name not in order:
            for other in graph[name]:
                place(other)
            order[name] = None

    for name in graph:
        place(name)
    return list(order)
