"""The training loop: batch, step, then now and then log, evaluate, save. It never asks which objective runs."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipeline.config import LaunchError
from pipeline.data.example import Source
from pipeline.data.loader import Loader, held_out
from pipeline.heartbeat import Heartbeat
from pipeline.objectives.objective import Objective
from pipeline.runtime import Ranks, rng_of
from pipeline.track.tracker import Journal
from pipeline.train import checkpoint
from pipeline.train.engine import (
    Engine,
    HostBatch,
    StepResult,
    accumulate,
    global_figures,
    reduce_sum,
)
from pipeline.train.flops import StepFlops
from pipeline.train.guard import Guard, Outcome
from pipeline.train.meter import Meter, check_finite
from pipeline.train.patience import Patience
from pipeline.train.run import Trainable
from pipeline.train.saving import Saver
from pipeline.train.until import Budget
from pipeline.train.variance import variance_figures

# Travel with the counts.
STOP, SAVE, CLOCK, FLOPS = "asked to stop", "time to save", "seconds on rank 0", "operations"


class Preempted(Exception):
    """The job was asked to stop and has saved its state."""


@dataclass
class Job:
    """One process's view of a running job."""

    trainable: Trainable
    engine: Engine
    ranks: Ranks
    out: Path
    journal: Journal | None  # on rank 0 only
    stop_asked: Callable[[], bool]
    saver: Saver | None = None  # on rank 0 only
    fresh: Callable[[], Objective] | None = None  # the same objective, untouched by the engine
    shapes: Objective | None = None  # the same without numbers: what FLOPs are counted by
    heart: Heartbeat = field(init=False)
    guard: Guard = field(init=False)
    budget: Budget = field(init=False)
    patience: Patience = field(init=False)
    flops: StepFlops = field(init=False)

    def __post_init__(self) -> None:
        settings = self.trainable.settings
        self.heart = Heartbeat(self.out, self.ranks.rank)
        self.guard = Guard(settings.max_skipped, settings.spike)
        self.budget = self.trainable.budget()
        self.patience = settings.patience_for(self.trainable.objective.rising)
        self.flops = StepFlops(self.shapes)


def fit(job: Job) -> int:
    """Train to the end of the budget, from the newest intact checkpoint if there is one. Returns the steps done."""
    settings = job.trainable.settings
    loader = Loader(
        job.trainable.source,
        seed=settings.seed,
        batch=settings.batch,
        micro_batch=settings.micro_batch,
        ranks=job.ranks,
        order=job.trainable.order,
        warmup=settings.batch_warmup,
    )
    step, guard, budget = resume(job), job.guard, job.budget
    meter = Meter(job, step)
    if step == 0:
        with meter.paused():
            evaluate(job, step=0)
    saved, patience = step, job.patience
    while not (budget.over(step) or patience.over):
        job.heart.beat()
        micro_batches = loader.micro_batches(guard.batch_of(step))
        job.heart.beat()
        counts = agree(job, micro_batches)
        stop, due, clock, flops = (counts.pop(name) for name in (STOP, SAVE, CLOCK, FLOPS))
        if step > saved and (stop or due):
            save(job, step)
            saved = step
        if stop:
            finish_saving(job)
            raise Preempted
        budget.seconds = clock  # not before: what a stop saves is not at its end
        job.trainable.objective.train().at_step(step)  # draws are for what trains
        lr = settings.optimizer.lr * settings.schedule.at(budget.place(step))
        refuses = guard.stands_out if guard.spike else None
        key = settings.seed * 1_000_003 + step
        result = job.engine.step(micro_batches, counts, lr, key, refuses)
        budget.add(tokens=counts["tokens"], flops=flops)
        done, last = step + 1, budget.over(step + 1)
        if not accepted(job, loader, step, result):
            step = saved = rewind(job, step)
            continue
        meter.count(counts["tokens"], flops)
        if done % settings.log_every == 0 or last:
            meter.log(done, result, lr, guard.skipped)
        with meter.paused():
            held_out: dict[str, float] = {}
            if done % settings.evaluate_every == 0 or last:
                held_out = evaluate(job, step=done)
            better = patience.better(held_out)
            if done % settings.checkpoint_every == 0 or last or better or patience.over:
                save(job, done, held_out)
                saved = done
            measure_variance(job, done)
        step = done
    finish_saving(job)
    return step


def accepted(job: Job, loader: Loader, step: int, result: StepResult) -> bool:
    """Whether training goes on to the next step; an update that was refused is told in the journal.

    Raises GivenUp when there were too many.
    """
    guard = job.guard
    if result.outcome is Outcome.APPLIED:
        guard.applied(result.loss, result.grad_norm)
        return True
    if job.journal:
        epochs, rows = loader.rows_of(guard.batch_of(step))
        words = f"step {step + 1} was skipped: {result.outcome}"
        job.journal.note(warning=words, skipped_step=step + 1, epochs=epochs, rows=rows)
    rewinds = guard.rewinds(result.outcome) and back_from(job, step) > 0
    guard.refused(result.outcome, step)
    return not rewinds


def back_from(job: Job, step: int) -> int:
    """Where a rewind from `step` leads: a checkpoint of `checkpoint_every` that is intact, 0 if there is none.

    Those that the clock or a signal asked for do not count, so that an interrupted run goes back as far as others.
    """
    every = job.trainable.settings.checkpoint_every
    target = step // every * every
    finish_saving(job)
    folder = job.out / "checkpoints" / checkpoint.name_of(target)
    damaged = job.ranks.rank == 0 and (target == 0 or checkpoint.damage_of(folder) is not None)
    return 0 if reduce_sum(torch.tensor([float(damaged)])).item() else target


def rewind(job: Job, step: int) -> int:
    """Go back to the checkpoint before `step` and leave out the batches since; returns the step to go on from."""
    to = step // job.trainable.settings.checkpoint_every * job.trainable.settings.checkpoint_every
    folder = job.out / "checkpoints" / checkpoint.name_of(to)
    facts = checkpoint.facts_of(folder)
    job.guard.rewound(to, step, facts.get("guard", {}))
    job.budget.load(facts.get("budget", {}))
    job.patience.load(facts.get("patience", {}), job.patience.best)
    job.engine.load(checkpoint.read_state(checkpoint.Checkpoint(folder, to, {})))
    if job.journal:
        job.journal.note(rewound_from_step=step + 1, rewound_to_step=to)
    return to


def agree(job: Job, micro_batches: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Global counts of this step, how many ranks were asked to stop or to save, and the time: one reduction for all."""
    local: dict[str, float] = {}
    for batch in micro_batches:
        for name, count in job.trainable.objective.counts(batch).items():
            local[name] = local.get(name, 0) + count
    due = job.saver is not None and job.saver.due()
    local |= {
        STOP: float(job.stop_asked()),
        SAVE: float(due),
        CLOCK: job.budget.clock() if job.ranks.rank == 0 else 0.0,
        FLOPS: float(sum(map(job.flops.of, micro_batches))),
    }
    return global_counts(local)


def global_counts(local: Mapping[str, float]) -> dict[str, float]:
    """Counts of this rank added to those of all others."""
    names = sorted(local)
    values = torch.tensor([local[name] for name in names], dtype=torch.float64)
    return dict(zip(names, reduce_sum(values).tolist(), strict=True))


def evaluate(job: Job, step: int) -> dict[str, float]:
    """Held-out figures of the objective, and the loss by which all networks of its kind are compared."""
    objective, source = job.trainable.objective, job.trainable.held_out
    if source is None:
        return {}
    means = held_out_figures(job, objective, source)
    if (measure := job.trainable.yardstick) is not None:
        [term] = measure.objective.weights
        common = held_out_figures(job, measure.objective, measure.source)
        means[measure.name] = common[term]
    for name, value in means.items():
        check_finite(f"held_out/{name}", value, step)
    if job.journal:
        job.journal.metrics(step, {f"held_out/{name}": value for name, value in means.items()})
    return means


def held_out_figures(job: Job, objective: Objective, source: Source) -> dict[str, float]:
    """Figures on fixed rows with fixed noise, the same at every step and for every world size."""
    counts: dict[str, float] = {}
    sums: dict[str, torch.Tensor] = {}
    other = None if objective is job.trainable.objective else objective
    for batch, mine in held_out_rounds(job, source):
        found = job.engine.evaluate(batch, other)
        accumulate(sums, {name: value * mine for name, value in found.items()})
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count * mine
    return global_figures(objective, sums, global_counts(counts))


def held_out_rounds(job: Job, source: Source) -> Iterator[tuple[HostBatch, bool]]:
    """This rank's held-out batches, and filler (False) so that every rank runs the same number of forwards.

    ZeRO 3 gathers weights inside the forward, so a rank that skips one would leave the others waiting.
    """
    settings, ranks = job.trainable.settings, job.ranks
    rows = min(settings.evaluate_rows, len(source))
    largest_share = -(-rows // ranks.world_size)
    rounds = -(-largest_share // settings.micro_batch)
    batches = held_out(
        source,
        rows=rows,
        seed=settings.seed,
        micro_batch=settings.micro_batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    filler = source.collate([source.example(0, rng_of(settings.seed, "filler"))])
    for _ in range(rounds):
        job.heart.beat()
        batch = next(batches, None)
        yield (filler, False) if batch is None else (batch, True)


def measure_variance(job: Job, step: int) -> None:
    """Variance of gradients now, from a copy of the networks, when the settings ask for it."""
    wanted = job.trainable.settings.variance
    if wanted is None or (step % wanted.every and not job.budget.over(step)):
        return
    assert job.fresh is not None, "a job that measures variance is told how to copy its networks"
    figures = variance_figures(
        job.fresh,
        job.engine.state().tensors,
        job.trainable.source,
        wanted,
        seed=job.trainable.settings.seed,
        ranks=job.ranks,
        device=job.engine.device,
        step=step,
    )
    if job.journal:
        job.journal.metrics(step, figures)


def save(job: Job, step: int, held_out: Mapping[str, float] | None = None) -> None:
    """Begin a checkpoint; every rank takes part in gathering, rank 0 writes."""
    state = job.engine.state()
    job.heart.beat()
    if job.saver:
        facts = {
            "world_size": job.ranks.world_size,
            "precision": job.engine.precision,
            "held_out": held_out or {},
            "guard": job.guard.state(),
            "budget": job.budget.state(),
            "patience": job.patience.state(),
        }
        job.saver.save(step, state, facts)


def best_weights(job: Job) -> Mapping[str, torch.Tensor]:
    """What is handed on: the weights of the best checkpoint where the run had patience, else those of now."""
    patience, root = job.patience, job.out / "checkpoints"
    state = job.engine.state()
    if patience.limit is None or patience.name is None or job.ranks.rank:
        return state.tensors
    best = checkpoint.best_of(root, patience.name, patience.sign)
    if best is None:
        return state.tensors
    step = int(best.name.removeprefix("step-"))
    if job.journal:
        job.journal.note(handed_on_step=step)
    return checkpoint.read_state(checkpoint.Checkpoint(best, step, {})).tensors


def finish_saving(job: Job) -> None:
    """Return when what was begun is on disk; ranks that do not write wait for the one that does."""
    if job.saver:
        job.saver.wait()
    reduce_sum(torch.zeros(1))


def resume(job: Job) -> int:
    """Load the newest intact checkpoint; rank 0 chooses, the others follow. Returns the steps done."""
    root = job.out / "checkpoints"
    chosen = torch.full((1,), -1.0, dtype=torch.float64)
    if job.ranks.rank == 0:
        found, complaints = checkpoint.newest_intact(root)
        if job.journal:
            for line in complaints:
                job.journal.note(warning=line)
        chosen[0] = found.step if found else 0
    else:
        chosen[0] = 0
    step = int(reduce_sum(chosen).item())
    if step == 0:
        return 0
    folder = root / checkpoint.name_of(step)
    if not folder.exists():
        raise LaunchError(
            f"{folder}: rank 0 resumes from it, rank {job.ranks.rank} cannot see it; "
            "the store must be on a file system that all nodes share"
        )
    facts = checkpoint.facts_of(folder)
    job.guard.load(facts.get("guard", {}))
    job.budget.load(facts.get("budget", {}))
    job.budget.start_clock()
    patience = job.patience
    best = checkpoint.best_value(root, patience.name, patience.sign) if patience.name else math.inf
    patience.load(facts.get("patience", {}), best)
    job.engine.load(checkpoint.read_state(checkpoint.Checkpoint(folder, step, {})))
    if job.journal:
        job.journal.note(resumed_from_step=step)
    return step
