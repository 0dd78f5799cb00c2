"""What every stage of distillation is told: the way to distil, and what its student is made of."""

from typing import Annotated, Any

from pydantic import Field

from pipeline.compress.methods import MethodConfig
from pipeline.compress.methods.logits import LogitsConfig
from pipeline.compress.shallow import depths_of, shallow_shape, truncated
from pipeline.compress.splits import Split, Start, even_split
from pipeline.config import ConfigError, config
from pipeline.models import ModelConfig

AtLeastOne = Annotated[int, Field(ge=1)]


@config
class Student:
    """A student taught by a `method`.

    With `num_layers` (and `num_decoder_layers`, the same unless given) it begins as a copy of so many
    layers of the teacher, by `start` the bottom ones, every so manieth (alternate) or the top ones, and
    of everything else in it. With `model` it begins from random weights, in this shape.
    """

    method: MethodConfig = Field(default_factory=LogitsConfig)
    num_layers: AtLeastOne | None = None
    num_decoder_layers: AtLeastOne | None = None
    start: Start = "alternate"
    model: ModelConfig | None = None

    def check_one(self, student: str | None) -> None:
        """ValueError unless a `student` stage, num_layers or model says what the student is."""
        given = [value for value in (student, self.num_layers, self.model) if value is not None]
        if len(given) != 1:
            raise ValueError(
                "the student is another stage's (student), a part of the teacher (num_layers) or new "
                "(model); give one of the three"
            )

    def shape_beside(self, teacher: Any, student: Any | None) -> Any:
        """The student's config beside the teacher's, that of the `student` stage if there is one.

        ConfigError where the teacher has not so many layers.
        """
        if student is not None or self.model is not None:
            return student or self.model
        splits = self._splits(teacher)
        return shallow_shape(teacher, [len(split) for split in splits.values()])

    def why_not(self, teacher: Any, student: Any | None) -> str:
        """Why there is no such student of such a teacher, "" if there is."""
        try:
            shape = self.shape_beside(teacher, student)
        except ConfigError as error:
            return str(error)
        if shape.type != teacher.type:
            return f"the student is of type {shape.type}, the teacher {teacher.type}; they must be alike"
        return self.method.why_not(shape, teacher)

    def built(self, teacher: Any) -> Any:
        """A student that is not another stage's; what is random of it comes from torch's generator."""
        if self.model is None:
            return truncated(teacher, self._splits(teacher.config), self.start).train()
        labels = (teacher.num_labels,) if hasattr(teacher, "num_labels") else ()
        return type(teacher)(self.model, teacher.vocab_size, *labels)

    def _splits(self, teacher: Any) -> dict[str, Split]:
        assert self.num_layers is not None
        wanted = {"decoder": self.num_decoder_layers or self.num_layers}
        splits = {}
        for name, depth in depths_of(teacher).items():
            layers = wanted.get(name, self.num_layers)
            if layers > depth:
                words = f"num_layers: got {layers}; the teacher has {depth}, use so many or fewer"
                raise ConfigError([words])
            splits[name] = even_split(depth, layers)
        return splits
