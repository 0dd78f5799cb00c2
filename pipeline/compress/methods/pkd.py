"""Patient knowledge distillation (Sun et al. 2019): the [CLS] states of inner layers too."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline.compress.matching import Match, Method, Pass, Softened, Unit, Which, layer_pairs
from pipeline.config import config

Above0 = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@config
class PkdConfig(Method):
    """(1 - mixing) cross-entropy + mixing T^2 KL + patience_weight times the distance of [CLS] states.

    Inner layers of the student learn from the teacher's `layers`: even (PKD-Skip: every k-th) or last
    (PKD-Last, those below the top one). The paper searches `temperature` T in 5, 10, 20, `mixing` in
    0.2, 0.5, 0.7 and `patience_weight` in 10, 100, 500, 1000.
    """

    type: Literal["pkd"] = "pkd"
    temperature: Above0 = 5.0
    mixing: Share = 0.5
    patience_weight: Weight = 100.0
    layers: Which = "even"

    @property
    def labels_weight(self) -> float:
        """Weight of the right labels."""
        return 1.0 - self.mixing

    def why_not(self, student: Any, teacher: Any) -> str:
        """[CLS] is an encoder's, one layer has no inner ones, states must be equally wide."""
        if student.type != "encoder":
            return (
                "pkd compares states of [CLS], which only encoders have; use distilbert or tinybert"
            )
        if student.num_layers < 2:
            return "pkd teaches inner layers, and the student has none; give it two layers or more"
        if student.hidden_size == teacher.hidden_size:
            return ""
        return (
            f"pkd compares states, and the student's hidden_size {student.hidden_size} is not the "
            f"teacher's, {teacher.hidden_size}; use logits, tinybert or minilm"
        )

    def matches(self, student: Any, teacher: Any) -> Sequence[tuple[float, Match]]:
        """Softened answers, and patience."""
        pairs = layer_pairs(student.num_layers, teacher.num_layers, self.layers)[:-1]
        softened = Softened(self.temperature)
        return [(self.mixing, softened), (self.patience_weight, Patience(pairs))]


class Patience(Match):
    """|s / |s| - t / |t||^2 of the first token's states (equation 6), as in the released code a mean over layers
    and widths, to which the published weights belong.
    """

    name: ClassVar[str] = "patience"
    unit: ClassVar[Unit] = "rows"
    reads: ClassVar[Literal["logits", "firsts", "walks"]] = "firsts"

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.pairs = list(pairs)

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over rows."""
        lower, upper = ([pair[side] for pair in self.pairs] for side in (0, 1))
        one, two = firsts(own)[:, lower], firsts(other)[:, upper]
        one, two = functional.normalize(one, dim=-1), functional.normalize(two, dim=-1)
        return (one - two.to(one.dtype)).square().mean(dim=(1, 2)).sum()


def firsts(made: Pass) -> Tensor:
    """States of the first token after every layer [B, layers, D], float32 at least."""
    if made.firsts is not None:
        return made.firsts
    [walk] = made.walks.values()
    states = torch.stack([state[:, 0] for state in walk.states], dim=1)
    return states.to(torch.promote_types(states.dtype, torch.float32))
