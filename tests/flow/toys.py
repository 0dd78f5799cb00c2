"""Toy stages for the tests of the flow, and the command line that knows them (run as a script)."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

import pipeline.stages
from pipeline.cli import main
from pipeline.config import DataError, config
from pipeline.files import write_json, write_text
from pipeline.flow.stage import Conflict, Reads, Work


@config
class Write:
    """Makes a corpus of one file; notes when it began and ended. `busy`: cannot be interrupted."""

    kind: Literal["write"] = "write"
    text: str
    seconds: float = 0.0
    busy: bool = False
    files: tuple[Path, ...] = ()
    makes: ClassVar[str] = "corpus"
    claims: ClassVar[str] = "cpu"
    version: ClassVar[int] = 1

    def sources(self) -> Sequence[Path]:
        return self.files

    def run(self, work: Work) -> dict[str, Any]:
        began = time.time()
        deadline = time.monotonic() + self.seconds
        if self.busy:
            # Like a library's own loop: an interruption cannot get in.
            time.sleep(self.seconds)
        while time.monotonic() < deadline:
            time.sleep(0.02)
            work.progress(1, 2, "halves", loss=0.5, tokens_per_second=1e4)
        write_text(work.out / "text", self.text)
        return {"began": began, "ended": time.time()}


@config
class Letters:
    """Variant of `Count` settings."""

    type: Literal["letters"] = "letters"
    least: Annotated[int, Field(ge=0)] = 1


@config
class Words:
    """Variant of `Count` settings that names another stage."""

    type: Literal["words"] = "words"
    dictionary: Annotated[str, Reads("corpus")]


def unit(item: tuple[Path, int, float]) -> int:
    """Write one file, once; every call that does is noted."""
    folder, number, seconds = item
    made = folder / f"unit-{number}"
    if not made.exists():
        time.sleep(seconds)
        with (folder / "calls").open("a") as calls:
            calls.write(f"{number}\n")
        write_text(made, str(number))
    return number


@config
class Count:
    """Makes tokens in several units."""

    kind: Literal["count"] = "count"
    corpus: Annotated[str, Reads("corpus")]
    units: int = 3
    seconds: float = 0.0
    seed: int = 0
    how: Annotated[Letters | Words, Field(discriminator="type")] = Field(default_factory=Letters)
    makes: ClassVar[str] = "tokens"
    claims: ClassVar[str] = "units"
    version: ClassVar[int] = 1

    def sources(self) -> Sequence[Path]:
        return ()

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        assert stages[self.corpus].makes == "corpus"
        if self.units < 1 and processes == 1:
            yield ("units",), f"got {self.units}; with one process there must be one"

    def run(self, work: Work) -> dict[str, Any]:
        assert (work.inputs[self.corpus] / "text").exists()
        items = [(work.out, number, self.seconds) for number in range(self.units)]
        return {"order": list(work.map(unit, items, unit="units"))}


def deadly_unit(number: int) -> int:
    """Take the worker down, as a machine that runs out of memory would."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def buried(number: int) -> int:
    """Stands for a unit that was given up."""
    return -number


@config
class Deadly:
    """One of its units takes down every worker; with `mourned` the stage goes on without it."""

    kind: Literal["deadly"] = "deadly"
    mourned: bool
    makes: ClassVar[str] = "tokens"
    claims: ClassVar[str] = "units"
    version: ClassVar[int] = 1

    def sources(self) -> Sequence[Path]:
        return ()

    def run(self, work: Work) -> dict[str, Any]:
        lost = buried if self.mourned else None
        results = work.map(deadly_unit, range(6), unit="units", lost=lost)
        return {"order": list(results)}


def broken_unit(number: int) -> int:
    """Refuse its data."""
    raise DataError(f"record {number} is not text")


@config
class Broken:
    """Fails, in itself or in a unit."""

    kind: Literal["broken"] = "broken"
    corpus: Annotated[str, Reads("corpus")]
    where: Literal["stage", "unit"] = "stage"
    makes: ClassVar[str] = "tokens"
    claims: ClassVar[str] = "units"
    version: ClassVar[int] = 1

    def sources(self) -> Sequence[Path]:
        return ()

    def run(self, work: Work) -> dict[str, Any]:
        if self.where == "unit":
            list(work.map(broken_unit, [7], unit="records"))
        return {"nothing": 1 // 0}


@config
class Compare:
    """Reads one stage and any number of others."""

    kind: Literal["compare"] = "compare"
    first: Annotated[str | None, Reads("tokens", "corpus")] = None
    others: Annotated[tuple[str, ...], Reads("tokens")] = ()
    makes: ClassVar[str] = "results"
    claims: ClassVar[str] = "cpu"
    version: ClassVar[int] = 1

    def sources(self) -> Sequence[Path]:
        return ()

    def run(self, work: Work) -> dict[str, Any]:
        write_json(
            work.out / "results.json", {name: str(path) for name, path in work.inputs.items()}
        )
        return {"read": sorted(work.inputs)}


@config
class Overview:
    """Reads everything there is."""

    kind: Literal["overview"] = "overview"
    stages: Annotated[tuple[str, ...], Reads("corpus", "tokens", "results")] = ()
    makes: ClassVar[str] = "report"
    claims: ClassVar[str] = "cpu"
    version: ClassVar[int] = 1
    reads_all: ClassVar[bool] = True

    def sources(self) -> Sequence[Path]:
        return ()

    def run(self, work: Work) -> dict[str, Any]:
        write_text(work.out / "summary.txt", f"read {len(work.inputs)} stages\n")
        return {}


TOYS = {
    "write": Write,
    "count": Count,
    "broken": Broken,
    "deadly": Deadly,
    "compare": Compare,
    "overview": Overview,
}


if __name__ == "__main__":
    pipeline.stages.CATALOGUE.clear()
    pipeline.stages.CATALOGUE.update({kind: f"toys:{cls.__name__}" for kind, cls in TOYS.items()})
    sys.exit(main())
