"""MiniLM (Wang et al. 2020, 2021): how tokens relate in one layer's queries, keys and values, whatever the widths."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.compress.matching import Match, Method, Pass, Unit
from pipeline.compress.methods.tinybert import seen_by
from pipeline.compress.walk import StackWalk
from pipeline.config import config

Relation = Literal["query", "key", "value", "attention"]
AtLeastOne = Annotated[int, Field(ge=1)]
WITH_PROJECTIONS = ("softmax", "residual", "linear", "performer")


@config
class MiniLmConfig(Method):
    """KL of the teacher's relations of tokens and the student's, in the student's last layer.

    The `relations` query, key and value are MiniLM v2's: softmax(A A^T / sqrt(d)), A the vectors of
    one of `relation_heads` heads of width d, into which they are cut anew; as many as the teacher has
    heads unless given. With attention (query by key) and value it is MiniLM v1. The teacher's layer is
    its last, or `teacher_layer`, counted from 1. The KL is multiplied by `relations_weight`;
    `labels_weight` adds cross-entropy.
    """

    type: Literal["minilm"] = "minilm"
    relations: Annotated[tuple[Relation, ...], Field(min_length=1)] = ("query", "key", "value")
    relation_heads: AtLeastOne | None = None
    teacher_layer: AtLeastOne | None = None
    relations_weight: Annotated[float, Field(gt=0)] = 1.0
    labels_weight: Annotated[float, Field(ge=0)] = 0.0

    def why_not(self, student: Any, teacher: Any) -> str:
        """Layers without queries, keys and values, heads that do not come out even, a layer that is not there."""
        heads = self.relation_heads or teacher.num_heads
        for whose, shape in (("student", student), ("teacher", teacher)):
            kinds = {layer.mixer.type for layer in shape.core().layers} - set(WITH_PROJECTIONS)
            if kinds:
                return (
                    f"minilm relates queries, keys and values, which the {whose}'s {min(kinds)} layers "
                    "lack; use logits"
                )
            if words := self._uneven(heads, whose, shape):
                return words
        depth = min(teacher.num_layers, getattr(teacher, "num_decoder_layers", None) or 1 << 30)
        if (self.teacher_layer or 1) > depth:
            return f"teacher_layer {self.teacher_layer} is not there; the teacher has {depth}"
        return ""

    def _uneven(self, heads: int, whose: str, shape: Any) -> str:
        size = shape.heads().head_size
        widths = {shape.heads().num_heads * size}
        for layer in shape.core().layers:
            groups = getattr(layer.mixer, "num_kv_heads", None)
            widths |= {groups * size} if groups else set()
        if len(widths) > 1 and "attention" in self.relations:
            return f"relation attention needs as many keys as queries, and the {whose}'s heads share keys"
        wrong = [width for width in widths if width % heads]
        if not wrong:
            return ""
        return f"relation_heads {heads} do not divide the {whose}'s width of {wrong[0]}; give a divisor of both"

    def matches(self, _student: Any, teacher: Any) -> Sequence[tuple[float, Match]]:
        """One term for all relations."""
        heads = self.relation_heads or teacher.num_heads
        layer = -1 if self.teacher_layer is None else self.teacher_layer - 1
        return [(self.relations_weight, Relations(self.relations, heads, layer))]


class Relations(Match):
    """KL(softmax(T) || softmax(S)) of a token's relations to those it sees, a mean over heads and relations."""

    name: ClassVar[str] = "relations"
    unit: ClassVar[Unit] = "tokens"

    def __init__(self, relations: Sequence[Relation], heads: int, teacher_layer: int) -> None:
        super().__init__()
        self.relations, self.heads, self.teacher_layer = tuple(relations), heads, teacher_layer

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over the tokens of every stack."""
        total = own.logits.new_zeros(())
        for name, walk in own.walks.items():
            seen = seen_by(walk, -1)
            real = walk.real()[:, None, :]
            for relation in self.relations:
                said = self.related(walk, -1, relation, seen)
                wanted = self.related(other.walks[name], self.teacher_layer, relation, seen)
                lost = (wanted.exp() * (wanted - said)).masked_fill(~seen, 0.0).sum(dim=-1)
                total = total + lost.masked_fill(~real, 0.0).sum()
        return total / (self.heads * len(self.relations))

    def related(self, walk: StackWalk, layer: int, relation: Relation, seen: Tensor) -> Tensor:
        """Log of the relations [B, heads, T, T] of tokens in a layer, float32 at least."""
        left, right = ("query", "key") if relation == "attention" else (relation, relation)
        one, two = (self._by_head(walk.projected[name][layer]) for name in (left, right))
        scores = one @ two.mT / math.sqrt(one.shape[-1])
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(~seen, lowest).log_softmax(dim=-1)

    def _by_head(self, states: Tensor) -> Tensor:
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        return wide.unflatten(-1, (self.heads, -1)).transpose(1, 2)
