"""A training job as launchers see it, and what every launcher can do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class TrainingJob:
    """`python -m pipeline.train file` as `processes` ranks of `threads` threads each.

    It has succeeded when `done.json` is in the folder that the file calls `out`.
    """

    file: Path
    processes: int
    threads: int


@dataclass(frozen=True)
class Machine:
    """CPUs and GPUs of the largest machine of the cluster that runs the stages."""

    cpus: int
    gpus: int


class Launcher(Protocol):
    """What `launch:` of a run file is: where and how training jobs are started."""

    def ranks(self, machine: Machine) -> int:
        """Processes of a job. Results depend on it, not on where they run."""
        ...

    def claim(self, job_processes: int, threads: int, machine: Machine) -> Machine:
        """What of the cluster of the stages a job takes while it runs: nothing if it runs elsewhere."""
        ...

    def run(self, job: TrainingJob) -> None:
        """Run a job until its completion marker is there; raise LaunchError or GivenUp with the reason if it fails.

        Called in a process of its own; an interruption (KeyboardInterrupt) asks the job to save and leave.
        """
        ...
