"""The `distill_pretrain` stage: a smaller language model, detector or T5 that learns from a larger one on a corpus."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from pipeline.compress.distill import Distillation
from pipeline.compress.student import Student
from pipeline.config import ConfigError, DataError, as_dict, config
from pipeline.data.shards import TokenRows
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import load_model, save_model
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector
from pipeline.objectives import ObjectiveConfig
from pipeline.runtime import key_of
from pipeline.stages.pretrain import CorruptedRows
from pipeline.stages.retraining import check_rows, why_not_trained
from pipeline.tokenizer import load_vocabulary
from pipeline.train.run import AtLeastOne, Trainable, TrainSettings

OBJECTIVES = ("mlm", "rtd", "lm", "denoising", "text_to_text", "lae")


@config
class DistillPretrain(Student):
    """Teach a student for `steps` updates what `teacher` says of the rows of `tokens`.

    `objective` says what is asked of the rows, and is one for such models: mlm, lm, denoising,
    text_to_text (where `tokens` may be pairs of texts), lae, or rtd, for which `generator`, a masked
    language model, replaces tokens; without one they are drawn from the vocabulary alike. A `student`
    is another stage's model, to be taught further.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 1

    kind: Literal["distill_pretrain"] = "distill_pretrain"
    teacher: Annotated[str, Reads("language_model")]
    tokens: Annotated[str, Reads("tokens", "text_pairs")]
    objective: ObjectiveConfig
    steps: AtLeastOne
    student: Annotated[str, Reads("language_model")] | None = None
    generator: Annotated[str, Reads("language_model")] | None = None
    train: TrainSettings = Field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        self.check_one(self.student)
        if self.objective.type not in OBJECTIVES:
            raise ValueError(
                f"objective {self.objective.type} asks nothing that a teacher could answer alone; "
                f"allowed: objective.type {' or '.join(OBJECTIVES)}"
            )
        if self.generator is not None and self.objective.type != "rtd":
            raise ValueError(
                f"objective {self.objective.type} replaces no tokens; allowed: objective.type rtd, "
                "or no generator"
            )

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, and say what came out."""
        work.train(self)
        return {"steps": self.steps, "rows": self.train.batches().rows_before(self.steps)}

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Networks, data and objective, the same on every rank."""
        teacher: Any = load_model(inputs[self.teacher] / "model")[0]
        rows, unseen = (TokenRows(inputs[self.tokens], split) for split in ("train", "validation"))
        vocabulary = check_rows(rows, inputs[self.teacher])
        if words := self._unfit(teacher, rows.row_length):
            raise ConfigError([f"objective: {words}"])
        torch.manual_seed(key_of(self.train.seed, "init") % (1 << 63))
        if words := self.why_not(teacher.config, None) if self.student is None else "":
            raise ConfigError([f"method: {words}"])
        student = self._other(self.student, teacher, inputs) or self.built(teacher)
        for words in (
            self.why_not(teacher.config, student.config),
            why_not_trained(self.objective, student.config, rows.row_length),
        ):
            if words:
                raise ConfigError([f"student: {words}"])
        objective = Distillation(
            student,
            teacher,
            self.method,
            teacher_shape=teacher.config,
            generator=self._generator(teacher, inputs),
        )
        corruption = self.objective.corruption(vocabulary, rows.row_length)
        facts = {"objective": as_dict(self.objective), "row_length": rows.row_length}
        return Trainable(
            objective=objective,
            source=CorruptedRows(rows, corruption),
            held_out=CorruptedRows(unseen, corruption),
            steps=self.steps,
            settings=self.train,
            save=lambda folder: save_model(folder, student, vocabulary, facts),
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """An objective or student that is not for this teacher, batches that cannot be shared out."""
        before = stages[self.teacher].shape(stages)
        given = stages[self.student].shape(stages) if self.student else None
        if before is not None and (given is not None or self.student is None):
            row_length = getattr(stages[self.tokens], "row_length", None)
            if words := why_not_trained(self.objective, before, row_length):
                yield ("objective",), words
            if words := self.why_not(before, given):
                yield ("method",), words
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out."""
        before = stages[self.teacher].shape(stages)
        given = stages[self.student].shape(stages) if self.student else None
        return before if self.why_not(before, given) else self.shape_beside(before, given)

    def _unfit(self, teacher: Any, row_length: int) -> str:
        """Why the objective asks nothing of this teacher on such rows, "" if it does."""
        if words := why_not_trained(self.objective, teacher.config, row_length):
            return words
        if (self.objective.type == "rtd") != isinstance(teacher, ReplacedTokenDetector):
            return f"{self.objective.type} is not for a {type(teacher).__name__}; rtd is for detectors and they for it"
        return ""

    def _other(self, stage: str | None, teacher: Any, inputs: Mapping[str, Path]) -> Any:
        """The network of another stage, with the teacher's vocabulary; None without a stage."""
        if stage is None:
            return None
        folder = inputs[stage] / "model"
        own, other = (
            load_vocabulary(place / "tokenizer")
            for place in (folder, inputs[self.teacher] / "model")
        )
        if own.digest != other.digest:
            raise DataError(
                f"{folder}: has another vocabulary than the teacher of {self.teacher!r}"
            )
        network = load_model(folder)[0]
        if stage == self.student and type(network) is not type(teacher):
            kinds = type(network).__name__, type(teacher).__name__
            raise ConfigError(
                [f"student: is a {kinds[0]}, the teacher a {kinds[1]}; they must be alike"]
            )
        return network

    def _generator(self, teacher: Any, inputs: Mapping[str, Path]) -> Any:
        found = self._other(self.generator, teacher, inputs)
        if found is not None and not isinstance(found, MaskedLanguageModel):
            words = f"generator: is a {type(found).__name__}; name a masked language model"
            raise ConfigError([words])
        return found
