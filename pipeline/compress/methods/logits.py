"""Logits: learn the teacher's softened answers beside the right ones (Hinton et al. 2015)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.compress.matching import Match, Method, Softened
from pipeline.config import config

Above0 = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@config
class LogitsConfig(Method):
    """(1 - mixing) cross-entropy + mixing T^2 KL(teacher || student), both softened by `temperature` T.

    `mixing` 1 is the teacher alone, as in the prediction-layer step of TinyBERT.
    """

    type: Literal["logits"] = "logits"
    temperature: Above0 = 2.0
    mixing: Share = 0.5

    @property
    def labels_weight(self) -> float:
        """Weight of the right labels."""
        return 1.0 - self.mixing

    def matches(self, _student: Any, _teacher: Any) -> Sequence[tuple[float, Match]]:
        """The softened answers."""
        return [(self.mixing, Softened(self.temperature))]
