"""Where a run executes. Never what it computes: nothing here enters a fingerprint.

One file a launcher, and one line here.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from launch.local import LocalLaunch


def _local_by_default(value: Any) -> Any:
    """`launch: {processes: 2}` is this machine."""
    return {"type": "local", **value} if isinstance(value, Mapping) else value


LaunchConfig = Annotated[LocalLaunch, BeforeValidator(_local_by_default)]
