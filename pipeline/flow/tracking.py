"""What a run tells a tracking server: the verbs, and the server that is not there."""

from pathlib import Path
from typing import Protocol


class Tracking(Protocol):
    """One parent for the run, one child for each stage. No verb raises or delays a stage."""

    def stage_started(self, name: str, partial: Path) -> None:
        """A stage begins, or continues, in its partial folder."""

    def stage_finished(self, name: str, folder: Path) -> None:
        """A stage is done; its output is in `folder`."""

    def stage_failed(self, name: str) -> None:
        """A stage failed or was stopped."""

    def run_finished(self, status: str) -> None:
        """The run ends: FINISHED, FAILED or KILLED, as MLflow calls it."""


class NoTracking:
    """Tracking turned off."""

    def stage_started(self, name: str, partial: Path) -> None:
        """Nothing to do."""

    def stage_finished(self, name: str, folder: Path) -> None:
        """Nothing to do."""

    def stage_failed(self, name: str) -> None:
        """Nothing to do."""

    def run_finished(self, status: str) -> None:
        """Nothing to do."""
