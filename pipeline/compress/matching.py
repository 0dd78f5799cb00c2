"""What all ways of distilling are made of: passes of student and teacher, and terms that compare them.

Every term is a sum over what its unit counts, never a mean, so that the engine can divide by the global count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.compress.splits import even_split, groups_of
from pipeline.compress.walk import Walks
from pipeline.data.example import IGNORED

Unit = Literal["answers", "rows", "tokens"]
Which = Literal["even", "last"]


@dataclass(frozen=True)
class Pass:
    """What a network answered, and what it left behind on the way.

    `logits` [..., C] at the places of `labels` [...]. `firsts` [B, layers, D], the states of first
    tokens, come from a cache in place of `walks`.
    """

    logits: Tensor
    labels: Tensor
    walks: Walks = field(default_factory=dict)
    firsts: Tensor | None = None

    def is_asked(self) -> Tensor:
        """Where something is asked, bool [...]; numbers always are."""
        if self.labels.is_floating_point():
            return torch.ones_like(self.labels, dtype=torch.bool)
        return self.labels != IGNORED

    def answers(self, classes: int) -> Tensor:
        """Logits [answers, classes] where something is asked, float32 at least."""
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        return self.logits[self.is_asked()][:, :classes].to(wide)


class Match(nn.Module):
    """A loss term between a student and its teacher: a sum over `unit`s.

    `reads` says what it looks at: "logits" and "firsts" can be computed once and kept, "walks" cannot.
    """

    name: ClassVar[str]
    unit: ClassVar[Unit]
    reads: ClassVar[Literal["logits", "firsts", "walks"]] = "walks"

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """The student's pass `own` beside that of its teacher: a scalar, float32 at least."""
        raise NotImplementedError


class Method:
    """Base of the configs of ways to distil."""

    @property
    def labels_weight(self) -> float:
        """Weight of the cross-entropy of the right labels."""
        raise NotImplementedError

    def why_not(self, _student: Any, _teacher: Any) -> str:
        """Why a student of this shape cannot be taught so by such a teacher, "" if it can."""
        return ""

    def matches(self, _student: Any, _teacher: Any) -> Sequence[tuple[float, Match]]:
        """The terms beside that of the right labels, each with its weight."""
        raise NotImplementedError


class Softened(Match):
    """Kullback-Leibler divergence of the softened answers, T^2 KL(softmax(t / T) || softmax(s / T)) (Hinton 2015).

    The factor keeps gradients as large as those of hard labels. Of numbers, which have no classes, it is
    the squared difference.
    """

    name: ClassVar[str] = "logits"
    unit: ClassVar[Unit] = "answers"
    reads: ClassVar[Literal["logits", "firsts", "walks"]] = "logits"

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over the answers that are asked for."""
        classes = min(own.logits.shape[-1], other.logits.shape[-1])
        scale = self.temperature
        if own.labels.is_floating_point():
            return (own.answers(classes) - other.answers(classes)).square().sum()
        return divergence(own.answers(classes) / scale, other.answers(classes) / scale) * scale**2


def divergence(own: Tensor, other: Tensor) -> Tensor:
    """Sum of KL(softmax(other) || softmax(own)) of logits [..., C]; classes at -inf in both add nothing."""
    said, wanted = own.log_softmax(dim=-1), other.log_softmax(dim=-1)
    chances = wanted.exp()
    difference = torch.where(chances > 0, wanted - said, 0.0)
    return (chances * difference).sum()


def agreement(own: Pass, other: Pass) -> Tensor:
    """How many answers are the same, right or wrong, as a float32 scalar."""
    same = own.logits.argmax(dim=-1) == other.logits.argmax(dim=-1)
    return (same & own.is_asked()).sum().float()


def layer_pairs(student: int, teacher: int, which: Which = "even") -> list[tuple[int, int]]:
    """Layers to compare, from 0, bottom to top: each of the student's with the top of an even group, or the last ones.

    >>> layer_pairs(2, 6), layer_pairs(2, 6, "last")
    ([(0, 2), (1, 5)], [(0, 4), (1, 5)])
    """
    if which == "last":
        return [(n, teacher - student + n) for n in range(student)]
    groups = groups_of(even_split(teacher, student))
    return [(number, group.stop - 1) for number, group in enumerate(groups)]


def of_tokens(values: Tensor, real: Tensor) -> Tensor:
    """Sum of one value for each token, [B, T], over the real ones; float32 at least."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return values.to(wide).masked_fill(~real, 0.0).sum()
