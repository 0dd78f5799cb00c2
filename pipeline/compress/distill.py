"""Distillation: a student and its frozen teacher in one objective, compared term by term.

The teacher sees the student's very batch, in evaluation mode and without gradients; or it is not there at all, and
the batch brings what it said of each row once (`taught`). Which terms there are is the method's business.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.compress.answers import TERMS, Asked, asked, counts_of, logits_of
from pipeline.compress.matching import Match, Method, Pass, agreement
from pipeline.compress.taught import FIRSTS, LOGITS
from pipeline.compress.walk import Walks, walked
from pipeline.objectives.losses import correct_sum, cross_entropy_sum
from pipeline.objectives.objective import Objective, tell_step

METRICS = ("accuracy", "agreement")


class Distillation(Objective):
    """Trains `student` by `method` on what `teacher` says; without one, batches must bring it.

    The cross-entropy of the right labels is always there, under the name that objectives of such
    networks give it, so that every weight has a gradient in every engine; its weight may be 0. Besides
    there are `accuracy` and `agreement`, the share of answers that are the teacher's; where numbers are
    asked for, the term is the squared error, and these are not there. `generator` makes the texts of
    detectors, frozen like the teacher.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any | None,
        method: Method,
        *,
        teacher_shape: Any,
        generator: Any | None = None,
        asks: Literal["labels", "numbers"] = "labels",
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher, self.generator = teacher, generator
        for frozen in self._frozen():
            frozen.requires_grad_(requires_grad=False).eval()
        found = method.matches(student.config, teacher_shape)
        self.matches = nn.ModuleList(match for _, match in found)
        self.asks = asks
        self.term = TERMS[type(student)] if asks == "labels" else "squared_error"
        self._weights = {self.term: method.labels_weight}
        self._weights |= {match.name: weight for weight, match in found}

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the right labels, and of each of the method's terms."""
        return self._weights

    def train(self, mode: bool = True) -> "Distillation":
        """Training mode for the student alone."""
        super().train(mode)
        for frozen in self._frozen():
            frozen.eval()
        return self

    def at_step(self, step: int) -> None:
        """Told to the student; a teacher draws nothing new."""
        tell_step(self.student, step)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Answers, rows or tokens, by the unit of each term."""
        found = counts_of(self.student, batch)
        names = (self.term, *(METRICS if self.asks == "labels" else ()))
        counts = dict.fromkeys(names, found["answers"])
        counts |= {match.name: found[match.unit] for match in self._terms()}
        return {**counts, "tokens": found["tokens"]}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums of all terms, of the student's dropout in training and without any in evaluation."""
        read = asked(self.student, batch, self.generator)
        with walked(self.student) as walks:
            logits = logits_of(self.student, read)
        own = Pass(logits, read["labels"], walks)
        other = self._taught(read)
        return self._right(own, other) | {match.name: match(own, other) for match in self._terms()}

    def _right(self, own: Pass, other: Pass) -> dict[str, Tensor]:
        if self.asks == "numbers":
            return {self.term: (own.logits[:, 0] - own.labels).square().sum()}
        return {
            self.term: cross_entropy_sum(own.logits, own.labels),
            "accuracy": correct_sum(own.logits, own.labels),
            "agreement": agreement(own, other),
        }

    def kept(self) -> Any:
        """The student."""
        return self.student

    @torch.no_grad()
    def _taught(self, read: Asked) -> Pass:
        if LOGITS in read:
            return Pass(read[LOGITS], read["labels"], firsts=read.get(FIRSTS))
        assert self.teacher is not None, "neither a teacher nor what it said"
        walks: Walks
        with walked(self.teacher) as walks:
            logits = logits_of(self.teacher, read)
        return Pass(logits, read["labels"], walks)

    def _terms(self) -> Sequence[Match]:
        return [match for match in self.matches if isinstance(match, Match)]

    def _frozen(self) -> Sequence[nn.Module]:
        return [part for part in (self.teacher, self.generator) if part is not None]
