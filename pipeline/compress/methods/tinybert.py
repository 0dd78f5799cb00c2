"""TinyBERT (Jiao et al. 2020): embeddings, states and attention scores of a narrower student.

The paper's stages are stages here too: general distillation on the corpus, distillation of layers on the task, then
`logits` with `mixing: 1` on the task, each with the student of the one before.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.compress.matching import Match, Method, Pass, Unit, layer_pairs, of_tokens
from pipeline.compress.walk import StackWalk
from pipeline.config import config

Weight = Annotated[float, Field(ge=0)]
WITH_SCORES = ("softmax", "residual")


@config
class TinyBertConfig(Method):
    """Squared distances of embeddings, states and attention scores, summed over layers.

    They are multiplied by `embeddings_weight`, `hidden_weight` and `attention_weight`. Student
    layer m of M learns from teacher layer g(m) = m N / M of N. States of a student of another
    width go through a matrix that is learnt and left behind. `labels_weight` adds cross-entropy.
    """

    type: Literal["tinybert"] = "tinybert"
    embeddings_weight: Weight = 1.0
    hidden_weight: Weight = 1.0
    attention_weight: Weight = 1.0
    labels_weight: Weight = 0.0

    def why_not(self, student: Any, teacher: Any) -> str:
        """Scores are compared head by head."""
        if not self.attention_weight:
            return ""
        ways = "use minilm or logits, or attention_weight 0"
        for whose, shape in (("student", student), ("teacher", teacher)):
            kinds = {layer.mixer.type for layer in shape.core().layers} - set(WITH_SCORES)
            if kinds:
                return f"tinybert compares attention scores, which the {whose}'s {min(kinds)} layers lack; {ways}"
        if student.num_heads != teacher.num_heads:
            return (
                f"tinybert compares heads one by one, and the student has {student.num_heads}, "
                f"the teacher {teacher.num_heads}; {ways}"
            )
        return ""

    def matches(self, student: Any, teacher: Any) -> Sequence[tuple[float, Match]]:
        """Three distances; those of weight 0 are left out."""
        widths = student.hidden_size, teacher.hidden_size
        found = [
            (self.embeddings_weight, Embedded(*widths)),
            (self.hidden_weight, Hidden(*widths)),
            (self.attention_weight, Attention()),
        ]
        return [(weight, match) for weight, match in found if weight]


class Distance(Match):
    """Mean squared distance over the width of |W s - t|, W a matrix where the widths differ (equation 8)."""

    unit: ClassVar[Unit] = "tokens"

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity()
        if student_width != teacher_width:
            self.project = nn.Linear(student_width, teacher_width, bias=False)

    def between(self, one: Tensor, two: Tensor, real: Tensor) -> Tensor:
        """Sum over the real tokens of states [B, T, D]."""
        wide = torch.promote_types(one.dtype, torch.float32)
        return of_tokens((self.project(one).to(wide) - two.to(wide)).square().mean(dim=-1), real)


class Embedded(Distance):
    """Distance of what the first layer reads (equation 9)."""

    name: ClassVar[str] = "embeddings"

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over the tokens of every stack."""
        total = own.logits.new_zeros(())
        for name, walk in own.walks.items():
            one, two = walk.embedded, other.walks[name].embedded
            assert one is not None
            assert two is not None
            total = total + self.between(one, two, walk.real())
        return total


class Hidden(Distance):
    """Distance of the states after each layer, summed over the student's layers (equation 8)."""

    name: ClassVar[str] = "hidden"

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over the tokens of every stack."""
        total = own.logits.new_zeros(())
        for name, walk in own.walks.items():
            states = other.walks[name].states
            for lower, upper in layer_pairs(len(walk.states), len(states)):
                total = total + self.between(walk.states[lower], states[upper], walk.real())
        return total


class Attention(Match):
    """Squared distance of scores before the softmax, summed over layers (equation 7).

    Of a token it is the mean over heads and over the places it sees.
    """

    name: ClassVar[str] = "attention"
    unit: ClassVar[Unit] = "tokens"

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over the tokens of every stack."""
        total = own.logits.new_zeros(())
        for name, walk in own.walks.items():
            there = other.walks[name]
            for lower, upper in layer_pairs(len(walk.states), len(there.states)):
                apart = walk.scores(lower) - there.scores(upper).to(walk.scores(lower).dtype)
                seen = seen_by(walk, lower).to(apart.dtype)
                number = seen.sum(dim=-1).clamp(min=1.0)
                of_heads = (apart.square() * seen).sum(dim=-1) / number
                total = total + of_tokens(of_heads.mean(dim=1), walk.real())
        return total


def seen_by(walk: StackWalk, layer: int) -> Tensor:
    """Which places a token sees in a layer, bool, broadcast to [B, heads, T, T]."""
    mask = walk.views[layer].mask()
    if mask is None:
        length = walk.states[layer].shape[1]
        return torch.ones(1, 1, length, length, dtype=torch.bool, device=walk.states[layer].device)
    return mask
