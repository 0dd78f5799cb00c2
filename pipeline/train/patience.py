"""Early stopping: a run that is given so many evaluations to get better, and ends when they are over.

Its state is in checkpoints, so a run that was interrupted ends where it would have ended.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Patience:
    """The best held-out `name` so far, and the evaluations since; without a `limit` it is never over.

    `sign` is -1 where more of it is better. `best` is signed, so that less is always better.
    """

    name: str | None
    limit: int | None = None
    sign: int = 1
    best: float = math.inf
    waited: int = 0

    def better(self, held_out: Mapping[str, float]) -> bool:
        """Count an evaluation, if this is one; whether it is the best so far."""
        if not held_out or self.name is None:
            return False
        value = self.sign * held_out[self.name]
        found = value < self.best
        self.waited = 0 if found else self.waited + 1
        self.best = min(self.best, value)
        return found

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.limit is not None and self.waited >= self.limit

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"waited": self.waited}

    def load(self, state: Mapping[str, Any], best: float) -> None:
        """Go on from a checkpoint's state; `best` is that of all checkpoints, signed."""
        self.waited, self.best = state.get("waited", 0), best
