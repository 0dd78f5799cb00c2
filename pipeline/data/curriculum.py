"""Curriculum by length: rows are short at first and grow to their full length (Li, Zhang and He 2022).

The length of a step is computed from its number, and a row is cut to its first tokens when it is read. So the order of
rows stays as it is, seeking stays free, and neither workers, ranks nor restarts can change what a step reads.
"""

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from pipeline.config import config
from pipeline.data.example import Row

STAIR = 8  # tokens by which rows grow


class Rows(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Row:
        """Row number `index`."""
        ...


@config
class Curriculum:
    """Cut rows to `first_tokens` at first, then to more and more; from step number `steps` on they are whole.

    This is sequence length warm-up (Li, Zhang and He 2022): the length rises in a straight line, in stairs
    of 8 tokens, and what is cut off a row is not read before its next epoch. A step has as many rows as
    ever, so it reads fewer tokens and takes less time; held-out figures are always those of whole rows.
    """

    first_tokens: Annotated[int, Field(ge=STAIR)]
    steps: Annotated[int, Field(ge=1)]

    def length(self, step: int, row_length: int) -> int:
        """Tokens to which rows of `row_length` are cut at `step` (from 0).

        >>> [Curriculum(first_tokens=10, steps=3).length(step, 32) for step in range(4)]
        [10, 16, 24, 32]
        """
        left = max(self.steps - step, 0)
        stairs = -(-(row_length - self.first_tokens) * left // (self.steps * STAIR))
        return max(row_length - stairs * STAIR, self.first_tokens)

    def why_not(self, row_length: int) -> str:
        """Why this is nothing for rows of `row_length`, "" if it is something."""
        if self.first_tokens < row_length:
            return ""
        return (
            f"first_tokens {self.first_tokens} are not fewer than the {row_length} of whole rows, so nothing "
            "would be cut; use fewer, or no curriculum"
        )


@dataclass(frozen=True)
class CutRows:
    """`rows`, each cut to its first `length` tokens."""

    rows: Rows
    length: int

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        """The beginning of row number `index`."""
        row = self.rows.row(index)
        ends = np.minimum(np.cumsum(row.lengths), self.length)
        lengths = np.diff(ends, prepend=0)
        return Row(row.ids[: self.length], lengths[lengths > 0])
