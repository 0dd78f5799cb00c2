"""Where a run executes. Never what it computes: nothing here enters a fingerprint."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import config


@config
class LaunchConfig:
    """Training jobs as `processes` supervised processes on one machine, at most one on each GPU."""

    type: Literal["local"] = "local"
    processes: Annotated[int, Field(ge=1)] = 1
