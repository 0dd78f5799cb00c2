"""The words of the hot path: Row, Example, Batch, Source, Visibility. Free of torch.

A Row is what the `tokens` stage wrote. An objective's `corrupt` turns it into an Example, a dict of arrays with
fixed shapes. A Batch is the same dict with a leading batch dimension, numpy on the host and tensors on a device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Example = dict[str, np.ndarray]
Batch = dict[str, Any]
VisibilityKind = Literal["all", "causal", "reverse", "prefix", "except_self", "mixed"]
IGNORED = -1  # the label of a place that is not scored
# A batch of kind "mixed" names the kind of each example by its place here.
MIXED_KINDS: tuple[VisibilityKind, ...] = ("all", "causal", "reverse", "prefix")


@dataclass(frozen=True)
class Row:
    """One packed row of tokens: `ids` [length <= row_length], cut from documents of the given `lengths`."""

    ids: np.ndarray
    lengths: np.ndarray

    def segments(self) -> np.ndarray:
        """Number of the document each token belongs to, from 1. [length], int64.

        >>> Row(np.array([7, 8, 9]), np.array([2, 1])).segments()
        array([1, 1, 2])
        """
        return np.repeat(np.arange(1, len(self.lengths) + 1), self.lengths)


@dataclass(frozen=True)
class PairRow(Row):
    """A row that holds two texts: what is read, and what is to be written."""

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the inputs and of the targets.

        >>> PairRow(np.array([7, 8, 9]), np.array([2, 1])).sides()
        (array([7, 8]), array([9]))
        """
        inputs = int(self.lengths[0])
        return self.ids[:inputs], self.ids[inputs:]


class Source(Protocol):
    """Examples by number: what a loader reads. The same (index, rng) gives the same example.

    Where examples change in the course of training, `at_step(step)` is the source of that step (from 0), whose examples
    have the same shapes, and the source itself is that of the end. Most have no such method.
    """

    def __len__(self) -> int: ...

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Example number `index`; every random choice comes from `rng`."""
        ...

    def collate(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """One batch of these examples; `stack` unless sequences are trimmed to the longest."""
        ...


def stack(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Examples of equal shapes as one batch."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


@dataclass(frozen=True)
class Visibility:
    """Which keys a query may attend to, as data; a mixer realises it in its own way.

    Query i sees key j if the `kind` allows it, both belong to the same segment, and they are at most `window` positions
    apart. Segment 0 is padding and is seen by nobody. kinds: all; causal (j <= i); reverse (j >= i); prefix (j belongs
    to a prefix, or j <= i); except_self (j != i); mixed (each example has one of MIXED_KINDS, as UniLM's batches do).
    """

    kind: VisibilityKind = "all"
    query_segments: "Tensor | None" = None  # [batch, queries], int; None: one segment, no padding
    key_segments: "Tensor | None" = None  # [batch, keys]
    prefix: "Tensor | None" = (
        None  # [batch] tokens of it, or [batch, keys] bool where rows are packed
    )
    kinds: "Tensor | None" = None  # [batch], places in MIXED_KINDS, for kind "mixed"
    window: int | None = None  # None: any distance
