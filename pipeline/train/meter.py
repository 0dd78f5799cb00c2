"""What a run tells about itself: losses, speed, time left, to the journal and the progress file."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.config import LaunchError
from pipeline.flow.progress import ProgressFile
from pipeline.train.engine import StepResult

if TYPE_CHECKING:
    from pipeline.train.loop import Job


def check_finite(name: str, value: float, step: int) -> None:
    """Raise LaunchError when a figure of `step` says that training has diverged."""
    if not math.isfinite(value):
        raise LaunchError(
            f"the {name} of step {step} is {value}: lower the learning rate, lengthen the warm-up, "
            "or train in float32; the last checkpoint is kept"
        )


class Meter:
    """Counts real tokens and the time of training between two reports."""

    def __init__(self, job: "Job", start: int) -> None:
        self.job = job
        self.tokens_seen = 0.0
        self.tokens = self.flops = 0.0
        self.since = time.monotonic()
        self.progress = ProgressFile(job.out) if job.journal else None
        if self.progress:
            self.progress.update(*job.budget.progress(start))

    def count(self, tokens: float, flops: float = 0.0) -> None:
        """Add one step's real tokens and FLOPs, of all ranks together."""
        self.tokens += tokens
        self.flops += flops

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time that evaluating and saving take."""
        began = time.monotonic()
        yield
        self.since += time.monotonic() - began

    def log(self, step: int, result: StepResult, lr: float, skipped: int) -> None:
        """Read the step's means back (all ranks together) and report those that are finite."""
        objective = self.job.trainable.objective
        means = result.figures(objective)
        loss = sum(weight * means[name] for name, weight in objective.weights.items())
        norm = float(result.grad_norm)
        seconds = max(time.monotonic() - self.since, 1e-9)
        speed = self.tokens / seconds
        self.tokens_seen += self.tokens
        operations = self.flops / seconds
        self.tokens, self.flops, self.since = 0.0, 0.0, time.monotonic()
        if self.job.journal is None or self.progress is None:
            return
        values = {"loss": loss, **means, "lr": lr, "tokens_per_second": speed}
        values["grad_norm"] = norm
        if operations:
            values["tflop_per_second"] = operations / 1e12
        if skipped:
            values["skipped"] = skipped
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self.job.journal.metrics(step, values)
        shown = {name: values[name] for name in ("loss", "tokens_per_second") if name in values}
        done, total, unit = self.job.budget.progress(step)
        self.progress.update(done, total, unit, **shown)
