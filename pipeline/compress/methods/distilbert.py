"""DistilBERT (Sanh et al. 2019): softened answers, right labels, and states that point the same way."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline.compress.matching import Match, Method, Pass, Softened, Unit, of_tokens
from pipeline.config import config

Above0 = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


@config
class DistilBertConfig(Method):
    """`logits_weight` T^2 KL + `labels_weight` cross-entropy + `cosine_weight` (1 - cos of last states).

    Weights and `temperature` T are those of the authors' training script. Answers are compared at the
    places that are scored, which for masked language modelling are the hidden ones.
    """

    type: Literal["distilbert"] = "distilbert"
    temperature: Above0 = 2.0
    logits_weight: Weight = 5.0
    labels_weight: Weight = 2.0
    cosine_weight: Weight = 1.0

    def why_not(self, student: Any, teacher: Any) -> str:
        """States of different widths have no angle."""
        if student.hidden_size == teacher.hidden_size:
            return ""
        return (
            f"distilbert compares states, and the student's hidden_size {student.hidden_size} is not the "
            f"teacher's, {teacher.hidden_size}; use logits, tinybert or minilm"
        )

    def matches(self, _student: Any, _teacher: Any) -> Sequence[tuple[float, Match]]:
        """Softened answers, and angles."""
        softened = Softened(self.temperature)
        return [(self.logits_weight, softened), (self.cosine_weight, Cosine())]


class Cosine(Match):
    """1 - cos(s, t) of the states after the last layer, of every real token of every stack."""

    name: ClassVar[str] = "cosine"
    unit: ClassVar[Unit] = "tokens"

    def forward(self, own: Pass, other: Pass) -> Tensor:
        """Sum over tokens."""
        total = own.logits.new_zeros(())
        for name, walk in own.walks.items():
            one, two = walk.states[-1], other.walks[name].states[-1]
            cosine = functional.cosine_similarity(one, two.to(one.dtype), dim=-1)
            total = total + of_tokens(1.0 - cosine, walk.real())
        return total
