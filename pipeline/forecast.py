"""What the training of a run will need, told by `theseum plan` before anything runs.

Each training stage that is to run is sketched and rehearsed without numbers: parameters, FLOPs, memory of a rank, disk
and, on stated hardware, time. What does not fit there is refused, with changes that would make it fit.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError, build, read_document
from pipeline.evaluate.report.wording import duration, number, short, size
from pipeline.flow.plan import Step
from pipeline.flow.run_file import ClusterConfig
from pipeline.models.transformer import recompute
from pipeline.objectives.objective import Objective
from pipeline.tokenizer import Vocabulary, load_vocabulary
from pipeline.train.memory import FULL_BYTES, Memory, dtype_of, held_by, rank_memory
from pipeline.train.rehearsal import DeviceType, Rehearsal, rehearsed
from pipeline.train.run import TrainSettings
from pipeline.train.sketch import Sketch, blank_vocabulary, sketch_of

EMBEDDINGS = {"embeddings", "words", "position"}
BLOCKS = {"layers": "blocks", "norm": "blocks"}
USABLE = 0.9  # of a device's memory: libraries and gaps between tensors take the rest
GIB = 1 << 30
MOST_WAYS = 3  # that are told


def read_cluster(path: Path) -> ClusterConfig:
    """The hardware that a YAML file states."""
    return build(ClusterConfig, read_document(path, ()))


def forecasts(
    steps: Sequence[Step], processes: int, hardware: ClusterConfig | None
) -> Iterator[str]:
    """Lines about every training stage that is to run.

    Raises ConfigError, after all have been told, for those that do not fit into `hardware`.
    """
    problems: list[str] = []
    for step in steps:
        if step.state == "done" or step.stage.claims != "job":
            continue
        sketch = _sketched(step, {other.name: other for other in steps})
        if sketch is None:
            yield f"{step.name}: what it needs is told when the stages it reads are done"
            continue
        told = Forecast(sketch, processes, hardware)
        yield f"{step.name}:"
        yield from (f"  {line}" for line in told.lines())
        if words := told.refusal():
            problems.append(f"stages.{step.name}: {words}")
    if problems:
        raise ConfigError(problems)


def _sketched(step: Step, steps: Mapping[str, Step]) -> Sketch | None:
    """From real inputs where they are there, and from configs alone where a stage can say what it will train."""
    if hasattr(step.stage, "sketch"):
        vocabulary = _vocabulary(step.name, steps)
        stages = {name: other.stage for name, other in steps.items()}
        return None if vocabulary is None else step.stage.sketch(stages, vocabulary)
    if all(other.state == "done" for other in step.inputs.values()):
        folders = {name: other.folder for name, other in step.inputs.items()}
        return sketch_of(step.stage.trainable(folders))
    return None


def _vocabulary(name: str, steps: Mapping[str, Step]) -> Vocabulary | None:
    """The vocabulary behind a stage, or a blank one as large; None while its size is not known."""
    step = steps[name]
    if step.stage.makes != "vocab":
        following = getattr(step.stage, "vocab", None) or getattr(step.stage, "tokens", None)
        return _vocabulary(following, steps) if following else None
    if step.state == "done":
        return load_vocabulary(step.folder)
    if hasattr(step.stage, "size"):
        return blank_vocabulary(step.stage.size, step.stage.num_sentinels)
    return None


def parts_of(objective: Objective) -> dict[str, int]:
    """Numbers of parameters by part of the networks; what is shared counts once, where it stands first."""
    parts: Counter[str] = Counter()
    for name, parameter in objective.named_parameters():
        first, *rest = name.split(".")
        label = BLOCKS.get(rest[0], rest[0]) if first == "network" and rest else first
        if first == "network" and EMBEDDINGS.intersection(rest):
            label = "embeddings"
        parts[label] += parameter.numel()
    return dict(parts)


def operations(flops: float) -> str:
    """FLOPs in the unit that fits.

    >>> operations(2.5e10), operations(7.1e19)
    ('25 GFLOP', '71 EFLOP')
    """
    for unit, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if flops >= unit:
            return f"{flops / unit:.3g} {letter}FLOP"
    return f"{flops / 1e9:.3g} GFLOP"


class Forecast:
    """One job, sketched, on `processes` ranks of `hardware` (None: a CPU in float32, no time and no limit)."""

    def __init__(self, sketch: Sketch, processes: int, hardware: ClusterConfig | None) -> None:
        self.sketch, self.processes, self.hardware = sketch, processes, hardware
        self.device_type: DeviceType = hardware.device_type if hardware else "cpu"
        self.rehearsal = self._rehearsed(sketch.settings)
        self.memory = self._memory(sketch.settings, self.rehearsal)

    def precision(self, settings: TrainSettings) -> str:
        """What this job is computed in there; `auto` is bf16 on a GPU and float32 on a CPU."""
        whole = settings.engine.type == "torch" or settings.engine.zero_stage == 0
        if whole:
            return "float32"
        asked = "fp16" if settings.precision.startswith("fp16") else settings.precision
        return {"cuda": "bf16", "cpu": "float32"}[self.device_type] if asked == "auto" else asked

    def _rehearsed(self, settings: TrainSettings) -> Rehearsal:
        recompute(self.sketch.objective, settings.recompute_blocks)
        return rehearsed(
            self.sketch.objective,
            self.sketch.batch(settings.micro_batch),
            device_type=self.device_type,
            dtype=dtype_of(self.precision(settings)),
        )

    def _memory(self, settings: TrainSettings, rehearsal: Rehearsal) -> Memory:
        return rank_memory(
            held_by(self.sketch.objective, settings),
            rehearsal,
            settings,
            ranks=self.processes,
            precision=self.precision(settings),
            batch_bytes=sum(a.nbytes for a in self.sketch.batch(settings.micro_batch).values()),
        )

    @property
    def step_flops(self) -> float:
        """Of a step of a whole batch, on all ranks together; without what is computed a second time."""
        settings = dataclasses.replace(self.sketch.settings, recompute_blocks=None)
        plain = (
            self.rehearsal
            if self.sketch.settings.recompute_blocks is None
            else self._rehearsed(settings)
        )
        return plain.flops * settings.batch / settings.micro_batch

    def lines(self) -> Iterator[str]:
        """What there is to say."""
        sketch, settings = self.sketch, self.sketch.settings
        parts = parts_of(sketch.objective)
        named = ", ".join(f"{name} {short(count)}" for name, count in parts.items())
        yield f"parameters  {short(sum(parts.values()))}: {named}"
        bytes_of = ", ".join(f"{name} {size(count)}" for name, count in self.memory.device.items())
        precision = self.precision(settings)
        ranks = f"1 of {self.processes} ranks" if self.processes > 1 else "1 rank"
        yield f"memory      {size(self.memory.total)} for {ranks} in {precision}: {bytes_of}"
        host = ", ".join(f"{name} {size(count)}" for name, count in self.memory.host.items())
        yield f"host        {host}"
        flops = self.step_flops
        yield f"a step      {number(settings.batch)} rows, {operations(flops)}"
        if sketch.steps is not None:
            epochs = ""
            if sketch.rows:
                epochs = f", {sketch.steps * settings.batch / sketch.rows:.3g} epochs"
            total = sketch.steps * flops
            yield f"in all      {number(sketch.steps)} steps{epochs}, {operations(total)}"
        yield f"disk        {self._disk(settings)}"
        if self.hardware is not None:
            yield f"time        {self._time(self.hardware, flops)}"

    def _disk(self, settings: TrainSettings) -> str:
        held = held_by(self.sketch.objective, settings)
        one = FULL_BYTES * (held.trained + held.spread + held.whole)
        kept = settings.keep_checkpoints + 1  # the next is written beside them
        more = ", more by keep_every" if settings.keep_every else ""
        return f"{size(kept * one)} for {kept} checkpoints of {size(one)}{more}"

    def _time(self, hardware: ClusterConfig, flops: float) -> str:
        """Products at the utilisation that the hardware is said to reach; without evaluation and checkpoints."""
        devices = min(self.processes, hardware.nodes * hardware.devices)
        speed = devices * hardware.peak_flops(self.precision(self.sketch.settings))
        seconds = flops / (speed * hardware.utilisation)
        at = f"at {100 * hardware.utilisation:.0f} % of {speed / 1e12:,.0f} TFLOP/s"
        one = f"{seconds:.3g} s a step"
        if self.sketch.steps is None:
            return f"{one} {at}"
        return f"{duration(seconds * self.sketch.steps)} ({one}) {at}"

    def refusal(self) -> str:
        """Why this does not fit, with changes that would make it fit; "" if it does or nothing is known."""
        if self.hardware is None:
            return ""
        room = USABLE * self.hardware.memory_gib * GIB
        room /= self.hardware.ranks_on_a_device(self.processes)
        if self.memory.total <= room:
            return ""
        words = f"a rank needs {size(self.memory.total)}, and has {size(room)}"
        fitting = (way for way, settings in self._changes() if self._fits(settings, room))
        ways = list(itertools.islice(fitting, MOST_WAYS))
        advice = f"would fit: {' or '.join(ways)}" if ways else "take more or larger devices"
        return f"{words} ({100 * USABLE:.0f} % of what is there); {advice}"

    def _fits(self, settings: TrainSettings, room: float) -> bool:
        return self._memory(settings, self._rehearsed(settings)).total <= room

    def _changes(self) -> Iterator[tuple[str, TrainSettings]]:
        """Changes of settings that save memory, each told as keys of the run file."""
        settings = self.sketch.settings
        ways: list[dict[str, Any]] = []
        smaller = settings.micro_batch // 2
        while smaller and settings.batch % smaller == 0:
            ways.append({"micro_batch": smaller})
            smaller //= 2
        ways.append({"recompute_blocks": 1})
        yield from ((_told(way), dataclasses.replace(settings, **way)) for way in ways)
        if settings.engine.type == "deepspeed":
            for stage in range(settings.engine.zero_stage + 1, 4):
                engine = dataclasses.replace(settings.engine, zero_stage=stage)
                yield (
                    f"train.engine.zero_stage={stage}",
                    dataclasses.replace(settings, engine=engine),
                )
        yield (
            _told({"micro_batch": 1, "recompute_blocks": 1}),
            dataclasses.replace(settings, micro_batch=1, recompute_blocks=1),
        )


def _told(way: Mapping[str, Any]) -> str:
    return " ".join(f"train.{key}={value}" for key, value in way.items())
