"""The run file: which stages a run has, where it keeps what it makes, and where it executes.

Everything that can be wrong with it is found here, before anything runs, and reported at once.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from launch.cluster import ClusterConfig as ClusterConfig
from launch.job import Machine
from launch.local import LocalLaunch
from launch.spec import LaunchConfig
from pipeline.complaints import listed, nearest, shown
from pipeline.config import (
    COMMAND_LINE,
    ConfigError,
    Document,
    assign,
    build,
    config,
    read_document,
)
from pipeline.flow.matrix import Variant, follow, own_variants
from pipeline.flow.references import cycle_in, in_order, references

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")


@config
class RayConfig:
    """Which Ray cluster runs the stages: an address, or a cluster of this run's own on this machine."""

    address: str | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None


@config
class TrackingConfig:
    """MLflow: `uri` null means a SQLite file in the store."""

    enabled: bool = True
    uri: str | None = None


@config
class RunHead:
    """The keys of a run file. `stages` is read stage by stage, each by the class of its kind."""

    stages: dict[str, Any]
    name: str | None = None
    store: Path = Path("store")
    ray: RayConfig = Field(default_factory=RayConfig)
    launch: LaunchConfig = Field(default_factory=LocalLaunch)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class Entry:
    """One stage of a run: its config with all names resolved, the stages it needs, its place."""

    name: str
    config: Any
    needs: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class RunFile:
    """A checked run: its stages in an order in which they can run."""

    name: str
    head: RunHead
    stages: Mapping[str, Entry]

    @property
    def processes(self) -> int:
        """Processes of a training job, where GPUs do not set a limit."""
        return self.head.launch.ranks(Machine(0, 0))


StageClass = Callable[[str], Any]


def read_run_file(
    path: Path, overrides: Sequence[str] = (), *, kinds: Iterable[str], stage_class: StageClass
) -> RunFile:
    """Read, fan out and check a run file; raise ConfigError with every mistake in it.

    `stage_class` gives the config class of a kind; `kinds` are those it knows.
    """
    document = read_document(path, overrides)
    reading = _Reading(document, tuple(kinds), stage_class)
    head = reading.head()
    variants = reading.variants()
    if not reading.problems:
        reading.check(variants)
    if not reading.problems and head is not None:
        reading.compare(variants, head.launch.ranks(Machine(0, 0)))
    if reading.problems or head is None:
        raise ConfigError(list(dict.fromkeys(reading.problems)))
    graph = {name: _needs(variant.config) for name, variant in variants.items()}
    entries = {
        name: Entry(name, one.config, tuple(graph[name]), document.place(("stages", one.base)))
        for name, one in ((name, variants[name]) for name in in_order(graph))
    }
    return RunFile(head.name or path.stem, head, entries)


def _needs(value: Any) -> list[str]:
    return list(dict.fromkeys(name for r in references(value) for name in r.names))


class _Reading:
    """One pass over a document that gathers problems instead of stopping at the first."""

    def __init__(self, document: Document, kinds: tuple[str, ...], stage_class: StageClass) -> None:
        self.document, self.kinds, self.stage_class = document, kinds, stage_class
        self.problems: list[str] = []

    def complain(self, path: Sequence[str], words: str, *, given_at: Sequence[str] = ()) -> None:
        """Note a problem with the value at `path`, which may have been given elsewhere."""
        self.problems.append(f"{self.document.place(given_at or path)}: {'.'.join(path)}: {words}")

    def head(self) -> RunHead | None:
        """Everything but the stages."""
        known = [field.name for field in dataclasses.fields(RunHead)]
        data = dict(self.document.data)
        for key in [key for key in data if key not in known]:
            if self.document.place((key,)) == str(COMMAND_LINE):
                words = "a key of a stage is written stages.NAME.key=value"
                self.complain((key,), f"unknown key; allowed: {', '.join(known)}; {words}")
                del data[key]
        if data.get("stages") == {}:
            self.complain(("stages",), "needs at least one stage")
        try:
            head = build(RunHead, Document(data, self.document.places))
        except ConfigError as error:
            self.problems += error.problems
            return None
        if head.name is not None and not NAME.fullmatch(head.name):
            self.complain(("name",), _bad_name(head.name))
        return head

    def variants(self) -> dict[str, Variant]:
        """Every stage of the run by name, with its config built."""
        stages = self.document.data.get("stages")
        if not isinstance(stages, dict):
            return {}
        own = {base: self._own(base, data, stages) for base, data in stages.items()}
        ready, problems = follow(own)
        for problem in problems:
            self.complain(("stages", problem.base, *problem.keys), problem.words)
        named: dict[str, Variant] = {}
        for variant in (variant for variants in ready.values() for variant in variants):
            if variant.name in named:
                words = f"is one of two stages that would be called {variant.name!r}"
                self.complain(("stages", variant.base), words)
            named[variant.name] = variant
        if self.problems:
            return named
        built = {name: self._built(variant) for name, variant in named.items()}
        return {name: self._reading_all(variant, built) for name, variant in built.items()}

    def _own(self, base: str, data: Any, stages: Mapping[str, Any]) -> list[Variant]:
        """The built variants of one stage in the file; none when something is wrong with it."""
        at = ("stages", base)
        if not NAME.fullmatch(base):
            self.complain(at, _bad_name(base))
        if not isinstance(data, dict):
            self.complain(at, f"got {shown(data)}; allowed: keys and values")
            return []
        kind = data.get("kind")
        if kind is None:
            typed = str(COMMAND_LINE)
            others = [n for n in stages if self.document.place(("stages", n)) != typed]
            if self.document.place(at) == typed:
                close = nearest(base, others) or ";"
                self.complain((*at, *data), f"no such stage{close} stages: {listed(others, base)}")
            else:
                self.complain(at, f"needs the key 'kind'; allowed: {', '.join(self.kinds)}")
            return []
        if not isinstance(kind, str) or kind not in self.kinds:
            words = f"got {shown(kind)}; allowed: {', '.join(self.kinds)}"
            self.complain((*at, "kind"), words + nearest(str(kind), self.kinds))
            return []
        variants, problems = own_variants(base, data)
        for key, words in problems:
            self.complain((*at, *key.split(".", 1)), words)
        return [built for variant in variants if (built := self._built(variant)).config is not None]

    def _built(self, variant: Variant) -> Variant:
        """The variant with its config; a value that the matrix gave is placed at the matrix."""
        at = ("stages", variant.base)
        places = dict(self.document.places)
        for keys in variant.changed:
            places[(*at, *keys)] = self.document.place((*at, "matrix", ".".join(keys)))
        data: dict[str, Any] = {}
        assign(data, at, variant.data)
        try:
            made = build(self.stage_class(variant.data["kind"]), Document(data, places), at)
        except ConfigError as error:
            self.problems += error.problems
            return variant
        return dataclasses.replace(variant, config=made)

    def _reading_all(self, variant: Variant, all_variants: Mapping[str, Variant]) -> Variant:
        """A class that `reads_all` and names nothing is given every stage that makes what it reads."""
        if not getattr(variant.config, "reads_all", False):
            return variant
        for reference in references(variant.config):
            if reference.many and not reference.names:
                names = tuple(
                    name
                    for name, other in all_variants.items()
                    if not getattr(other.config, "reads_all", False)
                    and other.config.makes in reference.reads.artifacts
                )
                [field] = reference.path
                made = dataclasses.replace(variant.config, **{str(field): names})
                variant = dataclasses.replace(variant, config=made)
        return variant

    def check(self, variants: Mapping[str, Variant]) -> None:
        """That every reference names a stage that makes what is needed, and none goes round."""
        for variant in variants.values():
            for reference in references(variant.config):
                for name in reference.names:
                    makes, allowed = variants[name].config.makes, reference.reads.artifacts
                    if makes not in allowed:
                        fit = [n for n, v in variants.items() if v.config.makes in allowed]
                        self.complain(
                            ("stages", variant.base, *reference.keys),
                            f"stage {name!r} makes {makes}; needs one that makes "
                            f"{' or '.join(allowed)}: {', '.join(fit) or 'there is none'}",
                        )
        if cycle := cycle_in({name: _needs(v.config) for name, v in variants.items()}):
            self.complain(("stages", variants[cycle[0]].base), f"reads itself: {' > '.join(cycle)}")

    def compare(self, variants: Mapping[str, Variant], processes: int) -> None:
        """That no stage contradicts those it reads; each kind knows what that is."""
        stages = {name: variant.config for name, variant in variants.items()}
        for name, variant in variants.items():
            if hasattr(stages[name], "conflicts"):
                at = ("stages", variant.base)
                for keys, words in stages[name].conflicts(stages, processes):
                    given = (*at, "matrix", ".".join(keys)) if keys in variant.changed else ()
                    self.complain((*at, *keys), words, given_at=given)


def _bad_name(name: str) -> str:
    return f"{name!r} cannot be a name; allowed: a letter, then up to 79 letters, digits, '-', '_' or '.'"
