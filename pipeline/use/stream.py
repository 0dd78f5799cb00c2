"""Records in, results out: lines or JSON lines, a window at a time, so that any number of them needs little memory."""

import contextlib
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TextIO

import numpy as np

from pipeline.complaints import nearest, shown
from pipeline.config import ConfigError, DataError

Shape = Literal["lines", "jsonl"]
Place = Path | None  # a file; None: standard input or output


class Record(NamedTuple):
    """One thing that was given: its number, from 0, where it stands, and its fields."""

    number: int
    place: str
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """The field `name`; DataError when there is none, or it is no text."""
        if name not in self.fields:
            names = [str(one) for one in self.fields]
            raise DataError(
                f"{self.place}: no field {name!r}{nearest(name, names)}; there are: {', '.join(names)}"
            )
        value = self.fields[name]
        if not isinstance(value, str):
            raise DataError(f"{self.place}: {name}: needs a text, holds {shown(value)}")
        return value


def shape_of(path: Place) -> Shape:
    """How a file is read unless it is said: by its name."""
    return "jsonl" if path is not None and path.suffix in (".jsonl", ".ndjson") else "lines"


def records(path: Place, shape: Shape, field: str) -> Iterator[Record]:
    """What is in a file, one by one: objects of JSON lines, or lines as texts in `field`.

    Empty lines are texts, but no objects. DataError says which line cannot be read.
    """
    name = "standard input" if path is None else str(path)
    with _source(path) as file:
        lines = enumerate(file, start=1)
        numbers = itertools.count()
        try:
            for line, content in lines:
                place = f"{name}:{line}"
                if shape == "lines":
                    yield Record(next(numbers), place, {field: content.rstrip("\r\n")})
                elif content.strip():
                    yield Record(next(numbers), place, _object(content, place))
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: is not UTF-8 ({error.reason})") from None


def windows(all_of: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Up to `size` records at a time."""
    rest = iter(all_of)
    while window := list(itertools.islice(rest, size)):
        yield window


@contextlib.contextmanager
def results(path: Place) -> Iterator[TextIO]:
    """Where results are written: a file that is there when all of them are, or standard output."""
    if path is None:
        yield sys.stdout
        return
    with _replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()  # flushed, and `file` left open to be made durable


class Vectors:
    """A `.npy` file that grows: float32 [rows, width]."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._shape = (0, 0)
        self._write_header()

    def add(self, rows: np.ndarray) -> None:
        """Append rows [n, width]."""
        self._shape = (self._shape[0] + len(rows), rows.shape[1])
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())

    def finish(self) -> None:
        """Say in the header how many rows there are. NumPy leaves room for that number."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        facts = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, facts)


@contextlib.contextmanager
def vectors(path: Path) -> Iterator[Vectors]:
    """A `.npy` file that is there when all rows are."""
    with _replacing(path) as file:
        made = Vectors(file)
        yield made
        made.finish()


def as_line(fields: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(fields, ensure_ascii=False) + "\n"


def plain_line(text: str) -> str:
    """`text` as one line, whatever is in it."""
    return " ".join(text.splitlines()) + "\n"


@contextlib.contextmanager
def _source(path: Place) -> Iterator[TextIO]:
    if path is None:
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
        return
    try:
        file = path.open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield file


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path`, which takes its name when everything went well and is gone otherwise."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = beside.open("wb")
    except OSError as error:
        raise ConfigError([f"--out {path}: cannot be written: {error.strerror}"]) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{place}: needs an object with fields, holds {shown(found)}")
    return found
