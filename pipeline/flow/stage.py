"""What a stage is: a frozen config with a `run` method that writes one folder.

A stage class is decorated with `@config`, so its fields are its YAML keys. A field that names another stage is
marked with `Reads`; that is how the graph is known. A stage knows neither Ray nor the planner: it is given a
`Work`, writes into `work.out` (which survives a kill, so finished parts need not be done again) and returns counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Artifact = Literal[
    "corpus",
    "vocab",
    "tokens",
    "text_pairs",
    "task",
    "language_model",
    "classifier",
    "taught",
    "results",
    "export",
    "report",
]
Claim = Literal["units", "job", "cpu"]
Conflict = tuple[tuple[str, ...], str]  # the keys of a value, and what is wrong with it


@dataclass(frozen=True)
class Reads:
    """Marks a config field as the name (or names) of stages whose output is read, and what they must make."""

    artifacts: tuple[Artifact, ...]

    def __init__(self, *artifacts: Artifact) -> None:
        object.__setattr__(self, "artifacts", artifacts)


@dataclass(frozen=True)
class Remote:
    """A file behind an address; `mark` changes when its content does, as far as its store says so."""

    url: str
    mark: str


class Work(Protocol):
    """What a running stage may use."""

    out: Path
    inputs: Mapping[str, Path]

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        unit: str,
        amounts: Callable[[Result], Mapping[str, float]] | None = None,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:
        """Results of a module-level `function` for each item, in the order of `items`, computed anywhere.

        Items and results are small (paths and counts). Progress is reported in `unit`s, and a second in
        the `amounts` of each result. A unit that writes files skips itself when its output is already
        there. One whose worker died several times ends the stage, unless `lost` gives a result for it.
        """
        ...

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        """Say how far this stage is."""
        ...

    def train(self, stage: "Stage") -> None:
        """Run `stage` as a training job of several processes and return when its completion marker is there."""
        ...


class Stage(Protocol):
    """The protocol of a stage config. `version` goes up when the same config makes something else.

    A stage may also have `conflicts(stages, processes)`, an iterator of `Conflict`s: what in it
    contradicts the configs of the stages it reads, or the processes it will run as. It is asked
    before anything runs, when every reference is known to be right.
    """

    makes: ClassVar[Artifact]
    claims: ClassVar[Claim]  # units: many small tasks; job: a training job; cpu: one process
    version: ClassVar[int]

    @property
    def kind(self) -> str:
        """The name of the kind, which is what a run file says."""
        ...

    def sources(self) -> Sequence[Path | Remote]:
        """Files from outside the store that this stage reads; their content (of remote ones their mark) is part
        of the fingerprint.
        """
        ...

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the stage's output into `work.out`; return what there is to say about it (JSON)."""
        ...
