"""Whole training jobs, each run once per session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_job import Losses, losses_of, write_job

from launch.local import run_job


@pytest.fixture(scope="session")
def trained(token_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Losses]:
    """Run a job to its end and return its losses; the same job is run once per session."""
    done: dict[str, Losses] = {}

    def run(*, processes: int = 1, **job: Any) -> Losses:
        key = f"{processes} {sorted(job.items())}"
        if key not in done:
            out = tmp_path_factory.mktemp("job")
            run_job(write_job(out, token_folder, **job), processes=processes)
            done[key] = losses_of(out)
        return done[key]

    return run
